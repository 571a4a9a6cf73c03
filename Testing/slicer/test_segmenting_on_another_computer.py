"""A volume of the scene is segmented behind a real sshd, and the application lives on meanwhile."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import slicer

pytestmark = pytest.mark.alone

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "remote"))


@pytest.fixture
def server(tmp_path, monkeypatch):
    from ssh_server import SshServer, find_sshd

    program = find_sshd()
    if program is None:
        pytest.skip("needs sshd; on Debian and Ubuntu: make system, as root")
    (tmp_path / "sshd").mkdir()
    server = SshServer(tmp_path / "sshd", program)
    server.start()
    monkeypatch.setenv("MEDMAE_SSH_CONFIG", str(server.config))
    yield server
    server.stop()


@pytest.fixture
def logic(server, scripting_models, tmp_path, monkeypatch):
    from MedMAESegmentLib.SegmentLogic import SegmentLogic
    from ssh_server import HOST

    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target

    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(scripting_models, tmp_path / "home" / "models")
    add_target(Target("gpu-box", kind="ssh", host=HOST, folder=str(tmp_path / "there"), environment="python",
                      python=sys.executable, gpus=0))
    return SegmentLogic()


def test_the_result_comes_back_onto_the_volume_and_the_event_loop_lives(
        logic, make_volume, make_segmentation, application, monkeypatch, tmp_path):
    from medmae.jobs.job import list_jobs

    volume = make_volume((20, 24, 28), name="DOE^JANE")
    target = make_segmentation(volume, {"liver": np.s_[0:2, 0:3, 0:3]})
    before, beats, told = application.leftovers(), [], []
    monkeypatch.setattr(slicer.app, "processEvents", lambda: beats.append(time.monotonic()))
    job = logic.segment(volume, "abdomen", target, target="gpu-box", replaceExisting=True, uncertainty=True,
                        waitForCompletion=False, progressCallback=lambda _fraction, message: told.append(message))
    node = job.wait()
    gaps = np.sort(np.diff(beats))
    assert gaps[-3] < 0.1, "the longest are those of a busy machine, and of taking the result over"
    assert node is target and node.GetAttribute("MedMAE.options").count("gpu-box") == 1
    names = [node.GetSegmentation().GetNthSegment(n).GetName() for n in range(2)]
    assert names == ["liver", "left kidney"] and {one.name for one in job.segments} == set(names)
    assert slicer.util.arrayFromVolume(job.uncertaintyNode).shape == (20, 24, 28)
    assert told[0] == "Handing over the volume" and "Fetching the result" in told
    assert application.leftovers() == before
    here = logic.segment(volume, "abdomen", device="cpu")
    for name in names:
        masks = [slicer.util.arrayFromSegmentBinaryLabelmap(
            one, one.GetSegmentation().GetSegmentIdBySegmentName(name), volume) > 0 for one in (node, here)]
        np.testing.assert_array_equal(*masks)
    assert _within(60, lambda: list_jobs() == [] and _runs(tmp_path / "there") == []), "a run stays after its result"


def _within(seconds, isSo):
    deadline = time.monotonic() + seconds
    while not isSo() and time.monotonic() < deadline:
        time.sleep(0.1)
    return isSo()


def _started(job):
    """Wait until the target is at work on a job."""
    from medmae.jobs.following import follow

    def isRunning():
        job.poll()
        assert not job.ended, job.error
        return job._submitted is not None and follow(job._submitted.refreshed()).state == "running"

    assert _within(90, isRunning)


def _runs(folder):
    return [path for path in folder.glob("runs/*") if path.is_dir()]


@pytest.mark.parametrize("when", ["before it is submitted", "while it is submitted", "while it runs"])
def test_cancelling_ends_it_at_once_and_leaves_nothing_there_nor_here(
        logic, make_volume, application, tmp_path, when):
    from medmae.jobs.job import list_jobs

    before = application.leftovers()
    job = logic.segment(make_volume((60, 64, 64)), "abdomen", target="gpu-box", mirror=True, waitForCompletion=False)
    if when == "while it is submitted":
        assert _within(30, lambda: job._submitted is not None)
    elif when == "while it runs":
        _started(job)
        assert _runs(tmp_path / "there")
    begun = time.monotonic()
    logic.cancel()
    assert time.monotonic() - begun < 0.1 and job.state == "cancelled"
    assert job._task.wait(60)
    assert _within(60, lambda: list_jobs() == []), list_jobs()
    assert _within(5, lambda: application.leftovers() == before) and _runs(tmp_path / "there") == []
    assert _within(5, lambda: list((tmp_path / "home" / "runs").glob("*")) == [])  # its record goes before its folder


QUITS = """
import sys, time
sys.path[:0] = sys.argv[1:3]
from mrml_application import MrmlApplication
MrmlApplication()
import numpy as np, slicer
from MedMAESegmentLib.SegmentLogic import SegmentLogic
from medmae.jobs.following import follow
volume = slicer.util.addVolumeFromArray(np.random.default_rng(0).integers(0, 99, (60, 64, 64)).astype(np.int16))
job = SegmentLogic().segment(volume, "abdomen", target="gpu-box", mirror=True, waitForCompletion=False)
while job._submitted is None or follow(job._submitted.refreshed()).state != "running":
    job.poll()
    time.sleep(0.2)
print(slicer.app.temporaryPath, time.time(), flush=True)
"""


def test_the_end_of_the_application_does_not_wait_and_ends_the_job_there(logic, tmp_path):
    from medmae.jobs.job import list_jobs

    ended = subprocess.run([sys.executable, "-c", QUITS, str(HERE), str(HERE.parents[1] / "MedMAESegment")], check=True,
                           capture_output=True, text=True, timeout=120)
    folder, quitting = ended.stdout.split()
    assert time.time() - float(quitting) < 2
    assert _within(60, lambda: list_jobs() == [] and _runs(tmp_path / "there") == [])
    assert _within(5, lambda: not list(Path(folder).iterdir()))


def test_a_job_whose_target_cannot_be_told_is_found_among_the_jobs(
        logic, server, make_volume, application, monkeypatch, tmp_path):
    from medmae.jobs.discarding import discard
    from medmae.jobs.job import list_jobs
    from medmae.jobs.problems import TargetProblem

    before = application.leftovers()
    monkeypatch.setattr("medmae.jobs.discarding.WAIT_SECONDS", ())
    monkeypatch.setattr("medmae.jobs.discarding.discard_soon", lambda *_: None)  # done below, in this process
    job = logic.segment(make_volume((60, 64, 64)), "abdomen", target="gpu-box", mirror=True, waitForCompletion=False)
    _started(job)
    job.cancel()
    assert job._task.wait(60)
    server.stop()
    with pytest.raises(TargetProblem):
        discard(job._submitted, [job._folder])
    assert application.leftovers() == before
    (known,) = list_jobs()
    assert known.id == job._submitted.id and known.out is None, "its result can be fetched into the mirror"
    server.start()
    discard(known)
    assert list_jobs() == []
