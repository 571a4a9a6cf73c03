"""Three annotated volumes become a model that segments a fourth, by what a person does in the panels alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import slicer
from drive_fixtures import COLORS, COMPUTER, PARTS
from train_fixtures import choose

from medmae.models import load_info, resolve_model

ROWS = [["Annotated", "Training"], ["Annotated", "Training"], ["Annotated", "Validation"]]


def _check(segmentation, volume, labels, score):
    """The segments have the names and colours of the project, the voxels of the volume, and at least this score."""
    content = segmentation.GetSegmentation()
    segments = [content.GetNthSegment(index) for index in range(content.GetNumberOfSegments())]
    assert [segment.GetName() for segment in segments] == list(PARTS)
    np.testing.assert_allclose([segment.GetColor() for segment in segments], COLORS, atol=0.003)
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert segmentation.GetNodeReference(role) is volume
    drawn = [slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, content.GetNthSegmentID(index), volume) > 0
             for index in range(len(PARTS))]
    dice = [2 * (array & (labels == value)).sum() / (array.sum() + (labels == value).sum())
            for value, array in enumerate(drawn, 1)]
    assert np.mean(dice) > score, "it was trained for moments only, but not for nothing"


def _checkPlots(name):
    """The curves of a run are in the scene."""
    (chart,) = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    assert chart.GetTitle() == name
    series = slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")
    assert len(series) > 1 and all(each.GetTableNode().GetNumberOfRows() for each in series)


def test_here(user, volumes):
    user.createProject("Hippocampi")
    assert [row[1:3] for row in user.addScene()] == ROWS
    user.openTrainPage()
    user.edit(Steps=30)
    entry = user.start("three hippocampi")
    assert entry.status.state in ("queued", "running") and entry.target == ""
    seen, ui = user.watch(), user.train.runsPage.ui
    assert "running" in seen.states and len(seen.pictures) > 1, "they come while it trains"
    _checkPlots("three hippocampi")
    assert "for validation" in ui.runCasesLabel.text
    assert ui.runCasesTable.item(0, 0).text().endswith("DOE^JANE 2")
    _check(user.segmentWith(volumes.nodes[3]), volumes.nodes[3], volumes.labels[3], 0.2)
    assert user.said == [] and {"torch", "monai"} & set(sys.modules) == user.heavy


@pytest.mark.remote
def test_with_another_computer(user, volumes, sshd, monkeypatch):
    user.createProject("Hippocampi")
    user.addScene()
    user.openTrainPage()
    user.addComputer(monkeypatch, sshd.there)
    user.edit(Steps=20)
    user.said.answer = False
    user.train.trainPage.ui.trainStartButton.click()
    assert "3 images and 3 segmentations" in user.said[-1] and COMPUTER in user.said[-1]
    assert user.train.logic.runs() == [] and not (sshd.there / "data").exists(), "nobody has agreed"
    user.said.answer = True
    assert user.start("three hippocampi").target == COMPUTER
    seen, ui = user.watch(), user.train.runsPage.ui
    assert "running" in seen.states and seen.pictures
    _checkPlots("three hippocampi")
    assert ui.runCasesTable.item(0, 0).text().endswith("DOE^JANE 2"), "its own name"
    _check(user.segmentWith(volumes.nodes[3]), volumes.nodes[3], volumes.labels[3], 0)
    assert len(user.said) == 2, user.said
    told = b"".join(file.read_bytes() for file in sshd.there.rglob("*.json*"))
    assert b"anterior" in told and b"JANE" not in told and b"Hippocampi" not in told


@pytest.mark.slow
@pytest.mark.remote
def test_from_an_encoder_that_another_computer_has_trained(user, volumes, sshd, tmp_path, monkeypatch):
    import qt

    folder = tmp_path / "unlabelled"
    folder.mkdir()
    for number in (2, 3):
        storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
        storage.SetFileName(str(folder / f"{number}.nrrd"))
        assert storage.WriteData(volumes.nodes[number])
        slicer.mrmlScene.RemoveNode(volumes.nodes[number])
    user.createProject("Hippocampi")
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_arguments: str(folder))
    choose(user.train.casesPage.adding.menu, "A folder of images...")
    ui = user.openTrainPage()
    user.pick(ui.trainTaskSelector, "Pretrain")
    user.addComputer(monkeypatch, sshd.there)
    user.edit(Steps=2, Batch=1)
    user.start("an encoder")
    assert "2 images" in user.said[-1]
    assert user.watch().pictures and load_info(resolve_model("an encoder")).task == "encoder"
    user.train.ui.pages.setCurrentIndex(0)
    user.addScene()
    user.openTrainPage()
    user.pick(ui.trainTaskSelector, "Segment")
    user.pick(ui.trainComputeSelector, "Auto")
    assert ui.trainStartSelector.currentText == "an encoder", "what is there is proposed"
    user.edit(Steps=2)
    user.start("from it")
    user.watch()
    assert load_info(resolve_model("from it")).training["encoder"] == "an encoder"
