"""Rules for the parameters and the rows of a search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from sklearn.utils import _safe_indexing

from sk_adalora.runtime.rules import (
    BOOLEAN,
    NONE,
    PATH,
    RANDOM_STATE,
    TEXT,
    Rule,
    choice,
    instance,
    integer,
    number,
)

_PLACE = Rule(PATH.accepts, "the URL of a database or the path of a journal file")
_POINTS = instance(dict, "a dict") | instance((list, tuple), "a list of dict")
_CALLBACKS = Rule(
    lambda v: isinstance(v, list | tuple) and all(map(callable, v)),
    "a list of functions of a study and a trial (for scikit-learn's callbacks call "
    "`set_callbacks`)",
)


# `space` is checked where it is read, and scikit-learn checks the rest itself.
SEARCH_RULES: dict[str, Rule] = {
    "estimator": Rule(lambda v: hasattr(v, "fit"), "an estimator"),
    "prefix": instance(str, "a str"),
    "n_trials": integer(1),
    "timeout": number(0, with_low=False) | NONE,
    "sampler": choice("auto") | instance(BaseSampler, "a sampler of Optuna's"),
    "pruner": choice("auto") | instance(BasePruner, "a pruner of Optuna's") | NONE,
    "storage": _PLACE | instance(BaseStorage, "a storage of Optuna's") | NONE,
    "study_name": TEXT | NONE,
    "load_if_exists": BOOLEAN,
    # scikit-learn notices 0 only when it begins.
    "n_jobs": Rule(lambda v: v != 0, "an int other than 0, or None"),
    "enqueue": choice("paper") | _POINTS | NONE,
    "callbacks": _CALLBACKS | NONE,
    "random_state": RANDOM_STATE,
    "verbose": integer(0) | BOOLEAN,
}


def check_rows(rows: Any, name: str) -> None:
    """Refuse what scikit-learn cannot take folds out of, before a study is opened."""
    try:
        if isinstance(rows, pa.RecordBatch):
            raise TypeError("Its items are columns, not rows.")
        _safe_indexing(rows, np.zeros(2, int))  # two: some types can give only one
    except IndexError:  # no rows at all: splitting into folds will raise the error
        return
    except Exception as error:
        ways = [way for way in ("compute", "to_pandas") if hasattr(rows, way)]
        way = f"{name}.{ways[0]}()" if ways else f"list({name})"
        raise TypeError(
            f"{name} must be of a type that scikit-learn can split into folds. Got "
            f"{type(rows).__name__}. Pass {way}."
        ) from error
