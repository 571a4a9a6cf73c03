"""What a segmentation will take is told before it is begun, by the real worker, without handing voxels over."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest
import slicer
from conftest import OBLIQUE


@pytest.fixture(scope="module")
def models(scripting_models, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(scripting_models, home / "models")
    return home


@pytest.fixture(scope="module")
def session():
    from MedMAESegmentLib.WorkerSession import WorkerSession

    session = WorkerSession()
    yield session
    session.close()


@pytest.fixture
def logic(models, session, monkeypatch):
    from MedMAESegmentLib.SegmentLogic import SegmentLogic

    monkeypatch.setenv("MEDMAE_HOME", str(models))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("MedMAESegmentLib.Dependencies.ensureInstalled", lambda: None)
    logic = SegmentLogic()
    logic.worker = session
    return logic


def _left(logic):
    return sorted(path.name for path in logic.worker.client.exchange.folder.iterdir() if path.name != "worker.log")


def test_memory_windows_and_passes_are_told_while_the_application_lives(logic, make_volume, monkeypatch):
    pumped = []
    monkeypatch.setattr(slicer.app, "processEvents", lambda: pumped.append(_left(logic)))
    plain = logic.estimate(make_volume((20, 24, 28)), "abdomen", device="cpu")
    assert plain.isMeasured and plain.neededBytes > 0 and plain.freeBytes > 0 and plain.device == "cpu"
    assert (plain.passes, plain.members) == (1, 1) and plain.windows > 1
    assert len(pumped) > 5 and not any(pumped), "no voxels are handed over"
    mirrored = logic.estimate(make_volume((20, 24, 28)), "abdomen", mirror=True)
    assert mirrored.passes == 8 and mirrored.windows == plain.windows
    larger = logic.estimate(make_volume((200, 300, 300)), "abdomen")
    assert larger.windows > plain.windows and larger.neededBytes > plain.neededBytes + 200 * 300 * 300 * 4
    assert logic.worker.starts == 1


def test_a_region_and_channels_count(logic, make_volume, scene):
    volume = make_volume((40, 48, 56))
    region = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    region.SetXYZ((OBLIQUE @ [28, 24, 20, 1])[:3])
    region.SetSize(8, 8, 8)
    part, whole = logic.estimate(volume, "abdomen", region), logic.estimate(volume, "abdomen")
    assert part.windows < whole.windows
    assert logic.estimate([volume, make_volume((9, 12, 14))], "two channels").windows > 0
    with pytest.raises(ValueError, match="sees 2 channels"):
        logic.estimate(volume, "two channels")
    region.SetXYZ(0, 0, 9000)
    with pytest.raises(ValueError, match="Region misses the volume"):
        logic.estimate(volume, "abdomen", region)


def test_it_waits_for_a_segmentation_that_is_under_way(logic, make_volume):
    volume = make_volume((30, 32, 34))
    running = logic.segment(volume, "abdomen", mirror=True, waitForCompletion=False)
    estimate = logic.estimate(volume, "abdomen", waitForCompletion=False)
    found = estimate.wait()
    assert found.isMeasured
    assert running._request.is_over, "what was asked for first is done first"
    assert running.wait().GetSegmentation().GetNumberOfSegments() == 2


def test_a_segmentation_does_not_wait_for_estimates(logic, make_volume):
    from MedMAESegmentLib.FollowedJob import RunCancelled

    volume = make_volume((20, 24, 28))
    busy = logic.segment(make_volume((60, 64, 64)), "abdomen", mirror=True, waitForCompletion=False)
    first = logic.estimate(volume, "abdomen", waitForCompletion=False)
    second = logic.estimate(volume, "abdomen", waitForCompletion=False)
    assert first.state == "cancelled", "the newer question counts"
    wanted = logic.segment(volume, "abdomen", waitForCompletion=False)
    assert second.state == "cancelled" and logic.jobs == [busy, wanted]
    with pytest.raises(RunCancelled):
        second.wait()
    busy.cancel()
    assert wanted.wait() is not None
    third = logic.estimate(volume, "abdomen", waitForCompletion=False)
    logic.cancel()
    assert third.state == "cancelled"


def test_once_measured_the_warning_of_memory_is_no_lower_bound(logic, make_volume, monkeypatch):
    import medmae.inference.memory

    volume = make_volume((20, 24, 28))
    monkeypatch.setattr(medmae.inference.memory, "available_bytes", lambda: 10_000_000)
    (before,) = [warning.text for warning in logic.warnings(volume, "abdomen") if warning.kind == "memory"]
    logic.estimate(volume, "abdomen")
    (after,) = [warning.text for warning in logic.warnings(volume, "abdomen") if warning.kind == "memory"]
    assert "at least" in before and "at least" not in after and "needs about" in after


@pytest.mark.alone
def test_looking_takes_less_than_a_tenth_of_a_second(logic):
    rng = np.random.default_rng(0)
    volume = slicer.util.addVolumeFromArray(rng.integers(-1000, 1000, (200, 512, 512), dtype=np.int16), name="large")
    times = []
    for _ in range(6):
        begun = time.perf_counter()
        found = logic.warnings(volume, "abdomen")
        times.append(time.perf_counter() - begun)
    assert {"spacing", "intensity"} <= {warning.kind for warning in found}
    assert sorted(times[1:])[2] < 0.1, f"{times}"
