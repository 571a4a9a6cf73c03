"""The panel of MedMAE Train in impatient hands: wrong orders, wrong values, names with markup, what is gone by then."""

from __future__ import annotations

import sys

import pytest
from panel_fixtures import FAKE_ENGINE, model_info, until
from train_fixtures import A

EVIL = "<img src='http://x/y.png'> & \"q\" 🙂"


@pytest.fixture
def panel(open_panel, home, user_settings, said, monkeypatch):
    """The whole panel. No callback of Qt may have raised at the end."""
    problems = []
    monkeypatch.setattr(sys, "excepthook", lambda _kind, error, _traceback: problems.append(error))
    yield open_panel("MedMAETrain")
    assert problems == []


@pytest.fixture
def project(panel, tmp_path):
    """The project that is open in the panel."""
    panel.projectSection.open(str(panel.logic.createProject(tmp_path / "<b>project</b>", EVIL).path))
    return panel.project()


@pytest.fixture
def annotated(project, make_volume, make_segmentation):
    """A case with a segmentation, as it is in the scene."""
    volume = make_volume((40, 64, 64), name=EVIL)
    return project.addCase(volume, make_segmentation(volume, {"<i>liver</i>": A}), className=EVIL)


def at_once(do):
    """Do something as soon as the application lives on; keep what this gives."""
    import qt

    timer = qt.QTimer()
    timer.setSingleShot(True)
    timer.setInterval(0)
    timer.timeout.connect(do)
    timer.start()
    return timer


def show(panel, page, qt_application, seconds=0.3):
    import time

    panel.ui.pages.setCurrentIndex(page)
    end = time.monotonic() + seconds
    until(qt_application, lambda: time.monotonic() > end)


def test_every_page_fits_into_a_narrow_panel(panel, annotated, qt_application):
    for page in range(4):
        show(panel, page, qt_application)
        assert panel.parent.layout().totalMinimumSize().width() <= 380, f"page {page}"


def test_names_with_markup_are_shown_as_they_are_everywhere(panel, project, annotated, qt_application):
    import qt

    panel.casesPage.open(annotated.id)
    panel.trainPage.startFrom(EVIL)
    for page in range(4):
        show(panel, page, qt_application)
    for widget in panel.parent.findChildren(qt.QWidget):
        tip = widget.toolTip
        assert "<img" not in tip and "<b>project" not in tip, widget.objectName
        if isinstance(widget, qt.QLabel) and "<" in widget.text:
            assert widget.textFormat == qt.Qt.PlainText, widget.objectName
    assert "&& " in panel.nextPage.ui.nextCorrectedButton.text  # a single one would mark a key


def test_who_has_chosen_an_encoder_can_pretrain_and_come_back(panel, project, annotated, installed):
    installed(model_info("CT encoder", task="encoder"))
    panel.trainPage.startFrom("CT encoder")
    ui = panel.trainPage.ui
    for task, reference in ((2, "none"), (0, "CT encoder")):
        ui.trainTaskSelector.setCurrentIndex(task)
        assert panel.trainPage.request.encoder == reference and panel.trainPage.whyNot() == ""


@pytest.mark.parametrize("settings", [
    '{"spacing_mm": 3}', '{"input_size": ["a", "b", "c"]}', '{"modality": 5}', '{"steps": {}}', '{"spacing_mm": null}',
    '{"spacing_mm": [1, 1, Infinity]}', '{"batch_size": NaN}', "[]", "{", '{"steps": 1e400}'])
def test_settings_of_a_scene_that_are_none_are_left_out(panel, project, annotated, settings):
    panel._parameterNode.settings = settings
    panel.exit()
    panel.enter()
    assert panel.trainPage.settings.json == "" and panel.trainPage.whyNot() == ""


@pytest.mark.parametrize(("row", "text", "problem"), [
    (1, "nan x 1 x 1", "nan x 1 x 1 is too large."), (1, "1e400 x 1 x 1", "1e400 x 1 x 1 is too large."),
    (5, "99999999999999999999", "99999999999999999999 is too large."), (3, "0", "Batch must be at least 1, not 0")])
