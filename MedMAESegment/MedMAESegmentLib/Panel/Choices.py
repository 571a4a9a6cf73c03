"""What is chosen in the panel for every volume, whichever page segments it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TARGET_PREFIX = "target:"


@dataclass(frozen=True)
class Choices:
    """The model, where to compute, and how.

    model - Name in the list of models; empty: none.
    info - The model's `medmae.models.ModelInfo`; None: none.
    device - "auto", "cpu", "cuda:0".
    target - Name of another computer; None: this one.
    options - mirror, largestComponent, uncertainty, smoothing: those that are on, as `SegmentLogic.segment` takes them.
    """

    model: str
    info: Any
    device: str = "auto"
    target: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, parameters: Any, info: Any) -> Choices:
        """The choices in the module's parameter node."""
        computeOn = parameters.computeOn
        isTarget = computeOn.startswith(TARGET_PREFIX)
        given = {"mirror": parameters.mirror, "largestComponent": parameters.largestComponent,
                 "uncertainty": parameters.uncertainty}
        options: dict[str, Any] = {name: True for name, isOn in given.items() if isOn}
        if parameters.smooth:
            options["smoothing"] = parameters.smoothingFactor
        return cls(parameters.model if info is not None else "", info, "auto" if isTarget else computeOn,
                   computeOn.removeprefix(TARGET_PREFIX) if isTarget else None, options)

    @property
    def isClassification(self) -> bool:
        """Whether the model tells a class instead of drawing segments."""
        return self.info is not None and self.info.task == "classification"

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `SegmentLogic.segment`: device, target (only when set) and options."""
        target = {} if self.target is None else {"target": self.target}
        return {"device": self.device, **target, **self.options}
