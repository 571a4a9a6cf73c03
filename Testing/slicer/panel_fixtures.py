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
LABELS = [{"name": "background", "value": 0}, {"name": "left", "value": 1, "color": (1.0, 0.0, 0.0)},
          {"name": "right", "value": 2, "color": (0.0, 0.0, 1.0)}]


@pytest.fixture(scope="session")
def qt_application(application, tmp_path_factory):
    from qtapp.application import PanelApplication

    made = PanelApplication(SOURCE)
    settings = made.qt.QSettings  # those of who runs the tests are neither read nor written
    settings.setPath(settings.NativeFormat, settings.UserScope, str(tmp_path_factory.mktemp("settings")))
    made.heavyBefore = {"torch", "monai"} & set(sys.modules)  # of tests of the engine, where they are collected as well
    return made


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
def agree(monkeypatch):
    """Answer questions of the panel with yes from now on, or with no; gives the list of those that are asked."""
    import slicer

    def agree_to_them(isYes):
        asked = []
        monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_: asked.append(text) or isYes)
        return asked

    return agree_to_them


@pytest.fixture
def model(installed):
    """Two models in the list: one that segments, one encoder."""
    installed(model_info("Abdomen", labels=LABELS, training={"cases": 4}, weights_sha256="0" * 64),
              model_info("CT encoder", task="encoder"))


def model_info(name, task="segmentation", labels=(), modality="CT", channels=None, **more):
    """What a model says of itself; `channels` are their names, of one channel the modality."""
    from medmae.datasets.preprocessing import Preprocessing
    from medmae.models import ModelInfo
    from medmae.volumes import default_intensity

    channels = [{"name": channel, "modality": modality} for channel in channels or [modality]]
    architecture = {"name": "unetr", "arguments": {"channels": len(channels), "classes": len(labels)}}
    preprocessing = Preprocessing(spatial_dims=3, orientation="RAS", spacing_mm=None, input_size=(48, 48, 48),
                                  channels=len(channels), intensity=(default_intensity("CT"),) * len(channels))
    return ModelInfo(name=name, task=task, method="gl-mae", preset="tiny", architecture=architecture,
                     channels=channels, labels=list(labels), modality=modality,
                     **{**preprocessing.model_fields(), **more})


@pytest.fixture
def installed(monkeypatch):
    """Say which models are installed: installed(info, info)."""
    import medmae.models

    def install(*infos):
        entries = [(info.name, info) for info in infos]
        monkeypatch.setattr(medmae.models, "list_models", lambda: entries)
        monkeypatch.setattr(medmae.models, "survey_models", lambda: (entries, []))
        monkeypatch.setattr(medmae.models, "resolve_model", lambda name: Path("/models") / str(name))
        monkeypatch.setattr(medmae.models, "load_info", lambda path: dict(entries)[path.name])

    return install


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
