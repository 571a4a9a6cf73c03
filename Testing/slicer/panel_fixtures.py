"""Panels opened in the Qt stand-in, models to choose from, and waiting: what the tests of both panels share."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SOURCE = os.environ.get("SLICER_PYTHON_SOURCE")
NEEDS_SOURCE = [
    pytest.mark.slicer_source,
    pytest.mark.skipif(not SOURCE, reason="needs SLICER_PYTHON_SOURCE, a checkout of Slicer's Base/Python"),
]
FAKE_ENGINE = [sys.executable, str(Path(__file__).with_name("fake_engine.py"))]
BOX = np.s_[1:3, 2:5, 1:4]


@pytest.fixture(scope="session")
def qt_application(application):
    from qtapp.application import PanelApplication

    return PanelApplication(SOURCE)


@pytest.fixture
def open_panel(qt_application, monkeypatch, scene):
    """Open a module's panel; closed again after the test."""
    import slicer

    qt_application.completeSlicerApp()
    opened = []

    def open_it(name):
        panel = qt_application.open(name)
        qt_application.show(panel)
        opened.append(panel)
        return panel

    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: opened[-1].__dict__.update(shownError=text))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay",
                        lambda text, **_: bool(opened[-1].__dict__.update(question=text)))  # answers no
    yield open_it
    for panel in opened:
        panel.cleanup()
        panel.parent.close()
        panel.parent.deleteLater()
    qt_application.processDeletions()


@pytest.fixture
def answer(monkeypatch):
    """Answer questions of the panel with yes from now on, or with no."""
    import slicer

    asked = []

    def answer_them(isYes):
        monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_: asked.append(text) or isYes)
        return asked

    return answer_them


@pytest.fixture
def model(a_known_model, monkeypatch):
    """Two models in the list: one that segments, one encoder."""
    import medmae.models

    labels = [{"name": "background", "value": 0}, {"name": "left", "value": 1}, {"name": "right", "value": 2}]
    both = [("Abdomen", model_info("Abdomen", labels=labels, training={"cases": 4})),
            ("CT encoder", model_info("CT encoder", task="encoder"))]
    monkeypatch.setattr(medmae.models, "list_models", lambda: both)
    monkeypatch.setattr(medmae.models, "survey_models", lambda: (both, []))


def model_info(name, task="segmentation", labels=(), modality="CT", **more):
    """What a model with one channel says of itself."""
    from medmae.models import ModelInfo

    architecture = {"name": "unetr", "arguments": {"channels": 1, "classes": len(labels)}}
    return ModelInfo(name=name, task=task, method="gl-mae", preset="tiny", architecture=architecture, spatial_dims=3,
                     channels=[{"name": modality, "modality": modality}], input_size=[48, 48, 48], labels=list(labels),
                     modality=modality, **more)


@pytest.fixture
def result_file(labels_file):
    """What the worker answers: a segment "left"."""
    return lambda volume: labels_file(volume, [BOX])


def until(qt_application, condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        qt_application.application.processEvents()
        time.sleep(0.005)
