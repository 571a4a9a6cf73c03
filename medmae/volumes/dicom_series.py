"""Reading DICOM: a folder in any order, or single files."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmae.errors import BadInput
from medmae.volumes.frames import choose_component
from medmae.volumes.geometry import Geometry
from medmae.volumes.simpleitk_images import LPS_TO_RAS, execute, open_reader, simpleitk
from medmae.volumes.volume import Volume

_log = logging.getLogger(__name__)

# Slice distances are compared with their median; positions are decimal text with two or three digits after the point.
_UNEVEN_FRACTION, _UNEVEN_MM = 0.05, 0.02
_SAME_PLACE_MM = 1e-3


@dataclass(frozen=True, eq=False)
class SliceHeader:
    """What one DICOM file says about itself.

    Attributes:
        path: the file.
        series: series instance UID.
        instance: SOP instance UID.
        description: series description and modality, for messages.
        modality: DICOM code, "" when it is not stated.
        size: (columns, rows).
        frames: number of frames in the file.
        spacing_mm: (rows, columns) distance in mm; None when unknown.
        position: (3,) LPS mm of the first voxel; None for projections and pictures.
        orientation: (2, 3) LPS directions of the row and the column; None likewise.
        thickness_mm: the stated slice distance or thickness, used for single slices only.
    """

    path: Path
    series: str
    instance: str
    description: str
    modality: str
    size: tuple[int, int]
    frames: int
    spacing_mm: tuple[float, float] | None
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None
    thickness_mm: float

    @property
    def normal(self) -> NDArray[np.float64]:
        """LPS unit vector across the slice."""
        assert self.orientation is not None
        normal = np.cross(self.orientation[0], self.orientation[1])
        return normal / np.linalg.norm(normal)


def is_dicom_file(path: Path | str) -> bool:
    """Whether a file is DICOM by its signature, or by its ending where the signature is left out (old files)."""
    path = Path(path)
    if not path.is_file() or path.name.upper() == "DICOMDIR":
        return False
    with open(path, "rb") as file:
        start = file.read(132)
    return start[128:132] == b"DICM" or (path.suffix.lower() in (".dcm", ".ima", ".dicom") and len(start) == 132)


def is_dicom_folder(path: Path | str) -> bool:
    """Whether a folder directly contains DICOM files."""
    return any(is_dicom_file(file) for file in sorted(Path(path).iterdir()))


def read_dicom(path: Path, *, frame: int | None = None, series: str | None = None) -> Volume:
    """Read the series in a folder (its subfolders when it has no DICOM file itself), or one file.

    The distance of the slices is taken from their positions. Values are those after rescale slope and intercept.

    Raises:
        BadInput: no DICOM file, several series and none chosen, slices missing, doubled or of different size.
    """
    headers = read_slice_headers(path)
    chosen = choose_series(path, headers, series)
    if chosen[0].frames > 1:
        from medmae.volumes.dicom_multiframe import read_multiframe

        _refuse_several(path, chosen)
        return read_multiframe(chosen[0], frame)
    if chosen[0].position is None or chosen[0].orientation is None:
        _refuse_several(path, chosen)
        return choose_component(_projection(chosen[0], path), frame)
    ordered = sort_slices(path, chosen)
    volume = Volume(_read_voxels(ordered), series_geometry(path, ordered), source=str(path),
                    modality=ordered[0].modality)
    return choose_component(volume, frame)


def read_slice_headers(path: Path) -> list[SliceHeader]:
    """The headers of a file, or of the DICOM files in a folder (in its subfolders when it has none itself).

    Raises:
        BadInput: there is no DICOM file, or one is damaged.
    """
    headers = [read_slice_header(file) for file in _dicom_files(path)]
    if not headers:
        raise BadInput(f"The folder {path} contains no DICOM files. Give an image file or a folder of DICOM slices.")
    return headers


def read_slice_header(path: Path) -> SliceHeader:
    """Read the tags of one DICOM file that place it; raises BadInput when it is damaged."""
    reader = open_reader(path)
    keys = set(reader.GetMetaDataKeys())

    def text(tag: str) -> str:
        return str(reader.GetMetaData(tag)).strip().strip("\x00") if tag in keys else ""

    def numbers(tag: str, count: int) -> NDArray[np.float64] | None:
        parts = text(tag).split("\\")
        try:
            values = np.array([float(part) for part in parts])
        except ValueError:
            return None
        return values if len(values) == count and np.isfinite(values).all() else None

    spacing = numbers("0028|0030", 2)
    if spacing is None:
        spacing = numbers("0018|1164", 2)  # imager pixel spacing of a radiograph
    orientation, thickness = numbers("0020|0037", 6), numbers("0018|0088", 1)
    if thickness is None or thickness[0] <= 0:
        thickness = numbers("0018|0050", 1)
    size, frames = reader.GetSize(), numbers("0028|0008", 1)
    return SliceHeader(
        path=path, series=text("0020|000e"), instance=text("0008|0018"),
        description=" ".join(part for part in (text("0008|0060"), text("0008|103e")) if part),
        modality=text("0008|0060").upper(), size=(size[0], size[1]), frames=int(frames[0]) if frames is not None else 1,
        spacing_mm=(float(spacing[0]), float(spacing[1])) if spacing is not None and (spacing > 0).all() else None,
        position=numbers("0020|0032", 3), orientation=None if orientation is None else orientation.reshape(2, 3),
        thickness_mm=float(abs(thickness[0])) if thickness is not None and thickness[0] else 1.0)


def sort_slices(path: Path, headers: list[SliceHeader]) -> list[SliceHeader]:
    """Order the slices of a series along their normal; identical copies of a slice are left out with a warning.

    Raises:
        BadInput: slices differ in size, spacing or direction, share a place, or one is missing between them.
    """
    first = headers[0]
    for header in headers[1:]:
        if header.size != first.size or header.frames != first.frames or not _same_plane(header, first):
            raise BadInput(f"The DICOM series in {path} mixes slices of different size, spacing or direction "
                           f"({first.path.name} and {header.path.name}), for example a localizer with the scan. "
                           "Keep the slices of one volume only.")
    unique = list({header.instance or str(header.path): header for header in headers}.values())
    if len(unique) < len(headers):
        _log.warning("%s: %d files are copies of other slices and were left out.", path, len(headers) - len(unique))
    places = np.array([first.normal @ header.position for header in unique if header.position is not None])
    order = np.argsort(places, kind="stable")
    _refuse_uneven(path, [unique[index] for index in order], places[order])
    return [unique[index] for index in order]


def series_geometry(path: Path, ordered: list[SliceHeader]) -> Geometry:
    """The grid of sorted slices; a series whose slices shift sideways (gantry tilt) is refused as sheared."""
    first, last = ordered[0], ordered[-1]
    if first.orientation is None or first.position is None or last.position is None or first.spacing_mm is None:
        raise BadInput(f"The DICOM series in {path} does not state its pixel spacing, so sizes in mm are unknown. "
                       "Convert it with a tool that can add it.")
    row, column = first.orientation / np.linalg.norm(first.orientation, axis=1, keepdims=True)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = row * first.spacing_mm[1], column * first.spacing_mm[0]
    lps[:3, 2] = ((last.position - first.position) / (len(ordered) - 1) if len(ordered) > 1
                  else first.normal * first.thickness_mm)
    lps[:3, 3] = first.position
    try:
        return Geometry((len(ordered), first.size[1], first.size[0]), LPS_TO_RAS @ lps)
    except BadInput as error:
        raise BadInput(str(error).replace("The image", f"The DICOM series in {path}", 1)) from None


def _dicom_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    here = [file for file in sorted(path.iterdir()) if is_dicom_file(file)]
    return here or [file for file in sorted(path.rglob("*")) if is_dicom_file(file)]


def choose_series(path: Path, headers: Iterable[SliceHeader], series: str | None) -> list[SliceHeader]:
    """The headers of the wanted series; raises BadInput when there are several and none is named."""
    groups: dict[str, list[SliceHeader]] = {}
    for header in headers:
        groups.setdefault(header.series, []).append(header)
    listing = "; ".join(f"{uid or '(no UID)'} ({group[0].description or 'no description'}, {len(group)} "
                        f"file{'s' if len(group) > 1 else ''})" for uid, group in sorted(groups.items()))
    if series is not None:
        if series not in groups:
            raise BadInput(f"{path} has no DICOM series {series}. It has: {listing}.")
        return groups[series]
    if len(groups) > 1:
        raise BadInput(f"{path} holds {len(groups)} DICOM series, but one is needed: {listing}. Put each into a folder "
                       "of its own, or choose one by its UID (series= in Python).")
    return next(iter(groups.values()))


def _refuse_several(path: Path, headers: list[SliceHeader]) -> None:
    if len(headers) > 1:
        raise BadInput(f"The DICOM folder {path} holds {len(headers)} separate images (radiographs, cine loops or "
                       "multi-frame files), not the slices of one volume. Give the files one by one.")


def _same_plane(one: SliceHeader, other: SliceHeader) -> bool:
    if one.position is None or one.orientation is None or other.orientation is None:
        return False
    if one.spacing_mm is None or other.spacing_mm is None:
        return one.spacing_mm == other.spacing_mm
    return bool(np.allclose(one.orientation, other.orientation, atol=1e-3)
                and np.allclose(one.spacing_mm, other.spacing_mm, rtol=1e-4))


def _refuse_uneven(path: Path, ordered: list[SliceHeader], places: NDArray[np.float64]) -> None:
    steps = np.diff(places)
    same = np.flatnonzero(steps < _SAME_PLACE_MM)
    if same.size:
        distinct = 1 + int((steps >= _SAME_PLACE_MM).sum())
        raise BadInput(f"The DICOM series in {path} has {len(ordered)} slices at {distinct} places: for example "
                       f"{ordered[same[0]].path.name} and {ordered[same[0] + 1].path.name} lie at the same place. "
                       "Duplicate slices, or several phases or echoes in one series; keep one slice for each place.")
    usual = float(np.median(steps)) if steps.size else 0.0
    gaps = np.flatnonzero(np.abs(steps - usual) > max(_UNEVEN_MM, _UNEVEN_FRACTION * usual))
    if gaps.size:
        where = ", ".join(f"{steps[gap]:.2f} mm between {ordered[gap].path.name} and {ordered[gap + 1].path.name}"
                          for gap in gaps[:3])
        missing = int(sum(max(0, round(steps[gap] / usual) - 1) for gap in gaps))
        raise BadInput(f"The DICOM series in {path} has uneven slice distances: {usual:.2f} mm as a rule, but {where}"
                       f"{' and more' if gaps.size > 3 else ''}. "
                       + (f"About {missing} slice{'s are' if missing > 1 else ' is'} missing. " if missing else "")
                       + "Copy the whole series again, or resample it to even distances.")


def _projection(header: SliceHeader, path: Path) -> Volume:
    """A radiograph or other picture without a place in the patient: axes LPS like PNG files."""
    rows, columns = header.spacing_mm or (1.0, 1.0)
    geometry = Geometry.of((1, header.size[1], header.size[0]), (1.0, rows, columns), axes="LPS")
    return Volume(_read_voxels([header]), geometry, is_2d=True, spacing_known=header.spacing_mm is not None,
                  source=str(path), modality=header.modality)


def _read_voxels(headers: list[SliceHeader]) -> NDArray:
    """(C, k, j, i); slices may differ in type because each has its own rescale slope."""
    result: NDArray | None = None
    for index, header in enumerate(headers):
        image = execute(open_reader(header.path), header.path)
        plane = _compact(simpleitk().GetArrayFromImage(image))
        colours = image.GetNumberOfComponentsPerPixel()
        plane = np.moveaxis(plane.reshape(header.size[1], header.size[0], colours), -1, 0)
        if result is None:
            result = np.empty((colours, len(headers), *plane.shape[1:]), plane.dtype)
        elif np.result_type(result, plane) != result.dtype:
            result = result.astype(np.result_type(result, plane))
        result[:, index] = plane
    assert result is not None
    return _compact(result)


def _compact(array: NDArray) -> NDArray:
    """Readers widen CT to 32 or 64 bits because of the rescale intercept; go back to 16 or 32 where nothing is lost."""
    if array.dtype not in (np.int32, np.int64):
        return array
    low, high = array.min(), array.max()
    kind = next((kind for kind in (np.int16, np.int32) if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max),
                array.dtype)
    return array.astype(kind, copy=False)