def test_numbers_that_cannot_be_are_explained_in_the_words_of_the_panel(panel, project, annotated, row, text, problem):
    panel.trainPage.ui.trainSettingsTable.item(row, 1).setText(text)
    assert problem in panel.trainPage.ui.trainProblemLabel.text and "_" not in panel.trainPage.whyNot()
    assert not panel.trainPage.ui.trainStartButton.enabled


@pytest.mark.parametrize(("name", "place", "folder"), [
    ("Livers", "~nobody-here/x", "~nobody-here/x/Livers"), ("Livers", "Desktop", "Desktop/Livers"),
    ("Livers", "~/x", "x/Livers")])
def test_a_new_project_lies_below_the_users_own_folder_unless_a_whole_path_is_given(
        panel, answers, tmp_path, monkeypatch, name, place, folder):
    monkeypatch.setenv("HOME", str(tmp_path))

    def fill(dialog):
        dialog.nameEdit.setText(name)
        dialog.placeEdit.setText(place)
        return True

    answers.append(fill)
    panel.projectSection.ui.projectNewButton.click()
    assert panel.project().path == tmp_path / folder


def test_a_name_that_is_too_long_for_a_folder_is_explained(panel, answers, tmp_path):
    def fill(dialog):
        dialog.nameEdit.setText("x" * 400)
        dialog.placeEdit.setText(str(tmp_path))
        return True

    answers.append(fill)
    panel.projectSection.ui.projectNewButton.click()
    assert panel.project() is None and "File name too long" in panel.projectSection.problem


def test_a_case_that_cannot_be_opened_from_another_page_is_explained_where_it_is_seen(
        panel, project, annotated, scene, application, qt_application):
    application.clear()
    (project.path / "cases").rename(project.path / "elsewhere")
    for page, ask in ((3, panel.nextPage.openCase), (2, panel.runsPage.openCase)):
        show(panel, page, qt_application)
        ask.emit(annotated.id)
        assert panel.ui.pages.currentIndex == 0
        text = panel.casesPage.messages.text
        assert "cannot be loaded" in text and "cases/case-0001/image.nrrd" in text  # a path stays what it is


def test_cancel_in_the_first_moment_cancels(panel, project, make_volume, answers):
    make_volume()
    timers = []
    answers.append(lambda _dialog: timers.append(at_once(panel.casesPage.ui.casesCancelButton.click)) or True)
    panel.casesPage.adding.onPair()
    assert panel.casesPage.messages.text.startswith("Cancelled.") and project.cases == ()


def test_a_project_that_is_closed_while_a_case_is_added_leaves_nothing_behind(panel, project, make_volume, answers):
    make_volume((40, 64, 64))
    timers = []
    answers.append(lambda _dialog: timers.append(at_once(panel.projectSection.onClose)) or True)
    panel.casesPage.adding.onPair()
    assert panel.project() is None and not panel.casesPage.work.isBusy
    assert not list((project.path / "cases").glob("*"))


def test_what_was_told_of_one_project_does_not_stand_below_another(panel, project, annotated, tmp_path):
    panel.casesPage.select([annotated.id])
    panel.casesPage.messages.tell("It was added.")
    panel.projectSection.open(str(panel.logic.createProject(tmp_path / "other").path))
    assert panel.casesPage.messages.text == "" and panel.casesPage.list.selection == []


def test_marking_as_corrected_is_done_once_however_often_it_is_pressed(panel, project, annotated, qt_application):
    import qt

    panel.casesPage.open(annotated.id)
    show(panel, 3, qt_application)
    button, timer = panel.nextPage.ui.nextCorrectedButton, qt.QTimer()
    assert button.enabled
    timer.setInterval(0)
    timer.timeout.connect(button.click)
    timer.start()
    button.click()
    timer.stop()
    assert "is saved" in panel.nextPage.ui.nextStatusLabel.text
    assert project.case(annotated.id).segmentation.endswith("segmentation-0002.seg.nrrd")


def test_closing_the_project_while_a_case_is_marked_as_corrected_is_told(
        panel, project, annotated, qt_application, said):
    panel.casesPage.open(annotated.id)
    show(panel, 3, qt_application)
    timer = at_once(panel.projectSection.onClose)
    panel.nextPage.ui.nextCorrectedButton.click()
    assert "is not marked as corrected" in said[-1] and panel.project() is None and timer is not None


