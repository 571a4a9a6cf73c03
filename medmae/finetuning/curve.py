"""Label-efficiency curves: the same finetuning on more and more labels, over seeds, with encoders and without.

Every point is a finetuning run of its own under ``RUN/points/``, scored once on the list asked for (test by default).
A finished point is never computed again, so that a curve can be stopped and resumed at any time. Points see their
labelled cases and no others: nothing is chosen by, or fitted to, validation cases. Images that several points use are
prepared once, under ``RUN/corpora/``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from medmae.config import from_json, to_json
from medmae.datasets import Case, DatasetSummary
from medmae.datasets.corpus_building import build_corpus
from medmae.datasets.preprocessing import Preprocessing
from medmae.datasets.validation import validate_cases
from medmae.errors import BadInput, PartialFailure, Stopped
from medmae.files import write_json, write_text
from medmae.finetuning import run as finetuning_run
from medmae.finetuning.config import FinetuneConfig, Network, finetune_config
from medmae.finetuning.curve_points import ALL, PRETRAINED, SCRATCH, Point, compute_point, result_of, row_of
from medmae.finetuning.curve_summary import cases_csv, results_csv, summarise
from medmae.finetuning.curve_workers import compute_in_processes
from medmae.inference import evaluate_run
from medmae.models import load_state
from medmae.run_folder import Kind, RunFolder
from medmae.training.progress import stage_reporter

log = logging.getLogger(__name__)
BASELINES: dict[str, Network] = {"unet": "unet", "dynunet": "dynunet"}  # arms that have a network of their own
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class CurveConfig:
    """Which points: numbers of labelled `cases` (drawn by subject from each seed; "all" takes every one) or named
    `subsets`, seeds, arms. `jobs` points are computed at once, each in a process of its own.

    An arm is the name of an encoder ("pretrained" where only one is given), "scratch" (the network of the first encoder
    with fresh weights), "unet" or "dynunet" (baselines of MONAI); () means every encoder, and scratch.
    `finetune` is the configuration of every point; its seed, cases and network are replaced. `of_arms` are
    ``key=value`` settings of single arms.
    """

    cases: tuple[int | Literal["all"], ...] = ()
    subsets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: tuple[str, ...] = ()
    jobs: int = 1
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    of_arms: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.cases) == bool(self.subsets):
            raise ValueError("give either cases or subsets")
        if not self.seeds:
            raise ValueError("at least one seed is needed")
        for name in ("cases", "subsets", "seeds", "arms"):
            values: tuple[Any, ...] = getattr(self, name)
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"{twice} stands twice in {name}; every point is computed once")
        if any(number != ALL and int(number) < 1 for number in self.cases):
            raise ValueError("the numbers of cases must be at least 1")
        if self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, not {self.jobs}")
        if self.finetune.network != "method":
            raise ValueError("the network of a point is that of its arm; leave network out and name the arm unet")
        for arm, settings in self.of_arms.items():
            own = [text.partition("=")[0] for text in settings]
            for name in ("network", "seed", "cases"):
                if name in own:
                    raise ValueError(f"{arm}.{name} cannot be set: the points have their own")
            finetune_config(settings, self.finetune)  # raises where one is unknown


def execute(run: RunFolder) -> None:
    """Compute the points that are missing; writes ``results.csv`` (a row a point), ``cases.csv``, ``summary.json``.

    Raises:
        BadInput: an arm cannot be computed, or files cannot be used; no point was begun.
        PartialFailure: some points failed; the others are done, and the tables hold them.
        Stopped: a stop was asked for.
    """
    spec = run.spec
    config = from_json(CurveConfig, spec["config"], "curve configuration")
    inputs = spec["inputs"]
    config = _with_arms(config, inputs)
    points = list(_points(config))
    _refuse_equal_folders(points)
    plans = _check(run, config, inputs, points)
    training_cases = {point: len(plan.training) for point, plan in plans.items()}
    failed: dict[str, str] = {}
    ended = 0

    def note(name: str, reason: str | None) -> None:
        nonlocal ended
        if reason is not None:
            log.error("the point %s failed: %s", name, reason)
            failed[name] = reason
        ended += 1
        rows = _write_tables(run, points, training_cases)
        score = next((row["score"] for row in rows if Point(row["arm"], row["labels"], row["seed"]).name == name), None)
        run.append_progress({"stage": "points", "step": ended, "total": len(points), "message": name}
                            | ({} if score is None else {"score": score}))
        run.write_state(step=ended, total=len(points))

    missing = [point for point in points if result_of(point.folder(run.path)) is None]
    ended = len(points) - len(missing)
    run.write_state(step=ended, total=len(points))
    folders = [point.folder(run.path) for point in missing]
    if config.jobs > 1 and len(folders) > 1:
        compute_in_processes(run, folders, config.jobs, note)
    else:
        _compute_here(run, folders, note)
    write_json(run.path / "summary.json", summarise(_write_tables(run, points, training_cases)))
    if failed:
        listed = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
        raise PartialFailure(f"{len(failed)} of {len(points)} points failed; the others are done:\n{listed}\n"
                             "Continue with --resume to compute them again.")


def encoders_of(inputs: Mapping[str, Any]) -> dict[str, str]:
    """The encoders of a curve, by the names of their arms."""
    single = inputs.get("encoder")
    return ({} if single in (None, finetuning_run.FROM_SCRATCH) else {PRETRAINED: single}) | inputs.get("encoders", {})


def arms_of(config: CurveConfig, inputs: Mapping[str, Any]) -> tuple[str, ...]:
    """The arms of a curve: those named, else every encoder, and scratch."""
    return config.arms or (*(encoders_of(inputs) or [PRETRAINED]), SCRATCH)


def _with_arms(config: CurveConfig, inputs: Mapping[str, Any]) -> CurveConfig:
    """`config` with its arms settled.

    Raises:
        BadInput: an arm or an encoder's name is not usable, or settings are for an arm that there is not.
    """
    encoders = encoders_of(inputs)
    for name in encoders:
        if not _NAME.fullmatch(name) or name in (SCRATCH, "augmentation", *BASELINES):
            raise BadInput(f"{name!r} cannot be the name of an encoder. Use letters, digits, - and _, and no word that "
                           f"means something else here: {SCRATCH}, augmentation, {', '.join(BASELINES)}.")
    arms = arms_of(config, inputs)
    if PRETRAINED in arms and PRETRAINED not in encoders:
        raise BadInput("The arm 'pretrained' needs an encoder. Give --encoder, or only --arms scratch.")
    known = (*encoders, SCRATCH, *BASELINES)
    for arm in arms:
        if arm not in known:
            raise BadInput(f"There is no arm {arm!r} here. Choose among {', '.join(known)}, or name an encoder so: "
                           f"--encoder {arm}=PATH.")
    for arm in config.of_arms:
        if arm not in arms:
            raise BadInput(f"There are settings for the arm {arm!r}, but the arms are {', '.join(arms)}.")
    return replace(config, arms=arms)


def _compute_here(run: RunFolder, folders: Sequence[Path], note: Any) -> None:
    for folder in folders:
        if run.stop_requested:
            raise Stopped("Stopped between two points, as asked. Continue with --resume.")
        try:
            compute_point(run, folder)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - logged whole and reported at the end; the other points go on
            log.exception("the point %s failed", folder.name)
            note(folder.name, f"{type(error).__name__}: {error}")
        else:
            note(folder.name, None)


def _write_tables(run: RunFolder, points: Sequence[Point], training_cases: dict[Point, int]) -> list[dict[str, Any]]:
    found = (row_of(point, point.folder(run.path), training_cases[point]) for point in points)
    rows = [row for row in found if row is not None]
    write_text(run.path / "results.csv", results_csv(rows))
    write_text(run.path / "cases.csv", cases_csv(rows))
    return rows


def _points(config: CurveConfig) -> Iterator[Point]:
    for labels in config.subsets or tuple(map(str, config.cases)):
        for seed in config.seeds:
            for arm in config.arms:
                yield Point(arm, labels, seed)


def _check(run: RunFolder, config: CurveConfig, inputs: dict[str, Any],
           points: Sequence[Point]) -> dict[Point, finetuning_run.Plan]:
    """See contradictions and bad files, also of the list to score, before hours of computing; prepare the points.

    Raises:
        BadInput: there are some.
    """
    plans = {point: finetuning_run.make_plan(_finetune_config(config, point), _inputs(inputs, config, point))
             for point in points}
    for name, encoder in encoders_of(inputs).items():
        if name in config.arms:
            load_state(encoder)
    dataset = plans[points[0]].dataset
    used = (case for plan in plans.values() for case in plan.training)
    scored = evaluate_run.labelled_cases(dataset, _split(inputs))
    _refuse_training_cases(scored, plans, _split(inputs))
    summary = validate_cases(dataset, tuple({case.id: case for case in (*used, *scored)}.values()), labels=True,
                             on_progress=stage_reporter(run, "validate"))
    _prepare(run, config, inputs, plans, summary)
    return plans


def _refuse_equal_folders(points: Sequence[Point]) -> None:
    by_folder: dict[str, Point] = {}
    for point in points:
        other = by_folder.setdefault(point.name.casefold(), point)
        if other != point:
            raise BadInput(f"The points of {other.arm} with {other.labels} and of {point.arm} with {point.labels} "
                           f"would lie in the same folder, {point.name}. Give the encoder another name.")


def _refuse_training_cases(scored: Sequence[Case], plans: dict[Point, finetuning_run.Plan], split: str) -> None:
    trained_on = {case.subject for plan in plans.values() for case in plan.training}
    both = [case for case in scored if case.subject in trained_on]
    if both:
        raise BadInput(f"The list '{split}' has {len(both)} cases of subjects that are trained on ({both[0].id}, for "
                       "instance), so that its scores would be too good. Choose another list with --split.")


def _split(inputs: dict[str, Any]) -> str:
    return inputs.get("split") or "test"


def _finetune_config(config: CurveConfig, point: Point) -> FinetuneConfig:
    # At N labels nothing but these N is used: a temperature would see the validation cases.
    few = config.cases and point.labels != ALL
    of_arm = finetune_config(config.of_arms.get(point.arm, ()), config.finetune)
    return replace(of_arm, seed=point.seed, cases=int(point.labels) if few else None, calibrate=False,
                   network=BASELINES.get(point.arm, "method"))


def _inputs(inputs: dict[str, Any], config: CurveConfig, point: Point) -> dict[str, Any]:
    """Inputs of a point's finetuning; arms from scratch follow the first encoder, so that all arms are on one grid."""
    encoders = encoders_of(inputs)
    own = encoders.get(point.arm)
    return {"dataset": inputs["dataset"], "subset": point.labels if config.subsets else None, "validation": False,
            "encoder": own or finetuning_run.FROM_SCRATCH,
            "like": next(iter(encoders.values()), None) if own is None else None}


