"""Importing official checkpoints: safe reading, what is inferred, what is refused and in which words."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from official_vis_mae import CASES, OfficialNet, official_checkpoint, official_shapes, official_state, write_checkpoint
from safetensors.torch import save_file

from medmae.cli.app import run
from medmae.cli.model_import import FORMATS as OFFERED
from medmae.datasets.preprocessing import Preprocessing
from medmae.errors import BadInput
from medmae.models import load_info, load_state, save_model
from medmae.models.checkpoint_files import read_checkpoint
from medmae.models.importing import FORMATS, ImportOptions, import_model
from medmae.models.vis_mae_layout import medmae_name, official_name, read_layout

SMALL = {kind: OfficialNet(kind, channels=3, width=8, depths=(1, 2), heads=(1, 2), window=3, image=32,
                           classes=0 if kind == "pretraining" else 3)
         for kind in ("pretraining", "segmentation", "classification")}

nets = st.builds(
    lambda kind, channels, heads, window, depths, classes, image: OfficialNet(
        kind, channels, 4 * heads, depths, tuple(heads * 2**stage for stage in range(len(depths))), window,
        0 if kind == "pretraining" else classes, 4 * image),
    kind=st.sampled_from(list(SMALL)), channels=st.integers(1, 4), heads=st.integers(1, 3), window=st.integers(1, 8),
    depths=st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple), classes=st.integers(2, 9),
    image=st.integers(1, 80))


@given(nets)
def test_the_network_is_told_from_names_and_shapes_alone(net):
    layout = read_layout(official_shapes(net), "The checkpoint a.pth")
    assert (layout.kind, layout.channels, layout.width, layout.depths, layout.heads, layout.window, layout.classes) == (
        net.kind, net.channels, net.width, net.depths, net.heads, net.window, net.classes)
    tells_size = net.kind == "pretraining" and not net.image % layout.stride
    assert layout.patch == 4 and layout.image_size == (net.image if tells_size else None)


@given(nets)
def test_every_name_has_one_place_in_medmae_and_comes_back(net):
    from medmae.networks import build_network

    official = [name for name in official_shapes(net) if not name.endswith("relative_position_index")
                and name != "pos_embed"]
    ours = [medmae_name(name) for name in official]
    assert [official_name(name) for name in ours] == official
    with torch.device("meta"):
        wanted = build_network(read_layout(official_shapes(net), "x").architecture).state_dict()
    assert sorted(ours) == sorted(wanted)


def test_names_of_no_network_have_no_place():
    assert medmae_name("conv1.weight") is None
    with pytest.raises(ValueError, match=r"conv1\.weight"):
        official_name("conv1.weight")


def test_the_command_offers_the_formats_that_there_are(tmp_path):
    assert tuple(FORMATS) == OFFERED
    with pytest.raises(BadInput, match="Known: vis-mae"):
        import_model("timm", tmp_path / "a.pth", tmp_path / "out")


@pytest.mark.parametrize("kind", SMALL)
def test_every_tensor_is_accounted_for(kind, tmp_path, capsys):
    net = SMALL[kind]
    state = official_state(net) | {"auxiliary.weight": torch.zeros(2, 2)}
    torch.save(official_checkpoint(state, epoch="best"), tmp_path / "checkpoint-best.pth")
    assert run(["model", "import", "--format", "vis-mae", str(tmp_path / "checkpoint-best.pth"), "--out",
                str(tmp_path / "out"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert sorted(report["loaded"] + report["dropped"] + report["unexpected"]) == sorted(state)
    assert report["unexpected"] == ["auxiliary.weight"] and report["epoch"] == "best"
    assert all(name == "pos_embed" or name.endswith("index") for name in report["dropped"])
    weights = load_state(tmp_path / "out")
    assert all(torch.equal(weights[medmae_name(name)], state[name]) for name in report["loaded"])


@pytest.mark.parametrize("how", ["bare", "state_dict", "module", "compiled", "both", "safetensors", "legacy", "half"])
def test_all_ways_of_saving_the_same_weights_give_the_same_model(how, tmp_path):
    state = official_state(SMALL["segmentation"])
    prefix = {"module": "module.", "compiled": "_orig_mod.", "both": "module._orig_mod."}.get(how, "")
    state = {prefix + name: tensor.half() if how == "half" and tensor.is_floating_point() else tensor
             for name, tensor in state.items()}
    file = tmp_path / ("a.safetensors" if how == "safetensors" else "a.pth")
    if how == "safetensors":
        save_file(state, file)
    else:
        content = state if how == "bare" else {"state_dict": state} if how == "state_dict" else {"model": state}
        torch.save(content, file, _use_new_zipfile_serialization=how != "legacy")
    import_model("vis-mae", file, tmp_path / "out")
    expected = official_state(SMALL["segmentation"])
    for name, tensor in load_state(tmp_path / "out").items():
        wanted = expected[official_name(name)]
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, wanted.half().float() if how == "half" else wanted)


class Payload:
    """A pickle that makes a file when it is loaded carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("place", ["args", "model", "whole", "legacy", "plain pickle", "new pickle"])
