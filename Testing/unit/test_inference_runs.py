"""The run kinds segment and classify, from a run folder to files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from inference_helpers import Bands, MeanLevel, description
from test_preprocessing import oblique

from medmae import run as run_module
from medmae.config import to_json
from medmae.errors import BadInput
from medmae.inference.cases import find_cases
from medmae.inference.config import ClassifyConfig, EvaluateConfig, SegmentConfig
from medmae.inference.loaded_model import LoadedModel
from medmae.inference.segmenter import Segmenter
from medmae.models import save_model
from medmae.networks import architecture_for, build_network
from medmae.run_folder import RunFolder
from medmae.volumes import Geometry, Segment, read_image, read_label, read_segments, write_label

CONFIGS = {"segment": SegmentConfig, "classify": ClassifyConfig, "evaluate": EvaluateConfig}

LEVELS = {"kind": "ct_window", "low": 0.0, "high": 2.0}


@pytest.fixture
def known_model(monkeypatch):
    """Lets the model named "known" be one whose answer is known; returns a function that chooses it."""
    real = LoadedModel.load

    def choose(info, network):
        def load(model, **kwargs):
            if model != "known":
                return real(model, **kwargs)
            return LoadedModel.of(info, network)

        monkeypatch.setattr(LoadedModel, "load", load)
        return info

    return choose


def execute(folder, kind, inputs, **config):
    run = RunFolder.create(folder, kind, to_json(CONFIGS[kind](**config)), inputs)
    return run, run_module.execute(run.path)


def result(run):
    return json.loads((run.path / "result.json").read_text())


def write_image(path, array, geometry):
    write_label(path, array, geometry, [], "nii.gz")  # levels 0, 1, 2: `Bands` sees them divided by 2


def write_images(folder, names, axes=("LPS", "RAS", "PSR")):
    folder.mkdir(parents=True, exist_ok=True)
    truths = {}
    for number, name in enumerate(names):
        geometry = oblique((6, 9, 8), (2.0, 1.0, 1.5), axes[number % len(axes)])
        truths[name] = np.random.default_rng(number).integers(0, 3, geometry.shape).astype(np.uint8)
        write_image(folder / f"{name}.nii.gz", truths[name], geometry)
    return truths


@pytest.fixture
def bands(known_model):
    """Label c where the stored level is c."""
    return known_model(description(values=(0, 5, 300), intensity=LEVELS), Bands())


@pytest.mark.parametrize("file_format", ["nii.gz", "nrrd", "seg.nrrd"])
def test_segment_writes_labels_on_the_grid_of_each_image(tmp_path, monkeypatch, bands, file_format):
    monkeypatch.chdir(tmp_path)
    truths = write_images(tmp_path / "scans" / "sub", ["a", "b", "c"])
    run, code = execute(tmp_path / "run", "segment", {"model": "known", "images": ["scans"], "out": "results"},
                        format=file_format)
    assert code == 0, run.state()
    for name, truth in truths.items():
        output = tmp_path / "results" / "scans" / "sub" / f"{name}.{file_format}"
        found = read_label(output)
        assert found.geometry.is_close(read_image(tmp_path / "scans" / "sub" / f"{name}.nii.gz").geometry)
        expected = np.array([0, 5, 300])[truth]
        assert np.array_equal(found.array[0], expected)
        if file_format == "seg.nrrd":
            assert [(s.name, s.value) for s in read_segments(output)] == [("rim", 5), ("core", 300)]
    rows = list(csv.DictReader((tmp_path / "results" / "summary.csv").open()))
    assert len(rows) == 6
    core = next(row for row in rows if row["image"].endswith("b.nii.gz") and row["label"] == "core")
    voxels = int((truths["b"] == 2).sum())
    assert core["value"] == "300" and int(core["voxels"]) == voxels
    assert float(core["ml"]) == pytest.approx(voxels * 0.003)
    assert [case["labels"]["core"]["voxels"] for case in result(run)["cases"]] == [
        int((truth == 2).sum()) for truth in truths.values()]
    assert not list(tmp_path.rglob(".partial-*"))


def test_a_bad_image_does_not_take_the_others_down(tmp_path, bands):
    write_images(tmp_path / "scans", ["a", "c"])
    (tmp_path / "scans" / "b.nii.gz").write_text("not an image")
    (tmp_path / "scans" / "d.nii.gz").write_bytes((tmp_path / "scans" / "a.nii.gz").read_bytes()[:200])
    run, code = execute(tmp_path / "run", "segment", {"model": "known", "images": [str(tmp_path / "scans")],
                                                      "out": str(tmp_path / "out")})
    assert code == 1 and "2 of 4" in run.state()["reason"]
    found = result(run)
    assert len(found["cases"]) == 2 and [case["image"][-8:] for case in found["failed"]] == ["b.nii.gz", "d.nii.gz"]
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 2
    rows = list(csv.DictReader((tmp_path / "out" / "summary.csv").open()))
    assert sum(bool(row["error"]) for row in rows) == 2


def test_only_bad_images_are_bad_input_and_leave_nothing(tmp_path, bands):
    (tmp_path / "b.nii.gz").write_text("not an image")
    inputs = {"model": "known", "images": [str(tmp_path / "b.nii.gz")], "out": str(tmp_path / "out")}
    run, code = execute(tmp_path / "run", "segment", inputs)
    assert code == 2 and "b.nii.gz" in run.state()["reason"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "change"), [
    ("segment", {"images": ["absent.nii.gz"]}), ("segment", {"images": []}), ("segment", {"model": "no-such-model"}),
    ("segment", {"model": None}), ("classify", {"images": ["absent.nii.gz"]}), ("classify", {"model": "no-such-model"}),
])
def test_bad_specifications_are_refused_before_anything_is_written(tmp_path, bands, kind, change):
    write_images(tmp_path / "scans", ["a"])
    inputs = {"model": "known", "images": [str(tmp_path / "scans")], "out": str(tmp_path / "out")} | change
    assert execute(tmp_path / "run", kind, inputs)[1] == 2
    assert not (tmp_path / "out").exists()


def test_our_own_failure_is_not_called_bad_input(tmp_path, known_model):
    class Broken(Bands):
        def forward(self, images):
            raise RuntimeError("a fault in the network")

    known_model(description(), Broken())
    write_images(tmp_path / "scans", ["a"])
    inputs = {"model": "known", "images": [str(tmp_path / "scans")], "out": str(tmp_path / "out")}
    run, code = execute(tmp_path / "run", "segment", inputs)
    assert code == 1 and "a fault in the network" in run.state()["reason"]
    assert "Traceback" in run.log_file.read_text()


def test_a_stop_keeps_finished_images(tmp_path, known_model):
    class Stopping(Bands):
        def forward(self, images):
            (tmp_path / "run" / "STOP").touch()
            return super().forward(images)

    known_model(description(), Stopping())
    write_images(tmp_path / "scans", ["a", "b", "c"])
    inputs = {"model": "known", "images": [str(tmp_path / "scans")], "out": str(tmp_path / "out")}
    run, code = execute(tmp_path / "run", "segment", inputs, batch=64)
    assert code == 0 and run.state()["state"] == "stopped"
    assert len(result(run)["cases"]) < 3
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == len(result(run)["cases"])


def test_progress_counts_up_to_the_total(tmp_path, bands):
    write_images(tmp_path / "scans", ["a", "b"])
    run, _ = execute(tmp_path / "run", "segment", {"model": "known", "images": [str(tmp_path / "scans")],
                                                   "out": str(tmp_path / "out")})
    records = run.progress()
    assert records[-1]["step"] == records[-1]["total"] == 200
    assert {"stage", "seconds", "eta_s", "message"} <= set(records[-1])
    assert run.state()["step"] == 200


def test_multi_channel_cases_are_lists_within_the_list(tmp_path):
    write_images(tmp_path, ["t1", "t2"])
    cases = find_cases([[str(tmp_path / "t1.nii.gz"), str(tmp_path / "t2.nii.gz")]])
    assert len(cases) == 1 and [path.name for path in cases[0].images] == ["t1.nii.gz", "t2.nii.gz"]
    with pytest.raises(BadInput, match="one image"):
        find_cases([[str(tmp_path), str(tmp_path / "t2.nii.gz")]])


def test_classify_writes_probabilities(tmp_path, known_model):
    known_model(description("classification", 2, values=(0, 1), names=["dark", "bright"],
                            intensity=LEVELS), MeanLevel())
    geometry = Geometry.of((8, 8, 8), (1.0, 1.0, 1.0), axes="LPS")
    write_image(tmp_path / "one.nii.gz", np.full((8, 8, 8), 2, np.uint8), geometry)
    write_image(tmp_path / "two.nii.gz", np.zeros((8, 8, 8), np.uint8), geometry)
    (tmp_path / "three.nii.gz").write_text("not an image")
    inputs = {"model": "known", "images": [str(tmp_path / "*.nii.gz")], "out": str(tmp_path / "out")}
    run, code = execute(tmp_path / "run", "classify", inputs)
    assert code == 1
    rows = {row["image"].rpartition("/")[2]: row for row in csv.DictReader((tmp_path / "out" / "classes.csv").open())}
    assert rows["one.nii.gz"]["label"] == "bright" and rows["two.nii.gz"]["label"] == "dark"
    assert float(rows["one.nii.gz"]["p(bright)"]) > 0.99 and rows["one.nii.gz"]["deciding_slice"].startswith("k=")
    assert rows["three.nii.gz"]["error"]
    assert result(run) == json.loads((tmp_path / "out" / "classes.json").read_text())
    case = next(case for case in result(run)["cases"] if case["image"].endswith("one.nii.gz"))
    assert case["deciding_slice"] == case["deciding_slices"]["bright"] and result(run)["pooling"] == "mean"
    assert not result(run)["calibrated"]


def test_classify_takes_another_pooling_and_says_that_the_temperature_does_not_hold(tmp_path, known_model):
    info = description("classification", 2, values=(0, 1), names=["dark", "bright"], intensity=LEVELS)
    known_model(replace(info, calibration={"temperature": 2.0, "cases": 30}), MeanLevel())
    array = np.zeros((8, 8, 8), np.uint8)
    array[5] = 2
    write_image(tmp_path / "one.nii.gz", array, Geometry.of((8, 8, 8), (1.0, 1.0, 1.0), axes="LPS"))
    inputs = {"model": "known", "images": [str(tmp_path / "one.nii.gz")], "out": str(tmp_path / "out")}
    found = {}
    for pooling in (None, "max"):
        run, code = execute(tmp_path / str(pooling), "classify", inputs | {"out": str(tmp_path / f"out-{pooling}")},
                            pooling=pooling)
        assert code == 0
        found[pooling] = result(run)
    assert found[None]["calibrated"] and not found["max"]["calibrated"]
    # logits of the slices: (5, -5) seven times and (-5, 5) once
    assert found[None]["cases"][0]["probabilities"]["bright"] == pytest.approx(1 / (1 + np.exp(7.5 / 2)), abs=1e-5)
    assert found["max"]["cases"][0]["probabilities"]["bright"] == pytest.approx(0.5, abs=1e-5)
    assert found["max"]["cases"][0]["deciding_slices"]["bright"] == {"axis": "k", "index": 5}
    with pytest.raises(ValueError, match="pooling must be"):
        ClassifyConfig(pooling="median")


@pytest.mark.parametrize(("method", "dims"), [("gl-mae", 3), ("vis-mae", 2)])
def test_real_tiny_networks_segment_and_classify_from_disk(tmp_path, method, dims):
    torch.manual_seed(0)
    size = [48] * 3 if dims == 3 else [112] * 2
    geometry = oblique((10, 30, 26), (3.0, 1.0, 1.0), "LPS")
    array = np.random.default_rng(0).integers(0, 3, geometry.shape).astype(np.uint8)
    write_image(tmp_path / "a.nii.gz", array, geometry)
    for task, kind, output in (("segmentation", "segment", None), ("classification", "classify", "classes.csv")):
        architecture = architecture_for(method, "tiny", task, 1, 3)
        info = description(task, dims, size=size, spacing=[1.5] * 3 if dims == 3 else None, architecture=architecture)
        folder = save_model(tmp_path / task, info, build_network(architecture))
        inputs = {"model": str(folder), "images": [str(tmp_path / "a.nii.gz")], "out": str(tmp_path / kind)}
        run, code = execute(tmp_path / f"run-{kind}", kind, inputs)
        assert code == 0, run.state()
        written = tmp_path / kind / output if output else next((tmp_path / kind).rglob("a.nii.gz"))
        assert written.is_file()
    assert read_label(next((tmp_path / "segment").rglob("a.nii.gz"))).geometry.is_close(geometry)
    both = Segmenter(str(tmp_path / "segmentation")), Segmenter(str(tmp_path / "segmentation"), precision="bf16")
    image = read_image(tmp_path / "a.nii.gz")
    exact, reduced = (segmenter.segment(image) for segmenter in both)
    assert (exact == reduced).mean() > 0.9


def test_segments_keep_names_and_colours(tmp_path, bands):
    write_images(tmp_path / "scans", ["a"])
    inputs = {"model": "known", "images": [str(tmp_path / "scans")], "out": str(tmp_path / "out")}
    execute(tmp_path / "run", "segment", inputs, format="seg.nrrd")
    found = read_segments(next((tmp_path / "out").rglob("a.seg.nrrd")))
    wanted = [Segment(label["name"], label["value"], tuple(label["color"])) for label in bands.labels[1:]]
    assert [(s.name, s.value) for s in found] == [(s.name, s.value) for s in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.color, other.color, atol=0.005)


def test_every_development_volume_goes_through_a_run_onto_its_exact_grid(tmp_path, shared_data):
    folder = shared_data / "volumes"
    torch.manual_seed(0)
    architecture = architecture_for("vis-mae", "tiny", "segmentation", 1, 3)
    info = description(dims=2, size=[112, 112], architecture=architecture, intensity={"kind": "robust"})
    model = save_model(tmp_path / "model", info, build_network(architecture))
    images = [*map(str, sorted(folder.glob("*/image*.n*"))), str(folder / "ct_abdomen_dicom")]
    inputs = {"model": str(model), "images": images, "out": str(tmp_path / "out")}
    run, code = execute(tmp_path / "run", "segment", inputs)
    found = result(run)
    assert code == 1  # the 4-D image needs a frame
    assert len(found["failed"]) == 1 and "image_4d" in found["failed"][0]["image"]
    assert "frame" in found["failed"][0]["reason"]
    assert len(found["cases"]) == len(images)  # one less, and the DICOM folder holds a NIfTI twin of the series
    twins = [case["labels"] for case in found["cases"] if "ct_abdomen_dicom" in case["image"]]
    assert len(twins) == 2 and twins[0] == twins[1]
    for case in found["cases"]:
        label, image = read_label(case["output"]), read_image(case["image"])
        assert label.geometry.is_close(image.geometry, tolerance_mm=1e-4), case["image"]
    four_d = [image for image in images if "image_4d" in image]
    run, code = execute(tmp_path / "frame", "segment", {**inputs, "images": four_d}, frame=1)
    assert code == 0
    case = result(run)["cases"][0]
    assert read_label(case["output"]).geometry.is_close(read_image(case["image"], frame=1).geometry)
