import gc
import gzip
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from volume_builders import geometries, write_nifti

from medmae.errors import BadInput
from medmae.volumes import Geometry, read_image, read_label
from medmae.volumes.simpleitk_images import affine_of, image_of

GEOMETRY = Geometry.of((4, 5, 6), (3, 2, 1), axes="LPS", origin_mm=(10, -20, 30))


def save(path, array, geometry=GEOMETRY):
    sitk.WriteImage(image_of(array, geometry), str(path), True)
    return path


def numbers(dtype=np.int16):
    return np.arange(120).reshape(4, 5, 6).astype(dtype)


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_voxels_type_and_grid_come_back_from_every_format(tmp_path, ending, dtype):
    volume = read_image(save(tmp_path / f"image.{ending}", numbers(dtype)))
    np.testing.assert_array_equal(volume.array[0], numbers(dtype))
    assert volume.array.dtype == dtype
    assert volume.geometry.is_close(GEOMETRY)
    assert (volume.is_2d, volume.spacing_known) == (False, True)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(geometry=geometries(), ending=st.sampled_from(["nii.gz", "nrrd", "mha"]))
def test_any_grid_is_read_as_simpleitk_reads_it(tmp_path, geometry, ending):
    path = save(tmp_path / f"image.{ending}", np.zeros(geometry.shape, np.uint8), geometry)
    image = sitk.ReadImage(str(path))
    oracle = Geometry(geometry.shape, affine_of(image.GetSpacing(), image.GetOrigin(), image.GetDirection()))
    volume = read_image(path)
    assert volume.geometry.is_close(oracle, 1e-4)
    assert volume.geometry.is_close(geometry, 1e-3)


def test_capital_letters_in_an_extension_are_fine(tmp_path):
    save(tmp_path / "image.nii.gz", numbers()).rename(tmp_path / "IMAGE.NII.GZ")
    np.testing.assert_array_equal(read_image(tmp_path / "IMAGE.NII.GZ").array[0], numbers())


