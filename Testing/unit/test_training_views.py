"""Views cut out of stored images, against scipy as a slow reference."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medmae.training.views import cut_view, random_centre, rotation_matrix


def reference_view(array: np.ndarray, centre: np.ndarray, matrix: np.ndarray, size: tuple[int, ...],
                   order: int) -> np.ndarray:
    offsets = np.stack(np.meshgrid(*[np.arange(length) - (length - 1) / 2 for length in size], indexing="ij"))
    places = np.tensordot(matrix, offsets, 1) + centre.reshape(-1, *[1] * len(size))
    return np.stack([ndimage.map_coordinates(channel, places, order=order, mode="grid-constant") for channel in array])


@settings(max_examples=40)
@given(dims=st.sampled_from([2, 3]), seed=st.integers(0, 10_000), channels=st.integers(1, 2))
def test_a_view_equals_interpolation_by_scipy(dims: int, seed: int, channels: int) -> None:
    generator = np.random.default_rng(seed)
    array = generator.random((channels, *generator.integers(5, 18, dims))).astype(np.float32)
    size = tuple(int(length) for length in generator.integers(3, 14, dims))
    centre = generator.uniform(-3, 20, dims)
    flips = np.diag(generator.choice([-1.0, 1.0], dims))
    matrix = rotation_matrix(generator.uniform(-1, 1, 1 if dims == 2 else 3)) @ flips * generator.uniform(0.4, 1.6)
    view = cut_view(array, centre, matrix, size)
    np.testing.assert_allclose(view.numpy(), reference_view(array, centre, matrix, size, 1), atol=2e-4)


def test_the_identity_gives_the_image_and_zeros_outside() -> None:
    array = np.random.default_rng(0).random((1, 6, 7, 8)).astype(np.float16)
    view = cut_view(array, (np.array(array.shape[1:]) - 1) / 2, np.eye(3), (10, 7, 8))
    np.testing.assert_allclose(view[:, 2:8].numpy(), array.astype(np.float32), atol=1e-5)
    assert float(view[:, :2].abs().max()) < 1e-6


def test_nearest_keeps_labels_whole() -> None:
    labels = np.random.default_rng(0).choice([0, 1, 5], (1, 12, 12, 12)).astype(np.uint8)
    view = cut_view(labels, np.full(3, 5.5), rotation_matrix(np.array([0.3, 0.2, 0.1])), (9, 9, 9), mode="nearest")
    assert set(torch.unique(view).tolist()) <= {0.0, 1.0, 5.0}


def test_a_view_far_outside_is_empty() -> None:
    assert float(cut_view(np.ones((1, 4, 4, 4)), np.full(3, 100.0), np.eye(3), (3, 3, 3)).abs().max()) == 0


class ReadCounter(np.ndarray):
    """An array that notes how many values are copied out of it."""

    read = 0

    def __getitem__(self, key):
        part = super().__getitem__(key)
        ReadCounter.read += part.size
        return part


def test_only_the_part_that_a_view_touches_is_read() -> None:
    array = np.zeros((1, 60, 60, 60)).view(ReadCounter)
    ReadCounter.read = 0
    cut_view(array, np.full(3, 30.0), np.eye(3), (8, 8, 8))
    assert 0 < ReadCounter.read <= 12**3


@given(seed=st.integers(0, 1000))
def test_centres_keep_views_inside_where_they_fit(seed: int) -> None:
    array = np.random.default_rng(seed).random((1, 20, 9, 30))
    extent = np.array([8.0, 12.0, 16.0])
    centre = random_centre(array, extent, np.random.default_rng(seed))
    for axis in (0, 2):
        assert (extent[axis] - 1) / 2 <= centre[axis] <= array.shape[axis + 1] - 1 - (extent[axis] - 1) / 2
    assert abs(centre[1] - 4) <= extent[1] / 16


def test_centres_prefer_places_that_are_not_empty() -> None:
    array = np.zeros((1, 40, 40, 40), np.float32)
    array[:, 20:] = 1
    centres = [random_centre(array, np.ones(3), np.random.default_rng(seed))[0] for seed in range(200)]
    assert np.mean(np.array(centres) >= 20) > 0.95
