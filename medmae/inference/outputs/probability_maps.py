"""The probability of each label at each voxel, in 8 bits: 0 to 255 stand for 0 to 1."""

from __future__ import annotations

import errno
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from medmae.datasets.prepared import Prepared
from medmae.errors import BadInput
from medmae.inference.memory import format_memory
from medmae.inference.spilling import SpilledArrays
from medmae.volumes import Geometry
from medmae.volumes.region import Region

RELEASE_BYTES = 2**26
LONGEST_NAME = 60


class ProbabilityMaps:
    """Takes probabilities into one map for each foreground class, in a temporary file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prepared: Prepared | None = None
        self.pages = SpilledArrays(folder)
        self.maps: np.ndarray | None = None
        self.views: list[np.ndarray] = []
        self.written = 0

    def begin(self, prepared: Prepared) -> None:
        """Forget what was taken before; the maps are made with the first row, which tells the number of classes."""
        self.prepared, self.pages, self.maps = prepared, SpilledArrays(self.folder), None
        self.views, self.written = [], 0

    def take(self, row: int, lines: slice, probabilities: torch.Tensor) -> None:
        """Round to 8 bits; see `Taker`.

        Raises:
            BadInput: the disk has no room for the maps.
        """
        if self.maps is None:
            self._make(len(probabilities) - 1)
        assert self.maps is not None
        rounded = as_bytes(probabilities[1:])
        for view, values in zip(self.views, rounded, strict=True):
            view[row, lines] = values
        self.written += rounded.size
        if self.written > RELEASE_BYTES:
            self.pages.forget()
            self.written = 0

    def _make(self, count: int) -> None:
        assert self.prepared is not None
        shape = (count, *self.prepared.source_geometry.shape)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.maps = self.pages.empty(shape, np.uint8)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise
            raise BadInput(f"Probability maps need {format_memory(float(np.prod(shape)))} of room in {self.folder} "
                           "while they are made, and less is free. Free some, choose another --out, or leave them "
                           "out.") from None
        self.views = [self.prepared.target_view(one) for one in self.maps]

    def finished(self, region: Region | None, geometry: Geometry, count: int) -> Iterator[np.ndarray]:
        """The map (k, j, i) uint8 of each of `count` foreground classes, on the image's grid; 0 outside of the region.

        Of an image without anything to segment no rows came: 0 everywhere.
        """
        if self.maps is None:
            yield from (np.zeros(geometry.shape, np.uint8) for _ in range(count))
            return
        for one in self.maps:
            if region is not None:
                region.keep_outside(one, geometry)
            yield one
            self.pages.forget()


def as_bytes(values: torch.Tensor) -> np.ndarray:
    """Values in 0..1 as 0..255, rounded."""
    return (values * 255).round_().to(torch.uint8).cpu().numpy()


def file_names(labels: Sequence[str]) -> list[str]:
    """A short text for each label that any file system takes, none like another, also where case does not count."""
    names: list[str] = []
    taken: set[str] = set()
    for label in labels:
        safe = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", label)).strip("._")[:LONGEST_NAME] or "label"
        name, number = safe, 2
        while name.casefold() in taken:
            name, number = f"{safe}_{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names
