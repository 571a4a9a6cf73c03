"""Parts of a run: made, made anew, and what they say about the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmae.files import write_json
from medmae.jobs.there.parts import parts_of, prepare_parts, unfinished, with_parts
from medmae.run_folder import RunFolder


def divided(folder: Path, count: int) -> RunFolder:
    run = RunFolder.create(folder / "run", "segment", {"device": "cpu"}, {"model": "m", "out": "results"})
    write_json(run.path / "job.json", {"parts": count})
    prepare_parts(run)
    return run


def test_every_part_is_a_run_with_a_share_of_the_cases(tmp_path: Path) -> None:
    run = divided(tmp_path, 3)
    assert [part.spec["inputs"]["share"] for part in parts_of(run.path)] == [[0, 3], [1, 3], [2, 3]]
    assert parts_of(run.path)[2].spec["inputs"] | {"share": None, "resume": None} == {
        "model": "m", "out": "results", "share": None, "resume": None}
    assert unfinished(run.path) == [0, 1, 2]


def test_more_than_a_hundred_parts_keep_their_numbers(tmp_path: Path) -> None:
    run = divided(tmp_path, 102)
    parts_of(run.path)[11].write_state(state="done")
    assert [part.spec["inputs"]["share"][0] for part in parts_of(run.path)] == list(range(102))
    assert unfinished(run.path) == [number for number in range(102) if number != 11]


def test_parts_that_are_done_stay_as_they_are(tmp_path: Path) -> None:
    run = divided(tmp_path, 2)
    for part, state in zip(parts_of(run.path), ("done", "stopped"), strict=True):
        part.write_state(state=state)
        part.request_stop()
    prepare_parts(run)
    assert [part.state()["state"] for part in parts_of(run.path)] == ["done", "queued"]
    assert not parts_of(run.path)[1].stop_requested and unfinished(run.path) == [1]


def test_another_number_of_parts_makes_all_anew(tmp_path: Path) -> None:
    run = divided(tmp_path, 3)
    for part in parts_of(run.path):
        part.write_state(state="done")
    write_json(run.path / "job.json", {"parts": 2})
    prepare_parts(run)
    assert [part.state()["state"] for part in parts_of(run.path)] == ["queued", "queued"]


def test_a_run_without_parts_gets_none(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "segment", {}, {})
    write_json(run.path / "job.json", {"parts": None})
    prepare_parts(run)
    assert parts_of(run.path) == [] and with_parts(run, run.state(), None)["state"] == "queued"


@pytest.mark.parametrize(("parts", "alive", "whole"), [
    (("queued", "queued"), True, "queued"),
    (("running", "queued"), True, "running"),
    (("failed", "running"), True, "running"),  # the others go on
    (("failed", "done"), True, "running"),  # the results are about to be brought together
    (("done", "done"), None, "running"),
    (("done", "done"), False, "interrupted"),
    (("failed", "done"), False, "failed"),
    (("stopped", "done"), True, "stopped"),
    (("interrupted", "stopped"), False, "interrupted")])
def test_the_whole_follows_from_the_parts(tmp_path: Path, parts: tuple[str, ...], alive: bool | None,
                                          whole: str) -> None:
    run = divided(tmp_path, len(parts))
    for part, state in zip(parts_of(run.path), parts, strict=True):
        part.write_state(state=state, step=4, total=10)
    state = with_parts(run, run.state(), alive)
    assert state["state"] == whole
    assert whole == "queued" or (state["step"], state["total"]) == (8, 20)


def test_what_the_run_says_itself_counts_more(tmp_path: Path) -> None:
    run = divided(tmp_path, 2)
    run.write_state(state="failed", reason="1 of 2 images failed")
    assert with_parts(run, run.state(), True)["reason"] == "1 of 2 images failed"


def test_a_stop_is_seen_before_the_parts_have_ended(tmp_path: Path) -> None:
    run = divided(tmp_path, 1)
    parts_of(run.path)[0].write_state(state="running")
    run.request_stop()
    assert with_parts(run, run.state(), True)["state"] == "stopping"
