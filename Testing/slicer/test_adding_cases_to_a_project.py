"""Cases of a project come from the scene, from folders and from the DICOM database; what is odd is repaired or told."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer
from conftest import OBLIQUE
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectLabels import plain, proposeMapping

from medmae.datasets import load_dataset
from medmae.errors import BadInput
from medmae.volumes import Geometry, read_image, read_label, read_segments

A, B, C = np.s_[1:3, 2:5, 1:4], np.s_[3:5, 4:7, 5:9], np.s_[0:1, 0:1, 0:1]


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "project", "Livers") as project:
        yield project


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


def test_the_engine_reads_the_data_set_and_keeps_colours(project, make_volume, make_segmentation):
    from medmae.models.labels import model_labels

    for role in ("training", "training", "test"):
        volume = make_volume(shape=(6 + len(project.cases), 8, 10))
        project.addCase(volume, make_segmentation(volume, {"liver": A}, {"liver": (0.1, 0.9, 0.3)}), role=role)
    project.addCase(make_volume((9, 9, 9)))
    dataset = load_dataset(project.writeDataset(modality="CT"))
    assert {key: len(cases) for key, cases in dataset.lists.items()} == {"training": 2, "test": 1, "unlabeled": 1}
    assert model_labels(dataset.labels, dataset.looks)[1]["color"] == pytest.approx([0.1, 0.9, 0.3])
    from medmae.datasets import validate

    validate(dataset, ["training", "test"])
