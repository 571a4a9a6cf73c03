"""The tab "Train": starting from models, importing weights, and consent before images go to another computer."""

from __future__ import annotations

import sys
import time

import pytest
from panel_fixtures import model_info, until
from starting_fixtures import choose, known

from medmae.errors import BadInput
from medmae.jobs.job import list_jobs
from medmae.jobs.target import Target
from medmae.jobs.targets import add_target

REPORT = {"name": "mine", "network": "swin_mae", "task": "encoder", "loaded": ["a", "b"], "missing": [], "folded": [],
          "dropped": [], "unexpected": ["c"], "notes": ["Trained on pictures."], "licence": "not stated"}


def starts(page):
    selector = page.ui.trainStartSelector
    return [selector.itemText(index) for index in range(selector.count)]


def test_an_installed_encoder_is_the_first_choice_and_brings_its_network(train_page, model):
    train_page.update()
    ui = train_page.ui
    assert starts(train_page) == ["CT encoder", "Abdomen", "Nothing (from scratch)"]
    assert train_page.request.encoder == "CT encoder"
    assert (train_page.request.method, train_page.request.preset) == (None, None), "those of the encoder"
    assert not ui.trainMethodSelector.visible and not ui.trainNetworkHelpLabel.visible
    assert ui.trainStartHelpLabel.text == "A pretrained encoder (CT, 3-D, gl-mae tiny). Its network is kept."
    window = ui.trainSettingsTable.item(2, 1).text(), ui.trainSettingsTable.item(2, 2).text()
    assert window == ("48 x 48 x 48", "Sees 58 x 43 x 43 mm; a larger one sees more and needs more memory.")
    choose(ui.trainStartSelector, "Abdomen")
    assert "finished model" in ui.trainStartHelpLabel.text and train_page.node.startFrom == "Abdomen"
    choose(ui.trainStartSelector, "Nothing")
    assert train_page.request.encoder == "none" and ui.trainMethodSelector.visible
    assert train_page.request.preset == "tiny-hybrid"


def test_an_encoder_of_other_images_is_not_chosen_by_itself_and_says_so(train_page, installed):
    installed(model_info("A chest encoder", task="encoder", modality="MR"))
    train_page.update()
    assert train_page.request.encoder == "none"
    choose(train_page.ui.trainStartSelector, "A chest")
    assert train_page.ui.trainStartHelpLabel.text.endswith("It knows MR, but these images are CT.")


def test_settings_for_one_network_are_none_for_another(train_page, model):
    train_page.update()
    item = train_page.ui.trainSettingsTable.item(2, 1)
    item.setText("64 x 64 x 64")
    assert train_page.request.settings == {"input_size": [64, 64, 64]}
    choose(train_page.ui.trainStartSelector, "Nothing")
    assert train_page.request.settings == {}


def test_a_start_that_is_gone_is_told_and_no_other_one_takes_its_place(train_page, model):
    train_page.node.startFrom = "Lost"
    train_page.setParameters(train_page.node)
    assert train_page.ui.trainStartSelector.currentText == "Lost (not there any more)"
    assert "Lost is not among the models any more" in train_page.ui.trainProblemLabel.text
    assert not train_page.ui.trainStartButton.enabled
    choose(train_page.ui.trainStartSelector, "CT encoder")
    assert train_page.ui.trainStartButton.enabled and "Lost" not in "".join(starts(train_page))


def test_another_page_can_choose_the_start(train_page, model):
    choose(train_page.ui.trainTaskSelector, "Pretrain")
    train_page.startFrom("Abdomen")
    assert (train_page.request.task, train_page.request.encoder) == ("segmentation", "Abdomen")
    assert train_page.node.startFrom == "Abdomen" and train_page.node.task == "segmentation"


def test_weights_are_imported_with_their_report_and_started_from(train_page, answering, tmp_path, monkeypatch):
    from MedMAESegmentLib.ModelShelf import ModelShelf
    from model_fixtures import write_model

    from medmae.home import models_folder

    asked = []

    def install(self, path, formatName, name):
        asked.append((path, formatName, train_page.ui.trainStatusLabel.text))
        write_model(models_folder() / name, task="encoder", labels=[])
        return {**REPORT, "name": name}

    monkeypatch.setattr(ModelShelf, "importCheckpoint", install)
    answering(file=tmp_path / "weights.pth", name="mine")
    train_page.ui.trainImportButton.click()
    assert asked == [(str(tmp_path / "weights.pth"), "vis-mae", "Importing weights.pth…")]
    assert train_page.says == ["Imported mine: swin_mae, encoder.\n2 tensors loaded\n1 that are not part of this "
                               "network, left out\nTrained on pictures.\nLicence: not stated"]
    assert train_page.request.encoder == "mine" and not train_page.ui.trainStatusLabel.visible


def test_weights_that_are_none_are_told_and_nothing_changes(train_page, answering, tmp_path):
    (tmp_path / "model.zip").write_bytes(b"no zip")
    answering(file=tmp_path / "model.zip")
    train_page.ui.trainImportButton.click()
    assert train_page.says[0].startswith("The weights were not imported.") and train_page.request.encoder == "none"
    answering()
    train_page.ui.trainImportButton.click()
    assert len(train_page.says) == 1, "cancelled"


@pytest.fixture
def elsewhere(train_page, monkeypatch):
    """The page with the target "gpu-box"; `elsewhere.begun` are the arguments of runs that were begun."""
    import slicer

    add_target(Target("gpu-box", "ssh", "me@gpu.example.org", folder="scratch/"))
    train_page.begun, train_page.answer = [], True
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay",
                        lambda text, **_: train_page.says.append(text) or train_page.answer)
    for name in ("finetune", "pretrain"):
        monkeypatch.setattr(train_page._logic, name, lambda *_arguments, **options: train_page.begun.append(options))
    train_page.update()
    choose(train_page.ui.trainComputeSelector, "gpu-box")
    return train_page


