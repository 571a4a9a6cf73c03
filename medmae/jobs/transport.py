"""Calling a function on a target: the same for this computer and for one over SSH.

A call starts a Python there that reads the sources of ``medmae.jobs.there`` from its standard input, so that nothing
has to be installed, and no path or option of a user is ever part of a command line. The command itself is constant but
for the user's own interpreter and preamble.
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import signal
import subprocess
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import medmae
from medmae.jobs import ssh
from medmae.jobs.conversation import Conversation, NoAnswer
from medmae.jobs.diagnosis import problem_of_failure
from medmae.jobs.target import Target

TRAVELLING = ("errors.py", "files.py", "run_folder.py", "jobs/there/*.py")
OLDEST_PYTHON = (3, 11)
CALL = "import sys;exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
LOADER = """
import sys
if sys.version_info < OLDEST:
    sys.stderr.write("MEDMAE-PYTHON-TOO-OLD %d.%d" % sys.version_info[:2])
    sys.exit(86)
import importlib.abc, importlib.util, json, zlib
class Sources(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, sources): self.sources = sources
    def find_spec(self, name, path=None, target=None):
        if name in self.sources:
            return importlib.util.spec_from_loader(name, self, is_package=self.sources[name][0])
    def exec_module(self, module):
        exec(compile(self.sources[module.__name__][1], module.__name__, "exec"), module.__dict__)
stream = sys.stdin.buffer
sys.meta_path.insert(0, Sources(json.loads(zlib.decompress(stream.read(int(stream.readline()))))))
from medmae.jobs.there.serving import serve
serve()
"""


@dataclass(frozen=True)
class Transport:
    """The way to a target; several threads may use it at the same time.

    Args:
        target: where to.
        begin: starts lines of ``sh`` there; standard streams are pipes.
    """

    target: Target
    begin: Callable[[str], subprocess.Popen[bytes]]

    def call(self, operation: str, arguments: Mapping[str, Any] | None = None, *,
             send: Iterable[bytes] = (), receive: Callable[[bytes], Any] | None = None,
             on_progress: Callable[[dict[str, Any]], Any] | None = None, timeout_s: float = 60.0) -> dict[str, Any]:
        """Call ``medmae.jobs.there.<module>.<function>`` on the target.

        Args:
            operation: "module.function".
            arguments: anything JSON can hold.
            send: bytes for the operation to read. What it raises ends the call, and the other side is told that the
                bytes are not complete.
            receive: takes the bytes that the operation sends.
            on_progress: takes what the operation reports.
            timeout_s: the longest silence: no byte came and none could be sent.

        Raises:
            BadInput: as the operation raised it.
            OSError: as the operation raised it (disk full, no permission), with the path there in its message.
            TargetProblem: the target cannot be reached or used.
            ConnectionLost: the connection ended before the answer.
            OperationFailed: a fault of ours there.
        """
        process = self.begin(self._script())
        kill = functools.partial(self._kill, process)
        conversation = Conversation(process, _request(operation, arguments or {}), send, kill)
        try:
            answer = conversation.answer(receive, on_progress, timeout_s)
            conversation.finish()
            return answer
        except NoAnswer as none:
            if none.reason in ("silence", "odd"):
                kill()
            code, said = conversation.end()
            raise problem_of_failure(self.target, code, said, none.reason) from None
        finally:  # nothing is left behind, whatever happened, Ctrl-C included
            kill()
            process.wait()
            conversation.close()

    def _script(self) -> str:
        python = f"exec {shlex.quote(self.target.python)} -I -c {shlex.quote(CALL)} <&3 3<&-"
        return "\n".join(("umask 077", "exec 3<&0 </dev/null", *self.target.preamble, python))

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """End the call if it has not ended. On this computer with all it has started; that of ssh has its connection
        for others among it."""
        if process.poll() is None:
            if self.target.is_remote or ssh.ON_WINDOWS:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)


def connect(target: Target) -> Transport:
    """The transport of a target. Nothing is connected before the first call."""
    if target.is_remote:
        return Transport(target, functools.partial(ssh.begin_over_ssh, target))
    return Transport(target, functools.partial(_begin_on_windows, target) if ssh.ON_WINDOWS else begin_here)


def begin_here(script: str) -> subprocess.Popen[bytes]:
    """Start lines of ``sh`` on this computer."""
    return subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, start_new_session=True)


def _begin_on_windows(target: Target, _script: str) -> subprocess.Popen[bytes]:
    """Windows has no ``sh``, so there is no preamble either."""
    return subprocess.Popen([target.python, "-I", "-c", CALL], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, creationflags=ssh.NO_CONSOLE)


@functools.cache
def travelling_sources() -> bytes:
    """The modules that run there: {name: [is a package, source]} as compressed JSON."""
    root = Path(medmae.__file__).parent
    sources = {"medmae": [True, (root / "__init__.py").read_text(encoding="utf-8")], "medmae.jobs": [True, ""]}
    for pattern in TRAVELLING:
        for file in sorted(root.glob(pattern)):
            parts = ["medmae", *file.relative_to(root).with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            sources[name] = [is_package, file.read_text(encoding="utf-8")]
    return zlib.compress(json.dumps(sources).encode())


def _request(operation: str, arguments: Mapping[str, Any]) -> bytes:
    loader = LOADER.replace("OLDEST", repr(OLDEST_PYTHON)).encode()
    sources = travelling_sources()
    line = json.dumps({"operation": operation, "arguments": arguments}).encode()
    return b"%d\n%s%d\n%s%s\n" % (len(loader), loader, len(sources), sources, line)
