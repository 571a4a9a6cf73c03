"""A row of the list of runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medmae.jobs.targets import LOCAL
from MedMAETrainLib.RunStatus import RunStatus


@dataclass(frozen=True)
class RunEntry:
    """A run of training, as the list of runs shows it.

    id - The name of its folder among MedMAE's runs.
    kind - "pretrain" or "finetune".
    task - "pretraining", "segmentation" or "classification".
    name - What its model is called, or will be.
    target - Where it computes; "": on this computer.
    folder - The run folder; of a run elsewhere what is known of it here.
    started - ISO 8601.
    status - How it stands, as far as is known without asking anybody.
    model - The name of its model in the list of models; None: it has none.
    project - The uid of the project that it learns from; None: of none.
    canResume - Whether `resumeRun` can go on with it.
    """

    id: str
    kind: str
    task: str
    name: str
    target: str
    folder: Path
    started: str
    status: RunStatus
    model: str | None = None
    project: str | None = None
    canResume: bool = False

    @property
    def isHere(self) -> bool:
        """Whether it computes on this computer."""
        return self.target in ("", LOCAL)
