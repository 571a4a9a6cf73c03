"""A collapsed representation is noticed and said, a healthy one is not suspected."""

from __future__ import annotations

import html
import logging
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from test_pretraining_methods import write_corpus

from medmae.datasets import Corpus, CorpusWriter
from medmae.models import load_info
from medmae.pretraining import consistency
from medmae.pretraining.collapse import WINDOW, CollapseWatch, collapse_of
from medmae.pretraining.gl_mae import GlMaePretraining
from medmae.run import execute
from medmae.run_folder import RunFolder
from medmae.training.randomness import DrawOrder
from medmae.training.schedule import WarmupCosine


def watched(spreads: list[float], entropy: float | None = 0.5, total: int = 0) -> CollapseWatch:
    watch = CollapseWatch()
    for step, spread in enumerate(spreads, start=1):
        entropies = {} if entropy is None else {"teacher_entropy": entropy}
        watch.note({"step": step, "total": total, "feature_std": spread, **entropies})
    return watch


def noisy(levels: list[tuple[float, int]]) -> list[float]:
    generator = np.random.default_rng(0)
    return [level * generator.uniform(0.6, 1.4) for level, count in levels for _ in range(count)]


def test_a_spread_that_stays_lost_is_a_collapse_and_says_when_and_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "medmae"):
        summary = watched(noisy([(0.2, 130), (0.01, 60)])).summary()
    assert summary["collapsed"]
    assert 130 < summary["since_step"] <= 130 + WINDOW
    assert "spread of the embeddings fell to 0.0" in summary["reason"]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1  # once, not at every step
    assert "have collapsed at step" in told[0]
    assert "weight_global_to_global=0" in told[0]


@pytest.mark.parametrize("levels", [
    [(0.2, 5), (0.03, 60), (0.2, 60)],  # the dip that every run goes through
    [(0.2, 150), (0.01, 5), (0.2, 50)],  # a few odd batches
    [(0.2, 100), (0.09, 200)],  # half of the spread is not all of it
    [(0.2, 50)],
])
def test_dips_and_moderate_losses_of_spread_are_no_collapse(levels: list[tuple[float, int]]) -> None:
    assert not watched(noisy(levels)).summary()["collapsed"]


def test_a_long_run_has_a_fifth_of_its_steps_to_learn_to_tell_images_apart() -> None:
    spreads = noisy([(0.2, 5), (0.03, 300)])
    assert watched(spreads).summary()["collapsed"]
    assert not watched(spreads, total=2000).summary()["collapsed"]


def test_uniform_targets_are_a_collapse_at_once_and_sharp_ones_are_not() -> None:
    assert "uniform" in watched(noisy([(0.2, WINDOW)]), entropy=0.998).summary()["reason"]
    assert not watched(noisy([(0.2, 200)]), entropy=0.001).summary()["collapsed"]
    assert not watched(noisy([(0.2, 200)]), entropy=None).summary()["collapsed"]


def test_a_run_that_recovers_is_not_called_collapsed_in_the_end() -> None:
    summary = watched(noisy([(0.2, 130), (0.01, 40), (0.2, 40)])).summary()
    assert summary["collapsed"] is False
    assert summary["since_step"] is None


def test_steps_repeated_after_a_resume_count_once() -> None:
    """No collapse from ten low steps that are seen twice; the warning needs twenty different ones."""
    resumed = watched(noisy([(0.2, 120), (0.01, 10)]))
    for step in range(121, 131):
        resumed.note({"step": step, "feature_std": 0.01, "teacher_entropy": 0.5})
    assert not resumed.summary()["collapsed"]
    assert collapse_of([{"stage": "headers", "step": 3}]) == CollapseWatch().summary()


def test_steps_repeated_in_a_collapse_are_no_recovery(caplog: pytest.LogCaptureFixture) -> None:
    watch = watched(noisy([(0.2, 120), (0.01, 60)]))
    caplog.clear()
    with caplog.at_level(logging.INFO, "medmae"):
        for step in range(150, 190):
            watch.note({"step": step, "feature_std": 0.01, "teacher_entropy": 0.5})
    assert watch.summary()["collapsed"] and not caplog.records


