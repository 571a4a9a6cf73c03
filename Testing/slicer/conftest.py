"""Fixtures of the module tests: a real MRML scene, volumes and segmentations in it, a stand-in for the engine."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from drive_fixtures import sshd, user, volumes  # noqa: F401 - found by their names
from model_fixtures import answering, home, models, scripting_models, section  # noqa: F401 - found by their names
from panel_fixtures import (  # noqa: F401 - fixtures are found by their names
    LABELS,
    agree,
    installed,
    model,
    model_info,
    open_panel,
    qt_application,
    result_file,
)
from stand_in_fixtures import base_python, base_python_of  # noqa: F401 - found by their names
from starting_fixtures import small_project, starting_logic, train_page  # noqa: F401 - found by their names
from train_fixtures import (  # noqa: F401
    add_case,
    answers,
    cases,
    chooser,
    livers,
    panel_parent,
    picture,
    said,
    train_logic,
    user_settings,
)

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT / "MedMAESegment", ROOT / "MedMAETrain"):
    sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def application():
    from mrml_application import MrmlApplication

    return MrmlApplication()


@pytest.fixture(autouse=True)
def scene(application):
    """An empty scene."""
    application.clear()
    yield application.scene
    application.clear()


@pytest.fixture
def make_volume(scene):
    """Add a volume node; by default an oblique, anisotropic, left-handed grid."""
    import slicer

    def make(shape=(6, 8, 10), dtype="int16", affine=None, name="CT of somebody"):
        rng = np.random.default_rng(0)
        array = (rng.normal(size=shape) * 100).astype(dtype)
        node = slicer.util.addVolumeFromArray(array, name=name)
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(OBLIQUE if affine is None else affine))
        return node

    return make


@pytest.fixture
def make_segmentation(scene):
    """Add a segmentation node of boxes {name: (k slice, j slice, i slice)} on the grid of a volume."""
    import slicer

    def make(volume, boxes, colors=None):
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        for name, box in boxes.items():
            segment = node.GetSegmentation().AddEmptySegment("", name, (colors or {}).get(name, [0.2, 0.4, 0.6]))
            mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
            if box is not None:
                mask[box] = 1
                slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, volume)
        return node

    return make


def _oblique() -> np.ndarray:
    angle = np.deg2rad(20)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    flip = np.array([[0, -1, 0], [1, 0, 0], [0, 0, -1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ flip @ np.diag([0.7, 0.9, 3.0])
    affine[:3, 3] = [12.5, -40.25, 7.125]
    return affine


OBLIQUE = _oblique()


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Set what the stand-in for the engine does: engine("progress", "result=FILE")."""
    def plan(*actions):
        (tmp_path / "plan").write_text(" ".join(actions))
        monkeypatch.setenv("FAKE_ENGINE", str(tmp_path / "plan"))

    return plan


@pytest.fixture
def fake_worker(tmp_path, monkeypatch):
    """A worker session whose worker does what `work_plan` says."""
    from MedMAESegmentLib.WorkerSession import WorkerSession

    monkeypatch.setenv("FAKE_WORKER", str(tmp_path / "work"))
    session = WorkerSession([sys.executable, str(ROOT / "Testing" / "slicer" / "fake_worker.py")])
    yield session
    session.close()


@pytest.fixture
def work_plan(tmp_path):
    """Set what the stand-in for the worker does: work_plan("progress", "labels=FILE")."""
    return lambda *actions: (tmp_path / "work").write_text("\n".join(actions))


@pytest.fixture
def labels_file(tmp_path):
    """Labels {box: value} on the grid of a volume, in a file that the stand-in for the worker takes."""
    def write(volume, boxes, name="labels.npy"):
        import slicer

        labels = np.zeros(slicer.util.arrayFromVolume(volume).shape[:3], np.uint8)
        for value, box in enumerate(boxes, 1):
            labels[box] = value
        np.save(tmp_path / name, labels)
        return tmp_path / name

    return write


def voxels_left(logic) -> list[str]:
    """Files of voxels that are still there between the session and its worker, which has two seconds to let go."""
    folder, deadline = logic.worker.client.exchange.folder, time.monotonic() + 2
    while True:
        logic.worker.poll()
        left = sorted(path.name for path in folder.iterdir() if path.name != "worker.log")
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


@pytest.fixture
def a_known_model(monkeypatch):
    """A model called "model" in the registry, for tests in which nothing is computed."""
    import medmae.models

    monkeypatch.setattr(medmae.models, "resolve_model", lambda name: Path("/models") / str(name))
    monkeypatch.setattr(medmae.models, "load_info", lambda path: model_info(
        path.name, labels=LABELS, weights_sha256="0" * 64))
