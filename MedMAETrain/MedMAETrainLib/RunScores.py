"""How well the model of a run does on each case, whichever way the run has told it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from MedMAESegmentLib.Translation import tr as _

from medmae.errors import BadInput
from medmae.files import read_json
from medmae.run_folder import RunFolder

CROSS_VALIDATION, VALIDATION = "cross_validation", "validation"
TOLD_AT_MOST = 30  # worst cases that a record of progress tells of
_OWN_NAMES = "cases.json"  # of a run on another computer: whose each neutral name is


@dataclass(frozen=True)
class CaseScore:
    """One case.

    case - Its id in the data set of the run.
    value - From 0 to 1; None: the reference has nothing that could be found.
    parts - Of each label.
    """

    case: str
    value: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class RunScores:
    """The scores of a run.

    how - "cross_validation": each case by a model that has not seen it; "validation": of cases that only watched.
    name - What each case is scored by.
    overall - (name, value) of what the run is judged by.
    cases - The worst first.
    isWhole - Whether these are all cases; a run under way tells of the worst only.
    """

    how: str
    name: str
    overall: tuple[str, float | None]
    cases: tuple[CaseScore, ...]
    isWhole: bool = True


def scoresOf(run: RunFolder, validation: Mapping[str, Any] | None = None) -> RunScores | None:
    """The scores of a run: of its finished model, or those of `validation`, its last record with a score.

    None: there are none. Scores come from files that may lie on other computers: what makes no sense is left out.
    """
    for file, how in ((f"{CROSS_VALIDATION}.json", CROSS_VALIDATION), (f"{VALIDATION}.json", VALIDATION)):
        found = _read(run.path / file)
        cases = [case for case in _objects(found.get("cases")) if isinstance(case.get("image"), str)]
        if cases:
            return _scores(found, cases, how, _casesByImage(run))
    return _ofProgress(validation or {}, _casesByNeutralName(run.path))


def _scores(found: Mapping[str, Any], cases: list[dict[str, Any]], how: str, ids: Mapping[str, str]) -> RunScores:
    isSegmentation = any(isinstance(case.get("dice"), dict) for case in cases)
    made = [_segmented(case) if isSegmentation else _classified(case) for case in cases]
    scored = [CaseScore(ids.get(one.case, one.case), one.value, one.parts) for one in made]
    overall = (_("Mean Dice"), found.get("mean_dice")) if isSegmentation else (_("AUC"), found.get("auc"))
    return RunScores(how, _scoreName(isSegmentation), (overall[0], _fraction(overall[1])), _worstFirst(scored))


def _ofProgress(record: Mapping[str, Any], ids: Mapping[str, str]) -> RunScores | None:
    cases = [case for case in _objects(record.get("validation_cases")) if isinstance(case.get("case"), str)]
    if not cases:
        return None
    isSegmentation = any("dice" in case for case in cases)
    key, figure = ("dice", "validation_dice") if isSegmentation else ("probability", "validation_auc")
    overall = (_("Mean Dice") if isSegmentation else _("AUC"), _fraction(record.get(figure)))
    scored = [CaseScore(ids.get(case["case"], case["case"]), _fraction(case.get(key))) for case in cases]
    return RunScores(VALIDATION, _scoreName(isSegmentation), overall, _worstFirst(scored), len(cases) < TOLD_AT_MOST)


def _scoreName(isSegmentation: bool) -> str:
    return _("Dice") if isSegmentation else _("Probability of the true class")


def _worstFirst(cases: list[CaseScore]) -> tuple[CaseScore, ...]:
    return tuple(sorted(cases, key=lambda one: (one.value is None, one.value or 0.0, one.case)))


def _segmented(case: Mapping[str, Any]) -> CaseScore:
    dice = case.get("dice")
    parts = {str(name): _fraction(value) for name, value in dice.items()} if isinstance(dice, dict) else {}
    values = [value for value in parts.values() if value is not None]
    return CaseScore(case["image"], fmean(values) if values else None, parts)


def _classified(case: Mapping[str, Any]) -> CaseScore:
    label, probabilities = case.get("label"), case.get("probabilities")
    given = probabilities if isinstance(probabilities, dict) else {}
    parts = {str(name): _fraction(value) for name, value in given.items()}
    truth = {str(one) for one in label} if isinstance(label, list) else {str(label)}
    several = isinstance(label, list)  # each class then has a probability of its own
    right = [value if name in truth else 1 - value for name, value in parts.items()
             if value is not None and (several or name in truth)]
    return CaseScore(case["image"], fmean(right) if right else None, parts)


def _casesByImage(run: RunFolder) -> dict[str, str]:
    """What results call a case (a path, as the data set has it) to its id."""
    found: dict[str, str] = {}
    for case in _named(_read(run.path / _OWN_NAMES).get("cases")):
        found |= {str(name): str(case["id"]) for name in (case.get("name"), *(case.get("images") or ())) if name}
    try:
        dataset = Path(str(run.spec["inputs"].get("dataset") or ""))
    except (BadInput, OSError):  # of a run on another computer, only what it has made is here
        return found
    for items in _read(dataset if dataset.is_absolute() else run.path / dataset).values():
        for case in _named(items):
            image = case.get("image")
            found |= {str(one): str(case["id"]) for one in (image if isinstance(image, list) else [image]) if one}
    return found


def _casesByNeutralName(folder: Path) -> dict[str, str]:
    cases = _read(folder / _OWN_NAMES).get("cases")
    return {name: str(case["id"]) for name, case in cases.items()
            if isinstance(case, dict) and "id" in case} if isinstance(cases, dict) else {}


def _objects(items: Any) -> list[dict[str, Any]]:
    return [one for one in items if isinstance(one, dict)] if isinstance(items, list) else []


def _named(items: Any) -> list[dict[str, Any]]:
    values = list(items.values()) if isinstance(items, dict) else items
    return [one for one in _objects(values) if "id" in one]


def _read(file: Path) -> dict[str, Any]:
    try:
        data = read_json(file)
    except (BadInput, OSError):  # not there, or just being written: what else there is will do
        return {}
    return data if isinstance(data, dict) else {}


def _fraction(value: Any) -> float | None:
    isUsable = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    return float(value) if isUsable else None
