"""A folder is one job behind a real sshd; nothing that it has finished is lost or done twice."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
import slicer
from test_segmenting_on_another_computer import logic, server  # noqa: F401 - fixtures


@pytest.fixture
def folder(tmp_path, make_volume):
    """A folder with a file and a DICOM series."""
    from MedMAESegmentLib.VolumeExport import writeVolume

    volume = make_volume((20, 24, 28), name="DOE^JANE")
    (tmp_path / "images" / "DOE JANE").mkdir(parents=True)
    writeVolume(volume, tmp_path / "images" / "DOE JANE" / "scan.nrrd")
    writeVolume(volume, tmp_path / "images" / "other.nrrd")
    return tmp_path / "images"


@pytest.mark.alone
def test_a_folder_comes_back_under_its_own_names_and_the_event_loop_lives(
        logic, folder, application, monkeypatch):  # noqa: F811
    from medmae.jobs.job import list_jobs

    before, beats, told = application.leftovers(), [], []
    monkeypatch.setattr(slicer.app, "processEvents", lambda: beats.append(time.monotonic()))
    cases = logic.segmentAll(folder, "abdomen", target="gpu-box", uncertainty=True,
                             progressCallback=lambda _fraction, message: told.append(message))
    out = folder / "MedMAE abdomen"
    assert [case.state for case in cases] == ["done", "done"] and "Fetching the results" in told
    assert [case.result for case in cases] == [out / "DOE JANE" / "scan.seg.nrrd", out / "other.seg.nrrd"]
    assert (out / "other.uncertainty.nii.gz").is_file() and "other.nrrd" in (out / "summary.csv").read_text()
    assert np.sort(np.diff(beats))[-3] < 0.1, "the longest are those of a busy machine"
    assert application.leftovers() == before
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(cases[1].result))
    assert storage.ReadData(node) and node.GetSegmentation().GetNthSegment(0).GetName() == "liver"
    again = logic.segmentAll(folder, "abdomen", target="gpu-box", uncertainty=True)
    assert [case.wasDoneBefore for case in again] == [True, True] and len(list_jobs()) == 1


def test_what_slicer_left_alone_is_followed_when_it_is_started_again(logic, folder):  # noqa: F811
    from medmae.jobs.job import list_jobs

    job = logic.segmentAll(folder, "abdomen", target="gpu-box", waitForCompletion=False)
    job._stop.wait = lambda _seconds: sys.exit()  # nobody tells the target, as when Slicer is killed
    assert job._task.wait(60) and len(list_jobs()) == 1
    job.cancel()
    cases = logic.segmentAll(folder, "abdomen", target="gpu-box")
    assert [case.state for case in cases] == ["done", "done"] and len(list_jobs()) == 1
