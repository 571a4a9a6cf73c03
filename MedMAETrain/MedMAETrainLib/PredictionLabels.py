"""Which label of a project each label of a model is: by name, where people write it differently as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from MedMAESegmentLib.Translation import tr as _

from medmae.volumes.segments import Segment
from MedMAETrainLib.ProjectLabels import proposeMapping, withLabel


@dataclass(frozen=True)
class LabelMatch:
    """What the label maps of a model mean in a project.

    values - The project's value of each value that the model stores; others are nothing.
    labels - Of the project, with those that the model brings where there were none.
    left - Labels of the model that are none of the project's.
    missing - Labels of the project that the model does not draw.
    """

    values: Mapping[int, int]
    labels: tuple[Segment, ...]
    left: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be told about it."""
        notes = []
        if self.left:
            notes.append(_("The model also draws {labels}: no labels of the project, so they are left out.").format(
                labels=", ".join(self.left)))
        if self.missing:
            notes.append(_("The model does not draw {labels}; that remains to be drawn by hand.").format(
                labels=", ".join(self.missing)))
        return tuple(notes)


def matchLabels(model: str, modelLabels: Sequence[Mapping[str, Any]], labels: Sequence[Segment]) -> LabelMatch:
    """Find the project's `labels` among those of a model, whose first is background. A project without labels takes
    those of the model.

    Raises:
        ValueError: no label of the model is one of the project.
    """
    drawn = [(str(label["name"]), int(label["value"]), label) for label in modelLabels[1:]]
    known = tuple(labels)
    if not known:
        for name, _value, label in drawn:
            known = withLabel(known, name, label.get("color"), label.get("terminology"))
    mapping = proposeMapping(known, [name for name, _value, _label in drawn])
    valueOf = {label.name: label.value for label in known}
    values = {value: valueOf[wanted] for name, value, _label in drawn if (wanted := mapping[name]) in valueOf}
    if not values:
        raise ValueError(_("The model {model} draws {drawn}, and none of it is a label of the project, which has "
                           "{labels}. Choose another model, or rename the labels of the project.").format(
            model=model, drawn=", ".join(name for name, _value, _label in drawn),
            labels=", ".join(label.name for label in known)))
    left = tuple(name for name, value, _label in drawn if value not in values)
    missing = tuple(label.name for label in known if label.value not in values.values())
    return LabelMatch(values, known, left, missing)
