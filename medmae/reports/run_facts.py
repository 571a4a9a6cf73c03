"""What the reports of all kinds of runs read from a run folder, and how they write it."""

from __future__ import annotations

import datetime
from typing import Any

from medmae import __version__
from medmae.files import read_json
from medmae.run_folder import RunFolder


def configuration(run: RunFolder) -> dict[str, Any]:
    """The resolved configuration where the run has written it, otherwise that of the specification."""
    resolved = run.path / "config.json"
    return read_json(resolved, "configuration") if resolved.is_file() else run.spec["config"]


def footer() -> str:
    """Who wrote a page, and when."""
    return f"MedMAE {__version__} · {datetime.datetime.now().astimezone().strftime('%Y-%m-%d %H:%M %Z')}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: "42 s", "3.5 min", "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 90 else f"{int(minutes // 60)} h {int(minutes % 60):02d} min"


def training_records(run: RunFolder) -> list[dict[str, Any]]:
    """The records of training steps, without those of preparing data."""
    return [record for record in run.progress() if "loss" in record]
