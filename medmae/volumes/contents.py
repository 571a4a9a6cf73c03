"""What is inside files and folders, from their headers alone: images, frames, grids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medmae.errors import BadInput
from medmae.volumes.dicom_series import (
    SliceHeader,
    choose_series,
    is_dicom_file,
    read_slice_header,
    read_slice_headers,
    series_geometry,
    sort_slices,
)
from medmae.volumes.geometry import Geometry
from medmae.volumes.neutral_nrrd import stated_facts
from medmae.volumes.nifti_header import read_nifti_header
from medmae.volumes.pictures import PICTURE_ENDINGS
from medmae.volumes.reading import VOLUME_ENDINGS, geometry_of, image_ending, nifti_geometry, read_image, refuse_missing
from medmae.volumes.simpleitk_images import open_reader


@dataclass(frozen=True)
class Part:
    """One image of a DICOM folder, for ``read_image(path, series=series)``."""

    path: Path
    series: str | None = None


def images_of_dicom_folder(folder: Path) -> list[Part]:
    """What a folder with DICOM files holds: every series of slices is an image, every radiograph or cine loop another.

    Files that cannot be read are parts of their own when others can: reading them says why.

    Raises:
        BadInput: no file in it can be read.
    """
    headers: list[SliceHeader] = []
    problems: list[tuple[Path, BadInput]] = []
    for file in sorted(folder.iterdir()):
        if is_dicom_file(file):
            try:
                headers.append(read_slice_header(file))
            except BadInput as error:
                problems.append((file, error))
    if not headers:
        raise problems[0][1] if problems else BadInput(f"The folder {folder} contains no DICOM files.")
    groups: dict[str, list[SliceHeader]] = {}
    for header in headers:
        groups.setdefault(header.series, []).append(header)
    parts: list[Part] = []
    for series, members in groups.items():
        if any(one.position is None or one.orientation is None or one.frames > 1 for one in members):
            parts += [Part(one.path) for one in members]
        else:
            parts.append(Part(folder, series if len(groups) > 1 else None))
    return parts + [Part(file) for file, _ in problems]


def count_frames(path: Path) -> int:
    """How many images `read_image` can choose from with ``frame=``: volumes of a 4-D file, pages, frames of a loop.

    Raises:
        BadInput: the file is damaged, or its type is unknown.
    """
    if path.is_dir():
        return 1
    refuse_missing(path)
    ending = image_ending(path)
    if ending in (".tif", ".tiff"):
        size = open_reader(path).GetSize()
        return int(size[2]) if len(size) > 2 else 1
    if ending in PICTURE_ENDINGS:
        return 1
    if ending in (".nii", ".nii.gz"):
        header = read_nifti_header(path)
        return max(1, int(header.dim[4])) if header.dim[0] == 4 else 1
    if ending in VOLUME_ENDINGS:
        size = open_reader(path).GetSize()
        return int(size[3]) if len(size) > 3 else 1
    return _dicom_frames(path) if is_dicom_file(path) else 1


def read_geometry(path: Path, series: str | None = None) -> Geometry | None:
    """The grid of a volume without reading its voxels; None for pictures and radiographs.

    Raises:
        BadInput: as `read_image`.
    """
    ending = image_ending(path)
    if path.is_dir() or (ending not in (*PICTURE_ENDINGS, *VOLUME_ENDINGS) and is_dicom_file(path)):
        headers = choose_series(path, read_slice_headers(path), series)
        if headers[0].frames > 1:
            volume = read_image(path, series=series, frame=0 if _dicom_frames(headers[0].path) > 1 else None)
            return None if volume.is_2d else volume.geometry
        if headers[0].position is None or headers[0].orientation is None:
            return None
        return series_geometry(path, sort_slices(path, headers))
    refuse_missing(path)
    if ending in PICTURE_ENDINGS:
        return None
    if ending in (".nii", ".nii.gz"):
        _, geometry, is_2d = nifti_geometry(path)
        return None if is_2d else geometry
    reader = open_reader(path)
    is_2d = reader.GetDimension() == 2 or stated_facts(reader).get("is_2d", False)
    return None if is_2d else geometry_of(reader, path)


def _dicom_frames(path: Path) -> int:
    header = read_slice_header(path)
    if header.frames < 2:
        return 1
    from medmae.volumes.dicom_multiframe import frame_headers

    return header.frames if frame_headers(header) is None else 1
