"""Write pictures of the module panels: ``python make_screenshots.py [FOLDER]``.

What they show has happened: an encoder is pretrained for some steps on synthetic CT volumes, the Train panel finetunes
it on four of them, and the Segment panel segments others with the model; another model tells findings of synthetic
X-ray pictures. The panels go to Resources/Screenshots, every state of the Segment panel to docs/images, or all to
FOLDER. About ten minutes on two CPU cores.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "MedMAESegment"), str(ROOT / "MedMAETrain")]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

LABELS = ("liver", "spleen", "kidney")
PRETRAINING_STEPS = 24
STEPS = 100


def main(panels: Path, states: Path, work: Path) -> None:
    from mrml_application import MrmlApplication
    from qtapp.application import PanelApplication
    from segment_states import SegmentStates

    from medmae.demo.synthetic import write_abdomen_ct, write_chest_xray

    mrml = MrmlApplication()
    application = PanelApplication(os.environ.get("SLICER_PYTHON_SOURCE"))
    for folder in (panels, states):
        folder.mkdir(parents=True, exist_ok=True)
    dataset = write_abdomen_ct(work / "ct", training=4, validation=0, test=3, unlabeled=0)
    _segmentation, findings = write_chest_xray(work / "xray", training=24, validation=8, test=1, unlabeled=0)
    pictures = SegmentStates(application, states)
    _load(work / "ct" / "images" / "ct_004.nii.gz", "vtkMRMLScalarVolumeNode", "Synthetic CT 5")
    pictures.withoutModels()
    mrml.clear()
    _pretrain(dataset, work / "pretrain", "Synthetic CT encoder")
    _finetune(findings, work / "finding", "Synthetic chest X-ray finding")
    for number in range(4):
        _case(work / "ct", f"ct_{number:03d}", f"Synthetic CT {number + 1}")
    _train(application, work, panels / "MedMAETrain.png")
    mrml.clear()
    pictures.emptyScene()
    volumes = [_load(work / "ct" / "images" / f"ct_{number:03d}.nii.gz", "vtkMRMLScalarVolumeNode",
                     f"Synthetic CT {number + 1}") for number in (4, 5, 6)]
    pictures.volume(volumes[0], "Synthetic abdomen", panels / "MedMAESegment.png")
    pictures.batch()
    _effect(application, volumes[0], states / "segment-effect.png")
    mrml.clear()
    _loadPicture(work / "xray" / "images" / "xray_032.png", "Synthetic chest X-ray")
    pictures.classification("Synthetic chest X-ray finding")


def _pretrain(dataset: Path, path: Path, name: str) -> None:
    config = {"method": "gl-mae", "preset": "tiny", "steps": PRETRAINING_STEPS, "batch_size": 2}
    _run(path, "pretrain", config, {"dataset": str(dataset), "split": "training", "images": None, "corpus": None}, name)


def _finetune(dataset: Path, path: Path, name: str) -> None:
    config = {"method": "vis-mae", "preset": "tiny", "steps": STEPS, "batch_size": 8, "layer_decay": 1.0}
    _run(path, "finetune", config, {"dataset": str(dataset), "encoder": "none", "subset": None}, name)


def _run(path: Path, kind: str, config: dict, inputs: dict, name: str) -> None:
    """Execute a run in a child process and install its model."""
    from MedMAESegmentLib.ChildProcess import ChildProcess
    from MedMAESegmentLib.RunJob import RunJob

    from medmae.models import install_model
    from medmae.run_folder import RunFolder

    run = RunFolder.create(path, kind, config, inputs)
    child = ChildProcess(run.path)
    child.start()
    RunJob(run, child).wait()
    install_model(run.path, name=name)


def _case(data: Path, identifier: str, name: str) -> None:
    """Load a volume and its segmentation into the scene."""
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


def _load(path: Path, className: str, name: str):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass(className, name)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return node


def _loadPicture(path: Path, name: str):
    """As Slicer does; its library alone reads no PNG."""
    import SimpleITK as sitk
    import slicer

    return slicer.util.addVolumeFromArray(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[None], name=name)


def _train(application, work: Path, picture: Path) -> None:
    """A project of what is in the scene, and a model of it."""
    settings = application.qt.QSettings  # not those of who makes the pictures
    settings.setPath(settings.NativeFormat, settings.UserScope, str(work / "settings"))
    panel = application.open("MedMAETrain")
    project = panel.logic.createProject(work / "Abdomen", "Synthetic abdomen")
    panel.projectSection.folder = str(project.path)
    panel.casesPage.adding.onScene()
    assert len(project.cases) == 4, panel.casesPage.messages.text
    panel.casesPage.messages.onClose()
    panel.casesPage.select(["case-0002"])
    application.show(panel, height=525)
    application.screenshot(panel, picture)
    panel.logic.finetune(project, "Synthetic CT encoder", "Synthetic abdomen", steps=STEPS, waitForCompletion=True)
    panel.cleanup()


def _effect(application, volume, picture: Path) -> None:
    """The effect of the Segment Editor, with its model taken into a new segmentation."""
    import slicer
    from qtapp import effects

    module = ROOT / "SegmentEditorMedMAE"
    sys.path.insert(0, str(module))
    effects.install(os.environ.get("SLICER_PYTHON_SOURCE"))
    effect = effects.ScriptedEffect()
    effect.setPythonSource(module / "SegmentEditorMedMAELib" / "SegmentEditorEffect.py")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Edited")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    editor = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetAndObserveSegmentationNode(segmentation)
    editor.SetAndObserveSourceVolumeNode(volume)
    effect.edit(editor)
    effect.frame.resize(420, 150)
    options = effect.self()
    options.applyButton.click()
    _until(application, lambda: not options._run.isRunning)
    assert options.statusLabel.text.startswith("Done"), options.statusLabel.text
    application.screenshot(SimpleNamespace(parent=effect.frame), picture)
    options.cleanup()


def _until(application, condition: Callable[[], bool]) -> None:
    while not condition():
        application.application.processEvents()
        time.sleep(0.01)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["MEDMAE_HOME"] = str(Path(temporary) / "home")
        main(folder or ROOT / "Resources" / "Screenshots", folder or ROOT / "docs" / "images", Path(temporary))
