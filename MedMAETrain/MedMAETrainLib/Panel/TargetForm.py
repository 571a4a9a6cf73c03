"""The form in which another computer is described."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt
import slicer
from MedMAESegmentLib.EngineTexts import inWordsOfThePanel
from slicer.i18n import tr as _

from medmae.config import from_json, to_json
from medmae.errors import BadInput
from medmae.jobs.target import Target

KINDS = ("ssh", "slurm", "local")
_ENVIRONMENTS = ("venv", "python")
_TEXTS = ("host", "folder", "python", "partition", "account", "time")
_LINES = ("preamble", "sbatch")
_ONLY_SLURM = ("nodes", "cpus", "partition", "account", "time", "sbatch")


def kindName(kind: str) -> str:
    """A kind of target, for people."""
    return {"ssh": _("over SSH"), "slurm": _("Slurm cluster"), "local": _("this computer, in the background")}[kind]


class TargetForm:
    """Asks for everything that a target is described by; `target` is what was described, after `ask` said yes.

    What the form does not show (containers, a folder of wheels) stays as it was.
    """

    def __init__(self, target: Target | None, taken: Sequence[str]) -> None:
        """`target` is changed; None: a new one, with none of the names that are `taken`."""
        self.target = target or Target("new", "ssh", "new")
        self._isNew, self._taken = target is None, taken
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = _("Add a computer") if self._isNew else _("Edit a computer")
        self.dialog.resize(460, 100)
        self.form = qt.QFormLayout()
        self.form.setFieldGrowthPolicy(qt.QFormLayout.AllNonFixedFieldsGrow)
        self.fields: dict[str, Any] = {}
        self._labels: dict[str, qt.QLabel] = {}
        self._addFields()
        self.problemLabel = qt.QLabel()
        self.problemLabel.setTextFormat(qt.Qt.PlainText)
        self.problemLabel.setWordWrap(True)
        self.okButton, self.cancelButton = qt.QPushButton(_("OK")), qt.QPushButton(_("Cancel"))
        self.okButton.clicked.connect(self.onOk)
        self.cancelButton.clicked.connect(self.onCancel)
        buttons = qt.QHBoxLayout()
        buttons.addStretch(1)
        buttons.addWidget(self.okButton)
        buttons.addWidget(self.cancelButton)
        layout = qt.QVBoxLayout()
        layout.addLayout(self.form)
        layout.addWidget(self.problemLabel)
        layout.addLayout(buttons)
        self.dialog.setLayout(layout)
        self.okButton.setDefault(True)
        self.fields["kind"].currentIndexChanged.connect(lambda _index: self._showFields())
        self.fields["environment"].currentIndexChanged.connect(lambda _index: self._showFields())
        self._fill()

    def ask(self) -> bool:
        """Open the form; whether the user says yes to what can be a target."""
        isAccepted = bool(self.dialog.exec())
        self.dialog.deleteLater()
        return isAccepted

    def onOk(self, clicked: bool = False) -> None:
        """Accept what was entered, or say what is wrong with it."""
        try:
            self.target = self._entered()
        except (BadInput, ValueError) as error:
            self._say(inWordsOfThePanel(str(error)))
        else:
            self.dialog.accept()

    def onCancel(self, clicked: bool = False) -> None:
        """Change nothing."""
        self.dialog.reject()

    def _addFields(self) -> None:
        self._add("name", _("Name:"), qt.QLineEdit(), _("What you call it."))
        self._add("kind", _("Kind:"), qt.QComboBox(), _("How it is reached, and how runs are started there."))
        self.fields["kind"].addItems([kindName(kind) for kind in KINDS])
        self._add("host", _("Host:"), qt.QLineEdit(), _(
            "As you would type it after ssh: a name of your ssh configuration, or user@address. Ports, keys and jump "
            "hosts are those of your ssh configuration. Empty for the cluster whose login node this computer is."))
        self._add("folder", _("Folder:"), qt.QLineEdit(), _(
            "For everything of MedMAE there; below your home folder there, or a whole path."))
        self._add("environment", _("Packages:"), qt.QComboBox(), _("Where PyTorch and the others come from there."))
        self.fields["environment"].addItems([_("installed by MedMAE, once (8 GB)"), _("those of the Python below")])
        self._add("python", _("Python:"), qt.QLineEdit(), _("A Python there, 3.11 or newer."))
        self._add("preamble", _("Before it:"), qt.QPlainTextEdit(), _(
            "Lines of sh before everything, such as: module load python/3.11"))
        self._add("gpus", _("Graphics cards:"), _number(0, 64), _(
            "How many a run uses; 0: it computes on the processor."))
        self._add("nodes", _("Nodes:"), _number(1, 1000), _("How many computers of the cluster a run uses."))
        self._add("cpus", _("Cores:"), _number(0, 1024, _("as the cluster gives")), _("Processor cores on each node."))
        self._add("partition", _("Partition:"), qt.QLineEdit(), _("Of the cluster; empty: its default."))
        self._add("account", _("Account:"), qt.QLineEdit(), _("What the time is charged to; empty: your default."))
        self._add("time", _("Time limit:"), qt.QLineEdit(), _(
            "Of one go, such as 1-12:00:00. A run that needs longer is put back into the queue and goes on."))
        self._add("sbatch", _("More options:"), qt.QPlainTextEdit(), _(
            "Further lines for Slurm, such as: --mem=64G"))
        for key in _LINES:
            self.fields[key].setFixedHeight(46)

    def _add(self, key: str, text: str, field: Any, tip: str) -> None:
        label = qt.QLabel(text)
        label.setToolTip(tip)
        field.setToolTip(tip)
        self.fields[key], self._labels[key] = field, label
        self.form.addRow(label, field)

    def _fill(self) -> None:
        target, fields = self.target, self.fields
        fields["name"].text = "" if self._isNew else target.name
        fields["name"].readOnly = not self._isNew  # jobs remember it by its name
        for key in _TEXTS:
            fields[key].text = "" if self._isNew and key == "host" else getattr(target, key) or ""
        for key in _LINES:
            fields[key].setPlainText("\n".join(getattr(target, key)))
        fields["kind"].setCurrentIndex(KINDS.index(target.kind))
        fields["environment"].setCurrentIndex(_ENVIRONMENTS.index(target.environment))
        fields["gpus"].setValue(target.gpus)
        fields["nodes"].setValue(target.nodes)
        fields["cpus"].setValue(target.cpus or 0)
        fields["host"].placeholderText = _("me@gpu-box.example.org")
        fields["time"].placeholderText = _("none")
        self._showFields()

    def _showFields(self) -> None:
        kind = KINDS[self.fields["kind"].currentIndex]
        for key in _ONLY_SLURM:
            self._setVisible(key, kind == "slurm")
        self._setVisible("host", kind != "local")
        self._say("")

    def _setVisible(self, key: str, isVisible: bool) -> None:
        self._labels[key].visible = self.fields[key].visible = isVisible

    def _say(self, text: str) -> None:
        self.problemLabel.text, self.problemLabel.visible = text, bool(text)
        self.dialog.adjustSize()

    def _entered(self) -> Target:
        """What the form says.

        :raises ValueError, medmae.errors.BadInput: it cannot be a target.
        """
        fields = self.fields
        name, kind = fields["name"].text.strip(), KINDS[fields["kind"].currentIndex]
        if not name:
            raise ValueError(_("Give the computer a name."))
        if self._isNew and name in self._taken:
            raise ValueError(_("There is a computer called {name} already. Choose another name.").format(name=name))
        given: dict[str, Any] = {key: fields[key].text.strip() or None for key in _TEXTS}
        if kind == "ssh" and not given["host"]:
            raise ValueError(_("Give the host, as you would type it after ssh."))
        given |= {key: [line.strip() for line in str(fields[key].toPlainText()).splitlines() if line.strip()]
                  for key in _LINES}
        given |= {"gpus": fields["gpus"].value, "nodes": fields["nodes"].value, "cpus": fields["cpus"].value or None,
                  "environment": _ENVIRONMENTS[fields["environment"].currentIndex]}
        usual = Target("usual")
        hidden = (() if kind == "slurm" else _ONLY_SLURM) + (("host",) if kind == "local" else ())
        given |= {key: getattr(usual, key) for key in (*hidden, *(key for key in ("folder", "python")
                                                                  if not given[key]))}
        facts = {**to_json(self.target), **given, "name": name, "kind": kind}
        return from_json(Target, facts, _("description of the computer"))


def _number(least: int, most: int, ofZero: str = "") -> qt.QSpinBox:
    field = qt.QSpinBox()
    field.setRange(least, most)
    field.setSpecialValueText(ofZero)
    return field
