"""Curves of training in Slicer's plot view: what is read of a run, and the nodes that draw it."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import slicer
from hypothesis import given
from hypothesis import strategies as st
from MedMAETrainLib.Curves import COLORS, Chart, Line, Table, comparedTables, runTables, smoothed, thinned
from MedMAETrainLib.RunHistory import Curve, RunHistory
from vtk.util.numpy_support import vtk_to_numpy

from medmae.run_folder import RunFolder


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", "finetune", {}, {})


def train(run, steps, *, start=0, loss=lambda step: 1 / step, every=10, seconds=0.5, score="validation_dice"):
    """Write progress as the engine does: preparing, then a line a step, with a score now and then."""
    run.append_progress({"stage": "prepare", "step": 3, "total": 3})
    for step in range(start + 1, steps + 1):
        record = {"step": step, "total": steps, "seconds": seconds * (step - start), "eta_s": 1.0, "lr": 1e-4 / step,
                  "loss": loss(step)}
        if step % every == 0:
            record[score] = min(step / 100, 1.0)
        run.append_progress(record)


def read(run):
    history = RunHistory(run.progress_file)
    while history.read():
        pass
    return history


def drawn(series):
    """What a plot view draws of a series: (x, y)."""
    table = series.GetTableNode().GetTable()
    return [vtk_to_numpy(table.GetColumnByName(name)) for name in (
        series.GetXColumnName(), series.GetYColumnName())]


def test_loss_rate_and_scores_of_a_run_are_drawn_by_step(run, scene):
    train(run, 40)
    chart = Chart("my liver", "Step")
    chart.update(runTables(read(run)))
    loss, smooth, rate, dice = chart.seriesNodes
    assert [series.GetName() for series in (loss, smooth, rate, dice)] == [
        "loss", "loss, smoothed", "learning rate (1 = 0.0001)", "Dice of the validation cases"]
    steps, values = drawn(loss)
    assert steps.tolist() == list(range(1, 41)) and np.allclose(values, [1 / step for step in range(1, 41)])
    assert drawn(rate)[1].max() == 1.0
    assert [values.tolist() for values in drawn(dice)] == [[10, 20, 30, 40], [0.1, 0.2, 0.3, 0.4]]
    assert all(series.GetPlotType() == series.PlotTypeScatter for series in chart.seriesNodes)
    assert dice.GetMarkerStyle() == dice.MarkerStyleCircle and loss.GetMarkerStyle() == loss.MarkerStyleNone
    assert (chart.node.GetTitle(), chart.node.GetXAxisTitle()) == ("my liver", "Step")


def test_the_score_of_a_classification_is_its_auc(run, scene):
    train(run, 20, score="validation_auc")
    chart = Chart("run", "Step")
    chart.update(runTables(read(run)))
    assert chart.seriesNodes[-1].GetName() == "AUC of the validation cases"


def test_nodes_are_made_once_and_updated_in_place(run, scene):
    chart = Chart("run", "Step")
    train(run, 20)
    history = RunHistory(run.progress_file)
    history.read()
    chart.update(runTables(history))
    nodes, count = [chart.node, *chart.seriesNodes], scene.GetNumberOfNodes()
    train(run, 30, start=20)
    history.read()
    chart.update(runTables(history))
    assert [chart.node, *chart.seriesNodes] == nodes and scene.GetNumberOfNodes() == count
    assert len(drawn(nodes[1])[0]) == 30


def test_a_curve_that_was_switched_off_in_the_plot_view_stays_off(run, scene):
    train(run, 20)
    chart = Chart("run", "Step")
    chart.update(runTables(read(run)))
    chart.node.RemovePlotSeriesNodeID(chart.seriesNodes[0].GetID())
    chart.update(runTables(read(run)))
    assert [series.GetName() for series in chart.seriesNodes][0] == "loss, smoothed"


def test_a_legend_that_changes_makes_no_new_nodes(scene):
    chart, x = Chart("run", "Step"), np.arange(3.0)
    chart.update([Table("one", x, (Line("rate (1 = 2)", x, COLORS[0]), Line("loss", x, COLORS[1])))])
    nodes = chart.seriesNodes
    chart.update([Table("one", x, (Line("rate (1 = 3)", 2 * x, COLORS[0]), Line("loss", x, COLORS[1])))])
    assert chart.seriesNodes == nodes and [node.GetName() for node in nodes] == ["rate (1 = 3)", "loss"]
    assert drawn(nodes[0])[1].tolist() == [0, 2, 4]


def test_smoothing_follows_a_straight_line_and_is_calm_at_its_end():
    noise = np.random.default_rng(0).normal(size=1000)
    smooth = smoothed(np.arange(1000.0) / 10 + noise)
    assert np.allclose(smooth[20:-20], np.arange(1000)[20:-20] / 10, atol=1)
    assert np.abs(np.diff(smoothed(noise))).max() < 0.3


def test_series_that_are_no_longer_drawn_leave_the_scene(scene):
    chart = Chart("run", "Step")
    before = scene.GetNumberOfNodes()
    x = np.arange(3.0)
    tables = [Table(key, x, tuple(Line(f"{key} {name}", x, COLORS[0]) for name in "ab")) for key in ("one", "two")]
    chart.update(tables)
    chart.update([Table("one", x, tables[0].lines[:1])])
    assert [series.GetName() for series in chart.seriesNodes] == ["one a"]
    assert scene.GetNumberOfNodes() == before + 3
    chart.remove()
    assert scene.GetNumberOfNodes() == before


def test_nodes_of_a_closed_scene_are_made_again(run, application):
    train(run, 5)
    chart = Chart("run", "Step")
    chart.update(runTables(read(run)))
    application.clear()
    assert chart.node is None and chart.seriesNodes == []
    chart.update(runTables(read(run)))
    assert chart.node.GetScene() is application.scene and len(drawn(chart.seriesNodes[0])[0]) == 5
    slicer.mrmlScene.RemoveNode(chart.seriesNodes[0].GetTableNode())
    slicer.mrmlScene.RemoveNode(chart.seriesNodes[1])
    chart.update(runTables(read(run)))
    assert len(chart.seriesNodes) == 3 and len(drawn(chart.seriesNodes[1])[0]) == 5


def test_nothing_of_a_chart_is_saved_with_the_scene_or_clutters_its_lists(run, scene):
    train(run, 20)
    chart = Chart("run", "Step")
    before = {scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())}
    chart.update(runTables(read(run)))
    made = {scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())} - before
    assert len(made) == 7 and not any(node.GetSaveWithScene() for node in made)
    assert [node.GetHideFromEditors() for node in made if node.IsA("vtkMRMLTableNode")] == [1, 1]
    hidden = slicer.vtkMRMLSubjectHierarchyConstants.GetSubjectHierarchyExcludeFromTreeAttributeName()
    assert all(node.GetAttribute(hidden) for node in made)


@pytest.mark.parametrize("hasLayouts", [True, False])
def test_a_chart_is_shown_in_the_plot_view(run, scene, application, monkeypatch, hasLayouts):
    train(run, 5)
    view = scene.AddNewNodeByClass("vtkMRMLPlotViewNode")
    if hasLayouts:
        logic = slicer.vtkSlicerPlotsLogic()
        logic.SetMRMLScene(scene)
        logic.SetMRMLApplicationLogic(application.logic)
        monkeypatch.setattr(slicer.modules, "plots", type("Plots", (), {"logic": lambda self: logic})(), raising=False)
    chart = Chart("run", "Step")
    chart.show()  # there is nothing yet, and nothing happens
    chart.update(runTables(read(run)))
    chart.show()
    assert view.GetPlotChartNodeID() == chart.node.GetID()


def test_after_a_resume_the_last_line_of_a_step_counts(run, scene):
    train(run, 20, loss=lambda step: 5.0)
    train(run, 30, start=10, loss=lambda step: 2.0)
    history = read(run)
    steps, values = history.curves["loss"].steps, history.curves["loss"].values
    assert steps.tolist() == list(range(1, 31)) and values.tolist() == [5.0] * 10 + [2.0] * 20
    expected = {record["step"]: record["loss"] for record in run.progress() if "loss" in record}
    assert dict(zip(steps, values, strict=True)) == expected
    assert history.seconds == 10.0 + 10.0


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(-1e6, 1e6)), max_size=60))
def test_a_curve_is_what_a_table_by_step_would_be(points):
    curve = Curve()
    for step, value in points:
        curve.put(step, value)
    table = dict(points)
    assert curve.steps.tolist() == sorted(table) and curve.values.tolist() == [table[step] for step in sorted(table)]


def test_a_long_curve_may_come_backwards():
    curve = Curve()
    for step in range(600, 0, -1):
        curve.put(step, -step)
    assert list(curve.steps) == list(range(1, 601)) and list(curve.values) == [-step for step in range(1, 601)]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=400), st.integers(1, 40))
def test_thinning_keeps_both_ends_and_every_extreme(values, bins):
    array = np.array(values)
    rows = thinned(array, bins)
    assert len(rows) <= 2 * bins + 4 and (np.diff(rows) > 0).all()
    assert (rows[0], rows[-1]) == (0, len(array) - 1)
    assert (array[rows].min(), array[rows].max()) == (array.min(), array.max())
    smooth = smoothed(array)
    assert len(smooth) == len(array)
    assert array.min() - 1e-6 <= smooth.min() and smooth.max() <= array.max() + 1e-6


def test_reading_goes_on_where_it_has_ended_also_in_the_middle_of_a_line(run):
    history = RunHistory(run.progress_file)
    assert not history.read()  # there is no file yet
    line = json.dumps({"step": 1, "total": 2, "loss": 0.5, "text": "Ä" * 10}, ensure_ascii=False).encode() + b"\n"
    for place in range(len(line)):
        with open(run.progress_file, "ab") as stream:
            stream.write(line[place:place + 1])
        assert not history.read()
        assert len(history.curves["loss"]) == (place == len(line) - 1)
    run.progress_file.write_bytes(line.replace(b"0.5", b"0.7")[:-2] + b"}\n" + line)
    history.read()
    run.progress_file.write_bytes(line.replace(b"0.5", b"0.7"))  # fetched anew, and shorter
    history.read()
    assert history.curves["loss"].values.tolist() == [0.7]


def test_lines_that_are_no_records_do_no_harm(run):
    strange = [b"{", b"[1]", b"null", b'{"step": "x", "loss": 1}', b'{"step": true, "loss": 1}', b"\xff\xfe",
               b'{"step": 1, "loss": NaN}', b'{"step": 1, "loss": 1e999}', b'{"step": 2, "loss": %d}' % 10**400,
               b"[" * 100_000, b'{"step": 3, "loss": 0.25}']
    run.progress_file.write_bytes(b"\n".join(strange) + b"\n")
    assert read(run).curves["loss"].values.tolist() == [0.25]


def test_steps_of_preparing_data_are_not_steps_of_training(run):
    run.append_progress({"stage": "prepare", "step": 7, "total": 9, "seconds": 4})
    history = read(run)
    assert history.seconds is None and not len(history.curves["loss"])


def test_compared_runs_share_a_chart_with_a_colour_each(tmp_path, scene):
    histories = {}
    for name in ("one", "two"):
        run = RunFolder.create(tmp_path / name, "finetune", {}, {})
        train(run, 20)
        histories[name] = read(run)
    chart = Chart("Comparison", "Step")
    chart.update(comparedTables(histories))
    assert [series.GetName() for series in chart.seriesNodes] == ["one: loss", "one: Dice", "two: loss", "two: Dice"]
    colors = [series.GetColor() for series in chart.seriesNodes]
    assert colors[0] == colors[1] != colors[2] == colors[3]


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """100 000 steps of a noisy loss."""
    run = RunFolder.create(tmp_path_factory.mktemp("long") / "run", "finetune", {}, {})
    noise = np.random.default_rng(0).random(100_001)
    lines = (json.dumps({"step": step, "total": 100_000, "seconds": step * 0.1, "eta_s": 0.0, "lr": 1e-4,
                         "data_wait_s": 0.0, "loss": 1000 / (1000 + step) + 0.1 * noise[step], "dice_loss": 0.5,
                         "cross_entropy": 0.5, **({"validation_dice": 0.8} if step % 500 == 0 else {})})
             for step in range(1, 100_001))
    run.progress_file.write_text("\n".join(lines) + "\n")
    return run


@pytest.mark.alone
def test_a_long_history_is_read_in_short_turns(long_run):
    history, turns, going = RunHistory(long_run.progress_file), [], True
    while going:
        begun = time.perf_counter()
        going = history.read()
        turns.append(time.perf_counter() - begun)
    assert len(history.curves["loss"]) == 100_000 and len(turns) > 5
    assert sorted(turns)[-2] < 0.1, "a single longer turn may be that of a busy machine"


@pytest.mark.alone
def test_an_update_of_a_long_history_is_quick(long_run, scene):
    history, chart = read(long_run), Chart("run", "Step")
    chart.update(runTables(history))
    seconds = []
    for _time in range(5):
        begun = time.perf_counter()
        chart.update(runTables(history))
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.02
    assert len(drawn(chart.seriesNodes[0])[0]) <= 1504
