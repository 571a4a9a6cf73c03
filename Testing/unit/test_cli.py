"""The command line's promises: quick help, one clear message, exit codes, nothing useless left behind, resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import medmae.run
from medmae.cli.app import COMMANDS, run
from medmae.cli.runs import clean_output
from medmae.errors import BadInput, Stopped
from medmae.run_folder import RunFolder

OPTIONS_OF_THE_DESIGN = {
    "pretrain": "--dataset --images --method --preset --steps --seed --device --precision --resume --out --set --json",
    "finetune": "--dataset --encoder --method --preset --cases --subset --steps --seed --device --precision --resume "
                "--out --set --json",
    "segment": "--model --images --channel --frame --roi --base --out --resume --format --probabilities --uncertainty "
               "--postprocess --largest-component --fill-holes --mirror --overlap --skip-empty --no-skip-empty "
               "--memory --batch --device --precision --set --json",
    "classify": "--model --images --channel --out --resume --pooling --batch --device --precision --set --json",
    "evaluate": "--model --dataset --split --mirror --overlap --memory --batch --postprocess --device --precision "
                "--set --json",
    "curve": "--dataset --encoder --steps --device --resume --out --set --json",
    "rank": "--model --dataset --split --images --channel --frame --strategy --seed --cases --out --resume --labels "
            "--format --overlap --skip-empty --memory --batch --device --precision --set --json",
    "demo": "--out --json",
    "doctor": "--json",
}

RUNS_ELSEWHERE = ("pretrain", "finetune", "segment", "classify", "evaluate", "curve", "rank")


@pytest.fixture
def pretrain_does(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[RunFolder], None]], None]:
    """Replace what a pretraining run does, so that only the command line around it is tested."""
    def replace(execute: Callable[[RunFolder], None]) -> None:
        monkeypatch.setitem(medmae.run.KINDS, "pretrain", "pretend_pretraining")
        monkeypatch.setitem(sys.modules, "pretend_pretraining", SimpleNamespace(execute=execute))
    return replace


def pretrain(out: Path, *more: str) -> int:
    return run(["pretrain", "--dataset", "cases.json", "--method", "gl-mae", "--preset", "tiny", "--out", str(out),
                *more])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: medmae {name}")
    assert "Example" in text or "Commands:" in text
    for option in OPTIONS_OF_THE_DESIGN.get(name, "").split():
        assert option in text
    assert ("--target" in text) == (name in RUNS_ELSEWHERE)


@pytest.mark.alone
def test_help_needs_no_torch_and_is_quick() -> None:
    code = "import sys; from medmae.cli.app import run; run(['--help']); " \
           "heavy = {'torch', 'monai', 'SimpleITK', 'scipy'} & set(sys.modules); assert not heavy, heavy"
    seconds = []
    for _ in range(3):
        begun = time.monotonic()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.monotonic() - begun)
    assert min(seconds) < 1.0  # 0.2 s on an idle machine


@pytest.mark.parametrize("arguments", [
    ["no-such-command"], ["pretrain", "--no-such-option"], ["pretrain"],
    ["pretrain", "--out", "x", "--method", "no-such-method"], ["pretrain", "--out", "x", "--steps", "many"],
    ["finetune", "--out", "x"], ["segment", "--images", "x.nii"], ["evaluate", "--model", "x"],
])
def test_wrong_usage_is_exit_code_2_with_one_message(
        arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("Error:") == 1
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_key_lists_the_valid_ones_and_leaves_nothing(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain(tmp_path / "deep" / "run", "--set", "batchsize=3") == 2
    message = capsys.readouterr().err
    assert "batchsize" in message and "batch_size" in message
    assert list(tmp_path.iterdir()) == []


def test_bad_input_leaves_no_folder_behind(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], pretrain_does: Callable[..., None]) -> None:
    def refuse(folder: RunFolder) -> None:
        (folder.path / "corpus").mkdir()
        (folder.path / "corpus" / "shard-00000.bin").write_bytes(b"half")
        raise BadInput("case_1.nii.gz is cut short. Fetch it again.")

    pretrain_does(refuse)
    assert pretrain(tmp_path / "deep" / "run") == 2
    captured = capsys.readouterr()
    assert "Error: case_1.nii.gz is cut short. Fetch it again." in captured.err
    assert "Traceback" not in captured.err and captured.out == ""
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    assert pretrain(tmp_path / "empty") == 2
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_folder_with_something_in_it_is_refused_and_not_touched(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], pretrain_does: Callable[..., None]) -> None:
    pretrain_does(lambda folder: pytest.fail("must not start"))
    (tmp_path / "thesis.txt").write_text("years of work")
    assert pretrain(tmp_path) == 2
    assert pretrain(tmp_path, "--resume") == 2
    assert "--resume" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failure_is_exit_code_1_and_keeps_the_traceback_in_the_log(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], pretrain_does: Callable[..., None]) -> None:
    def fail(folder: RunFolder) -> None:
        raise OSError(28, "No space left on device")

    pretrain_does(fail)
    assert pretrain(tmp_path / "run") == 1
    captured = capsys.readouterr()
    assert "No space left on device" in captured.err and "log.txt" in captured.err
    assert "Traceback" not in captured.err
    assert "Traceback" in (tmp_path / "run" / "log.txt").read_text()


def test_a_fault_outside_a_run_is_one_message_with_the_details_in_a_file(
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, medmae_home: Path) -> None:
    monkeypatch.setattr("medmae.cli.doctor.all_checks", lambda: 1 // 0)
    assert run(["doctor"]) == 1
    message = capsys.readouterr().err
    assert "ZeroDivisionError" in message and "Traceback" not in message
    assert "Traceback" in (medmae_home / "last-error.txt").read_text()


def test_a_folder_that_cannot_be_written_is_one_message_and_no_fault_of_medmae(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], medmae_home: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert pretrain(tmp_path / "file" / "run") == 1
    message = capsys.readouterr().err
    assert "Not a directory" in message and "permissions" in message and "fault of MedMAE" not in message
    assert "Traceback" in (medmae_home / "last-error.txt").read_text()


@pytest.mark.alone
def test_ctrl_c_stops_gracefully_and_resume_continues(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], pretrain_does: Callable[..., None]) -> None:
    def stop_half_way(folder: RunFolder) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert folder.stop_requested
        folder.write_state(step=5, total=10)
        raise Stopped("Stopped at step 5 of 10, as asked.")

    pretrain_does(stop_half_way)
    assert pretrain(tmp_path / "run") == 0
    assert "Stopped as asked at step 5 of 10" in capsys.readouterr().out
    pretrain_does(lambda folder: folder.write_state(step=10, total=10))
    assert run(["pretrain", "--resume", "--out", str(tmp_path / "run"), "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["state"], outcome["step"], outcome["total"]) == ("done", 10, 10)


@pytest.fixture
def _ctrl_c_reaches_the_process() -> Iterator[None]:
    """Shells start what runs in the background with the signal ignored, the tests too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.alone
