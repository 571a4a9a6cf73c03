"""The tab "Batch" alone, with stand-ins for the worker and the engine, and what its table shows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import slicer
from panel_fixtures import until

ENGINE = [sys.executable, str(Path(__file__).with_name("fake_batch_engine.py"))]
COLUMNS = ("name", "state", "time")


@pytest.fixture(name="logic")
def logic_fixture(qt_application, a_known_model, fake_worker):
    qt_application.completeSlicerApp()
    import MedMAESegment

    logic = MedMAESegment.MedMAESegmentLogic()
    logic.worker, logic.engineCommand = fake_worker, ENGINE
    yield logic
    logic.cancel()


@pytest.fixture(name="page")
def page_fixture(qt_application, logic, monkeypatch, scene):
    """The page alone, with what was said in dialogs in `told`."""
    import qt
    from MedMAESegmentLib.Panel.BatchPage import BatchPage
    from MedMAESegmentLib.Panel.Choices import Choices

    from medmae.models import load_info, resolve_model

    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: told.append(text))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_: not told.append(text))
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    parent = qt.QWidget()
    parent.setLayout(qt.QVBoxLayout())
    chosen = [Choices("model", load_info(resolve_model("model")))]
    page = BatchPage(parent, logic, lambda: chosen[-1])
    page.chosen, page.parent, page.told = chosen, parent, told
    parent.resize(420, 560)
    parent.show()
    page.update()
    yield page
    page.cleanup()
    parent.close()
    parent.deleteLater()
    qt_application.processDeletions()


@pytest.fixture(name="picture")
def picture_fixture(qt_application, page):
    """Save what the page looks like in the folder that MEDMAE_PICTURES names."""
    def save(name):
        if "MEDMAE_PICTURES" in os.environ:
            qt_application.application.processEvents()
            qt_application.screenshot(page, Path(os.environ["MEDMAE_PICTURES"]) / f"{name}.png")

    return save


@pytest.fixture(name="run")
def run_fixture(page, qt_application):
    """Press the button and wait for the end."""
    def press():
        page.ui.batchButton.click()
        until(qt_application, lambda: not page.isBusy)

    return press


@pytest.fixture(name="plan")
def plan_fixture(tmp_path, monkeypatch):
    """Set what the stand-in for the engine does with a folder."""
    def write(*actions):
        (tmp_path / "plan").write_text("\n".join(actions))
        monkeypatch.setenv("FAKE_ENGINE", str(tmp_path / "plan"))

    return write


@pytest.fixture(name="folder")
def folder_fixture(tmp_path, make_volume):
    """A folder with three images, none of which is in the scene."""
    from MedMAESegmentLib.VolumeExport import writeVolume

    volume = make_volume()
    (tmp_path / "images" / "more").mkdir(parents=True)
    for name in ("a.nrrd", "b.nrrd", "more/c.nrrd"):
        writeVolume(volume, tmp_path / "images" / name)
    slicer.mrmlScene.RemoveNode(volume)
    return tmp_path / "images"


@pytest.fixture(name="choose")
def choose_fixture(page, qt_application):
    """Choose a folder, and wait until its images are listed."""
    def choose(folder, output=None):
        page.ui.batchFolderButton.click()
        for edit, path in ((page.ui.batchFolderEdit, folder), (page.ui.batchOutputEdit, output)):
            edit.text = str(path or "")
            edit.editingFinished.emit()
        until(qt_application, lambda: page._lister is None)

    return choose


def table(page, column="state"):
    """The texts of a column; of the states, "state" is the first word and "details" the rest."""
    widget, index = page.ui.batchTable, COLUMNS.index("state" if column == "details" else column)
    texts = [widget.item(row, index).text() for row in range(widget.rowCount)]
    if column in ("state", "details"):
        return [text.partition(": ")[2 if column == "details" else 0] for text in texts]
    return texts


def toolTip(page, row):
    """What the tool tip of a row shows."""
    import qt

    document = qt.QTextDocument()
    document.setHtml(page.ui.batchTable.item(row, 2).toolTip())
    return document.toPlainText()


def check(page, row, isOn):
    import qt

    page.ui.batchTable.item(row, 0).setCheckState(qt.Qt.Checked if isOn else qt.Qt.Unchecked)


def settle(page, qt_application):
    """Wait until the page has looked at the scene again."""
    until(qt_application, lambda: not page._updateTimer.isActive())
