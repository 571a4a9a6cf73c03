"""A synthetic CT and networks that segment it: what `inference.py` measures on.

Random weights label noise, and labels of noise say nothing about two engines. Training a network of this size takes
hours. So its last level is written down instead: the organs of the scan differ in their texture, each the sum of two
plane waves, and the four convolutions at voxel resolution become filters for the waves' directions. Instance
normalisation is linear for signals far below its epsilon and leaves waves, whose mean is zero, as they are, so that a
voxel's label hardly depends on which window it lies in, as in a well trained network. Everything else (the ViT, the
coarser levels) has random weights and is computed like any other, but joins the last level with weight zero.

A trained network finds an organ's surface wherever the grid lies. These filters do so, to about 0.3 mm, because

- the six directions, the axes of an icosahedron, lie as far apart as six can, so that a filter hardly sees other waves;
- every class that meets another has two waves of the same length, so that what resampling takes from them (the more,
  the wider its kernel) moves no surface: what wins is the larger sum. The tissue around the organs, which is background
  like the air, has a texture too;
- a wave's strength is the sum over seven phases, odd in number, which ripples by 1 % only;
- organs pass into each other over a few millimetres, as in an image that a scanner has blurred. A texture that changes
  from one voxel to the next is a pattern finer than the networks' grid, of which each grid keeps something else;
- the window of Hounsfield units begins at those of a layer of fat around the body: clipping leaves no sharp edge, and
  what lies beyond the image (zeros in a convolution) is no edge either.

A network of more classes has other sums of the waves as its further classes; in this scan they are absent.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = np.ndarray
SPACING_MM = 1.5  # of the networks
WINDOW_HU = (-160.0, 240.0)
AIR_HU, FAT_HU, TISSUE_HU, WAVE_HU, NOISE_HU = -1000.0, WINDOW_HU[0], 40.0, 60.0, 8.0
FAT_MM, SKIN_MM = 8.0, 6.0  # from the air to the body's surface, and from there to the organs
EDGE_MM, SEAM_MM = 2.0, 1.5  # how soft the body's surface (logistic) and the organs' (Gaussian) are
RADIANS_PER_VOXEL = 1.6  # of the waves, on the networks' grid: 5.9 mm
ORGANS = 13
LINEAR_PHASES, LAST_PHASES = 4, 7  # channels of a direction: opposite ones in all stages but the last, see wave_filters
SLOPE = 0.01  # of the networks' leaky ReLU where it is negative
EPSILON = 1e-5  # of instance normalisation
AMPLITUDE = 3e-4  # of the waves before each normalisation: their variance is far below epsilon
SPREAD = (0.3, 0.4, 0.3)  # the envelope of one convolution along an axis
AIR_BIAS, ABSENT_BIAS = 0.1, -2.0  # background where there is no texture; classes that are not in the scan
_strengths: dict[int, Array] = {}  # by side of the window; the same for any number of classes

_GOLDEN = (1 + math.sqrt(5)) / 2
DIRECTIONS = np.array([(0, 1, _GOLDEN), (0, 1, -_GOLDEN), (1, _GOLDEN, 0), (1, -_GOLDEN, 0), (_GOLDEN, 0, 1),
                       (-_GOLDEN, 0, 1)]) / math.hypot(1, _GOLDEN)  # (6, 3) unit vectors in (k, j, i)


@dataclass(frozen=True)
class Scan:
    """A CT: voxels (k, j, i) and their size (k, j, i) in mm."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @property
    def extent_mm(self) -> Array:
        """The field of view, (k, j, i)."""
        return np.multiply(self.shape, self.spacing_mm)


FULL = Scan((400, 512, 512), (1.0, 0.8, 0.8))
QUICK = Scan((120, 144, 144), (1.0, 0.8, 0.8))


