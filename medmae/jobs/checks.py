"""Is a target ready, and if not, what to do: every finding with its remedy."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import Any

from medmae.jobs import known_hosts
from medmae.jobs.check import Check
from medmae.jobs.problems import TargetProblem
from medmae.jobs.slurm_checks import slurm_checks
from medmae.jobs.software_checks import environment_checks, gpu_checks, library_checks
from medmae.jobs.target import Target
from medmae.jobs.transport import connect

GIB = 2**30
ENVIRONMENT_GIB = 8  # about: a virtual environment with a CUDA build of PyTorch and its libraries
DATA_GIB = 5  # room for images and checkpoints
CLOCK_SECONDS = 120


def check(target: Target) -> list[Check]:
    """All findings about a target, in the order in which one would mend what failed. See `findings`."""
    return list(findings(target))


def findings(target: Target) -> Iterator[Check]:
    """Finding after finding, as they become known; what cannot be known after a failure is left out.

    MedMAE's folder is made there if it is not there yet.
    """
    try:
        yield from _findings(target)
    except TargetProblem as problem:
        yield from _not_reached(target, problem)


def _findings(target: Target) -> Iterator[Check]:
    transport = connect(target)
    began = time.time()
    facts = transport.call("checks.look", {
        "folder": None if target.kind == "local" else target.folder, "wheelhouse": target.wheelhouse,
        "internet": target.environment == "venv" and target.wheelhouse is None})
    ended = time.time()
    if target.is_remote:
        yield Check("connection", "ok", f"{target.host} is {facts['host']} ({facts['system']}, {facts['machine']}), "
                                        f"answers within {ended - began:.1f} s")
        yield _clock(facts["time"], began, ended)
    yield Check("Python", "ok", f"{facts['python']}, {facts['executable']}")
    if target.kind != "local":
        yield _folder(target, facts)
    if target.environment == "venv":
        yield from environment_checks(target, facts)
    if target.kind == "slurm":
        yield from slurm_checks(target, transport.call("slurm.facts"))
    else:
        yield from gpu_checks(target, facts["cards"])
    if target.is_remote:
        yield _rsync(facts)
    if target.environment == "python":
        yield from library_checks(target, transport, facts["cards"])  # last, for it takes longest


def _not_reached(target: Target, problem: TargetProblem) -> Iterator[Check]:
    if problem.code in ("no Python", "old Python"):
        if target.is_remote:
            yield Check("connection", "ok", f"{target.host} lets you in")
        yield Check.of("Python", problem)
    elif problem.code == "unknown host key":
        yield _unknown_host(target, problem)
    else:
        yield Check.of("connection", problem)


def _unknown_host(target: Target, problem: TargetProblem) -> Check:
    try:
        keys = known_hosts.scan(target)
    except TargetProblem as scanning:
        return Check.of("connection", scanning)
    shown = "; ".join(f"{key.fingerprint} ({key.type})" for key in keys)
    return Check("connection", "failed", f"The host key of {target.host} is not known yet, so it may be another "
                 f"computer in its place. It shows: {shown}.", "Ask its administrator for the fingerprint, on another "
                 f"way than this one. Only if it is the same, accept it: medmae target check {target.name} "
                 "--accept-host-key SHA256:...", problem.code)


def _clock(there: float, began: float, ended: float) -> Check:
    """Its clock was read between `began` and `ended` of ours."""
    off = max(began - there, there - ended, 0.0)
    if off <= CLOCK_SECONDS:
        return Check("clock", "ok", "agrees with this computer's")
    return Check("clock", "warning", f"is {off / 60:.0f} minutes {'ahead' if there > ended else 'behind'}; times that "
                 "are shown may be wrong", "Set the clock here or there (NTP).")


def _folder(target: Target, facts: dict[str, Any]) -> Check:
    folder = facts["folder"]
    elsewhere = f"Make room there, or choose another place: medmae target add {target.name} --replace, with --folder"
    if folder["problem"]:
        return Check("folder", "failed", f"{folder['path']}: {folder['problem']}", elsewhere,
                     "disk full" if folder["full"] else "folder")
    free = folder["free"] / GIB
    environment = target.environment == "venv" and not facts["environments"]
    if environment and free < ENVIRONMENT_GIB:
        return Check("folder", "failed", f"{folder['path']} has {free:.1f} GiB free; the environment alone takes about "
                     f"{ENVIRONMENT_GIB} GiB", elsewhere, "disk full")
    if free < DATA_GIB + environment * ENVIRONMENT_GIB:
        return Check("folder", "warning", f"{folder['path']} has only {free:.1f} GiB free for images and checkpoints",
                     elsewhere, "disk full")
    return Check("folder", "ok", f"{folder['path']}, {free:.0f} GiB free")


def _rsync(facts: dict[str, Any]) -> Check:
    has = {"here": shutil.which("rsync") is not None, "there": facts["rsync"]}
    missing = [where for where in has if not has[where]]
    if not missing:
        return Check("rsync", "ok", "here and there")
    return Check("rsync", "warning", f"not {' and not '.join(missing)}; files go as a stream, which is slower to "
                 "repeat", "Install rsync, if many images travel.")
