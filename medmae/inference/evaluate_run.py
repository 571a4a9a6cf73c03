"""Run kind "evaluate": a model's scores on a list of a dataset.

inputs: ``dataset``, ``split`` (default test), ``model`` (or a list of them: an ensemble that segments), ``out`` (folder
for predictions and scores, or None). The run's ``result.json`` is the object that ``medmae evaluate --json`` prints.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmae.config import from_json
from medmae.datasets import Case, Dataset, load_dataset
from medmae.datasets.classes import is_multi_label
from medmae.datasets.preprocessing import check_same_grid
from medmae.datasets.validation import validate_cases
from medmae.errors import BadInput
from medmae.files import write_json
from medmae.inference.case_loop import CaseFailure, for_each_case, raise_failures
from medmae.inference.cases import image_name
from medmae.inference.classifier import Classifier
from medmae.inference.config import EvaluateConfig
from medmae.inference.loaded_model import LoadedModel, load_members
from medmae.inference.outputs.components import clean, steps_for
from medmae.inference.segment_run import failures_to_json, required_inputs, segmenter_for, segments_of
from medmae.inference.sliding_window import OnProgress
from medmae.metrics import (
    ClassificationCase,
    SegmentationCase,
    classification_scores,
    score_segmentation,
    segmentation_scores,
)
from medmae.models import ModelInfo
from medmae.run_folder import RunFolder
from medmae.volumes import read_image, read_label

log = logging.getLogger(__name__)


def execute(run: RunFolder) -> None:
    """Score a model; every file of the list is checked before the first case is computed.

    Raises:
        BadInput: the specification, the dataset or the model is unusable, or they do not fit each other.
        PartialFailure: some cases failed; the scores are those of the others.
        Stopped: a stop was asked for; there are no scores then.
    """
    config = from_json(EvaluateConfig, run.spec["config"], "configuration of evaluate")
    inputs = required_inputs(run, ("dataset", "model"))
    dataset = load_dataset(inputs["dataset"])
    cases = labelled_cases(dataset, inputs.get("split") or "test")
    assert dataset.task is not None
    models = load_members(inputs["model"], task=dataset.task, device=config.device, precision=config.precision)
    model = models[0]
    if len(models) > 1 and dataset.task == "classification":
        raise BadInput("Several models answer together for segmentation only. Name one model to score classes.")
    out = Path(inputs["out"]) if inputs.get("out") else None
    check_labels(dataset, model.info)
    if dataset.task == "classification":
        check_kind(dataset, cases, model.info)
    run.append_progress({"stage": "check", "message": f"checking {len(cases)} cases"})
    validate_cases(dataset, cases, labels=True)
    failures: list[CaseFailure] = []
    scores = score_cases(run, dataset, cases, models, config, out, failures)
    if failures:
        scores["failed"] = failures_to_json(failures)
    if len(failures) < len(cases):
        write_json(run.path / "result.json", scores)
        if out is not None:
            write_json(out / "result.json", scores)
    raise_failures(failures, len(cases))


def score_cases(run: RunFolder, dataset: Dataset, cases: Sequence[Case], model: LoadedModel | Sequence[LoadedModel],
                config: EvaluateConfig, out: Path | None, failures: list[CaseFailure]) -> dict[str, Any]:
    """The result object of a model (or of several that answer together) that fits the dataset, on cases that were
    checked; those that fail are added to `failures`. Predictions are written to `out` where it is given.

    Raises:
        Stopped: a stop was asked for.
    """
    models = [model] if isinstance(model, LoadedModel) else list(model)
    if dataset.task == "segmentation":
        return _segmentation(run, dataset, cases, models, config, out, failures)
    return _classification(run, dataset, cases, models[0], config, failures)


def labelled_cases(dataset: Dataset, split: str) -> list[Case]:
    """The cases of the list `split` that can be scored.

    Raises:
        BadInput: there is no such list, or it has no labelled case.
    """
    cases = [case for case in dataset.cases(split) if case.is_labelled]
    if not cases:
        raise BadInput(f"The list '{split}' of {dataset.path} has no labelled case, so there is nothing to score. "
                       "Choose another list with --split.")
    return cases


def check_labels(dataset: Dataset, info: ModelInfo) -> None:
    """See that the model's labels are those of the dataset, by name; a foreground label on one side only is reported.

    Raises:
        BadInput: a segmentation model and the dataset share no foreground label, or the classes of a classification
            model are not those of the dataset.
    """
    names = [str(label["name"]) for label in info.labels]
    known = names[1:] if info.task == "segmentation" else names
    wanted = list(dataset.foreground if info.task == "segmentation" else dataset.labels)
    shared = matched_names(known, wanted)
    same = len(shared) == len(known) == len(wanted)
    told = (f"The model {info.name} knows {', '.join(names)}; the dataset {dataset.path} has "
            f"{', '.join(dataset.labels)}.")
    if info.task == "classification" and not same:
        raise BadInput(f"{told} Scores need the same classes on both sides. Rename them in the dataset file, or use "
                       "another model.")
    if not shared:
        raise BadInput(f"{told} They share no label, so there is nothing to score. Rename them in the dataset file, or "
                       "use another model.")
    if not same:
        log.warning("%s Labels that only the model knows count as background; those it does not know count as missed.",
                    told)


def check_kind(dataset: Dataset, cases: Sequence[Case], info: ModelInfo) -> None:
    """See that model and dataset agree on whether several classes may apply to a case.

    Raises:
        BadInput: they do not, or the dataset does not agree with itself.
    """
    several = is_multi_label(dataset, cases)
    if several == info.multi_label:
        return
    if several:
        raise BadInput(f"The dataset {dataset.path} lists the classes of each case, but the model {info.name} gives "
                       "each case exactly one class. Use a model that was finetuned on lists, or another dataset.")
    raise BadInput(f"The model {info.name} tells which of several classes apply, but the dataset {dataset.path} gives "
                   "each case exactly one class. Write the labels as lists, or use another model.")


def dataset_values(dataset: Dataset, info: ModelInfo) -> list[int]:
    """The dataset's stored value of each class of a segmentation model; the background's for labels it lacks."""
    names = [str(label["name"]) for label in info.labels[1:]]
    dataset_name_of = matched_names(names, list(dataset.foreground))
    background = next(iter(dataset.labels.values()))
    return [background] + [dataset.labels[dataset_name_of[name]] if name in dataset_name_of else background
                           for name in names]


def matched_names(known: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """Which of the names `known` stands for which of `wanted`: the same text, else the same but for case and spaces."""
    matched = {name: name for name in known if name in wanted}
    free: dict[str, str] = {_key(name): name for name in reversed(wanted) if name not in matched}
    for name in known:
        if name not in matched and _key(name) in free:
            matched[name] = free.pop(_key(name))
    return matched


def _segmentation(run: RunFolder, dataset: Dataset, cases: Sequence[Case], models: list[LoadedModel],
                  config: EvaluateConfig, out: Path | None, failures: list[CaseFailure]) -> dict[str, Any]:
    from medmae.volumes import write_label

    info = models[0].info
    values = dataset_values(dataset, info)
    segmenter = segmenter_for(models, config, values=values)
    steps = steps_for(info, values, model=config.postprocess == "model")
    scored: list[SegmentationCase] = []

    def work(index: int, on_progress: OnProgress) -> None:
        case = cases[index]
        assert case.label is not None
        images, label = [read_image(path) for path in case.images], read_label(case.label)
        check_same_grid(label.geometry, images[0].geometry, label.source)
        found = segmenter.segment(images, on_progress=on_progress, should_stop=lambda: run.stop_requested)
        clean(found, steps, background=values[0])
        if out is not None:
            output = out / f"{case.id}.{config.format}"
            output.parent.mkdir(parents=True, exist_ok=True)
            write_label(output, found, images[0].geometry, segments_of(info, segmenter.values), config.format)
        spacing = images[0].geometry.spacing_mm if images[0].spacing_known else None
        scored.append(score_segmentation(image_name(dataset, case), label.array[0], found, dataset.labels, spacing,
                                         case.subject))

    for_each_case(run, "evaluate", [image_name(dataset, case) for case in cases], work, failures)
    return segmentation_scores(scored)


def _classification(run: RunFolder, dataset: Dataset, cases: Sequence[Case], model: LoadedModel,
                    config: EvaluateConfig, failures: list[CaseFailure]) -> dict[str, Any]:
    classifier = Classifier(model, batch=config.batch, pooling=config.pooling)
    scored: list[ClassificationCase] = []
    index_of = dataset.class_of_value

    def work(index: int, on_progress: OnProgress) -> None:
        case = cases[index]
        found = classifier.classify([read_image(path) for path in case.images], on_progress=on_progress,
                                    should_stop=lambda: run.stop_requested)
        value = case.class_value
        target = (tuple(index_of[int(one)] for one in value) if isinstance(value, tuple)
                  else index_of[int(value)])  # type: ignore[arg-type]
        scored.append(ClassificationCase(image_name(dataset, case), case.subject, target,
                                         _in_order(dataset, found.probabilities),
                                         _in_order(dataset, found.uncalibrated) if classifier.is_calibrated else None))

    for_each_case(run, "evaluate", [image_name(dataset, case) for case in cases], work, failures)
    scores = classification_scores(scored, list(dataset.labels))
    scores["calibration"] |= {"model": classifier.info.calibration if classifier.is_calibrated else {},
                              "told": classifier.calibration_told}
    return scores


def _in_order(dataset: Dataset, probabilities: Mapping[str, float]) -> tuple[float, ...]:
    """The probabilities of the model's classes in the order of the dataset's, by name."""
    value_of = {wanted: probabilities[known]
                for known, wanted in matched_names(list(probabilities), list(dataset.labels)).items()}
    return tuple(value_of[name] for name in dataset.labels)


def _key(name: str) -> str:
    return " ".join(name.lower().split())