@pytest.mark.usefixtures("_ctrl_c_reaches_the_process")
def test_a_second_ctrl_c_ends_at_once_and_the_run_can_be_resumed(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], pretrain_does: Callable[..., None]) -> None:
    def stubborn(folder: RunFolder) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while not folder.stop_requested:  # two signals at once may arrive as one
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    pretrain_does(stubborn)
    assert pretrain(tmp_path / "run") == 1
    assert "Traceback" not in capsys.readouterr().err
    pretrain_does(lambda folder: None)
    assert pretrain(tmp_path / "run", "--resume") == 0


def test_where_memory_runs_out_a_resume_may_compute_fewer_samples_at_once(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], pretrain_does: Callable[..., None]) -> None:
    def too_large(folder: RunFolder) -> None:
        raise MemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    pretrain_does(too_large)
    assert pretrain(tmp_path / "run") == 1
    assert "--set device_batch_size=" in capsys.readouterr().err
    pretrain_does(lambda folder: None)
    assert pretrain(tmp_path / "run", "--set", "device_batch_size=2", "--resume") == 0
    assert RunFolder(tmp_path / "run").spec["config"]["device_batch_size"] == 2


def test_resume_takes_the_same_options_again_but_refuses_changed_ones(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], pretrain_does: Callable[..., None]) -> None:
    pretrain_does(lambda folder: None)
    assert pretrain(tmp_path / "run", "--steps", "10", "--set", "batch_size=2") == 0
    before = (tmp_path / "run" / "spec.json").read_text()
    assert pretrain(tmp_path / "run", "--steps", "10", "--set", "batch_size=2", "--resume") == 0
    assert run(["pretrain", "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert (tmp_path / "run" / "spec.json").read_text() == before
    capsys.readouterr()
    assert pretrain(tmp_path / "run", "--steps", "20", "--resume") == 2
    assert "steps=10 (not 20)" in capsys.readouterr().err
    assert run(["pretrain", "--dataset", "other.json", "--out", str(tmp_path / "run"), "--resume"]) == 2
    assert (tmp_path / "run" / "spec.json").read_text() == before
    assert run(["pretrain", "--device", "cpu", "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert RunFolder.open(tmp_path / "run").spec["config"]["device"] == "cpu"


def test_a_run_that_was_begun_before_a_setting_existed_goes_on(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], pretrain_does: Callable[..., None]) -> None:
    pretrain_does(lambda folder: None)
    run_folder = tmp_path / "run"
    assert pretrain(run_folder, "--set", "view_scale=[0.9,1.1]") == 0
    spec = RunFolder(run_folder).spec
    for name in ("crop", "block_factor", "consistency", "global_scale"):
        del spec["config"]["settings"][name]
    (run_folder / "spec.json").write_text(json.dumps(spec))
    capsys.readouterr()
    assert run(["pretrain", "--resume", "--out", str(run_folder), "--set", "crop=plain"]) == 2
    assert "settings.crop='resized' (not 'plain')" in capsys.readouterr().err
    assert run(["pretrain", "--resume", "--out", str(run_folder)]) == 0
    settings = RunFolder(run_folder).spec["config"]["settings"]
    assert (settings["crop"], settings["view_scale"]) == ("resized", [0.9, 1.1])


def test_resume_of_another_kind_or_of_nothing_is_bad_input(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], pretrain_does: Callable[..., None]) -> None:
    pretrain_does(lambda folder: None)
    assert run(["pretrain", "--out", str(tmp_path / "typo"), "--resume"]) == 2
    assert "no run in" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()
    assert pretrain(tmp_path / "run") == 0
    assert run(["finetune", "--out", str(tmp_path / "run"), "--resume"]) == 2
    assert "'pretrain', not 'finetune'" in capsys.readouterr().err


def test_a_script_may_always_say_resume(tmp_path: Path, pretrain_does: Callable[..., None]) -> None:
    pretrain_does(lambda folder: None)
    assert pretrain(tmp_path / "run", "--resume") == 0
    assert RunFolder.open(tmp_path / "run").state()["state"] == "done"


def test_json_is_the_only_thing_on_stdout(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], pretrain_does: Callable[..., None]) -> None:
    def train(folder: RunFolder) -> None:
        for step in range(1, 4):
            folder.append_progress({"step": step, "total": 3, "loss": 1 / step, "seconds": 0.1, "eta_s": 3.0 - step})
        folder.write_state(step=3, total=3)

    pretrain_does(train)
    assert pretrain(tmp_path / "run", "--json") == 0
    captured = capsys.readouterr()
    outcome = json.loads(captured.out)
    assert outcome["state"] == "done" and outcome["last"]["loss"] == pytest.approx(1 / 3)
    assert "step 1 of 3" in captured.err and "step 3 of 3 (100 %)" in captured.err


def test_several_values_may_follow_one_option(tmp_path: Path, pretrain_does: Callable[..., None]) -> None:
    pretrain_does(lambda folder: None)
    assert run(["pretrain", "--images", "a.nii.gz", "b.nii.gz", "--method", "gl-mae", "--set", "batch_size=2",
                "seed=7", "--images=c.nii.gz", "--out", str(tmp_path / "run")]) == 0
    spec = RunFolder.open(tmp_path / "run").spec
    assert [Path(image).name for image in spec["inputs"]["images"]] == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    assert (spec["config"]["batch_size"], spec["config"]["seed"]) == (2, 7)


def test_paths_in_a_run_folder_do_not_depend_on_the_current_folder(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrain_does: Callable[..., None]) -> None:
    pretrain_does(lambda folder: None)
    monkeypatch.chdir(tmp_path)
    assert pretrain(Path("run")) == 0
    assert RunFolder.open(tmp_path / "run").spec["inputs"]["dataset"] == str(tmp_path / "cases.json")
    monkeypatch.chdir("/")
    assert pretrain(tmp_path / "run", "--resume") == 2  # another cases.json, that of another folder


def test_doctor_says_what_it_finds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    names = [check["name"] for check in report["checks"]]
    assert report["ready"] and {"Python", "torch", "SimpleITK", "home folder", "free disk space"} <= set(names)
    assert all(check["remedy"] for check in report["checks"] if check["outcome"] != "ok")


def test_doctor_fails_with_a_remedy_when_a_library_is_missing(
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    assert run(["doctor"]) == 1
    assert "pip install 'SimpleITK'" in capsys.readouterr().out


def test_what_was_computed_is_kept_when_the_input_turns_out_to_be_bad_late(tmp_path: Path) -> None:
    for made, kept in (("log.txt", False), ("checkpoints", True), ("points", True)):
        out = tmp_path / "deep" / made
        with pytest.raises(BadInput), clean_output(out):
            (out / made).mkdir(parents=True)
            raise BadInput("late")
        assert out.exists() == kept


def test_a_run_that_another_process_began_meanwhile_is_not_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(BadInput), clean_output(out):
        other = RunFolder.create(out, "pretrain", {}, {})
        other.state_file.write_text(json.dumps({**other.state(), "pid": os.getpid() + 1}))
        raise BadInput("There is no run in it.")
    assert (out / "spec.json").is_file()


def test_a_resumed_curve_may_be_given_more_but_nothing_else(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(path: Path) -> int:
        RunFolder(path).write_state(state="stopped", reason=None, remedy=None)
        return 0

    def refuse(path: Path) -> int:
        RunFolder(path).write_state(state="failed", reason="The encoder is gone.", remedy=None)
        return 2

    monkeypatch.setattr("medmae.run.execute", execute)
    out = tmp_path / "curve"
    begun = ["curve", "--dataset", "d.json", "--encoder", "a=first", "--cases", "2", "--out", str(out)]
    again = ["curve", "--resume", "--out", str(out)]
    assert run(begun) == 0
    assert run([*again, "--encoder", "a=first", "--encoder", "b=second", "--cases", "2", "4", "--arms", "a", "b",
                "--set", "b.steps=3"]) == 0
    spec = RunFolder(out).spec
    assert spec["inputs"]["encoders"] == {"a": "first", "b": "second"}
    assert (spec["config"]["cases"], spec["config"]["of_arms"]) == ([2, 4], {"b": ["steps=3"]})
    capsys.readouterr()
    for change, message in ((["--encoder", "a=other"], "encoders"), (["--cases", "4"], "cases"),
                            (["--set", "b.steps=4"], "of_arms.b"), (["--set", "steps=4"], "finetune.steps"),
                            (["--set", "a.steps=4"], "of_arms.a"),  # its points may be done already
                            (["--encoder", "c=third", "--set", "b.ema=0.5", "c.ema=0.5"], "of_arms.b")):
        assert run([*again, *change]) == 2
        assert message in capsys.readouterr().err
    assert RunFolder(out).spec == spec
    monkeypatch.setattr("medmae.run.execute", refuse)
    (out / "points").mkdir()
    assert run([*again, "--encoder", "a=first", "--encoder", "b=second", "--encoder", "c=gone"]) == 2
    assert "The encoder is gone" in capsys.readouterr().err
    assert RunFolder(out).spec == spec  # else no resume would ever work again
    assert run([*begun[:5], "--encoder", "other", "--cases", "2", "--out", str(tmp_path / "x")]) == 2
    assert "need names" in capsys.readouterr().err
