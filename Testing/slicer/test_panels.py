"""Both panels on a small Qt application: what they have in common."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from panel_fixtures import BOX, NEEDS_SOURCE

pytestmark = NEEDS_SOURCE


def test_a_label_map_is_not_chosen_as_the_image(open_panel, make_volume, model):
    import slicer

    slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode")
    for name in ("MedMAESegment", "MedMAETrain"):
        panel = open_panel(name)
        assert getattr(panel._parameterNode, "inputVolume" if name == "MedMAESegment" else "currentVolume") is None
    assert not panel.ui.addCaseButton.enabled


def test_choices_that_come_with_a_loaded_scene_are_shown(
        open_panel, scene, application, make_volume, make_segmentation, model):
    volume = make_volume(name="in the file")
    segmentation = make_segmentation(volume, {"liver": BOX})
    panel = open_panel("MedMAETrain")
    panel._parameterNode.setCases([(volume, segmentation)])
    panel.ui.modelNameLineEdit.setText("my model")
    scene.SetSaveToXMLString(1)
    scene.Commit()
    saved = scene.GetSceneXMLString()
    application.clear()
    assert panel.ui.caseTable.rowCount == 0 and not panel.ui.finetuneButton.enabled
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(saved)
    scene.Import()
    assert panel.ui.caseTable.item(0, 0).text() == "in the file"
    assert panel.ui.modelNameLineEdit.text == "my model"


def test_names_with_markup_are_shown_as_they_are(open_panel, model):
    import qt

    segment, train = open_panel("MedMAESegment").ui, open_panel("MedMAETrain").ui
    for label in (segment.inputVolumeLabel, segment.warningsLabel, segment.statusLabel, segment.costsLabel,
                  train.statusLabel):
        assert label.textFormat == qt.Qt.PlainText


@pytest.mark.parametrize("name", ["MedMAESegment", "MedMAETrain"])
def test_every_bound_widget_has_its_parameter(open_panel, name):
    panel = open_panel(name)
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
