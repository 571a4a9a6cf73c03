"""One writer at a time in a folder of results."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medmae.cli.runs import clean_output
from medmae.errors import BadInput
from medmae.folder_lock import has_writer, only_writer

HOLD = """
import sys
from pathlib import Path
from medmae.folder_lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that writes into tmp_path/"out"."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    assert process.stdout.readline().strip() == b"held"
    yield process
    process.kill()
    process.communicate()


def test_a_second_writer_is_refused_until_the_first_is_killed(holder, tmp_path):
    assert has_writer(tmp_path / "out")
    with pytest.raises(BadInput, match="Another process"), only_writer(tmp_path / "out"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not has_writer(tmp_path / "out")
    with only_writer(tmp_path / "out"):
        assert has_writer(tmp_path / "out")


def test_folders_made_for_nothing_are_gone_and_others_stay(tmp_path):
    with only_writer(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()
    with only_writer(tmp_path / "a" / "b"):
        (tmp_path / "a" / "result").write_text("x")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "result"]


def test_a_folder_that_cannot_be_made_is_bad_input_at_once(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="cannot be made"), only_writer(tmp_path / "file" / "out"):
        pass


def test_bad_input_does_not_remove_results_beside_its_own(tmp_path):
    with pytest.raises(BadInput), clean_output(tmp_path / "results" / "a"):
        for name in ("a", "b"):
            (tmp_path / "results" / name).mkdir(parents=True)
            (tmp_path / "results" / name / "labels").write_text("x")
        raise BadInput("a")
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["b"]


def test_bad_input_leaves_a_folder_that_another_process_writes_to(tmp_path, holder):
    """Both began when there was no such folder."""
    (tmp_path / "out" / "labels").write_text("x")
    (tmp_path / "out").rename(tmp_path / "later")
    with pytest.raises(BadInput), clean_output(tmp_path / "out"):
        (tmp_path / "later").rename(tmp_path / "out")
        raise BadInput("c")
    assert (tmp_path / "out" / "labels").exists()
