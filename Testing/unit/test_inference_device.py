"""Where networks run, in which arithmetic, and how many windows at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from inference_helpers import description
from torch import nn

from medmae.errors import BadInput
from medmae.inference.device import autocast, computes_bf16, resolve_device
from medmae.inference.loaded_model import LoadedModel

CPU = torch.device("cpu")


@pytest.mark.parametrize("supported", [True, False])
def test_automatic_precision_is_bf16_where_the_processor_computes_it(monkeypatch, supported):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: supported, raising=False)
    with autocast(CPU, "auto"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert computes_bf16(CPU) is supported
    assert product.dtype == (torch.bfloat16 if supported else torch.float32)


def test_a_torch_that_cannot_tell_uses_fp32(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not computes_bf16(CPU)


def test_half_precision_of_16_bits_is_refused_on_processors():
    with pytest.raises(BadInput, match="needs a GPU"):
        autocast(CPU, "fp16")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cuda:-1", "mps:3", ""])
def test_devices_that_do_not_exist_are_refused(name):
    with pytest.raises(BadInput, match="device"):
        resolve_device(name)


@pytest.mark.parametrize(("dims", "side", "windows"), [(3, 32, 4), (3, 48, 4), (3, 96, 1), (2, 224, 8)])
def test_small_windows_share_a_forward_pass_and_large_ones_do_not(dims, side, windows):
    info = replace(description(dims=dims), input_size=[side] * dims)
    assert LoadedModel.of(info, nn.Identity(), device=CPU).windows_at_once == windows
