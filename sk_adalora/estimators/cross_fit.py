"""Vectors of rows by models that have not seen them: one fine-tuning for each fold."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import check_cv
from torch import Tensor

from sk_adalora.data.labels import read_labels
from sk_adalora.data.rows import TrainingRows, UnreadTexts, read_at_once
from sk_adalora.data.targets import Numbers, Targets
from sk_adalora.files.checkpoint import WHOLE, Checkpoint, name_of_fold
from sk_adalora.files.state import collect_state, fitted_attributes, rebuild_network
from sk_adalora.network.network import TextNetwork
from sk_adalora.pretrained.backbone import Backbone
from sk_adalora.runtime.devices import Compute
from sk_adalora.runtime.ranks import ranks_now
from sk_adalora.tokens.long_texts import Windows
from sk_adalora.tokens.table import TokenTable
from sk_adalora.training.epochs import EpochCallbacks
from sk_adalora.training.loop import TrainingHistory, TrainingRun, train
from sk_adalora.training.schedule_steps import ResolvedSchedule

from .fitting import (
    FitPlan,
    adapt,
    build_adapted,
    change_on_first,
    check_alike,
    choose_compute,
    collect_fit,
    draw_of_rows,
    keep,
    make_generator,
    open_checkpoint,
    plan_schedule,
    prepare_run,
    read_all_rows,
    read_drawn,
    report_later,
    rows_of_steps,
    set_targets,
    start_training,
    tokenize_for_both,
)
from .in_time import Clock, start_clock
from .predicting import (
    OfBatch,
    Predictor,
    both_of,
    compute_rows,
    load_model,
    read_inputs,
)

# Rows whose vectors fix the axes: more would not move them.
_ENOUGH_ROWS = 2000
# Directions of less than this share of the strongest agreement are not turned: few rows
# leave most directions open.
_LEAST_TURNED = 0.01

# Rows that are drawn for `max_steps` in any case, so that each fold has some of them.
_FEWEST_DRAWN = 100

# Pairs of rows to train on and rows to encode.
Folds = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class SharedInputs:
    """What all fits of an encoder, or of a classifier with its folds, share.

    Parameters
    ----------
    backbone : Backbone
        The pretrained model.
    chosen_compute : Compute
        What the user chose to compute with.
    tokens : TokenTable
        Tokens of all rows, to train on.
    windows : Windows
        Their distinct texts, to encode.
    rows : TrainingRows
        Targets of all rows, in the form that is trained on, and weights.
    used : ndarray of shape (n_used,)
        Positions of the rows to train on: of a weight above 0, and drawn.
    folds : list of (ndarray, ndarray)
        Rows to train on, and rows to encode; empty where none are held out.
    seed : int
        Every fit starts from it: at the same updates, which differ by what they learn.
    folder : Path or None
        Where the fits are saved, to go on after a kill.
    clock : Clock or None
        The time that is left, with `max_time`.
    frozen : dict of int to torch.Tensor
        Vectors of texts by the pretrained model, each computed once.
    """

    backbone: Backbone
    chosen_compute: Compute
    tokens: TokenTable
    windows: Windows
    rows: TrainingRows
    used: np.ndarray
    folds: Folds
    seed: int
    folder: Path | None
    clock: Clock | None = None
    frozen: dict[int, Tensor] = field(default_factory=dict)

    @property
    def spread(self) -> np.ndarray:
        """Positions of up to 2,000 evenly spaced rows of those used."""
        count = min(len(self.used), _ENOUGH_ROWS)
        return self.used[np.linspace(0, len(self.used) - 1, count).astype(np.int64)]

    def generator(self) -> torch.Generator:
        """Return the randomness of a fit."""
        return torch.Generator().manual_seed(self.seed)

    def plan(self, estimator: Any, rows: np.ndarray) -> FitPlan:
        """Plan the steps of a training on some of the rows."""
        of_rows = self.rows.take(rows)
        if self.clock is None:
            return FitPlan(of_rows, plan_schedule(estimator, len(rows)))
        part = len(rows) / len(self.used)
        schedule, limit = self.clock.limit(estimator, len(rows), part)
        return FitPlan(of_rows, schedule, limit=limit)

    def prepare(
        self, estimator: Any, network: TextNetwork, rows: np.ndarray, plan: FitPlan
    ) -> TrainingRun:
        """Put together a training on some of the rows."""
        tokens, compute = self.tokens.take(rows), self.backbone.compute
        return prepare_run(estimator, network, tokens, plan, compute, self.frozen)

    def checkpoint(
        self, estimator: Any, run: TrainingRun, name: str = WHOLE
    ) -> Checkpoint:
        """Return what saves a training, and has what is saved of it."""
        generator = self.generator()
        return open_checkpoint(
            estimator, self.folder, run, self.backbone, generator, name=name
        )

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
        start = time.perf_counter()
        texts, text_of = np.unique(self.tokens.text_of[rows], return_inverse=True)
        pieces = self.windows.take(texts)

        def compute(positions: np.ndarray) -> np.ndarray:
            return compute_rows(predictor, pieces.tokens.take(positions), of_batch)

        with torch.no_grad():
            of_pieces = ranks_now().of_rows(len(pieces.tokens), compute)
        computed = pieces.average(of_pieces)[text_of]
        if self.clock is not None:
            self.clock.encoded(len(rows), time.perf_counter() - start)
        return computed


class _NoHooks:
    """A training that nobody watches."""

    def skip(self) -> None: ...

    def begin(self) -> None: ...

    def end(self, run: TrainingRun, history: TrainingHistory) -> bool:
        return False


def make_folds(cv: Any, y: Any, targets: Targets, n_rows: int, seed: int) -> Folds:
    """Return the folds of `cv`; together they hold out each row once.

    An int shuffles the rows, and spreads those of each class evenly.
    """
    classes = targets.stratify(y)
    if isinstance(cv, int | np.integer):
        return even_folds(int(cv), classes, n_rows, seed)
    splitter = check_cv(cv, y, classifier=classes is not None)
    rows = np.zeros((n_rows, 1))
    folds = [(np.asarray(a), np.asarray(b)) for a, b in splitter.split(rows, classes)]
    counts = np.bincount(np.concatenate([held for _, held in folds]), minlength=n_rows)
    if len(counts) != n_rows or (counts != 1).any():
        raise ValueError(
            "The folds of `cv` must hold out each row once. Got rows that are held out "
            f"{counts.min()} to {counts.max()} times. Pass an int, or a splitter such "
            "as KFold."
        )
    return folds


def even_folds(n_folds: int, classes: Any, n_rows: int, seed: int) -> Folds:
    """Shuffle rows into folds, with those of each class, if any, spread evenly."""
    # StratifiedKFold would warn of a class of fewer rows than folds, which is common.
    if n_rows < n_folds:
        raise ValueError(
            "`cv` must be at most the number of rows. Got "
            f"{n_folds} for {n_rows} rows. Pass more rows, or lower it."
        )
    order = np.random.RandomState(seed).permutation(n_rows)
    if classes is not None:
        _, codes = np.unique(read_labels(classes), return_inverse=True)
        order = order[np.argsort(codes[order], kind="stable")]
    fold_of = np.empty(n_rows, np.int64)
    fold_of[order] = np.arange(n_rows) % n_folds
    every = np.arange(n_rows)
    return [(every[fold_of != k], every[fold_of == k]) for k in range(n_folds)]


def share_inputs(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    folder: Path | None,
    cross_fit: bool,
    start: float,
) -> SharedInputs:
    """Check and read all rows, then load the model and tokenise them.

    Without `y` there is nothing to tune: all targets are 0.
    """
    check_alike(estimator, X, y)
    rows, used, folds, seed = change_on_first(
        estimator,
        lambda: _read(estimator, X, y, sample_weight, cross_fit),
        lambda read: (read[0].without_texts(), *read[1:]),
    )
    compute = choose_compute(estimator)
    backbone = load_model(estimator, compute, estimator._targets.n_outputs)
    clock = None
    if y is not None and estimator.max_time is not None:
        size, clock = _rows_in_time(estimator, rows, used, folds, backbone, start)
        rows, used = _draw(estimator, rows, used, y, seed, size)
    tokens, windows = tokenize_for_both(estimator, rows.texts_read, backbone)
    return SharedInputs(
        backbone, compute, tokens, windows, rows, used, folds, seed, folder, clock
    )


def _read(
    estimator: Any, X: Any, y: Any, sample_weight: Any, cross_fit: bool
) -> tuple[TrainingRows, np.ndarray, Folds, int]:
    """Return rows, those to train on, folds, and the seed of all that is random.

    With `max_time`, how many to train on is still to be measured.
    """
    if y is None:
        texts = read_inputs(estimator, X, reset=True)
        targets: Targets = Numbers(True, np.zeros(1), np.zeros(1))
        rows = TrainingRows(texts, torch.zeros(len(texts), 1), None, len(texts))
    else:
        rows, targets = read_all_rows(
            estimator, X, y, sample_weight, all_texts=cross_fit
        )
    seed = make_generator(estimator).initial_seed()
    n_rows, used = len(rows.texts), rows.weighted()
    folds: Folds = []
    if cross_fit and y is not None:
        folds = make_folds(estimator.cv, read_at_once(y), targets, n_rows, seed)
    set_targets(estimator, targets)
    if y is not None and estimator.max_time is None:
        size = rows_of_steps(estimator, estimator.max_steps)
        rows, used = _draw(estimator, rows, used, y, seed, size)
    return rows, used, folds, seed


def _draw(
    estimator: Any,
    rows: TrainingRows,
    used: np.ndarray,
    y: Any,
    seed: int,
    size: float,
) -> tuple[TrainingRows, np.ndarray]:
    """Draw rows to train on, and code their targets."""
    targets, generator = estimator._targets, torch.Generator().manual_seed(seed)
    size = max(size, _FEWEST_DRAWN)
    used = draw_of_rows(used, rows.targets, targets, generator, size)
    if isinstance(rows.texts, UnreadTexts):
        rows = read_drawn(rows.take(used), y, targets, rows.targets)
        used = rows.weighted()
    rows, estimator._targets = _encode_targets(rows, targets, used)
    return rows, used


def _rows_in_time(
    estimator: Any,
    rows: TrainingRows,
    used: np.ndarray,
    folds: Folds,
    backbone: Backbone,
    start: float,
) -> tuple[float, Clock]:
    """Return how many rows there is time for, and the clock of what is left to do."""
    targets: Targets = estimator._targets
    size = rows_of_steps(estimator, estimator.max_steps)
    some = rows.take(used)
    _, coded = targets.encode(some.targets, some.weights, None, own=False)
    plan = FitPlan(replace(some, targets=coded), plan_schedule(estimator, len(used)))
    clock = start_clock(estimator, plan, backbone, start)
    n_fits = max(1, len(folds))  # the folds' fits are one less, in rows
    clock.fits = float(n_fits)
    clock.to_encode = _ENOUGH_ROWS
    if folds:
        clock.to_encode += len(rows.texts) + n_fits * _ENOUGH_ROWS
        clock.end -= len(rows.texts) * clock.timings.tokens
    most = plan.schedule.total_step
    size = min(size, clock.rows_to_draw(estimator, len(used), most))
    unneeded = _ENOUGH_ROWS - max(size, _FEWEST_DRAWN)  # of the spread rows
    clock.to_encode -= max(0, int(unneeded))
    if folds:
        clock.end += len(rows.texts) * clock.timings.tokens
    return size, clock


def _encode_targets(
    rows: TrainingRows, targets: Targets, used: np.ndarray
) -> tuple[TrainingRows, Targets]:
    """Code the targets by the rows that are used."""
    kept = rows.take(used)
    targets, coded = targets.encode(kept.targets, kept.weights, None, own=False)
    of_all = coded.new_zeros(len(rows.texts), *coded.shape[1:])
    of_all[torch.from_numpy(used)] = coded
    return replace(rows, targets=of_all), targets


def fit_whole(
    estimator: Any, shared: SharedInputs, data: dict[str, Any], start: float
) -> Predictor:
    """Fine-tune on all rows, and set the fitted attributes."""
    generator, backbone, rows = shared.generator(), shared.backbone, shared.used
    plan = shared.plan(estimator, rows)
    network = adapt(estimator, backbone, plan.schedule, generator)
    run = shared.prepare(estimator, network, rows, plan)
    report = report_later(run, shared.rows, start)
    predictor = shared.predictor(estimator, network)
    saved = shared.checkpoint(estimator, run)
    interpolation = start_training(estimator, run, generator, saved)
    fitted = partial(collect_fit, predictor, run, report)
    epochs = EpochCallbacks(estimator, data, run, fitted, interpolation, None)
    history = train(
        run, generator, verbose=estimator.verbose, hooks=epochs, saver=saved
    )
    epochs.settle_network()
    keep(estimator, predictor, run, partial(fitted, history))
    epochs.finish(history)
    kept: Predictor = estimator._predictor
    return kept


def keep_untuned(estimator: Any, shared: SharedInputs, start: float) -> Predictor:
    """Set the fitted attributes to those of the pretrained model: updates of rank 0."""
    schedule = ResolvedSchedule(1, 1, 0, 0, 1, 1, 1)
    network = adapt(estimator, shared.backbone, schedule, shared.generator())
    plan = FitPlan(shared.rows.take(shared.used), schedule)
    run = shared.prepare(estimator, network, shared.used, plan)
    report = report_later(run, shared.rows, start)()
    predictor = shared.predictor(estimator, network)
    state = collect_state(network, shared.backbone, predictor.model).without_updates()
    report = replace(report, trainable_parameters=0)
    vars(estimator).update(
        run.ranks.from_first(
            lambda: fitted_attributes(state, schedule, TrainingHistory(), report)
        )
    )
    kept = replace(predictor, network=rebuild_network(state, shared.backbone))
    estimator._predictor = kept
    return kept


def fit_fold(
    estimator: Any, shared: SharedInputs, rows: np.ndarray, name: str
) -> Predictor:
    """Fine-tune on some of the rows."""
    generator = shared.generator()
    plan = shared.plan(estimator, rows)
    network = build_adapted(estimator, shared.backbone, plan.schedule, generator)
    run = shared.prepare(estimator, network, rows, plan)
    saved = shared.checkpoint(estimator, run, name)
    interpolation = start_training(estimator, run, generator, saved)
    train(run, generator, verbose=estimator.verbose, hooks=_NoHooks(), saver=saved)
    interpolation.apply()
    return shared.predictor(estimator, network)


def encode_out_of_fold(
    estimator: Any, shared: SharedInputs, whole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors and outputs of each row by a model that was not tuned on it.

    The vectors of each fold's model are rotated onto those of the whole one: each model
    may turn its space another way.

    Parameters
    ----------
    estimator : AdaLoraEncoder
        The encoder.
    shared : SharedInputs
        The rows, with folds.
    whole : ndarray of shape (n_spread, width)
        What the model that all rows have tuned makes of the spread rows.

    Returns
    -------
    vectors : ndarray of shape (n_samples, width), dtype float32
    outputs : ndarray of shape (n_samples, n_outputs), dtype float32
    """
    n_rows, spread = len(shared.tokens), shared.spread
    vectors = np.empty((n_rows, shared.backbone.width), np.float32)
    outputs = np.empty((n_rows, estimator._targets.n_outputs), np.float32)
    for number, (trained, held) in enumerate(shared.folds):
        rows = np.intersect1d(trained, shared.used)
        fitted = fit_fold(estimator, shared, rows, name_of_fold(number))
        seen = np.isin(spread, rows)
        source, _ = shared.encode(fitted, spread[seen])
        found, outputs[held] = shared.encode(fitted, held)
        vectors[held] = ranks_now().from_first(
            lambda: _rotated(found, source, whole[seen])  # noqa: B023
        )
    return vectors, outputs


