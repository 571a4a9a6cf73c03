"""Cases of which the model is most unsure: the entropy of the mean of its predictions of the mirrored image.

Segmentation. Every window is seen as it is and mirrored along every combination of the axes along which training has
mirrored images (`mirrorings`), the softmaxes are averaged (overlapping windows are blended as always), and each voxel v
of the image has the entropy

    H(v) = -sum over classes of p(v) ln p(v) / ln(number of classes),    0 (certain) to 1 (all classes as likely).

The score is the mean of H over the voxels where the classes other than background have together at least `FROM`
probability: the predicted foreground and what surrounds it. It is 0 where there is no such voxel. Why not the mean over
all voxels, and how `FROM` was chosen: docs/results/rank.md.

Classification. The entropy of the mean of the class probabilities of the mirrored images, divided by ln(classes); where
several classes may apply, the mean over the classes of the entropy of yes and no, divided by ln(2).
"""

from __future__ import annotations

import math

import numpy as np
import torch

from medmae.active_learning.candidate import Candidate, Score
from medmae.active_learning.mirrored_model import MirroredModel
from medmae.datasets.prepared import Prepared
from medmae.inference.outputs.uncertainty import normalised_entropy
from medmae.metrics import predicted_classes

FROM = 0.1


def score(model: MirroredModel, case: Candidate, seed: int) -> Score:  # noqa: ARG001 - nothing is random
    """From 0 to 1."""
    if model.task == "classification":
        return _of_classes(model, model.classify(case))
    measure = MeanEntropy()
    labels = model.segment(case, measure)
    found = int(np.count_nonzero(labels != model.segmenter.values[0]))
    return Score(measure.mean, {"voxels": measure.voxels, "foreground_voxels": found}, labels)


class MeanEntropy:
    """Takes probabilities (background first) into the mean entropy of the voxels that may be foreground."""

    def __init__(self) -> None:
        self._sum, self.voxels = 0.0, 0

    @property
    def mean(self) -> float:
        """0 where no voxel may be foreground."""
        return self._sum / self.voxels if self.voxels else 0.0

    def begin(self, prepared: Prepared) -> None:
        """See `Taker`."""

    def take(self, row: int, lines: slice, probabilities: torch.Tensor) -> None:
        """See `Taker`."""
        if row == 0 and lines.start == 0:  # the first one, perhaps again
            self._sum, self.voxels = 0.0, 0
        counted = probabilities[0] <= 1 - FROM
        self.voxels += int(counted.sum())
        self._sum += float(normalised_entropy(probabilities)[counted].sum(dtype=torch.float64))


def _of_classes(model: MirroredModel, probabilities: np.ndarray) -> Score:
    several = model.info.multi_label
    chances = np.stack([probabilities, 1 - probabilities]) if several else probabilities[:, None]
    entropy = -np.sum(chances * np.log(np.maximum(chances, np.finfo(float).tiny)), 0) / math.log(len(chances))
    chosen = [model.classifier.names[one] for one in predicted_classes(probabilities, multi_label=several)]
    return Score(float(np.clip(entropy.mean(), 0, 1)),
                 {"label": ", ".join(chosen) or "none", "probabilities":
                  {name: float(one) for name, one in zip(model.classifier.names, probabilities, strict=True)}})
