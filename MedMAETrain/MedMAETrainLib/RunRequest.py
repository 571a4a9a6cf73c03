"""What Slicer wants done with a run, kept in its folder so that the next Slicer can do it; and doing it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medmae.config import from_json, to_json
from medmae.errors import BadInput
from medmae.files import read_json, write_json
from medmae.folder_lock import only_writer
from medmae.home import models_folder
from medmae.run_folder import RunFolder

REQUEST_FILE = "slicer.json"
log = logging.getLogger(__name__)
_LOOK_AGAIN_SECONDS, _WAIT_SECONDS = 0.1, 600.0


@dataclass(frozen=True)
class RunRequest:
    """What is wanted of a run.

    name - Of its model in the list of models.
    task - "pretraining", "segmentation" or "classification"; None: noted by an earlier version.
    project - The uid of the project that it learns from; None: of none.
    started - ISO 8601.
    installed - What its model is called in the list; None: it is not there yet.
    told - Whether a Slicer has seen how the run ended.
    problem - Why its model could not be taken.
    """

    name: str
    task: str | None = None
    project: str | None = None
    started: str | None = None
    installed: str | None = None
    told: bool = False
    problem: str | None = None


def writeRequest(folder: Path, request: RunRequest) -> None:
    """Note in a run folder what is wanted of it."""
    write_json(folder / REQUEST_FILE, to_json(request))


def readRequest(folder: Path) -> RunRequest:
    """What `writeRequest` has noted.

    Raises:
        BadInput: nothing, or it is damaged.
    """
    return from_json(RunRequest, read_json(folder / REQUEST_FILE, "request of MedMAETrain"), "request of MedMAETrain")


def requestOf(folder: Path) -> RunRequest | None:
    """What is noted in a run folder; None: nothing, or it is damaged, so that the run counts as one that Slicer has not
    started."""
    if not (folder / REQUEST_FILE).is_file():
        return None
    try:
        return readRequest(folder)
    except BadInput as error:
        log.warning("What was wanted of the run %s is lost: %s", folder, error)
        return None


def changeRequest(folder: Path, **changes: object) -> RunRequest:
    """Note something else of what stands there now."""
    request = replace(readRequest(folder), **changes)  # type: ignore[arg-type]
    writeRequest(folder, request)
    return request


def takeModel(run: RunFolder) -> str:
    """Put the model of a finished run into the list, once, whoever else is about to; returns its name there.

    Takes as long as reading the model; for a thread.

    Raises:
        BadInput: it is damaged, or there is none.
        OSError: it cannot be copied.
    """
    from medmae.models import install_model

    with contextlib.ExitStack() as stack:
        _lockModels(stack)
        request = readRequest(run.path)
        if request.installed is None:
            name = _nameInList(run, request.name) or install_model(run.model, name=freeName(request.name)).name
            request = changeRequest(run.path, installed=name, problem=None)
        return str(request.installed)


def _nameInList(run: RunFolder, wanted: str) -> str | None:
    """What the model is called in the list already: Slicer was killed before it could note that; None: it is not there.
    """
    from medmae.models import load_info

    for name in itertools.takewhile(lambda name: (models_folder() / name).exists(), _names(wanted)):
        with contextlib.suppress(BadInput):  # damaged, so that it is another one
            if load_info(models_folder() / name) == replace(load_info(run.path), name=name):
                return name
    return None


def _names(wanted: str) -> Iterator[str]:
    return (wanted if number == 1 else f"{wanted} {number}" for number in itertools.count(1))


def freeName(wanted: str) -> str:
    """`wanted`, with a number where a model of that name is installed already: nothing is ever replaced."""
    folder = models_folder()
    # Damaged models too keep their names, although they are not listed.
    taken = {entry.name.casefold() for entry in folder.iterdir()} if folder.is_dir() else set()
    return next(name for name in _names(wanted) if name.casefold() not in taken)


def _lockModels(stack: contextlib.ExitStack) -> None:
    """Keep others who would put a model into the list out, once they are done."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            stack.enter_context(only_writer(models_folder()))
            return
        except BadInput:
            if not os.access(models_folder(), os.W_OK) or time.monotonic() > deadline:
                raise
        time.sleep(_LOOK_AGAIN_SECONDS)
