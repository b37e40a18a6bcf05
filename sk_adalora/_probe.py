"""Where the head starts: at a linear model of the pretrained model's own features.

A head drawn at random first bends the pretrained features to itself; one that fits them
leaves them whole, which matters most where rows are few (Kumar et al. 2022,
arXiv:2202.10054). A head of numbers is drawn, and put around their mean. Either learns
on features of one size from then on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ._batches import pad, prediction_batches, uniform_batches
from ._devices import Place
from ._network import TextNetwork
from ._tokens import TokenTable
from ._training import Examples, LossFunction

# Rows that the probe learns from, and how many of each class are among them: more
# take time and do not score higher (docs/defaults.md), but a class without any row
# would get a bias that training does not make good.
_ENOUGH_ROWS = 1000
_ROWS_OF_A_CLASS = 5
# The probe minimises mean loss + _PENALTY / 2 * ||w||^2, on features that are centred
# and of length 1 on average. A linear model alone would want less of many rows; but
# training that starts at a surer head ends at a worse one (docs/defaults.md). Each of
# several labels or numbers a row has this penalty beside its own loss.
_PENALTY = 0.01
_MAX_ITERATIONS = 100
# Rows that the size of the features is taken of, where the probe looks at none.
_ROWS_TO_MEASURE = 64
# The solver keeps two vectors of each of its last steps, and torch would let it keep
# 100 of them: 12 GB of 10,000 labels. The last 5 serve as well, as it ends within 20
# steps mostly. It keeps more as long as each of the two has so many numbers at most,
# 0.5 GB together.
_MOST_NUMBERS = 2**25
_FEWEST_STEPS = 5


def start_head(
    network: TextNetwork,
    examples: Examples,
    place: Place,
    generator: torch.Generator,
    batch_size: int,
) -> None:
    """Fit the head to the features of the pretrained model, without training that.

    Parameters
    ----------
    network : TextNetwork
        Its head is overwritten; the bias only, where features tell nothing of targets.
    examples : Examples
        What is learned from; the head minimises its loss, weights included.
    place : Place
        Where the network is.
    generator : torch.Generator
        Chooses the rows, where there are many.
    batch_size : int
        Rows of a training batch.
    """
    rows = choose_rows(examples.targets, generator)
    weights = weights_of(rows, examples)
    features = _measure(network, examples, rows, weights, place, batch_size)
    weight, bias = fit_linear(
        features, examples.targets[rows], weights, examples.loss, network.n_outputs
    )
    if weight.any():
        network.head.load_plain_state({"weight": weight, "bias": bias})
    else:  # it would let no gradient through: keep a drawn one
        with torch.no_grad():
            network.head.bias.copy_(bias)


def measure_features(
    network: TextNetwork, examples: Examples, place: Place, batch_size: int
) -> None:
    """Let the head learn on features of one size, by some rows from all over the data.

    Parameters
    ----------
    network : TextNetwork
        Its head takes centred features from then on, with the numbers that it has.
    examples : Examples
        What is learned from.
    place : Place
        Where the network is.
    batch_size : int
        Rows of a training batch.
    """
    n_rows, weights = len(examples.tokens), examples.weights
    rows = np.linspace(0, n_rows - 1, min(n_rows, _ROWS_TO_MEASURE)).astype(int)
    rows = torch.from_numpy(rows)
    weights = None if weights is None else weights[rows]
    _measure(network, examples, rows, weights, place, batch_size)


def _measure(
    network: TextNetwork,
    examples: Examples,
    rows: Tensor,
    weights: Tensor | None,
    place: Place,
    batch_size: int,
) -> Tensor:
    """Compute features of some rows, and tell the head where and how long they are."""
    tokens = examples.tokens.take(rows.numpy())
    features = frozen_features(network, tokens, place, batch_size)
    centre, length = spread(features, weights)
    network.head.learn_on(centre, length or 1.0)
    return features


def choose_rows(targets: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the rows that the probe learns from, some of each class among them.

    Parameters
    ----------
    targets : torch.Tensor of shape (n,) or (n, k)
        Class indices, indicators, or centred numbers.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    torch.Tensor of shape (m,)
        All rows in order, up to 1,000 of them. Of more rows 1,000, or as many as five
        of each class are.
    """
    n_rows = len(targets)
    if n_rows <= _ENOUGH_ROWS:
        return torch.arange(n_rows)
    drawn = torch.randperm(n_rows, generator=generator)
    first = _first_of_each_class(targets, drawn)
    order = torch.argsort(first, descending=True, stable=True)
    return drawn[order[: max(_ENOUGH_ROWS, int(first.sum()))]]


def _first_of_each_class(targets: Tensor, drawn: Tensor) -> Tensor:
    """Mark the drawn rows that are the first of a class, or above 0 in a column."""
    if targets.is_floating_point():
        first = torch.zeros(len(drawn), dtype=torch.bool)
        for column in targets.reshape(len(targets), -1).unbind(dim=1):
            first[(column[drawn] > 0).nonzero()[:_ROWS_OF_A_CLASS]] = True
        return first
    targets = targets[drawn]
    by_class = torch.argsort(targets, stable=True)
    counts = torch.bincount(targets)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    nth = torch.arange(len(targets)) - starts  # row of its class
    return torch.zeros(len(targets), dtype=torch.bool).index_fill_(
        0, by_class[nth < _ROWS_OF_A_CLASS], True
    )


