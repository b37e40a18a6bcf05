"""What a fit is given: rows that are read and checked, the model, and its tokens."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import joblib
import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples
from torch import Tensor

from sk_adalora.adalora.layer_matching import linear_layers
from sk_adalora.data.rows import (
    check_targets,
    check_validation_rows,
    count_rows,
    draw_rows,
    read_at_once,
    read_sample_weight,
    split_rows,
    take_rows,
    weighted_rows,
    weights_tensor,
)
from sk_adalora.data.targets import Labels, Numbers, Targets
from sk_adalora.data.texts import Texts
from sk_adalora.files.checkpoint import stored_seed
from sk_adalora.network.network import TextNetwork
from sk_adalora.pretrained.backbone import Backbone
from sk_adalora.runtime.devices import (
    Compute,
    resolve_compute,
    warn_of_emulation,
    warn_of_sharing,
)
from sk_adalora.runtime.digest import digest, is_compared
from sk_adalora.runtime.messages import announce
from sk_adalora.runtime.ranks import ranks_now
from sk_adalora.runtime.transaction import CALLBACKS
from sk_adalora.tokens.long_texts import Windows, encode_for_both, encode_for_training
from sk_adalora.tokens.table import TokenTable
from sk_adalora.training.advice import (
    warn_of_leak,
    warn_of_model,
    warn_of_processes,
    warn_of_texts,
)
from sk_adalora.training.loop import Examples
from sk_adalora.training.schedule_steps import ResolvedSchedule, resolve_schedule
from sk_adalora.training.time_budget import TimeBudget

from .folds import Folds, even_folds, make_folds
from .predicting import (
    OfBatch,
    Predictor,
    both_of,
    check_tokens,
    compute_rows,
    load_model,
    most_tokens,
    read_inputs,
)

# Folds that a classifier is calibrated on, where no rows are held out.
N_FOLDS = 3
# Rows whose vectors fix the axes of an encoder: more would not move them.
_ENOUGH_ROWS = 2000
# Rows that an encoder draws for `max_steps` in any case, so that each fold has some.
_FEWEST_DRAWN = 100
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class FitInputs:
    """What all trainings of a fit share: one on all rows, and perhaps one a fold.

    Parameters
    ----------
    backbone : Backbone
        The pretrained model.
    chosen_compute : Compute
        What the user chose to compute with.
    examples : Examples
        Tokens, targets and weights of all rows, as they are trained on.
    windows : Windows or None
        Their distinct texts, to predict; None if none of them will be predicted.
    used : ndarray of shape (n_used,)
        Positions of the rows to train on: of a weight above 0, and drawn.
    folds : list of (ndarray, ndarray)
        Rows to train on, and rows to predict; empty where none are held out.
    held_out : tuple of X and y, or None
        Rows to validate on, with early stopping; on rank 0.
    random_state : torch.Tensor
        State of the generator that every training starts from: so all begin at the
        same updates, which differ by what they learn.
    seed : int
        What `random_state` gave.
    folder : Path or None
        Where the trainings are saved, to go on after a kill.
    budget : TimeBudget or None
        The seconds that are left, with `timeout`.
    reported : dict
        What the report tells of the rows: how many were given, and so on.
    frozen : dict of int to torch.Tensor
        Vectors of texts by the pretrained model, each computed once.
    """

    backbone: Backbone
    chosen_compute: Compute
    examples: Examples
    windows: Windows | None
    used: np.ndarray
    folds: Folds
    held_out: tuple[Any, Any] | None
    random_state: Tensor
    seed: int
    folder: Path | None
    budget: TimeBudget | None
    reported: dict[str, Any]
    frozen: dict[int, Tensor] = field(default_factory=dict)

    def generator(self) -> torch.Generator:
        """Return the randomness of a training."""
        return torch.Generator().manual_seed(self.seed).set_state(self.random_state)

    @property
    def spread(self) -> np.ndarray:
        """Positions of up to 2,000 evenly spaced rows of those used."""
        count = min(len(self.used), _ENOUGH_ROWS)
        return self.used[np.linspace(0, len(self.used) - 1, count).astype(np.int64)]

    def predictor(self, estimator: Any, network: TextNetwork) -> Predictor:
        """Return what predicts with a network."""
        model = os.fspath(estimator.model)
        return Predictor(network, self.backbone, model, self.chosen_compute)

    def encode(
        self, predictor: Predictor, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors (m, w) and outputs (m, k) of some rows."""
        both = self.compute(predictor, rows, both_of)
        outputs, vectors = np.split(both, [predictor.network.n_outputs], 1)
        return vectors, outputs

    def compute(
        self, predictor: Predictor, rows: np.ndarray, of_batch: OfBatch
    ) -> np.ndarray:
        """Compute something of some rows, of shape (m, any)."""
        assert self.windows is not None, "a fit with folds has them"
        text_of = self.examples.tokens.text_of
        texts, text_of = np.unique(text_of[rows], return_inverse=True)
        pieces = self.windows.take(texts)

        def compute(positions: np.ndarray) -> np.ndarray:
            return compute_rows(predictor, pieces.tokens.take(positions), of_batch)

        with torch.no_grad():
            of_pieces = ranks_now().of_rows(len(pieces.tokens), compute)
        averages: np.ndarray = pieces.average(of_pieces)[text_of]
        return averages


