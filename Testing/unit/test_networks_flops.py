"""The arithmetic that the benchmark of GL-MAE counts, against torch's own counter."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from medmae.networks import architecture_for, build_network

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "gl_mae_pretraining.py"


def benchmark() -> ModuleType:
    specification = importlib.util.spec_from_file_location("gl_mae_pretraining", BENCHMARK)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("preset, size", [("tiny", (48, 32, 40)), ("tiny-thin", (16, 48, 48)), ("small", (64, 80, 48))])
def test_the_benchmark_counts_the_arithmetic_that_torch_counts(preset, size):
    network = build_network(architecture_for("gl-mae", preset, "encoder", 1))
    tokens = network.grid(size)[0] * network.grid(size)[1] * network.grid(size)[2]
    kept = tokens // 4
    volumes, keep = torch.rand(3, 1, *size), torch.stack([torch.randperm(tokens)[:kept] for _ in range(3)])
    # In bf16 attention is written out for training on a processor; torch's counter does not know the fused kernel
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", dtype=torch.bfloat16):
        cls, prediction = network(volumes, keep)
        (network.masked_loss(prediction, volumes, keep) + cls.float().square().mean()).backward()
    assert counter.get_total_flops() == 3 * benchmark().student_flops(network, tokens, kept)


def test_a_masked_step_of_the_published_network_needs_less_than_half_the_arithmetic_of_a_dense_one():
    count = benchmark().student_flops
    shares = {}
    for preset in ("base", "base-fast"):
        with torch.device("meta"):
            network = build_network(architecture_for("gl-mae", preset, "encoder", 1))
        shares[preset] = count(network, 216, 216) / count(network, 216, 54)
    assert shares["base"] > 2.2 and shares["base-fast"] > 3.2
