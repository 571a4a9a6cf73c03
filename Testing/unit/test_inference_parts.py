"""A batch in parts: processes that share its cases give what one run gives, in any order, at once, killed, repeated."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from worker_helpers import AFFINE, tiny_model, volume

from medmae import run as run_module
from medmae.cli.app import run as command_line
from medmae.config import to_json
from medmae.errors import BadInput
from medmae.inference.config import ClassifyConfig, SegmentConfig
from medmae.inference.parts import Share, merge_parts
from medmae.run_folder import RunFolder
from medmae.volumes import Geometry, write_label


@pytest.fixture
def model(tmp_path):
    return str(tiny_model(tmp_path / "model"))


def write_scans(folder, count):
    folder.mkdir()
    for number in range(count):
        array = volume((16, 16, 16), seed=number)
        write_label(folder / f"{number:02d}.nii.gz", array, Geometry(array.shape, AFFINE), [], "nii.gz")


def make_run(folder, model, scans, out, share=None, resume=False, **config):
    inputs = {"model": model, "images": [str(scans)], "out": str(out), **({"share": share} if share else {}),
              **({"resume": True} if resume else {})}
    return RunFolder.create(folder, "segment", to_json(SegmentConfig(**config)), inputs)


def execute(*arguments, **more):
    run = make_run(*arguments, **more)
    return run_module.execute(run.path), run


def start(run):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, "-m", "medmae.run", str(run.path)], env=environment,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def labels(out):
    return {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*.nii.gz")}


def rows(out):
    """The summary but for times and the folder of the results."""
    with open(out / "summary.csv", newline="") as stream:
        return [{**row, "seconds": "", "output": row["output"].replace(str(out), "OUT")}
                for row in csv.DictReader(stream)]


def test_parts_at_once_give_what_one_run_gives(tmp_path, model):
    write_scans(tmp_path / "scans", 5)
    (tmp_path / "scans" / "02 bad.nii.gz").write_text("not an image")
    assert execute(tmp_path / "run", model, tmp_path / "scans", tmp_path / "whole")[0] == 1
    out = tmp_path / "out"
    runs = [make_run(tmp_path / f"part{index}", model, tmp_path / "scans", out, [index, 3]) for index in range(3)]
    assert sorted(process.wait() for process in [start(run) for run in runs]) == [0, 0, 1]
    for _ in range(2):  # as often as wanted
        found = merge_parts(out)
        assert (found["finished"], found["total"], found["missing"], found["missing_parts"]) == (5, 6, [], [])
        assert [Path(failure["image"]).name for failure in found["failed"]] == ["02 bad.nii.gz"]
        assert labels(out) == labels(tmp_path / "whole") and rows(out) == rows(tmp_path / "whole")
    (tmp_path / "scans" / "02 bad.nii.gz").unlink()
    code, run = execute(tmp_path / "again", model, tmp_path / "scans", out, resume=True)
    result = json.loads((run.path / "result.json").read_text())
    assert code == 0 and result["finished_before"] == len(result["cases"]) == 5
    assert len(rows(out)) == len(rows(tmp_path / "whole")) - 1


def test_parts_one_after_the_other_in_any_order_say_what_is_missing_until_nothing_is(tmp_path, model):
    write_scans(tmp_path / "scans", 4)
    execute(tmp_path / "run", model, tmp_path / "scans", tmp_path / "whole")
    out, missing = tmp_path / "out", [0, 1, 2]
    for index in (2, 0, 1):
        code, _ = execute(tmp_path / f"part{index}", model, tmp_path / "scans", out, [index, 3])
        assert code == 0
        missing.remove(index)
        found = merge_parts(out)
        assert found["missing_parts"] == missing and not found["missing"] and not found["failed"]
    assert found["finished"] == 4
    assert labels(out) == labels(tmp_path / "whole") and rows(out) == rows(tmp_path / "whole")


def test_a_killed_part_is_repeated_and_the_whole_goes_on_from_what_parts_have_done(tmp_path, model):
    write_scans(tmp_path / "scans", 40)
    out = tmp_path / "out"
    manifest = out / "parts" / "01-of-02" / "manifest.jsonl"
    process = start(make_run(tmp_path / "killed", model, tmp_path / "scans", out, [1, 2]))
    end = time.monotonic() + 120
    while not manifest.exists() or manifest.read_bytes().count(b"\n") < 3:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGSTOP)
    code, run = execute(tmp_path / "early", model, tmp_path / "scans", out, resume=True)
    assert code == 2 and "still being written" in run.state()["reason"]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = merge_parts(out)
    assert 0 < found["finished"] < 20 and len(found["missing"]) == 20 - found["finished"]
    assert found["missing_parts"] == [0]
    before = {name: (out / name).stat().st_mtime_ns for name in labels(out)
              if any(f"{name.removesuffix('.nii.gz')}\"" in line for line in manifest.read_text().splitlines())}
    code, run = execute(tmp_path / "repeated", model, tmp_path / "scans", out, [1, 2], resume=True)
    assert code == 0 and json.loads((run.path / "result.json").read_text())["finished_before"] == found["finished"]
    assert before and all((out / name).stat().st_mtime_ns == when for name, when in before.items())
    assert (merge_parts(out)["finished"], merge_parts(out)["missing"]) == (20, [])
    code, run = execute(tmp_path / "rest", model, tmp_path / "scans", out, resume=True)
    assert code == 0 and json.loads((run.path / "result.json").read_text())["finished_before"] == 20
    assert merge_parts(out) == {"finished": 40, "total": 40, "failed": [], "missing": [], "missing_parts": []}
    assert len(labels(out)) == 40
    assert not list(out.rglob(".partial-*"))


def test_another_number_of_parts_other_images_and_other_options_are_refused(tmp_path, model):
    write_scans(tmp_path / "scans", 3)
    out = tmp_path / "out"
    assert execute(tmp_path / "part0", model, tmp_path / "scans", out, [0, 2])[0] == 0
    code, run = execute(tmp_path / "other", model, tmp_path / "scans", out, [0, 3], resume=True)
    assert code == 2 and "divided into 2 parts, not 3" in run.state()["reason"]
    code, run = execute(tmp_path / "part1", model, tmp_path / "scans", out, [1, 2], overlap=0.25)
    assert code == 2 and "overlap=0.5 (not 0.25)" in run.state()["reason"]
    assert execute(tmp_path / "part1b", model, tmp_path / "scans", tmp_path / "b", [1, 2], overlap=0.25)[0] == 0
    shutil.copytree(tmp_path / "b", out, dirs_exist_ok=True)  # as if both had begun in the same moment
    with pytest.raises(BadInput, match="other options"):
        merge_parts(out)
    (tmp_path / "scans" / "00.nii.gz").rename(tmp_path / "scans" / "new.nii.gz")
    code, run = execute(tmp_path / "again", model, tmp_path / "scans", out, [0, 2], resume=True)
    assert code == 2 and "not those" in run.state()["reason"]


def test_more_parts_than_cases_leave_parts_with_nothing_to_do(tmp_path, model):
    write_scans(tmp_path / "scans", 1)
    out = tmp_path / "out"
    code, run = execute(tmp_path / "idle", model, tmp_path / "scans", out, [1, 2])
    assert code == 0 and run.state()["state"] == "done" and labels(out) == {}
    assert merge_parts(out)["missing_parts"] == [0]
    assert execute(tmp_path / "busy", model, tmp_path / "scans", out, [0, 2])[0] == 0
    assert merge_parts(out) == {"finished": 1, "total": 1, "failed": [], "missing": [], "missing_parts": []}


@pytest.mark.parametrize("share", [[2, 2], [-1, 2], [0, 0], [0], [0.0, 2], [True, 2], "0/2", {"index": 0}])
def test_what_is_no_share_is_refused(tmp_path, model, share):
    write_scans(tmp_path / "scans", 1)
    code, run = execute(tmp_path / "run", model, tmp_path / "scans", tmp_path / "out", share)
    assert code == 2 and "is no share" in run.state()["reason"] and not (tmp_path / "out").exists()


def test_classifications_are_not_done_in_parts(tmp_path):
    run = RunFolder.create(tmp_path / "run", "classify", to_json(ClassifyConfig()), {
        "model": "any", "images": ["any"], "out": str(tmp_path / "out"), "share": [0, 2]})
    assert run_module.execute(run.path) == 2 and "Only segmentations" in run.state()["reason"]


def test_the_command_line_takes_a_share(tmp_path, model, capsys):
    write_scans(tmp_path / "scans", 3)
    out = tmp_path / "out"
    command = ["segment", "--model", model, "--images", str(tmp_path / "scans"), "--out", str(out)]
    for share in ("1/2", "0/2"):
        assert command_line([*command, "--share", share]) == 0
    assert command_line([*command, "--share", "0/2"]) == 2  # it is there already
    assert command_line([*command, "--share", "2/2"]) == 2 and "for example 0/8" in capsys.readouterr().err
    assert len(labels(out)) == 3 and command_line([*command, "--resume"]) == 0
    assert len(rows(out)) == 6 and np.unique([row["image"] for row in rows(out)]).size == 3


def test_every_case_has_one_part():
    cases = list(range(23))
    assert sorted(case for index in range(5) for case in Share(index, 5).of_all(cases)) == cases
    assert Share(3, 8).folder(Path("out")) == Path("out/parts/03-of-08")
    assert Share(3, 1000).folder(Path("out")) == Path("out/parts/0003-of-1000")


def test_bringing_parts_together_needs_no_torch():
    code = "import sys, medmae.inference.parts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
