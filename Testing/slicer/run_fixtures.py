"""Run folders as the engine, the logic and the follower of other computers leave them, and the page that shows them."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from medmae.run_folder import process_start

SECONDS_AGO = 600


class Runs:
    """Writes runs into MedMAE's folder; each is started a minute after the one before it."""

    def __init__(self):
        self.count = 0

    def add(self, name, state="done", *, kind="finetune", task=None, project=None, steps=40, total=40, model=None,
            config=None, reason=None, remedy=None, score="validation_dice", log="", waits=False):
        from MedMAETrainLib.RunRequest import RunRequest, writeRequest
        from MedMAETrainLib.RunStatus import WAITING_MARK

        from medmae.home import runs_folder
        from medmae.run_folder import RunFolder

        self.count += 1
        run = RunFolder.create(runs_folder() / f"{kind}-{self.count:04d}", kind,
                               config or {"method": "gl-mae", "steps": total, "seed": self.count}, {"encoder": "none"})
        started = datetime.now(UTC) - timedelta(seconds=60 * (500 - self.count))
        writeRequest(run.path, RunRequest(name, task or ("pretraining" if kind == "pretrain" else "segmentation"),
                                          project, started.isoformat(timespec="milliseconds"), model,
                                          told=state == "done"))
        if log:
            run.log_file.write_text(log)
        self.train(run, steps, total, score)
        if state != "queued":
            run.write_state(state=state, step=steps, total=total, reason=reason, remedy=remedy)
        if state in ("stopped", "failed"):
            run.checkpoints.mkdir()
            (run.checkpoints / "step-10.pt").touch()
        if waits:
            (run.path / WAITING_MARK).touch()
        return run

    def train(self, run, steps, total, score="validation_dice", start=0):
        """Progress as the engine writes it."""
        for step in range(start + 1, steps + 1):
            record = {"step": step, "total": total, "seconds": 0.5 * step, "eta_s": 0.5 * (total - step), "lr": 1e-4,
                      "loss": 1.5 / (1 + step / 10)}
            if score and step % 10 == 0:
                record[score] = min(0.5 + step / 100, 0.83) - (0.02 if step == total else 0)
                record["validation_cases"] = [{"case": "case-0002", "dice": 0.4}, {"case": "case-0001", "dice": 0.9}]
            run.append_progress(record)

    def addRemote(self, name, state, *, target="gpu-box", reason=None, seen=True, steps=0, total=40):
        """The mirror of a run on another computer, as it was last seen."""
        from MedMAETrainLib.RunRequest import RunRequest, writeRequest

        from medmae.files import write_json
        from medmae.home import runs_folder
        from medmae.jobs.job import Job
        from medmae.jobs.target import Target
        from medmae.run_folder import RunFolder

        self.count += 1
        job = Job(f"20261122-0{self.count:05d}-finetune-00ab", name, "finetune",
                  Target(target, "ssh", host="gpu.example", folder="~/medmae"), time.time(),
                  folder="/home/somebody/medmae/runs/x")
        run = RunFolder(runs_folder() / job.id)
        run.path.mkdir(parents=True)
        job.save()
        write_json(run.spec_file, {"medmae": "", "kind": "finetune", "config": {}, "inputs": {}})
        write_json(run.path / "submission.json", {"stage": "done"})
        write_json(run.path / "cases.json", {"cases": {"case-0001": {"id": "case-0007", "images": []},
                                                       "case-0002": {"id": "case-0009", "images": []}}, "subjects": {}})
        started = datetime.now(UTC) - timedelta(seconds=60 * (500 - self.count))
        writeRequest(run.path, RunRequest(name, "segmentation", None, started.isoformat(timespec="milliseconds")))
        if steps:
            self.train(run, steps, total)
        last = state if state != "unreachable" else "running"
        write_json(run.path / "status.json", {
            "state": last, "stage": "train", "step": steps, "total": total, "eta_s": 60.0, "reason": reason,
            "seen": time.time() - SECONDS_AGO if seen else None})
        return run


@pytest.fixture(name="runs")
def runs_fixture(home):
    """Runs in a folder of their own."""
    return Runs()


@pytest.fixture(name="page")
def page_fixture(qt_application, runs, scene, monkeypatch):
    """The page in a widget of the panel's width, with the real logic; `page.project` is the project that is open."""
    import qt
    import slicer
    from MedMAETrainLib.Panel.RunsPage import RunsPage
    from MedMAETrainLib.TrainLogic import TrainLogic

    qt_application.completeSlicerApp()
    parent = qt.QWidget()
    parent.setLayout(qt.QVBoxLayout())
    logic, current = TrainLogic(), {"project": None}
    page = RunsPage(parent, logic, lambda: current["project"])
    page.parent, page.logic, page.current, page.says, page.confirms, page.heard = parent, logic, current, [], True, []
    page.openCase.connect(page.heard.append)
    page.useModel.connect(page.heard.append)
    parent.resize(420, 700)
    parent.show()
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    for name in ("errorDisplay", "infoDisplay", "confirmOkCancelDisplay"):
        monkeypatch.setattr(slicer.util, name, _display(page, qt))
    problems = []
    monkeypatch.setattr(sys, "excepthook", lambda _kind, error, _traceback: problems.append(error))  # of Qt's callbacks
    yield page
    page.cleanup()
    for job in list(logic.jobs):
        job.stopFollowing()
    logic.closeProjects()
    parent.close()
    parent.deleteLater()
    qt_application.processDeletions()
    assert problems == []


def _display(page, qt):
    def display(text, textFormat):
        assert textFormat == qt.Qt.PlainText, "names of strangers are not HTML"
        page.says.append(text)
        return page.confirms

    return display


@pytest.fixture(name="project")
def project_fixture(page, tmp_path, make_volume):
    """An open project with two cases."""
    project = page.logic.createProject(tmp_path / "project", "Livers")
    for number in range(2):
        project.addCase(make_volume((6 + number, 8, 10), name=f"CT of <b>{number}</b>"))
    page.current["project"] = project
    return project


def alive(run, state="running", **more):
    """Say in a run's folder that this process computes it."""
    run.write_state(state=state, pid_start=process_start(os.getpid()), **more)


def settle(page, qt_application, turns=200):
    """Bring the page up to date, and let it read and show all."""
    page.update()
    for _turn in range(turns):
        qt_application.application.processEvents()
        if not page._readTimer.isActive() and not page.table._timer.isActive():
            return
    raise AssertionError("it reads on and on")


def select(page, qt_application, *names):
    """Select runs by their names, as a user does."""
    settle(page, qt_application)
    page.ui.runsTable.clearSelection()
    for row, entry in enumerate(page.table.entries):
        if entry.name in names:
            for column in range(4):
                page.ui.runsTable.item(row, column).setSelected(True)
    settle(page, qt_application)
    assert {entry.name for entry in page.table.selection} == set(names)


def write_samples(run, steps, wide=512):
    """Pictures as the engine draws them while it trains: three parts side by side."""
    import qt

    run.samples.mkdir(exist_ok=True)
    for step in steps:
        image = qt.QImage(wide, wide // 3, qt.QImage.Format_RGB32)
        for part, grey in enumerate((40, 90, 140)):
            painter = qt.QPainter(image)
            painter.fillRect(part * wide // 3, 0, wide // 3, wide // 3, qt.QColor(grey, grey, min(grey + step, 255)))
            painter.end()
        image.save(str(run.sample_file(step)))
