"""Reading images and label maps of every supported format."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmae.errors import BadInput
from medmae.volumes.dicom_series import is_dicom_file, read_dicom
from medmae.volumes.frames import choose_component, choose_frame
from medmae.volumes.geometry import Geometry
from medmae.volumes.neutral_nrrd import stated_facts
from medmae.volumes.nifti_header import NiftiHeader, check_nifti_geometry, read_nifti_header
from medmae.volumes.nifti_voxels import read_nifti_voxels
from medmae.volumes.pictures import PICTURE_ENDINGS, read_picture
from medmae.volumes.simpleitk_images import affine_of, array_in_place, execute, open_reader
from medmae.volumes.volume import Volume

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
DICOM_ENDINGS = (".dcm", ".ima", ".dicom")
IMAGE_ENDINGS = VOLUME_ENDINGS + PICTURE_ENDINGS + DICOM_ENDINGS

_SIGNATURES = {".nii.gz": (b"\x1f\x8b",), ".nrrd": (b"NRRD",), ".nhdr": (b"NRRD",)}


def read_image(path: Path | str, *, frame: int | None = None, series: str | None = None) -> Volume:
    """Read a file, or a folder that holds a DICOM series.

    Formats: NIfTI, NRRD, MHA/MHD, DICOM (folder or single file), PNG, JPEG, TIFF.

    Args:
        path: the file or folder.
        frame: which image of a 4-D file (or page of a TIFF, or component of a multi-component image); from 0.
        series: the series instance UID, where a folder holds several.

    Raises:
        BadInput: the file is missing, damaged, of an unknown type or of unusable geometry; it is 4-D and no frame is
            given; the folder holds several series and none is given, or its slices are not one whole volume.
    """
    path = Path(path)
    if path.is_dir():
        return read_dicom(path, frame=frame, series=series)
    refuse_missing(path)
    ending = image_ending(path)
    if ending in PICTURE_ENDINGS:
        return read_picture(path, frame=frame)
    if ending in VOLUME_ENDINGS:
        return _read_volume_file(path, ending, frame)
    if is_dicom_file(path):
        return read_dicom(path, frame=frame, series=series)
    raise BadInput(f"{path} is not an image of a known type. Use NIfTI (.nii, .nii.gz), NRRD, MHA/MHD, DICOM, PNG, "
                   "JPEG or TIFF.")


def read_label(path: Path | str, *, frame: int | None = None) -> Volume:
    """Read a label map; its array is (1, k, j, i) of an integer type.

    Also reads Slicer's .seg.nrrd: segments that do not overlap are stored in one layer and come back as their label
    values. Overlapping ones (several layers) are refused, because one voxel would need two labels.

    Raises:
        BadInput: as `read_image`; or values are not whole numbers, or there are several channels.
    """
    volume = read_image(path, frame=frame)
    if volume.channels != 1:
        what = ("its segments overlap, so that one voxel has several labels" if str(path).endswith(".seg.nrrd")
                else "a label map has one label per voxel")
        raise BadInput(f"The label {path} has {volume.channels} channels, but {what}. "
                       "Export it again as one label map (in Slicer: Segmentations, Export to labelmap).")
    array = volume.array
    if not np.issubdtype(array.dtype, np.integer):
        whole = np.rint(array)
        if not np.isfinite(array).all() or np.abs(array - whole).max() > 1e-3:
            raise BadInput(f"The label {path} holds values that are not whole numbers, so it is not a label map. "
                           "Is it an image or a probability map? Choose the label file.")
        array = whole.astype(np.int32)
    return dataclasses.replace(volume, array=array)


def image_ending(path: Path) -> str:
    """The known ending of a file name, in lower case (".nii.gz" as a whole), or its plain suffix."""
    name = path.name.lower()
    return next((ending for ending in IMAGE_ENDINGS if name.endswith(ending)), path.suffix.lower())


def refuse_missing(path: Path) -> None:
    """Raise BadInput when `path` is not a file with content."""
    if not path.exists():
        raise BadInput(f"{path} does not exist. Check the path.")
    if not path.is_file():  # opening a pipe would wait for whoever writes to it
        raise BadInput(f"{path} is neither a file nor a folder. Give an image file or a DICOM folder.")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty (zero bytes). Copy or export it again.")


def _read_volume_file(path: Path, ending: str, frame: int | None) -> Volume:
    with open(path, "rb") as file:
        start = file.read(4)
    if not start.startswith(_SIGNATURES.get(ending, (b"",))):
        raise BadInput(f"{path} is not a {ending} file, although its name says so. Check that the file was copied "
                       "whole and has the right name.")
    if ending in (".nii", ".nii.gz"):
        return _read_nifti(path, frame)
    reader = open_reader(path)
    size, dimension = reader.GetSize(), reader.GetDimension()
    geometry = geometry_of(reader, path)
    if dimension > 4 or (dimension == 4 and reader.GetNumberOfComponents() > 1):
        raise BadInput(f"{path} has {dimension} dimensions and {reader.GetNumberOfComponents()} components; only "
                       "volumes and series of volumes can be used. Save the wanted volume as a file of its own.")
    if dimension == 4:
        chosen = choose_frame(path, size[3], frame)
        reader.SetExtractIndex([0, 0, 0, chosen])
        reader.SetExtractSize([*size[:3], 0])
        frame = None
    array = _array_of(execute(reader, path), path)
    volume = Volume(array.reshape(array.shape[0], *geometry.shape), geometry, source=str(path),
                    **{"is_2d": dimension == 2, **stated_facts(reader)})
    return choose_component(volume, frame)


def _read_nifti(path: Path, frame: int | None) -> Volume:
    """Geometry from `nifti_geometry`; the voxels are read here, because ITK does not notice missing ones."""
    header, geometry, is_2d = nifti_geometry(path)
    array = read_nifti_voxels(path, header, frame)
    volume = Volume(array, geometry, is_2d=is_2d, source=str(path))
    # More than four dimensions hold components, not time.
    return choose_component(volume, frame) if header.dim[0] > 4 else volume


def nifti_geometry(path: Path) -> tuple[NiftiHeader, Geometry, bool]:
    """Header, grid and whether it is a picture: as ITK (SimpleITK, Slicer) reads the header, once checked.

    Raises:
        BadInput: the file is not NIfTI or damaged, or its geometry is unusable.
    """
    header = read_nifti_header(path)
    check_nifti_geometry(header, path)
    affines = [affine for affine in (header.sform, header.qform) if affine is not None]
    is_2d = header.dim[0] < 3
    if header.version == 2 or (is_2d and affines):  # ITK reads neither NIfTI-2 nor the third axis of pictures
        i, j, k = (*header.dim[1:1 + header.dim[0]], 1, 1)[:3]
        affines = affines or [np.diag([-abs(header.pixdim[1]), -abs(header.pixdim[2]), abs(header.pixdim[3]), 1.0])]
        geometry = Geometry((k, j, i), affines[0])
    else:
        geometry = geometry_of(open_reader(path), path)
    if affines and not any(np.allclose(geometry.affine, affine, rtol=1e-3, atol=1e-2) for affine in affines):
        raise BadInput(f"{path} has a header whose geometry programs read differently, so no result would be safe. "
                       "Convert it again from the original files.")
    return header, geometry, is_2d


def geometry_of(reader: Any, path: Path) -> Geometry:
    """The grid that a SimpleITK reader found in the header of `path`; frames are ignored."""
    i, j, k = (*reader.GetSize(), 1, 1)[:3]
    try:
        return Geometry((k, j, i), affine_of(reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection()))
    except BadInput as error:
        raise BadInput(str(error).replace("The image", str(path), 1)) from None


def _array_of(image: Any, path: Path) -> NDArray:
    """(C, ...) voxels of a SimpleITK image."""
    if "complex" in image.GetPixelIDTypeAsString():
        raise BadInput(f"{path} holds complex numbers. Save its magnitude as an image first.")
    array = array_in_place(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        return np.ascontiguousarray(np.moveaxis(array, -1, 0))
    return array[None]
