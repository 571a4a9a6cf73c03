"""What the panel says about a model. The description may come from a stranger: nothing in it is taken for granted."""

from __future__ import annotations

import datetime
import unicodedata
from dataclasses import dataclass
from typing import Any

from slicer.i18n import tr as _

# The most honest first: cases that no training has seen, then held-out ones, then those that may have chosen weights.
_LISTS = ("test", "cross_validation", "validation")
_FIGURES = {"segmentation": (("mean_dice", "Dice"),), "classification": (("auc", "AUC"), ("accuracy", "Accuracy"))}
_MODALITIES = {"CT": "computed tomography", "MR": "magnetic resonance imaging MRI", "PT": "positron emission PET",
               "US": "ultrasound", "DX": "digital X-ray radiograph", "CR": "computed radiography X-ray",
               "MG": "mammography", "NM": "nuclear medicine", "XA": "angiography", "OP": "ophthalmic fundus"}
_LONGEST = 100  # characters of one name: a stranger's may have millions, over which Qt would sit for minutes
_MOST_CASES = 10**9


@dataclass(frozen=True)
class Score:
    """The one figure that a model is judged by.

    Attributes:
        name: "Dice", "AUC" or "Accuracy".
        value: from 0 to 1.
        how: on which cases it was measured, in words.
    """

    name: str
    value: float
    how: str

    @property
    def short(self) -> str:
        """As a list shows it, in two lines."""
        return f"{self.value:.2f}\n{self.name}"

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.name} {self.value:.3f} ({self.how})"


def structures(info: Any) -> list[str]:
    """The names of what a model segments, or of the classes that it tells apart."""
    labels = info.labels[1:] if info.task == "segmentation" else info.labels
    return [_cut(label.get("name", "")) for label in labels]


def anatomy(info: Any, most: int = 4) -> str:
    """The first few structures or classes, and how many more there are."""
    return listed(structures(info), most)


def listed(names: list[str], most: int) -> str:
    """The first few names, and how many more there are."""
    if len(names) <= most + 1:
        return ", ".join(names)
    return _("{names} and {number} more").format(names=", ".join(names[:most]), number=len(names) - most)


def modality(info: Any) -> str:
    """The modalities of the image's channels, each once, as "CT" or "MR + PT"; "" where they are not known."""
    channels = [_cut(channel.get("modality") or "") for channel in info.channels]
    return " + ".join(dict.fromkeys(code for code in (channels or [info.modality]) if code))


def date(info: Any) -> str:
    """The day on which a model was made, as 2026-11-20; "" where it is not known."""
    try:
        made = datetime.datetime.fromisoformat(str(info.created))
        return (made.astimezone() if made.tzinfo is not None else made).date().isoformat()
    except (ValueError, OverflowError, OSError):  # a year that has no local time
        return ""


def trainingCases(info: Any) -> int | None:
    """How many labelled cases a model was trained on; None where it does not say."""
    cases = info.training.get("cases", info.training.get("images"))
    isNumber = isinstance(cases, int) and not isinstance(cases, bool)
    return cases if isNumber and 0 <= cases < _MOST_CASES else None


def score(info: Any) -> Score | None:
    """The most honest score that a model tells of itself; None where it tells none."""
    known = [name for name in _LISTS if name in info.scores] + [name for name in info.scores if name not in _LISTS]
    for name in known:
        figures = info.scores[name]
        for key, title in _FIGURES.get(info.task, ()):
            value = figures.get(key) if isinstance(figures, dict) else None
            if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
                return Score(title, float(value), _how(name, figures))
    return None


def _how(name: str, figures: dict[str, Any]) -> str:
    if name == "cross_validation":
        return _("cross-validation")
    if name == "validation":
        return (_("validation cases, which also chose the weights") if figures.get("selected_on")
                else _("validation cases"))
    return _("test cases") if name == "test" else _cut(name)


def description(info: Any) -> str:
    """What a model does and what it was made from, in up to three lines."""
    does = (_("Segments {names}.") if info.task == "segmentation" else _("Tells apart: {names}.")).format(
        names=anatomy(info, 8))
    cases, found = trainingCases(info), score(info)
    made = [modality(info), _("3-D") if info.spatial_dims == 3 else _("2-D"),
            "" if cases is None else _("one training case") if cases == 1 else
            _("{number} training cases").format(number=cases), date(info)]
    lines = [does, ", ".join(part for part in made if part), found.text if found is not None else _("No score yet.")]
    return "\n".join(lines)


def searchText(name: str, info: Any) -> str:
    """Everything that a search may find a model by, folded as `folded` does."""
    terminologies = [label.get("terminology") for label in info.labels]
    terms = [str(part) for terminology in terminologies if isinstance(terminology, dict)
             for term in terminology.values() if isinstance(term, list) for part in term]
    codes = [str(channel.get("modality") or "") for channel in info.channels] + [info.modality]
    parts = [name, info.name, *structures(info), *codes, *(_MODALITIES.get(code, "") for code in codes), info.task,
             info.method, description(info), *terms, info.citation, info.licence,
             *(value for value in info.training.values() if isinstance(value, str))]
    return folded(" ".join(_cut(part) for part in parts))


def folded(text: str) -> str:
    """Text without case and diacritics, for comparing."""
    return "".join(character for character in unicodedata.normalize("NFKD", text)
                   if not unicodedata.combining(character)).casefold()


def _cut(text: Any) -> str:
    """A name in one piece that a panel can show."""
    text = str(text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
