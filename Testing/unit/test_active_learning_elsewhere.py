"""Ranking on a target: what travels, and that its results are those of a ranking here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_jobs_collecting import arrived, mirror, silent, there  # noqa: F401 - fixtures
from test_jobs_restoring import (
    in_this_process,  # noqa: F401 - a fixture
    model,
    run_here,
    run_there,
    scans,
    tables,
    without_times,
)
from tiny_training_data import write_volumes

from medmae.config import to_json
from medmae.datasets import load_dataset
from medmae.errors import BadInput
from medmae.files import read_json
from medmae.inference.config import SegmentConfig
from medmae.jobs.collecting import collect
from medmae.volumes import read_label


@pytest.fixture
def pool(tmp_path):
    """Four cases, of which one cannot be read, of two subjects with telling names."""
    folder = tmp_path / "own"
    folder.mkdir()
    path = write_volumes(folder, {"training": 4})
    data = json.loads(path.read_text())
    for number, item in enumerate(data["training"]):
        item |= {"subject": f"Meier {number % 2}", "id": f"case of Meier {number}"}
    path.write_text(json.dumps(data))
    (folder / "case1.nii.gz").write_bytes(b"\x1f\x8b")
    return path


def compare(tmp_path, mirror):  # noqa: F811
    """Results of the run here and of the run there are the same; returns them."""
    here, restored = (without_times(read_json(folder / "result.json"))
                      for folder in (tmp_path / "run", mirror / "arriving"))
    for ranking in (here, restored):
        for failed in ranking["failed"]:
            failed["reason"] = failed["reason"][:20]
    assert restored == here
    for name in ("ranking.json", "ranking.csv"):
        assert (mirror / "arriving" / "outputs" / name).is_file()
    rows = [tables(folder / "ranking.csv") for folder in (tmp_path / "out", mirror / "arriving" / "outputs")]
    assert [row["case"] for row in rows[1]] == [row["case"] for row in rows[0]]
    own = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.nii.gz")}
    assert {path.relative_to(mirror / "arriving" / "outputs")
            for path in (mirror / "arriving" / "outputs").rglob("*.nii.gz")} == own
    for name in own:
        assert (read_label(mirror / "arriving" / "outputs" / name).array ==
                read_label(tmp_path / "out" / name).array).all()
    return here


def test_a_list_of_a_dataset_is_ranked_there_as_here(tmp_path, mirror, there, pool):  # noqa: F811
    inputs = {"model": model(tmp_path / "model", "segmentation"), "dataset": str(pool), "split": "training",
              "out": str(tmp_path / "out")}
    run_here(tmp_path / "run", "rank", inputs, labels=True)
    run_there(there, mirror, "rank", inputs, labels=True)
    ranking = compare(tmp_path, mirror)
    assert {case["case"] for case in ranking["cases"]} == {f"case of Meier {number}" for number in (0, 2, 3)}
    assert {case["subject"] for case in ranking["cases"]} == {"Meier 0", "Meier 1"}
    assert [failed["image"] for failed in ranking["failed"]] == ["case1.nii.gz"]


def test_images_are_ranked_there_as_here(tmp_path, mirror, there):  # noqa: F811
    inputs = {"model": model(tmp_path / "model", "segmentation"), "images": scans(tmp_path / "scans"),
              "out": str(tmp_path / "out")}
    run_here(tmp_path / "run", "rank", inputs, labels=True, cases=1)
    run_there(there, mirror, "rank", inputs, labels=True, cases=1)
    ranking = compare(tmp_path, mirror)
    assert len(ranking["cases"]) == 1 and ranking["scored"] == 2
    assert [Path(failed["image"]).name for failed in ranking["failed"]] == ["damaged.nii.gz"]


def test_no_label_travels_and_subjects_have_neutral_names(tmp_path, mirror, there, pool):  # noqa: F811
    inputs = {"model": model(tmp_path / "model", "segmentation"), "dataset": str(pool), "split": "training"}
    upload = collect("rank", {}, inputs, mirror, silent)
    assert sorted(name for name in upload.files if "label" in name) == []
    dataset = load_dataset(arrived(there, upload)["dataset"])
    assert [(case.id, case.subject, case.is_labelled) for case in dataset.cases("unlabeled")] == [
        ("case-0001", "subject-0001", False), ("case-0003", "subject-0001", False),
        ("case-0004", "subject-0002", False)]
    assert "Meier" not in json.dumps(upload.spec) and list(dataset.lists) == ["unlabeled"]


def test_a_pool_of_which_nothing_can_be_read_is_told_before_anything_travels(tmp_path, mirror, pool):  # noqa: F811
    for path in pool.parent.glob("case*.nii.gz"):
        path.write_bytes(b"\x1f\x8b")
    inputs = {"model": model(tmp_path / "model", "segmentation"), "dataset": str(pool), "split": "training"}
    with pytest.raises(BadInput, match="None of the 4 images"):
        collect("rank", to_json(SegmentConfig()), inputs, mirror, silent)
    assert not (mirror / "cases.json").exists()