def codes() -> Array:
    """(classes, 6): how much of each wave the classes have: the tissue, the organs, then classes that are absent."""
    pairs = np.array([np.isin(range(6), pair) for pair in itertools.combinations(range(6), 2)], np.float32)
    absent = [sums for sums in itertools.product((0, 1, 2), repeat=6) if sum(sums) > 2]
    return np.concatenate([pairs[:ORGANS + 1], np.array(absent, np.float32)])


def organs_at(scan: Scan, k: int) -> tuple[Array, Array]:
    """Of slice `k`: the organ (j, i) uint8 of each voxel (0 elsewhere), and its depth in the body (j, i) in mm.

    Twelve organs in two levels of two rows of three, and a column through all of them; next to each other, so that
    most of their surface are seams between organs. The depth is negative outside of the body.
    """
    z, y, x = (_centres(scan, axis) / scan.extent_mm[axis] for axis in range(3))
    y, x = y[:, None], x[None, :]
    aside = (1 - np.hypot(x / 0.41, y / 0.29)) * 0.33 * scan.extent_mm[1]
    depth = np.minimum(aside, (0.5 - abs(z[k])) * scan.extent_mm[0] + FAT_MM / 2) - FAT_MM
    organ = 1 + (x > -0.13) + (x > 0.13) + 3 * (y > 0) + 6 * int(z[k] > 0)
    organ[np.hypot(x, y - 0.14) < 0.075] = ORGANS
    return np.where(depth > SKIN_MM, organ, 0).astype(np.uint8), depth.astype(np.float32)


def _centres(scan: Scan, axis: int) -> Array:
    """Positions of the voxel centres along an axis, in mm from the middle."""
    return (np.arange(scan.shape[axis]) - (scan.shape[axis] - 1) / 2) * scan.spacing_mm[axis]


def write_scan(scan: Scan, folder: Path) -> None:
    """Write ``ct.nii.gz`` (int16 Hounsfield units) and ``organs.nii.gz``, always the same."""
    from medmae.volumes import Geometry, write_label
    from medmae.volumes.nifti_writing import write_nifti

    random = np.random.default_rng(0)
    image, organs = np.empty(scan.shape, np.int16), np.empty(scan.shape, np.uint8)
    for k in range(scan.shape[0]):
        organs[k] = organs_at(scan, k)[0]
    waves = waves_of(scan, organs)
    for k in range(scan.shape[0]):
        depth = organs_at(scan, k)[1]
        body = 1 / (1 + np.exp(np.clip(-depth / EDGE_MM, -50, 50)))
        value = np.where(depth > -FAT_MM, FAT_HU + (TISSUE_HU - FAT_HU + WAVE_HU * waves[k]) * body, AIR_HU)
        image[k] = np.rint(value + random.normal(0, NOISE_HU, depth.shape))
    geometry = Geometry.of(scan.shape, scan.spacing_mm, axes="LPS", origin_mm=(200.0, 200.0, -200.0))
    folder.mkdir(parents=True, exist_ok=True)
    write_nifti(folder / "ct.nii.gz", image, geometry)
    write_label(folder / "organs.nii.gz", organs, geometry, [], "nii.gz")


def waves_of(scan: Scan, organs: Array) -> Array:
    """(k, j, i) float32: the sum of the waves of what is everywhere, passing softly from one organ to the next."""
    from scipy import ndimage

    z, y, x = (_centres(scan, axis).astype(np.float32) for axis in range(3))
    per_mm = RADIANS_PER_VOXEL / SPACING_MM
    waves = np.zeros(scan.shape, np.float32)
    for number, (a, b, c) in enumerate(DIRECTIONS):
        strength = codes()[:ORGANS + 1, number][organs]
        ndimage.gaussian_filter(strength, SEAM_MM / np.array(scan.spacing_mm), output=strength, truncate=3)
        for k in range(scan.shape[0]):  # networks see RAS, the scan is LPS
            waves[k] += strength[k] * np.cos(per_mm * (a * z[k] - b * y[:, None] - c * x[None, :]))
    return waves


