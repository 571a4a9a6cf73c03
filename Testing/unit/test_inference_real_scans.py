"""Real scans through `medmae segment`: the same voxels give the same labels, whatever file they come in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from inference_helpers import description
from test_volumes_dicom import write_series
from volume_builders import AXIS_ORDERS, SHARED_VOLUMES

from medmae.cli.app import run
from medmae.inference.segmenter import Segmenter
from medmae.models import save_model
from medmae.networks import architecture_for, build_network
from medmae.volumes import Geometry, Volume, read_image, read_label, reorient
from medmae.volumes.simpleitk_images import image_of

pytestmark = pytest.mark.skipif(not SHARED_VOLUMES.is_dir(), reason="shared data is not here")

SIZES = {"patch": 8, "width": 24, "depth": 3, "heads": 2, "feature_size": 4, "skip_blocks": [1, 2]}
CT_WINDOW = {"kind": "ct_window", "low": -200.0, "high": 300.0}
SPACING_MM = [8.0, 6.0, 6.0]  # coarse, so that whole scans take seconds
Labels = Callable[..., tuple[np.ndarray, Geometry]]


def save(folder: Path, modality: str = "CT") -> Path:
    """A model with random weights: its answers depend on every voxel and mean nothing."""
    torch.manual_seed(5)
    architecture = architecture_for("gl-mae", "tiny", "segmentation", 1, 4)
    architecture["arguments"] |= SIZES
    info = description(size=[32] * 3, architecture=architecture, values=(0, 1, 2, 3), spacing=SPACING_MM,
                       intensity=CT_WINDOW if modality == "CT" else {"kind": "robust"})
    info = replace(info, modality=modality, channels=[{"name": modality, "modality": modality}])
    return save_model(folder, info, build_network(architecture))


@pytest.fixture(scope="module")
def ct_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("ct") / "model")


@pytest.fixture(scope="module")
def mr_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("mr") / "model", "MR")


@pytest.fixture
def segment(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Labels:
    """Labels (k, j, i) and grid of the result of ``medmae segment`` for one image."""
    count = 0

    def call(model: Path, image: Path, *options: str) -> tuple[np.ndarray, Geometry]:
        nonlocal count
        count += 1
        capfd.readouterr()
        assert run(["segment", "--model", str(model), "--images", str(image), "--out", str(tmp_path / f"out{count}"),
                    "--device", "cpu", "--precision", "fp32", "--json", *options]) == 0
        label = read_label(Path(json.loads(capfd.readouterr().out)["cases"][0]["output"]))
        return label.array[0], label.geometry

    return call


def as_dicom(folder: Path, image: Volume) -> Path:
    """The same voxels as a DICOM series, Hounsfield units shifted by the usual 1024."""
    geometry = image.geometry
    lps = np.diag([-1.0, -1.0, 1.0]) @ geometry.affine[:3]
    k, j, i = geometry.spacing_mm
    stored = image.array[0] + np.int16(1024)
    write_series(folder, directions=lps[:, :3] / [i, j, k], places=np.arange(len(stored)) * k, array=stored)
    import pydicom

    for number, path in enumerate(sorted(folder.glob("*.dcm"))):
        tags = pydicom.dcmread(path)
        tags.PixelSpacing = [f"{j:.9g}", f"{i:.9g}"]
        tags.ImagePositionPatient = [f"{value:.10g}" for value in lps[:, 3] + number * lps[:, 2]]
        tags.save_as(path)
    return folder


@pytest.mark.parametrize("name", ["ct_trunk_3mm", "ct_abdomen_512"])
def test_a_ct_has_the_same_labels_from_nifti_nrrd_and_dicom(
        name: str, ct_model: Path, segment: Labels, tmp_path: Path) -> None:
    source = SHARED_VOLUMES / name / "image.nii.gz"
    image = read_image(source)
    sitk.WriteImage(image_of(image.array[0], image.geometry), str(tmp_path / "image.nrrd"), True)
    series = as_dicom(tmp_path / "series", image)
    expected, grid = segment(ct_model, source)
    assert len(np.unique(expected)) >= 3, "the labels say nothing"
    assert grid.is_close(image.geometry)
    for other in (tmp_path / "image.nrrd", series):
        labels, other_grid = segment(ct_model, other)
        assert np.array_equal(labels, expected), other.name
        assert other_grid.is_close(grid, 1e-3)


def test_the_dicom_crop_has_the_same_labels_from_all_three_formats(
        ct_model: Path, segment: Labels, tmp_path: Path) -> None:
    folder = SHARED_VOLUMES / "ct_abdomen_dicom"
    series = tmp_path / "series"  # without the NIfTI twin that lies beside the slices
    shutil.copytree(folder, series, ignore=shutil.ignore_patterns("*.nii.gz"))
    twin = read_image(folder / "same_as.nii.gz")
    sitk.WriteImage(image_of(twin.array[0], twin.geometry), str(tmp_path / "twin.nrrd"), True)
    expected, grid = segment(ct_model, series)
    assert len(np.unique(expected)) >= 3
    for other in (folder / "same_as.nii.gz", tmp_path / "twin.nrrd"):
        labels, other_grid = segment(ct_model, other)
        assert np.array_equal(labels, expected) and other_grid.is_close(grid, 1e-3)


def test_the_same_scan_stored_in_any_of_48_orientations_has_the_same_labels(mr_model: Path) -> None:
    image = read_image(SHARED_VOLUMES / "mr_spinal_cord_psr_axes" / "image.nii.gz")
    segmenter = Segmenter(mr_model, device="cpu", precision="fp32")
    expected = segmenter.segment(image)
    assert len(np.unique(expected)) >= 3
    for axes in AXIS_ORDERS:
        array, grid = reorient(image.array, image.geometry, axes)
        labels = segmenter.segment(Volume(np.ascontiguousarray(array), grid, source=axes))
        back, found = reorient(labels, grid, image.geometry.axes)
        assert found.is_close(image.geometry)
        assert np.array_equal(back, expected), axes


def test_an_oblique_scan_is_labelled_on_its_grid_and_each_frame_of_a_4d_file_by_itself(
        mr_model: Path, segment: Labels) -> None:
    folder = SHARED_VOLUMES / "mr_brain_epi_oblique"
    alone, grid = segment(mr_model, folder / "image.nii.gz")
    assert grid.is_close(read_image(folder / "image.nii.gz").geometry) and len(np.unique(alone)) >= 2
    first, first_grid = segment(mr_model, folder / "image_4d.nii.gz", "--frame", "0")
    second, _ = segment(mr_model, folder / "image_4d.nii.gz", "--frame", "1")
    assert np.array_equal(first, alone) and first_grid.is_close(grid)
    assert not np.array_equal(second, alone)


def test_a_4d_file_without_a_frame_is_refused(mr_model: Path, tmp_path: Path,
                                              capfd: pytest.CaptureFixture[str]) -> None:
    image = SHARED_VOLUMES / "mr_brain_epi_oblique" / "image_4d.nii.gz"
    assert run(["segment", "--model", str(mr_model), "--images", str(image), "--out", str(tmp_path / "out")]) == 2
    assert "frame" in capfd.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_of_a_scan_is_labelled_on_its_grid(axis: int, ct_model: Path, segment: Labels,
                                                     tmp_path: Path) -> None:
    image = read_image(SHARED_VOLUMES / "ct_trunk_3mm" / "image.nii.gz")
    start, size = [0, 0, 0], list(image.geometry.shape)
    start[axis], size[axis] = size[axis] // 2, 1
    part = image.array[0][tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))]
    grid = image.geometry.cropped(start, size)
    sitk.WriteImage(image_of(np.ascontiguousarray(part), grid), str(tmp_path / "slice.nrrd"))
    labels, found = segment(ct_model, tmp_path / "slice.nrrd")
    assert labels.shape == tuple(size) and found.is_close(grid)


@pytest.mark.parametrize("name", ["ct_trunk_3mm/image.nii.gz", "mr_brain_epi_oblique/image.nii.gz"])
def test_nothing_outside_of_a_region_of_interest_is_touched(name: str, ct_model: Path, mr_model: Path) -> None:
    image = read_image(SHARED_VOLUMES / name)
    segmenter = Segmenter(ct_model if name.startswith("ct") else mr_model, device="cpu", precision="fp32")
    centre = image.geometry.center_mm
    reach = np.array([30.0, 25.0, 12.0])
    box = np.stack([centre - reach, centre + reach], 1).ravel().tolist()
    base = np.random.default_rng(0).integers(4, 9, image.geometry.shape).astype(np.uint8)
    labels = segmenter.segment(image, roi=box, base=base)
    indices = np.stack(np.meshgrid(*map(np.arange, image.geometry.shape), indexing="ij"), -1)
    world = image.geometry.to_world(indices)
    inside = (np.abs(world - centre) <= reach).all(-1)
    assert np.array_equal(labels[~inside], base[~inside])
    assert inside.any() and (labels[inside] < 4).all()
    alone = segmenter.segment(image, roi=box)
    assert (alone[~inside] == 0).all() and np.array_equal(alone[inside], labels[inside])
