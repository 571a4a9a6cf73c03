"""The tab "Volume" of the Segment panel with another computer, from the question to the result, by the real engine."""

from __future__ import annotations

import shutil
import sys
import time

import numpy as np
import pytest
import slicer
from panel_fixtures import until


@pytest.fixture
def panel(open_panel, scripting_models, tmp_path, monkeypatch, make_volume):
    """The panel with a volume, the model "abdomen" and the target "ward-7", which is a folder of this computer."""
    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target

    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "models").symlink_to(scripting_models)
    add_target(Target("ward-7", kind="local", folder=str(tmp_path / "there"), environment="python",
                      python=sys.executable, gpus=0))
    make_volume((20, 24, 28), name="DOE^JANE").SetAttribute("DICOM.PatientName", "DOE^JANE")
    panel = open_panel("MedMAESegment")
    panel._modelSection.name = "abdomen"
    panel.ui.computeSelector.setCurrentIndex(3)
    return panel


def _jobs():
    from medmae.jobs.job import list_jobs

    return list_jobs()


def _followed(panel, qt_application, seconds=120):
    """Wait for the end; the texts that were shown, and the longest times that the event loop was held."""
    told, beats, deadline = [], [], time.monotonic() + seconds
    while panel._volumePage.isBusy and time.monotonic() < deadline:
        qt_application.application.processEvents()
        beats.append(time.monotonic())
        if panel.ui.statusLabel.text not in told[-1:]:
            told.append(panel.ui.statusLabel.text)
        time.sleep(0.005)
    assert not panel._volumePage.isBusy, told
    return told, np.sort(np.diff(beats))


@pytest.mark.alone
def test_the_result_comes_back_and_nothing_stays_there(panel, qt_application, agree, application, tmp_path):
    before, volume = application.leftovers(), panel._parameterNode.inputVolume
    panel.ui.uncertaintyCheckBox.click()
    asked = agree(True)
    panel.ui.segmentButton.click()
    told, gaps = _followed(panel, qt_application)
    assert "will leave this computer for ward-7" in asked[0] and len(asked) == 1
    assert panel.ui.statusLabel.text.startswith("Done in"), panel.ui.statusLabel.text
    assert told[:2] == ["Handing over the volume", "Sending to ward-7"]
    assert gaps[-3] < 0.1, "the longest are those of a busy machine, and of taking the result over"
    segmentation = panel._parameterNode.segmentation
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert segmentation.GetNodeReference(role) is volume and panel.ui.resultTable.rowCount == 2
    assert slicer.util.getNode("DOE^JANE uncertainty") is not None
    assert application.leftovers() == before
    until(qt_application, lambda: _jobs() == [] and not any((tmp_path / "home" / "runs").iterdir()), 60)


def test_without_consent_nothing_leaves(panel, agree):
    agree(False)
    panel.ui.segmentButton.click()
    assert not panel._volumePage.isBusy and panel.logic.jobs == [] and _jobs() == []
    assert panel.ui.segmentButton.text == "Segment" and panel.ui.statusLabel.text == ""


@pytest.mark.alone
def test_pressing_cancel_ends_it_there(panel, qt_application, agree, application, tmp_path):
    before = application.leftovers()
    agree(True)
    panel.ui.segmentButton.click()
    until(qt_application, lambda: panel.ui.statusLabel.text == "Sending to ward-7")
    begun = time.monotonic()
    panel.ui.segmentButton.click()
    assert time.monotonic() - begun < 0.1 and panel.ui.statusLabel.text == "Cancelled."
    until(qt_application, lambda: not any((tmp_path / "home" / "runs").iterdir()), 60)
    until(qt_application, lambda: application.leftovers() == before)
    assert slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None


def test_a_computer_that_cannot_be_reached_is_told_in_plain_words(panel, qt_application, agree, application):
    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target

    add_target(Target("ward-7", kind="ssh", host="nowhere.invalid"), replace=True)
    before = application.leftovers()
    agree(True)
    panel.ui.segmentButton.click()
    _followed(panel, qt_application)
    assert panel.ui.statusLabel.text in panel.shownError and "nowhere.invalid" in panel.ui.statusLabel.text
    assert "medmae job" not in panel.shownError, "there is no job for anybody to go on with"
    until(qt_application, lambda: _jobs() == [], 60)
    assert application.leftovers() == before and panel.ui.segmentButton.text == "Segment"


def test_a_job_that_fails_there_says_why_and_stays_with_its_log(
        panel, qt_application, agree, application, scripting_models, tmp_path):
    before, models = application.leftovers(), tmp_path / "home" / "models"
    models.unlink()
    shutil.copytree(scripting_models, models)
    (models / "abdomen" / "weights.safetensors").write_bytes(b"damaged")
    agree(True)
    panel.ui.segmentButton.click()
    _followed(panel, qt_application)
    assert "damaged" in panel.shownError and "medmae job" not in panel.shownError
    assert application.leftovers() == before
    (job,) = _jobs()
    assert (job.mirror / "log.txt").is_file()
