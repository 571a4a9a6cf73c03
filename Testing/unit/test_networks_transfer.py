"""Weights from pretraining to the networks of the tasks."""

from __future__ import annotations

import pytest
import torch

from medmae.errors import BadInput
from medmae.networks import architecture_following, architecture_for, build_network, transfer_encoder
from medmae.networks.task_architecture import with_patch
from medmae.networks.transfer import LoadReport


def network(method: str, task: str, channels: int = 1, seed: int = 0, **changes) -> torch.nn.Module:
    torch.manual_seed(seed)
    architecture = architecture_for(method, "tiny", task, channels, 3)
    architecture["arguments"] |= changes
    return build_network(architecture).eval()


@pytest.mark.parametrize("preset, skips", [("tiny", 2), ("base", 3)])
def test_swin_unet_gets_encoder_and_decoder_and_only_skips_expanding_and_head_stay_new(preset, skips):
    torch.manual_seed(0)
    source = build_network(architecture_for("vis-mae", preset, "encoder", 1)).eval()
    target = build_network(architecture_for("vis-mae", preset, "segmentation", 1, 3)).eval()
    report = transfer_encoder(source.state_dict(), target)
    assert report.encoder_fraction == 1.0 and report.resized == ()
    assert set(report.missing) == {
        *(f"decoder.skips.{stage}.{kind}" for stage in range(skips) for kind in ("weight", "bias")),
        "final_expand.expand.weight", "final_expand.norm.weight", "final_expand.norm.bias", "head.weight"}
    assert report.parts() == "decoder, encoder filled; new: decoder.skips, final_expand, head"
    assert set(report.unexpected) == {"mask_token", "decoder_pred.weight", "decoder_pred.bias"}
    images = torch.randn(1, 1, 112, 112)
    with torch.no_grad():
        torch.testing.assert_close(target.encoder.features(images), source.features(images))
    for name in report.loaded:
        assert torch.equal(target.state_dict()[name], source.state_dict()[name])


def test_the_classifier_of_vis_mae_gets_the_encoder():
    report = transfer_encoder(network("vis-mae", "encoder").state_dict(), network("vis-mae", "classification", seed=1))
    assert set(report.missing) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_the_networks_of_gl_mae_get_the_encoder_without_the_class_token(task):
    source, target = network("gl-mae", "encoder"), network("gl-mae", task, seed=1)
    report = transfer_encoder(source.state_dict(), target)
    assert report.encoder_fraction == 1.0 and "encoder.cls_token" in report.unexpected
    assert not any(name.startswith("encoder.") for name in report.missing)
    assert all(name.startswith("encoder.") for name in report.loaded)


@pytest.mark.parametrize("task", ["segmentation", "classification"])
@pytest.mark.parametrize("method", ["vis-mae", "gl-mae"])
def test_a_finetuned_network_fills_its_own_kind_whole_but_for_the_head_of_other_classes(method, task):
    source = network(method, task)
    report = transfer_encoder(source.state_dict(), network(method, task, seed=1))
    assert report.missing == () and report.unexpected == ()
    other = transfer_encoder(source.state_dict(), network(method, task, seed=1, classes=4))
    assert {name.split(".")[0] for name in other.missing} == {"head"}


@pytest.mark.parametrize("arguments", [
    {"depths": [2, 2, 6, 2], "heads": [1, 2, 4, 8], "width": 16, "window": 5},
    {"depths": [1, 3], "heads": [2, 2], "width": 24, "masked_padding": False}], ids=str)
@pytest.mark.parametrize("source_task", ["encoder", "segmentation", "classification"])
def test_a_network_that_follows_its_encoder_takes_all_of_its_weights(source_task, arguments):
    source = architecture_for("vis-mae", "base", source_task, 3, 5)
    source["arguments"] |= arguments
    for task in ("segmentation", "classification"):
        followed = architecture_following(source, "vis-mae", "base", task, 1, 2)
        assert followed["arguments"].items() >= (arguments | {"channels": 1, "classes": 2, "patch": 4}).items()
        report = transfer_encoder(build_network(source).state_dict(), build_network(followed))
        assert report.encoder_fraction == 1.0 and report.resized == ("encoder.patch_embed.proj.weight",)


