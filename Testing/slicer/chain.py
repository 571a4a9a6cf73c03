"""The whole chain in a process of its own, which must never import torch: ``python chain.py segment|finetune ...``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
VALUES = (1, 5)  # stored values of the labels of make_tiny_model.py
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "MedMAESegment"), str(HERE.parents[1] / "MedMAETrain")]


def segment(image: str, model: str, saved: str) -> None:
    """Load IMAGE, segment it with MODEL, save the node to SAVED, reload that, compare."""
    import slicer
    from MedMAESegmentLib.SegmentLogic import SegmentLogic
    from MedMAESegmentLib.VolumeExport import writeVolume

    volume = loadVolume(image)
    node = SegmentLogic().segment(volume, model, device="cpu")
    storage = node.CreateDefaultStorageNode()
    storage.SetFileName(saved)
    assert storage.WriteData(node)
    again = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage.ReadData(again, True)
    assert describe(again, volume) == describe(node, volume)
    for name, color, terminology, count in describe(node, volume):
        print(name, [round(part, 3) for part in color], terminology.split("~")[2], count, sep="\t")
    labels = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    for index, value in enumerate(VALUES):
        segment = node.GetSegmentation().GetNthSegmentID(index)
        labels[slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume) > 0] = value
    np.save(f"{saved}.npy", labels)
    # Loading turns left-handed grids around, therefore the engine alone is asked about the volume as the scene has it.
    writeVolume(volume, Path(f"{saved}.image.nrrd"))


def finetune(name: str) -> None:
    """Train a model called NAME from scratch on two made cases, then segment one of them with it."""
    import slicer
    from MedMAESegmentLib.SegmentLogic import SegmentLogic
    from MedMAETrainLib.TrainLogic import TrainLogic

    cases = [madeCase(seed) for seed in (1, 2)]
    messages = []
    installed = TrainLogic().finetune(
        cases, "none", name, method="gl-mae", preset="tiny", steps=2, device="cpu", waitForCompletion=True,
        progressCallback=lambda fraction, message: messages.append(message))
    assert installed == name, installed
    assert any("2 of 2" in message for message in messages), messages
    from medmae.models import load_info

    labels = load_info(installed).labels
    assert labels[1]["name"] == "blob" and np.allclose(labels[1]["color"], [0.1, 0.9, 0.3]), labels
    node = SegmentLogic().segment(cases[0][0], installed, device="cpu")
    assert isinstance(node, slicer.vtkMRMLSegmentationNode)
    print(installed)


def madeCase(seed: int):
    import slicer

    rng = np.random.default_rng(seed)
    array = rng.normal(0, 20, (20, 24, 28)).astype(np.int16)
    mask = np.zeros(array.shape, np.uint8)
    mask[5:12, 6:14, 8:18] = 1
    array[mask > 0] += 200
    volume = slicer.util.addVolumeFromArray(array, name="DOE^JANE")
    volume.SetSpacing(1.0, 1.0, 2.0)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = segmentation.GetSegmentation().AddEmptySegment("", "blob", [0.1, 0.9, 0.3])
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, segment, volume)
    return volume, segmentation


def loadVolume(path: str):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "loaded")
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(path)
    assert storage.ReadData(node)
    return node


def describe(node, volume) -> list[tuple]:
    """Name, colour, terminology and voxels (as a checksum) of each segment."""
    import slicer

    segmentation = node.GetSegmentation()
    found = []
    for index in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(index)
        array = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentation.GetNthSegmentID(index), volume)
        assert array.shape == slicer.util.arrayFromVolume(volume).shape
        found.append((segment.GetName(), segment.GetColor(), segment.GetTerminology(), int((array > 0).sum())))
    return found


if __name__ == "__main__":
    from mrml_application import MrmlApplication

    application = MrmlApplication()
    {"segment": segment, "finetune": finetune}[sys.argv[1]](*sys.argv[2:])
    heavy = {"torch", "monai", "SimpleITK"} & set(sys.modules)
    assert not heavy, f"imported in the calling process: {heavy}"
