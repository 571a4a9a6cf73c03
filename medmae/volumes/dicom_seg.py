"""Writing label maps as DICOM segmentations (DICOM SEG) of the series that they were made from, through highdicom.

The file takes patient, study and frame of reference from the source series, as DICOM requires: it holds the patient's
name and is to be kept as safe as the images. Nothing is sent anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmae import __version__
from medmae.errors import BadInput
from medmae.files import atomic_path
from medmae.volumes.dicom_multiframe import frame_headers
from medmae.volumes.dicom_series import choose_series, is_dicom_file, read_slice_headers, series_geometry, sort_slices
from medmae.volumes.geometry import Geometry
from medmae.volumes.segments import Segment, complete_segments
from medmae.volumes.terminology import UNSPECIFIED

DICOM_SEG_ENDING = "seg.dcm"
LONGEST_NAME = 64  # of a DICOM long string (LO)
SERIES_NUMBER = 9000  # beside the usual numbers of a study's images
# Type 2 attributes that the segmentation copies: they must be there, but may be empty.
MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
                "StudyTime", "ReferringPhysicianName")


@dataclass(frozen=True)
class Algorithm:
    """What made the labels: the model's name, the version, and the SHA-256 of its weights where it is known."""

    name: str
    version: str = __version__
    weights_sha256: str = ""


def write_dicom_seg(path: Path | str, labels: NDArray, source: Path | str, segments: Sequence[Segment],
                    algorithm: Algorithm) -> Path:
    """Write a label map as a binary DICOM segmentation; the file appears whole or not at all.

    Segments are numbered from 1 in the order given; values that none of them names become segments "Label <value>".

    Args:
        path: the file.
        labels: (k, j, i) integers on the grid that `read_image` gave `source`.
        source: the DICOM folder or file that was segmented.
        segments: what the values mean, with colours and terms.
        algorithm: what made the labels.

    Returns:
        The path.

    Raises:
        BadInput: highdicom is missing, or `source` is not a DICOM series with a place in the patient.
        ValueError: labels do not fit the series.
    """
    highdicom = require_highdicom()
    datasets, order, geometry = _source(Path(source))
    segments = complete_segments(labels, segments)
    if labels.shape != geometry.shape:
        raise ValueError(f"Labels {labels.shape} do not fit the grid {geometry.shape} of {source}.")
    planes = np.argsort(order)  # of the image, in the order of the frames
    frames = np.stack([_numbers(labels[plane], segments) for plane in planes])
    segmentation = highdicom.seg.Segmentation(
        source_images=datasets, pixel_array=frames,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(number, segment, algorithm) for number, segment in enumerate(segments, 1)],
        pixel_measures=highdicom.PixelMeasuresSequence(
            pixel_spacing=geometry.spacing_mm[1:], slice_thickness=geometry.spacing_mm[0],
            spacing_between_slices=geometry.spacing_mm[0]),
        series_instance_uid=highdicom.UID(), series_number=SERIES_NUMBER, sop_instance_uid=highdicom.UID(),
        instance_number=1, manufacturer="MedMAE", manufacturer_model_name="MedMAE",
        software_versions=__version__, device_serial_number=algorithm.weights_sha256[:LONGEST_NAME] or "none",
        series_description=_text(f"Segmentation by {algorithm.name}"), content_label="SEGMENTATION",
        content_description=_text(f"Made by MedMAE with the model {algorithm.name}"))
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)
    return Path(path)


def refuse_unless_dicom(source: Path | str) -> None:
    """See, before anything is computed, that a DICOM segmentation of `source` can be written.

    Raises:
        BadInput: highdicom is missing, or `source` is no DICOM.
    """
    require_highdicom()
    path = Path(source)
    if not (is_dicom_file(path) if path.is_file() else path.is_dir()):
        raise BadInput(f"{path} is not DICOM, but a DICOM segmentation must refer to the series it was made from. "
                       "Segment the DICOM folder, or choose another format (nii.gz, nrrd, seg.nrrd).")


