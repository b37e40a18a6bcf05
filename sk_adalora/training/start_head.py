"""Prepare the head before training: by default, as a linear model of the features.

A randomly initialised head first distorts the pretrained features to suit itself; one
that fits them leaves them intact, which matters most with few rows (Kumar et al. 2022,
arXiv:2202.10054). By default, the head of a regressor is randomly initialised
nevertheless: on numbers, a probe learns noise (benchmarks/DEFAULTS.md). Either head is
trained on standardised features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sk_adalora.network.head import LinearHead, mean_and_distance
from sk_adalora.network.network import TextNetwork
from sk_adalora.runtime.devices import Compute
from sk_adalora.tokens.batches import pad, prediction_batches, uniform_batches
from sk_adalora.tokens.table import TokenTable

from .loop import Examples, LossFunction, TrainingRun

# The number of rows that the probe is fitted to: more take time and do not score higher
# (benchmarks/DEFAULTS.md).
_ENOUGH_ROWS = 1000
# Rows of each class among them: a class without any would get a bias that training does
# not correct.
_ROWS_OF_A_CLASS = 5
# A bias of more than _CERTAIN decides, where the norm of the weights on standardised
# features is below _LITTLE.
_CERTAIN, _LITTLE = 10, 1
# Texts from which the head's centre and length are computed where no probe is fitted.
_TEXTS_TO_MEASURE = 64
# Rows of indicators that are converted to float64 at once.
_ROWS = 1000
# The probe minimises mean loss + penalty / 2 * ||w||^2, on standardised features. With
# many rows, a linear model alone would do best with a weaker penalty; but training that
# starts from a more confident head ends at a worse model (benchmarks/DEFAULTS.md). Where a
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


def fit_head(run: TrainingRun, generator: torch.Generator) -> None:
    """Fit the head to the features of the pretrained model, which is not trained.

    The head minimises the weighted mean loss of the rows, with a penalty. Where the
    fitted weight is 0, only the bias is overwritten.
    """
    head, examples = run.network.head, run.examples
    rows = choose_rows(examples.targets, generator)
    weights = weights_of(rows, examples)
    features = vectors_before(run, examples.tokens.take(rows.numpy()))
    centre, length = mean_and_distance(features, weights, run.compute.dtype)
    head.set_scale(centre, length)
    inputs = (features.double() - centre) / length
    targets = examples.targets[rows]
    penalties = penalties_of(targets, weights, run.network.n_outputs)
    weight, bias = fit_linear(inputs, targets, weights, examples.loss, penalties)
    with torch.no_grad():
        # A weight of 0 would pass no gradient to the encoder: keep the initial one.
        if weight.any():
            head.weight.copy_(weight)
        head.bias.copy_(bias + bias_shift(rows, examples))


def centre_head(run: TrainingRun) -> None:
    """Prepare a randomly initialised head: its outputs start around 0.

    For a regressor, that is the mean of the targets. Centre and length of the features
    are set from up to 64 evenly spaced distinct texts, and the bias to 0.
    """
    head = run.network.head
    head.set_scale(*_measure(run))
    torch.nn.init.zeros_(head.bias)


def continue_head(run: TrainingRun, generator: torch.Generator, length: float) -> None:
    """Prepare the head of an earlier fit to be trained further; its outputs stay.

    Only those that have learned nothing are fitted anew, as by :func:`fit_head`. The
    centre is that of pretrained features, as in the first fit, though the encoder has
    learned since. `length` is that of the first fit, whatever these rows are.
    """
    network, head, targets = run.network, run.network.head, run.examples.targets
    learned = {name: value.clone() for name, value in network.head_state().items()}
    centre, _ = _measure(run)
    head.set_scale(centre, length)
    network.load_head_state(learned)
    unlearned = _have_learned_nothing(head, targets)
    if unlearned.any():
        before = head.bias.detach().clone()
        fit_head(run, generator)
        if not targets.is_floating_point():
            # Only differences count between classes: start at the level of the others.
            level = (before - head.bias.detach())[~unlearned].mean()
            with torch.no_grad():
                head.bias += level
        fitted = network.head_state()
        for name, value in learned.items():
            value[unlearned] = fitted[name][unlearned]
        head.set_scale(centre, length)
        network.load_head_state(learned)


def _have_learned_nothing(head: LinearHead, targets: Tensor) -> Tensor:
    """Tell which classes or labels a probe saw no row of, or no row without.

    It left them without weights, and with a bias of about 20 against all others, which
    training would not correct.

    Returns
    -------
    torch.Tensor of shape (k,)
        On the CPU; all False for targets that are numbers.
    """
    weight, bias = head.weight.detach().cpu(), head.bias.detach().cpu()
    if not targets.is_floating_point():
        certainty = bias.max() - bias
    elif are_indicators(targets):
        certainty = bias.abs()
    else:
        certainty = torch.zeros_like(bias)
    return (certainty > _CERTAIN) & (weight.norm(dim=1) < _LITTLE)


def _measure(run: TrainingRun) -> tuple[Tensor, float]:
    """Measure the features of up to 64 evenly spaced distinct texts.

    Returns
    -------
    centre : torch.Tensor of shape (w,)
        Their mean, in which each counts as its rows do.
    length : float
        Their distance from their mean, in which all count alike: one text of many rows
        or of a large weight tells little of the others.
    """
    tokens, weights = run.examples.tokens, run.examples.weights
    distinct = tokens.distinct()
    n_texts = len(distinct)
    texts = np.linspace(0, n_texts - 1, min(n_texts, _TEXTS_TO_MEASURE)).astype(int)
    features = vectors_before(run, distinct.take(texts))
    counts = np.bincount(tokens.text_of, weights, minlength=n_texts)[texts]
    centre, _ = mean_and_distance(features, torch.from_numpy(counts), run.compute.dtype)
    _, length = mean_and_distance(features, None, run.compute.dtype)
    return centre, length


def vectors_before(run: TrainingRun, tokens: TokenTable) -> Tensor:
    """Return the frozen vectors of rows; those that the run does not know are added."""
    distinct, known = tokens.distinct(), run.frozen
    unknown = [i for i, at in enumerate(distinct.starts.tolist()) if at not in known]
    if unknown:
        missing = distinct.take(unknown)

        def vectors_of(rows: np.ndarray) -> np.ndarray:
            size, compute = run.recipe.batch_size, run.compute
            return frozen_features(
                run.network, missing.take(rows), compute, size
            ).numpy()

        vectors = torch.from_numpy(run.ranks.of_rows(len(unknown), vectors_of))
        known.update(zip(missing.starts.tolist(), vectors, strict=True))
    found = torch.stack([known[at] for at in distinct.starts.tolist()])
    return found[torch.from_numpy(tokens.text_of)]


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
        All rows in order, if they are at most 1,000. Otherwise 1,000 drawn rows, five
        of each class among them (all of a rarer one), and for each label five with it
        and five without; more only if these are more.
    """
    n_rows = len(targets)
    if n_rows <= _ENOUGH_ROWS:
        return torch.arange(n_rows)
    drawn = torch.randperm(n_rows, generator=generator)
    first = _first_of_each_class(targets, drawn)
    order = torch.argsort(first, descending=True, stable=True)
    return drawn[order[: max(_ENOUGH_ROWS, int(first.sum()))]]


