"""Cases are opened in any scene, corrected and saved back onto the voxels of their image file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import slicer
from conftest import OBLIQUE, ROOT
from MedMAETrainLib.Project import Project

from medmae.datasets import load_dataset, validate
from medmae.volumes import read_image, read_label, read_segments

A, B = np.s_[1:3, 2:5, 1:4], np.s_[3:5, 4:7, 5:9]
AFFINES = [np.eye(4), np.diag([-1.0, -1, 1, 1]), np.diag([2.0, 1, -0.5, 1]), OBLIQUE, OBLIQUE[:, [1, 0, 2, 3]],
           OBLIQUE[:, [2, 1, 0, 3]], OBLIQUE @ np.diag([1, 1, -1, 1])]


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "project", "Livers") as project:
        yield project


def drawn(node, index, volume):
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, node.GetSegmentation().GetNthSegmentID(index), volume) > 0


def draw(node, index, volume, mask):
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        mask.astype(np.uint8), node, node.GetSegmentation().GetNthSegmentID(index), volume)


def names(node):
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(index).GetName() for index in range(segmentation.GetNumberOfSegments())]


def write_image(path, affine, shape=(6, 8, 10)):
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.arange(np.prod(shape)).reshape(shape).astype(np.int16))
    lps = np.diag([-1, -1, 1, 1]) @ affine
    lengths = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(lengths.tolist())
    image.SetDirection((lps[:3, :3] / lengths).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    path.parent.mkdir(exist_ok=True)
    SimpleITK.WriteImage(image, str(path))


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("ending", ["nrrd", "nii.gz"])
def test_what_is_drawn_on_an_opened_image_lies_on_the_voxels_of_its_file(project, tmp_path, affine, ending):
    """Slicer turns some grids around when it loads them; the file is what the engine reads."""
    write_image(tmp_path / "images" / f"a.{ending}", affine)
    project.addLabel("blob")
    case = project.addImages(tmp_path / "images").cases[0]
    volume, segmentation = project.openCase(case)
    values = slicer.util.arrayFromVolume(volume)
    draw(segmentation, 0, volume, (values >= 100) & (values < 200))
    saved = project.saveCase(segmentation)
    image, label = read_image(project.file(case.image)), read_label(project.file(saved.label))
    np.testing.assert_array_equal(label.array[0] == 1, (image.array[0] >= 100) & (image.array[0] < 200))
    validate(load_dataset(project.writeDataset()), ["training"])
    assert (saved.state, saved.role, saved.voxels) == ("annotated", "training", {"blob": 100})


@pytest.mark.parametrize("affine", AFFINES)
def test_a_case_of_the_scene_is_corrected_in_another_scene(project, scene, make_volume, make_segmentation, affine):
    volume = make_volume(affine=affine)
    first = np.zeros((6, 8, 10), bool)
    first[A] = True
    project.addCase(volume, make_segmentation(volume, {"liver": A, "spleen": B}))
    scene.Clear(0)
    volume, segmentation = project.openCase("case-0001")
    assert names(segmentation) == ["liver", "spleen"] and volume.GetName() == "CT of somebody"
    mask = drawn(segmentation, 0, volume)
    assert mask.sum() == 18
    draw(segmentation, 0, volume, np.zeros_like(mask))
    draw(segmentation, 0, volume, mask & (slicer.util.arrayFromVolume(volume) > 0))
    saved = project.saveCase(segmentation)
    image, label = read_image(project.file(saved.image)).array[0], read_label(project.file(saved.label)).array[0]
    np.testing.assert_array_equal(label == 1, first & (image > 0))
    assert saved.state == "annotated" and saved.segmentation.endswith("segmentation-0002.seg.nrrd")


def test_an_image_without_segmentation_offers_the_labels_to_draw(project, make_volume):
    project.addLabel("liver", (0.1, 0.9, 0.3))
    project.addLabel("<b>spleen</b>")
    case = project.addCase(make_volume())
    slicer.mrmlScene.Clear(0)
    _volume, segmentation = project.openCase(case)
    assert names(segmentation) == ["liver", "<b>spleen</b>"]
    segment = segmentation.GetSegmentation().GetNthSegment(0)
    assert segment.GetColor() == pytest.approx((0.1, 0.9, 0.3)) and "10200004^Liver" in segment.GetTerminology()


def test_a_case_is_opened_once_and_nothing_of_it_is_saved_with_the_scene(project, scene, make_volume,
                                                                        make_segmentation):
    volume = make_volume()
    project.addCase(volume, make_segmentation(volume, {"liver": A}))
    assert project.openCase("case-0001")[0] is volume, "what was added is the case"
    scene.Clear(0)
    before = project.openCase("case-0001")
    assert project.openCase("case-0001") == before
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    storages = [scene.GetNthNodeByClass(index, "vtkMRMLStorageNode")
                for index in range(scene.GetNumberOfNodesByClass("vtkMRMLStorageNode"))]
    assert not any((node.GetFileName() or "").startswith(str(project.path)) for node in storages)


def test_a_corrected_prediction_is_corrected_and_what_each_segment_was_is_remembered(
        project, make_volume, make_segmentation):
    volume = make_volume()
    node = make_segmentation(volume, {"Leber": A, "scratch": B})
    case = project.addCase(volume, node, mapping={"Leber": "liver", "scratch": None})
    project.setState(case, "predicted")
    with pytest.raises(ValueError, match="No case of the project can be trained on"):
        project.writeDataset()
    slicer.mrmlScene.Clear(0)
    volume, node = project.openCase(case)
    saved = project.saveCase(node)
    assert saved.state == "corrected" and [each.label for each in saved.segments] == ["liver", None]
    assert project.saveCase(node, state="annotated").state == "annotated"


def test_a_prediction_is_kept_although_it_lacks_labels(project, make_volume, make_segmentation):
    volume = make_volume()
    project.addLabel("tumour")
    project.addLabel("liver")
    project.addCase(volume)
    node = make_segmentation(volume, {"liver": A})
    saved = project.saveCase(node, volume, state="predicted")
    assert (saved.state, saved.role, saved.notes) == ("predicted", "unlabelled", ("No voxel of tumour.",))


def test_the_state_before_is_kept_and_older_ones_are_not(project, make_volume, make_segmentation):
    volume = make_volume()
    node = make_segmentation(volume, {"liver": A})
    project.addCase(volume, node)
    for _time in range(3):
        project.saveCase(node)
    assert sorted(path.name for path in (project.path / "cases" / "case-0001").iterdir()) == [
        "image.nrrd", "label-0003.nrrd", "label-0004.nrrd", "segmentation-0003.seg.nrrd",
        "segmentation-0004.seg.nrrd", "thumbnail.png"]


def test_a_segmentation_of_another_volume_is_refused(project, make_volume, make_segmentation):
    volume, other = make_volume(), make_volume((6, 8, 11))
    project.addCase(volume)
    node = make_segmentation(other, {"liver": A})
    with pytest.raises(ValueError, match="belongs to no case"):
        project.saveCase(node)
    with pytest.raises(ValueError, match="does not lie on the voxels"):
        project.saveCase(node, case="case-0001")
    assert project.case("case-0001").segmentation is None


def test_an_image_that_is_gone_is_told(project, tmp_path):
    write_image(tmp_path / "images" / "a.nrrd", np.eye(4))
    project.addImages(tmp_path / "images")
    (tmp_path / "images" / "a.nrrd").unlink()
    with pytest.raises(ValueError, match=r"The image of case-0001, .*a.nrrd, cannot be loaded"):
        project.openCase("case-0001")
    assert slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None


def test_a_picture_is_annotated_on_its_own_rows_and_columns(project, make_volume, make_segmentation, tmp_path):
    """The MRML library alone reads no PNG: here is the node that Slicer makes of it."""
    import SimpleITK

    values = np.arange(35).reshape(5, 7).astype(np.uint8)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(tmp_path / "a.png"))
    project.addImages(tmp_path / "a.png")
    volume = make_volume((1, 5, 7), affine=np.diag([-0.3, -0.3, 1, 1]))
    segmentation = make_segmentation(volume, {"spot": None})
    draw(segmentation, 0, volume, values[None] > 20)
    saved = project.saveCase(segmentation, volume, case="case-0001")
    with pytest.raises(ValueError, match="does not lie on the voxels"):
        project.saveCase(segmentation, make_volume((1, 7, 5)), case="case-0001")
    np.testing.assert_array_equal(read_label(project.file(saved.label)).array[0, 0] == 1, values > 20)
    validate(load_dataset(project.writeDataset()), ["training"])


def test_killed_while_saving_the_last_state_is_whole(project, make_volume, make_segmentation):
    volume = make_volume()
    project.addCase(volume, make_segmentation(volume, {"liver": A}))
    project.close()
    code = (
        "import os, signal, sys; sys.path[:0] = sys.argv[2:]\n"
        "from mrml_application import MrmlApplication; application = MrmlApplication()\n"
        "from MedMAETrainLib import ProjectSegmentation, ProjectFolder\n"
        "from MedMAETrainLib.Project import Project\n"
        "project = Project(sys.argv[1]); _volume, node = project.openCase('case-0001')\n"
        "def die(*_arguments, **_options): os.kill(os.getpid(), signal.SIGKILL)\n"
        "module, name = {module}, {name!r}\n"
        "setattr(module, name, die)\n"
        "project.saveCase(node)")
    paths = [str(ROOT), *(str(ROOT / name) for name in ("MedMAESegment", "MedMAETrain", "Testing/slicer"))]
    for module, name in (("ProjectSegmentation", "write_label"), ("ProjectFolder", "writeProject")):
        done = subprocess.run([sys.executable, "-c", code.format(module=module, name=name), project.path, *paths],
                              check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        with Project(project.path) as again:
            case = again.case("case-0001")
            assert case.segmentation.endswith("0001.seg.nrrd")
            assert np.count_nonzero(read_label(again.file(case.label)).array) == 18
            assert [each.name for each in read_segments(again.file(case.segmentation))] == ["liver"]
            assert not list(again.path.rglob(".partial-*"))
            assert json.loads((again.path / "project.json").read_text())["cases"][0]["state"] == "annotated"
