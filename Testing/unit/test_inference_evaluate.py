"""The run kind evaluate, from a run folder to scores."""

from __future__ import annotations

import json

import numpy as np
import pytest
from inference_helpers import Bands, MeanLevel, description
from test_inference_runs import LEVELS, bands, execute, known_model, result, write_image, write_images  # noqa: F401
from test_preprocessing import oblique

from medmae.inference.evaluate_run import dataset_values, matched_names
from medmae.volumes import Geometry, read_image, read_label, write_label


def make_dataset(folder, truths, labels, label_of, task="segmentation"):
    items = []
    for name, truth in truths.items():
        label = label_of(name, truth)
        if not isinstance(label, int):
            geometry = read_image(folder / f"{name}.nii.gz").geometry
            write_label(folder / f"{name}_label.nii.gz", label, geometry, [], "nii.gz")
            label = f"{name}_label.nii.gz"
        items.append({"image": f"{name}.nii.gz", "label": label, "subject": name})
    path = folder / "dataset.json"
    path.write_text(json.dumps({"name": "made", "task": task, "channel_names": {"0": "MR"}, "labels": labels,
                                "training": [], "test": items}))
    return path


def test_evaluate_scores_on_the_stored_grid_by_label_name(tmp_path, bands):  # noqa: F811
    truths = write_images(tmp_path / "data", ["a", "b", "c"])
    values = np.array([0, 9, 4], np.uint8)  # other stored values than the model's, in another order
    dataset = make_dataset(tmp_path / "data", truths, {"background": 0, "Core": 4, "rim": 9}, lambda _, t: values[t])
    run, code = execute(tmp_path / "run", "evaluate", {"dataset": str(dataset), "split": "test", "model": "known",
                                                       "out": str(tmp_path / "out")})
    assert code == 0, run.state()
    found = result(run)
    assert found["task"] == "segmentation" and found["mean_dice"] == 1.0 and found["dice"] == {"Core": 1.0, "rim": 1.0}
    assert found["hd95_mm"] == {"Core": 0.0, "rim": 0.0}
    assert [case["image"] for case in found["cases"]] == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    assert {"dice", "false_positive_ml"} <= set(found["cases"][0])
    predicted = read_label(next((tmp_path / "out").rglob("b.nii.gz")))
    assert np.array_equal(predicted.array[0], values[truths["b"]])
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == found


def test_a_2d_model_is_scored_by_whole_volumes_never_by_slices(tmp_path, known_model):  # noqa: F811
    """Many slices lack the label; one is found where there is nothing, one is missed. Each volume gives one Dice."""
    known_model(description(dims=2, values=(0, 1), size=[12, 12], intensity={"kind": "ct_window", "low": 0.0,
                                                                           "high": 1.0}), Bands(2))
    folder, expected = tmp_path / "data", {}
    folder.mkdir()
    truths = {}
    for number, name in enumerate(("a", "b")):
        geometry = oblique((9, 12, 10), (4.0, 1.0, 1.0), ("LPS", "LAS")[number])
        seen, truth = np.zeros((2, *geometry.shape), np.uint8)
        truth[3, 2:8, 2:8] = truth[4, 2:4, 2:5 + number] = 1
        seen[3, 2:8, 3:9] = seen[7, :, :5] = 1
        write_image(folder / f"{name}.nii.gz", seen, geometry)
        truths[name] = truth
        expected[f"{name}.nii.gz"] = 2 * (seen & truth).sum() / (seen.sum() + truth.sum())
    dataset = make_dataset(folder, truths, {"background": 0, "rim": 1}, lambda _, truth: truth)
    run, code = execute(tmp_path / "run", "evaluate", {"dataset": str(dataset), "split": "test", "model": "known"})
    assert code == 0, run.state()
    found = result(run)
    assert {case["image"]: case["dice"]["rim"] for case in found["cases"]} == pytest.approx(expected)
    assert found["mean_dice"] == pytest.approx(np.mean(list(expected.values())))
    assert 0.35 < found["mean_dice"] < 0.45  # the mean over slices, absent ones counted as found, would be 0.76


