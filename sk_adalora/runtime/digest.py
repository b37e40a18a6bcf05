"""Hashes of values, the same in every process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import PurePath
from typing import Any

import joblib
import numpy as np
from scipy import sparse

# The main module, and what a spawned process calls it.
_MAIN = ("__main__", "__mp_main__")
# Parameters that change where or how a fit runs, but not its result.
_NOT_COMPARED = frozenset("checkpoint_dir device memory n_jobs verbose".split())


def digest(value: Any, named: Collection[int] | None = None) -> str:
    """Hash a value by its content, the same in every process.

    Functions and classes are hashed by their names, estimators by their parameters too;
    by their type alone those whose ids are `named`, as their parameters have names of
    their own. A list, a tuple and an array of the same values are alike.
    """
    return str(joblib.hash(_describe(value, named or ())))


def _describe(value: Any, named: Collection[int]) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    inner = partial(_describe, named=named)
    if isinstance(value, Mapping):
        return {str(key): inner(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [inner(item) for item in value]
    if isinstance(value, set | frozenset):  # whose order depends on the process
        return {"": sorted(str(joblib.hash(inner(item))) for item in value)}
    if isinstance(value, partial):
        return inner([value.func, value.args, value.keywords])
    if "_score_func" in getattr(value, "__dict__", {}):  # of `make_scorer`
        names = ("_score_func", "_sign", "_kwargs", "_response_method")
        return [inner(getattr(value, name)) for name in names]
    if hasattr(value, "get_params") and not isinstance(value, type):
        parameters = value.get_params(deep=False)
        compared = {name: parameters[name] for name in parameters if is_compared(name)}
        return [type(value).__qualname__, {} if id(value) in named else inner(compared)]
    if callable(value):  # an object that is may hold its log or its cache
        named_so = value if hasattr(value, "__qualname__") else type(value)
        module = getattr(named_so, "__module__", None)
        return f"{_MAIN[0] if module in _MAIN else module}.{named_so.__qualname__}"
    return _hash_of_content(value)


def _hash_of_content(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if sparse.issparse(value):  # which keeps in itself what it has computed
        rows = sparse.csr_array(value)
        value = [rows.shape, rows.data, rows.indices, rows.indptr]
    try:
        if hasattr(value, "__array__") and not hasattr(value, "columns"):
            array = np.asarray(value)
            return array.tolist() if array.ndim < 2 else array
        return joblib.hash(value)
    except Exception:  # it cannot be pickled, as what holds a lock
        return type(value).__qualname__


def is_compared(name: str) -> bool:
    """Tell whether the result of a fit depends on the parameter of this name."""
    return name.rpartition("__")[2] not in _NOT_COMPARED
