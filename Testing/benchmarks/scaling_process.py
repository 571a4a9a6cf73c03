"""What one of N processes measures for scaling.py, which starts it: alone, or under torchrun.

    python Testing/benchmarks/scaling_process.py FOLDER STEPS

All processes measure the same things at the same time, each on its share: reading the corpora of FOLDER, computing
STEPS steps without an exchange of gradients, the exchange alone, and training as `medmae pretrain` does. The figures of
process R of N are left in ``FOLDER/measured-R-of-N.json``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medmae.config import from_json
from medmae.datasets import Corpus
from medmae.pretraining.method import PretrainingMethod
from medmae.pretraining.registry import method_class
from medmae.run_folder import RunFolder
from medmae.training.distributed import ProcessGroup, joined
from medmae.training.loop import LoopSettings, train
from medmae.training.prefetch import Prefetch
from medmae.training.randomness import DrawOrder, share

BATCH = {"vis-mae": 32, "gl-mae": 2}  # of a process, while only reading
TRAINED = ("vis-mae", "tiny", 8)  # samples a process and step
EXCHANGED_BYTES = (4 * 2**10, 7 * 10**6, 107 * 10**6, 521 * 10**6)  # latency; VIS-MAE tiny and base; GL-MAE base
REPEATS, ROUNDS = 5, 4


def method_of(name: str, preset: str, corpus: Path) -> PretrainingMethod:
    """A pretraining method with its default settings on a corpus of one channel."""
    cls = method_class(name)
    settings = from_json(cls.Settings, asdict(cls.settings_for(preset)), "settings")
    torch.manual_seed(0)
    return cls(preset, 1, Corpus(corpus), settings, 0, 0.05)


def forget_pages(corpus: Path) -> None:
    """Ask the system to drop the corpus from its page cache; a virtual disk may still have it in that of its host."""
    for file in corpus.glob("shard-*.bin"):
        with file.open("rb") as shard:
            os.fsync(shard.fileno())
            os.posix_fadvise(shard.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def reading(name: str, corpus: Path, group: ProcessGroup) -> list[dict[str, Any]]:
    """One epoch of the views of `base`, each process its share: cold, then warm."""
    method = method_of(name, "base", corpus)
    batch = BATCH[name] * group.size
    order = DrawOrder(method.number_of_items, 0)
    figures = []
    for epoch, cache in enumerate(("cold", "warm")):
        if cache == "cold" and group.is_main:
            forget_pages(corpus)
        group.barrier()
        steps = method.number_of_items // batch
        loads = Prefetch(lambda step: method.load_batch(share(order.batch(step, batch), group.rank, group.size)),
                         epoch * steps, (epoch + 1) * steps, threads=1)
        begun, begun_cpu = time.monotonic(), time.process_time()
        samples = size = 0
        for loaded in loads:
            samples += BATCH[name]
            size += sum(tensor.nbytes for tensor in loaded.values())
        figures.append({"method": name, "cache": cache, "samples": samples, "bytes": size,
                        "seconds": time.monotonic() - begun, "cpu_seconds": time.process_time() - begun_cpu})
    return figures


def exchange(group: ProcessGroup) -> list[dict[str, float]]:
    """Medians of all-reduces of several sizes."""
    figures = []
    for size in EXCHANGED_BYTES if group.size > 1 else ():
        tensor, times = torch.zeros(size // 4), []
        for _ in range(REPEATS):
            group.barrier()
            begun = time.monotonic()
            torch.distributed.all_reduce(tensor)
            times.append(time.monotonic() - begun)
        figures.append({"bytes": size, "seconds": float(np.median(times))})
    return figures


def training(folder: Path, steps: int, group: ProcessGroup) -> dict[str, Any]:
    """Seconds of every step, in turns: computed alone from one batch in memory, and trained with data and exchange."""
    name, preset, batch = TRAINED
    alone = ProcessGroup(0, 1, group.device)
    figures: dict[str, Any] = {"computing": [], "training": [], "loading": []}
    for number, (kind, of_group) in enumerate(ROUNDS * (("computing", alone), ("training", group))):
        method = method_of(name, preset, folder / name)
        load, ends = method.load_batch, []
        kept = load([DrawOrder(method.number_of_items, 0).batch(0, 1)[0]] * batch)

        def timed_load(draws: Any, load: Any = load) -> Any:
            begun = time.monotonic()
            loaded = load(draws)
            figures["loading"].append(time.monotonic() - begun)
            return loaded

        method.load_batch = (timed_load if kind == "training" else  # type: ignore[method-assign]
                             lambda draws, kept=kept: kept)
        method.after_step = lambda step, total, ends=ends: ends.append(time.monotonic())  # type: ignore[method-assign]
        run = RunFolder(folder / f"{kind}-{number}-{group.rank}-of-{group.size}")
        run.path.mkdir(exist_ok=True)
        group.barrier()
        train(method, run, LoopSettings(steps, batch * of_group.size, 1e-3, checkpoint_every=10 * steps), of_group)
        group.barrier()
        figures[kind] += np.diff(ends)[2:].tolist()
    figures["parameters"] = sum(each.numel() for each in method.module.parameters() if each.requires_grad)
    return figures


def main() -> None:
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    with joined("cpu") as group:
        measured = {"reading": [figures for name in BATCH for figures in reading(name, folder / name, group)],
                    "exchange": exchange(group), "training": training(folder, steps, group)}
        (folder / f"measured-{group.rank}-of-{group.size}.json").write_text(json.dumps(measured))
        group.barrier()


if __name__ == "__main__":
    main()
