"""Stands in for ``python -m medmae.worker`` where what happens around a computation is tested, not the computation.

The real server speaks; what it does for a request is written in the file that FAKE_WORKER names: "progress", "work=60"
(seconds, stopped on request), "deaf=60" (not stopped), "labels=FILE.npy", "fail=TEXT", "break=TEXT",
"missing=PACKAGE", "grandchild=FILE", "die", "crash", "free=BYTES" (what an estimate tells to be free).
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

from medmae.errors import BadInput, Stopped
from medmae.worker import __main__ as worker
from medmae.worker.buffers import opened
from medmae.worker.protocol import Classify, Plan

SEGMENTED = {"labels": {"left": {"value": 1, "voxels": 18, "ml": 0.034, "area_mm2": 40.0, "confidence": 0.914}},
             "seconds": 0.25}
CLASSIFIED = {"label": "fracture", "probabilities": {"none": 0.2, "fracture": 0.8},
              "deciding_slices": {"none": {"axis": "k", "index": 1}, "fracture": {"axis": "k", "index": 4}},
              "calibrated": False, "seconds": 0.25}


def perform(work, _store, on_progress, should_stop):
    """Do what the plan says."""
    actions = Path(os.environ["FAKE_WORKER"]).read_text().split("\n")
    if isinstance(work, Plan):
        return _estimate(actions)
    for action in actions:
        name, _, argument = action.partition("=")
        if name == "progress":
            for step in range(1, 4):
                on_progress(step, 3)
                time.sleep(0.11)
        elif name in ("work", "deaf"):
            deadline = time.monotonic() + float(argument)
            while time.monotonic() < deadline:
                if name == "work" and should_stop():
                    raise Stopped("Stopped.")
                time.sleep(0.02)
        elif name == "grandchild":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            Path(argument).write_text(f"{child.pid}")
        elif name == "labels":
            with opened(work.labels, writable=True) as target:
                target[...] = np.load(argument)
        elif name == "fail":
            raise BadInput(argument)
        elif name == "break":
            raise RuntimeError(argument)
        elif name == "missing":
            importlib.import_module(argument)
        elif name == "die":
            os.kill(os.getpid(), 9)
        elif name == "crash":
            print("RuntimeError: no such library", file=sys.stderr, flush=True)
            os._exit(3)
    return CLASSIFIED if isinstance(work, Classify) else SEGMENTED


def _estimate(actions):
    free = next((int(action.removeprefix("free=")) for action in actions if action.startswith("free=")), 8 * 10**9)
    return {"estimated_peak_bytes": 2_500_000_000, "held_bytes": 500_000_000, "pass_bytes": 10**9, "measured": True,
            "free_bytes": free, "windows": 8, "passes": 1, "members": 1, "device": "cpu"}


def replace_engine() -> None:
    """Put `perform` where the worker expects the engine, whose import takes seconds."""
    computation, models = ModuleType("medmae.worker.work"), ModuleType("medmae.worker.model_store")
    computation.perform = perform
    models.ModelStore = lambda memory: SimpleNamespace(listed=list)
    sys.modules.update({computation.__name__: computation, models.__name__: models})


if __name__ == "__main__":
    replace_engine()
    worker.main()
