"""Where volumes and DICOM series come from, and whose they are: asked of the scene and of Slicer's DICOM database."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from MedMAESegmentLib.Background import inBackground
from MedMAESegmentLib.VolumeExport import networkGeometry, voxels

from MedMAETrainLib.ProjectCase import Source

_PATIENT_ID, _STUDY, _SERIES, _SERIES_NAME, _MODALITY = (
    "0010,0020", "0020,000D", "0020,000E", "0008,103E", "0008,0060")


def database() -> Any | None:
    """Slicer's DICOM database, where it is open."""
    found = getattr(slicer, "dicomDatabase", None)
    return found if found is not None and found.isOpen else None


def sourceOfVolume(volumeNode: slicer.vtkMRMLVolumeNode, between: Callable[[], None]) -> Source:
    """What tells a volume of the scene apart from others."""
    array, affine = voxels(volumeNode), networkGeometry(volumeNode)
    digest = inBackground(lambda: _digest(array, affine), between)
    instances = (volumeNode.GetAttribute("DICOM.instanceUIDs") or "").split()
    dicom, storage = database(), volumeNode.GetStorageNode()
    series = dicom.instanceValue(instances[0], _SERIES) if dicom is not None and instances else ""
    return Source("scene", volumeNode.GetName() or "", (storage.GetFileName() or "") if storage is not None else "",
                  series or "", _patientOfVolume(volumeNode, instances), digest)


def sourceOfSeries(uid: str, files: Sequence[str]) -> tuple[Source, str]:
    """Where a series of the DICOM database comes from, and its modality."""
    dicom, first = database(), files[0]
    assert dicom is not None
    name = dicom.fileValue(first, _SERIES_NAME) or uid
    source = Source("dicom", name, "", uid, _patient(
        dicom.fileValue(first, _PATIENT_ID), dicom.fileValue(first, _STUDY)))
    return source, dicom.fileValue(first, _MODALITY) or ""


def patientOfFile(file: Path) -> tuple[str, str, str]:
    """Patient, series and modality of a DICOM file, as far as Slicer's DICOM database can be asked; else ""."""
    dicom = database()
    if dicom is None:
        return "", "", ""
    name = str(file)
    return (_patient(dicom.fileValue(name, _PATIENT_ID), dicom.fileValue(name, _STUDY)),
            dicom.fileValue(name, _SERIES) or "", dicom.fileValue(name, _MODALITY) or "")


def _patientOfVolume(volumeNode: slicer.vtkMRMLVolumeNode, instances: Sequence[str]) -> str:
    dicom = database()
    if dicom is not None and instances:
        found = _patient(dicom.instanceValue(instances[0], _PATIENT_ID), dicom.instanceValue(instances[0], _STUDY))
        if found:
            return found
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(volumeNode) if hierarchy is not None else 0
    level = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelPatient()
    patient = hierarchy.GetItemAncestorAtLevel(item, level) if item else 0
    if not patient:
        return ""
    uid = hierarchy.GetItemUID(patient, slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName())
    return f"patient {uid}" if uid else f"named {hierarchy.GetItemName(patient)}"


def _patient(identity: str | None, study: str | None) -> str:
    """Equal for the same patient; where the patient's ID was taken out, at least for the same study."""
    if identity and identity.strip():
        return f"patient {identity.strip()}"
    return f"study {study.strip()}" if study and study.strip() else ""


def _digest(array: np.ndarray, affine: np.ndarray) -> str:
    found = hashlib.sha256(repr((array.shape, array.dtype.str, np.round(affine, 4).tolist())).encode())
    for plane in array:
        found.update(np.ascontiguousarray(plane).data)
    return found.hexdigest()
