"""What files hold, told from their headers; pictures with alpha; folders that are listed without opening pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pretraining_images import write_grey_alpha
from volume_builders import AXIS_ORDERS, write_nifti

from medmae.errors import BadInput
from medmae.volumes import Geometry, find_images, read_image
from medmae.volumes.contents import count_frames, read_geometry


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (33, 64)])
def test_grey_of_a_picture_with_alpha_is_read_exactly(tmp_path: Path, dtype: type, shape: tuple[int, int]) -> None:
    grey = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    array = read_image(write_grey_alpha(tmp_path / "picture.png", grey)).array
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, grey[None, None])


def test_a_truncated_picture_with_alpha_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8)
    file = write_grey_alpha(tmp_path / "picture.png", noise)
    for length in (20, 30, 60, file.stat().st_size // 2):
        part = tmp_path / "part.png"
        part.write_bytes(file.read_bytes()[:length])
        with pytest.raises(BadInput, match=r"part\.png"):
            read_image(part)


@pytest.mark.parametrize(("name", "shape", "frames"), [
    ("a.nii", (4, 6, 7), 1), ("a.nii", (3, 4, 6, 7), 3), ("a.tif", (5, 6, 7), 5), ("a.tif", (6, 7), 1),
    ("a.png", (6, 7), 1), ("a.nrrd", (3, 4, 6, 7), 3), ("a.mha", (4, 6, 7), 1)])
def test_frames_are_counted_as_reading_them_needs(
        tmp_path: Path, name: str, shape: tuple[int, ...], frames: int) -> None:
    file = tmp_path / name
    array = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    if name.endswith(".nii"):
        write_nifti(file, array, sform=None)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(file))
    assert count_frames(file) == frames
    if frames > 1:
        read_image(file, frame=frames - 1)
        with pytest.raises(BadInput):
            read_image(file)
    else:
        read_image(file)


@pytest.mark.parametrize("axes", AXIS_ORDERS[::7])
def test_the_grid_in_the_header_is_the_one_that_is_read(tmp_path: Path, axes: str) -> None:
    geometry = Geometry.of((4, 6, 7), (3.0, 0.5, 0.7), axes=axes, origin_mm=(5, -3, 9))
    write_nifti(tmp_path / "a.nii", np.zeros((4, 6, 7), np.int16), sform=geometry.affine, spacing=(0.7, 0.5, 3.0))
    found = read_geometry(tmp_path / "a.nii")
    assert found is not None
    assert found.is_close(read_image(tmp_path / "a.nii").geometry, 1e-4) and found.is_close(geometry, 1e-4)


def test_pictures_have_no_grid(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((6, 7), np.uint8)), str(tmp_path / "a.png"))
    assert read_geometry(tmp_path / "a.png") is None


def test_a_folder_of_pictures_is_listed_without_opening_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        (tmp_path / f"{number:03d}.png").touch()
    (tmp_path / "broken.dcm").write_bytes(b"short")
    (tmp_path / "notes.txt").write_text("not an image")

    opened: list[str] = []
    monkeypatch.setattr("medmae.volumes.discovery.is_dicom_file", lambda path: opened.append(Path(path).name))
    found = [image.path.name for image in find_images([tmp_path])]
    assert found == [*(f"{number:03d}.png" for number in range(300)), "broken.dcm"]
    assert set(opened) == {"broken.dcm", "notes.txt"}
