"""The warm worker ends with its client, however that ends, leaves nothing behind, and obeys cancellations."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from worker_helpers import AFFINE, Conversation, descendants, gone_within, is_alive, tiny_model, volume

from medmae.worker.child import environment_of_worker
from medmae.worker.client import WorkerClient, WorkerError

pytestmark = pytest.mark.alone

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# Starts a worker, lets it work where a model is given, and has a bystander hold the write end of the worker's input.
PARENT = """
import os, subprocess, sys, time
import numpy as np
from medmae.worker.client import WorkerClient
from medmae.worker import child
model = sys.argv[1]
held = []
popen = subprocess.Popen
def start(command, **options):
    reading, writing = os.pipe()
    options['stdin'] = reading
    process = popen(command, **options)
    held.append(popen([sys.executable, '-c', 'import time; time.sleep(120)'], pass_fds=(writing,)))
    process.stdin = os.fdopen(writing, 'wb')
    return process
child.subprocess.Popen = start
client = WorkerClient()
client.wait(client.send('hello'))
if model:
    request = client.segment(model, [client.image(np.random.rand(96, 96, 96).astype('f4'), np.eye(4))],
                             settings={'overlap': 0.8})
    while not (request.progress and request.progress['step']):
        client.poll()
        time.sleep(0.01)
print(client.pid, held[0].pid, client.exchange.folder, flush=True)
time.sleep(120)
"""


def begin_slow_work(talk, folder):
    """A request that takes minutes in many small steps; returns when it has begun to compute."""
    np.save(folder / "voxels.npy", np.random.default_rng(0).random((96, 96, 96), np.float32))
    buffer = {"path": str(folder / "voxels.npy"), "dtype": "float32", "shape": [96, 96, 96], "offset": 128}
    talk.say({"id": "slow", "op": "segment", "model": str(tiny_model(folder / "model")), "settings": {"overlap": 0.9},
              "images": [{"buffer": buffer, "affine": AFFINE.tolist()}], "output": "never.nii.gz"})
    talk.until("slow", "progress")


@linux_only
@pytest.mark.parametrize("is_computing", [False, True])
def test_it_ends_when_its_parent_is_killed_although_another_process_holds_the_pipe(tmp_path, is_computing):
    model = str(tiny_model(tmp_path / "model")) if is_computing else ""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, model], stdout=subprocess.PIPE, text=True,
                              env=environment_of_worker())
    bystander = None
    try:
        worker, bystander, folder = parent.stdout.readline().split()
        worker, bystander = int(worker), int(bystander)
        assert is_alive(worker) and Path(folder).exists()
        assert descendants(worker) == []
        parent.kill()
        parent.wait()
        assert is_alive(bystander)
        assert gone_within(worker, 10)
        assert descendants(worker) == [] and not Path(folder).exists()
    finally:
        parent.kill()
        parent.stdout.close()
        if bystander:
            os.kill(bystander, signal.SIGKILL)


@linux_only
def test_it_ends_with_the_process_named_although_a_launcher_lies_between(tmp_path):
    client = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    launcher = [sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"]
    try:
        command = (*launcher, sys.executable, "-m", "medmae.worker", "--parent", str(client.pid))
        with Conversation(command=command) as talk:
            worker = talk.hear()["pid"]
            assert worker != talk.process.pid and is_alive(worker)
            client.kill()
            client.wait()
            assert gone_within(worker, 10)
    finally:
        client.kill()


@linux_only
def test_it_ends_when_its_launcher_is_killed():
    launcher = [sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"]
    with Conversation(command=(*launcher, sys.executable, "-m", "medmae.worker", "--parent", str(os.getpid()))) as talk:
        worker = talk.hear()["pid"]
        talk.process.kill()
        assert gone_within(worker, 10)


def test_it_ends_with_its_input_while_it_computes(tmp_path):
    with Conversation(cwd=tmp_path) as talk:
        begin_slow_work(talk, tmp_path)
        talk.process.stdin.close()
        assert talk.process.wait(10) == 0
        assert not list(tmp_path.glob("*never*"))


def test_quitting_while_it_computes_answers_every_request(tmp_path):
    with Conversation(cwd=tmp_path) as talk:
        begin_slow_work(talk, tmp_path)
        talk.say({"id": "later", "op": "unload"})
        talk.say({"id": "end", "op": "quit"})
        assert talk.until("slow")["kind"] == "cancelled"
        assert talk.until("later")["kind"] == "cancelled"
        assert talk.process.wait(10) == 0


def test_what_runs_is_cancelled_between_windows_and_the_next_request_is_served(tmp_path):
    with Conversation(cwd=tmp_path) as talk:
        begin_slow_work(talk, tmp_path)
        talk.say({"id": 1, "op": "cancel", "request": "slow"})
        assert talk.until("slow")["kind"] == "cancelled"
        talk.say({"id": 2, "op": "load", "model": str(tmp_path / "model")})
        assert talk.until(2)["warm"] is True
        assert not list(tmp_path.glob("*never*"))


def test_a_client_that_reads_nothing_does_not_hold_the_work_up(tmp_path):
    with Conversation(cwd=tmp_path, reads=False) as talk:
        for number in range(3000):
            talk.say({"id": number, "op": "status", "unknown": 1})  # each answered at some length
        talk.say({"id": "last", "op": "quit"})
        assert talk.process.wait(20) == 0


@pytest.mark.slow
def test_a_base_network_is_cancelled_within_two_seconds_though_a_window_takes_longer(tmp_path):
    from inference_helpers import description

    from medmae.models import save_model
    from medmae.networks import architecture_for, build_network

    architecture = architecture_for("gl-mae", "base", "segmentation", 1, classes=3)
    info = description(values=(0, 1, 5), size=[96, 96, 96], architecture=architecture, intensity={"kind": "robust"})
    model = save_model(tmp_path / "base", info, build_network(architecture))
    with WorkerClient() as client:
        image = client.image(volume((96, 96, 96)), AFFINE)
        client.wait(client.load(model), 120)
        for after_seconds in (0.3, 0.8, 1.5):
            request = client.segment(model, [image])
            while request.state == "waiting":
                client.poll()
                time.sleep(0.01)
            time.sleep(after_seconds)
            begun = time.monotonic()
            client.cancel(request)
            with pytest.raises(WorkerError) as error:
                client.wait(request, 20)
            assert error.value.kind == "cancelled" and time.monotonic() - begun < 2.0
        assert client.starts == 1  # it obeyed, nothing had to be killed
