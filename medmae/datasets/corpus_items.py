"""What a corpus is made of: items, their place in the files, and the names of these files."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmae.config import from_json
from medmae.errors import BadInput

VERSION = 1
CORPUS_FILE = "corpus.json"
JOURNAL_FILE = "items.jsonl"
IMAGE_TYPE = np.dtype("<f2")
LABEL_TYPE = np.dtype("u1")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class LabelPlace:
    """Where the label map of an item lies: in ``label-NNNNN.bin`` at a byte offset."""

    shard: int
    offset: int
    sha256: str


@dataclass(frozen=True)
class CorpusItem:
    """One image of a corpus.

    Attributes:
        id: unique in the corpus.
        shard: number of the ``shard-NNNNN.bin`` that holds it.
        offset: where it begins there, in bytes.
        shape: (C, k, j, i); a 2-D image is (C, 1, rows, cols).
        spacing_mm: (k, j, i).
        modality: DICOM code.
        normalisation: how the intensities were normalised.
        sha256: of the stored bytes.
        label: the label map of shape (k, j, i), if there is one.
        target: class index, or indices when several may apply.
        subject: whom the image shows.
    """

    id: str
    shard: int
    offset: int
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    modality: str
    normalisation: dict
    sha256: str
    label: LabelPlace | None = None
    target: int | list[int] | None = None
    subject: str | None = None

    @property
    def image_bytes(self) -> int:
        """Size of the stored image."""
        return math.prod(self.shape) * IMAGE_TYPE.itemsize

    @property
    def label_bytes(self) -> int:
        """Size of the stored label map."""
        return math.prod(self.shape[1:]) * LABEL_TYPE.itemsize


def shard_name(kind: str, number: int) -> str:
    """File name of a shard; `kind` is "shard" (images) or "label"."""
    return f"{kind}-{number:05d}.bin"


def sha256_of_array(array: NDArray[Any]) -> str:
    """SHA-256 of an array's bytes, hexadecimal."""
    return hashlib.sha256(array.data).hexdigest()


def item_to_json(item: CorpusItem) -> dict[str, Any]:
    """An item as JSON data."""
    # Not asdict, which copies every value deeply: the slowest part of writing millions of items.
    return {**vars(item), "label": None if item.label is None else dict(vars(item.label))}


def item_from_json(data: Any, where: str) -> CorpusItem:
    """The opposite of ``item_to_json``.

    Raises:
        BadInput: a key is missing, unknown or of the wrong type, or a number is negative.
    """
    if not isinstance(data, Mapping):
        raise BadInput(f"The {where} is not an object.")
    item = from_json(CorpusItem, data, where)
    numbers = [item.shard, item.offset, *([item.label.shard, item.label.offset] if item.label else [])]
    if not _SHA256.fullmatch(item.sha256):
        raise BadInput(f"The {where} is damaged: its sha256 is {item.sha256!r}.")
    if len(item.shape) != 4 or min(item.shape) < 1 or min(numbers) < 0 or len(item.spacing_mm) != 3:
        raise BadInput(f"The {where} is damaged: shape {item.shape}, spacing {item.spacing_mm}, place {numbers}.")
    return item
