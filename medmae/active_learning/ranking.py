"""Ranking cases from Python."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmae.active_learning.config import DEFAULT_STRATEGY, RankConfig
from medmae.active_learning.ordering import in_order
from medmae.active_learning.strategies import strategy_called
from medmae.datasets import Case
from medmae.errors import BadInput

if TYPE_CHECKING:  # imports torch
    from medmae.active_learning.mirrored_model import Model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RankedCase:
    """A case and its place.

    Attributes:
        rank: from 1, the most useful one.
        case: the case.
        score: higher is more useful.
        facts: what else the strategy tells, such as over how many voxels its score is a mean.
    """

    rank: int
    case: Case
    score: float
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking:
    """Cases in the order in which to annotate them, and those that could not be scored: (case, why)."""

    cases: list[RankedCase]
    failed: list[tuple[Case, str]]


def rank(model: Model | Sequence[Model], cases: Sequence[Case | str | Path], *, strategy: str = DEFAULT_STRATEGY,
         seed: int = 0, device: str = "auto", should_stop: Callable[[], bool] | None = None) -> Ranking:
    """Order cases by how useful it would be to annotate them, the most useful first.

        dataset = load_dataset("dataset.json")
        for one in medmae.active_learning.rank("runs/n4", dataset.cases("unlabeled")).cases[:5]:
            print(one.rank, one.case.id, one.score)

    The best case of each subject comes first, then the second best of each. What the scores mean: docs/annotating.md.

    Args:
        model: a segmentation or classification model: its name in the registry, its path, or a loaded one; or several
            that segment together.
        cases: cases of a dataset, or paths of images, each a case and a subject of its own.
        strategy: "entropy" (where the model is unsure) or "random".
        seed: of what is random in the strategy.
        device: auto, cpu, cuda or cuda:N.
        should_stop: asked on the way.

    Raises:
        BadInput: the model cannot be used, or the strategy does not exist. A case that cannot be used does not end the
            others: it is listed as failed.
        Stopped: `should_stop` said so.
    """
    try:
        config = RankConfig(strategy=strategy, seed=seed, device=device)
    except ValueError as error:
        raise BadInput(f"The cases cannot be ranked: {error}.") from error
    from medmae.active_learning.candidate import Candidate, Score
    from medmae.active_learning.mirrored_model import MirroredModel

    mirrored, score = MirroredModel(model, config), strategy_called(strategy)
    scored: list[tuple[Case, Score]] = []
    failed: list[tuple[Case, str]] = []
    for case in (one if isinstance(one, Case) else Case(str(one), (Path(one),)) for one in cases):
        try:
            found = score(mirrored, Candidate(case.id, case.images, should_stop=should_stop), seed)
            scored.append((case, Score(found.value, found.facts)))  # label maps of all cases would fill the memory
        except BadInput as error:
            log.error("%s: %s", case.id, error)
            failed.append((case, str(error)))
    ordered = in_order(scored, lambda one: one[1].value, lambda one: one[0].subject)
    return Ranking([RankedCase(number, case, found.value, found.facts)
                    for number, (case, found) in enumerate(ordered, start=1)], failed)
