"""Points of a curve computed in several processes at once.

A process reads the name of a point's folder from each line of its standard input and answers with one JSON line:
{"point", "outcome": done | stopped | failed, "reason"}. It ends at once when its input closes, which is what happens
when the process of the curve ends in any way.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import medmae
from medmae.errors import Stopped
from medmae.run_folder import RunFolder

log = logging.getLogger(__name__)
OnAnswer = Callable[[str, str | None], None]
Answers = queue.Queue[tuple["_Worker", dict[str, Any] | None]]


def compute_in_processes(curve: RunFolder, folders: Sequence[Path], jobs: int, on_answer: OnAnswer) -> None:
    """Compute the points in `folders` in `jobs` processes, each with its share of the processor's cores.

    Args:
        curve: the curve; its STOP file stops all points at their next step.
        folders: of the points, in the order in which they are begun.
        jobs: processes at once.
        on_answer: called with (name of the point's folder, None or the reason why it failed) when one has ended.

    Raises:
        Stopped: the curve was asked to stop.
    """
    waiting = list(folders)
    answers: Answers = queue.Queue()
    busy: set[_Worker] = set()
    idle = [_Worker(curve, jobs, answers) for _ in range(min(jobs, len(folders)))]
    try:
        while waiting or busy:
            while waiting and idle and not curve.stop_requested:
                worker = idle.pop()
                worker.begin(waiting.pop(0))
                busy.add(worker)
            if not busy:
                break
            worker, answer = answers.get()
            if worker in idle:  # it was killed while it had nothing to do
                idle.remove(worker)
                idle.append(_Worker(curve, jobs, answers))
                continue
            busy.discard(worker)
            point = worker.point
            if answer is None:  # it was killed, or crashed without a word: its point failed, another takes its place
                on_answer(point, worker.last_words())
                idle.append(_Worker(curve, jobs, answers))
                continue
            idle.append(worker)
            if answer["outcome"] != "stopped":
                on_answer(point, answer.get("reason") if answer["outcome"] == "failed" else None)
    finally:
        for worker in (*idle, *busy):
            worker.end()
    if curve.stop_requested:
        raise Stopped("Stopped as asked. Continue with --resume.")


class _Worker:
    """A process that computes points, and the thread that waits for its answers."""

    def __init__(self, curve: RunFolder, jobs: int, answers: Answers) -> None:
        self.point = ""
        self._answers = answers
        self._process: subprocess.Popen[str] | None = None
        self._curve, self._jobs = curve, jobs

    def begin(self, folder: Path) -> None:
        """Let the process compute a point; it is started with its first one."""
        self.point = folder.name
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self._curve.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True, encoding="utf-8", env=_environment(self._jobs))
            threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(folder.name + "\n")
            self._process.stdin.flush()
        except OSError:  # it has just died; the listening thread reports that
            log.warning("the process for %s ended before it began", folder.name)

    def last_words(self) -> str:
        """Why the process ended without an answer."""
        assert self._process is not None
        return (f"Its process ended without an answer (exit code {self._process.wait()}). It was killed, perhaps for "
                "want of memory: try fewer --jobs.")

    def end(self) -> None:
        """End the process; a point in its middle can be resumed."""
        if self._process is not None:
            assert self._process.stdin is not None
            try:
                self._process.stdin.close()
            except OSError:
                log.debug("the process has ended already")
            self._process.wait()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._answers.put((self, json.loads(line)))
        if process.wait() != 0:
            self._answers.put((self, None))


def threads_for(jobs: int) -> int:
    """Threads for each of `jobs` processes: its share of the cores, no more than OMP_NUM_THREADS allows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores // jobs, int(allowed) if allowed.isdigit() and int(allowed) else cores))


def _environment(jobs: int) -> dict[str, str]:
    package = str(Path(medmae.__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"OMP_NUM_THREADS": str(threads_for(jobs)), "PYTHONPATH": os.pathsep.join(paths)}


def main(curve_folder: str) -> None:
    """Compute points until the input closes."""
    # Ctrl-C and a scheduler's SIGTERM reach the whole group; the process of the curve decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    names: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            names.put(line.rstrip("\n"))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    curve = RunFolder(curve_folder)
    while True:
        name = names.get()
        answers.write(json.dumps({"point": name, **_outcome(curve, curve.path / "points" / name)}) + "\n")
        answers.flush()


def _outcome(curve: RunFolder, folder: Path) -> dict[str, Any]:
    from medmae.finetuning.curve_points import compute_point

    handler = logging.FileHandler(RunFolder(folder).log_file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("medmae")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        compute_point(curve, folder)
    except Stopped:
        return {"outcome": "stopped"}
    except Exception as error:  # noqa: BLE001 - recorded whole and reported; the other points go on
        logger.exception("the point failed")
        return {"outcome": "failed", "reason": f"{type(error).__name__}: {error}"}
    finally:
        logger.removeHandler(handler)
        handler.close()
    return {"outcome": "done"}


if __name__ == "__main__":
    main(sys.argv[1])
