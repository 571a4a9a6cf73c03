"""The parts that make GL-MAE what it is: who sees what, which pairs agree, how the teacher moves."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_pretraining_methods import write_corpus

from medmae.pretraining.consistency import Consistency, entropy
from medmae.pretraining.gl_mae import GlMaePretraining
from medmae.training.randomness import Draw

DRAWS = [Draw(0, 0), Draw(1, 0)]


@pytest.fixture
def gl_mae(tmp_path: Path) -> GlMaePretraining:
    torch.manual_seed(0)
    settings = replace(GlMaePretraining.settings_for("tiny"), local_views=2)
    return GlMaePretraining("tiny", 1, write_corpus(tmp_path, 3, 3), settings, 0, 0.05)


def test_p_global_and_q_local_views_with_a_quarter_of_their_tokens_visible(gl_mae: GlMaePretraining) -> None:
    batch = gl_mae.load_batch(DRAWS)
    assert batch["global"].shape == (2, 2, 1, 48, 48, 48)
    assert batch["local"].shape == (2, 2, 1, 32, 32, 32)
    assert batch["global_visible"].shape == (2, 2, 6**3 // 4)
    assert batch["local_visible"].shape == (2, 2, 4**3 // 4)


def test_the_teacher_sees_whole_global_views_and_the_student_only_visible_tokens(gl_mae: GlMaePretraining) -> None:
    seen: dict[str, list[tuple[int, ...]]] = {"teacher": [], "student": []}
    module = gl_mae.module
    module.teacher.blocks[0].register_forward_hook(lambda _m, args, _o: seen["teacher"].append(tuple(args[0].shape)))
    module.student.encoder.blocks[0].register_forward_hook(
        lambda _m, args, _o: seen["student"].append(tuple(args[0].shape)))
    module(gl_mae.load_batch(DRAWS))
    assert seen["teacher"] == [(4, 1 + 216, 192)]
    assert seen["student"] == [(4, 1 + 54, 192), (4, 1 + 16, 192)]


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
    expected = 0.0
    for image in range(3):
        for teacher_view in range(2):
            for student_view in range(4):
                log_probability = torch.log_softmax(scores[image, student_view] / 0.1, 0)
                expected -= float((targets[image, teacher_view] * log_probability).sum())
    assert float(consistency(targets, scores)) == pytest.approx(expected / (3 * 2 * 4), rel=1e-5)


def test_targets_are_centred_and_sharp_even_when_scores_hardly_differ() -> None:
    consistency = Consistency(0.1, 0.5)
    scores = 0.3 + 1e-4 * torch.randn((8, 2, 64), generator=torch.Generator().manual_seed(0))
    assert 0.1 < float(entropy(consistency.targets(scores))) < 0.8


def test_entropy_is_one_for_uniform_and_zero_for_one_hot() -> None:
    assert float(entropy(torch.full((2, 8), 1 / 8))) == pytest.approx(1)
    assert float(entropy(torch.eye(8))) == pytest.approx(0, abs=1e-6)
    assert math.isfinite(float(entropy(torch.eye(8))))
