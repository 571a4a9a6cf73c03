"""The part of the panel that chooses the Python and shows what the doctor says."""

from __future__ import annotations

import sys

import pytest
import slicer
from panel_fixtures import until

CHECKS = ('{"medmae": "0.1.0", "ready": %s, "checks": '
          '[{"name": "torch", "outcome": "%s", "finding": "2.8", "remedy": ""}]}')


@pytest.fixture
def panel(open_panel, tmp_path, monkeypatch):
    """The panel with settings of its own, and a Python that `choose` makes ready or not."""
    import qt

    file = str(tmp_path / "Slicer.ini")
    settings = qt.QSettings
    monkeypatch.setattr(qt, "QSettings", lambda: settings(file, settings.IniFormat))
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    program = tmp_path / "python"

    def choose(ready):
        program.write_text(f"#!/bin/sh\necho '{CHECKS % (('true', 'ok') if ready else ('false', 'failed'))}'\n")
        program.chmod(0o755)
        monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_arguments: (str(program), ""))
        panel._pythonPanel.ui.anotherPythonButton.click()

    panel = open_panel("MedMAESegment")
    panel.ui.pythonCollapsibleButton.collapsed = False
    panel.program, panel.choose = str(program), choose
    return panel


def test_slicers_own_python_computes_until_another_is_chosen(panel):
    assert panel._pythonPanel.ui.pythonLabel.text == "Slicer's own"
    assert not panel._pythonPanel.ui.slicersPythonButton.enabled
    panel.choose(ready=True)
    assert panel._pythonPanel.ui.pythonLabel.text == panel.program
    assert "MedMAE can compute with this Python." in panel._pythonPanel.ui.doctorText.toPlainText()
    panel._pythonPanel.ui.slicersPythonButton.click()
    assert panel._pythonPanel.ui.pythonLabel.text == "Slicer's own"


def test_the_choice_is_there_when_the_panel_is_opened_again(panel, open_panel):
    panel.choose(ready=True)
    assert open_panel("MedMAESegment")._pythonPanel.ui.pythonLabel.text == panel.program


def test_a_python_that_cannot_compute_is_refused_with_the_reason(panel):
    panel.choose(ready=False)
    with pytest.raises(ValueError, match="cannot compute with .*\ntorch: 2.8"):
        panel._pythonPanel.onAnotherPython()
    assert panel._pythonPanel.ui.pythonLabel.text == "Slicer's own"


def test_the_doctor_examines_slicers_own_python_and_its_answer_is_shown(panel, qt_application):
    panel._pythonPanel.ui.doctorButton.click()
    until(qt_application, lambda: panel._pythonPanel.ui.doctorButton.enabled)
    assert panel._pythonPanel.ui.doctorText.toPlainText().startswith(f"Python: {sys.executable}")
    assert "numpy" in panel._pythonPanel.ui.doctorText.toPlainText()
