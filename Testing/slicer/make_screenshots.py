"""Write pictures of the module panels: ``python make_screenshots.py [FOLDER]``.

What they show has happened. In a project of synthetic CT the Train panel pretrains an encoder for some steps,
finetunes on four annotated volumes and ranks others; the Segment panel segments new ones with that model, and another
model tells findings of synthetic X-ray pictures. The panels go to Resources/Screenshots, every state of both to
docs/images, or all to FOLDER. About a quarter of an hour on two CPU cores.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train_states import TrainStates

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "MedMAESegment"), str(ROOT / "MedMAETrain")]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

FINDING_STEPS = 100


def main(panels: Path, states: Path, work: Path) -> None:
    import slicer
    from mrml_application import MrmlApplication
    from qtapp.application import PanelApplication
    from run_states import MODEL
    from screenshot_data import loadPicture, loadVolume
    from segment_states import SegmentStates
    from train_states import TrainStates

    from medmae.demo.synthetic import write_abdomen_ct, write_chest_xray

    mrml = MrmlApplication()
    application = PanelApplication(os.environ.get("SLICER_PYTHON_SOURCE"))
    slicer.util.mainWindow = lambda: None
    settings = application.qt.QSettings  # those of who takes the pictures are neither read nor written
    settings.setPath(settings.NativeFormat, settings.UserScope, str(work / "settings"))
    for folder in (panels, states):
        folder.mkdir(parents=True, exist_ok=True)
    write_abdomen_ct(work / "ct", training=10, validation=0, test=3, unlabeled=0)
    _segmentation, findings = write_chest_xray(work / "xray", training=24, validation=8, test=1, unlabeled=0)
    pictures = SegmentStates(application, states)
    loadVolume(work / "ct", 10)
    pictures.withoutModels()
    mrml.clear()
    _train(TrainStates(application, states), work, panels / "MedMAETrain.png")
    mrml.clear()
    _finetune(findings, work / "finding", "Synthetic chest X-ray finding")
    pictures.emptyScene()
    volumes = [loadVolume(work / "ct", number) for number in (10, 11, 12)]
    pictures.volume(volumes[0], MODEL, panels / "MedMAESegment.png")
    pictures.batch()
    _effect(application, volumes[0], states / "segment-effect.png")
    mrml.clear()
    loadPicture(work / "xray" / "images" / "xray_032.png", "Synthetic chest X-ray")
    pictures.classification("Synthetic chest X-ray finding")


def _train(pictures: TrainStates, work: Path, whole: Path) -> None:
    """Everything that is done with a project; the second of six annotated cases has segments with other names."""
    from run_states import RunStates
    from screenshot_data import loadCase

    pictures.withoutProject()
    for number in range(6):
        loadCase(work / "ct", number, {"liver": "Leber", "kidney": "Kidneys"} if number == 1 else {})
    archive = work / "archive"
    archive.mkdir()
    for number in range(6, 10):
        shutil.copy(work / "ct" / "images" / f"ct_{number:03d}.nii.gz", archive / f"Scan {number + 1}.nii.gz")
    pictures.cases(archive)
    pictures.train()
    runs = RunStates(pictures)
    runs.pretraining()
    runs.finetuning(whole)
    runs.next(work / "ct" / "labels")
    pictures.close()


def _finetune(dataset: Path, path: Path, name: str) -> None:
    config = {"method": "vis-mae", "preset": "tiny", "steps": FINDING_STEPS, "batch_size": 8, "layer_decay": 1.0}
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
        os.environ["HOME"], os.environ["MEDMAE_HOME"] = temporary, str(Path(temporary) / "medmae")
        main(folder or ROOT / "Resources" / "Screenshots", folder or ROOT / "docs" / "images", Path(temporary))
