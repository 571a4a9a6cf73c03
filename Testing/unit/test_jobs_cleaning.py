"""Cleaning a target: what no run there holds goes, everything else stays."""

from __future__ import annotations

import hashlib
import io
import json
import time
from pathlib import Path

import pytest
from test_jobs_following import a_job, a_target, home  # noqa: F401 - a fixture

from medmae.cli.app import run as medmae_command
from medmae.config import to_json
from medmae.errors import BadInput
from medmae.files import write_json
from medmae.jobs.cleaning import Cleaned, clean
from medmae.jobs.problems import TargetProblem
from medmae.jobs.submission import Submission
from medmae.jobs.target import Target
from medmae.jobs.targets import add_target
from medmae.jobs.there import data, runs
from medmae.jobs.there.serving import Channel

CHANNEL = Channel(io.BytesIO(), io.BytesIO())


def blob(folder: Path, content: bytes, suffix: str = ".nrrd") -> Path:
    path = data.blob_path(folder, hashlib.sha256(content).hexdigest(), suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def run_with(folder: Path, name: str, *blobs: Path) -> Path:
    files = {f"inputs/{number}.nrrd": [path.name[:64], path.name[64:]] for number, path in enumerate(blobs)}
    made = runs.create({"folder": str(folder), "id": name, "files": files, "job": {"id": name},
                        "spec": {"kind": "segment", "config": {}, "inputs": {}}}, CHANNEL)
    return Path(made["run"])


def test_what_runs_hold_stays_and_the_rest_goes(tmp_path: Path) -> None:
    there = tmp_path / "there"
    both, first, none = (blob(there, content) for content in (b"both", b"first", b"none at all"))
    one, other = run_with(there, "one", both, first), run_with(there, "other", both)
    target = a_target(tmp_path)
    assert clean(target) == Cleaned(1, len(b"none at all"), 2, len(b"both") + len(b"first"))
    assert both.is_file() and first.is_file() and not none.exists()
    assert runs.remove({"run": str(one)}, CHANNEL)["removed"]
    assert clean(target) == Cleaned(1, len(b"first"), 1, len(b"both"))
    assert (other / "inputs" / "0.nrrd").read_bytes() == b"both"
    assert clean(target) == Cleaned(0, 0, 1, 4)


def test_nothing_but_blobs_is_touched_and_nothing_behind_links(tmp_path: Path) -> None:
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    gone = blob(there, b"gone")
    outside = blob(elsewhere, b"outside")
    others = [there / "data" / "notes.txt", gone.parent / "notes.txt", gone.parent / ("0" * 64 + ".nrrd"),
              there / "incoming" / gone.name[:64], there / "code" / "x.py", elsewhere / "kept"]
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("kept")
    (there / "data" / "zz").symlink_to(elsewhere)
    if not (linked := there / "data" / outside.parent.name).exists():
        linked.symlink_to(outside.parent)
    (gone.parent / (gone.name[:64] + ".link")).symlink_to(elsewhere / "kept")
    assert clean(a_target(tmp_path)).removed == 1
    assert not gone.exists() and outside.is_file() and all(file.is_file() for file in others)
    (there / "data").rename(tmp_path / "moved")
    again = blob(tmp_path, b"again")
    (there / "data").symlink_to(tmp_path / "data")
    assert clean(a_target(tmp_path)).removed == 0 and again.is_file()


def test_a_target_without_data_is_clean(tmp_path: Path) -> None:
    assert clean(a_target(tmp_path)) == Cleaned(0, 0, 0, 0)


def test_files_of_a_submission_under_way_are_left_alone(tmp_path: Path) -> None:
    job, _ = a_job(tmp_path)
    kept = blob(tmp_path / "there", b"on its way")
    write_json(job.mirror / "submission.json", to_json(Submission(stage="uploading", updated=time.time())))
    with pytest.raises(BadInput, match="being submitted"):
        clean(a_target(tmp_path))
    assert kept.is_file()


def test_this_computer_has_nothing_to_clean() -> None:
    with pytest.raises(BadInput, match="nothing to clean"):
        clean(Target("local"))


@pytest.mark.parametrize("answer", [{}, {"removed": 1, "kept": 2}, {"removed": [1, -1], "kept": [1, 1]},
                                    {"removed": [1, 2, 3], "kept": [1, "x"]}])
def test_nonsense_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: dict) -> None:
    monkeypatch.setattr("medmae.jobs.cleaning.operate", lambda *_: answer)
    with pytest.raises(TargetProblem):
        clean(a_target(tmp_path))


def test_the_command_says_what_became_of_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_target(a_target(tmp_path))
    blob(tmp_path / "there", b"gone")
    assert medmae_command(["target", "clean", "there", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": 1, "removed_bytes": 4, "kept": 0, "kept_bytes": 0}
    assert medmae_command(["target", "clean", "local"]) == 2
