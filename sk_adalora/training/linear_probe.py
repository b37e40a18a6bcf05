"""Fit a linear model with a ridge penalty, for any convex loss; choose the penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from .loop import LossFunction

# The probe minimises mean loss + penalty / 2 * ||w||^2, on standardised features. With
# many rows, a linear model alone would do best with a weaker penalty; but training that
# starts from a more confident head ends at a worse model (docs/defaults.md). Where a
# row has several labels or numbers, its loss is their mean, and the penalty is divided
# by their number, so that it weighs as much for each of them as for a single one.
_PENALTY = 0.01
# That is the penalty of few classes. A class or label of a small share of the rows has
# a small share of the mean loss, and would be penalised too much beside it: below a
# share of a twentieth, the penalty is this times its square, or the least.
_PENALTY_OF_SHARES, _LEAST_PENALTY = 4, 1e-4
_MAX_ITERATIONS = 100
# If no weight of the probe on standardised features exceeds this, it has found nothing.
_LEAST_WEIGHT = 1e-3
# L-BFGS stores two vectors of each of its last steps: 6 GB for 100 steps, torch's
# default, and 10,000 labels. The last 5 steps serve as well, since it mostly converges
# within 20. More are stored as long as the vectors of each kind have at most
# _MOST_NUMBERS numbers together, 0.5 GB for both kinds.
_MOST_NUMBERS = 2**25
_FEWEST_STEPS = 5
# Outputs that are computed at once: of 5,000 classes with five rows each, all of them,
# and what their gradients need, take 3 GB.
_MOST_OUTPUTS = 2**20


def penalties_of(targets: Tensor, weights: Tensor | None, n_outputs: int) -> Tensor:
    """Return how much the probe's weights are penalised.

    Parameters
    ----------
    targets : torch.Tensor of shape (n,) or (n, k)
        Class indices, indicators, or centred numbers.
    weights : torch.Tensor of shape (n,) or None
        Weight of each row, or None for all equal.
    n_outputs : int
        Number of outputs.

    Returns
    -------
    torch.Tensor of shape (n_outputs,)
        In float64: 0.01, or less for a class or label of less than a twentieth of the
        rows, and for all classes where they are as many as more than twenty of equal
        size, by their entropy.
    """
    if weights is None:
        weights = targets.new_ones(len(targets), dtype=torch.float64)
    share = weights.double() / weights.double().sum()
    if not targets.is_floating_point():
        shares = torch.bincount(targets, share, minlength=n_outputs)
        # The geometric mean over the rows of the share of their class: 1 / k of k equal
        # ones. It is for all classes, since their outputs compete.
        of_all = torch.exp(-torch.special.entr(shares).sum())
        shares = torch.minimum(shares, of_all)
    elif are_indicators(targets):  # not of numbers that vary
        present = share @ targets.double().reshape(len(targets), -1)
        shares = torch.minimum(present, 1 - present)
    else:
        shares = torch.ones(n_outputs, dtype=torch.float64)
    return (_PENALTY_OF_SHARES * shares.square()).clamp(_LEAST_PENALTY, _PENALTY)


def are_indicators(targets: Tensor) -> bool:
    """Tell whether targets are labels that a row has or has not, and not numbers."""
    return targets.is_floating_point() and bool(((targets == 0) | (targets == 1)).all())


def fit_linear(
    inputs: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    loss: LossFunction,
    penalties: Tensor,
) -> tuple[Tensor, Tensor]:
    """Fit a linear model with a ridge penalty, for any convex loss.

    Parameters
    ----------
    inputs : torch.Tensor of shape (n, w)
        Standardised features of each row, in float64.
    targets : torch.Tensor of shape (n,) or (n, k)
        As `loss` takes them.
    weights : torch.Tensor of shape (n,) or None
        Weight of each row's loss, or None for all equal.
    loss : callable
        Loss of each row, convex in the outputs.
    penalties : torch.Tensor of shape (k,)
        Of the weights of each output.

    Returns
    -------
    weight : torch.Tensor of shape (k, w)
        All 0 where the features do not help to predict the targets.
    bias : torch.Tensor of shape (k,)
    """
    targets = targets.double() if targets.is_floating_point() else targets
    weights = inputs.new_ones(len(inputs)) if weights is None else weights.double()
    total = weights.sum()
    n_losses = targets.shape[1] if targets.ndim == 2 else 1
    n_outputs = len(penalties)
    weight = inputs.new_zeros(n_outputs, inputs.shape[1], requires_grad=True)
    bias = inputs.new_zeros(n_outputs, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_MAX_ITERATIONS,
        history_size=_steps_kept(weight.numel() + bias.numel()),
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    size = max(1, _MOST_OUTPUTS // n_outputs)
    parts = list(
        zip(inputs.split(size), targets.split(size), weights.split(size), strict=True)
    )

    def objective() -> Tensor:
        solver.zero_grad()
        value = penalties @ weight.square().sum(1) / (2 * n_losses)
        value.backward()
        for x, y, of_rows in parts:
            outputs = x @ weight.T + bias  # (n, k)
            risk = (loss(outputs, y) * of_rows).sum() / total
            risk.backward()
            value = value.detach() + risk.detach()
        return value

    with torch.enable_grad():
        solver.step(objective)
    weight, bias = weight.detach(), bias.detach()
    if weight.abs().max() <= _LEAST_WEIGHT:
        weight = torch.zeros_like(weight)
    return weight, bias


def _steps_kept(n_numbers: int) -> int:
    """Return the history size of a solver for so many parameters."""
    return max(_FEWEST_STEPS, min(_MAX_ITERATIONS, _MOST_NUMBERS // n_numbers))