def _prepare(run: RunFolder, config: CurveConfig, inputs: dict[str, Any], plans: dict[Point, finetuning_run.Plan],
             summary: DatasetSummary) -> None:
    """Make the folders of the points and the corpora that they read; what exists already is kept.

    What is fitted to images (the spacing of 3-D networks) is fitted for every point to its own cases; points that
    agree in it share a corpus.
    """
    preprocessings: dict[Point, Preprocessing] = {}
    for point, plan in plans.items():
        own = summary.of(case.id for case in plan.training)
        preprocessings[point] = finetuning_run.finetuning_preprocessing(plan, own)
    corpora: dict[Path, list[Point]] = {}
    for point, preprocessing in preprocessings.items():
        corpora.setdefault(_corpus_folder(run, preprocessing), []).append(point)
    for folder, sharing in corpora.items():
        if all(result_of(point.folder(run.path)) is not None for point in sharing):
            continue
        cases = {case.id: case for point in sharing for case in plans[point].training}
        build_corpus(folder, plans[sharing[0]].dataset, tuple(cases.values()), preprocessings[sharing[0]],
                     with_labels=True, on_progress=stage_reporter(run, "corpus"),
                     should_stop=lambda: run.stop_requested)
    for point, plan in plans.items():
        if result_of(point.folder(run.path)) is None:
            of_point = _inputs(inputs, config, point) | {"corpus": str(_corpus_folder(run, preprocessings[point]))}
            own = summary.of(case.id for case in plan.training)
            _settle(run, config, inputs, point, of_point, plan, own, preprocessings[point])


