"""Which modality a volume is of, where that is known for certain."""

from __future__ import annotations

import slicer

_TAG = "0008,0060"


def modalityOf(volumeNode: slicer.vtkMRMLVolumeNode) -> str | None:
    """The DICOM code (CT, MR, PT, US, ...), from the files that the volume was loaded from, from attributes of the node
    or of its place in the subject hierarchy, or from the quantity of its voxels; None where nothing tells."""
    return (_fromDatabase(volumeNode) or volumeNode.GetAttribute("DICOM.Modality") or _fromHierarchy(volumeNode)
            or _fromQuantity(volumeNode))


def _fromDatabase(volumeNode: slicer.vtkMRMLVolumeNode) -> str | None:
    instances = (volumeNode.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not instances or database is None or not database.isOpen:
        return None
    return database.instanceValue(instances[0], _TAG) or None


def _fromHierarchy(volumeNode: slicer.vtkMRMLVolumeNode) -> str | None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volumeNode) if hierarchy is not None else 0
    return hierarchy.GetItemAttribute(item, "DICOM.Modality") or None if item else None


def _fromQuantity(volumeNode: slicer.vtkMRMLVolumeNode) -> str | None:
    units = volumeNode.GetVoxelValueUnits() if hasattr(volumeNode, "GetVoxelValueUnits") else None
    if units is None:
        return None
    return "CT" if units.GetCodeValue() == "[hnsf'U]" else None  # Hounsfield units in UCUM
