"""Import what the code of VIS-MAE, GL-MAE or MONAI has saved, by ``medmae model import`` in a child process."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmae.errors import BadInput
from MedMAESegmentLib import Dependencies
from MedMAESegmentLib.Application import newTemporaryFolder
from MedMAESegmentLib.Background import inBackground
from MedMAESegmentLib.Interpreter import chosenInterpreter

FORMATS = {"VIS-MAE": "vis-mae", "GL-MAE": "gl-mae", "MONAI": "monai"}
ENDINGS = (".pth", ".pt", ".ckpt", ".bin")
TIMEOUT_SECONDS = 900.0  # torch and a checkpoint of gigabytes from a network drive


def importCheckpoint(path: str | Path, formatName: str, name: str, options: Sequence[str] = ()) -> dict[str, Any]:
    """Install a checkpoint as a model; the application stays alive meanwhile. Nothing in the file is executed.

    Args:
        path: the file.
        formatName: one of the values of `FORMATS`.
        name: of the model in the list; must not be taken.
        options: more options of ``medmae model import``, as ``("--modality", "CT")``.

    Returns:
        What ``medmae model import --json`` says: what became of every tensor, and notes for people.

    Raises:
        medmae.errors.BadInput: it is no such checkpoint, or is damaged; nothing was installed.
        RuntimeError: what reading it needs cannot be installed.
    """
    from medmae.models import install_model

    Dependencies.ensureInstalled()
    folder = newTemporaryFolder()

    def work() -> dict[str, Any]:
        report = _report(path, formatName, name, folder / "model", options)
        install_model(folder / "model", name)
        return report

    try:
        return inBackground(work)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _report(path: str | Path, formatName: str, name: str, out: Path, options: Sequence[str]) -> dict[str, Any]:
    python = chosenInterpreter()
    command = [python.executable, "-m", "medmae.cli", "model", "import", str(path), "--format", formatName, "--out",
               str(out), "--name", name, "--json", *options]
    try:
        ended = subprocess.run(command, env=python.environment(), stdin=subprocess.DEVNULL, capture_output=True,
                               check=False, timeout=TIMEOUT_SECONDS,
                               creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0))
    except subprocess.TimeoutExpired:
        raise BadInput(f"Reading {path} took longer than {TIMEOUT_SECONDS / 60:.0f} minutes. Copy it to this computer "
                       "and try again.") from None
    if ended.returncode != 0:
        said = ended.stderr.decode("utf-8", errors="replace").strip()
        raise BadInput(said.rpartition("Error: ")[2] or "It said nothing. Press Check in the section Python.")
    report: dict[str, Any] = json.loads(ended.stdout)
    return report
