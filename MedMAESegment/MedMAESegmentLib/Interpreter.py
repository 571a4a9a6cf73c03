"""Which Python computes: Slicer's own, or another one, so that Slicer's stays as it is."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import slicer

import medmae
from MedMAESegmentLib.Translation import tr as _

SETTING = "MedMAE/Python"


@dataclass(frozen=True)
class Interpreter:
    """A Python for child processes and the worker.

    >>> python = chosenInterpreter()
    >>> subprocess.Popen([python.executable, "-m", "medmae.worker"], env=python.environment())
    """

    executable: str
    isSlicers: bool = False

    def environment(self) -> dict[str, str]:
        """The environment in which it finds the `medmae` package of this extension first."""
        engine = str(Path(medmae.__file__).resolve().parents[1])
        environment = dict(os.environ) if self.isSlicers else _outsideSlicer()
        paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path != engine]
        environment.update(PYTHONPATH=os.pathsep.join([engine, *paths]), PYTHONUNBUFFERED="1", PYTHONUTF8="1")
        return environment


def slicersInterpreter() -> Interpreter:
    """The Python that this code runs in."""
    return Interpreter(sys.executable, isSlicers=True)


def chosenInterpreter() -> Interpreter:
    """The Python that the user has chosen; Slicer's own where none was chosen."""
    settings = _settings()
    executable = settings.value(SETTING) if settings is not None else None
    return Interpreter(str(executable)) if executable else slicersInterpreter()


def saveInterpreter(interpreter: Interpreter) -> None:
    """Compute with an interpreter from now on, also in later sessions of Slicer.

    Raises:
        RuntimeError: there is no application that has settings.
    """
    settings = _settings()
    if settings is None:
        raise RuntimeError(_("The choice of a Python cannot be kept outside of the Slicer application."))
    if interpreter.isSlicers:
        settings.remove(SETTING)
    else:
        settings.setValue(SETTING, interpreter.executable)


def findInterpreter(path: str | Path) -> Interpreter:
    """The interpreter at a path: the program itself, or the folder of a virtual or conda environment.

    Raises:
        ValueError: there is none.
    """
    path = Path(path).expanduser()
    candidates = [path, *(path / name for name in ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe"))]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return Interpreter(str(candidate.absolute()))  # a link stays one: it makes a virtual environment
    text = _("There is no Python at {path}. Choose the program python of a virtual or conda environment, or the folder "
             "of the environment.")
    raise ValueError(text.format(path=path))


def _outsideSlicer() -> dict[str, str]:
    """The environment before Slicer's launcher has set up Slicer's own Python."""
    if hasattr(getattr(slicer, "app", None), "startupEnvironment"):
        environment = slicer.util.startupEnvironment()
    else:
        environment = dict(os.environ)
    for name in ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE"):
        environment.pop(name, None)
    return environment


def _settings():  # noqa: ANN202 - qt.QSettings
    try:
        import qt
    except ImportError:  # the MRML library alone
        return None
    return qt.QSettings()
