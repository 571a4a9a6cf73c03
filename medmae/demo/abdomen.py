"""Synthetic CT of the upper abdomen: a body of implicit shapes that differs smoothly from case to case.

For demonstration and tests only: the shapes are drawn to be believable, not to be anatomically exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmae.demo.shapes import Field, capsule, common, coverage, ellipsoid, smooth_noise, union, without

LABELS = {"background": 0, "liver": 1, "spleen": 2, "kidney": 3, "aorta": 4, "vertebra": 5}
VOXEL_MM = 3.5
SLICE_MM = 5.0
SHAPE = (40, 96, 96)


@dataclass(frozen=True)
class CtCase:
    """One synthetic patient: HU ``(k, j, i)`` int16, labels ``(k, j, i)`` uint8, affine (i, j, k, 1) to RAS mm."""

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]


def make_ct(seed: int, index: int) -> CtCase:
    """Case `index` of the population `seed`; the same two numbers give the same voxels.

    Cases differ in shape, contrast phase, noise, spacing and orientation: most are stored as scanners do (LPS), every
    fourth otherwise (RAS or sagittal storage), and one in eight is oblique.
    """
    random = np.random.default_rng([seed, index, 3])
    shape, affine = _grid(index, random)
    points = _ras_points(shape, affine)
    scene = _Scene(points, shape, random)
    _paint_body(scene)
    _paint_spine(scene)
    _paint_lungs(scene)
    _paint_gut(scene)
    _paint_organs(scene)
    _paint_vessels(scene)
    return CtCase(_scanned(scene.image, random), scene.label, affine)


def _grid(index: int, random: np.random.Generator) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Shape (k, j, i) and affine of a case's voxel grid, centred on the body."""
    in_plane = VOXEL_MM * random.uniform(0.94, 1.06)
    spacing_ijk = np.array([in_plane, in_plane, SLICE_MM])
    shape, axes = SHAPE, np.diag([-1.0, -1.0, 1.0])  # LPS: how CT comes from a scanner
    if index % 8 == 2:
        axes = np.eye(3)  # RAS
    elif index % 8 == 4:  # stored slice by slice from left to right: i anterior, j inferior, k right
        axes = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
        spacing_ijk, shape = np.array([in_plane, SLICE_MM, in_plane]), (SHAPE[2], SHAPE[0], SHAPE[1])
    elif index % 8 == 6:
        a, b = np.radians(random.uniform(6, 12, 2))
        about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
        axes = about_z @ about_x @ axes  # oblique
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing_ijk
    centre = (np.array(shape[::-1]) - 1) / 2
    affine[:3, 3] = random.uniform(-6, 6, 3) - affine[:3, :3] @ centre
    return shape, affine


