"""What is seen on the pictures of the panels: synthetic volumes and pictures, loaded into the scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

LABELS = ("liver", "spleen", "kidney")


def loadCase(data: Path, number: int, names: dict[str, str]) -> None:
    """Load a volume and its segmentation; `names` are those of segments that are not called as the label."""
    import slicer

    volume = loadVolume(data, number)
    name = f"{volume.GetName()} segmentation"
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for label in LABELS:
        segment = segmentation.GetSegmentation().AddEmptySegment("", names.get(label, label))
        slicer.util.updateSegmentBinaryLabelmapFromArray(maskOf(data, number, label), segmentation, segment, volume)


def maskOf(data: Path, number: int, label: str) -> Any:
    """Where a label is in a synthetic CT: (k, j, i), as its volume node has it."""
    import slicer

    from medmae.demo.abdomen import LABELS as VALUES

    node = _load(data / "labels" / f"ct_{number:03d}.nii.gz", "vtkMRMLLabelMapVolumeNode", "labels")
    mask = (slicer.util.arrayFromVolume(node) == VALUES[label]).astype(np.uint8)
    slicer.mrmlScene.RemoveNode(node)
    return mask


def loadVolume(data: Path, number: int) -> Any:
    """Load a synthetic CT, as a scanner would have made it."""
    file = data / "images" / f"ct_{number:03d}.nii.gz"
    volume = _load(file, "vtkMRMLScalarVolumeNode", f"Synthetic CT {number + 1}")
    volume.SetAttribute("DICOM.Modality", "CT")
    return volume


def loadPicture(path: Path, name: str) -> Any:
    """As Slicer does; its library alone reads no PNG."""
    import SimpleITK as sitk
    import slicer

    return slicer.util.addVolumeFromArray(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[None], name=name)


def _load(path: Path, className: str, name: str) -> Any:
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass(className, name)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return node
