"""What the engine says to users of the shell is told to users of the panels in their words."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from MedMAESegmentLib.BatchCase import BatchCase, CaseBook
from MedMAESegmentLib.EngineTexts import inWordsOfThePanel
from MedMAESegmentLib.FileErrors import explained
from MedMAESegmentLib.FollowedJob import RunFailed

from medmae.errors import BadInput

ENGINE = Path(__file__).resolve().parents[2] / "medmae"
REACHES_PANELS = ("active_learning", "finetuning", "inference", "jobs", "models", "networks", "pretraining", "training",
                  "worker", "folder_lock.py", "run.py", "run_folder.py")
SHELL = re.compile(r"\bmedmae [a-z]|(?<![\w-])--(?!(?:mem|constraint|array|nv)\b)[a-z]|memory limit")
NOT_SHOWN = ("card.py", "monai_bundle_files.py", "launching.py")  # instructions for the shell, and a script for it


def messages():
    """Every text of the engine with a space in it that names a command or an option; values in it are "x1"."""
    for root in REACHES_PANELS:
        path = ENGINE / root
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            if file.name not in NOT_SHOWN:
                yield from (text for text in _texts(ast.parse(file.read_text())) if SHELL.search(text))


def _texts(tree):
    parts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(value) for value in node.values}
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            parts.add(id(node.body[0].value))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "x1" for part in node.values)
        elif (isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts
              and " " in node.value):
            yield node.value


def test_no_text_of_the_engine_names_a_command_or_an_option_in_a_panel():
    found = sorted(set(messages()))
    assert len(found) > 80, "they are found"
    told = {text: inWordsOfThePanel(text) for text in found}
    assert {text: words for text, words in told.items() if SHELL.search(words)} == {}
    assert not [words for words in told.values() if "  " in words or words.endswith(" ") and "x1" not in words[-6:]
                and ": " not in words[-3:]]


@pytest.mark.parametrize(("text", "words"), [
    ("Stopped at step 3 of 9, as asked. Continue with --resume.", "Stopped at step 3 of 9, as asked. Resume the run."),
    ("Check free disk space and permissions, then: medmae job resume 20261122-x-1",
     "Check free disk space and permissions, then resume the run"),
    ("Go on with it (medmae job resume a-1), or wait.", "Resume the run, or wait."),
    ("Check the name, or install it with: medmae model install FOLDER.",
     "Check the name, or import it in MedMAE Segment: Manage, Import."),
    ("Choose another name (--name), or replace it (--replace).", "Choose another name, or replace it."),
    ("Ask for fewer: medmae target add hal --replace --gpus N (0: computes without).",
     "Ask for fewer: edit it in the list Computers of MedMAE Train: “Graphics cards” (0: computes without)."),
    ("Use --device auto or cpu, or check the driver.", "Use “Compute on: auto or cpu”, or check the driver."),
    ("Look into its log: medmae job logs a-1", "Look into its log, in the tab Runs of MedMAE Train"),
    ("such as --mem=64G or --constraint=\"a100\".", "such as --mem=64G or --constraint=\"a100\"."),
    ("The disk is full -- make room.", "The disk is full -- make room."),
    ("", ""), (None, None)])
def test_commands_become_what_is_clicked(text, words):
    assert inWordsOfThePanel(text) == words


def test_whatever_tells_of_a_failure_tells_it_in_these_words():
    text = "No model named x is installed. See: medmae model list."
    words = "No model named x is installed. See the list of models."
    assert str(RunFailed(text)) == explained(BadInput(text)) == words
    book = CaseBook([BatchCase("one")])
    book.note(0, state="failed", message=text)
    assert book.cases[0].message == words
