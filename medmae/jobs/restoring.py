"""Own names back into what was fetched: results lie and are called where a run here would have put them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmae.files import PARTIAL, atomic_path, read_json, remove_partial, write_json, write_text
from medmae.jobs.gathering import CASES_FILE, DATASET_NAME, OUTPUTS

_OUTPUT = re.compile(rf"(?:[^\n]*/)?{OUTPUTS}/(?:[^\n]*/)?(case-\d{{4,}})(\.[^\n/]*)?")
_PLACE = re.compile(r"(?:/[^\s:,;'\"()]*/)?(?:inputs/)?(images|labels|base/inputs/images)/"
                    r"(case-\d{4,}(?:-image-\d+)?)(?:-(\d+))?(?:\.seg)?\.nrrd")
_OF_APPLYING = {"image": "image", "error": "reason"}
_FAILURES = {"segment": _OF_APPLYING, "classify": _OF_APPLYING, "rank": _OF_APPLYING,
             "pretrain": {"file": "image", "reason": "reason"}}
_RESULTS = (".json", ".csv", ".jsonl")


def restore_names(mirror: Path, folder: Path, out: Path | None = None) -> list[Path]:
    """Give the results in `folder` the names that they would have if the run had been here.

    Files of a case are moved to where they belong in `folder`; names within tables and JSON files are replaced. Images
    that could not be read, and so never travelled, are added to the failures. Doing it again changes nothing.

    Args:
        mirror: of the job; has ``cases.json``, and ``job.json`` that knows the run folder there.
        folder: what was fetched: a run folder, or the outputs of a run.
        out: what `folder` will be called in the results; default: `folder`.

    Returns:
        The files of cases, where they are now.
    """
    record = read_json(mirror / CASES_FILE, "record of the cases")
    names = _names_of(mirror, record, folder if out is None else out)
    remove_partial(folder)
    moved: dict[Path, Path] = {}
    for file in sorted(path for path in folder.rglob("case-*") if path.is_file()):
        neutral, dot, rest = file.name.partition(".")
        case = record["cases"].get(neutral)
        if case and case.get("output"):
            place = _outputs_root(file, folder) / f"{case['output']}{dot}{rest}"
            moved[file.replace(file.with_name(f"{PARTIAL}{file.name}"))] = place
    for file, place in moved.items():  # not before, because own names may be neutral ones of other cases
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)
        _remove_empty(file.parent, folder)
    skipped = folder / "corpus" / "skipped.csv"
    if record.get("kind") == "pretrain" and record["unreadable"] and not skipped.exists():
        write_text(skipped, "file,reason\n")
    for file in sorted(path for path in folder.rglob("*") if path.suffix in _RESULTS and path.is_file()):
        _rewrite(file, names, str(record.get("kind")))
    return list(moved.values())


def own_names_in(mirror: Path, text: str) -> str:
    """What a run says, with own names instead of neutral ones; as it is where the mirror does not know them."""
    if not (mirror / CASES_FILE).is_file():
        return text
    return _names_of(mirror, read_json(mirror / CASES_FILE, "record of the cases"), mirror / OUTPUTS).text(text)


def _names_of(mirror: Path, record: Mapping[str, Any], out: Path) -> _Names:
    job = read_json(mirror / "job.json") if (mirror / "job.json").is_file() else {}
    return _Names(record, out, job.get("folder") or "")


class _Names:
    def __init__(self, record: Mapping[str, Any], out: Path, run_there: str) -> None:
        self.run_there = f"{run_there}/"
        self.cases, self.subjects = record["cases"], record["subjects"]
        self.dataset, self.out = record.get("dataset"), out
        self.unreadable = record["unreadable"]

    def text(self, text: str) -> str:
        """A text with own names instead of neutral ones."""
        text = text.replace(self.run_there, "") if self.run_there != "/" else text
        if text in self.cases and "id" in self.cases[text]:
            return str(self.cases[text]["id"])
        if text in self.subjects:
            return str(self.subjects[text])
        output = _OUTPUT.fullmatch(text)
        if output and self.cases.get(output[1], {}).get("output"):
            return str(self.out / f"{self.cases[output[1]]['output']}{output[2] or ''}")
        place = _PLACE.fullmatch(text)
        if place and text.startswith(f"{place[1]}/") and "name" in self.cases.get(place[2], {}):
            return str(self.cases[place[2]]["name"])
        return _PLACE.sub(self._own_place, text)

    def _own_place(self, found: re.Match[str]) -> str:
        case = self.cases.get(found[2])
        if case is None:
            return found[0]
        if found[1] == "labels":
            return str(case.get("label") or found[0])
        channel = int(found[3] or 1) - 1
        return str(case["images"][channel]) if channel < len(case["images"]) else found[0]

    def json(self, value: Any) -> Any:
        """JSON data with own names instead of neutral ones."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.json(one) for one in value]
        if isinstance(value, dict):
            return {key: self.json(one) for key, one in value.items()}
        return value


def _rewrite(file: Path, names: _Names, kind: str) -> None:
    if file.suffix == ".json":
        before = read_json(file)
        data = _described(names.json(before), names)
        if data != before:
            write_json(file, data)
    elif file.suffix == ".csv":
        _rewrite_table(file, names, _FAILURES.get(kind, {}))
    else:
        lines = file.read_text(encoding="utf-8").splitlines()
        changed = [json.dumps(names.json(json.loads(line))) for line in lines]
        if changed != lines:
            write_text(file, "".join(f"{line}\n" for line in changed))


def _described(data: Any, names: _Names) -> Any:
    """A result or a model's description with what only this computer knows."""
    if not isinstance(data, dict):
        return data
    if isinstance(data.get("failed"), list) and "cases" in data:
        data["failed"] += [one for one in names.unreadable if one not in data["failed"]]
    if data.get("out") == OUTPUTS:
        data["out"] = str(names.out)
    training = data.get("training")
    if names.dataset and isinstance(training, dict) and training.get("dataset") == DATASET_NAME:
        training["dataset"] = names.dataset
    return data


def _rewrite_table(file: Path, names: _Names, columns: Mapping[str, str]) -> None:
    """`columns`: of tables that list failures too, what stands in them."""
    with open(file, encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    changed = [[names.text(cell) for cell in row] for row in rows]
    if columns and changed and set(columns) <= set(changed[0]):
        for one in names.unreadable:
            row = [one[columns[column]] if column in columns else "" for column in changed[0]]
            changed += [row] if row not in changed else []
    if changed != rows:
        with atomic_path(file) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(changed)


def _outputs_root(file: Path, folder: Path) -> Path:
    """The folder of outputs that holds `file`: the one called so within `folder`, or `folder` itself."""
    parents = [parent for parent in file.parents if parent.is_relative_to(folder)]
    return next((parent for parent in parents if parent.name == OUTPUTS), folder)


def _remove_empty(folder: Path, until: Path) -> None:
    while folder != until and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
