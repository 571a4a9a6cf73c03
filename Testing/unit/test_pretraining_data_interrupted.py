"""Preparing pretraining corpora: the same bytes however it is computed, stopped, killed or short of memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pretraining_images import (
    a_mix,
    bad_ones,
    content,
    grey,
    prepare,
    rows,
    texture,
    write,
)

from medmae.datasets import Corpus, CorpusItem, CorpusWriter
from medmae.errors import Stopped
from medmae.pretraining import image_preparation
from medmae.pretraining.sources import sources_of_images
from medmae.run_folder import RunFolder


def test_the_corpus_is_the_same_whatever_the_number_of_processes(tmp_path: Path) -> None:
    a_mix(tmp_path / "images")
    bad_ones(tmp_path / "images" / "bad")
    sources = sources_of_images([str(tmp_path / "images")])
    for workers in (0, 1, 3):
        prepare(tmp_path / f"corpus {workers}", sources, workers)
    assert content(tmp_path / "corpus 0") == content(tmp_path / "corpus 1") == content(tmp_path / "corpus 3")
    Corpus(tmp_path / "corpus 3").verify()


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from medmae.pretraining.sources import sources_of_images
from pretraining_images import prepare
prepare(Path(sys.argv[2]), sources_of_images([sys.argv[1]]), workers=2)
"""


def test_killed_and_begun_again_the_corpus_is_the_same(tmp_path: Path) -> None:
    for number in range(150):
        grey(tmp_path / "images" / f"{number:03d}.png", number, (60, 60))
        if number % 10 == 0:
            (tmp_path / "images" / f"{number:03d} bad.png").write_text("bad")
            grey(tmp_path / "images" / f"{number:03d} copy.png", 3, (60, 60))
    write(tmp_path / "images" / "100 series.nii", texture(16, 9, 5, 40, 48).astype(np.int16))
    sources = sources_of_images([str(tmp_path / "images")])
    broken, journal = tmp_path / "broken", tmp_path / "broken" / "items.jsonl"
    for enough in (20, 110):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "images"), str(broken),
                                    str(Path(__file__).parent)])
        end = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < enough:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with open(broken / "skipped.csv", "a") as stream:
        stream.write('"half a li')
    prepare(broken, sources)
    prepare(tmp_path / "whole", sources)
    assert content(broken) == content(tmp_path / "whole")
    assert len(rows(broken / "skipped.csv")) == 15 and len(rows(broken / "duplicates.csv")) == 15


def test_a_stop_is_obeyed_while_images_are_prepared_and_the_rest_follows(tmp_path: Path) -> None:
    for number in range(30):
        grey(tmp_path / "images" / f"{number}.png", number)
    sources = sources_of_images([str(tmp_path / "images")])
    run_folder = RunFolder(tmp_path / "run of corpus")
    run_folder.path.mkdir()
    run_folder.request_stop()
    with pytest.raises(Stopped, match="resume"):
        prepare(tmp_path / "corpus", sources, workers=1)
    run_folder.stop_file.unlink()
    assert len(prepare(tmp_path / "corpus", sources)) == 30


def test_a_file_that_kills_the_process_that_reads_it_is_skipped(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        grey(tmp_path / "images" / f"{number}.png", number)
    monkeypatch.setattr("medmae.pretraining.preparation.MODULE", "test_pretraining_data_interrupted")
    corpus = prepare(tmp_path / "corpus", sources_of_images([str(tmp_path / "images")]), workers=1)
    assert [item.id for item in corpus.items] == ["0.png", "2.png"]
    assert "memory" in rows(tmp_path / "corpus" / "skipped.csv")[0]["reason"]


def prepare_numbered(recipe: Any, task: Any) -> Any:
    """As the real one, on a machine whose memory ends at 1.png."""
    if task[1]["id"] == "1.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return image_preparation.prepare_numbered(recipe, task)


def test_of_a_file_whose_last_stored_images_were_duplicates_nothing_is_lost_by_a_kill(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = np.stack([texture(seed, 40, 48) for seed in (0, 1, 2)]).astype(np.uint8)
    write(tmp_path / "a.png", pages[0])
    write(tmp_path / "b.tif", pages)
    sources = sources_of_images([str(tmp_path)])
    whole = [item.id for item in prepare(tmp_path / "whole", sources).items]

    def killed(self: CorpusWriter, id: str, *arguments: Any, **more: Any) -> CorpusItem:
        if id.endswith("frame 1"):
            raise KeyboardInterrupt
        return add(self, id, *arguments, **more)

    add = CorpusWriter.add
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CorpusWriter, "add", killed)
        prepare(tmp_path / "killed", sources)
    assert whole == ["a.png", "b.tif//frame 1", "b.tif//frame 2"]
    assert [item.id for item in prepare(tmp_path / "killed", sources).items] == whole
