"""One of many cases that are segmented one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CaseState = Literal["waiting", "running", "done", "failed", "cancelled"]


@dataclass
class BatchCase:
    """How a case stands.

    name - Of the volume or file.
    state - waiting, running, done, failed or cancelled.
    message - How far it is, or why it failed.
    result - The vtkMRMLSegmentationNode, or the file; None until done.
    """

    name: str
    state: CaseState = "waiting"
    message: str = ""
    result: Any | Path | None = None


def summaryOf(cases: list[BatchCase]) -> str:
    """How many cases are done and failed, in words."""
    failed = [case for case in cases if case.state == "failed"]
    done = sum(case.state == "done" for case in cases)
    text = f"{done} of {len(cases)} cases are done"
    return text + "." if not failed else f"{text}, {len(failed)} failed:\n" + "\n".join(
        f"{case.name}: {case.message}" for case in failed)
