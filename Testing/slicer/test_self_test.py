"""The check of itself that the module brings along, on the MRML library; in the Qt stand-in test_panels.py runs it."""

from __future__ import annotations

import time
from unittest import TestCase

import numpy as np
import pytest
from MedMAESegmentLib import SelfTest


@pytest.fixture
def logic(monkeypatch):
    from MedMAESegmentLib.SegmentLogic import SegmentLogic

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("MedMAESegmentLib.Dependencies.ensureInstalled", lambda: None)
    return SegmentLogic()


@pytest.mark.alone
def test_it_passes_in_half_a_minute_and_leaves_nothing(logic, application):
    before, begun = application.leftovers(), time.monotonic()
    SelfTest.segmentEndToEnd(TestCase(), logic)
    assert time.monotonic() - begun < 30
    assert application.leftovers() == before and logic.jobs == []


def test_it_fails_where_a_result_lies_elsewhere(logic, monkeypatch):
    from MedMAESegmentLib import LabelImport

    moved = np.diag([1.0, 1.0, 1.0, 1.0])
    moved[0, 3] = 0.5
    right = LabelImport.ijkToRas
    monkeypatch.setattr(LabelImport, "ijkToRas", lambda node: right(node) @ moved)
    with pytest.raises(AssertionError):
        SelfTest.segmentEndToEnd(TestCase(), logic)


def test_what_is_missing_is_told_and_not_installed(monkeypatch, tmp_path):
    assert SelfTest.whatIsMissing() == ""
    (tmp_path / "requirements.txt").write_text("numpy>=99\n")
    monkeypatch.setattr(SelfTest, "requirementsFile", lambda: tmp_path / "requirements.txt")
    assert SelfTest.whatIsMissing() == "numpy"
