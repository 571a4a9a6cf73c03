"""Items as columns: what goes in comes out, one item and all of them, and the lists read by line are as strict."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmae.datasets.corpus_file import read_corpus_file, write_corpus_file
from medmae.datasets.corpus_items import CorpusItem, LabelPlace
from medmae.datasets.corpus_table import ItemTable, PlacesOfKeys, TextColumn
from medmae.errors import BadInput

texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)
items = st.builds(
    CorpusItem, id=texts, shard=st.integers(0, 9), offset=st.integers(0, 2**40),
    shape=st.tuples(*[st.integers(1, 500)] * 4), spacing_mm=st.tuples(*[st.floats(0.1, 9)] * 3),
    modality=st.sampled_from(["CT", "MR", "DX"]),
    normalisation=st.dictionaries(st.sampled_from("ab"), st.integers(0, 2), max_size=2),
    sha256=st.text(string.hexdigits[:16].lower(), min_size=64, max_size=64),
    label=st.none() | st.builds(LabelPlace, st.integers(0, 9), st.integers(0, 2**40), st.just("0" * 64)),
    target=st.none() | st.integers(0, 5) | st.lists(st.integers(0, 5), max_size=3),
    subject=st.none() | texts)


@settings(max_examples=60)
@given(st.lists(items, max_size=8, unique_by=lambda item: item.id))
def test_columns_give_back_every_item_and_what_the_items_say(found: list[CorpusItem]) -> None:
    table = ItemTable()
    for item in found:
        table.append(item)
    assert list(table) == found and table[:] == found and len(table) == len(found)
    if found:
        assert table[-1] == found[-1]
        assert table.shapes.tolist() == [list(item.shape) for item in found]
        assert [table.modality_codes[number] for number in table.modality_numbers] == [item.modality for item in found]
        assert table.spacings_mm.tolist() == [list(item.spacing_mm) for item in found]
    assert sum(table.count_modalities().values()) == len(found)
    assert table.count_subjects() == len({item.subject for item in found})
    needed: dict[tuple[str, int], int] = {}
    for item in found:
        places = [(("shard", item.shard), item.offset + item.image_bytes)]
        places += [(("label", item.label.shard), item.label.offset + item.label_bytes)] if item.label else []
        for key, end in places:
            needed[key] = max(needed.get(key, 0), end)
    assert dict(table.needed_bytes()) == needed


@settings(max_examples=40)
@given(st.lists(items, max_size=6, unique_by=lambda item: item.id), st.sampled_from([None, 1, 4]))
def test_a_list_is_read_alike_line_by_line_and_in_any_other_layout(
        tmp_path_factory: pytest.TempPathFactory, found: list[CorpusItem], indent: int | None) -> None:
    file = tmp_path_factory.mktemp("list") / "corpus.json"
    write_corpus_file(file, {"a": [1]}, found)
    read, table = read_corpus_file(file, "")
    assert (read, list(table)) == ({"a": [1]}, found)
    file.write_text(json.dumps(json.loads(file.read_text()), indent=indent))
    read, table = read_corpus_file(file, "")
    assert (read, list(table)) == ({"a": [1]}, found)


@pytest.mark.parametrize("change", [
    {"offset": -4}, {"shape": [1, 2, 3]}, {"shape": [1, 0, 3, 3]}, {"shard": "x"}, {"surprise": 1}, {"shape": 3},
    {"sha256": "z" * 64}, {"sha256": "ab"}, {"spacing_mm": [1, 2]}, {"modality": 3}, {"id": None}, {"subject": 4}])
def test_reading_line_by_line_is_as_strict(tmp_path: Path, change: dict[str, object]) -> None:
    item = CorpusItem("a", 0, 0, (1, 1, 2, 2), (1.0, 1.0, 1.0), "CT", {}, "0" * 64)
    write_corpus_file(tmp_path / "corpus.json", None, [item, item])
    lines = (tmp_path / "corpus.json").read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), **change})
    (tmp_path / "corpus.json").write_text("\n".join(lines) + "\n")
    with pytest.raises(BadInput, match="item 1"):
        read_corpus_file(tmp_path / "corpus.json", "")


@pytest.mark.parametrize("end", ["", "\n]", "\n]}\nmore", "\n{"])
def test_a_list_that_ends_too_early_or_too_late_is_refused(tmp_path: Path, end: str) -> None:
    item = CorpusItem("a", 0, 0, (1, 1, 2, 2), (1.0, 1.0, 1.0), "CT", {}, "0" * 64)
    write_corpus_file(tmp_path / "corpus.json", None, [item])
    text = (tmp_path / "corpus.json").read_text().removesuffix("\n]}\n")
    (tmp_path / "corpus.json").write_text(text + end)
    with pytest.raises(BadInput, match="not valid JSON"):
        read_corpus_file(tmp_path / "corpus.json", "")


def test_keys_are_found_wherever_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmae.datasets.corpus_table._RECENT", 20)
    keys = np.random.default_rng(0).integers(0, 2**64, 500, np.uint64, endpoint=False).tolist()
    keys[300] = keys[7]
    places = PlacesOfKeys()
    for place, key in enumerate(keys):
        places.add(key, place)
        assert place in places.find(key)
    assert sorted(places.find(keys[7])) == [7, 300]
    assert places.find(12345) == []


def test_texts_of_file_names_that_are_not_unicode_survive() -> None:
    column = TextColumn()
    for text in ("", "ä", "\udcff.png", "end"):
        column.append(text)
    assert [column[index] for index in range(4)] == ["", "ä", "\udcff.png", "end"]
