"""Stands in for ``python -m medmae.run`` where the protocol is tested, not the computation.

What it does is written in the run's config under "fake": progress lines, how long to work, how to end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from medmae.run_folder import RunFolder


def main() -> int:
    run = RunFolder.open(sys.argv[1])
    plan = Path(os.environ["FAKE_ENGINE"]).read_text().split()
    run.write_state(state="running")
    for action in plan:
        name, _, argument = action.partition("=")
        if name == "progress":
            for step in range(1, 4):
                run.append_progress({"stage": "windows", "step": step, "total": 3, "seconds": 0.1, "eta_s": 3 - step})
        elif name == "work":
            deadline = time.monotonic() + float(argument)
            while time.monotonic() < deadline and not run.stop_requested:
                time.sleep(0.02)
        elif name == "grandchild":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            Path(argument).write_text(f"{child.pid}")
        elif name == "result":
            out = Path(run.spec["inputs"]["out"]) / "some" / "folder"
            out.mkdir(parents=True)
            shutil.copy(argument, out / "volume.seg.nrrd")
        elif name == "fail":
            run.write_state(state="failed", reason="The image is sheared.", remedy="Resample it first.")
            return 2
        elif name == "crash":
            raise RuntimeError("no such library")
        elif name == "die":
            os.kill(os.getpid(), 9)
    run.write_state(state="stopped" if run.stop_requested else "done", reason=None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
