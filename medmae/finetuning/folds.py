"""One fold of a cross-validation: a finetuning run of its own, whose held-out cases its model scores once."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmae.errors import Stopped
from medmae.files import read_json, write_json
from medmae.finetuning.one_model import train_one_model
from medmae.finetuning.planning import Plan
from medmae.inference.case_loop import CaseFailure, raise_failures
from medmae.inference.config import EvaluateConfig
from medmae.inference.evaluate_run import score_cases
from medmae.inference.loaded_model import LoadedModel
from medmae.run_folder import RunFolder
from medmae.training.distributed import ProcessGroup

log = logging.getLogger(__name__)
HELD_OUT = "held_out.json"


class FoldRun(RunFolder):
    """The run of a fold. A stop asked of the whole run stops it; its progress and pictures are also those of the whole.

    Args:
        path: its folder.
        whole: the run of all folds.
        number, count: which fold of how many, from 1.
        steps: of a fold's training.
    """

    def __init__(self, path: Path, whole: RunFolder, number: int, count: int, steps: int) -> None:
        super().__init__(path)
        self.number = number
        self._whole, self._count, self._steps = whole, count, steps
        self.most_samples = whole.most_samples // count
        self._begun = time.monotonic()
        self._seconds_a_step = 0.0

    @property
    def stop_requested(self) -> bool:
        """Whether the whole run is asked to stop."""
        return self._whole.stop_requested

    def sample_file(self, step: int) -> Path:
        """Among those of the whole run, counted over all folds."""
        return self._whole.sample_file((self.number - 1) * self._steps + step)

    def append_progress(self, record: Mapping[str, Any]) -> None:
        """Note it here, and for the whole run counted over all folds."""
        super().append_progress(record)
        if "stage" in record:
            self._whole.append_progress({**record, "stage": f"fold {self.number} of {self._count}: {record['stage']}"})
        elif "step" in record:
            self._whole.append_progress(self._of_all_folds(record))

    def write_state(self, **changes: Any) -> None:
        """As it stands here; of the steps of training, also for the whole run."""
        super().write_state(**changes)
        if changes.get("total") == self._steps:
            before = (self.number - 1) * self._steps
            self._whole.write_state(step=before + changes["step"], total=self._count * self._steps)

    def _of_all_folds(self, record: Mapping[str, Any]) -> dict[str, Any]:
        left = self._steps - record["step"]
        if left and record.get("eta_s"):
            self._seconds_a_step = record["eta_s"] / left
        later = (self._count - self.number) * self._steps
        return {**record, "step": (self.number - 1) * self._steps + record["step"],
                "total": self._count * self._steps, "fold": self.number, "folds": self._count,
                "eta_s": round(record.get("eta_s", 0.0) + later * self._seconds_a_step, 3)}


def compute_fold(fold: FoldRun, plan: Plan, group: ProcessGroup) -> None:
    """Train the fold's model and score its held-out cases, or what is missing of it; what is done is kept.

    Its checkpoints are removed at the end: nothing would ever continue from them.

    Raises:
        Stopped: the run is asked to stop; a checkpoint was written first.
        BadInput, PartialFailure: as finetuning and scoring raise them.
    """
    if group.any(group.is_main and scores_of(fold.path) is not None):
        return
    try:
        if not group.any(group.is_main and (fold.model / "model.json").is_file()):
            if group.is_main:
                fold.write_state(state="running", reason=None, remedy=None)
            train_one_model(fold, plan, group)
        stopped = group.is_main and not _scored(fold, plan)
        group.barrier()
        if group.any(stopped):  # told to all processes
            raise Stopped(f"Stopped while the held-out cases of fold {fold.number} were scored. "
                          "Continue with --resume.")
    except Stopped as stop:
        if group.is_main:
            fold.write_state(state="stopped", reason=str(stop), remedy="Continue the whole run with --resume.")
        raise
    except Exception as error:
        if group.is_main:
            fold.write_state(state="failed", reason=f"{type(error).__name__}: {error}",
                             remedy="Continue the whole run with --resume.")
        raise
    if group.is_main:
        fold.write_state(state="done")
        shutil.rmtree(fold.checkpoints, ignore_errors=True)


def scores_of(folder: Path) -> dict[str, Any] | None:
    """The scores of the held-out cases of the fold in `folder`; None where it is not finished."""
    file = folder / HELD_OUT
    return read_json(file, "scores of the fold") if file.is_file() else None


def _scored(fold: FoldRun, plan: Plan) -> bool:
    """Score the held-out cases as `medmae evaluate` would; False where a stop came first."""
    assert plan.dataset.task is not None
    model = LoadedModel.load(fold.model, task=plan.dataset.task, device=plan.config.device)
    failures: list[CaseFailure] = []
    try:
        scores = score_cases(fold, plan.dataset, plan.held_out, model, EvaluateConfig(), None, failures)
    except Stopped:
        return False
    raise_failures(failures, len(plan.held_out))
    write_json(fold.path / HELD_OUT, scores)
    return True
