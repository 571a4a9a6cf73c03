"""Which cases of a batch are finished: ``OUT/manifest.jsonl``, so that a run that was stopped or killed can go on.

The first line says with which options the results are made, every further one names a finished case with its result. A
line is appended (and brought to the disk) when the files of the case are whole; a line that was cut short by a kill is
passed over, and its case done again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmae import __version__
from medmae.errors import BadInput
from medmae.files import PARTIAL, remove_partial

if TYPE_CHECKING:
    from medmae.inference.cases import FoundCase

MANIFEST = "manifest.jsonl"
MAY_CHANGE = ("device", "batch", "memory")  # results are the same


class Manifest:
    """The finished cases in the folder `out`.

    Args:
        out: the folder of the results.
        options: what the results depend on besides the images, as JSON.
        resume: go on with what is in `folder`; otherwise it counts as empty.
        folder: where the manifest lies; None: in `out`.

    Raises:
        BadInput: on resuming: the results in `folder` are made with other options, or it holds something else.
    """

    def __init__(self, out: Path, options: Mapping[str, Any], *, resume: bool, folder: Path | None = None) -> None:
        self.out = out
        self.folder = folder or out
        self.file = self.folder / MANIFEST
        self.options = _plain(options)
        self.hash = hashlib.sha256(json.dumps(self.options, sort_keys=True).encode()).hexdigest()
        self.records: dict[str, dict[str, Any]] = {}
        self.is_begun = False
        if resume and self.folder.is_dir() and any(self.folder.iterdir()):
            self._read()

    def finished(self, case: FoundCase) -> dict[str, Any] | None:
        """The result of a case that is finished: its files are there and its images have not changed since.

        Raises:
            BadInput: another image has its result under that name.
        """
        record = self.records.get(case.output_name)
        if record is None:
            return None
        if record["images"] != _absolute(case):
            raise BadInput(f"{self.out / case.output_name} is the result of {', '.join(record['images'])}, so the "
                           f"result of {', '.join(_absolute(case))} cannot be put there. Choose another --out for it.")
        whole = record["stamp"] == case.stamp() and all((self.out / name).is_file() for name in record["files"])
        return record["result"] if whole else None

    def begin(self) -> None:
        """Write the first line, before the first result is written; also where somebody has removed it meanwhile."""
        if not self.is_begun or not self.file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.records:
                self.file.write_bytes(b"")  # what an earlier run left counts no more
            self._append({"medmae": __version__, "spec": self.hash, "options": self.options})
            self.is_begun = True

    def add(self, case: FoundCase, files: Sequence[Path], result: Mapping[str, Any], stamp: list[list[int]]) -> None:
        """Note that a case is finished: its `files` are whole. `stamp`: that of the case before it was read."""
        self.begin()
        self._append({"case": case.output_name, "spec": self.hash, "images": _absolute(case), "stamp": stamp,
                      "files": [os.path.relpath(file, self.out) for file in files], "result": dict(result)})

    def _append(self, record: Mapping[str, Any]) -> None:
        with open(self.file, "ab") as file:
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> None:
        if not self.file.is_file():
            if self.folder != self.out or not any(path.is_file() and not path.name.startswith(PARTIAL)
                                                  for path in self.out.rglob("*")):
                return  # ended before the first case was finished
            raise BadInput(f"{self.out} is not empty and has no {MANIFEST}, so there is nothing in it to resume. "
                           "Choose another --out.")
        content = self.file.read_bytes()
        if content and not content.endswith(b"\n"):
            self._end_line()
        header, self.records = read_manifest(self.file, self.hash)
        if header is not None:
            self.refuse_other(header["options"])
            self.is_begun = True
        remove_partial(self.folder)

    def _end_line(self) -> None:
        with open(self.file, "ab") as file:
            file.write(b"\n")

    def refuse_other(self, before: Mapping[str, Any]) -> None:
        """Refuse to add to results that are made with the options `before`, unless these are the same.

        Raises:
            BadInput: they differ.
        """
        names = sorted({*before, *self.options})
        other = [f"{name}={before.get(name)!r} (not {self.options.get(name)!r})" for name in names
                 if before.get(name) != self.options.get(name)]
        if other:
            raise BadInput(f"The results in {self.out} are made with {', '.join(other)}. Parts and --resume go on "
                           "with the same options only: repeat them, or choose another --out.")


def read_manifest(file: Path, spec: str | None = None) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
    """The first line of a manifest, which says the options, and its records by case.

    Where the first line was lost it is None, and the records are those of the options with the hash `spec`.
    """
    content = file.read_bytes() if file.is_file() else b""
    lines = [line for line in map(_parsed, content.splitlines()) if line is not None]
    header = next((line for line in lines if isinstance(line.get("options"), dict)), None)
    spec = spec if header is None else header.get("spec")
    return header, {line["case"]: line for line in lines if line.get("spec") == spec and _is_record(line)}


def options_of(kind: str, config: Mapping[str, Any], models: Sequence[Any], **others: Any) -> dict[str, Any]:
    """What results depend on: the configuration but for what only changes the speed, the weights, and `others`.

    Args:
        kind: of the run.
        config: its resolved configuration.
        models: the `ModelInfo` of each model.
        others: more that results depend on.
    """
    return {"kind": kind, **{name: value for name, value in config.items() if name not in MAY_CHANGE},
            "model": [f"{info.name} {info.weights_sha256[:12]}".strip() for info in models], **others}


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object of a line; None for one that was cut short by a kill, or damaged."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_record(line: Mapping[str, Any]) -> bool:
    """Whether a line has all that a finished case has."""
    kinds = {"case": str, "images": list, "stamp": list, "files": list, "result": dict}
    return all(isinstance(line.get(name), kind) for name, kind in kinds.items())


def _absolute(case: FoundCase) -> list[str]:
    return [os.path.abspath(path) for path in case.images]  # noqa: PTH100 - links stay as they are


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON."""
    return json.loads(json.dumps(options))