def _first_of_each_class(targets: Tensor, drawn: Tensor) -> Tensor:
    """Mark the first five drawn rows of each class.

    For indicators and numbers: of each column, the first five that are above 0, and the
    first five that are not.
    """
    if targets.is_floating_point():
        first = torch.zeros(len(drawn), dtype=torch.bool)
        for column in targets.reshape(len(targets), -1).unbind(dim=1):
            above = (column > 0)[drawn]  # bytes are found faster than spread numbers
            for side in (above, ~above):
                first[side.nonzero()[:_ROWS_OF_A_CLASS]] = True
        return first
    targets = targets[drawn]
    by_class = torch.argsort(targets, stable=True)
    counts = torch.bincount(targets)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    nth = torch.arange(len(targets)) - starts  # position within its class
    return torch.zeros(len(targets), dtype=torch.bool).index_fill_(
        0, by_class[nth < _ROWS_OF_A_CLASS], True
    )


def weights_of(rows: Tensor, examples: Examples) -> Tensor | None:
    """Return weights that give each class the share that it has in all rows.

    Parameters
    ----------
    rows : torch.Tensor of shape (m,)
        Rows that were drawn.
    examples : Examples
        All rows.

    Returns
    -------
    torch.Tensor of shape (m,) or None
        None where all are equal.
    """
    # Sums of millions of numbers need more digits than float32 has.
    all_weights = None if examples.weights is None else examples.weights.double()
    weights = None if all_weights is None else all_weights[rows]
    targets = examples.targets
    if len(rows) == len(targets) or targets.is_floating_point():
        return weights
    drawn = targets[rows]
    of_all = torch.bincount(targets, all_weights)
    of_drawn = torch.bincount(drawn, weights)
    shares = (of_all / of_drawn)[drawn]
    return shares if weights is None else shares * weights


