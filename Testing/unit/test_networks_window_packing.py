"""Packing tokens for window attention: nobody is lost, no window is split, and windows are those of the dense block."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medmae.networks.swin import attention_mask, relative_position_index, window_partition
from medmae.networks.window_packing import Packing, pack


@st.composite
def chosen_tokens(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Rows and columns (B, N) of different tokens of a map, its window and shift."""
    rows, cols = draw(st.integers(1, 15)), draw(st.integers(1, 15))
    count, batch = draw(st.integers(1, rows * cols)), draw(st.integers(1, 3))
    window = draw(st.integers(2, 7))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    flat = np.stack([np.sort(generator.permutation(rows * cols)[:count]) for _ in range(batch)])
    return flat // cols, flat % cols, window, draw(st.sampled_from([0, window // 2]))


def window_numbers(rows: np.ndarray, cols: np.ndarray, window: int, shift: int) -> list[list[tuple[int, int]]]:
    """The slow way to name the window of every token."""
    def of_axis(value: int) -> int:
        return -1 if value < shift else (value - shift) // window

    return [[(of_axis(int(row)), of_axis(int(col))) for row, col in zip(*image, strict=True)]
            for image in zip(rows, cols, strict=True)]


@settings(max_examples=60, deadline=None)
@given(chosen_tokens())
def test_every_token_has_one_place_and_shares_its_window_with_the_right_others(
        case: tuple[np.ndarray, np.ndarray, int, int]) -> None:
    rows, cols, window, shift = case
    packing = pack(rows, cols, window, shift)
    batch, count = rows.shape
    numbers = window_numbers(rows, cols, window, shift)
    for image in range(batch):
        tokens = packing.tokens[image].flatten().numpy()
        places = packing.places[image].numpy()
        assert np.array_equal(tokens[places], np.arange(count))
        windows = packing.windows[image].flatten().numpy()
        assert np.count_nonzero(windows >= 0) == count
        length = packing.tokens.shape[2]
        assert length <= window * window
        for one in range(count):
            for other in range(count):
                together = numbers[image][one] == numbers[image][other]
                assert (windows[places[one]] == windows[places[other]]) == together
                if together:
                    assert places[one] // length == places[other] // length
    assert torch.equal(packing.rows.flatten(1).gather(1, packing.places.long()), torch.from_numpy(rows).int())
    assert torch.equal(packing.cols.flatten(1).gather(1, packing.places.long()), torch.from_numpy(cols).int())


def test_the_whole_map_packs_into_the_windows_and_biases_of_the_dense_block() -> None:
    rows = cols = 14
    window = 7
    grid = np.indices((rows, cols)).reshape(2, 1, -1)
    for shift in (0, 3):
        packing = pack(grid[0], grid[1], window, shift)
        bias_rows = packing.bias_rows(window)[0]
        found = torch.full((rows * cols, rows * cols), (2 * window - 1) ** 2)
        for group, tokens in enumerate(packing.tokens[0].long()):
            real = packing.windows[0, group] >= 0
            found[tokens[real][:, None], tokens[real]] = bias_rows[group][real][:, real].long()
        expected = _dense_bias_rows(rows, cols, window, shift)
        assert torch.equal(found, expected)


def _dense_bias_rows(rows: int, cols: int, window: int, shift: int) -> torch.Tensor:
    """(tokens, tokens): the bias row of every pair that the dense block lets attend, the hidden row elsewhere."""
    hidden = (2 * window - 1) ** 2
    numbers = torch.arange(rows * cols).view(1, rows, cols, 1)
    tokens = window_partition(numbers.roll((-shift, -shift), (1, 2)), window)[0, :, :, 0]
    mask = attention_mask(rows, cols, window, shift, torch.device("cpu"))
    index = relative_position_index(window, torch.device("cpu")).view(window**2, window**2)
    result = torch.full((rows * cols, rows * cols), hidden)
    for number, of_window in enumerate(tokens):
        allowed = torch.ones_like(index, dtype=torch.bool) if mask is None else mask[number] == 0
        result[of_window[:, None], of_window] = torch.where(allowed, index, hidden)
    return result


def test_first_fit_decreasing_wastes_little() -> None:
    generator = np.random.default_rng(0)
    blocks = np.stack([np.sort(generator.permutation(196)[:49]) for _ in range(8)])
    inside = np.arange(4)
    rows = np.broadcast_to((blocks // 14)[:, :, None, None] * 4 + inside[:, None], (8, 49, 4, 4)).reshape(8, -1)
    cols = np.broadcast_to((blocks % 14)[:, :, None, None] * 4 + inside, (8, 49, 4, 4)).reshape(8, -1)
    for shift in (0, 3):
        assert pack(rows, cols, 7, shift).tokens.shape[1] <= 18  # 16 groups of 49 would be full to the last place


def test_a_packing_survives_the_way_through_a_batch() -> None:
    packing = pack(np.array([[0, 1, 2]]), np.array([[0, 5, 9]]), 4, 2)
    again = Packing.of(packing.tensors("plan"), "plan")
    assert all(torch.equal(value, again.tensors("plan")[name]) for name, value in packing.tensors("plan").items())
