"""Keeping the largest part of a label and filling its holes, against scipy's labelling of whole volumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from inference_helpers import description
from scipy import ndimage

from medmae.inference.outputs.components import boxes_of, clean, clean_inside, steps_for
from medmae.inference.outputs.runs_of_voxels import Runs
from medmae.volumes import Geometry
from medmae.volumes.region import region_of_box

ALL, FACES = np.ones((3, 3, 3)), ndimage.generate_binary_structure(3, 1)


def blobs(seed, shape=(9, 12, 14), labels=4, kind=np.uint8):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(labels, *shape)), (0, 1, 1, 1))
    return noise.argmax(0).astype(kind)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("touching", "structure"), [(26, ALL), (6, FACES)])
def test_parts_by_runs_are_those_of_scipy(seed, touching, structure):
    mask = np.random.default_rng(seed).random((7, 8, 9)) < (0.15, 0.3, 0.6)[seed % 3]
    runs = Runs.of(mask)
    found = np.zeros(mask.shape, int)
    part = runs.components(touching=touching)
    for number in range(part.max() + 1):
        found.reshape(-1)[runs.voxels(part == number)] = number + 1
    expected, count = ndimage.label(mask, structure)
    assert np.array_equal(found > 0, mask) and part.max() + 1 == count
    assert len(set(zip(found[mask].tolist(), expected[mask].tolist(), strict=True))) == count


def slow_clean(labels, steps):
    result = labels.copy()
    for value in steps["largest_component"]:
        parts, count = ndimage.label(result == value, ALL)
        sizes = np.bincount(parts.ravel())[1:]
        if count > 1:
            result[(result == value) & (parts != sizes.argmax() + 1)] = 0
    for value in steps["fill_holes"]:
        mask = np.pad(result == value, 1)
        holes = (ndimage.binary_fill_holes(mask, FACES) & ~mask)[1:-1, 1:-1, 1:-1]
        result[holes & (result == 0)] = value
    return result


@pytest.mark.parametrize("seed", range(8))
def test_cleaning_equals_doing_it_on_whole_volumes(seed):
    labels = blobs(seed, kind=(np.uint8, np.int16)[seed % 2])
    labels[labels == 3] = 0  # room for holes
    steps = {"largest_component": [2, 1], "fill_holes": [1, 2]}
    expected, before = slow_clean(labels, steps), labels.copy()
    changed = clean(labels, steps)
    assert np.array_equal(labels, expected) and labels.dtype == before.dtype
    assert changed == {value: more for value in (1, 2)
                       if (more := int((labels == value).sum()) - int((before == value).sum()))}


def test_a_shell_is_filled_but_a_vessel_in_it_stays():
    labels = np.zeros((9, 9, 9), np.uint16)
    labels[1:8, 1:8, 1:8] = 300
    labels[2:7, 2:7, 2:7] = 0
    labels[4, 4, 4] = 7
    assert clean(labels, {"fill_holes": [300]}) == {300: 124}
    assert (labels[1:8, 1:8, 1:8] == 300).sum() == 342 and labels[4, 4, 4] == 7


def test_what_is_open_to_the_edge_of_the_image_is_no_hole():
    labels = np.ones((5, 5, 5), np.uint8)
    labels[0, 2, 2] = labels[1, 2, 2] = 0
    assert clean(labels, {"fill_holes": [1]}) == {}
    labels[0, 2, 2] = 1
    assert clean(labels, {"fill_holes": [1]}) == {1: 1}


def test_pictures_of_one_slice_have_no_holes_in_three_dimensions():
    """They are open towards both sides of the slice."""
    labels = np.ones((1, 5, 5), np.uint8)
    labels[0, 2, 2] = 0
    assert clean(labels, {"fill_holes": [1]}) == {}


def test_absent_labels_and_other_backgrounds():
    labels = np.full((4, 4, 4), 9, np.int32)
    labels[0, 0, 0] = labels[3, 3, 3] = labels[3, 3, 2] = 100_000
    steps = {"largest_component": [100_000, 5], "fill_holes": [5]}
    assert clean(labels, steps, background=9) == {100_000: -1}
    assert labels[0, 0, 0] == 9 and labels[3, 3, 3] == 100_000
    assert boxes_of(labels, [100_000]) == {100_000: (slice(3, 4), slice(3, 4), slice(2, 4))}


def test_nothing_outside_the_region_is_changed():
    geometry = Geometry.of((8, 8, 8), (1.0, 1.0, 1.0))
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[0, 0, 0] = labels[5, 5, 5] = labels[6, 6, 6] = labels[7, 0, 7] = labels[4, 0, 4] = 1
    region = region_of_box((2, 7, 0, 7, 2, 7), geometry)
    clean_inside(labels, {"largest_component": [1], "fill_holes": []}, region, geometry)
    assert labels[0, 0, 0] == 1 and labels[7, 0, 7] == 0 and labels[4, 0, 4] == 0 and labels[5, 5, 5] == 1


def test_steps_are_what_the_model_and_the_user_ask_for():
    info = replace(description(values=(0, 5, 300, 4), names=["background", "rim", "core", "more"]),
                   postprocessing={"largest_component": ["core"], "fill_holes": ["rim", "more"]})
    values = (0, 5, 300, 0)  # "more" is stored as background, as evaluation does with labels that a dataset lacks
    assert steps_for(info, values) == {"largest_component": [300], "fill_holes": [5]}
    assert steps_for(info, values, model=False) == {"largest_component": [], "fill_holes": []}
    assert steps_for(info, values, model=False, fill_holes=True) == {"largest_component": [], "fill_holes": [5, 300]}


@pytest.mark.parametrize(("wrong", "told"), [({"smooth": ["rim"]}, "unknown key"), ({"fill_holes": "rim"}, "list"),
                                             ({"fill_holes": ["liver"]}, "liver"),
                                             ({"fill_holes": ["background"]}, "background")])
def test_models_that_ask_for_nonsense_are_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        replace(description(), postprocessing=wrong)
