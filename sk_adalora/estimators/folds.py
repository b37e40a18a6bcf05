"""Rows in folds, each of which is held out once."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import check_cv

from sk_adalora.data.labels import read_labels
from sk_adalora.data.targets import Targets

# Pairs of rows to train on and rows to predict.
Folds = list[tuple[np.ndarray, np.ndarray]]


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
