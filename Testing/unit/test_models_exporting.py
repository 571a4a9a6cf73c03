"""Exported MONAI bundles: what they hold, and that monai.bundle gives the results of medmae segment and classify."""

from __future__ import annotations

import csv
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the usual name
import torch
from inference_helpers import description
from volume_builders import rotation

from medmae.cli.app import run
from medmae.cli.model_export import FORMATS as OFFERED
from medmae.errors import BadInput
from medmae.models import load_info, load_state, save_model
from medmae.models.exporting import EXPORTS, export_model
from medmae.networks import build_network

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")
VIT = {"patch": 8, "width": 48, "depth": 2, "heads": 2}
SWIN = {"patch": 4, "width": 12, "depths": [1, 1], "heads": [1, 2], "window": 4}
UNET = {"spatial_dims": 3, "widths": [4, 8]}
UNETR = {**VIT, "skip_blocks": [1, 2], "feature_size": 4}
# name: (task, dimensions, channels, architecture)
MODELS = {
    "unetr": ("segmentation", 3, 1, {"name": "unetr", "arguments": UNETR}),
    "unetr of two channels": ("segmentation", 3, 2, {"name": "unetr", "arguments": UNETR}),
    "plain u-net": ("segmentation", 3, 1, {"name": "plain_unet", "arguments": UNET}),
    "dynunet": ("segmentation", 3, 1, {"name": "dyn_unet", "arguments": {**UNET, "widths": [4, 8, 8]}}),
    "swin-unet": ("segmentation", 2, 1, {"name": "swin_unet", "arguments": SWIN}),
    "vit classifier": ("classification", 3, 1, {"name": "vit_classifier", "arguments": VIT}),
    "swin classifier": ("classification", 2, 1, {"name": "swin_classifier", "arguments": SWIN}),
}
ENSEMBLE = {"name": "ensemble", "arguments": {"members": 2, "member": {"name": "plain_unet", "arguments": {
    **UNET, "channels": 1, "classes": 3}}}}


def write_model(folder: Path, task: str, dims: int, channels: int, architecture: dict) -> Path:
    """A model with fresh weights that do not know what they look at, but tell places apart."""
    architecture = {"name": architecture["name"],
                    "arguments": {**architecture["arguments"], "channels": channels, "classes": 3}}
    info = description(task, dims, channels=channels, values=(0, 2, 5), size=[16] * 3 if dims == 3 else [32, 32],
                       spacing=[2.0, 1.5, 1.5] if dims == 3 else None, architecture=architecture,
                       intensity={"kind": "robust", "low": 0.5, "high": 99.5})
    torch.manual_seed(3)
    return save_model(folder, info, build_network(architecture))


def write_images(folder: Path, dims: int, channels: int, count: int = 2) -> list[list[str]]:
    """Cases of `channels` files each: oblique anisotropic volumes, or pictures."""
    folder.mkdir(parents=True)
    cases = []
    for case in range(count):
        generator = np.random.default_rng(case)
        shape = (14, 21, 17) if dims == 3 else (40, 28)
        names = []
        for channel in range(channels):
            noise = generator.normal(0, 60, shape) + 200 * np.sin(np.indices(shape).sum(0) / (3 + case + channel)) + 300
            image = sitk.GetImageFromArray(noise.clip(0, 255).astype(np.uint8 if dims == 2 else np.int16))
            if dims == 3:
                image.SetSpacing((1.2, 1.6, 2.9))
                image.SetDirection(rotation((0.3, -0.2, 0.5)).ravel().tolist())
            names.append(str(folder / f"case{case}-{channel}{'.png' if dims == 2 else '.nii.gz'}"))
            sitk.WriteImage(image, names[-1])
        cases.append(names)
    return cases


def bundle_of(model: Path, out: Path) -> Path:
    assert run(["model", "export", str(model), "--format", "monai-bundle", "--out", str(out)]) == 0
    return out


