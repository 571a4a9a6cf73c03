"""UNETR: its decoder against MONAI's, and results on crops of any size."""

from __future__ import annotations

import pytest
import torch

from medmae.errors import BadInput
from medmae.networks import architecture_for, build_network
from medmae.networks.unetr import UnetrDecoder, upsample_strides


class MonaiDecoder(torch.nn.Module):
    """The published decoder for patch 16 (MONAI's UNETR from `encoder1` to `decoder2`), made of MONAI's blocks."""

    def __init__(self, channels: int, width: int, feature_size: int) -> None:
        super().__init__()
        from monai.networks.blocks import UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock

        sizes = [feature_size * 2**level for level in range(4)]
        common = {"spatial_dims": 3, "kernel_size": 3, "norm_name": "instance", "res_block": True}
        up = {"kernel_size": 3, "upsample_kernel_size": 2, "spatial_dims": 3, "norm_name": "instance",
              "res_block": True}
        self.encoder1 = UnetrBasicBlock(in_channels=channels, out_channels=feature_size, stride=1, **common)
        self.encoders = torch.nn.ModuleList(
            UnetrPrUpBlock(in_channels=width, out_channels=sizes[level], num_layer=3 - level, stride=1,
                           upsample_kernel_size=2, conv_block=True, **common) for level in (1, 2, 3))
        self.decoders = torch.nn.ModuleList(
            UnetrUpBlock(in_channels=inner, out_channels=outer, **up)
            for inner, outer in zip([*sizes[1:], width], sizes, strict=True))

    def forward(self, volumes, hidden, coarsest):
        features = coarsest
        for level in (3, 2, 1):
            features = self.decoders[level](features, self.encoders[level - 1](hidden[level - 1]))
        return self.decoders[0](features, self.encoder1(volumes))


