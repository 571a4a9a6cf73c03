"""Texts that users see can be translated: they go through `_`, whole and with named places for what changes."""

from __future__ import annotations

import ast
import re

import pytest
from conftest import ROOT

FILES = sorted(path for path in (ROOT / "MedMAESegment").rglob("*.py"))
ERRORS = {"ValueError", "RuntimeError", "RunFailed", "RunCancelled"}


def _calls(tree, names):
    return [node for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_errors_are_told_in_the_users_language(file):
    bare = [f"{file.name}:{call.lineno}" for call in _calls(ast.parse(file.read_text("utf-8")), ERRORS)
            if call.args and isinstance(call.args[0], (ast.Constant, ast.JoinedStr))]
    assert not bare


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_translated_is_a_literal_with_named_places(file):
    for call in _calls(ast.parse(file.read_text("utf-8")), {"_"}):
        (text,) = call.args
        assert isinstance(text, ast.Constant) and isinstance(text.value, str), f"{file.name}:{call.lineno}"
        for place in re.findall(r"\{([^{}]*)\}", text.value):
            assert place.isidentifier(), f"{file.name}:{call.lineno}"


def test_places_are_filled_in_translated_texts():
    from MedMAESegmentLib.FollowedJob import describe, duration

    assert describe({"stage": "segment", "step": 3, "total": 10, "eta_s": 20}) == "Segment 3 of 10, about 20 s left"
    assert [duration(seconds) for seconds in (-1, 89, 91, 5399, 5400)] == ["0 s", "89 s", "2 min", "90 min", "1.5 h"]
