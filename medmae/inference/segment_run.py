"""Run kind "segment": label maps for images.

inputs: ``model`` (name or path, or a list of them: an ensemble), ``images`` (files, folders, patterns; a list within
the list is a multi-channel case), ``out`` (folder), ``resume`` (go on with what is in ``out``), ``base`` (labels to
keep outside of the region of interest: a file, or a folder with a file for each case), ``share`` (see `parts`). Writes
``OUT/<path without extension>.<format>`` and the other outputs beside it, ``OUT/summary.csv``, ``OUT/manifest.jsonl``
(what is finished) and the run's ``result.json``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medmae.config import from_json, to_json
from medmae.errors import BadInput
from medmae.files import write_json, write_text
from medmae.folder_lock import only_writer
from medmae.inference.base_labels import BaseLabels
from medmae.inference.case_loop import CaseFailure, for_each_case, raise_failures
from medmae.inference.cases import FoundCase, find_cases, sizes_of
from medmae.inference.config import SegmentConfig
from medmae.inference.manifest import Manifest, options_of
from medmae.inference.memory import parse_memory, peak_bytes, reset_peak
from medmae.inference.outputs.components import clean_inside, steps_for
from medmae.inference.outputs.measurements import measure_labels
from medmae.inference.parts import (
    Share,
    is_being_written,
    merge,
    note_cases,
    refuse_other_division,
    refuse_other_options,
)
from medmae.inference.plan import Plan
from medmae.inference.segment_outputs import CaseOutputs
from medmae.inference.segmenter import Segmenter
from medmae.inference.sliding_window import OnProgress
from medmae.inference.stopwatch import Stopwatch
from medmae.inference.summary import SUMMARY, summary_text
from medmae.models import ModelInfo
from medmae.run_folder import RunFolder
from medmae.volumes import Volume, read_image
from medmae.volumes.dicom_seg import refuse_unless_dicom, require_highdicom
from medmae.volumes.region import region_of_box
from medmae.volumes.segments import Segment

log = logging.getLogger(__name__)


def execute(run: RunFolder) -> None:
    """Segment the images that the run names.

    Raises:
        BadInput: the specification, the model or every image is unusable; nothing is written then.
        PartialFailure: some images failed; the others are done.
        Stopped: a stop was asked for; finished images are kept.
    """
    config = from_json(SegmentConfig, run.spec["config"], "configuration of segment")
    inputs = required_inputs(run, ("model", "images", "out"))
    if config.format == "dicom-seg":
        require_highdicom()
    out, share = Path(inputs["out"]), Share.of(inputs.get("share"))
    with only_writer(out if share is None else share.folder(out)):
        if share is None and inputs.get("resume"):
            _take_over_parts(out)
        _segment(run, _Batch(run, config, inputs, share))


def _take_over_parts(out: Path) -> None:
    """What parts have finished is finished.

    Raises:
        BadInput: one of them is still at work.
    """
    if is_being_written(out):
        raise BadInput(f"A part of the cases is still being written into {out}. Wait until all parts have ended, or "
                       "choose another --out.")
    merge(out)


def _segment(run: RunFolder, batch: _Batch) -> None:
    failures: list[CaseFailure] = []
    try:
        for_each_case(run, "segment", [str(case.images[0]) for case in batch.cases], batch.work, failures,
                      sizes=sizes_of(batch.cases), done_before=batch.done_before)
    finally:
        results = [batch.results[index] for index in sorted(batch.results)]
        if results or (failures and batch.share):
            write_text(batch.folder / SUMMARY, summary_text(results, failures_to_json(failures)))
        write_json(run.path / "result.json", {
            "task": "segmentation", "model": batch.segmenter.info.name, "out": str(batch.out), "cases": results,
            "failed": failures_to_json(failures), "models": [one.info.name for one in batch.segmenter.members],
            "finished_before": len(batch.done_before)})
    raise_failures(failures, len(batch.cases))


class _Batch:
    """The cases of a run, and how one of them is done."""

    def __init__(self, run: RunFolder, config: SegmentConfig, inputs: Mapping[str, Any], share: Share | None) -> None:
        self.run = run
        self.config = config
        self.out = Path(inputs["out"])
        self.share = share
        self.folder = self.out if share is None else share.folder(self.out)
        cases = find_cases(inputs["images"], self.out)
        self.cases = cases if share is None else share.of_all(cases)
        if share is not None:
            refuse_other_division(self.out, share, cases)
        self.base = BaseLabels(inputs.get("base"), len(cases), config.roi)
        self.segmenter = segmenter_for(inputs["model"], config)
        base = str(Path(inputs["base"]).absolute()) if inputs.get("base") else None
        infos = [member.info for member in self.segmenter.members]
        options = options_of("segment", to_json(config), infos, base=base, cleaned=infos[0].postprocessing)
        self.manifest = Manifest(self.out, options, resume=bool(inputs.get("resume")), folder=self.folder)
        if share is not None:
            refuse_other_options(self.out, self.manifest)
            note_cases(self.out, share, cases)
            self.manifest.begin()  # so that the whole can go on even where no part finishes a case
        found = {index: self.manifest.finished(case) for index, case in enumerate(self.cases)}
        self.results: dict[int, dict[str, Any]] = {index: result for index, result in found.items() if result}
        self.done_before = set(self.results)
        self.was_told = False

    def work(self, index: int, on_progress: OnProgress) -> None:
        """Segment a case and note its result."""
        case, config, clock = self.cases[index], self.config, Stopwatch()
        reset_peak()
        stamp = case.stamp()
        if config.format == "dicom-seg":
            refuse_unless_dicom(case.images[0])
        images = [read_image(path, frame=config.frame) for path in case.images]
        base = self.base.of(case, images[0].geometry)
        region = None if config.roi is None else region_of_box(config.roi, images[0].geometry)
        clock.lap("read")
        outputs = CaseOutputs(config, self.segmenter.info, self.out / case.output_name)
        planned: list[int] = []  # where no window had to be computed, there is no plan
        labels = self.segmenter.segment(
            images, roi=config.roi, base=base.labels, sink=outputs.sink,
            further_bytes=outputs.further_bytes(images[0].geometry), on_progress=on_progress,
            on_plan=lambda plan: planned.append(self._tell(case, plan)), should_stop=lambda: self.run.stop_requested)
        clock.lap("segment")
        steps = steps_for(self.segmenter.info, self.segmenter.values.tolist(), model=config.postprocess == "model",
                          largest_component=config.largest_component, fill_holes=config.fill_holes)
        background = int(self.segmenter.values[0])
        cleaned = clean_inside(labels, steps, region, images[0].geometry, background=background)
        clock.lap("postprocess")
        sizes = label_sizes(labels, images[0], self.segmenter.info, self.segmenter.last_run.confidence, cleaned)
        clock.lap("measure")
        self.manifest.begin()
        segments = base.added_to(segments_of(self.segmenter.info, self.segmenter.values))
        written = outputs.write(labels, images[0].geometry, segments, region, case.images[0])
        clock.lap("write")
        result = {"image": str(case.images[0]), **written, "seconds": clock.total, "labels": sizes,
                  **({"channels": [str(path) for path in case.images]} if len(case.images) > 1 else {}),
                  "stage_seconds": clock.laps, "estimated_peak_bytes": planned[0] if planned else None,
                  "peak_bytes": peak_bytes(), **run_facts(self.segmenter)}
        self.manifest.add(case, outputs.files, result, stamp)
        self.results[index] = result

    def _tell(self, case: FoundCase, plan: Plan) -> int:
        """Tell what the case will take, and return how much memory."""
        log.info("%s: %s", case.images[0], plan)
        if not self.was_told or plan.given_up:
            self.run.append_progress({"stage": "plan", "message": f"{case.images[0].name}: {plan}"})
            self.was_told = True
        return plan.estimated_peak_bytes


def segmenter_for(model: Any, config: Any, **options: Any) -> Segmenter:
    """The segmenter of a `SegmentConfig` or `EvaluateConfig`.

    Args:
        model: name or path, a loaded model, or a list of them.
        config: device, precision, overlap, batch, mirror and so on.
        options: further arguments of `Segmenter`.
    """
    limit: dict[str, Any] = {} if config.memory is None else {"memory_limit": parse_memory(config.memory)}
    return Segmenter(model, device=config.device, precision=config.precision, overlap=config.overlap,
                     batch=config.batch, mirror=config.mirror, skip_empty=config.skip_empty, **limit, **options)


def run_facts(segmenter: Segmenter) -> dict[str, Any]:
    """What the last image took, for result.json."""
    facts = segmenter.last_run
    return {"windows": facts.windows, "windows_skipped": max(0, facts.windows - facts.computed), "passes": facts.passes,
            "memory_steps": list(facts.steps)}


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


def segments_of(info: ModelInfo, values: np.ndarray) -> list[Segment]:
    """The model's foreground labels as segments for label files; `values` holds the stored value of each class."""
    return [Segment(name=str(label["name"]), value=int(value), color=tuple(label["color"]),
                    terminology=label.get("terminology"))
            for label, value in zip(info.labels[1:], values[1:], strict=True) if value != values[0] and value > 0]


