"""Cases of a project come from the scene; what is odd is repaired or told."""

from __future__ import annotations

import time

import numpy as np
import pytest
import slicer
from conftest import OBLIQUE
from hypothesis import given
from hypothesis import strategies as st
from MedMAESegmentLib.FollowedJob import RunCancelled
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectLabels import plain, proposeMapping

from medmae.datasets import load_dataset, validate
from medmae.errors import BadInput
from medmae.models.labels import model_labels
from medmae.volumes import Geometry, default_segments, read_image, read_label, read_segments

A, B, C = np.s_[1:3, 2:5, 1:4], np.s_[3:5, 4:7, 5:9], np.s_[0:1, 0:1, 0:1]


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "project", "Livers") as project:
        yield project


@pytest.fixture
def add(project, make_volume, make_segmentation):
    """Add a new volume with these boxes."""
    def add(boxes, **choices):
        volume = make_volume((6 + len(project.cases), 8, 10))
        return project.addCase(volume, make_segmentation(volume, boxes), **choices)

    return add


def label_of(project, case):
    return read_label(project.file(project.case(case).label)).array[0]


def test_a_pair_becomes_a_case_with_image_label_map_and_what_was_drawn(project, make_volume, make_segmentation):
    volume = make_volume(name="DOE^JANE")
    segmentation = make_segmentation(volume, {"liver": A, "spleen": B}, {"liver": (0.1, 0.9, 0.3)})
    case = project.addCase(volume, segmentation)
    assert (case.id, case.subject, case.role, case.state) == ("case-0001", "subject-0001", "training", "annotated")
    assert case.voxels == {"liver": 18, "spleen": 24} and case.notes == ()
    image = read_image(project.file(case.image))
    np.testing.assert_array_equal(image.array[0], slicer.util.arrayFromVolume(volume))
    assert image.geometry.is_close(Geometry(image.array.shape[1:], OBLIQUE))
    label = read_label(project.file(case.label))
    assert label.geometry.is_close(image.geometry)
    assert (label.array[0][A] == 1).all() and (label.array[0][B] == 2).all() and np.count_nonzero(label.array) == 42
    assert [(each.name, each.value) for each in read_segments(project.file(case.segmentation))] == [
        ("liver", 1), ("spleen", 2)]
    assert project.label("liver").color == pytest.approx((0.1, 0.9, 0.3))
    assert project.thumbnail(case).read_bytes()[16:24] == bytes([0, 0, 0, 96, 0, 0, 0, 96])
    assert sorted(path.name for path in (project.path / "cases").iterdir()) == ["case-0001"]


def test_the_engine_reads_the_data_set_and_keeps_colours(project, make_volume, make_segmentation):
    for role in ("training", "training", "test"):
        volume = make_volume(shape=(6 + len(project.cases), 8, 10))
        project.addCase(volume, make_segmentation(volume, {"liver": A}, {"liver": (0.1, 0.9, 0.3)}), role=role)
    project.addCase(make_volume((9, 9, 9)))
    dataset = load_dataset(project.writeDataset(modality="CT"))
    assert {key: len(cases) for key, cases in dataset.lists.items()} == {"training": 2, "test": 1, "unlabeled": 1}
    assert model_labels(dataset.labels, dataset.looks)[1]["color"] == pytest.approx([0.1, 0.9, 0.3])
    validate(dataset, ["training", "test"])


def test_of_what_leaves_nothing_tells_the_patient(project, make_volume, make_segmentation):
    volume = make_volume(name="DOE^JANE")
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.840.99")
    segmentation = make_segmentation(volume, {"liver": A})
    segmentation.SetName("annotated by DR^HOUSE")
    case = project.addCase(volume, segmentation)
    assert case.source.name == "DOE^JANE", "the map stays here"
    for file in (project.file(case.image), project.file(case.label), project.writeDataset()):
        assert not any(secret in file.read_bytes() for secret in (b"DOE", b"HOUSE", b"1.2.840"))


@pytest.mark.parametrize("affine", [np.diag([1.0, 1, 1, 1]), np.diag([-1.0, -1, 1, 1]), np.diag([-2.0, 1, -0.5, 1]),
                                    OBLIQUE[:, [1, 0, 2, 3]], OBLIQUE[:, [2, 1, 0, 3]]])
