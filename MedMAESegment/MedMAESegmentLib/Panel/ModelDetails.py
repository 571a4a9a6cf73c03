"""The dialog that tells everything about a model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedMAESegmentLib.Panel import ModelFacts as facts

_DEEPEST = 3  # levels of lists in lists that are made readable
_LONGEST = 2000  # characters of one value: a stranger's model may say anything


class ModelDetails:
    """A dialog with tabs "Model" and "README", whose text can be selected; `dialog` is the QDialog.

    >>> ModelDetails("liver", info, folder, readme).dialog.exec()
    """

    def __init__(self, name: str, info: Any, folder: Path, readme: str) -> None:
        self._citation = info.citation
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = _("Model {name}").format(name=name)
        self.dialog.resize(560, 620)
        self.text = qt.QTextBrowser()
        self.text.openLinks = False
        self.text.setHtml(detailsHtml(name, info, folder))
        self.readme = qt.QPlainTextEdit()
        self.readme.readOnly = True
        self.readme.setPlainText(readme or _("This model has no README."))
        self.tabs = qt.QTabWidget()
        self.tabs.addTab(self.text, _("Model"))
        self.tabs.addTab(self.readme, _("README"))
        self.copyButton = qt.QPushButton(_("Copy citation"))
        self.copyButton.enabled = bool(self._citation)
        self.copyButton.toolTip = (_("Copy what to cite when you use this model.") if self._citation
                                   else _("This model names no work to cite."))
        self.copyButton.clicked.connect(self.onCopy)
        self.closeButton = qt.QPushButton(_("Close"))
        self.closeButton.clicked.connect(self.onClose)
        buttons = qt.QHBoxLayout()
        buttons.addWidget(self.copyButton)
        buttons.addStretch(1)
        buttons.addWidget(self.closeButton)
        layout = qt.QVBoxLayout()
        layout.addWidget(self.tabs)
        layout.addLayout(buttons)
        self.dialog.setLayout(layout)
        self.closeButton.setDefault(True)

    def show(self) -> None:
        """Open the dialog until the user closes it."""
        self.dialog.exec()
        self.dialog.deleteLater()

    def onCopy(self, clicked: bool = False) -> None:
        """Put the citation on the clipboard."""
        slicer.app.clipboard().setText(self._citation)

    def onClose(self, clicked: bool = False) -> None:
        """Close the dialog."""
        self.dialog.accept()


def detailsHtml(name: str, info: Any, folder: Path) -> str:
    """Everything that a model says about itself, as HTML with nothing of a stranger's in it."""
    score = facts.score(info)
    parts = [f"<h3>{escape(name)}</h3>", _table([
        (_("Score"), score.text if score else _("none yet")),
        (_("Modality"), facts.modality(info) or _("not stated")),
        (_("Made"), (facts.date(info) or _("date not known")) + (f" (MedMAE {info.medmae})" if info.medmae else "")),
        (_("Licence"), info.licence or _("not stated")),
        (_("Citation"), info.citation or _("none")),
    ])]
    if info.labels:
        title = _("Segments") if info.task == "segmentation" else _("Classes")
        parts += [_heading(title), _labels(info)]
    parts += [_heading(_("Image that the model sees")), _table(_input(info))]
    if info.training:
        rows = [(_readable(key), _value(value)) for key, value in info.training.items() if key != "ranges"]
        parts += [_heading(_("Training")), _table(rows + _ranges(info.training.get("ranges")))]
    for title, figures in info.scores.items():
        if isinstance(figures, dict):
            heading = _("Scores: {list}").format(list=_readable(title))
            parts += [_heading(heading), _table(_figures(figures))]
    parts += [_heading(_("Network and file")), _table([
        (_("Method"), f"{info.method}, {info.preset}"), (_("Architecture"), _value(info.architecture)),
        (_("SHA-256 of the weights"), info.weights_sha256), (_("Folder"), str(folder)),
    ])]
    return "".join(parts)


def _heading(text: str) -> str:
    return f"<h4 style='margin-top:14px'>{_escaped(text)}</h4>"


