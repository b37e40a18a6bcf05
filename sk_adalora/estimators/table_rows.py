"""The rows of a fit to a mixed table: read and checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples

from sk_adalora.data.columns import Table, read_table
from sk_adalora.data.roles import MixedTable, Roles, find_roles
from sk_adalora.data.rows import (
    check_targets,
    read_at_once,
    read_sample_weight,
    take_rows,
)
from sk_adalora.data.targets import Targets
from sk_adalora.data.texts import check_column_of_texts
from sk_adalora.files.checkpoint import stored_seed
from sk_adalora.training.advice import warn_of_leak

from .blend import Blended, blended
from .folds import Folds, make_folds
from .predicting import check_columns


@dataclass(frozen=True)
class TableFit:
    """What the parts of a fit share.

    Parameters
    ----------
    rows : MixedTable
        The rows, without those of weight 0.
    blended : Blended
        What is predicted.
    coded : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        Their targets.
    weights : ndarray of shape (n_samples,) or None
        Their weights.
    folds : list of (ndarray, ndarray)
        Rows to fit to, and rows to predict.
    seed : int
        Of all that is random.
    """

    rows: MixedTable
    blended: Blended
    coded: np.ndarray
    weights: np.ndarray | None
    folds: Folds
    seed: int

    def constants(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return what a learner of these rows need not learn."""
        return self.blended.constants(self.coded[rows])


def read_columns(estimator: Any, X: Any, *, reset: bool) -> tuple[Table, Roles]:
    """Read a table; find (`reset`) the roles of its columns, or check their names."""
    table = read_table(X)
    if table.is_1d:
        check_column_of_texts(table.columns[0], "auto")
    if not reset:
        table = table.called_as(getattr(estimator, "feature_names_in_", ()))
    check_columns(estimator, X, table.feature_names, len(table.columns), reset=reset)
    if reset:
        return table, find_roles(table, estimator.column_roles)
    return table, Roles(estimator.column_roles_, estimator._date_formats)


def read_cells(estimator: Any, X: Any) -> MixedTable:
    """Read new rows by the roles of the fit."""
    table, roles = read_columns(estimator, X, reset=False)
    return roles.read(table)


def read_fit(estimator: Any, X: Any, y: Any, sample_weight: Any) -> TableFit:
    """Check and read what the user gave, before anything is loaded."""
    table, roles = read_columns(estimator, X, reset=True)
    check_targets(y, table.n_rows, estimator)
    y = read_at_once(y)
    targets, coded = estimator._read_targets(y)
    warn_of_leak(X, y)
    weights = read_sample_weight(read_at_once(sample_weight), table.n_rows)
    class_weight = getattr(estimator, "class_weight", None)
    weights = targets.row_weights(coded, weights, class_weight)
    rows, used = roles.read(table), _weighted(weights, table.n_rows)
    if weights is not None and len(used) < table.n_rows:
        rows, weights = rows.take(used), weights[used]
        targets, coded = estimator._read_targets(take_rows(y, used))
    # Only now: bad rows must not move a generator of the user's on.
    seed = _draw_seed(estimator)
    folds = _folds_of(estimator.cv, y, targets, coded.numpy(), used, seed)
    vars(estimator).update(
        column_roles_=roles.of,
        _date_formats=roles.date_formats,
        _targets=targets,
        **targets.attributes,
    )
    return TableFit(rows, blended(targets), coded.numpy(), weights, folds, seed)


def _draw_seed(estimator: Any) -> int:
    """Draw a seed from `random_state`; or take that of a fit that was killed."""
    given, seed = estimator.random_state, None
    if not isinstance(given, int | np.integer):
        seed = stored_seed(
            getattr(estimator.encoder, "checkpoint_dir", None), given=True
        )
    return int(check_random_state(given).randint(2**31 - 1)) if seed is None else seed


def _weighted(weights: np.ndarray | None, n_rows: int) -> np.ndarray:
    """Return the positions of the rows with a weight above 0: at least two."""
    used = np.arange(n_rows) if weights is None else np.flatnonzero(weights)
    if len(used) < 2:
        raise ValueError(
            "At least 2 rows must have a weight above 0: some are fitted, and others "
            f"predicted. Got {len(used)} sample(s) of {n_rows}. Pass more rows, or "
            "raise some weights."
        )
    return used


def _folds_of(
    cv: Any, y: Any, targets: Targets, coded: np.ndarray, used: np.ndarray, seed: int
) -> Folds:
    """Return the folds of the rows that are used, by their positions among these."""
    if isinstance(cv, int | np.integer):
        return make_folds(cv, coded, targets, len(used), seed)
    n_rows = _num_samples(y)  # which the user's own folds are of
    position = np.full(n_rows, -1)
    position[used] = np.arange(len(used))
    folds = make_folds(cv, y, targets, n_rows, seed)
    of_used = [(position[rows], position[held]) for rows, held in folds]
    return [(rows[rows >= 0], held[held >= 0]) for rows, held in of_used]
