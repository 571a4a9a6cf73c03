"""Pictures of what a network does while it trains: when they come, what they show, and that they leave no trace."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from test_pretraining_methods import make, write_corpus
from test_training_accumulation import Regression
from tiny_training_data import write_pictures, write_volumes

from medmae import run as medmae_run
from medmae.config import to_json
from medmae.datasets import Corpus, CorpusWriter, load_dataset
from medmae.errors import Stopped
from medmae.finetuning.config import FinetuneConfig
from medmae.models.png import is_plain_png
from medmae.models.preview import GAP, SIDE
from medmae.pretraining.registry import method_names
from medmae.pretraining.samples import reconstruction_png
from medmae.run_folder import MOST_SAMPLES, RunFolder
from medmae.training import samples as training_samples
from medmae.training.distributed import ProcessGroup
from medmae.training.loop import LoopSettings, train
from medmae.training.samples import FREE_SECONDS, Samples, due_steps, undisturbed

CPU = torch.device("cpu")
ALONE = ProcessGroup(0, 1, CPU)


def names(run: RunFolder) -> list[str]:
    return sorted(file.name for file in run.samples.glob("*"))


def losses(run: RunFolder) -> list[tuple[int, float]]:
    return [(record["step"], record["loss"]) for record in run.progress() if "loss" in record]


def panes(png: bytes) -> list[np.ndarray]:
    """The three pictures of one sample."""
    assert is_plain_png(png, 600 * 220)
    whole = imread(io.BytesIO(png), format="png")
    assert whole.shape == (SIDE, 3 * SIDE + 2 * GAP, 3)
    return [whole[:, number * (SIDE + GAP):][:, :SIDE] for number in range(3)]


@given(steps=st.integers(1, 400_000), every=st.none() | st.integers(1, 500_000), most=st.integers(1, 60))
def test_there_are_never_more_than_wanted_and_always_the_last(steps: int, every: int | None, most: int) -> None:
    due = due_steps(steps, every, most)
    assert len(due) <= most and steps in due and all(1 <= step <= steps for step in due)
    if every and most > 2:
        assert all(step % every == 0 for step in due - {1, steps})


def test_they_come_after_the_first_step_at_validations_and_at_the_end() -> None:
    assert sorted(due_steps(100, 30, 60)) == [1, 30, 60, 90, 100]
    assert sorted(due_steps(100, None, 60)) == [1, *range(10, 101, 10)]
    assert sorted(due_steps(1000, 1, 12)) == [1, *range(100, 1001, 100)]


@pytest.mark.parametrize("name", method_names())
def test_pretraining_is_the_same_to_the_last_bit_with_and_without_pictures_and_resumed(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(training_samples, "FREE_SECONDS", 1e9)  # on a busy machine as well
    corpus = write_corpus(tmp_path / "corpus", 3 if name == "gl-mae" else 2)
    settings = LoopSettings(steps=3, batch_size=2, learning_rate=1e-3, checkpoint_every=1)

    def trained(folder: str, pictures: bool, stop_after: int | None = None) -> RunFolder:
        run = RunFolder(tmp_path / folder)
        if not run.spec_file.exists():
            RunFolder.create(run.path, "pretrain", {}, {})
        method = make(name, corpus)
        if stop_after is not None:
            after = method.after_step
            method.after_step = lambda step, total: (  # type: ignore[method-assign]
                after(step, total), run.request_stop() if step + 1 == stop_after else None)[0]
        train(method, run, settings, ALONE, (lambda: reconstruction_png(method, "RAS")) if pictures else None)
        return run

    without, drawn = trained("without", False), trained("drawn", True)
    with pytest.raises(Stopped):
        trained("stopped", True, stop_after=2)
    (tmp_path / "stopped" / "STOP").unlink()
    resumed = trained("stopped", True)
    assert losses(drawn) == losses(without) == losses(resumed) and len(losses(drawn)) == 3
    assert names(without) == [] and names(drawn) == names(resumed) == [f"step-00000{step}.png" for step in (1, 2, 3)]
    for step in (1, 2, 3):
        assert drawn.sample_file(step).read_bytes() == resumed.sample_file(step).read_bytes()
    first, last = (panes(drawn.sample_file(step).read_bytes()) for step in (1, 3))
    assert np.array_equal(first[0], last[0]) and np.array_equal(first[1], last[1]), "the same image and mask"
    assert not np.array_equal(first[2], last[2])
    assert np.ptp(first[0]) > 0.5 and not np.array_equal(first[0], first[1])


def test_a_segmentation_shows_slice_reference_and_prediction_and_learns_the_same_without(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"training": 1, "validation": 1})

    def finetuned(name: str, **config: object) -> RunFolder:
        wanted = {"method": "vis-mae", "preset": "tiny", "steps": 2, "batch_size": 2, "validations": 1, **config}
        run = RunFolder.create(tmp_path / name, "finetune", to_json(FinetuneConfig(**wanted)),  # type: ignore[arg-type]
                               {"dataset": str(dataset), "encoder": "none"})
        assert medmae_run.execute(run.path) == 0, run.state()["reason"]
        return run

    drawn, without = finetuned("drawn"), finetuned("without", preview=False)
    assert losses(drawn) == losses(without)
    assert names(without) == [] and names(drawn) == ["step-000001.png", "step-000002.png"]
    plane, reference, predicted = panes(drawn.sample_file(2).read_bytes())
    assert np.ptp(plane, axis=-1).max() == 0 and np.ptp(reference, axis=-1).max() > 0.3
    assert not np.array_equal(predicted, reference)

    record = drawn.progress()[-1]
    assert record["memory_bytes"] > 50e6 and isinstance(record["memory_bytes"], int)
    (told,) = record["validation_cases"]
    (case,) = load_dataset(dataset).cases("validation")
    assert told == {"case": case.id, "dice": pytest.approx(record["validation_dice"], abs=1e-4)}
    assert "validation_cases" not in drawn.progress()[-2]


def test_folds_share_the_pictures_of_the_run_and_count_steps_as_it_does(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"training": 2})
    config = FinetuneConfig(method="vis-mae", preset="tiny", steps=2, batch_size=2, folds=2)
    run = RunFolder.create(tmp_path / "run", "finetune", to_json(config), {"dataset": str(dataset), "encoder": "none"})
    assert medmae_run.execute(run.path) == 0, run.state()["reason"]
    assert names(run) == [f"step-00000{step}.png" for step in (1, 2, 3, 4)]


def test_a_classification_tells_its_worst_cases_and_draws_nothing(tmp_path: Path) -> None:
    dataset = write_pictures(tmp_path, {"training": 4, "validation": 4})
    config = FinetuneConfig(method="vis-mae", preset="tiny", steps=2, batch_size=2, validations=1)
    run = RunFolder.create(tmp_path / "run", "finetune", to_json(config), {"dataset": str(dataset), "encoder": "none"})
    assert medmae_run.execute(run.path) == 0, run.state()["reason"]
    told = [case["probability"] for case in run.progress()[-1]["validation_cases"]]
    assert len(told) == 4 and told == sorted(told) and all(0 <= one <= 1 for one in told)
    assert not run.samples.exists()


class Disturbing:
    """A drawing that does all that could change a training: draws, forgets modes, normalises batches, has gradients."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def __call__(self) -> bytes:
        torch.manual_seed(1)
        self.module.eval()
        self.module(torch.rand(4, 3)).sum()
        return b"picture"