def _labels(info: Any) -> str:
    rows = []
    for label in info.labels[1:] if info.task == "segmentation" else info.labels:
        red, green, blue = (round(255 * part) for part in label.get("color") or (0, 0, 0))
        swatch = (f"<td bgcolor='#{red:02x}{green:02x}{blue:02x}'>&nbsp;&nbsp;&nbsp;&nbsp;</td>"
                  if info.task == "segmentation" else "")
        texts = (label.get("name", ""), label.get("value", ""), _terms(label.get("terminology")))
        rows.append(f"<tr>{swatch}" + "".join(f"<td>{_escaped(text)}</td>" for text in texts) + "</tr>")
    return "<table cellpadding='3' style='margin-bottom:12px'>" + "".join(rows) + "</table>"


def _terms(terminology: Any) -> str:
    """The terms of a label as "Kidney, Left (SCT 64033007)"."""
    if not isinstance(terminology, dict):
        return ""
    terms = [terminology.get(key) for key in ("type", "type_modifier")]
    meanings = [str(term[2]) for term in terms if isinstance(term, list) and len(term) == 3]
    first = terms[0]
    code = f" ({first[0]} {first[1]})" if isinstance(first, list) and len(first) == 3 else ""
    return ", ".join(meanings) + code


def _input(info: Any) -> list[tuple[str, str]]:
    channels = ", ".join(str(channel.get("name") or channel.get("modality") or "") for channel in info.channels)
    spacing = (_("as stored") if info.spacing_mm is None
               else " x ".join(f"{value:g}" for value in info.spacing_mm) + " mm")
    order = _("slices, rows, columns") if info.spatial_dims == 3 else _("rows, columns")
    return [(_("Channels"), channels), (_("Dimensions"), f"{info.spatial_dims}-D"), (_("Spacing (k, j, i)"), spacing),
            (_("Orientation"), info.orientation),
            (_("Window"), " x ".join(map(str, info.input_size)) + f" ({order})"),
            (_("Intensities"), _value(info.intensity) if info.intensity else _("not stated"))]


def _ranges(ranges: Any) -> list[tuple[str, str]]:
    """The lowest and highest of what was seen in training."""
    if not isinstance(ranges, dict):
        return []
    rows = []
    for key, value in ranges.items():
        name = _("range of {quantity}").format(quantity=_readable(key))
        tables = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
        for table in tables:  # one a channel: percentile to range
            rows += [(f"{name}, {part}\u00a0%", _span(span)) for part, span in table.items()]
        if not tables:
            rows.append((name, _span(value)))
    return rows


def _span(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2:
        return _("{low} to {high}").format(low=_value(value[0]), high=_value(value[1]))
    return _value(value)


def _figures(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Scores, those of single labels one a row."""
    rows = []
    for key, value in figures.items():
        if isinstance(value, dict):
            rows += [(f"{_readable(key)}: {name}", _value(one)) for name, one in value.items()]
        elif key != "folds":
            rows.append((_readable(key), _value(value)))
    return rows


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = (f"<tr><td width='150'>{_escaped(name)}</td><td>{_escaped(value)}</td></tr>" for name, value in rows)
    return "<table cellpadding='3'>" + "".join(cells) + "</table>"


def _escaped(text: Any) -> str:
    return escape(_cut(str(text)))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _readable(key: Any) -> str:
    return str(key).replace("_", " ")


def _value(value: Any, depth: int = 0) -> str:
    """A value of JSON for people: few digits, commas instead of brackets."""
    if isinstance(value, bool) or value is None:
        return {True: _("yes"), False: _("no"), None: _("not known")}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if depth > _DEEPEST:
        text = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, list):
        text = ", ".join(_value(one, depth + 1) for one in value)
        text = f"[{text}]" if depth else text
    elif isinstance(value, dict):
        text = ", ".join(f"{_readable(key)} {_value(one, depth + 1)}" for key, one in value.items())
        text = f"({text})" if depth else text
    else:
        text = str(value)
    return _cut(text)
