"""What the Segment panel leaves in scene files, and what it takes from them."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from panel_fixtures import BOX, until


@pytest.fixture
def bundles(scene, tmp_path):
    """Let the scene read and write MRB files, as the application does."""
    remote, manager = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
    remote.SetMRMLScene(scene)
    (tmp_path / "cache").mkdir()
    remote.GetCacheManager().SetRemoteCacheDirectory(str(tmp_path / "cache"))
    manager.SetMRMLScene(scene)
    manager.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    scene.SetSaveToXMLString(0)  # other tests may have left these
    scene.SetLoadFromXMLString(0)
    yield tmp_path / "case.mrb"
    remote.RemoveDataIOFromScene()


def _store(node, storage, path):
    """Give a node the storage node that Slicer gives it when its scene is saved."""
    storage = slicer.mrmlScene.AddNewNodeByClass(storage)
    storage.SetFileName(str(path))
    node.SetAndObserveStorageNodeID(storage.GetID())
    assert storage.WriteData(node)


def _older_node(scene, **parameters):
    """The parameter node as another version of the module has left it."""
    node = slicer.vtkMRMLScriptedModuleNode()
    node.SetSingletonTag("MedMAESegment")
    node.SetModuleName("MedMAESegment")
    node.SetAttribute("ModuleName", "MedMAESegment")
    node = scene.AddNode(node)
    for name, value in parameters.items():
        node.SetParameter(name, value)
    return node


@pytest.mark.parametrize("is_entered", [True, False])
def test_a_scene_file_brings_back_volume_region_options_and_result(
        open_panel, scene, bundles, tmp_path, make_volume, model, fake_worker, work_plan, result_file, qt_application,
        is_entered):
    make_volume(name="another")
    volume = make_volume(name="mine", affine=np.diag([0.7, 0.9, 3.0, 1.0]))
    _store(volume, "vtkMRMLVolumeArchetypeStorageNode", tmp_path / "mine.nrrd")
    work_plan(f"labels={result_file(volume)}")
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    panel.ui.inputVolumeSelector.setCurrentNode(volume)
    panel.ui.roiSelector.addNode().SetName("upper half")
    panel.ui.mirrorCheckBox.click()
    panel.ui.segmentButton.click()
    until(qt_application, lambda: not panel._volumePage.isBusy)
    segmentation = panel._parameterNode.segmentation
    segmentation.SetName("result")
    _store(segmentation, "vtkMRMLSegmentationStorageNode", tmp_path / "result.seg.nrrd")
    assert scene.WriteToMRB(str(bundles))
    if not is_entered:
        panel.exit()
        panel.parent.isEntered = False
    assert scene.ReadFromMRB(str(bundles), True)
    panel.parent.isEntered = True
    if not is_entered:
        panel.enter()
    parameters = panel._parameterNode
    assert parameters.inputVolume.GetName() == "mine" and parameters.roi.GetName() == "upper half"
    assert parameters.segmentation.GetName() == "result" and panel.ui.segmentationSelector.currentText == "result"
    assert parameters.mirror and parameters.model == "Abdomen" and panel.ui.segmentButton.enabled
    assert panel.ui.statusLabel.text == "" and not panel.ui.resultTable.visible, "what was shown was of the last scene"
    name = parameters.segmentation.GetSegmentation().GetSegmentIdBySegmentName("left")
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(parameters.segmentation, name, parameters.inputVolume)
    expected = np.zeros_like(mask)
    expected[BOX] = 1
    np.testing.assert_array_equal(mask, expected)
    assert parameters.segmentation.GetAttribute("MedMAE.model") == "Abdomen"


@pytest.mark.parametrize(("name", "value"), [
    ("device", "AUTO"), ("computeOn", "AUTO"), ("mirror", "maybe"), ("smoothingFactor", "7"), ("otherVolumes", "[1]"),
    ("model", "a model of a colleague"), ("batchSource", "nowhere"), ("a field of tomorrow", "x")])
def test_a_scene_of_another_version_is_opened(open_panel, scene, make_volume, model, name, value):
    volume = make_volume()
    node = _older_node(scene, **{name: value})
    node.SetNodeReferenceID("inputVolume", volume.GetID())
    node.SetNodeReferenceID("segmentation", volume.GetID())  # was of another kind
    panel = open_panel("MedMAESegment")
    assert panel.ui.inputVolumeSelector.currentNode() is volume
    assert panel.choices().device == "auto" and panel.choices().target is None
    assert panel.ui.segmentButton.enabled == (name != "model")