def test_evaluate_counts_what_the_model_does_not_know_as_missed(tmp_path, bands):  # noqa: F811
    truths = write_images(tmp_path / "data", ["a"])
    labels = {"background": 0, "rim": 1, "vessel": 2}
    dataset = make_dataset(tmp_path / "data", truths, labels, lambda _, truth: truth)
    run, code = execute(tmp_path / "run", "evaluate", {"dataset": str(dataset), "model": "known", "out": None})
    assert code == 0 and result(run)["dice"] == {"rim": 1.0, "vessel": 0.0}
    assert "vessel" in run.log_file.read_text()


def test_evaluate_refuses_what_cannot_be_scored(tmp_path, bands):  # noqa: F811
    truths = write_images(tmp_path / "data", ["a", "b"])
    folder = tmp_path / "data"
    strangers = make_dataset(folder, truths, {"background": 0, "x": 1, "y": 2}, lambda _, truth: truth)
    run, code = execute(tmp_path / "run1", "evaluate", {"dataset": str(strangers), "model": "known"})
    assert code == 2 and "share no label" in run.state()["reason"]
    dataset = make_dataset(folder, truths, {"background": 0, "rim": 1, "core": 2}, lambda _, truth: truth)
    run, code = execute(tmp_path / "run2", "evaluate", {"dataset": str(dataset), "model": "known", "split": "other"})
    assert code == 2
    geometry = Geometry.of((6, 9, 8), (1.0, 1.0, 1.0))
    write_label(folder / "a_label.nii.gz", truths["a"], geometry, [], "nii.gz")
    run, code = execute(tmp_path / "run3", "evaluate", {"dataset": str(dataset), "model": "known"})
    assert code == 2 and "a_label" in run.state()["reason"]
    assert not (run.path / "result.json").exists()


def test_evaluate_scores_classifications(tmp_path, known_model):  # noqa: F811
    known_model(description("classification", 3, values=(0, 1), names=["bright", "dark"],
                            intensity=LEVELS), Inverse())
    geometry = Geometry.of((8, 8, 8), (1.0, 1.0, 1.0))
    truths = {name: np.full((8, 8, 8), level, np.uint8) for name, level in
              {"a": 0, "b": 2, "c": 0, "d": 2, "e": 1}.items()}
    (tmp_path / "data").mkdir()
    for name, array in truths.items():
        write_image(tmp_path / "data" / f"{name}.nii.gz", array, geometry)
    dataset = make_dataset(tmp_path / "data", truths, {"dark": 0, "bright": 1}, lambda _, t: int(t.max() == 2),
                           task="classification")
    run, code = execute(tmp_path / "run", "evaluate", {"dataset": str(dataset), "model": "known"})
    assert code == 0, run.state()
    found = result(run)
    assert found["auc"] == 1.0 and found["accuracy"] >= 0.8 and len(found["auc_interval"]) == 2
    assert len(found["cases"]) == 5


@pytest.mark.parametrize(("known", "wanted", "expected"), [
    (["dark", "bright"], ["Bright", "dark "], {"dark": "dark ", "bright": "Bright"}),
    (["a", "A"], ["A", "a"], {"a": "a", "A": "A"}), (["a", "A"], ["a"], {"a": "a"}),
    (["left  lung"], ["Left lung", "LEFT LUNG"], {"left  lung": "Left lung"}), (["x"], ["y"], {})])
def test_names_are_matched_exactly_before_they_are_matched_roughly(known, wanted, expected):
    assert matched_names(known, wanted) == expected


class Inverse(MeanLevel):
    """The classes in the other order: bright first."""

    def forward(self, images):
        return super().forward(images).flip(1)


def test_dataset_values_follow_names_not_positions(tmp_path):
    from medmae.datasets import load_dataset

    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"task": "segmentation", "channel_names": {"0": "MR"}, "training": [],
                                "labels": {"background": 0, "core": 3, "vein": 8}}))
    assert dataset_values(load_dataset(path), description()) == [0, 0, 3]
