"""What speaks against a model for an image, told before it is used; the user may go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import slicer

from MedMAESegmentLib.MemoryEstimate import atLeastNeeded
from MedMAESegmentLib.Modality import modalityOf
from MedMAESegmentLib.Region import boxOfRoi, isRotated
from MedMAESegmentLib.VolumeExport import networkGeometry, voxels

Kind = Literal["modality", "spacing", "size", "intensity", "memory", "region"]
_MOST_VOXELS = 1_000_000  # of which percentiles are taken
_PERCENTILES = (0.5, 50.0, 99.5)
_TOLERANCE = 0.25  # of the range that was seen, at either end
_SAME = {"DX": "CR", "XR": "CR", "PET": "PT", "MRI": "MR"}


@dataclass(frozen=True)
class ImageWarning:
    """One thing that speaks against it.

    kind - modality, spacing, size, intensity, memory or region.
    text - What it is and what it means.
    """

    kind: Kind
    text: str


def imageWarnings(volumeNodes: Sequence[slicer.vtkMRMLVolumeNode], info: Any,
                  roiNode: slicer.vtkMRMLMarkupsROINode | None = None, weightsBytes: int = 0) -> list[ImageWarning]:
    """Everything that speaks against using the model `info` on the volumes, one a channel; nothing is computed.

    Raises:
        ValueError: the volumes are none.
    """
    found = []
    for number, node in enumerate(volumeNodes):
        found += _modality(node, info, number)
        found += _intensity(node, info, number)
    found += _grid(volumeNodes[0], info)
    if roiNode is not None and isRotated(roiNode):
        sides = boxOfRoi(roiNode, volumeNodes[0])
        size = " x ".join(f"{high - low:.0f}" for low, high in zip(sides[::2], sides[1::2], strict=True))
        found.append(ImageWarning("region", f"The region {roiNode.GetName()} is rotated: what is segmented is its box "
                                            f"along the patient's axes, {size} mm."))
    return found + _memory(volumeNodes[0], info, roiNode, weightsBytes)


def _modality(node: slicer.vtkMRMLVolumeNode, info: Any, number: int) -> list[ImageWarning]:
    wanted = str(info.channels[min(number, len(info.channels) - 1)].get("modality") or info.modality)
    found = modalityOf(node)
    if not found or not wanted or _SAME.get(found, found) == _SAME.get(wanted, wanted):
        return []
    return [ImageWarning("modality", f"{node.GetName()} is of the modality {found}, but the model {info.name} was "
                                     f"trained on {wanted}. Its result will very likely be wrong.")]


def _intensity(node: slicer.vtkMRMLVolumeNode, info: Any, number: int) -> list[ImageWarning]:
    tables = (info.training.get("ranges") or {}).get("percentiles") or []
    if number >= len(tables):
        return []
    array = voxels(node).reshape(-1)
    sample = array[::max(1, array.size // _MOST_VOXELS) | 1]  # an odd step visits rows and columns evenly
    values = np.percentile(sample[np.isfinite(sample)].astype(np.float64), _PERCENTILES)
    outside = [f"{value:.4g} (seen: {low:.4g} to {high:.4g}) at {percent} %" for percent, value, (low, high) in zip(
        _PERCENTILES, values, tables[number].values(), strict=True) if _isOutside(value, low, high, tables[number])]
    if not outside:
        return []
    return [ImageWarning("intensity", f"The intensities of {node.GetName()} are unlike those that the model "
                                      f"{info.name} has seen: {'; '.join(outside)}. Check that it is the right image, "
                                      "in the right units.")]


def _isOutside(value: float, low: float, high: float, table: dict[str, list[float]]) -> bool:
    """Whether a percentile lies further outside than chance explains: measured by the spread of the training data."""
    spread = max(bound for _, bound in table.values()) - min(bound for bound, _ in table.values())
    return not low - _TOLERANCE * spread <= value <= high + _TOLERANCE * spread


def _grid(node: slicer.vtkMRMLVolumeNode, info: Any) -> list[ImageWarning]:
    from medmae.volumes import Geometry
    from medmae.volumes.orientation import axis_change, reoriented_geometry

    ranges = info.training.get("ranges") or {}
    shape = voxels(node).shape
    geometry = Geometry((shape[0], shape[1], shape[2]), networkGeometry(node))
    seen = reoriented_geometry(geometry, axis_change(geometry, info.orientation))
    found = []
    for kind, values, unit in (("spacing", seen.spacing_mm, "mm"), ("size", seen.shape, "voxels")):
        bounds = ranges.get("spacing_mm" if kind == "spacing" else "shape")
        if bounds is None:
            continue
        if any(not low * 0.8 <= value <= high * 1.25 for value, low, high in zip(values, *bounds, strict=True)):
            text = " x ".join(f"{value:.4g}" for value in values)
            low, high = (" x ".join(f"{value:.4g}" for value in bound) for bound in bounds)
            found.append(ImageWarning(kind, f"The {kind} of {node.GetName()}, {text} {unit}, is outside of what the "
                                            f"model {info.name} has seen ({low} to {high}). The result may be worse "
                                            "than its scores say."))
    return found


def _memory(node: slicer.vtkMRMLVolumeNode, info: Any, roiNode: slicer.vtkMRMLMarkupsROINode | None,
            weightsBytes: int) -> list[ImageWarning]:
    from medmae.inference.memory import available_bytes, format_memory

    box = boxOfRoi(roiNode, node) if roiNode is not None else None
    needed, free = atLeastNeeded(node, info, box) + weightsBytes, available_bytes()
    if free is None or needed <= free:
        return []
    return [ImageWarning("memory", f"Segmenting {node.GetName()} needs {format_memory(needed)} of memory at least, but "
                                   f"only {format_memory(free)} are free. Close other programs, or choose a region.")]
