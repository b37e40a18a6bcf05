"""Numbers to predict: checked, and read as floats."""

from __future__ import annotations

from datetime import date, time, timedelta
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.utils import check_array

# Characters of a cell that a message shows.
_SHOWN = 80
_TIMES = (date, time, timedelta, np.datetime64, np.timedelta64)


def read_numbers(y: Any, name: str) -> np.ndarray:
    """Return targets as one or two dimensions of finite floats."""
    # Of dates beside numbers, polars makes floats, and Arrow no array at all.
    columns = getattr(y, "iter_columns", getattr(y, "itercolumns", lambda: [y]))
    for column in columns():
        _refuse_times(np.asarray(column), name)
    # With array_api_dispatch, a tensor would stay one.
    try:
        with config_context(array_api_dispatch=False, assume_finite=False):
            return check_array(y, ensure_2d=False, dtype=np.float64, input_name=name)
    except (TypeError, OverflowError) as error:
        raise ValueError(
            f"`{name}` of a regressor must be numbers that a float can hold. Got "
            f"others: {error}. Convert or scale them."
        ) from error
    except ValueError as error:
        got = str(error)
        if "could not convert string" not in got:
            raise
        raise ValueError(
            f"`{name}` of a regressor must be numbers. Got text: {got[:_SHOWN]}. Use "
            "AdaLoraClassifier for labels."
        ) from error


def _refuse_times(values: np.ndarray, name: str) -> None:
    """Refuse dates and durations, which NumPy would turn into the ticks of a unit."""
    kinds = {values.dtype.type}
    if values.dtype == object:
        kinds = set(map(type, values.ravel()))
    got = [kind.__name__ for kind in kinds if issubclass(kind, _TIMES)]
    if got:
        raise ValueError(
            f"`{name}` of a regressor must be numbers. Got {got[0]}. Divide durations "
            "by a unit, such as np.timedelta64(1, 'D'); of dates, subtract one first."
        )
