"""Lists of what became of sources that did not simply become an image: text for people, and the memory of a resume."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import IO


class OutcomeList:
    """A CSV file that grows a line at a time; what a former, killed run wrote is kept, a half line is cut off.

    The first column names the source; a source is listed once. `last` is the one listed last, "" at first.
    """

    def __init__(self, file: Path, columns: tuple[str, ...]) -> None:
        self.file = file
        self._columns = columns
        self._known: set[str] = set()
        self._rows = 0
        self.last = ""
        self._total = [0] * len(columns)
        self._stream: IO[bytes] | None = None
        if file.exists():
            self._read()

    def _read(self) -> None:
        content = self.file.read_bytes()
        whole = content[:content.rfind(b"\n") + 1]
        for number, row in enumerate(csv.reader(io.StringIO(whole.decode("utf-8", "surrogateescape")))):
            if number and len(row) == len(self._columns):
                self._count(row)
        if len(whole) < len(content):
            os.truncate(self.file, len(whole))

    def _count(self, row: list[str]) -> None:
        self._known.add(row[0])
        self.last = row[0]
        self._rows += 1
        for column, text in enumerate(row):
            if text.isascii() and text.isdigit():
                self._total[column] += int(text)

    def __contains__(self, name: str) -> bool:
        return _in_one_line(name) in self._known

    def __len__(self) -> int:
        return self._rows

    def total(self, column: str) -> int:
        """The sum of a column of whole numbers."""
        return self._total[self._columns.index(column)]

    def add(self, *row: str | int) -> None:
        """Add a row, unless its source is listed already."""
        texts = [_in_one_line(str(row[0])), *(" ".join(str(value).splitlines()) for value in row[1:])]
        if texts[0] in self._known:
            return
        if self._stream is None:
            is_new = not self.file.exists() or not self.file.stat().st_size
            self._stream = open(self.file, "ab")  # noqa: SIM115 - kept open for the next rows
            if is_new:
                self._write(list(self._columns))
        self._write(texts)
        self._count(texts)

    def _write(self, row: list[str]) -> None:
        assert self._stream is not None
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(row)
        self._stream.write(text.getvalue().encode("utf-8", "surrogateescape"))
        self._stream.flush()

    def first(self, count: int) -> list[list[str]]:
        """The first rows."""
        if not self.file.exists():
            return []
        with open(self.file, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            rows = csv.reader(stream)
            next(rows, None)
            return [row for _, row in zip(range(count), rows, strict=False)]

    def close(self) -> None:
        """Nothing is lost without it; it closes the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _in_one_line(name: str) -> str:
    return name.replace("\r", "\\r").replace("\n", "\\n")
