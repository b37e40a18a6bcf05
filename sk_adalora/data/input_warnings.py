"""Signs that X and y are not what they should be."""

from __future__ import annotations

from typing import Any

import numpy as np

from .columns import Table, is_arrow_dataset, read_table
from .rows import take_rows
from .texts import Texts

# Rows that are compared first: columns that differ in these need no second look.
_HEAD = 100


def column_of_targets(X: Any, y: Any) -> str | None:
    """Return the name of a column of a table that is equal to the targets, if any."""
    if isinstance(X, Texts) or getattr(y, "ndim", 1) > 1 or hasattr(y, "tocoo"):
        return None
    # What is only convertible to an array has no rows to take.
    X, y = (
        a if hasattr(a, "__len__") or is_arrow_dataset(a) else np.asarray(a)
        for a in (X, y)
    )
    n_rows = len(y)
    for rows in dict.fromkeys((min(n_rows, _HEAD), n_rows)):
        head = np.arange(rows)
        some = X if rows == n_rows else take_rows(X, head)
        found = _equal_column(read_table(some), take_rows(y, head))
        if found is None:
            return None
    return found


def _equal_column(table: Table, y: Any) -> str | None:
    if table.is_1d:
        return None
    try:
        targets = read_table(y)
    except (TypeError, ValueError):  # of a kind that X cannot be
        return None
    if not targets.is_1d:
        return None
    texts = targets.columns[0].texts()
    equal = (c.name for c in table.columns if c.texts().equals(texts))
    return next(equal, None)
