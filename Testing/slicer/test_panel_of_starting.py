"""The tab "Train": what can be learned and started from, settings with their reasons, and starting."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time

import pytest
from model_fixtures import a_picture
from panel_fixtures import until
from starting_fixtures import choose, known

from medmae.home import runs_folder
from medmae.run_folder import RunFolder

SCHEDULES = """
import json
from medmae.networks.presets import PRESETS
from medmae.pretraining.config import PretrainConfig, resolve_pretrain_config
configs = [resolve_pretrain_config(PretrainConfig(method=method, preset=preset))
           for method, presets in PRESETS.items() for preset in presets]
print(json.dumps([[config.method, config.preset, config.steps, config.batch_size] for config in configs]))
"""  # in a process of its own: it needs torch, which this one must never see


def rows(page):
    """The table of settings: name to (value, reason)."""
    table = page.ui.trainSettingsTable
    return {table.item(row, 0).text(): (table.item(row, 1).text(), table.item(row, 2).text())
            for row in range(table.rowCount)}


def write(page, name, value):
    """Write a value into the table, as a user does."""
    table = page.ui.trainSettingsTable
    row = list(rows(page)).index(name)
    table.item(row, 1).setText(value)


def spec():
    (run,) = runs_folder().iterdir()
    return RunFolder.open(run).spec


def test_without_a_project_it_says_what_to_do(train_page):
    train_page.opened[0] = None
    train_page.update()
    assert train_page.ui.trainNoProjectLabel.visible and not train_page.ui.trainBody.visible
    assert "project" in train_page.whyNot()


def test_it_says_what_the_project_has_for_each_task(train_page):
    ui, project = train_page.ui, train_page.opened[0]
    assert ui.trainDataLabel.text == "2 annotated cases for training, 1 for validation; one more image."
    assert ui.trainStartButton.text == "Finetune" and ui.trainStartButton.enabled and not ui.trainProblemFrame.visible
    choose(ui.trainTaskSelector, "Classify")
    assert ui.trainDataLabel.text == "No cases with a class for training, none for validation; 3 more images."
    assert not ui.trainStartButton.enabled and not ui.trainMeasureButton.enabled and not ui.trainQueueButton.enabled
    assert ui.trainProblemFrame.visible and "two classes are needed" in ui.trainProblemLabel.text
    for case, name in zip(project.cases, ("sick", "healthy", "sick"), strict=False):
        project.setClass(case, name)
    train_page.update()
    assert ui.trainDataLabel.text == "2 cases with a class for training, 1 for validation; one more image."
    assert ui.trainStartButton.enabled and not ui.trainProblemFrame.visible
    choose(ui.trainTaskSelector, "Pretrain")
    assert ui.trainDataLabel.text == "3 images to pretrain on; those for validation and test are left out."
    assert ui.trainStartButton.text == "Pretrain" and not ui.trainStartSelector.visible
    assert not ui.trainImportButton.visible and ui.trainMethodSelector.visible


def test_a_label_that_no_case_shows_is_told_before_anything_starts(train_page):
    train_page.opened[0].addLabel("spleen")
    train_page.update()
    assert "spleen" in train_page.ui.trainProblemLabel.text and not train_page.ui.trainStartButton.enabled


def test_the_recommended_network_and_settings_come_from_the_images(train_page):
    ui = train_page.ui
    assert ui.trainMethodSelector.currentText == "3-D volumes" and ui.trainPresetSelector.currentText == "tiny-hybrid"
    assert ui.trainNetworkHelpLabel.text == (
        "GL-MAE: for CT, MR and PET volumes. Small: minutes to an hour on a processor, little memory. Best for few "
        "annotated cases. Recommended here (volumes, no graphics card).")
    assert rows(train_page) == {
        "Modality": ("CT", "Values from -1000 to 1000 HU are used."),
        "Voxel, mm": ("1.2 x 0.9 x 0.9", "All images have it."),
        "Window": ("32 x 48 x 32", "Sees 38 x 43 x 29 mm; a larger one sees more and needs more memory."),
        "Batch": ("2", "The usual one of this network."),
        "At once": ("whole batch", "A smaller number needs less memory."),
        "Steps": ("800", "The usual one of this network.")}
    assert train_page.request.settings == {}, "what the engine does by itself is not told"


def test_another_network_has_its_own_help_and_settings(train_page):
    ui = train_page.ui
    choose(ui.trainMethodSelector, "2-D")
    assert ui.trainPresetSelector.currentText == "tiny" and rows(train_page)["Steps"][0] == "1200"
    assert rows(train_page)["Window"][0] == "112 x 112" and "Voxel, mm" not in rows(train_page)
    assert ui.trainNetworkHelpLabel.text.endswith("Recommended here: 3-D volumes, tiny-hybrid (volumes, no graphics "
                                                  "card).")
    choose(ui.trainPresetSelector, "base")
    assert "graphics card of 24 GB" in ui.trainNetworkHelpLabel.text and rows(train_page)["Steps"][0] == "15000"
    assert (train_page.request.method, train_page.request.preset) == ("vis-mae", "base")
    assert (train_page.node.method, train_page.node.preset) == ("vis-mae", "base")


def test_settings_are_changed_checked_and_taken_back(train_page):
    ui = train_page.ui
    write(train_page, "Steps", "300")
    write(train_page, "Window", "32×32 x 32")
    write(train_page, "Voxel, mm", "1,5 x 1 x 1")
    write(train_page, "Modality", "mr")
    assert train_page.request.settings == {"steps": 300, "input_size": [32, 32, 32], "spacing_mm": [1.5, 1, 1],
                                           "modality": "MR"}
    assert rows(train_page)["Steps"] == ("300", "Changed by you; recommended: 800.")
    assert json.loads(train_page.node.settings)["steps"] == 300 and ui.trainStartButton.enabled
    write(train_page, "Steps", "")
    assert rows(train_page)["Steps"][0] == "800" and "steps" not in train_page.request.settings
    ui.trainResetButton.click()
    assert train_page.request.settings == {} and train_page.node.settings == "" and not ui.trainResetButton.enabled


@pytest.mark.parametrize(("name", "value", "problem"), [
    ("Steps", "many", "Steps: many is no whole number."), ("Steps", "0", "Steps must be at least 1, not 0"),
    ("Batch", "1.5", "Batch: 1.5 is no whole number."), ("At once", "-2", "At once must be at least 1"),
    ("Voxel, mm", "1 x 1", "1 x 1 has 2 numbers, but this network needs 3."),
    ("Voxel, mm", "0 x 1 x 1", "Voxel, mm must be positive"), ("Window", "big", "Window: big is no size."),
    ("Modality", "?", "Modality: ? is no modality.")])
def test_a_value_that_the_engine_would_refuse_is_explained_and_nothing_can_be_started(
        train_page, name, value, problem):
    write(train_page, name, value)
    assert problem in train_page.ui.trainProblemLabel.text and not train_page.ui.trainStartButton.enabled
    assert rows(train_page)[name][0].startswith(value.split(" ")[0]), "what was written can be corrected"
    train_page.ui.trainResetButton.click()
    assert train_page.ui.trainStartButton.enabled and not train_page.ui.trainProblemFrame.visible


def test_choices_are_those_of_the_scene(train_page):
    node = train_page.node
    node.task, node.startFrom, node.method, node.preset = "pretraining", "none", "vis-mae", "small"
    node.settings, node.computeOn, node.modelName = '{"steps": 7}', "cpu", "mine"
    train_page.setParameters(node)
    request = train_page.request
    assert (request.task, request.method, request.preset, request.device, request.name, request.settings) == (
        "pretraining", "vis-mae", "small", "cpu", "mine", {"steps": 7})
    train_page.setParameters(None)
    node.task, node.method, node.preset, node.settings = "nonsense", "no-method", "tiny", "[not json"
    train_page.setParameters(node)
    assert train_page.request.task == "segmentation" and train_page.request.settings == {}


def test_what_is_being_written_stays_while_something_else_changes(train_page):
    table = train_page.ui.trainSettingsTable
    item = table.item(5, 1)
    train_page.update()
    assert table.item(5, 1) is item


def test_the_name_is_proposed_from_the_labels_and_can_be_another(train_page):
    ui = train_page.ui
    assert ui.trainNameEdit.placeholderText == "liver" and train_page.name == "liver"
    ui.trainNameEdit.text = " my liver "
    ui.trainNameEdit.editingFinished.emit()
    assert train_page.name == "my liver" and train_page.node.modelName == "my liver"
    ui.trainNameEdit.text = ""
    choose(ui.trainTaskSelector, "Pretrain")
    assert train_page.name == "Livers encoder"


def test_finetuning_starts_exactly_what_is_chosen(train_page, engine):
    engine("work=60")
    write(train_page, "Steps", "300")
    choose(train_page.ui.trainComputeSelector, "Processor")
    train_page.ui.trainNameEdit.text = "my liver"
    train_page.ui.trainStartButton.click()
    (job,) = train_page.jobs
    assert job.modelName == "my liver" and job.kind == "finetune" and train_page.says == []
    assert spec()["config"] == {"method": "gl-mae", "preset": "tiny-hybrid", "steps": 300, "device": "cpu"}
    assert train_page.ui.trainNameEdit.text == "", "the next model is another one"
    assert not train_page.ui.trainProgressBar.visible and train_page.ui.trainStartButton.text == "Finetune"


def test_pretraining_starts_exactly_what_is_chosen(train_page, engine):
    engine("work=60")
    choose(train_page.ui.trainTaskSelector, "Pretrain")
    write(train_page, "Batch", "3")
    train_page.ui.trainStartButton.click()
    (job,) = train_page.jobs
    assert job.kind == "pretrain" and job.modelName == "Livers encoder"
    assert spec()["config"] == {"method": "gl-mae", "preset": "tiny-hybrid", "device": "auto", "batch_size": 3}


def test_a_run_can_wait_for_those_before_it(train_page, engine):
    engine("work=60")
    train_page.ui.trainStartButton.click()
    train_page.ui.trainQueueButton.click()
    assert [job.status.state for job in train_page.jobs][1] == "waiting"


def test_what_cannot_be_started_is_explained(train_page, monkeypatch):
    from medmae.errors import BadInput

    def refuse(*_arguments, **_options):
        raise BadInput("The disk is full.")

    monkeypatch.setattr(train_page._logic, "finetune", refuse)
    train_page.ui.trainStartButton.click()
    assert train_page.says == ["The run could not be started.\n\nThe disk is full."] and train_page.jobs == []
    assert train_page.ui.trainStartButton.text == "Finetune" and train_page.ui.trainStartButton.enabled


def test_starting_is_cancelled_by_the_same_button_and_leaves_nothing(train_page, engine, monkeypatch):
    import slicer

    engine("work=60")
    pressed = []

    def press():
        if train_page._isStarting and not pressed:
            pressed.append(train_page.ui.trainStartButton.text)
            train_page.ui.trainStartButton.click()

    monkeypatch.setattr(slicer.app, "processEvents", press)
    train_page._logic.planRun = _slowly(train_page._logic.planRun)
    train_page.ui.trainStartButton.click()
    assert pressed == ["Cancel"] and train_page.ui.trainStatusLabel.text == "Cancelled."
    assert train_page.jobs == [] and list(runs_folder().iterdir()) == [] and train_page.opened[0].runs == ()


def _slowly(planRun):
    """Plans whose check takes long enough for somebody to press a button."""
    def plan(*arguments, **options):
        made = planRun(*arguments, **options)
        return dataclasses.replace(made, writeData=lambda folder, report: (time.sleep(0.1),
                                                                           made.writeData(folder, report)))

    return plan


def test_pictures_are_recommended_slices_and_refused_by_networks_for_volumes(
        train_page, qt_application, tmp_path):
    from MedMAETrainLib.Project import Project

    project = Project.create(tmp_path / "x-rays", "X-rays")
    for number in range(3):
        (tmp_path / f"x-ray-{number}.png").write_bytes(a_picture(64 + number))
    project.addImages(tmp_path / "*.png")
    train_page.opened[0] = project
    choose(train_page.ui.trainTaskSelector, "Pretrain")
    known(train_page, qt_application)
    assert train_page.request.method == "vis-mae" and "pictures" in train_page.ui.trainNetworkHelpLabel.text
    assert train_page.ui.trainStartButton.enabled
    choose(train_page.ui.trainMethodSelector, "3-D")
    assert "the images are pictures" in train_page.ui.trainProblemLabel.text
    assert not train_page.ui.trainStartButton.enabled
    project.close()


def test_an_image_that_cannot_be_read_is_told_before_finetuning(train_page, qt_application):
    project = train_page.opened[0]
    image = project.file(project.cases[0].image)
    image.write_bytes(b"no image")
    train_page.facts.look(None)
    known(train_page, qt_application)
    assert train_page.ui.trainProblemLabel.text.startswith("somebody, training cannot be read:")
    choose(train_page.ui.trainTaskSelector, "Pretrain")
    assert train_page.ui.trainStartButton.enabled, "pretraining leaves it out"


@pytest.mark.alone
def test_a_large_project_holds_the_event_loop_for_moments_only(train_page, qt_application):
    project = train_page.opened[0]
    pattern = project.cases[0]
    project.putCases([dataclasses.replace(pattern, id=f"case-{number:04d}", subject=f"subject-{number:04d}")
                      for number in range(10, 510)])
    known(train_page, qt_application)
    began = time.monotonic()
    train_page.update()
    assert time.monotonic() - began < 0.1
    assert train_page.ui.trainDataLabel.text.startswith("502 annotated cases")


def test_the_engine_has_the_schedules_of_pretraining_that_are_shown():
    from MedMAETrainLib.Recommendation import PRETRAINING_SCHEDULES

    ended = subprocess.run([sys.executable, "-c", SCHEDULES], capture_output=True, text=True, check=True)
    for method, preset, steps, batch in json.loads(ended.stdout):
        shown = PRETRAINING_SCHEDULES.get((method, preset)) or PRETRAINING_SCHEDULES[method, preset.partition("-")[0]]
        assert shown == (steps, batch), (method, preset)


def test_a_trial_tells_time_and_memory_until_something_is_changed(train_page, qt_application, monkeypatch):
    from MedMAETrainLib.TrialMeter import TrialMeter, TrialResult

    result = TrialResult(2100.0, 800, 2.6, 2_100_000_000, 9_000_000_000, "cpu")
    monkeypatch.setattr(TrialMeter, "result", lambda self: result)
    monkeypatch.setattr(TrialMeter, "isEnough", True)
    monkeypatch.setenv("FAKE_ENGINE", "/dev/null")
    ui = train_page.ui
    assert ui.trainMeasureLabel.text == "Time and memory are not measured yet."
    ui.trainMeasureButton.click()
    assert ui.trainMeasureButton.text == "Cancel" and not ui.trainStartButton.enabled
    assert not ui.trainSettingsTable.enabled
    until(qt_application, lambda: not train_page.trial.isBusy)
    assert ui.trainMeasureLabel.text == "About 35 min for 800 steps, 2.1 GB of memory; this computer has 9.0 GB free."
    assert ui.trainStartButton.enabled
    ui.trainNameEdit.text = "another name"
    train_page.update()
    assert ui.trainMeasureLabel.text.startswith("About 35 min")
    write(train_page, "Batch", "4")
    assert ui.trainMeasureLabel.text == "Time and memory are not measured yet."


def test_a_trial_that_fails_says_why_and_one_can_be_cancelled(train_page, qt_application, engine):
    engine("fail")
    train_page.ui.trainMeasureButton.click()
    until(qt_application, lambda: not train_page.trial.isBusy)
    assert train_page.ui.trainMeasureLabel.text.startswith("It could not be measured. The image is sheared.")
    engine("work=60")
    train_page.ui.trainMeasureButton.click()
    train_page.ui.trainMeasureButton.click()
    assert not train_page.trial.isBusy
    assert train_page.ui.trainMeasureLabel.text == "Time and memory are not measured yet."


def test_more_memory_than_is_free_is_warned_of():
    from MedMAETrainLib.Panel.TrainTexts import isTooLarge, trialText
    from MedMAETrainLib.TrialMeter import TrialResult

    assert isTooLarge(TrialResult(60.0, 10, 6.0, 9_000_000_000, 4_000_000_000, "cpu"))
    assert not isTooLarge(TrialResult(60.0, 10, 6.0, 9_000_000_000, 4_000_000_000, "cuda:0"))
    assert trialText(TrialResult(60.0, 10, 6.0, None, None)) == "About 60 s for 10 steps, memory not known."
    assert trialText(TrialResult(60.0, 10, 6.0, 9_000_000_000, 4_000_000_000, "cuda:0")) == (
        "About 60 s for 10 steps, 9.0 GB of the graphics card's memory.")