@pytest.mark.parametrize("order", "<>")
def test_slope_and_intercept_of_nifti_are_applied_in_both_byte_orders(tmp_path, order):
    path = write_nifti(tmp_path / "image.nii", numbers(), sform=np.eye(4), slope=0.5, intercept=-3, order=order)
    volume = read_image(path)
    np.testing.assert_allclose(volume.array[0], numbers() * 0.5 - 3)
    np.testing.assert_allclose(volume.array[0], sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    assert volume.array.dtype == np.float32


@pytest.mark.parametrize("low, high, slope, intercept, kind", [
    (0, 4095, 1, -1024, np.int16), (-32768, 32767, 1, -1024, np.int32), (-32768, 32767, 1, 1, np.int32),
    (-32768, 32767, 1000, 0, np.int32), (-32768, 32767, 2.0**20, 0, np.float32), (0, 100, 0.25, 0, np.float32),
])
def test_rescaled_values_neither_overflow_nor_take_more_bytes_than_they_need(tmp_path, low, high, slope, intercept,
                                                                            kind):
    stored = np.array([low, high, 0, 1], np.int16).reshape(1, 2, 2)
    path = write_nifti(tmp_path / "image.nii", stored, sform=np.eye(4), slope=slope, intercept=intercept)
    array = read_image(path).array
    np.testing.assert_array_equal(array[0], stored * np.float64(slope) + intercept)
    np.testing.assert_array_equal(array[0], sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    assert array.dtype == kind


def test_voxels_read_by_simpleitk_outlive_its_image_and_are_not_written(tmp_path):
    array = read_image(save(tmp_path / "image.nrrd", numbers())).array
    gc.collect()
    np.testing.assert_array_equal(array[0], numbers())
    with pytest.raises(ValueError, match="read-only"):
        array[...] = 0


def test_a_nifti_2_file_is_read_like_nifti_1(tmp_path):
    header = bytearray(544)
    struct.pack_into("<i", header, 0, 540)
    header[4:12] = b"n+2\0\r\n\x1a\n"
    struct.pack_into("<2h", header, 12, 4, 16)
    struct.pack_into("<8q", header, 16, 3, 6, 5, 4, 1, 1, 1, 1)
    struct.pack_into("<8d", header, 104, 1, 1, 2, 3, 1, 1, 1, 1)
    struct.pack_into("<q", header, 168, 544)
    struct.pack_into("<2i", header, 344, 0, 1)
    struct.pack_into("<12d", header, 400, 1, 0, 0, 7, 0, 2, 0, 8, 0, 0, 3, 9)
    path = tmp_path / "image.nii"
    path.write_bytes(bytes(header) + numbers("<i2").tobytes())
    volume = read_image(path)
    np.testing.assert_array_equal(volume.array[0], numbers())
    np.testing.assert_allclose(volume.geometry.affine[:3, 3], (7, 8, 9))


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_a_frame_of_a_4d_nifti_is_chosen(tmp_path, ending):
    frames = np.stack([numbers(), numbers() + 500, numbers() + 900])
    path = write_nifti(tmp_path / "image.nii", frames, sform=np.eye(4))
    if ending == "nii.gz":
        path = tmp_path / "image.nii.gz"
        path.write_bytes(gzip.compress((tmp_path / "image.nii").read_bytes()))
    for frame in range(3):
        np.testing.assert_array_equal(read_image(path, frame=frame).array, frames[frame:frame + 1])
    with pytest.raises(BadInput, match="3 images"):
        read_image(path)
    with pytest.raises(BadInput, match="frame 3 does not exist"):
        read_image(path, frame=3)


def test_a_4d_file_with_one_frame_is_a_volume(tmp_path):
    path = write_nifti(tmp_path / "image.nii", numbers()[None], sform=np.eye(4))
    np.testing.assert_array_equal(read_image(path).array[0], numbers())


@pytest.mark.parametrize("kinds", ["list domain domain domain", "domain domain domain list"])
def test_a_slicer_sequence_in_nrrd_gives_its_frames(tmp_path, kinds):
    frames = np.stack([numbers(), numbers() + 500])
    first = kinds.startswith("list")
    sizes = "2 6 5 4" if first else "6 5 4 2"
    directions = "none (1,0,0) (0,2,0) (0,0,3)" if first else "(1,0,0) (0,2,0) (0,0,3) none"
    stored = np.moveaxis(frames, 0, -1) if first else frames
    path = tmp_path / "image.seq.nrrd"
    path.write_bytes(f"NRRD0004\ntype: short\ndimension: 4\nspace: left-posterior-superior\nsizes: {sizes}\n"
                     f"space directions: {directions}\nkinds: {kinds}\nendian: little\nencoding: raw\n"
                     "space origin: (0,0,0)\n\n".encode() + np.ascontiguousarray(stored, "<i2").tobytes())
    np.testing.assert_array_equal(read_image(path, frame=1).array, frames[1:])


def test_a_colour_volume_has_its_colours_as_channels(tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (4, 5, 6, 3)).astype(np.uint8)
    for ending in ("nii.gz", "nrrd", "mha"):
        sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / f"rgb.{ending}"))
        np.testing.assert_array_equal(read_image(tmp_path / f"rgb.{ending}").array, np.moveaxis(colours, -1, 0))


def test_a_single_slice_keeps_its_place(tmp_path):
    geometry = Geometry.of((1, 5, 6), (7, 2, 1), axes="LIP", origin_mm=(1, 2, 3))
    for ending in ("nii.gz", "nrrd", "mha"):
        assert read_image(save(tmp_path / f"one.{ending}", numbers()[:1], geometry)).geometry.is_close(geometry)


def test_a_label_may_be_stored_as_whole_floats(tmp_path):
    label = read_label(save(tmp_path / "label.nii.gz", numbers(np.float32)))
    assert label.array.dtype == np.int32
    np.testing.assert_array_equal(label.array[0], numbers())


def test_an_image_of_fractions_is_not_a_label(tmp_path):
    with pytest.raises(BadInput, match="not whole numbers"):
        read_label(save(tmp_path / "label.nii.gz", numbers(np.float32) + 0.5))


def test_a_colour_image_is_not_a_label(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True), str(tmp_path / "a.nrrd"))
    with pytest.raises(BadInput, match="3 channels"):
        read_label(tmp_path / "a.nrrd")


def test_the_package_is_imported_without_simpleitk_scipy_and_torch():
    import subprocess
    import sys

    code = ("import sys; sys.modules['SimpleITK'] = None; import medmae.volumes as v; import numpy as np\n"
            "g = v.Geometry.of((4, 4, 4), (2, 1, 1)); t = v.resampled_geometry(g, (1, 1, 1))\n"
            "v.resample(np.zeros((1, 4, 4, 4)), g, t); v.default_intensity('MR').apply(np.zeros((1, 4, 4, 4)))\n"
            "assert not {'torch', 'scipy', 'monai'} & set(sys.modules), 'heavy import'")
    subprocess.run([sys.executable, "-c", code], check=True)
