"""The parts that make GL-MAE what it is: who sees what, which pairs agree, how the teacher moves."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_pretraining_methods import write_corpus
from torch import nn

from medmae.datasets import Corpus, CorpusWriter
from medmae.errors import BadInput
from medmae.pretraining.config import PretrainConfig, resolve_pretrain_config
from medmae.pretraining.consistency import Consistency, NegativeCosine, entropy, missing_spread
from medmae.pretraining.gl_mae import GlMaePretraining
from medmae.pretraining.global_local_views import views_of_batch
from medmae.training.randomness import Draw

DRAWS = [Draw(0, 0), Draw(1, 0)]


@pytest.fixture
def gl_mae(tmp_path: Path) -> GlMaePretraining:
    torch.manual_seed(0)
    settings = replace(GlMaePretraining.settings_for("tiny"), local_views=2)
    return GlMaePretraining("tiny", 1, write_corpus(tmp_path, 3, 3), settings, 0, 0.05)


def test_p_global_and_q_local_views_with_a_quarter_of_their_tokens_visible(gl_mae: GlMaePretraining) -> None:
    batch = gl_mae.load_batch(DRAWS)
    shapes = {kind.name: views_of_batch(batch, kind, True).shape for kind in gl_mae._drawer.kinds}
    assert shapes == {"global": (2, 2, 1, 48, 48, 48), "local": (2, 2, 1, 32, 32, 32)}
    assert batch["global_visible"].shape == (2, 2, 6**3 // 4)
    assert batch["local_visible"].shape == (2, 2, 4**3 // 4)


def test_what_is_loaded_is_one_half_precision_block_of_each_volume(gl_mae: GlMaePretraining) -> None:
    batch = gl_mae.load_batch(DRAWS)
    assert batch["blocks"].dtype == torch.float16
    assert batch["blocks"].shape == (2, 1, 26, 32, 28)  # the largest volume
    assert torch.equal(batch["blocks"][0, :, :, :30], torch.from_numpy(np.array(gl_mae.corpus.image(0))))
    assert not batch["blocks"][0, :, :, 30:].any()
    assert batch["extents"].tolist() == [[26, 30, 28], [26, 31, 28]]


def test_the_teacher_sees_whole_global_views_and_the_student_only_visible_tokens(gl_mae: GlMaePretraining) -> None:
    seen: dict[str, list[tuple[int, ...]]] = {"teacher": [], "student": []}
    module = gl_mae.module
    module.teacher.blocks[0].register_forward_hook(lambda _m, args, _o: seen["teacher"].append(tuple(args[0].shape)))
    module.student.encoder.blocks[0].register_forward_hook(
        lambda _m, args, _o: seen["student"].append(tuple(args[0].shape)))
    module(gl_mae.load_batch(DRAWS))
    assert seen["teacher"] == [(4, 1 + 216, 192)]
    assert seen["student"] == [(4, 1 + 54, 192), (4, 1 + 16, 192)]


def make(folder: Path, **settings: object) -> GlMaePretraining:
    """The tiny method on three small volumes, with small views of few tokens."""
    torch.manual_seed(0)
    small = replace(GlMaePretraining.settings_for("tiny"), global_size=(24, 24, 24), local_size=(16, 16, 16),
                    local_views=2)
    return GlMaePretraining("tiny", 1, write_corpus(folder, 3, 3), replace(small, **settings), 0, 0.05)  # type: ignore[arg-type]


def test_without_consistency_weights_there_is_no_teacher_and_no_projector(tmp_path: Path) -> None:
    plain = make(tmp_path, weight_global_to_global=0.0, weight_global_to_local=0.0)
    figures = plain.module(plain.load_batch(DRAWS))
    assert set(figures) == {"loss", "reconstruction_global", "reconstruction_local", "feature_std"}
    assert {name.partition(".")[0] for name, _ in plain.module.named_parameters()} == {"student"}
    plain.after_step(0, 10)
    assert "collapse" not in plain.training_summary([])


def test_without_any_weight_for_local_views_they_are_not_even_cut(tmp_path: Path) -> None:
    alone = make(tmp_path, weight_local=0.0, weight_global_to_local=0.0)
    batch = alone.load_batch(DRAWS)
    assert not any(name.startswith("local") for name in batch)
    assert set(alone.module(batch)) == {"loss", "reconstruction_global", "global_to_global", "teacher_entropy",
                                        "feature_std"}


def test_the_loss_is_the_weighted_sum_of_its_terms(tmp_path: Path) -> None:
    weights = {"weight_global": 2.0, "weight_local": 0.5, "weight_global_to_global": 3.0, "weight_global_to_local": 0.1}
    method = make(tmp_path, **weights)
    figures = method.module(method.load_batch(DRAWS))
    expected = (2 * figures["reconstruction_global"] + 0.5 * figures["reconstruction_local"]
                + 3 * figures["global_to_global"] + 0.1 * figures["global_to_local"])
    torch.testing.assert_close(figures["loss"], expected)


def test_tokens_of_padding_count_neither_as_hidden_nor_in_the_loss(tmp_path: Path) -> None:
    method = make(tmp_path, global_size=(48, 48, 48), crop="plain", contrast=0.0, brightness=0.0)
    batch = method.load_batch(DRAWS)
    outside, visible = batch["global_outside"].flatten(0, 1), batch["global_visible"].flatten(0, 1)
    inside_share = 1 - outside.float().mean()
    assert 0.2 < inside_share < 0.6
    hidden = torch.ones_like(outside).scatter(1, visible, False)
    assert (hidden & ~outside).sum(1).float().div((~outside).sum(1)).sub(0.75).abs().max() < 0.03
    kind = method._drawer.kinds[0]
    views = views_of_batch(batch, kind, False).flatten(0, 1)
    with torch.no_grad():
        _, prediction = method.module.student(views, visible)
        figures = method.module(batch)
    target = method.network.patchify(views)  # type: ignore[operator]
    assert not target[outside].any()
    expected = (prediction - target).square().mean(-1)[hidden & ~outside].mean()
    torch.testing.assert_close(figures["reconstruction_global"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5), (0.7, 1.6, 1.2)])
def test_a_ball_keeps_its_radius_in_mm_whatever_the_spacing_of_its_volume(
        tmp_path: Path, spacing: tuple[float, float, float]) -> None:
    shape = tuple(round(48 / side) for side in spacing)
    places = np.stack(np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * side
                                    for n, side in zip(shape, spacing, strict=True)], indexing="ij"), -1)
    ball = np.clip(10.5 - np.linalg.norm(places, axis=-1), 0, 1)
    with CorpusWriter(tmp_path) as writer:
        writer.add("ball", ball[None], spacing, "CT", {})
    settings = replace(GlMaePretraining.settings_for("tiny"), crop="plain", view_spacing_mm=(1.5, 1.5, 1.5),
                       contrast=0.0, brightness=0.0)
    method = GlMaePretraining("tiny", 1, Corpus(tmp_path), settings, 0, 0.05)
    views = views_of_batch(method.load_batch([Draw(0, 0)]), method._drawer.kinds[0], False)
    radius = (views.sum((2, 3, 4, 5)) * 1.5**3 * 3 / (4 * math.pi)) ** (1 / 3)
    torch.testing.assert_close(radius, torch.full_like(radius, 10.0), rtol=0.03, atol=0)
    assert method.network_spacing_mm == (1.5, 1.5, 1.5)


def test_sizes_of_views_can_be_set_and_must_fit_the_patches() -> None:
    config = resolve_pretrain_config(PretrainConfig(), ["global_size=[24,32,40]", "crop=plain"])
    assert config.settings["global_size"] == [24, 32, 40]
    with pytest.raises(BadInput, match=r"local_size \[20, 16, 16\] does not fit the preset tiny.*\[8, 8, 8\]"):
        resolve_pretrain_config(PretrainConfig(), ["local_size=[20,16,16]"])
    with pytest.raises(BadInput, match="crop"):
        resolve_pretrain_config(PretrainConfig(), ["crop=random"])


def test_a_scale_for_both_kinds_of_view_yields_to_one_of_its_own() -> None:
    settings = replace(GlMaePretraining.settings_for("base"), view_scale=(0.5, 2.0), local_scale=(0.4, 1.0))
    assert settings.scale_of("global") == (0.5, 2.0)
    assert settings.scale_of("local") == (0.4, 1.0)
    assert replace(settings, crop="plain").scale_of("local") == (1.0, 1.0)


def test_thin_presets_cut_few_slices_into_flat_patches(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    with CorpusWriter(tmp_path) as writer:
        for slices in (5, 12):
            writer.add(f"{slices}", generator.random((1, slices, 60, 64)), (5.0, 0.8, 0.8), "MR", {})
    settings = replace(GlMaePretraining.settings_for("tiny-thin"), local_views=1)
    method = GlMaePretraining("tiny-thin", 1, Corpus(tmp_path), settings, 0, 0.05)
    batch = method.load_batch(DRAWS)
    scored = (~batch["global_outside"]).flatten(2).sum(2)
    assert bool((scored > 36).all())  # more than one layer of tokens, even of five slices
    figures = method.module(batch)
    assert all(bool(value.isfinite()) for value in figures.values())
    assert method.reconstruct(2).images.shape == (2, 1, 16, 48, 48)


def test_no_gradient_reaches_the_teacher_and_all_of_the_student_learns(gl_mae: GlMaePretraining) -> None:
    gl_mae.module(gl_mae.load_batch(DRAWS))["loss"].backward()
    module = gl_mae.module
    assert all(parameter.grad is None for part in (module.teacher, module.teacher_projector)
               for parameter in part.parameters())
    silent = [name for name, parameter in module.named_parameters()
              if parameter.requires_grad and (parameter.grad is None or not parameter.grad.abs().sum())]
    assert silent == []


def test_the_teacher_is_the_moving_average_of_the_student(gl_mae: GlMaePretraining) -> None:
    module = gl_mae.module
    before = [parameter.clone() for parameter in module.teacher.parameters()]
    with torch.no_grad():
        for parameter in module.student.parameters():
            parameter.add_(1.0)
    module.move_teacher(0.9)
    for old, new, student in zip(before, module.teacher.parameters(), module.student.encoder.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * student)


def test_the_teacher_stands_still_at_the_end(gl_mae: GlMaePretraining) -> None:
    with torch.no_grad():
        for parameter in gl_mae.module.student.parameters():
            parameter.add_(1.0)
    before = [parameter.clone() for parameter in gl_mae.module.teacher.parameters()]
    gl_mae.after_step(99, 100)
    assert all(torch.equal(old, new) for old, new in zip(before, gl_mae.module.teacher.parameters(), strict=True))


def test_agreement_is_the_mean_cross_entropy_of_all_pairs_of_views() -> None:
    generator = torch.Generator().manual_seed(0)
    consistency = Consistency(0.1, 0.5)
    targets = torch.rand((3, 2, 5), generator=generator).softmax(-1)
    scores = torch.randn((3, 4, 5), generator=generator)
    standard = (scores - scores.mean((0, 1))) / (scores - scores.mean((0, 1))).square().mean().sqrt()
    expected = 0.0
    for image in range(3):
        for teacher_view in range(2):
            for student_view in range(4):
                log_probability = torch.log_softmax(standard[image, student_view] / 0.1, 0)
                expected -= float((targets[image, teacher_view] * log_probability).sum())
    assert float(consistency(targets, scores)) == pytest.approx(expected / (3 * 2 * 4), rel=1e-5)


def test_nothing_is_gained_by_answering_alike_for_all_images() -> None:
    generator = torch.Generator().manual_seed(0)
    consistency = Consistency(1.0, 0.5)
    targets = consistency.targets(torch.randn((4, 2, 32), generator=generator))
    scores = torch.randn((4, 3, 32), generator=generator)
    moved = float(consistency(targets, 1e-3 * scores + 5))
    assert moved == pytest.approx(float(consistency(targets, scores)), rel=1e-3)
    alike = torch.zeros((1, 1, 32), requires_grad=True)
    consistency(targets[:1], alike).backward()
    assert alike.grad is not None and bool(torch.isfinite(alike.grad).all())


def test_negative_cosine_is_the_mean_over_all_pairs_of_views_also_of_the_same_index() -> None:
    torch.manual_seed(0)
    consistency = NegativeCosine(6, 12)
    targets = consistency.targets(torch.randn(3, 2, 6))
    projections = 10 * torch.randn(3, 4, 6)  # wide enough to miss no spread
    predicted = torch.nn.functional.normalize(consistency.predictor(projections), dim=-1).detach()
    pairs = [float(targets[image, teacher_view] @ predicted[image, student_view])
             for image in range(3) for teacher_view in range(2) for student_view in range(4)]
    assert float(consistency(targets, projections).detach()) == pytest.approx(-sum(pairs) / len(pairs), abs=1e-5)


def test_missing_spread_is_one_for_equal_projections_and_pushes_them_apart() -> None:
    equal = torch.zeros(4, 2, 6) + 1e-3 * torch.randn(4, 2, 6, generator=torch.Generator().manual_seed(0))
    equal.requires_grad_(True)
    value = missing_spread(equal)
    assert float(value.detach()) == pytest.approx(1, abs=0.01)
    value.backward()
    assert equal.grad is not None
    centred = (equal - equal.mean(0)).mean(1, keepdim=True)
    assert float((equal.grad.mean(1, keepdim=True) * centred).sum().detach()) < 0  # going down the gradient widens
    assert float(missing_spread(torch.randn(1, 2, 6))) == 0


@pytest.mark.parametrize("consistency", ["cross_entropy", "negative_cosine"])
def test_a_single_view_trains_although_it_has_nothing_to_differ_from(tmp_path: Path, consistency: str) -> None:
    settings = replace(GlMaePretraining.settings_for("tiny"), consistency=consistency, global_views=1, local_views=1,
                       global_size=(16, 16, 16), local_size=(8, 8, 16))
    method = GlMaePretraining("tiny", 1, write_corpus(tmp_path, 1, 3), settings, 0, 0.05)
    losses = method.module(method.load_batch([Draw(0, 0)]))
    assert all(math.isfinite(value.detach()) for value in losses.values()), losses
    assert losses["feature_std"] == 0


def test_reconstructions_of_standardised_patches_are_shown_in_the_brightness_of_the_image(tmp_path: Path) -> None:
    settings = replace(GlMaePretraining.settings_for("tiny"), normalise_target=True)
    method = GlMaePretraining("tiny", 1, write_corpus(tmp_path, 2, 3), settings, 0, 0.05)
    network: Any = method.network
    nn.init.zeros_(network.decoder.pred.weight)  # predicts the mean of every patch
    nn.init.zeros_(network.decoder.pred.bias)
    shown = method.reconstruct(2)
    patches = network.patchify(torch.from_numpy(shown.images))
    expected = network.unpatchify(patches.mean(-1, keepdim=True).expand_as(patches), network.grid((48, 48, 48)))
    np.testing.assert_allclose(shown.reconstructions, expected, atol=1e-5)


def test_negative_cosine_trains_with_a_predictor_on_the_students_side_alone(tmp_path: Path) -> None:
    method = make(tmp_path, consistency="negative_cosine")
    figures = method.module(method.load_batch(DRAWS))
    assert "teacher_entropy" not in figures
    figures["loss"].backward()
    silent = [name for name, parameter in method.module.named_parameters()
              if parameter.requires_grad and (parameter.grad is None or not parameter.grad.abs().sum())]
    assert silent == []
    frozen = {name.partition(".")[0] for name, one in method.module.named_parameters() if not one.requires_grad}
    assert frozen == {"teacher", "teacher_projector"}


def test_hybrid_presets_add_a_quarter_of_a_negative_cosine_to_the_reconstruction(tmp_path: Path) -> None:
    settings = replace(GlMaePretraining.settings_for("tiny-hybrid"), global_size=(16, 16, 16), local_size=(8, 8, 16))
    method = GlMaePretraining("tiny-hybrid", 1, write_corpus(tmp_path, 2, 3), settings, 0, 0.05)
    figures = {name: float(value.detach()) for name, value in method.module(method.load_batch(DRAWS)).items()}
    assert "teacher_entropy" not in figures and figures["global_to_global"] != 0
    agreement = figures["global_to_global"] + figures["global_to_local"]
    expected = figures["reconstruction_global"] + figures["reconstruction_local"] + 0.25 * agreement
    assert figures["loss"] == pytest.approx(expected, rel=1e-5)


def test_targets_are_centred_and_sharp_even_when_scores_hardly_differ() -> None:
    consistency = Consistency(0.1, 0.5)
    scores = 0.3 + 1e-4 * torch.randn((8, 2, 64), generator=torch.Generator().manual_seed(0))
    assert 0.1 < float(entropy(consistency.targets(scores))) < 0.8


def test_entropy_is_one_for_uniform_and_zero_for_one_hot() -> None:
    assert float(entropy(torch.full((2, 8), 1 / 8))) == pytest.approx(1)
    assert float(entropy(torch.eye(8))) == pytest.approx(0, abs=1e-6)
    assert math.isfinite(float(entropy(torch.eye(8))))
