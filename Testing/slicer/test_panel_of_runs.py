"""The tab "Runs": the table of runs, what can be done with them, and what is told of the one that is selected."""

from __future__ import annotations

import json

import pytest
from panel_fixtures import FAKE_ENGINE, until
from run_fixtures import (  # noqa: F401 - fixtures are found by their names
    alive,
    page_fixture,
    project_fixture,
    runs_fixture,
    select,
    settle,
)


def rows(page):
    table = page.ui.runsTable
    return [[table.item(row, column).text() for column in range(4)] for row in range(table.rowCount)]


def names(page):
    return [text.split("\n")[0] for text, *_others in rows(page)]


def test_runs_are_listed_with_the_newest_first(page, runs, qt_application):
    runs.add("first", "done")
    runs.add("second", "failed", kind="pretrain", reason="The disk is full.")
    running = runs.add("third", "running", steps=10)
    alive(running, step=10, total=40)
    settle(page, qt_application)
    assert names(page) == ["third", "second", "first"]
    assert [text.split("\n")[1] for text, *_others in rows(page)] == [
        "Segmentation", "Pretraining", "Segmentation"]
    assert [state for _name, state, *_others in rows(page)] == ["Running\n15 s left", "Failed", "Done"]
    assert [page.table.bars[entry.id].value for entry in page.table.entries] == [250, 1000, 1000]


def test_without_runs_the_page_says_how_to_start_one(page, qt_application):
    settle(page, qt_application)
    assert page.ui.runsEmptyLabel.isVisible() and "tab Train" in page.ui.runsEmptyLabel.text
    assert not page.ui.runDetails.isVisible()
    buttons = [widget for name, widget in vars(page.ui).items() if name.endswith("Button")]
    assert len(buttons) == 9 and not any(button.isVisible() and button.enabled for button in buttons)


def test_the_selection_stays_while_rows_come_change_and_go(page, runs, qt_application):
    runs.add("first", "done")
    kept = runs.add("second", "running", steps=10)
    alive(kept, step=10, total=40)
    gone = runs.add("third", "done")
    select(page, qt_application, "second")
    runs.add("fourth", "done")
    alive(kept, step=20, total=40)
    runs.train(kept, 20, 40, start=10)
    page.logic.removeRun(gone.path.name)
    settle(page, qt_application)
    assert names(page) == ["fourth", "second", "first"]
    assert [entry.name for entry in page.table.selection] == ["second"]
    assert "Step 20 of 40, about 10 s left" in page.ui.runStatusLabel.text
    assert page.table.bars[kept.path.name].value == 500


def test_a_run_that_begins_anew_has_no_bar_until_it_computes(page, runs, qt_application):
    run = runs.add("liver", "stopped", steps=20)
    settle(page, qt_application)
    bar = page.ui.runsTable.cellWidget(0, 2)
    run.progress_file.unlink()
    run.write_state(state="queued", step=0, total=0)
    settle(page, qt_application)
    assert page.table.bars == {} and bar.isHidden() and page.ui.runsTable.cellWidget(0, 2) is None


def test_a_row_that_moves_stays_selected(page, runs, qt_application):
    from dataclasses import replace

    for name in ("first", "second", "third"):
        runs.add(name)
    select(page, qt_application, "first")
    entries = page.logic.runs()
    page.table.show([replace(entries[-1], started="2100-01-01T00:00:00+00:00"), *entries[:-1]])
    assert names(page) == ["first", "third", "second"]
    assert [entry.name for entry in page.table.selection] == ["first"]


def test_runs_of_other_projects_are_left_out_unless_wanted(page, runs, project, qt_application):
    settle(page, qt_application)
    assert page.ui.runsProjectCheckBox.isVisible() and "No run yet." in page.ui.runsEmptyLabel.text
    runs.add("of another", project="another")
    settle(page, qt_application)
    assert "others are there" in page.ui.runsEmptyLabel.text
    runs.add("mine", project=project.uid)
    settle(page, qt_application)
    assert names(page) == ["mine"]
    page.ui.runsProjectCheckBox.click()
    assert names(page) == ["mine", "of another"]
    page.current["project"] = None
    settle(page, qt_application)
    assert not page.ui.runsProjectCheckBox.isVisible() and names(page) == ["mine", "of another"]


