"""The findings of a check of another computer, each with what to do about it; a new host key is shown and asked for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import qt
from MedMAESegmentLib.Application import newTimer
from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.EngineTexts import inWordsOfThePanel
from MedMAESegmentLib.Panel import Dialogs as dialogs
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from medmae.errors import BadInput
from medmae.jobs import known_hosts
from medmae.jobs.check import Check
from medmae.jobs.checks import findings
from medmae.jobs.problems import TargetProblem
from medmae.jobs.target import Target

LOOK_EVERY_MS = 100
_log = logging.getLogger(__name__)
UNKNOWN_KEY = "unknown host key"


class TargetCheck:
    """Checks a target in a thread and shows the findings as they come; ``changed()`` comes when it begins or ends.

    Attributes:
        findings: of the last check.
        isReady: whether runs can be computed there; None: not known.
    """

    def __init__(self) -> None:
        self.changed = Signal()
        self.findings: list[Check] = []
        self.isReady: bool | None = None
        self._target: Target | None = None
        self._found: list[Check] = []  # filled by the thread
        self._then: Callable[[Any], None] = lambda _result: None
        self._task: BackgroundTask[Any] | None = None
        self._timer = newTimer()
        self._timer.setInterval(LOOK_EVERY_MS)
        self._timer.timeout.connect(self._onTimer)
        self.widget = qt.QWidget()
        self.label = qt.QLabel()
        self.label.setTextFormat(qt.Qt.PlainText)
        self.label.setWordWrap(True)
        self.text = qt.QTextBrowser()  # so that commands in it can be copied
        self.text.openLinks = False
        layout = qt.QVBoxLayout()
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.label)
        layout.addWidget(self.text)
        self.widget.setLayout(layout)
        self.clear()

    @property
    def isBusy(self) -> bool:
        """Whether a check is under way."""
        return self._task is not None

    def clear(self) -> None:
        """Show no findings."""
        self.stop()
        self.findings, self.isReady = [], None
        self._show()
        self.say("")

    def say(self, text: str) -> None:
        """Say something above the findings."""
        self.label.text, self.label.visible = text, bool(text)

    def start(self, target: Target) -> None:
        """Check a target."""
        self.clear()
        self._target, self._found = target, []
        found = self._found
        stopped = self._stopped = threading.Event()

        def work() -> None:
            for finding in findings(target):
                if stopped.is_set():
                    return
                found.append(finding)

        self.say(_("Checking {name}…").format(name=target.name))
        self._run(work, lambda _result: self._onChecked())

    def do(self, text: str, work: Callable[[], Any], told: Callable[[Any], str]) -> None:
        """Do something else on a target in the thread; `told` says of what `work` gives what is shown."""
        self.clear()
        self._found, self._stopped = [], threading.Event()
        self.say(text)
        self._run(work, lambda result: self.say(told(result)))

    def stop(self) -> None:
        """Wait for nothing any more; what is under way ends by itself."""
        if self._task is None:
            return
        self._stopped.set()
        self._task = None
        self._timer.stop()
        self.say(_("Cancelled."))
        self.changed.emit()

    def _run(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        self._task, self._then = BackgroundTask(work), then
        self._timer.start()
        self.changed.emit()

    def _onTimer(self) -> None:
        new = self._found[len(self.findings):]
        if new:
            self.findings += new
            self._show()
        task = self._task
        if task is None or not task.isOver:
            return
        self._task = None
        self._timer.stop()
        try:
            self._then(task.result())
        except (TargetProblem, BadInput, OSError) as error:
            self.isReady = False
            self.say(inWordsOfThePanel(str(error)))
        except (LookupError, TypeError, ValueError) as error:
            _log.warning("An answer could not be understood", exc_info=True)
            self.isReady = False
            self.say(_("The answer makes no sense ({problem}). Try again; if that does not help, choose another folder "
                       "there.").format(problem=f"{type(error).__name__}: {error}"))
        self.changed.emit()

    def _onChecked(self) -> None:
        self._onTimer()  # findings that came with the end
        target = self._target
        assert target is not None
        if any(finding.code == UNKNOWN_KEY for finding in self.findings):
            self.say(_("Asking {name} for its host key…").format(name=target.name))
            self._run(lambda: known_hosts.scan(target), self._onKeys)
            return
        self.isReady = all(finding.outcome != "failed" for finding in self.findings)
        self.say((_("{name} is ready.") if self.isReady else _("{name} is not ready yet: mend what failed, and check "
                                                               "again.")).format(name=target.name))

    def _onKeys(self, keys: Sequence[known_hosts.HostKey]) -> None:
        """Ask about the host's keys. They are never accepted without a yes."""
        target = self._target
        assert target is not None
        self.isReady = False
        shown = "\n".join(f"{key.fingerprint} ({key.type})" for key in keys)
        if not dialogs.isConfirmed(_(
                "{host} is not known yet; it may be another computer in its place. It shows:\n\n{keys}\n\nAsk its "
                "administrator for the fingerprint, on another way than this one. Is it one of these, and do you "
                "accept this computer?").format(host=target.host, keys=shown)):
            self.say(_("The host key of {name} was not accepted. Nothing was sent.").format(name=target.name))
            return
        known_hosts.accept(target, keys)
        self.start(target)

    def _show(self) -> None:
        self.text.visible = bool(self.findings)
        self.text.setHtml("<table cellpadding='4'>" + "".join(map(_row, self.findings)) + "</table>")


def _row(finding: Check) -> str:
    """A finding as a row of a table; what the other side says is shown as it is."""
    mark, color = {"ok": ("✓", "#2e7d32"), "warning": ("!", "#b26a00"), "failed": ("✗", "#c62828")}[finding.outcome]
    remedy = f"<br><b>{escape(_('To do:'))}</b> {escape(inWordsOfThePanel(finding.remedy))}" if finding.remedy else ""
    return (f"<tr><td style='color:{color}'><b>{mark}</b></td><td><b>{escape(finding.name)}</b></td>"
            f"<td>{escape(inWordsOfThePanel(finding.finding))}{remedy}</td></tr>")
