"""Reading ``dataset.json``: every problem is collected, then told in one message."""

from __future__ import annotations

import difflib
import json
import posixpath
from collections import Counter
from pathlib import Path
from typing import Any

from medmae.datasets.dataset import Case, ClassValue, Dataset, Task
from medmae.datasets.labels import dicom_code, parse_labels, parse_looks, parse_modalities
from medmae.datasets.problems import raise_problems
from medmae.errors import BadInput
from medmae.files import read_json
from medmae.volumes import output_name

MEANINGFUL_KEYS = ("name", "task", "labels", "modality", "channel_names", "subsets", "draws", "looks")
USUAL_LISTS = ("training", "validation", "test", "unlabeled")
UNKNOWN_MODALITY = "OT"  # DICOM's code for "other"; intensities are then scaled robustly, image by image
ITEM_KEYS = ("image", "label", "subject", "id", "modality")


def parse_dataset(path: Path) -> Dataset:
    """Parse the file at `path`; see ``load_dataset``."""
    path = _file(path).absolute()
    data = read_json(path, "dataset file")
    problems: list[str] = []
    if not isinstance(data, dict):
        raise BadInput(f"The dataset file {path} holds no JSON object. It needs at least 'labels' and 'training'.")
    problems += _repeated_keys(path)
    raw_lists = _raw_lists(data, problems)
    items = {key: _items(key, values, problems) for key, values in raw_lists.items()}
    label_map = parse_labels(data.get("labels"), None, [])
    task = _task(data, items, {*label_map, *map(str, label_map.values())}, problems)
    labels = parse_labels(data.get("labels"), task, problems)
    channel_names, modalities = parse_modalities(data, problems)
    cases = _cases(path.parent, items, task, labels, problems)
    if not {"modality", "channel_names"} & set(data):
        files = max((len(case.images) for found in cases.values() for case in found), default=1)
        channel_names = modalities = (UNKNOWN_MODALITY,) * files
    _check_channels(cases, modalities, problems)
    _check_crossing(cases, problems)
    subsets, subset_ids = _subsets(data.get("subsets", {}), items, cases, problems)
    draws = _draws(data.get("draws", {}), cases.get("training", []), problems)
    looks = parse_looks(data.get("looks", {}), labels, problems)
    name = data.get("name", path.parent.name)
    if not isinstance(name, str):
        problems.append(f"'name' is {name!r}, not text.")
    raise_problems(problems, f"The dataset file {path}", "Correct the file and start again.")
    return Dataset(path, name, task, modalities, labels, {key: tuple(found) for key, found in cases.items()}, subsets,
                   channel_names, draws, looks, subset_ids)


def _file(path: Path) -> Path:
    if path.is_dir():
        inside = path / "dataset.json"
        if not inside.is_file():
            others = ", ".join(sorted(file.name for file in path.glob("*.json"))) or "none"
            raise BadInput(f"The folder {path} holds no dataset.json (JSON files there: {others}). "
                           "Name the dataset file itself.")
        return inside
    return path


def _repeated_keys(path: Path) -> list[str]:
    # JSON keeps the last of two equal keys without a word, which would lose a whole list of cases.
    repeated: list[str] = []

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return dict(pairs)

    json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=check)
    return [f"The key '{key}' stands twice in the same object." for key in dict.fromkeys(repeated)]


def _raw_lists(data: dict[str, Any], problems: list[str]) -> dict[str, list[Any]]:
    lists: dict[str, list[Any]] = {}
    for key, value in data.items():
        if key in MEANINGFUL_KEYS:
            continue
        name = "unlabeled" if key == "unlabelled" else key
        if isinstance(value, list) and (name in USUAL_LISTS or all(_looks_like_item(item) for item in value)):
            if name in lists:
                problems.append("Both 'unlabeled' and 'unlabelled' are given; one of them must go.")
            lists[name] = value
        elif key in USUAL_LISTS:
            problems.append(f"'{key}' must be a list of cases, but it is {_short(value)}.")
        else:
            meant = difflib.get_close_matches(key, (*MEANINGFUL_KEYS, *USUAL_LISTS), n=1, cutoff=0.75)
            if meant:
                problems.append(f"The key '{key}' is unknown; probably '{meant[0]}' is meant.")
    if not lists:
        problems.append("There is no list of cases ('training', 'validation', 'test', 'unlabeled' or another name).")
    return lists


