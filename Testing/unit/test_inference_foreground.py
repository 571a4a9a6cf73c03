"""Where there is something to segment: on patients made up of ellipsoids, and on real scans."""

from __future__ import annotations

import numpy as np
import pytest
from test_preprocessing import ORIENTATIONS, oblique

from medmae.inference.foreground import foreground, foreground_region
from medmae.inference.region import Region
from medmae.volumes import Geometry, Volume, read_image, read_label
from medmae.volumes.orientation import axis_change, reoriented_geometry

GEOMETRY = Geometry.of((40, 128, 160), (5.0, 3.0, 3.0))  # 480 mm wide, 384 mm deep, 200 mm high
CENTRE = np.array([240.0, 192.0, 100.0])


def ellipse(centre, radii):
    """A column along the body (k, j, i) bool; centre and radii towards right and front in mm."""
    k, j, i = np.meshgrid(*map(np.arange, GEOMETRY.shape), indexing="ij")
    world = GEOMETRY.to_world(np.stack([k, j, i], -1))
    return ((world[..., 0] - centre[0]) / radii[0])**2 + ((world[..., 1] - centre[1]) / radii[1])**2 <= 1


def patient(*, arms=False, table=0.0):
    """A chest of 300 x 200 mm with lungs; arms of 70 mm beside it; a board below, `table` mm thick."""
    rng = np.random.default_rng(0)
    array = rng.normal(-1000, 20, GEOMETRY.shape)
    array[ellipse((240, 200), (150, 100))] = 40
    for side in (170, 310):
        array[ellipse((side, 200), (50, 70))] = -850
    if arms:
        for side in (45, 435):
            array[ellipse((side, 200), (35, 35))] = 40
    if table:
        rows = slice(int(40 / 3), int(40 / 3) + int(np.ceil(table / 3)))
        array[:, rows, 20:140] = -100
    return array.astype(np.int16)


def found_in(array, geometry=GEOMETRY, modality="CT"):
    return foreground(Volume(array[None], geometry), modality)


def share(cells_of):
    return cells_of.cells.mean()


