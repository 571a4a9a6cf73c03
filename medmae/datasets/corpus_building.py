"""Turning the cases of a dataset into a corpus: read, bring to the network's grid, normalise, store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from medmae.config import to_json
from medmae.datasets.corpus import Corpus, CorpusWriter
from medmae.datasets.dataset import Case, Dataset
from medmae.datasets.preprocessing import Prepared, Preprocessing
from medmae.errors import Stopped

log = logging.getLogger(__name__)


def build_corpus(
    folder: Path,
    dataset: Dataset,
    cases: Sequence[Case],
    preprocessing: Preprocessing,
    *,
    with_labels: bool,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> Corpus:
    """Write the corpus of `cases` (already validated) to `folder`, or finish one that was interrupted; returns it.

    With `with_labels`, segmentation cases get a label map of class indices (k, j, i), classification cases a target:
    the class index, or a list of indices.

    Raises:
        BadInput: a file cannot be used.
        Stopped: `should_stop` became true; what is written stays and is used by the next call.
    """
    normalisation = {"intensity": [to_json(intensity) for intensity in preprocessing.intensity]}
    with CorpusWriter(folder, settings=to_json(preprocessing)) as writer:
        for number, case in enumerate(cases):
            if should_stop():
                raise Stopped(f"Stopped after preparing {number} of {len(cases)} cases, as asked. "
                              "Continue with --resume.")
            if not writer.has(case.id):
                prepared = prepare_case(case, preprocessing)
                label = target = None
                if with_labels:
                    label = _label(case, dataset, preprocessing, prepared)
                    target = _target(case, dataset)
                writer.add(case.id, prepared.array, prepared.geometry.spacing_mm, dataset.modalities[0], normalisation,
                           label=label, target=target, subject=case.subject)
            on_progress(number + 1, len(cases))
    return Corpus(folder)


def prepare_case(case: Case, preprocessing: Preprocessing) -> Prepared:
    """Read the image files of a case and prepare them as one network input."""
    from medmae.volumes import read_image

    return preprocessing.prepare([read_image(path) for path in case.images])


def _label(case: Case, dataset: Dataset, preprocessing: Preprocessing, prepared: Prepared) -> np.ndarray | None:
    from medmae.volumes import read_label

    if case.label is None:
        return None
    return preprocessing.prepare_label(read_label(case.label), prepared, dataset.class_of_value)


def _target(case: Case, dataset: Dataset) -> int | list[int] | None:
    index = dataset.class_of_value
    if case.class_value is None:
        return None
    if isinstance(case.class_value, tuple):
        return [index[int(value)] for value in case.class_value]
    return index[int(case.class_value)]