def write_tiled_scan(scan: Scan, data: Path, folder: Path) -> None:
    """Write ``ct.nii.gz`` of `scan`'s size by repeating the slices of a real CT to and fro; no organs are known."""
    from medmae.volumes import Geometry, read_image
    from medmae.volumes.nifti_writing import write_nifti

    source = read_image(data / "volumes" / "ct_abdomen_512" / "image.nii.gz").array[0]
    there_and_back = np.concatenate([source, source[-2:0:-1]])
    tiled = there_and_back[np.arange(scan.shape[0]) % len(there_and_back), :scan.shape[1], :scan.shape[2]]
    folder.mkdir(parents=True, exist_ok=True)
    write_nifti(folder / "ct.nii.gz", np.ascontiguousarray(tiled, np.int16),
                Geometry.of(tiled.shape, scan.spacing_mm, axes="LPS", origin_mm=(200.0, 200.0, -200.0)))


def architecture(classes: int, *, quick: bool) -> dict[str, Any]:
    """GL-MAE's `base` UNETR; `quick`: a small ViT under the same last level."""
    from medmae.networks import architecture_for

    found = architecture_for("gl-mae", "base", "segmentation", 1, classes)
    if quick:
        found["arguments"] |= {"width": 192, "depth": 4, "heads": 6, "skip_blocks": [1, 2, 3]}
    return found


def window_side(*, quick: bool) -> int:
    """Voxels of a window's side."""
    return 48 if quick else 96


def write_model(folder: Path, classes: int, *, quick: bool) -> None:
    """Write a model of `classes` classes, including air."""
    import torch

    from medmae.models import ModelInfo, save_model
    from medmae.networks import build_network

    if not ORGANS < classes <= len(codes()):
        raise SystemExit(f"{classes} classes are not possible here: choose from {ORGANS + 1} to {len(codes())}.")
    torch.manual_seed(0)
    described = architecture(classes, quick=quick)
    network = build_network(described).eval()
    with torch.no_grad():
        set_filters(network)
        side = window_side(quick=quick)
        if side not in _strengths:
            _strengths[side] = wave_strengths(network, side)
        set_head(network, classes, _strengths[side])
    labels = [{"name": f"organ {value}" if value else "background", "value": value,
               "color": [value / classes, 1 - value / classes, 0.5], "terminology": None} for value in range(classes)]
    info = ModelInfo(
        name=f"benchmark {classes}", task="segmentation", method="gl-mae", preset="base", architecture=described,
        spatial_dims=3, channels=[{"name": "CT", "modality": "CT"}], input_size=[window_side(quick=quick)] * 3,
        labels=labels, modality="CT", spacing_mm=[SPACING_MM] * 3,
        intensity={"kind": "ct_window", "low": WINDOW_HU[0], "high": WINDOW_HU[1]})
    save_model(folder, info, network)


def set_filters(network: nn.Module) -> None:
    """Write the filters into the last level: two convolutions on the image, two behind the join with the coarse map."""
    decoder: Any = network.decoder
    image_block, join = decoder.image_block, decoder.up_blocks[0]
    channels = join.mix.conv2.weight.shape[0]
    first, following, last = wave_filters()
    used = len(first)
    if len(last) > channels:
        raise ValueError(f"{len(last)} channels are needed at voxel resolution, but there are {channels}")
    for weight in (image_block.conv1, image_block.conv2, image_block.conv3, join.up, join.mix.conv1, join.mix.conv2,
                   join.mix.conv3):
        weight.weight.zero_()
    image_block.conv1.weight[:used] = first
    image_block.conv2.weight[:used, :used] = following
    join.mix.conv1.weight[:used, channels:channels + used] = following
    join.mix.conv2.weight[:len(last), :used] = last


