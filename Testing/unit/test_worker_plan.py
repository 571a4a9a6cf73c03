"""What a segmentation would take, asked of the warm worker before it is begun: no voxels are needed for it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from inference_helpers import description
from worker_helpers import AFFINE, Conversation, tiny_model, volume

from medmae.models import save_model
from medmae.networks import architecture_for, build_network
from medmae.worker.child import environment_of_worker
from medmae.worker.client import WorkerClient, WorkerError

GRID = {"shape": [20, 24, 28], "affine": AFFINE.tolist(), "dtype": "int16"}

PEAK = """
import json, sys
from medmae.inference import memory
from medmae.inference.loaded_model import LoadedModel
from medmae.worker import work
from medmae.worker.model_store import ModelStore
from medmae.worker.protocol import request_of
import torch

torch.set_num_threads(1)
model, image, affine, labels = json.loads(sys.argv[1])
store, shape = ModelStore(2**32), image["shape"]
grid = {"shape": shape, "affine": affine, "dtype": image["dtype"]}
planned = work.perform(request_of({"id": 1, "op": "plan", "model": model, "images": [grid],
                                   "settings": {"device": "cpu"}}), store, None, lambda: False)
memory.reset_peak()
work.perform(request_of({"id": 2, "op": "segment", "model": model, "labels": labels, "settings": {"device": "cpu"},
                         "images": [{"buffer": image, "affine": affine}]}), store, lambda *_: None, lambda: False)
print(json.dumps([planned["estimated_peak_bytes"], memory.peak_bytes()]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def worker():
    with WorkerClient() as client:
        yield client


def planned(worker, model, grid=GRID, measure=True, **settings):
    settings = {"device": "cpu", **settings}
    return worker.wait(worker.plan(model, [grid], settings=settings, measure=measure), 120).result


def test_windows_and_passes_are_those_of_the_segmentation_and_the_model_stays_warm(worker, model):
    array = volume()
    told = planned(worker, model)
    request = worker.wait(worker.segment(model, [worker.image(array, AFFINE)], settings={"device": "cpu"}), 60)
    assert request.result["warm"]
    assert (told["windows"], told["passes"]) == (request.result["windows"], request.result["passes"])
    assert (told["members"], told["window"], told["memory_steps"], told["device"]) == (1, [16] * 3, [], "cpu")


def test_without_a_pass_the_peak_is_a_lower_bound_and_said_to_be_one(model):
    with WorkerClient() as worker:
        least, measured = planned(worker, model, measure=False), planned(worker, model)
        again = planned(worker, model, measure=False)
    assert not least["measured"] and measured["measured"] and again["measured"]
    assert least["pass_bytes"] == 0 < measured["pass_bytes"]
    assert least["estimated_peak_bytes"] < measured["estimated_peak_bytes"]
    assert 0 < measured["held_bytes"] < measured["estimated_peak_bytes"] and measured["free_bytes"] > 0


def test_settings_and_sizes_count(worker, model):
    plain = planned(worker, model)
    assert planned(worker, model, mirror=True)["passes"] == 8
    assert planned(worker, [str(model)] * 2)["members"] == 2
    assert planned(worker, model, overlap=0.25)["windows"] < plain["windows"]
    assert planned(worker, model, roi=[2.0, 9.0, 3.0, 9.0, 4.0, 9.0])["windows"] < plain["windows"]
    large = {**GRID, "shape": [200, 512, 512]}
    more = [planned(worker, model, grid)["estimated_peak_bytes"] for grid in (
        large, {**large, "dtype": "float64"})]
    assert more[0] > 52_428_800 * 7 and more[1] - more[0] == pytest.approx(52_428_800 * 6 * 1.04, rel=0.2)


def test_a_colour_picture_is_planned_for_as_its_voxels_lie(worker, tmp_path):
    made = subprocess.run([sys.executable, "../slicer/make_tiny_model.py", str(tmp_path / "pictures"), "vis-mae"],
                          check=False, env=environment_of_worker(), cwd=__file__.rpartition("/")[0])
    assert made.returncode == 0
    grid = {"shape": [1, 40, 44, 3], "affine": AFFINE.tolist(), "dtype": "uint8", "channels_last": True, "is_2d": True}
    assert planned(worker, tmp_path / "pictures", grid)["windows"] == 1


@pytest.mark.parametrize(("change", "settings", "reason"), [
    ({"affine": [[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, {}, "sheared"),
    ({"affine": [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 2]]}, {}, "0 0 0 1"),
    ({}, {"memory": "1MB"}, "Raise the limit"),
    ({}, {"roi": [900, 910, 900, 910, 900, 910]}, "region|box"),
])
def test_what_cannot_be_segmented_cannot_be_planned(worker, model, change, settings, reason):
    with pytest.raises(WorkerError, match=reason) as error:
        planned(worker, model, GRID | change, **settings)
    assert error.value.kind == "bad_input"


@pytest.mark.parametrize("change", [{"shape": [0, 4, 4]}, {"shape": [4, 4]}, {"dtype": "text"}, {"affine": [[1]]},
                                    {"buffer": {}}])
def test_a_grid_that_is_none_is_a_bad_request(model, change):
    with Conversation() as talk:
        talk.say({"id": 1, "op": "plan", "model": str(model), "images": [GRID | change]})
        assert talk.until(1)["kind"] == "bad_request"


def test_a_plan_waits_its_turn_and_can_be_cancelled(worker, model):
    array = volume((60, 64, 64))
    running = worker.segment(model, [worker.image(array, AFFINE)], settings={"mirror": True})
    waiting = worker.plan(model, [GRID])
    worker.cancel(waiting)
    with pytest.raises(WorkerError, match="Cancelled"):
        worker.wait(waiting, 10)
    assert not running.is_over
    worker.cancel(running)
    with pytest.raises(WorkerError):
        worker.wait(running, 10)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the exact peak of a process is counted on Linux only")
def test_the_peak_is_not_told_too_low(worker, tmp_path):
    architecture = architecture_for("gl-mae", "tiny", "segmentation", 1, 3)
    model = save_model(tmp_path / "model", description(size=[48] * 3, spacing=[1.5] * 3, architecture=architecture),
                       build_network(architecture))
    array = np.random.default_rng(0).integers(0, 200, (240, 256, 256)).astype(np.int16)
    affine = np.diag([0.3, 0.3, 0.3, 1.0])
    labels = worker.exchange.space("uint8", array.shape)
    arguments = json.dumps([str(model), worker.image(array, affine)["buffer"], affine.tolist(), labels])
    ended = subprocess.run([sys.executable, "-c", PEAK, arguments], check=True, capture_output=True, text=True,
                           env=environment_of_worker())
    estimated, peak = json.loads(ended.stdout.splitlines()[-1])
    assert 0.8 * estimated < peak <= estimated
