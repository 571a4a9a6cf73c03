"""The synthetic data of the demo: deterministic, believable, valid."""

import json

import numpy as np
import pytest

from medmae.demo import abdomen, chest
from medmae.demo.shapes import coverage, ellipsoid
from medmae.demo.synthetic import write_abdomen_ct, write_chest_xray

HU = {"liver": (30, 150), "spleen": (30, 190), "kidney": (15, 240), "aorta": (25, 260), "vertebra": (80, 420)}
ML = {"liver": (600, 2600), "spleen": (50, 500), "kidney": (150, 650), "aorta": (25, 160), "vertebra": (80, 500)}


@pytest.fixture(scope="module")
def ct_cases():
    return [abdomen.make_ct(0, index) for index in range(8)]


@pytest.fixture(scope="module")
def xray_cases():
    return [chest.make_xray(0, index) for index in range(10)]


def test_the_same_seed_and_index_give_the_same_voxels_and_others_do_not(ct_cases, xray_cases):
    again = abdomen.make_ct(0, 2)
    assert np.array_equal(again.image, ct_cases[2].image)
    assert np.array_equal(again.label, ct_cases[2].label)
    assert np.array_equal(again.affine, ct_cases[2].affine)
    assert not np.array_equal(abdomen.make_ct(1, 2).image, again.image)
    assert np.array_equal(chest.make_xray(0, 3).image, xray_cases[3].image)
    assert chest.make_xray(1, 3).image.shape != xray_cases[3].image.shape or not np.array_equal(
        chest.make_xray(1, 3).image, xray_cases[3].image)


@pytest.mark.parametrize("organ", list(HU))
def test_every_organ_has_its_volume_and_its_hounsfield_units(ct_cases, organ):
    for case in ct_cases:
        inside = case.label == abdomen.LABELS[organ]
        volume_ml = inside.sum() * abs(np.linalg.det(case.affine[:3, :3])) / 1000
        assert ML[organ][0] < volume_ml < ML[organ][1]
        assert HU[organ][0] < np.median(case.image[inside]) < HU[organ][1]


def test_organs_lie_where_they_belong_in_patient_space_whatever_the_storage_order(ct_cases):
    for case in ct_cases:
        centres = {}
        for name, value in abdomen.LABELS.items():
            kji = np.argwhere(case.label == value).mean(axis=0)
            centres[name] = (case.affine @ [*kji[::-1], 1])[:3]
        assert centres["liver"][0] > 30 > -30 > centres["spleen"][0]  # right and left of the patient
        assert centres["aorta"][1] > centres["vertebra"][1]  # in front of the spine
        assert centres["liver"][2] > centres["kidney"][2]


def test_grids_differ_in_orientation_and_one_in_eight_is_oblique(ct_cases):
    directions = [case.affine[:3, :3] / np.linalg.norm(case.affine[:3, :3], axis=0) for case in ct_cases]
    nearest = {tuple(np.sign(np.where(np.abs(d) > 0.7, d, 0)).ravel()) for d in directions}
    assert len(nearest) == 3
    assert sum(np.abs(d).max() < 0.999 for d in directions) == 1
    for d in directions:
        assert np.allclose(d.T @ d, np.eye(3), atol=1e-12)  # never sheared


def test_noise_is_correlated_between_neighbouring_voxels(ct_cases):
    liver = ct_cases[0].label == abdomen.LABELS["liver"]
    noise = ct_cases[0].image - np.median(ct_cases[0].image[liver])
    both = liver[:, :, 1:] & liver[:, :, :-1]
    assert np.corrcoef(noise[:, :, 1:][both], noise[:, :, :-1][both])[0, 1] > 0.2


def test_lungs_are_dark_the_heart_is_bright_and_the_opacity_is_not_a_trivial_mean(xray_cases):
    for case in xray_cases:
        lung, heart = case.image[case.label == 1], case.image[case.label == 2]
        assert np.median(lung) < np.median(heart)
        assert 0.12 < (case.label == 1).mean() < 0.45
        assert 0.03 < (case.label == 2).mean() < 0.20
    assert {case.finding for case in xray_cases} == {0, 1}
    assert {str(case.image.dtype) for case in xray_cases} == {"uint8", "uint16"}


def test_an_ellipsoid_is_a_distance_near_its_surface_and_partial_volume_is_half_there():
    x, y, z = np.meshgrid(*[np.arange(-20.0, 20.5, 0.5)] * 3, indexing="ij")
    distance = ellipsoid([x, y, z], (1, 2, 3), (10, 10, 10))
    exact = np.sqrt((x - 1) ** 2 + (y - 2) ** 2 + (z - 3) ** 2) - 10
    assert np.abs(distance - exact).max() < 1e-3
    assert coverage(np.zeros(1), 2.0)[0] == 0.5


def test_data_set_files_name_every_file_and_keep_unlabelled_cases_without_labels(tmp_path):
    ct = write_abdomen_ct(tmp_path / "ct", 0, training=2, validation=1, test=1, unlabeled=1)
    segmentation, classification = write_chest_xray(tmp_path / "xray", 0, training=4, validation=1, test=2,
                                                    unlabeled=1)
    for path in (ct, segmentation, classification):
        data = json.loads(path.read_text())
        items = data["training"] + data["validation"] + data["test"]
        for item in items:
            assert (path.parent / item["image"]).is_file()
            assert isinstance(item["label"], int) or (path.parent / item["label"]).is_file()
        assert all(isinstance(item, str) and (path.parent / item).is_file() for item in data["unlabeled"])
        assert set(data["subsets"]["n2"]) <= {item["image"] for item in data["training"]}
        assert len({item["image"] for item in items}) == len(items)
    assert len(list((tmp_path / "ct" / "labels").iterdir())) == 4


def test_written_volumes_keep_voxels_and_affine(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    path = write_abdomen_ct(tmp_path, 0, training=1, validation=0, test=0, unlabeled=6)
    case = abdomen.make_ct(0, 6)  # the oblique one
    image = sitk.ReadImage(str(path.parent / "images" / "ct_006.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(image), case.image)
    corner = np.array(image.TransformIndexToPhysicalPoint((5, 7, 11))) * [-1, -1, 1]
    assert np.allclose(corner, (case.affine @ [5, 7, 11, 1])[:3], atol=1e-3)


def test_organs_that_are_not_asked_for_count_as_background(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    path = write_abdomen_ct(tmp_path, 0, training=1, validation=0, test=0, unlabeled=0, organs=("liver", "kidney"))
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "labels" / "ct_000.nii.gz")))
    assert json.loads(path.read_text())["labels"] == {"background": 0, "liver": 1, "kidney": 3}
    assert set(np.unique(label)) == {0, 1, 3}
