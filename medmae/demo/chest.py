"""Synthetic chest X-rays: projected lungs, heart, ribs and clavicles, some with an opacity in a lung.

Picture coordinates: u from -1 (left edge of the picture, the patient's right) to 1, v from 0 (top) to about 1.1.
For demonstration and tests only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmae.demo.shapes import Field, capsule, common, coverage, ellipsoid, smooth_noise, union, without

LABELS = {"background": 0, "lung": 1, "heart": 2}
CLASSES = {"normal": 0, "opacity": 1}


@dataclass(frozen=True)
class XrayCase:
    """One synthetic radiograph: image (rows, columns) uint8 or uint16, labels uint8, class value (see CLASSES)."""

    image: NDArray[np.uint8] | NDArray[np.uint16]
    label: NDArray[np.uint8]
    finding: int


@dataclass(frozen=True)
class _Chest:
    """Coordinates and the distances (in units of u) that several painters share."""

    u: Field
    v: Field
    side: Field
    lateral: Field
    lung: Field
    heart: Field
    pixel: float


def make_xray(seed: int, index: int) -> XrayCase:
    """Case `index` of the population `seed`; the same two numbers give the same pixels.

    Odd cases show an opacity; every third is stored with 12 of 16 bits, the others with 8.
    """
    random = np.random.default_rng([seed, index, 2])
    rows, columns = int(random.integers(250, 290)), int(random.integers(236, 276))
    chest = _anatomy(rows, columns, random)
    thickness = _soft_tissue(chest, random)
    thickness += _bones(chest, random)
    inside = coverage(chest.lung, 6 * chest.pixel)
    thickness += inside * _vessels(chest, random)
    finding = index % 2
    if finding:
        thickness += inside * _opacity(chest, random)
    label = np.zeros((rows, columns), np.uint8)
    label[chest.lung < 0] = LABELS["lung"]
    label[chest.heart < 0] = LABELS["heart"]
    return XrayCase(_exposed(thickness, random, sixteen_bits=index % 3 == 2), label, finding)


def _anatomy(rows: int, columns: int, random: np.random.Generator) -> _Chest:
    """Place the patient: scale, shift, tilt and smooth deformation, then lungs and heart."""
    column = np.linspace(-1, 1, columns, dtype=np.float32)[None]
    row = np.linspace(0, 1.1, rows, dtype=np.float32)[:, None]
    tilt, scale = random.uniform(-0.06, 0.06), random.uniform(0.93, 1.07)
    warp_u, warp_v = (smooth_noise((rows, columns), (4, 4), random) * 0.014 for _ in range(2))
    u = (column - random.uniform(-0.05, 0.05) + tilt * (row - 0.5)) / scale + warp_u
    v = (row - random.uniform(-0.03, 0.03) - tilt * column * 0.5 - 0.5) / scale + 0.5 + warp_v
    side = np.abs(u)
    apex, depth = random.uniform(0.09, 0.13), random.uniform(0.70, 0.78)
    widest = random.uniform(0.68, 0.76)
    reach = np.clip(1 - (np.clip(depth + 0.02 - v, 0, None) / (depth - apex)) ** 2, 0, 1)
    lateral = 0.16 + (widest - 0.16) * np.sqrt(reach)
    dome = depth + 0.035 * (u > 0) + 0.55 * (side - 0.34) ** 2 + 0.25 * np.clip(side - 0.45, 0, None)
    lung = common(common(side - lateral, (v - dome) * 0.8, 0.015), 0.10 + 0.02 * np.sin(9 * v) - side, 0.06)
    lung = common(lung, apex - v, 0.10)
    wide = random.uniform(0.9, 1.18)
    ventricle = ellipsoid([u, v], (0.13, 0.66), (0.28 * wide, 0.165), (28,))
    atrium = ellipsoid([u, v], (-0.05, 0.63), (0.13 * wide, 0.17))
    heart = common(union(ventricle, atrium, 0.06), (v - dome - 0.06) * 0.8, 0.05)
    knob = ellipsoid([u, v], (0.09, 0.31), (0.085, 0.085))
    lung = without(without(lung, heart), knob, 0.02)
    return _Chest(u, v, side, lateral, lung, heart, 2 / columns)


def _soft_tissue(chest: _Chest, random: np.random.Generator) -> Field:
    """Attenuation of body, lungs, heart, mediastinum, airways and the gas in the stomach."""
    u, v, side, pixel = chest.u, chest.v, chest.side, chest.pixel
    shoulder = 0.015 + 0.10 * np.clip(side - 0.24, 0, None) ** 0.7 + 0.14 * np.clip(side - 0.62, 0, None)
    arm = 0.93 - 0.08 * np.clip(v - 0.30, 0, 0.4) + 0.10 * np.clip(v - 0.75, 0, None)
    body = common(side - arm, shoulder - v, 0.05)
    body = union(body, common(side - 0.22, v - 0.2), 0.05)  # the neck
    thickness = coverage(body, 3 * pixel) * (0.42 + 0.26 * np.sqrt(np.clip(1.04 - side**2, 0, 1)))
    thickness *= 1 - 0.22 * np.exp(-(((v - 0.36) / 0.25) ** 2))
    thickness += 0.13 / (1 + np.exp((0.80 - v) / 0.05)) * coverage(body, 3 * pixel)  # the abdomen
    depth = 0.37 + 0.08 * random.uniform(-1, 1)
    thickness -= depth * coverage(chest.lung, 5 * pixel) * (0.72 + 0.28 * np.clip((chest.lateral - side) * 4, 0, 1))
    thickness += 0.10 * coverage(chest.heart, 7 * pixel)
    middle = union(side - 0.10, ellipsoid([u, v], (0.09, 0.31), (0.08, 0.085)), 0.03)
    thickness += 0.10 * coverage(middle, 10 * pixel) * coverage(body, 3 * pixel)
    windpipe = union(capsule([u, v], (0.0, -0.05), (0.01, 0.36), 0.032),
                     union(capsule([u, v], (0.01, 0.36), (-0.12, 0.44), 0.022),
                           capsule([u, v], (0.01, 0.36), (0.14, 0.45), 0.020)))
    thickness -= 0.13 * coverage(windpipe, 5 * pixel)
    bubble = ellipsoid([u, v], (0.36, 0.93), (0.15, random.uniform(0.03, 0.07)))
    return thickness - 0.14 * coverage(bubble, 6 * pixel)


def _bones(chest: _Chest, random: np.random.Generator) -> Field:
    """Attenuation of spine, ribs (descending in front), clavicles and shoulder blades."""
    u, v, side, pixel = chest.u, chest.v, chest.side, chest.pixel
    level = v * (14 - 3.2 * v) + random.uniform(0, 1)
    disc = np.abs(level - np.round(level)) < 0.12
    bone = 0.10 * coverage(side - 0.062, 5 * pixel) * np.where(disc, 0.55, 1.0)
    cage = common(side - chest.lateral - 0.025, 0.055 - side)
    t = np.clip(side / 0.75, 0, 1)
    start, gap = random.uniform(0.115, 0.15), random.uniform(0.074, 0.083)
    behind = (v - start + 0.035 * np.sin(np.pi * t) - 0.17 * t**2.4) / gap
    bone += 0.105 * _bars(behind, gap, 0.015, 9.5, pixel) * coverage(cage, 4 * pixel)
    front = (v - start - 0.10 - 0.17 * (1 - t)) / gap
    bone += 0.07 * _bars(front, gap, 0.017, 6.5, pixel) * coverage(common(cage, 0.33 - side + 0.1 * v), 12 * pixel)
    for left in (-1, 1):
        inner, outer = (left * 0.07, 0.155), (left * 0.36, 0.125)
        clavicle = union(capsule([u, v], inner, outer, 0.020), capsule([u, v], outer, (left * 0.74, 0.075), 0.017))
        bone += 0.13 * coverage(clavicle, 4 * pixel)
        blade = ellipsoid([u, v], (left * 0.83, 0.28), (0.085, 0.17), (left * -14,))
        bone += 0.07 * coverage(blade, 6 * pixel) + 0.05 * coverage(np.abs(blade) - 0.008, 4 * pixel)
        bone += 0.14 * coverage(ellipsoid([u, v], (left * 0.95, 0.13), (0.10, 0.085)), 5 * pixel)
    return bone


def _bars(phase: Field, gap: float, half_width: float, last: float, pixel: float) -> Field:
    """Ribs at the whole numbers 0..`last` of `phase`: a plate with brighter rims, as tubes project."""
    distance = np.abs(phase - np.round(phase)) * gap
    exists = (phase > -0.5) & (phase < last)
    plate = coverage(distance - half_width, 3 * pixel)
    rim = coverage(np.abs(distance - half_width * 0.85) - 0.0025, 3 * pixel)
    return np.where(exists, 0.6 * plate + 0.6 * rim, 0)


def _vessels(chest: _Chest, random: np.random.Generator) -> Field:
    """Branches that leave each hilum and thin out towards the edge of the lung, and fine texture."""
    drawn = np.zeros_like(chest.u)
    for left in (-1, 1):
        for angle in np.linspace(-1.15, 1.25, 10) + random.uniform(-0.1, 0.1, 10):
            place, width = np.array([left * 0.13, 0.45 + 0.02 * left]), random.uniform(0.014, 0.022)
            for _ in range(4):
                step = np.array([left * np.cos(angle), np.sin(angle)]) * random.uniform(0.07, 0.12)
                low, high = np.minimum(place, place + step) - 0.04, np.maximum(place, place + step) + 0.04
                near = (chest.u > low[0]) & (chest.u < high[0]) & (chest.v > low[1]) & (chest.v < high[1])
                tube = capsule([chest.u[near], chest.v[near]], place.tolist(), (place + step).tolist(), width)
                drawn[near] = np.maximum(drawn[near], coverage(tube, 4 * chest.pixel) * (0.03 + 3.8 * width))
                place, width, angle = place + step, width * 0.66, angle + random.uniform(-0.35, 0.35)
    fine = smooth_noise(chest.u.shape, (34, 30), random)
    return drawn + 0.012 * fine


def _opacity(chest: _Chest, random: np.random.Generator) -> Field:
    """A hazy patch with uneven edges somewhere well inside a lung."""
    rows, columns = np.nonzero(chest.lung < -0.07)
    chosen = random.integers(len(rows))
    centre_u, centre_v = chest.u[rows[chosen], columns[chosen]], chest.v[rows[chosen], columns[chosen]]
    radius = random.uniform(0.13, 0.20)
    distance = np.hypot(chest.u - centre_u, (chest.v - centre_v) * random.uniform(0.8, 1.3)) / radius
    ragged = distance + 0.16 * smooth_noise(chest.u.shape, (13, 13), random)
    return random.uniform(0.26, 0.36) / (1 + np.exp((ragged - 1) * 5))


def _exposed(thickness: Field, random: np.random.Generator,
             sixteen_bits: bool) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The detector's picture (dense is bright): blur, exposure, contrast, quantum noise, a collimated border."""
    from scipy import ndimage

    picture = ndimage.gaussian_filter(np.clip(thickness, 0, None), 0.7)
    picture = np.clip(picture / random.uniform(0.92, 1.12), 0, 1.2) ** random.uniform(0.85, 1.3)
    grain = ndimage.gaussian_filter(random.standard_normal(picture.shape), 0.6)
    picture += grain / grain.std() * random.uniform(0.008, 0.018) * (0.6 + picture)
    picture = random.uniform(0.02, 0.10) + picture * random.uniform(0.78, 0.92)
    if random.random() < 0.3:
        top, side = (int(n) for n in random.integers(3, 9, 2))
        frame = np.ones(picture.shape, bool)
        frame[top:-top, side:-side] = False
        picture[frame] = 0.01
    if sixteen_bits:
        return np.round(np.clip(picture, 0, 1) * 4095).astype(np.uint16)
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
