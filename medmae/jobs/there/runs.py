"""Runs on a target: made, started, looked at, stopped, killed, listed, removed.

Everything is known from the run folder: ``spec.json`` and ``job.json`` (what it is), ``run.sh`` (how it is started),
``pid`` (the process that was started), ``output.txt`` (what it said outside of the log), and the files of the run.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medmae.errors import BadInput
from medmae.files import read_json, write_json, write_text
from medmae.jobs.there import data
from medmae.jobs.there.parts import parts_of, prepare_parts, with_parts
from medmae.jobs.there.processes import LAUNCHED, launched_alive, note_launched, processes_of, start_detached
from medmae.jobs.there.samples import new_samples
from medmae.jobs.there.serving import Channel
from medmae.run_folder import RunFolder

OUTPUT = "output.txt"
FOLLOWED = ("progress.jsonl", "log.txt", OUTPUT)
BYTES_A_POLL = 1 << 20
CHECKED_BYTES = 4096
END_OF_PROGRESS = 1 << 16  # bytes; a line with the scores of cases has some thousands
UNDER_WAY = ("queued", "running", "stopping")
ENDS_WITHIN_SECONDS = 15.0
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def create(arguments: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Make the run folder FOLDER/runs/ID; one that is there already goes on.

    Args:
        arguments: folder (of MedMAE there), id, spec, job (nothing private), files (as for `data.assemble`).
    """
    run = RunFolder(_runs_of(arguments["folder"]) / arguments["id"])
    run.path.mkdir(parents=True, exist_ok=True)
    data.assemble({"folder": arguments["folder"], "run": str(run.path), "files": arguments["files"]}, channel)
    write_json(run.path / "job.json", arguments["job"])
    if not run.state_file.exists():
        run.write_state(state="queued", step=0, total=0)
    if not run.spec_file.exists():
        write_json(run.spec_file, arguments["spec"])
    return {"run": str(run.path)}


