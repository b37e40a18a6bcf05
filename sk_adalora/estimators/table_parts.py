"""The parts of a blend: which a table has, what each reads, and their mean."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn import clone
from sklearn.base import is_regressor
from sklearn.pipeline import Pipeline

from sk_adalora.data.roles import MixedTable
from sk_adalora.runtime.messages import announce, warn_user
from sk_adalora.runtime.ranks import ranks_now

from .blend import Blended, blended
from .encoder import AdaLoraEncoder
from .parameters import TABLE_PARTS
from .table_learners import (
    WORDS,
    fit_learner,
    make_learner,
    predict_learner,
    predict_out_of_fold,
    seeded,
)
from .table_report import TableFitReport
from .table_rows import TableFit, read_cells

# Parts that read what the encoder gives.
_ENCODED = {"vectors", "text"}

# ---- what the study decided -------------------------------------------------


def choose_parts(estimator: Any, rows: MixedTable) -> tuple[str, ...]:
    """Return the parts that a table with these columns can have.

    Without other columns, "vectors" would read what "text" reads.
    """
    if not rows.texts.num_columns:
        warn_user(
            f"{type(estimator).__name__} found no column of text in X: it fits "
            "`final_estimator` alone. If a column is text, say so, such as by "
            "column_roles={'name': 'text'}."
        )
        return ("columns",)
    without = {"columns", "vectors"} if rows.others.columns.empty else set()
    if estimator.encoder is not None and not estimator.encoder.tune:
        without.add("text")  # a model that is not tuned predicts nothing
    parts = tuple(part for part in TABLE_PARTS if part in {*estimator.parts} - without)
    return parts or ("vectors",)


def features_of(part: str, rows: MixedTable, encoded: Encoded | None) -> pd.DataFrame:
    """Return what the learner of a part reads beside numbers, categories and dates."""
    if part == "columns":
        return rows.whole
    if part == "linear":
        return rows.others.assign(**{WORDS: rows.words})
    assert encoded is not None, "vectors are of an encoder"
    names = [f"adalora_vector_{i}" for i in range(encoded.vectors.shape[1])]
    return rows.others.join(
        pd.DataFrame(encoded.vectors, columns=names, index=rows.others.index)
    )


# ---- the text ---------------------------------------------------------------


@dataclass(frozen=True)
class Encoded:
    """What an encoder makes of the text columns.

    Parameters
    ----------
    predictions : ndarray of shape (n_samples, k) or None
        What a blend averages; None of a model that is not tuned.
    vectors : ndarray of shape (n_samples, n_components)
        Its vectors.
    """

    predictions: np.ndarray | None
    vectors: np.ndarray


def make_encoder(estimator: Any, seed: int) -> Any:
    """Return a new encoder for a fit, without its folds."""
    encoder = AdaLoraEncoder()
    if estimator.encoder is not None:
        encoder = clone(estimator.encoder)
    encoder.set_params(
        output="both" if encoder.tune else "vectors",
        target_type="continuous" if is_regressor(estimator) else "multiclass",
        verbose=max(encoder.verbose, estimator.verbose),
    )
    return seeded(encoder, seed)


@dataclass(frozen=True)
class EncodedText:
    """What an encoder made of the rows of a fit out of fold.

    Parameters
    ----------
    columns : array-like of shape (n_samples, n_columns) or None
        What it returned; None if no part needs one.
    seconds : float
        How long it took.
    """

    columns: Any
    seconds: float


def encode_together(
    estimator: Any, prepared: tuple[TableFit, Parts] | None
) -> EncodedText:
    """Fit the encoder to the rows that rank 0 has read, and encode them out of fold.

    Each row is encoded by a model that was not tuned on it. `prepared` is rank 0's.
    """
    start = time.perf_counter()

    def give() -> Any:
        if prepared is None or prepared[1].encoder is None:
            return None
        return prepared[1].encoder.set_params(cv=prepared[0].folds)

    encoder = ranks_now().from_first(give)
    if encoder is None:
        return EncodedText(None, 0.0)
    if prepared is None:  # it is called for the fits to share
        encoder._fit_transform(None, None, None, True)
        return EncodedText(None, 0.0)
    fit, _ = prepared
    announce(estimator.verbose, f"text: {len(fit.folds) + 1} fits of the encoder ...")
    y = fit.blended.for_encoder(fit.coded)
    columns = encoder._fit_transform(fit.rows.texts, y, fit.weights, True)
    # A pickle needs no lists of rows.
    encoder.set_params(cv=(estimator.encoder or AdaLoraEncoder()).cv)
    return EncodedText(columns, time.perf_counter() - start)


def encode(encoder: Any, rows: MixedTable, blended: Blended) -> Encoded:
    """Encode new rows."""
    return _split(encoder, encoder.transform(rows.texts), blended)


def _split(encoder: Any, columns: Any, blended: Blended) -> Encoded:
    columns = np.asarray(columns)
    n_predictions = columns.shape[1] - encoder.n_components_
    predictions, vectors = np.split(columns, [n_predictions], axis=1)
    return Encoded(
        blended.from_encoder(predictions) if n_predictions else None, vectors
    )


# ---- the blend --------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """The parts of a fit, not fitted yet.

    Parameters
    ----------
    names : tuple of str
        What is blended.
    encoder : AdaLoraEncoder or None
        Of the text; None if no part needs it.
    learners : dict of str to Pipeline
        Of all parts but "text".
    """

    names: tuple[str, ...]
    encoder: Any
    learners: dict[str, Pipeline]


@dataclass(frozen=True)
class OutOfFold:
    """What the parts predict of rows that they were not fitted to.

    Parameters
    ----------
    predictions : dict of str to ndarray of shape (n_samples, k)
        By part.
    encoded : Encoded or None
        What the encoder made of the text.
    seconds : dict of str to float
        How long each part took so far.
    """

    predictions: dict[str, np.ndarray]
    encoded: Encoded | None
    seconds: dict[str, float]


def prepare_parts(estimator: Any, fit: TableFit) -> Parts:
    """Choose the parts, and make what each of them fits."""
    names = choose_parts(estimator, fit.rows)
    texts = fit.rows.texts.num_columns
    learners = {
        name: make_learner(name, estimator, fit) for name in names if name != "text"
    }
    encodes = texts and _ENCODED & {*names}
    encoder = make_encoder(estimator, fit.seed) if encodes else None
    found = estimator.column_roles_
    of_roles = ", ".join(f"{name} {role}" for name, role in found.items())
    told = f"{len(fit.rows):,} rows of {of_roles}; parts {', '.join(names)}"
    announce(estimator.verbose, told)
    return Parts(names, encoder, learners)


def blend_out_of_fold(
    estimator: Any, fit: TableFit, parts: Parts, text: EncodedText
) -> OutOfFold:
    """Fit each learner to the folds."""
    predictions: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    encoded = None
    if parts.encoder is not None:
        encoded = _split(parts.encoder, text.columns, fit.blended)
        seconds["text"] = text.seconds
        if "text" in parts.names and encoded.predictions is not None:
            predictions["text"] = encoded.predictions
    for name, learner in parts.learners.items():
        start = time.perf_counter()
        announce(estimator.verbose, f"{name}: {len(fit.folds)} fits to folds ...")
        X = features_of(name, fit.rows, encoded)
        predictions[name] = predict_out_of_fold(learner, X, fit)
        seconds[name] = time.perf_counter() - start
    in_order = {name: predictions[name] for name in parts.names}
    return OutOfFold(in_order, encoded, seconds)


def refit_parts(
    estimator: Any, fit: TableFit, parts: Parts, out_of_fold: OutOfFold
) -> None:
    """Fit to all rows what has a share, and keep it on the estimator."""
    shares = estimator.weights_
    shown = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
    announce(estimator.verbose, f"weights: {shown}; fitting to all rows ...")
    estimator.named_estimators_ = {}
    for name, learner in parts.learners.items():
        if shares[name]:
            start = time.perf_counter()
            X = features_of(name, fit.rows, out_of_fold.encoded)
            fit_learner(learner, X, fit)
            estimator.named_estimators_[name] = learner
            out_of_fold.seconds[name] += time.perf_counter() - start
    estimator.encoder_ = parts.encoder
    estimator._constants = fit.constants()


def make_report(
    estimator: Any, fit: TableFit, out_of_fold: OutOfFold, start: float
) -> TableFitReport:
    """Summarise a fit that ends now, and began at `start`."""
    predictions, shares = out_of_fold.predictions, estimator.weights_
    mean = sum(shares[name] * of_part for name, of_part in predictions.items())
    scores = {
        name: fit.blended.scores(of_part, fit.coded, fit.weights)
        for name, of_part in {**predictions, "blend": np.asarray(mean)}.items()
    }
    return TableFitReport(
        n_rows=len(fit.rows),
        columns=dict(estimator.column_roles_),
        weights=dict(shares),
        scores=scores,
        part_seconds=dict(out_of_fold.seconds),
        seconds=time.perf_counter() - start,
    )


def predict_blend(estimator: Any, X: Any) -> np.ndarray:
    """Return the weighted mean of the parts' predictions, of shape (n_samples, k)."""
    return predict_cells(estimator, read_cells(estimator, X))


def predict_cells(estimator: Any, rows: MixedTable) -> np.ndarray:
    """Return what :func:`predict_blend` does, of rows that were read."""
    averaged, constants = blended(estimator._targets), estimator._constants
    shares = {name: share for name, share in estimator.weights_.items() if share}
    encoded = None
    if _ENCODED & {*shares}:
        encoded = encode(estimator.encoder_, rows, averaged)
    mean = np.zeros((len(rows), len(constants)))
    for name, share in shares.items():
        if name == "text":
            assert encoded is not None, "the text has an encoder"
            of_part = encoded.predictions
        else:
            features = features_of(name, rows, encoded)
            learner = estimator.named_estimators_[name]
            of_part = predict_learner(learner, features, constants, averaged)
        mean += share * of_part
    return mean
