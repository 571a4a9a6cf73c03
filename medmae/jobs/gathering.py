"""What a run takes along, as it is found: files under neutral names, and whose they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medmae.datasets import Case, Dataset
from medmae.datasets.problems import raise_problems
from medmae.datasets.validation import REMEDY
from medmae.files import write_json
from medmae.jobs.neutral_images import SUFFIX, Staging, Wanted
from medmae.jobs.upload import Blob, Report, Upload
from medmae.models import resolve_model
from medmae.models.model_files import INFO, WEIGHTS, ModelFiles

CASES_FILE = "cases.json"  # in the mirror: whose each neutral name is; it never leaves
INPUTS, OUTPUTS = "inputs", "outputs"
DATASET_NAME = "dataset"


class Gathering:
    """The files of an upload, and the record of what they were.

    Attributes:
        cases: neutral id to {images, label, name, id, subject, output}, as far as it has them.
        subjects: neutral name to the subject's own.
        unreadable: {image, reason} of images that cannot be used and stay at home.
    """

    def __init__(self, report: Report) -> None:
        self.staging = Staging()
        self.report = report
        self.files: dict[str, Blob] = {}
        self.cases: dict[str, dict[str, Any]] = {}
        self.subjects: dict[str, str] = {}
        self.unreadable: list[dict[str, str]] = []
        self._neutral_subjects: dict[str, str] = {}

    def upload(self, mirror: Path, spec: dict[str, Any], **record: Any) -> Upload:
        """The finished upload; `record` is what else ``cases.json`` says."""
        write_json(mirror / CASES_FILE, {"cases": self.cases, "subjects": self.subjects, "unreadable": self.unreadable,
                                         **record})
        (mirror / CASES_FILE).chmod(0o600)
        return Upload(spec, self.files, self.staging, self.staging.release)

    def subject(self, own: str) -> str:
        """The neutral name of a subject."""
        if own not in self._neutral_subjects:
            neutral = f"subject-{len(self._neutral_subjects) + 1:04d}"
            self._neutral_subjects[own] = neutral
            self.subjects[neutral] = own
        return self._neutral_subjects[own]

    def add_json(self, name: str, data: Any) -> str:
        """A small file below ``inputs``; returns its path in the run folder."""
        return self._add(f"{INPUTS}/{name}", self.staging.add_bytes(json.dumps(data).encode(), ".json"))

    def add_blob(self, name: str, blob: Blob) -> str:
        """A blob below ``inputs``; returns its path in the run folder."""
        return self._add(f"{INPUTS}/{name}", blob)

    def _add(self, path: str, blob: Blob) -> str:
        self.files[path] = blob
        return path

    def model(self, name: str, reference: str) -> str:
        """A model that the run reads; its weights are verified before they travel. Its picture stays here: it shows a
        patient, and nothing computes with it. So does the name of the data set that it has learned from.

        Raises:
            BadInput: there is none, or it is damaged.
        """
        files = ModelFiles(resolve_model(reference))
        weights = files.verified_weights(files.info())
        folder = f"models/{name}"
        self.add_blob(f"{folder}/{WEIGHTS}", self.staging.add_file(weights) if isinstance(weights, Path) else
                      self.staging.add_bytes(weights, ".safetensors"))
        self.add_blob(f"{folder}/{INFO}", self.staging.add_bytes(_without_dataset(files.read(INFO)), Path(INFO).suffix))
        return f"{INPUTS}/{folder}"

    def models(self, references: Any) -> Any:
        """One model, or several."""
        if isinstance(references, str):
            return self.model("1", references)
        return [self.model(str(number), one) for number, one in enumerate(references, start=1)]

    def dataset(self, dataset: Dataset, lists: Mapping[str, Sequence[Case]], *,
                withheld: Iterable[Case] = (), further: Mapping[str, Any] | None = None) -> str:
        """A dataset file with these lists alone, and the images and label maps of their cases.

        Args:
            dataset: says what labels and channels mean.
            lists: cases under neutral names of lists.
            withheld: cases of which only the class is told, in the list "training"; nothing reads their images.
            further: more for the dataset file, in which cases are called by `neutral_id`.

        Raises:
            BadInput: some files cannot be read; the message lists all problems.
        """
        cases = list({case.id: case for cases in lists.values() for case in cases}.values())
        names = dict(zip((case.id for case in cases), neutral_ids(len(cases)), strict=True))
        self._convert_cases(dataset, [(names[case.id], case) for case in cases])
        items = {key: [self._item(names[case.id], case) for case in cases] for key, cases in lists.items()}
        items.setdefault("training", []) if withheld else None
        for number, case in enumerate(withheld, start=1):
            items["training"].append({"image": f"images/withheld-{number:04d}{SUFFIX}",
                                      "label": _class_label(case), "subject": f"withheld-{number:04d}"})
        self.cases.update({names[case.id]: record_of(dataset, case) for case in cases})
        for key, value in (further or {}).items():
            items[key] = {name: [names[each] for each in ids] for name, ids in value.items()}  # type: ignore[assignment]
        return self.add_json("dataset.json", {**described(dataset), **items})

    def _convert_cases(self, dataset: Dataset, cases: Sequence[tuple[str, Case]]) -> None:
        wanted, places = [], []
        for name, case in cases:
            for number, image in enumerate(case.images):
                wanted.append(Wanted(str(image)))
                places.append(image_place(name, number))
            if case.label is not None:
                wanted.append(Wanted(str(case.label)))
                places.append(f"labels/{name}{SUFFIX}")
        problems = []
        for place, parts in zip(places, self.staging.convert(wanted, self.report), strict=True):
            if parts[0].blob is None:
                problems.append(parts[0].problem)
            else:
                self.add_blob(place, parts[0].blob)
        raise_problems(problems, f"The dataset {dataset.path}", REMEDY)

    def _item(self, name: str, case: Case) -> dict[str, Any]:
        images = [image_place(name, number) for number in range(len(case.images))]
        item: dict[str, Any] = {"id": name, "image": images if len(images) > 1 else images[0],
                                "subject": self.subject(case.subject)}
        if case.label is not None:
            item["label"] = f"labels/{name}{SUFFIX}"
        elif case.class_value is not None:
            item["label"] = _class_label(case)
        return item | ({"modality": case.modality} if case.modality else {})


def _without_dataset(info: bytes) -> bytes:
    """The description of a model, as JSON, with the name that data sets have on targets."""
    content = json.loads(info)
    if "dataset" not in content.get("training", {}):
        return info
    return json.dumps(content | {"training": {**content["training"], "dataset": DATASET_NAME}}, indent=1).encode()


def described(dataset: Dataset) -> dict[str, Any]:
    """What a dataset file says of all its cases, without its name."""
    names = dataset.channel_names or dataset.modalities
    return {"name": DATASET_NAME, "channel_names": {str(number): name for number, name in enumerate(names)},
            **({"task": dataset.task, "labels": dataset.labels} if dataset.task else {}),
            **({"looks": dataset.looks} if dataset.looks else {})}


def neutral_ids(count: int) -> list[str]:
    """Names whose alphabetical order is that of the cases."""
    return [f"case-{number:0{max(4, len(str(count)))}d}" for number in range(1, count + 1)]


def image_place(name: str, channel: int = 0) -> str:
    """Where an image of a case lies below ``inputs``."""
    return f"images/{name}{f'-{channel + 1}' if channel else ''}{SUFFIX}"


def _class_label(case: Case) -> Any:
    return list(case.class_value) if isinstance(case.class_value, tuple) else case.class_value


def record_of(dataset: Dataset, case: Case) -> dict[str, Any]:
    """Whose a neutral name is, for ``cases.json``."""
    folder, first = dataset.path.parent, case.images[0]
    return {"images": [str(path) for path in case.images], "label": None if case.label is None else str(case.label),
            "id": case.id, "subject": case.subject, "output": case.id,
            "name": first.relative_to(folder).as_posix() if first.is_relative_to(folder) else str(first)}
