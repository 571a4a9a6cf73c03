"""Agreement between teacher and student embeddings: projection head, cross-entropy with centring and sharpening.

The form of GL-MAE's consistency term is not stated in any reachable source (docs/methods.md); this is the
self-distillation form of its lineage: teacher probabilities, centred and sharpened, are the target of the student's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import nn

from medmae.training.distributed import mean_over_processes


class Projector(nn.Module):
    """CLS embedding (B, D) to prototype scores (B, K): three-layer MLP, then cosines in the bottleneck."""

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(),
                                    nn.Linear(hidden, bottleneck))
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        nn.init.trunc_normal_(self.prototypes, std=0.02)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Cosine similarity of the projected embedding to every prototype."""
        projected = F.normalize(self.layers(embedding).float(), dim=-1)
        return projected @ F.normalize(self.prototypes.float(), dim=-1).T


class Consistency(nn.Module):
    """Cross-entropy of the student's distribution against the teacher's, for all pairs of views.

    Teacher scores are centred, brought to unit spread and sharpened, with the mean and spread of the batch at hand
    (over all processes). A running centre, as in self-distillation on millions of pictures, fails for the few volumes
    a batch that 3-D memory allows: targets become uniform or all the same within twenty steps (docs/methods.md).

    All pairs count, also those of the same view: the teacher sees it whole and the student masked, so that they
    differ, and the arrow is drawn in the paper's framework figure.
    """

    def __init__(self, student_temperature: float, teacher_temperature: float) -> None:
        super().__init__()
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature

    def targets(self, scores: torch.Tensor) -> torch.Tensor:
        """Teacher scores (B, views, K) to target probabilities; the temperature counts in standard deviations."""
        centred = scores - mean_over_processes(scores.mean((0, 1)))
        spread = mean_over_processes(centred.square().mean()).sqrt().clamp_min(1e-8)
        return (centred / (spread * self.teacher_temperature)).softmax(-1)

    def forward(self, targets: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of student scores (B, views, K) against targets (B, teacher views, K), all pairs."""
        log_probabilities = (scores / self.student_temperature).log_softmax(-1)
        return -torch.einsum("btk,bsk->bts", targets, log_probabilities).mean()


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Mean entropy of distributions over the last axis, in units of the largest possible: 1 is uniform, 0 one-hot."""
    largest = torch.log(torch.tensor(float(probabilities.shape[-1])))
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(-1).mean() / largest.to(probabilities.device)
