"""Run kind "rank": which cases to annotate next.

inputs: ``model`` (name or path, or a list of them: an ensemble), ``dataset`` and ``split`` (default unlabeled) or
``images`` (as for segment), ``out`` (folder, or None), ``resume`` (go on with what is in ``out``). Writes
``OUT/ranking.json`` and the same object as the run's ``result.json``, ``OUT/ranking.csv``, ``OUT/manifest.jsonl`` (what
is finished), and with ``labels`` ``OUT/<case>.<format>``: the predictions, to start from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medmae.active_learning.candidate import Candidate
from medmae.active_learning.config import RankConfig
from medmae.active_learning.mirrored_model import MirroredModel
from medmae.active_learning.ordering import in_order
from medmae.active_learning.pool import PoolCase, pool_of
from medmae.active_learning.strategies import strategy_called
from medmae.config import from_json, to_json
from medmae.errors import BadInput
from medmae.files import write_json, write_text
from medmae.folder_lock import only_writer
from medmae.inference.case_loop import CaseFailure, for_each_case, raise_failures
from medmae.inference.cases import sizes_of
from medmae.inference.manifest import Manifest, options_of
from medmae.inference.outputs.components import clean, steps_for
from medmae.inference.segment_outputs import CaseOutputs
from medmae.inference.segment_run import failures_to_json, required_inputs, segments_of
from medmae.inference.sliding_window import OnProgress
from medmae.inference.stopwatch import Stopwatch
from medmae.inference.summary import table_text
from medmae.run_folder import RunFolder

COLUMNS = ("rank", "case", "subject", "image", "score", "voxels", "foreground_voxels", "label", "output", "seconds",
           "error")
OF_THE_RANKING = ("cases",)  # does not change the score of a case


def execute(run: RunFolder) -> None:
    """Rank the cases that the run names.

    Raises:
        BadInput: the specification, the model or every image is unusable; nothing is written then.
        PartialFailure: some images failed; the others are ranked.
        Stopped: a stop was asked for; what is finished is ranked and kept.
    """
    config = from_json(RankConfig, run.spec["config"], "configuration of rank")
    inputs = required_inputs(run, ("model",))
    if inputs.get("share") is not None:
        raise BadInput("Only segmentations are done in parts. Start the ranking without a share.")
    if config.labels and not inputs.get("out"):
        raise BadInput("There is no folder for the predicted labels. Name one with --out.")
    out = Path(inputs["out"]) if inputs.get("out") else None
    with only_writer(out or run.path / "outputs"):
        _Ranking(run, config, inputs, out).perform()


class _Ranking:
    def __init__(self, run: RunFolder, config: RankConfig, inputs: Mapping[str, Any], out: Path | None) -> None:
        self.run, self.config, self.out = run, config, out
        self.folder = out or run.path / "outputs"
        self.pool = pool_of(inputs, out)
        self.model = MirroredModel(inputs["model"], config)
        if config.labels and self.model.task == "classification":
            raise BadInput(f"The model {self.model.info.name} classifies; it has no label maps to write. Leave "
                           "--labels out.")
        self.score = strategy_called(config.strategy)
        segmenter = getattr(self.model, "segmenter", None)
        infos = [self.model.info] if segmenter is None else [member.info for member in segmenter.members]
        deciding = {name: value for name, value in to_json(config).items() if name not in OF_THE_RANKING}
        self.manifest = Manifest(self.folder, options_of("rank", deciding, infos, cleaned=infos[0].postprocessing),
                                 resume=bool(inputs.get("resume")))
        found = {index: self.manifest.finished(case.found) for index, case in enumerate(self.pool)}
        self.results: dict[int, dict[str, Any]] = {index: result for index, result in found.items() if result}
        self.done_before = set(self.results)

    def perform(self) -> None:
        """Score every case and write the ranking, also of a part of them."""
        failures: list[CaseFailure] = []
        try:
            for_each_case(self.run, "rank", [case.image for case in self.pool], self._work, failures,
                          sizes=sizes_of([case.found for case in self.pool]), done_before=self.done_before)
        finally:
            self._write(failures)
        raise_failures(failures, len(self.pool))

    def _work(self, index: int, on_progress: OnProgress) -> None:
        case, clock = self.pool[index], Stopwatch()
        stamp = case.found.stamp()
        candidate = Candidate(case.found.output_name, case.found.images, self.config.frame, on_progress,
                              lambda: self.run.stop_requested)
        found = self.score(self.model, candidate, self.config.seed)
        result: dict[str, Any] = {"score": found.value, **found.facts}
        files: list[Path] = []
        if self.config.labels:
            labels = self.model.segment(candidate) if found.labels is None else found.labels
            files = self._write_labels(case, candidate, labels)
            result["output"] = str(files[-1])
        result["seconds"] = clock.total
        self.manifest.add(case.found, files, result, stamp)
        self.results[index] = result

    def _write_labels(self, case: PoolCase, candidate: Candidate, labels: np.ndarray) -> list[Path]:
        """The prediction, cleaned as the model asks for."""
        values = self.model.segmenter.values
        clean(labels, steps_for(self.model.info, values.tolist()), background=int(values[0]))
        outputs = CaseOutputs(self.config.as_segment(), self.model.info, self.folder / case.found.output_name)
        self.manifest.begin()
        outputs.write(labels, candidate.images[0].geometry, segments_of(self.model.info, values), None,
                      case.found.images[0])
        return outputs.files

    def _write(self, failures: list[CaseFailure]) -> None:
        scored = [{"case": case.name, "subject": case.subject, "image": case.image, **self.results[index]}
                  for index, case in enumerate(self.pool) if index in self.results]
        ordered = in_order(scored, lambda one: one["score"], lambda one: one["subject"])[:self.config.cases]
        ranking: dict[str, Any] = {
            "task": self.model.task, "strategy": self.config.strategy, "seed": self.config.seed,
            "model": self.model.info.name, "models": self.model.names, "passes": self.model.passes,
            "out": None if self.out is None else str(self.out),
            "cases": [{"rank": number, **case} for number, case in enumerate(ordered, start=1)],
            "scored": len(scored), "failed": failures_to_json(failures), "finished_before": len(self.done_before)}
        write_json(self.run.path / "result.json", ranking)
        if scored:
            rows = [{name: case[name] for name in COLUMNS if name in case} for case in ranking["cases"]]
            rows += [{"image": failure.case, "error": failure.reason} for failure in failures]
            write_text(self.folder / "ranking.csv", table_text(COLUMNS, rows))
            write_json(self.folder / "ranking.json", ranking)
