"""Blocks and the views cut out of them on the device, against views cut one by one from whole volumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medmae.training.blocks import (
    block_corner,
    block_extents,
    cut_views,
    draw_place,
    foreground_point,
    outside_tokens,
    vary_intensities,
)
from medmae.training.views import cut_view, random_centre


def as_batch(block: np.ndarray, places: list[np.ndarray], padded: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """One padded block (1, C, *padded) float16 and the places (1, V, 2, 3) of its views."""
    blocks = torch.zeros((1, block.shape[0], *padded), dtype=torch.float16)
    blocks[0, :, :block.shape[1], :block.shape[2], :block.shape[3]] = torch.from_numpy(block)
    return blocks, torch.from_numpy(np.stack(places)[None].astype(np.float32))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), channels=st.integers(1, 2), factor=st.floats(1, 1.5))
def test_views_cut_from_a_block_are_views_of_the_whole_volume(seed: int, channels: int, factor: float) -> None:
    """Larger and smaller volumes than the views, thin ones, any scale and flip; cut_view of the volume is the judge."""
    generator = np.random.default_rng(seed)
    volume = generator.random((channels, *generator.integers(3, 40, 3))).astype(np.float16)
    size = tuple(int(length) for length in generator.integers(3, 14, 3))
    steps = [generator.uniform(0.5, 1.6, 3) for _ in range(3)]
    reach = np.max([np.array(size) * step for step in steps], axis=0)
    extent = block_extents(np.array([volume.shape[1:]]), reach[None], factor)[0]
    corner = block_corner(volume, extent, generator)
    block = volume[(slice(None), *(slice(low, low + side) for low, side in zip(corner, extent, strict=True)))]
    assert block.shape[1:] == tuple(extent)
    places = []
    for step in steps:
        centre = draw_place(block, size, step, generator, False)
        places.append(np.stack([centre, step * generator.choice([-1.0, 1.0], 3)]))
    blocks, batch_places = as_batch(block, places, tuple(extent + generator.integers(0, 3, 3)))
    views = cut_views(blocks, batch_places, size)[0]
    for view, place in zip(views, places, strict=True):
        expected = cut_view(volume, place[0] + corner, np.diag(place[1]), size)
        torch.testing.assert_close(view, expected, atol=2e-4, rtol=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_plain_crops_are_slices_of_the_array_to_the_last_bit(seed: int) -> None:
    generator = np.random.default_rng(seed)
    block = generator.random((1, *generator.integers(5, 30, 3))).astype(np.float16)
    size = tuple(int(length) for length in generator.integers(2, 12, 3))
    centre = draw_place(block, size, np.ones(3), generator, True)
    signs = generator.choice([-1.0, 1.0], 3)
    blocks, places = as_batch(block, [np.stack([centre, signs])], block.shape[1:])
    first = centre - (np.array(size) - 1) / 2
    assert np.array_equal(first, first.round())
    padded = np.pad(block, [(0, 0)] + [(20, 20)] * 3)
    slices = tuple(slice(int(low) + 20, int(low) + 20 + length) for low, length in zip(first, size, strict=True))
    expected = np.flip(padded[(slice(None), *slices)], tuple(1 + axis for axis in range(3) if signs[axis] < 0))
    assert np.array_equal(cut_views(blocks, places, size)[0, 0].numpy(), expected.astype(np.float32))


@given(seed=st.integers(0, 1000))
def test_places_keep_views_inside_where_they_fit_and_centre_them_where_not(seed: int) -> None:
    generator = np.random.default_rng(seed)
    block = generator.random((1, 20, 9, 30))
    size, step = (8, 12, 16), np.array([1.0, 1.0, 1.5])
    centre = draw_place(block, size, step, generator, False)
    for axis in (0, 2):
        half = (size[axis] - 1) / 2 * step[axis]
        assert half - 1e-9 <= centre[axis] <= block.shape[axis + 1] - 1 - half + 1e-9
    assert abs(centre[1] - 4) <= 12 / 16


def test_a_small_bright_region_is_found_more_often_than_by_single_views() -> None:
    noise = np.abs(np.random.default_rng(0).normal(0, 0.03, (1, 64, 64, 64)))
    noise[0, 40:47, 10:17, 50:57] = 0.9  # 0.13 % of the volume
    volume = noise.astype(np.float16)
    size, region = (16, 16, 16), np.array([43.0, 13.0, 53.0])

    def shows(centre: np.ndarray) -> bool:
        return bool(np.all(np.abs(centre - region) < 8))

    before, now = 0, 0
    for seed in range(300):
        before += shows(random_centre(volume, np.array(size, np.float64), np.random.default_rng(seed)))
        generator = np.random.default_rng(seed)
        corner = block_corner(volume, np.full(3, 26), generator)
        block = volume[:, corner[0]:corner[0] + 26, corner[1]:corner[1] + 26, corner[2]:corner[2] + 26]
        now += shows(draw_place(block, size, np.ones(3), generator, False) + corner)
    assert now > 2 * before


def test_an_even_image_has_no_foreground_and_any_place_will_do() -> None:
    points = [foreground_point(np.zeros((1, 9, 9, 9)), np.random.default_rng(seed)) for seed in range(50)]
    assert len({tuple(point) for point in points}) > 40


@given(seed=st.integers(0, 1000))
def test_outside_tokens_are_those_in_which_nothing_of_an_image_of_ones_shows(seed: int) -> None:
    generator = np.random.default_rng(seed)
    extent = generator.integers(2, 20, 3)
    patch = generator.integers(1, 4, 3)
    grid = tuple(int(count) for count in generator.integers(1, 6, 3))
    size = tuple(int(side) for side in grid * patch)
    place = np.stack([(extent - 1) / 2 + generator.uniform(-3, 3, 3),
                      generator.uniform(0.5, 2, 3) * generator.choice([-1, 1], 3)]).astype(np.float32)
    blocks, places = as_batch(np.ones((1, *extent), np.float16), [place], tuple(extent))
    view = cut_views(blocks, places, size)[0, 0, 0].numpy()
    outside, share = outside_tokens(extent, place, size, grid)
    tokens = view.reshape(grid[0], patch[0], grid[1], patch[1], grid[2], patch[2]).max((1, 3, 5))
    assert np.all(tokens[outside] < 1e-4)
    assert np.all(tokens[~outside] > 0)
    assert share == pytest.approx((view < 1e-5).mean(), abs=0.05)


def test_contrast_and_brightness_change_the_image_and_leave_padding_at_zero() -> None:
    block = np.full((1, 4, 6, 6), 0.5, np.float16)
    place = np.stack([np.array([1.5, 2.5, 2.5]), np.ones(3)])
    blocks, places = as_batch(block, [place, place], (5, 6, 6))
    views = cut_views(blocks, places, (8, 6, 6))
    factors = torch.tensor([[[1.2, 0.1], [1.0, -0.25]]])
    varied = vary_intensities(views, factors, places, torch.tensor([[4.0, 6.0, 6.0]]))
    assert torch.equal(varied[0, :, 0, :2], torch.zeros(2, 2, 6, 6))
    assert torch.equal(varied[0, :, 0, 6:], torch.zeros(2, 2, 6, 6))
    torch.testing.assert_close(varied[0, 0, 0, 2:6], torch.full((4, 6, 6), 0.7))
    torch.testing.assert_close(varied[0, 1, 0, 2:6], torch.full((4, 6, 6), 0.25))


def test_blocks_are_one_and_a_quarter_views_of_large_volumes_and_the_whole_of_small_ones() -> None:
    shapes = np.array([[600, 512, 512], [36, 50, 35], [5, 400, 400]])
    extents = block_extents(shapes, np.full((3, 3), 160.0), 1.25)
    assert extents.tolist() == [[200, 200, 200], [36, 50, 35], [5, 200, 200]]
