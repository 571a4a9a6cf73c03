"""The parts of the panel of MedMAE Train one by one, answers to their dialogs, and pictures of both."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

A, B, C = np.s_[1:3, 2:5, 1:4], np.s_[3:5, 4:7, 5:9], np.s_[0:1, 0:1, 0:1]
WIDTHS = (420, 380)


@pytest.fixture
def user_settings(qt_application, tmp_path, monkeypatch):
    """The user's settings of Slicer in a file of this test; no main window."""
    import qt
    import slicer

    settings, file = qt.QSettings, str(tmp_path / "settings.ini")
    monkeypatch.setattr(qt, "QSettings", lambda: settings(file, settings.IniFormat))
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    return lambda: settings(file, settings.IniFormat)


@pytest.fixture
def said(qt_application, monkeypatch):
    """What was told and asked in message boxes; `said.answer` is what the user says to questions."""
    import slicer

    class Said(list):
        answer = True

    said = Said()
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    monkeypatch.setattr(slicer.util, "infoDisplay", lambda text, **_: said.append(text))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_: said.append(text) or said.answer)
    return said


@pytest.fixture
def answers(qt_application, monkeypatch):
    """What the user does in the dialogs to come: functions of the dialog that return whether it is accepted."""
    from MedMAETrainLib.Panel.Form import FormDialog

    waiting = []

    def show(dialog):
        assert waiting, f"nobody expected {dialog.dialog.windowTitle}"
        dialog.dialog.show()
        qt_application.application.processEvents()
        isAccepted = waiting.pop(0)(dialog)
        if "MEDMAE_PICTURES" in os.environ:
            qt_application.application.processEvents()
            name = dialog.dialog.windowTitle.lower().replace(" ", "-")
            dialog.dialog.grab().save(str(Path(os.environ["MEDMAE_PICTURES"]) / f"dialog-{name}.png"))
        dialog.dialog.hide()
        dialog.dialog.deleteLater()
        return isAccepted

    monkeypatch.setattr(FormDialog, "show", show)
    yield waiting
    assert not waiting, "a dialog did not come"


@pytest.fixture
def train_logic(qt_application):
    """The computation of the module."""
    from MedMAETrainLib.TrainLogic import TrainLogic

    logic = TrainLogic()
    yield logic
    logic.closeProjects()


@pytest.fixture
def chooser(qt_application, train_logic, user_settings, scene, panel_parent):
    """The part on the project alone; `section.changes` counts how often it tells that something has changed."""
    from MedMAETrainLib.Panel.ProjectSection import ProjectSection

    section = ProjectSection(panel_parent, train_logic)
    section.changes = 0

    def count():
        section.changes += 1

    section.changed.connect(count)
    section.parent = panel_parent
    yield section
    section.cleanup()


@pytest.fixture
def livers(train_logic, tmp_path):
    """A project that is open."""
    return train_logic.createProject(tmp_path / "project", "Livers")


@pytest.fixture
def cases(qt_application, train_logic, livers, user_settings, said, scene, panel_parent, monkeypatch):
    """The page of the cases alone; `page.current[0]` is the project that it shows, `page.module` the one chosen."""
    import slicer
    from MedMAETrainLib.Panel.CasesPage import CasesPage

    qt_application.completeSlicerApp()
    current = [livers]
    page = CasesPage(panel_parent, train_logic, lambda: current[0])
    page.current, page.parent, page.module = current, panel_parent, []
    monkeypatch.setattr(slicer.util, "selectModule", page.module.append)
    livers.changed.connect(page.update)
    panel_parent.show()
    qt_application.application.processEvents()
    yield page
    page.cleanup()


@pytest.fixture
def panel_parent(qt_application):
    """A widget as wide as Slicer's panel."""
    import qt

    qt_application.completeSlicerApp()
    parent = qt.QWidget()
    parent.setLayout(qt.QVBoxLayout())
    parent.resize(WIDTHS[0], 560)
    yield parent
    parent.close()
    parent.deleteLater()
    qt_application.processDeletions()


@pytest.fixture
def picture(qt_application):
    """Save what a part looks like at both widths in the folder that MEDMAE_PICTURES names."""
    def save(part, name, height=560):
        for width in WIDTHS if "MEDMAE_PICTURES" in os.environ else ():
            qt_application.show(part, width, height)
            qt_application.screenshot(part, Path(os.environ["MEDMAE_PICTURES"]) / f"{name}-{width}.png")

    return save


@pytest.fixture
def add_case(livers, make_volume, make_segmentation):
    """Add a new volume with these boxes to the project."""
    def add(boxes, name="CT of somebody", **choices):
        volume = make_volume((6 + len(livers.cases), 8, 10), name=name)
        return livers.addCase(volume, make_segmentation(volume, boxes) if boxes else None, **choices)

    return add


def rows(page):
    """The texts of the table: what is in view, a row a case."""
    tree = page.ui.casesTree
    items = [tree.topLevelItem(row) for row in range(tree.topLevelItemCount)]
    return [[item.text(column) for column in range(5)] for item in items]


def choose(menu, *path):
    """Choose an action of a menu by its texts."""
    menu.aboutToShow.emit()
    for text in path:
        found = [action for action in menu.actions() if action.text == text]
        assert found, f"no {text} in {[action.text for action in menu.actions()]}"
        if found[0].menu() is not None:
            menu = found[0].menu()
        else:
            assert found[0].enabled, f"{text} is off"
            found[0].trigger()
