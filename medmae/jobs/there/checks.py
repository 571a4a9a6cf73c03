"""What a target can do: facts only, judged by whoever asked."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmae.errors import BadInput
from medmae.jobs.there.probe import describe, make_folder
from medmae.jobs.there.serving import Channel

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
CARD = "name,memory.total,driver_version"
LIBRARIES = """
import importlib, importlib.metadata, json, sys
found = {}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
        found[name] = {"version": importlib.metadata.version(name), "problem": None}
    except Exception as error:
        found[name] = {"version": None, "problem": "%s: %s" % (type(error).__name__, error)}
facts = {"python": sys.version.split()[0], "libraries": found}
if found.get("torch", {}).get("version"):
    import torch
    facts.update(cuda=torch.version.cuda, available=torch.cuda.is_available(), torch=torch.__version__)
print("\\n" + json.dumps(facts))
"""


def look(arguments: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """What can be had quickly.

    Args:
        arguments: folder (of MedMAE; None: it needs none), wheelhouse (or None), internet (whether to try PyPI).

    Returns:
        What `probe.describe` says, and time, glibc, folder {path, free, problem, full}, cards {found, problem}, rsync,
        venv, environments (made before), wheels (of torch in the wheelhouse), internet (None: not tried).
    """
    cards = _cards()
    folder = _folder(arguments["folder"]) if arguments["folder"] else None
    return {**describe({}, channel), "glibc": platform.libc_ver()[1], "folder": folder, "cards": cards,
            "rsync": shutil.which("rsync") is not None,
            "venv": all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
            "environments": _environments(folder),
            "wheels": _wheels(arguments["wheelhouse"]),
            "internet": _reaches_pypi() if arguments["internet"] else None,
            "time": time.time()}


def libraries(arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """What an interpreter can import.

    Args:
        arguments: command (words that start it), modules.

    Returns:
        python (version), libraries {name: {version, problem}}, torch, cuda (of its build), available (a card that
        works); or problem, if the interpreter does not start.
    """
    said, problem = _ask([*arguments["command"], "-c", LIBRARIES, json.dumps(arguments["modules"])], 240)
    return {"problem": problem} if problem else {"problem": None, **json.loads(said.splitlines()[-1])}


def _folder(name: str) -> dict[str, Any]:
    """Make the folder and write into it."""
    try:
        path = make_folder({"folder": name}, None)["folder"]  # type: ignore[arg-type]
        with tempfile.NamedTemporaryFile(prefix=".medmae-", dir=path) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        return {"path": path, "free": shutil.disk_usage(path).free, "problem": None, "full": False}
    except OSError as error:
        return {"path": error.filename or name, "problem": error.strerror or str(error),
                "full": error.errno in NO_ROOM}
    except BadInput as error:
        return {"path": name, "problem": str(error), "full": False}


def _environments(folder: dict[str, Any] | None) -> list[str]:
    """Names of those that are complete."""
    if folder is None or folder["problem"]:
        return []
    return sorted(ready.parent.name for ready in Path(folder["path"]).glob("environments/*/READY"))


def _cards() -> dict[str, Any]:
    """The NVIDIA cards, as their driver tells: name, memory in MiB, driver, compute capability (None: not told)."""
    said, problem = _ask(["nvidia-smi", f"--query-gpu={CARD}", "--format=csv,noheader,nounits"], 30)
    rows = [[cell.strip() for cell in line.split(",")] for line in said.splitlines()]
    if problem or any(len(row) != 3 for row in rows):
        return {"found": [], "problem": problem or said.strip()}
    capabilities = _ask(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"], 30)[0].split()
    if len(capabilities) != len(rows):  # drivers before 510 do not tell
        capabilities = []
    return {"problem": None, "found": [
        {"name": name, "memory_mib": int(memory) if memory.isdigit() else None, "driver": driver,
         "capability": capabilities[index] if capabilities else None}
        for index, (name, memory, driver) in enumerate(rows)]}


def _wheels(wheelhouse: str | None) -> list[str]:
    if wheelhouse is None:
        return []
    return sorted(file.name for file in (Path.home() / Path(wheelhouse).expanduser()).glob("torch-*.whl"))


def _reaches_pypi() -> bool | None:
    """None where pip is told to go another way."""
    if any(name.upper() in ("HTTPS_PROXY", "ALL_PROXY", "PIP_INDEX_URL", "PIP_PROXY") for name in os.environ):
        return None
    try:
        socket.create_connection(("pypi.org", 443), timeout=5).close()
        return True
    except OSError:
        return False


def _ask(command: Sequence[str], seconds: float) -> tuple[str, str | None]:
    """What a program says on stdout, and what is wrong with it (None: nothing)."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              timeout=seconds, check=False)
    except OSError as error:
        return "", f"{command[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return "", f"{command[0]} has not answered for {seconds:g} s"
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        return done.stdout, said[-1] if said else f"{command[0]} ended with exit code {done.returncode}"
    return done.stdout, None
