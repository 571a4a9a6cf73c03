"""``corpus.json`` and the journal: JSON with one item a line, read and written line by line.

Any JSON of the same content is read too, but whole: the layout is what lets millions of items be read in little memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medmae.datasets.corpus_items import VERSION, CorpusItem, item_from_json, item_to_json
from medmae.datasets.corpus_table import ItemTable
from medmae.errors import BadInput
from medmae.files import atomic_path, read_json

_KEYS = frozenset(CorpusItem.__dataclass_fields__)
_OPENING, _CLOSING = b'"items": [\n', b"]}\n"


def read_corpus_file(file: Path, remedy: str) -> tuple[dict[str, Any] | None, ItemTable]:
    """The settings and the items of a ``corpus.json``.

    Raises:
        BadInput: the file is missing, is no corpus of this version, or an item makes no sense.
    """
    table = ItemTable()
    settings = _read_lines(file, table)
    if settings is not None:
        return settings["settings"], table
    data, table = read_json(file, "corpus"), ItemTable()
    if not isinstance(data, dict) or data.get("version") != VERSION or not isinstance(data.get("items"), list):
        raise BadInput(f"{file} is not a corpus of version {VERSION}. {remedy}")
    for number, entry in enumerate(data["items"]):
        table.append(item_of(entry, f"corpus {file.parent}, item {number}"))
    return data.get("settings"), table


def _read_lines(file: Path, table: ItemTable) -> dict[str, Any] | None:
    """Fill the table from a file of the usual layout and return its head; None when it is laid out otherwise."""
    if not file.is_file():
        return None
    where = f"corpus {file.parent}, item"
    with open(file, "rb") as stream:
        first = stream.readline(1 << 20)
        if not first.endswith(_OPENING):
            return None
        try:
            head = json.loads(first + _CLOSING)
        except ValueError:
            return None
        if head.get("version") != VERSION or set(head) != {"version", "settings", "items"}:
            return None
        for number, line in enumerate(stream):
            if line == _CLOSING:
                return None if stream.read(1) else head
            try:
                entry = json.loads(line.rstrip(b",\n").decode())
            except ValueError:
                return None  # the whole-file reader says where it is damaged
            table.append(item_of(entry, f"{where} {number}"))
    return None


def write_corpus_file(file: Path, settings: Mapping[str, Any] | None, items: Iterable[CorpusItem]) -> None:
    """Write ``corpus.json`` atomically, item by item."""
    with atomic_path(file) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write(f'{{"version": {VERSION}, "settings": {json.dumps(settings)}, "items": [\n')
        separator = ""
        for item in items:
            stream.write(f"{separator} {line_of(item)}")
            separator = ",\n"
        stream.write("\n]}\n")


def line_of(item: CorpusItem) -> str:
    """An item as one line of JSON, without the end of the line."""
    return json.dumps(item_to_json(item), allow_nan=False)


def item_of(entry: Any, where: str) -> CorpusItem:
    """A JSON object as an item: plain well-formed ones quickly, all others by the strict reader that names the fault.

    Raises:
        BadInput: the entry makes no sense.
    """
    return _quickly(entry) or item_from_json(entry, where)


def _quickly(entry: Any) -> CorpusItem | None:
    if type(entry) is not dict or not entry.keys() <= _KEYS:
        return None
    try:
        shape, spacing, sha256 = entry["shape"], entry["spacing_mm"], entry["sha256"]
        label, target, subject = entry.get("label"), entry.get("target"), entry.get("subject")
        k, j, i = spacing
        c, z, y, x = shape
        bytes.fromhex(sha256)
        sound = (type(entry["id"]) is str and type(entry["shard"]) is int and type(entry["offset"]) is int
                 and entry["shard"] >= 0 and entry["offset"] >= 0 and type(entry["modality"]) is str
                 and type(entry["normalisation"]) is dict and type(sha256) is str and len(sha256) == 64
                 and type(k) is type(j) is type(i) is float and type(c) is type(z) is type(y) is type(x) is int
                 and min(shape) >= 1 and (subject is None or type(subject) is str)
                 and (target is None or type(target) is int) and label is None)
    except (KeyError, ValueError, TypeError):
        return None
    if not sound:
        return None
    return CorpusItem(entry["id"], entry["shard"], entry["offset"], (c, z, y, x), (k, j, i), entry["modality"],
                      entry["normalisation"], sha256, label, target, subject)


def read_journal(file: Path) -> Iterator[tuple[int, Any]]:
    """Number and JSON data of the whole lines of a journal; a half line that a killed writer left ends it."""
    with open(file, "rb") as stream:
        for number, line in enumerate(stream):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                entry = None
            if entry is None:
                return
            yield number, entry
