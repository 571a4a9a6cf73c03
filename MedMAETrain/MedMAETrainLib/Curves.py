"""Charts in Slicer's plot views: nodes that are made once, updated in place, and made again when they are gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer
import vtk
from MedMAESegmentLib.NodeReference import NodeReference
from MedMAESegmentLib.Translation import tr as _
from numpy.typing import NDArray
from vtk.util.numpy_support import numpy_to_vtk

from MedMAETrainLib.RunHistory import LOSS, RATE, SCORES, RunHistory

Color = tuple[float, float, float]
COLORS: tuple[Color, ...] = ((0.12, 0.44, 0.70), (0.84, 0.37, 0.05), (0.17, 0.55, 0.25), (0.55, 0.27, 0.62),
                             (0.75, 0.16, 0.20), (0.40, 0.32, 0.25), (0.10, 0.58, 0.62))  # told apart on white
GREY: Color = (0.45, 0.45, 0.45)
MOST_BINS = 750  # of a long curve; each keeps its lowest and its highest value
_SMOOTHED_PARTS = 25  # of a curve, over one of which its values are averaged


@dataclass(frozen=True)
class Line:
    """A curve of a chart.

    name - In the legend.
    values - (N,).
    isPoints - Marks joined by a thin line, for what is measured now and then.
    """

    name: str
    values: NDArray[np.float64]
    color: Color
    isPoints: bool = False
    width: float = 2.0
    opacity: float = 1.0


@dataclass(frozen=True)
class Table:
    """Curves over the same values `x` (N,), which become one table node.

    key - Tells the table apart from the others of its chart.
    """

    key: str
    x: NDArray[np.float64]
    lines: tuple[Line, ...]


@dataclass
class _Nodes:
    table: NodeReference
    series: list[NodeReference] = field(default_factory=list)


class Chart:
    """One chart in the scene. Its nodes are not saved with the scene, and stand in no list but that of the plot view.

    >>> chart = Chart(_("Runs"), xTitle=_("Step"))
    >>> chart.update([Table("training", steps, (Line("loss", losses, COLORS[0]),))])
    >>> chart.show()
    """

    def __init__(self, name: str, xTitle: str, yTitle: str = "") -> None:
        self.title = name
        self.xTitle, self.yTitle = xTitle, yTitle
        self._name = name
        self._chart = NodeReference(None)
        self._tables: dict[str, _Nodes] = {}
        self._listed: list[str] = []  # the IDs of the series that the chart was given

    @property
    def node(self) -> Any:
        """The vtkMRMLPlotChartNode; None: nothing was drawn yet, or the scene was closed."""
        return self._chart.node

    @property
    def seriesNodes(self) -> list[Any]:
        """The vtkMRMLPlotSeriesNodes, in the order of the legend."""
        chart = self.node
        return [] if chart is None else [chart.GetNthPlotSeriesNode(index)
                                         for index in range(chart.GetNumberOfPlotSeriesNodes())]

    def update(self, tables: Sequence[Table]) -> None:
        """Draw these curves and no others."""
        chart = self.node
        if chart is None:
            self._tables, self._listed = {}, []
            chart = self._added("vtkMRMLPlotChartNode", self._name)
            self._chart = NodeReference(chart)
        wasModifying = chart.StartModify()
        for key in [key for key in self._tables if key not in {table.key for table in tables}]:
            _removeNodes(_nodesOf(self._tables.pop(key)))
        for table in tables:
            self._updateTable(table)
        series: list[Any] = [reference.node for table in tables for reference in self._tables[table.key].series]
        wanted = [node.GetID() for node in series]
        if wanted != self._listed:  # otherwise left alone: the user may have switched some off in the plot view
            chart.RemoveAllPlotSeriesNodeIDs()
            for identity in wanted:
                chart.AddAndObservePlotSeriesNodeID(identity)
            self._listed = wanted
        chart.SetTitle(self.title)
        chart.SetXAxisTitle(self.xTitle)
        chart.SetYAxisTitle(self.yTitle)
        chart.Modified()  # the view may stay empty otherwise when the same nodes get other values
        chart.EndModify(wasModifying)

    def show(self) -> None:
        """Bring the chart into the plot view; a layout without one is changed to one that has it."""
        chart = self.node
        plots = getattr(slicer.modules, "plots", None)
        if chart is None:
            return
        if plots is not None:
            plots.logic().ShowChartInLayout(chart)
            return
        logic = slicer.app.applicationLogic()  # without the application there is no layout to change
        logic.GetSelectionNode().SetActivePlotChartID(chart.GetID())
        logic.PropagatePlotChartSelection()

    def remove(self) -> None:
        """Take the nodes out of the scene."""
        nodes = [node for one in self._tables.values() for node in _nodesOf(one)]
        _removeNodes([*nodes, self.node])
        self._tables, self._chart = {}, NodeReference(None)

    def _updateTable(self, table: Table) -> None:
        nodes = self._tables.get(table.key)
        node = nodes.table.node if nodes is not None else None
        if nodes is None or node is None:
            node = self._added("vtkMRMLTableNode", f"{self._name} {table.key}")
            node.SetHideFromEditors(True)
            nodes = self._tables[table.key] = _Nodes(NodeReference(node))
        columns = vtk.vtkTable()
        for name, values in ((self.xTitle, table.x), *((line.name, line.values) for line in table.lines)):
            array = numpy_to_vtk(np.ascontiguousarray(values, np.float64), deep=True)
            array.SetName(name)
            columns.AddColumn(array)
        node.SetAndObserveTable(columns)
        for number, line in enumerate(table.lines):
            self._updateSeries(nodes, node, number, line)
        _removeNodes([reference.node for reference in nodes.series[len(table.lines):]])
        del nodes.series[len(table.lines):]

    def _updateSeries(self, nodes: _Nodes, table: Any, number: int, line: Line) -> None:
        series: Any = nodes.series[number].node if number < len(nodes.series) else None
        if series is None:
            series = self._added("vtkMRMLPlotSeriesNode", line.name)
            nodes.series[number:number + 1] = [NodeReference(series)]
        wasModifying = series.StartModify()
        series.SetName(line.name)
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetPlotType(series.PlotTypeScatter)  # over the x column; "line" would be over the rows
        series.SetXColumnName(self.xTitle)
        series.SetYColumnName(line.name)
        series.SetColor(line.color)
        series.SetOpacity(line.opacity)
        series.SetLineWidth(1.5 if line.isPoints else line.width)
        series.SetMarkerStyle(series.MarkerStyleCircle if line.isPoints else series.MarkerStyleNone)
        series.SetMarkerSize(8)
        series.EndModify(wasModifying)

    def _added(self, className: str, name: str) -> Any:
        node = slicer.mrmlScene.CreateNodeByClass(className)
        node.UnRegister(None)
        node.SetName(name)
        node.SetSaveWithScene(False)
        hidden = slicer.vtkMRMLSubjectHierarchyConstants.GetSubjectHierarchyExcludeFromTreeAttributeName()
        node.SetAttribute(hidden, "1")
        return slicer.mrmlScene.AddNode(node)


def _nodesOf(nodes: _Nodes) -> list[Any]:
    return [*(reference.node for reference in nodes.series), nodes.table.node]


def _removeNodes(nodes: Sequence[Any]) -> None:
    for node in nodes:
        if node is not None:
            slicer.mrmlScene.RemoveNode(node)


def runTables(history: RunHistory) -> list[Table]:
    """The curves of one run: loss, smoothed loss, learning rate, and the score of validations."""
    loss, rate = history.curves[LOSS], history.curves[RATE]
    tables = []
    if len(loss):
        rows = thinned(loss.values)
        lines = [Line(_("loss"), loss.values[rows], COLORS[0], width=1, opacity=0.35),
                 Line(_("loss, smoothed"), smoothed(loss.values)[rows], COLORS[0])]
        if len(rate) == len(loss) and rate.values.max() > 0:
            # Beside losses a rate would be a line at 0: it is drawn relative to its highest, which the legend tells.
            highest = float(rate.values.max())
            name = _("learning rate (1 = {highest})").format(highest=f"{highest:.2g}")
            lines.append(Line(name, rate.values[rows] / highest, GREY, width=1))
        tables.append(Table("training", loss.steps[rows], tuple(lines)))
    if history.score is not None:
        scores = history.curves[history.score]
        name = _("{score} of the validation cases").format(score=SCORES[history.score])
        tables.append(Table("validation", scores.steps, (Line(name, scores.values, COLORS[1], isPoints=True),)))
    return tables


def comparedTables(histories: Mapping[str, RunHistory]) -> list[Table]:
    """The smoothed losses and the scores of several runs, by their names, each run in a colour of its own."""
    tables = []
    for number, (name, history) in enumerate(histories.items()):
        color, loss = COLORS[number % len(COLORS)], history.curves[LOSS]
        if len(loss):
            rows = thinned(loss.values)
            title = _("{run}: loss").format(run=name)
            tables.append(Table(f"training {number}", loss.steps[rows], (
                Line(title, smoothed(loss.values)[rows], color),)))
        if history.score is not None:
            scores = history.curves[history.score]
            title = _("{run}: {score}").format(run=name, score=SCORES[history.score])
            tables.append(Table(f"validation {number}", scores.steps, (
                Line(title, scores.values, color, isPoints=True),)))
    return tables


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,): means over a window around each value, of which at both ends only what is there counts."""
    count = len(values)
    half = max(count // _SMOOTHED_PARTS, 5) // 2
    totals = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(count)
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, count)
    return (totals[high] - totals[low]) / (high - low)


def thinned(values: NDArray[np.float64], bins: int = MOST_BINS) -> NDArray[np.intp]:
    """The indices, rising, of the values (N,) that draw the same curve: all of a short one, otherwise of each of `bins`
    parts the lowest and the highest, and the first and the last of all."""
    count = len(values)
    if count <= 2 * bins:
        return np.arange(count)
    size = -(-count // bins)
    whole = count // size * size
    parts = values[:whole].reshape(-1, size)
    starts = np.arange(len(parts)) * size
    kept = [starts + parts.argmin(1), starts + parts.argmax(1), [0, count - 1]]
    if whole < count:
        kept += [[whole + values[whole:].argmin()], [whole + values[whole:].argmax()]]
    return np.unique(np.concatenate(kept))
