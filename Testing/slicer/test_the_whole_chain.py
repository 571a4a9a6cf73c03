"""The real engine under the real scene: real children compute, the calling process stays free of torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


def _run(script: str, *arguments: object) -> str:
    done = subprocess.run([sys.executable, str(HERE / script), *map(str, arguments)], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for method in ("gl-mae", "vis-mae"):
        _run("make_tiny_model.py", folder / method, method)
    _run("make_tiny_model.py", folder / "with-neighbours", "vis-mae", 2)
    return folder


def _engine_result(image: Path, model: Path, folder: Path) -> np.ndarray:
    """What the engine writes for the image when it is asked without Slicer."""
    import SimpleITK

    from medmae.run_folder import RunFolder

    run = RunFolder.create(folder / "run", "segment", {"device": "cpu", "format": "nii.gz"},
                           {"model": str(model), "images": [str(image)], "out": str(folder / "out")})
    subprocess.run([sys.executable, "-m", "medmae.run", str(run.path)], check=True,
                   env={**os.environ, "OMP_NUM_THREADS": "1"})
    (file,) = (folder / "out").rglob("*.nii.gz")
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


def _check(image: Path, model: Path, folder: Path) -> None:
    told = _run("chain.py", "segment", image, model, folder / "saved.seg.nrrd").splitlines()
    assert told[0].startswith("liver\t[0.867, 0.51, 0.396]\tSCT^10200004^Liver")
    assert told[1].startswith("left kidney\t[0.725, 0.4, 0.325]\tSCT^64033007^Kidney")
    labels = np.load(folder / "saved.seg.nrrd.npy")
    np.testing.assert_array_equal(labels, _engine_result(folder / "saved.seg.nrrd.image.nrrd", model, folder))
    assert len(np.unique(labels)) > 1, "a test with an empty result shows nothing"


@pytest.mark.parametrize("method", ["gl-mae", "vis-mae", "with-neighbours"])
def test_a_volume_file_is_segmented_saved_and_reloaded_the_same(models, make_volume, tmp_path, method):
    import slicer

    node = make_volume((9, 40, 44))
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(tmp_path / "image.nrrd"))
    assert storage.WriteData(node)
    _check(tmp_path / "image.nrrd", models / method, tmp_path)


def test_real_volumes_too(models, shared_data, tmp_path):
    _check(shared_data / "volumes" / "mr_spinal_cord_psr_axes" / "image.nii.gz", models / "vis-mae", tmp_path)


def test_a_model_is_finetuned_on_the_scene_installed_and_used(tmp_path):
    assert _run("chain.py", "finetune", "Blobs of mine").strip() == "Blobs of mine"


def test_an_encoder_is_no_segmentation_model(make_volume, monkeypatch):
    from types import SimpleNamespace

    from MedMAESegmentLib.SegmentLogic import SegmentLogic

    import medmae.models

    monkeypatch.setattr(medmae.models, "resolve_model", lambda name: Path(name))
    monkeypatch.setattr(medmae.models, "load_info", lambda path: SimpleNamespace(name="brains", task="encoder"))
    with pytest.raises(ValueError, match="brains is for encoder, not for segmentation"):
        SegmentLogic().segment(make_volume(), "brains")


def test_importing_the_modules_code_imports_nothing_heavy():
    code = ("import sys; sys.path[:0] = sys.argv[1:]; from mrml_application import MrmlApplication; MrmlApplication();"
            "import MedMAESegmentLib.SegmentLogic, MedMAETrainLib.TrainLogic;"
            "print(sorted({'torch', 'monai', 'SimpleITK', 'scipy'} & set(sys.modules)))")
    folders = [HERE, HERE.parents[1] / "MedMAESegment", HERE.parents[1] / "MedMAETrain"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, folders)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
