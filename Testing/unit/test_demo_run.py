"""The demonstration's plan and its orderly failures; the whole demonstration is run by ``make demo``."""

import shlex
from pathlib import Path

import pytest

from medmae.cli.app import medmae as command_line
from medmae.demo import DemoFailed, run_demo
from medmae.demo import run as demo_run
from medmae.demo.plan import CHAINS, CT_DATA, FINDING_DATA, LUNG_DATA, DataStep, all_steps
from medmae.demo.worker import perform
from medmae.errors import BadInput
from medmae.files import write_json
from medmae.run_folder import RunFolder

STEPS = [step for chain in CHAINS.values() for step in chain()]


class Captured(Exception):
    """The specification that a command line would run."""


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_command_in_the_report_starts_exactly_the_run_of_the_demonstration(step, tmp_path, monkeypatch):
    from medmae.cli import runs

    def capture(run, _title):
        raise Captured(run.spec)

    monkeypatch.setattr(runs, "execute", capture)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(step.command)
    assert words[0] == "medmae"
    for name in ("model", "encoder"):  # what stands there when the command is typed
        if name in step.inputs and step.inputs[name] != "none":
            Path(step.inputs[name]).mkdir(parents=True)
    with pytest.raises(Captured) as captured:
        command_line.main(words[1:], standalone_mode=False)
    spec = captured.value.args[0]
    config, inputs = step.spec(tmp_path)
    assert spec["kind"] == step.kind
    assert spec["config"] == config
    assert _absolute(spec["inputs"], tmp_path) == {**inputs, **({"split": "test"} if step.kind == "evaluate" else {})}


def _absolute(inputs, root):
    def one(name, value):
        return str(root / value) if name in ("dataset", "model", "out") else value

    return {name: [one(name, each) for each in value] if isinstance(value, list) else one(name, value)
            for name, value in inputs.items()}


def test_both_arms_have_the_same_schedule_and_labelled_cases():
    by_name = {step.name: step for step in STEPS}
    for prefix in ("ct", "xray", "finding"):
        scratch, pretrained = by_name[f"{prefix}-scratch"], by_name[f"{prefix}-pretrained"]
        assert scratch.config["steps"] == pretrained.config["steps"]
        assert scratch.inputs["subset"] == pretrained.inputs["subset"]
        assert scratch.inputs["encoder"] == "none"


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(BadInput, match="not empty"):
        run_demo(tmp_path, print)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_steps_wait_for_what_they_need_and_nothing_waits_for_ever():
    done = set()
    waiting = all_steps()
    while waiting:
        ready = [step for step in waiting if isinstance(step, DataStep) or step.needs <= done]
        assert ready, [step.name for step in waiting]
        done |= {step.name for step in ready}
        waiting = [step for step in waiting if step not in ready]
    by_name = {step.name: step for step in STEPS}
    assert by_name["ct-pretrained"].needs == {"ct-encoder", "ct-data"}
    assert by_name["ct-scratch"].needs == {"ct-data"}
    assert by_name["ct-segment"].needs == {"ct-pretrained", "ct-data"}


def test_a_run_with_other_settings_in_the_way_is_reported_with_its_folder(tmp_path):
    write_json(tmp_path / demo_run.MARKER, {"demo": True, "seconds": 0.0})
    for file in (CT_DATA, LUNG_DATA, FINDING_DATA):
        write_json(tmp_path / file, {})
    RunFolder.create(tmp_path / "runs/ct-encoder", "pretrain", {"other": 1}, {})
    RunFolder.create(tmp_path / "runs/ct-scratch", "pretrain", {"other": 1}, {})
    RunFolder.create(tmp_path / "runs/xray-encoder", "pretrain", {"other": 1}, {})
    with pytest.raises(BadInput, match="other settings"):
        run_demo(tmp_path, print)


def test_a_worker_that_breaks_down_is_reported_with_what_it_complained_about(tmp_path, monkeypatch):
    unknown = DataStep("no such step", "drawing", "x", "x", print)
    monkeypatch.setattr(demo_run, "all_steps", lambda: [unknown])
    with pytest.raises(DemoFailed, match="KeyError"):
        run_demo(tmp_path / "new", print)


def test_what_is_done_already_is_not_done_again(tmp_path, monkeypatch):
    step = STEPS[0]
    config, inputs = step.spec(tmp_path)
    run = RunFolder.create(tmp_path / step.folder, step.kind, config, inputs)
    run.write_state(state="done")
    before = run.state_file.read_bytes()
    perform(step, tmp_path)
    assert run.state_file.read_bytes() == before
