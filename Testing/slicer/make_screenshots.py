"""Write pictures of the module panels: ``python make_screenshots.py [FOLDER]``; needs SLICER_PYTHON_SOURCE.

What they show has happened: an encoder is pretrained for a few steps on synthetic CT volumes, the Train panel finetunes
it on four of them, and the Segment panel segments a fifth with the model. About five minutes on two CPU cores.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "MedMAESegment"), str(ROOT / "MedMAETrain")]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

LABELS = ("liver", "spleen", "kidney")
STEPS = 24


def main(folder: Path, work: Path) -> None:
    from mrml_application import MrmlApplication
    from qtapp.application import PanelApplication

    from medmae.demo.synthetic import write_abdomen_ct

    MrmlApplication()
    application = PanelApplication(os.environ["SLICER_PYTHON_SOURCE"])
    dataset = write_abdomen_ct(work / "data", training=4, validation=0, test=1, unlabeled=0)
    _pretrain(dataset, work / "pretrain", "Synthetic CT encoder")
    cases = [_case(work / "data", f"ct_{number:03d}", f"Synthetic CT {number + 1}") for number in range(5)]
    folder.mkdir(parents=True, exist_ok=True)
    _train(application, cases[:4], folder / "MedMAETrain.png")
    _segment(application, cases[4][0], folder / "MedMAESegment.png")


def _pretrain(dataset: Path, path: Path, name: str) -> None:
    from MedMAESegmentLib.ChildProcess import ChildProcess
    from MedMAESegmentLib.RunJob import RunJob

    from medmae.models import install_model
    from medmae.run_folder import RunFolder

    run = RunFolder.create(path, "pretrain", {"method": "gl-mae", "preset": "tiny", "steps": STEPS, "batch_size": 2},
                           {"dataset": str(dataset), "split": "training", "images": None, "corpus": None})
    child = ChildProcess(run.path)
    child.start()
    RunJob(run, child).wait()
    install_model(run.path, name=name)


def _case(data: Path, identifier: str, name: str):
    """The volume and its segmentation, loaded into the scene."""
    import slicer

    from medmae.demo.abdomen import LABELS as VALUES

    volume = _load(data / "images" / f"{identifier}.nii.gz", "vtkMRMLScalarVolumeNode", name)
    labels = _load(data / "labels" / f"{identifier}.nii.gz", "vtkMRMLLabelMapVolumeNode", "labels")
    array = slicer.util.arrayFromVolume(labels)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} segmentation")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for label in LABELS:
        segment = segmentation.GetSegmentation().AddEmptySegment("", label)
        mask = (array == VALUES[label]).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, segment, volume)
    slicer.mrmlScene.RemoveNode(labels)
    return volume, segmentation


def _load(path: Path, className: str, name: str):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass(className, name)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return node


def _train(application, cases, picture: Path) -> None:
    panel = application.open("MedMAETrain")
    panel._parameterNode.setCases(cases)
    panel.ui.modelNameLineEdit.setText("Synthetic abdomen")
    panel.ui.stepsSpinBox.setValue(STEPS)
    application.show(panel, height=525)
    application.screenshot(panel, picture)
    panel.ui.finetuneButton.click()
    _until(application, lambda: panel._job is None)
    assert panel.ui.statusLabel.text.startswith("The model Synthetic abdomen is ready"), panel.ui.statusLabel.text
    panel.cleanup()


def _segment(application, volume, picture: Path) -> None:
    panel = application.open("MedMAESegment")
    panel._parameterNode.inputVolume = volume
    application.show(panel, height=390)
    panel.ui.segmentButton.click()
    _until(application, lambda: panel._job is None or 0.4 < panel._job.fraction < 0.9)
    application.screenshot(panel, picture)
    _until(application, lambda: panel._job is None)
    assert panel.ui.statusLabel.text.startswith("Done"), panel.ui.statusLabel.text
    panel.cleanup()


def _until(application, condition: Callable[[], bool]) -> None:
    while not condition():
        application.application.processEvents()
        time.sleep(0.01)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["MEDMAE_HOME"] = str(Path(temporary) / "home")
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "Resources" / "Screenshots", Path(temporary))
