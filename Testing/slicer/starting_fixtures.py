"""The page "Train" over a project of small volumes, in a widget of the panel's width; the logic is the real one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from panel_fixtures import FAKE_ENGINE, until

WIDTH = 420
PARAMETERS = {"task": "segmentation", "startFrom": "", "method": "", "preset": "", "modelName": "", "computeOn": "auto",
              "settings": ""}


@pytest.fixture
def small_project(tmp_path, make_volume, make_segmentation):
    """Two annotated CT volumes for training, one for validation, and one without segmentation."""
    from MedMAETrainLib.Project import Project

    project = Project.create(tmp_path / "project", "Livers")
    for slices, role in enumerate(("training", "training", "validation", "unlabelled"), 32):
        project.addCase(*_case(make_volume, make_segmentation, slices, role), role=role)
    yield project
    project.close()


def _case(make_volume, make_segmentation, slices, role):
    volume = make_volume((slices, 40, 40), affine=np.diag([0.9, 0.9, 1.2, 1.0]), name=f"somebody, {role}")
    volume.SetAttribute("DICOM.Modality", "CT")
    box = np.s_[8:20, 10:24, 10:24]
    return (volume,) if role == "unlabelled" else (volume, make_segmentation(volume, {"liver": box}))


@pytest.fixture
def starting_logic():
    from MedMAETrainLib.TrainLogic import TrainLogic

    logic = TrainLogic()
    logic.engineCommand = FAKE_ENGINE
    yield logic
    for job in list(logic.jobs):
        job.cancel()
    logic.closeProjects()


@pytest.fixture
def train_page(qt_application, starting_logic, small_project, monkeypatch):
    """The page, when the images have been looked at. `page.says` are the texts of messages and questions."""
    import qt
    import slicer
    from MedMAETrainLib.Panel.TrainPage import TrainPage

    qt_application.completeSlicerApp()
    parent = qt.QWidget()
    parent.setLayout(qt.QVBoxLayout())
    says = []
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    for name, answer in (("errorDisplay", None), ("infoDisplay", None), ("confirmOkCancelDisplay", True)):
        monkeypatch.setattr(slicer.util, name, _said(says, answer))
    opened = [small_project]
    page = TrainPage(parent, starting_logic, lambda: opened[0])
    page.parent, page.says, page.opened, page.jobs = parent, says, opened, []
    page.started.connect(page.jobs.append)
    page.node = SimpleNamespace(parameterNode=_Node(), **PARAMETERS)
    page.setParameters(page.node)
    parent.resize(WIDTH, 700)
    parent.show()
    known(page, qt_application)
    yield page
    page.cleanup()
    parent.close()
    parent.deleteLater()
    qt_application.processDeletions()


class _Node:
    """What `slicer.util.NodeModify` asks of a node."""

    def StartModify(self):
        return 0

    def EndModify(self, _wasModifying):
        return 0


def _said(says, answer):
    def say(text, textFormat):
        says.append(text)
        return answer

    return say


def known(page, qt_application):
    """Wait until nothing is looked at in the background any more."""
    page.update()
    until(qt_application, lambda: page.facts.isComplete and not page.facts._asking)


def choose(selector, text):
    """Choose the entry of a combo box that begins with a text."""
    texts = [selector.itemText(index) for index in range(selector.count)]
    selector.setCurrentIndex(next(index for index, entry in enumerate(texts) if entry.startswith(text)))
