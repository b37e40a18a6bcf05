"""Explain predictions of mixed tables, through all of their parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sk_adalora.data.columns import Table

from .blend import blended
from .explain import Explainer, with_texts
from .table_parts import predict_cells
from .table_rows import read_columns


def table_explainer(estimator: Any, X: Any) -> Explainer:
    """Return the explainer of an estimator of mixed tables."""
    check_is_fitted(estimator)
    table, roles = read_columns(estimator, X, reset=False)
    roles.read(table)  # refuses what is wrong
    text_columns = {name for name, role in roles.of.items() if role == "text"}

    def predict(varied: Table) -> np.ndarray:
        return predict_cells(estimator, roles.read(varied))

    targets = estimator._targets
    table = with_texts(table, text_columns)
    measure = blended(targets).measure
    return Explainer(table, text_columns, targets, predict, measure)
