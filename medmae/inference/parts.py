"""A batch in parts: processes that each do a share of its cases, into one folder of results.

Each part keeps its own books in ``OUT/parts/03-of-08/``: ``cases.json`` (which cases it has), ``manifest.jsonl`` and
``summary.csv``; the results lie at their usual places in ``OUT``. `merge_parts` makes the books of the whole from them.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from medmae.errors import BadInput
from medmae.files import read_json, remove_partial, write_json, write_text
from medmae.folder_lock import has_writer, only_writer
from medmae.inference.cases import FoundCase
from medmae.inference.manifest import MANIFEST, Manifest, read_manifest
from medmae.inference.summary import SUMMARY, summary_text

Item = TypeVar("Item")
CASES = "cases.json"


@dataclass(frozen=True)
class Share:
    """The cases number `index`, `index` + `count`, ... of a batch, counted from 0."""

    index: int
    count: int

    @classmethod
    def of(cls, value: Any) -> Share | None:
        """The input "share" of a run: [index, count], or None.

        Raises:
            BadInput: it is neither.
        """
        if value is None:
            return None
        if not (isinstance(value, Sequence) and len(value) == 2 and all(type(number) is int for number in value)
                and 0 <= value[0] < value[1]):
            raise BadInput(f"{value!r} is no share of the cases. Give [index, count], for example [0, 8] to [7, 8] for "
                           "eight processes.")
        return cls(*value)

    @classmethod
    def parse(cls, text: str) -> Share:
        """A share as people write it: "0/8".

        Raises:
            BadInput: it is written otherwise.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if match is None or not int(match[1]) < int(match[2]):
            raise BadInput(f"'{text}' is no share of the cases. Write I/K, for example 0/8 to 7/8 for eight processes.")
        return cls(int(match[1]), int(match[2]))

    def of_all(self, items: Sequence[Item]) -> list[Item]:
        """Those of `items` that belong to the share."""
        return list(items[self.index::self.count])

    def folder(self, out: Path) -> Path:
        """Where the books of the part lie."""
        digits = max(2, len(str(self.count)))
        return out / "parts" / f"{self.index:0{digits}d}-of-{self.count:0{digits}d}"


def refuse_other_division(out: Path, share: Share, cases: Sequence[FoundCase]) -> None:
    """All parts in a folder divide the same cases alike; `cases`: those of all parts.

    Raises:
        BadInput: others in `out` do it otherwise.
    """
    for part in _parts_in(out):
        if part["share"][1] != share.count:
            raise BadInput(f"The cases in {out} are divided into {part['share'][1]} parts, not {share.count}. Repeat "
                           "that number, or choose another --out.")
        if part["all_cases"] != _fingerprint(cases):
            raise BadInput(f"The images are not those that the parts in {out} were begun with, so their numbers do not "
                           "hold. When all parts have ended, the same command with --resume and without a share does "
                           "what is new; or choose another --out.")


def refuse_other_options(out: Path, manifest: Manifest) -> None:
    """All parts in a folder are made with the same options.

    Raises:
        BadInput: others in `out` have begun with others.
    """
    for part in _parts_in(out):
        header, _ = read_manifest(part["folder"] / MANIFEST)
        if header is not None:
            manifest.refuse_other(header["options"])


def note_cases(out: Path, share: Share, cases: Sequence[FoundCase]) -> None:
    """Write down which of all the `cases` a part has."""
    write_json(share.folder(out) / CASES, {
        "share": [share.index, share.count], "total": len(cases), "all_cases": _fingerprint(cases),
        "cases": [[case.output_name, str(case.images[0])] for case in share.of_all(cases)]})


def merge_parts(out: Path) -> dict[str, Any]:
    """Make ``OUT/summary.csv`` and ``OUT/manifest.jsonl`` of the whole from those of the parts, as often as wanted.

    What the files held besides stays, so that a batch that went on without shares is kept.

    Returns:
        finished, total: numbers of cases.
        failed: "image" and "reason" of each that failed.
        missing: "image" of each that is neither finished nor failed; of parts that were never begun they are not known.
        missing_parts: the numbers of those parts, unless their cases are finished otherwise.

    Raises:
        BadInput: there are no parts, they were made with different options, or another process writes the files.
    """
    with only_writer(out):
        found = merge(out)
    if found is None:
        raise BadInput(f"There are no parts in {out}. Check the path.")
    return found


def merge(out: Path) -> dict[str, Any] | None:
    """`merge_parts` for the process that is the only writer of `out`; None where there are no parts."""
    parts = _parts_in(out)
    if not parts:
        return None
    options, records = _joined(out, parts)
    numbered = sorted((part["share"][0] + place * part["share"][1], name, image)
                      for part in parts for place, (name, image) in enumerate(part["cases"]))
    reasons = {row["image"]: row["error"] for part in parts for row in _failures_in(part["folder"])}
    unfinished = [image for _, name, image in numbered if name not in records]
    failed = [{"image": image, "reason": reasons[image]} for image in unfinished if image in reasons]
    order = {name: number for number, name, _ in numbered}
    ordered = sorted(records.values(), key=lambda record: order.get(record["case"], len(order)))
    if options is not None:
        write_text(out / MANIFEST, "".join(json.dumps(line) + "\n" for line in (options, *ordered)))
    if ordered or failed:
        write_text(out / SUMMARY, summary_text([record["result"] for record in ordered], failed))
    if not is_being_written(out):
        remove_partial(out)
    total, count = parts[0]["total"], parts[0]["share"][1]
    begun = {part["share"][0] for part in parts}
    all_known = len(records) + len(unfinished) >= total  # a run without shares may have done the cases of other parts
    return {"finished": len(records), "total": total, "failed": failed,
            "missing": [{"image": image} for image in unfinished if image not in reasons],
            "missing_parts": [] if all_known else [index for index in range(min(count, total)) if index not in begun]}


def is_being_written(out: Path) -> bool:
    """Whether a part is at work in `out`."""
    return any(has_writer(part["folder"]) for part in _parts_in(out))


def _parts_in(out: Path) -> list[dict[str, Any]]:
    """What each part that was begun noted, with its folder."""
    return [{**read_json(file, "list of the cases of a part"), "folder": file.parent}
            for file in sorted(out.glob(f"parts/*-of-*/{CASES}"))]


def _joined(out: Path, parts: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
    """The first line and the records of all manifests; of two for a case the one that fits its images as they are."""
    first, records = None, dict[str, dict[str, Any]]()
    for folder in (out, *(part["folder"] for part in parts)):
        header, here = read_manifest(folder / MANIFEST)
        if header is not None and first is not None and header["spec"] != first["spec"]:
            raise BadInput(f"The results in {folder} are made with other options than others in {out}. Repeat this "
                           "part with theirs, into another --out.")
        first = first or header
        for name, record in here.items():
            if records.get(name) in (None, record) or _is_current(record):
                records[name] = record
    return first, records


def _is_current(record: Mapping[str, Any]) -> bool:
    case = FoundCase(tuple(Path(image) for image in record["images"]), record["case"])
    return bool(record["stamp"] == case.stamp())


def _failures_in(folder: Path) -> list[dict[str, str]]:
    file = folder / SUMMARY
    if not file.is_file():
        return []
    with open(file, encoding="utf-8", newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["error"]]


def _fingerprint(cases: Sequence[FoundCase]) -> str:
    named = [[case.output_name, *map(str, case.images)] for case in cases]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()
