"""Cleaning labels: keeping the largest part of a label, and filling its holes.

Voxels of a label are connected where they share a corner, an edge or a face (26 neighbours). A hole is what a label
encloses: voxels that no path through shared faces (6 neighbours) leads out of. Only background in it is filled, so that
a vessel in the liver stays a vessel. What is open to the edge of the image is no hole. Each label is looked at in its
own box, as runs of voxels; memory grows with the surface of the label, not with the image or the number of labels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medmae.inference.outputs.runs_of_voxels import Runs
from medmae.models import ModelInfo
from medmae.volumes import Geometry
from medmae.volumes.region import Region

Steps = Mapping[str, Sequence[int]]
Box = tuple[slice, slice, slice]
MOST_LISTED = 2**16  # scipy lists the boxes of all values up to the highest


def steps_for(info: ModelInfo, values: Sequence[int], *, model: bool = True, largest_component: bool = False,
              fill_holes: bool = False) -> dict[str, list[int]]:
    """What is to be done with which stored label values: {"largest_component": [...], "fill_holes": [...]}.

    Args:
        info: its `postprocessing` names labels; done where `model`.
        values: stored value of each class, background first; labels stored as background are left out.
        model: whether what the model asks for is done.
        largest_component: for every label.
        fill_holes: for every label.
    """
    value_of = {str(label["name"]): int(value) for label, value in zip(info.labels, values, strict=True)}
    foreground = [int(value) for value in values[1:] if int(value) != int(values[0])]
    steps = {}
    for step, always in (("largest_component", largest_component), ("fill_holes", fill_holes)):
        asked = [value_of[name] for name in info.postprocessing.get(step, ())] if model else []
        steps[step] = [value for value in foreground if always or value in asked]
    return steps


def clean(labels: NDArray, steps: Steps, *, background: int = 0) -> dict[int, int]:
    """Do `steps` with `labels` (k, j, i) in place: first the largest parts, then the holes, in the order of the values.

    Args:
        labels: integers.
        steps: label values for "largest_component" and "fill_holes".
        background: the value of what is no label.

    Returns:
        By label value, how many voxels it has more (or fewer, negative) now.
    """
    changed: dict[int, int] = {}
    for step, work in (("largest_component", _keep_largest), ("fill_holes", _fill_holes)):
        values = steps.get(step, ())
        boxes = boxes_of(labels, values)
        for value in values:
            if value in boxes:
                changed[value] = changed.get(value, 0) + work(labels[boxes[value]], value, background)
    return {value: count for value, count in changed.items() if count}


def clean_inside(labels: NDArray, steps: Steps, region: Region | None, geometry: Geometry, *,
                 background: int = 0) -> dict[int, int]:
    """`clean`, where voxels outside the region are looked at but stay as they are."""
    if region is None or not any(steps.values()):
        return clean(labels, steps, background=background)
    before = labels.copy()
    changed = clean(labels, steps, background=background)
    cleaned = labels[region.slices].copy()
    labels[:] = before
    labels[region.slices] = cleaned
    region.keep_outside(labels, geometry, before)
    return changed


def boxes_of(labels: NDArray, values: Collection[int]) -> dict[int, Box]:
    """The smallest box of each of `values` that is in `labels` (k, j, i)."""
    if not values:
        return {}
    from scipy.ndimage import find_objects  # takes as long to import as half of torch

    if min(values) > 0 and max(values) < MOST_LISTED:
        found = find_objects(labels, max(values))
        return {value: found[value - 1] for value in values if found[value - 1] is not None}
    boxes = {value: find_objects((labels == value).view(np.uint8)) for value in values}
    return {value: alone[0] for value, alone in boxes.items() if alone}


def _keep_largest(labels: NDArray, value: int, background: int) -> int:
    """Make all of a label background but its largest part; of equally large ones the first stays."""
    runs = Runs.of(labels == value)
    part = runs.components(touching=26)
    sizes = np.bincount(part, weights=runs.lengths)
    if len(sizes) < 2:
        return 0
    small = runs.voxels(part != sizes.argmax())
    labels[np.unravel_index(small, labels.shape)] = background
    return -len(small)


def _fill_holes(labels: NDArray, value: int, background: int) -> int:
    """Give a label the background that it encloses."""
    runs = Runs.of(np.pad(labels != value, 1, constant_values=True))  # the rim joins all that is open to the outside
    part = runs.components(touching=6)
    enclosed = part != part[0]
    place = np.array(np.unravel_index(runs.voxels(enclosed), runs.shape)) - 1
    place = place[:, labels[tuple(place)] == background]
    labels[tuple(place)] = value
    return place.shape[1]
