"""A synthetic CT and networks that segment it: what `inference.py` measures on.

Random weights label noise, and labels of noise say nothing about two engines. Training a network of this size takes
hours. So its last level is written down instead: the organs of the scan differ in their texture, each a sum of plane
waves along some of seven directions, and the four convolutions at voxel resolution become filters for these directions.
Instance normalisation is linear for signals far below its epsilon and leaves waves, whose mean is zero, as they are, so
that a voxel's label hardly depends on which window it lies in, as in a well trained network. Everything else (the ViT,
the coarser levels) has random weights and is computed like any other, but joins the last level with weight zero.

Each organ has three directions, so that it is no matter how much resampling weakens the waves: all organs lose alike. A
network of more classes has more of the other sets as its further classes; in this scan they are absent.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = np.ndarray
SPACING_MM = 1.5  # of the networks
WINDOW_HU = (-160.0, 240.0)
AIR_HU, TISSUE_HU, WAVE_HU, NOISE_HU = -1000.0, 40.0, 40.0, 8.0
EDGE_MM = 3.0  # the body's surface is this soft, so that it is no wave of a short length
RADIANS_PER_VOXEL = 1.6  # of the waves, on the networks' grid: 5.9 mm
ORGANS = 13
PHASES = 3
_strengths: dict[int, Array] = {}  # by side of the window; the same for any number of classes
EPSILON = 1e-5  # of instance normalisation
AMPLITUDE = 3e-4  # of the waves before each normalisation: their variance is far below epsilon
SPREAD = (0.3, 0.4, 0.3)  # the envelope of one convolution along an axis

_DIAGONALS = [np.array(signs) / math.sqrt(3) for signs in ((1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1))]
DIRECTIONS = np.array([*np.eye(3), *_DIAGONALS])  # (7, 3) unit vectors in (k, j, i)


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


def codes() -> list[tuple[int, ...]]:
    """The sets of directions of the classes, as seven bits: nothing (air), the organs, then all the others."""
    words = [bits for bits in itertools.product((0, 1), repeat=7) if _is_hamming_word(bits) and sum(bits) == 3]
    turned = [tuple(bits[(1 - place) % 7] for place in range(7)) for bits in words]  # seven other such sets
    organs = [*words, *turned][:ORGANS]
    others = [bits for bits in itertools.product((0, 1), repeat=7) if any(bits) and bits not in organs]
    return [(0,) * 7, *organs, *others]


def _is_hamming_word(bits: Sequence[int]) -> bool:
    return not any(sum(bit for place, bit in enumerate(bits, 1) if place & check) % 2 for check in (1, 2, 4))


def organs_at(scan: Scan, k: int) -> tuple[Array, Array]:
    """Of slice `k`: the organ (j, i) uint8 of each voxel (0 outside), and how much body is there (j, i), 0 to 1."""
    z, y, x = (_centres(scan, axis) / scan.extent_mm[axis] for axis in range(3))
    y, x = y[:, None], x[None, :]
    radius = np.hypot(x / 0.41, y / 0.29)
    softness = EDGE_MM / (0.33 * scan.extent_mm[1])
    body = (1 / (1 + np.exp(np.clip((radius - 1) / softness * 2, -50, 50)))).astype(np.float32)
    level = min(3, int((z[k] + 0.5) * 4))
    organ = (1 + 3 * level + (x > -0.13) + (x > 0.13)) * np.ones_like(y, int)
    organ[np.hypot(x, y - 0.14) < 0.075] = ORGANS  # a column through all levels, behind
    return np.where(body > 0.5, organ, 0).astype(np.uint8), body


def _centres(scan: Scan, axis: int) -> Array:
    """Positions of the voxel centres along an axis, in mm from the middle."""
    return (np.arange(scan.shape[axis]) - (scan.shape[axis] - 1) / 2) * scan.spacing_mm[axis]


def write_scan(scan: Scan, folder: Path) -> None:
    """Write ``ct.nii.gz`` (int16 Hounsfield units) and ``organs.nii.gz``, always the same."""
    from medmae.volumes import Geometry, write_label
    from medmae.volumes.nifti_writing import write_nifti

    random = np.random.default_rng(0)
    image, organs = np.empty(scan.shape, np.int16), np.empty(scan.shape, np.uint8)
    used = np.array(codes()[:ORGANS + 1], np.float32)
    z, y, x = (_centres(scan, axis).astype(np.float32) for axis in range(3))
    per_mm = RADIANS_PER_VOXEL / SPACING_MM
    for k in range(scan.shape[0]):
        organs[k], body = organs_at(scan, k)
        inside = np.where(organs[k] > 0, organs[k], 0)
        waves = np.zeros(body.shape, np.float32)
        for direction, (a, b, c) in enumerate(DIRECTIONS):
            phase = per_mm * (a * z[k] - b * y[:, None] - c * x[None, :])  # networks see RAS, the scan is LPS
            waves += used[:, direction][inside] * np.cos(phase)
        noise = random.normal(0, NOISE_HU, body.shape).astype(np.float32)
        image[k] = np.rint(AIR_HU + (TISSUE_HU - AIR_HU + WAVE_HU * waves) * body + noise)
    geometry = Geometry.of(scan.shape, scan.spacing_mm, axes="LPS", origin_mm=(200.0, 200.0, -200.0))
    folder.mkdir(parents=True, exist_ok=True)
    write_nifti(folder / "ct.nii.gz", image, geometry)
    write_label(folder / "organs.nii.gz", organs, geometry, [], "nii.gz")


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
    first, following = wave_filters()
    used = len(first)
    if used > channels:
        raise ValueError(f"{used} channels are needed at voxel resolution, but there are {channels}")
    for weight in (image_block.conv1, image_block.conv2, image_block.conv3, join.up, join.mix.conv1, join.mix.conv2,
                   join.mix.conv3):
        weight.weight.zero_()
    image_block.conv1.weight[:used] = first
    image_block.conv2.weight[:used, :used] = following
    join.mix.conv1.weight[:used, channels:channels + used] = following
    join.mix.conv2.weight[:used, :used] = following


def wave_filters() -> tuple[Tensor, Tensor]:
    """Filters (42, 1, 3, 3, 3) from the image and (42, 42, 3, 3, 3) from one stage to the next.

    Channels: direction, then phase, then sign: with both signs a leaky ReLU loses nothing, because
    leaky(u) - leaky(-u) = 1.01 u. A stage multiplies the wave of a direction by an envelope that moves with it.
    """
    import torch

    offsets = np.array(list(itertools.product((-1, 0, 1), repeat=3)))  # (27, 3)
    envelope = np.prod(np.array(SPREAD)[offsets + 1], axis=1)
    phases = np.arange(PHASES) * np.pi / PHASES
    count = len(DIRECTIONS) * PHASES * 2
    first, following = np.zeros((count, 1, 27)), np.zeros((count, count, 27))
    wave_units = WAVE_HU / (WINDOW_HU[1] - WINDOW_HU[0]) / 2
    onward = math.sqrt(EPSILON)  # undoes the factor of the normalisation before
    for number, direction in enumerate(DIRECTIONS):
        turn = RADIANS_PER_VOXEL * offsets @ direction
        for m, n in itertools.product(range(PHASES), range(PHASES)):
            wave = envelope * np.cos(phases[n] - phases[m] - turn)
            for sign_out, sign_in in itertools.product((0, 1), (0, 1)):
                out, into = (2 * (PHASES * number + phase) + sign for phase, sign in ((m, sign_out), (n, sign_in)))
                sign = 1 if sign_out == sign_in else -1
                following[out, into] = sign * onward * 2 / PHASES * wave / 1.01
                if n == 0 and sign_in == 0:
                    first[out, 0] = sign * AMPLITUDE / wave_units * (wave - wave.mean())
    shape = (3, 3, 3)
    return (torch.from_numpy(first.reshape(count, 1, *shape)).float(),
            torch.from_numpy(following.reshape(count, count, *shape)).float())


def wave_strengths(network: nn.Module, side: int) -> Array:
    """(7,): the summed features of each direction where only its wave is."""
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
    """(F, ...) to (7, ...): of each direction the sum over phases and signs."""
    per_direction = PHASES * 2
    used = features[:len(DIRECTIONS) * per_direction]
    return used.reshape(len(DIRECTIONS), per_direction, *features.shape[1:]).sum(1)


def set_head(network: nn.Module, classes: int, strengths: Array) -> None:
    """The nearest code wins: logit of a class = 10 (2 code . found - |code|), found = features / strengths.

    Linear interpolation to 1.5 mm weakens waves, so `strengths` are taken a little lower. Absent classes
    are half a bit less likely, so that they do not win in the seams of organs.
    """
    import torch

    head: Any = network.head
    per_direction = PHASES * 2
    head.weight.zero_()
    for number, code in enumerate(codes()[:classes]):
        per_channel = np.repeat(2 * np.array(code) / (0.8 * strengths), per_direction)
        head.weight[number, :len(per_channel), 0, 0, 0] = torch.from_numpy(10 * per_channel).float()
        head.bias[number] = -10 * (sum(code) + (0.5 if number > ORGANS else 0))
