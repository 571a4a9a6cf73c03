"""The Python that a target runs our code with: the user's own, or a virtual environment made from the lock file."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from medmae.jobs.problems import TargetProblem
from medmae.jobs.transport import Transport
from medmae.jobs.upload import Report

LOCK = Path(__file__).with_name("environment.lock")
MODULES = ("torch", "monai", "SimpleITK", "numpy", "scipy", "safetensors")
STAGE = "environment"
SILENCE_S = 120.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OWN_PYTHON = "Or install the packages there yourself and let the target use that Python (environment: python)."
_REASONS = (  # in what pip and venv say: code, finding, remedy
    (r"No space left on device|Disk quota exceeded|File too large", "disk full", "the disk there is full",
     "Make room there (about 10 GB are needed with CUDA), or choose another folder for the target."),
    (r"ensurepip is not|No module named (venv|ensurepip|pip)", "libraries",
     "its Python cannot make virtual environments",
     f"Ask for the package python3-venv there, or name another Python of the target. {_OWN_PYTHON}"),
    (r"DO NOT MATCH THE HASHES", "libraries", "a package is not the one that the lock file names (its hash differs): "
     "it is damaged, or somebody put another in its place. Nothing was installed",
     f"Try again; if you use a wheelhouse, fill it anew. {_OWN_PYTHON}"),
    (r"NewConnectionError|NameResolutionError|Temporary failure in name|Network is unreachable|ConnectTimeout|"
     r"ProxyError|Connection refused|SSLError|Read timed out|Connection aborted", "libraries",
     "the package index cannot be reached from there",
     f"On a computer with internet fill a folder with the wheels (see docs/jobs.md: {LOCK}), copy it there, and name "
     f"it as wheelhouse of the target. {_OWN_PYTHON}"),
    (r"No matching distribution|from versions: none", "libraries",
     "a package of the lock file is not to be had for its Python and processor",
     "Name a Python from 3.11 to 3.13 of the target; if you use a wheelhouse, see that it is complete. "
     f"{_OWN_PYTHON}"),
)


def ensure_environment(transport: Transport, folder: str, report: Report) -> str:
    """The interpreter on the target that has everything that runs need.

    Args:
        transport: to the target.
        folder: that of MedMAE there, absolute.
        report: takes ("environment", packages done, packages in all).

    Returns:
        Its absolute path there; in a container the name that the target gives it.

    Raises:
        TargetProblem: packages are missing, or cannot be installed.
    """
    report(STAGE, 0, 0)
    if transport.target.environment == "python":
        return _own_python(transport)
    return _made(transport, folder, report)


def _own_python(transport: Transport) -> str:
    target = transport.target
    command = [*target.container, target.python] if target.container else None
    found = transport.call("environment.look", {"command": command, "modules": MODULES}, timeout_s=SILENCE_S)
    words = " ".join((*target.container, target.python))
    if "failed" in found:
        raise TargetProblem("libraries", f"The Python '{words}' on {target.name} does not work: {found['failed']}.",
                            "Correct python or container of the target.")
    if found["absent"]:
        raise TargetProblem("libraries", f"The Python '{words}' on {target.name} lacks {', '.join(found['absent'])}.",
                            "Install the packages there, or let MedMAE make an environment (environment: venv).")
    return target.python if target.container else str(found["executable"])


def _made(transport: Transport, folder: str, report: Report) -> str:
    target = transport.target
    if target.container:
        raise TargetProblem("libraries", f"The target {target.name} runs jobs in a container, in which an environment "
                                         "made outside would not work.",
                            "Let it use the Python of the container (environment: python).")
    arguments = {"folder": folder, "lock": LOCK.read_text(encoding="utf-8"), "wheelhouse": target.wheelhouse,
                 "modules": MODULES}
    try:
        made = transport.call("environment.prepare", arguments, timeout_s=SILENCE_S,
                              on_progress=lambda told: report(STAGE, told.get("done", 0), told.get("total", 0)))
    except OSError as error:
        if error.errno not in _FULL:
            raise
        made = {"failed": "No space left on device"}
    if "failed" in made:
        raise _problem(target.name, made["failed"])
    return str(made["python"])


def _problem(name: str, said: str) -> TargetProblem:
    beginning = f"The environment on {name} could not be made: "
    for pattern, code, finding, remedy in _REASONS:
        if re.search(pattern, said):
            return TargetProblem(code, f"{beginning}{finding}.", remedy)
    return TargetProblem("libraries", f"{beginning}{' '.join(said.splitlines()[-5:])[-1000:]}", _OWN_PYTHON)
