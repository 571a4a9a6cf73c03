"""The parts of a run: shares of its cases, each a run folder ``RUN/parts/NN`` with a process of its own.

When all parts have ended, the run itself is executed: it brings their results together and tells what failed. Before
that, how it stands follows from how its parts stand.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmae.files import read_json, write_json
from medmae.run_folder import RunFolder


def parts_of(run: Path) -> list[RunFolder]:
    """The parts of a run in their order; empty where it is not divided."""
    folders = (spec.parent for spec in run.glob("parts/*/spec.json"))
    return [RunFolder(folder) for folder in sorted(folders, key=lambda folder: (len(folder.name), folder.name))]


def prepare_parts(run: RunFolder) -> None:
    """Make the parts that ``job.json`` asks for ready to start; those that are done stay as they are."""
    job = run.path / "job.json"
    count = (read_json(job, "record of the job").get("parts") or 0) if job.is_file() else 0
    wanted = {run.path / "parts" / f"{number:02d}": number for number in range(count)}
    (run.path / "finishing").unlink(missing_ok=True)
    for folder in (run.path / "parts").glob("*"):
        if folder not in wanted:
            shutil.rmtree(folder)
    for folder, number in wanted.items():
        part = RunFolder(folder)
        spec = {**run.spec, "inputs": {**run.spec["inputs"], "share": [number, count], "resume": True}}
        if part.state_file.is_file() and part.spec == spec and part.state()["state"] == "done":
            continue
        write_json(part.spec_file, spec)
        part.stop_file.unlink(missing_ok=True)
        part.write_state(state="queued", reason=None, remedy=None)


def unfinished(run: Path) -> list[int]:
    """The numbers of the parts that are not done."""
    return [number for number, part in enumerate(parts_of(run)) if part.state()["state"] != "done"]


def with_parts(run: RunFolder, state: dict[str, Any], alive: bool | None,
               parts: Sequence[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The state of a run that has parts, from theirs; of one that has none, as it is.

    Args:
        run: the whole.
        state: what its own folder says.
        alive: whether what started the parts lives; None: not known.
        parts: the states of its parts, where more is known than what their folders say.
    """
    states = [part.state() for part in parts_of(run.path)] if parts is None else list(parts)
    names = {part["state"] for part in states}
    if state["state"] != "queued" or not states:  # it brings the results together, or has no parts
        return state
    if names == {"queued"}:
        return {**state, "reason": states[0].get("reason")}
    state = {**state, **{count: sum(part.get(count) or 0 for part in states) for count in ("step", "total")},
             "updated": max(part["updated"] for part in states)}
    if names & {"running", "stopping"} or (alive is not False and names <= {"queued", "done", "failed"}):
        return {**state, "state": "stopping" if run.stop_requested else "running"}
    worst = next((name for name in ("failed", "interrupted", "stopped") if name in names), None)
    if worst is None:
        return {**state, "state": "interrupted", "reason": "It ended before the results of its parts were brought "
                "together.", "remedy": "Continue it with --resume."}
    first = next(part for part in states if part["state"] == worst)
    count = sum(part["state"] == worst for part in states)
    return {**state, "state": worst, "reason": f"{count} of {len(states)} parts: {first.get('reason') or worst}",
            "remedy": first.get("remedy")}