def _looks_like_item(item: Any) -> bool:
    return (isinstance(item, dict) and "image" in item) or isinstance(item, str)


def _items(key: str, values: list[Any], problems: list[str]) -> list[dict[str, Any]]:
    items = []
    for number, value in enumerate(values, start=1):
        where = f"{key}, item {number}"
        item = {"image": value} if isinstance(value, str) else value
        if not isinstance(item, dict):
            problems.append(f"{where}: {_short(value)} is neither an object nor a path.")
            continue
        for unknown in set(item) - set(ITEM_KEYS):
            meant = difflib.get_close_matches(unknown, ITEM_KEYS[:3], n=1, cutoff=0.8)
            if meant:
                problems.append(f"{where}: the key '{unknown}' is unknown; probably '{meant[0]}' is meant.")
        images = item.get("image")
        images = [images] if isinstance(images, str) else images
        if not isinstance(images, list) or not images or not all(isinstance(i, str) and i.strip() for i in images):
            problems.append(f"{where}: 'image' must be a path or a list of paths, but it is {_short(images)}.")
            continue
        if "modality" in item and not (isinstance(item["modality"], str) and item["modality"].strip()
                                       and len(images) == 1):
            problems.append(f"{where}: 'modality' must be the DICOM code of its one image, for instance \"CT\", but it "
                            f"is {_short(item['modality'])} for {len(images)} image file{'s' * (len(images) > 1)}.")
        for optional in ("subject", "id"):
            given = item.get(optional)
            if given is not None and (isinstance(given, bool) or not isinstance(given, (str, int)) or given == ""):
                problems.append(f"{where}: '{optional}' must be text, but it is {_short(given)}.")
        parts = str(item.get("id") or "x").replace("\\", "/").split("/")
        if {"", ".", ".."} & set(parts) or ":" in parts[0]:  # results are written to OUT/<id>
            problems.append(f"{where}: the id {_short(item['id'])} must be a plain name, or names joined by '/'.")
        items.append({**item, "image": images, "where": f"{where} ({images[0]})"})
    return items


def _task(data: dict[str, Any], items: dict[str, list[dict[str, Any]]], classes: set[str],
          problems: list[str]) -> Task | None:
    task = data.get("task")
    if task in ("segmentation", "classification"):
        return task
    if task is not None:
        problems.append(f"'task' is {_short(task)}; it must be 'segmentation' or 'classification'.")
        return None
    given = [item["label"] for found in items.values() for item in found if item.get("label") is not None]
    if not given:
        return None
    # A text is a class when the label map has it as a name or a value, otherwise the path of a label map.
    paths = sum(isinstance(label, str) and label not in classes for label in given)
    if 0 < paths < len(given):
        problems.append("Some labels are paths and others are classes, and 'task' is not given. "
                        "Say \"task\": \"segmentation\" or \"classification\".")
    return "segmentation" if paths else "classification"


def _cases(folder: Path, items: dict[str, list[dict[str, Any]]], task: Task | None, labels: dict[str, int],
           problems: list[str]) -> dict[str, list[Case]]:
    identifiers = _identifiers(items)
    cases: dict[str, list[Case]] = {}
    for key, found in items.items():
        cases[key] = []
        for item in found:
            label, class_value = _label_of(item, folder, task, labels, problems)
            identifier = str(item["id"]) if item.get("id") is not None else identifiers[_text(item["image"][0])]
            subject = str(item["subject"]) if item.get("subject") is not None else identifier
            images = tuple(folder / image for image in item["image"])
            stated = item.get("modality")
            modality = dicom_code(stated) if isinstance(stated, str) else ""
            cases[key].append(Case(identifier, images, label, class_value, subject, modality))
        for repeated, count in Counter(case.id for case in cases[key]).items():
            if count > 1:
                problems.append(f"{key}: the case '{repeated}' stands {count} times in the list.")
    images_of: dict[str, tuple[Path, ...]] = {}
    for case in (case for found in cases.values() for case in found):
        if images_of.setdefault(case.id, case.images) != case.images:
            problems.append(f"Two different images have the same id '{case.id}'.")
    return cases


def _label_of(item: dict[str, Any], folder: Path, task: Task | None, labels: dict[str, int],
              problems: list[str]) -> tuple[Path | None, ClassValue | None]:
    label, where = item.get("label"), item["where"]
    if label is None or task is None:
        return None, None
    if task == "segmentation":
        if isinstance(label, str) and label.strip():
            return folder / label, None
        problems.append(f"{where}: the label {_short(label)} is not the path of a label map.")
        return None, None
    several = isinstance(label, list)
    values = [_class_value(one, labels, where, problems) for one in (label if several else [label])]
    if any(value is None for value in values):
        return None, None
    return None, tuple(sorted({value for value in values if value is not None})) if several else values[0]