def test_a_run_without_records_has_an_empty_summary() -> None:
    assert CollapseWatch().summary() == {"collapsed": False, "since_step": None, "reason": None}


def test_a_collapsed_run_says_so_in_its_log_state_model_and_report(tmp_path: Path) -> None:
    """Provoked: a temperature so high that the teacher's targets are uniform."""
    write_corpus(tmp_path / "corpus", 3, 3)
    (tmp_path / "corpus" / "preprocessing.json").write_text(
        '{"spatial_dims": 3, "orientation": "RAS", "spacing_mm": [1, 1, 1], "input_size": [48, 48, 48],'
        ' "intensity": [{"kind": "robust"}]}')
    config = {"method": "gl-mae", "preset": "tiny", "steps": WINDOW + 2, "batch_size": 2, "settings": {
        "global_size": [16, 16, 16], "local_size": [16, 16, 16], "global_views": 1, "local_views": 1,
        "teacher_temperature": 1000.0, "prototypes": 64, "projector_hidden": 32, "projector_bottleneck": 16}}
    run = RunFolder.create(tmp_path / "run", "pretrain", config, {"corpus": str(tmp_path / "corpus")})
    assert execute(run.path) == 0
    assert "have collapsed at step 20" in run.log_file.read_text()
    assert run.state()["collapse"]["collapsed"]
    collapse = load_info(run.model).training["collapse"]
    assert collapse["since_step"] == WINDOW
    assert "uniform" in collapse["reason"]
    assert "have collapsed since step 20: the teacher's targets are uniform" in html.unescape(
        (run.path / "report.html").read_text())


def different_volumes(folder: Path) -> Corpus:
    """Eight volumes with a bright box of their own, so that there is something to tell apart."""
    generator = np.random.default_rng(0)
    with CorpusWriter(folder) as writer:
        for number in range(8):
            array = generator.normal(0, 0.05, (1, 26, 30, 28))
            k, j, i = generator.integers(2, 14, 3)
            array[:, k:k + 10, j:j + 8 + number, i:i + 9] += 0.8
            writer.add(f"image{number}", array, (1.0, 1.0, 1.0), "MR", {})
    return Corpus(folder)


def train_on_different_volumes(folder: Path, **settings: object) -> tuple[GlMaePretraining, list[dict[str, float]]]:
    """140 steps of small views of eight volumes, and their figures."""
    torch.manual_seed(0)
    all_settings = replace(GlMaePretraining.settings_for("tiny"), global_size=(24, 24, 24), local_size=(16, 16, 16),
                           local_views=2, **settings)  # type: ignore[arg-type]
    method = GlMaePretraining("tiny", 1, different_volumes(folder), all_settings, 0, 0.05)
    optimizer = torch.optim.AdamW(method.parameter_groups(), lr=1e-3)
    order, schedule = DrawOrder(8, 0), WarmupCosine(1e-3, 200, 0.1)
    records = []
    for step in range(140):
        for group in optimizer.param_groups:
            group["lr"] = schedule.at(step)
        figures = method.module(method.load_batch(order.batch(step, 4)))
        optimizer.zero_grad()
        figures["loss"].backward()
        torch.nn.utils.clip_grad_norm_(method.module.parameters(), 3.0)
        optimizer.step()
        method.after_step(step, 200)
        records.append({"step": step + 1, **{name: float(value.detach()) for name, value in figures.items()}})
    return method, records


@pytest.mark.slow
def test_training_with_the_defaults_is_not_called_collapsed(tmp_path: Path) -> None:
    method, records = train_on_different_volumes(tmp_path)
    assert method.training_summary(records)["collapse"]["collapsed"] is False


@pytest.mark.slow
def test_the_floor_keeps_embeddings_apart_where_cosines_alone_draw_them_together(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, with_floor = train_on_different_volumes(tmp_path / "with", consistency="negative_cosine")
    assert method.training_summary(with_floor)["collapse"]["collapsed"] is False
    monkeypatch.setattr(consistency, "missing_spread", lambda projections: projections.new_zeros(()))
    _, without = train_on_different_volumes(tmp_path / "without", consistency="negative_cosine")
    wide, narrow = (median(record["feature_std"] for record in records[20:100]) for records in (with_floor, without))
    assert narrow < wide / 2