def test_a_run_that_was_just_started_is_shown_also_when_it_is_of_another_project(
        page, runs, project, qt_application):
    other = runs.add("of another", project="another")
    page.show(other.path.name)
    assert not page.ui.runsProjectCheckBox.checked
    assert [entry.name for entry in page.table.selection] == ["of another"]


@pytest.mark.parametrize(("state", "words", "enabled"), [
    ("running", "Running", "stop"), ("stopping", "Stopping", ""), ("stopped", "Stopped", "resume"),
    ("failed", "Failed", "resume"), ("done", "Done", ""), ("queued", "Queued", "stop")])
def test_what_can_be_done_depends_on_the_state(page, runs, qt_application, state, words, enabled):
    run = runs.add("liver", state, steps=20)
    if state in ("running", "stopping"):
        alive(run, state, step=20, total=40)
    select(page, qt_application, "liver")
    assert rows(page)[0][1].startswith(words)
    assert page.ui.runStopButton.enabled == (enabled == "stop")
    assert page.ui.runResumeButton.enabled == (enabled == "resume")
    assert page.ui.runRemoveButton.enabled and page.ui.runLogButton.enabled and page.ui.runFolderButton.enabled
    assert not page.ui.runCompareButton.enabled and not page.ui.runReportButton.enabled
    for button in (page.ui.runStopButton, page.ui.runResumeButton, page.ui.runReportButton):
        assert button.toolTip


def test_an_interrupted_run_can_be_resumed_and_says_what_has_happened(page, runs, qt_application):
    file = runs.add("liver", "running", steps=20).state_file
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": 2**22 - 1, "pid_start": 1.0}))
    select(page, qt_application, "liver")
    assert rows(page)[0][1] == "Interrupted" and page.ui.runResumeButton.enabled
    assert "ended without saying why" in page.ui.runStatusLabel.text


def test_reason_and_remedy_of_a_failure_are_shown_as_they_are(page, runs, qt_application):
    import qt

    runs.add("<b>liver</b>", "failed", reason="The loss <i>became</i> NaN", remedy="Lower the learning rate.")
    select(page, qt_application, "<b>liver</b>")
    assert page.ui.runNameLabel.text == "<b>liver</b>"
    assert page.ui.runStatusLabel.text.endswith("The loss <i>became</i> NaN. Lower the learning rate.")
    assert {page.ui.__dict__[name].textFormat for name in vars(page.ui) if name.startswith("run") and
            name.endswith("Label")} == {qt.Qt.PlainText}
    for widget in (page.ui.runsTable.item(0, 0).toolTip(), page.ui.runNameLabel.toolTip):
        assert "&lt;b&gt;liver" in widget


def test_stop_asks_every_selected_run_that_is_under_way_to_end(page, runs, qt_application):
    first, second, done = runs.add("first", "running"), runs.add("second", "running"), runs.add("third", "done")
    for run in (first, second):
        alive(run)
    select(page, qt_application, "first", "second", "third")
    page.ui.runStopButton.click()
    assert first.stop_requested and second.stop_requested and not done.stop_requested
    assert [state for _name, state, *_others in rows(page)] == ["Done", "Stopping", "Stopping"]


def test_resume_starts_the_engine_again(page, runs, qt_application, engine):
    engine("progress", "work=20")
    page.logic.engineCommand = FAKE_ENGINE
    run = runs.add("liver", "stopped", steps=20)
    select(page, qt_application, "liver")
    page.ui.runResumeButton.click()
    until(qt_application, lambda: run.state()["state"] == "running")
    settle(page, qt_application)
    assert page.ui.runStopButton.enabled
    page.ui.runStopButton.click()
    until(qt_application, lambda: run.state()["state"] == "stopped")


def test_what_cannot_be_started_is_told(page, runs, qt_application):
    page.logic.engineCommand = ["/nowhere/python"]
    runs.add("liver", "stopped", steps=20)
    select(page, qt_application, "liver")
    page.ui.runResumeButton.click()
    assert page.says[-1].startswith("The run liver could not be started.\n\n")


