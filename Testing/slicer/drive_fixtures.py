"""Somebody who works with both panels and the mouse alone: from annotated volumes to a model, the engine being real."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import chain
import numpy as np
import pytest
from panel_fixtures import until
from train_fixtures import choose, rows

sys.path.append(str(Path(__file__).resolve().parents[1] / "remote"))
HIPPOCAMPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "hippocampus_mr"
CASES = ("001", "019", "049", "023")  # of four people
PARTS = ("anterior", "posterior")
COLORS = ((0.9, 0.5, 0.2), (0.2, 0.5, 0.9))
COMPUTER = "gpu-box"
CASES_PAGE, TRAIN_PAGE, RUNS_PAGE = range(3)
PATIENCE = 300  # seconds: the machine may be busy


@pytest.fixture
def volumes(scene):
    """Four volumes in the scene, the first three annotated: real hippocampi where there are any, else made ones.

    `volumes.nodes` and `volumes.labels`, also those of the fourth, which nobody is shown.
    """
    found = SimpleNamespace(nodes=[], labels=[])
    for number, case in enumerate(CASES):
        node, labels = _hippocampus(case) if HIPPOCAMPUS.is_dir() else _made(number)
        node.SetName(f"DOE^JANE {number}")
        found.nodes.append(node)
        found.labels.append(labels)
        if number < 3:
            _annotate(node, labels)
    return found


def _hippocampus(case):
    import slicer

    node = chain.loadVolume(str(HIPPOCAMPUS / "images" / f"hippocampus_{case}.nii.gz"))
    drawn = chain.loadVolume(str(HIPPOCAMPUS / "labels" / f"hippocampus_{case}.nii.gz"))
    labels = slicer.util.arrayFromVolume(drawn)
    slicer.mrmlScene.RemoveNode(drawn)
    return node, labels


def _made(number):
    import slicer

    array = np.random.default_rng(number).normal(300, 40, (36, 46 + number, 34)).astype(np.int16)
    labels = np.zeros(array.shape, np.uint8)
    labels[10:26, 24:38, 10:24], labels[10:26, 10:24, 10:24] = 1, 2
    return slicer.util.addVolumeFromArray(array + 200 * labels), labels


def _annotate(volume, labels):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for value, (name, color) in enumerate(zip(PARTS, COLORS, strict=True), 1):
        segment = node.GetSegmentation().AddEmptySegment("", name, color)
        slicer.util.updateSegmentBinaryLabelmapFromArray((labels == value).astype(np.uint8), node, segment, volume)


@pytest.fixture
def sshd(tmp_path, monkeypatch):
    """A real server on loopback; everything that is sent there is in `sshd.there`."""
    from ssh_server import SshServer, find_sshd

    program = find_sshd()
    if program is None:
        pytest.skip("needs sshd; on Debian and Ubuntu: make system, as root")
    (tmp_path / "sshd").mkdir()
    server = SshServer(tmp_path / "sshd", program)
    server.there = tmp_path / "there"
    server.start()
    monkeypatch.setenv("MEDMAE_SSH_CONFIG", str(server.config))
    yield server
    server.stop()


@pytest.fixture
def user(qt_application, open_panel, user_settings, answers, said, tmp_path, monkeypatch):
    """Both panels, and what somebody does in them."""
    import slicer
    from MedMAESegmentLib.WorkerSession import WorkerSession

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    segment = open_panel("MedMAESegment")
    segment.logic.worker = WorkerSession()
    segment.exit()
    user = User(qt_application, open_panel("MedMAETrain"), segment, answers, said, tmp_path)
    user.open = lambda: open_panel("MedMAETrain")
    monkeypatch.setattr(slicer.util, "getModuleLogic", lambda name: segment.logic, raising=False)
    monkeypatch.setattr(slicer.util, "selectModule", user.selectModule)
    yield user
    for job in list(user.train.logic.jobs):
        job.cancel()
    user.until(lambda: not user.train.logic.jobs)
    segment.logic.worker.close()


class User:
    """Does what a person does, and waits as one does: the application lives on."""

    def __init__(self, qt_application, train, segment, answers, said, folder):
        self.train, self.segment, self.said = train, segment, said
        self._application, self._answers, self._folder = qt_application, answers, folder
        self.heavy = {"torch", "monai"} & set(sys.modules)

    def until(self, condition):
        """Wait until something is so."""
        until(self._application, condition, PATIENCE)

    def selectModule(self, name):
        """What Slicer does when another module is chosen."""
        entered, left = (self.segment, self.train) if name == "MedMAESegment" else (self.train, self.segment)
        left.parent.hide()
        left.parent.isEntered = False
        left.exit()
        entered.parent.isEntered = True
        entered.enter()
        self._application.show(entered)

    def createProject(self, name):
        """New project, with all annotated volumes of the scene."""
        def fill(dialog):
            dialog.nameEdit.setText(name)
            dialog.placeEdit.setText(str(self._folder / "projects"))
            return True

        self._answers.append(fill)
        self.train.projectSection.ui.projectNewButton.click()

    def addScene(self):
        """Add the annotated volumes of the scene; the last of them is for validation."""
        page = self.train.casesPage
        choose(page.adding.menu, "All annotated volumes of the scene")
        tree = page.ui.casesTree
        tree.clearSelection()
        tree.topLevelItem(tree.topLevelItemCount - 1).setSelected(True)
        choose(page.menu.menu, "Used for", "Validation")
        return rows(page)

    def pick(self, selector, text):
        """Choose the entry of a combo box that begins with a text."""
        texts = [selector.itemText(index) for index in range(selector.count)]
        assert any(entry.startswith(text) for entry in texts), texts
        selector.setCurrentIndex(next(index for index, entry in enumerate(texts) if entry.startswith(text)))

    def edit(self, **settings):
        """Change settings of the run in their table, by their names."""
        table = self.train.trainPage.ui.trainSettingsTable
        for name, value in settings.items():
            row = next(row for row in range(table.rowCount) if table.item(row, 0).text() == name)
            table.item(row, 1).setText(str(value))

    def openTrainPage(self):
        """Go to the tab Train, and wait until it knows the images."""
        self.train.ui.pages.setCurrentIndex(TRAIN_PAGE)
        page = self.train.trainPage
        self.until(lambda: page.facts.isComplete and not page.facts._asking)
        return page.ui

    def addComputer(self, monkeypatch, there):
        """Add the server to the computers, with its check, and choose it."""
        from MedMAETrainLib.Panel.TargetForm import TargetForm
        from MedMAETrainLib.Panel.TargetsDialog import TargetsDialog
        from ssh_server import HOST

        def ask(form):
            form.dialog.show()
            for key, text in {"name": COMPUTER, "host": HOST, "folder": str(there), "python": sys.executable}.items():
                form.fields[key].text = text
            form.fields["gpus"].setValue(0)
            form.fields["environment"].setCurrentIndex(1)
            form.okButton.click()
            form.dialog.deleteLater()
            return bool(form.dialog.result())

        def show(dialog):
            dialog.dialog.show()
            dialog.addButton.click()
            self.until(lambda: not dialog.check.isBusy)
            assert dialog.check.isReady, dialog.check.text.toPlainText()
            dialog.closeButton.click()
            dialog.dialog.deleteLater()

        monkeypatch.setattr(TargetForm, "ask", ask)
        monkeypatch.setattr(TargetsDialog, "show", show)
        ui = self.train.trainPage.ui
        ui.trainComputersButton.click()
        self.pick(ui.trainComputeSelector, COMPUTER)

    def start(self, name):
        """Press the button that starts the run; gives the run's line in the table of runs."""
        ui = self.train.trainPage.ui
        ui.trainNameEdit.setText(name)
        assert ui.trainStartButton.enabled, ui.trainProblemLabel.text
        ui.trainStartButton.click()
        assert self.train.ui.pages.currentIndex == RUNS_PAGE, self.said
        self.until(lambda: self.train.runsPage.table.selection)
        return self.run

    @property
    def run(self):
        """The run that is selected in the tab Runs."""
        (entry,) = self.train.runsPage.table.selection
        return entry

    def watch(self):
        """Draw the curves and look at the run until it has ended; what was seen meanwhile."""
        page = self.train.runsPage
        page.ui.runCurvesButton.click()
        seen = SimpleNamespace(states=[], pictures=set())

        def isOver():
            if self.run.status.state not in seen.states[-1:]:
                seen.states.append(self.run.status.state)
            if page.ui.runPictureLabel.isVisible() and not page.ui.runPictureLabel.pixmap.isNull():
                seen.pictures.add(page.ui.runPictureStepLabel.text)
            return self.run.status.isFinal

        self.until(isOver)
        self.until(lambda: not page.curves.read(self.run) and page.ui.runStatusLabel.text)
        assert self.run.status.state == "done", (self.run.status, page._logic.logText(self.run.id))
        return seen

    def segmentWith(self, volume):
        """Use the model of the selected run for a volume, in the other panel; gives the segmentation."""
        self.train.runsPage.ui.runUseButton.click()
        ui, page = self.segment.ui, self.segment._volumePage
        ui.inputVolumeSelector.setCurrentNode(volume)
        assert ui.segmentButton.enabled, ui.warningsLabel.text
        ui.segmentButton.click()
        self.until(lambda: not page.isBusy)
        assert ui.statusLabel.text.startswith("Done in"), (ui.statusLabel.text, self.said)
        return self.segment._parameterNode.segmentation

    def restart(self):
        """Open the panel anew, as the next Slicer does."""
        self.train.parent.hide()
        self.train = self.open()

    def addVolume(self, volume):
        """Add a volume of the scene."""
        def fill(dialog):
            dialog.volumeSelector.setCurrentNode(volume)
            return True

        self._answers.append(fill)
        choose(self.train.casesPage.adding.menu, "A volume of the scene...")

    def openProject(self, folder, monkeypatch):
        """Open a project by its folder."""
        import qt

        monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_arguments: str(folder))
        choose(self.train.projectSection.recentMenu, "Choose a folder...")
        assert self.train.project() is not None, self.train.projectSection.problem
