"""Early stopping: the best weights by the validation score, and when to give up waiting for better ones."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn


class BestWeights(nn.Module):
    """The weights of the best validation so far, and for how many validations there were none better.

    All of it is state of the module, so that it goes into every checkpoint with the weights in training, and a run that
    was killed decides as one that was not.

    Args:
        network: what will be validated; copied.
        patience: validations without a better score after which training ends.
    """

    score: torch.Tensor
    step: torch.Tensor
    waited: torch.Tensor

    def __init__(self, network: nn.Module, patience: int) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.patience = patience
        self.register_buffer("score", torch.tensor(-math.inf, dtype=torch.float64))
        self.register_buffer("step", torch.tensor(0))
        self.register_buffer("waited", torch.tensor(0))

    def note(self, step: int, score: float | None, network: nn.Module) -> None:
        """Keep the weights of `network` where `score` is better than all before; one that is None says nothing."""
        if score is None:
            return
        if score <= float(self.score):
            self.waited += 1
            return
        self.score.fill_(score)
        self.step.fill_(step)
        self.waited.zero_()
        self.network.load_state_dict(network.state_dict())

    @property
    def is_known(self) -> bool:
        """Whether there was a validation with a score."""
        return int(self.step) > 0

    @property
    def is_exhausted(self) -> bool:
        """Whether there is no use in waiting any longer."""
        return int(self.waited) >= self.patience

    def summary(self) -> dict[str, Any]:
        """What model.json says of it."""
        return {"patience": self.patience, "best_step": int(self.step),
                "best_score": float(self.score) if self.is_known else None}