def bias_shift(rows: Tensor, examples: Examples) -> Tensor:
    """Return what the bias of each label lacks, since more of rare labels was drawn.

    It is the log odds of a label in all rows, less those in the drawn ones: the prior
    correction of King and Zeng (2001, Political Analysis 9:137). Of classes,
    :func:`weights_of` corrects the shares.

    Parameters
    ----------
    rows : torch.Tensor of shape (m,)
        Rows that were drawn.
    examples : Examples
        All rows.

    Returns
    -------
    torch.Tensor of shape (k,) or ()
        0 for a label that all rows or none have, and for anything but labels.
    """
    targets, weights = examples.targets, examples.weights
    if len(rows) == len(targets) or not are_indicators(targets[rows]):
        return torch.zeros(())
    if weights is None:
        weights = targets.new_ones(len(targets))
    weights = weights.double()

    def log_odds(targets: Tensor, weights: Tensor) -> Tensor:
        # In parts: a copy of all in float64 would take much memory.
        parts = zip(weights.split(_ROWS), targets.split(_ROWS), strict=True)
        present = torch.stack([of_rows @ part.double() for of_rows, part in parts])
        return torch.logit(present.sum(dim=0) / weights.sum())

    shift = log_odds(targets, weights) - log_odds(targets[rows], weights[rows])
    return torch.where(shift.isfinite(), shift, 0.0)


def frozen_features(
    network: TextNetwork, tokens: TokenTable, compute: Compute, batch_size: int
) -> Tensor:
    """Compute the features (n, w) that the pretrained model gives without its updates.

    In float32, on the CPU. The adapter is switched off meanwhile. Features that are not
    finite are an error. `batch_size` is that of training.
    """
    distinct = tokens.distinct()
    if compute.compiles_shapes:
        batches = uniform_batches(distinct, batch_size, compute.tokens_to_train)
    else:
        batches = prediction_batches(distinct, compute.tokens_to_predict)
    width = network.head.in_features
    features = torch.empty(len(distinct), width, dtype=torch.float32)
    with torch.no_grad(), network.encoder.disable_adapter():
        for rows in batches:
            batch = pad(distinct, rows, compute.length_multiple)
            batch = batch.to(compute.device)
            features[torch.from_numpy(rows)] = network.features(batch).cpu()
    if not torch.isfinite(features).all():
        raise FloatingPointError(
            "The pretrained model must compute finite features. Got NaN or infinity "
            f"in {compute.precision}. Set another `model`{compute.or_exact}."
        )
    return features[torch.from_numpy(tokens.text_of)]


# ---- the linear probe --------------------------------------------------


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
