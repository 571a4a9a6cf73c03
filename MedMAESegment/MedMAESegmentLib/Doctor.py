"""Ask ``medmae doctor`` whether a Python can compute for MedMAE, without blocking the application."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from MedMAESegmentLib.Application import processEvents
from MedMAESegmentLib.Dependencies import requirementsCommand
from MedMAESegmentLib.Interpreter import Interpreter, findInterpreter, saveInterpreter
from MedMAESegmentLib.Translation import tr as _

TIMEOUT_SECONDS = 180.0  # the first import of torch from a network drive takes minutes
_MARKS = {"ok": "ok", "warning": "warning", "failed": "FAILED"}


@dataclass(frozen=True)
class DoctorReport:
    """What ``medmae doctor`` says about a Python.

    Attributes:
        python: its path.
        ready: whether MedMAE can compute with it.
        checks: name, outcome (ok, warning, failed), finding and remedy of each check.
        problem: why there are no checks, where the doctor itself could not run.
    """

    python: str
    ready: bool
    checks: list[dict[str, str]] = field(default_factory=list)
    problem: str = ""

    @property
    def text(self) -> str:
        """Everything, for people."""
        lines = [_("Python: {path}").format(path=self.python)]
        for check in self.checks:
            lines.append(f"{_MARKS[check['outcome']]:<8}{check['name']}: {check['finding']}")
            if check["remedy"]:
                lines.append(f"{'':8}-> {check['remedy']}")
        if self.problem:
            lines.append(self.problem)
        lines.append(_("MedMAE can compute with this Python.") if self.ready else
                     _("MedMAE cannot compute with this Python yet."))
        return "\n".join(lines)

    @property
    def reason(self) -> str:
        """Why it is not ready, and what to do, in sentences."""
        failed = [f"{check['name']}: {check['finding']}. {check['remedy']}".strip() for check in self.checks
                  if check["outcome"] == "failed"]
        return self.problem or "\n".join(failed)


def examine(interpreter: Interpreter, timeout: float = TIMEOUT_SECONDS) -> DoctorReport:
    """Run ``python -m medmae.cli doctor --json`` with an interpreter; the application stays alive meanwhile."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen([interpreter.executable, "-m", "medmae.cli", "doctor", "--json"],
                                       env=interpreter.environment(), stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=errors, creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0))
        except OSError as error:
            problem = _("It cannot be started: {error}.").format(error=error)
            return DoctorReport(interpreter.executable, False, problem=problem)
        if not _ended(process, timeout):
            problem = _("It gave no answer within {seconds} s. Try again, or choose another Python.").format(
                seconds=f"{timeout:.0f}")
            return DoctorReport(interpreter.executable, False, problem=problem)
        return _report(interpreter, _content(output), _content(errors))


def useInterpreter(path: str | Path) -> DoctorReport:
    """Compute with the Python at a path from now on, if the doctor says that it can.

    A worker that runs already keeps its Python until `applicationWorker().close()`.

    Raises:
        ValueError: there is no Python, or MedMAE cannot compute with it; nothing was changed.
        RuntimeError: see `saveInterpreter`.
    """
    interpreter = findInterpreter(path)
    report = examine(interpreter)
    if not report.ready:
        text = _("MedMAE cannot compute with {python}.\n{reason}")
        raise ValueError(text.format(python=interpreter.executable, reason=report.reason))
    saveInterpreter(interpreter)
    return report


def _ended(process: subprocess.Popen[bytes], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    try:
        while process.poll() is None and time.monotonic() < deadline:
            processEvents()
            time.sleep(0.02)
        return process.poll() is not None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", errors="replace")


def _report(interpreter: Interpreter, output: str, errors: str) -> DoctorReport:
    try:
        answer: dict[str, Any] = json.loads(output)
        return DoctorReport(interpreter.executable, bool(answer["ready"]), list(answer["checks"]))
    except (ValueError, LookupError, TypeError):  # it could not even start to check
        last = (errors.strip() or output.strip()).splitlines()[-1:] or [_("It said nothing")]
        text = _("{words}. Install what MedMAE needs there:\n{command}")
        return DoctorReport(interpreter.executable, False, problem=text.format(
            words=last[0], command=requirementsCommand(interpreter.executable)))
