"""Choosing one image of a file that holds several."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from medmae.errors import BadInput
from medmae.volumes.volume import Volume


def choose_frame(path: Path | str, frames: int, frame: int | None) -> int:
    """The index of the wanted image of a file with several.

    Raises:
        BadInput: none is given although there are several, or it does not exist.
    """
    if frame is None and frames > 1:
        raise BadInput(f"{path} holds {frames} images (frames), but one is needed. Choose one with --frame 0 to "
                       f"{frames - 1} (frame= in Python).")
    if frame is not None and not 0 <= frame < frames:
        raise BadInput(f"{path} has {frames} frame{'s' if frames > 1 else ''}, so frame {frame} does not exist. Choose "
                       f"0 to {frames - 1}.")
    return frame or 0


def choose_component(volume: Volume, frame: int | None) -> Volume:
    """One channel of a volume as frame; Slicer stores sequences as the components of one NRRD image."""
    if frame is None:
        return volume
    chosen = choose_frame(volume.source, volume.channels, frame)
    return dataclasses.replace(volume, array=volume.array[chosen:chosen + 1])
