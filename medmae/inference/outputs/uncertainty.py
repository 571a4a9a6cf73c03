"""Where a model is unsure: the entropy of the class probabilities of each voxel.

``-sum(p * log(p)) / log(K)`` over the K classes (background is one): 0 where one class is certain, 1 where all are as
likely. In 8 bits, 0 to 255 stand for 0 to 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from medmae.datasets.prepared import Prepared
from medmae.inference.outputs.probability_maps import as_bytes
from medmae.volumes import Geometry
from medmae.volumes.region import Region


class UncertaintyMap:
    """Takes probabilities into a map of their normalised entropy."""

    def __init__(self) -> None:
        self.map: np.ndarray | None = None
        self.view = np.empty((0, 0, 0), np.uint8)

    def begin(self, prepared: Prepared) -> None:
        """Make a new map."""
        self.map, self.view = prepared.blank(np.uint8)

    def take(self, row: int, lines: slice, probabilities: torch.Tensor) -> None:
        """See `Taker`."""
        self.view[row, lines] = as_bytes(normalised_entropy(probabilities))

    def finished(self, region: Region | None, geometry: Geometry) -> np.ndarray:
        """The map (k, j, i) uint8 on the image's grid; 0 outside of the region, and where there is nothing to segment.
        """
        if self.map is None:
            return np.zeros(geometry.shape, np.uint8)
        if region is not None:
            region.keep_outside(self.map, geometry)
        return self.map


def normalised_entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """0..1 of probabilities (K, ...)."""
    return (torch.special.entr(probabilities).sum(0) / math.log(len(probabilities))).clamp(0, 1)
