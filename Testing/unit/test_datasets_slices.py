"""Slices with their neighbours, against a slow reference."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medmae.datasets.slices import slice_stack, slice_stacks


def slow_stack(array: np.ndarray, number: int, context: int) -> np.ndarray:
    """Channel by channel: the slice offset varies slowest, the image's channel fastest."""
    planes = []
    for offset in range(-context, context + 1):
        place = min(max(number + offset, 0), array.shape[1] - 1)
        for channel in range(array.shape[0]):
            planes.append(array[channel, place])
    return np.stack(planes)


@given(channels=st.integers(1, 3), slices=st.integers(1, 6), context=st.integers(0, 4), data=st.data())
def test_stacks_equal_a_slow_reference(channels, slices, context, data):
    array = np.random.default_rng(0).normal(size=(channels, slices, 3, 2)).astype(np.float32)
    numbers = data.draw(st.lists(st.integers(0, slices - 1), min_size=1, max_size=5))
    stacks = slice_stacks(array, numbers, context)
    assert np.array_equal(stacks, np.stack([slow_stack(array, number, context) for number in numbers]))
    assert np.array_equal(slice_stack(array, numbers[0], context), stacks[0])


def test_an_image_of_one_slice_is_its_own_neighbour():
    picture = np.random.default_rng(0).normal(size=(3, 1, 4, 5))
    assert np.array_equal(slice_stack(picture, 0, 2), np.tile(picture[:, 0], (5, 1, 1)))


def test_stacks_are_copies_also_of_mapped_files(tmp_path):
    array = np.random.default_rng(0).normal(size=(1, 4, 3, 2)).astype(np.float16)
    array.tofile(tmp_path / "shard.bin")
    mapped = np.memmap(tmp_path / "shard.bin", dtype=np.float16, mode="r").reshape(array.shape)
    for context in (0, 1):
        stack = slice_stack(mapped, 3, context)
        stack += 1  # a read-only view would refuse
        assert np.array_equal(stack - 1, slow_stack(array + 1, 3, context) - 1)
