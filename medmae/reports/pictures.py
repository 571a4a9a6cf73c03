"""Pictures of images: planes in radiological orientation at true proportions, overlays, reconstructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medmae.reports.drawing import INK, SOFT, Color, Sheet, bare, grid_of_axes, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLANES = ("axial", "coronal", "sagittal")
CT_WINDOW_HU = (-160.0, 240.0)
HIDDEN_GREY = 0.78


@dataclass(frozen=True)
class Plane:
    """One picture: values (rows, columns) or (rows, columns, 3), and how much taller than wide a pixel is."""

    values: NDArray
    aspect: float


@dataclass(frozen=True)
class Compared:
    """A case to show: image (C, k, j, i), label maps (k, j, i) of stored values, spacing (k, j, i) in mm.

    Volumes are in RAS order (k superior, j anterior, i right); with `is_2d` the only slice is shown as stored.
    `reference` or `prediction` may be None.
    """

    name: str
    image: NDArray
    reference: NDArray | None
    prediction: NDArray | None
    spacing_mm: tuple[float, float, float]
    is_2d: bool
    modality: str = ""
    note: str = ""


def plane_of(array: NDArray, spacing_mm: Sequence[float], plane: str, index: int) -> Plane:
    """Cut a RAS array (k, j, i[, 3]) for display: anterior or superior up; the patient's right on the left; in the
    sagittal plane anterior on the left.
    """
    k_mm, j_mm, i_mm = spacing_mm
    if plane == "axial":
        return Plane(array[index, ::-1, ::-1], j_mm / i_mm)
    if plane == "coronal":
        return Plane(array[::-1, index, ::-1], k_mm / i_mm)
    return Plane(array[::-1, ::-1, index], k_mm / j_mm)


def best_index(labels: NDArray, plane: str) -> int:
    """The slice that shows most different labels, and of those the one with the largest area; the middle if empty."""
    axis = PLANES.index(plane)
    others = tuple(other for other in range(3) if other != axis)
    values = [value for value in np.unique(labels) if value != 0]
    if not values:
        return labels.shape[axis] // 2
    areas = np.stack([(labels == value).sum(axis=others) for value in values])
    shown = (areas >= np.maximum(0.2 * areas.max(axis=1, keepdims=True), 1)).sum(axis=0)
    share = (areas / np.maximum(areas.max(axis=1, keepdims=True), 1)).sum(axis=0)
    return int(np.argmax(shown + share / (len(values) + 1)))


def display_range(image: NDArray, modality: str) -> tuple[float, float]:
    """Black and white of the picture: a soft tissue window for CT, the 1st to 99.5th percentile otherwise."""
    thinned = image[:, ::max(1, image.shape[1] // 32), ::max(1, image.shape[2] // 128), ::max(1, image.shape[3] // 128)]
    if modality == "CT" and float(thinned.min()) < -200:
        return CT_WINDOW_HU
    low, high = np.percentile(thinned, [1, 99.5])
    return float(low), float(max(high, low + 1e-6))


def grey(values: NDArray, black_white: tuple[float, float]) -> NDArray[np.float32]:
    """Channels (C, rows, columns) as 0..1: (rows, columns), or (rows, columns, 3) for three channels."""
    low, high = black_white
    shown = np.clip((np.asarray(values, np.float32) - low) / (high - low), 0, 1)
    return np.moveaxis(shown, 0, -1) if len(shown) == 3 else shown[0]


def overlays(cases: Sequence[Compared], colors: Mapping[int, Color]) -> Sheet:
    """Cases one below the other in three planes (one for 2-D): reference filled, prediction as a line.

    `colors` gives the colour of each stored label value that is shown.
    """
    flat = all(case.is_2d for case in cases)
    if flat:
        return _flat_overlays(cases, colors)
    pictures = [_planes(case, colors) for case in cases]
    widths = [max(_width(row[column][0]) for row in pictures) for column in range(3)]
    heights = [max(_height(row[column][0]) for column in range(3)) for row in pictures]
    scale = 10.2 / sum(widths)
    sheet = Sheet(10.2, sum(heights) * scale + 0.34 * len(cases))
    with sheet as figure:
        axes = grid_of_axes(figure, len(cases), 3, width_ratios=widths, height_ratios=heights)
        for row, case in enumerate(cases):
            for column, name in enumerate(PLANES):
                picture, reference, prediction = pictures[row][column]
                _draw(axes[row][column], picture, reference, prediction, colors)
                axes[row][column].set_anchor("NW")
                if column == 0:
                    note = f"  {case.note}" if case.note else ""
                    axes[row][column].set_title(shortened(case.name, 40) + note)
                else:
                    axes[row][column].set_title(name, color=SOFT, fontweight="normal")
    return sheet


Cut = tuple[Plane, Plane | None, Plane | None]
"""Image, reference and prediction in one plane."""


def _planes(case: Compared, colors: Mapping[int, Color]) -> list[Cut]:
    shown = case.reference if case.reference is not None and case.reference.any() else case.prediction
    black_white = display_range(case.image, case.modality)
    spatial = case.image.shape[1:]
    guide = np.zeros(spatial, np.uint8) if shown is None else np.where(np.isin(shown, list(colors)), shown, 0)
    result: list[Cut] = []
    for plane in PLANES:
        index = best_index(guide, plane)
        channels = [plane_of(channel, case.spacing_mm, plane, index) for channel in case.image]
        picture = Plane(grey(np.stack([one.values for one in channels]), black_white), channels[0].aspect)
        reference, prediction = (None if labels is None else plane_of(labels, case.spacing_mm, plane, index)
                                 for labels in (case.reference, case.prediction))
        result.append((picture, reference, prediction))
    return result


def _flat_overlays(cases: Sequence[Compared], colors: Mapping[int, Color]) -> Sheet:
    """2-D cases side by side."""
    columns = min(max(len(cases), 3), 4)
    rows = -(-len(cases) // columns)
    cuts = [_flat_cut(case) for case in cases]
    tallest = max(_height(cut[0]) / _width(cut[0]) for cut in cuts)
    sheet = Sheet(10.2, rows * (10.2 / columns * tallest + 0.4))
    with sheet as figure:
        axes = [one for row in grid_of_axes(figure, rows, columns) for one in row]
        for one, case, (picture, reference, prediction) in zip(axes, cases, cuts, strict=False):
            _draw(one, picture, reference, prediction, colors)
            one.set_anchor("NW")
            one.set_title(shortened(case.name, 26) + (f"  {case.note}" if case.note else ""))
        for one in axes[len(cases):]:
            one.set_visible(False)
    return sheet


def _flat_cut(case: Compared) -> Cut:
    picture = grey(case.image[:, 0], display_range(case.image, case.modality))
    reference, prediction = (None if labels is None else Plane(labels[0], 1.0)
                             for labels in (case.reference, case.prediction))
    return Plane(picture, case.spacing_mm[1] / case.spacing_mm[2]), reference, prediction


def _width(plane: Plane) -> float:
    return float(plane.values.shape[1])


def _height(plane: Plane) -> float:
    return plane.values.shape[0] * plane.aspect


def _draw(axes: Axes, picture: Plane, reference: Plane | None, prediction: Plane | None,
          colors: Mapping[int, Color]) -> None:
    from matplotlib import patheffects

    axes.imshow(picture.values, cmap="gray", vmin=0, vmax=1, aspect=picture.aspect, interpolation="bilinear")
    if reference is not None:
        tint = np.zeros((*reference.values.shape, 4), np.float32)
        for value, color in colors.items():
            tint[reference.values == value] = (*color, 0.45)
        axes.imshow(tint, aspect=picture.aspect, interpolation="nearest")
    if prediction is not None:
        halo: list[patheffects.AbstractPathEffect] = [
            patheffects.withStroke(linewidth=2.6, foreground="black", alpha=0.55)]
        for value, color in colors.items():
            mask = prediction.values == value
            if mask.any():
                edge = np.pad(mask.astype(float), 1)  # so that shapes at the border are closed
                rows, columns = np.arange(edge.shape[0]) - 1, np.arange(edge.shape[1]) - 1
                lines = axes.contour(columns, rows, edge, [0.5], colors=[_lighter(color)], linewidths=1.4)
                lines.set_path_effects(halo)
    axes.set_xlim(-0.5, picture.values.shape[1] - 0.5)
    axes.set_ylim(picture.values.shape[0] - 0.5, -0.5)
    bare(axes)


def _lighter(color: Color) -> Color:
    """The colour of a line that must be seen on dark tissue."""
    return tuple(0.75 * part + 0.25 for part in color)  # type: ignore[return-value]


def reconstructions(images: NDArray, masked: NDArray, filled: NDArray, spacing_mm: Sequence[float] | None,
                    limit: int = 6) -> Sheet:
    """Examples in columns; rows: the image, what the network saw of it, and the hidden parts as it filled them in.

    Args:
        images: (N, C, *spatial) as the network gets them, two or three spatial axes (three: RAS order).
        masked: (N, *spatial) bool, True where hidden.
        filled: (N, C, *spatial), the network's output.
        spacing_mm: of a voxel (k, j, i); None for square pixels.
        limit: at most so many examples.
    """
    count = min(len(images), limit)
    columns = [_triplet(images[n], masked[n], filled[n], spacing_mm) for n in range(count)]
    tallest = max(_height(triplet[0]) / _width(triplet[0]) for triplet in columns)
    width = min(10.2, 1.0 + 2.3 * count)
    cell = (width - 0.35) / count
    sheet = Sheet(width, 3 * cell * tallest + 0.15)
    with sheet as figure:
        axes = grid_of_axes(figure, 3, count)
        for column, triplet in enumerate(columns):
            for row, (plane, name) in enumerate(zip(triplet, ("image", "seen", "filled in"), strict=True)):
                one = axes[row][column]
                one.imshow(plane.values, cmap="gray", vmin=0, vmax=1, aspect=plane.aspect, interpolation="nearest")
                bare(one)
                if column == 0:
                    one.set_ylabel(name, color=INK)
    return sheet


def _triplet(image: NDArray, masked: NDArray, filled: NDArray, spacing_mm: Sequence[float] | None) -> list[Plane]:
    """The three pictures of one example on one scale; a volume in the axial plane that shows most structure."""
    image = np.asarray(image, np.float32)
    if image.ndim == 4:
        index = int(np.argmax([image[:, k].std() for k in range(image.shape[1])]))
        planes = [array[..., index, ::-1, ::-1] for array in (image, masked, np.asarray(filled, np.float32))]
        aspect = 1.0 if spacing_mm is None else spacing_mm[1] / spacing_mm[2]
    else:
        planes, aspect = [image, masked, np.asarray(filled, np.float32)], 1.0
    low, high = np.percentile(planes[0], [0.5, 99.5])
    shown, output = (np.clip((plane - low) / max(float(high - low), 1e-6), 0, 1) for plane in (planes[0], planes[2]))
    seen = np.where(planes[1], HIDDEN_GREY, shown)
    whole = np.where(planes[1], output, shown)
    return [Plane(np.moveaxis(one, 0, -1) if len(one) == 3 else one[0], aspect) for one in (shown, seen, whole)]
