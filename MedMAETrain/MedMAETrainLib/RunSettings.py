"""What a run was told to do, flat, so that runs can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmae.errors import BadInput
from medmae.files import read_json
from medmae.run_folder import RunFolder

_INPUTS = ("encoder", "subset", "cases", "split")  # paths say nothing about how a run differs


def settingsOf(run: RunFolder) -> dict[str, Any]:
    """The resolved configuration where the run has written it, else what was asked for, by names like "a.b"; {}: of a
    run on another computer may be known nothing."""
    spec = _read(run.spec_file)
    config = _read(run.path / "config.json") or spec.get("config")
    found = _flat(config) if isinstance(config, dict) else {}
    inputs = spec.get("inputs")
    if isinstance(inputs, dict):
        found |= {name: inputs[name] for name in _INPUTS if inputs.get(name) is not None}
    if isinstance(found.get("encoder"), str):
        found["encoder"] = Path(found["encoder"]).name
    return found


def differences(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of each setting that is not the same in all runs; None: it has none."""
    names = list(dict.fromkeys(name for one in settings for name in one))
    values = {name: [one.get(name) for one in settings] for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = json.dumps(value) if isinstance(value, (list, dict)) else value
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        data = read_json(file)
    except (BadInput, OSError):
        return {}
    return data if isinstance(data, dict) else {}
