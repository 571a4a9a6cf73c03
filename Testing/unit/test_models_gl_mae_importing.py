"""Importing official GL-MAE checkpoints: whose weights, which prefixes, what is told, what is refused, and use."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from official_gl_mae import OfficialVit, official_checkpoint, official_shapes, official_state, sin_cos, write_checkpoint
from tiny_training_data import write_volumes

from medmae.cli.app import run
from medmae.datasets.preprocessing import Preprocessing
from medmae.errors import BadInput
from medmae.models import load_info, load_network, load_state
from medmae.models.gl_mae_importing import preset_for
from medmae.models.gl_mae_layout import encoder_heads, medmae_name, medmae_to_official, official_name, table_grid
from medmae.models.importing import ImportOptions, import_model

NET = OfficialVit(patch=8, width=48, depth=2, heads=1, image=(16, 16, 16), decoder=48, decoder_depth=1)
ALONE = OfficialVit(patch=8, width=48, depth=2, heads=1, image=(16, 16, 16), decoder=0)


def save(folder: Path, content: object) -> Path:
    torch.save(content, folder / "checkpoint-1599.pth")
    return folder / "checkpoint-1599.pth"


def weights(folder: Path, content: object, **options) -> dict[str, torch.Tensor]:
    return load_state(import_model("gl-mae", save(folder, content), folder / "model", ImportOptions(**options)).folder)


def test_every_tensor_is_accounted_for_and_lands_where_it_belongs(tmp_path, capsys):
    checkpoint = official_checkpoint(NET)
    checkpoint["student"]["module.backbone.extra"] = torch.zeros(2)
    assert run(["model", "import", "--format", "gl-mae", str(save(tmp_path, checkpoint)), "--out",
                str(tmp_path / "model"), "--json"]) == 0
    report, state = json.loads(capsys.readouterr().out), official_state(NET)
    names = [official_name(name) for name in checkpoint["student"]]
    assert sorted(report["loaded"] + report["dropped"] + report["unexpected"]) == sorted(names)
    assert report["unexpected"] == ["extra"] and report["missing"] == [] and report["epoch"] == 1599
    assert report["folded"] == ["pos_embed"] and all(name.startswith("head.") for name in report["dropped"])
    assert any("student" in note for note in report["notes"])
    found = load_state(tmp_path / "model")
    assert {medmae_name(name) for name in state} == set(found)
    assert torch.equal(found["encoder.cls_token"], state["cls_token"] + state["pos_embed"][:, :1])
    assert torch.equal(found["encoder.position_table"], state["pos_embed"][0, 1:])
    assert torch.equal(found["decoder.position_table"], state["decoder_pos_embed"][0])
    assert torch.equal(found["decoder.blocks.0.attn.qkv.weight"], state["decoder_blocks.0.attn.qkv.weight"])


def test_the_student_is_taken_unless_the_teacher_is_asked_for(tmp_path):
    for name in ("student", "teacher", "alone", "refused"):
        (tmp_path / name).mkdir()
    both = official_checkpoint(NET)
    student, teacher = weights(tmp_path / "student", both), weights(tmp_path / "teacher", both, weights="teacher")
    name = "encoder.blocks.1.mlp.fc1.weight"
    assert torch.equal(student[name], 2 * teacher[name])
    alone = weights(tmp_path / "alone", {"teacher": both["teacher"], "epoch": 3})
    assert torch.equal(alone[name], teacher[name])
    with pytest.raises(BadInput, match="has no student: it holds teacher, epoch"):
        weights(tmp_path / "refused", {"teacher": both["teacher"], "epoch": 3}, weights="student")


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone.", "module._orig_mod.backbone."])
@pytest.mark.parametrize("key", [None, "model", "state_dict", "student"])
def test_all_ways_of_saving_the_same_weights_give_the_same_model(prefix, key, tmp_path):
    state = {prefix + name: tensor for name, tensor in official_state(ALONE).items()}
    found = weights(tmp_path, state if key is None else {key: state})
    assert torch.equal(found["encoder.norm.weight"], official_state(ALONE)["norm.weight"])
    assert load_info(tmp_path / "model").architecture["name"] == "vit_alone"


def test_every_name_has_one_place_in_medmae_and_comes_back():
    assert [medmae_to_official(medmae_name(name)) for name in official_shapes(NET)] == list(official_shapes(NET))
    assert medmae_name("normal.weight") is None and medmae_name("head.mlp.0.weight") is None


@pytest.mark.parametrize(("rows", "grid", "expected"), [
    (217, None, ((6, 6, 6), True)), (1001, None, ((10, 10, 10), True)), (216, None, ((6, 6, 6), False)),
    (65, None, ((4, 4, 4), True)), (289, (12, 12, 2), ((12, 12, 2), True)), (288, (12, 12, 2), ((12, 12, 2), False))])
def test_the_grid_of_a_table_is_its_true_one(rows, grid, expected):
    assert table_grid(rows, grid, "x") == expected


def test_heads_follow_the_published_sizes():
    assert [encoder_heads(width, None, "x") for width in (768, 1024, 1280, 384)] == [12, 16, 16, 6]


def test_the_preset_is_one_whose_patch_and_skips_suit_the_network():
    assert [preset_for(patch, depth) for patch, depth in (((16,) * 3, 12), ((16,) * 3, 24), ((8,) * 3, 6))] == [
        "base", "base", "tiny"]
    assert preset_for((8, 8, 8), 12) == "base-patch8" and preset_for((2, 2, 2), 12) == "base"


def test_a_table_of_zeros_is_kept_and_told(tmp_path, capsys):
    net = OfficialVit(**{**vars(ALONE), "positions": "zeros"})
    assert run(["model", "import", "--format", "gl-mae", str(write_checkpoint(tmp_path / "a.pth", net)), "--out",
                str(tmp_path / "model")]) == 0
    assert "all zeros" in capsys.readouterr().err
    assert not load_state(tmp_path / "model")["encoder.position_table"].any()
    import_model("gl-mae", tmp_path / "a.pth", tmp_path / "computed", ImportOptions(positions="computed"))
    assert "encoder.position_table" not in load_state(tmp_path / "computed")


def test_channels_are_folded_into_one(tmp_path):
    net = OfficialVit(**{**vars(NET), "channels": 2})
    (tmp_path / "one").mkdir()
    one = weights(tmp_path / "one", official_checkpoint(net), channels=1)
    two = weights(tmp_path, official_checkpoint(net))
    stem = "encoder.patch_embed.proj.weight"
    torch.testing.assert_close(one[stem], two[stem].sum(1, keepdim=True))
    assert one["decoder.pred.weight"].shape == (8**3, 48)


def test_the_model_sees_what_the_authors_code_sees(tmp_path):
    import_model("gl-mae", save(tmp_path, official_checkpoint(NET)), tmp_path / "model")
    info = load_info(tmp_path / "model")
    intensity = Preprocessing.of(info).intensity[0]
    assert (intensity.low, intensity.high, info.modality) == (-1000, 1000, "CT")
    assert (info.orientation, info.input_size, info.method) == ("SAR", [16, 16, 16], "gl-mae")
    assert run(["model", "check", str(tmp_path / "model")]) == 0


@pytest.mark.parametrize("net", [NET, ALONE], ids=["with decoder", "alone"])
def test_an_imported_encoder_is_finetuned_as_it_was_trained(net, tmp_path):
    model = import_model("gl-mae", save(tmp_path, official_checkpoint(net)), tmp_path / "model").folder
    dataset = write_volumes(tmp_path, {"training": 2})
    assert run(["finetune", "--dataset", str(dataset), "--encoder", str(model), "--steps", "1", "--out",
                str(tmp_path / "run"), "--set", "batch_size=1"]) == 0
    info = load_info(tmp_path / "run")
    arguments = info.architecture["arguments"]
    assert (arguments["width"], arguments["depth"], arguments["position_grid"]) == (48, 2, [2, 2, 2])
    assert info.orientation == "SAR"
    before, after = load_state(model), load_state(tmp_path / "run")
    block = "encoder.blocks.1.mlp.fc1.weight"
    assert (before[block] - after[block]).norm() < 0.1 * before[block].norm()


class Payload:
    """A pickle that makes a file when it is loaded carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("place", ["args", "student", "dino_loss"])
