"""The labels of a model, in class order."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


def model_labels(labels: Mapping[str, int], looks: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
                 ) -> list[dict[str, Any]]:
    """Names and stored values with colours and terminology, as model.json keeps them.

    Args:
        labels: name to stored value, in class order.
        looks: "color" and "terminology" of labels by name, where the data set gives them; others get the usual ones.
    """
    from medmae.volumes.segments import default_segments

    # Numbered in class order: stored values of classes may be negative, those of segments not.
    segments = {segment.name: segment for segment in default_segments({name: n for n, name in enumerate(labels)})}
    usual = {name: {"color": list(segments[name].color) if name in segments else [0.0, 0.0, 0.0],
                    "terminology": segments[name].terminology if name in segments else None} for name in labels}
    return [{"name": name, "value": value, **usual[name], **looks.get(name, {})} for name, value in labels.items()]
