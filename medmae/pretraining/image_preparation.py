"""From one source to what a pretraining corpus stores of it: read, normalised by its modality, fitted, checked.

Runs in the processes of a pool, one source at a time; imports neither torch nor MONAI.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmae.config import from_json, to_json
from medmae.datasets.corpus_items import IMAGE_TYPE
from medmae.datasets.preprocessing import Preprocessing
from medmae.errors import BadInput
from medmae.pretraining.modality import modality_of
from medmae.pretraining.sources import Source
from medmae.volumes import Volume, default_intensity, read_image

SMALLEST_SIDE = 8  # pixels of a stored image
LONGEST_OVER_SHORTEST = 16
FOREGROUND_ABOVE = 0.1  # of the normalised range: above air in CT (-800 HU) and above the noise of other modalities
SMALLEST_CONTRAST = 1e-3
_FRAME = "//frame "  # no id of a source holds two slashes in a row, except before the series of a folder


@dataclass(frozen=True)
class Recipe:
    """How sources are prepared; the same for all of a corpus.

    Attributes:
        method: whose default normalisation is used.
        preprocessing: grid, size and channels; its intensity is replaced by that of each image's modality, unless the
            images have several channel files.
        modality: what all images are, where a person says so; "" otherwise.
        declared: modalities of the channels as a dataset file declares them; () where there is none.
        min_foreground: slices of volumes with a smaller share of foreground are left out.
        frames: of a 4-D file, a loop or a TIFF with pages at most so many images are taken, evenly spread.
    """

    method: str
    preprocessing: Preprocessing
    modality: str = ""
    declared: tuple[str, ...] = ()
    min_foreground: float = 0.01
    frames: int = 16


@dataclass(frozen=True)
class PreparedImage:
    """One image as it will be stored: `array` (C, k, j, i) float16, `sha256` of its bytes."""

    id: str
    array: NDArray[np.float16]
    spacing_mm: tuple[float, float, float]
    modality: str
    normalisation: dict[str, Any]
    sha256: str


@dataclass(frozen=True)
class PreparedSource:
    """What a source gave, and what of it was left out: "slices" (nearly empty) and "frames", as (left out, of)."""

    images: list[PreparedImage]
    left_out: dict[str, tuple[int, int]] = field(default_factory=dict)


def prepare_source(recipe: Recipe, source: Source) -> PreparedSource:
    """Prepare one source.

    Raises:
        BadInput: it cannot be read, or holds nothing to learn from.
    """
    images: list[PreparedImage] = []
    left_out: dict[str, tuple[int, int]] = {}
    if len(source.images) > 1:
        volumes = [read_image(path) for path in source.images]
        codes = recipe.declared or (recipe.modality,)
        images.append(_prepared(recipe.preprocessing, source, source.id, volumes, codes[0], left_out, recipe))
        return PreparedSource(images, left_out)
    frames = frame_numbers(source, recipe.frames, left_out)
    for frame in frames:
        volume = _usable(read_image(source.images[0], frame=frame, series=source.series))
        declared = recipe.declared[0] if len(recipe.declared) == 1 else ""
        modality = modality_of(volume, stated=recipe.modality or source.modality, declared=declared)
        preprocessing = recipe.preprocessing
        if len(recipe.declared) < 2:
            preprocessing = dataclasses.replace(
                preprocessing, intensity=(default_intensity(modality, target=recipe.method),))
        identifier = source.id if frame is None else f"{source.id}{_FRAME}{frame}"
        images.append(_prepared(preprocessing, source, identifier, [volume], modality, left_out, recipe))
    return PreparedSource(images, left_out)


def first_frame(source_id: str) -> str:
    """The id of the first image of a source of several; it is always among those that are taken."""
    return f"{source_id}{_FRAME}0"


def source_of_frame(image_id: str) -> str:
    """The id of the source of an image."""
    return image_id.rpartition(_FRAME)[0] or image_id


def frame_numbers(source: Source, at_most: int, left_out: dict[str, tuple[int, int]]) -> list[int | None]:
    """Which frames of a source's file are taken, `at_most` so many and evenly spread; [None] for a single image."""
    from medmae.volumes.contents import count_frames

    count = count_frames(Path(source.images[0]))
    if count == 1:
        return [None]
    if count <= at_most:
        return list(range(count))
    left_out["frames"] = (count - at_most, count)
    return [int(number) for number in np.linspace(0, count - 1, at_most).round()]


