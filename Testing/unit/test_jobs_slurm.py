"""What is only text about Slurm: headers, times, tables, and words for states."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmae.errors import BadInput
from medmae.jobs.slurm import sbatch_header, seconds_for_a_stop, seconds_of
from medmae.jobs.target import Target
from medmae.jobs.there.slurm import judged
from medmae.jobs.there.slurm_states import (
    ENDS,
    SlurmJob,
    as_json,
    end_of,
    job_number,
    parse_details,
    parse_duration,
    parse_queue,
    waits_because,
)
from medmae.run_folder import RunFolder

# squeue and scontrol of Slurm 22.05
QUEUE = """\
1|1|N/A|PENDING|1-00:00:00||PartitionConfig
4_1|4|1|PENDING|3:00||JobArrayTaskLimit
3|3|N/A|RUNNING|23:59:59|n[1-2,7]|None
4_0|4|0|RUNNING|UNLIMITED|n1|None
"""
DETAILS = """\
JobId=5 ArrayJobId=4 ArrayTaskId=0 JobName=x JobState=COMPLETED Reason=None Restarts=2 ExitCode=0:0 NodeList=n1 \
Command=/a b/JobState=FAILED ExitCode=9:9 WorkDir=/a
b Restarts=7 StdErr=/dev/null
JobId=4 ArrayJobId=4 ArrayTaskId=1-2,5%1 JobName=x JobState=PENDING Reason=Resources Restarts=0 ExitCode=0:0 \
NodeList=(null)
JobId=9 JobName=x JobState=FAILED Reason=NonZeroExitCode Restarts=0 ExitCode=0:9 NodeList=n1
"""


def header(**changes: Any) -> list[str]:
    return sbatch_header(Target("cluster", "slurm", **changes), "20260101-job").splitlines()


def test_a_header_asks_for_what_the_target_says() -> None:
    lines = header(gpus=2, nodes=3, cpus=8, partition="gpu", account="p-1", time="1-12:00:00", sbatch=("--mem=64G",))
    assert lines[-1] == "#SBATCH --mem=64G"
    for wanted in ("job-name=20260101-job", "nodes=3", "ntasks-per-node=1", "gres=gpu:2", "cpus-per-task=8",
                   "partition=gpu", "account=p-1", "time=1-12:00:00", "signal=B:USR1@120", "requeue"):
        assert f"#SBATCH --{wanted}" in lines


def test_a_header_leaves_out_what_the_target_leaves_open() -> None:
    assert not [line for line in header(gpus=0) if re.search("gres|cpus-per|partition|account|time|array", line)]


def test_parts_become_an_array_of_tasks_on_one_node_with_one_card() -> None:
    lines = sbatch_header(Target("cluster", "slurm", gpus=4, nodes=2), "job", 12, 3).splitlines()
    assert {"#SBATCH --array=0-11%3", "#SBATCH --gres=gpu:1", "#SBATCH --nodes=1"} <= set(lines)


@pytest.mark.parametrize("changes", [
    {"partition": "a b"}, {"partition": "a\"b"}, {"account": "--x"}, {"account": "$(x)"}, {"time": "soon"},
    {"time": "1-"}, {"time": "1:2:3:4"}, {"sbatch": ("rm -rf x",)}, {"sbatch": ("--mem=1\t",)},
    {"sbatch": ("--comment=\"open",)}, {"sbatch": ("--signal=KILL@5",)}, {"sbatch": ("-o x",)},
    {"sbatch": ("--array 0-3",)}])
def test_what_slurm_would_misread_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        header(**changes)


@given(st.text(min_size=1))
def test_any_name_of_a_job_is_one_word(name: str) -> None:
    line = sbatch_header(Target("cluster", "slurm"), name).split("\n")[0]
    assert re.fullmatch(r"#SBATCH --job-name=[A-Za-z0-9_.][A-Za-z0-9_.-]*", line)


@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_all_ways_to_write_a_time_mean_the_same(days: int, hours: int, minutes: int, seconds: int) -> None:
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert seconds_of(f"{days}-{hours}:{minutes:02}:{seconds:02}") == whole
    assert seconds_of(f"{days * 24 + hours}:{minutes:02}:{seconds:02}") == whole
    assert seconds_of(f"{days}-{hours}:{minutes:02}") == whole - seconds
    assert seconds_of(f"{days}-{hours}") == whole - seconds - minutes * 60
    assert seconds_of(f"{minutes}:{seconds}") == minutes * 60 + seconds
    assert seconds_of(f"{minutes}") == minutes * 60
    assert parse_duration(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == whole


@pytest.mark.parametrize(("limit_s", "before"), [(None, 120), (0, 120), (60, 15), (300, 75), (3600, 120)])
def test_short_limits_leave_most_of_the_time_for_work(limit_s: int | None, before: int) -> None:
    assert seconds_for_a_stop(limit_s) == before


def test_no_limit_is_no_number() -> None:
    assert seconds_of("UNLIMITED") is None and parse_duration("UNLIMITED") is None


def test_the_queue_is_read_with_its_arrays() -> None:
    jobs = parse_queue(QUEUE)
    assert jobs["3"] == [SlurmJob("3", "RUNNING", None, "None", "n[1-2,7]", 86399)]
    assert [(job.task, job.state, job.seconds_left) for job in jobs["4"]] == [(1, "PENDING", 180), (0, "RUNNING", None)]


def test_details_are_not_deceived_by_what_users_can_name() -> None:
    jobs = parse_details(DETAILS)
    assert [(job.task, job.state, job.restarts, job.exit_code) for job in jobs["4"]] == [
        (0, "COMPLETED", 2, 0), (1, "PENDING", 0, None), (2, "PENDING", 0, None), (5, "PENDING", 0, None)]
    assert (jobs["9"][0].exit_code, jobs["9"][0].nodes) == (137, "n1")


@given(st.text())
def test_no_output_of_slurm_breaks_the_parsers(text: str) -> None:
    as_json(job for jobs in (*parse_queue(text).values(), *parse_details(text).values()) for job in jobs)
    parse_duration(text)
    job_number(text)


@given(st.lists(st.sampled_from(["JobId=1", "ArrayJobId=1", "ArrayTaskId=3-1", "ArrayTaskId=0-2%2", "JobState=RUNNING",
                                 "ExitCode=x", "Restarts=", "=", "\n"])))
def test_no_line_of_details_breaks_the_parser(words: list[str]) -> None:
    parse_details(" ".join(words))


@pytest.mark.parametrize(("said", "number"), [
    ("12\n", "12"), ("12;cluster\n", "12"), ("sbatch: a warning 3\n12\n", "12"), ("", None), ("Submitted", None)])
def test_the_number_of_a_submitted_job_is_found(said: str, number: str | None) -> None:
    assert job_number(said) == number


def test_why_a_job_waits_is_told_in_words() -> None:
    assert "free nodes" in waits_because(SlurmJob("1", "PENDING", reason="Resources"))
    assert "never starts" in waits_because(SlurmJob("1", "PENDING", reason="PartitionTimeLimit"))
    assert "limit of your account" in waits_because(SlurmJob("1", "PENDING", reason="AssocGrpGRES"))
    assert "Whatever" in waits_because(SlurmJob("1", "PENDING", reason="Whatever"))
    assert "two minutes" in waits_because(SlurmJob("1", "PENDING", reason="BeginTime", restarts=1))
    assert waits_because(SlurmJob("1", "PENDING", reason="Resources", restarts=1)).startswith("It goes on later.")


@pytest.mark.parametrize("state", [*ENDS, "CANCELLED by 1000", "SOMETHING_NEW"])
def test_every_end_has_words_and_a_remedy(state: str) -> None:
    ours, happened, remedy = end_of(SlurmJob("1", state, exit_code=3))
    assert ours in ("failed", "stopped", "interrupted") and happened.endswith(".") and remedy.endswith(".")


LIVE = SlurmJob("1", "RUNNING", nodes="n1")
WAITING = SlurmJob("1", "PENDING", reason="BeginTime", restarts=1)


@pytest.mark.parametrize(("written", "files", "job", "expected"), [
    ("queued", [], WAITING, "queued"),
    ("stopped", ["STOP", "REQUEUE"], LIVE, "queued"),  # just before the requeue
    ("stopped", ["STOP", "REQUEUE"], WAITING, "queued"),
    ("stopped", [], LIVE, "queued"),  # the next go imports torch
    ("stopped", ["STOP"], LIVE, "stopped"),  # the user's, and the job is about to end
    ("running", [], LIVE, "running"),
    ("done", [], LIVE, "done"),
    ("running", [], SlurmJob("1", "OUT_OF_MEMORY"), "failed"),
    ("running", [], SlurmJob("1", "TIMEOUT"), "interrupted"),
    ("running", ["STOP"], SlurmJob("1", "TIMEOUT"), "stopped"),
    ("running", ["STOP", "REQUEUE"], SlurmJob("1", "TIMEOUT"), "interrupted"),
    ("running", [], SlurmJob("1", "COMPLETED"), "running"),  # the end of the run is not seen yet on this file system
    ("queued", ["STOP"], SlurmJob("1", "CANCELLED"), "stopped"),
    ("queued", [], None, "interrupted"),
    ("running", [], None, "running"),
    ("failed", [], SlurmJob("1", "FAILED", exit_code=1), "failed"),
    ("done", [], None, "done")])
def test_slurm_and_the_run_folder_together_tell_how_a_run_stands(
        tmp_path: Path, written: str, files: list[str], job: SlurmJob | None, expected: str) -> None:
    run = RunFolder.create(tmp_path / "run", "segment", {}, {})
    run.write_state(state=written)
    for name in files:
        (run.path / name).touch()
    assert judged(run, run.state(), job)["state"] == expected
