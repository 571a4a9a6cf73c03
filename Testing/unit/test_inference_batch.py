"""Batches of segment and classify: further outputs, regions, ensembles, resuming, kills, time left."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from inference_helpers import Bands, MeanLevel, description
from test_inference_runs import LEVELS, bands, execute, known_model, result, write_image, write_images  # noqa: F401
from test_preprocessing import oblique
from test_volumes_dicom import voxels, write_series

from medmae.errors import BadInput
from medmae.inference.case_loop import for_each_case
from medmae.inference.config import SegmentConfig
from medmae.run_folder import RunFolder
from medmae.volumes import Geometry, Segment, read_image, read_label, read_segments, write_label

VALUES = np.array([0, 5, 300])


def inputs_of(folder, **more):
    return {"model": "known", "images": [str(folder / "scans")], "out": str(folder / "out")} | more


def output(folder, name, ending="nii.gz"):
    return next((folder / "out").rglob(f"{name}.{ending}"))


def test_probabilities_and_uncertainty_lie_beside_the_labels(tmp_path, bands):  # noqa: F811
    truths = write_images(tmp_path / "scans", ["a", "b"])
    run, code = execute(tmp_path / "run", "segment", inputs_of(tmp_path), probabilities=True, uncertainty=True)
    assert code == 0, run.state()
    for case, (name, truth) in zip(result(run)["cases"], truths.items(), strict=True):
        grid = read_image(tmp_path / "scans" / f"{name}.nii.gz").geometry
        core = read_image(case["probabilities"]["core"])
        assert case["probabilities"]["core"].endswith(f"{name}.probability-core.nii.gz")
        assert core.geometry.is_close(grid) and core.array.dtype == np.uint8
        # `Bands`: logits -(x - c)^2 of the three levels
        logits = -(truth[None] / 2 - np.array([0, 0.5, 1]).reshape(3, 1, 1, 1)) ** 2
        probabilities = np.exp(logits) / np.exp(logits).sum(0)
        assert np.abs(core.array[0] - 255 * probabilities[2]).max() <= 0.51
        uncertainty = read_image(output(tmp_path, name, "uncertainty.nii.gz"))
        entropy = -(probabilities * np.log(probabilities)).sum(0) / np.log(3)
        assert np.abs(uncertainty.array[0] - 255 * entropy).max() <= 0.51
        assert case["labels"]["rim"]["confidence"] == pytest.approx(probabilities[1][truth == 1].mean(), abs=1e-3)
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").open()))
    assert all(float(row["area_mm2"]) > 0 and float(row["confidence"]) > 0.3 for row in rows)
    assert not list(tmp_path.rglob(".partial-*"))


def test_summary_keeps_its_columns_and_adds_surface(tmp_path, bands):  # noqa: F811
    write_images(tmp_path / "scans", ["a"])
    execute(tmp_path / "run", "segment", inputs_of(tmp_path))
    with open(tmp_path / "out" / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:8] == ["image", "output", "label", "value", "voxels", "ml", "seconds", "error"]
    assert float(rows[0]["area_mm2"]) > 0 and float(rows[0]["confidence"]) > 0.3


def test_labels_outside_of_the_region_are_kept(tmp_path, bands):  # noqa: F811
    truths = write_images(tmp_path / "scans", ["a", "b"])
    geometry = read_image(tmp_path / "scans" / "a.nii.gz").geometry
    centre = geometry.center_mm
    roi = tuple(float(value) for axis in range(3) for value in (centre[axis] - 3, centre[axis] + 3))
    base = {name: np.full(truth.shape, 9, np.uint8) for name, truth in truths.items()}
    for name, array in base.items():
        image = read_image(tmp_path / "scans" / f"{name}.nii.gz")
        path = tmp_path / "base" / Path(*(tmp_path / "scans").parts[1:]) / f"{name}.seg.nrrd"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_label(path, array, image.geometry, [Segment("vessel", 9, (1.0, 0.0, 0.0))], "seg.nrrd")
    run, code = execute(tmp_path / "run", "segment", inputs_of(tmp_path, base=str(tmp_path / "base"),
                                                                images=[str(tmp_path / "scans" / "a.nii.gz")]),
                        roi=roi, format="seg.nrrd")
    assert code == 0, run.state()
    world = geometry.to_world(np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1))
    inside = np.all([(world[..., axis] >= roi[2 * axis]) & (world[..., axis] <= roi[2 * axis + 1])
                     for axis in range(3)], axis=0)
    file = output(tmp_path, "a", "seg.nrrd")
    assert np.array_equal(read_label(file).array[0], np.where(inside, VALUES[truths["a"]], 9))
    assert [segment.name for segment in read_segments(file)] == ["rim", "core", "vessel"]


@pytest.mark.parametrize(("change", "config", "told"), [
    ({"base": "{}/absent.nii.gz"}, {"roi": (0, 1, 0, 1, 0, 1)}, "do not exist"),
    ({"base": "{}/scans/a.nii.gz"}, {"roi": (0, 1, 0, 1, 0, 1)}, "2 images"),
    ({"base": "{}/scans"}, {}, "--roi"),
    ({}, {"roi": (9000, 9001, 0, 1, 0, 1)}, "no voxel"),
    ({}, {"format": "dicom-seg"}, "not DICOM"),
])
def test_regions_and_formats_that_make_no_sense_leave_nothing(tmp_path, bands, change, config, told):  # noqa: F811
    write_images(tmp_path / "scans", ["a", "b"])
    change = {key: value.format(tmp_path) for key, value in change.items()}
    run, code = execute(tmp_path / "run", "segment", inputs_of(tmp_path, **change), **config)
    assert code == 2 and told in run.state()["reason"]
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_the_model_and_the_user_may_ask_for_clean_labels(tmp_path, known_model):  # noqa: F811
    info = description(values=(0, 5, 300), intensity=LEVELS)
    known_model(replace(info, postprocessing={"largest_component": ["rim"], "fill_holes": ["rim"]}), Bands())
    array = np.zeros((8, 9, 10), np.uint8)
    array[1:6, 1:6, 1:6], array[3, 3, 3], array[7, 8, 9], array[7, 0, 9] = 1, 0, 1, 2
    (tmp_path / "scans").mkdir()
    write_image(tmp_path / "scans" / "a.nii.gz", array, oblique((8, 9, 10), (2.0, 1.0, 1.5), "RAS"))
    found = {}
    for name, config in (("model", {}), ("none", {"postprocess": "none"}),
                         ("user", {"postprocess": "none", "fill_holes": True})):
        inputs = inputs_of(tmp_path, out=str(tmp_path / f"out-{name}"))
        run, code = execute(tmp_path / name, "segment", inputs, **config)
        assert code == 0, run.state()
        found[name] = read_label(result(run)["cases"][0]["output"]).array[0]
        if name == "model":
            size = result(run)["cases"][0]["labels"]["rim"]
            assert (size["voxels"], size["ml"], size["value"]) == (125, pytest.approx(0.375), 5)  # one taken, one given
            assert set(size) == {"value", "voxels", "ml", "area_mm2", "confidence"}
    assert np.array_equal(found["none"], VALUES[array])
    clean = VALUES[array]
    clean[3, 3, 3] = 5
    assert np.array_equal(found["user"], clean)
    clean[7, 8, 9] = 0
    assert np.array_equal(found["model"], clean)


def test_a_dicom_series_gets_a_dicom_segmentation(tmp_path, bands):  # noqa: F811
    hd = pytest.importorskip("highdicom")
    array = np.random.default_rng(0).integers(0, 3, voxels().shape).astype(np.int16) + 1024
    write_series(tmp_path / "scans" / "ct", array=array, PatientID="1", StudyInstanceUID="1.2",
                 FrameOfReferenceUID="1.3")
    run, code = execute(tmp_path / "run", "segment", inputs_of(tmp_path), format="dicom-seg")
    assert code == 0, run.state()
    file = output(tmp_path, "ct", "seg.dcm")
    seg = hd.seg.segread(file)
    assert [seg.get_segment_description(n).segment_label for n in (1, 2)] == ["rim", "core"]
    assert seg.get_segment_description(1).algorithm_identification.name == "test"
    assert int(np.asarray(seg.pixel_array).sum()) == int((array > 1024).sum())


def test_an_ensemble_is_named_with_all_its_models(tmp_path, known_model):  # noqa: F811
    known_model(description(values=(0, 5, 300), intensity=LEVELS), Bands())
    truths = write_images(tmp_path / "scans", ["a"])
    run, code = execute(tmp_path / "run", "segment", inputs_of(tmp_path, model=["known", "known"]), mirror=True)
    assert code == 0, run.state()
    assert result(run)["models"] == ["test", "test"]
    case = result(run)["cases"][0]
    assert case["passes"] == 16 and case["windows"] >= case["windows_skipped"] >= 0 and case["peak_bytes"] > 10**7
    assert set(case["stage_seconds"]) == {"read", "segment", "postprocess", "measure", "write"}
    assert case["estimated_peak_bytes"] > case["peak_bytes"] / 2
    assert any("16 passes each (mirroring and 2 models)" in str(record.get("message")) for record in run.progress())
    assert np.array_equal(read_label(case["output"]).array[0], VALUES[truths["a"]])


class Counting(Bands):
    """Counts the images that it sees, by stops of the run or failures."""

    def __init__(self, before_forward) -> None:
        super().__init__()
        self.before_forward = before_forward

    def forward(self, images):
        self.before_forward()
        return super().forward(images)


def test_resume_does_what_is_left_and_lists_everything(tmp_path, known_model):  # noqa: F811
    calls = []

    def stop_in_the_second():
        calls.append(1)
        if len(calls) == 2:
            (tmp_path / "run0" / "STOP").touch()

    known_model(description(values=(0, 5, 300), intensity=LEVELS, size=[16, 16, 16]), Counting(stop_in_the_second))
    truths = write_images(tmp_path / "scans", ["a", "b", "c"])
    (tmp_path / "scans" / "d.nii.gz").write_text("not an image")
    run, code = execute(tmp_path / "run0", "segment", inputs_of(tmp_path))
    assert code == 0 and run.state()["state"] == "stopped" and len(result(run)["cases"]) < 3
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.nii.gz")}
    for attempt in (1, 2):
        run, code = execute(tmp_path / f"run{attempt}", "segment", inputs_of(tmp_path, resume=True))
        assert code == 1 and "d.nii.gz" in run.state()["reason"]  # failed cases are tried again
        assert [Path(case["image"]).name[0] for case in result(run)["cases"]] == ["a", "b", "c"]
        assert result(run)["finished_before"] == (len(before) if attempt == 1 else 3)
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in before.items())
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").open()))
    assert len(rows) == 7 and rows[-1]["error"]
    for name, truth in truths.items():
        assert np.array_equal(read_label(output(tmp_path, name)).array[0], VALUES[truth])
    write_image(tmp_path / "scans" / "d.nii.gz", truths["a"], oblique((6, 9, 8), (2.0, 1.0, 1.5), "RAS"))
    run, code = execute(tmp_path / "run3", "segment", inputs_of(tmp_path, resume=True))
    assert code == 0 and len(result(run)["cases"]) == 4 and not result(run)["failed"]


def test_resume_with_other_options_is_refused_and_touches_nothing(tmp_path, bands):  # noqa: F811
    write_images(tmp_path / "scans", ["a"])
    execute(tmp_path / "run", "segment", inputs_of(tmp_path))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    run, code = execute(tmp_path / "again", "segment", inputs_of(tmp_path, resume=True), overlap=0.25, batch=3)
    assert code == 2 and "overlap=0.5 (not 0.25)" in run.state()["reason"] and "batch" not in run.state()["reason"]
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_classify_resumes_too(tmp_path, known_model):  # noqa: F811
    known_model(description("classification", 2, values=(0, 1), names=["dark", "bright"], intensity=LEVELS),
                MeanLevel())
    (tmp_path / "scans").mkdir()
    geometry = Geometry.of((8, 8, 8), (1.0, 1.0, 1.0), axes="LPS")
    write_image(tmp_path / "scans" / "one.nii.gz", np.full((8, 8, 8), 2, np.uint8), geometry)
    (tmp_path / "scans" / "two.nii.gz").write_text("not an image")
    assert execute(tmp_path / "run", "classify", inputs_of(tmp_path))[1] == 1
    write_image(tmp_path / "scans" / "two.nii.gz", np.zeros((8, 8, 8), np.uint8), geometry)
    run, code = execute(tmp_path / "again", "classify", inputs_of(tmp_path, resume=True))
    assert code == 0 and [case["label"] for case in result(run)["cases"]] == ["bright", "dark"]
    assert result(run)["finished_before"] == 1
    assert json.loads((tmp_path / "out" / "classes.json").read_text()) == result(run)
    assert execute(tmp_path / "max", "classify", inputs_of(tmp_path, resume=True), pooling="max")[1] == 2


def test_a_case_that_cannot_be_written_whole_leaves_nothing(tmp_path, bands, monkeypatch):  # noqa: F811
    write_images(tmp_path / "scans", ["a", "b"])
    from medmae.inference import segment_outputs

    real = segment_outputs.write_label

    def full(path, *arguments):
        if path.name == "a.nii.gz":
            raise OSError(28, "No space left on device", str(path))
        return real(path, *arguments)

    monkeypatch.setattr(segment_outputs, "write_label", full)
    run, code = execute(tmp_path / "run", "segment", inputs_of(tmp_path), probabilities=True, uncertainty=True)
    assert code == 1 and "No space left" in result(run)["failed"][0]["reason"]
    assert {path.name.partition(".")[0] for path in (tmp_path / "out").rglob("*.nii.gz")} == {"b"}


KILLED = """
import sys
sys.path[:0] = [{tests!r}]
from inference_helpers import Bands, description
from medmae import run
from medmae.inference.loaded_model import LoadedModel
from test_inference_runs import LEVELS
LoadedModel.load = lambda model, **_: LoadedModel.of(description(values=(0, 5, 300), intensity=LEVELS), Bands())
print("ready", flush=True)
run.execute(sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("milliseconds", [5, 120, 300, 700])
def test_a_kill_at_any_moment_leaves_whole_files_and_resume_does_the_rest(tmp_path, bands, milliseconds):  # noqa: F811
    truths = write_images(tmp_path / "scans", [f"case{number}" for number in range(8)])
    from medmae.config import to_json

    RunFolder.create(tmp_path / "run", "segment", to_json(SegmentConfig(probabilities=True)), inputs_of(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", KILLED.format(tests=str(Path(__file__).parent)),
                                str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(milliseconds / 1000)
    process.kill()
    process.wait()
    for path in (tmp_path / "out").rglob("*.nii.gz"):
        if not path.name.startswith("."):
            read_image(path)
    run, code = execute(tmp_path / "again", "segment", inputs_of(tmp_path, resume=True), probabilities=True)
    assert code == 0, run.state()
    assert len(result(run)["cases"]) == 8 and not list((tmp_path / "out").rglob(".partial-*"))
    for name, truth in truths.items():
        assert np.array_equal(read_label(output(tmp_path, name)).array[0], VALUES[truth])


def test_the_time_left_follows_from_the_sizes_of_the_cases(tmp_path, monkeypatch):
    run = RunFolder.create(tmp_path / "run", "segment", {}, {})
    clock = [0.0]
    monkeypatch.setattr("medmae.inference.case_loop.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("medmae.inference.case_loop.WRITE_EVERY_SECONDS", 0.0)
    sizes = [100.0, 10.0, 30.0, 60.0]

    def work(index, on_progress):
        clock[0] += sizes[index] / 20
        on_progress(1, 2)
        clock[0] += sizes[index] / 20

    for_each_case(run, "segment", list("abcd"), work, [], sizes=sizes, done_before={0})
    left = {record["step"]: record["eta_s"] for record in run.progress()}
    assert left[100] is None  # nothing is known yet: the first case was finished by an earlier run
    assert left[150] == pytest.approx(9.5) and left[200] == pytest.approx(9.0) and left[300] == pytest.approx(6.0)
    assert left[350] == pytest.approx(3.0) and left[400] == 0


def test_the_end_of_every_case_is_told_with_its_reason(tmp_path):
    run = RunFolder.create(tmp_path / "run", "segment", {}, {})

    def work(index, on_progress):
        if index == 1:
            raise BadInput("The image is sheared.")
        if index == 2:
            raise OSError("disk full")

    for_each_case(run, "segment", ["a", "b", "c", "d"], work, [], done_before={3})
    ended = [(record["case"], record["ended"], record.get("reason")) for record in run.progress() if "ended" in record]
    assert ended == [(1, "done", None), (2, "failed", "The image is sheared."), (3, "failed", "OSError: disk full")]
    assert run.progress()[-1]["step"] == run.progress()[-1]["total"]
