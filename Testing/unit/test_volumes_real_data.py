"""Real scans: every file is read, agrees with SimpleITK, and results land on its exact grid."""

import numpy as np
import pytest
import SimpleITK as sitk
from volume_builders import SHARED_VOLUMES

from medmae.errors import BadInput
from medmae.volumes import (
    Geometry,
    default_intensity,
    find_images,
    read_image,
    read_label,
    reorient,
    resample,
    resample_labels,
    resampled_geometry,
    write_label,
)
from medmae.volumes.simpleitk_images import affine_of

pytestmark = pytest.mark.skipif(not SHARED_VOLUMES.is_dir(), reason="shared data is not here")

FACTS = {  # (k, j, i), spacing (k, j, i), axes: as the data's README states them
    "ct_abdomen_512/image.nii.gz": ((20, 512, 512), (2.0, 0.977, 0.977), "LPS"),
    "ct_abdomen_dicom": ((6, 256, 256), (2.0, 0.977, 0.977), "LPS"),
    "ct_trunk_3mm/image.nii.gz": ((112, 101, 122), (3, 3, 3), "RAS"),
    "mr_sarcoma_native/image.nrrd": ((66, 131, 151), (3.27, 0.977, 0.977), "LPS"),
    "mr_brain_epi_oblique/image.nii.gz": ((24, 96, 128), (2.2, 2.0, 2.0), "LAS"),
    "mr_spinal_cord_oblique_thick/image.nii.gz": ((5, 40, 40), (17, 0.844, 0.844), "LAS"),
    "mr_spinal_cord_psr_axes/image.nii.gz": ((52, 55, 60), (1, 1, 1), "PSR"),
}
LABELS = ["ct_abdomen_512/labels_model_made.nii.gz", "ct_trunk_3mm/labels_model_made.nii.gz",
          "mr_sarcoma_native/label.nrrd", "mr_spinal_cord_oblique_thick/label.nii.gz",
          "mr_spinal_cord_psr_axes/label.nii.gz"]


@pytest.mark.parametrize("name", FACTS)
def test_size_spacing_and_axes_are_those_of_the_readme(name):
    shape, spacing, axes = FACTS[name]
    volume = read_image(SHARED_VOLUMES / name)
    assert volume.array.shape == (1, *shape)
    np.testing.assert_allclose(volume.geometry.spacing_mm, spacing, atol=6e-3)
    assert volume.geometry.axes == axes


@pytest.mark.parametrize("name", [name for name in [*FACTS, *LABELS] if "." in name])
def test_voxels_and_grid_agree_with_simpleitk(name):
    volume = read_image(SHARED_VOLUMES / name)
    image = sitk.ReadImage(str(SHARED_VOLUMES / name))
    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image))
    oracle = Geometry(volume.geometry.shape, affine_of(image.GetSpacing(), image.GetOrigin(), image.GetDirection()))
    assert volume.geometry.is_close(oracle)


def test_the_dicom_crop_equals_its_nifti_twin_voxel_for_voxel_and_in_geometry():
    dicom = read_image(SHARED_VOLUMES / "ct_abdomen_dicom")
    twin = read_image(SHARED_VOLUMES / "ct_abdomen_dicom" / "same_as.nii.gz")
    np.testing.assert_array_equal(dicom.array, twin.array)
    assert dicom.array.dtype == twin.array.dtype == np.int16
    assert dicom.geometry.is_close(twin.geometry)


def test_the_first_frame_of_the_4d_file_is_its_3d_twin():
    folder = SHARED_VOLUMES / "mr_brain_epi_oblique"
    with pytest.raises(BadInput, match="2 images"):
        read_image(folder / "image_4d.nii.gz")
    first, twin = read_image(folder / "image_4d.nii.gz", frame=0), read_image(folder / "image.nii.gz")
    np.testing.assert_array_equal(first.array, twin.array)
    assert first.geometry.is_close(twin.geometry)
    assert (read_image(folder / "image_4d.nii.gz", frame=1).array != twin.array).any()


@pytest.mark.parametrize("name", LABELS)
def test_labels_lie_on_the_grid_of_their_image_and_survive_writing(tmp_path, name):
    label = read_label(SHARED_VOLUMES / name)
    image = next((SHARED_VOLUMES / name).parent.glob("image.*"))
    assert label.geometry.is_close(read_image(image).geometry, 1e-3)
    for format in ("nii.gz", "nrrd", "seg.nrrd"):
        back = read_label(write_label(tmp_path / f"a.{format}", label.array[0], label.geometry, [], format))
        np.testing.assert_array_equal(back.array, label.array)
        assert back.geometry.is_close(label.geometry)


@pytest.mark.parametrize("name", LABELS)
def test_labels_taken_to_a_models_grid_and_back_stay_the_same_nearly_everywhere(name):
    label = read_label(SHARED_VOLUMES / name)
    turned, grid = reorient(label.array[0], label.geometry, "RAS")
    work = resampled_geometry(grid, np.minimum(grid.spacing_mm, 1.5))
    back = resample_labels(resample_labels(turned, grid, work), work, label.geometry)
    assert back.shape == label.geometry.shape
    reference = label.array[0] > 0
    dice = 2 * ((back > 0) & reference).sum() / ((back > 0).sum() + reference.sum())
    assert dice > 0.97


@pytest.mark.parametrize("name", FACTS)
def test_an_image_taken_to_a_models_grid_and_back_stays_in_place(name):
    volume = read_image(SHARED_VOLUMES / name)
    turned, grid = reorient(volume.array, volume.geometry, "RAS")
    work = resampled_geometry(grid, np.minimum(grid.spacing_mm, 1.5))
    back = resample(resample(turned, grid, work), work, volume.geometry)
    assert back.shape == volume.array.shape
    inner = (0, *(slice(1, -1) if size > 3 else slice(None) for size in volume.geometry.shape))
    assert np.corrcoef(back[inner].ravel(), volume.array[inner].ravel())[0, 1] > 0.95


def test_all_images_are_found_and_have_different_output_names():
    found = find_images([SHARED_VOLUMES])
    assert len(found) == 14
    assert SHARED_VOLUMES / "ct_abdomen_dicom" in [image.path for image in found]
    assert len({image.output_name for image in found}) == 14


def test_intensities_of_ct_and_mr_fill_the_range():
    for name, modality in (("ct_trunk_3mm/image.nii.gz", "CT"), ("mr_sarcoma_native/image.nrrd", "MR")):
        result = default_intensity(modality).apply(read_image(SHARED_VOLUMES / name).array)
        assert (result.min(), result.max()) == (0, 1)
        assert 0.05 < result.std() < 0.5