def test_flipped_and_turned_grids_keep_image_and_label_together(project, make_volume, make_segmentation, affine):
    volume = make_volume(affine=affine)
    case = project.addCase(volume, make_segmentation(volume, {"liver": A}))
    assert (label_of(project, case)[A] == 1).all() and np.count_nonzero(label_of(project, case)) == 18
    validate(load_dataset(project.writeDataset()), ["training"])


def test_a_segmentation_on_another_grid_is_resampled_and_that_is_told(project, make_volume, make_segmentation):
    half = np.diag([0.5, 0.5, 0.5, 1.0])
    half[:3, 3] = -0.25
    volume, fine = make_volume(), make_volume((12, 16, 20), affine=OBLIQUE @ half)
    segmentation = make_segmentation(fine, {"liver": np.s_[2:6, 4:10, 2:8]})
    case = project.addCase(volume, segmentation)
    expected = np.zeros((6, 8, 10))
    expected[1:3, 2:5, 1:4] = 1
    np.testing.assert_array_equal(label_of(project, case), expected)
    assert case.notes == ("Drawn on another grid than the image's; resampled onto it.",)
    drawn = read_label(project.file(case.segmentation))
    assert np.count_nonzero(drawn.array) == 4 * 6 * 6, "what was drawn is kept as it was drawn"


def test_of_overlapping_segments_the_first_label_keeps_the_voxels_and_their_number_is_told(
        project, make_volume, make_segmentation):
    volume = make_volume()
    node = make_segmentation(volume, {"liver": np.s_[1:4, 1:5, 1:5], "tumour": np.s_[2:5, 2:4, 2:4]})
    case = project.addCase(volume, node)
    assert case.notes == ("liver and tumour overlap in 8 voxels, which count as liver.",)
    assert np.bincount(label_of(project, case).ravel()).tolist()[1:] == [48, 4]
    project.setLabelOrder(["tumour", "liver"])
    case = project.saveCase(node)
    assert case.notes == ("tumour and liver overlap in 8 voxels, which count as tumour.",)
    assert np.bincount(label_of(project, case).ravel()).tolist()[1:] == [40, 12]
    with Project.create(project.path.parent / "second") as other:
        other.addLabel("tumour")
        other.addLabel("liver")
        assert np.bincount(label_of(other, other.addCase(volume, node)).ravel()).tolist()[1:] == [12, 40]
    again = slicer.vtkMRMLSegmentationNode()
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(project.file(case.segmentation)))
    slicer.mrmlScene.AddNode(again)
    assert storage.ReadData(again, True)
    counts = [np.count_nonzero(slicer.util.arrayFromSegmentBinaryLabelmap(
        again, again.GetSegmentation().GetNthSegmentID(index), volume)) for index in range(2)]
    assert counts == [48, 12], "both are kept whole in what was drawn"


def test_two_segments_of_one_label_are_one(project, add):
    case = add({"left lobe": A, "right lobe": np.s_[2:4, 2:5, 1:4]},
               mapping={"left lobe": "liver", "right lobe": "liver"})
    assert [label.name for label in project.labels] == ["liver"] and case.notes == ()
    assert np.count_nonzero(label_of(project, case)) == 27


@pytest.mark.parametrize("boxes", [{"liver": None, "spleen": B}, {"liver": None, "spleen": None}])
def test_a_case_with_an_empty_segment_is_kept_but_not_trained_on_until_that_is_meant(project, add, boxes):
    case = add(boxes)
    assert case.state == "unannotated" and case.notes[0].startswith("No voxel of liver")
    with pytest.raises(ValueError, match="No case of the project can be trained on"):
        project.writeDataset()
    again = add(boxes, allowMissing=True)
    assert again.state == "annotated" and again.allowMissing


def test_that_nothing_is_missing_can_be_said_later(project, add):
    add({"liver": A, "tumour": B})
    case = add({"liver": A})
    assert case.state == "unannotated" and case.notes == ("No voxel of tumour.",)
    project.acceptMissing(case)
    assert project.case(case).state == "annotated"
    assert len(load_dataset(project.writeDataset()).cases("training")) == 2
    project.acceptMissing(case, False)
    assert project.case(case).state == "unannotated"


