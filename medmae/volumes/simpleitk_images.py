"""Between SimpleITK images (LPS) and arrays with a RAS geometry; the only door to SimpleITK's readers and writers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmae.errors import BadInput
from medmae.volumes.geometry import Geometry

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def simpleitk() -> Any:
    """The SimpleITK module, imported at first use.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import SimpleITK
    except ImportError:
        raise BadInput("SimpleITK is not installed here, so image files cannot be read or written. "
                       "Install it with: pip install SimpleITK") from None
    return SimpleITK


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep ITK's warnings off the terminal; what matters is checked and reported by the callers."""
    sitk = simpleitk()
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def open_reader(path: Path) -> Any:
    """A SimpleITK ImageFileReader that has read the header of `path`.

    Raises:
        BadInput: SimpleITK cannot read the file.
    """
    sitk = simpleitk()
    try:
        str(path).encode()
    except UnicodeEncodeError:  # it would end the process
        raise BadInput(f"{path} has a name that is not UTF-8 text, so it cannot be opened. Rename it.") from None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with quiet():
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise BadInput(_unreadable(path, error)) from None
    return reader


def execute(reader: Any, path: Path) -> Any:
    """Read the voxels.

    Raises:
        BadInput: the file is damaged.
    """
    with quiet():
        try:
            return reader.Execute()
        except RuntimeError as error:
            raise BadInput(_unreadable(path, error)) from None


class _Held:
    """Lends an image's voxels to NumPy and keeps the image for as long as the array exists."""

    def __init__(self, image: Any) -> None:
        self.image = image
        self.__array_interface__ = simpleitk().GetArrayViewFromImage(image).__array_interface__


def array_in_place(image: Any) -> NDArray:
    """The voxels of a SimpleITK image without a copy of them, to be read only; components come last."""
    array = np.asarray(_Held(image))
    array.setflags(write=False)
    return array


def affine_of(spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float]) -> NDArray[np.float64]:
    """RAS affine (4, 4) of SimpleITK's spacing, origin and direction of a 2-, 3- or 4-D image; frames are ignored."""
    dimension = len(spacing)
    used = min(dimension, 3)
    affine = np.eye(4)
    full = np.array(direction, float).reshape(dimension, dimension)[:used, :used]
    affine[:used, :used] = full * np.array(spacing, float)[:used]
    affine[:used, 3] = np.array(origin, float)[:used]
    return LPS_TO_RAS @ affine


def image_of(array: NDArray, geometry: Geometry) -> Any:
    """A SimpleITK image of voxels (k, j, i)."""
    sitk = simpleitk()
    image = sitk.GetImageFromArray(array)
    lps = LPS_TO_RAS @ geometry.affine
    image.SetSpacing([float(value) for value in geometry.spacing_mm[::-1]])
    image.SetOrigin([float(value) for value in lps[:3, 3]])
    image.SetDirection([float(value) for value in (lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)).ravel()])
    return image


def _unreadable(path: Path, error: RuntimeError) -> str:
    text = str(error)
    if "orthonormal" in text:
        return (f"{path} has a sheared grid: its axes are not at right angles, as after a tilted CT gantry or an "
                "affine registration, and Slicer cannot read it either. Resample it to a right-angled grid first.")
    # The last line is the reason, except where it is the stale system error that ITK appends.
    lines = [re.sub(r"\(0x[0-9a-f]+\)", "", line.split("ERROR: ")[-1]).strip() for line in text.splitlines()
             if line.strip() and not line.strip().startswith("Reason:")]
    return (f"{path} cannot be read: it is damaged, incomplete or not of the type its name says "
            f"({lines[-1] if lines else 'no reason given'}). Copy or export it again.")
