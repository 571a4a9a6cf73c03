"""What a checkpoint's table of positions is: fixed 3-D sines and cosines, empty, or learned. Needs torch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from medmae.networks.vit import Grid, position_table

TableKind = Literal["sin-cos", "zeros", "learned"]
SIN_COS_TOLERANCE = 1e-3  # half precision keeps sines to 5e-4


def table_kind(table: Tensor, grid: Grid) -> TableKind:
    """What a table (tokens, width) of a grid (k, j, i) is.

    "sin-cos" is the table that MedMAE computes: thirds of the channels encode axis 0, 1 and 2 of the input.
    """
    table = table.to(torch.float32)
    if not table.any():
        return "zeros"
    width = table.shape[1]
    if width % 6 == 0 and (table - position_table(grid, width, torch.device("cpu"))).abs().max() < SIN_COS_TOLERANCE:
        return "sin-cos"
    return "learned"
