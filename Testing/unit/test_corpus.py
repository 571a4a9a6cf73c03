"""The corpus: what goes in comes out, and no interruption loses or spoils anything."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmae.datasets import Corpus, CorpusWriter
from medmae.errors import BadInput


def image(number, shape=(1, 3, 8, 9)):
    return np.random.default_rng(number).random(shape, dtype=np.float32)


def add(writer, number, **more):
    writer.add(f"case {number}", image(number), (2.0, 1.0, 0.5), "CT", {"kind": "ct_window"}, **more)


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def assert_same_items(one, other):
    first, second = ({item.id: (corpus.image(n).tobytes(), item.label and corpus.label(n).tobytes(), item.target)
                      for n, item in enumerate(corpus.items)} for corpus in (Corpus(one), Corpus(other)))
    assert first == second


def test_what_is_written_is_read_again(tmp_path):
    label = np.arange(3 * 8 * 9).reshape(3, 8, 9) % 200
    with CorpusWriter(tmp_path / "corpus") as writer:
        add(writer, 0, label=label, subject="p")
        writer.add("2-D", image(1, (3, 1, 5, 7)), (1, 1, 1), "DX", {}, target=(2, 0))
        writer.add("last", image(2)[:, ::-1, :, ::2], (1, 1, 1), "MR", {}, target=4)
    corpus = Corpus(tmp_path / "corpus")
    assert len(corpus) == 3
    first, second, third = corpus.items
    assert (first.id, first.shape, first.spacing_mm, first.modality) == ("case 0", (1, 3, 8, 9), (2.0, 1.0, 0.5), "CT")
    assert (first.normalisation, first.subject, first.target) == ({"kind": "ct_window"}, "p", None)
    assert (second.target, second.label, third.target) == ([2, 0], None, 4)
    assert corpus.image(0).dtype == np.float16 and not corpus.image(0).flags.writeable
    np.testing.assert_array_equal(corpus.image(0), image(0).astype(np.float16))
    np.testing.assert_array_equal(corpus.image(1), image(1, (3, 1, 5, 7)).astype(np.float16))
    np.testing.assert_array_equal(corpus.image(2), image(2)[:, ::-1, :, ::2].astype(np.float16))
    np.testing.assert_array_equal(corpus.label(0), label)
    with pytest.raises(BadInput, match="'2-D'.*no label map"):
        corpus.label(1)
    corpus.verify()


def test_the_files_are_as_the_format_says(tmp_path):
    with CorpusWriter(tmp_path) as writer:
        add(writer, 0)
        add(writer, 1, label=np.ones((3, 8, 9), np.uint8))
    data = json.loads((tmp_path / "corpus.json").read_text())
    assert data["version"] == 1 and len(data["items"]) == 2
    item = data["items"][1]
    raw = (tmp_path / "shard-00000.bin").read_bytes()[item["offset"]:][:2 * 3 * 8 * 9]
    assert raw == image(1).astype("<f2").tobytes()
    assert item["sha256"] == hashlib.sha256(raw).hexdigest()
    assert (tmp_path / "label-00000.bin").read_bytes() == bytes([1]) * 216
    assert sorted(file.name for file in tmp_path.iterdir()) == ["corpus.json", "label-00000.bin", "shard-00000.bin"]


def test_shards_have_at_most_the_asked_size_unless_one_image_is_larger(tmp_path):
    with CorpusWriter(tmp_path, shard_bytes=1000) as writer:
        for number in range(6):
            add(writer, number, label=np.full((3, 8, 9), number))
        writer.add("large", image(9, (1, 10, 10, 10)), (1, 1, 1), "CT", {})
    sizes = [file.stat().st_size for file in sorted(tmp_path.glob("shard-*.bin"))]
    assert sizes == [864, 864, 864, 2000]
    corpus = Corpus(tmp_path)
    assert [int(corpus.label(number).max()) for number in range(6)] == list(range(6))
    corpus.verify()
    assert not (tmp_path / "label-00003.bin").exists()


def mean_of_first(corpus: Corpus) -> float:
    return float(corpus.image(0).mean(dtype=np.float64))


def test_a_corpus_travels_to_another_process_without_its_maps(tmp_path):
    with CorpusWriter(tmp_path) as writer:
        writer.add("big", image(0, (1, 40, 64, 64)), (1, 1, 1), "CT", {})
    corpus = Corpus(tmp_path)
    expected = mean_of_first(corpus)  # maps the shard into memory
    assert len(ForkingPickler.dumps(corpus)) < 5000
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(mean_of_first, corpus).result(timeout=60) == expected


def test_an_exception_keeps_what_was_written_but_shows_no_corpus(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), CorpusWriter(tmp_path, shard_bytes=1000) as writer:
        for number in range(3):
            add(writer, number)
        raise RuntimeError("stop")
    with pytest.raises(BadInput, match="not finished"):
        Corpus(tmp_path)
    with CorpusWriter(tmp_path, shard_bytes=1000) as writer:
        assert [writer.has(f"case {number}") for number in range(4)] == [True, True, True, False]
        for number in range(4):
            add(writer, number)
    assert len(Corpus(tmp_path)) == 4
    Corpus(tmp_path).verify()


def test_a_finished_corpus_can_grow_and_is_readable_meanwhile(tmp_path):
    with CorpusWriter(tmp_path) as writer:
        add(writer, 0)
    with CorpusWriter(tmp_path) as writer:
        add(writer, 1)
        Corpus(tmp_path).verify()
        assert len(Corpus(tmp_path)) == 1
    assert [item.id for item in Corpus(tmp_path).items] == ["case 0", "case 1"]
    Corpus(tmp_path).verify()


@settings(max_examples=40)
@given(st.data())
def test_bytes_lost_or_added_at_the_end_are_made_good(tmp_path_factory, data):
    """Whatever the last write left behind: a cut journal line, cut or surplus voxels, damaged voxels."""
    folder, whole = tmp_path_factory.mktemp("cut"), tmp_path_factory.mktemp("whole")
    labels = [np.full((3, 8, 9), n) for n in range(5)]
    for target in (folder, whole):
        writer = CorpusWriter(target, shard_bytes=1000)
        for number in range(5):
            add(writer, number, label=labels[number], target=number)
        if target is whole:
            writer.close()
    names = ["items.jsonl", "shard-00002.bin", "label-00002.bin"]
    for name in data.draw(st.lists(st.sampled_from(names), max_size=3, unique=True)):
        file = folder / name
        raw = file.read_bytes()
        cut = data.draw(st.integers(0, len(raw)))
        file.write_bytes(raw[:cut] + data.draw(st.binary(max_size=20)) * (name != "items.jsonl"))
    with CorpusWriter(folder, shard_bytes=1000) as writer:
        for number in range(5):
            add(writer, number, label=labels[number], target=number)
    assert_same_items(folder, whole)
    Corpus(folder).verify()


def test_a_shard_that_is_gone_or_short_is_written_again(tmp_path):
    folder, whole = tmp_path / "part", tmp_path / "whole"
    for target in (folder, whole):
        with CorpusWriter(target, shard_bytes=1000) as writer:
            for number in range(7):
                add(writer, number)
    (folder / "shard-00000.bin").unlink()
    (folder / "shard-00001.bin").write_bytes((folder / "shard-00001.bin").read_bytes()[:-1])
    with CorpusWriter(folder, shard_bytes=1000) as writer:
        assert [writer.has(f"case {number}") for number in range(7)] == [False, False, True, False, True, True, True]
        for number in range(7):
            add(writer, number)
    assert_same_items(folder, whole)
    Corpus(folder).verify()


KILLED = """
import sys, numpy as np
from medmae.datasets import CorpusWriter
with CorpusWriter(sys.argv[1], shard_bytes=4_000_000) as writer:
    for number in range(100_000):
        array = np.random.default_rng(number).random((1, 4, 64, 64), dtype=np.float32)
        writer.add(f"case {number}", array, (1, 1, 1), "CT", {}, label=np.full((4, 64, 64), number % 7), target=number)
