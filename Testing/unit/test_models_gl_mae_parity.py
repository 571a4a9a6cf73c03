"""Imported official GL-MAE checkpoints answer as the official class does (numbers: golden/gl_mae_official.json)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from official_gl_mae import CASES, formula_keep, formula_volume, golden, official_shapes, write_checkpoint
from official_vis_mae import relative_difference

from medmae.cli.app import run
from medmae.models import load_network

TOLERANCE = 1e-5
SMALL = [name for name in CASES if not name.startswith("base")]
LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in CASES if name.startswith("base")]


def imported(folder: Path, name: str, *more: str) -> torch.nn.Module:
    net, _ = CASES[name]
    checkpoint, out = write_checkpoint(folder / "checkpoint-1599.pth", net), folder / "model"
    grid = [] if len(set(net.grid)) == 1 else ["--grid", ",".join(map(str, net.grid))]
    assert run(["model", "import", "--format", "gl-mae", str(checkpoint), "--out", str(out), *grid, *more]) == 0
    return load_network(out)


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
@torch.no_grad()
def test_an_imported_checkpoint_gives_the_numbers_of_the_official_network(name, tmp_path):
    net, size = CASES[name]
    network, expected, volume = imported(tmp_path, name).network, golden()[name], formula_volume(net.channels, size)
    cls, tokens, _ = network.encoder(volume)
    assert relative_difference(cls, expected["cls_token"]) <= TOLERANCE
    assert relative_difference(tokens, expected["patch_features"]) <= TOLERANCE
    assert torch.equal(network.features(volume)[-1].flatten(2).transpose(1, 2), tokens)
    if not net.decoder:
        return
    grid = network.grid(size)
    assert relative_difference(network.decode(tokens, None, grid, cls=cls), expected["prediction"]) <= TOLERANCE
    keep = formula_keep(tokens.shape[1])
    kept = tokens.gather(1, keep[..., None].expand(-1, -1, net.width))
    assert relative_difference(network.decode(kept, keep, grid, cls=cls), expected["masked prediction"]) <= TOLERANCE


@torch.no_grad()
def test_a_thin_volume_gets_positions_on_its_true_grid_where_the_official_code_guesses_another(tmp_path):
    name = "a thin volume whose grid the official code guesses wrong"
    net, size = CASES[name]
    tokens = imported(tmp_path, name).network.encoder(formula_volume(net.channels, size))[1]
    assert relative_difference(tokens, golden()[name]["guessed patch_features"]) > 1000 * TOLERANCE


@torch.no_grad()
def test_computed_positions_are_those_of_the_table_at_its_own_size_and_others_elsewhere(tmp_path):
    name = "sin-cos positions"
    net, size = CASES[name]
    computed = imported(tmp_path, name, "--positions", "computed").network
    assert computed.encoder.position_table is None and computed.decoder.position_table is None
    cls, tokens = computed.encode(formula_volume(1, size))
    assert relative_difference(tokens, golden()[name]["patch_features"]) <= TOLERANCE
    prediction = computed.decode(tokens, None, computed.grid(size), cls=cls)
    assert relative_difference(prediction, golden()[name]["prediction"]) <= TOLERANCE
    (tmp_path / "other").mkdir()
    table, small = imported(tmp_path / "other", name).network, formula_volume(1, (64, 64, 64))
    assert not torch.allclose(computed.encode(small)[1], table.encode(small)[1], atol=1e-3)


def test_the_golden_numbers_cover_the_published_sizes():
    nets = [net for name, (net, _) in CASES.items() if name.startswith("base")]
    assert {net.decoder for net in nets} == {0, 512, 576}
    assert sum(torch.Size(shape).numel() for shape in official_shapes(nets[0]).values()) == 88_369_920
