"""Finding, listing, installing and removing models. Nothing here needs torch."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import shutil
import tempfile
from pathlib import Path

from medmae.config import to_json
from medmae.errors import BadInput
from medmae.files import PARTIAL, write_json, write_text
from medmae.home import models_folder
from medmae.models.card import model_card
from medmae.models.info import ModelInfo
from medmae.models.model_files import CARD, INFO, LARGEST_PREVIEW_BYTES, PREVIEW, WEIGHTS, ModelFiles
from medmae.models.replacing import new_folder

log = logging.getLogger(__name__)
_known: dict[Path, tuple[tuple[int, int, int], ModelInfo]] = {}
_NAME = re.compile(r"\w[\w .+-]{0,99}")
_MOST_BYTES = 255  # of a name, in most file systems


def resolve_model(name_or_path: str | Path) -> Path:
    """Where a model is: a model folder, a run folder (its ``model``), a zip, or the name of an installed model.

    Raises:
        BadInput: there is none; the installed names are listed.
    """
    if not str(name_or_path).strip():
        raise BadInput("No model is named. Give a model folder, a run folder or the name of an installed model.")
    path = Path(name_or_path)
    if (path / INFO).is_file() or path.is_file():
        return path
    if (path / "model" / INFO).is_file():
        return path / "model"
    text = str(name_or_path)
    if _is_name(text) and (models_folder() / text / INFO).is_file():
        return models_folder() / text
    if (path / "spec.json").is_file():
        raise BadInput(f"The run {path} has not left a model yet. Wait until it is done, or continue it with --resume.")
    if path.is_dir():
        raise BadInput(f"The folder {path} is neither a model (it has no {INFO}) nor a run. Check the path.")
    installed = ", ".join(name for name, _ in list_models()) or "none"
    raise BadInput(f"There is no model {text!r}: no such folder, and no installed model of that name "
                   f"(installed: {installed}). Check the name, or install it with: medmae model install FOLDER.")


def load_info(path: str | Path) -> ModelInfo:
    """What a model says about itself; `path` as for `resolve_model`.

    Raises:
        BadInput: there is no model, or its description is damaged.
    """
    return ModelFiles(resolve_model(path)).info()


def begin_to_verify(path: str | Path) -> None:
    """Begin to read a model that is loaded soon, while torch is imported; `path` as for `resolve_model`.

    Returns at once. What is wrong with the model shows when it is loaded.
    """
    with contextlib.suppress(BadInput):
        ModelFiles(resolve_model(path)).begin_to_verify()


def survey_models() -> tuple[list[tuple[str, ModelInfo]], list[tuple[str, str]]]:
    """Name and description of every installed model, and name and fault of every damaged one, both by name.

    Weights are not looked at.
    """
    folder = models_folder()
    models: list[tuple[str, ModelInfo]] = []
    damaged: list[tuple[str, str]] = []
    if not folder.is_dir():
        return models, damaged
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name.casefold()):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        try:
            models.append((entry.name, _known_info(entry)))
        except (BadInput, OSError) as error:  # one that may not be read does not hide the others
            damaged.append((entry.name, str(error)))
    return models, damaged


def _known_info(folder: Path) -> ModelInfo:
    """`ModelFiles.info`, without reading again what has not changed: panels list models whenever they are opened."""
    try:
        status = (folder / INFO).stat()
    except OSError:
        return ModelFiles(folder).info()  # or rather why there is none
    state = (status.st_mtime_ns, status.st_size, status.st_ino)
    if _known.get(folder, (None,))[0] != state:
        _known[folder] = state, ModelFiles(folder).info()
    return _known[folder][1]


def list_models() -> list[tuple[str, ModelInfo]]:
    """Name and description of every installed model, by name. Damaged ones are left out, with a warning in the log."""
    models, damaged = survey_models()
    for name, fault in damaged:
        log.warning("The installed model %s is left out: %s", name, fault)
    return models


def install_model(folder: str | Path, name: str | None = None, replace: bool = False) -> Path:
    """Copy a model (anything `resolve_model` takes) into the registry, after verifying its weights.

    Args:
        folder: model folder, run folder or zip.
        name: its name in the registry; default: the model's own.
        replace: replace an installed model of that name.

    Returns:
        The folder in the registry.

    Raises:
        BadInput: no model, damaged weights, an unusable name, or a name that is taken.
    """
    files = ModelFiles(resolve_model(folder))
    info = files.info()
    name = info.name if name is None else name
    if not _is_name(name):
        raise BadInput(f"{name!r} cannot be the name of an installed model. Use letters, digits, spaces and . + - _, "
                       "beginning with a letter or digit, 100 characters at most (--name).")
    target = models_folder() / name
    if target.exists() and not replace:
        raise BadInput(f"A model named {name} is installed already. Choose another name (--name), or replace it "
                       "(--replace).")
    weights = files.verified_weights(info)
    info = dataclasses.replace(info, name=name)
    preview = files.read(PREVIEW, LARGEST_PREVIEW_BYTES + 1) if files.has(PREVIEW) else b""
    has_preview = 0 < len(preview) <= LARGEST_PREVIEW_BYTES
    with new_folder(target) as temporary:
        if isinstance(weights, Path):
            shutil.copyfile(weights, temporary / WEIGHTS)
        else:
            (temporary / WEIGHTS).write_bytes(weights)
        if has_preview:
            (temporary / PREVIEW).write_bytes(preview)
        write_text(temporary / CARD, model_card(info, has_preview=has_preview))
        write_json(temporary / INFO, to_json(info))
    return target


def remove_model(name: str) -> None:
    """Delete an installed model.

    Raises:
        BadInput: no model of that name is installed.
    """
    target = models_folder() / name
    if not _is_name(name) or not target.is_dir():
        raise BadInput(f"No model named {name!r} is installed. See: medmae model list.")
    if target.is_symlink():
        target.unlink()
        return
    beside = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=target.parent))
    try:
        target.rename(beside / "removed")  # at once, so that no half of it stays where something is in the way
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def usable_name(text: str) -> str:
    """The nearest to `text` that can be the name of an installed model."""
    name = re.sub(r"[^\w .+-]+", "_", text).strip(" .")
    name = (name if re.match(r"\w", name) else f"model {name}")[:100].rstrip(" .")
    name = name.encode()[:_MOST_BYTES - len(" 999")].decode(errors="ignore").rstrip(" .")  # it may get a number
    return name if _is_name(name) else "model"


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None and text == text.rstrip(" .") and len(text.encode()) <= _MOST_BYTES
