"""Arithmetic of the forward pass: fp32, or bf16 / fp16 by autocast; losses are always computed in fp32."""

from __future__ import annotations

from typing import Literal

import torch

from medmae.errors import BadInput

Precision = Literal["fp32", "bf16", "fp16"]


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of `precision` on `device`.

    Raises:
        BadInput: fp16 is asked for on a processor, where it would only be slow and inexact.
    """
    if precision == "fp16" and device.type == "cpu":
        raise BadInput("fp16 needs a GPU. Use --precision bf16 or fp32 on a processor.")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")
