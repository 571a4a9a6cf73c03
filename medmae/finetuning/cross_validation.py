"""Cross-validation: every labelled case is scored by a model that has not seen it, and the models become an ensemble.

The cases are parted by subject. Each fold is a finetuning run of its own under ``RUN/folds/``, on all cases but its
part; finished ones are never computed again. ``cross_validation.json`` holds the scores of all cases, and ``model/``
the ensemble. The preprocessing is that of all cases, because the members of an ensemble see the same input.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medmae.config import from_json, to_json
from medmae.datasets.preprocessing import Preprocessing
from medmae.errors import BadInput
from medmae.files import read_json, write_json
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.cross_scores import calibration_of, pooled_scores
from medmae.finetuning.folds import FoldRun, compute_fold, scores_of
from medmae.finetuning.planning import Plan, make_plan
from medmae.finetuning.preparing import prepare, validates_while_training
from medmae.finetuning.saving import describe_model, short_scores
from medmae.inference.case_loop import CaseFailure, raise_failures
from medmae.inference.config import EvaluateConfig
from medmae.inference.evaluate_run import score_cases
from medmae.inference.loaded_model import LoadedModel
from medmae.models import load_info, load_state, save_model
from medmae.models.model_files import PREVIEW, ModelFiles
from medmae.run_folder import RunFolder
from medmae.training.distributed import ProcessGroup

log = logging.getLogger(__name__)


def cross_validate(run: RunFolder, plan: Plan, group: ProcessGroup) -> None:
    """Compute the folds that are missing, their scores, and the ensemble in ``run.model``.

    Raises:
        Stopped: a stop was asked for; the fold at work wrote a checkpoint first.
        BadInput: the cases cannot be parted so, or files cannot be used.
    """
    count, steps = plan.config.folds or 0, plan.config.steps or 0
    folds = [FoldRun(run.path / "folds" / str(number), run, number, count, steps) for number in range(1, count + 1)]
    config = replace(from_json(FinetuneConfig, run.spec["config"], "finetuning configuration"), folds=None,
                     calibrate=False)  # the temperature is fitted to the cases of all folds, once
    inputs = [_inputs_of(run, plan, number, count) for number in range(1, count + 1)]
    plans = [_plan_of_fold(config, one) for one in inputs]  # all of them before the first image is read
    if group.is_main:
        prepare(run, plan)
        for fold, one in zip(folds, inputs, strict=True):
            _specify(run, fold.path, config, one)
    group.barrier()
    for fold, of_fold in zip(folds, plans, strict=True):
        log.info("fold %d of %d: %d cases to train on, %d held out", fold.number, count, len(of_fold.training),
                 len(of_fold.held_out))
        compute_fold(fold, of_fold, group)
        group.barrier()
    if group.is_main:
        scores = pooled_scores([scores_of(fold.path) or {} for fold in folds], plan, plans)
        write_json(run.path / "cross_validation.json", scores)
        log.info("cross-validation of %d cases: %s %s", len(scores["cases"]), scores["metric"],
                 scores[scores["metric"]])
        _save_ensemble(run, plan, folds, scores)
        run.write_state(step=count * steps, total=count * steps)  # scoring the ensemble counts cases


def _plan_of_fold(config: FinetuneConfig, inputs: Mapping[str, Any]) -> Plan:
    try:
        return make_plan(config, inputs)
    except BadInput as error:
        number, count = inputs["fold"]
        raise BadInput(f"Fold {number} of {count} cannot be trained. {error}") from None


def _inputs_of(run: RunFolder, plan: Plan, number: int, count: int) -> dict[str, Any]:
    inputs = run.spec["inputs"]
    own: dict[str, Any] = {"fold": [number, count], "validation": False,
                           "corpus": inputs.get("corpus") or str(run.path.absolute() / "corpus-training")}
    if plan.validation and validates_while_training(plan.config):
        own |= {"validation": True, "validation_corpus": str(run.path.absolute() / "corpus-validation")}
    return {**inputs, **own}


def _specify(run: RunFolder, folder: Path, config: FinetuneConfig, inputs: Mapping[str, Any]) -> None:
    """Make the fold's run, or adapt it to where the whole run lies now; it never prepares images itself."""
    fold = RunFolder(folder)
    if not fold.spec_file.is_file():
        RunFolder.create(folder, "finetune", to_json(config), inputs)
    wanted = fold.spec | {"config": to_json(config), "inputs": dict(inputs)}
    if wanted != fold.spec:
        write_json(fold.spec_file, wanted)
    for name in ("config.json", "ranges.json", "preprocessing.json"):
        if not (folder / name).is_file():
            shutil.copyfile(run.path / name, folder / name)


def _save_ensemble(run: RunFolder, plan: Plan, folds: Sequence[FoldRun], scores: dict[str, Any]) -> None:
    """Put the models of the folds into one, score it on the validation cases, and write it."""
    import torch

    from medmae.networks import build_network

    preprocessing = from_json(Preprocessing, read_json(run.path / "preprocessing.json"), "preprocessing")
    infos = [load_info(fold.model) for fold in folds]
    arguments = infos[0].architecture["arguments"]
    architecture = {"name": "ensemble", "arguments": {
        "members": len(folds), "member": infos[0].architecture, "channels": arguments["channels"],
        "classes": arguments["classes"]} | ({"multi_label": True} if plan.multi_label else {})}
    calibration = calibration_of(scores, plan)
    info = describe_model(
        run, plan, preprocessing, architecture, calibration=calibration,
        training={"folds": [{"cases": one.training["cases"], **_early_stopping(one.training)} for one in infos]},
        scores={"cross_validation": short_scores(scores)})
    with torch.device("meta"):
        network = build_network(architecture)
    network.load_state_dict({f"members.{number}.{name}": tensor for number, fold in enumerate(folds)
                             for name, tensor in load_state(fold.model).items()}, assign=True)
    if plan.validation:
        validation = _validated(run, plan, LoadedModel.of(info, network.to(_device(plan))))
        write_json(run.path / "validation.json", validation)
        info = replace(info, scores=info.scores | {"validation": short_scores(validation)})
    first = ModelFiles(folds[0].model)
    save_model(run.model, info, network, first.read(PREVIEW) if first.has(PREVIEW) else None)


def _early_stopping(training: Mapping[str, Any]) -> dict[str, Any]:
    return {"early_stopping": training["early_stopping"]} if "early_stopping" in training else {}


def _device(plan: Plan) -> Any:
    from medmae.inference.device import resolve_device

    return resolve_device(plan.config.device)


def _validated(run: RunFolder, plan: Plan, model: LoadedModel) -> dict[str, Any]:
    """The scores of the ensemble on the validation cases, of a segmentation on `validation_cases` of them."""
    cases = plan.validation if plan.dataset.task == "classification" else plan.validation[:plan.config.validation_cases]
    failures: list[CaseFailure] = []
    scores = score_cases(run, plan.dataset, cases, model, EvaluateConfig(), None, failures)
    raise_failures(failures, len(cases))
    return scores | ({"selected_on": "validation"} if plan.config.patience is not None else {})