def _corpus_folder(run: RunFolder, preprocessing: Preprocessing) -> Path:
    digest = hashlib.sha256(json.dumps(to_json(preprocessing), sort_keys=True).encode()).hexdigest()
    return run.path.absolute() / "corpora" / digest[:12]


def _settle(run: RunFolder, config: CurveConfig, inputs: dict[str, Any], point: Point, of_point: dict[str, Any],
            plan: finetuning_run.Plan, summary: DatasetSummary, preprocessing: Preprocessing) -> None:
    folder = point.folder(run.path)
    training = _specified(folder, "finetune", to_json(_finetune_config(config, point)), of_point)
    _specified(folder / "evaluation", "evaluate", {"device": config.finetune.device},
               {"dataset": inputs["dataset"], "split": _split(inputs), "model": str(training.model.absolute())})
    if not (folder / "preprocessing.json").is_file():
        finetuning_run.settle(training, plan, summary, preprocessing)


def _specified(folder: Path, kind: Kind, config: dict[str, Any], inputs: dict[str, Any]) -> RunFolder:
    """The run in `folder`, new or as it was but for what may change: where the curve lies, and its device."""
    run = RunFolder(folder)
    if not run.spec_file.is_file():
        return RunFolder.create(folder, kind, config, inputs)
    wanted = run.spec | {"config": config, "inputs": inputs}
    if wanted != run.spec:
        write_json(run.spec_file, wanted)
    return run
