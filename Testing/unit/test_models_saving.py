"""Saving a model and getting the same network back; damaged models are refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medmae.errors import BadInput
from medmae.files import sha256_of
from medmae.models import ModelInfo, load_info, load_network, load_state, save_model
from medmae.networks import architecture_for, build_network

SIZES = {"vis-mae": (2, (112, 112), (2, 1, 50, 70)), "gl-mae": (3, (48, 48, 48), (2, 1, 16, 20, 24))}
BACKGROUND_AND_TWO = [
    {"name": "background", "value": 0, "color": [0.0, 0.0, 0.0], "terminology": None},
    {"name": "anterior | head", "value": 1, "color": [0.9, 0.2, 0.2], "terminology": {"code": "1", "scheme": "SCT"}},
    {"name": "posterior", "value": 7, "color": [0.2, 0.9, 0.2], "terminology": None},
]


def model(method: str = "gl-mae", task: str = "segmentation", **changes) -> tuple[ModelInfo, torch.nn.Module]:
    torch.manual_seed(0)
    architecture = architecture_for(method, "tiny", task, 1, 3)
    dims, size, _ = SIZES[method]
    info = ModelInfo(**({
        "name": "hippocampus", "task": task, "method": method, "preset": "tiny", "architecture": architecture,
        "spatial_dims": dims, "channels": [{"name": "T1", "modality": "MR"}], "input_size": size,
        "labels": [] if task == "encoder" else BACKGROUND_AND_TWO, "modality": "MR", "orientation": "RAS",
        "spacing_mm": (1.0, 1.0, 1.0), "intensity": {"kind": "robust"}, "training": {"cases": 8},
        "scores": {"mean_dice": 0.8}, "licence": "CC-BY-4.0", "citation": "A paper"} | changes))
    return info, build_network(architecture).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_model(tmp_path / "saved", *model())


@pytest.mark.parametrize("task", ["segmentation", "classification", "encoder"])
@pytest.mark.parametrize("method", ["vis-mae", "gl-mae"])
def test_a_loaded_network_answers_exactly_as_the_saved_one(tmp_path, method, task):
    info, network = model(method, task)
    folder = save_model(tmp_path / "m", info, network, preview_png=b"\x89PNG")
    loaded = load_network(folder)
    images = torch.randn(SIZES[method][2])
    assert not loaded.training
    with torch.no_grad():
        if task == "encoder":
            assert all(torch.equal(one, other)
                       for one, other in zip(loaded(images), network.features(images), strict=True))
        else:
            answer = loaded(images)
            assert torch.equal(answer, network(images))
            assert answer.shape == ((2, 3) if task == "classification" else (2, 3, *images.shape[2:]))
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "model.json", "preview.png", "weights.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_an_encoder_keeps_decoder_and_mask_token(tmp_path):
    state = load_state(save_model(tmp_path / "m", *model("gl-mae", "encoder")))
    assert "decoder.mask_token" in state and any(name.startswith("decoder.blocks") for name in state)
    state = load_state(save_model(tmp_path / "n", *model("vis-mae", "encoder")))
    assert "mask_token" in state and any(name.startswith("decoder.stages") for name in state)


def test_a_loaded_network_can_be_trained_further(saved):
    network = load_network(saved).train()
    network(torch.randn(1, 1, 16, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_description_comes_back_as_it_was_with_hash_time_and_version(saved):
    info, _ = model()
    found = load_info(saved)
    assert found.weights_sha256 == sha256_of(saved / "weights.safetensors")
    assert found.created and found.medmae
    assert found == dataclasses.replace(info, weights_sha256=found.weights_sha256, created=found.created,
                                        medmae=found.medmae)
    assert found.spacing_mm == [1.0, 1.0, 1.0] and found.input_size == [48, 48, 48]


def test_the_card_tells_labels_licence_and_use(saved):
    card = (saved / "README.md").read_text()
    assert "| posterior | 7 |" in card and "anterior \\| head" in card and "CC-BY-4.0" in card
    assert "medmae segment --model hippocampus" in card


def test_saving_again_replaces_the_model_and_leaves_nothing_else(saved):
    info, network = model(name="second")
    torch.nn.init.zeros_(network.head.weight)
    save_model(saved, info, network)
    assert load_info(saved).name == "second" and load_state(saved)["head.weight"].abs().max() == 0
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_a_failed_save_keeps_the_earlier_model(saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("medmae.models.saving.write_json", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(saved, *model(name="second"))
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_a_folder_with_other_content_is_not_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(BadInput, match="not a model"):
        save_model(tmp_path / "thesis", *model())
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


def test_weights_of_another_architecture_cannot_be_saved(tmp_path):
    info, _ = model()
    with pytest.raises(ValueError, match="do not fit"):
        save_model(tmp_path / "m", info, model("gl-mae", "classification")[1])
    assert not (tmp_path / "m").exists()


def test_state_dictionaries_with_shared_and_half_precision_tensors_are_saved(tmp_path):
    info, network = model()
    state = {name: tensor.half() for name, tensor in network.state_dict().items()}
    state["encoder.blocks.1.norm1.weight"] = state["encoder.blocks.0.norm1.weight"]
    folder = save_model(tmp_path / "m", info, state)
    assert load_state(folder)["head.weight"].dtype == torch.float16
    assert load_network(folder).head.weight.dtype == torch.float32


@pytest.mark.parametrize("zipped_folder", ["", "hippocampus/"])
def test_a_zip_of_a_model_loads_like_the_folder(saved, tmp_path, zipped_folder):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in saved.iterdir():
            file.write(path, zipped_folder + path.name)
    volumes = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(load_network(archive)(volumes), load_network(saved)(volumes))


def spoil_truncate(folder: Path) -> None:
    data = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(data[:len(data) // 2])


def spoil_one_bit(folder: Path) -> None:
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-100] ^= 1
    (folder / "weights.safetensors").write_bytes(data)


def spoil_swap(folder: Path) -> None:
    """Weights that are a valid file and fit the architecture, but are not the ones that were saved."""
    state = load_file(folder / "weights.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in state.items()}, folder / "weights.safetensors")


def spoil_json(folder: Path, **changes) -> None:
    data = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(data | changes))


def spoil_pickle(folder: Path) -> None:
    torch.save({"head.weight": torch.zeros(2)}, folder / "weights.safetensors")
    spoil_json(folder, weights_sha256=sha256_of(folder / "weights.safetensors"))


def spoil_drop_tensor(folder: Path) -> None:
    state = load_file(folder / "weights.safetensors")
    del state["head.bias"]
    save_file(state, folder / "weights.safetensors")
    spoil_json(folder, weights_sha256=sha256_of(folder / "weights.safetensors"))


@pytest.mark.parametrize("spoil, message", [
    (lambda folder: (folder / "weights.safetensors").write_bytes(b""), "zero bytes"),
    (lambda folder: (folder / "weights.safetensors").unlink(), "incomplete"),
    (spoil_truncate, "damaged or was edited"),
    (spoil_one_bit, "damaged or was edited"),
    (spoil_swap, "damaged or was edited"),
    (spoil_pickle, "not a safetensors file"),
    (spoil_drop_tensor, "head.bias is missing"),
    (lambda folder: (folder / "model.json").write_bytes(b""), "not valid JSON"),
    (lambda folder: (folder / "model.json").write_bytes(b"\xff\xfe\x00"), "not valid JSON"),
    (lambda folder: (folder / "model.json").write_text("[]"), "not a JSON object"),
    (lambda folder: (folder / "model.json").write_text("[" * 100_000), "not valid JSON"),
    (lambda folder: (folder / "model.json").write_text("{}"), "lacks"),
    (lambda folder: spoil_json(folder, weights_sha256=""), "damaged or was edited"),
    (lambda folder: spoil_json(folder, code="import os"), "Unknown key code"),
    (lambda folder: spoil_json(folder, task="generation"), "'generation' is not one of"),
    (lambda folder: spoil_json(folder, labels=BACKGROUND_AND_TWO[:2]), "3 classes, but 2 are named"),
    (lambda folder: spoil_json(folder, architecture={"name": "unetr"}), "lacks a name or arguments"),
    (lambda folder: spoil_json(folder, architecture={"name": "os.system", "arguments": {"channels": 1, "classes": 3}}),
     "not known"),
])
def test_a_damaged_or_edited_model_is_refused_with_the_reason(saved, spoil, message):
    spoil(saved)
    with pytest.raises(BadInput, match=message):
        load_network(saved)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(BadInput, match="neither a model"):
        load_network(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(BadInput, match="no model"):
        load_network(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 truncated"])
def test_a_file_that_is_no_zip_is_refused(tmp_path, content):
    (tmp_path / "model.zip").write_bytes(content)
    with pytest.raises(BadInput, match="neither a model folder nor a zip"):
        load_network(tmp_path / "model.zip")


def test_a_zip_with_a_damaged_member_is_refused(saved, tmp_path):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in saved.iterdir():
            file.write(path, path.name)
    data = bytearray(archive.read_bytes())
    data[data.index(b"__metadata__") + 5000] ^= 1
    archive.write_bytes(data)
    with pytest.raises(BadInput, match="damaged"):
        load_network(archive)


@pytest.mark.parametrize("changes, message", [
    ({"input_size": (48, 48)}, "input_size"),
    ({"spacing_mm": (1.0, -1.0, 1.0)}, "spacing_mm"),
    ({"orientation": "RRS"}, "orientation"),
    ({"context": 1}, "only 2-D networks"),
    ({"slice_pooling": "top0%"}, "slice_pooling"),
    ({"multi_label": True}, "multi_label is for classification"),
    ({"calibration": {"temperature": 0.0, "cases": 3}}, "temperature 0.0"),
    ({"calibration": {"cases": 3}}, "which temperature"),
    ({"calibration": {"temperature": 2.0, "cases": "all"}}, "how many cases"),
    ({"name": " "}, "name is empty"),
    ({"channels": []}, "no channels"),
    ({"labels": [*BACKGROUND_AND_TWO[:2], {"name": "background", "value": 2}]}, "same name"),
    ({"labels": [*BACKGROUND_AND_TWO[:2], {"name": "other", "value": 1}]}, "same value"),
    ({"labels": [*BACKGROUND_AND_TWO[:2], {"name": "other", "value": 2, "colour": "red"}]}, "unknown key colour"),
])
def test_an_inconsistent_description_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        model(**changes)