def test_unetr_follows_a_vit_and_keeps_the_skips_of_the_preset():
    source = architecture_for("gl-mae", "tiny", "encoder", 1)
    source["arguments"] |= {"width": 96, "depth": 8}
    followed = architecture_following(source, "gl-mae", "tiny", "segmentation", 2, 3)["arguments"]
    assert followed == {"channels": 2, "classes": 3, "patch": 8, "width": 96, "depth": 8, "heads": 6,
                        "skip_blocks": [2, 4], "feature_size": 16}


@pytest.mark.parametrize("method, size", [("vis-mae", (64, 64)), ("gl-mae", (16, 24, 16))])
def test_a_grey_image_gives_the_same_features_through_a_stem_of_any_number_of_channels(method, size):
    image = torch.randn(1, 1, *size)
    for channels_before, channels_after in [(1, 3), (3, 1), (1, 4), (2, 3)]:
        source = network(method, "encoder", channels_before)
        target = network(method, "classification", channels_after, seed=1)
        transfer_encoder(source.state_dict(), target)
        if method == "gl-mae":
            source.encoder.cls_token = None  # the target has none
        with torch.no_grad():
            expected = source.features(image.expand(-1, channels_before, *size))
            found = target.encoder.features(image.expand(-1, channels_after, *size))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_neighbouring_slices_share_the_weights_of_their_own_channel():
    """Two image channels in three slices: a channel's weights never reach the other channel."""
    source, target = network("vis-mae", "encoder", 2), network("vis-mae", "segmentation", 6, seed=1)
    report = transfer_encoder(source.state_dict(), target, slices=(1, 3))
    name = "encoder.patch_embed.proj.weight"
    stem = target.state_dict()[name]
    assert report.resized == (name,)
    for channel in range(6):
        torch.testing.assert_close(stem[:, channel], source.state_dict()[name][:, channel % 2] / 3)
    images = torch.randn(1, 2, 48, 32)
    with torch.no_grad():
        torch.testing.assert_close(target.encoder.features(images.tile(1, 3, 1, 1)), source.features(images),
                                   rtol=1e-3, atol=1e-4)
    back = network("vis-mae", "segmentation", 2, seed=2)
    transfer_encoder(target.state_dict(), back, slices=(3, 1))
    torch.testing.assert_close(back.state_dict()[name], source.state_dict()[name])


def test_three_colours_are_not_taken_for_three_slices():
    source, target = network("vis-mae", "encoder", 3), network("vis-mae", "segmentation", 3, seed=1)
    report = transfer_encoder(source.state_dict(), target, slices=(1, 3))
    name = "encoder.patch_embed.proj.weight"
    assert report.resized == (name,)
    mean = source.state_dict()[name].sum(1, keepdim=True) / 3
    torch.testing.assert_close(target.state_dict()[name], mean.expand(-1, 3, -1, -1))
    again = network("vis-mae", "segmentation", 3, seed=2)
    assert transfer_encoder(target.state_dict(), again, slices=(3, 3)).resized == ()


def test_less_than_95_percent_of_the_encoder_is_refused_and_nothing_is_changed():
    source, target = network("vis-mae", "encoder"), network("vis-mae", "segmentation", seed=1, depths=[2, 2, 6])
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(BadInput, match=r"Only \d+\.\d% .*encoder.stages.2.blocks.2.*--allow-partial"):
        transfer_encoder(source.state_dict(), target)
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())
    report = transfer_encoder(source.state_dict(), target, allow_partial=True)
    assert 0 < report.encoder_fraction < 0.95
    name = "encoder.stages.0.blocks.0.mlp.fc1.weight"
    assert torch.equal(target.state_dict()[name], source.state_dict()[name])


