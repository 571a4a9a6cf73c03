"""Results of a run on a target, once they have their own names again, are those of a run here."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the usual name
import torch
from inference_helpers import description
from test_jobs_collecting import arrived, mirror, silent, there  # noqa: F401 - fixtures
from tiny_training_data import blob_volume, write_volumes

from medmae.active_learning.config import RankConfig
from medmae.config import to_json
from medmae.files import read_json, write_json
from medmae.inference.config import ClassifyConfig, EvaluateConfig, SegmentConfig
from medmae.jobs.collecting import collect
from medmae.jobs.restoring import restore_names
from medmae.models import save_model
from medmae.networks import architecture_for, build_network
from medmae.run import execute
from medmae.run_folder import RunFolder
from medmae.volumes import read_label

CONFIGS: dict[str, Any] = {"segment": SegmentConfig, "classify": ClassifyConfig, "evaluate": EvaluateConfig,
                           "rank": RankConfig}
TIMES = ("seconds", "stage_seconds", "peak_bytes", "estimated_peak_bytes", "finished_before", "out")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process for every test would take longer than all else."""
    monkeypatch.setattr("medmae.jobs.neutral_images.usable_cores", lambda: 0)


def model(folder: Path, task: str) -> str:
    """A network with random weights."""
    torch.manual_seed(0)
    architecture = architecture_for("vis-mae", "tiny", task, 1, classes=3)
    values = (0, 1, 2)
    info = description(task, 2, size=[32, 32], values=values, names=["background", "dim", "bright"],
                       architecture=architecture, intensity={"kind": "robust"})
    return str(save_model(folder, info, build_network(architecture)))


def scans(folder: Path) -> list[str]:
    """Two images, in folders with telling names, and a damaged one."""
    for number, name in enumerate(("Meier, Hans", "Müller")):
        (folder / name).mkdir(parents=True)
        sitk.WriteImage(sitk.GetImageFromArray(blob_volume(number, (6, 24, 22))[0]), str(folder / name / "scan.nii.gz"))
    (folder / "Müller" / "damaged.nii.gz").write_bytes(b"\x1f\x8b")
    return [str(folder)]


def run_here(folder: Path, kind: str, inputs: dict[str, Any], **config: Any) -> None:
    run = RunFolder.create(folder, kind, to_json(CONFIGS[kind](**config)), inputs)  # type: ignore[arg-type]
    execute(run.path)


def run_there(there: Path, mirror: Path, kind: str, inputs: dict[str, Any], **config: Any) -> None:  # noqa: F811
    """Collect, run in the folder of the target, and restore the names there."""
    upload = collect(kind, to_json(CONFIGS[kind](**config)), inputs, mirror, silent)
    arrived(there, upload)
    write_json(there / "spec.json", upload.spec)
    RunFolder(there).write_state(state="queued", step=0, total=0)
    execute(Path())
    arriving = mirror / "arriving"
    arriving.mkdir()
    for name in ("outputs", "result.json"):
        if (there / name).exists():
            (there / name).rename(arriving / name)
    restore_names(mirror, arriving, Path(inputs["out"]))


