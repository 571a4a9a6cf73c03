"""The Python that runs use on a target."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from medmae.jobs.there.serving import Channel

LOOK = """
import importlib.util, importlib.metadata, json, sys
absent = [name for name in json.loads(sys.argv[1]) if importlib.util.find_spec(name) is None]
version = None if "torch" in absent else importlib.metadata.version("torch")
print(json.dumps({"absent": absent, "torch": version, "python": sys.version.split()[0]}))
"""


def look(arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """Which of `modules` the interpreter [words] `command` lacks; default: the one that answers.

    Returns:
        executable, absent, torch (its version or None), python (its version); or failed: what it said.
    """
    command = [*(arguments.get("command") or [sys.executable])]
    done = subprocess.run([*command, "-c", LOOK, json.dumps(arguments["modules"])], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip()[-2000:] or f"exit code {done.returncode}"}
    return {"executable": sys.executable, **json.loads(done.stdout.splitlines()[-1])}
