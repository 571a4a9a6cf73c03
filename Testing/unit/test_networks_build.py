"""Presets and building."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from medmae.errors import BadInput
from medmae.networks import architecture_for, build_network, methods, preset
from medmae.networks.presets import PRESETS, preset_names, preset_size, spread_skip_blocks

EVERY = [(method, name) for method, named in PRESETS.items() for name in named]


@pytest.mark.parametrize("task", ["encoder", "segmentation", "classification"])
@pytest.mark.parametrize("method, size", EVERY)
def test_every_preset_builds_every_task_from_its_json(method, size, task):
    import json

    architecture = json.loads(json.dumps(architecture_for(method, size, task, 2, 5)))
    with torch.device("meta"):
        network = build_network(architecture)
    assert network.training and sum(parameter.numel() for parameter in network.parameters()) > 1e6


def test_the_sizes_of_a_preset_fit_its_network():
    assert methods() == tuple(PRESETS)
    for method, size in EVERY:
        chosen = preset(method, size)
        assert chosen.method == method and len(chosen.input_size) == chosen.spatial_dims
        if method == "vis-mae":
            assert all(side % (chosen.patch * 2 ** (len(chosen.depths) - 1)) == 0 for side in chosen.input_size)
            assert all(side % (chosen.patch * chosen.mask_block) == 0 for side in chosen.input_size)
        else:
            patch = (chosen.patch,) * 3 if isinstance(chosen.patch, int) else chosen.patch
            for sides in (chosen.input_size, chosen.global_size, chosen.local_size):
                assert all(side % part == 0 for side, part in zip(sides, patch, strict=True))


def test_every_preset_has_its_defaults_in_every_table():
    from medmae.finetuning.config import FinetuneConfig, resolve_finetune_config
    from medmae.pretraining.config import PretrainConfig, resolve_pretrain_config
    from medmae.pretraining.gl_mae import GlMaePretraining

    for method, name in EVERY:
        assert preset_size(name) in ("tiny", "small", "base") and name in preset_names()
        assert resolve_pretrain_config(PretrainConfig(method=method, preset=name), []).steps
        for task in ("segmentation", "classification"):
            config = resolve_finetune_config(FinetuneConfig(), method=method, preset=name, task=task, pretrained=True)
            assert config.steps and config.batch_size
    assert GlMaePretraining.settings_for("tiny-thin") == GlMaePretraining.settings_for("tiny")


def test_skips_are_spread_as_published():
    assert spread_skip_blocks(12, 3) == (4, 7, 10) and spread_skip_blocks(12, 2) == (5, 9)


def test_base_is_the_published_architecture():
    swin, vit = preset("vis-mae", "base"), preset("gl-mae", "base")
    assert (swin.input_size, swin.patch, swin.width, swin.depths, swin.heads, swin.window, swin.mask_block) == (
        (224, 224), 4, 96, (2, 2, 2, 2), (3, 6, 12, 24), 7, 4)
    assert (vit.global_size, vit.local_size, vit.patch, vit.width, vit.depth, vit.heads, vit.skip_blocks) == (
        (160,) * 3, (96,) * 3, 16, 768, 12, 12, (4, 7, 10))
    assert vit.feature_size == 48


def test_presets_are_read_without_torch():
    code = ("import sys; from medmae.networks import preset, architecture_for; preset('gl-mae', 'base');"
            "architecture_for('vis-mae', 'tiny', 'segmentation', 1, 2); assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_method_or_preset_names_the_valid_ones():
    with pytest.raises(BadInput, match="vis-mae, gl-mae"):
        preset("mae", "base")
    with pytest.raises(BadInput, match="tiny, small, base"):
        preset("gl-mae", "huge")


@pytest.mark.parametrize("architecture, message", [
    ({"name": "resnet", "arguments": {}}, "swin_mae"),
    ({}, "needs a 'name'"),
    ({"name": ["swin_mae"], "arguments": {}}, "not known"),
    ({"name": "vit_mae", "arguments": {"channels": 1, "dept": 3}}, "no argument dept.*decoder_width"),
    ({"name": "vit_mae", "arguments": {}}, "channels"),
    ({"name": "vit_mae", "arguments": {"channels": 0}}, "channels = 0"),
    ({"name": "vit_mae", "arguments": {"channels": "1"}}, "channels = '1'"),
    ({"name": "vit_mae", "arguments": {"channels": 10**12}}, "not usable"),
    ({"name": "swin_mae", "arguments": {"channels": 1, "depths": [65536, 2]}}, "not usable"),
    ({"name": "vit_mae", "arguments": {"channels": 1, "decoder_depth": 65536}}, "not usable"),
    ({"name": "swin_mae", "arguments": {"channels": 1, "drop_path": 1.5}}, "drop_path"),
    ({"name": "swin_mae", "arguments": {"channels": 1, "depths": [2, 2]}}, "cannot be built"),
    ({"name": "vit_mae", "arguments": {"channels": 1, "position_grid": [65536] * 3}}, "position_grid.*not usable"),
    ({"name": "vit_mae", "arguments": {"channels": 1, "position_grid": 6}}, "position_grid.*not usable"),
    ({"name": "vit_mae", "arguments": {"channels": 1, "patch": 65536}}, "patch.*not usable"),
    ({"name": "vit_mae", "arguments": {"channels": 1, "patch": [4, 16]}}, "patch must be"),
    ({"name": "vit_mae", "arguments": {"channels": 1, "decoder_class_token": 1}}, "decoder_class_token.*not usable"),
    ({"name": "vit_classifier", "arguments": {"channels": 1, "classes": 2, "pool": 1}}, "pool.*not usable"),
    ({"name": "vit_classifier", "arguments": {"channels": 1, "classes": 2, "pool": "max"}}, "pool must be"),
    ({"name": "vit_classifier", "arguments": {"channels": 1, "classes": 2, "head": "deep"}}, "head linear or mlp"),
    ({"name": "unetr", "arguments": {"channels": 1, "classes": 2, "deep_supervision": -1}}, "not usable"),
    ({"name": "swin_mae", "arguments": {"channels": 1, "width": 97}}, "cannot be built"),
    ({"name": "swin_mae", "arguments": {"channels": 1, "depths": 2}}, "cannot be built"),
    ({"name": "swin_mae", "arguments": {"channels": 1, "depths": [2] * 10**6}}, r"depths = \[2, 2, .*\.\.\.\] is not"),
    ({"name": "plain_unet", "arguments": {"channels": 1, "classes": 2, "widths": [1] * 3000}}, "widths.*not usable"),
    ({"name": "plain_unet", "arguments": {"channels": 1, "classes": 2, "residual_units": 65536}}, "residual_units"),
])
def test_an_unknown_or_impossible_architecture_is_refused_with_the_reason(architecture, message):
    with pytest.raises(BadInput, match=message) as refusal:
        build_network(architecture)
    assert len(str(refusal.value)) < 600


def test_the_shapes_of_a_network_are_told_without_computing_its_positions():
    # Computed, this table would take 17 GB: model.json of a stranger must not be able to ask for that
    with torch.device("meta"):
        network = build_network({"name": "vit_alone", "arguments": {
            "channels": 1, "patch": 8, "width": 65532, "heads": 6, "depth": 1, "position_grid": [40, 40, 40]}})
    assert network.encoder.position_table.is_meta and network.encoder.position_table.shape == (64000, 65532)


def test_every_swin_network_hands_the_padding_rule_to_all_its_blocks():
    from medmae.networks.swin import SwinBlock

    for task in ("encoder", "segmentation", "classification"):
        architecture = architecture_for("vis-mae", "tiny", task, 1, 2)
        for masked in (True, False):
            architecture["arguments"]["masked_padding"] = masked
            with torch.device("meta"):
                network = build_network(architecture)
            assert {block.masked_padding for block in network.modules() if isinstance(block, SwinBlock)} == {masked}
    architecture["arguments"]["masked_padding"] = 0
    with pytest.raises(BadInput, match="masked_padding"):
        build_network(architecture)
