"""Where and in which arithmetic a network runs."""

from __future__ import annotations

import torch

from medmae.errors import BadInput
from medmae.inference.config import Precision


def resolve_device(name: str = "auto") -> torch.device:
    """The device called auto, cpu, cuda or cuda:N; auto is the first GPU where there is one.

    Raises:
        BadInput: the name is unknown or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise BadInput(f"'{name}' is not a device. Use auto, cpu or cuda:N.")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise BadInput(f"The device {name} does not exist: {found} usable GPU{'s' if found != 1 else ''} found. "
                       "Use --device auto or cpu, or check the driver and the torch build.")
    return device


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of `precision`; auto is bf16 on GPUs that compute it, fp32 elsewhere.

    Raises:
        BadInput: fp16 on a processor, where it would only be slow and inexact.
    """
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise BadInput("fp16 needs a GPU. Use --precision bf16 or fp32 on a processor.")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")
