"""Exact numbers of hidden parts, uniformly placed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medmae.pretraining.masking import block_mask, expand_mask, hidden_count, visible_tokens


def test_the_published_mask_of_vis_mae_keeps_49_of_196_blocks() -> None:
    mask = block_mask((14, 14), 0.75, np.random.default_rng(0))
    assert (int((~mask).sum()), int(mask.sum())) == (49, 147)
    assert expand_mask(mask, (224, 224)).sum() == 147 * 16 * 16


@given(total=st.integers(2, 300), ratio=st.floats(0.01, 0.99))
def test_at_least_one_part_is_hidden_and_one_visible(total: int, ratio: float) -> None:
    assert 1 <= hidden_count(total, ratio) <= total - 1
    kept = visible_tokens(total, ratio, np.random.default_rng(1))
    assert len(kept) == total - hidden_count(total, ratio)
    assert list(kept) == sorted(set(kept.tolist()))


def test_every_block_is_hidden_equally_often() -> None:
    generator = np.random.default_rng(0)
    share = np.mean([block_mask((7, 7), 0.75, generator) for _ in range(2000)], axis=0)
    assert np.abs(share - share.mean()).max() < 0.05
