"""The pictures of a job's training in its mirror: whatever a target sends, pictures of pixels only, small and few."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from medmae.files import atomic_path
from medmae.jobs import told as telling
from medmae.jobs.there.samples import BYTES_A_POLL, LARGEST, NAME, described, samples_of
from medmae.models.png import is_plain_png
from medmae.run_folder import MOST_SAMPLES, RunFolder

MOST_PIXELS = 600 * 220


def samples_here(mirror: Path) -> dict[str, list[int]]:
    """What the mirror has, as a target is told."""
    return {file.name: described(file.read_bytes()) for file in samples_of(mirror)}


def mirror_samples(mirror: Path, told: Any) -> int:
    """Write the pictures that have come, and return how many bytes they have; anything else is passed over.

    Args:
        mirror: of the job.
        told: what the target says of them, {name: base64}.
    """
    folder, came = RunFolder(mirror).samples, 0
    known = {file.name for file in samples_of(mirror)}
    for name, text in telling.mapping(told).items():
        data = _picture(text) if NAME.fullmatch(name) and (name in known or len(known) < MOST_SAMPLES) else None
        if data is None or came + len(data) > BYTES_A_POLL:
            continue
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(data)
        known.add(name)
        came += len(data)
    return came


def _picture(text: Any) -> bytes | None:
    if not isinstance(text, str) or len(text) > 2 * LARGEST:
        return None
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data if len(data) <= LARGEST and is_plain_png(data, MOST_PIXELS) else None