def test_segments_are_matched_by_name_as_people_write_them(project, add):
    add({"Left Kidney": A, "Leber": B})
    case = add({"left_kidney": A, "LEBER ": B})
    assert case.voxels == {"Left Kidney": 18, "Leber": 24} and len(project.labels) == 2
    with pytest.raises(ValueError, match="No label of the project is like the segments milt; its labels are Left Kid"):
        add({"leber": A, "milt": B})
    assert len(project.cases) == 2
    case = add({"leber": A, "milt": B, "scratch": C}, mapping={"milt": "Left Kidney", "scratch": None})
    assert case.voxels == {"Leber": 18, "Left Kidney": 24} and case.notes == ("Left out: scratch.",)
    add({"leber": A, "milt": B}, mapping={"milt": "Spleen"})
    assert [label.name for label in project.labels] == ["Left Kidney", "Leber", "Spleen"]
    with pytest.raises(ValueError, match="There is no segment lung"):
        add({"leber": A}, mapping={"lung": None})


@pytest.mark.parametrize(("one", "other"), [("Liver", "liver "), ("Nierenbecken links", "nierenbecken_links"),
                                            ("Ösophagus", "osophagus"), ("foie-gauche", "Foie Gauche"), ("ß", "SS")])
def test_names_that_are_alike(one, other):
    assert plain(one) == plain(other)
    assert proposeMapping(default_segments({one: 1}), [other]) == {other: one}


@given(st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=5), st.text(min_size=1, max_size=6))
def test_a_proposal_never_invents_and_prefers_the_same_name(names, wanted):
    labels = default_segments({name: number for number, name in enumerate(names, 1)})
    proposed = proposeMapping(labels, [wanted])[wanted]
    assert proposed == wanted if wanted in names or not any(plain(name) == plain(wanted) for name in names) else (
        proposed in names and plain(proposed) == plain(wanted))


@pytest.mark.parametrize("name", ["<b>liver</b>", "a/b", "../x", 'q"uo\\te', "ü字"])
def test_hostile_names_of_nodes_and_segments_stay_names(project, make_volume, make_segmentation, name):
    volume = make_volume(name=name)
    case = project.addCase(volume, make_segmentation(volume, {name: A}))
    assert case.source.name == name and project.labels[0].name == name
    assert project.file(case.image) == project.path / "cases" / "case-0001" / "image.nrrd"
    assert load_dataset(project.writeDataset()).labels[name] == 1


@pytest.mark.parametrize(("change", "message"), [
    (lambda node: node.GetSegmentation().RemoveAllSegments(), "has no segments"),
    (lambda node: node.GetSegmentation().AddEmptySegment("", "liver"), "2 segments named liver"),
    (lambda node: node.GetSegmentation().AddEmptySegment("", "background"), "background already"),
    (lambda node: node.GetSegmentation().GetNthSegment(0).SetName(" "), "has no name")])
def test_what_cannot_be_labels_is_told_and_leaves_nothing(project, make_volume, make_segmentation, change, message):
    volume = make_volume()
    node = make_segmentation(volume, {"liver": A})
    change(node)
    with pytest.raises(ValueError, match=message):
        project.addCase(volume, node)
    assert project.cases == () and not (project.path / "cases").exists()


def test_what_is_no_usable_volume_is_told(project, make_volume):
    with pytest.raises(ValueError, match="A volume is needed"):
        project.addCase(None)
    tilted = np.eye(4)
    tilted[1, 2] = 0.4
    with pytest.raises(BadInput, match="shear"):
        project.addCase(make_volume(affine=tilted))


def test_the_same_image_twice_is_told(project, make_volume, make_segmentation):
    volume = make_volume(name="CT 1")
    project.addCase(volume, make_segmentation(volume, {"liver": A}))
    with pytest.raises(ValueError, match="CT 1 is in the project already, as case-0001"):
        project.addCase(volume)
    assert project.addCase(volume, again=True).id == "case-0002"