def _rotated(vectors: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Move vectors by the rotation that brings `source` closest to `target`.

    Directions in which these do not vary stay: both began at the same weights.
    """
    old, new = source.mean(axis=0), target.mean(axis=0)
    covariance = (source - old).T @ (target - new)
    strongest = np.linalg.norm(covariance, 2)
    covariance += _LEAST_TURNED * strongest * np.eye(len(covariance))
    left, _, right = np.linalg.svd(covariance)
    moved: np.ndarray = (vectors - old) @ (left @ right) + new
    return moved


def principal_axes(
    vectors: np.ndarray, weights: np.ndarray | None, n_components: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (w,) of vectors and the axes (c, w) of their largest variance.

    None keeps the vectors as they are. Rows count by their weights.
    """
    width = vectors.shape[1]
    if n_components is None:
        return np.zeros(width, np.float32), np.eye(width, dtype=np.float32)
    # scikit-learn's PCA takes no weights.
    centre = np.average(vectors.astype(np.float64), axis=0, weights=weights)
    covariance = np.cov(vectors.T, ddof=0, aweights=weights, dtype=np.float64)
    _, axes = np.linalg.eigh(covariance)
    axes = axes[:, ::-1][:, : min(n_components, *vectors.shape)].T
    largest = np.abs(axes).argmax(axis=1)
    signs = np.sign(axes[np.arange(len(axes)), largest])  # an axis has two directions
    axes = np.ascontiguousarray(axes * signs[:, None], np.float32)
    return centre.astype(np.float32), axes
