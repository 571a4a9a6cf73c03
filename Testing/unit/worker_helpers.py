"""Models on disk and raw conversations for the tests of the warm worker."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import torch
from inference_helpers import description

from medmae.models import save_model
from medmae.networks import architecture_for, build_network
from medmae.worker.child import environment_of_worker

AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])
TINY = {"patch": 8, "width": 24, "depth": 3, "heads": 2, "skip_blocks": [1, 2], "feature_size": 8}


def tiny_model(folder, task="segmentation", seed=1, **arguments):
    """A model folder that loads and computes in milliseconds, with random weights."""
    torch.manual_seed(seed)
    architecture = architecture_for("gl-mae", "tiny", task, 1, classes=3)
    keys = TINY if task == "segmentation" else {"patch": 8, "width": 24, "depth": 2, "heads": 2}
    architecture["arguments"] |= {**keys, **arguments}
    info = description(task, values=(0, 1, 5), size=[16, 16, 16], architecture=architecture,
                       intensity={"kind": "robust"})
    return save_model(folder, info, build_network(architecture))


def volume(shape=(20, 24, 28), seed=0, dtype=np.int16):
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(dtype)


class Conversation:
    """A worker that is spoken to line by line, as any program in any language could."""

    def __init__(self, *arguments, command=(sys.executable, "-m", "medmae.worker"), reads=True, **options):
        self.process = subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=environment_of_worker(), **options)
        self.lines: SimpleQueue = SimpleQueue()
        if reads:
            threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):  # a line that could not be flushed
                pipe.close()

    def say(self, message):
        line = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def hear(self, seconds=60.0):
        """The next message."""
        try:
            return json.loads(self.lines.get(timeout=seconds))
        except Empty:
            raise AssertionError("the worker says nothing") from None

    def until(self, number, *events, seconds=60.0):
        """The next message about the request `number` with one of these events."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message = self.hear(end - time.monotonic())
            if message["id"] == number and message["event"] in (events or ("result", "error")):
                return message
        raise AssertionError(f"nothing about {number}")

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)


def descendants(pid: int) -> list[int]:
    """Processes below `pid`, by /proc."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
    found, level = [], [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found += level
    return found


def is_alive(pid: int) -> bool:
    """Whether a process lives (one that has ended and was not waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not is_alive(pid):
            return True
        time.sleep(0.02)
    return False