def _class_value(label: Any, labels: dict[str, int], where: str, problems: list[str]) -> int | None:
    if isinstance(label, str) and label in labels:
        return labels[label]
    if isinstance(label, str) and label in map(str, labels.values()):  # "1", as spreadsheets write it
        return int(label)
    if isinstance(label, int) and not isinstance(label, bool) and label in labels.values():
        return label
    if labels:  # without a label map its absence is the one problem to report
        known = ", ".join(f"{name} ({value})" for name, value in labels.items())
        problems.append(f"{where}: the class {_short(label)} is not in 'labels' ({known}).")
    return None


def _identifiers(items: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Image path as written to a case id: without extension, unless two images would then share it."""
    paths = dict.fromkeys(_text(item["image"][0]) for found in items.values() for item in found)
    stems = {path: output_name(path) for path in paths}
    shared = Counter(stems.values())
    return {path: stem if shared[stem] == 1 else _without_anchor(path) for path, stem in stems.items()}


def _text(path: str) -> str:
    return posixpath.normpath(path.strip())


def _without_anchor(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))


def _check_channels(cases: dict[str, list[Case]], modalities: tuple[str, ...], problems: list[str]) -> None:
    counts = {len(case.images) for found in cases.values() for case in found}
    if len(counts) > 1:
        problems.append(f"The cases have different numbers of image files ({', '.join(map(str, sorted(counts)))}).")
    elif counts and len(modalities) > 1 and max(counts) not in (1, len(modalities)):
        problems.append(f"Each case has {max(counts)} image files, but {len(modalities)} channels are declared.")


def _role(key: str) -> str:
    """Which side of a split a list stands on; training data and unlabelled images may share subjects."""
    if key.startswith(("train", "unlabel")):
        return "training"
    return "validation" if key.startswith("val") else "test"


def _check_crossing(cases: dict[str, list[Case]], problems: list[str]) -> None:
    for what, members in (("subject", lambda case: [case.subject]), ("image", lambda case: map(str, case.images))):
        seen: dict[str, dict[str, str]] = {}
        for key, found in cases.items():
            for case in found:
                for member in members(case):
                    seen.setdefault(member, {}).setdefault(_role(key), key)
        for member, roles in seen.items():
            if len(roles) > 1:
                problems.append(f"The {what} '{member}' is in {' and in '.join(roles.values())}; scores would be too "
                                "good. A subject must stay on one side of a split.")


def _subsets(raw: Any, items: dict[str, list[dict[str, Any]]], cases: dict[str, list[Case]],
             problems: list[str]) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    if not isinstance(raw, dict):
        problems.append("'subsets' must be an object of lists of image paths.")
        return {}, {}
    known: dict[str, str] = {}
    for found, made in zip(items.values(), cases.values(), strict=True):
        for item, case in zip(found, made, strict=True):
            known.setdefault(case.id, case.id)
            for image in item["image"]:
                known[_text(image)] = case.id
    texts: dict[str, tuple[str, ...]] = {}
    identifiers: dict[str, tuple[str, ...]] = {}
    for name, members in raw.items():
        if not isinstance(members, list) or not members or not all(isinstance(member, str) for member in members):
            problems.append(f"The subset '{name}' must be a list of image paths.")
            continue
        unknown = [member for member in members if _text(member) not in known]
        problems += [f"The subset '{name}' names {member}, which is in no list." for member in unknown]
        texts[name] = tuple(members)
        identifiers[name] = tuple(dict.fromkeys(known[_text(m)] for m in members if m not in unknown))
    return texts, identifiers


def _draws(raw: Any, training: list[Case], problems: list[str]) -> dict[str, tuple[str, ...]]:
    known = {case.id for case in training}
    if isinstance(raw, dict) and all(isinstance(ids, list) and len(set(map(str, ids))) == len(ids)
                                     and known.issuperset(map(str, ids)) for ids in raw.values()):
        return {seed: tuple(map(str, ids)) for seed, ids in raw.items()}
    problems.append("'draws' must be an object of seeds, each with ids of training cases in the order of drawing.")
    return {}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
