"""Run kind "segment": label maps for images.

inputs: ``model`` (name or path), ``images`` (files, folders, patterns; a list within the list is a multi-channel case),
``out`` (folder). Writes ``OUT/<path without extension>.<format>``, ``OUT/summary.csv`` and the run's ``result.json``.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medmae.config import from_json
from medmae.errors import BadInput
from medmae.files import write_json, write_text
from medmae.inference.case_loop import CaseFailure, for_each_case, raise_failures
from medmae.inference.config import SegmentConfig
from medmae.inference.segmenter import Segmenter
from medmae.inference.sliding_window import OnProgress
from medmae.models import ModelInfo
from medmae.run_folder import RunFolder
from medmae.volumes import Volume, find_images, read_image
from medmae.volumes.segments import Segment

COLUMNS = ("image", "output", "label", "value", "voxels", "ml", "seconds", "error")


@dataclass(frozen=True)
class FoundCase:
    """Images of one case (one a channel) and the name of its output, without extension."""

    images: tuple[Path, ...]
    output_name: str


def execute(run: RunFolder) -> None:
    """Segment the images that the run names.

    Raises:
        BadInput: the specification, the model or every image is unusable; nothing is written then.
        PartialFailure: some images failed; the others are done.
        Stopped: a stop was asked for; finished images are kept.
    """
    config = from_json(SegmentConfig, run.spec["config"], "configuration of segment")
    inputs = required_inputs(run, ("model", "images", "out"))
    out = Path(inputs["out"])
    cases = find_cases(inputs["images"])
    segmenter = Segmenter(inputs["model"], device=config.device, precision=config.precision, overlap=config.overlap,
                          batch=config.batch)
    results: list[dict[str, Any]] = []

    def work(index: int, on_progress: OnProgress) -> None:
        results.append(_segment(run, cases[index], segmenter, config, out, on_progress))

    failures: list[CaseFailure] = []
    try:
        for_each_case(run, "segment", [str(case.images[0]) for case in cases], work, failures)
    finally:
        if results:
            write_text(out / "summary.csv", _summary(results, failures))
        write_json(run.path / "result.json", {"task": "segmentation", "model": segmenter.info.name, "out": str(out),
                                              "cases": results, "failed": failures_to_json(failures)})
    raise_failures(failures, len(cases))


def required_inputs(run: RunFolder, names: Sequence[str]) -> dict[str, Any]:
    """The inputs of the run.

    Raises:
        BadInput: one of `names` is missing.
    """
    inputs = run.spec["inputs"]
    missing = [name for name in names if not inputs.get(name)]
    if missing:
        raise BadInput(f"The run {run.path} does not name its {', '.join(missing)}. Start it again with them.")
    return inputs


def find_cases(images: Sequence[str | Sequence[str]]) -> list[FoundCase]:
    """Cases of the images named: patterns give one case a file, a list within the list one multi-channel case.

    Raises:
        BadInput: nothing is found, or an element of a multi-channel case is not exactly one image.
    """
    cases: list[FoundCase] = []
    single = [str(entry) for entry in images if isinstance(entry, (str, Path))]
    if single or not images:
        cases += [FoundCase((found.path,), found.output_name) for found in find_images(single)]
    for entry in images:
        if isinstance(entry, (str, Path)):
            continue
        channels = [find_images([channel]) for channel in entry]
        if any(len(found) != 1 for found in channels):
            raise BadInput("Each channel of a multi-channel case must be one image, which does not hold for "
                           f"{', '.join(map(str, entry))}.")
        cases.append(FoundCase(tuple(found[0].path for found in channels), channels[0][0].output_name))
    return cases


def segments_of(info: ModelInfo, values: np.ndarray) -> list[Segment]:
    """The model's foreground labels as segments for label files; `values` holds the stored value of each class."""
    return [Segment(name=str(label["name"]), value=int(value), color=tuple(label["color"]),
                    terminology=label.get("terminology"))
            for label, value in zip(info.labels[1:], values[1:], strict=True) if value != values[0] and value > 0]


def label_sizes(labels: np.ndarray, image: Volume, info: ModelInfo) -> dict[str, dict[str, Any]]:
    """Voxels and millilitres (None where the spacing is unknown) of each foreground label."""
    values, counts = np.unique(labels, return_counts=True)
    voxels = dict(zip(values.tolist(), counts.tolist(), strict=True))
    voxel_ml = image.geometry.voxel_volume_ml if image.spacing_known else None
    sizes: dict[str, dict[str, Any]] = {}
    for label in info.labels[1:]:
        count = voxels.get(int(label["value"]), 0)
        sizes[str(label["name"])] = {"value": int(label["value"]), "voxels": count,
                                     "ml": None if voxel_ml is None else round(count * voxel_ml, 6)}
    return sizes


def failures_to_json(failures: Sequence[CaseFailure]) -> list[dict[str, str]]:
    """Failed cases as they stand in ``result.json``."""
    return [{"image": failure.case, "reason": failure.reason} for failure in failures]


def table_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV text; None and missing values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _segment(run: RunFolder, case: FoundCase, segmenter: Segmenter, config: SegmentConfig, out: Path,
             on_progress: OnProgress) -> dict[str, Any]:
    from medmae.volumes import write_label

    started = time.monotonic()
    images = [read_image(path, frame=config.frame) for path in case.images]
    labels = segmenter.segment(images, on_progress=on_progress, should_stop=lambda: run.stop_requested)
    output = out / f"{case.output_name}.{config.format}"
    output.parent.mkdir(parents=True, exist_ok=True)
    write_label(output, labels, images[0].geometry, segments_of(segmenter.info, segmenter.values), config.format)
    return {"image": str(case.images[0]), "output": str(output), "seconds": round(time.monotonic() - started, 3),
            "labels": label_sizes(labels, images[0], segmenter.info)}


def _summary(results: Sequence[Mapping[str, Any]], failures: Sequence[CaseFailure]) -> str:
    rows: list[dict[str, Any]] = []
    for result in results:
        shared = {name: result[name] for name in ("image", "output", "seconds")}
        rows += [{**shared, "label": name, **size} for name, size in result["labels"].items()]
    rows += [{"image": failure.case, "error": failure.reason} for failure in failures]
    return table_text(COLUMNS, rows)
