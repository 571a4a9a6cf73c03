"""What a model asks to be done with its labels is changed in place, the weights are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from inference_helpers import description

from medmae.cli.app import run
from medmae.errors import BadInput
from medmae.models import load_info, load_network, save_model
from medmae.models.editing import set_postprocessing
from medmae.networks import architecture_for, build_network


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    architecture = architecture_for("vis-mae", "tiny", "segmentation", 1, 3)
    info = description(dims=2, size=[112, 112], architecture=architecture)
    return save_model(tmp_path / "model", info, build_network(architecture))


def test_steps_are_set_changed_and_removed(model, capsys):
    weights = (model / "weights.safetensors").read_bytes()
    assert run(["model", "edit", str(model), "--largest-component", "core", "--fill-holes", "all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["postprocessing"] == {"largest_component": ["core"],
                                                                      "fill_holes": ["rim", "core"]}
    assert run(["model", "edit", str(model), "--fill-holes", "none"]) == 0
    assert load_info(model).postprocessing == {"largest_component": ["core"]}
    assert "largest component of core" in (model / "README.md").read_text()
    assert (model / "weights.safetensors").read_bytes() == weights
    load_network(model)
    capsys.readouterr()
    assert run(["model", "show", str(model)]) == 0 and "largest component" in capsys.readouterr().out


def test_nonsense_is_refused_and_changes_nothing(model, capsys):
    before = (model / "model.json").read_bytes()
    with pytest.raises(BadInput, match="no label liver. It has rim, core"):
        set_postprocessing(model, {"fill_holes": ["liver"]})
    with pytest.raises(BadInput, match="no label background"):
        set_postprocessing(model, {"fill_holes": ["background"]})
    assert run(["model", "edit", str(model)]) == 2 and "--fill-holes" in capsys.readouterr().err
    assert (model / "model.json").read_bytes() == before


def test_models_for_other_tasks_have_no_labels_to_clean(tmp_path):
    architecture = architecture_for("vis-mae", "tiny", "classification", 1, 2)
    info = description("classification", 2, values=(0, 1), size=[112, 112], architecture=architecture)
    folder = save_model(tmp_path / "model", info, build_network(architecture))
    with pytest.raises(BadInput, match="only labels of segmentations"):
        set_postprocessing(folder, {"fill_holes": ["all"]})
