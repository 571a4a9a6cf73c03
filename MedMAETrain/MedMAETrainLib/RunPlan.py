"""What a run is to do, before anything is written: its settings, where it starts from, and its data."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from MedMAESegmentLib.Interpreter import chosenInterpreter

from medmae.config import from_json
from medmae.errors import BadInput
from medmae.run_folder import Kind
from MedMAETrainLib.ProjectDataset import DATASET_FILE

DATA_FOLDER = "data"  # in the run folder
FROM_SCRATCH = "none"
_RESOLVE = ("import json, sys\n"
            "from medmae.config import from_json\n"
            "from medmae.errors import BadInput\n"
            "from medmae.pretraining.config import PretrainConfig, resolve_pretrain_config\n"
            "try:\n"
            "    resolve_pretrain_config(from_json(PretrainConfig, json.load(sys.stdin), 'pretraining settings'))\n"
            "except BadInput as error:\n"
            "    print(error)\n")
Report = Callable[[float, str], Any]
WriteData = Callable[[Path, Report], None]


@dataclass(frozen=True)
class RunPlan:
    """A run that could be started.

    kind - "pretrain" or "finetune".
    task - "pretraining", "segmentation" or "classification".
    config - Its configuration, as far as it was chosen.
    encoder - The model that it starts from, a path; "none": from scratch.
    names - Of the labels or classes; of pretraining what the images are called.
    writeData - Writes the data set into a folder; None: it reads `images`.
    images - Absolute paths and patterns of the images to pretrain on.
    project - The uid of the project that it learns from.
    isOfScene - Whether its data are nodes of the scene, which the main thread alone may read.

    >>> plan = logic.planRun("finetune", project, "brains")
    >>> plan.write(folder)
    >>> RunFolder.create(run, plan.kind, plan.config, plan.inputs(folder))
    """

    kind: Kind
    task: str
    config: dict[str, Any]
    encoder: str
    names: tuple[str, ...]
    writeData: WriteData | None = None
    images: tuple[str, ...] = ()
    project: str | None = None
    isOfScene: bool = False

    def write(self, folder: Path, report: Report = lambda _fraction, _message: None) -> None:
        """Write the data set of the run into a folder; nodes of the scene are handed over meanwhile."""
        if self.writeData is not None:
            self.writeData(folder, report)

    def inputs(self, folder: Path) -> dict[str, Any]:
        """The inputs of the run whose data are in a folder."""
        if self.kind == "finetune":
            return {"dataset": str(folder / DATASET_FILE), "encoder": self.encoder, "subset": None, "cases": None}
        return {"images": list(self.images)} if self.writeData is None else {"dataset": str(folder / DATASET_FILE)}

    def checkConfig(self) -> None:
        """See that the settings can be used, without looking at data.

        Raises:
            BadInput: they cannot; why, and which there are.
        """
        if self.kind == "finetune":
            from medmae.finetuning.config import FinetuneConfig

            from_json(FinetuneConfig, self.config, "finetuning configuration")
            return
        from medmae.networks.presets import preset
        from medmae.pretraining.config import PretrainConfig
        from medmae.pretraining.registry import method_names

        config = from_json(PretrainConfig, self.config, "pretraining configuration")
        if config.method not in method_names():
            raise BadInput(f"The method '{config.method}' is not known. Use {' or '.join(method_names())}.")
        preset(config.method, config.preset)

    def check(self, folder: Path) -> None:
        """See that the run can begin with the data that were written into a folder; for a thread.

        Raises:
            BadInput: it cannot.
        """
        inputs = self.inputs(folder)
        if self.kind == "finetune":
            from medmae.finetuning.config import FinetuneConfig
            from medmae.finetuning.planning import make_plan

            make_plan(from_json(FinetuneConfig, self.config, "finetuning configuration"), inputs)
            return
        if self.writeData is None:
            from medmae.pretraining.sources import sources_of_images

            sources_of_images(inputs["images"])
        if self.config.get("settings"):
            _checkSettings(self.config)


def configOf(kind: str, chosen: dict[str, Any], settings: dict[str, Any] | None) -> dict[str, Any]:
    """The configuration of a run: what was chosen, and further settings; of pretraining those of the method, too."""
    config = {key: value for key, value in chosen.items() if value is not None}
    if kind == "finetune":
        return {**config, **(settings or {})}
    from medmae.pretraining.config import PretrainConfig

    known = {field.name for field in fields(PretrainConfig)}
    given = dict(settings or {})
    ofMethod = {**given.pop("settings", {}), **{key: given.pop(key) for key in list(given) if key not in known}}
    return {**config, **given, **({"settings": ofMethod} if ofMethod else {})}


def _checkSettings(config: dict[str, Any]) -> None:
    """Ask a child about the settings of a pretraining method, which are known to its network's code alone.

    Where there is no torch here, the computer that has it will tell.
    """
    python = chosenInterpreter()
    ended = subprocess.run([python.executable, "-c", _RESOLVE], env=python.environment(), input=json.dumps(config),
                           capture_output=True, text=True, encoding="utf-8", check=False,
                           creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0))
    if ended.returncode == 0 and ended.stdout.strip():
        raise BadInput(ended.stdout.strip())
