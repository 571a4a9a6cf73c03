"""Imported official checkpoints answer as the official networks do (numbers: golden/vis_mae_official.json)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from official_vis_mae import (
    CASES,
    formula_images,
    formula_mask,
    golden,
    official_checkpoint,
    official_shapes,
    official_state,
    relative_difference,
    write_checkpoint,
)

from medmae.cli.app import run
from medmae.models import load_info, load_network

TOLERANCE = 1e-5


def imported(folder: Path, checkpoint: Path, *more: str) -> Path:
    out = folder / f"model {len(list(folder.iterdir()))}"
    assert run(["model", "import", "--format", "vis-mae", str(checkpoint), "--out", str(out), *more]) == 0
    return out


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_an_imported_checkpoint_gives_the_numbers_of_the_official_network(name, tmp_path):
    net, side = CASES[name]
    model = imported(tmp_path, write_checkpoint(tmp_path / "checkpoint-799.pth", net))
    network, expected, images = load_network(model), golden()[name], formula_images(2, net.channels, side)
    if net.kind != "pretraining":
        assert relative_difference(network(images), expected["logits"]) <= TOLERANCE
        return
    for stage, feature_map in enumerate(network(images)):
        assert relative_difference(feature_map, expected[f"features {stage}"]) <= TOLERANCE
    mask = formula_mask(2, side)
    prediction = network.network(images, mask)
    assert relative_difference(prediction, expected["prediction"]) <= TOLERANCE
    if "loss" in expected:
        assert network.network.masked_loss(prediction, images, mask).item() == pytest.approx(expected["loss"], rel=1e-5)


def test_the_golden_numbers_cover_the_published_sizes():
    base = {name: load for name, load in CASES.items() if name.endswith("base")}
    assert {(net.kind, net.channels) for net, _ in base.values()} == {
        (kind, channels) for kind in ("pretraining", "segmentation", "classification") for channels in (1, 3)}
    weights = {net.kind: sum(torch.Size(shape).numel() for name, shape in official_shapes(net).items()
                             if not name.endswith("index")) for net, _ in base.values() if net.channels == 3}
    assert weights == {"pretraining": 26_936_916, "segmentation": 41_379_780, "classification": 20_414_924}


@torch.no_grad()
def test_padding_hidden_from_the_attention_would_give_other_numbers(tmp_path):
    name = "segmentation at a size that needs padding"
    net, side = CASES[name]
    network = load_network(imported(tmp_path, write_checkpoint(tmp_path / "a.pth", net)))
    for module in network.modules():
        if hasattr(module, "masked_padding"):
            module.masked_padding = True
    assert relative_difference(network(formula_images(2, 3, side)), golden()[name]["logits"]) > 100 * TOLERANCE


def test_skips_of_linear_layers_as_swin_mae_saves_them_are_the_same_network(tmp_path):
    net, _ = CASES["segmentation of three stages and another window"]
    state = official_state(net)
    convolutions = imported(tmp_path, write_checkpoint(tmp_path / "a.pth", net))
    for name in state:
        if name.startswith("skip_connection_layers.") and name.endswith("weight"):
            state[name] = state[name][:, :, 0, 0]
    torch.save(official_checkpoint(state), tmp_path / "b.pth")
    linear = imported(tmp_path, tmp_path / "b.pth")
    assert load_info(linear).weights_sha256 == load_info(convolutions).weights_sha256


@pytest.mark.parametrize("kind", ["pretraining", "segmentation", "classification"])
@torch.no_grad()
def test_one_channel_answers_as_three_equal_channels(kind, tmp_path):
    net, _ = CASES[kind]
    checkpoint = write_checkpoint(tmp_path / "a.pth", net)
    three = load_network(imported(tmp_path, checkpoint))
    one = load_network(imported(tmp_path, checkpoint, "--channels", "1"))
    grey = formula_images(1, 1, 224)
    colour = grey.expand(-1, 3, -1, -1)
    if kind != "pretraining":
        torch.testing.assert_close(one(grey), three(colour), rtol=1e-4, atol=1e-5)
        return
    for folded, kept in zip(one(grey), three(colour), strict=True):
        torch.testing.assert_close(folded, kept, rtol=1e-4, atol=1e-4)
    mask = formula_mask(1, 224)
    kept = three.network.unpatchify(three.network(colour, mask), (224, 224))
    folded = one.network.unpatchify(one.network(grey, mask), (224, 224))
    torch.testing.assert_close(folded, kept.mean(dim=1, keepdim=True), rtol=1e-4, atol=1e-4)