def test_a_run_in_the_queue_can_be_started_now_or_removed(page, runs, qt_application, engine):
    engine("work=20")
    page.logic.engineCommand = FAKE_ENGINE
    runs.add("waits", "queued", steps=0, waits=True)
    runs.add("waits too", "queued", steps=0, waits=True)
    select(page, qt_application, "waits too")
    assert rows(page)[0][1] == "Waiting" and page.ui.runsTable.cellWidget(0, 2) is None
    assert "Begins when the runs before it have ended." in page.ui.runStatusLabel.text
    page.ui.runRemoveButton.click()
    settle(page, qt_application)
    assert names(page) == ["waits"] and "is ended first" not in page.says[-1]
    select(page, qt_application, "waits")
    assert page.ui.runResumeButton.text == "Start now"
    page.ui.runResumeButton.click()
    run = page.logic.job(page.table.entries[0].id).run
    until(qt_application, lambda: run.state()["state"] == "running")
    page.logic.cancelRun(run.path.name)


def test_removing_asks_first_and_keeps_what_is_not_confirmed(page, runs, qt_application):
    run = runs.add("liver", "done")
    select(page, qt_application, "liver")
    page.confirms = False
    page.ui.runRemoveButton.click()
    assert "Remove the run liver?" in page.says[-1] and run.path.exists()
    page.confirms = True
    page.ui.runRemoveButton.click()
    settle(page, qt_application)
    assert not run.path.exists() and names(page) == [] and not page.ui.runDetails.isVisible()


def test_a_run_under_way_is_ended_before_it_is_removed(page, runs, qt_application, engine):
    engine("progress", "work=20")
    page.logic.engineCommand = FAKE_ENGINE
    run = runs.add("liver", "stopped", steps=20)
    page.logic.resumeRun(run.path.name)
    until(qt_application, lambda: run.state()["state"] == "running")
    select(page, qt_application, "liver")
    page.ui.runRemoveButton.click()
    assert "is ended first" in page.says[-1]
    until(qt_application, lambda: names(page) == [])
    assert not run.path.exists()


def test_the_folder_and_the_report_are_opened(page, runs, qt_application, monkeypatch):
    import qt

    opened = []
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: not opened.append(url.toLocalFile()))
    run = runs.add("liver", "done")
    run.report.write_text("<html>")
    select(page, qt_application, "liver")
    page.ui.runFolderButton.click()
    page.ui.runReportButton.click()
    assert opened == [str(run.path), str(run.report)] and page.says == []
    run.report.unlink()
    page.ui.runReportButton.click()
    assert page.says[-1].endswith("It is not there any more.")


def test_the_model_of_a_run_is_used_in_the_other_module(page, runs, qt_application):
    runs.add("liver", "done", model="liver 2")
    runs.add("later", "stopped")
    select(page, qt_application, "later")
    assert not page.ui.runUseButton.isVisible()
    select(page, qt_application, "liver")
    page.ui.runUseButton.click()
    assert page.heard == ["liver 2"]


def test_a_report_from_another_computer_is_data_from_there(page, runs, qt_application, monkeypatch):
    import qt

    opened = []
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: not opened.append(url.toLocalFile()))
    runs.addRemote("liver", "done").report.write_text("<html>")
    select(page, qt_application, "liver")
    page.confirms = False
    page.ui.runReportButton.click()
    assert "written on gpu-box, another computer" in page.says[-1] and not opened
    page.confirms = True
    page.ui.runReportButton.click()
    assert len(opened) == 1


def test_runs_elsewhere_tell_what_was_last_known(page, runs, qt_application):
    runs.addRemote("liver", "running", steps=20)
    select(page, qt_application, "liver")
    assert rows(page)[0][:2] == ["liver\nSegmentation, gpu-box", "Running\n60 s left"]
    table = page.ui.runCasesTable  # cases by their own ids, whatever they are called there
    assert [table.item(row, 0).text() for row in range(table.rowCount)] == ["case-0009", "case-0007"]


def test_a_computer_that_does_not_answer_is_named_with_when_it_was_seen(page, runs, qt_application):
    run = runs.addRemote("liver", "running", steps=20)
    page.logic.fetchRun(run.path.name)
    until(qt_application, lambda: page.logic.runs()[0].status.state == "unreachable", seconds=30)
    select(page, qt_application, "liver")
    assert rows(page)[0][1] == "No answer"
    text = page.ui.runStatusLabel.text
    assert "gpu-box does not answer; the run goes on there." in text and "Last seen 20" in text
    page.ui.runRemoveButton.click()
    assert "gpu-box does not answer, so that the run liver there can neither be ended nor removed." in page.says[-1]
    assert run.path.exists()
