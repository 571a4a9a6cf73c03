"""Work on many files in several processes, with the results in the order of the files.

Processes, because readers hold the interpreter's lock and a damaged file may bring a reader down: then the file is at
fault, and the work goes on. They are started as programs of their own, so that it does not matter what the main program
is (a notebook, Slicer's console), and each keeps one file at a time, so that the one that ended a process is known.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from medmae.datasets.frames import decode, encode, read_frame, write_frame
from medmae.datasets.pool_worker import outcome

Task = TypeVar("Task")
POLL_SECONDS = 0.2
HELD_BYTES = 1 << 30
TASKS_AHEAD = 16  # of each process, behind the result that is waited for
TASKS_FOR_A_PROCESS = 8  # fewer do not pay for starting another one


@dataclass(frozen=True)
class Result(Generic[Task]):
    """What became of a task: a value, or a problem in words (and a traceback where it was unexpected)."""

    task: Task
    value: Any = None
    problem: str | None = None
    trace: str = ""


class Interrupted(Exception):
    """`should_stop` became true."""


def usable_cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class OrderedPool(Generic[Task]):
    """Calls ``function(context, task)`` for many tasks.

    Context, tasks and values travel as `medmae.datasets.frames` says, also without processes: the function gets lists
    and mappings for tuples and dataclasses, and so does who asks for the results.

    Args:
        module, function: where the processes find the function; it must be at the top of an importable module.
        context: sent once to every process.
        workers: how many processes; 0 works in this one, without protection from files that end a process.
        held_bytes: no further task begins while finished results that wait for an earlier one take more than this.
    """

    def __init__(self, module: str, function: str, context: Any, workers: int, held_bytes: int = HELD_BYTES) -> None:
        self._module, self._function, self._context = module, function, context
        self._workers, self._held_limit = workers, held_bytes

    def run(self, tasks: Sequence[Task] | Iterator[Task], total: int,
            should_stop: Callable[[], bool]) -> Iterator[Result[Task]]:
        """Yield one result a task, in the order of the tasks, of which there are about `total`.

        Raises:
            Interrupted: `should_stop` became true.
        """
        if self._workers == 0:
            yield from self._here(tasks, should_stop)
            return
        count = min(self._workers, max(1, -(-total // TASKS_FOR_A_PROCESS)))
        begin = (self._module, self._function, self._context)
        crew = _Crew(iter(tasks), [_Process(begin) for _ in range(count)], self._held_limit)
        threads = [threading.Thread(target=crew.work, args=(process,), daemon=True) for process in crew.processes]
        for thread in threads:
            thread.start()
        try:
            while (result := crew.next_result(should_stop)) is not None:
                yield result
        finally:
            crew.end()
            for thread in threads:
                thread.join()

    def _here(self, tasks: Sequence[Task] | Iterator[Task], should_stop: Callable[[], bool]) -> Iterator[Result[Task]]:
        import importlib

        function = getattr(importlib.import_module(self._module), self._function)
        context = decode(encode(self._context))
        for task in tasks:
            if should_stop():
                raise Interrupted
            yield _result(task, decode(encode(outcome(function, context, decode(encode(task))))))


def _result(task: Task, found: Sequence[Any]) -> Result[Task]:
    kind, value, trace = found
    return Result(task, value) if kind == "value" else Result(task, problem=value, trace=trace)


class _Crew(Generic[Task]):
    """The tasks, and the results that wait for their turn; shared by the threads that each drive one process."""

    def __init__(self, tasks: Iterator[Task], processes: list[_Process], held_limit: int) -> None:
        self._tasks = tasks
        self.processes = processes
        self._ahead = TASKS_AHEAD * len(processes)
        self._held_limit = held_limit
        self._changed = threading.Condition()
        self._begun = self._yielded = 0
        self._total: int | None = None  # known when the tasks are used up
        self._held = 0
        self._done: dict[int, tuple[Task, bytes | str]] = {}
        self._fault: BaseException | None = None
        self._over = False

    def work(self, process: _Process) -> None:
        """What a thread does: take a task, let the process do it, hand the result in."""
        try:
            while (taken := self._take()) is not None:
                number, task = taken
                answer = process.do(task)
                with self._changed:
                    self._done[number] = (task, answer)
                    self._held += len(answer)
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for the result, which raises it
            with self._changed:
                self._fault = error
                self._changed.notify_all()
        finally:
            process.end()

    def _take(self) -> tuple[int, Task] | None:
        with self._changed:
            while not self._over and self._total is None and self._must_wait():
                self._changed.wait()
            if self._over or self._total is not None:
                return None
            try:
                task = next(self._tasks)
            except StopIteration:
                self._total = self._begun
                self._changed.notify_all()
                return None
            self._begun += 1
            return self._begun - 1, task

    def _must_wait(self) -> bool:
        # The task whose result comes next always runs, so that this ends.
        ahead = self._begun - self._yielded
        return ahead > 0 and (ahead >= self._ahead or self._held > self._held_limit)

    def next_result(self, should_stop: Callable[[], bool]) -> Result[Task] | None:
        """Wait for the next result in order; None after the last."""
        with self._changed:
            while self._yielded not in self._done:
                if self._fault is not None:
                    raise self._fault
                if should_stop():
                    raise Interrupted
                if self._total is not None and self._yielded >= self._total:
                    return None
                self._changed.wait(POLL_SECONDS)
            if should_stop():
                raise Interrupted
            task, answer = self._done.pop(self._yielded)
            self._yielded += 1
            self._held -= len(answer)
            self._changed.notify_all()
        if isinstance(answer, str):
            return Result(task, problem=answer)
        return _result(task, decode(answer))

    def end(self) -> None:
        """No further task; processes in the middle of one are ended."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        for process in self.processes:
            process.kill()


class _Process:
    """One worker process, started at its first task and again when it ended before its time."""

    def __init__(self, begin: tuple[str, str, Any]) -> None:
        self._begin = begin
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: Any = None
        self._killed = False

    def do(self, task: Any) -> bytes | str:
        """The encoded outcome of a task, or in words how the process ended, twice, while it worked on it."""
        for _ in range(2):  # once more: memory may have been short because of another file or program
            try:
                process = self._started()
                assert process.stdin and process.stdout
                write_frame(process.stdin, encode(task))
                answer = read_frame(process.stdout)
            except BrokenPipeError:
                answer = None
            if answer is not None:
                return answer
            how = self._epitaph()
            if self._killed:
                break
        return how

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            environment = os.environ | {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
                                        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end()
            self._process = subprocess.Popen([sys.executable, "-P", "-m", "medmae.datasets.pool_worker"],
                                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._messages,
                                             env=environment)
            assert self._process.stdin
            if self._killed:  # while it was being started
                self._process.kill()
            write_frame(self._process.stdin, encode(self._begin))
        return self._process

    def _epitaph(self) -> str:
        assert self._process
        code = self._process.wait()
        self._messages.seek(0)
        last = self._messages.read().decode(errors="replace").strip().splitlines()[-1:]
        self.end()
        if code == -9:
            return ("The process that read it was killed, twice, as the system does when memory runs out. The image "
                    "is too large for this machine's memory; use fewer --workers, or leave it out.")
        return f"The process that read it ended with {code}, twice ({' '.join(last) or 'it said nothing'})."

    def kill(self) -> None:
        """End the process at once, from any thread."""
        self._killed = True
        if self._process is not None:
            self._process.kill()

    def end(self) -> None:
        """Close the process's input, after which it ends, and wait for it."""
        if self._process is None:
            return
        process, self._process = self._process, None
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        process.wait()
        self._messages.close()
