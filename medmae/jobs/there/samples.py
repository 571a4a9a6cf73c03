"""The pictures that a run draws while it trains, for whoever follows it."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmae.run_folder import MOST_SAMPLES, RunFolder

NAME = re.compile(r"step-[0-9]{6,12}\.png")
LARGEST = 1 << 19  # bytes of a picture; those of ours have at most 340,000
BYTES_A_POLL = 1 << 20


def samples_of(run: Path) -> list[Path]:
    """The newest pictures of a run, in the order of their steps."""
    files = [file for file in RunFolder(run).samples.glob("step-*.png")
             if NAME.fullmatch(file.name) and file.is_file() and not file.is_symlink()
             and file.stat().st_size <= LARGEST]
    return sorted(files, key=lambda file: (len(file.name), file.name))[-MOST_SAMPLES:]


def described(data: bytes) -> list[int]:
    """What tells pictures of the same step apart: their size and CRC-32."""
    return [len(data), zlib.crc32(data)]


def new_samples(run: Path, have: Mapping[str, Any]) -> tuple[dict[str, str], bool]:
    """Pictures that the caller does not have, the newest first, and whether there are more than fit into an answer.

    Args:
        run: its folder.
        have: name of a picture to what `described` says of the caller's.
    """
    news: dict[str, str] = {}
    left = BYTES_A_POLL
    for file in reversed(samples_of(run)):
        data = file.read_bytes()
        if have.get(file.name) == described(data):
            continue
        left -= len(data)
        if left < 0:
            return news, True
        news[file.name] = base64.b64encode(data).decode()
    return news, False
