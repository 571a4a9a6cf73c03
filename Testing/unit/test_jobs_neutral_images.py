"""Neutral files read exactly as the images they were made from, and say nothing more."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - the usual name
from hypothesis import given
from hypothesis import strategies as st
from pretraining_images import write_grey_alpha
from pydicom.uid import DigitalXRayImageStorageForPresentation, UltrasoundMultiFrameImageStorage, generate_uid
from test_volumes_dicom import dicom, rotation, write_series
from test_volumes_pictures import palette_png
from volume_builders import geometries, write_nifti

from medmae.errors import BadInput
from medmae.jobs.neutral_images import Staging, Wanted
from medmae.volumes import Geometry, Volume, read_image
from medmae.volumes.contents import count_frames, images_of_dicom_folder, read_geometry
from medmae.volumes.neutral_nrrd import UnlikeFrames, write_neutral

TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process for every test would take longer than all else."""
    monkeypatch.setattr("medmae.jobs.neutral_images.usable_cores", lambda: 0)


def silent(stage: str, done: int, total: int) -> None:
    """Take no reports."""


def same(found: Volume, original: Volume) -> None:
    """See that two images are equal in everything that counts."""
    assert found.array.dtype == original.array.dtype
    np.testing.assert_array_equal(found.array, original.array)
    np.testing.assert_allclose(found.geometry.affine, original.geometry.affine, rtol=1e-14, atol=1e-12)
    assert (found.is_2d, found.spacing_known, found.modality) == (
        original.is_2d, original.spacing_known, original.modality)


def neutral(tmp_path: Path, wanted: Wanted) -> list[Path]:
    """The neutral files of an image, under a name that readers know."""
    staging = Staging()
    paths = []
    for number, part in enumerate(next(staging.convert([wanted], silent))):
        assert part.blob is not None, part.problem
        path = tmp_path / f"neutral-{number}.nrrd"
        path.write_bytes(staging[part.blob.sha256].read_bytes())
        paths.append(path)
    return paths


@given(geometries(), st.sampled_from(TYPES), st.sampled_from([1, 2, 3, 4, 7]), st.booleans(), st.booleans(),
       st.sampled_from(["", "CT", "MR"]))
def test_every_type_grid_and_number_of_channels_survives(
        tmp_path_factory: pytest.TempPathFactory, geometry: Geometry, kind: str, channels: int, known: bool,
        picture: bool, modality: str) -> None:
    array = (RANDOM.normal(size=(channels, *geometry.shape)) * 60).astype(kind)
    original = Volume(array, geometry, is_2d=picture, spacing_known=known, modality=modality)
    path = tmp_path_factory.mktemp("neutral") / "a.nrrd"
    written: list[bytes] = []
    write_neutral([original], 1, written.append)
    path.write_bytes(b"".join(written))
    same(read_image(path), original)


def picture(path: Path, array: np.ndarray, *, colours: bool = False) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=colours), str(path))
    return path


def volume(path: Path, array: np.ndarray, *, vector: bool = False) -> Path:
    image = sitk.GetImageFromArray(array, isVector=vector)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-10.5, 20.25, 3.125))
    image.SetDirection(rotation((0.2, -0.1, 0.3)).ravel())
    sitk.WriteImage(image, str(path))
    return path


def grey(*shape: int, kind: str = "uint8") -> np.ndarray:
    return RANDOM.integers(0, 200, shape).astype(kind)


