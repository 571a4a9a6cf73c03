"""Segmentations of the scene, saved as .seg.nrrd without holding the event loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

import slicer

from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.SegmentationWriter import copiedSegmentation

ENDING = ".seg.nrrd"
_SAVED_AS = "MedMAE.savedAs"
_MOST_BYTES = 200  # of a file's name without number and ending; file systems take 255


class SegmentationFile(BackgroundTask[Path]):
    """The segmentation of a volume on its way into a file: copied at once, compressed and written in a thread."""

    def __init__(self, path: Path, segmentationNode: slicer.vtkMRMLSegmentationNode,
                 volumeNode: slicer.vtkMRMLVolumeNode, between: Callable[[], None] = lambda: None) -> None:
        """Begin to write; `between` is called while the voxels are copied.

        Raises:
            OSError: there is no room for temporary files.
            ValueError: the volume has no voxels.
        """
        self.path = path
        write = copiedSegmentation(segmentationNode, volumeNode, between)

        def written() -> Path:
            write(path)
            return path

        super().__init__(written)


def freePath(folder: Path, name: str, taken: Collection[Path]) -> Path:
    """A file in `folder`, called after a volume, that neither is there nor `taken`: nothing is ever overwritten."""
    plain, number = plainName(name), 1
    written = {str(each).casefold() for each in taken}  # "CT" and "ct" are one file on most computers
    path = folder / f"{plain}{ENDING}"
    while str(path).casefold() in written or path.exists():
        number += 1
        path = folder / f"{plain}-{number}{ENDING}"
    return path


def plainName(name: str) -> str:
    """A name without what not every file system takes."""
    plain = "".join(letter if letter.isalnum() or letter in " ._-" else "_" for letter in name)[:100].strip(" .")
    plain = plain.encode()[:_MOST_BYTES].decode(errors="ignore").strip(" .")
    return plain or "case"


def noteSaved(segmentationNode: slicer.vtkMRMLSegmentationNode, path: Path) -> None:
    """Remember where a segmentation was saved, so that another batch does not save it again."""
    segmentationNode.SetAttribute(_SAVED_AS, str(path))


def isSavedIn(segmentationNode: slicer.vtkMRMLSegmentationNode, folder: Path) -> bool:
    """Whether a segmentation was saved in `folder` and is there still."""
    path = segmentationNode.GetAttribute(_SAVED_AS)
    return path is not None and Path(path).parent == folder and os.path.isfile(path)  # noqa: PTH113 - asks, never fails
