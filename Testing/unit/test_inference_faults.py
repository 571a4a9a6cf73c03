"""`medmae segment` and what goes wrong around it: full disks, damaged files, voxels and grids beyond reason.

Whatever happens to one image, the others are done, an output is whole or absent, and the message says what to do.
"""

from __future__ import annotations

import csv
import errno
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from inference_helpers import description
from test_volumes_dicom import dicom, write_series
from volume_builders import write_nifti

from medmae.cli.app import run
from medmae.inference.spilling import SpilledArrays
from medmae.models import save_model
from medmae.networks import architecture_for, build_network
from medmae.volumes import Geometry, read_image, read_label
from medmae.volumes.nrrd_header import write_nrrd
from medmae.worker.exchange import Exchange

SIDE = 16
SIZES = {"patch": 8, "width": 24, "depth": 3, "heads": 2, "feature_size": 4, "skip_blocks": [1, 2]}
WINDOW = {"kind": "ct_window", "low": -200.0, "high": 300.0}
Segment = Callable[..., tuple[int, dict, str]]


def save(folder: Path, **fields: object) -> Path:
    """A model on disk with random weights: what it answers does not matter here, only that it is always the same."""
    torch.manual_seed(3)
    architecture = architecture_for("gl-mae", "tiny", "segmentation", 1, 3)
    architecture["arguments"] |= SIZES
    info = replace(description(size=[SIDE] * 3, architecture=architecture, intensity=WINDOW), **fields)
    return save_model(folder, info, build_network(architecture))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def segment(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Segment:
    """Run ``medmae segment`` in this process: exit code, the object of --json (empty where there is none), stderr."""
    def call(*images: Path, options: tuple[str, ...] = (), model: Path = model) -> tuple[int, dict, str]:
        capfd.readouterr()
        code = run(["segment", "--model", str(model), "--images", *map(str, images), "--out", str(tmp_path / "out"),
                    "--device", "cpu", "--precision", "fp32", "--json", *options])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return code, json.loads(captured.out) if captured.out else {}, captured.err
    return call


def scan(path: Path, shape: tuple[int, int, int] = (18, 20, 17), seed: int = 0, spacing=(1.0, 1.0, 1.0)) -> Path:
    """A CT of noise in Hounsfield units, int16, .nrrd or .nii."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(-300, 400, shape).astype(np.int16)
    geometry = Geometry.of(shape, spacing, axes="LPS")
    if path.suffix == ".nrrd":
        write_nrrd(path, array, geometry, {})
        return path
    return write_nifti(path, array, sform=np.diag([*spacing[::-1], 1.0]), spacing=spacing[::-1])


def only_output(result: dict) -> np.ndarray:
    """Labels of a run of one image."""
    assert len(result["cases"]) == 1
    return read_label(Path(result["cases"][0]["output"])).array[0]


def files_of(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.is_file()] if out.exists() else []


# Full disks


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("file_format", ["nii.gz", "nrrd", "seg.nrrd"])
def test_labels_that_the_disk_does_not_hold_fail_alone_and_leave_no_file(
        file_format: str, segment: Segment, tmp_path: Path) -> None:
    model = save(tmp_path / "model", spacing_mm=[1.0, 4.0, 4.0])  # few windows, many voxels to write
    images = [scan(tmp_path / "in" / f"{name}.nrrd", (side,) * 3) for name, side in (("a", 8), ("large", 80), ("z", 8))]
    with files_up_to(12_000):
        code, result, message = segment(*images, options=("--format", file_format), model=model)
    assert code == 1 and "1 of 3 images failed" in message
    assert [Path(case["image"]).stem for case in result["cases"]] == ["a", "z"]
    assert "large" in result["failed"][0]["image"]
    assert any(word in result["failed"][0]["reason"].lower() for word in ("disk", "space", "too large"))
    outputs = [path for path in files_of(tmp_path / "out") if path.name.endswith(file_format)]
    assert sorted(path.name for path in outputs) == [f"a.{file_format}", f"z.{file_format}"]
    assert not [path for path in files_of(tmp_path / "out") if path.name.startswith(".partial-")]
    for path in outputs:
        assert read_label(path).array[0].shape == (8, 8, 8)


def test_a_full_disk_is_an_error_where_files_stand_in_for_memory_instead_of_the_end_of_the_process(
        tmp_path: Path) -> None:
    """A file without blocks would be given its size, and the process killed when it is filled."""
    with SpilledArrays(tmp_path) as arrays, files_up_to(10_000):
        with pytest.raises(OSError, match="too large"):
            arrays.empty((100, 100, 100), np.float32)
        arrays.empty((10, 10, 10), np.float32)[:] = 1
    assert not list(tmp_path.iterdir())
    with files_up_to(10_000), pytest.raises(OSError, match="too large"):
        Exchange(tmp_path).space("int16", (100, 100, 100))


# Input that cannot be read


def test_links_without_an_end_and_paths_that_are_no_files_fail_alone(segment: Segment, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    good = scan(folder / "good.nrrd")
    (folder / "loop.nrrd").symlink_to("loop.nrrd")
    (folder / "gone.nrrd").symlink_to("nowhere.nrrd")
    code, result, message = segment(good, folder / "loop.nrrd")
    assert code in (1, 2) and "loop.nrrd" in message
    if code == 1:
        assert len(result["cases"]) == 1
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    code, _, message = segment(folder / "gone.nrrd")
    assert code == 2 and "gone.nrrd" in message and not (tmp_path / "out").exists()


def test_a_file_that_the_system_refuses_to_open_fails_alone(
        segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root every file can be opened, so the refusal is made here."""
    images = [scan(tmp_path / "in" / f"{name}.nrrd") for name in ("a", "locked", "z")]
    import medmae.inference.segment_run as module

    def refuse(path: Path, **options: object) -> object:
        if Path(path).stem == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_image(path, **options)

    monkeypatch.setattr(module, "read_image", refuse)
    code, result, message = segment(*images)
    assert code == 1 and len(result["cases"]) == 2 and "Permission denied" in message


@pytest.mark.parametrize("ending", ["nii", "nrrd"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_a_truncated_file_fails_alone(ending: str, kept: float, segment: Segment, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    good, cut = scan(folder / f"a.{ending}"), folder / f"cut.{ending}"
    cut.write_bytes(good.read_bytes()[:int(kept * good.stat().st_size)])
    code, result, message = segment(folder)
    assert code == 1 and len(result["cases"]) == 1 and f"cut.{ending}" in message
    assert not [path for path in files_of(tmp_path / "out") if "cut" in path.name]


@pytest.mark.parametrize("fault", ["truncated", "missing slice", "slice of another size"])
def test_a_damaged_dicom_series_fails_alone(fault: str, segment: Segment, tmp_path: Path) -> None:
    good = scan(tmp_path / "in" / "good.nrrd")
    series = write_series(tmp_path / "in" / "series")
    if fault == "truncated":
        whole = (series / "003.dcm").read_bytes()
        (series / "003.dcm").write_bytes(whole[:-20])
    elif fault == "missing slice":
        (series / "003.dcm").unlink()
    else:
        import pydicom

        tags = pydicom.dcmread(series / "003.dcm")
        dicom(series / "003.dcm", np.zeros((3, 3), np.int16), SeriesInstanceUID=tags.SeriesInstanceUID, Modality="CT",
              PixelSpacing=[0.75, 0.5], ImagePositionPatient=tags.ImagePositionPatient,
              ImageOrientationPatient=tags.ImageOrientationPatient)
    code, result, message = segment(good, series)
    assert code == 1 and "series" in message
    assert [Path(case["image"]).name for case in result["cases"]] == ["good.nrrd"]


def test_an_empty_folder_and_one_without_images_are_bad_input(segment: Segment, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "readme.txt").write_text("not an image")
    for folder in (tmp_path / "empty", notes):
        code, _, message = segment(folder)
        assert code == 2 and folder.name in message and message.count("Error:") == 1
        assert not (tmp_path / "out").exists()


def test_other_files_in_a_folder_of_images_do_not_matter(segment: Segment, tmp_path: Path) -> None:
    scan(tmp_path / "in" / "a.nrrd")
    (tmp_path / "in" / "readme.txt").write_text("not an image")
    (tmp_path / "in" / "table.csv").write_text("a,b\n")
    code, result, _ = segment(tmp_path / "in")
    assert code == 0 and len(result["cases"]) == 1


# Voxels


def nrrd(path: Path, array: np.ndarray, spacing=(1.0, 1.0, 1.0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nrrd(path, array, Geometry.of(array.shape, spacing, axes="LPS"), {})
    return path


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_count_as_the_least_value(value: float, segment: Segment, tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(50, 100, (18, 20, 17)).astype(np.float32)
    spoilt, mended = array.copy(), array.copy()
    spoilt[3:6, 2:9, 4:7], mended[3:6, 2:9, 4:7] = value, array.min()
    code, result, _ = segment(nrrd(tmp_path / "in" / "a.nrrd", spoilt), nrrd(tmp_path / "in" / "b.nrrd", mended))
    assert code == 0
    found, expected = (read_label(Path(case["output"])).array for case in result["cases"])
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1000.0, 0.0, 1e30])
def test_an_image_of_one_value_is_segmented_and_does_not_harm_others(
        value: float, segment: Segment, tmp_path: Path) -> None:
    constant = nrrd(tmp_path / "in" / "constant.nrrd", np.full((18, 20, 17), value, np.float32))
    code, result, _ = segment(constant, scan(tmp_path / "in" / "scan.nrrd"))
    assert code == 0 and len(result["cases"]) == 2
    assert read_label(Path(result["cases"][0]["output"])).array.shape == (1, 18, 20, 17)


@pytest.mark.parametrize("shape", [(1, 1, 40), (40, 1, 1), (1, 40, 1), (1, 1, 1), (1, 30, 30), (2, 3, 5)])
@pytest.mark.parametrize("spacing", [None, [2.0, 1.5, 0.7]])
def test_images_of_a_line_a_point_or_a_slice_get_labels_on_their_grid(
        shape: tuple[int, int, int], spacing: list[float] | None, segment: Segment, tmp_path: Path) -> None:
    model = save(tmp_path / "model", spacing_mm=spacing)
    image = scan(tmp_path / "in" / "thin.nrrd", shape)
    code, result, message = segment(image, model=model)
    assert code == 0, message
    label = read_label(Path(result["cases"][0]["output"]))
    assert label.array.shape[1:] == shape and label.geometry.is_close(read_image(image).geometry)


@pytest.mark.parametrize(("kind", "slope", "intercept"), [
    (np.uint16, 1.0, 0.0), (np.int16, 2.0, -1024.0), (np.int16, 0.5, 100.25), (np.uint16, 1.0, -65535.0)])
def test_the_ends_of_16_bits_do_not_overflow(kind: type, slope: float, intercept: float, segment: Segment,
                                             tmp_path: Path) -> None:
    """The same labels as for the true values in 32 bits."""
    limits, random = np.iinfo(kind), np.random.default_rng(0)
    centre = int((50 - intercept) / slope)
    stored = np.clip(random.integers(centre - 300, centre + 300, (18, 20, 17)), limits.min, limits.max).astype(kind)
    stored[2:8, 3:9], stored[10:14, 3:9] = limits.min, limits.max
    true = nrrd(tmp_path / "in" / "true.nrrd", (stored * np.float64(slope) + intercept).astype(np.float32))
    if kind is np.uint16 and intercept == 0:
        image = nrrd(tmp_path / "in" / "image.nrrd", stored)
    else:
        # LPS as in the other file, which NIfTI states in RAS.
        image = tmp_path / "in" / "image.nii"
        as_int16 = stored if kind is np.int16 else None
        if as_int16 is None:
            import SimpleITK as sitk

            picture = sitk.GetImageFromArray(stored)
            sitk.WriteImage(picture, str(image))
            patch_slope(image, slope, intercept)
        else:
            write_nifti(image, stored, sform=np.diag([-1.0, -1.0, 1.0, 1.0]), slope=slope, intercept=intercept)
    code, result, message = segment(image, true)
    assert code == 0, message
    found, expected = (read_label(Path(case["output"])).array for case in result["cases"])
    assert np.array_equal(found, expected)


def patch_slope(path: Path, slope: float, intercept: float) -> None:
    """Write slope and intercept into the header of a NIfTI-1 file."""
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(content)


# Grids


@pytest.mark.parametrize("millimetres", [1e4, 1e7])
def test_a_huge_spacing_is_refused_with_the_reason_and_fails_alone(
        millimetres: float, segment: Segment, tmp_path: Path) -> None:
    model = save(tmp_path / "model", spacing_mm=[1.5, 1.5, 1.5])
    huge = scan(tmp_path / "in" / "huge.nrrd", spacing=(millimetres,) * 3)
    good = scan(tmp_path / "in" / "good.nrrd")
    code, result, message = segment(huge, good, model=model)
    assert code == 1 and len(result["cases"]) == 1
    assert "huge.nrrd" in message and "spacing" in message.lower()


@pytest.mark.parametrize("fault", ["zero", "negative", "not a number"])
def test_a_voxel_size_that_cannot_be_fails_alone(fault: str, segment: Segment, tmp_path: Path) -> None:
    good = scan(tmp_path / "in" / "good.nrrd")
    array = np.random.default_rng(0).integers(-300, 400, (18, 20, 17)).astype(np.int16)
    bad = tmp_path / "in" / "bad.nii"
    size = {"zero": 0.0, "negative": -1.0, "not a number": float("nan")}[fault]
    write_nifti(bad, array, sform=np.diag([size, 1.0, 1.0, 1.0]), spacing=(size, 1.0, 1.0))
    code, result, message = segment(good, bad)
    assert code == 1 and len(result["cases"]) == 1 and "bad.nii" in message


@pytest.mark.parametrize("directions", ["(0,0,0) (0,1,0) (0,0,1)", "(nan,0,0) (0,1,0) (0,0,1)",
                                        "(1,0,0) (1,0,0) (0,0,1)"])
def test_an_nrrd_without_three_directions_fails_alone(directions: str, segment: Segment, tmp_path: Path) -> None:
    good = scan(tmp_path / "in" / "good.nrrd")
    bad = tmp_path / "in" / "bad.nrrd"
    header = ("NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 4 4\n"
              f"space directions: {directions}\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
              "space origin: (0,0,0)\n\n")
    bad.write_bytes(header.encode() + bytes(128))
    code, result, message = segment(good, bad)
    assert code == 1 and len(result["cases"]) == 1 and "bad.nrrd" in message


def test_the_table_of_a_batch_names_each_image_that_failed_and_why(segment: Segment, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    whole = scan(folder / "a.nrrd").read_bytes()
    (folder / "b.nrrd").write_bytes(whole[:900])
    (folder / "c.nii.gz").write_text("not an image")
    scan(folder / "d.nrrd", seed=1)
    code, result, message = segment(folder)
    assert code == 1 and "2 of 4 images failed" in message
    with open(tmp_path / "out" / "summary.csv", newline="") as file:
        errors = {Path(row["image"]).name: row["error"] for row in csv.DictReader(file)}
    assert set(errors) == {"a.nrrd", "b.nrrd", "c.nii.gz", "d.nrrd"}
    assert errors["b.nrrd"] and errors["c.nii.gz"] and not errors["a.nrrd"] and not errors["d.nrrd"]
    assert [Path(case["image"]).name for case in result["failed"]] == ["b.nrrd", "c.nii.gz"]


def test_an_output_folder_that_is_a_file_is_bad_input(segment: Segment, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    code, _, message = segment(scan(tmp_path / "in" / "a.nrrd"))
    assert code == 2 and "out" in message and (tmp_path / "out").read_text() == "a file"