def test_a_malicious_checkpoint_is_refused_and_does_nothing(place, tmp_path, capsys):
    trap, file = tmp_path / "executed", tmp_path / "evil.pth"
    content = official_checkpoint(official_state(SMALL["classification"]))
    if place.endswith("pickle"):
        file.write_bytes(pickle.dumps(Payload(trap), protocol=2 if place == "plain pickle" else 4))
    else:
        content = Payload(trap) if place == "whole" else content | {
            "model" if place == "model" else "args": Payload(trap)}
        torch.save(content, file, _use_new_zipfile_serialization=place != "legacy")
    assert run(["model", "import", "--format", "vis-mae", str(file), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert str(file) in message and "nothing of it was loaded" in message
    assert "mkdir" in message or place == "new pickle"  # a protocol that PyTorch's reader does not speak at all
    assert not trap.exists() and not (tmp_path / "out").exists()
    # The trap is a real one: the file asks for the call, and the call does what was looked for.
    assert b"mkdir" in file.read_bytes() and str(trap).encode() in file.read_bytes()
    call, arguments = Payload(trap).__reduce__()
    call(*arguments)
    assert trap.exists()


def test_the_settings_in_a_checkpoint_are_read_but_no_other_objects(tmp_path):
    torch.save(official_checkpoint(official_state(SMALL["pretraining"])), tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth").epoch == 799
    torch.save({"model": {"a": torch.zeros(1)}, "args": argparse.Namespace(path=Path("x"))}, tmp_path / "b.pth")
    with pytest.raises(BadInput, match="asks for pathlib"):
        read_checkpoint(tmp_path / "b.pth")


def _other_file(folder: Path, what: str) -> Path:
    path = folder / "checkpoint.pth"
    whole = write_checkpoint(folder / "whole.pth", SMALL["pretraining"]).read_bytes()
    contents = {
        "empty": b"", "page": b"\n <!DOCTYPE html><html><body>Sign in</body></html>", "text": b"hello world\n" * 9,
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "half": whole[:len(whole) // 2], "noise": np.random.default_rng(0).bytes(5000)}
    if what in contents:
        path.write_bytes(contents[what])
    elif what == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/readme.txt", "no weights")
    elif what == "safetensors":
        path = folder / "checkpoint.safetensors"
        path.write_bytes(whole)
    elif what == "folder":
        path.mkdir()
    else:
        objects = {"list": [torch.zeros(2)], "tensor": torch.zeros(3), "nothing": {}, "settings": {"lr": 1e-3, "n": 3},
                   "names": {"model": {3: torch.zeros(1)}}, "module": torch.nn.Linear(2, 2)}
        if what in objects:
            torch.save(objects[what], path)
    return path


@pytest.mark.parametrize(("what", "message"), [
    ("missing", "does not exist"), ("folder", "is a folder"), ("empty", "is empty"), ("page", "is a web page"),
    ("text", "not a PyTorch checkpoint"), ("pointer", "Git LFS"), ("half", "damaged, incomplete"),
    ("noise", "not a PyTorch checkpoint"), ("zip", "not a PyTorch checkpoint"),
    ("safetensors", "not a safetensors file"),
    ("list", "holds a list instead of a state dict"), ("tensor", "holds a Tensor instead"),
    ("nothing", "has no state dict"), ("settings", "has no state dict.*lr, n"), ("names", "has no state dict"),
    ("module", r"asks for torch\.nn"),
])
def test_files_that_are_no_checkpoints_are_refused_by_name(what, message, tmp_path):
    path = _other_file(tmp_path, what)
    with pytest.raises(BadInput, match=message) as refusal:
        import_model("vis-mae", path, tmp_path / "out")
    assert str(path) in str(refusal.value) and not (tmp_path / "out").exists()


@given(cut=st.integers(0, 3000), legacy=st.booleans())
def test_a_truncated_checkpoint_is_always_refused(cut, legacy, tmp_path_factory):
    path = tmp_path_factory.mktemp("cut") / "a.pth"
    torch.save({"model": {"a": torch.zeros(500)}, "epoch": 3}, path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[:min(cut, len(content) - 1)])
    with pytest.raises(BadInput, match=r"a\.pth"):
        read_checkpoint(path)


def _without(name: str):
    return lambda state: state.pop(name)


def _reshaped(name: str, *shape: int):
    return lambda state: state.update({name: torch.zeros(shape)})


def _spoiled(name: str):
    return lambda state: state[name].view(-1)[:1].fill_(float("nan"))


@pytest.mark.parametrize(("kind", "change", "message"), [
    ("pretraining", _without("layers.1.blocks.0.attn.qkv.bias"), r"layers\.1\.blocks\.0\.attn\.qkv\.bias is missing"),
    ("pretraining", _without("mask_token"), "not in the official layout"),
    ("pretraining", _without("patch_embed.proj.weight"), r"patch_embed\.proj\.weight is missing"),
    ("pretraining", _reshaped("norm_up.bias", 9), r"norm_up\.bias has the shape \(9,\) instead of \(8,\)"),
    ("pretraining", _reshaped("layers.0.blocks.0.attn.relative_position_bias_table", 24, 1), "24 relative positions"),
    ("pretraining", _reshaped("patch_embed.proj.weight", 8, 48), "instead of 4 axes"),
    ("pretraining", _reshaped("layers_up.0.blocks.1.norm1.weight", 8), "mirrors its encoder"),
    ("pretraining", _reshaped("layers.3.blocks.0.norm1.weight", 8), r"layers\.2\.blocks\.0 is missing"),
    ("pretraining", _reshaped("decoder_pred.weight", 16, 8), r"decoder_pred\.weight has the shape"),
    ("segmentation", _without("skip_connection_layers.0.bias"), r"skip_connection_layers\.0\.bias is missing"),
    ("segmentation", _reshaped("head.weight", 1, 8, 1, 1), "tells 1 class apart"),
    ("classification", _without("head.bias"), r"head\.bias is missing"),
    ("classification", _spoiled("head.weight"), "not finite"),
    ("classification", lambda state: state.update({"head.bias": torch.zeros(3, dtype=torch.int64)}), "torch.int64"),
    ("classification", lambda state: state.update({"head.bias": torch.zeros(3).to(torch.float8_e5m2)}), "float8"),
    ("classification", lambda state: state.update({"head.bias": torch.zeros(3, device="meta")}), "holds no values"),
    ("classification", lambda state: state.update({"head.bias": torch.ones(3).double() * 1e99}), "finite"),
    ("pretraining", _reshaped("patch_embed.proj.weight", 8, 3, 0, 0), "patch = 0 is not usable"),
    ("pretraining", _reshaped("layers.0.blocks.0.attn.relative_position_bias_table", 25, 3), "divisible by 3 heads"),
])
def test_checkpoints_that_are_not_whole_say_what_is_wrong(kind, change, message, tmp_path):
    state = official_state(SMALL[kind])
    change(state)
    torch.save(official_checkpoint(state), tmp_path / "a.pth")
    with pytest.raises(BadInput, match=message) as refusal:
        import_model("vis-mae", tmp_path / "a.pth", tmp_path / "out")
    assert "a.pth" in str(refusal.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["layers.0.blocks.99999999999.norm1.weight", f"layers_up.{'9' * 5000}.blocks.0.a"])
def test_numbers_that_no_network_has_are_names_of_tensors_that_it_does_not_have(name, tmp_path):
    torch.save(official_state(SMALL["pretraining"]) | {name: torch.zeros(1)}, tmp_path / "a.pth")
    assert import_model("vis-mae", tmp_path / "a.pth", tmp_path / "out").unexpected == (name,)


@pytest.mark.parametrize("positions", [1, 10**12])
def test_a_table_of_positions_of_no_sensible_image_tells_no_size(positions, tmp_path):
    state = official_state(SMALL["pretraining"]) | {"pos_embed": torch.zeros(1, 1, 1).expand(1, positions, 8)}
    torch.save(state, tmp_path / "a.pth")
    assert import_model("vis-mae", tmp_path / "a.pth", tmp_path / "out").info.input_size == [224, 224]


def test_a_packed_zip_is_refused_before_anything_is_unpacked(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "a.pth", SMALL["pretraining"])
    with zipfile.ZipFile(checkpoint) as whole, zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(BadInput, match=r"b\.pth is a packed zip file"):
        read_checkpoint(tmp_path / "b.pth")


def test_the_modality_is_known_by_its_usual_names(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "a.pth", SMALL["pretraining"])
    assert run(["model", "import", "--format", "vis-mae", str(checkpoint), "--modality", "mri",
                "--out", str(tmp_path / "out")]) == 0
    assert load_info(tmp_path / "out").modality == "MR"


def test_a_checkpoint_of_another_method_is_refused_with_what_it_holds(tmp_path):
    torch.save({"student": {"blocks.0.attn.qkv.weight": torch.zeros(2)}}, tmp_path / "a.pth")
    with pytest.raises(BadInput, match="holds student"):
        import_model("vis-mae", tmp_path / "a.pth", tmp_path / "out")
    torch.save({"model": {"cls_token": torch.zeros(1, 1, 8), "blocks.0.attn.qkv.weight": torch.zeros(24, 8)}},
               tmp_path / "a.pth")
    with pytest.raises(BadInput, match=r"found: cls_token, blocks\.0\.attn\.qkv\.weight\. Check which method"):
        import_model("vis-mae", tmp_path / "a.pth", tmp_path / "out")


@pytest.mark.parametrize(("kind", "options", "message"), [
    ("segmentation", ImportOptions(labels=("background", "liver")), "3 classes apart.*2 names were given"),
    ("segmentation", ImportOptions(labels=("background", "liver", "liver")), "given twice"),
    ("segmentation", ImportOptions(labels=("background", "", "liver")), "a name is empty"),
    ("pretraining", ImportOptions(labels=("a",)), "no classes to name"),
    ("pretraining", ImportOptions(channels=2), "not to 2"),
    ("pretraining", ImportOptions(input_side=100), "not a multiple of 8.*Choose 96 or 104"),
    ("pretraining", ImportOptions(input_side=4), "Choose 8 "),
    ("pretraining", ImportOptions(input_side=80_000), "too large"),
    ("pretraining", ImportOptions(name=" "), "name is empty"),
    ("pretraining", ImportOptions(intensity_range=(3, 1)), "intensity range"),
])
def test_wishes_that_do_not_fit_the_checkpoint_are_refused(kind, options, message, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "a.pth", SMALL[kind])
    with pytest.raises(BadInput, match=message):
        import_model("vis-mae", checkpoint, tmp_path / "out", options)


def test_an_output_that_exists_is_left_alone(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "a.pth", SMALL["pretraining"])
    import_model("vis-mae", checkpoint, tmp_path / "out")
    with pytest.raises(BadInput, match="exists"):
        import_model("vis-mae", checkpoint, tmp_path / "out")


def test_the_description_says_where_the_weights_come_from(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "checkpoint-799.pth", SMALL["segmentation"])
    import_model("vis-mae", checkpoint, tmp_path / "organs",
                 ImportOptions(labels=("background", "liver", "spleen"), modality="CT"))
    info = load_info(tmp_path / "organs")
    assert (info.name, info.task, info.method, info.preset, info.modality) == (
        "organs", "segmentation", "vis-mae", "base", "CT")
    assert [(label["name"], label["value"]) for label in info.labels] == [
        ("background", 0), ("liver", 1), ("spleen", 2)]
    assert info.training == {
        "source": "checkpoint-799.pth", "format": "vis-mae", "network": "segmentation", "epoch": 799}
    assert "Not stated by the authors" in info.licence and "2402.01034" in info.citation
    assert info.architecture["arguments"]["masked_padding"] is False
    assert str(tmp_path) not in json.dumps(info.training)


@pytest.mark.parametrize(("kind", "modality", "given", "input_size", "expected"), [
    ("pretraining", "", None, 32, [(0 - 0.223) / 0.202, (1 - 0.223) / 0.202]),
    ("pretraining", "CT", None, 32, [(0.5 - 0.223) / 0.202, (0.6275 - 0.223) / 0.202]),
    ("segmentation", "CT", None, 320, [0, 1]),
    ("classification", "DX", None, 224, [0, 1]),
    ("classification", "DX", (0, 510), 224, [0, 0.5]),
    ("segmentation", "", (0, 510), 320, [0, 0.5]),
])
def test_intensities_and_sizes_are_those_of_the_official_scripts(kind, modality, given, input_size, expected, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "a.pth", SMALL[kind])
    report = import_model("vis-mae", checkpoint, tmp_path / "out",
                          ImportOptions(modality=modality, intensity_range=given))
    assert report.info.input_size == [input_size, input_size]
    intensity = Preprocessing.of(report.info).intensity[0]
    found = intensity.apply(np.array([0, 255], np.int16).reshape(1, 1, 1, 2)).ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_model_is_checked_whole_damaged_and_diverged(tmp_path, capsys):
    report = import_model("vis-mae", write_checkpoint(tmp_path / "a.pth", SMALL["segmentation"]), tmp_path / "whole",
                          ImportOptions(input_side=32))
    assert run(["model", "check", str(tmp_path / "whole"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] and [check["name"] for check in result["checks"]] == [
        "description", "sha256", "architecture", "values", "forward"]

    state = load_state(tmp_path / "whole")
    state["head.weight"][0] = float("inf")
    save_model(tmp_path / "diverged", report.info, state)
    assert run(["model", "check", str(tmp_path / "diverged")]) == 2
    assert "head.weight holds values that are not finite" in capsys.readouterr().err

    weights = tmp_path / "whole" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert run(["model", "check", str(tmp_path / "whole"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["checks"][-1]["name"] == "sha256"
    assert run(["model", "check", str(tmp_path / "nowhere")]) == 2


@pytest.mark.parametrize(("key", "value", "message"), [
    ("task", "encoder", "swin_unet is none"), ("task", "classification", "instead of (1, 3)"),
    ("input_size", [10**8, 10**8], "more than 134217728 voxels"),
    ("spacing_mm", [float("nan"), 1.0, 1.0], "not three positive numbers"),
    ("labels", [{"name": "a", "value": 0}, {"name": "b", "value": 10**30}, {"name": "c", "value": 2}], "can hold"),
    ("labels", [{"name": "a", "value": 0}, {"name": "b", "value": 1, "color": [9, 9]}, {"name": "c", "value": 2}],
     "a colour that is not three numbers")])
def test_a_description_that_does_not_fit_its_network_is_found(key, value, message, tmp_path, capsys):
    import_model("vis-mae", write_checkpoint(tmp_path / "a.pth", SMALL["segmentation"]), tmp_path / "model",
                 ImportOptions(input_side=32))
    file = tmp_path / "model" / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    assert run(["model", "check", str(tmp_path / "model")]) == 2
    assert message in capsys.readouterr().err


def test_the_full_list_of_cases_is_readable_as_layouts():
    for net, _ in CASES.values():
        assert read_layout(official_shapes(net), "x").kind == net.kind
