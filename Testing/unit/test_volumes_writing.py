import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from volume_builders import AXIS_ORDERS, geometries, turned

from medmae.errors import BadInput
from medmae.volumes import Geometry, Segment, default_segments, read_label, read_segments, write_label
from medmae.volumes.nifti_header import read_nifti_header
from medmae.volumes.simpleitk_images import affine_of

GEOMETRY = Geometry.of((4, 5, 6), (3, 2, 1), axes="PSR", origin_mm=(10.123456789, -20, 30))
FORMATS = ["nii.gz", "nrrd", "seg.nrrd"]


def labels(values=(0, 1, 5), shape=GEOMETRY.shape):
    return np.random.default_rng(0).choice(values, shape)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(geometry=geometries(), format=st.sampled_from(FORMATS))
def test_voxels_and_grid_come_back_in_every_format_here_and_in_simpleitk(tmp_path, geometry, format):
    array = labels(shape=geometry.shape)
    path = write_label(tmp_path / f"a.{format}", array, geometry, [], format)
    back = read_label(path)
    np.testing.assert_array_equal(back.array[0], array)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)
    oracle = Geometry(geometry.shape, affine_of(image.GetSpacing(), image.GetOrigin(), image.GetDirection()))
    for read in (back.geometry, oracle):
        # NIfTI stores 32-bit floats: half a metre away they are exact to 3e-5 mm.
        assert read.is_close(geometry, 1e-4)


@pytest.mark.parametrize(("values", "dtype"), [((0, 255), np.uint8), ((0, 256), np.int16), ((0, 70000), np.int32)])
@pytest.mark.parametrize("format", FORMATS)
def test_the_smallest_type_that_holds_the_labels_is_written(tmp_path, values, dtype, format):
    path = write_label(tmp_path / f"a.{format}", labels(values), GEOMETRY, [], format)
    assert read_label(path).array.dtype == dtype
    np.testing.assert_array_equal(read_label(path).array[0], labels(values))


def test_segments_come_back_with_names_values_colours_and_terms(tmp_path):
    segments = [*default_segments({"left kidney": 1, "Tumor: stage ~II^ | “b”": 5}),
                Segment("\\n back", 9, (0, 0.25, 1))]
    path = write_label(tmp_path / "a.seg.nrrd", labels(), GEOMETRY, segments, "seg.nrrd")
    back = read_segments(path)
    assert [(segment.name, segment.value, segment.terminology) for segment in back] == [
        (segment.name, segment.value, segment.terminology) for segment in segments]
    for one, other in zip(back, segments, strict=True):
        np.testing.assert_allclose(one.color, other.color, atol=1e-5)


def test_slicerio_reads_the_same_segments(tmp_path):
    slicerio = pytest.importorskip("slicerio")
    segments = default_segments({"left kidney": 1, "liver": 5})
    path = write_label(tmp_path / "a.seg.nrrd", labels(), GEOMETRY, segments, "seg.nrrd")
    read = slicerio.read_segmentation(str(path))
    assert [(item["name"], item["labelValue"]) for item in read["segments"]] == [("left kidney", 1), ("liver", 5)]
    assert read["segments"][0]["terminology"]["typeModifier"] == ["SCT", "7771000", "Left"]
    np.testing.assert_array_equal(read["voxels"].transpose(2, 1, 0), labels())


def test_values_without_a_segment_are_not_lost(tmp_path):
    path = write_label(tmp_path / "a.seg.nrrd", labels((0, 1, 5)), GEOMETRY, default_segments({"liver": 1}), "seg.nrrd")
    assert [(segment.name, segment.value) for segment in read_segments(path)] == [("liver", 1), ("Label 5", 5)]


def test_overlapping_segments_are_no_label_map(tmp_path):
    path = tmp_path / "two.seg.nrrd"
    path.write_bytes(b"NRRD0004\ntype: uchar\ndimension: 4\nspace: left-posterior-superior\nsizes: 2 2 2 2\n"
                     b"space directions: none (1,0,0) (0,1,0) (0,0,1)\nkinds: list domain domain domain\n"
                     b"encoding: raw\nspace origin: (0,0,0)\nSegment0_Name:=a\nSegment0_Layer:=0\n\n" + bytes(16))
    with pytest.raises(BadInput, match="overlap"):
        read_label(path)


def test_a_label_map_without_segments_says_so(tmp_path):
    path = write_label(tmp_path / "a.nrrd", labels(), GEOMETRY, [], "nrrd")
    with pytest.raises(BadInput, match="no segments"):
        read_segments(path)
    with pytest.raises(BadInput, match="does not exist"):
        read_segments(tmp_path / "absent.seg.nrrd")


@pytest.mark.parametrize("format", FORMATS)
def test_when_writing_fails_the_old_file_stays_and_nothing_half_written_is_left(tmp_path, monkeypatch, format):
    path = write_label(tmp_path / f"a.{format}", labels(), GEOMETRY, [], format)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_label(path, labels((0, 3)), GEOMETRY, [], format)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(BadInput, match="nii.gz, nrrd, seg.nrrd"):
        write_label(tmp_path / "a.stl", labels(), GEOMETRY, [], "stl")
    with pytest.raises(ValueError, match="grid"):
        write_label(tmp_path / "a.nrrd", labels()[1:], GEOMETRY, [], "nrrd")
    with pytest.raises(ValueError, match="integers"):
        write_label(tmp_path / "a.nrrd", labels().astype(float), GEOMETRY, [], "nrrd")
    with pytest.raises(ValueError, match="negative"):
        write_label(tmp_path / "a.nrrd", labels() - 1, GEOMETRY, [], "nrrd")
    with pytest.raises(ValueError, match="share"):
        write_label(tmp_path / "a.nrrd", labels(), GEOMETRY, [Segment("a", 1, (1, 0, 0)), Segment("b", 1, (1, 0, 0))],
                    "nrrd")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("axes", AXIS_ORDERS)
def test_nifti_places_labels_as_simpleitk_does(tmp_path, axes):
    """Also where the affine is a little sheared, as real ones are after rounding: the rows count, not the rotation."""
    geometry = turned(Geometry.of((3, 4, 5), (2.5, 0.7, 0.9), axes=axes, origin_mm=(12, -300, 44)), (0.3, -0.2, 0.4))
    affine = geometry.affine.copy()
    affine[:3, 0] += 3e-4 * affine[:3, 1]
    geometry = Geometry(geometry.shape, affine)
    array = np.arange(60, dtype=np.int16).reshape(geometry.shape)
    path = write_label(tmp_path / "a.nii.gz", array, geometry, [], "nii.gz")
    image = sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(image), array)
    assert affine_of(image.GetSpacing(), image.GetOrigin(), image.GetDirection()) == pytest.approx(affine, abs=1e-4)
    header = read_nifti_header(path)
    assert header.sform == pytest.approx(affine, abs=1e-4) and header.qform == pytest.approx(affine, abs=2e-3)
