"""Write pictures of the module panels: ``python make_screenshots.py [FOLDER]``; needs SLICER_PYTHON_SOURCE.

The panels show a small made-up scene and a list of models without weights; nothing is computed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "MedMAESegment"), str(ROOT / "MedMAETrain")]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


def main(folder: Path) -> None:
    from mrml_application import MrmlApplication
    from qtapp.application import PanelApplication

    MrmlApplication()
    application = PanelApplication(os.environ["SLICER_PYTHON_SOURCE"])
    _knownModels()
    cases = [_case(f"Hippocampus {number:03d}") for number in (17, 23, 31, 40)]
    folder.mkdir(parents=True, exist_ok=True)
    application.screenshot(_segmenting(application, *cases[0]), folder / "MedMAESegment.png")
    application.screenshot(_training(application, cases), folder / "MedMAETrain.png")


def _segmenting(application, volume, segmentation):
    panel = application.open("MedMAESegment")
    panel._parameterNode.inputVolume = volume
    panel._parameterNode.segmentation = segmentation
    panel._job = SimpleNamespace()  # as if a child were working
    panel._checkCanApply()
    panel._onProgress(0.62, "Segment 62 of 100, about 8 s left")
    application.show(panel, height=390)
    panel._job = None
    return panel


def _training(application, cases):
    panel = application.open("MedMAETrain")
    panel._parameterNode.setCases(cases)
    panel._parameterNode.modelName = "Hippocampus of our scanner"
    panel.updateCaseTable()
    application.show(panel, height=525)
    return panel


def _case(name: str):
    import slicer

    volume = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.int16), name=name)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} segmentation")
    for segment in ("anterior", "posterior"):
        segmentation.GetSegmentation().AddEmptySegment("", segment)
    return volume, segmentation


def _knownModels() -> None:
    import medmae.models

    def model(name, task):
        labels = [{"name": "background"}, {"name": "anterior hippocampus"}, {"name": "posterior hippocampus"}]
        return name, SimpleNamespace(name=name, task=task, modality="MR", spatial_dims=3, labels=labels, training={})

    segmenting = model("Hippocampus", "segmentation")
    segmenting[1].training = {"cases": 8}
    medmae.models.list_models = lambda: [model("brain GL-MAE tiny", "encoder"), segmenting]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["MEDMAE_HOME"] = home
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "Resources" / "Screenshots")