def prepare_fit(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    X_val: Any = None,
    y_val: Any = None,
    *,
    folder: Path | None = None,
    encodes: bool = False,
    cross_fits: bool = False,
) -> FitInputs:
    """Check and read all rows, then load the model and tokenise them.

    On several ranks, the first reads for all.

    Parameters
    ----------
    estimator : estimator
        What is fitted; its targets are set.
    X, y, sample_weight, X_val, y_val : array-like or None
        What `fit` got. Without `y` there is nothing to tune: all targets are 0.
    folder : Path or None, default=None
        Where the trainings are saved.
    encodes : bool, default=False
        Whether rows of the fit are encoded after it.
    cross_fits : bool, default=False
        Whether each of them is, by a model that was not tuned on it.
    """
    start = time.perf_counter()
    check_alike(estimator, X, y)
    read = change_on_first(
        estimator,
        lambda: _read(
            estimator, X, y, sample_weight, X_val, y_val, encodes, cross_fits
        ),
        lambda read: replace(read, texts=None, held_out=None),
    )
    compute = resolve_compute(estimator.device, estimator.precision)
    warn_of_sharing(compute)
    warn_of_emulation(compute)
    warn_of_processes()
    schedule = None if y is None else plan_schedule(estimator, len(read.used))
    backbone = load_model(estimator, compute, estimator._targets.n_outputs)
    model = os.fspath(estimator.model)
    if schedule is not None:
        _check_rank(estimator, backbone, schedule)
    ranks_now().on_first(lambda: warn_of_model(model, backbone, estimator.pooling))

    def tokenize() -> tuple[TokenTable, Windows | None]:
        texts = read.texts
        assert texts is not None, "the first rank has read them"
        announce(estimator.verbose, f"tokenizing {len(texts):,} texts ...")
        most = most_tokens(estimator.max_length, backbone)
        given = (texts, backbone.tokenizer, most, estimator.long_text)
        windows = None
        if encodes or read.folds:
            tokens, windows = encode_for_both(*given)
        else:
            tokens = encode_for_training(*given)
        check_tokens(tokens, backbone, model)
        formats = (estimator.long_text, estimator.row_format, estimator._for_tables)
        warn_of_texts(texts, tokens, *formats)
        return tokens, windows

    tokens, windows = ranks_now().from_first(tokenize)
    budget = None
    if estimator.timeout is not None:
        n_fits = max(1, len(read.folds))  # those of the folds are one less, in rows
        budget = TimeBudget(start + float(estimator.timeout), n_fits)
    loss = estimator._targets.loss
    return FitInputs(
        backbone,
        compute,
        Examples(tokens, read.targets, read.weights, loss),
        windows,
        read.used,
        read.folds,
        read.held_out,
        read.random_state,
        read.seed,
        folder,
        budget,
        read.reported,
    )


