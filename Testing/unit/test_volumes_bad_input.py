import numpy as np
import pytest
import SimpleITK as sitk
from volume_builders import write_nifti

from medmae.errors import BadInput
from medmae.volumes import Geometry, read_image
from medmae.volumes.simpleitk_images import image_of

GEOMETRY = Geometry.of((8, 9, 10), (3, 2, 1))
ENDINGS = ["nii.gz", "nii", "nrrd", "mha", "png", "jpg", "tif"]


def saved(folder, ending):
    path = folder / f"image.{ending}"
    noise = np.random.default_rng(0).integers(0, 255, (8, 90, 100)).astype(np.uint8)
    if ending in ("png", "jpg", "tif"):
        sitk.WriteImage(sitk.GetImageFromArray(noise[0]), str(path))
    else:
        sitk.WriteImage(sitk.GetImageFromArray(noise), str(path), True)
    return path


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kept", [0.0005, 0.1, 0.5, 0.9, 0.99])
def test_a_file_that_ends_too_early_is_refused(tmp_path, ending, kept):
    whole = saved(tmp_path, ending).read_bytes()
    read_image(tmp_path / f"image.{ending}")
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(whole[:max(1, int(kept * len(whole)))])
    with pytest.raises(BadInput, match="cut"):
        read_image(cut)


@pytest.mark.parametrize("missing", [1, 4, 8])
def test_even_a_missing_checksum_of_nifti_is_noticed(tmp_path, missing):
    whole = saved(tmp_path, "nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[:-missing])
    with pytest.raises(BadInput, match="damaged or incomplete"):
        read_image(tmp_path / "cut.nii.gz")


def test_a_flipped_bit_in_compressed_nifti_is_noticed(tmp_path):
    whole = bytearray(saved(tmp_path, "nii.gz").read_bytes())
    whole[len(whole) // 2] ^= 1
    (tmp_path / "bit.nii.gz").write_bytes(whole)
    with pytest.raises(BadInput, match="damaged"):
        read_image(tmp_path / "bit.nii.gz")


@pytest.mark.parametrize("ending", [*ENDINGS, "mhd", "nhdr", "dcm"])
def test_text_under_the_name_of_an_image_is_refused(tmp_path, ending):
    path = tmp_path / f"notes.{ending}"
    path.write_text("these are notes, not an image\n" * 50)
    with pytest.raises(BadInput, match="notes"):
        read_image(path)


@pytest.mark.parametrize("ending", [*ENDINGS, "dcm"])
def test_a_file_of_zero_bytes_is_refused(tmp_path, ending):
    path = tmp_path / f"empty.{ending}"
    path.touch()
    with pytest.raises(BadInput, match="zero bytes"):
        read_image(path)


def test_what_does_not_exist_or_has_no_known_type_is_refused(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        read_image(tmp_path / "absent.nii.gz")
    (tmp_path / "table.csv").write_text("a,b\n")
    with pytest.raises(BadInput, match="known type"):
        read_image(tmp_path / "table.csv")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no DICOM files"):
        read_image(tmp_path)


def test_a_header_without_its_voxel_file_is_refused(tmp_path):
    sitk.WriteImage(image_of(np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY), str(tmp_path / "image.mhd"))
    (tmp_path / "image.raw").unlink()
    with pytest.raises(BadInput, match="cannot be read"):
        read_image(tmp_path / "image.mhd")


@pytest.mark.parametrize("qform_code", [0, 1])
@pytest.mark.parametrize("degrees", [0.2, 5, 20])
def test_a_sheared_nifti_is_refused_even_where_its_qform_looks_sound(tmp_path, qform_code, degrees):
    sform = np.eye(4)
    sform[1, 2] = np.tan(np.radians(degrees))
    sform[2, 2] = 1 / np.hypot(1, sform[1, 2])
    sform[1, 2] *= sform[2, 2]
    path = write_nifti(tmp_path / "tilted.nii", np.zeros((3, 4, 5), np.int16), sform=sform, qform_code=qform_code)
    with pytest.raises(BadInput, match="shear"):
        read_image(path)


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_a_sheared_nrrd_or_mha_is_refused(tmp_path, ending):
    text = {
        "nrrd": "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\n"
                "space directions: (1,0,0) (0.3,1,0) (0,0,1)\nencoding: raw\nspace origin: (0,0,0)\n\n",
        "mha": "ObjectType = Image\nNDims = 3\nBinaryData = True\nTransformMatrix = 1 0 0 0.3 1 0 0 0 1\n"
               "Offset = 0 0 0\nElementSpacing = 1 1 1\nDimSize = 2 2 2\nElementType = MET_UCHAR\n"
               "ElementDataFile = LOCAL\n",
    }[ending]
    (tmp_path / f"tilted.{ending}").write_bytes(text.encode() + bytes(8))
    with pytest.raises(BadInput, match="tilted.*sheared"):
        read_image(tmp_path / f"tilted.{ending}")


def test_a_nifti_with_two_different_voxel_sizes_is_refused(tmp_path):
    path = write_nifti(tmp_path / "sizes.nii", np.zeros((3, 4, 5), np.int16), sform=np.diag([2.0, 2, 2, 1]))
    with pytest.raises(BadInput, match="two different voxel sizes"):
        read_image(path)


def test_where_sform_and_qform_disagree_slicers_choice_is_taken_with_a_warning(tmp_path, caplog):
    sform = np.eye(4)
    sform[:3, 3] = (50, 0, 0)
    path = write_nifti(tmp_path / "moved.nii", np.zeros((3, 4, 5), np.int16), sform=sform, qform_code=1)
    image = sitk.ReadImage(str(path))
    x, y, z = image.GetOrigin()
    np.testing.assert_allclose(read_image(path).geometry.origin_mm, (-x, -y, z), atol=1e-5)
    assert "sform and qform" in caplog.text


def test_complex_numbers_are_refused(tmp_path):
    path = write_nifti(tmp_path / "complex.nii", np.zeros((3, 4, 5), np.complex64), sform=np.eye(4))
    with pytest.raises(BadInput, match="complex"):
        read_image(path)
