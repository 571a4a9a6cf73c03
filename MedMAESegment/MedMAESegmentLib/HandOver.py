"""The second in which nodes are handed to the engine: the application lives on, and anything may happen meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer

from medmae.worker.client import WorkerClient
from MedMAESegmentLib.Application import processEvents
from MedMAESegmentLib.Background import inBackground
from MedMAESegmentLib.FollowedJob import RunCancelled
from MedMAESegmentLib.NodeReference import NodeReference
from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.VolumeExport import networkGeometry, voxelGrid, voxels


class HandOver:
    """Called between the parts that are written; ends the writing once it has become pointless.

    >>> handOver = HandOver([volumeNode])
    >>> writeVolume(volumeNode, path, between=handOver)
    """

    def __init__(self, nodes: Sequence[slicer.vtkMRMLNode]) -> None:
        self._nodes = [(node.GetName(), NodeReference(node), _gridOf(node)) for node in nodes]
        self._isCancelled = False

    def cancel(self) -> None:
        """End the writing at its next pause."""
        self._isCancelled = True

    def __call__(self) -> None:
        """Let the application react.

        Raises:
            RunCancelled: somebody has cancelled.
            ValueError: a node has left the scene, or a volume has got another grid of voxels.
        """
        processEvents()
        if self._isCancelled:
            raise RunCancelled(_("Cancelled."))
        for name, reference, grid in self._nodes:
            node = reference.node
            if node is None:
                text = _("{volume} was removed from the scene while it was being handed over. Load it and start again.")
                raise ValueError(text.format(volume=name))
            if _gridOf(node) != grid:
                text = _("{volume} was changed while it was being handed over. Start again.")
                raise ValueError(text.format(volume=name))


def handOverImages(client: WorkerClient, volumeNodes: Sequence[slicer.vtkMRMLVolumeNode],
                   handOver: HandOver) -> list[dict[str, Any]]:
    """Copy the voxels of the volumes, one a channel, to where the worker sees them: voxels and geometry, nothing else.

    The disk is waited for in a thread.

    Raises:
        RunCancelled, ValueError: see `HandOver`; nothing is left behind then.
    """
    images: list[dict[str, Any]] = []
    try:
        for volumeNode in volumeNodes:
            handOver()
            array, affine = voxels(volumeNode), networkGeometry(volumeNode).tolist()
            options = {"name": _("The volume {volume}").format(volume=volumeNode.GetName()),
                       "channels_last": array.ndim == 4, "is_2d": array.ndim == 4 and len(array) == 1}

            def put(array: np.ndarray = array, affine: list = affine, options: dict = options) -> None:
                images.append(client.image(engineVoxels(array), affine, **options))

            inBackground(put, handOver)
    except BaseException:
        client.release(*images)
        raise
    return images


def _gridOf(node: slicer.vtkMRMLNode) -> tuple | None:
    return voxelGrid(node) if isinstance(node, slicer.vtkMRMLVolumeNode) else None


def engineVoxels(array: np.ndarray) -> np.ndarray:
    """Voxels as the engine takes them: of colours red, green and blue, without transparency."""
    return np.ascontiguousarray(array[..., :3]) if array.ndim == 4 else array
