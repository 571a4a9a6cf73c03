"""Both panels on a small Qt application: what they have in common."""

from __future__ import annotations

import sys

import numpy as np
import pytest


def test_a_label_map_is_not_chosen_as_the_image(open_panel, make_volume, model):
    import slicer

    slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode")
    assert open_panel("MedMAESegment")._parameterNode.inputVolume is None


def test_choices_that_come_with_a_loaded_scene_are_shown(open_panel, scene, application, tmp_path):
    panel = open_panel("MedMAETrain")
    panel.projectSection.folder = str(panel.logic.createProject(tmp_path / "project").path)
    panel.ui.pages.setCurrentIndex(2)
    panel._parameterNode.modelName = "my model"
    scene.SetSaveToXMLString(1)
    scene.Commit()
    saved = scene.GetSceneXMLString()
    application.clear()
    assert panel._parameterNode.modelName == "" and panel.project() is not None
    panel.projectSection.folder = ""
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(saved)
    scene.Import()
    assert panel.project().path == tmp_path / "project" and panel.ui.pages.currentIndex == 2
    assert panel._parameterNode.modelName == "my model"


def test_names_with_markup_are_shown_as_they_are(open_panel, model):
    import qt

    segment = open_panel("MedMAESegment").ui
    for label in (segment.inputVolumeLabel, segment.warningsLabel, segment.statusLabel, segment.costsLabel):
        assert label.textFormat == qt.Qt.PlainText


def test_every_bound_widget_has_its_parameter(open_panel):
    panel = open_panel("MedMAESegment")
    bound = {widget.property("SlicerParameterName") for widget in vars(panel.ui).values()} - {None}
    assert bound and all(hasattr(panel._parameterNode, parameter) for parameter in bound)


@pytest.mark.parametrize("name", ["MedMAESegment", "MedMAETrain"])
def test_the_descriptor_says_what_the_module_is(open_panel, name):
    descriptor = open_panel(name).descriptor
    assert descriptor.title.startswith("MedMAE ")
    assert descriptor.categories == ["Segmentation"]
    assert not descriptor.icon.isNull()


@pytest.mark.parametrize("name", ["MedMAESegment", "MedMAETrain"])
def test_the_modules_own_self_test_passes(open_panel, qt_application, name):
    panel = open_panel(name)
    module = sys.modules[name]
    test = getattr(module, f"{name}Test")()
    test.delayDisplay = lambda *_arguments: None
    test.runTest()
    assert panel.parent is not None


def test_nothing_heavy_was_imported_by_the_panels(qt_application):
    assert {"torch", "monai"} & set(sys.modules) == qt_application.heavyBefore


def test_the_pages_of_the_train_panel_lead_to_each_other(open_panel, monkeypatch):
    import slicer

    panel, done = open_panel("MedMAETrain"), []
    segment = open_panel("MedMAESegment")
    monkeypatch.setattr(panel.runsPage, "show", lambda run: done.append(run))
    monkeypatch.setattr(panel.trainPage, "startFrom", lambda name: done.append(name))
    monkeypatch.setattr(slicer.util, "getModuleLogic", lambda name: segment.logic, raising=False)
    monkeypatch.setattr(slicer.util, "selectModule", done.append)
    panel.trainPage.started.emit("a run")
    assert panel.ui.pages.currentIndex == 2 and panel._parameterNode.page == 2
    panel.nextPage.finetuneFrom.emit("a model")
    assert panel.ui.pages.currentIndex == 1
    panel.runsPage.useModel.emit("another model")
    assert done == ["a run", "a model", "MedMAESegment"]
    assert segment.logic.getParameterNode().model == "another model"


def test_a_scene_whose_project_is_gone_keeps_naming_it_and_says_so(open_panel, scene, tmp_path):
    panel = open_panel("MedMAETrain")
    panel._parameterNode.projectFolder = str(tmp_path / "gone")
    panel.exit()
    panel.enter()
    assert panel.project() is None and "does not exist" in panel.projectSection.problem
    assert panel._parameterNode.projectFolder == str(tmp_path / "gone")
    panel.projectSection.folder = str(panel.logic.createProject(tmp_path / "other").path)
    assert panel._parameterNode.projectFolder == str(tmp_path / "other")