def _ras_points(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> list[Field]:
    k, j, i = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    rows = affine[:3].astype(np.float32)
    return [np.ascontiguousarray(np.broadcast_to(r[0] * i + r[1] * j + r[2] * k + r[3], shape)) for r in rows]


class _Scene:
    """The voxels painted so far, in the patient's own (warped) coordinates x right, y anterior, z superior in mm."""

    def __init__(self, ras: list[Field], shape: tuple[int, int, int], random: np.random.Generator) -> None:
        self.random = random
        self.width = random.uniform(0.90, 1.06)
        self.depth = random.uniform(0.88, 1.08)
        warp = [smooth_noise(shape, (4, 4, 4), random) for _ in range(3)]
        self.table = ras[1]
        self.x, self.y, self.z = (ras[0] / self.width + 3.5 * warp[0], ras[1] / self.depth + 3.5 * warp[1],
                                  ras[2] + 4 * warp[2])
        self.points = [self.x, self.y, self.z]
        self.bumps = smooth_noise(shape, (9, 9, 9), random)
        self.image = np.full(shape, -1000, np.float32)
        self.label = np.zeros(shape, np.uint8)
        self.enhancement = float(random.choice([0.6, 0.9, 1.1])) + random.uniform(-0.1, 0.1)  # contrast agent
        self.fat_mm = random.uniform(8, 20)
        self.wall = self.domes = self.bumps  # distance to the inside of the wall, height of the diaphragm: set below

    def paint(self, distance: Field, hu: float | Field, label: str | None = None) -> None:
        """Put tissue of `hu` where the shape is; what it covers loses its label."""
        share = coverage(distance, 4.2)
        self.image += share * (hu - self.image)
        self.label[share > 0.5] = LABELS[label] if label else 0

    def vary(self, value: float, spread: float) -> float:
        """A random value around `value`, at most `spread` away."""
        return float(value + self.random.uniform(-spread, spread))

    def organ(self, centre: tuple[float, float, float], radii: tuple[float, float, float],
              turn: tuple[float, ...] = (), shift: float = 5.0) -> Field:
        """An ellipsoid of random position, size and tilt with a slightly bumpy surface."""
        return ellipsoid(self.points, [self.vary(c, shift) for c in centre],
                         [r * self.vary(1.0, 0.08) for r in radii],
                         [self.vary(angle, 6) for angle in turn]) + 1.1 * self.bumps


def _paint_body(scene: _Scene) -> None:
    """Table, skin, fat, muscle wall, ribs and the fat of the cavity; sets scene.wall (inside of the muscles)."""
    x, y, z = scene.points
    scene.paint(np.abs(scene.table + 122 - 0.0016 * x**2) - 2.5, -480)
    flat_back = np.where(y < 0, y * 1.06, y)
    outline = ((np.abs(x) / 152) ** 2.4 + (np.abs(flat_back) / 110) ** 2.4) ** (1 / 2.4)
    skin = ((outline - 1) * 118).astype(np.float32)
    scene.paint(skin, 20)
    scene.paint(skin + 2.5, -103 + 6 * scene.bumps)
    muscle = skin + scene.fat_mm * (1 - 0.25 * np.clip(y / 100, -1, 1))
    scene.paint(muscle, 52 + 5 * scene.bumps)
    scene.wall = muscle + 12
    scene.paint(scene.wall, -96 + 7 * scene.bumps)
    along = (z + 0.8 * (y + 60) + scene.vary(0, 14)) / 30  # ribs descend towards the front
    phase = along - np.round(along)
    rib = np.hypot((muscle + 6.5) * 1.2, phase * 30 * 0.8) - 6
    margin = -48 + 0.55 * (y + 60) + np.where(y > 0, np.clip(70 - np.abs(x), 0, 70), 0) - z  # no ribs below it
    cage = common(common(rib, margin * 0.6), 26 - np.abs(x))
    scene.paint(cage, 330)
    scene.paint(cage + 3.2, 190)


def _paint_spine(scene: _Scene) -> None:
    """Back muscles and a column of vertebrae with discs, canal and processes."""
    x, y, z = scene.points
    for side in (-1, 1):
        scene.paint(ellipsoid([x, y], (side * 33, -73), (29, 19), (side * 10,)), 56 + 6 * scene.bumps)
        psoas = np.clip((20 - z) / 90, 0.05, 1)
        scene.paint(ellipsoid([x - side * 34, y + 38], (0, 0), (22, 21)) + 20 * (1 - psoas), 58)
    level = (z + scene.vary(0, 16)) / 34
    phase = (level - np.round(level)) * 34
    column = ellipsoid([x, y], (0, -38), (22, 17)) + 1.5 * np.cos(phase / 17 * np.pi)
    scene.paint(column, 78)  # discs
    body = common(column, np.abs(phase) - 12.5, 4)
    scene.paint(body, 320, "vertebra")
    arch = without(ellipsoid([x, y], (0, -61), (16, 14)), ellipsoid([x, y], (0, -60), (9, 8)))
    process = common(np.abs(x) - 3.6 + 0.02 * (y + 75), np.abs(y + 82) - 15)
    across = common(np.hypot(y + 58 - 0.12 * np.abs(x), phase * 0.8) - 4.5, np.abs(x) - 36)
    posterior = common(union(union(arch, process, 3), across, 3), np.abs(phase + 3) - 13, 3)
    scene.paint(posterior, 290, "vertebra")
    inside = union(body + 3.5, posterior + 3.2)
    share = coverage(inside, 4.2)
    scene.image += share * (170 + 25 * scene.bumps - scene.image)  # spongy bone keeps the label
    scene.paint(ellipsoid([x, y], (0, -60), (9, 8)), 28)


def _paint_lungs(scene: _Scene) -> None:
    """Lung bases over the two domes of the diaphragm, and the lower edge of the heart; sets scene.domes."""
    x, y, z = scene.points
    right, left = scene.vary(74, 9), scene.vary(64, 9)
    bend = np.clip(((y - 8) / 82) ** 2, 0, 3)
    dome_right = right - 46 * ((x - 62) / 62) ** 2 - 44 * bend
    dome_left = left - 46 * ((x + 66) / 62) ** 2 - 44 * bend
    scene.domes = np.where(x > 0, dome_right, dome_left).astype(np.float32)
    lung = common((scene.domes - z) * 0.7, scene.wall - 3)
    mediastinum = 13 + 26 / (1 + np.exp(-(y - 10) / 10 - (z - 75) / 9)) / (1 + np.exp(-(z - 45) / 8))
    lung = common(lung, mediastinum - np.abs(x), 8)
    lung = without(lung, ellipsoid([x, y], (0, -66), (54, 42)), 8)
    vessels = np.abs(scene.bumps) < 0.10
    scene.paint(lung, -845 + 30 * scene.bumps + 330 * vessels)
    heart = ellipsoid(scene.points, (-24, 26, scene.vary(108, 6)), (64, 52, 46), (0, 18))
    scene.paint(heart, 45 + 75 * scene.enhancement)


def _paint_gut(scene: _Scene) -> None:
    """Stomach with a gas bubble in front, colon at the flanks and loops of bowel below."""
    x, y, z = scene.points
    random = scene.random
    inside = scene.wall + 4
    for side in (-1, 1):
        colon = ellipsoid([x + 6 * np.sin(z / 14), y], (side * scene.vary(99, 5), scene.vary(0, 8)), (20, 21))
        colon = common(common(colon, inside), z + scene.vary(12, 8) + 3 * np.sin(x / 6), 6)
        scene.paint(colon, 45)
        scene.paint(colon + 4, np.where(y > scene.vary(6, 8), -780, -20 + 60 * scene.bumps))
    for _ in range(26):
        centre = (random.uniform(-82, 82), random.uniform(8, 66), random.uniform(-110, -22))
        radii, turn = (random.uniform(18, 34), 13, 14), (random.uniform(-70, 70), random.uniform(-70, 70))
        near = (np.abs(x - centre[0]) < 36) & (np.abs(y - centre[1]) < 36) & (np.abs(z - centre[2]) < 36)
        loop = np.full(x.shape, 99, np.float32)  # only the neighbourhood is worth computing
        loop[near] = np.maximum(ellipsoid([x[near], y[near], z[near]], centre, radii, turn), inside[near])
        scene.paint(loop, 55 + 30 * scene.enhancement)
        scene.paint(loop + 4, -700 if random.random() < 0.2 else 18)
    stomach = common(scene.organ((-54, 34, 34), (34, 34, 52), (25, 15)), inside)
    stomach = common(stomach, z - scene.domes + 5, 4)
    scene.paint(stomach, 60 + 25 * scene.enhancement)
    level = scene.vary(44, 8)
    scene.paint(stomach + 4, np.where(y > level, -930, 22 + 8 * scene.bumps))


def _paint_organs(scene: _Scene) -> None:
    """Pancreas, gallbladder, liver, spleen and kidneys."""
    x, y, z = scene.points
    phase = scene.enhancement
    inside, below = scene.wall + 3, z - scene.domes + 5
    scene.paint(scene.organ((-12, 12, -2), (52, 10, 11), (-14, 14)), 42 + 50 * phase)
    kidneys = [_kidney(scene, 1, scene.vary(-30, 9)), _kidney(scene, -1, scene.vary(-16, 9))]

    lobe = scene.organ((58, 0, 14), (92, 90, 82), (0, 0))
    slope = (-(z + 62) + 0.52 * (112 - x) - 0.20 * (y - 20)) / 1.15 + scene.vary(0, 7)
    left_lobe = scene.organ((4, 46, 44), (66, 34, 32), (-12, 10))
    liver = union(common(lobe, slope, 14), left_lobe, 16)
    liver = common(common(liver, inside, 6), below, 6)
    liver = without(liver, ellipsoid(scene.points, (4, -34, 10), (42, 44, 110)), 10)
    liver = common(liver, -(x + 62) + 0.2 * (y - 40), 10)
    liver = without(liver, kidneys[0][0] - 5, 6)
    liver = without(liver, ellipsoid(scene.points, (50, -84, -36), (54, 40, 74)), 8)
    scene.paint(liver, scene.vary(56, 6) + 55 * phase + 2 * scene.bumps, "liver")
    _enhance(scene, liver + 9, np.abs(smooth_noise(x.shape, (7, 7, 7), scene.random)) < 0.09, 40 * phase)
    scene.paint(common(scene.organ((58, 46, -32), (13, 15, 24), (10, 20)), inside), 8)

    spleen = common(common(scene.organ((-102, -34, 24), (42, 52, 54), (20, 8)), inside, 6), below, 5)
    spleen = without(spleen, ellipsoid(scene.points, (-56, 10, 24), (36, 44, 62)), 8)
    spleen = without(spleen, kidneys[1][0] - 5, 6)
    scene.paint(spleen, scene.vary(48, 4) + 95 * phase, "spleen")

    for kidney, hilum in kidneys:
        scene.paint(without(kidney, hilum, 4), 34 + 150 * phase, "kidney")
        _enhance(scene, without(kidney, hilum) + 8, scene.bumps > -0.2, -38 * phase)
        scene.paint(common(hilum + 1.5, kidney), -70)


def _kidney(scene: _Scene, side: int, height: float) -> tuple[Field, Field]:
    """A kidney (`side` 1 right, -1 left) and its hilum, the fatty notch towards the spine."""
    centre = (side * scene.vary(60, 4), scene.vary(-42, 4), height)
    turn = (side * -28.0, side * 10.0)
    radii = [r * scene.vary(1.0, 0.08) for r in (24.0, 28.0, 50.0)]
    kidney = ellipsoid(scene.points, centre, radii, turn) + 0.8 * scene.bumps
    return kidney, ellipsoid(scene.points, (centre[0] - side * 17, centre[1] + 9, centre[2]), (17, 10, 21), turn)


def _enhance(scene: _Scene, distance: Field, where: NDArray[np.bool_], hu: float) -> None:
    """Add `hu` inside a shape where a pattern is set (vessels, medulla); labels stay."""
    scene.image += coverage(distance, 4.2) * where * hu


def _paint_vessels(scene: _Scene) -> None:
    """Vena cava and aorta along the spine, with the branch to each kidney."""
    x, y, z = scene.points
    phase = scene.enhancement
    cava = ellipsoid([x - 3 * np.sin(z / 50), y], (17, scene.vary(-9, 2)), (13, 9))
    scene.paint(cava, 42 + 90 * phase)
    bend, radius = scene.vary(0, 5), scene.vary(10.5, 1.5)
    middle = -13 + bend * np.sin(z / 55)
    aorta = np.hypot(x - middle, y + 10 + 3 * np.sin(z / 70)) - radius + 0.012 * (z + 40)
    for side in (-1, 1):
        artery = capsule(scene.points, (-12, -10, -18), (side * 50, -32, -24), 3.0)
        scene.paint(artery, 42 + 150 * phase)
    scene.paint(aorta.astype(np.float32), 44 + 165 * phase, "aorta")


def _scanned(tissue: Field, random: np.random.Generator) -> NDArray[np.int16]:
    """What a scanner makes of it: slight blur and noise whose grains are larger than a voxel."""
    from scipy import ndimage

    noise = ndimage.gaussian_filter(random.standard_normal(tissue.shape).astype(np.float32), 0.65)
    blurred = ndimage.gaussian_filter(tissue, 0.35)
    noisy = blurred + noise / noise.std() * random.uniform(11, 22)
    return np.clip(np.round(noisy), -1024, 3071).astype(np.int16)
