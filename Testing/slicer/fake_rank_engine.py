"""Stands in for ``python -m medmae.run`` of a run that ranks: scores, label maps and records as the engine's.

What it does is in the file that FAKE_ENGINE names, a line each: "pause=0.2" seconds a case, "bad=case-0004" a case that
fails, "refuse" (all of it), "die=2" (killed at the second case), "score=case-0004:0.9", "empty=case-0004" (nothing is
drawn on it). Label maps have the values 1 and 2.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from medmae.datasets import load_dataset
from medmae.errors import BadInput
from medmae.files import write_json
from medmae.inference.cases import FoundCase
from medmae.inference.manifest import Manifest
from medmae.run_folder import RunFolder
from medmae.volumes import read_image, write_label


def main() -> int:
    run = RunFolder.open(sys.argv[1])
    file = os.environ.get("FAKE_ENGINE")
    actions = [action.partition("=")[::2] for action in (Path(file).read_text().splitlines() if file else [])]
    plan, config, inputs = dict(actions), run.spec["config"], run.spec["inputs"]
    scores = dict(value.split(":") for name, value in actions if name == "score")
    run.write_state(state="running")
    if "refuse" in plan:
        run.write_state(state="failed", reason="The weights are damaged.", remedy="Import the model again.")
        return 2
    out = Path(inputs["out"])
    manifest = Manifest(out, {"config": config}, resume=bool(inputs.get("resume")))
    cases, failed = load_dataset(inputs["dataset"]).cases(inputs["split"]), []
    for number, case in enumerate(cases, 1):
        own = case.id.removeprefix("project-")
        if str(number) == plan.get("die"):
            os.kill(os.getpid(), 9)
        time.sleep(float(plan.get("pause", 0)))
        try:
            image = read_image(case.images[0])
            if own == plan.get("bad"):
                raise BadInput("The image is sheared. Resample it first.")
        except BadInput as error:
            failed.append({"image": str(case.images[0]), "reason": str(error)})
            _tell(run, number, len(cases), ended="failed", reason=str(error))
            continue
        result, files = {"score": float(scores.get(own, number / 100))}, []
        if config["labels"]:
            labels = np.zeros(image.geometry.shape, np.uint8)
            if own != plan.get("empty"):
                labels[1:3, 2:5, 1:4], labels[3:5, 2:5, 1:4] = 1, 2
            files = [write_label(out / f"{case.id}.nrrd", labels, image.geometry, [], "nrrd")]
            result["output"] = str(files[0])
        found = FoundCase(case.images, case.id)
        manifest.add(found, files, result, found.stamp())
        _tell(run, number, len(cases), ended="done", case_seconds=0.1)
    write_json(run.path / "result.json", {"cases": [], "failed": failed})
    run.write_state(state="failed" if failed else "done", reason=f"{len(failed)} of {len(cases)} images failed.")
    return 1 if failed else 0


def _tell(run: RunFolder, number: int, count: int, **ended: object) -> None:
    run.append_progress({"stage": "rank", "step": 100 * number, "total": 100 * count, "case": number, "cases": count,
                         "eta_s": 0.5 * (count - number), **ended})


if __name__ == "__main__":
    sys.exit(main())
