"""Segmenting images while the process is killed: result files are whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from test_inference_faults import files_of, save, scan

from medmae.cli.app import run
from medmae.volumes import read_image, read_label

pytestmark = pytest.mark.alone


def start(batch: Batch, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "medmae.cli", "segment", "--model", str(batch.model), "--images",
               *map(str, batch.images), "--out", str(out), "--device", "cpu"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})


def kill_when(process: subprocess.Popen, condition: Callable[[], bool]) -> bool:
    """Kill -9 as soon as `condition` holds; False where the process ended before."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if condition():
            break
        time.sleep(0.0005)
    process.kill()
    return process.wait() == -signal.SIGKILL


def count_whole(out: Path, batch: Batch) -> int:
    """How many outputs are finished; each of them must be whole."""
    finished = [path for path in files_of(out) if not path.name.startswith(".partial-")]
    labels = [path for path in finished if path.name.endswith((".nii.gz", ".nrrd"))]
    for path in labels:
        found = read_label(path)
        name = path.name.partition(".")[0]
        assert np.array_equal(found.array[0], batch.expected[name]), f"{path} is not whole"
        image = next(image for image in batch.images if image.name.startswith(name))
        assert found.geometry.is_close(read_image(image).geometry)
    assert set(finished) - set(labels) <= {out / "summary.csv", out / "manifest.jsonl", out / "log.txt"}
    return len(labels)


@dataclass(frozen=True)
class Batch:
    """Four scans, the second large enough that its labels take a while to write, and the labels of each."""

    model: Path
    images: list[Path]
    expected: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    folder = tmp_path_factory.mktemp("batch")
    model = save(folder / "model", spacing_mm=[4.0, 4.0, 4.0])  # coarse: few windows, many voxels to write
    images = [scan(folder / f"scan{number}.nrrd", (90, 100, 110) if number == 1 else (20, 20, 20), seed=number)
              for number in range(4)]
    assert run(["segment", "--model", str(model), "--images", *map(str, images), "--out", str(folder / "out"),
                "--device", "cpu"]) == 0
    return Batch(model, images, {path.name.partition(".")[0]: read_label(path).array[0]
                                 for path in (folder / "out").rglob("*.nii.gz")})


def moments(out: Path) -> dict[str, Callable[[], bool]]:
    def outputs() -> list[Path]:
        return [path for path in files_of(out) if path.name.endswith(".nii.gz")]

    def being_written(name: str) -> bool:
        return any(path.name.startswith(".partial-") and name in path.name for path in outputs())

    def finished(name: str) -> bool:
        return any(path.name.startswith(name) for path in outputs())

    return {"while the second is written": lambda: being_written("scan1"),
            "after the first": lambda: finished("scan0"), "after the second": lambda: finished("scan1"),
            "while the last is written": lambda: being_written("scan3")}


def test_killed_while_it_writes_it_leaves_whole_files_only(batch: Batch, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert kill_when(start(batch, out), moments(out)["while the second is written"])
    assert count_whole(out, batch) == 1


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["after the first", "after the second", "while the last is written"])
def test_killed_between_two_images_it_leaves_whole_files_only(moment: str, batch: Batch, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill_when(start(batch, out), moments(out)[moment])
    assert count_whole(out, batch) >= 1


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_whole_files_or_none(batch: Batch, tmp_path: Path) -> None:
    begun = time.monotonic()
    assert start(batch, tmp_path / "whole").wait() == 0
    lasted, found = time.monotonic() - begun, []
    for number, part in enumerate(np.random.default_rng(5).uniform(0.3, 1.0, 12)):
        out = tmp_path / str(number)
        end = time.monotonic() + float(part) * lasted
        kill_when(start(batch, out), lambda end=end: time.monotonic() > end)
        found.append(count_whole(out, batch))
    assert min(found) < 4, "no run was killed before its end"
