"""Small pictures of slices with labels in their colours: previews of models, samples of training. Needs numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medmae.models.png import png

SIDE = 192  # pixels: sharp at 96 on screens of twice the resolution
COARSE = 64  # pixels: an organ is known, a line of text of a thirtieth of the picture's height is two pixels high
_OPACITY = 0.4
GAP = 4  # pixels between pictures in a row
_MARGIN = 1.6  # of the picture's side over that of what is labelled
_LEAST_SHARE = 0.5  # of the longer side of the slice, so that one sees where in the body it is
_WITHOUT_PRINT = ("CT", "MR", "PT", "NM")  # scanners; names are burnt into pictures of other devices often enough
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


def shows_no_print(modality: str) -> bool:
    """Whether images of a modality never have names burnt into them."""
    return modality in _WITHOUT_PRINT


def without_small_print(plane: NDArray, longer_side: float = 0) -> NDArray[np.float64]:
    """A plane (rows, columns[, 3]) as if it had `COARSE` pixels along its longer side: names that were burnt into it
    cannot be read any more. Of a part of a slice `longer_side` tells that of the whole slice, in pixels of the plane.
    """
    factor = math.ceil(max(*plane.shape[:2], longer_side) / COARSE)
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
    return row_png([stretched(plane)], [labels], colors, pixel_mm, around=labels, side=side)


def row_png(planes: Sequence[NDArray], labels: Sequence[NDArray | None], colors: Mapping[int, Sequence[float]],
            pixel_mm: tuple[float, float], *, around: NDArray | None = None, side: int = SIDE) -> bytes:
    """Draw the same part of planes of one shape side by side into a PNG, each `side` x `side` pixels.

    Args:
        planes: (rows, columns), or (rows, columns, 3), in 0..1.
        labels: of each plane (rows, columns) of values, 0 for none; or None.
        colors, pixel_mm: as for `preview_png`.
        around: labels to which the pictures are cut; None for the whole planes.
        side: of a picture, in pixels.
    """
    rows, columns = _places(planes[0].shape[:2], around, np.array(pixel_mm, float), side)
    row: list[NDArray] = []
    for plane, drawn in zip(planes, labels, strict=True):
        row += [np.zeros((side, GAP, 3)), _drawn(plane, drawn, colors, rows, columns)]
    return png(np.round(255 * np.concatenate(row[1:], 1)).astype(np.uint8))


def stretched(plane: NDArray) -> NDArray[np.float64]:
    """A plane of any range in 0..1, from its 1st to its 99.5th percentile."""
    low, high = np.percentile(plane, [1, 99.5])
    return np.clip((np.asarray(plane, np.float64) - low) / max(high - low, 1e-9), 0, 1)


def _drawn(plane: NDArray, labels: NDArray | None, colors: Mapping[int, Sequence[float]], rows: NDArray,
           columns: NDArray) -> NDArray[np.float64]:
    """The places of a plane as red, green and blue, with labels in their colours."""
    picture = _sampled(plane, rows, columns)
    picture = np.repeat(picture[..., None], 3, -1) if picture.ndim == 2 else picture
    if labels is None:
        return picture
    drawn = _sampled_labels(labels, [value for value in colors if value], rows, columns)
    edge = _edges(drawn)
    for value in set(np.unique(drawn).tolist()) - {0}:
        color = np.array(colors[value], float)
        inside = drawn == value
        picture[inside] = (1 - _OPACITY) * picture[inside] + _OPACITY * color
        picture[inside & edge] = color
    return picture


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
