"""A finetuning run: one model, or one a fold of a cross-validation, which become an ensemble."""

from __future__ import annotations

from medmae.config import from_json
from medmae.finetuning.building import build_finetuning_network, loop_settings
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.cross_validation import cross_validate
from medmae.finetuning.one_model import train_one_model
from medmae.finetuning.planning import FROM_SCRATCH, Plan, make_plan
from medmae.finetuning.preparing import finetuning_preprocessing, prepare, settle
from medmae.run_folder import RunFolder
from medmae.training.distributed import joined
from medmae.training.loop import refuse_impossible

__all__ = ["FROM_SCRATCH", "Plan", "build_finetuning_network", "execute", "finetuning_preprocessing", "make_plan",
           "settle"]


def execute(run: RunFolder) -> None:
    """Execute the finetuning run `run` (or its rest) and leave the model in ``run.model``."""
    spec = run.spec
    plan = make_plan(from_json(FinetuneConfig, spec["config"], "finetuning configuration"), spec["inputs"])
    with joined(plan.config.device) as group:
        refuse_impossible(loop_settings(plan.config), group)
        if plan.config.folds:
            cross_validate(run, plan, group)
            return
        if group.is_main:
            prepare(run, plan)
        group.barrier()
        train_one_model(run, plan, group)
