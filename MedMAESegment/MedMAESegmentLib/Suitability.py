"""What can be computed at all: refused before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer

from MedMAESegmentLib.SegmentationImport import canReceive
from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.VolumeExport import networkGeometry, voxels


def usableModel(model: str | Path, task: str, volumeNodes: Sequence[slicer.vtkMRMLVolumeNode] | None,
                ) -> tuple[Path, Any]:
    """The folder of a model and its `medmae.models.ModelInfo`; `volumeNodes` are its channels, None: not known here.

    Raises:
        medmae.errors.BadInput: there is no such model.
        ValueError: it is for another task, or for another number of channels.
    """
    from medmae.models import load_info, resolve_model

    folder = resolve_model(model)
    info = load_info(folder)
    if info.task != task:
        text = _("The model {model} is for {itsTask}, not for {task}. Choose another model.")
        raise ValueError(text.format(model=info.name, itsTask=info.task, task=task))
    if volumeNodes is None:
        return folder.resolve(), info
    channels = sum(_components(node) for node in volumeNodes)
    isColourOrGrey = len(volumeNodes) == 1 and {channels, info.image_channels} <= {1, 3}  # the engine makes one of it
    if channels != info.image_channels and not isColourOrGrey:
        names = ", ".join(str(channel.get("name", "")) for channel in info.channels[:info.image_channels])
        text = _("The model {model} sees {wanted} channels ({names}), but the volumes have {found}. Give one volume "
                 "for each channel, in this order.")
        raise ValueError(text.format(model=info.name, wanted=info.image_channels, names=names, found=channels))
    return folder.resolve(), info


def refuseManyChannels(info: Any) -> None:
    """Refuse models of which a case is several images: nobody can tell which of many images belong together.

    Raises:
        ValueError: the model is one.
    """
    if info.image_channels not in (1, 3):  # grey and colour
        names = ", ".join(str(channel.get("name", "")) for channel in info.channels[:info.image_channels])
        raise ValueError(_("A case of the model {model} is {count} images ({names}), and nobody can tell which of many "
                           "belong together. Segment such cases one by one in the tab Volume.").format(
                               model=info.name, count=info.image_channels, names=names))


def refuseUnusable(volumeNodes: Sequence[Any], segmentationNode: Any) -> None:
    """Refuse volumes that cannot be segmented, and segmentations that cannot take the result.

    Raises:
        ValueError: why not, and what to do.
    """
    if not volumeNodes:
        raise ValueError(_("A volume is needed. Load one and select it."))
    for node in volumeNodes:
        voxels(node)
        if node.GetScene() is not slicer.mrmlScene:
            raise ValueError(_("The volume {volume} is not in the scene. Add it first.").format(volume=node.GetName()))
    if segmentationNode is None:
        return
    if not isinstance(segmentationNode, slicer.vtkMRMLSegmentationNode):
        raise ValueError(_("The result needs a segmentation node. Give one, or none for a new one."))
    if not canReceive(segmentationNode, volumeNodes[0]):
        text = _("The segmentation {segmentation} is under another transform than the volume {volume}, so that its "
                 "segments would move. Choose a new segmentation, or put both under the same transform.")
        raise ValueError(text.format(segmentation=segmentationNode.GetName(), volume=volumeNodes[0].GetName()))


def refuseUnusableGrids(volumeNodes: Sequence[slicer.vtkMRMLVolumeNode]) -> None:
    """Refuse volumes whose voxels are no boxes, or lie nowhere, before anything is handed over.

    Raises:
        medmae.errors.BadInput: why not, and what to do.
    """
    from medmae.volumes.geometry import refuse_unusable_affine

    for node in volumeNodes:
        refuse_unusable_affine(networkGeometry(node), _("The volume {volume}").format(volume=node.GetName()))


def _components(volumeNode: slicer.vtkMRMLVolumeNode) -> int:
    array = voxels(volumeNode)
    return 1 if array.ndim == 3 else 3
