"""Where the head starts: at a linear model of the pretrained model's own features.

A head drawn at random first bends the pretrained features to itself; one that fits them
leaves them whole, which matters most where rows are few (Kumar et al. 2022,
arXiv:2202.10054). A head of numbers is drawn. Either learns on standardised features
from then on.
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
# The probe's weights, for features of length 1, below which it has found nothing.
_LEAST_WEIGHT = 1e-3
# Texts whose features set the scale of a head that no probe is fitted for.
_TEXTS_TO_MEASURE = 64
# Features that differ by less than this share of their mean count as if they differed
# by as much: what is left may be rounding.
_LEAST_SPREAD = 0.03
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
    tokens = examples.tokens.take(rows.numpy())
    features = frozen_features(network, tokens, place, batch_size)
    centre, length = spread(features, weights)
    network.head.set_scale(centre, length)
    weight, bias = fit_linear(
        features, examples.targets[rows], weights, examples.loss, network.n_outputs
    )
    if weight.any():
        network.head.load_plain_state({"weight": weight, "bias": bias})
    else:  # it would let no gradient through: keep a drawn one
        with torch.no_grad():
            network.head.bias.copy_(bias)


def draw_head(
    network: TextNetwork, examples: Examples, place: Place, batch_size: int
) -> None:
    """Let a head with drawn weights start around outputs of 0: the mean of numbers.

    Parameters
    ----------
    network : TextNetwork
        Its head is changed.
    examples : Examples
        What is learned from.
    place : Place
        Where the network is.
    batch_size : int
        Rows of a training batch.
    """
    network.head.set_scale(*_measure(network, examples, place, batch_size))
    torch.nn.init.zeros_(network.head.bias)


def continue_head(
    network: TextNetwork,
    examples: Examples,
    place: Place,
    batch_size: int,
    length: float | None,
) -> None:
    """Let a head that has learned go on, with the outputs that it has.

    Parameters
    ----------
    network : TextNetwork
        Its head is changed.
    examples : Examples
        What is learned from.
    place : Place
        Where the network is.
    batch_size : int
        Rows of a training batch.
    length : float or None
        Length of the features in the first fit, whatever these rows are; None where
        that is not known.
    """
    learned = network.head_state()
    centre, of_these = _measure(network, examples, place, batch_size)
    network.head.set_scale(centre, length or of_these)
    network.load_head_state(learned)


def _measure(
    network: TextNetwork, examples: Examples, place: Place, batch_size: int
) -> tuple[Tensor, float]:
    """Return the mean and the spread of up to 64 evenly spaced distinct texts."""
    distinct = examples.tokens.distinct()
    n_texts = len(distinct)
    rows = np.linspace(0, n_texts - 1, min(n_texts, _TEXTS_TO_MEASURE)).astype(int)
    features = frozen_features(network, distinct.take(rows), place, batch_size)
    return spread(features, None)


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

    Raises
    ------
    FloatingPointError
        If the pretrained model gives numbers that are not finite.
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
    if not torch.isfinite(features).all():
        exact = "precision='float32', or " if place.precision != "float32" else ""
        raise FloatingPointError(
            "The pretrained model must compute finite features. Got NaN or infinity "
            f"in {place.precision}. Set {exact}another `model`."
        )
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
        All 0 where nothing is found.
    bias : torch.Tensor of shape (k,)
    """
    features = features.double()
    targets = targets.double() if targets.is_floating_point() else targets
    centre, length = spread(features, weights)
    centred = features - centre
    inputs = centred / length  # (n, w)
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
    weight = weight.detach() / length
    if weight.abs().max() * length <= _LEAST_WEIGHT:
        weight = torch.zeros_like(weight)
    return weight, bias.detach() - weight @ centre


def spread(features: Tensor, weights: Tensor | None) -> tuple[Tensor, float]:
    """Return the mean of features, and how far they are from it.

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
        Root of their mean squared distance from it, or 0.03 of the mean's own
        length where that is more; 1 where all are 0.
    """
    features = features.double()
    weights = features.new_ones(len(features)) if weights is None else weights
    weights = weights.double()
    share = weights / weights.sum().clamp_min(1e-12)  # a row of weight 0 counts nowhere
    centre = share @ features
    length = (share @ (features - centre).square()).sum().sqrt()
    return centre, float(torch.maximum(length, _LEAST_SPREAD * centre.norm())) or 1.0


def _steps_kept(n_numbers: int) -> int:
    """Return how many of its steps a solver for so many numbers keeps in memory."""
    return max(_FEWEST_STEPS, min(_MAX_ITERATIONS, _MOST_NUMBERS // n_numbers))
