"""What a computer has for training: memory and graphics cards."""

from __future__ import annotations

import functools
import logging
import subprocess
from dataclasses import dataclass

from medmae.inference.memory import available_bytes
from medmae.jobs.target import Target

_log = logging.getLogger(__name__)
_MIB = 2**20


@dataclass(frozen=True)
class Computer:
    """Where a run would compute.

    graphicsBytes - Memory of the smallest graphics card that would be used; 0: none; None: there is one, or may be,
        and how much it has is not known.
    freeBytes - Main memory that is free; None: not known.
    name - Of the target; "" for this computer.
    """

    graphicsBytes: int | None = 0
    freeBytes: int | None = None
    name: str = ""

    @property
    def hasGraphics(self) -> bool:
        """Whether there is a graphics card."""
        return self.graphicsBytes != 0


def thisComputer(device: str = "auto") -> Computer:
    """This computer, for "auto", "cpu" or "cuda:0"; asks for its cards once, which takes a moment: for a thread."""
    return Computer(0 if device == "cpu" else _graphicsBytes(), available_bytes())


def computerOf(target: Target) -> Computer:
    """What is known of a target without asking it."""
    return Computer(None if target.gpus else 0, None, target.name)


@functools.cache
def _graphicsBytes() -> int:
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=True,
                              creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0)).stdout
        return min(int(line) for line in said.split()) * _MIB
    except (OSError, ValueError, subprocess.SubprocessError) as error:  # no card, no driver, or an old one
        _log.debug("No graphics card: %s", error)
        return 0