def test_weights_of_the_other_method_or_preset_are_refused():
    with pytest.raises(BadInput, match="another architecture"):
        transfer_encoder(network("vis-mae", "encoder").state_dict(), network("gl-mae", "segmentation"))
    with pytest.raises(BadInput, match=r"encoder\.\S+ \(.*\): the weights have \("):
        transfer_encoder(network("gl-mae", "encoder").state_dict(), network("gl-mae", "segmentation", width=96))


def test_the_bias_table_of_another_window_is_resampled():
    source, target = network("vis-mae", "encoder"), network("vis-mae", "segmentation", seed=1, window=8)
    name = "encoder.stages.0.blocks.0.attn.relative_position_bias_table"
    slope = torch.linspace(-1, 1, 13)
    source.state_dict()[name].copy_((slope[:, None] + 2 * slope[None, :]).flatten()[:, None].expand(-1, 3))
    report = transfer_encoder(source.state_dict(), target)
    assert name in report.resized and report.encoder_fraction == 1.0
    finer = torch.linspace(-1, 1, 15)
    middle = target.state_dict()[name][:, 0].view(15, 15)[2:-2, 2:-2]
    torch.testing.assert_close(middle, (finer[:, None] + 2 * finer[None, :])[2:-2, 2:-2], atol=0.05, rtol=0)


@pytest.mark.parametrize("before, after", [(4, 8), (4, 6), ((2, 4, 4), (3, 8, 4)), ((1, 4, 4), 8)], ids=str)
def test_a_stem_for_larger_patches_gives_the_token_of_the_patch_before_it_was_enlarged(before, after):
    source = network("gl-mae", "encoder", 2, patch=before)
    target = network("gl-mae", "encoder", 2, seed=1, patch=after)
    report = transfer_encoder(source.state_dict(), target, allow_partial=True)
    name = "encoder.patch_embed.proj.weight"
    assert report.resized == (name,) and report.encoder_fraction == 1.0
    assert report.resizings == (f"{name}: {(192, 2, *source.patch)} to {(192, 2, *target.patch)}",)
    patches = torch.randn(3, 2, *source.patch)  # of one token each
    larger = torch.nn.functional.interpolate(patches, size=target.patch, mode="trilinear", align_corners=False)
    with torch.no_grad():
        found = target.encoder.patch_embed(target.patchify(larger))
        torch.testing.assert_close(found, source.encoder.patch_embed(source.patchify(patches)), rtol=1e-3, atol=1e-4)


def test_a_stem_for_smaller_patches_gives_the_tokens_of_half_the_resolution():
    source = network("gl-mae", "encoder", 1, patch=16)
    target = network("gl-mae", "segmentation", 3, seed=1, patch=8, skip_blocks=[2, 4])
    report = transfer_encoder(source.state_dict(), target)
    assert report.resized == ("encoder.patch_embed.proj.weight",)
    small = torch.randn(2, 1, 16, 24, 16)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    source.encoder.cls_token = None  # the target has none
    with torch.no_grad():
        torch.testing.assert_close(target.encoder.features(small.expand(-1, 3, -1, -1, -1)), source.features(large),
                                   rtol=1e-3, atol=1e-4)


def test_a_position_table_of_another_grid_is_resized_where_its_grid_is_named_and_never_guessed():
    source = network("gl-mae", "encoder", position_grid=[3, 4, 2], decoder_class_token=True)
    for part in (source.encoder, source.decoder):
        torch.nn.init.normal_(part.position_table)
    state = source.state_dict()
    target = network("gl-mae", "encoder", seed=1, position_grid=[2, 6, 3], decoder_class_token=True)
    report = transfer_encoder(state, target, position_grid=(3, 4, 2))
    assert set(report.resized) == {"encoder.position_table", "decoder.position_table"} and not report.missing
    expected = source.encoder.positions((2, 6, 3), torch.device("cpu"))
    torch.testing.assert_close(target.encoder.position_table, expected)
    assert torch.equal(target.decoder.position_table[0], source.decoder.position_table[0])
    untold = transfer_encoder(state, network("gl-mae", "encoder", seed=1, position_grid=[2, 6, 3],
                                             decoder_class_token=True))
    assert set(untold.missing) == {"encoder.position_table", "decoder.position_table"}


