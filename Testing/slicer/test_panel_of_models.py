"""The part of the panel in which a model is chosen, on models in a registry of its own."""

from __future__ import annotations

import pytest
from panel_fixtures import NEEDS_SOURCE

pytestmark = NEEDS_SOURCE


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty registry; the folder of its models."""
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


@pytest.fixture
def section(qt_application, home, monkeypatch):
    """The section in a widget of the panel's width."""
    import qt
    from MedMAESegmentLib.ModelShelf import ModelShelf
    from MedMAESegmentLib.Panel.ModelSection import ModelSection

    qt_application.completeSlicerApp()
    parent = qt.QWidget()
    parent.setLayout(qt.QVBoxLayout())
    section = ModelSection(parent, ModelShelf())
    parent.resize(420, 330)
    parent.show()
    section.parent = parent
    yield section
    parent.close()
    parent.deleteLater()
    qt_application.processDeletions()


def test_without_models_it_says_what_to_do(section):
    section.update()
    assert section.ui.modelEmptyLabel.visible and not section.ui.modelTree.visible
    assert "No models yet" in section.ui.modelEmptyLabel.text
    assert section.name == "" and section.info is None
