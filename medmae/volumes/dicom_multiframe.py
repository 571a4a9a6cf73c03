"""DICOM files that hold many frames: enhanced CT/MR/PET volumes, and cine loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medmae.errors import BadInput
from medmae.volumes.frames import choose_frame
from medmae.volumes.geometry import Geometry
from medmae.volumes.simpleitk_images import execute, open_reader, simpleitk
from medmae.volumes.volume import Volume

if TYPE_CHECKING:
    from medmae.volumes.dicom_series import SliceHeader


def read_multiframe(header: SliceHeader, frame: int | None) -> Volume:
    """Read a multi-frame file: one volume when its frames are placed in the patient, otherwise the chosen frame.

    Raises:
        BadInput: the places of the frames cannot be read or do not make one volume; a loop without `frame`.
    """
    image = execute(open_reader(header.path), header.path)
    array = simpleitk().GetArrayFromImage(image)
    colours = image.GetNumberOfComponentsPerPixel()
    array = np.moveaxis(array.reshape(-1, header.size[1], header.size[0], colours), -1, 0)
    places = None if frame is not None else frame_headers(header)
    if places is None:
        chosen = choose_frame(header.path, array.shape[1], frame)
        rows, columns = header.spacing_mm or (1.0, 1.0)
        geometry = Geometry.of((1, header.size[1], header.size[0]), (1.0, rows, columns), axes="LPS")
        return Volume(np.ascontiguousarray(array[:, chosen:chosen + 1]), geometry, is_2d=True,
                      spacing_known=header.spacing_mm is not None, source=str(header.path), modality=header.modality)
    from medmae.volumes.dicom_series import series_geometry, sort_slices

    ordered = sort_slices(header.path, places)
    order = [int(place.instance) for place in ordered]
    return Volume(np.ascontiguousarray(array[:, order]), series_geometry(header.path, ordered),
                  source=str(header.path), modality=header.modality)


def frame_headers(header: SliceHeader) -> list[SliceHeader] | None:
    """One header per frame, its number as `instance`; None when the frames have no place in the patient."""
    from medmae.volumes.dicom_series import SliceHeader

    try:
        import pydicom
    except ImportError:
        raise BadInput(f"{header.path} is a multi-frame DICOM file; reading the places of its frames needs pydicom. "
                       "Install it with: pip install pydicom; or choose one image with --frame.") from None
    dataset = pydicom.dcmread(header.path, stop_before_pixels=True)
    shared = _first(dataset.get("SharedFunctionalGroupsSequence"))
    headers = []
    for index, groups in enumerate(dataset.get("PerFrameFunctionalGroupsSequence") or []):
        position = _functional(groups, shared, "PlanePositionSequence", "ImagePositionPatient")
        orientation = _functional(groups, shared, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = _functional(groups, shared, "PixelMeasuresSequence", "PixelSpacing")
        thickness = _functional(groups, shared, "PixelMeasuresSequence", "SliceThickness")
        if position is None or orientation is None or spacing is None:
            return None
        headers.append(SliceHeader(
            header.path, header.series, str(index), header.description, header.modality, header.size, 1,
            (float(spacing[0]), float(spacing[1])), np.array(position, float),
            np.array(orientation, float).reshape(2, 3), float(thickness or 1.0)))
    return headers or None


def _functional(groups: Any, shared: Any, sequence: str, name: str) -> Any:
    """A value of the frame's own functional groups, or of those that all frames share."""
    for source in (groups, shared):
        item = _first(source.get(sequence)) if source is not None else None
        if item is not None and item.get(name) is not None:
            return item.get(name)
    return None


def _first(sequence: Any) -> Any:
    return sequence[0] if sequence else None
