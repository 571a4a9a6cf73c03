"""A run folder: the protocol between a run and whoever follows it, the same locally, over SSH and under Slurm.

Everything is a file: ``spec.json`` (what to do), ``state.json`` (how it stands), ``progress.jsonl`` (one object a
line), ``log.txt``, ``STOP`` (its appearance asks for a graceful stop), ``samples/``, ``checkpoints/``, ``model/``,
``report.html``.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from medmae import __version__
from medmae.errors import BadInput
from medmae.files import read_json, write_json

Kind = Literal["pretrain", "finetune", "segment", "classify", "evaluate", "curve", "rank"]
SILENT_AFTER_SECONDS = 120.0
MOST_SAMPLES = 60


class RunFolder:
    """One run on disk. Reading never changes anything; only the run itself writes state and progress.

    Attributes:
        most_samples: how many pictures its training leaves at most.
    """

    most_samples: int = MOST_SAMPLES

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.spec_file = self.path / "spec.json"
        self.state_file = self.path / "state.json"
        self.progress_file = self.path / "progress.jsonl"
        self.log_file = self.path / "log.txt"
        self.stop_file = self.path / "STOP"
        self.samples = self.path / "samples"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.failures = self.path / "failures"
        self.report = self.path / "report.html"
        self._state_lock = threading.Lock()

    @classmethod
    def create(cls, path: Path | str, kind: Kind, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> RunFolder:
        """Write a new run's specification and its state "queued".

        Raises:
            BadInput: the folder exists and is not empty.
        """
        run = cls(path)
        if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
            raise BadInput(f"The output {run.path} exists and is not empty. "
                           "Choose another folder, or continue that run with --resume.")
        write_json(run.spec_file, {"medmae": __version__, "kind": kind, "config": dict(config), "inputs": dict(inputs)})
        run.write_state(state="queued", step=0, total=0)
        return run

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Open an existing run.

        Raises:
            BadInput: the folder holds no ``spec.json``.
        """
        run = cls(path)
        if not run.spec_file.is_file():
            raise BadInput(f"{run.path} is not a run folder (it has no spec.json). Check the path.")
        return run

    @property
    def spec(self) -> dict[str, Any]:
        """The specification: medmae (version), kind, config, inputs.

        Raises:
            BadInput: the file is missing or damaged.
        """
        spec = read_json(self.spec_file, "run specification")
        if not (isinstance(spec, dict) and isinstance(spec.get("kind"), str)
                and all(isinstance(spec.get(part), dict) for part in ("config", "inputs"))):
            raise BadInput(f"The run specification {self.spec_file} does not name a kind, config and inputs, so it is "
                           "not of a run or was edited wrongly. Start the run anew in another folder.")
        return spec

    def write_state(self, **changes: Any) -> None:
        """Merge `changes` into ``state.json`` atomically and stamp it with the time, host and process.

        Raises:
            BadInput: what is there is damaged.
        """
        with self._state_lock:
            state = read_json(self.state_file, "run state") if self.state_file.exists() else {}
            if not isinstance(state, dict):
                raise BadInput(self._damaged_state)
            state.update(changes, updated=time.time(), host=socket.gethostname(), pid=os.getpid(),
                         pid_start=process_start(os.getpid()), slurm_job_id=os.environ.get("SLURM_JOB_ID"))
            write_json(self.state_file, state)

    def state(self) -> dict[str, Any]:
        """The state as written; "running" or "stopping" with a dead or silent process reads as "interrupted".

        Raises:
            BadInput: the file is missing or damaged.
        """
        state = read_json(self.state_file, "run state")
        if not (isinstance(state, dict) and {"state", "updated", "host", "pid", "pid_start"} <= set(state)):
            raise BadInput(self._damaged_state)
        if state["state"] in ("running", "stopping"):
            dead_here = state["host"] == socket.gethostname() and process_start(state["pid"]) != state["pid_start"]
            if dead_here or time.time() - state["updated"] > SILENT_AFTER_SECONDS:
                state.update(state="interrupted", reason="The process ended without saying why.",
                             remedy="Continue it with --resume.")
                state.update(self.failure_of_another() or {})
        return state

    @property
    def _damaged_state(self) -> str:
        return f"The run state {self.state_file} is damaged. Delete it, then continue with --resume."

    def note_failure(self, rank: int, reason: str, remedy: str) -> None:
        """Say why process `rank` of several fails, before the others hear that it is gone."""
        write_json(self.failures / f"rank-{rank}.json",
                   {"rank": rank, "host": socket.gethostname(), "noted": time.time(), "reason": reason,
                    "remedy": remedy})

    def failure_of_another(self) -> dict[str, str] | None:
        """The reason and remedy of the first of several processes that said why it fails; None where none did."""
        notes = [read_json(file, "note of a failed process") for file in self.failures.glob("rank-*.json")]
        if not notes:
            return None
        first = min(notes, key=lambda note: note["noted"])
        return {"reason": f"Process {first['rank']} on {first['host']} failed. {first['reason']}",
                "remedy": first["remedy"]}

    def forget_failures(self, rank: int, processes: int) -> None:
        """Remove what process `rank` of `processes` noted in an earlier attempt; the main one also what others did that
        do not take part any more.
        """
        for file in self.failures.glob("rank-*.json"):
            number = int(file.stem.removeprefix("rank-"))
            if number == rank or (rank == 0 and number >= processes):
                file.unlink(missing_ok=True)

    def append_progress(self, record: Mapping[str, Any]) -> None:
        """Add one line to ``progress.jsonl`` (one write, so that a reader never sees half a line of ours)."""
        line = json.dumps(record, allow_nan=False) + "\n"
        with open(self.progress_file, "a", encoding="utf-8") as file:
            file.write(line)

    def progress(self) -> list[dict[str, Any]]:
        """All progress records by stage and in order of step; after a resume the last line of a step counts.

        Records without "step" (messages of a stage) come first, in the order written; stages come as they began.
        A half-written last line (the process was killed) is left out.
        """
        if not self.progress_file.exists():
            return []
        messages: list[dict[str, Any]] = []
        stages: dict[str, dict[int, dict[str, Any]]] = {}
        for line in self.progress_file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if "step" in record:
                stages.setdefault(record.get("stage", "train"), {})[record["step"]] = record
            else:
                messages.append(record)
        return messages + [steps[step] for steps in stages.values() for step in sorted(steps)]

    def sample_file(self, step: int) -> Path:
        """The picture of what the network did after `step` steps of training."""
        return self.samples / f"step-{step:06d}.png"

    @property
    def stop_requested(self) -> bool:
        """Whether somebody asked for a graceful stop."""
        return self.stop_file.exists()

    def request_stop(self) -> None:
        """Ask the run to stop gracefully at its next step."""
        self.stop_file.touch()


def process_start(pid: int) -> float | None:
    """When process `pid` started, in an unspecified clock that tells a reused pid apart; None if it is not alive."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else float(fields[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (PermissionError, IndexError, ValueError):
        return 0.0
    try:  # no /proc (macOS, Windows): aliveness alone
        if os.name == "nt":
            import ctypes

            handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # type: ignore[attr-defined]
            if not handle:
                return None
            ctypes.windll.kernel32.CloseHandle(handle)  # type: ignore[attr-defined]
            return 0.0
        os.kill(pid, 0)
        return 0.0
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0.0
