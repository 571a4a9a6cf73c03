"""What a run reads, gathered for its journey: exactly what it would read here, and nothing that tells whose it is.

Images are re-written as voxels and geometry; cases, subjects and files get neutral names, whose meaning stays in
``cases.json`` of the mirror. Of a dataset only the cases that the run reads travel: few-label draws are made here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medmae import __version__
from medmae.config import from_json
from medmae.datasets import Case, Dataset, draw_cases, load_dataset, validate, validate_cases
from medmae.datasets.classes import classes_in
from medmae.errors import BadInput
from medmae.jobs.gathering import INPUTS, OUTPUTS, Gathering, described, image_place, neutral_ids, record_of
from medmae.jobs.neutral_images import Wanted
from medmae.jobs.upload import Report, Upload

Config = dict[str, Any]
Collected = tuple[Config, dict[str, Any], dict[str, Any]]  # config and inputs there, and what cases.json says


def collect(kind: str, config: Mapping[str, Any], inputs: Mapping[str, Any], mirror: Path, report: Report) -> Upload:
    """Gather what a run of `kind` reads.

    Args:
        kind, config, inputs: the specification as a run here would have it, with absolute paths.
        mirror: the job's folder here; ``cases.json`` is written there.
        report: takes ("check" or "convert", images done, images in all).

    Raises:
        BadInput: files cannot be used, as a run here would find; nothing has travelled.
    """
    gathering = Gathering(report)
    there, paths, record = _KINDS[kind](gathering, dict(config), inputs)
    spec = {"medmae": __version__, "kind": kind, "config": there, "inputs": paths}
    return gathering.upload(mirror, spec, kind=kind, **record)


def _pretrain(gathering: Gathering, config: Config, inputs: Mapping[str, Any]) -> Collected:
    from medmae.jobs.pretraining_inputs import gather_corpus, gather_sources

    paths = gather_corpus(gathering, inputs) if inputs.get("corpus") else gather_sources(gathering, config, inputs)
    return config, paths, {}


def _finetune(gathering: Gathering, config: Config, inputs: Mapping[str, Any]) -> Collected:
    from medmae.finetuning.config import FinetuneConfig
    from medmae.finetuning.planning import make_plan

    plan = make_plan(from_json(FinetuneConfig, config, "finetuning configuration"), inputs)
    lists = {"training": plan.training} | ({"validation": plan.validation} if plan.validation else {})
    validate(replace(plan.dataset, lists=lists), list(lists), on_progress=_checking(gathering))
    withheld = _withheld(plan.dataset, plan.training, lists.get("validation", ()))
    paths: dict[str, Any] = {"dataset": gathering.dataset(
        plan.dataset, lists, withheld=withheld, further={"subsets": {"chosen": [case.id for case in plan.training]}})}
    paths |= {"subset": "chosen"} | _encoders(gathering, inputs)
    paths |= {name: inputs[name] for name in ("validation",) if name in inputs}
    return {**config, "cases": None}, paths, {"dataset": plan.dataset.name}


def _curve(gathering: Gathering, config: Config, inputs: Mapping[str, Any]) -> Collected:
    dataset = load_dataset(inputs["dataset"])
    labelled = [case for case in dataset.cases("training") if case.is_labelled]
    further: dict[str, Any] = {}
    if config.get("subsets"):
        chosen = {name: [case for case in dataset.subset(name) if case.is_labelled] for name in config["subsets"]}
        further["subsets"] = {name: [case.id for case in cases] for name, cases in chosen.items()}
    else:
        counts = [int(count) for count in config["cases"] if count != "all"]
        chosen = {} if len(counts) == len(config["cases"]) else {"all": labelled}
        if counts:
            drawn = {str(seed): draw_cases(labelled, max(counts), seed) for seed in config["seeds"]}
            chosen |= {seed: list(cases) for seed, cases in drawn.items()}
            further["draws"] = {seed: [case.id for case in cases] for seed, cases in drawn.items()}
    used = {case.id for cases in chosen.values() for case in cases}
    training = [case for case in labelled if case.id in used]
    split = inputs.get("split") or "test"
    scored = _labelled(dataset, split)
    validate_cases(dataset, list({case.id: case for case in (*training, *scored)}.values()), labels=True,
                   on_progress=_checking(gathering))
    paths = {"dataset": gathering.dataset(dataset, {"training": training, "test": scored},
                                          withheld=_withheld(dataset, training, scored), further=further),
             "split": "test", **_encoders(gathering, inputs)}
    if inputs.get("encoders"):
        paths["encoders"] = {name: gathering.model(f"arm-{name}", one) for name, one in inputs["encoders"].items()}
    return config, paths, {"dataset": dataset.name}


def _evaluate(gathering: Gathering, config: Config, inputs: Mapping[str, Any]) -> Collected:
    dataset = load_dataset(inputs["dataset"])
    cases = _labelled(dataset, inputs.get("split") or "test")
    validate_cases(dataset, cases, labels=True, on_progress=_checking(gathering))
    paths = {"model": gathering.models(inputs["model"]), "dataset": gathering.dataset(dataset, {"test": cases}),
             "split": "test", **({"out": OUTPUTS} if inputs.get("out") else {})}
    return config, paths, {"dataset": dataset.name, "out": inputs.get("out")}


def _apply(gathering: Gathering, config: Config, inputs: Mapping[str, Any]) -> Collected:
    """Segment or classify."""
    from medmae.inference.cases import find_cases

    if config.get("format") == "dicom-seg":
        raise BadInput("DICOM SEG needs the headers of the images, which never leave this computer. Choose --format "
                       "seg.nrrd, or segment here.")
    out = Path(inputs["out"]) if inputs.get("out") else None
    cases = find_cases(inputs["images"], out)
    paths: dict[str, Any] = {"model": gathering.models(inputs["model"]), "out": OUTPUTS, "resume": True}
    names = neutral_ids(len(cases))
    places = _readable(gathering, [(name, str(case.images[0]), case.images)
                                   for name, case in zip(names, cases, strict=True)], config.get("frame"))
    gathering.cases.update({name: {"images": [str(path) for path in case.images], "output": case.output_name,
                                   "stamp": case.stamp()}
                            for name, case in zip(names, cases, strict=True) if name in places})
    paths["images"] = [images if len(images) > 1 else images[0] for images in places.values()]
    if inputs.get("base"):
        from medmae.jobs.base_inputs import gather_base

        paths["base"] = gather_base(gathering, Path(inputs["base"]), len(cases))
    return {**config, "frame": None}, paths, {"out": inputs.get("out")}


def _rank(gathering: Gathering, config: Config, inputs: Mapping[str, Any]) -> Collected:
    """Images as for segmenting, or a list of a dataset, of which no label travels."""
    if inputs.get("images"):
        return _apply(gathering, config, inputs)
    from medmae.active_learning.pool import UNLABELED, pool_of

    dataset, pool = load_dataset(inputs["dataset"]), pool_of(inputs)
    cases = dict(zip(neutral_ids(len(pool)), dataset.cases(inputs.get("split") or UNLABELED), strict=True))
    paths = {"model": gathering.models(inputs["model"]), "out": OUTPUTS, "resume": True, "split": UNLABELED}
    places = _readable(gathering, [(name, own.image, own.found.images) for name, own in zip(cases, pool, strict=True)])
    gathering.cases.update({name: record_of(dataset, cases[name]) for name in places})
    items = [{"id": name, "image": [place.removeprefix(f"{INPUTS}/") for place in images],
              "subject": gathering.subject(cases[name].subject)} for name, images in places.items()]
    paths["dataset"] = gathering.add_json("dataset.json", {**described(replace(dataset, task=None)), UNLABELED: items})
    return config, paths, {"dataset": dataset.name, "out": inputs.get("out")}


def _readable(gathering: Gathering, cases: Sequence[tuple[str, str, Sequence[Path]]],
              frame: int | None = None) -> dict[str, list[str]]:
    """By neutral name, where the images of a case lie there, one a channel; those that cannot be read stay here.

    Args:
        gathering: takes the images.
        cases: (neutral name, what failures are called, images).
        frame: of 4-D images.

    Raises:
        BadInput: none can be read.
    """
    converted = gathering.staging.convert([Wanted(str(path), frame=frame) for _, _, images in cases for path in images],
                                          gathering.report)
    found: dict[str, list[str]] = {}
    for name, own, images in cases:
        parts = [next(converted)[0] for _ in images]
        problem = next((part.problem for part in parts if part.blob is None), None)
        if problem is not None:
            gathering.unreadable.append({"image": own, "reason": problem})
            continue
        found[name] = [gathering.add_blob(image_place(name, number), part.blob)
                       for number, part in enumerate(parts) if part.blob is not None]
    next(converted, None)  # the last report
    if not found:
        raise BadInput("\n".join([f"None of the {len(cases)} images could be used:",
                                  *(f"  {one['image']}: {one['reason']}" for one in gathering.unreadable)]))
    return found


_KINDS: dict[str, Callable[[Gathering, Config, Mapping[str, Any]], Collected]] = {
    "pretrain": _pretrain, "finetune": _finetune, "curve": _curve, "evaluate": _evaluate, "segment": _apply,
    "classify": _apply, "rank": _rank}


def _checking(gathering: Gathering) -> Callable[[int, int], None]:
    return lambda done, total: gathering.report("check", done, total)


def _encoders(gathering: Gathering, inputs: Mapping[str, Any]) -> dict[str, Any]:
    from medmae.finetuning.planning import FROM_SCRATCH

    return {name: inputs[name] if inputs[name] in (None, FROM_SCRATCH) else gathering.model(name, inputs[name])
            for name in ("encoder", "like") if name in inputs}


def _labelled(dataset: Dataset, split: str) -> list[Case]:
    cases = [case for case in dataset.cases(split) if case.is_labelled]
    if not cases:
        raise BadInput(f"The list '{split}' of {dataset.path} has no labelled case, so there is nothing to score. "
                       "Choose another list with --split.")
    return cases


def _withheld(dataset: Dataset, training: Sequence[Case], others: Sequence[Case]) -> list[Case]:
    """Training cases that stay at home, one of each class that `others` have and `training` has not.

    Their classes are told because a class that no training case of a dataset has is refused.
    """
    if dataset.task != "classification":
        return []
    lacking = {value for value in classes_in(others) if not classes_in(training)[value]}
    found: list[Case] = []
    for case in dataset.cases("training"):
        if lacking & set(classes_in([case])):
            found.append(case)
            lacking -= set(classes_in([case]))
    return found
