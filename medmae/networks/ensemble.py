"""Several networks of one architecture that answer together, as the models of a cross-validation do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST_MEMBERS = 32


class Ensemble(nn.Module):
    """The mean of its members' probabilities, as logits.

    The logarithm of the mean of the softmaxes; for classes that may apply together the logit of the mean of the
    sigmoids. Both in fp32.

    Args:
        members: how many networks.
        member: the architecture of each, as `build_network` takes it; not an ensemble itself.
        channels: channels of the image, those of a member.
        classes: classes, those of a member.
        multi_label: whether several classes may apply together.
    """

    def __init__(self, *, members: int, member: Mapping[str, Any], channels: int, classes: int,
                 multi_label: bool = False) -> None:
        super().__init__()
        from medmae.networks.build import build_network  # which knows this class

        if not 1 <= members <= MOST_MEMBERS:
            raise ValueError(f"an ensemble has 1 to {MOST_MEMBERS} members, not {members}")
        if member.get("name") == "ensemble":
            raise ValueError("the members of an ensemble cannot be ensembles")
        arguments = member.get("arguments")
        own = {name: arguments.get(name) for name in ("channels", "classes")} if isinstance(arguments, Mapping) else {}
        if own != {"channels": channels, "classes": classes}:
            raise ValueError(f"the members must have {channels} channels and {classes} classes, but have {own}")
        self.multi_label = multi_label
        self.classes = classes
        self.members = nn.ModuleList(build_network(member) for _ in range(members))

    @property
    def takes_any_window(self) -> bool:
        """Whether all members are as good on smaller windows."""
        return all(getattr(member, "takes_any_window", False) for member in self.members)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *spatial) to the logits of the mean probabilities, in the shape of a member's logits."""
        sums: list[Tensor] = []
        for member in self.members:
            parts = self._log_probabilities(member(images).float())
            sums = [torch.logaddexp(one, part) for one, part in zip(sums, parts, strict=True)] if sums else parts
        return sums[0] - sums[1] if self.multi_label else sums[0] - math.log(len(self.members))

    def _log_probabilities(self, logits: Tensor) -> list[Tensor]:
        """Of each class; where classes do not exclude each other also of its absence."""
        if self.multi_label:
            return [functional.logsigmoid(logits), functional.logsigmoid(-logits)]
        return [functional.log_softmax(logits, dim=1)]
