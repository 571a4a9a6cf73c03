"""Writing a corpus so that an interruption at any moment loses nothing that was already written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medmae.datasets.corpus_file import item_of, line_of, read_corpus_file, read_journal, write_corpus_file
from medmae.datasets.corpus_items import (
    CORPUS_FILE,
    IMAGE_TYPE,
    JOURNAL_FILE,
    LABEL_TYPE,
    CorpusItem,
    LabelPlace,
    sha256_of_array,
    shard_name,
)
from medmae.datasets.corpus_table import ItemTable, PlacesOfKeys
from medmae.errors import BadInput
from medmae.files import atomic_path

DEFAULT_SHARD_BYTES = 1 << 30


class CorpusWriter:
    """Writes items one after the other; what a former, interrupted writer left in the folder is kept.

    An item's bytes are written first, then a line of the journal ``items.jsonl``; bytes without a whole line are cut
    off at the next start. ``close`` writes ``corpus.json`` last and atomically, so a corpus is whole or absent. Leaving
    the ``with`` block by an exception keeps the journal and writes no ``corpus.json``. One writer at a time.

    Args:
        folder: made when absent.
        shard_bytes: a shard is closed when the next image would make it larger.
        settings: how the corpus is made; going on with other settings is refused.

    Raises:
        BadInput: the folder holds a corpus with other settings, or one that cannot be read.
    """

    def __init__(self, folder: Path | str, shard_bytes: int = DEFAULT_SHARD_BYTES, *,
                 settings: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._shard_bytes = shard_bytes
        self._settings = json.loads(json.dumps(settings)) if settings is not None else None
        self._items = ItemTable()
        self._places_of_ids, self._places_of_content = PlacesOfKeys(), PlacesOfKeys()
        self._read_finished()
        self._read_journal()
        self._drop_lost()
        needed = self._items.needed_bytes()
        self._shard = max((shard for _, shard in needed), default=0)
        self._files = {kind: self._open_shard(kind, keep=needed.get((kind, self._shard), 0))
                       for kind in ("shard", "label")}
        self._journal: IO[str] = self._start_journal()

    def has(self, id: str) -> bool:
        """Whether the item is already there."""
        return self._place_of(id) is not None

    def same_content(self, sha256: str) -> str | None:
        """The id of an item whose stored image has this SHA-256, or None."""
        places = self._places_of_content.find(_key_of_sha256(sha256))
        return next((self._items.id(place) for place in sorted(places) if self._items.sha256(place) == sha256), None)

    @property
    def items(self) -> ItemTable:
        """What is there, in the order in which it was added."""
        return self._items

    def __len__(self) -> int:
        return len(self._items)

    def add(self, id: str, array: ArrayLike, spacing_mm: tuple[float, ...], modality: str,
            normalisation: Mapping[str, Any], *, label: ArrayLike | None = None,
            target: int | list[int] | tuple[int, ...] | None = None, subject: str | None = None) -> CorpusItem:
        """Append one image of shape (C, k, j, i), already normalised; an item that is already there is left as it is.

        Args:
            id: the item's id.
            array: the image, stored as float16.
            spacing_mm: (k, j, i).
            modality: DICOM code.
            normalisation: how it was normalised.
            label: class indices 0..255 of shape (k, j, i).
            target: class index or indices.
            subject: whom the image shows.

        Raises:
            BadInput: the image holds values that are not finite (in float16), or the label map does not fit it.
        """
        place_of_item = self._place_of(id)
        if place_of_item is not None:
            return self._items[place_of_item]
        image = _image_bytes(id, array)
        label_map = None if label is None else _label_bytes(id, label, image.shape[1:])
        self._roll(image.nbytes)
        place = None if label_map is None else LabelPlace(self._shard, self._append("label", label_map),
                                                          sha256_of_array(label_map))
        offset = self._append("shard", image)
        item = CorpusItem(id, self._shard, offset, image.shape, tuple(float(value) for value in spacing_mm),
                          modality, dict(normalisation), sha256_of_array(image), place,
                          list(map(int, target)) if isinstance(target, (list, tuple)) else target, subject)
        self._journal.write(line_of(item) + "\n")
        self._journal.flush()
        self._remember(item)
        return item

    def _remember(self, item: CorpusItem) -> None:
        self._places_of_ids.add(_key_of_text(item.id), len(self._items))
        self._places_of_content.add(_key_of_sha256(item.sha256), len(self._items))
        self._items.append(item)

    def _place_of(self, id: str) -> int | None:
        return next((place for place in self._places_of_ids.find(_key_of_text(id)) if self._items.id(place) == id),
                    None)

    def close(self) -> None:
        """Make everything durable and write ``corpus.json``."""
        self._close_files()
        write_corpus_file(self.folder / CORPUS_FILE, self._settings, self._items)
        (self.folder / JOURNAL_FILE).unlink(missing_ok=True)

    def __enter__(self) -> CorpusWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._close_files()

    def _close_files(self) -> None:
        for file in self._files.values():
            _close_durably(file)
            if Path(file.name).exists() and not Path(file.name).stat().st_size:
                Path(file.name).unlink()  # a corpus without label maps has no label files
        _close_durably(self._journal)

    def _read_finished(self) -> None:
        file = self.folder / CORPUS_FILE
        if not file.exists():
            return
        settings, items = read_corpus_file(file, "Delete it or choose another folder.")
        self._take_settings(settings)
        for item in items:
            self._remember(item)

    def _read_journal(self) -> None:
        file = self.folder / JOURNAL_FILE
        if not file.exists():
            return
        for number, entry in read_journal(file):
            if number == 0:
                self._take_settings(entry["settings"])
            else:
                item = item_of(entry, f"journal {file}, line {number + 1}")
                if not self.has(item.id):
                    self._remember(item)

    def _take_settings(self, found: Any) -> None:
        if self._settings is not None and found is not None and found != self._settings:
            raise BadInput(f"The corpus {self.folder} was made with other settings. "
                           "Delete it, or choose another folder for this one.")
        self._settings = self._settings if self._settings is not None else found

    def _drop_lost(self) -> None:
        """Forget items whose bytes did not reach the disk (power failure, incomplete copy) and shards without items.

        Closed shards are durable, so of these only the size is looked at; what the last one holds is compared whole.
        """
        last = max((shard for _, shard in self._items.needed_bytes()), default=0)
        sizes = {file.name: file.stat().st_size for file in self.folder.glob("*.bin")}
        found = self._items
        self._items, self._places_of_ids, self._places_of_content = ItemTable(), PlacesOfKeys(), PlacesOfKeys()
        for item in found:
            if self._is_intact(item, sizes, compare=item.shard == last):
                self._remember(item)
        for kind in ("shard", "label"):
            for file in self.folder.glob(f"{kind}-*.bin"):
                if file.name > shard_name(kind, last):
                    file.unlink()

    def _is_intact(self, item: CorpusItem, sizes: Mapping[str, int], *, compare: bool) -> bool:
        wanted = [(shard_name("shard", item.shard), item.offset, item.image_bytes, item.sha256)]
        if item.label:
            place = item.label
            wanted.append((shard_name("label", place.shard), place.offset, item.label_bytes, place.sha256))
        for name, offset, size, sha256 in wanted:
            if sizes.get(name, 0) < offset + size:
                return False
            if compare:
                with open(self.folder / name, "rb") as stream:
                    stream.seek(offset)
                    if hashlib.sha256(stream.read(size)).hexdigest() != sha256:
                        return False
        return True

    def _open_shard(self, kind: str, keep: int) -> IO[bytes]:
        file = open(self.folder / shard_name(kind, self._shard), "ab")  # noqa: SIM115 - kept open for the next items
        file.truncate(keep)
        file.seek(0, os.SEEK_END)
        return file

    def _start_journal(self) -> IO[str]:
        # Rewritten whole, so that a half line of a killed writer does not stick to the next line.
        with atomic_path(self.folder / JOURNAL_FILE) as temporary, open(temporary, "w", encoding="utf-8") as stream:
            stream.write(json.dumps({"settings": self._settings}) + "\n")
            stream.writelines(f"{line_of(item)}\n" for item in self._items)
        return open(self.folder / JOURNAL_FILE, "a", encoding="utf-8")  # noqa: SIM115 - kept open for the next items

    def _roll(self, size: int) -> None:
        end = self._files["shard"].tell()
        if end == 0 or end + size <= self._shard_bytes:
            return
        for file in self._files.values():
            _close_durably(file)
        self._shard += 1
        # A new shard is empty: what may lie there belongs to no item.
        self._files = {kind: self._open_shard(kind, keep=0) for kind in ("shard", "label")}

    def _append(self, kind: str, array: NDArray[Any]) -> int:
        file = self._files[kind]
        offset = file.tell()
        file.write(array.data)
        file.flush()
        return offset


def _key_of_text(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


def _key_of_sha256(sha256: str) -> int:
    return int(sha256[:16], 16)


def _close_durably(file: IO[Any]) -> None:
    if file.closed:
        return
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _image_bytes(identifier: str, array: ArrayLike) -> NDArray[np.float16]:
    image = np.asarray(array)
    if image.ndim != 4 or image.size == 0:
        raise BadInput(f"The image '{identifier}' has the shape {image.shape}; (C, k, j, i) is needed.")
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(image, dtype=IMAGE_TYPE)
    if not np.isfinite(stored).all():
        raise BadInput(f"The image '{identifier}' has values that are not finite after normalisation (or beyond 65504, "
                       "the largest that a corpus holds). Check the image and its intensity settings.")
    return stored


def _label_bytes(identifier: str, label: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    label_map = np.asarray(label)
    if label_map.shape != shape:
        raise BadInput(f"The label map of '{identifier}' has the shape {label_map.shape}, but its image has {shape}.")
    if not np.issubdtype(label_map.dtype, np.integer) or label_map.min() < 0 or label_map.max() > 255:
        raise BadInput(f"The label map of '{identifier}' must hold class indices from 0 to 255.")
    return np.ascontiguousarray(label_map, dtype=LABEL_TYPE)