def monai_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of our decoder under the names of `MonaiDecoder`."""
    named = {}

    def residual(prefix: str, monai_prefix: str) -> None:
        for conv in ("conv1", "conv2", "conv3"):
            if f"{prefix}.{conv}.weight" in state:
                named[f"{monai_prefix}.{conv}.conv.weight"] = state[f"{prefix}.{conv}.weight"]

    residual("image_block", "encoder1.layer")
    for level in (0, 1, 2):
        path, theirs = f"skip_paths.{level}", f"encoders.{level}"
        named[f"{theirs}.transp_conv_init.conv.weight"] = state[f"{path}.0.weight"]
        for step in range(2 - level):
            named[f"{theirs}.blocks.{step}.0.conv.weight"] = state[f"{path}.{1 + 2 * step}.weight"]
            residual(f"{path}.{2 + 2 * step}", f"{theirs}.blocks.{step}.1")
    for level in range(4):
        named[f"decoders.{level}.transp_conv.conv.weight"] = state[f"up_blocks.{level}.up.weight"]
        residual(f"up_blocks.{level}.mix", f"decoders.{level}.conv_block")
    return named


def test_the_decoder_equals_monais_with_the_same_weights_on_a_non_cubic_grid():
    torch.manual_seed(0)
    ours = UnetrDecoder(channels=2, width=48, strides=[(2, 2, 2)] * 4, feature_size=8)
    theirs = MonaiDecoder(channels=2, width=48, feature_size=8)
    theirs.load_state_dict(monai_names(ours.state_dict()), strict=True)
    volumes, *tokens = torch.randn(2, 2, 32, 48, 16), *(torch.randn(2, 48, 2, 3, 1) for _ in range(4))
    with torch.no_grad():
        torch.testing.assert_close(ours(volumes, tokens[:3], tokens[3])[0], theirs(volumes, tokens[:3], tokens[3]),
                                   rtol=1e-4, atol=1e-5)


def test_the_base_decoder_has_as_many_parameters_as_monais():
    with torch.device("meta"):
        network = build_network(architecture_for("gl-mae", "base", "segmentation", 1, 14))
        theirs = MonaiDecoder(channels=1, width=768, feature_size=48)
    count = sum(parameter.numel() for parameter in network.decoder.parameters())
    assert count == sum(parameter.numel() for parameter in theirs.parameters())
    assert not any(name.endswith("cls_token") for name in network.state_dict())


@pytest.mark.parametrize("size", [(48, 48, 48), (31, 50, 17), (8, 8, 8), (5, 3, 40), (1, 20, 20)], ids=str)
def test_the_result_lies_on_the_grid_of_any_crop(size):
    network = build_network(architecture_for("gl-mae", "tiny", "segmentation", 1, 3)).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, 1, *size))
    assert logits.shape == (1, 3, *size) and torch.isfinite(logits).all()


@pytest.mark.parametrize("patch, skips", [((4, 16, 16), [2, 3, 5]), ((2, 8, 8), [2, 4]), ((1, 4, 2), [3]), (2, [])],
                         ids=str)
def test_patches_of_other_sides_give_results_on_the_grid_of_any_crop(patch, skips):
    architecture = architecture_for("gl-mae", "tiny", "segmentation", 1, 3)
    architecture["arguments"] |= {"patch": patch, "skip_blocks": skips, "feature_size": 4, "width": 24, "heads": 2}
    network = build_network(architecture).eval()
    for size in [(16, 32, 48), (5, 33, 20), (1, 16, 16)]:
        with torch.no_grad():
            logits = network(torch.randn(1, 1, *size))
        assert logits.shape == (1, 3, *size) and torch.isfinite(logits).all()


def test_axes_with_smaller_patches_stop_being_doubled_first():
    assert upsample_strides((4, 16, 16)) == [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]
    assert upsample_strides((16, 16, 16)) == [(2, 2, 2)] * 4
    assert upsample_strides((1, 4, 2)) == [(1, 2, 1), (1, 2, 2)]


def test_deep_supervision_adds_heads_on_coarser_levels_and_leaves_the_result_alone():
    architecture = architecture_for("gl-mae", "tiny", "segmentation", 1, 3)
    plain = build_network(architecture).eval()
    architecture["arguments"] |= {"deep_supervision": 2}
    network = build_network(architecture).eval()
    missing = network.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert {name.split(".")[0] for name in missing} == {"deep_heads"}
    volumes = torch.randn(1, 1, 16, 21, 24)
    with torch.no_grad():
        logits = network.deep_logits(volumes)
        torch.testing.assert_close(network(volumes), plain(volumes))
    assert [tuple(one.shape[2:]) for one in logits] == [(16, 21, 24), (8, 11, 12), (4, 6, 6)]
    torch.testing.assert_close(logits[0], plain(volumes))
    sum(one.square().mean() for one in network.deep_logits(volumes)).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_the_raw_image_and_every_hidden_state_reach_the_result():
    network = build_network(architecture_for("gl-mae", "tiny", "segmentation", 1, 2)).eval()
    volumes = torch.randn(1, 1, 16, 16, 16)
    hidden = [torch.randn(1, 192, 2, 2, 2) for _ in range(2)]
    coarsest = torch.randn(1, 192, 2, 2, 2)
    with torch.no_grad():
        reference = network.decoder(volumes, hidden, coarsest)[0]
        assert reference.shape == (1, 16, 16, 16, 16)
        assert not torch.allclose(network.decoder(torch.randn_like(volumes), hidden, coarsest)[0], reference)
        assert not torch.allclose(network.decoder(volumes, hidden, torch.randn_like(coarsest))[0], reference)
        for index in range(2):
            changed = [torch.randn_like(one) if place == index else one for place, one in enumerate(hidden)]
            assert not torch.allclose(network.decoder(volumes, changed, coarsest)[0], reference)


def test_hidden_states_are_taken_after_the_named_blocks():
    network = build_network(architecture_for("gl-mae", "tiny", "segmentation", 1, 2)).eval()
    outputs = []
    for block in network.encoder.blocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        hidden = network.encoder(torch.randn(1, 1, 16, 16, 16), hidden_after=(2, 4))[2]
    assert torch.equal(hidden[0], outputs[1]) and torch.equal(hidden[1], outputs[3])


def test_training_reaches_every_parameter():
    network = build_network(architecture_for("gl-mae", "tiny", "segmentation", 2, 3))
    network(torch.randn(1, 2, 16, 24, 16)).square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("changes", [{"patch": 12}, {"skip_blocks": [4, 7]}, {"skip_blocks": [7, 4, 10]},
                                     {"skip_blocks": [4, 7, 13]}, {"width": 100}, {"patch": [16, 16]},
                                     {"patch": [3, 16, 16]}, {"patch": 1, "skip_blocks": []}, {"deep_supervision": 4},
                                     {"position_grid": [2, 2]}], ids=str)
def test_an_impossible_architecture_is_refused(changes):
    arguments = {"channels": 1, "classes": 2, "patch": 16, "width": 96, "heads": 4, "skip_blocks": [4, 7, 10]}
    with pytest.raises(BadInput, match="cannot be built"):
        build_network({"name": "unetr", "arguments": arguments | changes})
