"""Imported official checkpoints in every command that takes a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the usual name
from official_vis_mae import OfficialNet, write_checkpoint
from tiny_training_data import write_pictures

from medmae.cli.app import run
from medmae.datasets.preprocessing import Preprocessing
from medmae.models import load_info, load_network, load_state
from medmae.models.importing import ImportOptions, import_model

SIZES = {"width": 8, "depths": (1, 2), "heads": (1, 2), "image": 64}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def imported(folder: Path, kind: str, classes: int = 0, **options) -> Path:
    checkpoint = write_checkpoint(folder / f"{kind}.pth", OfficialNet(kind, classes=classes, **SIZES))
    options.setdefault("input_side", 64)
    return import_model("vis-mae", checkpoint, folder / kind, ImportOptions(**options)).folder


def picture(folder: Path) -> Path:
    array = np.random.default_rng(0).integers(0, 256, (50, 70)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / "picture.png"))
    return folder / "picture.png"


def test_an_imported_encoder_is_finetuned_as_it_was_trained(tmp_path: Path) -> None:
    encoder = imported(tmp_path, "pretraining")
    dataset = write_pictures(tmp_path, {"training": 4})
    assert run(["finetune", "--dataset", str(dataset), "--encoder", str(encoder), "--steps", "2", "--out",
                str(tmp_path / "run"), "--set", "batch_size=2"]) == 0
    info = load_info(tmp_path / "run")
    arguments = info.architecture["arguments"]
    assert (arguments["width"], arguments["depths"], arguments["masked_padding"]) == (8, [1, 2], False)
    assert info.input_size == [64, 64]
    intensity = Preprocessing.of(info).intensity[0]  # of another modality than the encoder's, but its constants stay
    assert (intensity.kind, intensity.mean, intensity.std) == ("xray", 0.223, 0.202)
    before, after = load_state(encoder), load_state(tmp_path / "run")
    name = "encoder.stages.1.blocks.1.mlp.fc1.weight"
    difference = (before[name] - after[name]).norm() / before[name].norm()
    assert 0 < difference < 0.1


def test_an_imported_segmentation_model_segments_pictures(tmp_path: Path) -> None:
    model = imported(tmp_path, "segmentation", classes=3, labels=("background", "left lung", "right lung"))
    out = tmp_path / "results"
    assert run(["segment", "--model", str(model), "--images", str(picture(tmp_path)), "--out", str(out),
                "--format", "nrrd"]) == 0
    result = next(out.rglob("picture*.nrrd"))
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(result)))
    assert labels.shape[-2:] == (50, 70) and len(np.unique(labels)) > 1


def test_an_imported_classifier_classifies_as_its_network_does(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = imported(tmp_path, "classification", classes=2, labels=("normal", "tumour"))
    assert run(["classify", "--model", str(model), "--images", str(picture(tmp_path)), "--out",
                str(tmp_path / "results"), "--json"]) == 0
    assert "tumour" in capsys.readouterr().out
    assert not load_network(model).training


def test_imported_models_are_installed_listed_shown_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    encoder = imported(tmp_path, "pretraining", name="VIS-MAE official")
    assert run(["model", "install", str(encoder)]) == 0
    capsys.readouterr()
    assert run(["model", "list", "--json"]) == 0
    assert [model["name"] for model in json.loads(capsys.readouterr().out)] == ["VIS-MAE official"]
    assert run(["model", "show", "VIS-MAE official"]) == 0
    assert "Not stated by the authors" in capsys.readouterr().out
    assert run(["model", "check", "VIS-MAE official", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]