def test_before_images_leave_it_is_said_what_where_and_how_much(elsewhere):
    assert elsewhere.ui.trainComputeHelpLabel.text == (
        "3 images will be sent to me@gpu.example.org (about 1 MB), once you have agreed.")
    elsewhere.ui.trainStartButton.click()
    (text,) = elsewhere.says
    assert text == (
        "Voxels and geometry of 3 images and 3 segmentations with the names of their labels will leave this computer "
        "for gpu-box (me@gpu.example.org): about 1 MB before compression, less what is there already.\n\nNames, "
        "dates and other patient data stay here. The voxels stay in the folder scratch/data there, for later runs, "
        "until you delete them (Computers, Free space).")
    (begun,) = elsewhere.begun
    assert begun["target"] == "gpu-box" and begun["queue"] is False and begun["device"] == "auto"
    assert not elsewhere.ui.trainQueueButton.visible, "the scheduler there queues"


def test_classes_and_the_model_that_leave_are_named_too(elsewhere, model):
    for case, name in zip(elsewhere.opened[0].cases, ("sick", "healthy", "sick"), strict=False):
        elsewhere.opened[0].setClass(case, name)
    choose(elsewhere.ui.trainTaskSelector, "Classify")
    choose(elsewhere.ui.trainStartSelector, "CT encoder")
    elsewhere.ui.trainStartButton.click()
    assert "of 3 images with their classes, and the model CT encoder, will leave" in elsewhere.says[0]


def test_without_a_yes_nothing_leaves_neither_for_a_run_nor_for_a_trial(elsewhere):
    elsewhere.answer = False
    elsewhere.ui.trainStartButton.click()
    elsewhere.ui.trainMeasureButton.click()
    assert len(elsewhere.says) == 2 and elsewhere.begun == [] and not elsewhere.trial.isBusy and list_jobs() == []


def test_it_is_asked_again_only_for_images_that_were_not_agreed_to(elsewhere, qt_application, make_volume):
    elsewhere.ui.trainStartButton.click()
    elsewhere.ui.trainStartButton.click()
    assert len(elsewhere.says) == 1 and len(elsewhere.begun) == 2
    choose(elsewhere.ui.trainTaskSelector, "Pretrain")
    elsewhere.ui.trainStartButton.click()
    assert len(elsewhere.says) == 2 and "of 3 images will leave" in elsewhere.says[1], "one of them is new"
    elsewhere.opened[0].addCase(make_volume((9, 9, 9)), role="unlabelled")
    known(elsewhere, qt_application)
    elsewhere.ui.trainStartButton.click()
    assert len(elsewhere.says) == 3 and "of 4 images" in elsewhere.says[2]


def test_nothing_can_be_sent_before_its_size_is_known(elsewhere, qt_application):
    elsewhere.facts.look(None)
    elsewhere.facts.look(elsewhere.opened[0])
    elsewhere._updateButtons()
    assert "how much would be sent" in elsewhere.ui.trainProblemLabel.text
    assert not elsewhere.ui.trainStartButton.enabled
    until(qt_application, lambda: elsewhere.ui.trainStartButton.enabled)


def test_a_computer_with_a_card_gets_a_larger_network(elsewhere):
    choose(elsewhere.ui.trainStartSelector, "Nothing")
    assert elsewhere.request.preset == "small" and "a graphics card" in elsewhere.ui.trainNetworkHelpLabel.text


def test_a_computer_that_is_gone_is_told(elsewhere):
    from medmae.jobs.targets import remove_target

    remove_target("gpu-box")
    elsewhere.update()
    assert "gpu-box is no longer among the computers" in elsewhere.ui.trainComputeHelpLabel.text
    assert elsewhere.request.target is None


def test_the_dialog_of_computers_opens_and_what_it_adds_can_be_chosen(train_page, monkeypatch):
    from MedMAETrainLib.Panel.TargetsDialog import TargetsDialog

    opened = []

    def show(dialog):
        opened.append(dialog)
        add_target(Target("new-box", "ssh", "new"))
        dialog.dialog.deleteLater()

    monkeypatch.setattr(TargetsDialog, "show", show)
    train_page.ui.trainComputersButton.click()
    assert len(opened) == 1
    choose(train_page.ui.trainComputeSelector, "new-box")
    assert train_page.request.target == "new-box" and train_page.node.computeOn == "target:new-box"


@pytest.mark.alone
def test_a_run_is_really_begun_on_another_computer(train_page, qt_application, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    add_target(Target("ward-7", kind="local", environment="python", python=sys.executable, gpus=0))
    train_page.update()
    choose(train_page.ui.trainComputeSelector, "ward-7")
    began = time.monotonic()
    train_page.ui.trainStartButton.click()
    assert time.monotonic() - began < 2, "the images are sent by a process of its own"
    (job,) = train_page.jobs
    assert job.target == "ward-7" and "3 images and 3 segmentations" in train_page.says[0]
    job.cancel()
    until(qt_application, lambda: job.ended, 120)  # or it computes beside the tests that follow


def test_a_damaged_list_of_computers_keeps_nobody_from_computing_here(train_page, monkeypatch):
    def damaged(*_arguments):
        raise BadInput("damaged")

    monkeypatch.setattr("medmae.jobs.targets.list_targets", damaged)
    train_page.update()
    assert train_page.ui.trainStartButton.enabled
