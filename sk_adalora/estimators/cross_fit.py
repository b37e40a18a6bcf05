"""Vectors and outputs of rows by models that have not seen them: one for each fold."""

from __future__ import annotations

from typing import Any

import numpy as np

from sk_adalora.files.checkpoint import name_of_fold
from sk_adalora.runtime.ranks import ranks_now

from .fitting import train_on
from .inputs import FitInputs

# Directions of less than this share of the strongest agreement are not turned: few rows
# leave most directions open.
_LEAST_TURNED = 0.01


def encode_out_of_fold(
    estimator: Any, inputs: FitInputs, whole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors and outputs of each row by a model that was not tuned on it.

    The vectors of each fold's model are rotated onto those of the whole one: each model
    may turn its space another way.

    Parameters
    ----------
    estimator : AdaLoraEncoder
        The encoder.
    inputs : FitInputs
        The rows, with folds.
    whole : ndarray of shape (n_spread, width)
        What the model that all rows have tuned makes of the spread rows.

    Returns
    -------
    vectors : ndarray of shape (n_samples, width), dtype float32
    outputs : ndarray of shape (n_samples, n_outputs), dtype float32
    """
    n_rows, spread = len(inputs.examples.tokens), inputs.spread
    vectors = np.empty((n_rows, inputs.backbone.width), np.float32)
    outputs = np.empty((n_rows, estimator._targets.n_outputs), np.float32)
    for number, (trained, held) in enumerate(inputs.folds):
        rows = np.intersect1d(trained, inputs.used)
        fitted = train_on(estimator, inputs, rows, name_of_fold(number)).predictor
        seen = np.isin(spread, rows)
        source, _ = inputs.encode(fitted, spread[seen])
        found, outputs[held] = inputs.encode(fitted, held)
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
