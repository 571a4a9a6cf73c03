"""What the design promises of a volume of 512 x 512 x 200 voxels: a second each way, and an event loop that lives."""

from __future__ import annotations

import time

import numpy as np
import pytest
import slicer

SHAPE = (200, 512, 512)


@pytest.fixture
def logic(a_known_model, fake_worker):
    from MedMAESegmentLib.SegmentLogic import SegmentLogic

    logic = SegmentLogic()
    logic.worker = fake_worker
    return logic


@pytest.mark.alone
def test_a_large_volume_is_handed_over_and_taken_back_in_a_second_each(
        logic, work_plan, scene, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    volume = slicer.util.addVolumeFromArray(rng.integers(-1000, 1000, SHAPE, dtype=np.int16), name="large")
    labels = np.zeros(SHAPE, np.uint8)
    labels[20:180, 60:450, 50:460] = rng.integers(0, 3, (160, 390, 410), dtype=np.uint8)
    np.save(tmp_path / "labels.npy", labels)
    work_plan("progress", f"labels={tmp_path / 'labels.npy'}")
    beats, told = [], []
    monkeypatch.setattr(slicer.app, "processEvents", lambda: beats.append(time.monotonic()))
    begun = time.monotonic()
    job = logic.segment(volume, "model", waitForCompletion=False,
                        progressCallback=lambda fraction, message: told.append((time.monotonic(), message)))
    handing = time.monotonic() - begun
    while job.message != "Taking over the result":
        before = time.monotonic()
        assert not job.poll(), job.error
        beats.append(time.monotonic())
        assert time.monotonic() - before < 0.1
        time.sleep(0.02)
    before = time.monotonic()
    node = job.wait()
    taking = time.monotonic() - before
    print(f"handing over {handing:.2f} s, taking back {taking:.2f} s")
    assert handing < 1 and taking < 1
    assert told[0][1] == "Handing over the volume"
    gaps = np.sort(np.diff([begun, *beats]))
    assert gaps[-3] < 0.1, "single longer ones are those of a busy machine"
    second = node.GetSegmentation().GetSegmentIdBySegmentName("right")
    found = slicer.util.arrayFromSegmentBinaryLabelmap(node, second, volume)
    np.testing.assert_array_equal(found > 0, labels == 2)
