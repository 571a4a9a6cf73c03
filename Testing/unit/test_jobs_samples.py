"""Pictures of a training elsewhere are here after a look, and nothing but such pictures."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_jobs_following import a_job, home  # noqa: F401 - a fixture

from medmae.jobs import following
from medmae.jobs.following import follow
from medmae.jobs.samples import mirror_samples, samples_here
from medmae.jobs.there import samples as there
from medmae.models.png import png
from medmae.run_folder import MOST_SAMPLES, RunFolder


def picture(seed: int, side: int = 192) -> bytes:
    return png(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def draw(run: RunFolder, *steps: int, seed: int = 0) -> None:
    run.samples.mkdir(exist_ok=True)
    for step in steps:
        run.sample_file(step).write_bytes(picture(seed + step))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*")}


def test_pictures_are_here_after_each_look_also_those_that_were_drawn_anew(tmp_path: Path) -> None:
    job, run = a_job(tmp_path)
    run.write_state(state="running")
    assert follow(job).state == "running" and not (job.mirror / "samples").exists()
    draw(run, *range(1, 21))  # more than fit into one answer
    follow(job)
    assert contents(job.mirror / "samples") == contents(run.samples) and len(contents(run.samples)) == 20
    run.sample_file(3).write_bytes(picture(99))
    draw(run, 1_000_000)
    follow(job)
    assert contents(job.mirror / "samples") == contents(run.samples)


def test_only_what_is_new_travels_the_newest_first(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    draw(run, 1, 2, 10)
    news, more = there.new_samples(tmp_path, {})
    assert list(news) == ["step-000010.png", "step-000002.png", "step-000001.png"] and not more
    draw(run, *range(20, 40))
    news, more = there.new_samples(tmp_path, {})
    assert more and list(news)[0] == "step-000039.png"
    assert there.new_samples(tmp_path, samples_here(tmp_path)) == ({}, False)


def test_links_and_large_or_other_files_do_not_travel(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    draw(run, 1)
    (tmp_path / "secret").write_bytes(b"secret")
    run.sample_file(2).symlink_to(tmp_path / "secret")
    run.sample_file(3).write_bytes(bytes(there.LARGEST + 1))
    (run.samples / "notes.png").write_bytes(b"notes")
    assert list(there.new_samples(tmp_path, {})[0]) == ["step-000001.png"]


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


GOOD = encoded(picture(0))


@pytest.mark.parametrize("told", [
    None, [], "samples", {"step-000001.png": None}, {"step-000001.png": 3}, {"step-000001.png": ["YQ=="]},
    {"step-000001.png": "no base64"}, {"step-000001.png": "ä"}, {"step-000001.png": encoded(b"pwned")},
    {"step-000001.png": encoded(picture(0) + b"more")}, {"step-000001.png": encoded(picture(0, 400))},
    {"step-000001.png": "A" * (there.LARGEST * 2 + 4)}, {"../step-000001.png": GOOD}, {"/tmp/step-000001.png": GOOD},
    {"step-000001.png\n": GOOD}, {"step-1.png": GOOD}, {"step-٠٠٠٠٠١.png": GOOD}, {"x/step-000001.png": GOOD},
    {"step-000001.png/../../x": GOOD}, {"job.json": GOOD}])
def test_a_target_writes_nothing_but_pictures_and_nowhere_else(tmp_path: Path, told: Any) -> None:
    mirror = tmp_path / "runs" / "mirror"
    mirror.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert mirror_samples(mirror, told) == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_however_many_pictures_a_target_sends_few_are_kept(tmp_path: Path) -> None:
    small = encoded(picture(0, 8))
    assert mirror_samples(tmp_path, {f"step-{number:06d}.png": small for number in range(500)}) > 0
    mirror_samples(tmp_path, {f"step-{number:06d}.png": small for number in range(500, 1000)})
    assert len(contents(tmp_path / "samples")) == MOST_SAMPLES
    other = {"step-000000.png": encoded(picture(1, 8)), "step-999999.png": small}
    assert mirror_samples(tmp_path, other) == len(picture(1, 8)), "one that is known may be drawn anew"
    assert mirror_samples(tmp_path, {f"step-{number:06d}.png": GOOD for number in range(60)}) <= there.BYTES_A_POLL


def test_a_side_that_does_not_know_of_pictures_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, run = a_job(tmp_path)
    draw(run, 1)
    asked = {"run": str(run.path), "have": {}}
    answer = following.operate(job.target, "runs.poll", {"runs": {job.id: asked}})
    assert answer["runs"][job.id]["samples"] == {}
    del answer["runs"][job.id]["samples"]
    monkeypatch.setattr(following, "operate", lambda *_: answer)
    assert follow(job).state == "queued" and not (job.mirror / "samples").exists()
