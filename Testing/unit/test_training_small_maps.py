"""Training in bf16 on a processor: gradients of convolutions of very small maps are right and repeatable."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medmae.networks import build_network
from medmae.networks.hybrid import VisibleBlock
from medmae.training.small_maps import small_maps_in_full

CPU = torch.device("cpu")


def gradient(layer: nn.Module, maps: torch.Tensor, *, protected: bool = True) -> torch.Tensor:
    """Of the weights of all convolutions, computed in bf16."""
    layer.zero_grad(set_to_none=True)
    device = CPU if protected else torch.device("meta")
    with torch.autocast("cpu", dtype=torch.bfloat16), small_maps_in_full(device):
        loss = layer(maps).float().square().sum()
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in layer.parameters() if weight.ndim > 2])


@pytest.mark.parametrize(("size", "stride"), [((2, 2, 4), 1), ((2, 6, 6), 1), ((3, 1, 4), 2), ((4, 4, 1), 2)])
def test_gradients_of_small_maps_are_those_of_fp32(size: tuple[int, int, int], stride: int) -> None:
    torch.manual_seed(0)
    layer, maps = nn.Conv3d(16, 16, 3, stride, padding=1, bias=False), torch.randn(2, 16, *size)
    layer(maps).square().sum().backward()
    expected = layer.weight.grad.flatten().clone()
    for _ in range(3):
        assert torch.nn.functional.cosine_similarity(gradient(layer, maps), expected, dim=0) > 0.999


def test_maps_of_usual_size_stay_in_half_precision() -> None:
    torch.manual_seed(0)
    layer, maps = VisibleBlock(channels_in=4, channels_out=8, stride=2), torch.randn(1, 4, 8, 8, 8)
    assert torch.equal(gradient(layer, maps), gradient(layer, maps, protected=False))
    with torch.autocast("cpu", dtype=torch.bfloat16), small_maps_in_full(CPU):
        for size in (2, 8):
            assert nn.Conv3d(1, 1, 3, padding=1)(torch.randn(1, 1, size, 8, 8)).dtype == torch.bfloat16


def test_nothing_is_changed_where_nothing_is_computed_in_half_precision() -> None:
    with small_maps_in_full(CPU) as mode:
        assert mode is None
    with torch.autocast("cpu", dtype=torch.bfloat16), small_maps_in_full(torch.device("cuda")) as mode:
        assert mode is None


def test_a_hybrid_network_learns_the_same_from_small_views_every_time() -> None:
    torch.manual_seed(0)
    network = build_network({"name": "hybrid_unet", "arguments": {
        "channels": 1, "classes": 2, "stem_widths": [8, 16, 16], "width": 24, "depth": 1, "heads": 2,
        "decoder_depth": 1}})
    volumes = torch.randn(2, 1, 8, 8, 16)
    first = gradient(network, volumes)
    assert first.isfinite().all()
    assert all(torch.equal(gradient(network, volumes), first) for _ in range(3))
