"""A double click on a button that starts and then cancels starts, as a click does."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest


def click(button):
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def doubleClick(button):
    """What a mouse sends: press, release, double click in place of the second press, release."""
    click(button)
    QTest.mouseDClick(button, Qt.MouseButton.LeftButton)
    QTest.mouseRelease(button, Qt.MouseButton.LeftButton)


@pytest.fixture
def panel(open_panel, make_volume, model, fake_worker, work_plan):
    """The panel with one volume and a model that computes for a minute."""
    make_volume(name="one")
    work_plan("work=60")
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    return panel


def test_a_double_click_starts_a_segmentation_and_a_click_cancels_it(panel):
    page = panel._volumePage
    doubleClick(panel.ui.segmentButton)
    assert page.isBusy and panel.ui.segmentButton.text == "Cancel"
    doubleClick(panel.ui.segmentButton)
    assert not page.isBusy and panel.ui.segmentButton.text == "Segment", "and does not start another"
    click(panel.ui.segmentButton)
    assert page.isBusy
    click(panel.ui.segmentButton)
    assert not page.isBusy and panel.ui.statusLabel.text == "Cancelled."


def test_a_double_click_starts_a_batch_and_a_click_cancels_it(panel):
    page = panel._batchPage
    doubleClick(page.ui.batchButton)
    assert page.isBusy and page.ui.batchButton.text == "Cancel"
    click(page.ui.batchButton)
    assert not page.isBusy and page.ui.batchButton.text == "Segment all"
