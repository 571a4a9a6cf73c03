"""A process of the demonstration: makes data and executes runs, one after the other, as it is told.

``python -m medmae.demo.worker FOLDER`` reads the name of a step (see plan.py) from each line of standard input and
writes JSON objects to standard output, one a line: {"began": name}, {"done": name, "seconds"} or {"failed": name,
"reason", "bad_input"}. It ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from medmae.demo.plan import DataStep, Step, all_steps
from medmae.errors import BadInput
from medmae.run_folder import RunFolder


class StepFailed(Exception):
    """A run failed; the message says why and where its log is."""


def main(folder: str) -> None:
    """Work on steps until standard input ends."""
    os.chdir(folder)
    steps = {step.name: step for step in all_steps()}
    for line in sys.stdin:
        name, begun = line.strip(), time.monotonic()
        _say(began=name)
        try:
            perform(steps[name], Path(folder))
        except (BadInput, StepFailed) as error:
            _say(failed=name, reason=str(error), bad_input=isinstance(error, BadInput))
        else:
            _say(done=name, seconds=round(time.monotonic() - begun, 1))


def perform(step: Step | DataStep, root: Path) -> None:
    """Make data, or execute one run or the rest of it; what is done already is not done again.

    Raises:
        BadInput: the run folder holds another run, or the run found its input bad.
        StepFailed: the run failed or was stopped.
    """
    if isinstance(step, DataStep):
        if not (root / step.file).is_file():
            step.write(root / step.folder)
        return
    from medmae.run import execute

    config, inputs = step.spec(root)
    path = root / step.folder
    if (path / "spec.json").is_file():
        run = RunFolder.open(path)
        if run.spec["config"] != config or run.spec["inputs"] != inputs:
            raise BadInput(f"{path} was made with other settings. Remove the folder {root}, or choose another.")
        if run.state()["state"] == "done":
            return
    else:
        run = RunFolder.create(path, step.kind, config, inputs)
    code = execute(run.path)
    state = run.state()
    if state["state"] != "done":
        raise (BadInput if code == 2 else StepFailed)(f"{state.get('reason')} Log: {run.log_file}")


def _say(**words: Any) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
