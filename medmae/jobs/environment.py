"""The Python that a target runs our code with: the user's own, or a virtual environment made from the lock file."""

from __future__ import annotations

from medmae.jobs.problems import TargetProblem
from medmae.jobs.transport import Transport
from medmae.jobs.upload import Report

MODULES = ("torch", "monai", "SimpleITK", "numpy", "scipy", "safetensors")


def ensure_environment(transport: Transport, folder: str, report: Report) -> str:
    """The interpreter on the target that has everything that runs need.

    Args:
        transport: to the target.
        folder: that of MedMAE there, absolute.
        report: takes ("environment", done, total).

    Returns:
        Its absolute path there; in a container the name that the target gives it.

    Raises:
        TargetProblem: packages are missing, or cannot be installed.
    """
    report("environment", 0, 1)
    python = _own_python(transport)
    report("environment", 1, 1)
    return python


def _own_python(transport: Transport) -> str:
    target = transport.target
    command = [*target.container, target.python] if target.container else None
    found = transport.call("environment.look", {"command": command, "modules": MODULES}, timeout_s=120)
    words = " ".join(target.container + (target.python,))
    if "failed" in found:
        raise TargetProblem("libraries", f"The interpreter '{words}' on {target.name} does not work: "
                                         f"{found['failed']}.", "Correct python or container of the target.")
    if found["absent"]:
        raise TargetProblem("libraries", f"The interpreter '{words}' on {target.name} has no "
                                         f"{', '.join(found['absent'])}.",
                            "Install the packages there, or let MedMAE make an environment (environment: venv).")
    return target.python if target.container else str(found["executable"])
