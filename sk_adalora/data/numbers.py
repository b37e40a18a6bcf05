"""Numbers to predict: checked, and read as floats."""

from __future__ import annotations

import reprlib
from datetime import date, time, timedelta
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.utils import check_array

# What an error says of cells that are missing, or no finite numbers.
_NO_NUMBERS = ("contains NaN", "contains infinity", "pd.NA")
_TIMES = (date, time, timedelta, np.datetime64, np.timedelta64)


def read_numbers(y: Any, name: str) -> np.ndarray:
    """Return targets as one or two dimensions of finite floats."""
    # Of dates beside numbers, polars makes floats, and Arrow no array at all.
    columns = getattr(y, "iter_columns", getattr(y, "itercolumns", lambda: [y]))
    try:
        for column in columns():
            _refuse_times(np.asarray(column), name)
        # With array_api_dispatch, a tensor would stay one.
        with config_context(array_api_dispatch=False, assume_finite=False):
            values = check_array(
                y, ensure_2d=False, allow_nd=True, dtype=np.float64, input_name=name
            )
    except (TypeError, ValueError) as error:
        _refuse_cells(y, name)
        got = str(error)
        if "NAType" in got:  # float() names the type of pandas' missing value
            got = "Got pd.NA."
        if any(what in got for what in _NO_NUMBERS):
            raise ValueError(
                f"`{name}` must not hold NaN, infinity or missing values. {got} Drop "
                "those rows."
            ) from error
        raise
    if values.ndim > 2:
        raise ValueError(
            f"`{name}` must have one or two dimensions. Got {values.ndim}. Pass one "
            "column a target."
        )
    return values


def _refuse_times(values: np.ndarray, name: str) -> None:
    """Refuse dates and durations, which NumPy would turn into the ticks of a unit."""
    got = values.dtype.name if values.dtype.kind in "mM" else ""
    if values.dtype == object:
        times = (repr(cell) for cell in values.ravel() if isinstance(cell, _TIMES))
        got = next(times, "")
    if got:
        raise ValueError(
            f"`{name}` of a regressor must be numbers. Got {got}. Divide durations by "
            "a unit, such as np.timedelta64(1, 'D'); of dates, subtract one first."
        )


def _refuse_cells(y: Any, name: str) -> None:
    """Refuse the first cell that is several numbers or none, if there is one."""
    for cell in np.asarray(y, dtype=object).ravel():
        of_array = isinstance(cell, np.ndarray) and cell.ndim > 0
        several = of_array or isinstance(cell, list | tuple)
        if several or (isinstance(cell, str | bytes | dict) and not _is_number(cell)):
            labels = "numbers, or use AdaLoraClassifier for labels"
            raise ValueError(
                f"`{name}` of a regressor must be numbers. Got {reprlib.repr(cell)}. "
                f"Pass {'one column a target' if several else labels}."
            ) from None  # NumPy's message has all of the cell


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True
