"""A corpus: normalised images in a few large files, the one thing that training reads, in 2-D and 3-D alike.

``corpus.json`` {version, items} describes raw little-endian float16 ``shard-NNNNN.bin`` (images) and uint8
``label-NNNNN.bin`` (class indices), which are mapped into memory. Needs numpy alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmae.config import from_json
from medmae.datasets.problems import raise_problems
from medmae.errors import BadInput
from medmae.files import read_json

VERSION = 1
CORPUS_FILE = "corpus.json"
JOURNAL_FILE = "items.jsonl"
IMAGE_TYPE = np.dtype("<f2")
LABEL_TYPE = np.dtype("u1")


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
    return dataclasses.asdict(item)


def item_from_json(data: Any, where: str) -> CorpusItem:
    """The opposite of ``item_to_json``.

    Raises:
        BadInput: a key is missing, unknown or of the wrong type, or a number is negative.
    """
    if not isinstance(data, Mapping):
        raise BadInput(f"The {where} is not an object.")
    item = from_json(CorpusItem, data, where)
    numbers = [item.shard, item.offset, *([item.label.shard, item.label.offset] if item.label else [])]
    if len(item.shape) != 4 or min(item.shape) < 1 or min(numbers) < 0 or len(item.spacing_mm) != 3:
        raise BadInput(f"The {where} is damaged: shape {item.shape}, spacing {item.spacing_mm}, place {numbers}.")
    return item


class Corpus:
    """A finished corpus, read by memory mapping; can be handed to other processes.

    Raises:
        BadInput: the corpus is missing, unfinished, damaged, or shorter than its list says.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        file = self.folder / CORPUS_FILE
        if not file.exists() and (self.folder / JOURNAL_FILE).exists():
            raise BadInput(f"The corpus {self.folder} is not finished: its making was interrupted. "
                           "Run the same command again; it goes on where it stopped.")
        data = read_json(file, "corpus")
        if not isinstance(data, dict) or data.get("version") != VERSION or not isinstance(data.get("items"), list):
            raise BadInput(f"{file} is not a corpus of version {VERSION}. Make the corpus anew.")
        self.settings: dict[str, Any] | None = data.get("settings")
        self.items: list[CorpusItem] = [item_from_json(item, f"corpus {self.folder}, item {number}")
                                        for number, item in enumerate(data["items"])]
        self._maps: dict[tuple[str, int], np.memmap] = {}
        self._check_sizes()

    def __len__(self) -> int:
        return len(self.items)

    def image(self, index: int) -> NDArray[np.float16]:
        """The image as a read-only view of the file, shape (C, k, j, i), float16."""
        item = self.items[index]
        return self._view("shard", item.shard, item.offset, item.image_bytes).view(IMAGE_TYPE).reshape(item.shape)

    def label(self, index: int) -> NDArray[np.uint8]:
        """The class indices as a read-only view of the file, shape (k, j, i), uint8.

        Raises:
            BadInput: the item has no label map.
        """
        item = self.items[index]
        if item.label is None:
            raise BadInput(f"The item '{item.id}' of the corpus {self.folder} has no label map.")
        return self._view("label", item.label.shard, item.label.offset, item.label_bytes).reshape(item.shape[1:])

    def verify(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Compare every stored image and label map with its SHA-256.

        Raises:
            BadInput: some differ; the message lists them.
        """
        damaged = []
        for index, item in enumerate(self.items):
            if sha256_of_array(self.image(index)) != item.sha256:
                damaged.append(f"The image of '{item.id}' is damaged ({shard_name('shard', item.shard)}).")
            if item.label and sha256_of_array(self.label(index)) != item.label.sha256:
                damaged.append(f"The label map of '{item.id}' is damaged ({shard_name('label', item.label.shard)}).")
            if on_progress:
                on_progress(index + 1, len(self.items))
        raise_problems(damaged, f"The corpus {self.folder}", "Delete the corpus and make it anew.")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # an open map would be sent to a loader process as a full copy

    def _view(self, kind: str, shard: int, offset: int, size: int) -> NDArray[np.uint8]:
        if (kind, shard) not in self._maps:
            self._maps[kind, shard] = np.memmap(self.folder / shard_name(kind, shard), dtype=LABEL_TYPE, mode="r")
        return self._maps[kind, shard][offset:offset + size]

    def _check_sizes(self) -> None:
        needed: dict[str, int] = {}
        for item in self.items:
            places = [(shard_name("shard", item.shard), item.offset + item.image_bytes)]
            if item.label:
                places.append((shard_name("label", item.label.shard), item.label.offset + item.label_bytes))
            for name, end in places:
                needed[name] = max(needed.get(name, 0), end)
        problems = []
        for name, size in needed.items():
            file = self.folder / name
            if not file.is_file():
                problems.append(f"The file {name} is missing.")
            elif file.stat().st_size < size:
                problems.append(f"The file {name} has {file.stat().st_size} bytes instead of {size}.")
        raise_problems(problems, f"The corpus {self.folder}",
                       "Copy it again completely, or delete it and make it anew.")
