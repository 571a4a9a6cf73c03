"""Where the voxels of an array lie in the patient."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medmae.errors import BadInput

# Headers carry cosines with a few digits only, so exact right angles cannot be asked for; a real gantry tilt is
# far above this (0.001 is 0.06 degrees), and over a whole body such an angle moves a voxel by less than half its size.
SHEAR_TOLERANCE = 1e-3

_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True, eq=False)
class Geometry:
    """The grid of a three-dimensional image.

    Attributes:
        shape: number of voxels (k, j, i).
        affine: (4, 4) float64, maps (i, j, k, 1) to RAS millimetres.

    Raises:
        BadInput: the affine is sheared, singular or not finite.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        affine.setflags(write=False)
        shape = tuple(int(size) for size in self.shape)
        if len(shape) != 3 or min(shape) < 1 or affine.shape != (4, 4):
            raise ValueError(f"A geometry needs three positive sizes and a (4, 4) affine, not {self.shape} "
                             f"and {affine.shape}.")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)
        refuse_unusable_affine(affine)

    @classmethod
    def of(cls, shape: Sequence[int], spacing_mm: Sequence[float], *, axes: str = "RAS",
           origin_mm: Sequence[float] = (0.0, 0.0, 0.0)) -> Geometry:
        """A grid along the body axes.

        Args:
            shape: (k, j, i).
            spacing_mm: (k, j, i).
            axes: anatomical directions in which i, j and k increase.
            origin_mm: RAS position of the first voxel's centre.
        """
        affine = np.eye(4)
        affine[:3, :3] = direction_of_axes(axes) * np.asarray(spacing_mm, float)[::-1]
        affine[:3, 3] = origin_mm
        return cls((shape[0], shape[1], shape[2]), affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres in mm, (k, j, i)."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(k), float(j), float(i)

    @property
    def direction(self) -> NDArray[np.float64]:
        """(3, 3): the columns are the unit RAS directions of i, j and k."""
        return self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def origin_mm(self) -> NDArray[np.float64]:
        """RAS position of the centre of voxel (0, 0, 0)."""
        return self.affine[:3, 3].copy()

    @property
    def center_mm(self) -> NDArray[np.float64]:
        """RAS position of the middle of the field of view."""
        return self.to_world((np.array(self.shape) - 1) / 2)

    @property
    def axes(self) -> str:
        """Nearest anatomical directions in which i, j and k increase, for example "LPS"."""
        direction = self.direction
        best = max(itertools.permutations(range(3)), key=lambda rows: sum(abs(direction[rows[c], c]) for c in range(3)))
        return "".join(_LETTERS[best[column]][int(direction[best[column], column] > 0)] for column in range(3))

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    def to_world(self, indices: ArrayLike) -> NDArray[np.float64]:
        """RAS mm (..., 3) of array indices (..., 3) in the order (k, j, i); fractions are allowed."""
        return np.asarray(indices, float)[..., ::-1] @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_indices(self, world_mm: ArrayLike) -> NDArray[np.float64]:
        """Array indices (..., 3) in the order (k, j, i), with fractions, of RAS mm (..., 3)."""
        offset = np.asarray(world_mm, float) - self.affine[:3, 3]
        return (offset @ np.linalg.inv(self.affine[:3, :3]).T)[..., ::-1]

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> Geometry:
        """The box that begins at voxel `start` (k, j, i) with size `shape`; it may reach beyond this grid."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_world(start)
        return Geometry((shape[0], shape[1], shape[2]), affine)

    def is_close(self, other: Geometry, tolerance_mm: float = 1e-4) -> bool:
        """Whether both grids have the same shape and no voxel lies further apart than `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        return self.largest_distance_mm(other) <= tolerance_mm

    def largest_distance_mm(self, other: Geometry) -> float:
        """Largest distance between voxels of the same index over this grid (found at one of its corners)."""
        corners = np.array(list(itertools.product(*((0, size - 1) for size in self.shape))), float)
        return float(np.linalg.norm(self.to_world(corners) - other.to_world(corners), axis=1).max())


def direction_of_axes(axes: str) -> NDArray[np.float64]:
    """(3, 3) matrix whose columns are the RAS unit vectors of three anatomical letters such as "LPS".

    Raises:
        ValueError: the letters do not name three different body axes.
    """
    direction = np.zeros((3, 3))
    for column, letter in enumerate(axes):
        rows = [row for row in range(3) if letter in _LETTERS[row]]
        if len(axes) != 3 or not rows:
            raise ValueError(f"'{axes}' is not an orientation: use one letter each of R/L, A/P and S/I, as in RAS.")
        direction[rows[0], column] = 1.0 if letter == _LETTERS[rows[0]][1] else -1.0
    if abs(np.linalg.det(direction)) < 0.5:
        raise ValueError(f"'{axes}' is not an orientation: use one letter each of R/L, A/P and S/I, as in RAS.")
    return direction


def shear_of(affine: NDArray[np.float64]) -> float:
    """Largest cosine between two axes of an affine; 0 when all angles are right angles."""
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(columns.T @ columns - np.eye(3)).max())


def refuse_unusable_affine(affine: NDArray[np.float64], what: str = "The image") -> None:
    """Refuse an affine that no grid of right-angled voxels has.

    Raises:
        BadInput: the affine is not finite, has an axis of no length, or is sheared.
    """
    if not np.isfinite(affine).all() or (np.linalg.norm(affine[:3, :3], axis=0) < 1e-9).any():
        raise BadInput(f"{what} has no usable geometry: its spacing or position is zero or not a number. "
                       "Convert it again from the original DICOM files.")
    shear = shear_of(affine)
    if shear > SHEAR_TOLERANCE:
        angle = np.degrees(np.arcsin(min(1.0, shear)))
        raise BadInput(f"{what} has a sheared grid: two of its axes are {angle:.2f} degrees off a right angle, as "
                       "after a tilted CT gantry or an affine registration. Its voxels are not boxes, so results could "
                       "not be put back in place. Resample it to a right-angled grid first (in Slicer: Transforms, "
                       "Harden transform, then Resample Scalar Volume).")
