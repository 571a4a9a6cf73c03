"""The preset `base` of VIS-MAE is the published one, number by number (docs/methods.md)."""

from __future__ import annotations

import torch

from medmae.networks import architecture_for, build_network
from medmae.pretraining.config import PretrainConfig, resolve_pretrain_config
from medmae.training.loop import LoopSettings
from medmae.training.schedule import WarmupCosine


def test_base_has_the_published_recipe() -> None:
    config = resolve_pretrain_config(PretrainConfig(method="vis-mae", preset="base"))
    assert (config.steps, config.batch_size, config.learning_rate) == (390_000, 640, 1e-3)
    assert (config.weight_decay, config.warmup) == (0.05, 10 / 800)
    assert config.settings["mask_ratio"] == 0.75
    assert tuple(config.settings["crop_scale"]) == (1.0, 1.0)
    assert config.settings["flip"] is True
    assert config.settings["normalise_target"] is False
    assert LoopSettings(steps=1, batch_size=1, learning_rate=1.0).betas == (0.9, 0.95)


def test_the_published_schedule_rises_for_ten_epochs_and_ends_at_zero() -> None:
    config = resolve_pretrain_config(PretrainConfig(method="vis-mae", preset="base"))
    assert config.steps is not None
    assert config.warmup is not None
    schedule = WarmupCosine(1e-3, config.steps, config.warmup)
    assert schedule.at(4_874) == 1e-3  # 10 of 800 epochs are 4,875 steps
    assert schedule.at(4_873) < 1e-3
    assert schedule.at(config.steps - 1) < 1e-9


def test_base_can_be_built_as_published_with_three_channels() -> None:
    with torch.device("meta"):
        network = build_network(architecture_for("vis-mae", "base", "encoder", 3, 0))
    assert sum(parameter.numel() for parameter in network.parameters()) == 26_635_860


def test_a_warm_up_of_zero_is_kept() -> None:
    assert resolve_pretrain_config(PretrainConfig(method="vis-mae", warmup=0.0)).warmup == 0.0
    assert resolve_pretrain_config(PretrainConfig(method="vis-mae")).warmup == 0.1
