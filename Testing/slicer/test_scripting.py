"""Every example of docs/scripting.md, in order, with the real worker on real nodes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from conftest import OBLIQUE, ROOT

import medmae

TEXT = (ROOT / "docs" / "scripting.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def models(scripting_models, tmp_path_factory):
    """A home with the models that the examples name."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(scripting_models, home / "models")
    subprocess.run([sys.executable, Path(__file__).with_name("make_tiny_model.py"), home / "models" / "pictures",
                    "vis-mae"], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return home


@pytest.fixture(scope="module")
def session():
    from MedMAESegmentLib.WorkerSession import WorkerSession

    session = WorkerSession()
    yield session
    session.close()


@pytest.fixture
def logic(models, session, monkeypatch):
    from MedMAESegmentLib.SegmentLogic import SegmentLogic

    monkeypatch.setenv("MEDMAE_HOME", str(models))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("MedMAESegmentLib.Dependencies.ensureInstalled", lambda: None)
    logic = SegmentLogic()
    logic.worker = session
    return logic


@pytest.fixture
def ct(make_volume):
    return make_volume((20, 24, 28), name="CT")


def _labels(node, volume):
    """(k, j, i): 0 where there is no segment, else the number of the segment from 1."""
    labels = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    for index in range(node.GetSegmentation().GetNumberOfSegments()):
        identity = node.GetSegmentation().GetNthSegmentID(index)
        labels[slicer.util.arrayFromSegmentBinaryLabelmap(node, identity, volume) > 0] = index + 1
    return labels


def _roi(volume, low, high):
    """A region around the voxels from `low` to `high` (k, j, i), with sides along the volume's axes."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    node.SetXYZ((OBLIQUE @ [*reversed([(a + b) / 2 for a, b in zip(low, high, strict=True)]), 1])[:3])
    node.SetSize(8, 8, 20)
    return node


def test_every_example_runs(logic, ct, make_volume, tmp_path, monkeypatch, capsys):
    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target

    _roi(ct, (5, 6, 7), (12, 14, 16))
    make_volume((10, 12, 14), affine=OBLIQUE @ np.diag([2.0, 2.0, 2.0, 1.0]), name="PET")
    add_target(Target("gpu-box", environment="python", python=sys.executable), replace=True)
    images = tmp_path / "images"
    images.mkdir()
    from MedMAESegmentLib.VolumeExport import writeVolume

    for number in range(2):
        writeVolume(ct, images / f"case{number}.nrrd")
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(slicer.util, "getModuleLogic", {"MedMAESegment": logic}.get, raising=False)
    names = {"slicer": slicer, "imageFolder": images, "outputFolder": tmp_path / "out"}
    for example in EXAMPLES:
        exec(compile(example, "docs/scripting.md", "exec"), names)  # noqa: S102 - our own page
    said = capsys.readouterr().out
    assert "liver\nleft kidney\n" in said and "cancelled\n" in said and "abdomen of mine MR 4" in said
    assert "['case0.seg.nrrd', 'case1.seg.nrrd']" in said
    assert logic.worker.starts == 1 and logic.jobs == []
    assert len(EXAMPLES) >= 12


def test_channels_on_other_grids_are_one_case(logic, ct, make_volume):
    node = logic.segment([ct, make_volume((9, 12, 14), affine=np.diag([2.0, -2.0, 6.0, 1.0]))], "two channels")
    assert _labels(node, ct).any()
    with pytest.raises(ValueError, match=r"sees 2 channels \(channel 0, channel 1\), but the volumes have 1"):
        logic.segment(ct, "two channels")


def test_flipped_and_turned_voxels_give_the_same_labels_in_space(logic, make_volume):
    """The same image stored in another order is segmented the same."""
    plain = make_volume((20, 24, 28), affine=np.diag([1.0, 1.0, 1.0, 1.0]), name="plain")
    array = slicer.util.arrayFromVolume(plain)
    turned = slicer.util.addVolumeFromArray(np.ascontiguousarray(array[::-1].transpose(2, 0, 1)), name="turned")
    matrix = np.array([[0, 0, 1.0, 0], [1.0, 0, 0, 0], [0, -1.0, 0, 19.0], [0, 0, 0, 1]])
    turned.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    there = _labels(logic.segment(turned, "abdomen"), turned)
    np.testing.assert_array_equal(there.transpose(1, 2, 0)[::-1], _labels(logic.segment(plain, "abdomen"), plain))


def test_in_a_region_nothing_outside_changes(logic, ct, make_segmentation):
    target = make_segmentation(ct, {"liver": np.s_[0:2, 0:3, 0:3], "mine": np.s_[0:1, 5:6, 5:6]})
    region = _roi(ct, (8, 10, 12), (12, 14, 16))
    node = logic.segment(ct, "abdomen", target, roiNode=region, replaceExisting=True)
    liver = _labels(node, ct) == 1
    assert liver[0:2, 0:3, 0:3].sum() >= 17, "what was drawn outside stays"
    points = np.argwhere(_labels(node, ct) == 3)
    assert len(points), "a test with an empty result shows nothing"
    from MedMAESegmentLib.Region import boxOfRoi

    box = np.array(boxOfRoi(region, ct)).reshape(3, 2)
    ras = (OBLIQUE @ np.c_[points[:, ::-1], np.ones(len(points))].T)[:3].T
    assert (ras >= box[:, 0]).all() and (ras <= box[:, 1]).all()


def test_of_a_rotated_region_its_box_along_the_patients_axes_is_segmented(logic, ct, make_segmentation):
    """And what lies around stays voxel by voxel, also between the region and the corners of its box."""
    from MedMAESegmentLib.Region import boxOfRoi

    region = _roi(ct, (8, 10, 12), (12, 14, 16))
    turn = np.eye(4)
    turn[:2, :2], turn[:3, 3] = [[0.8, -0.6], [0.6, 0.8]], region.GetCenter()
    region.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(turn))
    assert "region" in {warning.kind for warning in logic.warnings(ct, "abdomen", region)}
    box = np.array(boxOfRoi(region, ct)).reshape(3, 2)
    assert box[0, 1] - box[0, 0] > 8, "of a region that is not rotated this would show nothing"
    index = np.moveaxis(np.indices((20, 24, 28)), 0, -1)[..., ::-1]
    ras = index @ OBLIQUE[:3, :3].T + OBLIQUE[:3, 3]
    inside = ((ras >= box[:, 0]) & (ras <= box[:, 1])).all(-1)
    whole = logic.segment(ct, "abdomen")
    drawn = np.random.default_rng(2).random((20, 24, 28)) > 0.6
    target = make_segmentation(ct, {"liver": None})
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        drawn.astype(np.uint8), target, target.GetSegmentation().GetNthSegmentID(0), ct)
    node = logic.segment(ct, "abdomen", target, roiNode=region, replaceExisting=True)
    liver = _labels(node, ct) == 1
    np.testing.assert_array_equal(liver[~inside], drawn[~inside])
    assert not (_labels(node, ct)[~inside] == 2).any()
    assert 0 < inside.sum() < inside.size and (_labels(whole, ct)[inside] > 0).any()
    assert (liver[inside] != drawn[inside]).any(), "inside the model decides"


def test_a_region_beside_the_volume_is_refused_before_anything_is_handed_over(logic, ct):
    region = _roi(ct, (8, 10, 12), (12, 14, 16))
    region.SetXYZ(0, 0, 7000)
    with pytest.raises(ValueError, match="The region Region misses the volume CT, so there is nothing to segment"):
        logic.segment(ct, "abdomen", roiNode=region)
    assert [warning.kind for warning in logic.warnings(ct, "abdomen", region)] == ["region"]


def test_undo_gives_back_the_segments_and_removes_what_was_made(logic, ct, make_segmentation, scene):
    target = make_segmentation(ct, {"liver": np.s_[5:8, 5:8, 5:8]})
    job = logic.segment(ct, "abdomen", target, replaceExisting=True, uncertainty=True, waitForCompletion=False)
    job.wait()
    assert target.GetSegmentation().GetNumberOfSegments() == 2 and job.uncertaintyNode is not None
    assert {segment.name for segment in job.segments} == {"liver", "left kidney"} and job.seconds > 0
    assert all(0 < segment.confidence <= 1 for segment in job.segments if segment.voxels)
    assert job.undo()
    assert target.GetSegmentation().GetNumberOfSegments() == 1
    assert (_labels(target, ct) > 0).sum() == 27
    assert target.GetAttribute("MedMAE.model") is None
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    assert not job.undo()


def test_the_result_of_a_call_that_waits_can_be_undone(logic, ct, make_segmentation, scene):
    assert not logic.undoLast()
    logic.segment(ct, "abdomen", uncertainty=True)
    assert logic.undoLast() and scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    assert not logic.undoLast(), "there is one step back"
    target = make_segmentation(ct, {"liver": np.s_[5:8, 5:8, 5:8]})
    logic.segment(ct, "abdomen", target, replaceExisting=True)
    assert logic.undoLast() and (_labels(target, ct) > 0).sum() == 27
    node = logic.segment(ct, "abdomen")
    scene.RemoveNode(node)
    assert not logic.undoLast(), "what the user has removed stays removed"


def test_undo_in_the_segment_editor_leads_back_to_before_the_result(logic, ct, make_segmentation, scene, monkeypatch):
    """With the logic of Slicer's editor behind a stand-in for its widget, which has these methods."""
    class Editor:
        def __init__(self, node):
            self.logic = slicer.vtkSlicerSegmentEditorLogic()
            self.node = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
            self.node.SetAndObserveSegmentationNode(node)
            self.logic.SetSegmentEditorNode(self.node)

        def segmentationNode(self):
            return self.node.GetSegmentationNode()

        def saveStateForUndo(self):
            self.logic.SaveStateForUndo()

    target = make_segmentation(ct, {"liver": np.s_[5:8, 5:8, 5:8]})
    editor = Editor(target)
    monkeypatch.setattr(slicer.modules, "SegmentEditorWidget", SimpleNamespace(editor=editor), raising=False)
    logic.segment(ct, "abdomen")
    assert not editor.logic.CanUndo(), "the result is in another segmentation"
    logic.segment(ct, "abdomen", target, replaceExisting=True)
    assert target.GetSegmentation().GetNumberOfSegments() == 2
    assert editor.logic.CanUndo()
    editor.logic.Undo()
    assert target.GetSegmentation().GetNumberOfSegments() == 1 and (_labels(target, ct) > 0).sum() == 27


def test_the_map_of_uncertainty_lies_on_the_volume(logic, ct):
    job = logic.segment(ct, "abdomen", uncertainty=True, smoothing=0.3, waitForCompletion=False)
    node = job.wait()
    array = slicer.util.arrayFromVolume(job.uncertaintyNode)
    assert array.shape == slicer.util.arrayFromVolume(ct).shape and array.max() > 0
    from MedMAESegmentLib.VolumeExport import ijkToRas

    np.testing.assert_allclose(ijkToRas(job.uncertaintyNode), ijkToRas(ct), atol=1e-4)
    assert node.GetClosedSurfaceInternalRepresentation(node.GetSegmentation().GetNthSegmentID(0)) is not None


def test_how_sure_the_model_is_of_a_segment_is_always_known(logic, ct):
    job = logic.segment(ct, "abdomen", waitForCompletion=False)
    job.wait()
    assert job.segments and all(0 < segment.confidence <= 1 for segment in job.segments if segment.voxels)


def test_two_at_once_are_done_one_after_the_other(logic, ct, make_volume):
    jobs = [logic.segment(node, "abdomen", waitForCompletion=False) for node in (ct, make_volume((9, 9, 9)))]
    assert [job.wait().GetSegmentation().GetNumberOfSegments() for job in jobs] == [2, 2]


def test_a_model_removed_while_it_segments_does_no_harm(logic, ct):
    logic.importModel(logic.exportModel("abdomen", slicer.app.temporaryPath), name="short-lived")
    job = logic.segment(ct, "short-lived", waitForCompletion=False)
    logic.removeModel("short-lived")
    try:
        assert job.wait().GetSegmentation().GetNumberOfSegments() == 2
    except RuntimeError as error:
        assert "short-lived" in str(error)
    assert logic.segment(ct, "abdomen") is not None


def test_a_colour_picture_is_segmented_by_a_model_of_pictures(logic):
    colours = np.random.default_rng(1).integers(0, 255, (1, 40, 44, 3)).astype(np.uint8)
    picture = slicer.util.addVolumeFromArray(colours, nodeClassName="vtkMRMLVectorVolumeNode", name="photo")
    node = logic.segment(picture, "pictures")
    labels = slicer.util.arrayFromSegmentBinaryLabelmap(
        node, node.GetSegmentation().GetNthSegmentID(0), picture)
    assert labels.shape == (1, 40, 44)


def test_of_a_sequence_the_frame_is_remembered(logic, ct, scene):
    sequence, browser = scene.AddNode(slicer.vtkMRMLSequenceNode()), scene.AddNode(slicer.vtkMRMLSequenceBrowserNode())
    for value in ("0", "1"):
        sequence.SetDataNodeAtValue(ct, value)
    browser.AddSynchronizedSequenceNode(sequence)
    browser.AddProxyNode(ct, sequence, False)
    browser.SetSelectedItemNumber(1)
    assert logic.segment(ct, "abdomen").GetAttribute("MedMAE.frame") == "1"


def test_a_closed_scene_ends_what_is_under_way(logic, ct, application):
    from MedMAESegmentLib.FollowedJob import RunFailed

    jobs = [logic.segment(ct, "abdomen", mirror=True, waitForCompletion=False),
            logic.classify(ct, "which organ", waitForCompletion=False)]
    application.clear()
    for job in jobs:
        with pytest.raises(RunFailed, match="was removed from the scene"):
            job.wait()
    assert logic.jobs == [] and slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None


def test_a_folder_is_gone_on_with_and_a_bad_file_does_not_stop_it(logic, ct, tmp_path, application):
    from MedMAESegmentLib.VolumeExport import writeVolume

    before = application.leftovers()
    for name in ("a", "c"):
        writeVolume(ct, tmp_path / f"{name}.nrrd")
    (tmp_path / "b.nrrd").write_text("no image")
    cases = logic.segmentAll(tmp_path, "abdomen")
    assert {case.name: case.state for case in cases} == {"a.nrrd": "done", "b.nrrd": "failed", "c.nrrd": "done"}
    assert cases[1].message
    file = cases[0].result
    assert file == tmp_path / "MedMAE abdomen" / "a.seg.nrrd"
    written = file.stat().st_mtime_ns
    writeVolume(ct, tmp_path / "b.nrrd")
    again = logic.segmentAll(tmp_path, "abdomen")
    assert [case.state for case in again] == ["done"] * 3
    assert file.stat().st_mtime_ns == written, "what was finished is not done again"
    assert application.leftovers() == before


def test_a_classification_is_a_table_and_attributes(logic, ct):
    found = logic.classify(ct, "which organ")
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-3)
    assert found.label == max(found.probabilities, key=found.probabilities.get)
    assert [found.tableNode.GetColumnName(column) for column in range(3)] == [
        "Class", "Probability", "Deciding slice"]
    assert found.tableNode.GetCellText(0, 0) == found.label == ct.GetAttribute("MedMAE.class")
    assert found.tableNode.GetNumberOfRows() == 3
    with pytest.raises(ValueError, match="which organ is for classification, not for segmentation"):
        logic.segment(ct, "which organ")


