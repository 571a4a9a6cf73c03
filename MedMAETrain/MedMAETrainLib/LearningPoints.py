"""What the runs of a project say about their models: how many cases these have seen, and how good they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from MedMAESegmentLib.Translation import tr as _

from medmae.errors import BadInput
from medmae.files import read_json, sha256_of
from medmae.home import runs_folder
from medmae.run_folder import RunFolder
from MedMAETrainLib.LearningCurve import CurvePoint, LearningCurve, ScoredCase, curveOf
from MedMAETrainLib.ProjectCase import ProjectRun
from MedMAETrainLib.ProjectDataset import DATASET_FILE
from MedMAETrainLib.ProjectFolder import ProjectFolder
from MedMAETrainLib.RunPlan import DATA_FOLDER

CROSS_VALIDATION, VALIDATION = "cross-validation", "validation"
_FILES = {CROSS_VALIDATION: "cross_validation.json", VALIDATION: "validation.json"}
_DIFFERENCES = ("method", "preset", "network", "steps", "folds", "freeze_encoder")  # of settings, worth a word


class LearningPoints:
    """Reads curves; what was read stays known while its run has not changed.

    >>> LearningPoints().read(project).advice.text
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, CurvePoint]] = {}

    def read(self, project: ProjectFolder) -> LearningCurve:
        """The curve of a project, of the models that are in the list still."""
        points, problems = [], []
        subjects = {case.id: case.subject for case in project.cases}
        for run in project.runs:
            if run.model is None or run.task == "pretraining":
                continue
            try:
                point = self._point(run, subjects)
                _refuseSeen(point, run, project.runs)
                points.append(point)
            except (BadInput, OSError) as error:
                problems.append(_("{model} is left out: {reason}").format(model=run.model, reason=error))
            except (LookupError, TypeError, ValueError, AttributeError):  # one damaged run must not hide the others
                problems.append(_("{model} is left out: the scores of its run {run} are damaged.").format(
                    model=run.model, run=run.id))
        return curveOf(points, problems)

    def _point(self, run: ProjectRun, subjects: Mapping[str, str]) -> CurvePoint:
        folder = runs_folder() / run.id
        stamps = [_stamp(folder / name) for name in _FILES.values()]
        state = (run, stamps, tuple(sorted(subjects.items())))
        if self._known.get(run.id, (None,))[0] != state:
            self._known[run.id] = state, _read(run, folder, subjects)
        return self._known[run.id][1]


def _refuseSeen(point: CurvePoint, run: ProjectRun, runs: Sequence[ProjectRun]) -> None:
    """Refuse a model that was measured on cases which a model that it comes from has learned by heart.

    Raises:
        BadInput: how many, and what to do.
    """
    known, before = {run.id}, _comesFrom(run, runs)
    while before is not None and before.id not in known:
        known.add(before.id)
        learned = _learnedBy(before)
        seen = [one for one in point.scored if one.case in learned]
        if seen:
            raise BadInput(_("its training began with {model}, which has learned from {count} of the {all} cases on "
                             "which it was measured, so that its score is too good. Train it from an encoder instead, "
                             "or measure it on cases that were never trained on.").format(
                model=before.model, count=len(seen), all=len(point.scored)))
        before = _comesFrom(before, runs)


def _comesFrom(run: ProjectRun, runs: Sequence[ProjectRun]) -> ProjectRun | None:
    """The run of the project whose model the training of another has begun with."""
    return next((one for one in runs if run.encoder == one.model
                 or Path(run.encoder) in (runs_folder() / one.id, runs_folder() / one.id / "model")), None)


def _learnedBy(run: ProjectRun) -> set[str]:
    """The cases whose annotations a run has learned from; where its data are gone, all that it was given."""
    if run.task == "pretraining":
        return set()
    try:
        data = read_json(runs_folder() / run.id / DATA_FOLDER / DATASET_FILE, "data set")
    except (BadInput, OSError):
        return set(run.cases)
    return {str(item["id"]) for item in data.get("training", ())}


def _stamp(file: Path) -> tuple[int, int] | None:
    return (file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else None


def _read(run: ProjectRun, folder: Path, subjects: Mapping[str, str]) -> CurvePoint:
    from medmae.models import load_info, resolve_model

    assert run.model is not None
    info = load_info(resolve_model(run.model))
    how = next((how for how, name in _FILES.items() if (folder / name).is_file()), "")
    scores = read_json(folder / _FILES[how], "scores") if how else {}
    scored = _scoredCases(scores, _items(folder), subjects) if how else ()
    if not how:  # the run is gone, or its cases stayed on another computer; the model knows its score
        how = next((name for name, key in ((CROSS_VALIDATION, "cross_validation"), (VALIDATION, "validation"))
                    if info.scores.get(key)), "")
        scores = info.scores.get(how.replace("-", "_"), {})
    score = scores.get("mean_dice") if info.task == "segmentation" else scores.get("accuracy")
    return CurvePoint(
        run.model, info.created or run.started, int(info.training.get("cases", len(run.cases))), _fraction(score), how,
        info.task,
        tuple(str(label["name"]) for label in info.labels), run.encoder, _settings(folder), scored,
        scores.get("selected_on") == VALIDATION)


def _scoredCases(scores: Mapping[str, Any], items: Mapping[str, Mapping[str, Any]],
                 subjects: Mapping[str, str]) -> tuple[ScoredCase, ...]:
    found = []
    for case in scores.get("cases", ()):
        item = items.get(case["image"], {})
        identity = str(item.get("id", case["image"]))
        values = ({str(name): _fraction(value) for name, value in case["dice"].items()} if "dice" in case
                  else {"right": float(case["predicted"] == case["label"])})
        reference = _digest(item.get("path")) if "dice" in case else str(case["label"])
        found.append(ScoredCase(identity, subjects.get(identity, str(item.get("subject", identity))), reference,
                                values))
    return tuple(found)


def _fraction(value: Any) -> float | None:
    """A score; None: there was nothing to be found.

    Raises:
        ValueError: it is no score. Files of runs may come from other computers.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1):
        raise ValueError(f"{value!r} is no score")
    return value


def _items(folder: Path) -> dict[str, dict[str, Any]]:
    """The cases of a run by all names that they may have in its results, with the path of their annotation."""
    file = Path(RunFolder.open(folder).spec["inputs"]["dataset"])
    if not file.is_file():
        return {}
    found: dict[str, dict[str, Any]] = {}
    for item in (item for cases in read_json(file, "data set").values() if isinstance(cases, list) for item in cases):
        if not isinstance(item, dict) or "image" not in item:
            continue
        known = {**item, "path": file.parent / str(item.get("label", ""))}
        image = str(item["image"])
        relative = Path(image).relative_to(file.parent).as_posix() if Path(image).is_relative_to(file.parent) else image
        found |= {str(item.get("id", image)): known, image: known, relative: known}
    return found


def _digest(path: Path | None) -> str:
    """What tells an annotation apart from others of the case."""
    return sha256_of(path) if path is not None and path.is_file() else ""


def _settings(folder: Path) -> tuple[str, ...]:
    if not (folder / "spec.json").is_file():
        return ()
    config = RunFolder.open(folder).spec["config"]
    return tuple(f"{name}={config[name]}" for name in _DIFFERENCES if config.get(name) is not None)
