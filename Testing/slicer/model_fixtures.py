"""Models in a registry of its own, the part of the panel that lists them, and answers to its dialogs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from panel_fixtures import model_info

LIVER = [{"name": "background", "value": 0}, {"name": "liver", "value": 1, "color": [0.9, 0.3, 0.2], "terminology": {
    "category": ["SCT", "123037004", "Anatomical Structure"], "type": ["SCT", "10200004", "Liver"]}}]
FINDINGS = [{"name": "normal", "value": 0}, {"name": "pneumonia", "value": 1}]


@pytest.fixture(scope="session")
def scripting_models(tmp_path_factory):
    """A folder with small models that compute, made once; tests that change them change a copy."""
    folder = tmp_path_factory.mktemp("scripting-models")
    subprocess.run([sys.executable, Path(__file__).with_name("make_scripting_models.py"), folder], check=True,
                   env={**os.environ, "OMP_NUM_THREADS": "1"})
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty registry; the folder of its models."""
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


def write_model(folder, weights=b"weights", preview=None, **more):
    """A model folder that is verified as real ones are; only loading its weights would fail."""
    from medmae.config import to_json
    from medmae.files import write_json

    described = {"name": folder.name, "labels": LIVER, "created": "2026-11-20T10:00:00+00:00",
                 "training": {"cases": 12, "dataset": "made"}, "scores": {"validation": {"mean_dice": 0.912}}} | more
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "README.md").write_text(f"# {described['name']}\nfrom hospital A")
    if preview is not None:
        (folder / "preview.png").write_bytes(preview)
    write_json(folder / "model.json", to_json(model_info(
        **described, weights_sha256=hashlib.sha256(weights).hexdigest())))
    return folder


@pytest.fixture
def models(home):
    """Three models for users and an encoder."""
    write_model(home / "Liver CT", preview=a_picture())
    write_model(home / "Éponge pulmonaire", labels=FINDINGS, task="classification", scores={
        "validation": {"auc": 0.5}, "cross_validation": {"auc": 0.871}}, training={"cases": 40},
        created="2025-01-02T00:00:00+00:00")
    write_model(home / "A new one", scores={}, training={}, created="", labels=[
        {"name": "background", "value": 0},
        *({"name": f"structure with a long name {n}", "value": n} for n in range(1, 8))])
    write_model(home / "encoder", task="encoder", labels=[])
    return home


def a_picture(side=64):
    """A picture with a coloured patch."""
    import qt

    image = qt.QImage(side, side, qt.QImage.Format_RGB32)
    image.fill(qt.QColor(60, 60, 60))
    for row in range(side // 4, side // 2):
        for column in range(side // 4, side // 2):
            image.setPixelColor(row, column, qt.QColor(230, 80, 50))
    data = qt.QByteArray()
    buffer = qt.QBuffer(data)
    buffer.open(qt.QIODevice.WriteOnly)
    image.save(buffer, "PNG")
    return bytes(data)


@pytest.fixture
def section(qt_application, home, monkeypatch):
    """The section in a widget of the panel's width; `says` are the texts of messages, `answers` what is answered."""
    import qt
    import slicer
    from MedMAESegmentLib.ModelShelf import ModelShelf
    from MedMAESegmentLib.Panel.ModelSection import ModelSection

    qt_application.completeSlicerApp()
    parent = qt.QWidget()
    parent.setLayout(qt.QVBoxLayout())
    section = ModelSection(parent, ModelShelf())
    parent.resize(420, 360)
    parent.show()
    section.parent, section.says, section.confirms, section.heard = parent, [], True, []
    section.chosen.connect(section.heard.append)
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    for name in ("errorDisplay", "infoDisplay", "confirmOkCancelDisplay"):
        monkeypatch.setattr(slicer.util, name, _display(section, qt))
    yield section
    parent.close()
    parent.deleteLater()
    qt_application.processDeletions()


def _display(section, qt):
    def display(text, textFormat):
        assert textFormat == qt.Qt.PlainText, "names of strangers are not HTML"
        section.says.append(text)
        return section.confirms

    return display


@pytest.fixture
def answering(monkeypatch):
    """Let the dialogs for files, folders and names answer: answering(file=..., folder=..., target=..., name=...)."""
    import qt

    def set_them(file="", folder="", target="", name=""):
        monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_arguments: (str(file), ""))
        monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_arguments: (str(target), ""))
        monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_arguments: str(folder))
        monkeypatch.setattr(qt.QInputDialog, "getText",
                            lambda *arguments: (name(arguments[-1]) if callable(name) else name, bool(name)))

    set_them()
    monkeypatch.setattr(qt.QInputDialog, "getItem", lambda *arguments: (arguments[3][0], True))
    return set_them


def rows(section):
    """The names of the rows that are seen, in their order."""
    tree = section.ui.modelTree
    items = [tree.topLevelItem(index) for index in range(tree.topLevelItemCount)]
    return [item.text(0).split("\n")[0] for item in items if not item.isHidden()]


def item_of(section, name):
    tree = section.ui.modelTree
    return next(item for item in map(tree.topLevelItem, range(tree.topLevelItemCount))
                if item.text(0).split("\n")[0] == name)
