"""What a run needs on its target: its specification there, and the files that travel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Report = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True)
class Blob:
    """A file as a target stores it: under its hash, with the suffix that readers need."""

    sha256: str
    suffix: str
    size: int


@dataclass(frozen=True)
class Upload:
    """What `collect` found.

    Args:
        spec: kind, config and inputs; paths are relative to the run folder there, in which the run starts.
        files: path relative to the run folder to blob.
        sources: hash to the local file with these bytes; asking for one may take time, because a file that was removed
            after an earlier upload is made again.
        release: takes the hashes of files that have arrived and are not needed here any more.
    """

    spec: dict[str, Any]
    files: dict[str, Blob]
    sources: Mapping[str, Path]
    release: Callable[[str], None] = lambda sha256: None  # noqa: E731