MAKERS: dict[str, Callable[[Path], Path]] = {
    "grey picture": lambda folder: picture(folder / "a.png", grey(12, 10)),
    "16-bit picture": lambda folder: picture(folder / "a.png", grey(12, 10, kind="uint16")),
    "colour picture": lambda folder: picture(folder / "a.png", grey(12, 10, 3), colours=True),
    "picture with alpha": lambda folder: picture(folder / "a.png", grey(12, 10, 4), colours=True),
    "grey picture with alpha": lambda folder: write_grey_alpha(folder / "a.png", grey(12, 10)),
    "palette picture": lambda folder: palette_png(folder / "a.png", grey(9, 8) % 4, 2) or folder / "a.png",
    "jpeg": lambda folder: picture(folder / "a.jpg", grey(16, 16)),
    "tiff": lambda folder: picture(folder / "a.tif", grey(12, 10, kind="float32")),
    "oblique nrrd": lambda folder: volume(folder / "a.nrrd", grey(4, 6, 8, kind="int16")),
    "vectors": lambda folder: volume(folder / "a.nrrd", grey(4, 6, 8, 3), vector=True),
    "five components": lambda folder: volume(folder / "a.mha", grey(4, 6, 8, 5, kind="float32"), vector=True),
    "mha of doubles": lambda folder: volume(folder / "a.mha", grey(4, 6, 8, kind="float64") / 3),
    "flat nrrd": lambda folder: picture(folder / "a.nrrd", grey(6, 8)),
    "nifti with slope": lambda folder: write_nifti(folder / "a.nii", grey(4, 6, 8, kind="int16"), sform=None,
                                                   slope=2.0, intercept=-1024.0, order=">"),
    "flat nifti": lambda folder: write_nifti(folder / "a.nii", grey(6, 8, kind="int16"), sform=None),
    "series": lambda folder: write_series(folder / "scan", directions=rotation((0.2, -0.1, 0.3))),
    "single slice": lambda folder: write_series(folder / "scan", array=grey(1, 6, 8, kind="int16")) / "000.dcm",
    "radiograph": lambda folder: dicom(folder / "a.dcm", grey(20, 16, kind="uint16"), Modality="DX",
                                       storage=DigitalXRayImageStorageForPresentation, ImagerPixelSpacing=[0.2, 0.1]),
    "radiograph without spacing": lambda folder: dicom(folder / "a.dcm", grey(20, 16, kind="uint16"), Modality="CR",
                                                       RescaleSlope="0.5", RescaleIntercept="-3.25"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_images_of_every_format_read_as_before(tmp_path: Path, kind: str) -> None:
    path = MAKERS[kind](tmp_path)
    found, = neutral(tmp_path, Wanted(str(path)))
    same(read_image(found), read_image(path))


@pytest.mark.parametrize("name", ["ct_abdomen_512/image.nii.gz", "ct_abdomen_dicom", "ct_trunk_3mm/image.nii.gz",
                                  "mr_brain_epi_oblique/image.nii.gz", "mr_sarcoma_native/image.nrrd",
                                  "mr_spinal_cord_oblique_thick/image.nii.gz", "mr_sarcoma_native/label.nrrd",
                                  "mr_spinal_cord_psr_axes/label.nii.gz"])
def test_real_images_read_as_before(shared_data: Path, tmp_path: Path, name: str) -> None:
    path = shared_data / "volumes" / name
    found, = neutral(tmp_path, Wanted(str(path)))
    same(read_image(found), read_image(path))
    stated, own = read_geometry(found), read_image(path).geometry
    assert stated is not None and stated.is_close(own, 1e-9)


def test_the_frames_of_a_real_series_of_volumes_stay_together(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "volumes" / "mr_brain_epi_oblique" / "image_4d.nii.gz"
    found, = neutral(tmp_path, Wanted(str(path), at_most=16))
    assert count_frames(found) == count_frames(path) > 1
    for frame in range(count_frames(path)):
        same(read_image(found, frame=frame), read_image(path, frame=frame))


def test_of_many_frames_those_travel_that_pretraining_takes(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", grey(7, 4, 6, 8, kind="int16"), sform=None)
    found, = neutral(tmp_path, Wanted(str(path), at_most=3))
    for number, frame in enumerate((0, 3, 6)):
        same(read_image(found, frame=number), read_image(path, frame=frame))


def test_the_frame_that_was_asked_for_travels_alone(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", grey(3, 4, 6, 8, kind="int16"), sform=None)
    found, = neutral(tmp_path, Wanted(str(path), frame=2))
    same(read_image(found), read_image(path, frame=2))


def test_pages_of_a_picture_and_frames_of_a_grey_loop_stay_pictures(tmp_path: Path) -> None:
    pages = picture(tmp_path / "pages.tif", grey(3, 12, 10))
    loop = dicom(tmp_path / "loop.dcm", grey(4, 12, 10, kind="uint16"), NumberOfFrames=4, Modality="US",
                 storage=UltrasoundMultiFrameImageStorage)
    for path, count in ((pages, 3), (loop, 4)):
        found, = neutral(tmp_path, Wanted(str(path), at_most=16))
        assert read_geometry(found) is None
        assert count_frames(found) == count
        for frame in range(count):
            same(read_image(found, frame=frame), read_image(path, frame=frame))


def test_frames_that_do_not_fit_into_one_file_get_one_each(tmp_path: Path) -> None:
    loop = dicom(tmp_path / "loop.dcm", grey(3, 12, 10, kind="uint16"), NumberOfFrames=3, Modality="US",
                 storage=UltrasoundMultiFrameImageStorage)
    dataset = pydicom.dcmread(loop)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = grey(3, 12, 10, 3).tobytes()
    dataset.save_as(loop)
    found = neutral(tmp_path, Wanted(str(loop), at_most=16))
    assert len(found) == 3
    for frame, path in enumerate(found):
        same(read_image(path), read_image(loop, frame=frame))
    slope = np.array([[[[0, 1]]], [[[30000, 0]]]], np.int16)  # the second one needs 32 bits
    four = write_nifti(tmp_path / "a.nii", slope, sform=None, slope=2.0)
    found = neutral(tmp_path, Wanted(str(four), at_most=16))
    assert [read_image(path).array.dtype.name for path in found] == ["int16", "int32"]


def test_unlike_frames_are_refused() -> None:
    grid = Geometry.of((1, 2, 2), (1, 1, 1))
    frames = [Volume(np.zeros((1, 1, 2, 2), kind), grid) for kind in ("int16", "int32")]
    with pytest.raises(UnlikeFrames):
        write_neutral(frames, 2, lambda data: None)


def test_every_series_of_a_folder_becomes_an_image(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    write_series(folder, uid=generate_uid())
    write_series(folder, uid=generate_uid(), array=grey(3, 5, 7, kind="int16"), names=["x", "y", "z"])
    found = neutral(tmp_path, Wanted(str(folder), at_most=16))
    parts = images_of_dicom_folder(folder)
    assert len(found) == len(parts) == 2
    for path, part in zip(found, parts, strict=True):
        same(read_image(path), read_image(part.path, series=part.series))


def test_nothing_of_a_header_travels(tmp_path: Path) -> None:
    secrets = ["Erika^Mustermann", "PAT-4711-XY", "19640812", "Klinikum-Nord", "descrip-of-a-nifti"]
    folder = write_series(tmp_path / "Mustermann", PatientName=secrets[0], PatientID=secrets[1],
                          PatientBirthDate=secrets[2], InstitutionName=secrets[3], StudyDate=secrets[2])
    nifti = write_nifti(tmp_path / "Mustermann.nii", grey(4, 6, 8, kind="int16"), sform=None)
    data = bytearray(nifti.read_bytes())
    data[148:148 + len(secrets[4])] = secrets[4].encode()
    nifti.write_bytes(data)
    image = sitk.GetImageFromArray(grey(4, 6, 8))
    image.SetMetaData("PatientName", secrets[0])
    sitk.WriteImage(image, str(tmp_path / "Mustermann.nrrd"))
    assert secrets[0].encode() in (tmp_path / "Mustermann.nrrd").read_bytes()
    staging = Staging()
    wanted = [Wanted(str(path)) for path in (folder, nifti, tmp_path / "Mustermann.nrrd")]
    for parts in staging.convert(wanted, silent):
        assert parts[0].blob is not None
        data = staging[parts[0].blob.sha256].read_bytes()
        header, _, voxels = data.partition(b"\n\n")
        for content in (header, voxels, gzip.decompress(voxels)):
            for secret in (*secrets, "Mustermann"):
                assert secret.encode() not in content


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return volume(tmp_path / "a.nrrd", grey(4, 6, 8, kind="int16"))


def converted(staging: Staging, *images: Path) -> list[str]:
    parts = list(staging.convert([Wanted(str(path)) for path in images], silent))
    return [part[0].blob.sha256 for part in parts if part[0].blob is not None]


def test_an_image_that_has_not_changed_is_not_converted_again(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = converted(Staging(), image)

    def refuse(*_arguments: object) -> Iterator[object]:
        raise AssertionError("converted again")
        yield

    monkeypatch.setattr("medmae.jobs.neutral_images.OrderedPool.run", refuse)
    assert converted(Staging(), image) == first
    volume(image, grey(4, 6, 8, kind="int16"))
    with pytest.raises(AssertionError, match="converted again"):
        converted(Staging(), image)


def test_a_file_that_was_released_is_made_again_when_it_is_asked_for(image: Path) -> None:
    staging = Staging()
    sha256, = converted(staging, image)
    data = staging[sha256].read_bytes()
    staging.release(sha256)
    assert not list(staging.files.iterdir())
    again = Staging()
    assert converted(again, image) == [sha256]
    assert not list(staging.files.iterdir())
    assert again[sha256].read_bytes() == data
    again.release(sha256)
    volume(image, grey(4, 6, 8, kind="int16"))
    with pytest.raises(BadInput, match="changed"):
        again[sha256]


def test_where_the_disk_has_no_room_files_are_made_when_their_turn_comes(image: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    staging = Staging()
    with monkeypatch.context() as patch:
        patch.setattr("medmae.jobs.neutral_images.KEPT_FREE_BYTES", 10**18)
        sha256, = converted(staging, image)
    assert not list(staging.files.iterdir())
    assert staging[sha256].is_file()


def test_files_of_jobs_that_were_given_up_are_removed_after_a_week(image: Path) -> None:
    staging = Staging()
    sha256, = converted(staging, image)
    os.utime(staging.files / sha256, (time.time() - 8 * 86400,) * 2)
    assert not list(Staging().files.iterdir())


def test_nobody_else_may_look_into_the_files(image: Path) -> None:
    staging = Staging()
    converted(staging, image)
    assert staging.files.stat().st_mode & 0o077 == 0
    assert staging.folder.stat().st_mode & 0o077 == 0


def test_a_damaged_image_is_told_and_the_others_are_converted(image: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(b"\x1f\x8bnot really")
    first, second = Staging().convert([Wanted(str(damaged)), Wanted(str(image))], silent)
    assert first[0].blob is None
    assert str(damaged) in first[0].problem
    assert second[0].blob is not None