def _usable(volume: Volume) -> Volume:
    """Refuse images from which nothing can be learned; drop the alpha channel of colour volumes."""
    sizes = sorted(volume.geometry.shape)
    if sizes[1] < SMALLEST_SIDE:
        k, j, i = volume.geometry.shape
        raise BadInput(f"{volume.source} has only {i} x {j}{f' x {k}' * (k > 1)} pixels; at least {SMALLEST_SIDE} x "
                       f"{SMALLEST_SIDE} are needed.")
    if volume.channels == 4 and volume.array.dtype == np.uint8:
        volume = dataclasses.replace(volume, array=volume.array[:3])
    finite = volume.array
    if np.issubdtype(finite.dtype, np.floating):
        finite = finite[np.isfinite(finite)]
        if not finite.size:
            raise BadInput(f"{volume.source} holds no finite value.")
    if finite.min() == finite.max():
        raise BadInput(f"{volume.source} is empty: all its pixels have the value {finite.min():g}.")
    return volume


def _prepared(preprocessing: Preprocessing, source: Source, identifier: str, volumes: list[Volume], modality: str,
              left_out: dict[str, tuple[int, int]], recipe: Recipe) -> PreparedImage:
    prepared = preprocessing.prepare([_usable(volume) for volume in volumes])
    name = source.name
    array = prepared.array
    if not np.isfinite(array).all():
        raise BadInput(f"{name} holds values too large to be normalised. Store it with values of a usual size.")
    if preprocessing.spatial_dims == 2:
        rows, columns = array.shape[2:]
        if max(rows, columns) > LONGEST_OVER_SHORTEST * min(rows, columns):
            longer, shorter = sorted(prepared.grid.shape[1:], reverse=True)
            raise BadInput(f"{name} is too narrow to learn from: {longer} x {shorter} pixels, one side more than "
                           f"{LONGEST_OVER_SHORTEST} times the other.")
        if not prepared.is_2d:
            kept = np.fromiter(_worth_keeping(array, recipe.min_foreground), bool, array.shape[1])
            if not kept.all():
                before = left_out.get("slices", (0, 0))
                left_out["slices"] = (before[0] + int((~kept).sum()), before[1] + len(kept))
            array = array[:, kept]
    if array.size == 0 or float(array.max() - array.min()) < SMALLEST_CONTRAST:
        raise BadInput(f"{name} is empty: after normalisation as {modality} no slice shows anything.")
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array, dtype=IMAGE_TYPE)
    normalisation = {"intensity": [to_json(intensity) for intensity in preprocessing.intensity]}
    return PreparedImage(identifier, stored, prepared.geometry.spacing_mm, modality, normalisation,
                         hashlib.sha256(stored.data).hexdigest())


def _worth_keeping(array: NDArray[np.float32], min_foreground: float) -> Iterator[bool]:
    """Of each slice of (C, k, j, i): whether enough of it lies above the background, and not all of it is alike."""
    for number in range(array.shape[1]):
        one = array[:, number]
        foreground = float((one > FOREGROUND_ABOVE).any(axis=0).mean())
        yield foreground >= min_foreground and float(one.max() - one.min()) >= SMALLEST_CONTRAST


@dataclass(frozen=True)
class Look:
    """What the headers of a source say: parts (path, series), and the grid (k, j, i) of each volume towards `axes`."""

    parts: list[tuple[str, str | None]]
    spacings_mm: list[tuple[float, float, float]]
    shapes: list[tuple[int, int, int]]


def look_at(axes: str, source: Mapping[str, Any]) -> Look:
    """Look into the headers of a source: a DICOM folder may hold several images; volumes state their grid.

    Args:
        axes: the order and directions of the axes in which the grids are told; "" reads no grids.
        source: the fields of a `Source`, a file or a folder.

    Raises:
        BadInput: the headers cannot be read.
    """
    from medmae.volumes.contents import images_of_dicom_folder, read_geometry
    from medmae.volumes.orientation import axis_change, reoriented_geometry

    path = Path(source["images"][0])
    parts: list[tuple[str, str | None]] = [(str(path), None)]
    if path.is_dir():
        parts = [(str(part.path), part.series) for part in images_of_dicom_folder(path)]
    grids = []
    for part, series in parts if axes else []:
        geometry = read_geometry(Path(part), series)
        if geometry is not None:
            grids.append(reoriented_geometry(geometry, axis_change(geometry, axes)))
    return Look(parts, [grid.spacing_mm for grid in grids], [grid.shape for grid in grids])


def prepare_numbered(recipe: Mapping[str, Any], task: Sequence[Any]) -> PreparedSource:
    """`prepare_source` for a pool: the fields of a `Recipe`; the place of a source, and the fields of the `Source`."""
    return prepare_source(from_json(Recipe, recipe, "recipe"), from_json(Source, task[1], "source"))


def prepared_source(fields: Mapping[str, Any]) -> PreparedSource:
    """A `PreparedSource` of what comes out of a pool."""
    images = [PreparedImage(**{**image, "spacing_mm": tuple(image["spacing_mm"])}) for image in fields["images"]]
    return PreparedSource(images, {what: (count, of) for what, (count, of) in fields["left_out"].items()})
