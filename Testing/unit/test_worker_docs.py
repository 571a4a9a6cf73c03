"""What docs/worker.md says can be run and is whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from worker_helpers import tiny_model

from medmae.worker.child import environment_of_worker
from medmae.worker.protocol import OPERATIONS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "worker.md").read_text(encoding="utf-8")


def test_the_examples_run(tmp_path):
    example = "".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    script = tmp_path / "example.py"
    script.write_text(f"model = {str(tiny_model(tmp_path / 'model'))!r}\n{example}"
                      "assert request.state == 'done' and labels.shape == image.shape and labels.any()\n")
    ended = subprocess.run([sys.executable, str(script)], env=environment_of_worker(), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "running {'stage': 'segment'" in ended.stdout
    assert re.search(r"windows, 8 passes each\n\d+ MB needed, \d+ MB free, measured: True", ended.stdout)


def test_every_operation_is_described():
    table = re.findall(r"^\| `(\w+)` \|", PAGE.split("| event |")[0], re.MULTILINE)
    assert sorted(table) == sorted(OPERATIONS)
