import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from volume_builders import rotation

from medmae.errors import BadInput
from medmae.volumes import Geometry, find_images, is_dicom_folder, read_image
from medmae.volumes.simpleitk_images import affine_of

COUNT, ROWS, COLUMNS = 6, 5, 7
STEP_MM = 2.5


def dicom(path, pixels, *, storage=CTImageStorage, **tags):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = storage, tags.get("SOPInstanceUID", generate_uid())
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = storage, meta.MediaStorageSOPInstanceUID
    file.Rows, file.Columns = pixels.shape[-2:]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, int(np.issubdtype(pixels.dtype, np.signedinteger))
    file.PixelData = np.ascontiguousarray(pixels).tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    file.save_as(path)
    return path


def voxels():
    return np.arange(COUNT * ROWS * COLUMNS, dtype=np.int16).reshape(COUNT, ROWS, COLUMNS)


def write_series(folder, *, directions=None, places=None, names=None, shift=(0, 0, 0), array=None, uid=None, **tags):
    """A series; `directions` (3, 3): LPS columns i, j, k; `names[n]`: the file of the n-th slice; `shift` a slice."""
    folder.mkdir(parents=True, exist_ok=True)
    directions = np.eye(3) if directions is None else directions
    array = voxels() if array is None else array
    places = np.arange(len(array)) * STEP_MM if places is None else places
    uid = uid or generate_uid()
    for number, (pixels, place) in enumerate(zip(array, places, strict=True)):
        position = np.array([-30.0, 12.5, 100.0]) + directions[:, 2] * place + np.array(shift) * number
        name = names[number] if names is not None else f"{number:03d}.dcm"
        dicom(folder / name, pixels, SeriesInstanceUID=uid, Modality="CT", SeriesDescription="thorax",
              PixelSpacing=[0.75, 0.5], ImagePositionPatient=[f"{value:.9g}" for value in position],
              ImageOrientationPatient=[f"{value:.9g}" for value in directions[:, :2].T.ravel()],
              RescaleSlope=1, RescaleIntercept=-1024, SpacingBetweenSlices=99, **tags)
    return folder


def test_an_unsorted_folder_becomes_the_volume_in_hounsfield_units(tmp_path):
    write_series(tmp_path / "scan", names=["c", "a.dcm", "z.IMA", "b", "k.dcm", "d"])
    (tmp_path / "scan" / "readme.txt").write_text("not an image")
    volume = read_image(tmp_path / "scan")
    np.testing.assert_array_equal(volume.array[0], voxels() - 1024)
    assert volume.array.dtype == np.int16
    expected = Geometry.of((COUNT, ROWS, COLUMNS), (STEP_MM, 0.75, 0.5), axes="LPS", origin_mm=(30, -12.5, 100))
    assert volume.geometry.is_close(expected)


@pytest.mark.parametrize("angles", [(0, 0, 0), (0.2, -0.1, 0.3), (1.4, 0.1, 0.2), (3.0, 0, 1.5)])
def test_an_oblique_series_lies_where_simpleitk_puts_it(tmp_path, angles):
    folder = write_series(tmp_path / "scan", directions=rotation(angles))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    volume = read_image(folder)
    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image))
    oracle = Geometry(volume.geometry.shape, affine_of(image.GetSpacing(), image.GetOrigin(), image.GetDirection()))
    assert volume.geometry.is_close(oracle)


def test_several_series_in_one_folder_are_listed_and_one_can_be_chosen(tmp_path):
    one, two = generate_uid(), generate_uid()
    write_series(tmp_path, uid=one)
    write_series(tmp_path, uid=two, array=voxels()[:3] + 7, names=["x", "y", "z"])
    with pytest.raises(BadInput, match="2 DICOM series") as caught:
        read_image(tmp_path)
    assert one in str(caught.value) and two in str(caught.value) and "CT thorax, 3 files" in str(caught.value)
    assert read_image(tmp_path, series=two).array.shape == (1, 3, ROWS, COLUMNS)
    with pytest.raises(BadInput, match="no DICOM series 1.2.3"):
        read_image(tmp_path, series="1.2.3")


def test_a_missing_slice_is_reported_with_its_place(tmp_path):
    folder = write_series(tmp_path / "scan")
    (folder / "003.dcm").unlink()
    with pytest.raises(BadInput, match=r"uneven.*5\.00 mm between 002.dcm and 004.dcm.*1 slice is missing"):
        read_image(folder)


def test_slices_at_one_place_are_reported(tmp_path):
    with pytest.raises(BadInput, match="same place"):
        read_image(write_series(tmp_path / "scan", places=np.array([0, 1, 2, 2, 3, 4]) * STEP_MM))


def test_a_second_copy_of_a_file_is_left_out_with_a_warning(tmp_path, caplog):
    folder = write_series(tmp_path / "scan")
    (folder / "copy.dcm").write_bytes((folder / "002.dcm").read_bytes())
    np.testing.assert_array_equal(read_image(folder).array[0], voxels() - 1024)
    assert "1 files are copies" in caplog.text


def test_a_tilted_gantry_is_refused_as_sheared(tmp_path):
    with pytest.raises(BadInput, match="sheared"):
        read_image(write_series(tmp_path / "scan", shift=(0, 0.3, 0)))


