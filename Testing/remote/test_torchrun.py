"""Training on several processes: the same data, losses and weights as on one, and from any number to any other.

Tolerance: the sums of a batch are taken in another order, which rounding tells apart. Over twenty steps the losses
differ by 2e-7 of their value; 1e-5 leaves room for other processors.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch
from torchrun_helpers import (
    assert_equal_losses,
    ended,
    executed,
    figures,
    observed,
    pretraining,
    start,
    wait_for,
    weights,
    write_classified,
    write_pictures,
    write_volumes,
)

from medmae.run_folder import RunFolder

pytestmark = pytest.mark.remote
PICTURES, STEPS, BATCH = 40, 20, 4  # two epochs
VIS = {"method": "vis-mae", "preset": "tiny", "precision": "fp32", "batch_size": BATCH, "modality": "DX"}
GL = {"method": "gl-mae", "preset": "tiny", "batch_size": 4, "modality": "CT",
      "settings": {"global_views": 1, "local_views": 1}}
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("alone")
    return executed(pretraining(folder / "run", VIS, STEPS, images=write_pictures(folder / "pictures", PICTURES)), 1)


@pytest.fixture(scope="module")
def pair(alone: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two processes that prepare the images themselves."""
    folder = tmp_path_factory.mktemp("pair")
    return executed(pretraining(folder / "run", VIS, STEPS, **alone.spec["inputs"]), 2)


def test_after_twenty_steps_all_processes_have_the_same_weights(pair: RunFolder) -> None:
    main, other = weights(pair, 0), weights(pair, 1)
    assert main.keys() == other.keys()
    assert all(torch.equal(main[name], other[name]) for name in main)


def test_two_processes_have_the_losses_of_one_with_the_same_batch(alone: RunFolder, pair: RunFolder) -> None:
    assert len(figures(alone)) == STEPS
    assert_equal_losses(figures(alone), figures(pair), TOLERANCE)


def test_an_epoch_covers_every_image_once_and_a_process_reads_its_share_alone(alone: RunFolder,
                                                                              pair: RunFolder) -> None:
    ranks = [observed(pair, rank) for rank in (0, 1)]
    of_both = Counter((epoch, item) for each in ranks for epoch, item in each["draws"])
    assert of_both == {(epoch, item): 1 for epoch in (0, 1) for item in range(PICTURES)}
    for epoch in (0, 1):
        own, others = ({item for of_epoch, item in each["draws"] if of_epoch == epoch} for each in ranks)
        assert not own & others
        assert len(own) == len(others) == PICTURES // 2
    for each in ranks:  # what was read of the memory-mapped corpus: one image a draw, and no other
        assert Counter(each["images"]) == Counter(item for _, item in each["draws"])
    assert Counter(map(tuple, observed(alone, 0)["draws"])) == of_both


def test_a_batch_that_processes_and_devices_cannot_share_evenly_gives_the_losses_of_one(
        alone: RunFolder, tmp_path: Path) -> None:
    inputs = {"corpus": str(alone.path / "corpus")}
    config = {**VIS, "batch_size": 3}
    one = executed(pretraining(tmp_path / "one", config, 5, **inputs), 1)
    two = executed(pretraining(tmp_path / "two", {**config, "device_batch_size": 1}, 5, **inputs), 2)
    assert_equal_losses(figures(one), figures(two), TOLERANCE)
    own, others = weights(two, 0), weights(two, 1)
    assert all(torch.equal(own[name], others[name]) for name in own)


@pytest.mark.slow
def test_from_two_processes_to_one_and_back_to_two_a_run_goes_on_as_if_nothing_had_happened(
        alone: RunFolder, tmp_path: Path) -> None:
    run = pretraining(tmp_path / "run", VIS, STEPS, corpus=str(alone.path / "corpus"))
    two = start(run, 2, BATCH_SECONDS="0.4")
    wait_for(lambda: len(figures(run)) >= 3)
    two.send_signal(signal.SIGTERM)  # what Slurm and a user send to torchrun
    ended(two)
    state = run.state()
    assert state["state"] == "stopped", state
    first = state["step"]
    assert 3 <= first < STEPS
    assert (run.checkpoints / f"step-{first:08}.safetensors").is_file()

    one = start(run, 1, BATCH_SECONDS="0.4")
    wait_for(lambda: figures(run)[-1]["step"] >= first + 3)
    run.request_stop()
    code, said = ended(one)
    assert code == 0, said
    assert first < run.state()["step"] < STEPS

    executed(run, 2)
    assert_equal_losses(figures(alone), figures(run), TOLERANCE)


def test_a_teacher_is_the_same_on_all_processes_and_reconstructions_are_those_of_one(tmp_path: Path) -> None:
    """The consistency terms of GL-MAE compare the volumes of a process with each other, so that they depend on how many
    it has (docs/methods.md); before the first step the reconstruction losses depend on the volumes alone.
    """
    images = write_volumes(tmp_path / "volumes", 8)
    one = executed(pretraining(tmp_path / "one", GL, 1, images=images), 1)
    two = executed(pretraining(tmp_path / "two", GL, 3, corpus=str(one.path / "corpus")), 2)
    main, other = weights(two, 0), weights(two, 1)
    assert any(name.startswith("teacher.") for name in main)
    assert all(torch.equal(main[name], other[name]) for name in main)
    for name in ("reconstruction_global", "reconstruction_local"):
        assert figures(two)[0][name] == pytest.approx(figures(one)[0][name], rel=TOLERANCE)


@pytest.mark.slow
def test_finetuning_on_two_processes_that_accumulate_gives_the_losses_and_scores_of_one(tmp_path: Path) -> None:
    dataset = write_classified(tmp_path / "pictures", {"training": 10, "validation": 6})
    config = {"method": "vis-mae", "preset": "tiny", "steps": 4, "batch_size": 5, "validations": 2, "device": "cpu"}
    runs = []
    for name, processes, more in (("one", 1, {}), ("two", 2, {"device_batch_size": 2})):
        run = RunFolder.create(tmp_path / name, "finetune", {**config, **more},
                               {"dataset": dataset, "encoder": "none"})
        runs.append(executed(run, processes))
    assert_equal_losses(figures(runs[0]), figures(runs[1]), TOLERANCE)
    scores = [json.loads((run.path / "validation.json").read_text()) for run in runs]
    assert scores[0]["auc"] == pytest.approx(scores[1]["auc"], abs=0.12)  # a pair of nine may change places
    assert (runs[1].model / "model.json").is_file()