def start(arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """Start a run so that it outlives this call, this connection and the caller.

    Args:
        arguments: run; script (the text of ``run.sh``) or command (a list of words), scheduler ("slurm" or absent).

    Returns:
        started: whether it was not under way before.
    """
    run = RunFolder.open(arguments["run"])
    with _one_starter(run.path):
        _wait_for_end(run)
        if is_under_way(run):
            return {"started": False}
        run.stop_file.unlink(missing_ok=True)
        (run.path / "exit_code").unlink(missing_ok=True)
        run.write_state(state="queued", reason=None, remedy=None)
        prepare_parts(run)
        if arguments.get("script") is not None:
            write_text(run.path / "run.sh", arguments["script"])
            (run.path / "run.sh").chmod(0o700)
        if arguments.get("scheduler") == "slurm":
            from medmae.jobs.there import slurm

            return {"started": slurm.submit({"run": str(run.path)}, _channel)["submitted"]}
        note_launched(run.path, start_detached(arguments.get("command") or ["sh", "run.sh"], run.path,
                                               run.path / OUTPUT))
    return {"started": True}


def poll(arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """How runs stand, and what is new in their files.

    Args:
        arguments: runs, {any name: {run, have (what the caller has of each file: {file: [bytes, crc32 of the last
            CHECKED_BYTES of them]}; None: files are not asked for), samples (what the caller has of the pictures, as
            for `new_samples`; None or absent: they are not asked for)}}.

    Returns:
        runs: {name: {missing} or {state (as judged here), last (record of the progress), new ({file: {from, data}}),
            samples ({name: data}), more (whether there is more that is new)}}; slurm (what Slurm says) where Slurm has
            the run.
    """
    told = {name: _poll_one(Path(one["run"]), one.get("have"), one.get("samples"))
            for name, one in arguments["runs"].items()}
    _judge_waiting({name: Path(arguments["runs"][name]["run"]) for name in told if "state" in told[name]}, told)
    return {"runs": told}


def _poll_one(path: Path, have: dict[str, Any] | None, samples: dict[str, Any] | None) -> dict[str, Any]:
    run = RunFolder(path)
    if not run.spec_file.is_file():
        return {"missing": True}
    state = judged(run)  # before the files: when it is at the end, they are complete
    news: dict[str, Any] = {}
    left = BYTES_A_POLL
    for file in _followed(path) if have is not None else ():
        begin = _same_until(file, *(have or {}).get(file.name, (0, 0)))
        with open(file, "rb") as stream:
            stream.seek(begin)
            data = stream.read(left)
        left -= len(data)
        if data or begin < (have or {}).get(file.name, (0, 0))[0]:
            news[file.name] = {"from": begin, "data": base64.b64encode(data).decode()}
    pictures, more = ({}, False) if samples is None else new_samples(path, samples)
    return {"state": state, "last": _last_record(run.progress_file), "new": news, "samples": pictures,
            "more": left == 0 or more}


def _last_record(progress: Path) -> dict[str, Any]:
    """The last whole line of the progress; empty where there is none."""
    if not progress.is_file():
        return {}
    with open(progress, "rb") as stream:
        stream.seek(max(0, progress.stat().st_size - END_OF_PROGRESS))
        lines = stream.read().split(b"\n")[:-1]
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                return record
    return {}


def _followed(run: Path) -> Iterator[Path]:
    yield from (run / name for name in FOLLOWED if (run / name).is_file())
    yield from sorted(run.glob("slurm-*.txt"))


def _same_until(file: Path, size: int, checksum: int) -> int:
    """`size` where the caller has the beginning of this very file, else 0."""
    return size if checksum_until(file, size) == checksum else 0


def checksum_until(file: Path, size: int) -> int | None:
    """CRC-32 of the last CHECKED_BYTES before `size`; None where the file is shorter."""
    if not file.is_file() or file.stat().st_size < size:
        return None
    begin = max(0, size - CHECKED_BYTES)
    with open(file, "rb") as stream:
        stream.seek(begin)
        return zlib.crc32(stream.read(size - begin))


def judged(run: RunFolder) -> dict[str, Any]:
    """The state of a run, with "stopping" where a stop was asked for, and what became of a process that died."""
    try:
        state = _written(run)
        if state["state"] == "queued" and launched_alive(run.path) is False:
            state = _written(run)  # it may have ended well between the two looks
            if state["state"] == "queued":
                state.update(state="failed", reason=_last_words(run.path),
                             remedy="See output.txt in the run folder: the run ended before it began.")
    except BadInput as error:
        return {"state": "interrupted", "reason": str(error), "remedy": "Continue it with --resume.", "step": 0,
                "total": 0, "updated": 0.0}
    if state["state"] == "running" and run.stop_requested:
        state["state"] = "stopping"
    return state


def _written(run: RunFolder) -> dict[str, Any]:
    return with_parts(run, run.state(), launched_alive(run.path))


def _last_words(run: Path) -> str:
    code = (run / "exit_code").read_text().strip() if (run / "exit_code").is_file() else None
    said = ""
    if (run / OUTPUT).is_file():
        said = " ".join((run / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()[-3:])[-500:]
    return (f"The process ended before the run began{'' if code is None else f' (exit code {code})'}"
            f"{': ' + said if said else '.'}")


def _judge_waiting(runs: dict[str, Path], told: dict[str, Any]) -> None:
    """Add what Slurm says about those runs that it has."""
    scheduled = {name: path for name, path in runs.items() if (path / "slurm_job_id").is_file()}
    if not scheduled:
        return
    from medmae.jobs.there import slurm

    slurm.judge({name: str(path) for name, path in scheduled.items()}, told)


def is_under_way(run: RunFolder) -> bool:
    """Whether a start would make a second one of it."""
    if _has_starter(run):
        return True
    return not _is_slurm_job(run) and judged(run)["state"] in ("running", "stopping")


def _has_starter(run: RunFolder) -> bool:
    """Whether the process that was started for it lives, or Slurm has a job of it."""
    if _is_slurm_job(run):
        from medmae.jobs.there import slurm

        return slurm.is_live(run.path)
    return launched_alive(run.path) is True


def _is_slurm_job(run: RunFolder) -> bool:
    return (run.path / "slurm_job_id").is_file()


def _was_started(run: RunFolder) -> bool:
    """Whether it ever was; what was only made is "queued" as well."""
    return (run.path / LAUNCHED).is_file() or (run.path / "slurm_job_id").is_file()


def _wait_for_end(run: RunFolder) -> None:
    """A run that has said its last word ends within moments."""
    deadline = time.monotonic() + ENDS_WITHIN_SECONDS
    while judged(run)["state"] not in UNDER_WAY and _has_starter(run) and time.monotonic() < deadline:
        time.sleep(0.1)


@contextlib.contextmanager
def _one_starter(run: Path) -> Iterator[None]:
    """Two starts at the same time are one after the other."""
    if os.name == "nt":
        yield
        return
    import fcntl

    handle = os.open(run, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def stop(arguments: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Ask a run to stop at its next step. One that waits for Slurm is taken out of its queue.

    Args:
        arguments: run.

    Returns:
        asked: whether it was under way.
    """
    run = RunFolder.open(arguments["run"])
    state = judged(run)["state"]
    if (state == "queued" and not _was_started(run)) or (state not in UNDER_WAY and not _has_starter(run)):
        return {"asked": False}
    for folder in (run, *parts_of(run.path)):
        folder.request_stop()
    if _is_slurm_job(run):
        from medmae.jobs.there import slurm

        slurm.stop({"run": str(run.path)}, channel)
    return {"asked": True}


def kill(arguments: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """End a run now: all of its processes are asked to, and killed when they have not ended in time.

    Args:
        arguments: run, grace_s.
    """
    run = RunFolder.open(arguments["run"])
    run.request_stop()
    if _is_slurm_job(run):
        from medmae.jobs.there import slurm

        return slurm.cancel({"run": str(run.path)}, channel)
    ended: set[int] = set()
    for number, within_s in ((signal.SIGTERM, float(arguments["grace_s"])), (KILL, ENDS_WITHIN_SECONDS)):
        deadline = time.monotonic() + within_s
        while (found := processes_of(run.path)) and time.monotonic() < deadline:
            _signal([process for process in found if process not in ended or number == KILL], number)
            ended.update(found)
            channel.report(stage="ending", done=0, total=len(found))
            time.sleep(0.1)
    return {"ended": sorted(ended), "left": processes_of(run.path)}


def _signal(processes: list[int], number: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def listing(arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """All jobs in the folder of MedMAE there.

    Args:
        arguments: folder.

    Returns:
        runs: [{job (its record there), run}].
    """
    found = []
    for record in sorted(_runs_of(arguments["folder"]).glob("*/job.json")):
        with contextlib.suppress(BadInput):  # damaged: of no use to anybody
            found.append({"job": read_json(record), "run": str(record.parent)})
    return {"runs": found}


def remove(arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """Delete a run folder.

    Args:
        arguments: run.

    Raises:
        BadInput: the run is under way.
    """
    run = RunFolder(arguments["run"])
    if not run.spec_file.is_file():
        return {"removed": False}
    _wait_for_end(run)
    if is_under_way(run):
        raise BadInput("The run is under way. Stop it first.")
    shutil.rmtree(run.path)
    return {"removed": True}


def _runs_of(folder: str) -> Path:
    return Path.home() / Path(folder).expanduser() / "runs"


