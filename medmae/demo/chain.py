"""A process of the demonstration: makes the data of one chain and executes its runs.

``python -m medmae.demo.chain FOLDER CHAIN`` writes one JSON object a line to standard output:
{"message"} for people, {"run", "title"} when a run begins, {"error", "bad_input"} when the chain cannot go on.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from medmae.demo.plan import CHAINS, SEED, Step
from medmae.demo.synthetic import write_abdomen_ct, write_chest_xray
from medmae.errors import BadInput
from medmae.run_folder import RunFolder


def main(folder: str, name: str) -> int:
    """Make the chain's data and execute its runs; what is done already is not done again. Returns an exit code."""
    root = Path(folder)
    try:
        _make_data(root, name)
        for step in CHAINS[name]():
            code = _execute(root, step)
            if code is not None:
                return code
    except BadInput as error:
        _say(error=str(error), bad_input=True)
        return 2
    return 0


def _make_data(root: Path, name: str) -> None:
    begun = time.monotonic()
    if name == "CT":
        if (root / "data/abdomen_ct/dataset.json").is_file():
            return
        write_abdomen_ct(root / "data/abdomen_ct", SEED, training=4, validation=1, test=4, unlabeled=16)
        told = "25 CT volumes of five organs, 4 of them labelled for training"
    else:
        if (root / "data/chest_xray/dataset_classification.json").is_file():
            return
        write_chest_xray(root / "data/chest_xray", SEED, training=16, validation=2, test=24, unlabeled=40)
        told = "82 X-rays, 16 of them labelled for training"
    _say(message=f"made {told} ({time.monotonic() - begun:.0f} s)")


def _execute(root: Path, step: Step) -> int | None:
    """Execute one run, or the rest of it; None when the chain can go on, otherwise the exit code.

    Raises:
        BadInput: the run folder holds another run.
    """
    from medmae.run import execute

    config, inputs = step.spec(root)
    path = root / step.folder
    if (path / "spec.json").is_file():
        run = RunFolder.open(path)
        if run.spec["config"] != config or run.spec["inputs"] != inputs:
            raise BadInput(f"{path} was made with other settings. Remove the folder {root}, or choose another.")
        if run.state()["state"] == "done":
            return None
    else:
        run = RunFolder.create(path, step.kind, config, inputs)
    _say(run=step.folder, title=step.title)
    begun = time.monotonic()
    code = execute(run.path)
    state = run.state()
    if code != 0 or state["state"] != "done":
        _say(error=f"{step.title}: {state.get('reason')} Log: {run.log_file}", bad_input=code == 2)
        return code or 1
    _say(message=f"done: {step.title} ({time.monotonic() - begun:.0f} s)", done=step.folder)
    return None


def _say(**words: Any) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
