"""Calling operations for a job: on its target, or in this process where the target is this computer."""

from __future__ import annotations

import importlib
import io
from typing import Any

from medmae.jobs.target import Target
from medmae.jobs.there.serving import Channel
from medmae.jobs.transport import connect


def operate(target: Target, operation: str, arguments: dict[str, Any], timeout_s: float = 60.0) -> dict[str, Any]:
    """Call ``medmae.jobs.there.<module>.<function>`` where the runs of `target` are.

    Raises:
        As `Transport.call`.
    """
    if target.kind != "local":
        return connect(target).call(operation, arguments, timeout_s=timeout_s)
    module, _, function = operation.partition(".")
    found = getattr(importlib.import_module(f"medmae.jobs.there.{module}"), function)
    return found(arguments, Channel(io.BytesIO(), io.BytesIO()))
