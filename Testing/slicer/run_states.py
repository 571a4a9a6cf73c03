"""Brings the pages Runs and Next case into each of their states, with real runs, and takes pictures of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from panel_states import shrink
from train_states import ENCODER, NEXT, PRETRAINING, RUNS, TrainStates

FINETUNE, PRETRAIN = 0, 2  # the tasks
FIRST = {"Batch": 2, "Steps": 60}
STEPS = {"Batch": 2, "Steps": 120}
MODEL, SCRATCH = "Synthetic abdomen", "two cases from scratch"


class RunStates:
    """Pictures of what is trained, and of what comes next; `train` has the panel open, with its project."""

    def __init__(self, train: TrainStates) -> None:
        self._train, self._panel = train, train._panel
        self._project = self._panel.project()
        self._first: Any = None  # the first model

    def pretraining(self) -> None:
        """A run under way, with another one that waits for it."""
        job = self._train.start(ENCODER, PRETRAIN, PRETRAINING)
        few = [case.id for case in self._project.cases if case.isAnnotated and case.role == "training"][2:]
        self._project.setRole(few, "test")
        second = self._first = self._train.start(SCRATCH, FINETUNE, FIRST, startFrom="Nothing", queue=True)
        self._project.setRole(few, "training")
        self._show(second)
        self._train._picture("waiting")
        self._show(job)
        self._half(job, PRETRAINING)
        self._train._settle(2)
        self._train._picture("running")
        job.wait()

    def finetuning(self, whole: Path) -> None:
        """A run that is done, one that fails, and what comes of both; `whole` is the picture for the README."""
        first = self._first
        first.wait()
        job = self._train.start(MODEL, FINETUNE, STEPS, startFrom=ENCODER)
        logic, tooMuch = self._panel.logic, {"learning_rate": 1e30}
        lost = logic.finetune(self._project, ENCODER, "learns too fast", steps=10, settings=tooMuch, queue=True)
        self._show(job)
        self._half(job, STEPS)
        self._train._settle(2)
        self._train._picture("finetuning")
        self._train._picture("finetuning", whole)
        job.wait()
        self._train._until(lambda: self._panel.logic.job(lost.id) is None)
        for one, state in ((lost, "failed"), (job, "done")):
            self._show(one)
            self._train._settle(2)
            self._train._picture(state)
        self._log(job)
        self._charts(first, job)

    def next(self, truth: Path) -> None:
        """The order of the cases, one that was corrected, and nothing left; in `truth` are the right labels."""
        page, logic, project = self._panel.nextPage, self._panel.logic, self._project
        self._train._page(NEXT)
        page.ui.nextButton.click()
        self._train._until(lambda: not page.isBusy)
        self._train._until(lambda: not page.curve.isReading)
        self._train._picture("next-advice")
        page.ui.nextChartButton.click()
        draw(page.curve._chart, self._train._file("next-chart"))
        page.ui.nextCurveCollapsibleButton.collapsed = True
        self._train._settle()
        self._train._picture("next-ranked")
        page.ui.nextOpenButton.click()
        self._panel.enter()  # back from the Segment Editor
        self._train._settle()
        self._correct(page._open, truth)
        page.ui.nextCorrectedButton.click()
        self._train._settle()
        self._train._picture("next-corrected")
        project.setRole([case.id for case in project.cases if not case.isAnnotated], "test")
        self._train._settle()
        page.ui.nextStatusLabel.visible = False
        self._train._picture("next-nothing-left")
        assert logic.nextCase(project) is None

    def _correct(self, opened: Any, truth: Path) -> None:
        """Draw in the Segment Editor what is there to see."""
        import slicer
        from screenshot_data import maskOf

        number = int("".join(filter(str.isdigit, opened.case.source.name.partition(".")[0])))
        segmentation = opened.segmentationNode.GetSegmentation()
        for index in range(segmentation.GetNumberOfSegments()):
            mask = maskOf(truth.parent, number - 1, segmentation.GetNthSegment(index).GetName())
            slicer.util.updateSegmentBinaryLabelmapFromArray(
                mask, opened.segmentationNode, segmentation.GetNthSegmentID(index), opened.volumeNode)

    def _show(self, job: Any) -> None:
        self._train._page(RUNS)
        self._panel.runsPage.show(job)
        self._train._settle()

    def _half(self, job: Any, values: dict[str, int]) -> None:
        """Wait until half of a run is done."""
        def isHalf() -> bool:
            status = job.status
            return status.isFinal or (status.stage in (None, "train") and (status.step or 0) >= values["Steps"] // 2)

        self._train._until(isHalf)

    def _log(self, job: Any) -> None:
        from MedMAETrainLib.Panel.RunLog import RunLog

        log = RunLog(MODEL, lambda: self._panel.logic.logText(job.id))
        log.show()
        self._train._pictureOf(log.dialog, "log")
        log.onClose()

    def _charts(self, first: Any, job: Any) -> None:
        """Two runs beside each other, and the curves of one."""
        page = self._panel.runsPage
        page.ui.runCurvesButton.click()
        self._train._settle(2)
        draw(page.curves.chart, self._train._file("chart"))
        table = page.ui.runsTable
        for row, entry in enumerate(page.table.entries):
            if entry.id == first.id:
                for column in range(table.columnCount):
                    table.item(row, column).setSelected(True)
        self._train._settle()
        page.ui.runCompareButton.click()
        self._train._pictureOf(page.comparison.dialog, "compare")
        page.comparison.onClose()
        page.table.select(job.id)


def draw(chart: Any, file: Path) -> None:
    """Draw a chart as the plot view of Slicer does, which is made of the same parts of VTK."""
    import vtk

    view = vtk.vtkContextView()
    window = view.GetRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(4)
    window.SetSize(840, 460)
    plots = vtk.vtkChartXY()
    plots.SetShowLegend(True)
    plots.SetTitle(chart.node.GetTitle())
    plots.GetAxis(1).SetTitle(chart.node.GetXAxisTitle())
    plots.GetAxis(0).SetTitle(chart.node.GetYAxisTitle())
    view.GetScene().AddItem(plots)
    for series in chart.seriesNodes:
        plot = vtk.vtkPlotLine()
        plot.SetInputData(series.GetTableNode().GetTable(), series.GetXColumnName(), series.GetYColumnName())
        plot.SetLabel(series.GetName())
        plot.SetColorF(*series.GetColor())
        plot.SetWidth(series.GetLineWidth())
        plot.GetPen().SetOpacityF(series.GetOpacity())
        isMarked = series.GetMarkerStyle() != series.MarkerStyleNone
        plot.SetMarkerStyle(vtk.vtkPlotPoints.CIRCLE if isMarked else vtk.vtkPlotPoints.NONE)
        plot.SetMarkerSize(series.GetMarkerSize())
        plots.AddPlot(plot)
    window.Render()
    image = vtk.vtkWindowToImageFilter()
    image.SetInput(window)
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(file))
    writer.SetInputConnection(image.GetOutputPort())
    writer.Write()
    shrink(file)
