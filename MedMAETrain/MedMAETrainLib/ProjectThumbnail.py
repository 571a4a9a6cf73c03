"""The small picture by which a case is known in the table. Reads files, so it is made in a thread."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medmae.files import atomic_path
from medmae.models.preview import is_transposed, preview_png, upright
from medmae.volumes import Volume, read_image, read_label
from medmae.volumes.segments import Segment

SIDE = 96  # pixels
THUMBNAIL = "thumbnail.png"
_THICK = 1.5  # how much thicker than wide voxels are when slices are shown as acquired


def writeThumbnail(path: Path, image: Path, label: Path | None, labels: tuple[Segment, ...]) -> Path:
    """Draw the slice that shows most of the labels in their colours, without any the middle one.

    Raises:
        medmae.errors.BadInput: the image or its label map cannot be read.
    """
    volume = read_image(image)
    drawn = None if label is None else read_label(label).array[0]
    axis = _axis(volume)
    number = volume.geometry.shape[axis] // 2
    if drawn is not None and drawn.any():
        number = int(np.argmax(np.count_nonzero(drawn, tuple(other for other in range(3) if other != axis))))
    picture = np.moveaxis(volume.array.take(number, axis + 1), 0, -1)
    picture = picture[..., :3] if picture.shape[-1] >= 3 else picture[..., 0]
    axes = volume.geometry.axes
    down, across = (mm for other, mm in enumerate(volume.geometry.spacing_mm) if other != axis)
    if is_transposed(axes, axis):
        down, across = across, down
    marked = None if drawn is None else upright(drawn.take(number, axis), axes, axis)
    colors = {each.value: each.color for each in labels}
    with atomic_path(path) as temporary:
        temporary.write_bytes(preview_png(upright(picture, axes, axis), marked, colors, (down, across), SIDE))
    return path


def _axis(volume: Volume) -> int:
    """Across which axis (k, j, i) slices are shown: as they were acquired where they are thick, else axial ones."""
    spacing = volume.geometry.spacing_mm
    thickest = int(np.argmax(spacing))
    if volume.is_2d or volume.geometry.shape[0] == 1:
        return 0
    if spacing[thickest] > _THICK * sorted(spacing)[1]:
        return thickest
    return next(number for number, letter in enumerate(reversed(volume.geometry.axes)) if letter in "SI")
