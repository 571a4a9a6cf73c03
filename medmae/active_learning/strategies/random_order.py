"""Cases in random order: what every other strategy has to beat.

The score is drawn from the seed and the case's id alone, so that neither the other cases nor their order change it. No
image is opened.
"""

from __future__ import annotations

from medmae.active_learning.candidate import Candidate, Score
from medmae.active_learning.mirrored_model import MirroredModel
from medmae.datasets.drawing import seeded_rank

DIGITS = 13  # hexadecimal ones, all that a float holds exactly


def score(model: MirroredModel, case: Candidate, seed: int) -> Score:  # noqa: ARG001 - it asks no model
    """A number from 0 to 1, evenly distributed."""
    return Score(int(seeded_rank(seed, "rank", case.id)[:DIGITS], 16) / 16**DIGITS)