def test_a_malicious_checkpoint_is_refused_and_does_nothing(place, tmp_path, capsys):
    checkpoint = save(tmp_path, official_checkpoint(NET) | {place: Payload(tmp_path / "executed")})
    assert run(["model", "import", "--format", "gl-mae", str(checkpoint), "--out", str(tmp_path / "out")]) == 2
    assert "nothing of it was loaded" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists() and not (tmp_path / "out").exists()


def _change(**tensors: torch.Tensor | None):
    def change(state: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor is None:
                state.pop(name.replace("__", "."))
            else:
                state[name.replace("__", ".")] = tensor
    return change


@pytest.mark.parametrize(("change", "options", "message"), [
    (_change(cls_token=None), {}, "cls_token is missing"),
    (_change(blocks__0__attn__qkv__bias=None), {}, r"blocks\.0\.attn\.qkv\.bias is missing"),
    (_change(decoder_norm__weight=None), {}, r"decoder_norm\.weight is missing"),
    (_change(decoder_embed__weight=None), {}, r"decoder_embed\.weight is missing"),
    (_change(mask_token=torch.zeros(1, 1, 96)), {}, r"mask_token has the shape \(1, 1, 96\) instead of \(1, 1, 48\)"),
    (_change(pos_embed=torch.zeros(1, 14, 48)), {}, "no cube of tokens.*--grid"),
    (_change(pos_embed=torch.zeros(9, 48)), {}, "pos_embed has the shape"),
    (_change(decoder_pos_embed=torch.zeros(1, 28, 48)), {}, "decoder_pos_embed has the shape"),
    (_change(norm__weight=torch.full((48,), float("nan"))), {}, "not finite"),
    (_change(norm__weight=torch.zeros(48, dtype=torch.int64)), {}, "torch.int64"),
    (_change(patch_embed__proj__weight=torch.zeros(1).expand(48, 60000, 64, 64, 64),
             decoder_pred__weight=torch.zeros(1).expand(60000 * 64**3, 48),
             decoder_pred__bias=torch.zeros(1).expand(60000 * 64**3)), {}, "repeats a few stored values"),
    (_change(patch_embed__proj__weight=None), {}, "not in the official layout of GL-MAE"),
    (_change(patch_embed__proj__weight=torch.zeros(48, 1, 8, 8)), {}, "instead of 5 axes"),
    (_change(blocks__0__mlp__fc1__weight=torch.zeros(96, 48)), {}, "four times"),
    (_change(**{"module.norm__weight": torch.zeros(48)}), {}, r"holds norm\.weight twice"),
    (_change(), {"grid": (2, 2, 3)}, "a grid of 2 x 2 x 3 has 12 tokens"),
    (_change(), {"heads": 5}, "5 heads do not divide"),
    (_change(), {"decoder_heads": 7}, "--decoder-heads"),
    (_change(), {"positions": "computed"}, "no 3-D sines and cosines"),
    (_change(pos_embed=sin_cos((2, 2, 2), 48)), {"positions": "computed"}, "no 3-D sines and cosines"),  # the decoder's
    (_change(), {"labels": ("a",)}, "no classes to name"),
    (_change(), {"channels": 3}, "not to 3"),
    (_change(), {"input_side": 20}, "not a multiple of 8.*Choose 16 or 24"),
    (_change(), {"input_side": 4096}, "too large"),
    (_change(), {"weights": "best"}, "student or teacher"),
    (_change(), {"orientation": "RLS"}, "'RLS' does not name three axes"),
])
def test_what_does_not_fit_is_refused_in_words(change, options, message, tmp_path):
    state = official_state(NET)
    change(state)
    with pytest.raises(BadInput, match=message):
        import_model("gl-mae", save(tmp_path, {"model": state}), tmp_path / "out", ImportOptions(**options))
    assert not (tmp_path / "out").exists()


def test_options_of_transformers_are_refused_elsewhere(tmp_path):
    for options in (ImportOptions(heads=3), ImportOptions(positions="computed"), ImportOptions(weights="teacher")):
        with pytest.raises(BadInput, match="is for vision transformers"):
            import_model("vis-mae", tmp_path / "a.pth", tmp_path / "out", options)
    assert run(["model", "import", "--format", "gl-mae", str(tmp_path / "a.pth"), "--out", str(tmp_path / "out"),
                "--grid", "6,6"]) == 2


def test_the_encoder_of_a_model_answers_with_its_feature_map(tmp_path):
    import_model("gl-mae", save(tmp_path, official_checkpoint(ALONE)), tmp_path / "model")
    assert load_network(tmp_path / "model")(torch.zeros(1, 1, 20, 16, 24))[-1].shape == (1, 48, 3, 2, 3)
