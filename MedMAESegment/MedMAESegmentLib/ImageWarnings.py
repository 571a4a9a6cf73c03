"""What speaks against a model for an image, told before it is used; the user may go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import slicer

from MedMAESegmentLib.MemoryEstimate import atLeastNeeded
from MedMAESegmentLib.Modality import modalityOf
from MedMAESegmentLib.Region import boxInVolume, isRotated
from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.VolumeExport import networkGeometry, voxels

Kind = Literal["channels", "modality", "spacing", "size", "intensity", "memory", "region"]
_MOST_VOXELS = 200_000  # of which percentiles are taken: fast, and exact to a hundredth of a percent
_PERCENTILES = (0.5, 50.0, 99.5)
_TOLERANCE = 0.25  # of the range that was seen, at either end
_SAME = {"DX": "CR", "XR": "CR", "PET": "PT", "MRI": "MR"}


@dataclass(frozen=True)
class ImageWarning:
    """One thing that speaks against it.

    kind - channels, modality, spacing, size, intensity, memory or region.
    text - What it is and what it means.
    """

    kind: Kind
    text: str


def imageWarnings(volumeNodes: Sequence[slicer.vtkMRMLVolumeNode], info: Any,
                  roiNode: slicer.vtkMRMLMarkupsROINode | None = None, weightsBytes: int = 0,
                  passBytes: int = 0) -> list[ImageWarning]:
    """Everything that speaks against using the model `info` on the volumes, one a channel; nothing is computed.

    `passBytes` is what a forward pass of the model takes, where that was measured; without it the memory that is needed
    is a lower bound.

    Raises:
        ValueError: the volumes are none.
    """
    found = _channels(volumeNodes, info)
    for number, node in enumerate(volumeNodes):
        found += _modality(node, info, number)
        found += _intensity(node, info, number)
    found += _grid(volumeNodes[0], info)
    box, unusable = _region(volumeNodes[0], roiNode)
    return found + unusable + ([] if unusable and box is None else _memory(
        volumeNodes[0], info, box, weightsBytes, passBytes))


def _channels(volumeNodes: Sequence[slicer.vtkMRMLVolumeNode], info: Any) -> list[ImageWarning]:
    text = _("{volume} is chosen for {channels}, but the model {model} was trained with another image for each. Its "
             "result will very likely be wrong.")
    names = [str(channel.get("name", "")) for channel in info.channels]
    chosen = {node: [name for name, other in zip(names, volumeNodes, strict=False) if other is node]
              for node in volumeNodes}
    return [ImageWarning("channels", text.format(volume=node.GetName(), model=info.name, channels=", ".join(several)))
            for node, several in chosen.items() if len(several) > 1]


def _modality(node: slicer.vtkMRMLVolumeNode, info: Any, number: int) -> list[ImageWarning]:
    wanted = str(info.channels[min(number, len(info.channels) - 1)].get("modality") or info.modality)
    found = modalityOf(node)
    if not found or not wanted or _SAME.get(found, found) == _SAME.get(wanted, wanted):
        return []
    text = _("{volume} is of the modality {found}, but the model {model} was trained on {wanted}. Its result will very "
             "likely be wrong.")
    return [ImageWarning("modality", text.format(volume=node.GetName(), found=found, model=info.name, wanted=wanted))]


def _intensity(node: slicer.vtkMRMLVolumeNode, info: Any, number: int) -> list[ImageWarning]:
    array = voxels(node).reshape(-1)
    sample = array[::max(1, array.size // _MOST_VOXELS) | 1]  # an odd step visits rows and columns evenly
    finite = sample[np.isfinite(sample)].astype(np.float64)
    if not finite.size:
        text = _("{volume} holds no intensities (its voxels are not numbers). Its result will mean nothing. Load the "
                 "image again, or choose another one.")
        return [] if np.isfinite(array).any() else [ImageWarning("intensity", text.format(volume=node.GetName()))]
    tables = (info.training.get("ranges") or {}).get("percentiles") or []
    if number >= len(tables):
        return []
    found = _("{value} (seen: {low} to {high}) at {percent} %")
    outside = [found.format(value=f"{value:.4g}", low=f"{low:.4g}", high=f"{high:.4g}", percent=percent)
               for percent, value, (low, high) in zip(
                   _PERCENTILES, np.percentile(finite, _PERCENTILES), tables[number].values(), strict=True)
               if _isOutside(value, low, high, tables[number])]
    if not outside:
        return []
    text = _("The intensities of {volume} are unlike those that the model {model} has seen: {outside}. Check that it "
             "is the right image, in the right units.")
    return [ImageWarning("intensity", text.format(volume=node.GetName(), model=info.name, outside="; ".join(outside)))]


def _isOutside(value: float, low: float, high: float, table: dict[str, list[float]]) -> bool:
    """Whether a percentile lies further outside than chance explains: measured by the spread of the training data."""
    spread = max(bound for _low, bound in table.values()) - min(bound for bound, _high in table.values())
    return not low - _TOLERANCE * spread <= value <= high + _TOLERANCE * spread


def _grid(node: slicer.vtkMRMLVolumeNode, info: Any) -> list[ImageWarning]:
    from medmae.volumes import Geometry
    from medmae.volumes.orientation import axis_change, reoriented_geometry

    ranges = info.training.get("ranges") or {}
    shape = voxels(node).shape
    geometry = Geometry((shape[0], shape[1], shape[2]), networkGeometry(node))
    seen = reoriented_geometry(geometry, axis_change(geometry, info.orientation))
    texts: dict[Kind, str] = {
        "spacing": _("The spacing of {volume}, {found} mm, is outside of what the model {model} has seen ({low} to "
                     "{high}). The result may be worse than its scores say."),
        "size": _("The size of {volume}, {found} voxels, is outside of what the model {model} has seen ({low} to "
                  "{high}). The result may be worse than its scores say.")}
    found = []
    for kind, values, bounds in (("spacing", seen.spacing_mm, ranges.get("spacing_mm")),
                                 ("size", seen.shape, ranges.get("shape"))):
        if bounds is None or all(low * 0.8 <= value <= high * 1.25
                                 for value, low, high in zip(values, *bounds, strict=True)):
            continue
        low, high = (_sides(bound) for bound in bounds)
        found.append(ImageWarning(kind, texts[kind].format(volume=node.GetName(), found=_sides(values),
                                                           model=info.name, low=low, high=high)))
    return found


def _sides(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _region(node: slicer.vtkMRMLVolumeNode,
            roiNode: slicer.vtkMRMLMarkupsROINode | None) -> tuple[list[float] | None, list[ImageWarning]]:
    """The box that would be segmented (None: all of the volume, or none can be), and what is odd about it."""
    if roiNode is None:
        return None, []
    try:
        box = boxInVolume(roiNode, node)
    except ValueError as error:
        return None, [ImageWarning("region", str(error))]
    if not isRotated(roiNode):
        return box, []
    size = " x ".join(f"{high - low:.0f}" for low, high in zip(box[::2], box[1::2], strict=True))
    text = _("The region {region} is rotated: what is segmented is its box along the patient's axes, {size} mm.")
    return box, [ImageWarning("region", text.format(region=roiNode.GetName(), size=size))]


def _memory(node: slicer.vtkMRMLVolumeNode, info: Any, box: Sequence[float] | None, weightsBytes: int,
            passBytes: int) -> list[ImageWarning]:
    from medmae.inference.memory import available_bytes, format_memory

    needed, free = atLeastNeeded(node, info, box, passBytes) + weightsBytes, available_bytes()
    if free is None or needed <= free:
        return []
    text = _("Segmenting {volume} needs about {needed} of memory, but only {free} are free. Close other programs, or "
             "choose a region.") if passBytes else _(
        "Segmenting {volume} needs {needed} of memory at least, but only {free} are free. Close other programs, or "
        "choose a region.")
    return [ImageWarning("memory", text.format(volume=node.GetName(), needed=format_memory(needed),
                                               free=format_memory(free)))]