def label_sizes(labels: np.ndarray, image: Volume, info: ModelInfo, confidence: Mapping[str, float] | None = None,
                cleaned: Mapping[int, int] | None = None) -> dict[str, dict[str, Any]]:
    """Voxels, millilitres and surface (None where the spacing is unknown) of each foreground label.

    Args:
        labels: (k, j, i) on the grid of `image`.
        image: says how large voxels are.
        info: the model's labels.
        confidence: mean probability by label name, where it is known.
        cleaned: by label value, how many voxels cleaning gave (or took, negative).
    """
    measured = measure_labels(labels, image.geometry, [int(label["value"]) for label in info.labels[1:]],
                              background=int(info.labels[0]["value"]), spacing_known=image.spacing_known,
                              is_2d=image.is_2d)
    sizes: dict[str, dict[str, Any]] = {}
    for label in info.labels[1:]:
        name, value = str(label["name"]), int(label["value"])
        one = measured[value]
        sizes[name] = {"value": value, "voxels": one.voxels, "ml": one.ml, "area_mm2": one.area_mm2}
        if confidence:
            sizes[name]["confidence"] = confidence.get(name)
        if cleaned and value in cleaned:
            sizes[name]["cleaned_voxels"] = cleaned[value]
    return sizes


def failures_to_json(failures: Sequence[CaseFailure]) -> list[dict[str, str]]:
    """Failed cases as they stand in ``result.json``."""
    return [{"image": failure.case, "reason": failure.reason} for failure in failures]
