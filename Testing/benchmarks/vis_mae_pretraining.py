"""Time of a VIS-MAE pretraining step (`base`, 224 x 224): ours, and with --official the published classes beside it.

    python Testing/benchmarks/vis_mae_pretraining.py [--official CHECKOUT] [--device cuda:0] [--batch 8] [--rounds 7]

CHECKOUT is a checkout of github.com/lzl199704/VIS-MAE (its classes need the package einops); nothing of it is kept.
A step is drawing masks, forward, backward and AdamW on images that are in memory already. All variants take turns in
one process, so that a busy machine slows all of them; the ratios compare medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medmae.inference.device import autocast, computes_bf16, resolve_device
from medmae.networks import architecture_for, build_network
from medmae.networks.visible_plan import VisiblePlan, visible_plan
from medmae.pretraining.masking import block_mask
from medmae.pretraining.vis_mae import VisMaeSettings

Step = Callable[[], float]
SIZE, GRID = 224, (14, 14)


def our_step(device: torch.device, batch: int, channels: int, precision: str, *, visible_only: bool) -> Step:
    """A step of our network as `medmae pretrain` does it; `visible_only` False is the published recipe."""
    torch.manual_seed(0)
    settings = VisMaeSettings()
    network: Any = build_network(architecture_for("vis-mae", "base", "encoder", channels, 0)).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    images = torch.rand(batch, channels, SIZE, SIZE, device=device)
    generator = np.random.default_rng(0)

    def step() -> float:
        masks = np.stack([block_mask(GRID, settings.mask_ratio, generator) for _ in range(batch)])
        mask, plan = torch.from_numpy(masks).to(device), None
        if visible_only:
            tensors = visible_plan(masks, stages=4, window=7, mask_block=network.mask_block).tensors()
            plan = VisiblePlan.of({name: tensor.to(device) for name, tensor in tensors.items()})
        with autocast(device, precision):  # type: ignore[arg-type]
            prediction = network(images, mask, plan)
        loss = network.masked_loss(prediction, images, mask)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 3.0)
        optimizer.step()
        return float(loss)

    return step


def official_step(checkout: Path, device: torch.device, batch: int, precision: str) -> Step:
    """A step of the published network with its optimiser; fp16 as published on a GPU (autocast and loss scaling)."""
    sys.path.insert(0, str(checkout))
    try:
        import swin_mae
    except ImportError as error:
        raise SystemExit(f"{checkout} cannot be used: {error}. Give a checkout of VIS-MAE; install einops.") from None
    finally:
        sys.path.remove(str(checkout))
    torch.manual_seed(0)
    network = swin_mae.swin_mae().to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    images = torch.rand(batch, 3, SIZE, SIZE, device=device)

    def step() -> float:
        with autocast(device, precision):  # type: ignore[arg-type]
            loss = network(images)[0]
        value = loss.item()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return float(value)

    return step


def measure(steps: dict[str, Step], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each variant, one a round, after two rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= 2:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--official", type=Path, help="a checkout of the published code, to be timed beside ours")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="threads of the processor; default: all cores")
    given = parser.parse_args()
    device = resolve_device(given.device)
    if given.threads:
        torch.set_num_threads(given.threads)
    low = "bf16" if computes_bf16(device) else None
    precisions = ["fp32"] + ([low] if low else [])
    steps: dict[str, Step] = {}
    if given.official:
        warnings.simplefilter("ignore")
        # On a processor the published classes cannot run in bf16: their masking mixes it with fp32 and stops.
        for precision in [*precisions, "fp16"] if device.type == "cuda" else ["fp32"]:
            steps[f"official, {precision}"] = official_step(given.official, device, given.batch, precision)
    for precision in precisions:
        steps[f"ours, published recipe, 3 channels, {precision}"] = our_step(device, given.batch, 3, precision,
                                                                             visible_only=False)
        steps[f"ours, 1 channel, {precision}"] = our_step(device, given.batch, 1, precision, visible_only=True)
    seconds = measure(steps, given.rounds, device)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    sys.stdout.write(f"torch {torch.__version__}, {device}{threads}, batch {given.batch}, {given.rounds} rounds; "
                     f"the defaults are 'ours, 1 channel, {precisions[-1]}'\n")
    width = max(map(len, medians))
    for name, median in medians.items():
        ratios = "".join(f"  {medians[other] / median:5.2f}x {other}" for other in medians if "official" in other)
        sys.stdout.write(f"{name:{width}s}  {median:6.3f} s (least {min(seconds[name]):.3f}){ratios}\n")


if __name__ == "__main__":
    main()
