"""How sure a model is of each label: the mean probability of the class over the voxels where it is the most likely.

Taken on the network's own grid while the image is restored, where the winners are known anyway: probabilities are
computed of what is not background only, and of a sample of it in planes that are full of it; of classes that are rare
in such a plane all points are taken, so that the mean of a small lesion does not depend on few of its voxels.
"""

from __future__ import annotations

import torch

from medmae.networks.voxel_head import DISAGREE, VoxelHead

MOST_POINTS = 4096  # of a plane; the mean over an image has some hundred planes


class Confidence:
    """Takes planes of features into sums for each class.

    Args:
        classes: how many there are; the first is background.
    """

    def __init__(self, classes: int) -> None:
        self._sums = torch.zeros((2, classes), dtype=torch.float64)  # of probabilities, and of voxels

    def take(self, features: torch.Tensor, winners: torch.Tensor, head: VoxelHead) -> None:
        """Take a plane.

        Args:
            features: (F, j, i) float32.
            winners: (j, i): the winning class, or a negative number where several may win.
            head: from features to logits.
        """
        flat = winners.reshape(-1)
        points = flat.nonzero()[:, 0]
        if len(points) <= MOST_POINTS:
            self._add(features, points, head, 1.0)
            return
        found = flat[points].long() - DISAGREE
        is_rare = (torch.bincount(found) <= MOST_POINTS // head.classes)[found]
        self._add(features, points[is_rare], head, 1.0)
        points = points[~is_rare]
        sample = points[::-(-len(points) // MOST_POINTS)]
        self._add(features, sample, head, len(points) / len(sample))

    def _add(self, features: torch.Tensor, points: torch.Tensor, head: VoxelHead, weight: float) -> None:
        """Take points of a plane, each for `weight` of them."""
        probabilities = torch.softmax(head.logits(features.flatten(1).index_select(1, points)), 0)
        highest, winner = (each.cpu() for each in probabilities.max(0))
        self._sums.index_add_(1, winner, torch.stack([highest, torch.ones_like(highest)]).double() * weight)

    def means(self) -> list[float | None]:
        """The mean of each class but background; None for classes that won nowhere."""
        return [total / count if count else None for total, count in self._sums[:, 1:].T.tolist()]