def without_times(value: Any) -> Any:
    """JSON data without what differs from run to run."""
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def tables(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("kind", ["segment", "classify"])
def test_results_lie_and_are_called_as_those_of_a_run_here(tmp_path: Path, mirror: Path, there: Path,  # noqa: F811
                                                           kind: str) -> None:
    images = scans(tmp_path / "scans")
    task = {"segment": "segmentation", "classify": "classification"}[kind]
    inputs = {"model": model(tmp_path / "model", task), "images": images, "out": str(tmp_path / "out")}
    run_here(tmp_path / "run", kind, inputs)
    run_there(there, mirror, kind, inputs)
    arriving = mirror / "arriving"
    own = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {path.relative_to(arriving / "outputs") for path in (arriving / "outputs").rglob("*")
            if path.is_file()} == own
    for name in own:
        if name.suffixes[-2:] == [".nii", ".gz"]:
            np.testing.assert_array_equal(read_label(arriving / "outputs" / name).array,
                                          read_label(tmp_path / "out" / name).array)
        elif name.suffix == ".csv":
            assert tables(arriving / "outputs" / name) == tables(tmp_path / "out" / name)
    here, restored = (without_times(read_json(folder / "result.json")) for folder in (tmp_path / "run", arriving))
    assert restored == here
    assert read_json(arriving / "result.json").get("out") == read_json(tmp_path / "run" / "result.json").get("out")
    before = {path: path.read_bytes() for path in arriving.rglob("*") if path.is_file()}
    restore_names(mirror, arriving, tmp_path / "out")  # once more changes nothing
    assert {path: path.read_bytes() for path in arriving.rglob("*") if path.is_file()} == before


def test_scores_name_the_own_cases(tmp_path: Path, mirror: Path, there: Path) -> None:  # noqa: F811
    own = tmp_path / "own"
    own.mkdir()
    dataset = write_volumes(own, {"test": 2})
    inputs = {"model": model(tmp_path / "model", "segmentation"), "dataset": str(dataset), "out": str(tmp_path / "out")}
    run_here(tmp_path / "run", "evaluate", inputs)
    run_there(there, mirror, "evaluate", inputs)
    here, restored = (without_times(read_json(folder / "result.json"))
                      for folder in (tmp_path / "run", mirror / "arriving"))
    assert restored == here
    assert {case["image"] for case in restored["cases"]} == {"case0.nii.gz", "case1.nii.gz"}
    labels = {path.name for path in (mirror / "arriving" / "outputs").iterdir() if path.name.endswith(".nii.gz")}
    assert labels == {"case0.nii.gz", "case1.nii.gz"}


def test_labels_to_keep_are_found_there(tmp_path: Path, mirror: Path, there: Path) -> None:  # noqa: F811
    images = scans(tmp_path / "scans")
    (tmp_path / "scans" / "Müller" / "damaged.nii.gz").unlink()
    inputs = {"model": model(tmp_path / "model", "segmentation"), "images": images}
    run_here(tmp_path / "first", "segment", {**inputs, "out": str(tmp_path / "base")})
    box = {"roi": (-15.0, -5.0, -15.0, -5.0, 0.0, 4.0)}
    inputs |= {"base": str(tmp_path / "base"), "out": str(tmp_path / "out")}
    run_here(tmp_path / "run", "segment", inputs, **box)
    run_there(there, mirror, "segment", inputs, **box)
    files = list((tmp_path / "out").rglob("*.nii.gz"))
    assert len(files) == 2
    for file in files:
        restored = mirror / "arriving" / "outputs" / file.relative_to(tmp_path / "out")
        np.testing.assert_array_equal(read_label(restored).array, read_label(file).array)


def test_a_message_that_speaks_of_a_file_speaks_of_ours(tmp_path: Path) -> None:
    case = {"images": ["/own/Meier one.nii", "/own/Meier two.nii"], "output": "own/Meier one"}
    write_json(tmp_path / "cases.json", {"kind": "segment", "cases": {"case-0001": case}, "subjects": {},
                                         "unreadable": []})
    write_json(tmp_path / "job.json", {"folder": "/there/run x"})
    folder = tmp_path / "arriving"
    folder.mkdir()
    write_json(folder / "result.json", {"failed": [
        {"image": "inputs/images/case-0001.nrrd", "reason": "inputs/images/case-0001-2.nrrd lies on another grid."}]})
    (folder / "manifest.jsonl").write_text(json.dumps({"images": ["/there/run x/inputs/images/case-0001.nrrd"]}) + "\n")
    restore_names(tmp_path, folder)
    assert read_json(folder / "manifest.jsonl") == {"images": [case["images"][0]]}
    failed = read_json(folder / "result.json")["failed"]
    assert failed == [{"image": case["images"][0], "reason": f"{case['images'][1]} lies on another grid."}]


def test_own_names_that_look_neutral_take_no_file_of_another_case(tmp_path: Path) -> None:
    own = {"case-0001": "case-0002", "case-0002": "case-0003", "case-0003": "case-0001"}
    write_json(tmp_path / "cases.json", {"kind": "segment", "subjects": {}, "unreadable": [], "cases": {
        neutral: {"output": output, "images": []} for neutral, output in own.items()}})
    outputs = tmp_path / "arriving" / "outputs"
    outputs.mkdir(parents=True)
    for neutral in own:
        (outputs / f"{neutral}.nii.gz").write_text(f"labels of {neutral}")
    restore_names(tmp_path, tmp_path / "arriving")
    assert {file.name: file.read_text() for file in outputs.iterdir()} == {
        f"{output}.nii.gz": f"labels of {neutral}" for neutral, output in own.items()}


def test_images_that_stayed_here_are_listed_with_those_that_were_skipped_there(tmp_path: Path) -> None:
    unreadable = [{"image": "/own/damaged.nii", "reason": "It is damaged, sorry."}]
    case = {"images": ["/own/empty.nii"], "id": "empty", "subject": "s"}
    write_json(tmp_path / "cases.json", {"kind": "pretrain", "cases": {"case-0002": case}, "subjects": {},
                                         "unreadable": unreadable})
    skipped = tmp_path / "arriving" / "corpus" / "skipped.csv"
    (tmp_path / "arriving").mkdir()
    restore_names(tmp_path, tmp_path / "arriving")
    told = [{"file": "/own/damaged.nii", "reason": "It is damaged, sorry."}]
    assert tables(skipped) == told
    place = "/home/me/runs/1/inputs/images/case-0002.nrrd"
    skipped.write_text(f"file,reason\n{place},{place} is empty\n")
    for _ in range(2):
        restore_names(tmp_path, tmp_path / "arriving")
        assert tables(skipped) == [{"file": "/own/empty.nii", "reason": "/own/empty.nii is empty"}, *told]


def test_a_model_gets_the_name_of_its_dataset_back(tmp_path: Path) -> None:
    write_json(tmp_path / "cases.json", {"kind": "finetune", "cases": {}, "subjects": {}, "unreadable": [],
                                         "dataset": "livers of Mainz"})
    (tmp_path / "arriving" / "model").mkdir(parents=True)
    write_json(tmp_path / "arriving" / "model" / "model.json", {"training": {"dataset": "dataset", "cases": 4}})
    restore_names(tmp_path, tmp_path / "arriving")
    assert read_json(tmp_path / "arriving" / "model" / "model.json")["training"] == {
        "dataset": "livers of Mainz", "cases": 4}
