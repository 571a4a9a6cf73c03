"""``medmae demo``: the whole chain on synthetic images, ending in one page."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from medmae.demo.plan import DataStep, Step, all_steps
from medmae.errors import BadInput
from medmae.files import read_json, write_json
from medmae.run_folder import RunFolder

MARKER = "demo.json"
TELL_EVERY_SECONDS = 10.0
WORKERS = 2
OnMessage = Callable[[str], None]


class DemoFailed(Exception):
    """A run of the demonstration failed; the message names its log."""


def run_demo(out: Path, on_message: OnMessage) -> Path:
    """Run the demonstration in the folder `out` and return the page it ends in, ``out/report.html``.

    Makes synthetic CT volumes and X-rays, pretrains both methods on them, finetunes with and without pretraining and
    scores held-out cases. Two processes share the work and the processor's cores. A demonstration that was interrupted
    continues where it was.

    Args:
        out: a new or empty folder, or that of an earlier demonstration.
        on_message: called with every piece of news, from the calling thread.

    Raises:
        BadInput: `out` holds something else.
        DemoFailed: a run failed.
    """
    out = Path(out).expanduser().absolute()
    _claim(out)
    begun = time.monotonic()
    crew = _Crew(out, on_message)
    try:
        crew.work()
    finally:
        crew.end()
    from medmae.demo.report import write_demo_report

    seconds = read_json(out / MARKER)["seconds"] + time.monotonic() - begun
    write_json(out / MARKER, {"demo": True, "seconds": round(seconds, 1)})
    page = write_demo_report(out, seconds)
    on_message(f"The page is ready: {page}")
    return page


def _claim(out: Path) -> None:
    """Take the folder for the demonstration."""
    if (out / MARKER).is_file():
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} exists and is not empty, and it holds no earlier demonstration. "
                       "Choose another folder with --out.")
    try:
        write_json(out / MARKER, {"demo": True, "seconds": 0.0})
    except OSError as error:
        raise BadInput(f"The folder {out} cannot be written ({error.strerror}). Choose another with --out.") from None


class _Worker:
    """One process that executes steps, and what it is at."""

    def __init__(self, root: Path, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self.step: Step | DataStep | None = None
        self.words: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.complaints = ""
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "medmae.demo.worker", str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment)
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self._input = self.process.stdin
        self._readers = [threading.Thread(target=self._listen, args=(self.process.stdout,), daemon=True),
                         threading.Thread(target=self._keep, args=(self.process.stderr,), daemon=True)]
        for reader in self._readers:
            reader.start()

    def _listen(self, pipe: IO[str]) -> None:
        for line in pipe:
            self.words.put(json.loads(line))

    def _keep(self, pipe: IO[str]) -> None:
        for line in pipe:
            self.complaints = (self.complaints + line)[-4000:]

    def begin(self, step: Step | DataStep) -> None:
        """Give it a step to do."""
        self.step = step
        with contextlib.suppress(BrokenPipeError):  # it has died: noticed when it is next listened to
            self._input.write(f"{step.name}\n")
            self._input.flush()

    def end(self) -> None:
        """Let it go; where it does not end by itself (Ctrl-C has reached it too), its run is stopped, then killed."""
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        for more_force in (self.process.terminate, self.process.kill):
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                more_force()
        for reader in self._readers:
            reader.join()


class _Crew:
    """Workers that take up, of the steps that are ready, always the first."""

    def __init__(self, root: Path, on_message: OnMessage) -> None:
        self.root = root
        self.tell = on_message
        self.waiting = all_steps()
        self.total = len(self.waiting)
        self.done: set[str] = set()
        self.told = time.monotonic()
        cores = os.cpu_count() or 1
        count = min(WORKERS, cores)
        self.workers = [_Worker(root, max(1, cores // count)) for _ in range(count)]

    def work(self) -> None:
        """Return when every step is done.

        Raises:
            BadInput, DemoFailed: a step failed.
        """
        while self.waiting or any(worker.step for worker in self.workers):
            for worker in self.workers:
                self._hear(worker)
                if worker.step is None and (step := self._next()) is not None:
                    worker.begin(step)
            if time.monotonic() - self.told > TELL_EVERY_SECONDS:
                self.told = time.monotonic()
                for worker in self.workers:
                    self._tell_progress(worker.step)
            time.sleep(0.1)

    def _next(self) -> Step | DataStep | None:
        for step in self.waiting:
            if isinstance(step, DataStep) or step.needs <= self.done:
                self.waiting.remove(step)
                return step
        return None

    def _hear(self, worker: _Worker) -> None:
        while not worker.words.empty():
            words, step = worker.words.get(), worker.step
            assert step is not None
            self.told = time.monotonic()
            if "began" in words:
                self.tell(f"{step.title} ...")
            elif "done" in words:
                self.done.add(step.name)
                self.tell(f"{step.title}: done in {words['seconds']:.0f} s ({len(self.done)} of {self.total})")
                worker.step = None
            else:
                raise (BadInput if words["bad_input"] else DemoFailed)(f"{step.title}: {words['reason']}")
        if worker.process.poll() is not None and worker.words.empty():
            worker.end()  # so that all it wrote has been read
            raise DemoFailed(f"{worker.step.title if worker.step else 'Starting'}: the process ended with exit code "
                             f"{worker.process.returncode}.\n{worker.complaints}")

    def _tell_progress(self, step: Step | DataStep | None) -> None:
        """Say how far a run is."""
        if not isinstance(step, Step):
            return
        records = [record for record in RunFolder(self.root / step.folder).progress() if record.get("total")]
        if not records:
            return
        last = ([record for record in records if "loss" in record] or records)[-1]  # training before its preparation
        if last.get("stage") in (None, "evaluate", "segment"):
            left = f", about {last['eta_s']:.0f} s left" if last.get("eta_s") else ""
            self.tell(f"{step.title}: {100 * last['step'] // last['total']} %{left}")

    def end(self) -> None:
        """End all processes."""
        for worker in self.workers:
            worker.end()