# ---- read the rows ----------------------------------------------------------


@dataclass(frozen=True)
class _Read:
    """What of :class:`FitInputs` is known before anything is loaded."""

    texts: Texts | None
    targets: Tensor
    weights: Tensor | None
    used: np.ndarray
    folds: Folds
    held_out: tuple[Any, Any] | None
    random_state: Tensor
    seed: int
    reported: dict[str, Any]


def _read(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    X_val: Any,
    y_val: Any,
    encodes: bool,
    cross_fits: bool,
) -> _Read:
    """Read rows, targets and weights; draw, split and fold them; code the targets."""
    before: Targets | None = estimator._targets if continues(estimator) else None
    untuned = encodes and y is None
    most = math.inf if untuned else rows_of_steps(estimator)
    if encodes:
        most = max(most, _FEWEST_DRAWN)
    # Texts that are not drawn need not be read, unless they are encoded.
    n_rows, texts = count_rows(X), None
    if cross_fits or n_rows <= most:
        texts = read_inputs(estimator, X, reset=True)
        n_rows = len(texts)
    targets: Targets
    if untuned:
        targets, coded, weights = _of_nothing(n_rows)
    else:
        check_targets(y, n_rows, estimator)
        weight = read_sample_weight(read_at_once(sample_weight), n_rows)
        y = read_at_once(y)
        targets, coded = estimator._read_targets(y)
        if before is not None:
            targets.check_continues(before)
        class_weight = getattr(estimator, "class_weight", None)  # no regressor's
        weights = weights_tensor(targets.row_weights(coded, weight, class_weight))
        if texts is not None:
            warn_of_leak(X, y)
        _check_validation_rows(estimator, X_val, y_val, targets)
    used = weighted_rows(weights, n_rows)
    held_out: tuple[Any, Any] | None = None
    folds: Folds = []
    # Only now: bad rows must not move a generator of the user's on.
    generator = make_generator(estimator)
    seed = generator.initial_seed()
    if cross_fits and not untuned:
        folds = make_folds(estimator.cv, y, targets, n_rows, seed)
    if before is None:  # rows that an earlier fit set apart do not matter
        vars(estimator).pop("_validation_seed", None)
    if estimator.early_stopping:
        held_out = (X_val, read_at_once(y_val))
        if X_val is None:
            used, held = _split(estimator, used, y, targets, generator)
            held = held[: math.ceil(min(1.0, most / len(used)) * len(held))]
            held_out = (take_rows(X, held), take_rows(y, held))
    if most < len(used):
        drawn_by = int(torch.randint(2**31 - 1, (), generator=generator))
        used = draw_rows(used, int(most), coded, targets, drawn_by)
    if texts is None:
        texts = _read_drawn(estimator, X, y, used)
    elif len(used) < n_rows and not cross_fits:
        texts = texts.take(used)
    of_used = None if weights is None else weights[used]
    own_head = estimator.pooling == "model"
    targets, trained = targets.encode(coded[used], of_used, before, own_head)
    if cross_fits:  # all rows are encoded, in their order
        coded = trained.new_zeros(n_rows, *trained.shape[1:])
        coded[used] = trained
    else:
        coded, weights, used = trained, of_used, np.arange(len(used))
        folds = _calibration_folds(estimator, targets, coded, seed)
    if before is not None:
        factors = targets.output_factors(before)
        if factors is not None:
            estimator._adapter = estimator._adapter.with_scaled_outputs(factors)
    set_targets(estimator, targets)
    reported = {"n_given": n_rows, "n_empty": texts.n_empty, "columns": texts.columns}
    state = generator.get_state()
    return _Read(texts, coded, weights, used, folds, held_out, state, seed, reported)


def _of_nothing(n_rows: int) -> tuple[Targets, Tensor, None]:
    """Return targets, and those of the rows, where nothing is tuned."""
    return Numbers(True, np.zeros(1), np.zeros(1)), torch.zeros(n_rows, 1), None


