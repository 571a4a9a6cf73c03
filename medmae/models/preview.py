"""The preview picture of a model: one slice with labels in their colours, small and square. Needs numpy only."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

SIDE = 192  # pixels: sharp at 96 on screens of twice the resolution
COARSE = 64  # pixels: an organ is known, a line of text of a thirtieth of the picture's height is two pixels high
_OPACITY = 0.4
_MARGIN = 1.6  # of the picture's side over that of what is labelled
_LEAST_SHARE = 0.5  # of the longer side of the slice, so that one sees where in the body it is
_SHOWN_AS = {"R": "L", "L": "L", "A": "P", "P": "P", "S": "I", "I": "I"}  # where columns and rows increase on a screen


def upright(plane: NDArray, orientation: str, axis: int) -> NDArray:
    """A plane (two axes in array order, then any) turned as radiologists look at it: the patient's right on the left,
    anterior or superior up, in sagittal planes anterior on the left.

    Args:
        plane: what was cut from an array (k, j, i) across `axis`.
        orientation: directions in which i, j, k increase.
        axis: 0, 1 or 2 for a plane of one k, j or i.
    """
    letters = [letter for number, letter in enumerate(reversed(orientation)) if number != axis]
    if is_transposed(orientation, axis):
        plane, letters = np.swapaxes(plane, 0, 1), letters[::-1]
    flipped = tuple(number for number, letter in enumerate(letters) if _SHOWN_AS[letter] != letter)
    return np.flip(plane, flipped)


def is_transposed(orientation: str, axis: int) -> bool:
    """Whether the first of the two axes of such a plane runs along the rows of the picture."""
    first, second = (letter for number, letter in enumerate(reversed(orientation)) if number != axis)
    return first in "RL" or second in "SI"


def without_small_print(plane: NDArray) -> NDArray[np.float64]:
    """A plane (rows, columns[, 3]) as if it had `COARSE` pixels along its longer side: names that were burnt into it
    cannot be read any more."""
    factor = -(-max(plane.shape[:2]) // COARSE)
    coarse = np.asarray(plane, np.float64)
    for axis in (0, 1):
        starts = np.arange(0, coarse.shape[axis], factor)
        counts = np.diff([*starts, coarse.shape[axis]]).reshape([-1 if axis == other else 1
                                                                for other in range(coarse.ndim)])
        coarse = np.add.reduceat(coarse, starts, axis) / counts
    rows, columns = ((np.arange(length) + 0.5) / factor - 0.5 for length in plane.shape[:2])
    return _sampled(coarse, rows, columns)


def preview_png(plane: NDArray, labels: NDArray | None, colors: Mapping[int, Sequence[float]],
                pixel_mm: tuple[float, float], side: int = SIDE) -> bytes:
    """Draw a slice into a PNG of `side` x `side` pixels; with labels it is cut to what lies around them.

    Args:
        plane: (rows, columns), or (rows, columns, 3) as red, green and blue; of any range.
        labels: (rows, columns) of values, 0 for none; or None.
        colors: red, green and blue in 0..1 of the values that are drawn.
        pixel_mm: size of a pixel (down, across).
        side: of the picture, in pixels.
    """
    low, high = np.percentile(plane, [1, 99.5])
    shown = np.clip((np.asarray(plane, np.float64) - low) / max(high - low, 1e-9), 0, 1)
    rows, columns = _places(plane.shape[:2], labels, np.array(pixel_mm, float), side)
    picture = _sampled(shown, rows, columns)
    picture = np.repeat(picture[..., None], 3, -1) if picture.ndim == 2 else picture
    if labels is not None:
        drawn = _sampled_labels(labels, [value for value in colors if value], rows, columns)
        edge = _edges(drawn)
        for value in set(np.unique(drawn).tolist()) - {0}:
            color = np.array(colors[value], float)
            inside = drawn == value
            picture[inside] = (1 - _OPACITY) * picture[inside] + _OPACITY * color
            picture[inside & edge] = color
    return _png(np.round(255 * picture).astype(np.uint8))


def _places(shape: tuple[int, ...], labels: NDArray | None, pixel_mm: NDArray,
            pixels: int) -> tuple[NDArray, NDArray]:
    """Rows and columns, as fractions, of the pixels of a square picture in mm around what is labelled."""
    whole = np.array(shape) * pixel_mm
    centre, side = whole / 2, float(whole.max())
    found = np.argwhere(labels) if labels is not None else np.empty((0, 2))
    if len(found):
        low, high = found.min(0) * pixel_mm, (found.max(0) + 1) * pixel_mm
        side = min(side, max(_MARGIN * float((high - low).max()), _LEAST_SHARE * side))
        room = np.maximum(whole - side, 0) / 2  # the picture stays inside of the slice where it can
        centre = np.clip((low + high) / 2, whole / 2 - room, whole / 2 + room)
    steps = (np.arange(pixels) + 0.5) / pixels - 0.5
    rows, columns = ((middle + steps * side) / mm - 0.5 for middle, mm in zip(centre, pixel_mm, strict=True))
    return rows, columns


def _sampled(values: NDArray, rows: NDArray, columns: NDArray) -> NDArray[np.float64]:
    """Linear interpolation at a grid of places; 0 outside."""
    return _along(_along(values, rows, 0), columns, 1)


def _along(values: NDArray, places: NDArray, axis: int) -> NDArray[np.float64]:
    length = values.shape[axis]
    inside = (places > -0.5) & (places < length - 0.5)
    kept = np.clip(places, 0, length - 1)
    below = np.minimum(kept.astype(int), max(length - 2, 0))
    shape = [1] * values.ndim
    shape[axis] = -1
    weight, inside = (kept - below).reshape(shape), inside.reshape(shape)
    above = np.minimum(below + 1, length - 1)
    return inside * ((1 - weight) * values.take(below, axis) + weight * values.take(above, axis))


def _sampled_labels(labels: NDArray, values: Sequence[int], rows: NDArray, columns: NDArray) -> NDArray:
    """The value that is strongest at each place, so that edges are smooth."""
    present = [0, *(value for value in values if (labels == value).any())]
    strength = [_sampled((labels == value).astype(float), rows, columns) for value in present]
    return np.array(present)[np.argmax(strength, 0)]


def _edges(labels: NDArray) -> NDArray[np.bool_]:
    padded = np.pad(labels, 1, mode="edge")
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.logical_or.reduce([neighbour != labels for neighbour in around])


def _png(picture: NDArray[np.uint8]) -> bytes:
    """A PNG of red, green and blue in 8 bits; it holds nothing but the pixels."""
    height, width, _ = picture.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], 1)  # no filter
    chunks = ((b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)),
              (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks)
