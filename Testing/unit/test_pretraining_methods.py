"""What every registered pretraining method must do; a new method is covered by adding its line to the registry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medmae.datasets import Corpus, CorpusWriter
from medmae.errors import BadInput, Stopped
from medmae.pretraining.config import PretrainConfig, resolve_pretrain_config
from medmae.pretraining.method import PretrainingMethod
from medmae.pretraining.registry import method_class, method_names
from medmae.pretraining.run import _wait_for
from medmae.run_folder import RunFolder
from medmae.training.randomness import Draw, DrawOrder

METHODS = method_names()


def write_corpus(folder: Path, spatial_dims: int, count: int = 5) -> Corpus:
    generator = np.random.default_rng(0)
    with CorpusWriter(folder) as writer:
        for number in range(count):
            shape = (1, 26, 30 + number, 28) if spatial_dims == 3 else (1, 1 + number % 2, 60, 70 + number)
            array = np.zeros(shape, np.float32)
            array[:, :, 10:20, 8:20] = 0.8
            array += generator.normal(0, 0.05, shape)
            writer.add(f"image{number}", array, (1.0, 1.0, 1.0), "MR", {})
    return Corpus(folder)


def make(name: str, corpus: Corpus, seed: int = 0) -> PretrainingMethod:
    torch.manual_seed(seed)
    cls = method_class(name)
    return cls("tiny", 1, corpus, cls.settings_for("tiny"), seed, 0.05)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest, tmp_path: Path) -> PretrainingMethod:
    return make(request.param, write_corpus(tmp_path / "corpus", method_class(request.param).spatial_dims))


def test_views_and_masks_depend_on_seed_epoch_and_item_alone(method: PretrainingMethod) -> None:
    together = method.load_batch([Draw(1, 0), Draw(3, 2)])
    alone = method.load_batch([Draw(3, 2)])
    another_epoch = method.load_batch([Draw(3, 3)])
    # How tokens are packed for attention follows from the blocks chosen and depends on the longest of the batch.
    drawn = [name for name in together if not name.startswith("visible.") or name == "visible.blocks"]
    assert len(drawn) >= 2
    of_the_image = {"blocks", "extents", "global_outside", "local_outside"}  # of small volumes the same in every epoch
    for name in drawn:
        assert torch.equal(together[name][1:], alone[name])
        assert name in of_the_image or not torch.equal(alone[name], another_epoch[name])


def test_a_few_steps_lower_the_reconstruction_loss(method: PretrainingMethod) -> None:
    optimizer = torch.optim.AdamW(method.parameter_groups(), lr=1e-3)
    order = DrawOrder(method.number_of_items, 0)
    losses = []
    for step in range(12):
        figures = method.module(method.load_batch(order.batch(step, 2)))
        optimizer.zero_grad()
        figures["loss"].backward()
        optimizer.step()
        method.after_step(step, 12)
        losses.append(float(figures.get("reconstruction_global", figures["loss"]).detach()))
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:2])


def test_only_hidden_parts_count_in_the_loss(method: PretrainingMethod) -> None:
    """Reconstructions come with a mask whose share of hidden voxels is the mask ratio."""
    examples = method.reconstruct(3)
    assert examples.images.shape == examples.reconstructions.shape
    assert examples.masked.shape == (3, *examples.images.shape[2:])
    np.testing.assert_allclose(examples.masked.mean(), method.settings.mask_ratio, atol=0.02)


def test_the_kept_network_is_part_of_what_is_trained(method: PretrainingMethod) -> None:
    trained = {id(parameter) for parameter in method.module.parameters()}
    assert {id(parameter) for parameter in method.network.parameters()} <= trained


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_filled_in_and_overrides_reach_the_methods_settings(name: str) -> None:
    config = resolve_pretrain_config(PretrainConfig(method=name), ["mask_ratio=0.5", "batch_size=2"])
    assert config.settings["mask_ratio"] == 0.5
    assert config.batch_size == 2
    assert config.steps
    assert config.learning_rate


@pytest.mark.parametrize(("override", "message"), [
    ("mask_ration=0.5", "Unknown key mask_ration"), ("mask_ratio=2", "between 0 and 1"), ("steps=0", "at least 1"),
    ("precision=fp8", "not one of .auto., .fp32., .bf16., .fp16."), ("mask_ratio", "key=value"),
])
def test_overrides_that_make_no_sense_are_refused(override: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        resolve_pretrain_config(PretrainConfig(), [override])


def test_an_unknown_method_or_preset_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(BadInput, match="gl-mae"):
        resolve_pretrain_config(PretrainConfig(method="simclr"))
    for preset in ("huge", "tiny-huge"):
        with pytest.raises(BadInput, match="tiny, small, base, tiny-thin, tiny-hybrid"):
            resolve_pretrain_config(PretrainConfig(method="gl-mae", preset=preset))


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_processes_that_wait_for_the_corpus_end_with_the_one_that_makes_it(state, tmp_path):
    run = RunFolder.create(tmp_path / "run", "pretrain", {}, {})
    run.write_state(state=state)
    with pytest.raises(Stopped, match="main process ended"):
        _wait_for(tmp_path / "preprocessing.json", run)
