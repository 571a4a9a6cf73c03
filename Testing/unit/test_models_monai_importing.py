"""Imported state dicts of MONAI's vision transformers answer as MONAI's own classes do, on the same input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from medmae.cli.app import run
from medmae.errors import BadInput
from medmae.models import load_info, load_network
from medmae.models.importing import ImportOptions, import_model

pytest.importorskip("einops")  # MONAI's own attention needs it
nets = pytest.importorskip("monai.networks.nets")
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")
TOLERANCE = 1e-5
VIT = {"in_channels": 1, "img_size": (32, 16, 48), "patch_size": 16, "hidden_size": 48, "mlp_dim": 80, "num_heads": 4}
GRID = "2,1,3"


def spread(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights that matter: MONAI begins with small ones, with which every answer looks right."""
    torch.manual_seed(seed)
    for parameter in network.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.15)
    return network.eval()


def imported(folder: Path, network: torch.nn.Module, *more: str) -> torch.nn.Module:
    torch.save(network.state_dict(), folder / "monai.pth")
    assert run(["model", "import", "--format", "monai", str(folder / "monai.pth"), "--out", str(folder / "model"),
                "--heads", "4", *more]) == 0
    return load_network(folder / "model")


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("more", [
    {}, {"proj_type": "perceptron"}, {"pos_embed_type": "sincos"}, {"qkv_bias": True},
    {"in_channels": 3, "proj_type": "perceptron"}, {"in_channels": 2, "pos_embed_type": "none"}],
    ids=lambda more: " ".join(map(str, more.values())) or "default")
@torch.no_grad()
def test_a_vit_gives_the_tokens_of_monai(more, tmp_path):
    official = spread(nets.ViT(**{**VIT, **more}, num_layers=3))
    volume = torch.rand(2, official.patch_embedding.patch_dim // 16**3, 32, 16, 48)
    model = imported(tmp_path, official, "--grid", GRID)
    found = model(volume)[-1].flatten(2).transpose(1, 2)
    assert relative(found, official(volume)[0]) <= TOLERANCE
    assert load_info(tmp_path / "model").input_size == [32, 16, 48]


@torch.no_grad()
def test_a_classifier_gives_the_logits_of_monai(tmp_path):
    official = spread(nets.ViT(**VIT, num_layers=2, classification=True, num_classes=3, post_activation="none"))
    volume = torch.rand(2, 1, 32, 16, 48)
    model = imported(tmp_path, official, "--grid", GRID, "--labels", "a,b,c")
    assert relative(model(volume), official(volume)[0]) <= TOLERANCE


@pytest.mark.parametrize("channels", [1, 2])
@torch.no_grad()
def test_a_whole_unetr_gives_the_logits_of_monai(channels, tmp_path):
    official = spread(nets.UNETR(channels, 3, (32, 48, 32), feature_size=4, hidden_size=48, mlp_dim=96, num_heads=4))
    volume = torch.rand(1, channels, 32, 48, 32)
    model = imported(tmp_path, official, "--grid", "2,3,2", "--labels", "background,liver,spleen")
    assert relative(model(volume), official(volume)) <= TOLERANCE
    info = load_info(tmp_path / "model")
    assert (info.task, info.architecture["arguments"]["skip_blocks"]) == ("segmentation", [4, 7, 10])
    assert [label["name"] for label in info.labels] == ["background", "liver", "spleen"]


@torch.no_grad()
def test_a_masked_autoencoder_gives_the_predictions_of_monai(tmp_path):
    official = spread(nets.MaskedAutoEncoderViT(
        1, (32, 32, 48), 16, hidden_size=48, mlp_dim=64, num_layers=2, num_heads=4, decoder_hidden_size=36,
        decoder_mlp_dim=40, decoder_num_layers=2, decoder_num_heads=6))
    chosen = torch.tensor([[1, 4, 9, 11], [0, 2, 3, 10]])
    official._masking = lambda tokens, masking_ratio=None: (  # the same places, in place of random ones
        tokens.gather(1, chosen[..., None].expand(-1, -1, 48)), chosen, torch.ones(2, 12, dtype=torch.int))
    volume = torch.rand(2, 1, 32, 32, 48)
    network = imported(tmp_path, official, "--grid", "2,2,3", "--decoder-heads", "6").network
    cls, tokens = network.encode(volume, chosen)
    found = network.decode(tokens, chosen, network.grid(volume.shape[2:]), cls=cls)
    assert relative(found, official(volume)[0]) <= TOLERANCE


def test_every_tensor_is_accounted_for(tmp_path, capsys):
    official = nets.ViT(**VIT, num_layers=2)
    torch.save(official.state_dict(), tmp_path / "monai.pth")
    assert run(["model", "import", "--format", "monai", str(tmp_path / "monai.pth"), "--out", str(tmp_path / "model"),
                "--heads", "4", "--grid", GRID, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert sorted(report["loaded"] + report["dropped"]) == sorted(official.state_dict())
    assert all(".norm_cross_attn." in name for name in report["dropped"])
    assert (report["missing"], report["unexpected"], report["network"]) == ([], [], "ViT")
    assert any("no bias" in note for note in report["notes"])


@pytest.mark.parametrize(("network", "message"), [
    (lambda: nets.UNETR(1, 2, 32, feature_size=4, hidden_size=48, mlp_dim=96, num_heads=4, norm_name="batch"),
     r"norm1\.weight.*cannot be represented"),
    (lambda: nets.UNETR(1, 2, 32, feature_size=4, hidden_size=48, mlp_dim=96, num_heads=4, conv_block=False),
     "cannot be represented"),
    (lambda: nets.ViT(**VIT, num_layers=1, classification=True), "ends in a tanh"),
    (lambda: nets.ViT(1, 32, 16, hidden_size=48, mlp_dim=96, num_layers=1, num_heads=4, spatial_dims=2),
     "2-dimensional"),
    (lambda: torch.nn.Linear(2, 2), "none of MONAI's ViT.*found: weight, bias"),
])
def test_what_cannot_be_represented_is_refused_by_name(network, message, tmp_path):
    torch.save(network().state_dict(), tmp_path / "a.pth")
    with pytest.raises(BadInput, match=message):
        import_model("monai", tmp_path / "a.pth", tmp_path / "out", ImportOptions(heads=4))
    assert not (tmp_path / "out").exists()


def test_a_table_that_is_no_cube_needs_its_grid(tmp_path):
    torch.save(nets.ViT(**VIT, num_layers=1).state_dict(), tmp_path / "a.pth")
    with pytest.raises(BadInput, match="--grid"):
        import_model("monai", tmp_path / "a.pth", tmp_path / "out", ImportOptions(heads=4))
    with pytest.raises(BadInput, match="2 x 2 x 3 has 12 tokens"):
        import_model("monai", tmp_path / "a.pth", tmp_path / "out", ImportOptions(heads=4, grid=(2, 2, 3)))
    with pytest.raises(BadInput, match="5 heads"):
        import_model("monai", tmp_path / "a.pth", tmp_path / "out", ImportOptions(heads=5, grid=(2, 1, 3)))