"""


def test_a_killed_writer_goes_on_where_it_stopped(tmp_path):
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
        journal, before = tmp_path / "items.jsonl", None
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            lines = journal.read_bytes().count(b"\n") if journal.exists() else 0
            before = lines if before is None and lines else before
            if before is not None and lines > before + 40:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with CorpusWriter(tmp_path) as writer:
        count = len(writer)
        assert count > 80
        assert all(writer.has(f"case {number}") for number in range(count))
        writer.add("after", image(0), (1, 1, 1), "CT", {})
    corpus = Corpus(tmp_path)
    corpus.verify()
    expected = np.random.default_rng(count - 1).random((1, 4, 64, 64), dtype=np.float32).astype(np.float16)
    np.testing.assert_array_equal(corpus.image(count - 1), expected)
    np.testing.assert_array_equal(corpus.image(count), image(0).astype(np.float16))
    assert sorted(file.suffix for file in tmp_path.iterdir() if file.suffix != ".bin") == [".json"]


def test_a_damaged_image_is_found_by_its_hash(tmp_path):
    with CorpusWriter(tmp_path) as writer:
        for number in range(3):
            add(writer, number, label=np.ones((3, 8, 9), np.uint8))
    raw = bytearray((tmp_path / "shard-00000.bin").read_bytes())
    raw[500] ^= 1
    (tmp_path / "shard-00000.bin").write_bytes(raw)
    raw = bytearray((tmp_path / "label-00000.bin").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "label-00000.bin").write_bytes(raw)
    seen = []
    with pytest.raises(BadInput) as caught:
        Corpus(tmp_path).verify(on_progress=lambda done, total: seen.append((done, total)))
    assert "image of 'case 1'" in str(caught.value) and "label map of 'case 2'" in str(caught.value)
    assert "'case 0'" not in str(caught.value) and seen == [(1, 3), (2, 3), (3, 3)]


def test_missing_and_short_files_are_named_before_anything_is_read(tmp_path):
    with CorpusWriter(tmp_path, shard_bytes=500) as writer:
        for number in range(2):
            add(writer, number)
    (tmp_path / "shard-00000.bin").unlink()
    (tmp_path / "shard-00001.bin").write_bytes(b"12")
    with pytest.raises(BadInput, match=r"shard-00000\.bin is missing(.|\n)*has 2 bytes instead of 432"):
        Corpus(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"version": 99, "items": []}', '{"version": 1}',
                                  '{"version": 1, "items": [3]}', '{"version": 1, "items": [{"id": "a"}]}'])
def test_a_list_that_is_not_one_is_refused(tmp_path, text):
    (tmp_path / "corpus.json").write_text(text)
    with pytest.raises(BadInput):
        Corpus(tmp_path)
    with pytest.raises(BadInput):
        CorpusWriter(tmp_path)
    with pytest.raises(BadInput, match="does not exist"):
        Corpus(tmp_path / "nowhere")


@pytest.mark.parametrize(("change", "message"), [
    ({"offset": -4}, "damaged"), ({"shape": [1, 2, 3]}, "damaged"), ({"shape": [1, 0, 3, 3]}, "damaged"),
    ({"shard": "../x"}, "shard"), ({"surprise": 1}, "surprise")])
def test_an_item_that_makes_no_sense_is_refused(tmp_path, change, message):
    with CorpusWriter(tmp_path) as writer:
        add(writer, 0)
    data = json.loads((tmp_path / "corpus.json").read_text())
    data["items"][0].update(change)
    (tmp_path / "corpus.json").write_text(json.dumps(data))
    with pytest.raises(BadInput, match=message):
        Corpus(tmp_path)


def test_what_a_corpus_cannot_hold_is_refused_and_leaves_it_whole(tmp_path):
    writer = CorpusWriter(tmp_path)
    add(writer, 0)
    before = content(tmp_path)
    for array, more, message in [
            (np.full((1, 1, 2, 2), np.nan), {}, "not finite"), (np.full((1, 1, 2, 2), 1e6), {}, "not finite"),
            (np.zeros((2, 2, 2)), {}, r"\(C, k, j, i\)"), (np.zeros((1, 0, 2, 2)), {}, r"\(C, k, j, i\)"),
            (np.zeros((1, 1, 2, 2)), {"label": np.zeros((1, 2, 3), int)}, "shape"),
            (np.zeros((1, 1, 2, 2)), {"label": np.full((1, 2, 2), 256)}, "0 to 255"),
            (np.zeros((1, 1, 2, 2)), {"label": np.zeros((1, 2, 2))}, "0 to 255")]:
        with pytest.raises(BadInput, match=message):
            writer.add("bad", array, (1, 1, 1), "CT", {}, **more)
    assert content(tmp_path) == before
    writer.close()
    assert [item.id for item in Corpus(tmp_path).items] == ["case 0"]


def test_a_corpus_made_with_other_settings_is_not_mixed(tmp_path):
    with pytest.raises(KeyboardInterrupt), CorpusWriter(tmp_path, settings={"spacing": (1, 1, 1)}) as writer:
        add(writer, 0)
        raise KeyboardInterrupt
    with pytest.raises(BadInput, match="other settings"):
        CorpusWriter(tmp_path, settings={"spacing": [2, 2, 2]})
    with CorpusWriter(tmp_path, settings={"spacing": [1, 1, 1]}) as writer:
        assert writer.has("case 0")
    assert Corpus(tmp_path).settings == {"spacing": [1, 1, 1]}
    with pytest.raises(BadInput, match="other settings"):
        CorpusWriter(tmp_path, settings={"spacing": [2, 2, 2]})
