"""How training scales: rates measured with one and two processes here, a simulation checked against them, and what it
says of 1, 8 and 64 GPUs.

    python Testing/benchmarks/scaling.py [--steps N] [--pictures N] [--volumes N] [--csv FOLDER] [assumptions]

Corpora of noise are written in the format of real ones: pictures of 224 x 224 for VIS-MAE, volumes of 208 x 256 x 256
voxels for GL-MAE. Everything about GPUs is derived from the assumptions, which are options (--help): none was measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scaling_process import TRAINED, method_of
from scaling_simulation import Machine, Pace, Work, ring_all_reduce_s, simulate

from medmae.datasets import CorpusWriter

SHAPES = {"vis-mae": (1, 1, 224, 224), "gl-mae": (1, 208, 256, 256)}
COUNTS_OF_DEVICES = (1, 8, 64)
SECONDS_A_DAY = 86_400
Row = dict[str, Any]


@dataclass(frozen=True)
class Pretraining:
    """A pretraining to estimate: draws in all, and the batch of a step by the number of devices."""

    method: str
    title: str
    draws: int
    batch: dict[int, int]


PRETRAININGS = (
    # The schedules of `base`. 16 volumes cannot be shared by 64 processes: 4 for each then, in as many fewer steps
    Pretraining("gl-mae", "GL-MAE base, 100,000 CT studies, 1.2 million draws", 75_000 * 16, {1: 16, 8: 16, 64: 256}),
    Pretraining("vis-mae", "VIS-MAE base, 2.5 million images, 250 million draws", 390_000 * 640,
                {1: 640, 8: 640, 64: 640}),
)


def write_corpus(folder: Path, shape: tuple[int, ...], count: int) -> None:
    """A corpus of `count` images of noise."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(2 * shape[1], *shape[2:])).astype(np.float16)
    with CorpusWriter(folder) as writer:
        for number in range(count):
            first = int(generator.integers(shape[1] + 1))
            image = noise[first:first + shape[1]][None].copy()
            image.flat[0] = number % 2048  # no two are the same
            writer.add(f"{number:06}", image, (1.0, 1.0, 1.0), "CT", {})


def measured(folder: Path, processes: int, steps: int) -> list[Row]:
    """What `processes` processes measure on `folder`, the main one first."""
    script = str(Path(__file__).with_name("scaling_process.py"))
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    subprocess.run([sys.executable, *(torchrun if processes > 1 else ()), script, str(folder), str(steps)], check=True,
                   env={**os.environ, "OMP_NUM_THREADS": "1"})
    return [json.loads((folder / f"measured-{rank}-of-{processes}.json").read_text()) for rank in range(processes)]


def reading_rows(measurements: list[Row]) -> list[Row]:
    """What all processes together read, by method and state of the page cache."""
    rows = []
    for of_all in zip(*(each["reading"] for each in measurements), strict=True):
        seconds = max(each["seconds"] for each in of_all)
        samples = sum(each["samples"] for each in of_all)
        rows.append({"what": f"reading {of_all[0]['method']} base, {of_all[0]['cache']}",
                     "processes": len(measurements), "samples_a_second": samples / seconds,
                     "cpu_ms_a_sample": 1000 * sum(each["cpu_seconds"] for each in of_all) / samples})
    return rows


def training_rows(measurements: list[Row]) -> list[Row]:
    """Seconds of a step as measured and as the simulation predicts it from its parts."""
    processes, of_main = len(measurements), measurements[0]["training"]
    computing = np.concatenate([each["training"]["computing"] for each in measurements])
    loading = np.median(np.concatenate([each["training"]["loading"] for each in measurements]))
    exchange = 0.0
    if processes > 1:
        known = measurements[0]["exchange"]
        exchange = float(np.interp(4 * of_main["parameters"], [each["bytes"] for each in known],
                                   [each["seconds"] for each in known]))
    work = Work(0, float(loading), float(computing.mean()), exchange, hidden=0.0, jitter=float(np.log(computing).std()))
    predicted = simulate(Machine(devices=processes, threads=1), work, steps=400)
    name, preset, batch = TRAINED
    return [{"what": f"step of {name} {preset}, {batch} a process", "processes": processes,
             "seconds": float(np.mean(of_main["training"])), "predicted_seconds": predicted.step_s,
             "computing_s": work.compute_s, "loading_s": work.prepare_s, "exchange_s": exchange,
             "jitter": work.jitter}]


