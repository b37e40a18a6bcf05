"""Values -> a hash of their content, the same in every process."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, time
from decimal import Decimal
from typing import Any

import numpy as np

from sk_adalora.data.cells import is_missing

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_DIGITS = 16
# Types whose repr is the same in every process.
BY_REPR = (str, bytes, bool, int, float, date, time, Decimal)


def digest(value: Any) -> str:
    """Hash a value by its content, the same in every process.

    Nested lists, dicts and sets, arrays, tables, sparse matrices, plain values. Others
    are pickled.
    """
    state = hashlib.sha256()
    _feed(state, value)
    return state.hexdigest()[:_DIGITS]


def _feed(state: Any, value: Any) -> None:
    if is_missing(value):  # what stands for a missing cell depends on who made a table
        value = None
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, BY_REPR):
        state.update(repr(value).encode("utf-8", "surrogatepass"))
        state.update(b";")
    elif isinstance(value, Mapping):
        _feed(state, [[key, value[key]] for key in sorted(value, key=str)])
    elif isinstance(value, list | tuple):
        state.update(b"[")
        for item in value:
            _feed(state, item)
        state.update(b"]")
    elif isinstance(value, set | frozenset):
        members = sorted(map(digest, value))  # their own order depends on the process
        state.update(f"{{{members}}}".encode())
    elif isinstance(value, np.ndarray):
        _feed_array(state, value)
    else:
        _feed_other(state, value)


def _feed_array(state: Any, array: np.ndarray) -> None:
    if array.ndim <= 1 or array.dtype.kind in "OUSTV":
        _feed(state, array.tolist())  # as the same values in a list
    else:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _feed_other(state: Any, value: Any) -> None:
    import joblib
    from scipy import sparse

    if sparse.issparse(value):
        rows = sparse.csr_array(value)
        parts = [rows.data, rows.indices, rows.indptr]
        _feed(state, [list(rows.shape), *(np.asarray(part) for part in parts)])
        return
    values = _values_of(value)
    if values is not None:
        _feed(state, values)
    else:
        try:
            state.update(joblib.hash(value).encode())
        except Exception:  # it cannot be pickled: the best that is left is its text
            state.update(lasting_repr(value).encode())


def _values_of(value: Any) -> Any:
    """Return what a table, a series, a tensor or another array holds, if it is one."""
    as_lists = _as_lists(value)
    if as_lists is not None:
        return as_lists
    if getattr(value, "ndim", 1) > 1:
        with suppress(Exception):  # a tensor of a type that NumPy lacks
            return np.asarray(value)
    with suppress(Exception):  # neither tensor nor array, or a sparse one
        listed = value.tolist()
        if not isinstance(listed, type(value)):  # as a `longdouble` is again
            return listed
    return None


def _as_lists(value: Any) -> list[Any] | None:
    """Return the values of a series, or names and values of columns, if it is one."""
    import narwhals.stable.v2 as nw

    try:
        table = nw.from_native(value, pass_through=True, allow_series=True)
        if isinstance(table, nw.Series):
            return table.to_list()
        if isinstance(table, nw.DataFrame):
            columns = zip(table.columns, table.iter_columns(), strict=True)
            return [[name, column.to_list()] for name, column in columns]
    except ValueError:  # columns share a name, which pandas and Arrow allow
        if hasattr(value, "iloc"):
            return [[name, column.to_list()] for name, column in value.items()]
    return None


def lasting_repr(value: Any) -> str:
    """Return the repr of an object without its address."""
    return _ADDRESS.sub("", repr(value))