def weights_of(rows: Tensor, examples: Examples) -> Tensor | None:
    """Return weights with which each class counts as it does in all rows.

    Parameters
    ----------
    rows : torch.Tensor of shape (m,)
        Rows that were drawn.
    examples : Examples
        All of them.

    Returns
    -------
    torch.Tensor of shape (m,) or None
        None where all are equal.
    """
    weights = None if examples.weights is None else examples.weights[rows]
    targets = examples.targets
    if len(rows) == len(targets) or targets.is_floating_point():
        return weights
    drawn = targets[rows]
    n_classes = int(targets.max()) + 1
    counts = torch.bincount(targets) / torch.bincount(drawn, minlength=n_classes)
    shares = counts[drawn]
    return shares if weights is None else shares * weights


def frozen_features(
    network: TextNetwork, tokens: TokenTable, place: Place, batch_size: int
) -> Tensor:
    """Compute what the head would get of the pretrained model.

    Parameters
    ----------
    network : TextNetwork
        The network; its adapter is left out.
    tokens : TokenTable
        Tokens of the rows.
    place : Place
        Where the network is.
    batch_size : int
        Rows of a training batch.

    Returns
    -------
    torch.Tensor of shape (n, w)
        In float32, on the CPU.
    """
    distinct = tokens.distinct()
    if place.compiles_shapes:
        batches = uniform_batches(distinct, batch_size, place.tokens_to_train)
    else:
        batches = prediction_batches(distinct, place.tokens_to_predict)
    width = network.head.in_features
    features = torch.empty(len(distinct), width, dtype=torch.float32)
    with torch.no_grad(), network.encoder.disable_adapter():
        for rows in batches:
            batch = pad(distinct, rows, place.length_multiple)
            batch = batch.to(place.device)
            features[torch.from_numpy(rows)] = network.features(batch).cpu()
    return features[torch.from_numpy(tokens.rows)]


def fit_linear(
    features: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    loss: LossFunction,
    n_outputs: int,
) -> tuple[Tensor, Tensor]:
    """Fit a linear model with a ridge penalty, whatever the loss is.

    Parameters
    ----------
    features : torch.Tensor of shape (n, w)
        One row of features a row.
    targets : torch.Tensor of shape (n,) or (n, k)
        As `loss` takes them.
    weights : torch.Tensor of shape (n,) or None
        Weight of each row's loss, or None for all equal.
    loss : callable
        Loss of each row, convex in the outputs.
    n_outputs : int
        Number of outputs k.

    Returns
    -------
    weight : torch.Tensor of shape (k, w)
    bias : torch.Tensor of shape (k,)
    """
    features = features.double()
    targets = targets.double() if targets.is_floating_point() else targets
    centre, length = spread(features, weights)
    centred = features - centre
    inputs = centred / length if length else torch.zeros_like(centred)  # (n, w)
    weights = features.new_ones(len(features)) if weights is None else weights
    weights = weights.double()
    total = weights.sum().clamp_min(1e-12)
    n_losses = targets.shape[1] if targets.ndim == 2 else 1
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

    def objective() -> Tensor:
        solver.zero_grad()
        outputs = inputs @ weight.T + bias  # (n, k)
        risk = (loss(outputs, targets) * weights).sum()
        value = risk / total + _PENALTY / 2 * weight.square().sum() / n_losses
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(objective)
    weight = weight.detach() / (length or 1.0)
    return weight, bias.detach() - weight @ centre


def spread(features: Tensor, weights: Tensor | None) -> tuple[Tensor, float]:
    """Return where features lie, and how far from there.

    Parameters
    ----------
    features : torch.Tensor of shape (n, w)
        One row of features a row.
    weights : torch.Tensor of shape (n,) or None
        Weights of the rows, or None for all equal.

    Returns
    -------
    centre : torch.Tensor of shape (w,)
        Their mean, in float64.
    length : float
        Root of their mean squared distance from it; 0 where they are all equal.
    """
    features = features.double()
    weights = features.new_ones(len(features)) if weights is None else weights
    weights = weights.double()
    share = weights / weights.sum().clamp_min(1e-12)  # a row of weight 0 counts nowhere
    centre = share @ features
    length = (share @ (features - centre).square()).sum().sqrt()
    # The mean of equal rows differs from them in the last bits: that tells nothing.
    if length <= torch.finfo(torch.float32).eps * centre.norm():
        return centre, 0.0
    return centre, float(length)


def _steps_kept(n_numbers: int) -> int:
    """Return how many of its steps a solver for so many numbers keeps in memory."""
    return max(_FEWEST_STEPS, min(_MAX_ITERATIONS, _MOST_NUMBERS // n_numbers))