def _read_drawn(estimator: Any, X: Any, y: Any, drawn: np.ndarray) -> Texts:
    """Read the texts of the rows that were drawn; nothing is copied of the others."""
    try:
        some = take_rows(X, drawn)
        texts = read_inputs(estimator, some, reset=True)
    except (TypeError, ValueError) as error:
        error.add_note(
            f"`max_steps` drew {len(drawn):,} rows of X at random, and rows are "
            "counted among these."
        )
        raise
    warn_of_leak(some, take_rows(y, drawn))
    return texts


def _check_validation_rows(
    estimator: Any, X_val: Any, y_val: Any, targets: Targets
) -> None:
    """Refuse validation rows that do not match the training rows."""
    check_validation_rows(X_val, y_val, estimator.early_stopping)
    if X_val is None:
        return
    try:
        n_rows = len(read_inputs(estimator, X_val, reset=False))
    except (TypeError, ValueError) as error:
        error.add_note("X is `X_val` here.")
        raise
    check_targets(y_val, n_rows, estimator, ("X_val", "y_val"))
    targets.check_validation(read_at_once(y_val))


def _split(
    estimator: Any,
    used: np.ndarray,
    y: Any,
    targets: Targets,
    generator: torch.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the rows to train on and those to validate on.

    A fit that continues another one keeps its seed: the same rows in the same order
    are split alike, so that no validation row was trained on before.
    """
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    seed = vars(estimator).setdefault("_validation_seed", seed)
    classes = targets.stratify(read_at_once(y))
    kept, held = split_rows(
        len(used),
        float(estimator.validation_fraction),
        None if classes is None else take_rows(classes, used),
        seed,
    )
    return used[kept], used[held]


def _calibration_folds(
    estimator: Any, targets: Targets, coded: Tensor, seed: int
) -> Folds:
    """Return the folds whose rows fit probabilities or decisions, if any do.

    Refuse thresholds of what is no yes or no, and fewer rows than folds.
    """
    if getattr(estimator, "thresholds", None) and not isinstance(targets, Labels):
        raise ValueError(
            "`thresholds` needs an indicator matrix as `y`, with a column for each "
            f"label. Got {targets.problem_type.replace('_', ' ')}. Set it to None; for "
            "two classes, sklearn.model_selection.TunedThresholdClassifierCV finds a "
            "threshold."
        )
    if not calibrates(estimator) or estimator.early_stopping:
        return []
    if len(coded) < N_FOLDS:
        raise ValueError(
            f"`calibrate` and `thresholds` need at least {N_FOLDS} rows, one for each "
            f"fold. Got {len(coded)}. Pass more rows, or set both to None."
        )
    return even_folds(N_FOLDS, targets.stratify(coded), len(coded), seed)


def calibrates(estimator: Any) -> bool:
    """Tell whether rows that were not learned from fit probabilities or decisions."""
    return bool(
        getattr(estimator, "calibrate", None) or getattr(estimator, "thresholds", None)
    )


def set_targets(estimator: Any, targets: Targets) -> None:
    """Set what a fit predicts, and the attributes that tell of it."""
    for name in ("classes_", "temperature_", "thresholds_"):
        vars(estimator).pop(name, None)
    vars(estimator).update(_targets=targets, **targets.attributes)


def continues(estimator: Any) -> bool:
    """Tell whether the fit continues an earlier one, by `warm_start`."""
    return bool(getattr(estimator, "warm_start", False)) and hasattr(
        estimator, "_adapter"
    )


def make_generator(estimator: Any) -> torch.Generator:
    """Make torch's generator from scikit-learn's `random_state`.

    Where none is given, a fit that was killed goes on from the seed that it drew.
    """
    seed, given = None, estimator.random_state
    if not isinstance(given, int | np.integer):
        seed = stored_seed(estimator.checkpoint_dir)
    if seed is None:
        seed = check_random_state(given).randint(2**31 - 1)
    return torch.Generator().manual_seed(int(seed))


# ---- several ranks ------------------------------------------------------------


def change_on_first(
    estimator: Any,
    function: Callable[[], _Value],
    sent: Callable[[_Value], Any] | None = None,
) -> _Value:
    """Call a function on rank 0; set the attributes that it changes on all ranks.

    Return its value, or elsewhere what is `sent` of it.
    """
    ranks, before = ranks_now(), dict(vars(estimator))

    def changes(value: _Value) -> tuple[Any, dict[str, Any], set[str]]:
        now = vars(estimator)
        new = {n: v for n, v in now.items() if n not in before or v is not before[n]}
        of_callbacks = {name: new.pop(name) for name in CALLBACKS if name in new}
        gone = before.keys() - now.keys() - of_callbacks.keys()
        return (value if sent is None else sent(value)), new, set(gone)

    told: Any = ranks.from_first(function, changes)
    if ranks.is_first:
        return told
    value, new, gone = told
    vars(estimator).update(new)
    for name in gone:
        vars(estimator).pop(name, None)
    return value


def check_alike(estimator: Any, X: Any, y: Any) -> None:
    """Refuse other parameters or other rows than on rank 0.

    Rows may be None elsewhere, as rank 0 reads them for all.
    """
    ranks = ranks_now()
    if ranks.count == 1:
        return
    if estimator.get_params(deep=False).get("timeout") is not None:
        raise ValueError(
            "`timeout` must be None on several ranks, which share one plan of steps. "
            f"Got {estimator.timeout}. Set `max_steps` in its place."
        )

    def describe() -> dict[str, str]:
        given = estimator.get_params(deep=False)
        told = {
            f"`{name}`": digest(value)
            for name, value in given.items()
            if is_compared(name) and name != "random_state"
        }
        if continues(estimator):
            told["the earlier fit"] = joblib.hash(estimator._adapter.arrays)
        if X is not None:
            told["the number of rows of X"] = str(_num_samples(X))
            told["y"] = digest(read_at_once(y))
        return told

    first, *others = ranks.gather(describe)
    for rank, here in enumerate(others, start=1):
        differing = [name for name in here if here[name] != first.get(name)]
        if differing:
            raise ValueError(
                "A fit on several ranks must be called alike on each, with all rows: "
                "it shares them out itself. Got other values on rank "
                f"{rank} than on rank 0 of {', '.join(differing)}. Pass the same "
                "everywhere, or fit before the ranks join a process group."
            )


# ---- plan the steps -----------------------------------------------------------


def rows_of_steps(estimator: Any) -> float:
    """Return how many rows `max_steps` reads; infinity without a bound."""
    if estimator.max_steps is None:
        return math.inf
    return int(estimator.max_steps) * int(estimator.batch_size)


def plan_schedule(
    estimator: Any, n_samples: int, max_steps: int | None = None
) -> ResolvedSchedule:
    """Turn shares, None and "auto" into ranks and steps, at most so many."""
    bounds = [n for n in (max_steps, estimator.max_steps) if n is not None]
    return resolve_schedule(
        n_samples,
        batch_size=estimator.batch_size,
        epochs=estimator.epochs,
        max_steps=min(bounds, default=None),
        enough_steps=estimator._targets.enough_steps,
        n_classes=estimator._targets.n_classes,
        init_r=estimator.init_r,
        target_r=estimator.target_r,
        tinit=estimator.tinit,
        tfinal=estimator.tfinal,
        deltaT=estimator.deltaT,
    )


def _check_rank(estimator: Any, backbone: Backbone, schedule: ResolvedSchedule) -> None:
    """Refuse ranks above all widths: they would only fill the memory."""
    layers: list[Any] = [*linear_layers(backbone.module).values()]
    shapes = [
        (each.in_features, each.out_features)
        if isinstance(each, torch.nn.Linear)
        else each.weight.shape
        for each in layers
    ]
    widest = max(map(min, shapes), default=math.inf)
    # At the start, ranks are half as large again by default.
    most = {"target_r": widest, "init_r": 1.5 * widest}
    for name, limit in most.items():
        if (got := getattr(schedule, name)) > limit:
            raise ValueError(
                f"`{name}` must be at most {int(limit)}, since the widest layer of "
                f"{os.fspath(estimator.model)!r} has a rank of {widest}. Got {got}. "
                "Lower it."
            )