def test_computers_chosen_on_one_page_are_chosen_on_the_other_and_damaged_lists_are_told(
        panel, project, annotated, qt_application, said):
    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target, targets_file

    add_target(Target("gpu-box", "ssh", "nobody@localhost"))
    show(panel, 1, qt_application)
    selector = panel.trainPage.ui.trainComputeSelector
    selector.setCurrentIndex(selector.count - 1)
    show(panel, 3, qt_application)
    assert panel.nextPage.compute.value == "target:gpu-box"
    until(qt_application, lambda: panel.trainPage.facts.isComplete)
    targets_file().write_text("{")
    panel.trainPage.onStart()
    assert "No computer can be chosen." in said[-1]


def test_a_computer_that_the_scene_names_and_is_gone_is_told(panel, project, annotated):
    panel._parameterNode.computeOn = "target:gone"
    panel.exit()
    panel.enter()
    assert panel.trainPage.compute.value == "auto"
    assert "gone is no longer among the computers" in panel.trainPage.ui.trainComputeHelpLabel.text


def test_what_hinders_a_run_names_cases_as_the_user_knows_them(panel, project, annotated, qt_application):
    project.addLabel("spleen")
    assert panel.trainPage.whyNot().startswith(f"{EVIL} (case-0001) has no voxel of spleen.")
    assert "Change > Nothing more to draw" in panel.trainPage.whyNot()
    panel.casesPage.select([annotated.id])
    panel.casesPage.menu.missingAction.trigger()
    assert "No case for training shows spleen." in panel.trainPage.whyNot()


def test_a_host_key_that_cannot_be_kept_is_told_and_the_check_can_be_repeated(
        panel, qt_application, said, monkeypatch):
    from MedMAETrainLib.Panel.TargetsDialog import TargetsDialog

    from medmae.jobs import known_hosts
    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target

    def refuse(_target, _keys):
        raise PermissionError(13, "Permission denied", "known_hosts")

    add_target(Target("gpu-box", "ssh", "nobody@localhost"))
    dialog = TargetsDialog()
    monkeypatch.setattr(known_hosts, "accept", refuse)
    dialog.check._target = dialog.selected
    dialog.check._run(lambda: [], dialog.check._onKeys)
    until(qt_application, lambda: not dialog.check.isBusy and "Permission denied" in dialog.check.label.text)
    assert dialog.checkButton.text == "Check" and dialog.addButton.enabled
    dialog.onClose()


def test_a_scene_whose_project_is_gone_does_not_leave_its_complaint_to_the_next_scene(panel, project):
    folder = panel._parameterNode.projectFolder
    for named, isProblem in (("/nowhere/at/all", True), (folder, False)):
        panel._parameterNode.projectFolder = named
        panel.exit()
        panel.enter()
        assert bool(panel.projectSection.problem) == isProblem and panel.project() is project


def test_runs_that_are_queued_one_after_the_other_have_names_of_their_own(
        panel, project, annotated, qt_application, engine):
    panel.logic.engineCommand = FAKE_ENGINE
    engine("work=30")
    project.setLabel("<i>liver</i>", name="liver")
    for _number in range(3):
        show(panel, 1, qt_application)
        panel.trainPage.ui.trainQueueButton.click()
    assert sorted(run.name for run in panel.logic.runs()) == ["liver", "liver 2", "liver 3"]
    for job in list(panel.logic.jobs):
        job.cancel()


def test_a_computer_whose_answer_makes_no_sense_does_not_hold_up_the_dialog(panel, qt_application, monkeypatch):
    from MedMAETrainLib.Panel import TargetCheck
    from MedMAETrainLib.Panel.TargetsDialog import TargetsDialog

    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target

    def garbled(_target):
        yield {}["system"]

    add_target(Target("gpu-box", "ssh", "nobody@localhost"))
    monkeypatch.setattr(TargetCheck, "findings", garbled)
    dialog = TargetsDialog()
    dialog.onCheck()
    until(qt_application, lambda: not dialog.check.isBusy)
    assert "makes no sense" in dialog.check.label.text and dialog.checkButton.text == "Check"
    assert dialog.editButton.enabled
    dialog.onClose()