def test_all_pairs_of_the_scene_are_added_and_what_has_no_partner_is_named(project, make_volume, make_segmentation):
    volumes = [make_volume((6, 8, 10), name="one"), make_volume((7, 8, 10), name="two"), make_volume((8, 8, 10),
               name="three"), make_volume((9, 8, 10), name="alone"), make_volume((5, 8, 10), name="empty")]
    for volume in volumes[:3]:
        make_segmentation(volume, {"liver": A})
    make_segmentation(volumes[2], {"liver": B})
    make_segmentation(volumes[4], {})
    stray = make_segmentation(volumes[3], {"liver": A})
    stray.SetName("of nobody")
    stray.SetNodeReferenceID(stray.GetReferenceImageGeometryReferenceRole(), None)
    added = project.addScene()
    assert [case.source.name for case in added.cases] == ["one", "two"]
    told = dict(added.skipped)
    assert set(told) == {"three", "of nobody", "empty"}
    assert "2 segmentations" in told["three"] and "which volume" in told["of nobody"] and "no segments" in told["empty"]
    assert {"one", "two"} <= {name for name, reason in project.addScene().skipped if "already" in reason}


def test_volumes_of_one_patient_are_one_subject_and_follow_their_role(project, scene, make_volume, make_segmentation):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "DOE^JANE"), "first")
    volumes = [make_volume((size, 8, 10)) for size in (6, 7, 8, 9)]
    for volume in volumes[:3]:
        hierarchy.CreateItem(study, volume)
    first = project.addCase(volumes[0], make_segmentation(volumes[0], {"liver": A}), role="test")
    second = project.addCase(volumes[1], make_segmentation(volumes[1], {"liver": A}))
    assert (second.subject, second.role) == (first.subject, "test")
    with pytest.raises(ValueError, match="one side only"):
        project.addCase(volumes[2], make_segmentation(volumes[2], {"liver": A}), role="training")
    assert sorted(path.name for path in (project.path / "cases").iterdir()) == ["case-0001", "case-0002"]
    assert project.addCase(volumes[3]).subject != first.subject


def test_a_linear_transform_counts_for_image_and_label_alike(project, scene, make_volume, make_segmentation):
    volume = make_volume()
    segmentation = make_segmentation(volume, {"liver": A})
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    turn = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(turn))
    for node in (volume, segmentation):
        node.SetAndObserveTransformNodeID(transform.GetID())
    case = project.addCase(volume, segmentation)
    assert (label_of(project, case)[A] == 1).all() and np.count_nonzero(label_of(project, case)) == 18
    assert read_image(project.file(case.image)).geometry.is_close(Geometry((6, 8, 10), turn @ OBLIQUE))
    scene.Clear(0)
    volume, segmentation = project.openCase(case)
    array = slicer.util.arrayFromSegmentBinaryLabelmap(
        segmentation, segmentation.GetSegmentation().GetNthSegmentID(0), volume)
    assert np.count_nonzero(array) == 18, "what was drawn lies on the image"


def test_a_surface_becomes_voxels(project, make_volume, make_segmentation):
    volume = make_volume((20, 20, 20), affine=np.eye(4))
    node = make_segmentation(volume, {"liver": np.s_[5:15, 5:15, 5:15]})
    node.CreateClosedSurfaceRepresentation()
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    node.GetSegmentation().RemoveRepresentation("Binary labelmap")
    case = project.addCase(volume, node)
    assert 700 < case.voxels["liver"] <= 1000
    assert [each.name for each in read_segments(project.file(case.segmentation))] == ["liver"]


def test_cancelling_leaves_the_project_as_it_was(project, make_volume, make_segmentation, monkeypatch):
    monkeypatch.setattr(slicer.app, "processEvents", project.cancel)
    volume = make_volume()
    with pytest.raises(RunCancelled):
        project.addCase(volume, make_segmentation(volume, {"liver": A}))
    assert project.cases == () and list((project.path / "cases").iterdir()) == []


@pytest.mark.alone
def test_a_large_volume_never_holds_the_application_long(project, make_segmentation, monkeypatch):
    volume = slicer.util.addVolumeFromArray(
        np.random.default_rng(0).integers(-1000, 1000, (200, 512, 512)).astype(np.int16))
    segmentation = make_segmentation(volume, {f"segment {number}": np.s_[40 * number:40 * number + 30, 100:300, 100:400]
                                              for number in range(3)})
    pauses, last = [], [time.perf_counter()]

    def pump():
        now = time.perf_counter()
        pauses.append(now - last[0])
        last[0] = now

    monkeypatch.setattr(slicer.app, "processEvents", pump)
    project.addCase(volume, segmentation)
    assert len(pauses) > 20 and np.quantile(pauses, 0.98) < 0.1 and max(pauses) < 0.5