def run_bundle(bundle: Path, **overrides: object) -> None:
    monai_bundle = pytest.importorskip("monai.bundle")
    monai_bundle.run(config_file=str(bundle / "configs" / "inference.json"), bundle_root=str(bundle), **overrides)


def same_labels(one: Path, other: Path) -> int:
    """Compare all label files of two folders voxel for voxel and grid for grid; returns how many there are."""
    files, others = ({path.name: path for path in folder.rglob("*.nii.gz")} for folder in (one, other))
    assert files.keys() == others.keys()
    for name in files:
        left, right = sitk.ReadImage(str(files[name])), sitk.ReadImage(str(others[name]))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(left), sitk.GetArrayFromImage(right))
        assert (left.GetOrigin(), left.GetDirection(), left.GetSpacing()) == (
            right.GetOrigin(), right.GetDirection(), right.GetSpacing())
        assert len(np.unique(sitk.GetArrayFromImage(left))) > 1
    return len(files)


def segment(model: Path, cases: list[list[str]], out: Path) -> None:
    from medmae.inference.segmenter import Segmenter
    from medmae.volumes import read_image, write_label

    segmenter = Segmenter(model)  # as medmae segment does it; the command itself takes one channel a file
    for case in cases:
        images = [read_image(path) for path in case]
        path = out / f"{Path(case[0]).name.split('.')[0]}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        write_label(path, segmenter.segment(images), images[0].geometry, [], "nii.gz")


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name][0] == "segmentation"])
def test_a_bundle_gives_the_labels_of_medmae_segment_voxel_for_voxel(name, tmp_path):
    model, cases = write_model(tmp_path / "model", *MODELS[name]), write_images(tmp_path / "in", *MODELS[name][1:3])
    bundle = bundle_of(model, tmp_path / "bundle")
    images = [case if len(case) > 1 else case[0] for case in cases]
    run_bundle(bundle, images=images, output_dir=str(tmp_path / "monai"))
    segment(model, cases, tmp_path / "own")
    assert same_labels(tmp_path / "own", tmp_path / "monai") == len(cases)


