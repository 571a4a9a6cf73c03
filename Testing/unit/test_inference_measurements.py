"""Volume and surface area of labels against what geometry says."""

from __future__ import annotations

import numpy as np
import pytest
from volume_builders import rotation, turned

from medmae.inference.outputs.measurements import VOXELS_AT_ONCE, direction_weights, measure_labels
from medmae.volumes import Geometry

SPACINGS = [(1.0, 1.0, 1.0), (1.0, 0.8, 0.8), (3.0, 0.7, 0.7), (5.0, 0.5, 0.5), (1.0, 2.0, 0.6)]
TURNS = [(0.0, 0.0, 0.0), (0.4, 0.9, 0.2), (1.1, 0.3, 0.7)]


def points(size_mm, spacing, turn=(0.0, 0.0, 0.0)):
    """Places (k, j, i, 3) in mm of the voxels of a grid that holds a body of `size_mm`, seen from the body."""
    counts = [int(size_mm / step) + 6 for step in spacing]
    axes = [(np.arange(count) - (count - 1) / 2 + 0.13) * step for count, step in zip(counts, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1) @ rotation(turn)


def ellipsoid_area(radii):
    """By integration over the parameters of its surface."""
    count = 200
    polar, round_ = np.meshgrid((np.arange(count) + 0.5) / count * np.pi, (np.arange(count) + 0.5) / count * 2 * np.pi)
    x, y, z = radii
    element = np.sin(polar) * np.sqrt((y * z * np.sin(polar) * np.cos(round_)) ** 2
                                      + (x * z * np.sin(polar) * np.sin(round_)) ** 2 + (x * y * np.cos(polar)) ** 2)
    return element.sum() * 2 * (np.pi / count) ** 2


def area(mask, spacing, **options):
    labels = mask.astype(np.uint8)
    return measure_labels(labels, Geometry.of(labels.shape, spacing), [1], **options)[1].area_mm2


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("radii", "within"), [((20, 20, 20), 0.02), ((10, 10, 10), 0.025), ((30, 12, 12), 0.08),
                                               ((25, 25, 10), 0.08)])
def test_balls_and_ellipsoids_in_any_direction_have_their_area(spacing, radii, within):
    for turn in TURNS:
        body = ((points(2 * max(radii), spacing, turn) / np.array(radii)) ** 2).sum(-1) <= 1
        assert area(body, spacing) == pytest.approx(ellipsoid_area(radii), rel=within), turn


def test_the_mean_over_directions_is_right_where_single_directions_are_not():
    spacing, sides = (5.0, 0.5, 0.5), np.array((15, 12, 20))
    rng = np.random.default_rng(0)
    found = [area((np.abs(points(56, spacing, tuple(rng.uniform(0, np.pi, 3)))) <= sides).all(-1), spacing)
             for _ in range(8)]
    assert np.mean(found) == pytest.approx(8 * (15 * 12 + 15 * 20 + 12 * 20), rel=0.06)


@pytest.mark.parametrize(("spacing", "low", "high"), [((1.0, 1.0, 1.0), 0.89, 0.93), ((3.0, 0.7, 0.7), 0.80, 0.88)])
def test_boxes_along_the_grid_are_low_as_documented(spacing, low, high):
    labels = np.zeros((50, 70, 60), np.uint8)
    labels[5:45, 10:60, 5:55] = 1
    sides = np.array((40, 50, 50)) * spacing
    true = 2 * (sides[0] * sides[1] + sides[0] * sides[2] + sides[1] * sides[2])
    assert low < area(labels, spacing) / true < high


def test_the_direction_of_the_grid_and_its_place_do_not_matter():
    labels = (np.random.default_rng(0).random((9, 12, 11)) < 0.3).astype(np.uint8)
    plain = Geometry.of(labels.shape, (2.0, 1.0, 1.5))
    oblique = turned(Geometry.of(labels.shape, (2.0, 1.0, 1.5), axes="PSR", origin_mm=(5, -300, 20)), (0.3, 0.2, 0.1))
    assert measure_labels(labels, plain, [1]) == measure_labels(labels, oblique, [1])
    turned_over = np.ascontiguousarray(labels.transpose(2, 0, 1)[:, ::-1])
    assert (measure_labels(turned_over, Geometry.of(turned_over.shape, (1.5, 2.0, 1.0)), [1])[1].area_mm2
            == pytest.approx(measure_labels(labels, plain, [1])[1].area_mm2))


def slow_measure(labels, spacing, value):
    """Pair by pair, as the formula is written."""
    mask = np.pad(labels == value, 1)
    corners = [(k, j, i) for k in (0, 1) for j in (0, 1) for i in (0, 1)]
    total = 0.0
    for (one, other), weight in direction_weights(spacing):
        step = np.subtract(corners[other], corners[one])
        total += weight * sum(mask[tuple(place)] != mask[tuple(place + step)]
                              for place in np.argwhere(np.ones(mask.shape))
                              if all(place + step >= 0) and all(place + step < mask.shape))
    return int(mask.sum()), 2 * total


@pytest.mark.parametrize(("kind", "values"), [(np.uint8, (1, 2, 255)), (np.uint16, (3, 300, 65535)),
                                              (np.int16, (-4, 2, 300)), (np.int32, (1, 70000, 2**30))])
def test_labels_of_every_type_equal_counting_pair_by_pair(kind, values):
    spacing = (2.5, 1.0, 0.7)
    labels = np.array([0, *values, 77], kind)[np.random.default_rng(1).integers(0, 5, (5, 6, 7))]
    found = measure_labels(labels, Geometry.of(labels.shape, spacing), values)
    for value in values:
        voxels, area_mm2 = slow_measure(labels, spacing, value)
        assert found[value].voxels == voxels and found[value].area_mm2 == pytest.approx(area_mm2, abs=1e-3)
        assert found[value].ml == pytest.approx(voxels * 0.00175)


def test_slabs_make_no_difference(monkeypatch):
    labels = np.random.default_rng(2).integers(0, 4, (13, 6, 7)).astype(np.uint8)
    geometry = Geometry.of(labels.shape, (1.0, 2.0, 3.0))
    whole = measure_labels(labels, geometry, (1, 2, 3))
    assert labels.size < VOXELS_AT_ONCE
    for at_once in (1, 42, 100, 200):
        monkeypatch.setattr("medmae.inference.outputs.measurements.VOXELS_AT_ONCE", at_once)
        assert measure_labels(labels, geometry, (1, 2, 3)) == whole


def test_the_directions_share_the_sphere():
    weights = direction_weights((3.0, 1.0, 0.5))
    assert len({pair for pair, _ in weights}) == 13
    lengths = [np.linalg.norm(np.array([(b >> 2) - (a >> 2), (b >> 1 & 1) - (a >> 1 & 1), (b & 1) - (a & 1)])
                              * (3.0, 1.0, 0.5)) for (a, b), _ in weights]
    assert sum(weight * length for (_, weight), length in zip(weights, lengths, strict=True)) == pytest.approx(1.5)


def test_sizes_that_are_not_known_are_not_told():
    labels = np.zeros((1, 8, 8), np.uint8)
    labels[0, 2:5, 2:5] = 1
    geometry = Geometry.of(labels.shape, (1.0, 1.0, 1.0))
    picture = measure_labels(labels, geometry, [1], spacing_known=False)[1]
    assert (picture.voxels, picture.ml, picture.area_mm2) == (9, None, None)
    assert measure_labels(labels, geometry, [1], is_2d=True)[1].area_mm2 is None
    absent = measure_labels(labels, geometry, [2])[2]
    assert absent.voxels == 0 and absent.area_mm2 == 0
