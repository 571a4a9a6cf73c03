"""Questions and messages. Names in them may come from strangers: every text is shown as it is, never as HTML."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import qt
import slicer

from medmae.errors import BadInput
from MedMAESegmentLib.EngineTexts import inWordsOfThePanel


def asPlainHtml(text: str) -> str:
    """HTML that shows `text` as it is, for widgets that guess whether a text is HTML."""
    return "<p style='white-space:pre-wrap'>" + escape(text) + "</p>"


def isConfirmed(text: str) -> bool:
    """Whether the user says yes."""
    return slicer.util.confirmOkCancelDisplay(text, textFormat=qt.Qt.PlainText)


def tell(text: str) -> None:
    """Say something that is no error."""
    slicer.util.infoDisplay(text, textFormat=qt.Qt.PlainText)


def tellError(text: str) -> None:
    """Say what could not be done and why."""
    slicer.util.errorDisplay(inWordsOfThePanel(text), textFormat=qt.Qt.PlainText)


@contextmanager
def errorsAreTold(failure: str) -> Iterator[None]:
    """Show what goes wrong in the block after `failure`, with a cursor that waits meanwhile."""
    with slicer.util.tryWithErrorDisplay(failure, waitCursor=True):
        try:
            yield
        except BadInput as error:
            raise BadInput(inWordsOfThePanel(str(error))) from error


def enteredText(title: str, question: str, proposal: str) -> str:
    """What the user enters, "" for nothing or cancelled."""
    answer = qt.QInputDialog.getText(slicer.util.mainWindow(), title, asPlainHtml(question), qt.QLineEdit.Normal,
                                     proposal)
    return _entered(answer).strip()


def chosenItem(title: str, question: str, items: list[str]) -> str:
    """One of `items`, "" for cancelled."""
    return _entered(qt.QInputDialog.getItem(slicer.util.mainWindow(), title, asPlainHtml(question), items, 0, False))


def fileToRead(title: str, pattern: str) -> str:
    """An existing file, "" for cancelled."""
    return _path(qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", pattern))


def fileToWrite(title: str, proposal: str, pattern: str) -> str:
    """A file that may be written, or written over; "" for cancelled."""
    return _path(qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, proposal, pattern))


def folderToRead(title: str) -> str:
    """An existing folder, "" for cancelled."""
    return _path(qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title))


def _path(answer: str | tuple[str, str]) -> str:
    return (answer[0] if isinstance(answer, tuple) else answer) or ""  # PySide gives the filter too


def _entered(answer: str | tuple[str, bool] | None) -> str:
    if isinstance(answer, tuple):  # PySide says whether it was accepted
        return answer[0] if answer[1] else ""
    return answer or ""