def test_the_bundle_of_an_ensemble_gives_its_labels(tmp_path):
    model, cases = write_model(tmp_path / "model", "segmentation", 3, 1, ENSEMBLE), write_images(tmp_path / "in", 3, 1)
    run_bundle(bundle_of(model, tmp_path / "bundle"), dataset_dir=str(tmp_path / "in"),
               output_dir=str(tmp_path / "monai"))
    segment(model, cases, tmp_path / "own")
    assert same_labels(tmp_path / "own", tmp_path / "monai") == len(cases)


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name][0] == "classification"])
def test_a_bundle_gives_the_probabilities_of_medmae_classify(name, tmp_path, capsys):
    model = write_model(tmp_path / "model", *MODELS[name])
    write_images(tmp_path / "in", *MODELS[name][1:3])
    run_bundle(bundle_of(model, tmp_path / "bundle"), dataset_dir=str(tmp_path / "in"),
               output_dir=str(tmp_path / "monai"))
    capsys.readouterr()
    assert run(["classify", "--model", str(model), "--images", str(tmp_path / "in"), "--out", str(tmp_path / "own"),
                "--json"]) == 0
    own = {case["image"]: case["probabilities"] for case in json.loads(capsys.readouterr().out)["cases"]}
    with open(tmp_path / "monai" / "probabilities.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(own) == 2
    for row in rows:
        assert {label: float(row[label]) for label in own[row["image"]]} == pytest.approx(own[row["image"]], abs=1e-7)


@pytest.mark.slow
def test_the_command_of_monai_runs_a_bundle_from_its_own_folder(tmp_path):
    pytest.importorskip("fire")
    model = write_model(tmp_path / "model", *MODELS["unetr"])
    cases, bundle = write_images(tmp_path / "in", 3, 1), bundle_of(model, tmp_path / "bundle")
    subprocess.run([sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json",
                    "--dataset_dir", str(tmp_path / "in")], cwd=bundle, check=True, capture_output=True, timeout=300)
    assert run(["segment", "--model", str(model), "--images", str(tmp_path / "in"), "--out",
                str(tmp_path / "own")]) == 0
    assert same_labels(tmp_path / "own", bundle / "eval") == len(cases)


def test_a_bundle_has_every_property_that_monai_asks_of_one(tmp_path):
    workflows = pytest.importorskip("monai.bundle")
    bundle = bundle_of(write_model(tmp_path / "model", *MODELS["unetr"]), tmp_path / "bundle")
    write_images(bundle / "data", 3, 1)
    workflow = workflows.ConfigWorkflow(str(bundle / "configs" / "inference.json"), workflow_type="inference",
                                        bundle_root=str(bundle))
    workflow.initialize()
    assert not workflow.check_properties()
    logits = workflow.network_def(torch.zeros(1, 1, 16, 16, 16))
    assert logits.shape == (1, 3, 16, 16, 16) and not workflow.network_def.training


def test_the_metadata_says_what_monai_and_people_ask(tmp_path):
    bundle = bundle_of(write_model(tmp_path / "model", *MODELS["unetr of two channels"]), tmp_path / "bundle")
    data = json.loads((bundle / "configs" / "metadata.json").read_text())
    from medmae import __version__
    assert data["required_packages_version"]["medmae"] == __version__
    required = {"schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version",
                "required_packages_version", "task", "description", "authors", "copyright",
                "data_source", "data_type", "intended_use", "network_data_format"}
    assert required <= set(data) and data["version"] in data["changelog"]
    image, answer = (data["network_data_format"][way][key] for way, key in (("inputs", "image"), ("outputs", "pred")))
    assert (image["num_channels"], image["spatial_shape"], answer["num_channels"]) == (2, [16, 16, 16], 3)
    assert answer["channel_def"] == {"0": "background", "1": "rim", "2": "core"}


def test_every_component_that_the_config_names_is_there(tmp_path):
    for name in ("unetr", "vit classifier"):
        bundle = bundle_of(write_model(tmp_path / name, *MODELS[name]), tmp_path / f"{name} bundle")
        config = json.loads((bundle / "configs" / "inference.json").read_text())
        targets = [part["_target_"] for part in config.values() if isinstance(part, dict)]
        targets.append(config["dataset"]["data"]["_target_"])
        assert len(targets) == 7
        for target in targets:
            module, _, attribute = target.rpartition(".")
            assert callable(getattr(importlib.import_module(module), attribute))


def test_a_bundle_holds_the_model_as_it_is_and_no_pickle(tmp_path, capsys):
    model = write_model(tmp_path / "model", *MODELS["unetr"])
    assert run(["model", "export", str(model), "--format", "monai-bundle", "--out", str(tmp_path / "b"),
                "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == sorted(path.relative_to(tmp_path / "b").as_posix()
                                     for path in (tmp_path / "b").rglob("*") if path.is_file())
    assert {"LICENSE", "configs/inference.json", "configs/logging.conf", "configs/metadata.json", "docs/README.md",
            "models/model.json", "models/weights.safetensors"} <= set(report["files"])
    assert not [name for name in report["files"] if name.endswith((".pt", ".pth", ".pkl", ".ts"))]
    assert load_info(tmp_path / "b" / "models") == load_info(model)
    assert load_state(tmp_path / "b" / "models").keys() == load_state(model).keys()


def test_a_case_that_cannot_be_read_does_not_stop_the_others(tmp_path):
    model, cases = write_model(tmp_path / "model", *MODELS["unetr"]), write_images(tmp_path / "in", 3, 1)
    Path(cases[0][0]).write_bytes(b"broken")
    with pytest.raises(RuntimeError) as failure:  # MONAI's own, around what happened
        run_bundle(bundle_of(model, tmp_path / "bundle"), dataset_dir=str(tmp_path / "in"),
                   output_dir=str(tmp_path / "monai"))
    assert "1 case could not be used" in str(failure.value.__cause__)
    assert len(list((tmp_path / "monai").rglob("*.nii.gz"))) == 1


def test_what_cannot_be_exported_is_refused(tmp_path):
    assert tuple(EXPORTS) == OFFERED
    model = write_model(tmp_path / "model", *MODELS["unetr"])
    with pytest.raises(BadInput, match="Known: monai-bundle"):
        export_model("onnx", model, tmp_path / "out")
    with pytest.raises(BadInput, match="exists and is not an empty folder"):
        export_model("monai-bundle", model, model)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "spec.json").write_text("{}")
    with pytest.raises(BadInput, match="has not left a model yet"):
        export_model("monai-bundle", tmp_path / "unfinished", tmp_path / "out")
    encoder = {"name": "vit_mae", "arguments": {**VIT, "channels": 1, "decoder_width": 48, "decoder_depth": 1,
                                                "decoder_heads": 2}}
    info = description("encoder", 3, size=[16] * 3, values=(), architecture=encoder)
    save_model(tmp_path / "encoder", info, build_network(encoder))
    with pytest.raises(BadInput, match="is an encoder.*Finetune it"):
        export_model("monai-bundle", tmp_path / "encoder", tmp_path / "out")
    weights = model / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BadInput, match="SHA-256"):
        export_model("monai-bundle", model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def edited(model: Path, **changes: object) -> Path:
    """The model with other entries in its model.json, which no hash guards."""
    file = model / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return model


def test_names_that_monai_would_take_for_files_or_code_are_only_names(tmp_path):
    model = write_model(tmp_path / "model", *MODELS["unetr"])
    labels = [{**label, "name": name} for label, name in zip(
        json.loads((model / "model.json").read_text())["labels"], ("%configs/x.json::y", "% stenosis", "@lumen"),
        strict=True)]
    edited(model, name="$1/0", labels=labels, licence="%50", scores={"_target_": "os.getcwd", "dice": "%z"})
    write_images(tmp_path / "in", 3, 1, count=1)
    bundle = bundle_of(model, tmp_path / "bundle")
    run_bundle(bundle, dataset_dir=str(tmp_path / "in"), output_dir=str(tmp_path / "monai"))
    assert len(list((tmp_path / "monai").rglob("*.nii.gz"))) == 1
    assert load_info(bundle / "models").name == "$1/0"


@pytest.mark.parametrize("evil", [{"pool": "$open('executed', 'w')"}, {"_target_": "os.getcwd"}])
def test_an_architecture_that_is_more_than_sizes_does_not_get_into_a_config(evil, tmp_path):
    model = write_model(tmp_path / "model", *MODELS["unetr"])
    architecture = load_info(model).architecture
    edited(model, architecture={**architecture, "arguments": architecture["arguments"] | evil})
    with pytest.raises(BadInput, match="has no argument"):
        export_model("monai-bundle", model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_image_may_be_named_without_a_list(tmp_path):
    from medmae.inference.monai_bundle import find_data

    (name,) = write_images(tmp_path / "in", 3, 1, count=1)[0]
    assert find_data("nowhere", name) == find_data("nowhere", [name])


def test_a_bundle_takes_the_frame_of_a_series_that_is_asked_for(tmp_path):
    model = write_model(tmp_path / "model", *MODELS["plain u-net"])
    ((name,), (other,)) = write_images(tmp_path / "in", 3, 1)
    series = tmp_path / "series.nii.gz"
    sitk.WriteImage(sitk.JoinSeries([sitk.ReadImage(other), sitk.ReadImage(name)]), str(series))
    run_bundle(bundle_of(model, tmp_path / "bundle"), images=str(series), frame=1, output_dir=str(tmp_path / "monai"))
    segment(model, [[name]], tmp_path / "own")
    (own,), (found,) = (list(folder.rglob("*.nii.gz")) for folder in (tmp_path / "own", tmp_path / "monai"))
    np.testing.assert_array_equal(*(sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (own, found)))
