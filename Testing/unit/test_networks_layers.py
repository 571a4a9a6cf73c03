"""Stochastic depth: what is dropped is dropped whole, and what is computed is computed for the right samples."""

from __future__ import annotations

import torch
from torch import Tensor

from medmae.networks.layers import DropPath


def branch(tokens: Tensor, samples: Tensor | None) -> Tensor:
    """Ten times the tokens; remembers nothing, but must be told the samples it gets."""
    assert samples is None or len(samples) == len(tokens)
    return 10 * tokens


def test_a_sample_gets_the_whole_scaled_branch_or_nothing_of_it() -> None:
    torch.manual_seed(0)
    drop_path = DropPath(0.5).train()
    tokens = torch.rand(64, 3, 2) + 1
    ratio = drop_path(tokens, branch) / tokens
    with_branch = torch.isclose(ratio, torch.tensor(1 + 10 / 0.5), rtol=1e-4).all(-1).all(-1)
    without = torch.isclose(ratio, torch.tensor(1.0)).all(-1).all(-1)
    assert (with_branch | without).all()
    assert 16 < with_branch.sum() < 48


def test_the_branch_is_told_which_samples_it_gets() -> None:
    torch.manual_seed(0)
    seen: list[Tensor] = []

    def remembering(tokens: Tensor, samples: Tensor | None) -> Tensor:
        assert samples is not None
        assert torch.equal(tokens, everything[samples])
        seen.append(samples)
        return tokens

    everything = torch.rand(20, 4)
    result = DropPath(0.5).train()(everything, remembering)
    changed = (result != everything).any(-1).nonzero()[:, 0]
    assert torch.equal(changed, seen[0])


def test_all_dropped_none_dropped_and_evaluation() -> None:
    tokens = torch.rand(3, 2)
    assert torch.allclose(DropPath(0.0).train()(tokens, branch), 11 * tokens)
    assert torch.allclose(DropPath(0.9).eval()(tokens, branch), 11 * tokens)
    torch.manual_seed(0)
    assert torch.equal(DropPath(1 - 1e-9).train()(tokens, branch), tokens)


def test_a_branch_that_all_go_without_still_has_a_gradient() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(2, 2)
    DropPath(1 - 1e-9).train()(torch.rand(3, 2), lambda tokens, _: linear(tokens)).sum().backward()
    assert linear.weight.grad is not None
    assert not linear.weight.grad.any()


def test_the_expectation_is_that_of_the_whole_branch_and_gradients_flow() -> None:
    torch.manual_seed(0)
    drop_path = DropPath(0.3).train()
    tokens = torch.ones(4000, 1, requires_grad=True)
    result = drop_path(tokens, branch)
    assert abs(float(result.detach().mean()) - 11) < 0.3
    result.sum().backward()
    assert tokens.grad is not None
    assert torch.allclose(tokens.grad, result.detach())
