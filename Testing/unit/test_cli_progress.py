"""Following a run's progress file."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmae.cli.options import _spread
from medmae.cli.progress import LineDisplay, duration, line_of, new_records, shown
from medmae.run_folder import RunFolder


@pytest.fixture
def a_run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", "pretrain", {}, {})


def test_only_whole_new_lines_are_read(a_run: RunFolder) -> None:
    assert new_records(a_run, 0) == ([], 0)
    a_run.append_progress({"step": 1})
    records, offset = new_records(a_run, 0)
    assert records == [{"step": 1}]
    with open(a_run.progress_file, "a") as file:
        file.write('{"step": 2')
    assert new_records(a_run, offset) == ([], offset)
    with open(a_run.progress_file, "a") as file:
        file.write('}\n{"step": 3}\n')
    records, offset = new_records(a_run, offset)
    assert records == [{"step": 2}, {"step": 3}]
    assert new_records(a_run, offset) == ([], offset)


def test_the_half_line_of_a_killed_run_is_passed_over(a_run: RunFolder) -> None:
    a_run.progress_file.write_text('{"step": 1}\n{"ste')
    _, offset = new_records(a_run, 0)
    a_run.append_progress({"step": 2})
    a_run.append_progress({"step": 3})
    assert new_records(a_run, offset)[0] == [{"step": 3}]


def test_a_resumed_run_shows_only_what_is_new(a_run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    a_run.append_progress({"step": 1, "total": 9})
    with shown(a_run, "pretrain"):
        a_run.append_progress({"step": 2, "total": 9})
    assert capsys.readouterr().err == "pretrain: step 2 of 9 (22 %)\n"


def test_without_a_terminal_there_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    display = LineDisplay("pretrain", every_seconds=1000)
    for stage in ("corpus", "train"):
        for step in range(1, 101):
            display.update({"stage": stage, "step": step, "total": 100})
    assert capsys.readouterr().err.splitlines() == [
        "corpus: step 1 of 100 (1 %)", "corpus: step 100 of 100 (100 %)",
        "train: step 1 of 100 (1 %)", "train: step 100 of 100 (100 %)"]


def test_a_record_reads_as_a_sentence() -> None:
    record = {"step": 20, "total": 100, "loss": 0.31234, "lr": 0.001, "seconds": 12.0, "eta_s": 200.0}
    assert line_of(record, "train") == "train: step 20 of 100 (20 %), loss 0.3123, 3 min left"
    assert line_of({"message": "reading 4 images"}, "corpus") == "corpus: reading 4 images"


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (3599, "60 min"),
                                                (5400, "1 h 30 min"), (7500, "2 h 05 min")])
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("typed", "means"), [
    ("--images a b --out o", "--images a --images b --out o"),
    ("--images=a b --seed 1", "--images=a --images b --seed 1"),
    ("--images - --out o", "--images - --out o"),
    ("--out o --images a", "--out o --images a"),
    ("--images a --images b c", "--images a --images b --images c"),
    ("--out o rest", "--out o rest"),
])
def test_values_after_a_repeatable_option_belong_to_it(typed: str, means: str) -> None:
    assert _spread(typed.split(), {"--images"}) == means.split()
