"""Warm-up and cosine."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medmae.training.schedule import OneCycle, WarmupCosine, cosine_between


@given(total=st.integers(1, 500), warmup=st.floats(0, 1))
def test_rates_rise_to_the_peak_and_fall_to_zero(total: int, warmup: float) -> None:
    schedule = WarmupCosine(1e-3, total, warmup)
    rates = [schedule.at(step) for step in range(total)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(1e-3)
    assert rates[:peak + 1] == sorted(rates[:peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates) > -1e-12
    if peak < total - 1:
        assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_the_momentum_moves_from_start_to_end() -> None:
    values = [cosine_between(0.996, 1.0, step, 10) for step in range(10)]
    assert values[0] == 0.996
    assert values[-1] == 1.0
    assert values == sorted(values)


def test_one_cycle_is_that_of_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=1.0)
    official = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=50, cycle_momentum=False)
    ours = OneCycle(2e-3, 50)
    for step in range(50):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(ours.at(step), rel=1e-9)
        optimizer.step()
        official.step()