def test_a_localizer_in_the_series_is_reported(tmp_path):
    uid = generate_uid()
    write_series(tmp_path / "scan", uid=uid)
    write_series(tmp_path / "scan", uid=uid, array=voxels()[:1], names=["scout"], directions=rotation((1.5, 0, 0)))
    with pytest.raises(BadInput, match="localizer"):
        read_image(tmp_path / "scan")


def test_each_slice_has_its_own_rescale_slope(tmp_path):
    folder = write_series(tmp_path / "pet")
    for number, file in enumerate(sorted(folder.iterdir())):
        slice_ = pydicom.dcmread(file)
        slice_.RescaleSlope, slice_.RescaleIntercept = 1 if number == 0 else 0.25 * number, 0
        slice_.save_as(file)
    expected = voxels() * np.array([1, 0.25, 0.5, 0.75, 1, 1.25])[:, None, None]
    np.testing.assert_allclose(read_image(folder).array[0], expected)


def test_values_beyond_16_bits_in_one_slice_widen_all_of_them(tmp_path):
    folder = write_series(tmp_path / "scan")
    file = sorted(folder.iterdir())[2]
    slice_ = pydicom.dcmread(file)
    slice_.RescaleIntercept = float(slice_.RescaleIntercept) + 100_000
    slice_.save_as(file)
    expected = voxels().astype(np.int32) - 1024
    expected[2] += 100_000
    volume = read_image(folder)
    np.testing.assert_array_equal(volume.array[0], expected)
    assert volume.array.dtype == np.int32


def test_a_truncated_slice_is_reported_by_name(tmp_path):
    folder = write_series(tmp_path / "scan")
    data = (folder / "002.dcm").read_bytes()
    (folder / "002.dcm").write_bytes(data[:-20])
    with pytest.raises(BadInput, match="002.dcm"):
        read_image(folder)


def test_a_series_in_a_subfolder_is_found(tmp_path):
    write_series(tmp_path / "patient" / "study" / "series")
    assert read_image(tmp_path / "patient").array.shape == (1, COUNT, ROWS, COLUMNS)
    found = find_images([tmp_path / "patient"])
    assert [image.path for image in found] == [tmp_path / "patient" / "study" / "series"]
    assert is_dicom_folder(found[0].path)


def test_a_single_slice_takes_its_thickness_from_the_header(tmp_path):
    folder = write_series(tmp_path / "scan", array=voxels()[:1], SliceThickness=4)
    file = pydicom.dcmread(folder / "000.dcm")
    del file.SpacingBetweenSlices
    file.save_as(folder / "000.dcm")
    assert read_image(folder).geometry.spacing_mm == pytest.approx((4, 0.75, 0.5))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_radiograph_is_a_picture_with_bright_bones(tmp_path, photometric):
    pixels = np.arange(ROWS * COLUMNS, dtype=np.uint16).reshape(ROWS, COLUMNS)
    path = dicom(tmp_path / "chest.dcm", pixels, storage=DigitalXRayImageStorageForPresentation, Modality="DX",
                 PhotometricInterpretation=photometric, ImagerPixelSpacing=[0.2, 0.1], SeriesInstanceUID=generate_uid())
    volume = read_image(path)
    assert (volume.is_2d, volume.spacing_known, volume.geometry.axes) == (True, True, "LPS")
    assert volume.geometry.spacing_mm == pytest.approx((1, 0.2, 0.1))
    rising = np.diff(volume.array.ravel().astype(int))
    assert (rising == (1 if photometric == "MONOCHROME2" else -1)).all()


def test_a_cine_loop_needs_a_frame(tmp_path):
    path = dicom(tmp_path / "cine.dcm", voxels().astype(np.uint16), storage="1.2.840.10008.5.1.4.1.1.3.1",
                 Modality="US", NumberOfFrames=COUNT, SeriesInstanceUID=generate_uid())
    np.testing.assert_array_equal(read_image(path, frame=2).array[0, 0], voxels()[2])
    with pytest.raises(BadInput, match="6 images"):
        read_image(path)


def test_an_enhanced_file_is_sorted_by_the_places_of_its_frames(tmp_path):
    order = [3, 0, 5, 1, 4, 2]
    frames = []
    for place in order:
        frame, position, measures, orientation = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, place * STEP_MM]
        measures.PixelSpacing, measures.SliceThickness = [0.75, 0.5], 9
        orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        frame.PlanePositionSequence, frame.PixelMeasuresSequence = [position], [measures]
        frame.PlaneOrientationSequence = [orientation]
        frames.append(frame)
    path = dicom(tmp_path / "enhanced.dcm", voxels()[order], storage="1.2.840.10008.5.1.4.1.1.2.1", Modality="CT",
                 NumberOfFrames=COUNT, SeriesInstanceUID=generate_uid(), PerFrameFunctionalGroupsSequence=frames)
    volume = read_image(path)
    np.testing.assert_array_equal(volume.array[0], voxels())
    assert volume.geometry.is_close(Geometry.of((COUNT, ROWS, COLUMNS), (STEP_MM, 0.75, 0.5), axes="LPS"))
