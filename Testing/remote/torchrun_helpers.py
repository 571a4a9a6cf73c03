"""Runs of several processes: small images, torchrun, and what is compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the usual name
import torch
from safetensors.torch import load_file

from medmae.run_folder import RunFolder

PROCESS = Path(__file__).with_name("torchrun_process.py")
TIMES = ("seconds", "eta_s", "data_wait_s", "memory_bytes")
END_WITHIN_SECONDS = 240
INTERRUPTED = {"method": "vis-mae", "preset": "tiny", "precision": "fp32", "batch_size": 2, "modality": "DX",
               "checkpoint_every": 2}  # the configuration of runs that do not get to their end
STEPS = 400  # more than any of these runs gets to
SOON_SECONDS = 120  # torchrun itself grants the others 30 s; starting takes 10 s and more


def write_pictures(folder: Path, count: int) -> list[str]:
    """Pictures of one bright square in noise."""
    folder.mkdir()
    for number in range(count):
        generator = np.random.default_rng(number)
        picture = generator.normal(60, 10, (48, 48))
        row, column = generator.integers(0, 36, 2)
        picture[row:row + 12, column:column + 12] += 120
        sitk.WriteImage(sitk.GetImageFromArray(picture.clip(0, 255).astype(np.uint8)),
                        str(folder / f"{number:03}.png"))
    return [str(folder)]


def write_corpus(folder: Path) -> str:
    """A corpus of such pictures, as a run prepares it."""
    run = executed(pretraining(folder / "run", INTERRUPTED, 1, images=write_pictures(folder / "pictures", 8)), 1)
    return str(run.path / "corpus")


def write_classified(folder: Path, counts: dict[str, int]) -> str:
    """A classification dataset of such pictures: a list of each of these lengths, its classes in turns."""
    write_pictures(folder, sum(counts.values()))
    files = iter(sorted(folder.glob("*.png")))
    lists = {key: [{"image": next(files).name, "label": number % 2, "subject": f"{key}{number}"}
                   for number in range(count)] for key, count in counts.items()}
    dataset = folder / "dataset.json"
    dataset.write_text(json.dumps({"name": "squares", "task": "classification", "labels": {"down": 0, "up": 1},
                                   "modality": {"0": "DX"}, **lists}))
    return str(dataset)


def write_volumes(folder: Path, count: int) -> list[str]:
    """Volumes of one bright ball in noise."""
    folder.mkdir()
    places = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"), -1)
    for number in range(count):
        generator = np.random.default_rng(number)
        volume = generator.normal(0, 30, (40, 40, 40))
        volume[np.linalg.norm(places - generator.uniform(12, 28, 3), axis=-1) < 9] += 500
        sitk.WriteImage(sitk.GetImageFromArray(volume.astype(np.int16)), str(folder / f"{number:03}.nii.gz"))
    return [str(folder)]


def pretraining(folder: Path, config: dict[str, Any], steps: int, **inputs: Any) -> RunFolder:
    return RunFolder.create(folder, "pretrain", {"workers": 0, "device": "cpu", **config, "steps": steps}, inputs)


def start(run: RunFolder, processes: int, *, launcher: Sequence[str] = ("--standalone",), before: Sequence[str] = (),
          **environment: Any) -> subprocess.Popen[str]:
    """Execute `run` in so many processes, by torchrun where they are several; `before` starts the whole command."""
    torchrun = ["-m", "torch.distributed.run", *launcher, f"--nproc-per-node={processes}"]
    command = [*before, sys.executable, *(torchrun if processes > 1 or before else ()), str(PROCESS), str(run.path)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, text=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[str], seconds: float = END_WITHIN_SECONDS) -> tuple[int, str]:
    """The exit code and the end of what the process said; it is killed where it takes too long."""
    try:
        _, said = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, said[-3000:]


def executed(run: RunFolder, processes: int) -> RunFolder:
    code, said = ended(start(run, processes))
    assert code == 0, said
    assert run.state()["state"] == "done"
    return run


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def figures(run: RunFolder) -> list[dict[str, float]]:
    """What each step reports but for times."""
    return [{name: value for name, value in record.items() if name not in TIMES}
            for record in run.progress() if "loss" in record]


def steps_reported(run: RunFolder) -> int:
    """How many lines of steps all attempts of the run have written."""
    return run.progress_file.read_text().count('"loss"') if run.progress_file.exists() else 0


def last_checkpoint(run: RunFolder) -> int:
    """The step of the newest checkpoint."""
    return max(int(file.stem.removeprefix("step-")) for file in run.checkpoints.glob("step-*.safetensors"))


def weights(run: RunFolder, rank: int) -> dict[str, torch.Tensor]:
    """The module of process `rank` after training."""
    return load_file(run.path / "observed" / f"rank-{rank}.safetensors")


def observed(run: RunFolder, rank: int) -> dict[str, list[Any]]:
    """The draws (epoch, item) of process `rank` and the images that its loaders read."""
    return json.loads((run.path / "observed" / f"rank-{rank}.json").read_text())


def assert_equal_losses(one: list[dict[str, float]], other: list[dict[str, float]], relative: float) -> None:
    assert [figures["step"] for figures in one] == [figures["step"] for figures in other]
    np.testing.assert_allclose([figures["loss"] for figures in one], [figures["loss"] for figures in other],
                               rtol=relative)
