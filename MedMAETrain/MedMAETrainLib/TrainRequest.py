"""What is asked for when a run is started: the same for starting it, for a trial of it, and for the checks before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from MedMAETrainLib.RunPlan import FROM_SCRATCH

PRETRAINING = "pretraining"
_ARGUMENTS = ("steps", "modality")  # of the settings: what the logic takes as arguments of their own


@dataclass(frozen=True)
class TrainRequest:
    """A run that was chosen in the panel, or is to be measured.

    task - "segmentation", "classification" or "pretraining".
    encoder - What it starts from: a name in the list of models, or a run folder; "none": from scratch.
    method, preset - Of the network, from scratch; None: the encoder's.
    device - "auto", "cpu", "cuda:0".
    target - Name of another computer; None: this one.
    settings - By the keys of the engine's configuration, with "steps" and "modality".
    name - Of the finished model; None: the logic proposes one.
    """

    task: str = "segmentation"
    encoder: str = FROM_SCRATCH
    method: str | None = None
    preset: str | None = None
    device: str = "auto"
    target: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    name: str | None = None

    @property
    def kind(self) -> str:
        """The kind of the run: "pretrain" or "finetune"."""
        return "pretrain" if self.task == PRETRAINING else "finetune"

    def plan(self) -> dict[str, Any]:
        """What decides the run itself, as keyword arguments of the logic: neither its place nor its name."""
        own = {key: value for key, value in self.settings.items() if key in _ARGUMENTS}
        others = {key: value for key, value in self.settings.items() if key not in _ARGUMENTS}
        task = {} if self.task == PRETRAINING else {"task": self.task}
        return {"encoder": self.encoder, **task, "method": self.method, "preset": self.preset, "device": self.device,
                **own, "settings": others or None}
