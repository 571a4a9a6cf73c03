"""The items of a corpus as columns: about a hundred bytes each, so that millions fit into memory.

A `CorpusItem` object takes some two kilobytes; the table keeps numbers in arrays and texts in one buffer, and makes the
object when somebody asks for it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from medmae.datasets.corpus_items import IMAGE_TYPE, LABEL_TYPE, CorpusItem, LabelPlace

_SUBJECT_IS_NONE, _SUBJECT_IS_THE_ID = -1, -2
_RECENT = 1 << 16


class TextColumn:
    """Texts one after the other in a buffer; a sequence of str."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q")

    def append(self, text: str) -> None:
        """Add one text at the end."""
        self._bytes += text.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return self._bytes[start:self._ends[index]].decode("utf-8", "surrogateescape")


class Values:
    """Different values that occur again and again, each kept once; JSON data or text."""

    def __init__(self) -> None:
        self._known: dict[str | tuple[str], int] = {}
        self._values: list[Any] = []

    def number_of(self, value: Any) -> int:
        """The number of a value, new ones at the end."""
        key = value if type(value) is str else (repr(value),)
        number = self._known.setdefault(key, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, number: int) -> Any:
        return self._values[number]


class PlacesOfKeys:
    """Where each of many 64-bit keys stands, in 16 bytes a key; several places may share one key.

    New keys wait in a dictionary and join the sorted arrays when there are many.
    """

    def __init__(self) -> None:
        self._keys: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._places: NDArray[np.int64] = np.empty(0, np.int64)
        self._recent: dict[int, list[int]] = {}
        self._waiting = 0

    def add(self, key: int, place: int) -> None:
        """Note that `key` stands at `place`."""
        self._recent.setdefault(key, []).append(place)
        self._waiting += 1
        if self._waiting > max(_RECENT, len(self._keys) // 4):
            self._merge()

    def find(self, key: int) -> list[int]:
        """All places of `key`, in no particular order."""
        start, end = np.searchsorted(self._keys, np.uint64(key), "left"), np.searchsorted(self._keys, np.uint64(key),
                                                                                          "right")
        return [*self._places[start:end].tolist(), *self._recent.get(key, [])]

    def _merge(self) -> None:
        pairs = [(key, place) for key, places in self._recent.items() for place in places]
        keys = np.concatenate([self._keys, np.array([key for key, _ in pairs], np.uint64)])
        places = np.concatenate([self._places, np.array([place for _, place in pairs], np.int64)])
        order = np.argsort(keys, kind="stable")
        self._keys, self._places = keys[order], places[order]
        self._recent.clear()
        self._waiting = 0


class ItemTable(Sequence[CorpusItem]):
    """The items of a corpus; ``table[index]`` makes the `CorpusItem`, the columns below give one figure of all."""

    def __init__(self) -> None:
        self._ids = TextColumn()
        self._shard, self._offset = array("i"), array("q")
        self._shape, self._spacing = array("i"), array("d")
        self._sha256 = bytearray()
        self._modality, self._normalisation, self._target = array("i"), array("i"), array("i")
        self._subject = array("q")
        self._modalities, self._normalisations, self._targets = Values(), Values(), Values()
        self._subjects = TextColumn()
        self._labels: dict[int, LabelPlace] = {}

    def append(self, item: CorpusItem) -> None:
        """Add an item at the end."""
        if item.label is not None:
            self._labels[len(self)] = item.label
        self._ids.append(item.id)
        self._shard.append(item.shard)
        self._offset.append(item.offset)
        self._shape.extend(item.shape)
        self._spacing.extend(item.spacing_mm)
        self._sha256 += bytes.fromhex(item.sha256)
        self._modality.append(self._modalities.number_of(item.modality))
        self._normalisation.append(self._normalisations.number_of(item.normalisation))
        self._target.append(-1 if item.target is None else self._targets.number_of(item.target))
        self._subject.append(self._subject_number(item))

    def _subject_number(self, item: CorpusItem) -> int:
        if item.subject is None:
            return _SUBJECT_IS_NONE
        if item.subject == item.id:
            return _SUBJECT_IS_THE_ID
        last = len(self._subjects) - 1
        if last < 0 or self._subjects[last] != item.subject:  # the images of a subject follow each other as a rule
            self._subjects.append(item.subject)
            last += 1
        return last

    def __len__(self) -> int:
        return len(self._shard)

    @overload
    def __getitem__(self, index: int) -> CorpusItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[CorpusItem]: ...

    def __getitem__(self, index: int | slice) -> CorpusItem | list[CorpusItem]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else int(index)
        if not 0 <= number < len(self):
            raise IndexError(f"there is no item {index} among {len(self)}")
        identifier, target = self._ids[number], self._target[number]
        return CorpusItem(
            id=identifier, shard=self._shard[number], offset=self._offset[number],
            shape=tuple(self._shape[4 * number:4 * number + 4]),
            spacing_mm=tuple(self._spacing[3 * number:3 * number + 3]),
            modality=self._modalities[self._modality[number]],
            normalisation=self._normalisations[self._normalisation[number]],
            sha256=self.sha256(number), label=self._labels.get(number),
            target=None if target < 0 else self._targets[target], subject=self._subject_of(number, identifier))

    def _subject_of(self, number: int, identifier: str) -> str | None:
        found = self._subject[number]
        if found == _SUBJECT_IS_NONE:
            return None
        return identifier if found == _SUBJECT_IS_THE_ID else self._subjects[found]

    def __iter__(self) -> Iterator[CorpusItem]:
        return (self[number] for number in range(len(self)))

    def id(self, number: int) -> str:
        """The id of an item."""
        return self._ids[number]

    def sha256(self, number: int) -> str:
        """The SHA-256 of an item's stored image, hexadecimal."""
        return self._sha256[32 * number:32 * number + 32].hex()

    @property
    def shapes(self) -> NDArray[np.int64]:
        """(items, 4): the shapes (C, k, j, i)."""
        return np.array(self._shape, np.int64).reshape(-1, 4)

    @property
    def spacings_mm(self) -> NDArray[np.float64]:
        """(items, 3): the spacings (k, j, i)."""
        return np.array(self._spacing, np.float64).reshape(-1, 3)

    @property
    def modality_codes(self) -> tuple[str, ...]:
        """The modalities that occur, sorted."""
        return tuple(sorted(self._modalities[number] for number in range(len(self._modalities))))

    @property
    def modality_numbers(self) -> NDArray[np.int64]:
        """(items,): the place of each item's modality in `modality_codes`."""
        place = {code: number for number, code in enumerate(self.modality_codes)}
        sorted_places = np.array([place[self._modalities[number]] for number in range(len(self._modalities))], np.int64)
        return sorted_places[np.array(self._modality, np.int64)] if len(self) else np.empty(0, np.int64)

    def count_modalities(self) -> dict[str, int]:
        """Modality to number of items, the most frequent first."""
        counts = np.bincount(self.modality_numbers, minlength=len(self.modality_codes))
        pairs = zip(self.modality_codes, counts.tolist(), strict=True)
        return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))

    def count_subjects(self) -> int:
        """How many different subjects the items show; items without a subject count as one together."""
        numbers = np.array(self._subject, np.int64)
        named = {self._subjects[int(number)] for number in np.unique(numbers[numbers >= 0])}
        own = np.flatnonzero(numbers == _SUBJECT_IS_THE_ID)
        also_named = sum(self._ids[int(number)] in named for number in own) if named else 0
        return len(named) + len(own) - also_named + int((numbers == _SUBJECT_IS_NONE).any())

    def needed_bytes(self) -> Mapping[tuple[str, int], int]:
        """(kind, shard number) to the size that its file must have at least, for kinds "shard" and "label"."""
        if not len(self):
            return {}
        ends = np.array(self._offset, np.int64) + self.shapes.prod(axis=1) * IMAGE_TYPE.itemsize
        shards = np.array(self._shard, np.int64)
        largest = np.zeros(int(shards.max()) + 1, np.int64)
        np.maximum.at(largest, shards, ends)
        needed = {("shard", int(number)): int(largest[number]) for number in np.unique(shards)}
        for number, place in self._labels.items():
            end = place.offset + int(np.prod(self._shape[4 * number + 1:4 * number + 4])) * LABEL_TYPE.itemsize
            needed["label", place.shard] = max(needed.get(("label", place.shard), 0), end)
        return needed