def wave_filters() -> tuple[Tensor, Tensor, Tensor]:
    """Filters (24, 1, 3, 3, 3) from the image, (24, 24, 3, 3, 3) between the stages, and (42, 24, 3, 3, 3) at the end.

    A stage multiplies the wave of a direction by an envelope that moves with it. Channels: direction, then phase. With
    opposite phases a leaky ReLU loses nothing, because leaky(u) - leaky(-u) = 1.01 u; after the last stage the sum over
    the phases is the wave's strength.
    """
    import torch

    offsets = np.array(list(itertools.product((-1, 0, 1), repeat=3)))  # (27, 3)
    envelope = np.prod(np.array(SPREAD)[offsets + 1], axis=1)
    turns = RADIANS_PER_VOXEL * DIRECTIONS @ offsets.T  # (6, 27)
    phases, last_phases = (2 * np.pi * np.arange(count) / count for count in (LINEAR_PHASES, LAST_PHASES))
    wave_units = WAVE_HU / (WINDOW_HU[1] - WINDOW_HU[0]) / 2
    onward = math.sqrt(EPSILON) / (1 + SLOPE)  # undoes the factors of the normalisation before and of the leaky ReLU

    def between(phases_out: Array) -> Tensor:
        filters = np.zeros((len(DIRECTIONS), len(phases_out), len(DIRECTIONS), len(phases), 27))
        for number, turn in enumerate(turns):
            change = phases_out[:, None, None] - phases[:, None]
            filters[number, :, number] = onward * envelope * np.cos(turn + change)
        return torch.from_numpy(filters.reshape(len(DIRECTIONS) * len(phases_out), -1, 3, 3, 3)).float()

    waves = envelope * np.cos(turns[:, None] + phases[:, None])
    first = AMPLITUDE / wave_units * (waves - waves.mean(-1, keepdims=True))
    return torch.from_numpy(first.reshape(-1, 1, 3, 3, 3)).float(), between(phases), between(last_phases)


def wave_strengths(network: nn.Module, side: int) -> Array:
    """(6,): the summed features of each direction where only its wave is."""
    import torch

    places = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1)
    strengths = []
    for direction in DIRECTIONS:
        wave = WAVE_HU * np.cos(RADIANS_PER_VOXEL * places @ direction) + TISSUE_HU
        image = torch.from_numpy((wave - WINDOW_HU[0]) / (WINDOW_HU[1] - WINDOW_HU[0])).float()
        inner = slice(side // 4, -side // 4)
        strengths.append(direction_features(last_level(network, image[None, None]))[:, inner, inner, inner])
    return np.array([float(found[number].mean()) for number, found in enumerate(strengths)])


def last_level(network: nn.Module, image: Tensor) -> Tensor:
    """Features (F, k, j, i) of an image (1, 1, k, j, i), without the coarse map, whose weight is zero."""
    import torch

    decoder: Any = network.decoder
    features = decoder.image_block(image)
    return decoder.up_blocks[0].mix(torch.cat([torch.zeros_like(features), features], 1))[0]


def direction_features(features: Tensor) -> Tensor:
    """(F, ...) to (6, ...): of each direction the sum over its phases."""
    used = features[:len(DIRECTIONS) * LAST_PHASES]
    return used.reshape(len(DIRECTIONS), LAST_PHASES, *features.shape[1:]).sum(1)


def set_head(network: nn.Module, classes: int, strengths: Array) -> None:
    """The nearest code wins: logit of a class = 10 (2 code . found - |code|^2 + 2), found = features / strengths.

    Without texture all classes of two waves have 0, and a bias makes the air background. Absent classes are made less
    likely, so that they do not win in the seams of organs.
    """
    import torch

    head: Any = network.head
    head.weight.zero_()
    for number, code in enumerate(codes()[:classes]):
        per_channel = np.repeat(2 * code / strengths, LAST_PHASES)
        head.weight[number, :len(per_channel), 0, 0, 0] = torch.from_numpy(10 * per_channel).float()
        head.bias[number] = 10 * (2 - float(code @ code) + (ABSENT_BIAS if number > ORGANS else 0))
    head.bias[0] += 10 * AIR_BIAS
