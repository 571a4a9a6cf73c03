"""Showing how a run goes, on stderr: a progress bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import functools
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import click

from medmae.run_folder import RunFolder

POLL_SECONDS = 0.2
LINE_EVERY_SECONDS = 30.0
NOT_METRICS = ("seconds", "case_seconds", "eta_s", "lr", "data_wait_s", "memory_bytes")


class Display(Protocol):
    """Where progress is shown."""

    def update(self, record: Mapping[str, Any]) -> None:
        """Show one record of ``progress.jsonl``."""
        ...

    def stopping(self) -> None:
        """Say that the run was asked to stop."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


@contextmanager
def shown(run: RunFolder, title: str) -> Iterator[None]:
    """Follow `run` while the block executes it; only what is new in ``progress.jsonl`` is shown."""
    display = display_of(title)
    offset = run.progress_file.stat().st_size if run.progress_file.exists() else 0
    finished = threading.Event()
    thread = threading.Thread(target=_follow, args=(run, offset, display, finished), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
        display.close()


def display_of(title: str) -> Display:
    """What suits stderr."""
    return BarDisplay(title) if sys.stderr.isatty() else LineDisplay(title)


def _follow(run: RunFolder, offset: int, display: Display, finished: threading.Event) -> None:
    stop_was_asked = False
    last_look = False
    while not last_look:
        last_look = finished.wait(POLL_SECONDS)
        records, offset = new_records(run, offset)
        for record in records:
            display.update(record)
        if run.stop_requested and not stop_was_asked and not last_look:
            stop_was_asked = True
            display.stopping()


def new_records(run: RunFolder, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The whole lines written after byte `offset`, and the offset behind them."""
    if not run.progress_file.exists():
        return [], offset
    with open(run.progress_file, "rb") as file:
        file.seek(offset)
        whole = file.read().rpartition(b"\n")[0]
    records = []
    for line in whole.splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:  # the half line of a run that was killed, before the resumed run's first one
            continue
    return records, offset + (len(whole) + 1 if whole else 0)


class LineDisplay:
    """For logs and pipes: the first record, then a line every half minute, and the last record of each stage."""

    def __init__(self, title: str, every_seconds: float = LINE_EVERY_SECONDS) -> None:
        self._title = title
        self._every = every_seconds
        self._printed = -every_seconds
        self._stage = ""

    def update(self, record: Mapping[str, Any]) -> None:
        """Print the record if it is time to."""
        stage, now = str(record.get("stage") or self._title), time.monotonic()
        last_of_stage = record.get("step") is not None and record.get("step") == record.get("total")
        if stage == self._stage and not last_of_stage and now - self._printed < self._every:
            return
        self._stage, self._printed = stage, now
        click.echo(line_of(record, stage), err=True)

    def stopping(self) -> None:
        """Say so."""
        click.echo(f"{self._title}: stopping as asked; what is done is kept.", err=True)

    def close(self) -> None:
        """Nothing to restore."""


class BarDisplay:
    """For a terminal: one bar a stage, with the latest figures and the time left."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        told = functools.partial(TextColumn, markup=False)  # names of files may have brackets
        self._title = title
        self._progress = Progress(SpinnerColumn(), told("{task.description}"), BarColumn(),
                                  told("{task.fields[count]}"), told("{task.fields[figures]}", style="dim"),
                                  TimeElapsedColumn(), told("{task.fields[left]}", style="cyan"),
                                  console=Console(stderr=True))
        self._bars: dict[str, Any] = {}
        self._start = self._add("getting ready")
        self._progress.start()

    def _add(self, stage: str) -> Any:
        return self._progress.add_task(f"{self._title}: {stage}" if stage != self._title else stage, total=None,
                                       count="", figures="", left="")

    def update(self, record: Mapping[str, Any]) -> None:
        """Move the bar of the record's stage; earlier stages are over."""
        stage = str(record.get("stage") or self._title)
        if stage not in self._bars:
            for bar in (self._start, *self._bars.values()):
                self._end(bar)
            self._bars[stage] = self._add(stage)
        figures = ", ".join(text for text in (str(record.get("message") or ""), _figures(record)) if text)
        self._progress.update(self._bars[stage], completed=record.get("step") or 0, total=record.get("total"),
                              count=_count(record, "/"), figures=figures, left=_time_left(record))

    def _end(self, bar: Any) -> None:
        self._progress.stop_task(bar)
        self._progress.update(bar, visible=bar != self._start, left="")

    def stopping(self) -> None:
        """Say so above the bars."""
        self._progress.console.print("Stopping after this step; what is done is kept. Ctrl-C again ends at once.")

    def close(self) -> None:
        """Leave the finished bars standing."""
        for bar in (self._start, *self._bars.values()):
            self._end(bar)
        self._progress.stop()


def line_of(record: Mapping[str, Any], stage: str) -> str:
    """A progress record as a sentence: ``pretrain: step 20 of 100 (20 %), loss 0.312, 3 min left``."""
    parts = []
    if record.get("step") is not None and record.get("total"):
        parts.append(f"{_count(record, ' of ')} ({100 * record['step'] // record['total']} %)")
    parts += [text for text in (str(record.get("message") or ""), _figures(record), _time_left(record)) if text]
    return f"{stage}: {', '.join(parts)}" if parts else stage


def _count(record: Mapping[str, Any], of: str) -> str:
    """What is counted: cases where the record counts them (its steps are parts of a case then), else steps."""
    for name, count, total in (("case", "case", "cases"), ("step", "step", "total")):
        if record.get(count) is not None and record.get(total):
            return f"{name} {record[count]}{of}{record[total]}"
    return ""


def _figures(record: Mapping[str, Any]) -> str:
    figures = [(name, value) for name, value in record.items()
               if name not in NOT_METRICS and isinstance(value, float)]
    return ", ".join(f"{name} {value:.4g}" for name, value in figures[:3])


def _time_left(record: Mapping[str, Any]) -> str:
    seconds = record.get("eta_s")
    return f"{duration(seconds)} left" if seconds else ""


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``42 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
