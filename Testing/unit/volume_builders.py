"""Grids and files that the tests of the volumes package share."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from medmae.volumes import Geometry

SHARED_VOLUMES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "volumes"

AXIS_ORDERS = ["".join(letters) for order in itertools.permutations(("LR", "PA", "IS"))
               for letters in itertools.product(*order)]
assert len(set(AXIS_ORDERS)) == 48


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    """Rotation matrix (3, 3) of angles in radians about x, y and z."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        turn, (a, b) = np.eye(3), [other for other in range(3) if other != axis]
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        result = result @ turn
    return result


def turned(geometry: Geometry, angles: tuple[float, float, float]) -> Geometry:
    """The grid turned about the world's origin."""
    affine = np.eye(4)
    affine[:3] = rotation(angles) @ geometry.affine[:3]
    return Geometry(geometry.shape, affine)


@st.composite
def geometries(draw, *, max_size: int = 7, min_size: int = 1, oblique: bool = True) -> Geometry:
    """Any axis order and flips, anisotropic, oblique up to 25 degrees, anywhere within a metre."""
    shape = tuple(draw(st.integers(min_size, max_size)) for _ in range(3))
    spacing = tuple(draw(st.floats(0.2, 9, allow_nan=False)) for _ in range(3))
    origin = tuple(draw(st.floats(-500, 500, allow_nan=False)) for _ in range(3))
    geometry = Geometry.of(shape, spacing, axes=draw(st.sampled_from(AXIS_ORDERS)), origin_mm=origin)
    if oblique and draw(st.booleans()):
        geometry = turned(geometry, tuple(draw(st.floats(-0.4, 0.4, allow_nan=False)) for _ in range(3)))
    return geometry


def smooth_field(geometry: Geometry) -> np.ndarray:
    """A linear function of the world position (k, j, i): linear interpolation must reproduce it."""
    indices = np.stack(np.meshgrid(*(np.arange(size) for size in geometry.shape), indexing="ij"), axis=-1)
    return geometry.to_world(indices) @ np.array([0.7, -1.1, 0.4]) + 3


def write_nifti(path: Path, array: np.ndarray, *, sform: np.ndarray | None, qform_code: int = 0,
                spacing=(1.0, 1.0, 1.0), slope: float = 0.0, intercept: float = 0.0, order: str = "<") -> Path:
    """A NIfTI-1 file written byte by byte; `array` is (k, j, i) or (t, k, j, i), `spacing` (i, j, k)."""
    codes = {"int16": (4, 16), "uint8": (2, 8), "float32": (16, 32), "complex64": (32, 64)}
    header = bytearray(352)
    struct.pack_into(f"{order}i", header, 0, 348)
    sizes = array.shape[::-1]
    struct.pack_into(f"{order}8h", header, 40, len(sizes), *sizes, *(1,) * (7 - len(sizes)))
    struct.pack_into(f"{order}2h", header, 70, *codes[array.dtype.name])
    struct.pack_into(f"{order}8f", header, 76, 1, *spacing, *(1,) * 4)
    struct.pack_into(f"{order}3f", header, 108, 352, slope, intercept)
    struct.pack_into(f"{order}2h", header, 252, qform_code, 0 if sform is None else 1)
    if sform is not None:
        struct.pack_into(f"{order}12f", header, 280, *np.asarray(sform, float)[:3].ravel())
    header[344:348] = b"n+1\0"
    path.write_bytes(bytes(header) + np.ascontiguousarray(array, array.dtype.newbyteorder(order)).tobytes())
    return path
