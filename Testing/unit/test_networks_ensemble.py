"""Ensembles answer with the mean of their members' probabilities, and junk is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medmae.errors import BadInput
from medmae.models import ModelInfo, load_network, save_model
from medmae.models.checking import check_model
from medmae.networks.build import build_network
from medmae.networks.ensemble import MOST_MEMBERS

CLASSIFIER = {"name": "vit_classifier", "arguments": {"channels": 1, "classes": 3, "patch": 4, "width": 12, "depth": 1,
                                                      "heads": 2}}
SEGMENTER = {"name": "unetr", "arguments": {"channels": 1, "classes": 3, "patch": 4, "width": 12, "depth": 2,
                                            "heads": 2, "skip_blocks": [1], "feature_size": 2}}


def ensemble(member: dict, members: int = 3, **changes) -> dict:
    return {"name": "ensemble", "arguments": {"members": members, "member": member, "channels": 1, "classes": 3,
                                              **changes}}


def built(architecture: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_network(architecture).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return network


@pytest.mark.parametrize("member", [CLASSIFIER, SEGMENTER])
def test_the_probabilities_are_the_mean_of_the_members(member: dict) -> None:
    network, volumes = built(ensemble(member)), torch.randn(2, 1, 8, 8, 12)
    with torch.no_grad():
        expected = torch.stack([torch.softmax(one(volumes), 1) for one in network.members]).mean(0)
        torch.testing.assert_close(torch.softmax(network(volumes), 1), expected)
        assert network(volumes).shape == network.members[0](volumes).shape


def test_classes_that_may_apply_together_have_the_mean_of_the_sigmoids() -> None:
    network, volumes = built(ensemble(CLASSIFIER, multi_label=True)), torch.randn(2, 1, 8, 8, 8)
    with torch.no_grad():
        expected = torch.stack([torch.sigmoid(one(volumes)) for one in network.members]).mean(0)
        torch.testing.assert_close(torch.sigmoid(network(volumes)), expected)


def test_members_that_are_very_sure_give_finite_logits() -> None:
    network = built(ensemble(CLASSIFIER))
    with torch.no_grad():
        for number, member in enumerate(network.members):
            member.head.weight.zero_()
            member.head.bias.copy_(torch.tensor([400.0 if number == 0 else -400.0, 0.0, -900.0]))
        logits = network(torch.randn(1, 1, 8, 8, 8))
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(torch.softmax(logits, 1)[0], torch.tensor([1 / 3, 2 / 3, 0.0]))


@pytest.mark.parametrize("architecture", [
    ensemble(ensemble(CLASSIFIER)), ensemble(CLASSIFIER, members=MOST_MEMBERS + 1), ensemble(CLASSIFIER, members=0),
    ensemble(CLASSIFIER, classes=4), ensemble(CLASSIFIER, channels=2), ensemble({}), ensemble({"name": ["x"]}),
    ensemble("vit_classifier"), ensemble({"name": "vit_mae", "arguments": {"channels": 1}}),  # type: ignore[arg-type]
    ensemble({**CLASSIFIER, "arguments": {**CLASSIFIER["arguments"], "depth": 10**9}}),
    ensemble(CLASSIFIER, multi_label="yes"), {"name": "ensemble", "arguments": {"members": 2}},
])
def test_junk_from_a_stranger_is_refused(architecture: dict) -> None:
    with pytest.raises(BadInput):
        build_network(architecture)


def test_a_saved_ensemble_is_checked_and_loaded_like_any_model(tmp_path: Path) -> None:
    network = built(ensemble(SEGMENTER, members=2))
    labels = [{"name": f"label {n}", "value": n, "color": [0.0, 0.0, 0.0], "terminology": None} for n in range(3)]
    info = ModelInfo(name="both", task="segmentation", method="gl-mae", preset="tiny",
                     architecture=ensemble(SEGMENTER, members=2), spatial_dims=3, input_size=[8, 8, 8], labels=labels,
                     channels=[{"name": "MR", "modality": "MR"}], modality="MR", intensity={"kind": "robust"})
    save_model(tmp_path / "model", info, network)
    assert all(check.ok for check in check_model(tmp_path / "model"))
    volumes = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(load_network(tmp_path / "model")(volumes), network(volumes))