@pytest.fixture
def study(scene, ct):
    """The volume in a study of a patient, as it is loaded from DICOM."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "DOE^JANE"), "baseline")
    hierarchy.CreateItem(study, ct)
    return hierarchy, study


def _made_by(node):
    return {name.removeprefix("MedMAE."): node.GetAttribute(name)
            for name in node.GetAttributeNames() if name.startswith("MedMAE.")}


def test_everything_that_is_made_stands_beside_the_volume_and_says_what_made_it(logic, ct, study, models):
    hierarchy, parent = study
    job = logic.segment(ct, "abdomen", device="cpu", mirror=True, uncertainty=True, waitForCompletion=False)
    node, found = job.wait(), logic.classify(ct, "which organ")
    for each in (node, job.uncertaintyNode, found.tableNode):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(each)) == parent, each.GetName()
    assert hierarchy.GetNumberOfItemChildren(parent) == 4
    said = _made_by(node)
    weights = json.loads((models / "models" / "abdomen" / "model.json").read_text())["weights_sha256"]
    assert (said["model"], said["modelVersion"]) == ("abdomen", weights)
    assert json.loads(said["options"]) == {"device": "cpu", "mirror": True, "uncertainty": True}
    assert abs(datetime.now(UTC) - datetime.fromisoformat(said["date"])) < timedelta(minutes=5)
    assert said["version"] == medmae.__version__
    for each in (ct, found.tableNode):
        assert {"class", "probabilities", "decidingSlices", "classifiedBy", "classifiedByVersion", "version",
                "date"} == set(_made_by(each))
        assert json.loads(_made_by(each)["probabilities"]) == found.probabilities
    assert "DOE" not in " ".join(value for each in (node, found.tableNode) for value in _made_by(each).values())


def test_surfaces_are_made_on_request_and_as_smooth_as_asked(logic, ct):
    name = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    plain, smooth = logic.segment(ct, "abdomen"), logic.segment(ct, "abdomen", smoothing=0.8)
    assert not plain.GetSegmentation().ContainsRepresentation(name)
    assert smooth.GetSegmentation().ContainsRepresentation(name)
    segments = [smooth.GetSegmentation().GetNthSegment(index).GetRepresentation(name) for index in range(2)]
    assert any(surface.GetNumberOfPoints() for surface in segments)
    factor = slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule.GetSmoothingFactorParameterName()
    assert smooth.GetSegmentation().GetConversionParameter(factor) == "0.8"
