"""While a run goes on: Slicer is killed, the scene is closed and opened again, and the panel stays at hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import chain
import numpy as np
import pytest
import slicer
from drive_fixtures import COMPUTER, RUNS_PAGE
from panel_fixtures import FAKE_ENGINE

from medmae.jobs.target import Target
from medmae.jobs.targets import add_target
from medmae.models import load_info, resolve_model

pytestmark = pytest.mark.alone

HERE = Path(__file__).parent
SHAPE = (200, 512, 512)

SLICER = """
import os, sys, time
sys.path[:0] = sys.argv[1:4]
from mrml_application import MrmlApplication
MrmlApplication()
from qtapp.application import PanelApplication
application = PanelApplication(os.environ.get("SLICER_PYTHON_SOURCE"))
settings = application.qt.QSettings
settings.setPath(settings.NativeFormat, settings.UserScope, sys.argv[5])
import slicer
slicer.util.confirmOkCancelDisplay = lambda text, **_: True
slicer.util.mainWindow = lambda: None
application.completeSlicerApp()
from drive_fixtures import User
panel = application.open("MedMAETrain")
application.show(panel)
user, ui = User(application, panel, None, [], [], None), panel.trainPage.ui
panel.projectSection.open(sys.argv[4])
runs = []
for place, name in (("Auto", "from here"), (sys.argv[6], "from there")):
    user.openTrainPage()
    user.pick(ui.trainMethodSelector, "2-D")
    user.pick(ui.trainComputeSelector, place)
    user.edit(Steps=12, Window="48 x 48")
    runs.append(user.start(name).id)
states = lambda: {entry.id: entry.status.state for entry in panel.logic.runs()}
user.until(lambda: states()[runs[0]] == "running" and states()[runs[1]] in ("queued", "running"))
print(*runs, flush=True)
while True:
    application.application.processEvents()
    time.sleep(0.01)
"""


@pytest.fixture
def annotated(scene):
    """Two small annotated volumes in the scene."""
    return [chain.madeCase(seed) for seed in (1, 2)]


@pytest.mark.slow
@pytest.mark.remote
def test_slicer_is_killed_and_the_next_one_shows_and_ends_both_runs(user, annotated, sshd, tmp_path, monkeypatch):
    from ssh_server import HOST

    add_target(Target(COMPUTER, "ssh", HOST, folder=str(sshd.there), environment="python", python=sys.executable,
                      gpus=0))
    user.createProject("Blobs")
    user.addScene()
    folder = user.train.project().path
    user.train.projectSection.folder = ""
    killed = subprocess.Popen(
        [sys.executable, "-c", SLICER, HERE, HERE.parents[1] / "MedMAESegment", HERE.parents[1] / "MedMAETrain", folder,
         tmp_path / "settings", COMPUTER], stdout=subprocess.PIPE, text=True)
    ids = killed.stdout.readline().split()
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert len(ids) == 2
    user.restart()
    user.openProject(folder, monkeypatch)
    user.train.ui.pages.setCurrentIndex(RUNS_PAGE)
    table, logic = user.train.runsPage.ui.runsTable, user.train.logic
    assert {job.id: job.target for job in logic.jobs} == {ids[0]: "", ids[1]: COMPUTER}, "they go on, and are found"
    user.until(lambda: table.rowCount == 2)
    for row, name in enumerate(("from there", "from here")):
        table.selectRow(row)
        assert user.run.name == name
        user.watch()
        assert [label["name"] for label in load_info(resolve_model(name)).labels] == ["background", "blob"]
    assert sorted(model.name for model in user.train.project().models) == ["from here", "from there"]
    assert logic.jobs == [] and user.said == []


@pytest.fixture
def engine_tells(user, engine):
    """A long run is begun with a stand-in for the engine, and followed with its curves; gives a function by which the
    engine tells of its next steps."""
    told = []

    def tell(steps):
        for step in range(len(told) + 1, len(told) + steps + 1):
            told.append(step)
            job = user.train.logic.job(user.train.logic.runs()[0].id)
            job.run.append_progress({"step": step, "total": 1000, "loss": 1 / step, "lr": 1e-4, "seconds": step,
                                     "eta_s": 1000 - step})

    def begin():
        engine("work=120")
        user.train.logic.engineCommand = FAKE_ENGINE
        user.openTrainPage()
        user.start("a long run")
        user.until(lambda: user.run.status.state == "running")
        user.train.runsPage.ui.runCurvesButton.click()
        return tell

    return begin


def _drawn():
    """How many steps of the curves are drawn."""
    tables = [node for node in slicer.util.getNodesByClass("vtkMRMLTableNode") if "training" in node.GetName()]
    return [node.GetNumberOfRows() for node in tables]


def test_a_scene_that_is_closed_and_opened_again_loses_nothing(user, engine_tells, annotated, application, scene):
    panel = user.train
    user.createProject("Blobs")
    user.addScene()
    folder = panel.project().path
    tell = engine_tells()
    tell(20)
    user.until(lambda: _drawn() == [20])
    scene.SetSaveToXMLString(1)
    scene.Commit()
    saved = scene.GetSceneXMLString()
    application.clear()
    assert panel.project().path == folder and len(panel.project().cases) == 2
    tell(20)
    user.until(lambda: _drawn() == [40])
    assert user.run.status.state == "running"
    assert panel.casesPage.ui.casesTree.topLevelItemCount == 2
    panel.projectSection.folder = ""
    application.clear()
    assert panel.project() is None
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(saved)
    scene.Import()
    assert panel.project().path == folder and panel.ui.pages.currentIndex == RUNS_PAGE
    tell(20)
    user.until(lambda: _drawn() == [60])
    panel.runsPage.ui.runStopButton.click()
    user.until(lambda: user.run.status.isFinal)
    assert user.run.status.state == "stopped" and user.said == []


def test_a_run_is_followed_beside_a_large_case_without_a_pause(user, engine_tells, annotated):
    import qt

    panel = user.train
    user.createProject("Blobs")
    user.addScene()
    user.addVolume(slicer.util.addVolumeFromArray(np.zeros(SHAPE, np.int16) + np.arange(512, dtype=np.int16)))
    panel.casesPage.list.select(["case-0003"])
    panel.casesPage.ui.casesOpenButton.click()
    tell, beats, timer = engine_tells(), [], qt.QTimer()
    timer.setInterval(5)
    timer.timeout.connect(lambda: beats.append(time.monotonic()))
    timer.start()
    for page in (0, 1, 2, 3, 2):
        panel.ui.pages.setCurrentIndex(page)
        telling = threading.Thread(target=tell, args=[100])
        telling.start()
        end = time.monotonic() + 0.7
        user.until(lambda end=end, telling=telling: time.monotonic() > end and not telling.is_alive())
    timer.stop()
    assert np.sort(np.diff(beats))[-3] < 0.1, "single longer ones are those of a busy machine"
