"""``medmae rank`` from the command line to its files: order, exit codes, resuming, stopping, bad images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from inference_helpers import description
from test_cli_segment import call, saved, scan
from tiny_training_data import write_volumes

from medmae.models import save_model
from medmae.networks import architecture_for, build_network
from medmae.volumes import read_image, read_label


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    torch.manual_seed(0)
    architecture = architecture_for("vis-mae", "tiny", "classification", 1, classes=3)
    info = description("classification", 2, size=[32, 32], names=["none", "one", "two"], architecture=architecture,
                       intensity={"kind": "robust"})
    info.training["flip_axes"] = [1]
    return save_model(tmp_path_factory.mktemp("model") / "classes", info, build_network(architecture))


@pytest.fixture
def pool(tmp_path):
    """Three unlabelled cases, two of one subject."""
    (tmp_path / "data").mkdir()
    path = write_volumes(tmp_path / "data", {"training": 1, "unlabeled": 3})
    data = json.loads(path.read_text())
    for item, subject in zip(data["unlabeled"], ("p1", "p1", "p2"), strict=True):
        item["subject"] = subject
    path.write_text(json.dumps(data))
    return path


def scans(folder, count=3):
    for number in range(count):
        scan(folder / f"{number}.nii.gz", number)
    return folder


def told(capsys):
    return json.loads(capsys.readouterr().out)


def test_a_list_of_a_dataset_is_ranked_with_different_subjects_first(model, pool, tmp_path, capsys):
    command = ("rank", "--model", model, "--dataset", pool)
    assert call(*command, "--json", "--out", tmp_path / "out") == 0
    result = told(capsys)
    assert [case["rank"] for case in result["cases"]] == [1, 2, 3] and result["scored"] == 3
    assert {case["subject"] for case in result["cases"][:2]} == {"p1", "p2"}
    first, second, last = result["cases"]
    of_p1, of_p2 = (first, second) if first["subject"] == "p1" else (second, first)
    assert first["score"] >= second["score"] and last["subject"] == "p1" and of_p1["score"] >= last["score"] > 0
    assert of_p2["image"] == "case3.nii.gz" and of_p2["case"] == "case3"
    assert json.loads((tmp_path / "out" / "ranking.json").read_text()) == result
    with open(tmp_path / "out" / "ranking.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["rank"]), row["case"], float(row["score"])) for row in rows] == [
        (case["rank"], case["case"], case["score"]) for case in result["cases"]]
    assert not list((tmp_path / "out").rglob("*.nii.gz"))

    assert call(*command, "--cases", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "case", "subject", "score", "predicted", "voxels"]
    assert [line.split()[:2] for line in lines[1:3]] == [["1", first["case"]], ["2", second["case"]]]
    assert lines[3] == "1 more case comes after these."
    assert call(*command, "--split", "training", "--strategy", "random", "--seed", "3", "--json") == 0
    assert [case["case"] for case in told(capsys)["cases"]] == ["case0"]


def test_predictions_to_start_from_are_those_of_segmenting(model, tmp_path, capsys):
    images = scans(tmp_path / "in")
    more = ("--model", model, "--images", images, "--format", "nrrd", "--device", "cpu", "--precision", "fp32")
    assert call("segment", *more, "--out", tmp_path / "segmented") == 0
    for strategy in ("entropy", "random"):
        assert call("rank", *more, "--strategy", strategy, "--labels", "--out", tmp_path / strategy) == 0
        for number in range(3):
            own, other = (next((tmp_path / name).rglob(f"{number}.nrrd")) for name in (strategy, "segmented"))
            assert own.relative_to(tmp_path / strategy) == other.relative_to(tmp_path / "segmented")
            assert read_label(own).geometry.is_close(read_image(images / f"{number}.nii.gz").geometry)
            np.testing.assert_array_equal(read_label(own).array, read_label(other).array)  # nothing is mirrored
    ranking = json.loads((tmp_path / "entropy" / "ranking.json").read_text())
    assert {Path(case["output"]).name for case in ranking["cases"]} == {f"{number}.nrrd" for number in range(3)}


def test_a_bad_image_is_listed_and_does_not_end_the_others(model, tmp_path, capsys):
    images = scans(tmp_path / "in", 2)
    (images / "bad.nii.gz").write_text("no image")
    assert call("rank", "--model", model, "--images", images, "--json", "--out", tmp_path / "out") == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert len(result["cases"]) == 2 and result["failed"][0]["image"].endswith("bad.nii.gz")
    assert captured.err.count("Error:") == 1 and "1 of 3 images failed; the others are done" in captured.err
    assert "bad.nii.gz" in (tmp_path / "out" / "ranking.csv").read_text()
    assert (tmp_path / "out" / "log.txt").is_file()
    assert call("rank", "--model", model, "--images", images) == 1  # without --out as well
    assert "Log:" not in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [
    (["--images", "{}/bad.nii.gz"], "bad.nii.gz"),
    (["--images", "{}/absent"], "absent"),
    (["--dataset", "{}/data/dataset.json", "--split", "later"], "Its lists are"),
    (["--dataset", "{}/data/dataset.json", "--set", "strategy=best"], "entropy, random"),
    (["--dataset", "{}/data/dataset.json", "--set", "cases=0"], "at least 1"),
    (["--dataset", "{}/data/dataset.json", "--set", "format=dicom-seg"], "DICOM"),
    (["--dataset", "{}/data/dataset.json", "--images", "{}"], "either by --dataset"),
    ([], "either by --dataset"),
])
def test_what_cannot_be_ranked_is_bad_input_and_leaves_nothing(model, pool, tmp_path, capsys, arguments, message):
    (tmp_path / "bad.nii.gz").write_text("no image")
    code = call("rank", "--model", model, "--out", tmp_path / "new" / "out",
                *(argument.format(tmp_path) for argument in arguments))
    captured = capsys.readouterr()
    assert code == 2 and message in captured.err and captured.out == ""
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("option", ["--labels", "--resume"])
def test_what_needs_a_folder_says_so(model, pool, capsys, option):
    assert call("rank", "--model", model, "--dataset", pool, option) == 2
    assert "--out" in capsys.readouterr().err


def test_resuming_does_only_what_is_left(model, tmp_path, capsys):
    images = scans(tmp_path / "in", 2)
    command = ("rank", "--model", model, "--images", images, "--out", tmp_path / "out")
    assert call(*command, "--labels") == 0
    assert call(*command, "--labels") == 2 and "not empty" in capsys.readouterr().err
    labels = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.nii.gz")}
    scan(images / "2.nii.gz", 2)
    assert call(*command, "--labels", "--resume", "--cases", "1", "--json") == 0
    result = told(capsys)
    assert result["finished_before"] == 2 and result["scored"] == 3 and len(result["cases"]) == 1
    assert all(path.stat().st_mtime_ns == time for path, time in labels.items()) and len(labels) == 2
    assert call(*command, "--labels", "--resume", "--strategy", "random") == 2
    assert "strategy='entropy' (not 'random')" in capsys.readouterr().err


def test_a_stop_keeps_what_is_done(model, tmp_path, capsys, monkeypatch):
    from medmae.active_learning.mirrored_model import MirroredModel
    from medmae.run_folder import RunFolder

    images, cases = scans(tmp_path / "in"), []
    real = MirroredModel.segment

    def segment(self, case, taker=None):
        cases.append(case)
        return real(self, case, taker)

    command = ("rank", "--model", model, "--images", images, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(MirroredModel, "segment", segment)
        patch.setattr(RunFolder, "stop_requested", property(lambda self: len(cases) >= 2))
        assert call(*command, "--json") == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["cases"]) == 1 and "--resume goes on" in captured.err
    assert call(*command, "--resume", "--json") == 0
    result = told(capsys)
    assert result["finished_before"] == 1 and len(result["cases"]) == 3


def test_pictures_are_ranked_by_the_entropy_of_their_classes(classifier, tmp_path, capsys):
    images = scans(tmp_path / "in")
    command = ("rank", "--model", classifier, "--images", images)
    assert call(*command, "--json") == 0
    result = told(capsys)
    assert result["task"] == "classification" and result["passes"] == 2
    for case in result["cases"]:
        chances = np.array(list(case["probabilities"].values()))
        assert case["score"] == pytest.approx(-(chances * np.log(chances)).sum() / np.log(3))
        assert case["label"] == max(case["probabilities"], key=case["probabilities"].get)
    assert call(*command) == 0
    assert capsys.readouterr().out.split()[:4] == ["rank", "case", "score", "class"]
    assert call(*command, "--labels", "--out", tmp_path / "out") == 2
    assert "has no label maps" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert call("rank", "--model", classifier, classifier, "--images", images) == 2
