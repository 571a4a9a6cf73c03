"""Ways to tell how useful it is to annotate a case. A new one is a file with a function like those here, and one line.

``score(model, case, seed)`` takes a `MirroredModel`, a `Candidate` and a seed and returns a `Score`. It looks at the
case alone, must not depend on cases before, and gives finite numbers.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medmae.active_learning.candidate import Candidate, Score
    from medmae.active_learning.mirrored_model import MirroredModel

    Strategy = Callable[[MirroredModel, Candidate, int], Score]

_STRATEGIES = {
    "entropy": "medmae.active_learning.strategies.entropy",
    "random": "medmae.active_learning.strategies.random_order",
}


def strategy_names() -> tuple[str, ...]:
    """The names that ``--strategy`` takes."""
    return tuple(_STRATEGIES)


def strategy_called(name: str) -> Strategy:
    """The function of a strategy; imports torch."""
    return importlib.import_module(_STRATEGIES[name]).score
