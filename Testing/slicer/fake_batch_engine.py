"""Stands in for ``python -m medmae.run`` of a folder: tells of each case as the engine does, and computes nothing.

What it does is in the file that FAKE_ENGINE names: "pause=0.2" seconds a case, "bad=NAME" an image that fails, "refuse"
(all of it), "grandchild=FILE".
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from medmae.errors import BadInput
from medmae.files import write_json
from medmae.inference.case_loop import for_each_case
from medmae.run_folder import RunFolder
from medmae.volumes.discovery import output_name


def main() -> int:
    run = RunFolder.open(sys.argv[1])
    actions = [action.partition("=")[::2] for action in Path(os.environ["FAKE_ENGINE"]).read_text().split("\n")]
    plan, images, out = dict(actions), run.spec["inputs"]["images"], Path(run.spec["inputs"]["out"])
    run.write_state(state="running")
    if "refuse" in plan:
        run.write_state(state="failed", reason="The weights are damaged.", remedy="Import the model again.")
        return 2
    if "grandchild" in plan:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        Path(plan["grandchild"]).write_text(f"{child.pid}")
    done, failures = [], []

    def work(index, on_progress):
        for part in range(4):
            time.sleep(float(plan.get("pause", 0)) / 4)
            on_progress(part + 1, 4)
        if images[index] == plan.get("bad"):
            raise BadInput("The image is sheared. Resample it first.")
        output = out / f"{output_name(images[index])}.seg.nrrd"
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(Path(plan["result"]).read_bytes() if "result" in plan else b"")
        done.append({"image": images[index], "output": str(output), "seconds": 1.0})

    for_each_case(run, "segment", images, work, failures)
    failed = [{"image": failure.case, "reason": failure.reason} for failure in failures]
    write_json(run.path / "result.json", {"cases": done, "failed": failed})
    run.write_state(state="failed" if failed else "done", reason=f"{len(failed)} of {len(images)} images failed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
