"""Swin-Unet and the Swin classifier."""

from __future__ import annotations

import pytest
import torch

from medmae.networks import SwinClassifier, SwinUnet, architecture_for, build_network


def test_swin_unet_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = SwinUnet(channels=3, classes=14, depths=(2, 2, 6, 2))
    assert sum(parameter.numel() for parameter in network.parameters()) == 41_379_780


def test_the_classifier_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = SwinClassifier(channels=3, classes=2)
    assert sum(parameter.numel() for parameter in network.parameters()) == 20_414_924


@pytest.mark.parametrize("size", [(112, 112), (64, 160), (97, 33), (15, 5), (1, 1), (37, 501), (224, 224), (320, 320),
                                  (448, 224)], ids=str)
def test_swin_unet_answers_on_the_grid_of_any_input(size):
    network = build_network(architecture_for("vis-mae", "tiny", "segmentation", 1, 3)).eval()
    with torch.no_grad():
        logits = network(torch.randn(2, 1, *size))
    assert logits.shape == (2, 3, *size) and torch.isfinite(logits).all()


def test_padding_to_the_stride_is_cropped_at_the_end_of_the_axes():
    network = build_network(architecture_for("vis-mae", "tiny", "segmentation", 1, 2)).eval()
    image = torch.randn(1, 1, 100, 90)
    padded = torch.zeros(1, 1, 112, 96)
    padded[:, :, :100, :90] = image
    with torch.no_grad():
        assert torch.equal(network(image), network(padded)[:, :, :100, :90])


@pytest.mark.parametrize("size", [(37, 90), (160, 96), (16, 16)], ids=str)
@pytest.mark.parametrize("masked", [True, False])
def test_what_pads_the_windows_of_any_stage_changes_no_logit(size, masked, monkeypatch):
    architecture = architecture_for("vis-mae", "tiny", "segmentation", 1, 2)
    architecture["arguments"]["masked_padding"] = masked
    network = build_network(architecture).eval()
    image, pad, padded = torch.randn(1, 1, *size), torch.nn.functional.pad, []

    def pad_with_noise(tensor, widths, *arguments, **keywords):
        """Token maps (B, rows, cols, C) are padded with noise; images (padded by two axes) as always."""
        result = pad(tensor, widths, *arguments, **keywords)
        if len(widths) == 6 and any(widths):
            padded.append(widths)
            real = pad(torch.ones_like(tensor), widths).bool()
            result = torch.where(real, result, 5 * torch.randn_like(result))
        return result

    with torch.no_grad():
        expected = network(image)
        monkeypatch.setattr(torch.nn.functional, "pad", pad_with_noise)
        found = network(image)
    assert len(padded) >= 6  # three stages down, two up, each at least once
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5) is masked


def test_no_stage_pads_its_windows_at_sizes_that_are_multiples_of_window_and_stride(monkeypatch):
    network = build_network(architecture_for("vis-mae", "tiny", "segmentation", 1, 2)).eval()
    pad = torch.nn.functional.pad

    def refuse(tensor, widths, *arguments, **keywords):
        assert not any(widths), f"{tuple(tensor.shape)} is padded by {widths}"
        return pad(tensor, widths, *arguments, **keywords)

    monkeypatch.setattr(torch.nn.functional, "pad", refuse)
    with torch.no_grad():
        for size in ((112, 112), (224, 112), (448, 224)):
            assert network(torch.randn(1, 1, *size)).shape == (1, 2, *size)


def test_skips_join_the_stage_inputs_of_the_encoder():
    network = build_network(architecture_for("vis-mae", "tiny", "segmentation", 1, 2)).eval()
    inputs, outputs = network.encoder(network.encoder.embed(torch.randn(1, 1, 112, 112)))
    assert [tuple(one.shape[1:]) for one in inputs] == [(28, 28, 48), (14, 14, 96), (7, 7, 192)]
    with torch.no_grad():
        reference = network.decoder(outputs[-1], inputs)
        for index in range(2):
            changed = [one + (place == index) for place, one in enumerate(inputs)]
            assert not torch.allclose(network.decoder(outputs[-1], changed), reference)
        changed = [*inputs[:2], inputs[2] + 1]
        assert torch.equal(network.decoder(outputs[-1], changed), reference)


def test_the_classifier_takes_any_size_and_averages_normed_tokens():
    network = build_network(architecture_for("vis-mae", "tiny", "classification", 3, 4)).eval()
    images = torch.randn(2, 3, 70, 120)
    with torch.no_grad():
        coarsest = network.encoder.features(images)[-1].permute(0, 2, 3, 1)
        expected = network.head(network.norm(coarsest).mean((1, 2)))
        torch.testing.assert_close(network(images), expected)
    assert expected.shape == (2, 4)


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_training_reaches_every_parameter(task):
    network = build_network(architecture_for("vis-mae", "tiny", task, 1, 3))
    network(torch.randn(2, 1, 64, 64)).square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
