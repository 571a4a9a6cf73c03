"""A trial computes a few real steps of the run that would be started, tells its time and memory, and leaves nothing."""

from __future__ import annotations

import os
import sys
import time

import pytest
from MedMAESegmentLib.FollowedJob import RunCancelled, RunFailed
from MedMAETrainLib.Trial import Trial, _keepSome
from MedMAETrainLib.TrialMeter import TrialMeter

from medmae.errors import BadInput
from medmae.files import read_json, write_json
from medmae.home import home, runs_folder

TINY = {"input_size": [16, 16, 16], "batch_size": 1, "layer_decay": 1.0}
GB = 10**9


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One thread, and fewer steps than people would trust."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("FEW_STEPS", "FEW_SECONDS"):
        monkeypatch.setattr(f"MedMAETrainLib.TrialMeter.{name}", 2)


def finetuning(logic, project, **more):
    return logic.planRun("finetune", project, method="gl-mae", preset="tiny-hybrid", settings=TINY,
                         **{"steps": 4000, **more})


def fake_trial(logic, project):
    """What the stand-in for the engine has been told to do with it."""
    return Trial(logic.planRun("finetune", project, method="gl-mae"), engineCommand=logic.engineCommand)


def left():
    """What trials and runs have left on the disk, after a moment to remove it."""
    deadline = time.monotonic() + 20
    while True:
        found = [path for folder in (home() / "trials", runs_folder()) if folder.is_dir() for path in folder.iterdir()]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def test_a_real_run_is_measured_and_nothing_of_it_is_left(starting_logic, small_project):
    trial = Trial(finetuning(starting_logic, small_project))
    told = []
    trial.progressed.connect(lambda _fraction, message: told.append(message))
    result = trial.wait()
    assert result.steps == 4000 and 0.001 < result.secondsPerStep < 5
    assert 4000 * result.secondsPerStep < result.seconds < 4000 * result.secondsPerStep + 120
    assert 100e6 < result.memoryBytes < 3 * GB and result.freeBytes > 0 and result.target == ""
    assert any(message.startswith("Step") for message in told)
    assert left() == [] and starting_logic.runs() == [] and small_project.runs == ()


@pytest.mark.slow
def test_pretraining_is_measured_likewise_on_another_computer_and_removed_there(starting_logic, small_project):
    from medmae.jobs.job import list_jobs
    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target

    add_target(Target("ward-7", kind="local", environment="python", python=sys.executable, gpus=0))
    plan = starting_logic.planRun("pretrain", small_project, method="gl-mae", preset="tiny-hybrid", steps=3000,
                         settings={"batch_size": 1, "workers": 0})
    trial = Trial(plan, "ward-7")
    listed = []
    trial.progressed.connect(lambda *_progress: listed.append([run.id for run in starting_logic.runs()]))
    result = trial.wait()
    assert (result.steps, result.target, result.freeBytes) == (3000, "ward-7", None)
    assert listed and not any(listed), "a trial is none of the runs"
    assert left() == [] and list_jobs() == []


def test_a_run_that_would_be_refused_says_why(starting_logic, small_project):
    plan = starting_logic.planRun("finetune", small_project, method="gl-mae", preset="tiny", settings={"context": 2})
    trial = Trial(plan, engineCommand=starting_logic.engineCommand)
    with pytest.raises(BadInput, match="context=2 was asked for"):
        trial.wait()
    assert left() == []


def test_a_run_that_fails_says_why_and_leaves_nothing(starting_logic, small_project, engine):
    engine("fail")
    trial = fake_trial(starting_logic, small_project)
    with pytest.raises(RunFailed, match="The image is sheared. Resample it first."):
        trial.wait()
    assert left() == []


def test_a_trial_that_ends_without_a_step_says_so(starting_logic, small_project, engine):
    engine("progress")
    trial = fake_trial(starting_logic, small_project)
    with pytest.raises(RunFailed, match="before a step could be measured"):
        trial.wait()


@pytest.mark.alone
@pytest.mark.parametrize("when", ["at once", "while it computes"])
def test_a_cancelled_trial_leaves_nothing(starting_logic, small_project, engine, when):
    engine("progress", "work=60")
    trial = fake_trial(starting_logic, small_project)
    while when != "at once" and trial.message == "":
        trial.poll()
        time.sleep(0.01)
    began = time.monotonic()
    trial.cancel()
    assert time.monotonic() - began < 0.5
    assert trial.ended and isinstance(trial.error, RunCancelled) and left() == []


def test_what_a_crash_has_left_is_removed_by_the_next_trial(starting_logic, small_project, engine):
    old = home() / "trials" / "20200101-000000-000000"
    (old / "data").mkdir(parents=True)
    os.utime(old, (0, 0))
    engine("fail")
    trial = fake_trial(starting_logic, small_project)
    with pytest.raises(RunFailed):
        trial.wait()
    assert left() == []


def test_of_many_cases_some_of_every_class_are_kept(tmp_path):
    items = [{"id": f"case-{number:04d}", "image": "x", "label": label}
             for number, label in enumerate(["common"] * 90 + ["rare"] * 10)]
    write_json(tmp_path / "dataset.json", {"training": items, "unlabeled": items[:3]})
    scale = _keepSome(tmp_path / "dataset.json")
    kept = read_json(tmp_path / "dataset.json", "data set")
    assert {item["label"] for item in kept["training"]} == {"common", "rare"}
    assert len(kept["unlabeled"]) == 3 and scale == pytest.approx(103 / (len(kept["training"]) + 3))


def record(step, seconds, **more):
    return {"step": step, "total": 100, "seconds": seconds, **more}


def test_the_first_step_which_takes_longer_is_not_counted():
    meter = TrialMeter("", 9 * GB)
    for step, seconds in ((1, 10.0), (2, 11.0)):
        meter.add(record(step, seconds))
        assert not meter.isEnough
    meter.add(record(3, 12.0))
    assert meter.isEnough and meter.result().secondsPerStep == 1.0
    assert meter.result().seconds == pytest.approx(100, abs=1)


def test_preparing_takes_as_many_times_longer_as_there_are_more_cases(monkeypatch):
    clock = iter([0.0, 5.0, 9.0, 10.0, 10.0, 10.0])
    monkeypatch.setattr("MedMAETrainLib.TrialMeter.time.monotonic", lambda: next(clock))
    meter = TrialMeter("", None)
    meter.scale = 10.0
    meter.add({"stage": "validate", "step": 1, "total": 2})
    meter.add({"stage": "validate", "step": 2, "total": 2})
    meter.add(record(1, 0.5))
    meter.add(record(3, 1.5))
    # 6 s until python has started and the network is built, 40 s of preparing, 100 steps
    assert meter.result().seconds == pytest.approx(6 + 40 + 50)


def test_one_slow_step_is_enough_in_the_end():
    meter = TrialMeter("", None)
    meter.add(record(1, 50.0))
    assert meter.isEnough and meter.result().secondsPerStep == 50


def test_memory_is_the_most_that_any_record_tells_and_unknown_without():
    meter = TrialMeter("gpu-box", None)
    assert meter.result() is None
    meter.add(record(1, 1.0))
    meter.add(record(2, 2.0))
    assert meter.result().memoryBytes is None and meter.result().device == ""
    meter.add(record(3, 3.0, memory_bytes=2 * GB, device="cuda:0"))
    meter.add(record(4, 4.0, memory_bytes=GB))
    assert (meter.result().memoryBytes, meter.result().device, meter.result().target) == (2 * GB, "cuda:0", "gpu-box")
