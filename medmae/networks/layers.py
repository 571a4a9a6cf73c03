"""Small layers that the Swin and the ViT networks share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

NORM_EPS = 1e-6  # both published systems use 1e-6 everywhere, not PyTorch's 1e-5


class Mlp(nn.Module):
    """Two linear layers with a GELU between them; (..., C) -> (..., C)."""

    def __init__(self, *, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Apply the perceptron to (..., C)."""
        return self.fc2(functional.gelu(self.fc1(tokens)))


Branch = Callable[[Tensor, Tensor | None], Tensor]


class _Part(NamedTuple):
    """Samples of a batch of `total` that are computed together: from `first` on, `samples` of them."""

    first: int
    samples: int
    total: int


_part: ContextVar[_Part | None] = ContextVar("part of a batch", default=None)


@contextlib.contextmanager
def part_of_batch(first: int, samples: int, total: int) -> Iterator[None]:
    """Within the block, the `samples` of a forward are those from `first` on of a batch of `total`.

    Paths are then drawn for the whole batch: from the same state of torch's generator a sample loses the same ones,
    whatever processes and parts the batch is computed in.
    """
    token = _part.set(_Part(first, samples, total))
    try:
        yield
    finally:
        _part.reset(token)


class DropPath(nn.Module):
    """A residual connection with stochastic depth: in training, a sample goes without the branch at a chance of `rate`.

    On a processor the branch is not computed for the samples that go without it. On a GPU it is, because asking which
    ones they are would make the processor wait for it.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, tokens: Tensor, branch: Branch) -> Tensor:
        """tokens (B, ...) + branch(tokens), the branch scaled so that its expectation is unchanged.

        `branch` takes the tokens of some samples and which ones they are (an index; None for all).
        """
        if not self.training or self.rate == 0.0:
            return tokens + branch(tokens, None)
        keep = 1.0 - self.rate
        if tokens.device.type != "cpu":
            kept = _kept(tokens, keep).view(-1, *[1] * (tokens.ndim - 1))
            return tokens + branch(tokens, None) * (kept / keep)
        samples = _kept(tokens, keep).nonzero()[:, 0]
        if len(samples) == tokens.shape[0]:
            return torch.add(tokens, branch(tokens, None), alpha=1 / keep)
        # Where all go without it, one is computed and counts nothing: every parameter has a gradient in every process.
        scale, samples = (1 / keep, samples) if len(samples) else (0.0, torch.zeros(1, dtype=torch.long))
        return tokens.index_add(0, samples, branch(tokens[samples], samples).to(tokens.dtype), alpha=scale)


def _kept(tokens: Tensor, keep: float) -> Tensor:
    """1 for those of tokens (B, ...) that keep the branch, else 0: (B,). A sample may have several, one after another.
    """
    part = _part.get() or _Part(0, len(tokens), len(tokens))
    of_sample = len(tokens) // part.samples
    drawn = torch.empty(part.total * of_sample, device=tokens.device).bernoulli_(keep).to(tokens.dtype)
    return drawn[part.first * of_sample:(part.first + part.samples) * of_sample]


def initialise(module: nn.Module) -> None:
    """Published initialisation, for ``Module.apply``: linear layers Xavier-uniform, biases zero, norms one and zero."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def pad_to_multiple(images: Tensor, multiple: int | Sequence[int]) -> Tensor:
    """Zero-pad (B, C, *spatial) at the end of every spatial axis to the next multiple, of one number or one an axis."""
    spatial = images.shape[2:]
    multiples = (multiple,) * len(spatial) if isinstance(multiple, int) else multiple
    padding: list[int] = []
    for size, part in reversed(list(zip(spatial, multiples, strict=True))):
        padding += [0, -size % part]
    return functional.pad(images, padding) if any(padding) else images


def crop_to(images: Tensor, size: Sequence[int]) -> Tensor:
    """Keep the first `size` voxels of every spatial axis of (B, C, *spatial); undoes `pad_to_multiple`."""
    for axis, length in enumerate(size, start=2):
        images = images.narrow(axis, 0, length)
    return images


def normalised_patches(patches: Tensor) -> Tensor:
    """Standardise every patch (B, N, values) by its own mean and unbiased variance (eps 1e-6)."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def denormalised_patches(prediction: Tensor, patches: Tensor) -> Tensor:
    """Predictions (B, N, values) of `normalised_patches` in the brightness and contrast of the true `patches`."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return prediction * (variance + 1e-6).sqrt() + mean


def masked_mean_squared_error(prediction: Tensor, target: Tensor, masked: Tensor) -> Tensor:
    """Mean squared error inside each patch, averaged over the masked tokens of the whole batch, in fp32.

    `prediction` and `target` are (B, N, values), `masked` is (B, N) bool, True = masked.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        error = (prediction.float() - target.float()).square().mean(dim=-1)
        weight = masked.to(error.dtype)
        return (error * weight).sum() / weight.sum().clamp(min=1.0)
