"""A corpus: normalised images in a few large files, the one thing that training reads, in 2-D and 3-D alike.

``corpus.json`` {version, settings, items} describes raw little-endian float16 ``shard-NNNNN.bin`` (images) and uint8
``label-NNNNN.bin`` (class indices), which are mapped into memory. Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmae.datasets.corpus_file import read_corpus_file
from medmae.datasets.corpus_items import (
    CORPUS_FILE,
    IMAGE_TYPE,
    JOURNAL_FILE,
    LABEL_TYPE,
    CorpusItem,
    sha256_of_array,
    shard_name,
)
from medmae.datasets.corpus_table import ItemTable
from medmae.datasets.corpus_writer import CorpusWriter
from medmae.datasets.problems import raise_problems
from medmae.errors import BadInput

__all__ = ["Corpus", "CorpusItem", "CorpusWriter", "ItemTable"]


class Corpus:
    """A finished corpus, read by memory mapping; can be handed to other processes.

    `items` is a sequence of `CorpusItem` that are made on demand, with columns of single figures (`ItemTable`).

    Raises:
        BadInput: the corpus is missing, unfinished, damaged, or shorter than its list says.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        file = self.folder / CORPUS_FILE
        if not file.exists() and (self.folder / JOURNAL_FILE).exists():
            raise BadInput(f"The corpus {self.folder} is not finished: its making was interrupted. "
                           "Run the same command again; it goes on where it stopped.")
        self.settings: dict[str, Any] | None
        self.items: ItemTable
        self.settings, self.items = read_corpus_file(file, "Make the corpus anew.")
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
        problems = []
        for (kind, number), size in self.items.needed_bytes().items():
            name = shard_name(kind, number)
            file = self.folder / name
            if not file.is_file():
                problems.append(f"The file {name} is missing.")
            elif file.stat().st_size < size:
                problems.append(f"The file {name} has {file.stat().st_size} bytes instead of {size}.")
        raise_problems(problems, f"The corpus {self.folder}",
                       "Copy it again completely, or delete it and make it anew.")