def test_air_around_the_body_is_left_out_and_air_inside_is_not():
    array = patient()
    found = found_in(array)
    for offset in (0, 1):  # every voxel of the body and of its lungs is in a cell
        body = np.argwhere(array > -900)[offset::2]
        assert found.cells[tuple((body // found.step).T)].all()
    region = found.region
    assert region.lower[0] == 0 and region.upper[0] == 40
    low, high = GEOMETRY.to_world(region.lower), GEOMETRY.to_world(np.subtract(region.upper, 1))
    assert np.allclose([low[0], high[0]], [90, 390], atol=20) and np.allclose([low[1], high[1]], [100, 300], atol=20)
    assert foreground_region(Volume(array[None], GEOMETRY), "CT") == region


def test_arms_belong_to_the_body_also_where_they_hang_apart():
    array = patient(arms=True)
    found = found_in(array)
    arms = np.argwhere(ellipse((45, 200), (35, 35)) | ellipse((435, 200), (35, 35)))
    assert found.cells[tuple((arms // found.step).T)].all()


@pytest.mark.parametrize("thickness", [6, 18])
def test_a_table_apart_from_the_body_is_left_out(thickness):
    assert found_in(patient(table=thickness)).region == found_in(patient()).region


def test_lungs_are_kept_where_a_narrow_image_cuts_them():
    rows, columns = slice(45, 95), slice(45, 80)  # one lung, the heart's side of the chest, and no air around the body
    array = patient()[:, rows, columns]
    geometry = GEOMETRY.cropped((0, rows.start, columns.start), array.shape)
    found = found_in(array, geometry)
    inside = np.argwhere(ellipse((240, 200), (150, 100))[:, rows, columns])
    assert found is None or found.cells[tuple((inside // found.step).T)].all()


def test_lungs_are_kept_in_images_of_nothing_else():
    array = patient()
    lungs = array == -850
    array[~lungs] = -2000
    array[:, 66:68, 56:58] = 40  # a vessel
    found = found_in(array)
    assert found.cells[tuple((np.argwhere(lungs) // found.step).T)].all() and share(found) < 0.5


def test_gas_at_the_edge_of_a_narrow_image_is_inside_of_the_body():
    array = np.full((30, 60, 60), 40, np.int16)
    array[:, :30, 10:50] = -1000
    assert found_in(array, Geometry.of(array.shape, (3, 2, 2))) is None


@pytest.mark.parametrize("table", [False, True])
def test_fingers_apart_from_each_other_are_kept(table):
    geometry = Geometry.of((60, 120, 120), (1.0, 1.0, 1.0))
    _, j, i = np.meshgrid(*map(np.arange, geometry.shape), indexing="ij")
    fingers = np.logical_or.reduce([(i - 15 - 22 * n)**2 + (j - 60)**2 <= 64 for n in range(5)])
    array = np.where(fingers, 60, -1000).astype(np.int16)
    if table:
        array[:, 100:106] = -50
    found = found_in(array, geometry)
    assert found.cells[tuple((np.argwhere(fingers) // found.step).T)].all()


def test_what_the_signal_encloses_counts_although_it_is_as_dark_as_the_padding():
    geometry = Geometry.of((30, 80, 80), (3.0, 3.0, 3.0))
    _, j, i = np.meshgrid(*map(np.arange, geometry.shape), indexing="ij")
    head, cavity = (i - 40)**2 + (j - 40)**2 <= 30**2, (i - 40)**2 + (j - 40)**2 <= 15**2
    array = np.where(head & ~cavity, np.random.default_rng(0).integers(200, 400, geometry.shape), 0).astype(np.int16)
    found = found_in(array, geometry, "MR")
    assert found.cells[tuple((np.argwhere(head) // found.step).T)].all() and share(found) < 0.9


def test_a_body_that_fills_the_image_leaves_nothing_to_skip():
    array = np.full((20, 30, 40), 30, np.int16)
    array[8:12, 10:20, 10:20] = -900
    assert found_in(array, Geometry.of(array.shape, (3, 3, 3))) is None


@pytest.mark.parametrize("value", [-1000, 0])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_in_an_image_without_anything_everything_counts(value, modality):
    array = np.full((10, 10, 10), value, np.int16)
    assert found_in(array, Geometry.of(array.shape, (3, 3, 3)), modality) is None


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_the_body_is_found_in_every_orientation(axes):
    volume = Volume(patient()[None], GEOMETRY)
    change = axis_change(GEOMETRY, axes)
    turned = Volume(change.apply(volume.array), reoriented_geometry(GEOMETRY, change))
    region, expected = foreground_region(turned, "CT"), foreground_region(volume, "CT")
    start, shape = change.box(expected.lower, expected.shape, GEOMETRY.shape)
    # Cells begin at the first stored voxel, so they lie otherwise along flipped axes.
    np.testing.assert_allclose(region.lower, start, atol=8)
    np.testing.assert_allclose(region.upper, np.add(start, shape), atol=8)


def test_boxes_of_another_grid_are_empty_only_where_nothing_of_the_body_is_in_them():
    geometry = oblique((60, 60, 60), (2.0, 2.0, 2.0), "LPS")
    array = np.full(geometry.shape, -1000, np.int16)
    array[10:30, 10:30, 10:30] = 50
    found = found_in(array, geometry)
    grid = Geometry.of((80, 80, 80), (2.5, 2.5, 2.5), origin_mm=geometry.center_mm - 100)
    rng = np.random.default_rng(0)
    for _ in range(200):
        shape = rng.integers(1, 25, 3)
        start = rng.integers(-10, 70, 3)
        k, j, i = np.meshgrid(*(np.arange(first, first + size) for first, size in zip(start, shape, strict=True)),
                              indexing="ij")
        indices = np.rint(geometry.to_indices(grid.to_world(np.stack([k, j, i], -1)))).astype(int)
        inside = indices[((indices >= 0) & (indices < geometry.shape)).all(-1)]
        has_body = bool((array[tuple(inside.T)] > 0).any())
        if found.is_empty(grid, start, shape):
            assert not has_body
    assert found.is_empty(geometry, (45, 45, 45), (15, 15, 15))
    assert found.is_empty(geometry, (-40, 0, 0), (20, 60, 60))
    assert not found.is_empty(geometry, (0, 0, 0), (11, 11, 11))


def test_constant_padding_of_other_images_is_left_out_and_noise_is_not():
    rng = np.random.default_rng(0)
    geometry = Geometry.of((40, 60, 60), (2.0, 2.0, 2.0))
    noisy = rng.normal(100, 30, geometry.shape).astype(np.float32)
    assert found_in(noisy, geometry, "MR") is None
    masked = np.zeros_like(noisy)
    masked[10:30, 20:40, 20:40] = noisy[10:30, 20:40, 20:40]
    masked[35, 50, 50] = 1  # a single voxel is not overlooked
    found = found_in(masked, geometry, "MR")
    assert found is not None and share(found) < 0.6
    assert found.cells[tuple((np.argwhere(masked != 0) // found.step).T)].all()


def test_missing_values_are_background():
    geometry = Geometry.of((40, 60, 60), (2.0, 2.0, 2.0))
    array = np.full(geometry.shape, np.nan, np.float32)
    array[:, :, 20:] = 0
    array[10:20, 20:30, 30:40] = np.random.default_rng(0).normal(100, 10, (10, 10, 10))
    found = found_in(array, geometry, "MR")
    assert found is not None and found.region.lower[2] > 10


def test_one_slice_and_one_voxel():
    array = patient()[:1]
    geometry = GEOMETRY.cropped((0, 0, 0), array.shape)
    assert found_in(array, geometry).region.upper[0] == 1
    assert found_in(np.full((1, 1, 1), 5, np.int16), Geometry.of((1, 1, 1), (1, 1, 1))) is None


def test_all_labels_of_real_scans_lie_in_the_foreground(shared_data):
    volumes = shared_data / "volumes"
    for name in ("ct_trunk_3mm", "ct_abdomen_512"):
        image = read_image(volumes / name / "image.nii.gz")
        labels = read_label(volumes / name / "labels_model_made.nii.gz").array[0]
        region = foreground_region(image, "CT") or Region((0, 0, 0), image.geometry.shape)
        found = foreground(image, "CT")
        labelled = np.argwhere(labels)
        assert (labelled >= region.lower).all() and (labelled < region.upper).all()
        assert found is None or found.cells[tuple((labelled // found.step).T)].all()


def test_magnetic_resonance_scans_keep_all_their_labels(shared_data):
    folder = shared_data / "volumes" / "mr_sarcoma_native"
    found = foreground(read_image(folder / "image.nrrd"), "MR")
    labelled = np.argwhere(read_label(folder / "label.nrrd").array[0])
    assert found is None or found.cells[tuple((labelled // found.step).T)].all()
