"""Brings the pages Cases and Train into each of their states, with a real project, and takes pictures of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from panel_states import PanelStates

CASES, TRAIN, RUNS, NEXT = range(4)  # the pages
PROJECT = "Abdomen CT"
ENCODER = "Synthetic CT encoder"
PRETRAINING = {"Batch": 2, "Steps": 40}


class TrainStates(PanelStates):
    """Pictures of the panel as they are in the documentation."""

    def __init__(self, application: Any, folder: Path) -> None:
        super().__init__(application, folder, "MedMAETrain", "train")

    def withoutProject(self) -> None:
        """Nothing is there, and then an empty project."""
        panel = self._open()
        self._picture("no-project")
        with self._answering(self._inNewProject):
            panel.projectSection.onNew()
        self._picture("empty-project")
        for page, state in ((TRAIN, "nothing-to-start"), (RUNS, "no-runs")):
            self._page(page)
            self._picture(state)

    def cases(self, archive: Path) -> None:
        """The annotated volumes of the scene, whose segments are not all named alike, and the images of a folder."""
        from MedMAESegmentLib.Panel import Dialogs

        panel, page = self._panel, self._panel.casesPage
        self._page(CASES)
        with self._answering(self._inMapping):
            page.adding.onScene()
        chosen, Dialogs.folderToRead = Dialogs.folderToRead, lambda _title: str(archive)
        page.adding.onFolder()
        Dialogs.folderToRead = chosen
        project = panel.project()
        project.setRole([case.id for case in project.cases if case.isAnnotated][-2:], "validation")
        page.list.select([])
        self._until(lambda: not page.list.withoutThumbnail())
        self._settle()
        page.messages.tell("")
        self._picture("cases", more=240)
        self._labels(project)
        self._page(NEXT)
        self._picture("next-no-model")

    def train(self) -> None:
        """What can be trained, how long that takes, and on which computer."""
        page = self._panel.trainPage
        self._page(TRAIN)
        self._until(lambda: page.facts.isComplete)
        self._picture("start")
        page.ui.trainTaskSelector.setCurrentIndex(2)
        self._set(PRETRAINING)
        page.ui.trainMeasureButton.click()
        self._until(lambda: not page.trial.isBusy)
        self._picture("measured")
        self._computers()
        self._consent()

    def start(self, name: str, task: int, values: dict[str, Any], startFrom: str = "", queue: bool = False) -> Any:
        """Start a run from the page; gives its job."""
        page, jobs = self._panel.trainPage, []
        self._page(TRAIN)
        page.ui.trainTaskSelector.setCurrentIndex(task)
        if startFrom:
            selector = page.ui.trainStartSelector
            texts = [selector.itemText(index) for index in range(selector.count)]
            selector.setCurrentIndex(next(index for index, text in enumerate(texts) if startFrom in text))
        self._set(values)
        page.ui.trainNameEdit.setText(name)
        page.started.connect(jobs.append)
        (page.ui.trainQueueButton if queue else page.ui.trainStartButton).click()
        page.started.disconnect(jobs.append)
        return jobs[0]

    def close(self) -> None:
        """Close the module."""
        self._close()

    def _page(self, index: int) -> None:
        self._panel.ui.pages.setCurrentIndex(index)
        self._settle()

    def _set(self, values: dict[str, Any]) -> None:
        """Write values into the table of settings."""
        table = self._panel.trainPage.ui.trainSettingsTable
        for name, value in values.items():
            row = next(row for row in range(table.rowCount) if table.item(row, 0).text() == name)
            table.item(row, 1).setText(str(value))
        self._settle()

    def _labels(self, project: Any) -> None:
        from MedMAETrainLib.Panel.LabelsDialog import LabelsDialog

        labels = LabelsDialog(project)
        self._pictureOf(labels.dialog, "labels")
        labels.dialog.close()

    def _computers(self) -> None:
        """A computer that does not answer, and what to do about it."""
        from MedMAETrainLib.Panel.TargetsDialog import TargetsDialog

        from medmae.jobs.target import Target
        from medmae.jobs.targets import add_target

        add_target(Target("gpu-box", "ssh", host="me@gpu-box.hospital.invalid", folder="~/medmae"))
        computers = TargetsDialog(self._panel.trainPage.facts.forgetComputers)
        computers.onCheck()
        self._until(lambda: not computers.check.isBusy)
        self._pictureOf(computers.dialog, "computers")
        computers.onClose()

    def _consent(self) -> None:
        """What is asked before images leave; the answer is no."""
        import qt
        import slicer

        page = self._panel.trainPage
        page.update()
        page.compute.value = "target:gpu-box"
        self._settle()
        self._picture("elsewhere")

        def ask(text: str, textFormat: Any) -> bool:
            box = qt.QMessageBox()
            box.setIcon(qt.QMessageBox.Question)
            box.setTextFormat(textFormat)
            box.setText(text)
            box.setStandardButtons(qt.QMessageBox.Ok | qt.QMessageBox.Cancel)
            self._pictureOf(box, "consent")
            box.close()
            return False

        answering, slicer.util.confirmOkCancelDisplay = slicer.util.confirmOkCancelDisplay, ask
        page.ui.trainStartButton.click()
        slicer.util.confirmOkCancelDisplay = answering
        page.compute.value = "auto"

    @contextmanager
    def _answering(self, answer: Callable[[Any], bool]) -> Any:
        """Let a dialog be answered by a function that gets it."""
        from MedMAETrainLib.Panel.Form import FormDialog

        show = FormDialog.show
        FormDialog.show = lambda dialog: answer(dialog)  # a method of the dialog, whatever `answer` is
        try:
            yield
        finally:
            FormDialog.show = show

    @staticmethod
    def _inNewProject(dialog: Any) -> bool:
        dialog.nameEdit.setText(PROJECT)
        return True

    def _inMapping(self, dialog: Any) -> bool:
        self._pictureOf(dialog.dialog, "mapping")
        dialog.dialog.close()
        return True
