"""Calls of functions on a target, here on this computer: what may go wrong on the way; nothing is left over."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medmae.errors import BadInput
from medmae.jobs import transport
from medmae.jobs.conversation import OperationFailed
from medmae.jobs.problems import ConnectionLost, TargetProblem
from medmae.jobs.target import Target
from medmae.jobs.transport import Transport, connect, travelling_sources

OPERATIONS = '''
import errno, os, subprocess, sys, time
from medmae.errors import BadInput

def echo(arguments, channel):
    while data := channel.read(1 << 16):
        channel.write(data)
    return arguments

def count(arguments, channel):
    return {"bytes": len(channel.read())}

def read_little(arguments, channel):
    return {"bytes": len(channel.read(arguments["size"]))}

def refuse(arguments, channel):
    raise BadInput("The folder \\udcff is no dataset.")

def full(arguments, channel):
    raise OSError(errno.ENOSPC, "No space left on device", "/scratch/x")

def fault(arguments, channel):
    return 1 / 0

def die(arguments, channel):
    os.kill(os.getpid(), 9)

def hang(arguments, channel):
    children = subprocess.Popen(["sleep", "600"])
    channel.report(child=children.pid)
    time.sleep(600)

def report_slowly(arguments, channel):
    for step in range(arguments["steps"]):
        time.sleep(arguments["pause"])
        channel.report(step=step)
    return {}

def chatter(arguments, channel):
    print("printed " * 100)
    sys.stderr.write("warned " * 100_000)
    return {"done": True}

def processes(arguments, channel):
    return {"seen": subprocess.run(["ps", "-eww", "-o", "args="], capture_output=True, text=True).stdout}

def absurd(arguments, channel):
    channel._sink.write(b"D" + (1 << 62).to_bytes(8, "big"))
    channel._sink.flush()
    time.sleep(600)

def answer_oddly(arguments, channel):
    channel.frame(arguments["kind"].encode(), arguments["text"].encode())
    time.sleep(600)
'''


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations for these tests travel too."""
    import json
    import zlib

    sources = json.loads(zlib.decompress(travelling_sources()))
    sources["medmae.jobs.there.trying"] = [False, OPERATIONS]
    monkeypatch.setattr(transport, "travelling_sources", lambda: zlib.compress(json.dumps(sources).encode()))


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No thread, file descriptor or process more than before."""
    processes = _children()
    threads, files = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    yield
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= files
    assert _children() <= processes


pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("operations", "nothing_left")]


def _children() -> set[str]:
    """Zombies too."""
    done = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return {line for line in done.stdout.splitlines() if not line.endswith(" ps")}


def here(**changes: Any) -> Transport:
    return connect(Target(**{"name": "here", "python": sys.executable, **changes}))


def test_what_is_sent_comes_back_whole() -> None:
    pieces = [os.urandom(size) for size in (1, 0, 3 << 20, 65536, 7)]
    received = bytearray()
    answer = here().call("trying.echo", {"text": "ä\n$(x)"}, send=pieces, receive=received.extend)
    assert answer == {"text": "ä\n$(x)"}
    assert bytes(received) == b"".join(pieces)


def test_errors_of_the_other_side_are_raised_here() -> None:
    with pytest.raises(BadInput, match="no dataset"):
        here().call("trying.refuse")
    with pytest.raises(OSError, match="/scratch/x: No space left") as raised:
        here().call("trying.full")
    assert raised.value.errno == errno.ENOSPC
    with pytest.raises(OperationFailed, match="ZeroDivisionError"):
        here().call("trying.fault")


def test_greetings_of_any_kind_and_size_before_the_answer_are_passed_over() -> None:
    noise = "head -c 3000000 /dev/urandom"
    almost = r"printf '\000MEDMAE-ANSWER\000MEDMAE-ANSWERS'"
    for line in (noise, almost, "echo Welcome; echo Last login >&2"):
        assert here(preamble=(line,)).call("trying.count", send=[b"abc"]) == {"bytes": 3}


def test_a_preamble_that_reads_its_input_does_not_eat_the_call() -> None:
    assert here(preamble=("cat", "read line || true")).call("trying.count", send=[b"abc"]) == {"bytes": 3}


def test_what_operations_print_gets_into_nobodys_way() -> None:
    assert here().call("trying.chatter") == {"done": True}


def test_an_operation_may_answer_before_it_has_read_everything() -> None:
    assert here().call("trying.read_little", {"size": 3}, send=(b"x" * (1 << 20) for _ in range(50))) == {"bytes": 3}


def test_what_the_upload_raises_ends_the_call_and_the_other_side_knows_that_bytes_are_missing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise FileNotFoundError(errno.ENOENT, "gone", "image.nii")

    with pytest.raises(FileNotFoundError, match="image.nii"):
        here().call("trying.count", send=broken())


def test_an_upload_that_breaks_off_is_not_taken_for_its_end() -> None:
    process = transport.begin_here(here()._script())
    request = transport._request("trying.count", {})
    output, _ = process.communicate(request + b"4\nhalf")
    assert b"the connection broke while data came in" in output


def test_silence_ends_a_call_and_what_it_had_started() -> None:
    started: list[int] = []
    began = time.monotonic()
    with pytest.raises(ConnectionLost) as raised:
        here().call("trying.hang", on_progress=lambda progress: started.append(progress["child"]), timeout_s=0.7)
    assert raised.value.code == "timed out"
    assert time.monotonic() - began < 5
    assert not _runs(started[0])


def test_reports_keep_a_long_call_alive() -> None:
    steps: list[int] = []
    here().call("trying.report_slowly", {"steps": 8, "pause": 0.2}, timeout_s=0.8,
                on_progress=lambda progress: steps.append(progress["step"]))
    assert steps == list(range(8))


def test_an_upload_that_moves_keeps_a_call_alive() -> None:
    def slowly() -> Iterator[bytes]:
        for _ in range(8):
            time.sleep(0.2)
            yield b"x"

    assert here().call("trying.count", send=slowly(), timeout_s=0.8) == {"bytes": 8}


def test_an_operation_that_is_killed_is_a_lost_connection() -> None:
    with pytest.raises(ConnectionLost) as raised:
        here().call("trying.die")
    assert raised.value.code == "connection lost"


def test_an_absurd_length_is_refused_instead_of_filling_the_memory() -> None:
    with pytest.raises(ConnectionLost):
        here().call("trying.absurd")


@pytest.mark.parametrize(("kind", "text"), [("R", "[1]"), ("R", "{"), ("R", "9" * 5000), ("P", "null"), ("O", "3"),
                                            ("R", "[" * 100_000)])
def test_what_is_no_answer_of_ours_ends_the_call(kind: str, text: str) -> None:
    with pytest.raises(TargetProblem) as raised:
        here().call("trying.answer_oddly", {"kind": kind, "text": text}, on_progress=lambda told: None)
    assert raised.value.code == "odd answer" and not raised.value.may_pass


def test_what_the_other_side_says_does_not_steer_the_terminal() -> None:
    with pytest.raises(BadInput) as raised:
        here().call("trying.answer_oddly", {"kind": "B", "text": "no \x1b[31mdataset\x07"})
    assert str(raised.value) == "no [31mdataset"
    with pytest.raises(TargetProblem) as problem:
        here(preamble=("printf '\\033[31mred' >&2", "exit 3")).call("trying.count")
    assert "red" in str(problem.value) and "\x1b" not in str(problem.value)


@pytest.mark.parametrize("part", ["receive", "on_progress"])
def test_what_the_receiver_raises_ends_the_call(part: str) -> None:
    def stop(_: object) -> None:
        raise OSError(errno.ENOSPC, "full here")

    with pytest.raises(OSError, match="full here"):
        here().call("trying.report_slowly" if part == "on_progress" else "trying.echo", {"steps": 99, "pause": 0.01},
                    send=[b"x" * (1 << 20)] * 64, **{part: stop})


def test_an_interrupt_ends_the_call_at_once() -> None:
    code = ("import sys\nfrom medmae.jobs.target import Target\nfrom medmae.jobs.transport import connect\n"
            "connect(Target('here', python=sys.executable, preamble=('sleep 600',))).call('probe.describe')")
    began = time.monotonic()
    caller = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE,
                              preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # as in a terminal
    while not (sleeping := _descendants(caller.pid)):
        time.sleep(0.02)
    caller.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in caller.communicate(timeout=20)[1]
    assert time.monotonic() - began < 10
    assert not any(map(_runs, sleeping))


def test_calls_from_many_threads_do_not_mix() -> None:
    answers: dict[int, Any] = {}

    def call(number: int) -> None:
        received = bytearray()
        here().call("trying.echo", {}, send=[b"%d" % number] * 1000, receive=received.extend)
        answers[number] = bytes(received)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: b"%d" % number * 1000 for number in range(6)}


def test_nothing_of_a_call_is_seen_in_the_list_of_processes() -> None:
    seen = here().call("trying.processes", {"folder": "/private/name-of-a-patient"})["seen"]
    assert "sys.stdin.buffer.readline" in seen
    assert "name-of-a-patient" not in seen and "trying.processes" not in seen


@pytest.mark.parametrize(("changes", "code"), [
    ({"python": "/nowhere/python3"}, "no Python"),
    ({"python": "/etc/passwd"}, "no Python"),
    ({"python": "false"}, "no Python"),
    ({"preamble": ("exit 3",)}, "no Python"),
])
def test_a_missing_interpreter_is_named(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(TargetProblem) as raised:
        here(**changes).call("probe.describe")
    assert raised.value.code == code
    assert "--python" in raised.value.remedy


@pytest.mark.parametrize(("say", "version"), [
    ("exec {python} -c 'import sys; sys.version_info = (3, 6, 8)\n{call}'", "3.6"),
    ("echo \"AttributeError: 'file' object has no attribute 'buffer'\" >&2; exit 1", "2"),
])
def test_an_old_interpreter_is_named(tmp_path: Path, say: str, version: str) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\n" + say.format(python=sys.executable, call=transport.CALL) + "\n")
    old.chmod(0o755)
    with pytest.raises(TargetProblem, match=rf"is Python {version}; 3\.11 or newer") as raised:
        here(python=str(old)).call("probe.describe")
    assert raised.value.code == "old Python"


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    folder = tmp_path / "-rf ; rm -rf x $(touch pwned) `touch pwned` 'one' \"two\" \\ & ä 肝"
    made = here().call("probe.make_folder", {"folder": str(folder)})["folder"]
    assert made == str(folder) and folder.stat().st_mode & 0o777 == 0o700
    python = tmp_path / folder.name / "python3"
    python.symlink_to(sys.executable)
    assert here(python=str(python)).call("trying.count") == {"bytes": 0}
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def _descendants(pid: int) -> list[int]:
    """Processes named sleep below `pid`."""
    done = subprocess.run(["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    below = {str(pid)}
    for row in rows * 3:
        if row[1] in below:
            below.add(row[0])
    return [int(row[0]) for row in rows if row[0] in below and row[2] == "sleep"]
