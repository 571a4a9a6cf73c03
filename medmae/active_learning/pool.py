"""The cases among which to choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmae.datasets import load_dataset
from medmae.errors import BadInput
from medmae.inference.cases import FoundCase, find_cases, image_name

UNLABELED = "unlabeled"


@dataclass(frozen=True)
class PoolCase:
    """A case, and what it is called.

    Attributes:
        found: its images; the name of its output is its id.
        name: in results: the id of the dataset, or the image as it was named.
        image: its (first) image in results.
        subject: whom it shows; where that is not known, the case stands for itself.
    """

    found: FoundCase
    name: str
    image: str
    subject: str


def pool_of(inputs: Mapping[str, Any], out: Path | None = None) -> list[PoolCase]:
    """The cases that the inputs of a run name: ``dataset`` and ``split``, or ``images``.

    Raises:
        BadInput: both are named, or neither, or there are no cases.
    """
    if bool(inputs.get("dataset")) == bool(inputs.get("images")):
        raise BadInput("Name the cases to rank, either by --dataset (with --split KEY) or by --images.")
    if inputs.get("images"):
        return [PoolCase(case, str(case.images[0]), str(case.images[0]), str(case.images[0]))
                for case in find_cases(inputs["images"], out)]
    dataset, split = load_dataset(inputs["dataset"]), inputs.get("split") or UNLABELED
    cases = dataset.cases(split)
    if not cases:
        raise BadInput(f"The list '{split}' of {dataset.path} is empty, so there is nothing to rank. Choose another "
                       "list with --split.")
    return [PoolCase(FoundCase(case.images, case.id), case.id, image_name(dataset, case), case.subject)
            for case in cases]
