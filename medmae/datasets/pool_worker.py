"""A process of an `OrderedPool`: reads tasks from its standard input and writes what a function makes of them.

Frames are eight bytes of length and a pickle; both ends are this program. It ends when its input closes, that is when
the program that started it ends in any way.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import struct
import sys
import traceback
from typing import IO, Any

from medmae.errors import BadInput

LENGTH = struct.Struct("<Q")


def write_frame(stream: IO[bytes], data: Any) -> None:
    """Write one object and flush."""
    payload = pickle.dumps(data, protocol=5)
    stream.write(LENGTH.pack(len(payload)))
    stream.write(payload)
    stream.flush()


def read_frame(stream: IO[bytes]) -> bytes | None:
    """The bytes of the next object, or None where the stream ends."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    size = LENGTH.unpack(head)[0]
    payload = stream.read(size)
    return payload if len(payload) == size else None


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
    module, name, context = pickle.loads(begin)  # noqa: S301 - from the program that started this one
    function = getattr(importlib.import_module(module), name)
    while (task := read_frame(source)) is not None:
        write_frame(target, outcome(function, context, pickle.loads(task)))  # noqa: S301 - as above


if __name__ == "__main__":
    main()
