"""Every example of docs/scripting-training.md, in order, with the real engine on real nodes."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import slicer
from conftest import OBLIQUE, ROOT
from MedMAESegmentLib.FollowedJob import RunCancelled

TEXT = (ROOT / "docs" / "scripting-training.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
BOXES = (np.s_[2:5, 2:6, 2:6], np.s_[5:8, 6:9, 7:10])


@pytest.fixture
def names(home, make_volume, make_segmentation, tmp_path, monkeypatch):
    """What the examples find: annotated volumes in the scene, a folder of images, a target."""
    from MedMAESegmentLib.VolumeExport import writeVolume
    from MedMAETrainLib.TrainLogic import TrainLogic

    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("MedMAESegmentLib.Dependencies.ensureInstalled", lambda: None)
    ct = make_volume((20, 24, 28), name="CT")
    pet = make_volume((10, 12, 14), affine=OBLIQUE @ np.diag([2.0, 2.0, 2.0, 1.0]), name="PET")
    mr = make_volume((9, 12, 14), name="MR")
    for volume, segments in ((ct, ("liver", "left kidney")), (pet, ("Liver", "left_kidney")),
                             (mr, ("Leber", "scratch"))):
        make_segmentation(volume, dict(zip(segments, BOXES, strict=True))).SetName(f"{volume.GetName()} annotation")
    add_target(Target("gpu-box", environment="python", python=sys.executable), replace=True)
    images, out = tmp_path / "images", tmp_path / "out"
    for folder in (images, out):
        folder.mkdir()
    for number in range(2):
        writeVolume(ct, images / f"case{number}.nrrd")
    logic = TrainLogic()
    monkeypatch.setattr(slicer.util, "getModuleLogic", {"MedMAETrain": logic}.get, raising=False)
    yield {"slicer": slicer, "imageFolder": images, "outputFolder": out}
    for job in list(logic.jobs):
        job.cancel()
    logic.closeProjects()


def test_every_example_runs(names, capsys):
    for example in EXAMPLES:
        exec(compile(example, "docs/scripting-training.md", "exec"), names)  # noqa: S102 - our own page
    train = names["train"]
    with pytest.raises(RunCancelled):
        train.job(names["first"].id).wait()
    said = capsys.readouterr().out
    for text in ("case-0003 corrected\n", "['local', 'cluster', 'gpu-box']", "MR - ", "Left out: scratch.",
                 "thumbnail.png", "holds no project of MedMAE", " s for 3 steps, ", "livers entropy", "1 case-0004 ",
                 "my encoder - my encoder (MR, 2-D, vis-mae tiny)\n", "queued waiting\n", "cannot be told yet"):
        assert text in said, text
    assert train.jobs == [] and len(EXAMPLES) == 11
    twelve = EXAMPLES[0].strip().splitlines()
    assert len(twelve) == 12, "as its title says"
