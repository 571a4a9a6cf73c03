"""What a project remembers of predictions and of the order of its cases, beside project.json: next.json."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from MedMAESegmentLib.Translation import tr as _

from medmae.config import from_json, to_json
from medmae.errors import BadInput
from medmae.files import read_json, write_json

NEXT_FILE = "next.json"
VERSION = 1


@dataclass(frozen=True)
class CasePrediction:
    """Who has drawn the prediction of a case.

    model, weights - Name and SHA-256 of the model.
    file - Path of the segmentation, as the case names it.
    """

    case: str
    model: str
    weights: str
    file: str


@dataclass(frozen=True)
class CaseScore:
    """How useful it is to annotate a case: higher is more useful."""

    case: str
    score: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):
            raise ValueError(f"the score of {self.case} is no number")


@dataclass(frozen=True)
class RankingData:
    """Scores of cases, which can be compared because one model gave all of them in the same way.

    model, weights - Name and SHA-256 of the model.
    strategy, seed - What makes a case useful.
    created - When the last score was added, ISO 8601.
    """

    model: str
    weights: str
    strategy: str
    seed: int
    created: str
    scores: tuple[CaseScore, ...] = ()

    def isLike(self, other: RankingData) -> bool:
        """Whether the scores of both can be compared."""
        return (self.weights, self.strategy, self.seed) == (other.weights, other.strategy, other.seed)


@dataclass(frozen=True)
class NextData:
    """All that next.json says."""

    predictions: tuple[CasePrediction, ...] = ()
    ranking: RankingData | None = None

    def __post_init__(self) -> None:
        for cases in ([one.case for one in self.predictions],
                      [] if self.ranking is None else [one.case for one in self.ranking.scores]):
            if len(set(cases)) < len(cases):
                raise ValueError(f"the case {Counter(cases).most_common(1)[0][0]} stands there twice")


def readNext(folder: Path) -> NextData:
    """What the project in a folder remembers.

    Raises:
        BadInput: the file is damaged, or of a newer MedMAE.
    """
    file = folder / NEXT_FILE
    if not file.exists():
        return NextData()
    try:
        data = read_json(file, "order of cases")
        if not isinstance(data, Mapping) or not isinstance(data.get("version"), int):
            raise BadInput("It is no order of cases.")
        if data["version"] > VERSION:
            raise BadInput("It was written by a newer MedMAE.")
        return from_json(NextData, {key: value for key, value in data.items() if key != "version"}, "order of cases")
    except (BadInput, OSError) as error:
        raise BadInput(_("The order of the cases, {file}, cannot be read: {problem} Predict and rank again; "
                         "annotations and predictions are not affected.").format(
            file=file, problem=str(error).rstrip(".") + ".")) from error


def writeNext(folder: Path, data: NextData) -> None:
    """Write it; what was there is replaced.

    Raises:
        OSError: it cannot be written.
    """
    write_json(folder / NEXT_FILE, {"version": VERSION, **to_json(data)})
