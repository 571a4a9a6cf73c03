"""The plain U-Net: any image size, both dimensions, nothing heavy before it is built."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from medmae.errors import BadInput
from medmae.finetuning.task import encoder_depths
from medmae.networks import build_network
from medmae.networks.presets import PRESETS, baseline_architecture


@pytest.mark.parametrize(("dims", "size"), [(2, (1, 1)), (2, (33, 70)), (2, (112, 112)), (3, (5, 17, 30))])
def test_it_answers_on_the_grid_of_any_input_also_in_training(dims: int, size: tuple[int, ...]) -> None:
    network = build_network(baseline_architecture("unet", "tiny", dims, 2, 3))
    logits = network(torch.rand(1, 2, *size))
    assert logits.shape == (1, 3, *size) and bool(torch.isfinite(logits).all())


def test_what_pads_the_image_does_not_move_it() -> None:
    torch.manual_seed(0)
    network = build_network(baseline_architecture("unet", "tiny", 2, 1, 2)).eval()
    image = torch.rand(1, 1, 20, 40)
    padded = torch.nn.functional.pad(image, (0, 8, 0, 12))
    assert torch.equal(network(image), network(padded)[..., :20, :40])


def test_every_preset_has_one_and_it_grows_with_the_preset() -> None:
    sizes = set(PRESETS["vis-mae"]) | set(PRESETS["gl-mae"])
    counts = {size: sum(one.numel() for one in build_network(baseline_architecture("unet", size, 2, 1, 2)).parameters())
              for size in sizes}
    assert counts["tiny"] < counts["small"] < counts["base"]
    with pytest.raises(BadInput, match="tiny, small, base"):
        baseline_architecture("unet", "huge", 2, 1, 2)


@pytest.mark.parametrize("change", [{"spatial_dims": 4}, {"widths": [8]}, {"widths": [0, 8]}, {"depth": 3}])
def test_a_description_that_cannot_be_built_is_refused(change: dict) -> None:
    architecture = baseline_architecture("unet", "tiny", 2, 1, 2)
    with pytest.raises(BadInput, match="plain_unet"):
        build_network({"name": "plain_unet", "arguments": architecture["arguments"] | change})


def test_none_of_its_parameters_counts_as_an_encoder() -> None:
    network = build_network(baseline_architecture("unet", "tiny", 2, 1, 2))
    depth_of = encoder_depths(network)
    assert {depth_of(name) for name, _ in network.named_parameters()} == {None}


def test_monai_is_imported_only_where_one_is_built() -> None:
    code = ("import sys; from medmae.networks import build_network, architecture_for;"
            "build_network(architecture_for('vis-mae', 'tiny', 'segmentation', 1, 2));"
            "assert 'monai' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_dynunet_has_the_widths_asked_for_and_answers_on_any_grid() -> None:
    network = build_network(baseline_architecture("dynunet", "tiny", 3, 1, 3))
    logits = network(torch.rand(1, 1, 5, 17, 30))
    assert logits.shape == (1, 3, 5, 17, 30) and bool(torch.isfinite(logits).all())
    levels = [network.unet.input_block, *network.unet.downsamples, network.unet.bottleneck]
    assert [level.conv1.conv.out_channels for level in levels] == [24, 48, 96, 192]
    assert set(map(encoder_depths(network), dict(network.named_parameters()))) == {None}