def require_highdicom() -> Any:
    """The highdicom module.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import highdicom
        import highdicom.seg
    except ImportError:
        raise BadInput("DICOM segmentations are written with highdicom, which is not installed here. Install it with: "
                       "pip install highdicom (or pip install 'medmae[dicom]'), or choose another format.") from None
    return highdicom


def _source(path: Path) -> tuple[list[Any], list[int], Geometry]:
    """The headers of the source as highdicom takes them, for each plane of the image the frame it stands for, the grid.

    For a series of single slices the headers are in the image's order; the frames of one file stay in the file's order.
    """
    import pydicom

    refuse_unless_dicom(path)
    headers = choose_series(path, read_slice_headers(path), None)
    unplaced = BadInput(f"{path} has no place in the patient (a radiograph, cine loop or picture), so no DICOM "
                        "segmentation can refer to it. Choose another format (nii.gz, nrrd, seg.nrrd).")
    if headers[0].frames > 1:
        frames = frame_headers(headers[0]) if len(headers) == 1 else None
        if frames is None:
            raise unplaced
        datasets = [pydicom.dcmread(headers[0].path, stop_before_pixels=True)]
        ordered = sort_slices(path, frames)
        order = [int(frame.instance) for frame in ordered]
    else:
        if headers[0].position is None or headers[0].orientation is None:
            raise unplaced
        ordered = sort_slices(path, headers)
        datasets = [pydicom.dcmread(header.path, stop_before_pixels=True) for header in ordered]
        order = list(range(len(ordered)))
    geometry = series_geometry(path, ordered)
    for dataset in datasets:
        _complete(dataset, geometry)
    missing = [name for name in ("FrameOfReferenceUID", "StudyInstanceUID") if not datasets[0].get(name)]
    if missing:
        raise BadInput(f"The DICOM series in {path} lacks {' and '.join(missing)}, without which no DICOM segmentation "
                       "can refer to it. Export it again from the archive, or choose another format.")
    return datasets, order, geometry


def _complete(dataset: Any, geometry: Geometry) -> None:
    """Add what highdicom expects of a header but files may lack, or say for each frame anew; values are the same."""
    from pydicom import Dataset

    for name in MAY_BE_EMPTY:
        if name not in dataset:
            setattr(dataset, name, "")
    frames = dataset.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        if not dataset.get("SliceThickness"):
            dataset.SliceThickness = geometry.spacing_mm[0]
        return
    if not dataset.get("SharedFunctionalGroupsSequence"):
        dataset.SharedFunctionalGroupsSequence = [Dataset()]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for name in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        if name not in shared:
            setattr(shared, name, frames[0].get(name))


def _numbers(labels: NDArray, segments: Sequence[Segment]) -> NDArray:
    """The number of the segment of each voxel, 0 for none."""
    values = np.array([0, *(segment.value for segment in segments)])
    order = np.argsort(values)
    return order.astype(np.min_scalar_type(len(segments)))[np.searchsorted(values[order], labels)]


def _description(number: int, segment: Segment, algorithm: Algorithm) -> Any:
    highdicom = require_highdicom()
    from highdicom.sr.coding import CodedConcept
    from pydicom.sr.codedict import codes

    terms = segment.terminology or UNSPECIFIED

    def concept(key: str) -> Any:
        scheme, code, meaning = terms[key]
        return CodedConcept(value=str(code), scheme_designator=str(scheme), meaning=_text(str(meaning)))

    region = concept("region") if terms.get("region") else None
    parameters = {"weights_sha256": algorithm.weights_sha256} if algorithm.weights_sha256 else None
    described = highdicom.seg.SegmentDescription(
        segment_number=number, segment_label=_text(segment.name), segmented_property_category=concept("category"),
        segmented_property_type=concept("type"),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=_text(algorithm.name), version=_text(algorithm.version),
            family=codes.DCM.ArtificialIntelligence, source="MedMAE", parameters=parameters),
        anatomic_regions=None if region is None else [region],
        display_color=highdicom.color.CIELabColor.from_rgb(*(round(255 * part) for part in segment.color)))
    if terms.get("type_modifier"):
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            concept("type_modifier")]
    if region is not None and terms.get("region_modifier"):
        described.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [concept("region_modifier")]
    return described


def _text(text: str) -> str:
    """Text as a DICOM long string may hold it: one line, no backslash, at most 64 characters, never empty."""
    clean = " ".join("".join(" " if one == "\\" or not one.isprintable() else one for one in text).split())
    return clean[:LONGEST_NAME].rstrip() or "-"
