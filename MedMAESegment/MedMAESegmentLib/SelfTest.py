"""The module's check of itself, in Slicer as in our own tests: a volume is segmented end to end by a tiny model."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import TestCase

import numpy as np
import slicer
import vtk

from MedMAESegmentLib.Application import newTemporaryFolder
from MedMAESegmentLib.Background import inBackground
from MedMAESegmentLib.Dependencies import requirementsFile
from MedMAESegmentLib.InstallPlan import InstallPlan
from MedMAESegmentLib.Interpreter import chosenInterpreter
from MedMAESegmentLib.VolumeExport import ijkToRas
from MedMAESegmentLib.WorkerSession import WorkerSession

if TYPE_CHECKING:
    from MedMAESegmentLib.SegmentLogic import SegmentLogic

_SHAPE = (14, 20, 26)
_MODEL_WITHIN_SECONDS = 180.0  # the first import of torch from a network drive takes minutes


def whatIsMissing() -> str:
    """The Python packages without which nothing can be computed; "" where all are there. Nothing is installed."""
    if not chosenInterpreter().isSlicers:
        return ""
    return ", ".join(sorted(package.name for package in InstallPlan.of(requirementsFile()).missing))


def segmentEndToEnd(test: TestCase, logic: SegmentLogic) -> None:
    """Segment an oblique volume with a worker of its own, and the same voxels stored in another order: both results lie
    in the same place in the patient.

    Random weights are enough for that: whatever they find must not depend on how the voxels are stored.

    Raises:
        AssertionError: a result is not what it should be.
    """
    hadTorch = "torch" in sys.modules
    folder, logic.worker = newTemporaryFolder(), WorkerSession()
    try:
        model = _makeModel(folder / "tiny")
        volume, turned = _volumes()
        job = logic.segment(volume, model, device="cpu", waitForCompletion=False)
        node = job.wait()
        labels, others = _labels(node, volume), _labels(logic.segment(turned, model, device="cpu"), turned)
        names = [node.GetSegmentation().GetNthSegment(index).GetName() for index in range(2)]
        test.assertEqual(names, ["first", "second"])
        test.assertEqual([segment.voxels for segment in job.segments], [int((labels == 1).sum()),
                                                                        int((labels == 2).sum())])
        test.assertTrue(labels.any(), "a test with an empty result shows nothing")
        np.testing.assert_array_equal(others.transpose(1, 2, 0)[::-1], labels)
        _checkPlace(test, node, volume)
        test.assertTrue(logic.undoLast())
        test.assertEqual(hadTorch, "torch" in sys.modules, "the application itself must not import torch")
    finally:
        logic.worker.close()
        shutil.rmtree(folder, ignore_errors=True)


def _makeModel(folder: Path) -> Path:
    python = chosenInterpreter()
    command = [python.executable, "-m", "medmae.demo.tiny_model", str(folder)]
    made = inBackground(lambda: subprocess.run(
        command, env=python.environment(), capture_output=True, text=True, check=False, timeout=_MODEL_WITHIN_SECONDS,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0)))
    if made.returncode:
        raise AssertionError(f"The computation does not start:\n{made.stderr}")
    return folder


def _volumes() -> tuple[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLScalarVolumeNode]:
    """An oblique, left-handed volume of unequal spacing, and the same in the patient with its voxels stored otherwise.
    """
    angle = np.deg2rad(20)
    axes = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, -1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes @ np.diag([0.7, 0.9, 2.5]), [12.5, -40.25, 7.125]
    voxels = np.random.default_rng(0).normal(100, 40, _SHAPE).astype(np.int16)
    volume = slicer.util.addVolumeFromArray(voxels, slicer.util.vtkMatrixFromArray(affine), "MedMAE test")
    # From (i, j, k) of the other one to that of the volume, in which k runs backwards.
    order = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, -1, 0, _SHAPE[0] - 1], [0, 0, 0, 1.0]])
    turned = slicer.util.addVolumeFromArray(np.ascontiguousarray(voxels[::-1].transpose(2, 0, 1)),
                                            slicer.util.vtkMatrixFromArray(affine @ order), "MedMAE test, turned")
    return volume, turned


def _labels(node: slicer.vtkMRMLSegmentationNode, volumeNode: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """(k, j, i) on the volume's voxels: 0 where there is no segment, else its number from 1."""
    labels = np.zeros(slicer.util.arrayFromVolume(volumeNode).shape, np.uint8)
    for index in range(node.GetSegmentation().GetNumberOfSegments()):
        identity = node.GetSegmentation().GetNthSegmentID(index)
        labels[slicer.util.arrayFromSegmentBinaryLabelmap(node, identity, volumeNode) > 0] = index + 1
    return labels


def _checkPlace(test: TestCase, node: slicer.vtkMRMLSegmentationNode, volumeNode: slicer.vtkMRMLVolumeNode) -> None:
    """The segments lie on the grid of the volume, which the segmentation refers to."""
    matrix = vtk.vtkMatrix4x4()
    node.GetBinaryLabelmapInternalRepresentation(node.GetSegmentation().GetNthSegmentID(0)).GetImageToWorldMatrix(matrix)
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), ijkToRas(volumeNode), atol=1e-6)
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    test.assertEqual(node.GetNodeReferenceID(role), volumeNode.GetID())
