"""A volume of the scene is segmented behind a real sshd, and the application lives on meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import slicer

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
def logic(server, tmp_path, monkeypatch):
    from MedMAESegmentLib.SegmentLogic import SegmentLogic
    from ssh_server import HOST

    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target

    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    subprocess.run([sys.executable, HERE / "make_scripting_models.py", tmp_path / "home" / "models"], check=True,
                   env=dict(os.environ))
    add_target(Target("gpu-box", kind="ssh", host=HOST, folder=str(tmp_path / "there"), environment="python",
                      python=sys.executable, gpus=0))
    return SegmentLogic()


def test_the_result_comes_back_onto_the_volume_and_the_event_loop_lives(
        logic, make_volume, make_segmentation, application, monkeypatch):
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


def test_cancelling_ends_it_at_once_and_there_too(logic, make_volume, application):
    from medmae.jobs.following import follow
    from medmae.jobs.job import list_jobs

    before = application.leftovers()
    job = logic.segment(make_volume((60, 64, 64)), "abdomen", target="gpu-box", mirror=True, waitForCompletion=False)
    begun = time.monotonic()
    job.cancel()
    assert time.monotonic() - begun < 0.1 and job.state == "cancelled"
    assert job._task.wait(60)
    assert application.leftovers() == before
    (known,) = list_jobs()
    assert follow(known).state in ("stopped", "interrupted", "failed")
