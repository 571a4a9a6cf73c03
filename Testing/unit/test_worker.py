"""The warm worker through its client: the answers of the engine, from a process that stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import pytest
from worker_helpers import AFFINE, Conversation, descendants, gone_within, tiny_model, volume

from medmae.errors import BadInput
from medmae.inference.classifier import Classifier
from medmae.inference.outputs.components import clean
from medmae.inference.segmenter import Segmenter
from medmae.models.model_files import WEIGHTS
from medmae.volumes import Geometry, Volume, read_label
from medmae.worker.client import WorkerClient, WorkerError
from medmae.worker.model_store import ModelStore


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {task: tiny_model(folder / task, task) for task in ("segmentation", "classification")}


@pytest.fixture(scope="module")
def worker():
    with WorkerClient() as client:
        yield client


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    with Conversation(cwd=tmp_path_factory.mktemp("empty")) as conversation:
        assert conversation.hear()["event"] == "ready"
        yield conversation


def expected_labels(model, array):
    return Segmenter(model).segment(Volume(array[None], Geometry(array.shape, AFFINE)))


def test_labels_are_those_of_the_engine_and_the_second_request_is_warm(worker, models):
    model, array = models["segmentation"], volume()
    image = worker.image(array, AFFINE)
    first = worker.wait(worker.segment(model, [image]), 120)
    assert np.array_equal(np.asarray(first.labels), expected_labels(model, array))
    assert set(np.unique(first.labels)) <= {0, 1, 5} and len(np.unique(first.labels)) > 1
    again = worker.wait(worker.segment(model, [image], dtype="uint8"), 60)
    assert again.result["warm"] and np.array_equal(np.asarray(again.labels), np.asarray(first.labels))
    counts = {one["value"]: one["voxels"] for one in again.result["labels"].values()}
    assert counts == {value: int((np.asarray(first.labels) == value).sum()) for value in (1, 5)}
    assert first.progress["stage"] == "segment" and first.progress["step"] == first.progress["total"] > 1
    worker.release(image, first)
    assert first.labels is None and not Path(image["buffer"]["path"]).exists()


def test_classes_are_those_of_the_engine(worker, models):
    array = volume()
    result = worker.wait(worker.classify(models["classification"], [worker.image(array, AFFINE)]), 120).result
    wanted = Classifier(models["classification"]).classify(Volume(array[None], Geometry(array.shape, AFFINE)))
    assert result["label"] == wanted.label
    assert result["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-6)


def test_views_of_arrays_and_other_types_arrive_unchanged(worker, models):
    array = volume((24, 28, 40))[:, ::-1, ::2]
    found = worker.wait(worker.segment(models["segmentation"], [worker.image(array, AFFINE)]), 60)
    wanted = expected_labels(models["segmentation"], np.ascontiguousarray(array))
    assert np.array_equal(np.asarray(found.labels), wanted)
    floats = worker.wait(worker.segment(models["segmentation"], [worker.image(array.astype("f4"), AFFINE)]), 60)
    assert np.array_equal(np.asarray(floats.labels), np.asarray(found.labels))
    with pytest.raises(TypeError, match="Convert"):
        worker.image(np.zeros((4, 4, 4), complex), AFFINE)


def test_files_in_and_out(worker, models, tmp_path):
    import SimpleITK as sitk

    array = volume()
    image = sitk.GetImageFromArray(array)
    image.SetDirection((-1.0, 0, 0, 0, -1, 0, 0, 0, 1))  # RAS
    sitk.WriteImage(image, str(tmp_path / "image.nii.gz"))
    request = worker.segment(models["segmentation"], [{"path": str(tmp_path / "image.nii.gz")}],
                             output=tmp_path / "out" / "case", settings={"format": "nrrd", "uncertainty": True})
    result = worker.wait(request, 60).result
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["case.nrrd", "case.uncertainty.nii.gz"]
    assert result["output"] == str(tmp_path / "out" / "case.nrrd") and request.labels is None
    assert np.array_equal(read_label(result["output"]).array[0], expected_labels(models["segmentation"], array))
    with pytest.raises(ValueError, match="output"):
        worker.segment(models["segmentation"], [{"path": "image.nii.gz"}])


def test_settings_are_those_of_segmenting(worker, models):
    model, array = models["segmentation"], volume()
    image, roi = worker.image(array, AFFINE), (2.0, 20.0, 3.0, 18.0, 4.0, 15.0)
    base = np.full(array.shape, 7, np.uint8)
    request = worker.segment([model, model], [image], base=worker.image(base, AFFINE),
                             settings={"roi": roi, "mirror": True, "largest_component": True, "overlap": 0.25})
    found = np.asarray(worker.wait(request, 60).labels)
    wanted = Segmenter([model, model], mirror=True, overlap=0.25).segment(
        Volume(array[None], Geometry(array.shape, AFFINE)), roi=roi, base=base)
    outside = np.ones(array.shape, bool)
    outside[4:16, 3:19, 2:21] = False
    assert (found[outside] == 7).all() and (found[~outside] != 7).all()
    clean(wanted, {"largest_component": [1, 5], "fill_holes": []})
    assert np.array_equal(found[~outside], wanted[~outside]) and request.result["passes"] == 16


@pytest.mark.parametrize(("change", "reason"), [
    ({"affine": [[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "sheared"),
    ({"buffer": {"path": "/nowhere/x.raw", "dtype": "int16", "shape": [20, 24, 28]}}, "cannot be opened"),
    ({"affine": [[0.0] * 4] * 4}, "geometry"),
    ({"affine": [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 2]]}, "0 0 0 1"),
])
def test_bad_input_is_told_apart_and_harms_nobody(worker, models, change, reason):
    image = worker.image(volume(), AFFINE)
    request = worker.segment(models["segmentation"], [image | change])
    with pytest.raises(WorkerError, match=reason) as error:
        worker.wait(request, 60)
    assert error.value.kind == "bad_input" and error.value.remedy
    assert worker.wait(worker.send("ping"), 20).state == "done"


def test_missing_models_wrong_tasks_and_narrow_buffers_are_bad_input(worker, models, tmp_path):
    image = worker.image(volume(), AFFINE)
    wide = tiny_model(tmp_path / "wide")
    (wide / "model.json").write_text((wide / "model.json").read_text().replace('"value": 5', '"value": 500'))
    for request, words in (
            (worker.segment("no-such-model", [image]), "no model"),
            (worker.segment(models["classification"], [image]), "medmae classify"),
            (worker.segment(wide, [image], dtype="uint8"), "larger type"),
            (worker.segment(models["segmentation"], [image], settings={"device": "tpu"}), "not a device")):
        with pytest.raises(WorkerError, match=words) as error:
            worker.wait(request, 60)
        assert error.value.kind == "bad_input"


def test_shared_memory_is_used_in_place_and_stays_the_clients(talk, models):
    array = volume()
    voxels = shared_memory.SharedMemory(create=True, size=array.nbytes)
    labels = shared_memory.SharedMemory(create=True, size=array.size)
    try:
        np.frombuffer(voxels.buf, np.int16, array.size)[:] = array.ravel()
        shape = list(array.shape)
        talk.say({"id": "shm", "op": "segment", "model": str(models["segmentation"]), "images": [
            {"buffer": {"shared_memory": voxels.name, "dtype": "int16", "shape": shape}, "affine": AFFINE.tolist()}],
            "labels": {"shared_memory": labels.name, "dtype": "uint8", "shape": shape}})
        assert talk.until("shm")["event"] == "result"
        found = np.frombuffer(labels.buf, np.uint8, array.size).reshape(shape).copy()
        assert np.array_equal(found, expected_labels(models["segmentation"], array))
        assert not descendants(talk.process.pid)  # no tracker of shared memory
        assert Path("/dev/shm", voxels.name).exists() or sys.platform != "linux"
    finally:
        for memory in (voxels, labels):
            memory.close()
            memory.unlink()


def test_lines_that_are_no_requests_are_answered_and_the_worker_lives(talk):
    hostile = [b"\n", b"not json\n", b"\xff\xfe\n", b"[]\n", b"null\n", b"[" * 100000 + b"\n", b'{"id": 1}\n',
               b'{"id": 1, "op": ["x"]}\n', b'{"id": {}, "op": "ping"}\n', b'{"op": "ping"}\n',
               b'{"id": true, "op": "ping"}\n', b'{"id": 1, "op": "segment"}\n', b"x" * (3 * 2**20) + b"\n",
               b'{"id": 1, "op": "load", "model": 5}\n', b'{"id": 1, "op": "ping", "more": 1}\n',
               b'{"id": 1, "op": "segment", "model": "m", "images": [], "output": "x"}\n',
               b'{"id": 1, "op": "segment", "model": "m", "images": [{"path": "a", "buffer": null, "q": 1}]}\n',
               b'{"id": 1, "op": "segment", "model": "m", "images": [{"path": "a"}], "labels": '
               b'{"path": "x", "dtype": "object", "shape": [1, 1, 1]}}\n',
               b'{"id": 1, "op": "segment", "model": "m", "images": [{"path": "a"}], "labels": '
               b'{"path": "x", "dtype": "int8", "shape": [99999999999, 99999999999, 99999999999]}}\n',
               b'{"id": 1, "op": "segment", "model": "m", "images": [{"path": "a"}], "output": "x", '
               b'"settings": {"overlap": 7}}\n',
               b'{"id": 1, "op": "cancel"}\n', b'{"id": "' + b"i" * 500 + b'", "op": "ping"}\n']
    for line in hostile:
        talk.say(line)
    talk.say({"id": "alive", "op": "ping"})
    answers = []
    while (message := talk.hear())["id"] != "alive":
        answers.append(message)
    assert len(answers) == len(hostile) - 1  # the empty line says nothing
    assert all(one["event"] == "error" and one["kind"] == "bad_request" and len(one["reason"]) < 2000
               for one in answers)


@pytest.mark.parametrize("images", [
    [{"path": "a\0b"}], [{"path": "."}], [{"path": "/dev/null"}],
    [{"buffer": {"path": "/dev/zero", "dtype": "int8", "shape": [2, 2, 2]}, "affine": AFFINE.tolist()}],
    [{"buffer": {"shared_memory": "none-of-that-name", "dtype": "int8", "shape": [2, 2, 2]},
      "affine": AFFINE.tolist()}],
    [{"buffer": {"shared_memory": "a\0b", "dtype": "int8", "shape": [2, 2, 2]}, "affine": AFFINE.tolist()}],
])
def test_images_that_are_none_are_bad_input(talk, models, images, tmp_path):
    talk.say({"id": "odd", "op": "segment", "model": str(models["segmentation"]), "images": images,
              "output": str(tmp_path / "x.nii.gz")})
    answer = talk.until("odd")
    assert (answer["event"], answer["kind"]) in (("error", "bad_input"), ("error", "bad_request"))


def test_pipes_for_files_do_not_hold_the_work_up(talk, models, tmp_path):
    pipe = tmp_path / "pipe.nii"
    os.mkfifo(pipe)
    buffer = {"path": str(pipe), "dtype": "int8", "shape": [2, 2, 2]}
    for image in ({"path": str(pipe)}, {"buffer": buffer, "affine": AFFINE.tolist()}):
        talk.say({"id": "p", "op": "segment", "model": str(models["segmentation"]), "images": [image],
                  "output": str(tmp_path / "x")})
        answer = talk.until("p")
        assert answer["kind"] == "bad_input" and "pipe" in answer["reason"]


def test_a_base_without_a_region_is_refused_as_on_the_command_line(talk, models, tmp_path):
    buffer = {"path": str(tmp_path / "none"), "dtype": "int8", "shape": [2, 2, 2]}
    talk.say({"id": "base", "op": "segment", "model": str(models["segmentation"]), "output": str(tmp_path / "x"),
              "images": [{"path": "a.nii"}], "base": buffer})
    answer = talk.until("base")
    assert answer["kind"] == "bad_request" and "roi" in answer["reason"]


def test_weights_that_changed_are_looked_at_anew_although_their_time_was_set_back(tmp_path):
    model, other = tiny_model(tmp_path / "model", seed=1), tiny_model(tmp_path / "other", seed=2)
    store = ModelStore(2**30)
    store.get(model)
    before = (model / WEIGHTS).stat()
    with open(model / WEIGHTS, "r+b") as file:
        file.write((other / WEIGHTS).read_bytes())
    os.utime(model / WEIGHTS, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BadInput, match="SHA-256"):
        store.get(model)


def test_a_buffer_that_is_too_short_or_of_another_shape_is_refused(talk, models, tmp_path):
    (tmp_path / "short.raw").write_bytes(bytes(10))
    (tmp_path / "long.raw").write_bytes(bytes(2000))
    image = {"path": str(tmp_path / "long.raw"), "dtype": "int16", "shape": [10, 10, 10]}
    label = {"path": str(tmp_path / "long.raw"), "dtype": "int16", "shape": [10, 10, 10]}
    for images, labels, words in (
            (image | {"path": str(tmp_path / "short.raw")}, label, "2000"), (image | {"offset": 8}, label, "2008"),
            (image, label | {"shape": [10, 10, 11]}, "10, 10, 10"), (image, label | {"dtype": "float32"}, "uint8")):
        talk.say({"id": "b", "op": "segment", "model": str(models["segmentation"]), "labels": labels,
                  "images": [{"buffer": images, "affine": AFFINE.tolist()}]})
        answer = talk.until("b")
        assert answer["kind"] == "bad_input" and words in answer["reason"]


def test_status_tells_what_is_loaded_and_unloading_forgets_it(models):
    with Conversation() as talk:
        talk.say({"id": 1, "op": "load", "model": str(models["segmentation"])})
        assert talk.until(1)["models"][0]["name"] == "test"
        talk.say({"id": 2, "op": "status"})
        status = talk.until(2)
        assert status["state"] == "idle" and [one["task"] for one in status["models"]] == ["segmentation"]
        assert status["models"][0]["bytes"] > 1000
        talk.say({"id": 3, "op": "unload"})
        assert talk.until(3)["unloaded"] == 1
        talk.say({"id": 4, "op": "status"})
        assert talk.until(4)["models"] == []
        talk.say({"id": 5, "op": "quit"})
        assert talk.until(5)["event"] == "result"
        assert talk.process.wait(10) == 0


def test_requests_wait_in_line_and_are_cancelled_before_they_begin(models):
    with Conversation() as talk:
        shape = [64, 64, 64]
        talk.hear()
        for number in range(1, 4):
            talk.say({"id": number, "op": "load", "model": str(models["segmentation"])})
        talk.say({"id": 2, "op": "load", "model": "again"})
        assert talk.until(2, "error")["kind"] == "bad_request"  # the id is taken
        talk.say({"id": 9, "op": "cancel", "request": 3})
        talk.say({"id": 10, "op": "cancel", "request": 77})
        assert talk.until(3)["kind"] == "cancelled"
        assert talk.until(9)["found"] is True
        assert talk.until(10)["found"] is False
        assert talk.until(2)["event"] == "result" and shape


def test_nothing_printed_gets_into_the_protocol(tmp_path, models):
    (tmp_path / "sitecustomize.py").write_text("print('hello from python')\n")
    code = ("import os, subprocess, sys\nsys.path.insert(0, sys.argv.pop(1))\n"
            "from medmae.worker import __main__ as main\n"
            "from medmae.worker import server; old = server.Server._do\n"
            "def noisy(self, job, perform):\n"
            "    print('printed'); os.write(1, b'written by C\\n'); subprocess.run(['echo', 'by a child'])\n"
            "    assert sys.stdin.read() == '' and os.read(0, 10) == b''\n"
            "    return old(self, job, perform)\n"
            "server.Server._do = noisy\nmain.main()\n")
    with Conversation(command=(sys.executable, "-c", code, str(tmp_path))) as talk:
        talk.hear()
        talk.say({"id": 1, "op": "load", "model": str(models["segmentation"])})
        assert talk.until(1)["event"] == "result"
        talk.say({"id": 2, "op": "quit"})
        assert talk.until(2)["event"] == "result" and talk.process.wait(10) == 0
        log = talk.process.stderr.read()
        assert b"printed" in log and b"written by C" in log and b"by a child" in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(number):
    with Conversation() as talk:
        talk.hear()
        talk.process.send_signal(number)
        assert talk.process.wait(10) == 0


@pytest.mark.alone
def test_a_killed_worker_is_told_and_replaced(models):
    with WorkerClient() as client:
        client.wait(client.send("hello"), 60)
        request = client.load(models["segmentation"])
        os.kill(client.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="memory") as error:
            client.wait(request, 30)
        assert error.value.kind == "died"
        assert client.wait(client.load(models["segmentation"]), 60).result["warm"] is False
        assert client.starts == 2


def test_a_worker_that_cannot_start_says_why(tmp_path):
    with WorkerClient([sys.executable, "-c", "import sys; sys.exit('no such package')"]) as client:
        with pytest.raises(WorkerError, match="no such package") as error:
            client.wait(client.send("hello"), 30)
        assert error.value.kind == "died"


@pytest.mark.alone
def test_a_worker_that_does_not_obey_a_cancellation_is_replaced_and_the_others_are_served(tmp_path):
    code = ("import os, sys, time, json\n"
            f"deaf = not os.path.exists({str(tmp_path / 'second')!r}); open({str(tmp_path / 'second')!r}, 'w')\n"
            "for line in sys.stdin:\n"
            "    number = json.loads(line)['id']\n"
            "    if deaf:\n"
            "        print(json.dumps({'id': number, 'event': 'started'}), flush=True); time.sleep(60)\n"
            "    print(json.dumps({'id': number, 'event': 'result'}), flush=True)\n")
    with WorkerClient([sys.executable, "-c", code]) as client:
        first, second = client.send("ping"), client.send("ping")
        while first.state != "running":
            client.poll()
            time.sleep(0.01)
        begun = time.monotonic()
        client.cancel(first)
        with pytest.raises(WorkerError) as error:
            client.wait(first, 10)
        assert error.value.kind == "cancelled" and time.monotonic() - begun < 4
        assert client.wait(second, 30).state == "done" and client.starts == 2


def test_the_client_needs_the_standard_library_alone():
    code = ("import sys; before = set(sys.modules); import medmae.worker.client\n"
            "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
            "print(sorted(new - set(sys.stdlib_module_names)))")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['medmae']"


def test_closing_ends_the_process_and_removes_the_voxels(models):
    client = WorkerClient()
    client.image(volume(), AFFINE)
    request = client.send("hello")
    pid, folder = client.pid, client.exchange.folder
    client.wait(request, 60)
    client.close()
    assert gone_within(pid, 5) and not folder.exists()
