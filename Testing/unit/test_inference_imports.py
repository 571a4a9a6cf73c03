"""A segmentation imports what it needs and no more: every further package is paid at every start."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from worker_helpers import AFFINE, tiny_model, volume

from medmae.config import to_json
from medmae.inference.config import ClassifyConfig, SegmentConfig
from medmae.run_folder import RunFolder
from medmae.worker.child import environment_of_worker

NOT_NEEDED = ("monai", "scipy", "SimpleITK", "click", "rich", "matplotlib", "pydicom", "highdicom", "sympy", "pandas",
              "sklearn", "torchvision", "torch._dynamo", "torch._inductor")


def modules_after(code: str, *arguments: str) -> set[str]:
    """Names of the modules that a new process has imported at the end of `code`."""
    code += "\nimport json, sys; sys.__stdout__.write('\\nmodules ' + json.dumps(sorted(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code, *arguments], env=environment_of_worker(), capture_output=True,
                           text=True)
    assert ended.returncode == 0, ended.stderr
    return set(json.loads(ended.stdout.rpartition("modules ")[2]))


@pytest.mark.parametrize(("kind", "config"), [("segment", SegmentConfig()), ("classify", ClassifyConfig())])
def test_a_run_on_a_nifti_file_imports_neither_monai_nor_what_only_other_formats_need(tmp_path, kind, config):
    from medmae.volumes import Geometry, write_label

    task = {"segment": "segmentation", "classify": "classification"}[kind]
    array = volume((20, 20, 20))
    write_label(tmp_path / "image.nii.gz", array, Geometry(array.shape, AFFINE), [], "nii.gz")
    run = RunFolder.create(tmp_path / "run", kind, to_json(config), {
        "model": str(tiny_model(tmp_path / "model", task)), "images": [str(tmp_path / "image.nii.gz")],
        "out": str(tmp_path / "out")})
    modules = modules_after("import sys; from medmae.run import execute; assert execute(sys.argv[1]) == 0",
                            str(run.path))
    assert "torch" in modules and "safetensors" in modules
    # SimpleITK checks the geometry of NIfTI headers as Slicer reads them, scipy measures surfaces at the end.
    allowed = {"SimpleITK", "scipy"}
    assert sorted(modules & (set(NOT_NEEDED) - allowed)) == []


def test_the_worker_imports_no_more_than_torch_and_numpy_for_a_volume_in_a_buffer(tmp_path):
    np.save(tmp_path / "voxels.npy", volume((20, 20, 20)))
    message = {"id": 1, "op": "segment", "model": str(tiny_model(tmp_path / "model")),
              "images": [{"buffer": {"path": str(tmp_path / "voxels.npy"), "dtype": "int16", "shape": [20, 20, 20],
                                     "offset": 128}, "affine": AFFINE.tolist()}],
              "labels": {"path": str(tmp_path / "labels.raw"), "dtype": "uint8", "shape": [20, 20, 20]}}
    (tmp_path / "labels.raw").write_bytes(bytes(8000))
    code = ("import sys; from medmae.config import from_json; from medmae.worker.model_store import ModelStore\n"
            "import json; from medmae.worker.protocol import request_of; from medmae.worker.work import perform\n"
            "work = request_of(json.loads(sys.argv[1]))\n"
            "def in_time(done, total):\n"
            "    assert sorted(set(sys.modules) & set(sys.argv[2:])) == []\n"
            "perform(work, ModelStore(2**30), in_time, lambda: False)")
    modules = modules_after(code, json.dumps(message), *sorted(set(NOT_NEEDED) - {"scipy"}))  # the body mask needs it
    assert "torch" in modules and sorted(modules & (set(NOT_NEEDED) - {"scipy"})) == []
    assert any((tmp_path / "labels.raw").read_bytes())


def test_listing_models_and_reading_settings_import_no_torch():
    modules = modules_after("import medmae.models, medmae.inference.config, medmae.worker.server, medmae.worker.client")
    assert not modules & {"torch", "safetensors", *NOT_NEEDED}
