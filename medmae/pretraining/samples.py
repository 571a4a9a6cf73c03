"""The sample picture of pretraining: an image, what of it is hidden, and what the network fills in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medmae.models.preview import is_transposed, row_png, shows_no_print, upright, without_small_print
from medmae.pretraining.method import PretrainingMethod
from medmae.reports.pictures import HIDDEN_GREY


def reconstruction_png(method: PretrainingMethod, orientation: str) -> bytes:
    """Draw original, masked and reconstructed image of the same item every time side by side, as a PNG.

    Of a volume the slice (across k) of its central view that shows most structure. Names that may have been burnt into
    a picture cannot be read.

    Args:
        method: its network as it is now is drawn.
        orientation: directions in which i, j, k of the corpus increase.
    """
    item, index = method.shown_item
    examples = method.reconstruct_items([item])
    image, masked, filled = examples.images[0], examples.masked[0], examples.reconstructions[0]
    spacing = np.array(method.corpus.items.spacings_mm[index])
    pixels = np.array(method.network_spacing_mm or spacing)
    longer_side = 0.0  # of a picture all is seen
    if image.ndim == 4:
        number = int(np.argmax([image[:, k].std() for k in range(image.shape[1])]))
        image, masked, filled = image[:, number], masked[number], filled[:, number]
        longer_side = float((method.corpus.items.shapes[index, 2:] * spacing[1:] / pixels[1:]).max())
    low, high = np.percentile(image, [0.5, 99.5])
    shown, output = (_grey_or_colour(np.clip((plane - low) / max(float(high - low), 1e-6), 0, 1))
                     for plane in (image, filled))
    if not shows_no_print(method.corpus.items[index].modality):
        shown, output = (without_small_print(plane, longer_side) for plane in (shown, output))
    hidden = masked if shown.ndim == 2 else masked[..., None]
    planes = [upright(plane, orientation, 0) for plane in (shown, np.where(hidden, HIDDEN_GREY, shown),
                                                           np.where(hidden, output, shown))]
    down, across = float(pixels[1]), float(pixels[2])
    return row_png(planes, [None] * 3, {},
                   (across, down) if is_transposed(orientation, 0) else (down, across))


def _grey_or_colour(plane: NDArray) -> NDArray:
    """Channels (C, rows, columns) as (rows, columns), or (rows, columns, 3) of three."""
    return np.moveaxis(plane, 0, -1) if len(plane) == 3 else plane[0]