def arithmetic(method: Any) -> float:
    """Floating-point operations of a sample: a backward costs two forwards, a teacher has none."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from medmae.training.randomness import Draw

    batch = method.load_batch([Draw(0, 0)])
    with FlopCounterMode(display=False) as counter:
        if not hasattr(method.module, "teacher"):
            method.module(batch)
            return 3.0 * counter.get_total_flops()
        student, teacher = method.module.student.to("meta"), method.module.teacher.to("meta")
        views = {kind.name: torch.empty(kind.count, 1, *kind.size, device="meta") for kind in method._drawer.kinds}
        for name, images in views.items():
            student(images, batch[f"{name}_visible"][0].to("meta"))
        forward = counter.get_total_flops()
        teacher(views["global"])
        return 3.0 * forward + counter.get_total_flops() - forward


def arithmetic_of(wanted: Pretraining, corpus: Path) -> tuple[float, int, float]:
    """Operations and bytes read of a sample, and bytes of all gradients."""
    from medmae.training.randomness import Draw

    method = method_of(wanted.method, "base", corpus)
    gradients = sum(4 * each.numel() for each in method.module.parameters() if each.requires_grad)
    batch = method.load_batch([Draw(0, 0)])
    read = batch["blocks"].nbytes if "blocks" in batch else 2 * np.prod(SHAPES[wanted.method])
    return arithmetic(method), gradients, float(read)


def estimate(wanted: Pretraining, devices: int, utilisation: float, operations: float, gradients: int,
             bytes_read: float, prepare_s: float, assumed: argparse.Namespace) -> Row:
    """The pace of a pretraining on `devices` GPUs; `prepare_s` is the measured processor time of a sample."""
    batch = wanted.batch[devices]
    share = batch / devices
    exchange = ring_all_reduce_s(gradients, devices, assumed.network, assumed.latency) if devices > 1 else 0.0
    work = Work(share * bytes_read, share * prepare_s,
                share * operations / (assumed.peak * utilisation), exchange, hidden=assumed.hidden,
                jitter=assumed.jitter, stragglers=assumed.stragglers)
    threads = max(1, min(8, assumed.cores // 2))
    machine = Machine(devices, min(8, devices), assumed.cores * min(8, devices), threads, assumed.storage,
                      assumed.storage_reader)
    pace: Pace = simulate(machine, work, steps=120)
    rate = batch / pace.step_s
    return {"pretraining": wanted.title, "gpus": devices, "utilisation": utilisation, "batch": batch,
            "tflop_a_sample": operations / 1e12, "compute_s": work.compute_s, "all_reduce_s": exchange,
            "step_s": pace.step_s, "waiting_for_data": pace.waiting, "samples_a_second": rate,
            "gigabytes_a_second": rate * bytes_read / 1e9, "days": wanted.draws / rate / SECONDS_A_DAY}


def show(rows: list[Row]) -> None:
    """A table with a line a row."""
    def text(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    columns = list(rows[0])
    widths = [max(len(name), *(len(text(row[name])) for row in rows)) for name in columns]
    for line in ([dict(zip(columns, columns, strict=True)), *rows]):
        print("  ".join(text(line[name]).rjust(width) for name, width in zip(columns, widths, strict=True)))
    print()


def write_csv(file: Path, rows: list[Row]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
                         for row in rows)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="of each of four rounds of training")
    parser.add_argument("--pictures", type=int, default=4096, help="of the corpus of VIS-MAE, 100 kB each")
    parser.add_argument("--volumes", type=int, default=32, help="of the corpus of GL-MAE, 27 MB each")
    parser.add_argument("--csv", type=Path, help="folder for measured.csv and estimate.csv")
    parser.add_argument("--measured", type=Path, help="measured.csv of an earlier call, instead of measuring")
    assumed = parser.add_argument_group("assumptions about GPUs, network and storage (not measured)")
    assumed.add_argument("--peak", type=float, default=989e12, help="bf16 operations a second of a GPU (H100 SXM)")
    assumed.add_argument("--utilisation", type=float, nargs="+", default=[0.1, 0.4], help="share of it that is reached")
    assumed.add_argument("--cores", type=int, default=16, help="processor cores a GPU")
    assumed.add_argument("--network", type=float, default=25e9, help="bytes a second and GPU")
    assumed.add_argument("--latency", type=float, default=2e-5, help="seconds of a message")
    assumed.add_argument("--hidden", type=float, default=0.5, help="share of the exchange that lies under the backward")
    assumed.add_argument("--storage", type=float, default=10e9, help="bytes a second of the shared file system")
    assumed.add_argument("--storage-reader", type=float, default=0.5e9, help="bytes a second of one reading thread")
    assumed.add_argument("--jitter", type=float, default=0.05, help="deviation of the logarithm of every time")
    assumed.add_argument("--stragglers", type=float, default=0.002, help="share of steps that take twice as long")
    return parser.parse_args()


def measure(folder: Path, assumed: argparse.Namespace) -> list[Row]:
    """All that is measured here, printed too."""
    by_processes = {processes: measured(folder, processes, assumed.steps) for processes in (1, 2)}
    reading = [row for each in by_processes.values() for row in reading_rows(each)]
    exchanges = [{"what": "all-reduce", "processes": 2, **row} for row in by_processes[2][0]["exchange"]]
    steps = [row for each in by_processes.values() for row in training_rows(each)]
    for rows in (reading, exchanges, steps):
        show(rows)
    return [*reading, *exchanges, *steps]


def estimates(folder: Path, rows: list[Row], assumed: argparse.Namespace) -> list[Row]:
    """The table of GPUs, printed too; `rows` are what was measured."""
    result = []
    for wanted in PRETRAININGS:
        operations, gradients, bytes_read = arithmetic_of(wanted, folder / wanted.method)
        prepare_s = next(float(row["cpu_ms_a_sample"]) for row in rows
                         if row["what"] == f"reading {wanted.method} base, warm") / 1000
        of_this = [estimate(wanted, devices, utilisation, operations, gradients, bytes_read, prepare_s, assumed)
                   for utilisation in assumed.utilisation for devices in COUNTS_OF_DEVICES]
        print(f"{wanted.title}: {gradients / 1e6:.0f} MB of gradients, {bytes_read / 1e6:.1f} MB and "
              f"{1000 * prepare_s:.1f} ms of a core a sample")
        show([{name: value for name, value in row.items() if name != "pretraining"} for row in of_this])
        result += of_this
    return result


def main() -> None:
    """Measure and check, or take what was measured before; estimate."""
    assumed = options()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, count in (("vis-mae", assumed.pictures), ("gl-mae", assumed.volumes)):
            write_corpus(folder / name, SHAPES[name], 1 if assumed.measured else count)
        if assumed.measured:
            with assumed.measured.open(newline="") as stream:
                rows: list[Row] = list(csv.DictReader(stream))
        else:
            rows = measure(folder, assumed)
            if assumed.csv:
                write_csv(assumed.csv / "measured.csv", rows)
        estimated = estimates(folder, rows, assumed)
        if assumed.csv:
            write_csv(assumed.csv / "estimate.csv", estimated)


if __name__ == "__main__":
    main()
