"""A step of the optimiser is the same in however many parts and processes its batch is computed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medmae.errors import BadInput, Stopped
from medmae.networks.layers import DropPath, part_of_batch
from medmae.run_folder import RunFolder
from medmae.training.batch_parts import BatchParts
from medmae.training.distributed import ProcessGroup
from medmae.training.loop import LoopSettings, train
from medmae.training.randomness import Draw


@given(batch=st.integers(1, 24), size=st.integers(1, 8), at_once=st.none() | st.integers(1, 24))
def test_every_sample_counts_once_and_no_device_gets_more_than_it_may(batch: int, size: int,
                                                                      at_once: int | None) -> None:
    if batch < size:
        with pytest.raises(ValueError, match="without a sample"):
            BatchParts(batch, at_once, 0, size)
        return
    weights = [0.0] * batch
    processes = [BatchParts(batch, at_once, rank, size) for rank in range(size)]
    assert len({parts.count for parts in processes}) == 1
    for parts in processes:
        for part in range(parts.count):
            places = parts.places(part)
            assert parts.smallest <= len(places) <= (at_once or batch)
            for place in places:
                weights[place] += parts.weight(part) / len(places)
    assert weights == pytest.approx([1 / batch] * batch)


class Regression:
    """Items are rows of a table; every step fits a small network to them, with dropped paths."""

    number_of_items = 7
    least_batch = 1

    def __init__(self, rate: float = 0.5) -> None:
        torch.manual_seed(0)
        self.module = _Residual(rate)
        self.table = torch.randn(self.number_of_items, 4)
        self.seen_at_once: list[int] = []

    def parameter_groups(self) -> list[dict[str, object]]:
        return [{"params": list(self.module.parameters()), "weight_decay": 0.0, "rate_scale": 1.0}]

    def load_batch(self, draws: Sequence[Draw]) -> dict[str, torch.Tensor]:
        self.seen_at_once.append(len(draws))
        return {"rows": self.table[[draw.item for draw in draws]]}

    def after_step(self, step: int, total: int) -> None: ...

    def validate(self, step: int) -> dict[str, object]:
        return {}


class _Residual(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.drop = DropPath(rate)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        answer = self.drop(batch["rows"], lambda some, _: self.linear(some))
        return {"loss": (answer - 1).square().mean(), "answer": answer.mean()}


def trained(folder: Path, **settings: object) -> tuple[Regression, list[dict]]:
    run, task = RunFolder.create(folder, "pretrain", {}, {}), Regression()
    group = ProcessGroup(0, 1, torch.device("cpu"))
    train(task, run, LoopSettings(**{"steps": 6, "batch_size": 5, "learning_rate": 1e-2, **settings}), group)
    return task, [json.loads(line) for line in run.progress_file.read_text().splitlines()]


@pytest.mark.parametrize(("at_once", "largest"), [(1, 1), (2, 2), (4, 3)])
def test_gradients_of_parts_add_up_to_those_of_the_whole_batch(tmp_path: Path, at_once: int, largest: int) -> None:
    whole, of_whole = trained(tmp_path / "whole")
    parts, of_parts = trained(tmp_path / "parts", device_batch_size=at_once)
    assert max(whole.seen_at_once) == 5
    assert max(parts.seen_at_once) == largest
    for one, other in zip(of_whole, of_parts, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["answer"] == pytest.approx(one["answer"], rel=1e-4, abs=1e-6)
    for one, other in zip(whole.module.parameters(), parts.module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_parts_may_change_on_resume(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole")
    run, task = RunFolder.create(tmp_path / "run", "pretrain", {}, {}), Regression()
    group = ProcessGroup(0, 1, torch.device("cpu"))
    settings = LoopSettings(steps=6, batch_size=5, learning_rate=1e-2)
    task.after_step = lambda step, total: run.request_stop() if step == 2 else None  # type: ignore[method-assign]
    with pytest.raises(Stopped, match="step 3"):
        train(task, run, settings, group)
    run.stop_file.unlink()
    task = Regression()
    train(task, run, replace(settings, device_batch_size=2), group)
    for one, other in zip(whole.module.parameters(), task.module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_network_that_needs_two_samples_at_once_is_not_given_one(tmp_path: Path) -> None:
    task = Regression()
    task.least_batch = 2
    with pytest.raises(BadInput, match="needs 2"):
        train(task, RunFolder.create(tmp_path / "run", "pretrain", {}, {}),
              LoopSettings(steps=1, batch_size=5, learning_rate=1e-2, device_batch_size=2),
              ProcessGroup(0, 1, torch.device("cpu")))


def test_more_processes_than_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="4 processes without a sample"):
        train(Regression(), RunFolder.create(tmp_path / "run", "pretrain", {}, {}),
              LoopSettings(steps=1, batch_size=3, learning_rate=1e-2), ProcessGroup(0, 4, torch.device("cpu")))


def test_a_sample_loses_the_same_paths_in_a_part_as_in_the_whole_batch() -> None:
    drop, tokens = DropPath(0.5), torch.arange(1.0, 13.0).view(12, 1)
    torch.manual_seed(3)
    whole = drop(tokens, lambda some, _: some * 100)
    assert 0 < int((whole == tokens).sum()) < 12
    for first, samples in ((0, 2), (2, 4)):  # of 6 samples with two rows of tokens each
        torch.manual_seed(3)
        rows = slice(2 * first, 2 * (first + samples))
        with part_of_batch(first, samples, 6):
            torch.testing.assert_close(drop(tokens[rows], lambda some, _: some * 100), whole[rows])
