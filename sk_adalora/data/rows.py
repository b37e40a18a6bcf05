"""The rows of a fit: read, checked, and split before anything is loaded."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sklearn import config_context
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_sample_weight, _num_samples
from torch import Tensor

from .columns import is_arrow_dataset
from .targets import Targets


def weighted_rows(weights: Tensor | None, n_rows: int) -> np.ndarray:
    """Return the positions of the rows with a weight above 0: at least one."""
    if weights is None:
        return np.arange(n_rows)
    positive = np.flatnonzero(weights.numpy() > 0)
    if not len(positive):
        raise ValueError(
            f"At least one row must have a weight above 0. Got 0 for all {n_rows} "
            "rows, from `sample_weight` or `class_weight`. Raise some weights."
        )
    return positive


def draw_rows(
    rows: np.ndarray, size: int, coded: Tensor, targets: Targets, seed: int
) -> np.ndarray:
    """Draw some of the rows at random, in their order.

    Parameters
    ----------
    rows : ndarray of shape (n_samples,)
        Positions of rows.
    size : int
        How many to draw, of more. Where there is room, each class has one.
    coded : torch.Tensor
        Targets of all rows.
    targets : Targets
        Their kind.
    seed : int
        Of the draw.

    Returns
    -------
    ndarray of shape (size,)
    """
    drawn = np.random.default_rng(seed).permutation(rows)
    needed = np.sort(targets.first_of_each(coded[drawn]))[:size]
    others = np.delete(drawn, needed)[: size - len(needed)]
    return np.sort(np.concatenate([drawn[needed], others]))


def count_rows(X: Any) -> int:
    """Count the rows of what the user passed, without reading it; 0 if none can be."""
    if isinstance(X, str | bytes):
        return 0
    if is_arrow_dataset(X):
        return int(X.count_rows())
    try:
        return int(_num_samples(X))
    except TypeError:
        return 0


def take_rows(data: Any, rows: np.ndarray) -> Any:
    """Return some rows of what the user passed, in the form it was passed in."""
    if is_arrow_dataset(data):
        return data.take(pa.array(rows))
    if isinstance(data, pa.Array | pa.RecordBatch):
        return data.take(pa.array(rows))  # scikit-learn would make it a list
    try:
        # Of some sparse matrices, rows cannot be taken.
        return _safe_indexing(data.tocsr() if hasattr(data, "tocsr") else data, rows)
    except TypeError:  # a table of `datasets`, or an Index of pandas
        if hasattr(data, "select"):
            return data.select(rows)
        return np.asarray(data)[rows]


def read_at_once(y: Any) -> Any:
    """Return targets or weights of a column of `datasets` at once, others unchanged.

    Each pass over such a column reads row after row, which takes seconds.
    """
    datasets = sys.modules.get("datasets")  # imported if y is a column of it
    return y[:] if datasets is not None and isinstance(y, datasets.Column) else y


def check_targets(
    y: Any, n_samples: int, estimator: Any, names: tuple[str, str] = ("X", "y")
) -> None:
    """Refuse missing targets, other types, and more or fewer of them than rows."""
    of_rows, of_targets = names
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but "
            "the target y is None. Pass a target for each row."
        )
    refuse_name(y, names)
    n_targets = _num_samples(y)
    if n_targets != n_samples:
        raise ValueError(
            f"`{of_rows}` and `{of_targets}` must have the same number of rows. "
            f"Got {n_samples} and {n_targets}. Pass one target a row."
        )


def refuse_name(y: Any, names: tuple[str, str] = ("X", "y")) -> None:
    """Refuse the name of a column in place of targets."""
    of_rows, of_targets = names
    if isinstance(y, str):
        raise ValueError(
            f"`{of_targets}` must hold a target for each row. Got a single str. If it "
            f"names a column, pass {of_rows}[{y[:40]!r}], and {of_rows} without it."
        )


def check_validation_rows(X_val: Any, y_val: Any, early_stopping: bool) -> None:
    """Refuse one of `X_val` and `y_val` alone, and both without early stopping."""
    if (X_val is None) != (y_val is None):
        raise ValueError(
            "`X_val` and `y_val` must be passed together. Got one of them. "
            "Pass both, or neither."
        )
    if X_val is not None and not early_stopping:
        raise ValueError(
            "`X_val` and `y_val` are used for early stopping only. Got them "
            "with early_stopping=False. Set early_stopping=True."
        )


def read_sample_weight(sample_weight: Any, n_samples: int) -> np.ndarray | None:
    """Check the weights of the rows."""
    if sample_weight is None:
        return None
    rows = np.empty((n_samples, 0))
    try:
        with config_context(assume_finite=False):  # NaN would leave out its row
            return _check_sample_weight(sample_weight, rows, ensure_non_negative=True)
    except (TypeError, ValueError, OverflowError) as error:
        reason = str(error)
        if "sample_weight" in reason:
            raise
        raise ValueError(
            "`sample_weight` must hold a number of at least 0 for each row. Got "
            f"others: {reason.rstrip('.')}. Pass floats, or leave it out."
        ) from error


def weights_tensor(weights: np.ndarray | None) -> Tensor | None:
    """Return the weights divided by the largest, or None if all are equal."""
    if weights is None or (weights[0] > 0 and np.all(weights == weights[0])):
        return None
    largest = weights.max()  # only ratios matter, and some weights exceed float32
    return torch.as_tensor(weights / largest if largest > 0 else weights).float()


def split_rows(
    n_rows: int, fraction: float, stratify: Any, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the rows to train on and the rows to validate on.

    `stratify` are classes that both sides should have in the same proportions. Refuse a
    `fraction` that leaves too few rows to one of the sides.
    """
    try:
        kept, held = train_test_split(
            np.arange(n_rows),
            test_size=fraction,
            stratify=stratify,
            random_state=seed,
        )
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            "`validation_fraction` must leave enough rows to learn from and to score. "
            f"Got {fraction} of {n_rows} rows: {reason}. Pass `X_val` and `y_val`, "
            "set early_stopping=False, or change it."
        ) from error
    return kept, held
