"""What the training loop needs to know of the thing it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from medmae.training.randomness import Draw

Batch = dict[str, torch.Tensor]


class TrainingTask(Protocol):
    """A network with its losses and its data. Implemented by each pretraining method and by finetuning.

    `module` is wrapped in DistributedDataParallel where there are several processes; its forward takes a batch and
    returns scalar tensors, of which "loss" is minimised and all are logged. `load_batch` runs in background threads
    and must depend on its arguments alone. A task may have an attribute `order`, a `DrawOrder` of its own, an attribute
    `least_batch`, how many samples its network must see at once, and a method `should_stop`, asked on the main process
    after a validation (and at the start) whether training ends here.
    A method `watch` is called on the main process with each progress record, about once a second.
    """

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        ...

    @property
    def number_of_items(self) -> int:
        """How many different items the data has."""
        ...

    def parameter_groups(self) -> list[dict[str, object]]:
        """Groups with the keys params, weight_decay and rate_scale."""
        ...

    def load_batch(self, draws: Sequence[Draw]) -> Batch:
        """Read and augment the samples of `draws`."""
        ...

    def after_step(self, step: int, total: int) -> None:
        """Called after the optimiser's step number `step` (from 0), e.g. to move a teacher."""
        ...

    def validate(self, step: int) -> Mapping[str, Any]:
        """Figures to log at a validation step, measured on the main process; may be empty."""
        ...
