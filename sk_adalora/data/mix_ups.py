"""Signs that X and y are not what they should be: mixed up, or coded otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from .columns import Table, is_arrow_dataset, read_table
from .rows import take_rows
from .targets import Classes, Labels, Targets
from .texts import Texts

# Fewer rows than this look like anything.
_FEW_ROWS = 10
# Rows that are compared first: columns that differ in these need no second look.
_HEAD = 100
# Of swapped targets, at least this share are different, and of texts at most that.
_MOST, _HALF = 0.9, 0.5


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


def seem_swapped(texts: Texts, targets: Targets, n_rows: int) -> bool:
    """Tell whether the targets of so many rows look like texts, and texts like labels.

    The texts may be of some of the rows.
    """
    if type(targets) is not Classes or targets.classes.dtype.kind not in "UO":
        return False
    # Of targets, `classes` are the different ones.
    if n_rows < _FEW_ROWS or len(targets.classes) < _MOST * n_rows:
        return False
    distinct = pc.unique(texts.first)
    labels = pa.array([str(label) for label in targets.classes.tolist()])
    return len(distinct) <= _HALF * len(texts) and _length(labels) > _length(distinct)


def _length(texts: pa.Array) -> float:
    mean: float = pc.mean(pc.utf8_length(texts)).as_py()
    return mean


def is_one_hot(targets: Targets, coded: Tensor) -> bool:
    """Tell whether each row of an indicator matrix has exactly one label of several."""
    if not isinstance(targets, Labels) or len(targets.classes) < 2:
        return False
    return len(coded) >= _FEW_ROWS and bool((coded.sum(dim=1) == 1).all())