def test_drawing_leaves_modes_statistics_random_state_and_gradients_as_they_were() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5)).train()
    module[2].eval()  # a frozen part stays frozen
    module(torch.rand(4, 3)).sum().backward()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]
    state = torch.get_rng_state()
    with undisturbed(module, CPU):
        Disturbing(module)()
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in module.modules()] == [True, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(one.grad, other) for one, other in zip(module.parameters(), gradients, strict=True))


def test_a_picture_that_cannot_be_made_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, asked = RunFolder.create(tmp_path / "run", "pretrain", {}, {}), []

    def draw() -> bytes:
        asked.append(1)
        raise MemoryError("no room")

    with caplog.at_level(logging.WARNING):
        assert train(Regression(), run, LoopSettings(steps=6, batch_size=5, learning_rate=1e-2), ALONE, draw) == 6
    assert len(asked) == 1 and names(run) == [] and "no room" in caplog.text


def test_pictures_that_take_long_are_left_out_but_for_the_first_and_the_last(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(training_samples, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    run = RunFolder.create(tmp_path / "run", "pretrain", {}, {})

    def taking(seconds: float) -> Callable[[], bytes]:
        def draw() -> bytes:
            clock[0] += seconds
            return b"picture"
        return draw

    samples = Samples(run, taking(2 * FREE_SECONDS), torch.nn.Linear(1, 1), CPU, 100, 10)
    for done in range(1, 101):
        clock[0] += 1
        samples.keep(done, is_last=done == 100)
    assert names(run) == ["step-000001.png", "step-000100.png"]
    samples = Samples(run, taking(0.1), torch.nn.Linear(1, 1), CPU, 100, 10)
    for done in range(1, 101):
        clock[0] += 1
        samples.keep(done)
    assert len(names(run)) == 11


@pytest.mark.parametrize(("modality", "can_be_read"), [("MR", True), ("US", False), ("", False)])
@pytest.mark.parametrize("name", method_names())
def test_print_in_pictures_cannot_be_read(tmp_path: Path, name: str, modality: str, can_be_read: bool) -> None:
    shape = (1, 26, 400, 400) if name == "gl-mae" else (1, 1, 400, 400)
    picture = np.zeros(shape, np.float32)
    picture[..., ::8, ::8] = 1  # strokes of letters
    picture[..., 190:210, 190:210] = 1
    with CorpusWriter(tmp_path / "corpus") as writer:
        writer.add("image", picture, (1.0, 1.0, 1.0), modality, {})
    shown = panes(reconstruction_png(make(name, Corpus(tmp_path / "corpus")), "RAS"))[0][..., 0]
    corner = shown[SIDE // 8:SIDE // 4, SIDE // 8:SIDE // 4]
    assert (np.ptp(corner) > 0.3) == can_be_read


def test_a_run_keeps_at_most_sixty_however_often_it_validates(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "pretrain", {}, {})
    settings = LoopSettings(steps=200, batch_size=5, learning_rate=1e-2, validate_every=1, checkpoint_every=200)
    train(Regression(), run, settings, ALONE, lambda: b"picture")
    assert 3 <= len(names(run)) <= MOST_SAMPLES
    assert all("memory_bytes" in json.loads(line) for line in run.progress_file.read_text().splitlines())
