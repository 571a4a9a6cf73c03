"""Orientation and spacing of 3-D pretraining: thin volumes have their slices along k, and models say what was seen."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from volume_builders import write_nifti

from medmae.datasets import Corpus
from medmae.errors import BadInput
from medmae.models import load_info
from medmae.networks.presets import preset
from medmae.pretraining.config import PretrainConfig, resolve_pretrain_config
from medmae.pretraining.network_grid import in_orientation, network_orientation, slice_axis, warn_of_other_slices
from medmae.pretraining.run import prepare_corpus
from medmae.run import execute
from medmae.run_folder import RunFolder
from medmae.volumes import Geometry

THIN, CUBIC = preset("gl-mae", "tiny-thin"), preset("gl-mae", "tiny")


@pytest.mark.parametrize(("shape", "spacing", "axis"), [
    ((24, 512, 512), (5.0, 0.8, 0.8), 0),
    ((300, 20, 300), (0.8, 4.0, 0.8), 1),
    ((300, 300, 12), (0.7, 0.7, 6.0), 2),
    ((12, 64, 64), (1.0, 1.0, 1.0), 0),  # a slab
    ((160, 256, 256), (1.0, 1.0, 1.0), None),
    ((36, 50, 35), (1.0, 1.0, 1.0), None),
])
def test_slices_run_along_the_thickest_voxels_or_the_fewest(shape, spacing, axis) -> None:
    assert slice_axis(shape, spacing) == axis


@given(axis=st.integers(0, 2), thickness=st.floats(2, 8), width=st.floats(0.4, 1.2))
def test_the_chosen_orientation_has_the_thick_axis_as_k(axis: int, thickness: float, width: float) -> None:
    spacing = tuple(thickness if axis == other else width for other in range(3))
    orientation = network_orientation(THIN, [(20, 20, 20)], [spacing])
    assert in_orientation(spacing, orientation) == (thickness, width, width)
    assert network_orientation(CUBIC, [(20, 20, 20)], [spacing]) == "RAS"


def test_most_volumes_decide_and_the_others_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    spacings = [(5.0, 1.0, 1.0), (1.0, 1.0, 5.0), (1.0, 1.0, 5.0)]
    with caplog.at_level(logging.WARNING, "medmae"):
        assert network_orientation(THIN, [(9, 9, 9)] * 3, spacings) == "ASR"
    assert "2 of 3 volumes have sagittal slices" in caplog.text
    assert network_orientation(THIN, [], []) == "RAS"


def write_sagittal(folder: Path, thickness: tuple[float, ...]) -> None:
    for number, thick in enumerate(thickness):
        spacing = (thick, 0.8, 0.8)  # k, j, i of slices that run from right to left
        geometry = Geometry.of((6, 40, 44), spacing, axes="ASR")
        image = np.random.default_rng(number).normal(100, 30, (6, 40, 44)).astype(np.int16)
        write_nifti(folder / f"{number}.nii", image, sform=geometry.affine, spacing=spacing[::-1])


def config_of(**settings: object) -> dict[str, object]:
    return {"method": "gl-mae", "preset": "tiny-thin", "steps": 1, "batch_size": 2, "workers": 0,
            "settings": {"local_views": 1, "global_views": 1, "projector_hidden": 16, "projector_bottleneck": 8,
                         "prototypes": 16}, **settings}


def test_sagittal_volumes_are_seen_slice_by_slice_and_the_model_says_so(tmp_path: Path) -> None:
    write_sagittal(tmp_path, (5.0, 4.0, 5.0))
    run = RunFolder.create(tmp_path / "run", "pretrain", config_of(), {"images": [str(tmp_path / "*.nii")]})
    assert execute(run.path) == 0
    info = load_info(run.model)
    assert info.orientation == "ASR"
    assert info.spacing_mm == pytest.approx([5.0, 0.8, 0.8])
    assert Corpus(run.path / "corpus").image(0).shape == (1, 6, 40, 44)
    assert "outside the images lie" in run.log_file.read_text()


def test_native_volumes_keep_their_spacing_and_views_may_have_one_of_their_own(tmp_path: Path) -> None:
    write_sagittal(tmp_path, (5.0, 4.0))
    config = config_of(spacing_mm="native")
    config["settings"] = {**config["settings"], "view_spacing_mm": [4.5, 1.0, 1.0]}  # type: ignore[dict-item]
    run = RunFolder.create(tmp_path / "run", "pretrain", config, {"images": [str(tmp_path / "*.nii")]})
    assert execute(run.path) == 0
    np.testing.assert_allclose(Corpus(run.path / "corpus").items.spacings_mm, [[5, 0.8, 0.8], [4, 0.8, 0.8]], rtol=1e-5)
    assert load_info(run.model).spacing_mm == [4.5, 1.0, 1.0]


def test_native_spacing_without_one_of_the_views_is_said_to_be_none(tmp_path: Path) -> None:
    write_sagittal(tmp_path, (5.0,))
    config = resolve_pretrain_config(PretrainConfig(preset="tiny-thin", spacing_mm="native", workers=0))
    run = RunFolder.create(tmp_path / "run", "pretrain", {}, {})
    corpus = prepare_corpus(run, config, {"images": [str(tmp_path / "*.nii")]})
    assert '"spacing_mm": null' in (corpus.folder / "preprocessing.json").read_text()


def test_native_spacing_is_for_volumes_only() -> None:
    with pytest.raises(BadInput, match="native is for volumes"):
        resolve_pretrain_config(PretrainConfig(method="vis-mae", spacing_mm="native"))


def test_volumes_that_a_thin_encoder_would_cut_across_their_slices_are_counted(
        caplog: pytest.LogCaptureFixture) -> None:
    spacings = [(5.0, 1.0, 1.0), (1.0, 1.0, 5.0), (1.0, 1.0, 5.0)]
    with caplog.at_level(logging.WARNING, "medmae"):
        warn_of_other_slices(CUBIC, "RAS", [(9, 9, 9)] * 3, spacings)
        warn_of_other_slices(THIN, "ASR", [(9, 9, 9)] * 2, spacings[1:])
        assert not caplog.records
        warn_of_other_slices(THIN, "RAS", [(9, 9, 9)] * 3, spacings)
    assert "2 of 3 volumes have their slices another way" in caplog.text and "(axial)" in caplog.text
