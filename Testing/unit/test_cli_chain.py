"""The commands on real files: the whole chain with a tiny 2-D model, and what bad files lead to."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from medmae.cli.app import run
from medmae.demo.synthetic import write_chest_xray
from medmae.models import load_info
from medmae.run_folder import RunFolder

QUICK = ("--steps", "2", "--device", "cpu", "--set", "batch_size=2")


@pytest.fixture(scope="module")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Dataset files for segmentation and for classification, on the same few pictures."""
    return write_chest_xray(tmp_path_factory.mktemp("xrays"), training=4, validation=0, test=4, unlabeled=2)


@pytest.fixture(scope="module")
def trained(xrays: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs encoder, lungs (segmentation) and finding (classification)."""
    folder = tmp_path_factory.mktemp("runs")
    segmentation, classification = map(str, xrays)
    assert run(["pretrain", "--dataset", segmentation, "--method", "vis-mae", "--preset", "tiny",
                "--out", str(folder / "encoder"), *QUICK]) == 0
    for name, dataset in (("lungs", segmentation), ("finding", classification)):
        assert run(["finetune", "--dataset", dataset, "--encoder", str(folder / "encoder"), "--cases", "2",
                    "--out", str(folder / name), *QUICK]) == 0
    return folder


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command line with --json and give back its exit code and its object."""
    def ask(*arguments: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = run([*arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)
    return ask


def test_the_chain_leaves_complete_models(trained: Path) -> None:
    for name, task in (("encoder", "encoder"), ("lungs", "segmentation"), ("finding", "classification")):
        assert RunFolder.open(trained / name).state()["state"] == "done"
        assert load_info(trained / name).task == task


def test_segment_writes_one_result_an_image_named_as_its_path(
        trained: Path, xrays: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        answer: Callable[..., Any]) -> None:
    monkeypatch.chdir(xrays[0].parent)
    out = tmp_path / "results"
    code, result = answer("segment", "--model", str(trained / "lungs"), "--images", "images/xray_000.png",
                          "images/xray_001.png", "--out", str(out), "--device", "cpu")
    assert code == 0 and not result["failed"]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "images/xray_000.nii.gz", "images/xray_001.nii.gz", "manifest.jsonl", "summary.csv"]
    with open(out / "summary.csv", newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {"images/xray_000.png", "images/xray_001.png"}


def test_a_bad_image_among_good_ones_is_exit_code_1_and_keeps_the_others(
        trained: Path, xrays: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(xrays[0].parent / "images" / "xray_000.png", folder / "good.png")
    (folder / "bad.nii.gz").write_text("this is a text file")
    arguments = ["segment", "--model", str(trained / "lungs"), "--images", str(folder), "--out", str(tmp_path / "out")]
    assert run([*arguments, "--json"]) == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert len(result["cases"]) == 1 and "bad.nii.gz" in result["failed"][0]["image"]
    assert "1 of 2 images failed" in captured.err and "Traceback" not in captured.err
    assert len(list((tmp_path / "out").rglob("good.nii.gz"))) == 1
    assert list((tmp_path / "out").rglob("bad.*")) == []
    capsys.readouterr()
    assert run(arguments) == 2
    assert "not empty" in capsys.readouterr().err


def test_evaluate_prints_the_scores_of_the_test_list(
        trained: Path, xrays: tuple[Path, Path], answer: Callable[..., Any],
        capsys: pytest.CaptureFixture[str]) -> None:
    code, scores = answer("evaluate", "--model", str(trained / "lungs"), "--dataset", str(xrays[0]))
    assert code == 0 and scores["task"] == "segmentation" and len(scores["cases"]) == 4
    assert {"mean_dice", "dice", "hd95_mm"} <= set(scores)
    assert {"image", "dice", "false_positive_ml"} <= set(scores["cases"][0])
    code, scores = answer("evaluate", "--model", str(trained / "finding"), "--dataset", str(xrays[1]))
    assert code == 0 and scores["task"] == "classification"
    assert {"auc", "auc_interval", "accuracy", "cases", "sensitivity_interval", "confusion", "ece"} <= set(scores)
    capsys.readouterr()
    assert run(["evaluate", "--model", str(trained / "lungs"), "--dataset", str(xrays[0])]) == 0
    assert "Mean Dice" in capsys.readouterr().out


def test_classify_writes_probabilities(
        trained: Path, xrays: tuple[Path, Path], tmp_path: Path, answer: Callable[..., Any]) -> None:
    code, result = answer("classify", "--model", str(trained / "finding"), "--images",
                          str(xrays[1].parent / "images" / "xray_003.png"), "--out", str(tmp_path / "out"))
    assert code == 0
    assert sum(result["cases"][0]["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert (tmp_path / "out" / "classes.csv").is_file()


def test_curve_has_a_row_for_every_point_and_resumes_without_computing_again(
        trained: Path, xrays: tuple[Path, Path], tmp_path: Path, answer: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "curve"
    code, curve = answer("curve", "--dataset", str(xrays[0]), "--encoder", str(trained / "encoder"), "--cases", "1,2",
                         "--seeds", "0", "--steps", "1", "--set", "batch_size=1", "--device", "cpu", "--out", str(out))
    assert code == 0 and [row["labels"] for row in curve["summary"]] == ["1", "2"]
    with open(out / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["labels"], row["arm"]) for row in rows] == [
        ("1", "pretrained"), ("1", "scratch"), ("2", "pretrained"), ("2", "scratch")]
    monkeypatch.setattr("medmae.finetuning.run.execute", lambda _: pytest.fail("computed again"))
    assert answer("curve", "--resume", "--out", str(out))[1]["summary"] == curve["summary"]
    assert run(["curve", "--resume", "--out", str(out), "--seeds", "1"]) == 2


def test_models_are_installed_listed_shown_used_by_name_and_removed(
        trained: Path, xrays: tuple[Path, Path], tmp_path: Path, answer: Callable[..., Any],
        capsys: pytest.CaptureFixture[str]) -> None:
    assert answer("model", "list") == (0, [])
    assert run(["model", "install", str(trained / "lungs"), "--name", "my lungs"]) == 0
    assert run(["model", "install", str(trained / "lungs"), "--name", "my lungs"]) == 2
    assert run(["model", "install", str(trained / "lungs"), "--name", "my lungs", "--replace"]) == 0
    code, models = answer("model", "list")
    assert code == 0 and [model["name"] for model in models] == ["my lungs"]
    code, info = answer("model", "show", "my lungs")
    assert info["task"] == "segmentation" and info["method"] == "vis-mae"
    assert run(["model", "list"]) == 0 and run(["model", "show", "my lungs"]) == 0
    assert "vis-mae" in capsys.readouterr().out
    assert run(["segment", "--model", "my lungs", "--images", str(xrays[0].parent / "images" / "xray_000.png"),
                "--out", str(tmp_path / "out")]) == 0
    assert run(["model", "remove", "my lungs", "--yes"]) == 0
    assert run(["model", "remove", "my lungs", "--yes"]) == 2
    assert run(["model", "show", "my lungs"]) == 2
    assert answer("model", "list") == (0, [])


def write_volume(path: Path, array: np.ndarray, direction: tuple[float, ...] | None = None,
                 spacing: tuple[float, float, float] = (1.0, 1.0, 2.0)) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    if direction:
        image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def write_sheared_nrrd(path: Path) -> Path:
    header = ("NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 8 8 8\n"
              "space directions: (1,0,0) (0,1,0) (0,0.4,2)\nkinds: domain domain domain\nendian: little\n"
              "encoding: raw\nspace origin: (0,0,0)\n\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode() + np.zeros(512, np.int16).tobytes())
    return path


@pytest.fixture
def a_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Write a dataset of one good 3-D case and one that `spoil` made bad; return its file."""
    def write(spoil: Callable[[Path, Path], None]) -> Path:
        random = np.random.default_rng(0)
        folder = tmp_path / "data"
        items = []
        for name in ("good", "bad"):
            image, label = folder / f"{name}.nii.gz", folder / f"{name}_label.nii.gz"
            write_volume(image, random.normal(size=(12, 16, 16)).astype(np.float32))
            write_volume(label, (random.random((12, 16, 16)) > 0.5).astype(np.uint8))
            items.append({"image": image.name, "label": label.name, "subject": name})
        spoil(folder / "bad.nii.gz", folder / "bad_label.nii.gz")
        file = folder / "dataset.json"
        file.write_text(json.dumps({"name": "test", "task": "segmentation", "channel_names": {"0": "MR"},
                                    "labels": {"background": 0, "organ": 1}, "training": items}))
        return file
    return write


def truncate(image: Path, label: Path) -> None:
    image.write_bytes(image.read_bytes()[:2000])


def write_text(image: Path, label: Path) -> None:
    image.write_text("Dear colleague, please find attached")


def empty(image: Path, label: Path) -> None:
    image.write_bytes(b"")


def move_the_label(image: Path, label: Path) -> None:
    write_volume(label, np.zeros((12, 16, 16), np.uint8), spacing=(1.0, 1.0, 2.1))


def put_an_unknown_value(image: Path, label: Path) -> None:
    write_volume(label, np.full((12, 16, 16), 7, np.uint8))


@pytest.mark.parametrize(("command", "spoil", "names"), [
    ("finetune", truncate, "bad.nii.gz"), ("finetune", move_the_label, "bad_label.nii.gz"),
    ("finetune", put_an_unknown_value, "7"),
])
def test_a_bad_file_in_a_dataset_is_found_before_training_and_leaves_nothing(
        command: str, spoil: Callable[[Path, Path], None], names: str, a_dataset: Callable[..., Path], tmp_path: Path,
        capfd: pytest.CaptureFixture[str]) -> None:
    dataset = a_dataset(spoil)
    more = ["--encoder", "none"] if command == "finetune" else []
    assert run([command, "--dataset", str(dataset), "--method", "gl-mae", "--preset", "tiny", *more,
                "--out", str(tmp_path / "run"), *QUICK]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("Error:") == 1 and names in captured.err and "Traceback" not in captured.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("spoil", [truncate, write_text, empty])
def test_a_bad_file_among_good_ones_does_not_stop_pretraining_and_is_told(
        spoil: Callable[[Path, Path], None], a_dataset: Callable[..., Path], tmp_path: Path,
        capfd: pytest.CaptureFixture[str]) -> None:
    dataset = a_dataset(spoil)
    assert run(["pretrain", "--dataset", str(dataset), "--method", "gl-mae", "--preset", "tiny", "--set", "workers=0",
                "global_views=1", "local_views=1", "--out", str(tmp_path / "run"), *QUICK]) == 0
    assert "1 of " in capfd.readouterr().err
    with open(tmp_path / "run" / "corpus" / "skipped.csv", encoding="utf-8", newline="") as stream:
        assert [Path(row["file"]).name for row in csv.DictReader(stream)] == ["bad.nii.gz"]


@pytest.mark.parametrize("name", ["text.nii.gz", "cut.nii.gz", "empty.nii.gz", "sheared.nrrd", "empty folder",
                                  "missing.nii.gz", "no_match_*.nii.gz"])
def test_bad_images_are_exit_code_2_with_one_message_and_leave_nothing(
        name: str, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = write_volume(tmp_path / "in" / "whole.nii.gz", np.zeros((12, 16, 16), np.float32)).read_bytes()
    (tmp_path / "in" / "text.nii.gz").write_text("not an image")
    (tmp_path / "in" / "cut.nii.gz").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "in" / "empty.nii.gz").write_bytes(b"")
    (tmp_path / "in" / "empty folder").mkdir()
    write_sheared_nrrd(tmp_path / "in" / "sheared.nrrd")
    capfd.readouterr()
    assert run(["segment", "--model", str(trained / "lungs"), "--images", str(tmp_path / "in" / name),
                "--out", str(tmp_path / "out")]) == 2
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err.count("Error:") == 1 and "Traceback" not in captured.err
    if name == "sheared.nrrd":
        assert "shear" in captured.err
    assert not (tmp_path / "out").exists()


def test_damaged_weights_are_exit_code_2(trained: Path, xrays: tuple[Path, Path], tmp_path: Path,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    broken = shutil.copytree(trained / "lungs" / "model", tmp_path / "broken")
    (broken / "weights.safetensors").write_bytes(b"")
    image = str(xrays[0].parent / "images" / "xray_000.png")
    assert run(["segment", "--model", str(broken), "--images", image, "--out", str(tmp_path / "out")]) == 2
    assert run(["finetune", "--dataset", str(xrays[0]), "--encoder", str(broken), "--out", str(tmp_path / "out"),
                *QUICK]) == 2
    assert capsys.readouterr().err.count("Error:") == 2
    assert not (tmp_path / "out").exists()


def test_a_zero_byte_checkpoint_is_exit_code_2_and_keeps_the_run(
        trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(trained / "encoder", tmp_path / "encoder")
    shutil.rmtree(copy / "model")
    checkpoints = [path for path in (copy / "checkpoints").rglob("*") if path.is_file()]
    assert checkpoints
    for path in checkpoints:
        path.write_bytes(b"")
    assert run(["pretrain", "--resume", "--out", str(copy)]) == 2
    message = capsys.readouterr().err
    assert message.count("Error:") == 1 and "Traceback" not in message
    assert (copy / "spec.json").is_file() and checkpoints[0].is_file()


def test_a_killed_run_resumes_with_exactly_the_losses_of_an_undisturbed_one(
        xrays: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = ["pretrain", "--dataset", str(xrays[0]), "--method", "vis-mae", "--preset", "tiny", "--steps", "8",
                 "--device", "cpu", "--set", "batch_size=2", "checkpoint_every=2"]
    killed, whole = RunFolder(tmp_path / "killed"), RunFolder(tmp_path / "whole")
    process = subprocess.Popen([sys.executable, "-m", "medmae.cli", *arguments, "--out", str(killed.path)],
                               stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(killed.checkpoints.glob("step-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert killed.state()["state"] == "interrupted"
    assert run(["pretrain", "--resume", "--out", str(killed.path)]) == 0
    assert run([*arguments, "--out", str(whole.path)]) == 0
    losses = [[(record["step"], record["loss"]) for record in each.progress() if "loss" in record]
              for each in (killed, whole)]
    assert len(losses[1]) == 8 and losses[0] == losses[1]
