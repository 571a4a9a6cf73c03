"""Annotated volumes become a dataset: names to values, one grid, no patient data, all problems at once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer
from conftest import OBLIQUE
from MedMAETrainLib.CaseExport import collectLabels, exportDataset, guessModality, neutralSubjects

A, B, C = np.s_[1:3, 2:5, 1:4], np.s_[3:5, 4:7, 5:9], np.s_[0:1, 0:1, 0:1]


def _array(path):
    import SimpleITK

    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def test_the_same_name_gets_the_same_value_in_every_case(make_volume, make_segmentation, tmp_path):
    one, two = make_volume(), make_volume((7, 8, 10))
    cases = [(one, make_segmentation(one, {"liver": A, "spleen": B})),
             (two, make_segmentation(two, {"spleen": A, "liver": B}))]
    path, labels = exportDataset(cases, tmp_path / "data", "CT")
    assert [(label.name, label.value) for label in labels] == [("liver", 1), ("spleen", 2)]
    first, second = _array(tmp_path / "data/labels/case_001.nrrd"), _array(tmp_path / "data/labels/case_002.nrrd")
    assert (first[A] == 1).all() and (first[B] == 2).all() and (first > 0).sum() == (first[A].size + first[B].size)
    assert (second[A] == 2).all() and (second[B] == 1).all()
    assert first.dtype == np.uint8
    data = json.loads(path.read_text())
    assert data["labels"] == {"background": 0, "liver": 1, "spleen": 2}
    assert data["channel_names"] == {"0": "CT"}


def test_the_engine_reads_what_was_written(make_volume, make_segmentation, tmp_path):
    from medmae.datasets import load_dataset

    volume = make_volume()
    path, _ = exportDataset([(volume, make_segmentation(volume, {"liver": A}))], tmp_path / "data", "MR")
    dataset = load_dataset(path)
    assert dataset.task == "segmentation"
    assert [case.id for case in dataset.cases("training")] == ["case_001"]
    assert all(image.is_file() for case in dataset.cases("training") for image in (*case.images, case.label))


def test_no_name_of_a_node_leaves_the_scene(make_volume, make_segmentation, tmp_path):
    volume = make_volume(name="DOE^JANE")
    segmentation = make_segmentation(volume, {"liver": A})
    segmentation.SetName("annotated by DR^HOUSE")
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.840.99")
    exportDataset([(volume, segmentation)], tmp_path / "data", "CT")
    for file in (tmp_path / "data").rglob("*"):
        assert "DOE" not in file.name
        if file.is_file():
            content = file.read_bytes()
            assert not any(secret in content for secret in (b"DOE", b"HOUSE", b"1.2.840"))


def test_a_segmentation_on_another_grid_is_resampled_onto_the_volume(make_volume, make_segmentation, tmp_path):
    volume = make_volume()
    fine = make_volume((12, 16, 20), affine=OBLIQUE @ _half_grid())
    segmentation = make_segmentation(fine, {"liver": np.s_[2:6, 4:10, 2:8]})
    exportDataset([(volume, segmentation)], tmp_path / "data", "CT")
    label = _array(tmp_path / "data/labels/case_001.nrrd")
    assert label.shape == (6, 8, 10)
    expected = np.zeros_like(label)
    expected[1:3, 2:5, 1:4] = 1
    np.testing.assert_array_equal(label, expected)


def _half_grid() -> np.ndarray:
    """Voxels of half the size that fill the same field of view."""
    matrix = np.diag([0.5, 0.5, 0.5, 1.0])
    matrix[:3, 3] = -0.25
    return matrix


def test_transforms_of_both_nodes_count(scene, make_volume, make_segmentation, tmp_path):
    volume = make_volume()
    segmentation = make_segmentation(volume, {"liver": A})
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    turn = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(turn))
    for node in (volume, segmentation):
        node.SetAndObserveTransformNodeID(transform.GetID())
    exportDataset([(volume, segmentation)], tmp_path / "data", "CT")
    assert (_array(tmp_path / "data/labels/case_001.nrrd")[A] == 1).all()


def test_a_segmentation_that_reaches_beyond_the_volume_is_cropped(scene, make_volume, make_segmentation, tmp_path):
    volume = make_volume()
    shift = np.eye(4)
    shift[:3, 3] = [-2, -1, -3]  # voxels: begins before the volume, ends inside it
    larger = make_volume((7, 8, 10), affine=OBLIQUE @ shift)
    segmentation = make_segmentation(larger, {"liver": np.s_[2:6, 0:5, 1:6]})
    labelmap = segmentation.GetBinaryLabelmapInternalRepresentation(segmentation.GetSegmentation().GetNthSegmentID(0))
    labelmap.SetExtent(-2, 7, -1, 6, -3, 3)  # the same voxels, counted on the volume's grid
    labelmap.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(OBLIQUE))
    exportDataset([(volume, segmentation)], tmp_path / "data", "CT")
    expected = np.zeros((6, 8, 10), np.uint8)
    expected[0:3, 0:4, 0:4] = 1
    np.testing.assert_array_equal(_array(tmp_path / "data/labels/case_001.nrrd"), expected)


def test_a_closed_surface_is_turned_into_voxels(make_volume, make_segmentation, tmp_path):
    volume = make_volume((20, 20, 20), affine=np.eye(4))
    segmentation = make_segmentation(volume, {"liver": np.s_[5:15, 5:15, 5:15]})
    segmentation.CreateClosedSurfaceRepresentation()
    segmentation.GetSegmentation().SetSourceRepresentationName("Closed surface")
    segmentation.GetSegmentation().RemoveRepresentation("Binary labelmap")
    exportDataset([(volume, segmentation)], tmp_path / "data", "CT")
    label = _array(tmp_path / "data/labels/case_001.nrrd")
    assert label[7:13, 7:13, 7:13].all() and 700 < label.sum() < 1300


def test_all_problems_come_in_one_message(scene, make_volume, make_segmentation, tmp_path):
    one, two = make_volume(), make_volume()
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing in it")
    cases = [(one, make_segmentation(one, {"liver": A, "spleen": B})), (two, make_segmentation(two, {"livr": A})),
             (empty, make_segmentation(one, {"liver": A, "spleen": B})), (two, None)]
    with pytest.raises(ValueError) as error:
        exportDataset(cases, tmp_path / "data", "CT")
    message = str(error.value)
    assert "Case 1 has no segment named livr" in message
    assert "Case 2 has no segment named liver" in message and "Case 2 has no segment named spleen" in message
    assert "Case 3: The volume nothing in it is empty" in message
    assert "Case 4: there is no segmentation" in message
    assert message.endswith("Correct the segmentations and start again.")


def test_overlapping_and_empty_segments_are_explained_together(make_volume, make_segmentation, tmp_path):
    volume = make_volume()
    segmentation = make_segmentation(volume, {"liver": A, "tumour": np.s_[2:3, 2:4, 1:2], "spleen": None})
    with pytest.raises(ValueError) as error:
        exportDataset([(volume, segmentation)], tmp_path / "data", "CT")
    assert "the segments liver and tumour overlap in 2 voxels" in str(error.value)
    assert "the segment spleen is empty, or lies outside the volume" in str(error.value)


def test_missing_segments_can_be_accepted(make_volume, make_segmentation, tmp_path):
    one, two = make_volume(), make_volume()
    cases = [(one, make_segmentation(one, {"liver": A, "tumour": C})), (two, make_segmentation(two, {"liver": A}))]
    _, labels = exportDataset(cases, tmp_path / "data", "CT", allowMissing=True)
    assert [label.name for label in labels] == ["liver", "tumour"]
    assert set(np.unique(_array(tmp_path / "data/labels/case_002.nrrd"))) == {0, 1}


def test_two_segments_of_one_name_are_refused(make_volume, make_segmentation):
    volume = make_volume()
    segmentation = make_segmentation(volume, {"liver": A})
    segmentation.GetSegmentation().AddEmptySegment("", "liver")
    with pytest.raises(ValueError, match="has 2 segments named liver"):
        collectLabels([(volume, segmentation)])


def test_volumes_of_one_patient_share_a_neutral_subject(scene, make_volume):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "DOE^JANE")
    study = hierarchy.CreateStudyItem(patient, "follow-up")
    volumes = [make_volume() for _ in range(3)]
    for volume, parent in zip(volumes, (study, hierarchy.GetSceneItemID(), study), strict=True):
        hierarchy.CreateItem(parent, volume)
    assert neutralSubjects(volumes) == ["subject_001", "subject_002", "subject_001"]


def test_exporting_leaves_the_scene_as_it_was(scene, make_volume, make_segmentation, tmp_path):
    volume = make_volume()
    segmentation = make_segmentation(volume, {"liver": A})
    scene.GetSubjectHierarchyNode()  # as in the application, where it always exists
    before = scene.GetNumberOfNodes()
    exportDataset([(volume, segmentation)], tmp_path / "data", "CT")
    assert scene.GetNumberOfNodes() == before


def test_the_modality_is_guessed_from_the_voxels(scene):
    def volume(array):
        return slicer.util.addVolumeFromArray(array)

    assert guessModality(volume(np.full((4, 5, 6), -1000, np.int16))) == "CT"
    assert guessModality(volume(np.full((4, 5, 6), 7, np.int16))) == "MR"
    assert guessModality(volume(np.full((1, 5, 6), 7, np.uint8))) == "DX"


@pytest.mark.parametrize(("name", "message"), [
    ("background", "background already"), ("Background ", "background already"), ("  ", "without a name")])
def test_names_that_cannot_be_labels_are_refused(make_volume, make_segmentation, name, message):
    volume = make_volume()
    with pytest.raises(ValueError, match=message):
        collectLabels([(volume, make_segmentation(volume, {"liver": A, name: C}))])


def test_white_space_in_names_does_not_count(make_volume, make_segmentation, tmp_path):
    one, two = make_volume(), make_volume()
    cases = [(one, make_segmentation(one, {"left  lung ": A})), (two, make_segmentation(two, {"left\nlung": A}))]
    _, labels = exportDataset(cases, tmp_path / "data", "CT")
    assert [label.name for label in labels] == ["left lung"]
    assert (_array(tmp_path / "data/labels/case_001.nrrd") == 1).sum() == 2 * 3 * 3


@pytest.mark.parametrize("name", ['q"uo\\te', "<b>bold</b>", "a/b", "ü字", "7", "x" * 300])
def test_hostile_segment_names_reach_the_engine_unchanged(make_volume, make_segmentation, tmp_path, name):
    from medmae.datasets import load_dataset

    volume = make_volume()
    path, _ = exportDataset([(volume, make_segmentation(volume, {name: A, "other": C}))], tmp_path / "data", "CT")
    assert load_dataset(path).labels == {"background": 0, name: 1, "other": 2}


def test_the_same_case_twice_is_refused(make_volume, make_segmentation):
    volume = make_volume()
    case = (volume, make_segmentation(volume, {"liver": A}))
    with pytest.raises(ValueError, match="Case 2 is the same as case 1"):
        collectLabels([case, case])


def test_two_annotations_of_one_volume_share_a_subject(make_volume):
    one, two = make_volume(), make_volume()
    assert neutralSubjects([one, two, one]) == ["subject_001", "subject_002", "subject_001"]


def test_a_segment_that_no_case_shows_is_refused_even_when_missing_ones_are_accepted(
        make_volume, make_segmentation, tmp_path):
    volume = make_volume()
    with pytest.raises(ValueError, match="No case shows the segment tumour"):
        exportDataset([(volume, make_segmentation(volume, {"liver": A, "tumour": None}))], tmp_path / "data", "CT",
                      allowMissing=True)


def test_what_is_not_a_pair_of_volume_and_segmentation_is_refused(make_volume):
    volume = make_volume()
    for cases in ("ab", [volume], [(volume,)]):
        with pytest.raises(ValueError, match="a pair"):
            collectLabels(cases)
    with pytest.raises(ValueError, match="there is no segmentation"):
        collectLabels([(volume, volume)])


def test_exporting_a_surface_leaves_its_segmentation_as_it_was(make_volume, make_segmentation, tmp_path):
    volume = make_volume(affine=np.eye(4))
    node = make_segmentation(volume, {"liver": np.s_[1:5, 1:7, 1:9]})
    node.CreateClosedSurfaceRepresentation()
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    node.GetSegmentation().RemoveRepresentation("Binary labelmap")
    exportDataset([(volume, node)], tmp_path / "data", "CT")
    assert (_array(tmp_path / "data/labels/case_001.nrrd") == 1).sum() > 100
    assert not node.GetSegmentation().ContainsRepresentation("Binary labelmap")
