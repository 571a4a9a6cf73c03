"""Checkpoints restore everything, and damaged ones are refused with a clear message."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medmae.errors import BadInput
from medmae.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint


def trained(steps: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW([{"params": [module.weight], "weight_decay": 0.1},
                                   {"params": [module.bias], "weight_decay": 0.0}], lr=0.01)
    continue_training(module, optimizer, range(steps))
    return module, optimizer


def continue_training(module: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        loss = module(torch.full((4, 3), 1.0 + step)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_training_goes_on_exactly_as_without_interruption(tmp_path: Path) -> None:
    module, optimizer = trained(5)
    save_checkpoint(tmp_path, 5, module, optimizer, {"scaler": {}})
    continue_training(module, optimizer, range(5, 9))
    other, other_optimizer = trained(0)
    step, extra = load_checkpoint(list_checkpoints(tmp_path)[-1], other, other_optimizer)
    assert (step, extra) == (5, {"scaler": {}})
    continue_training(other, other_optimizer, range(5, 9))
    assert torch.equal(module.weight, other.weight)
    assert torch.equal(module.bias, other.bias)


def test_only_the_two_newest_are_kept_and_nothing_half_written(tmp_path: Path) -> None:
    module, optimizer = trained(1)
    for step in (1, 2, 3, 10):
        save_checkpoint(tmp_path, step, module, optimizer, {})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-00000003.safetensors", "step-00000010.safetensors"]


@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    module, optimizer = trained(1)
    path = save_checkpoint(tmp_path, 1, module, optimizer, {})
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": content[:len(content) // 2], "text": b"not a checkpoint"}[damage])
    with pytest.raises(BadInput, match=r"step-00000001.*cannot be read"):
        load_checkpoint(path, module, optimizer)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, *trained(1), {})
    other = torch.nn.Linear(4, 2)
    with pytest.raises(BadInput, match="another network"):
        load_checkpoint(path, other, torch.optim.AdamW(other.parameters()))
