"""Run kind "classify": class probabilities for images.

inputs: ``model``, ``images`` and ``resume`` (as for segment), ``out`` (folder). Writes ``OUT/classes.csv`` (with a
column p(CLASS) for each class), ``OUT/classes.json`` and the same object as the run's ``result.json``, and
``OUT/manifest.jsonl`` (what is finished).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmae.config import from_json, to_json
from medmae.errors import BadInput
from medmae.files import write_json, write_text
from medmae.folder_lock import only_writer
from medmae.inference.case_loop import CaseFailure, for_each_case, raise_failures
from medmae.inference.cases import find_cases, sizes_of
from medmae.inference.classifier import Classifier
from medmae.inference.config import ClassifyConfig
from medmae.inference.manifest import Manifest, options_of
from medmae.inference.segment_run import failures_to_json, required_inputs
from medmae.inference.sliding_window import OnProgress
from medmae.inference.summary import table_text
from medmae.run_folder import RunFolder
from medmae.volumes import read_image


def execute(run: RunFolder) -> None:
    """Classify the images that the run names.

    Raises:
        BadInput: the specification, the model or every image is unusable; nothing is written then.
        PartialFailure: some images failed; the others are done.
        Stopped: a stop was asked for; finished images are kept.
    """
    config = from_json(ClassifyConfig, run.spec["config"], "configuration of classify")
    inputs = required_inputs(run, ("model", "images", "out"))
    if inputs.get("share") is not None:
        raise BadInput("Only segmentations are done in parts. Start the classification without a share.")
    with only_writer(Path(inputs["out"])):
        _classify(run, config, inputs)


def _classify(run: RunFolder, config: ClassifyConfig, inputs: Mapping[str, Any]) -> None:
    out = Path(inputs["out"])
    cases = find_cases(inputs["images"], out)
    classifier = Classifier(inputs["model"], device=config.device, precision=config.precision, batch=config.batch,
                            pooling=config.pooling)
    several = classifier.info.multi_label
    manifest = Manifest(out, options_of("classify", to_json(config), [classifier.info]),
                        resume=bool(inputs.get("resume")))
    before = {index: manifest.finished(case) for index, case in enumerate(cases)}
    results: dict[int, dict[str, Any]] = {index: result for index, result in before.items() if result}
    done_before = set(results)

    def work(index: int, on_progress: OnProgress) -> None:
        started, stamp = time.monotonic(), cases[index].stamp()
        images = [read_image(path, frame=config.frame) for path in cases[index].images]
        found = classifier.classify(images, on_progress=on_progress, should_stop=lambda: run.stop_requested)
        result = {"image": str(cases[index].images[0]), "label": found.label,
                  **({"labels": list(found.labels)} if several else {}),
                  "probabilities": found.probabilities,
                  "deciding_slice": found.deciding_slice and _place(found.deciding_slice),
                  "deciding_slices": {name: _place(one) for name, one in found.deciding_slices.items()} or None,
                  "seconds": round(time.monotonic() - started, 3)}
        manifest.add(cases[index], [], result, stamp)
        results[index] = result

    failures: list[CaseFailure] = []
    try:
        for_each_case(run, "classify", [str(case.images[0]) for case in cases], work, failures,
                      sizes=sizes_of(cases), done_before=done_before)
    finally:
        found: dict[str, Any] = {"task": "classification", "model": classifier.info.name, "classes": classifier.names,
                 "multi_label": several, "pooling": classifier.pooling, "calibrated": classifier.is_calibrated,
                 "calibration": classifier.info.calibration, "calibration_told": classifier.calibration_told,
                 "cases": [results[index] for index in sorted(results)], "failed": failures_to_json(failures),
                 "finished_before": len(done_before)}
        write_json(run.path / "result.json", found)
        if results:
            write_text(out / "classes.csv", _table(classifier.names, found["cases"], failures))
            write_json(out / "classes.json", found)
    raise_failures(failures, len(cases))


def _place(deciding: tuple[int, int]) -> dict[str, Any]:
    return {"axis": "kji"[deciding[0]], "index": deciding[1]}


def _table(names: Sequence[str], results: Sequence[Mapping[str, Any]], failures: Sequence[CaseFailure]) -> str:
    rows: list[dict[str, Any]] = []
    for result in results:
        probabilities = {f"p({name})": f"{value:.6f}" for name, value in result["probabilities"].items()}
        deciding = result["deciding_slice"]
        rows.append({"image": result["image"], "label": result["label"], **probabilities,
                     "deciding_slice": "" if deciding is None else f"{deciding['axis']}={deciding['index']}",
                     "seconds": result["seconds"]})
    rows += [{"image": failure.case, "error": failure.reason} for failure in failures]
    return table_text(("image", "label", *(f"p({name})" for name in names), "deciding_slice", "seconds", "error"), rows)
