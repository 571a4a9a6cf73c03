"""The user's targets: ``HOME/targets.json``, and "local", which is always there."""

from __future__ import annotations

import sys
from pathlib import Path

from medmae.config import from_json, to_json
from medmae.errors import BadInput
from medmae.files import read_json, write_json
from medmae.home import home
from medmae.jobs.target import Target

LOCAL = "local"


def targets_file() -> Path:
    """Where targets are kept."""
    return home() / "targets.json"


def list_targets() -> list[Target]:
    """All targets, this computer first, then by name.

    Raises:
        BadInput: the file is damaged.
    """
    return [_this_computer(), *sorted(_read().values(), key=lambda target: target.name)]


def find_target(name: str) -> Target | None:
    """The target called `name`; None if there is none.

    Raises:
        BadInput: the file is damaged.
    """
    return next((target for target in list_targets() if target.name == name), None)


def get_target(name: str) -> Target:
    """The target called `name`.

    Raises:
        BadInput: there is none.
    """
    target = find_target(name)
    if target is None:
        names = ", ".join(target.name for target in list_targets())
        raise BadInput(f"There is no target {name}; there are: {names}. Add it with: medmae target add {name}")
    return target


def add_target(target: Target, *, replace: bool = False) -> None:
    """Keep a target.

    Raises:
        BadInput: there is one of that name, and it is not to be replaced; or it would hide "local".
    """
    targets = _read()
    if target.name == LOCAL:
        raise BadInput(f"{LOCAL} is always this computer as it is. Choose another name.")
    if target.name in targets and not replace:
        raise BadInput(f"There is a target {target.name} already. Choose another name, or replace it with --replace.")
    _write({**targets, target.name: target})


def remove_target(name: str) -> None:
    """Forget a target. Nothing on it is touched, and its jobs are still followed.

    Raises:
        BadInput: there is none of that name.
    """
    if name == LOCAL:
        raise BadInput(f"{LOCAL} is this computer and cannot be removed.")
    get_target(name)
    _write({other: target for other, target in _read().items() if other != name})


def _this_computer() -> Target:
    return Target(LOCAL, environment="python", python=sys.executable)


def _read() -> dict[str, Target]:
    file = targets_file()
    if not file.exists():
        return {}
    what = f"list of targets {file}"
    data = read_json(file, "list of targets")
    if not (isinstance(data, dict) and isinstance(data.get("targets"), list) and set(data) == {"targets"}
            and all(isinstance(entry, dict) for entry in data["targets"])):
        raise BadInput(f"The {what} is not of the form {{\"targets\": [{{\"name\": ...}}, ...]}}. Repair or remove it.")
    targets = [from_json(Target, entry, f"target {entry.get('name', '')} in the {what}") for entry in data["targets"]]
    named = {target.name: target for target in targets}
    if len(named) < len(targets) or LOCAL in named:
        raise BadInput(f"The {what} names a target twice, or one {LOCAL}. Repair it.")
    return named


def _write(targets: dict[str, Target]) -> None:
    """Without what is as it is by default, so that the file can be read by people."""
    usual = to_json(Target("usual"))
    entries = [{key: value for key, value in to_json(target).items() if key in ("name", "kind") or value != usual[key]}
               for target in targets.values()]
    write_json(targets_file(), {"targets": entries}, private=True)
