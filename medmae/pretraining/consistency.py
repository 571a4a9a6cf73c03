"""Agreement between teacher and student embeddings: projection head, cross-entropy or negative cosine.

The form of GL-MAE's consistency term is not stated in any reachable source (docs/methods.md). The default is the
self-distillation form of its lineage: teacher probabilities, centred and sharpened, are the target of the student's.
The other is that of its lineage without prototypes: the student predicts the teacher's projection.

All pairs of views count, also those of the same view: the teacher sees it whole and the student masked, so that they
differ, and the arrow is drawn in the paper's framework figure.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import nn

from medmae.training.distributed import mean_over_processes


class Projector(nn.Module):
    """CLS embedding (B, D) to prototype scores (B, K): three-layer MLP, then cosines in the bottleneck.

    Without prototypes (0) the projection (B, bottleneck) itself comes out.
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(),
                                    nn.Linear(hidden, bottleneck))
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck)) if prototypes else None
        if self.prototypes is not None:
            nn.init.trunc_normal_(self.prototypes, std=0.02)
        _initialise(self.layers)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Cosine similarity of the projected embedding to every prototype, or the projection."""
        projected = self.layers(embedding).float()
        if self.prototypes is None:
            return projected
        return F.normalize(projected, dim=-1) @ F.normalize(self.prototypes.float(), dim=-1).T


class Consistency(nn.Module):
    """Cross-entropy of the student's distribution against the teacher's, for all pairs of views.

    Teacher scores are centred, brought to unit spread and sharpened, with the mean and spread of the batch at hand
    (over all processes). A running centre, as in self-distillation on millions of pictures, fails for the few volumes
    a batch that 3-D memory allows: targets become uniform or all the same within twenty steps (docs/methods.md).
    Student scores are centred and brought to unit spread alike, by the views of the process: the same answer for every
    image, the cheapest way to a lower cross-entropy early on, is then out of reach.

    Args:
        student_temperature, teacher_temperature: in standard deviations; the lower, the sharper the distribution.
    """

    def __init__(self, student_temperature: float, teacher_temperature: float) -> None:
        super().__init__()
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature

    def targets(self, scores: torch.Tensor) -> torch.Tensor:
        """Teacher scores (B, views, K) to target probabilities."""
        return (centred_to_unit_spread(scores) / self.teacher_temperature).softmax(-1)

    def forward(self, targets: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of student scores (B, views, K) against targets (B, teacher views, K), all pairs."""
        centred = scores - scores.mean((0, 1))
        spread = (centred.square().mean() + 1e-12).sqrt()
        log_probabilities = (centred / (spread * self.student_temperature)).log_softmax(-1)
        return -torch.einsum("btk,bsk->bts", targets, log_probabilities).mean()


class NegativeCosine(nn.Module):
    """Negative cosine between what the student predicts and the teacher's projection, for all pairs of views.

    Three things keep it from the trivial agreement on one constant: a predictor (two layers) on the student's side
    alone, so that student and teacher are not interchangeable; the teacher's projections are centred by the mean of the
    batch at hand (over all processes), after which a constant has no direction left that could be matched; and a floor
    under the spread of the student's projections over the volumes of a batch (hinge, as in variance regularisation).
    Batches of a few volumes need the floor: without it the embeddings collapse (docs/methods.md).
    """

    def __init__(self, bottleneck: int, hidden: int) -> None:
        super().__init__()
        self.predictor = nn.Sequential(nn.Linear(bottleneck, hidden), nn.GELU(), nn.Linear(hidden, bottleneck))
        _initialise(self.predictor)

    def targets(self, projections: torch.Tensor) -> torch.Tensor:
        """Teacher projections (B, views, D) to directions of unit length."""
        return F.normalize(centred_to_unit_spread(projections), dim=-1)

    def forward(self, targets: torch.Tensor, projections: torch.Tensor) -> torch.Tensor:
        """Mean negative cosine of student projections (B, views, D) to targets (B, teacher views, D), all pairs.

        Missing spread is added: from 0, where projections have unit spread over volumes, to 1, where all are alike.
        """
        predicted = F.normalize(self.predictor(projections).float(), dim=-1)
        cosines = torch.einsum("btd,bsd->bts", targets, predicted)
        return missing_spread(projections) - cosines.mean()


def missing_spread(projections: torch.Tensor) -> torch.Tensor:
    """How far the standard deviation over volumes of (B, views, D), view-averaged, falls short of 1; mean over D.

    0 for a single volume, which has no spread.
    """
    per_volume = projections.float().mean(1)
    if len(per_volume) < 2:
        return per_volume.new_zeros(())
    deviation = (per_volume.var(0, correction=0) + 1e-6).sqrt()
    return F.relu(1 - deviation).mean()


def centred_to_unit_spread(values: torch.Tensor) -> torch.Tensor:
    """(B, views, K) minus their mean over batch and views, divided by their spread; over all processes."""
    centred = values - mean_over_processes(values.mean((0, 1)))
    return centred / mean_over_processes(centred.square().mean()).sqrt().clamp_min(1e-8)


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Mean entropy of distributions over the last axis, in units of the largest possible: 1 is uniform, 0 one-hot."""
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(-1).mean() / math.log(probabilities.shape[-1])


def _initialise(layers: nn.Module) -> None:
    for layer in layers.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
