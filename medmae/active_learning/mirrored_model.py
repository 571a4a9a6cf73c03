"""A model as strategies see it: its predictions are means over mirrored images, and stream past row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medmae.active_learning.candidate import Candidate
from medmae.active_learning.config import RankConfig
from medmae.active_learning.mirroring import Mirrored, MirroredMean, mirrorings
from medmae.errors import BadInput
from medmae.inference.classifier import Classifier, view_logits
from medmae.inference.loaded_model import LoadedModel, load_members
from medmae.inference.outputs.row_outputs import RowOutputs, Taker
from medmae.inference.pooling import pool_slices
from medmae.inference.segment_run import segmenter_for
from medmae.metrics import probabilities_of
from medmae.models import load_info, resolve_model

Model = str | Path | LoadedModel


class MirroredModel:
    """A model, or an ensemble of models that segment, as it is asked about cases.

    Args:
        model: name in the registry, path of a model or run folder, or a model already loaded; or several of them, whose
            probabilities are averaged.
        config: where and how precisely it computes.

    Attributes:
        info: the description of the (first) model.
        names: those of all models.
        mirrored: for each model the combinations of axes along which it sees images mirrored.
        segmenter: of a segmentation model.
        classifier: of a classification model.

    Raises:
        BadInput: the model cannot be used, or the device does not exist.
    """

    def __init__(self, model: Model | Sequence[Model], config: RankConfig) -> None:
        task = _task_of(model)
        members = load_members(model, task=task, device=config.device, precision=config.precision)
        if task == "classification" and len(members) > 1:
            raise BadInput("Several models answer together for segmentation only. Name one model that classifies.")
        self.info = members[0].info
        self.names = [member.info.name for member in members]
        self.task = self.info.task
        self.mirrored = [mirrorings(member.info, config.mirror) for member in members]
        if task == "segmentation":
            networks = [MirroredMean(one.network, axes).eval()
                        for one, axes in zip(members, self.mirrored, strict=True)]
            self.segmenter = segmenter_for(
                [replace(one, network=network) for one, network in zip(members, networks, strict=True)],
                config.as_segment())
        else:
            self.classifier = Classifier(members[0], batch=config.batch)

    @property
    def passes(self) -> int:
        """Forward passes of each window."""
        return sum(map(len, self.mirrored))

    def segment(self, case: Candidate, taker: Taker | None = None) -> np.ndarray:
        """The label map (k, j, i) of a case on the grid of its image, by the mean of the mirrored predictions.

        Args:
            case: what to segment.
            taker: takes the mean probabilities of all voxels, row by row. They never exist together; where the image
                holds nothing to segment there are none.

        Raises:
            BadInput: the image does not fit the model.
            Stopped: the case says so.
        """
        sink = None if taker is None else RowOutputs([taker])
        return self.segmenter.segment(case.images, sink=sink, on_progress=case.on_progress,
                                      should_stop=case.should_stop)

    def classify(self, case: Candidate) -> np.ndarray:
        """The mean over the mirrorings of the class probabilities of a case, (K,) float64, calibrated where the model
        is.

        Raises:
            BadInput: the image does not fit the model.
            Stopped: the case says so.
        """
        classifier, model = self.classifier, self.classifier.model
        prepared = model.preprocessing.prepare(case.images)
        probabilities = []
        for number, axes in enumerate(self.mirrored[0]):

            def report(done: int, total: int, number: int = number) -> None:
                if case.on_progress is not None:
                    case.on_progress(number * total + done, self.passes * total)

            logits = view_logits(Mirrored(model.network, axes).eval(), prepared.array, model.window,
                                 device=model.device, context=model.preprocessing.context, precision=model.precision,
                                 batch=classifier.batch, on_progress=report, should_stop=case.should_stop)
            pooled = pool_slices(logits, classifier.pooling).double().numpy()
            probabilities.append(probabilities_of(pooled, classifier.temperature, multi_label=self.info.multi_label))
        return np.mean(probabilities, 0)


def _task_of(model: Model | Sequence[Model]) -> str:
    """Of the first model; an encoder counts as a segmentation model, and is refused as one."""
    first = model if isinstance(model, (str, Path, LoadedModel)) else next(iter(model), None)
    if first is None:
        raise BadInput("No model is named. Name one, or several that answer together.")
    info = first.info if isinstance(first, LoadedModel) else load_info(resolve_model(first))
    return "segmentation" if info.task == "encoder" else info.task
