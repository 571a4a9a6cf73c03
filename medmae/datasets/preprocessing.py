"""From an image as stored to the array a network sees, the same for corpora, training and inference.

3-D: normalise the intensity, reorient to the model's axes, resample to its spacing (or keep the image's own).
2-D: normalise, reorient, keep every slice, fit each slice by its longest side without changing its aspect in mm.
Normalising comes first: percentiles of the stored voxels do not depend on the model's spacing, metal and air beyond a
CT window do not bleed into their neighbours, and a uniform image stays uniform (percentiles of an interpolated one
would stretch its rounding errors). Nothing is padded here: batches and windows pad (`pad_centred`), corpora do not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medmae.config import from_json, to_json
from medmae.datasets.prepared import Index, Prepared
from medmae.errors import BadInput
from medmae.volumes import Geometry, Intensity, Volume, reorient, resample, resample_labels, resampled_geometry
from medmae.volumes.orientation import axis_change, reoriented_geometry
from medmae.volumes.region import Region
from medmae.volumes.streaming import stream_planes, streamed_grid

if TYPE_CHECKING:
    from medmae.models import ModelInfo

Triple = tuple[float, float, float]
ORIENTATION = {2: "LPS", 3: "RAS"}  # how networks of 2 and of 3 dimensions see images
LARGEST_GRID = 2**31  # voxels of one channel: 8 GiB of float32; beyond it a spacing is wrong rather than an image large
GRID_TOLERANCE_MM = 1e-3
Allocate = Callable[[tuple[int, ...], np.dtype], np.ndarray]
_ROUNDING = 1e-6  # voxels


@dataclass(frozen=True)
class Preprocessing:
    """What turns images into network input; JSON through `medmae.config`, and a part of every model on disk.

    spatial_dims: 3 for volumes, 2 for images and for volumes slice by slice.
    orientation: directions in which i, j, k increase ("RAS" for 3-D, "LPS" for 2-D: rows and columns as on a screen).
    spacing_mm: (k, j, i); None keeps the image's own spacing (3-D), or fits slices by their longest side (2-D).
    input_size: the network's window, (k, j, i) or (rows, columns).
    intensity: one for all channels, or one a channel.
    channels: channels of the images.
    context: neighbouring slices that a 2-D network sees on each side as further channels (`slice_stacks`).
    """

    spatial_dims: Literal[2, 3]
    orientation: str
    spacing_mm: Triple | None
    input_size: tuple[int, ...]
    intensity: tuple[Intensity, ...]
    channels: int = 1
    context: int = 0

    def __post_init__(self) -> None:
        if self.context < 0 or (self.context and self.spatial_dims == 3):
            raise ValueError(f"context {self.context}: only 2-D networks see neighbouring slices, 0 or more of them")
        if len(self.input_size) != self.spatial_dims or min(self.input_size) < 1:
            raise ValueError(f"input_size {list(self.input_size)} needs {self.spatial_dims} positive numbers")
        if len(self.intensity) not in (1, self.channels):
            raise ValueError(f"{len(self.intensity)} intensities do not fit {self.channels} channels: "
                             "give one, or one a channel")
        if self.spacing_mm is not None and min(self.spacing_mm) <= 0:
            raise ValueError(f"spacing_mm {list(self.spacing_mm)} must be positive")

    @property
    def network_channels(self) -> int:
        """Channels of the network's input: those of the image, of every slice that it sees at once."""
        return self.channels * (2 * self.context + 1)

    @classmethod
    def of(cls, info: ModelInfo) -> Preprocessing:
        """The preprocessing that the model `info` was trained with.

        Raises:
            BadInput: the model's description is inconsistent.
        """
        stored = info.intensity.get("channels", [info.intensity])
        return from_json(cls, {
            "spatial_dims": info.spatial_dims, "orientation": info.orientation,
            "spacing_mm": None if info.spacing_mm is None else list(info.spacing_mm),
            "input_size": list(info.input_size), "channels": info.image_channels, "context": info.context,
            "intensity": list(stored),
        }, f"preprocessing of the model {info.name}")

    def model_fields(self) -> dict[str, Any]:
        """The fields of a `ModelInfo` from which `Preprocessing.of` makes an equal object again."""
        intensities = [to_json(intensity) for intensity in self.intensity]
        return {"spatial_dims": self.spatial_dims, "orientation": self.orientation,
                "spacing_mm": None if self.spacing_mm is None else list(self.spacing_mm),
                "input_size": list(self.input_size), "context": self.context,
                "intensity": intensities[0] if len(intensities) == 1 else {"channels": intensities}}

    def prepare(self, image: Volume | Sequence[Volume], region: Region | None = None, *,
                context: bool = True, allocate: Allocate = np.empty,
                forget: Callable[[], None] | None = None) -> Prepared:
        """Make the network's view of an image, or of the aligned images of a case (one a channel, the first's grid).

        Intensities are those of the whole image, whatever the region.

        Args:
            image: the image, or one a channel; the first gives the grid.
            region: the part of the image that is to be labelled; None: all of it. The prepared grid is then the part
                of the whole image's prepared grid that covers the region.
            context: cover half a window around the region too, so that results inside hardly depend on where it ends.
            allocate: makes the prepared array of a shape and type, for instance in a file.
            forget: called now and then while it is filled, so that an array in a file need not stay in memory.

        Raises:
            BadInput: the channels do not fit the model or do not overlap, a 2-D image meets a 3-D model, or the
                resampled grid would be unreasonably large.
        """
        volumes, layout, whole = self._laid_out(image, region, context=context)
        array = allocate(layout.array.shape, np.dtype(np.float32))
        begin = tuple(np.rint(whole.to_indices(layout.geometry.origin_mm)).astype(int).tolist())
        done = 0
        for volume in volumes:
            stop = done + volume.channels
            intensities = self.intensity if len(self.intensity) == 1 else self.intensity[done:stop]
            self._fill(array[done:stop], volume, intensities, whole, begin, forget)
            done = stop
        return dataclasses.replace(layout, array=array)

    def layout(self, image: Volume | Sequence[Volume], region: Region | None = None, *,
               context: bool = True) -> Prepared:
        """What `prepare` would give, before anything is computed: its `array` has the shape, but no memory."""
        return self._laid_out(image, region, context=context)[1]

    def _laid_out(self, image: Volume | Sequence[Volume], region: Region | None, *,
                  context: bool) -> tuple[list[Volume], Prepared, Geometry]:
        """The channels, the prepared image without its voxels, and the grid of the whole prepared image."""
        volumes = [image] if isinstance(image, Volume) else list(image)
        first = volumes[0]
        if self.spatial_dims == 3 and first.is_2d:
            raise BadInput(f"{first.source} is a 2-D image, but the model works on volumes. Use a 2-D model for it.")
        volumes = _matched_channels(volumes, self.channels)
        change = axis_change(first.geometry, self.orientation)
        grid = reoriented_geometry(first.geometry, change)
        whole = self._target(grid, first)
        region = region or Region((0, 0, 0), first.geometry.shape)
        start, shape = change.box(region.lower, region.shape, first.geometry.shape)
        target = grid.cropped(start, shape) if shape != grid.shape else grid
        begin, size = ((0, 0, 0), whole.shape) if target is grid else self._covering(target, whole, context=context)
        nothing = np.broadcast_to(np.float32(0), (sum(volume.channels for volume in volumes), *size))
        return volumes, Prepared(
            array=nothing, geometry=whole.cropped(begin, size) if size != whole.shape else whole, grid=grid,
            target=target, target_start=start, change=change, source_geometry=first.geometry, is_2d=first.is_2d,
            spacing_known=first.spacing_known, source=first.source), whole

    def prepare_label(self, label: Volume, prepared: Prepared, index_of: Mapping[int, int]) -> np.ndarray:
        """Bring a label map to the prepared image's grid: (k, j, i) uint8 class indices.

        Args:
            label: the stored label map, on the grid of the image.
            prepared: the prepared image.
            index_of: stored value to class index.

        Raises:
            BadInput: another grid than the image's, or a value that is not in `index_of`.
        """
        check_same_grid(label.geometry, prepared.source_geometry, label.source)
        indices = indices_of_values(label.array[0], index_of, label.source)
        oriented, grid = reorient(indices, label.geometry, self.orientation)
        if prepared.geometry.is_close(prepared.grid):
            return np.ascontiguousarray(oriented)
        return np.ascontiguousarray(resample_labels(oriented, grid, prepared.geometry).astype(np.uint8, copy=False))

    def _target(self, grid: Geometry, volume: Volume) -> Geometry:
        """The grid of the network input for an image whose reoriented grid is `grid`."""
        if self.spatial_dims == 3:
            spacing = self.spacing_mm
        elif self.spacing_mm is None or not volume.spacing_known:
            return fitted_geometry(grid, max(self.input_size))
        else:
            spacing = (grid.spacing_mm[0], self.spacing_mm[1], self.spacing_mm[2])
        if spacing is None or np.allclose(spacing, grid.spacing_mm, rtol=1e-4, atol=0):
            return grid
        extent = np.multiply(grid.shape, grid.spacing_mm)
        if float(np.prod(np.maximum(extent / spacing, 1))) > LARGEST_GRID:
            raise BadInput(f"{volume.source} measures {_millimetres(extent)} at a spacing of "
                           f"{_millimetres(grid.spacing_mm)}, far too large for the model's spacing of "
                           f"{_millimetres(spacing)}. Correct the spacing of the image.")
        return resampled_geometry(grid, spacing)

    def _covering(self, target: Geometry, whole: Geometry, *, context: bool) -> tuple[Index, Index]:
        """Start and size (k, j, i) of the part of `whole` that covers `target`, with half a window around it.

        It is at least a window where `whole` is. Slices of 2-D networks stay whole, because they are seen whole.
        """
        ends = whole.to_indices(target.to_world(np.array([(0, 0, 0), np.subtract(target.shape, 1)])))
        window = self.input_size if self.spatial_dims == 3 else (2 * self.context + 1, *whole.shape[1:])
        start, size = [], []
        for axis, extent in enumerate(window):
            margin = extent // 2 if context or self.spatial_dims == 2 else 0
            low, high = sorted(ends[:, axis])
            first = max(0, int(np.floor(low + _ROUNDING)) - margin)
            stop = min(whole.shape[axis], int(np.ceil(high - _ROUNDING)) + 1 + margin)
            missing = min(extent, whole.shape[axis]) - (stop - first)
            if missing > 0:
                first = max(0, min(first - missing // 2, whole.shape[axis] - extent))
                stop = min(whole.shape[axis], first + extent)
            start.append(first)
            size.append(stop - first)
        return (start[0], start[1], start[2]), (size[0], size[1], size[2])

    def _fill(self, result: np.ndarray, volume: Volume, intensities: Sequence[Intensity], whole: Geometry,
              begin: Index, forget: Callable[[], None] | None) -> None:
        """Normalise and resample a volume into `result` (C, k, j, i), the part of the grid `whole` from `begin` on."""
        change = axis_change(volume.geometry, self.orientation)
        grid = reoriented_geometry(volume.geometry, change)
        way = streamed_grid(grid, change, whole, begin, result.shape[1:])
        if way is None:  # a channel oblique to the first
            oriented = change.apply(_normalised(volume.array, intensities))
            result[...] = resample(oriented, grid, whole.cropped(begin, result.shape[1:]))
            return
        least = _least_finite(volume.array)
        for channel, target in enumerate(result):
            source, intensity = volume.array[channel], intensities[channel % len(intensities)]
            planes = _NormalisedPlanes(source, intensity, least)
            fill = None if way.is_inside else min(float(planes(index).min()) for index in range(len(source)))
            stream_planes(planes, way, target, fill, forget)


def fitted_geometry(geometry: Geometry, longest_side: int) -> Geometry:
    """The grid on which the longer in-plane side (in mm) has `longest_side` pixels; same slices and field of view.

    The aspect in mm is kept (to half a pixel); the shorter side has one pixel at least.
    """
    extent = np.multiply(geometry.shape, geometry.spacing_mm)[1:]
    rows, columns = (max(1, round(float(side) * longest_side / float(extent.max()))) for side in extent)
    shape = (geometry.shape[0], rows, columns)
    if shape == geometry.shape:
        return geometry
    affine = np.array(geometry.affine, dtype=np.float64)
    corner = affine[:3, 3] - 0.5 * (affine[:3, 0] + affine[:3, 1])
    affine[:3, 0] *= geometry.shape[2] / columns
    affine[:3, 1] *= geometry.shape[1] / rows
    affine[:3, 3] = corner + 0.5 * (affine[:3, 0] + affine[:3, 1])
    return dataclasses.replace(geometry, shape=shape, affine=affine)


def pad_centred(array: np.ndarray, size: Sequence[int], value: float = 0.0) -> np.ndarray:
    """Pad the last len(size) axes to at least `size`, the same number of voxels on both sides (the odd one behind).

    The rule of sliding windows and of classification too, so training that pads likewise sees the same borders.
    """
    missing = [max(0, wanted - have) for wanted, have in zip(size, array.shape[-len(size):], strict=True)]
    if not any(missing):
        return array
    widths = [(0, 0)] * (array.ndim - len(size)) + [(extra // 2, extra - extra // 2) for extra in missing]
    return np.pad(array, widths, constant_values=value)


def check_same_grid(label: Geometry, image: Geometry, source: str) -> None:
    """Refuse a label map whose grid differs from its image's by more than 1e-3 mm.

    Raises:
        BadInput: it does.
    """
    if not label.is_close(image, tolerance_mm=GRID_TOLERANCE_MM):
        raise BadInput(f"The label map {source} has another grid than its image: {_grid_text(label)} instead of "
                       f"{_grid_text(image)}. Resample one onto the other, or correct the pair.")


def indices_of_values(labels: np.ndarray, index_of: Mapping[int, int], source: str = "label map") -> np.ndarray:
    """Stored label values to uint8 class indices.

    Raises:
        BadInput: a value is not in `index_of`, or there are more than 256 classes.
    """
    if max(index_of.values(), default=0) > 255:
        raise BadInput(f"{len(index_of)} classes are more than the 256 that MedMAE handles. Merge some of them.")
    present = np.unique(labels)
    unknown = [int(value) for value in present if int(value) not in index_of]
    if unknown:
        raise BadInput(f"{source} holds the label value{'s' if len(unknown) > 1 else ''} "
                       f"{', '.join(map(str, unknown[:10]))}{' ...' if len(unknown) > 10 else ''}, but the label map "
                       f"knows only {', '.join(map(str, sorted(index_of)))}. Add the values to the dataset's labels.")
    indices = np.array([index_of[int(value)] for value in present], dtype=np.uint8)
    return indices[np.searchsorted(present, labels)]


def _matched_channels(volumes: Sequence[Volume], channels: int) -> list[Volume]:
    """The volumes with `channels` channels in total: colour becomes grey or grey colour where that is all it takes."""
    total = sum(volume.channels for volume in volumes)
    first = volumes[0]
    if total != channels and len(volumes) == 1 and {total, channels} == {1, 3}:
        array = (np.repeat(first.array, 3, axis=0) if channels == 3 else
                 _repaired(first.array, _least_finite(first.array)).mean(axis=0, keepdims=True, dtype=np.float32))
        return [dataclasses.replace(first, array=array)]
    if total != channels:
        raise BadInput(f"{first.source} has {total} channel{'s' if total > 1 else ''}, but the model needs {channels}. "
                       "Give one image a channel, in the model's order.")
    for other in volumes[1:]:
        if not _overlap(other.geometry, first.geometry):
            raise BadInput(f"{other.source} and {first.source} do not overlap in space, so they cannot be channels of "
                           "one case. Register them first, or correct the case.")
    return list(volumes)


def _overlap(one: Geometry, other: Geometry) -> bool:
    """Whether the bounding boxes of two fields of view share some space."""
    low_one, high_one = _bounds(one)
    low_other, high_other = _bounds(other)
    return bool(np.all(np.minimum(high_one, high_other) > np.maximum(low_one, low_other)))


def _bounds(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    k, j, i = geometry.shape
    corners = np.array([[x, y, z, 1.0] for x in (-0.5, i - 0.5) for y in (-0.5, j - 0.5) for z in (-0.5, k - 0.5)])
    points = corners @ np.asarray(geometry.affine).T
    return points[:, :3].min(axis=0), points[:, :3].max(axis=0)


def _least_finite(array: np.ndarray) -> float | None:
    """What stands for NaN and infinities (scanners write them outside the body): the least finite value of an image.

    None where all values are finite; 0 where none is.
    """
    if np.issubdtype(array.dtype, np.integer):
        return None
    planes = array.reshape(-1, *array.shape[2:])
    if all(np.isfinite(plane).all() for plane in planes):
        return None
    least = [float(plane[finite].min()) for plane in planes if (finite := np.isfinite(plane)).any()]
    return min(least, default=0.0)


def _repaired(array: np.ndarray, least: float | None) -> np.ndarray:
    return array if least is None else np.where(np.isfinite(array), array, least).astype(array.dtype)


class _NormalisedPlanes:
    """The planes of a channel (k, j, i), each normalised when it is asked for."""

    def __init__(self, channel: np.ndarray, intensity: Intensity, least: float | None) -> None:
        self.channel = channel
        self.intensity = intensity
        self.least = least
        self.limits = intensity.limits(channel, least)

    def __call__(self, index: int) -> np.ndarray:
        return self.intensity.scaled(_repaired(self.channel[index], self.least), self.limits)


def _normalised(array: np.ndarray, intensities: Sequence[Intensity]) -> np.ndarray:
    """(C, k, j, i) float32, a copy."""
    least, result = _least_finite(array), np.empty(array.shape, np.float32)
    for number, channel in enumerate(array):
        planes = _NormalisedPlanes(channel, intensities[number % len(intensities)], least)
        for index in range(len(channel)):
            result[number, index] = planes(index)
    return result


def _grid_text(geometry: Geometry) -> str:
    origin = ", ".join(f"{value:.4g}" for value in geometry.origin_mm)
    return (f"{' x '.join(map(str, geometry.shape))} voxels (k, j, i) of {_millimetres(geometry.spacing_mm)}, "
            f"axes {geometry.axes}, origin ({origin}) mm")


def _millimetres(values: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{float(value):.4g}" for value in values) + " mm"
