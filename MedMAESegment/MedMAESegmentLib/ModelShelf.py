"""The models on this computer: listed, imported, exported and removed, with no internet."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from medmae.errors import BadInput
from MedMAESegmentLib.Background import inBackground


class ModelShelf:
    """What can be done with models; nothing here loads one. Large files are copied while the application stays alive.

    >>> ModelShelf().importModel("/media/usb/liver.zip")
    'liver'
    """

    def models(self, task: str | None = "segmentation") -> dict[str, Any]:
        """The installed models of a task ("segmentation", "classification", "encoder"; None: all): name to
        `medmae.models.ModelInfo`."""
        from medmae.models import list_models

        return {name: info for name, info in list_models() if task in (None, info.task)}

    def surveyModels(self, tasks: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """The installed models of some tasks, as `models` has them, and the damaged ones of any task: name to fault.

        :raises OSError: the folder of models cannot be read.
        """
        from medmae.models import survey_models

        models, damaged = survey_models()
        return {name: info for name, info in models if info.task in tasks}, dict(damaged)

    def inspectModel(self, path: str | Path) -> Any:
        """What a model that is not installed says about itself; takes what `importModel` takes.

        :raises medmae.errors.BadInput: it is no model, or is damaged.
        """
        from medmae.models import load_info

        return inBackground(lambda: load_info(path))

    def modelsFolder(self) -> Path:
        """Where models are installed; may not be there yet."""
        from medmae.home import models_folder

        return models_folder()

    def isInstalled(self, name: str) -> bool:
        """Whether the name is taken, also by a damaged model."""
        return bool(name) and (self.modelsFolder() / name).exists()

    def usableName(self, name: str) -> str:
        """The nearest to a name that can be that of an installed model."""
        from medmae.models import usable_name

        return usable_name(name)

    def freeName(self, name: str, taken: Collection[str] = ()) -> str:
        """A name like this one that neither a model has nor is among those that are `taken`."""
        numbered = (f"{name} {number}" for number in itertools.count(2))
        return next(one for one in itertools.chain([name], numbered)
                    if one not in taken and not self.isInstalled(one))

    def importModel(self, path: str | Path, name: str | None = None, replace: bool = False) -> str:
        """Install a model from a folder, a zip file or a finished run; its weights are verified.

        :param name: in the list; default: what the model is called.
        :param replace: whether a model of that name is replaced.
        :returns: the name in the list.
        :raises medmae.errors.BadInput: it is no model, is damaged, or the name is taken.
        """
        from medmae.models import install_model

        return inBackground(lambda: install_model(path, name, replace)).name

    def importCheckpoint(self, path: str | Path, formatName: str, name: str,
                         options: Sequence[str] = ()) -> dict[str, Any]:
        """Install what other code has saved, see `CheckpointImport.importCheckpoint`."""
        from MedMAESegmentLib.CheckpointImport import importCheckpoint

        return importCheckpoint(path, formatName, name, options)

    def exportModel(self, name: str, path: str | Path, replace: bool = False) -> Path:
        """Write a model into one zip file, which `importModel` and ``medmae model install`` take.

        :param path: the file, or a folder for ``NAME.zip``.
        :param replace: whether a file that is there is replaced.
        :returns: the file.
        :raises medmae.errors.BadInput: there is no such model, or the file exists.
        """
        from medmae.files import atomic_path
        from medmae.models import resolve_model

        source, target = resolve_model(name), Path(path)
        target = target / f"{source.name}.zip" if target.is_dir() else target
        if target.exists() and not replace:
            raise BadInput(f"{target} exists already. Choose another name, or remove it first.")
        if not source.is_dir():
            raise BadInput(f"{source} is a file already. Copy it.")

        def write() -> None:
            with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
                for file in sorted(source.iterdir()):
                    if file.is_file():
                        archive.write(file, file.name)

        inBackground(write)
        return target

    def removeModel(self, name: str) -> None:
        """Delete an installed model. A segmentation that has begun with it goes on.

        :raises medmae.errors.BadInput: no model of that name is installed.
        """
        from medmae.models import remove_model

        inBackground(lambda: remove_model(name))
