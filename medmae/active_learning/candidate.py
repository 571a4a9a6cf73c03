"""A case that might be annotated next, and how useful that would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medmae.inference.interruption import ShouldStop
from medmae.inference.sliding_window import OnProgress
from medmae.volumes import Volume, read_image


@dataclass(frozen=True)
class Candidate:
    """A case to score.

    Attributes:
        id: unique among the cases; what is random depends on it and the seed alone.
        paths: its images, one for each channel file.
        frame: of 4-D images.
        on_progress: called with (parts done, parts in all).
        should_stop: asked on the way.
    """

    id: str
    paths: tuple[Path, ...]
    frame: int | None = None
    on_progress: OnProgress | None = None
    should_stop: ShouldStop | None = None

    @cached_property
    def images(self) -> Sequence[Volume]:
        """The images, read when a strategy first asks for them.

        Raises:
            BadInput: one cannot be read.
        """
        return [read_image(path, frame=self.frame) for path in self.paths]


@dataclass(frozen=True)
class Score:
    """How useful a case is.

    Attributes:
        value: higher is more useful; comparable between cases of one model and strategy only.
        facts: what else is worth telling, as JSON.
        labels: the predicted label map (k, j, i) on the grid of the image, where it was made on the way.
    """

    value: float
    facts: dict[str, Any] = field(default_factory=dict)
    labels: np.ndarray | None = None