def test_a_table_of_as_many_places_in_another_arrangement_is_resized_too():
    source = network("gl-mae", "encoder", position_grid=[2, 3, 4])
    target = network("gl-mae", "encoder", seed=1, position_grid=[4, 3, 2])
    report = transfer_encoder(source.state_dict(), target, position_grid=(2, 3, 4))
    assert "encoder.position_table" in report.resized
    torch.testing.assert_close(target.encoder.position_table,
                               source.encoder.positions((4, 3, 2), torch.device("cpu")))


def test_the_networks_of_tasks_follow_the_position_grid_and_the_patch_of_their_encoder():
    source = architecture_for("gl-mae", "tiny", "encoder", 1)
    source["arguments"] |= {"position_grid": [2, 3, 2], "patch": [4, 16, 16], "depth": 8}
    network_of_source = build_network(source)
    torch.nn.init.normal_(network_of_source.encoder.position_table)
    for task in ("segmentation", "classification"):
        followed = architecture_following(source, "gl-mae", "tiny", task, 2, 3)
        assert followed["arguments"]["position_grid"] == [2, 3, 2]
        if task == "segmentation":
            assert followed["arguments"]["skip_blocks"] == [3, 5, 7]
        target = build_network(followed)
        report = transfer_encoder(network_of_source.state_dict(), target)
        assert report.encoder_fraction == 1.0 and report.resized == ("encoder.patch_embed.proj.weight",)
        assert torch.equal(target.encoder.position_table, network_of_source.encoder.position_table)


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_a_network_may_have_finer_tokens_than_its_encoder(task):
    source = architecture_for("gl-mae", "tiny", "encoder", 1)
    source["arguments"]["patch"] = 16
    finer = with_patch(architecture_following(source, "gl-mae", "tiny", task, 1, 2), (4, 8, 8))
    target = build_network(finer)
    assert target.encoder.patch == (4, 8, 8)
    report = transfer_encoder(build_network(source).state_dict(), target)
    assert report.encoder_fraction == 1.0 and report.resized == ("encoder.patch_embed.proj.weight",)


def test_a_classifier_that_pools_by_the_class_token_gets_it():
    source, target = network("gl-mae", "encoder"), network("gl-mae", "classification", seed=1, pool="cls")
    report = transfer_encoder(source.state_dict(), target)
    assert "encoder.cls_token" in report.loaded
    volumes = torch.randn(1, 1, 16, 24, 16)
    with torch.no_grad():
        torch.testing.assert_close(target(volumes), target.head(source.encode(volumes)[0]))


def test_the_report_says_it_in_one_line():
    report = LoadReport(("a", "b"), ("c",), (), ("b",), 0.5)
    assert report.summary() == ("2 tensors loaded (50.0% of the encoder's parameters), 1 of them resized; "
                                "1 missing, 0 unexpected")


def test_a_finetuned_unetr_answers_as_before_when_its_image_comes_in_several_equal_channels():
    grey, colour = (build_network(architecture_for("gl-mae", "tiny", "segmentation", channels, 3)).eval()
                    for channels in (1, 4))
    report = transfer_encoder(grey.state_dict(), colour)
    assert not report.missing and not report.unexpected
    assert {"decoder.image_block.conv1.weight", "decoder.image_block.conv3.weight",
            "encoder.patch_embed.proj.weight"} == set(report.resized)
    volume = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(colour(volume.expand(-1, 4, -1, -1, -1)), grey(volume), rtol=1e-4, atol=1e-4)
