"""``medmae demo``: the whole chain on synthetic images, ending in one page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from medmae.demo.plan import CHAINS
from medmae.errors import BadInput
from medmae.files import read_json, write_json
from medmae.run_folder import RunFolder

MARKER = "demo.json"
TELL_EVERY_SECONDS = 10.0
OnMessage = Callable[[str], None]


class DemoFailed(Exception):
    """A run of the demonstration failed; the message names its log."""


def run_demo(out: Path, on_message: OnMessage) -> Path:
    """Run the demonstration in the folder `out` and return the page it ends in, ``out/report.html``.

    Makes synthetic CT volumes and X-rays, pretrains both methods on them, finetunes with and without pretraining and
    scores held-out cases. The two methods go side by side, each with half of the processor's cores. A demonstration
    that was interrupted continues where it was.

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
    chains = [_Chain(name, out) for name in CHAINS]
    try:
        _follow(chains, on_message)
    finally:
        for chain in chains:
            chain.end()
    _raise_failures(chains)
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


class _Chain:
    """One process of the demonstration and what it has said."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self.news: list[str] = []
        self.error: dict[str, Any] | None = None
        self.current: tuple[RunFolder, str] | None = None
        threads = str(max(1, (os.cpu_count() or 2) // len(CHAINS)))
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "medmae.demo.chain", str(root), name], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment)
        self.complaints = ""
        assert self.process.stdout is not None and self.process.stderr is not None
        self._readers = [threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True),
                         threading.Thread(target=self._keep, args=(self.process.stderr,), daemon=True)]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: IO[str]) -> None:
        for line in pipe:
            words = json.loads(line)
            if "run" in words:
                self.current = (RunFolder(self.root / words["run"]), words["title"])
                self.news.append(words["title"])
            elif "error" in words:
                self.error = words
            else:
                self.current = None if "done" in words else self.current
                self.news.append(words["message"])

    def _keep(self, pipe: IO[str]) -> None:
        for line in pipe:
            self.complaints = (self.complaints + line)[-4000:]

    @property
    def is_running(self) -> bool:
        """Whether it still works or has something left to say."""
        return self.process.poll() is None or any(reader.is_alive() for reader in self._readers)

    def progress(self) -> str | None:
        """How far the present run is."""
        if self.current is None:
            return None
        run, title = self.current
        records = [record for record in run.progress() if record.get("total")]
        if not records:
            return None
        last = ([record for record in records if "loss" in record] or records)[-1]  # training before its preparation
        if last.get("stage") not in (None, "evaluate", "segment"):
            return f"{title}: preparing"
        left = f", about {last['eta_s']:.0f} s left" if last.get("eta_s") else ""
        return f"{title}: {100 * last['step'] // last['total']} %{left}"

    def end(self) -> None:
        """Stop the process where it still runs: first its run gracefully, then at all costs."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for reader in self._readers:
            reader.join()


def _follow(chains: Iterable[_Chain], on_message: OnMessage) -> None:
    """Pass on what the chains say until all have ended or one has failed."""
    chains = list(chains)
    told = time.monotonic()
    while any(chain.is_running for chain in chains):
        time.sleep(0.2)
        for chain in chains:
            while chain.news:
                on_message(f"{chain.name}: {chain.news.pop(0)}")
                told = time.monotonic()
        if time.monotonic() - told > TELL_EVERY_SECONDS:
            told = time.monotonic()
            for chain in chains:
                if (progress := chain.progress()) is not None:
                    on_message(f"{chain.name}: {progress}")
        if any(chain.process.poll() for chain in chains):  # an exit code other than 0: the other need not go on
            return
    for chain in chains:
        for news in chain.news:
            on_message(f"{chain.name}: {news}")


def _raise_failures(chains: Iterable[_Chain]) -> None:
    for chain in chains:
        if chain.error is not None:
            raise (BadInput if chain.error["bad_input"] else DemoFailed)(f"{chain.name}: {chain.error['error']}")
        if chain.process.returncode > 0:
            raise DemoFailed(f"{chain.name}: the process ended with exit code {chain.process.returncode}.\n"
                             f"{chain.complaints}")
