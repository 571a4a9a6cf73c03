"""A process of an `OrderedPool`: reads tasks from its standard input and writes what a function makes of them.

It ends when its input closes, that is when the program that started it ends in any way.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from typing import Any

from medmae.datasets.frames import decode, encode, read_frame, write_frame
from medmae.errors import BadInput


def outcome(function: Any, context: Any, task: Any) -> tuple[str, Any, str]:
    """("value", what the function returned, ""), or ("problem", why it could not, the traceback where unexpected)."""
    try:
        return "value", function(context, task), ""
    except BadInput as error:
        return "problem", str(error), ""
    except MemoryError:
        return "problem", "There is not enough memory to read it.", ""
    except OSError as error:
        return "problem", f"It cannot be read ({error.strerror or error}).", ""
    except Exception as error:  # noqa: BLE001 - a strange file must not end the work on a million others: it is listed
        # with this reason, and the traceback is logged
        return "problem", f"Reading it failed ({type(error).__name__}: {error}).", traceback.format_exc()


def main() -> None:
    """Serve until the input closes."""
    # Ctrl-C and a scheduler's SIGTERM reach the whole group; the parent decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    source, target = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the frames
    begin = read_frame(source)
    if begin is None:
        return
    module, name, context = decode(begin)
    function = getattr(importlib.import_module(module), name)
    while (task := read_frame(source)) is not None:
        write_frame(target, encode(outcome(function, context, decode(task))))


if __name__ == "__main__":
    main()
