"""Where a search begins: what it refuses, and which settings it tries first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Integral, Real
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
from optuna.distributions import IntDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from sklearn.utils import _safe_indexing

from sk_adalora.estimators.base import BaseAdaLora
from sk_adalora.runtime.digest import digest
from sk_adalora.runtime.rules import (
    BOOLEAN,
    NONE,
    PATH,
    RANDOM_STATE,
    TEXT,
    Rule,
    choice,
    did_you_mean,
    instance,
    integer,
    number,
)
from sk_adalora.training.schedule_steps import default_init_r, rank_of_share

from .dimensions import CalledSpace, Space, plain

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

# Marks that the space has no such value. Not None, which may be one of its values.
_LEFT_OUT = object()


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


def find_prefix(estimator: Any) -> str:
    """Return what the names of the AdaLora estimator's parameters begin with.

    That is "" or, in a pipeline or another composite, for example "clf__". Refuse what
    has no such estimator, or more than one.
    """
    if isinstance(estimator, BaseAdaLora):
        return ""
    # By a parameter that only these have: a default encoder is there when it is set.
    names = estimator.get_params(deep=True)
    found = [n.removesuffix("__target_r") for n in names if n.endswith("__target_r")]
    if len(found) != 1:
        raise ValueError(
            "`estimator` must hold one AdaLora estimator for prefix='auto'. Got "
            f"{' and '.join(map(repr, found)) or 'none'} in a "
            f"{type(estimator).__name__}. Pass `prefix`, such as 'clf__', or a dict "
            "with full names as `space`."
        )
    return f"{found[0]}__"


def check_names(estimator: Any, space: Space) -> None:
    """Refuse a space that sets what the estimator does not have."""
    names = space.names()
    known = estimator.get_params(deep=True)
    for name in sorted(names - known.keys()):
        # A step that is searched itself may bring parameters of its own.
        if not any(name.startswith(f"{other}__") for other in names):
            raise ValueError(
                f"`space` must name parameters of the estimator. Got {name!r}. "
                f"{_close(name, known)}"
            )


def starting_points(enqueue: Any, estimator: Any, space: Space) -> list[dict[str, Any]]:
    """Return the settings to try first, as values of a trial.

    "paper" stands for the parameters of the estimator. Refuse names and values that are
    not in the space; a function may ask for other names.
    """
    if enqueue is None:
        return []
    distributions = space.distributions()
    if isinstance(enqueue, str):
        if not distributions:
            return []  # what a function will ask for is not known
        own = estimator.get_params(deep=True)
        current = own | space.complete({})
        point = {name: _express(name, space, current, own) for name in distributions}
        point = {n: value for n, value in point.items() if value is not _LEFT_OUT}
        return [point] if point else []
    points: list[Any] = [enqueue] if isinstance(enqueue, Mapping) else list(enqueue)
    for point in points:
        if not isinstance(point, Mapping):
            raise ValueError(
                "`enqueue` must be 'paper', a dict or a list of dict. Got a list with "
                f"{point!r} in it. Pass a dict of parameters for each setting."
            )
    if isinstance(space, CalledSpace):
        return _rehearsed(points, space)
    return [_checked(point, space) for point in points]


def _rehearsed(
    given: list[Mapping[str, Any]], space: CalledSpace
) -> list[dict[str, Any]]:
    """Call the function once for each point: a study would keep one that it refuses."""
    points = [{name: plain(point[name]) for name in point} for point in given]
    rehearsal = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for point in points:
        rehearsal.enqueue_trial(point)
        with suppress(optuna.TrialPruned):
            space.suggest(rehearsal.ask())
    return points


def _express(
    name: str, space: Space, current: Mapping[str, Any], own: Mapping[str, Any]
) -> Any:
    """Return the current value in terms of its distribution, or `_LEFT_OUT`.

    That is the estimator's `own`, or what the space fixes.
    """
    value = current.get(name, _LEFT_OUT)
    distribution, choices = space.distributions()[name], space.choices().get(name)
    whole = isinstance(distribution, IntDistribution)
    if choices is not None:
        whole = all(type(choice) is int for choice in choices)
        if (choice := _nearest(value, distribution, choices)) is not _LEFT_OUT:
            return choice
    short = name.rpartition("__")[2]
    init_r = _initial_rank(name.removesuffix(short), current, own)
    if short in ("tinit", "tfinal", "deltaT") and isinstance(value, Integral) != whole:
        return _LEFT_OUT  # without the number of all steps, steps are not shares
    if short == "target_r" and init_r is None and isinstance(value, Integral) != whole:
        return _LEFT_OUT  # nor are ranks, without the initial one
    if short == "init_r" and value is None:
        value = init_r
    if short == "target_r" and init_r is not None:
        if isinstance(value, Integral) and not whole:
            value = int(value) / init_r
        elif isinstance(value, float) and whole:
            value = rank_of_share(value, init_r)
    return _nearest(value, distribution, choices)


def _initial_rank(
    prefix: str, current: Mapping[str, Any], own: Mapping[str, Any]
) -> Any:
    """Return `init_r`, or the number that None stands for; None if it is no rank."""
    init_r = current.get(f"{prefix}init_r")
    for settings in (current, own):  # the space may fix `target_r` as a share
        target_r = settings.get(f"{prefix}target_r")
        if init_r is None and isinstance(target_r, Integral):
            init_r = default_init_r(int(target_r))
    return init_r if isinstance(init_r, Integral) and int(init_r) > 0 else None


def _nearest(value: Any, distribution: Any, choices: Sequence[Any] | None) -> Any:
    """Return the nearest number, or the same of some choices as a study keeps it.

    `_LEFT_OUT` if there is none.
    """
    value = plain(value)
    if choices is not None:
        return _label(value, zip(distribution.choices, choices, strict=True))
    if isinstance(value, bool) or not isinstance(value, Real) or value != value:
        return _LEFT_OUT
    low, high = distribution.low, distribution.high
    nearest = min(max(value, low), high)  # may have been infinite
    if distribution.step is not None:
        steps = round((nearest - low) / distribution.step)
        nearest = min(low + steps * distribution.step, high)
    return int(nearest) if isinstance(distribution, IntDistribution) else float(nearest)


def _label(value: Any, choices: Iterable[tuple[Any, Any]]) -> Any:
    """Return what a study keeps of a choice, or `_LEFT_OUT` if it is none."""
    pairs = list(choices)
    found = [label for label, _ in pairs if _is_same(value, label)]
    is_plain = value is None or isinstance(value, str | int | float)
    if not found and not is_plain:  # plain ones are kept as they are: "1" is not 1
        found = [label for label, _ in pairs if label == repr(value)]
    if not found and not is_plain:
        # By content, as of a dict or a set in another order. Not sooner: None and NaN,
        # or a list and a tuple, have the same.
        content = digest(value)
        found = [label for label, own in pairs if digest(own) == content]
    return found[0] if found else _LEFT_OUT


def _is_same(value: Any, other: Any) -> bool:
    """Tell whether two values mean the same: 0 and 0.0 or two NaN, not 1 and True."""
    if isinstance(value, bool) != isinstance(other, bool):
        return False
    try:
        return bool(value == other or (value != value and other != other))
    except Exception:  # of arrays, tensors and others that are neither true nor false
        return False


def _means(value: Any, fixed: Any) -> bool:
    """Tell whether a value is a fixed one, or another object with the same content."""
    return _is_same(value, fixed) or digest(value) == digest(fixed)


def _checked(point: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Return a queued point as a study keeps it; refuse what is not in the space."""
    distributions = space.distributions()
    searched = {name: value for name, value in point.items() if name in distributions}
    kept = {name: _value_of(name, value, space) for name, value in searched.items()}
    implied = space.complete(kept)
    for name, value in point.items():
        # `best_params_` names fixed and tied parameters too.
        if name in searched or (name in implied and _means(value, implied[name])):
            continue
        do = _close(name, distributions)
        if name in implied:
            do = f"The space sets it to {implied[name]!r}: leave it out."
        raise ValueError(
            "`enqueue` must name parameters that are searched, or Optuna would leave "
            f"them out without a word. Got {name!r}. {do}"
        )
    return kept


def _value_of(name: str, value: Any, space: Space) -> Any:
    """Return a queued value as a study keeps it; refuse one outside of the space."""
    distribution, choices = space.distributions()[name], space.choices().get(name)
    kept = _nearest(value, distribution, choices)
    # Near 0, the last digit is one of the steps.
    rounding = 1e-9 * (getattr(distribution, "step", None) or 0)
    if kept is _LEFT_OUT or not (
        choices is not None or math.isclose(kept, value, abs_tol=rounding)
    ):
        raise ValueError(
            f"`enqueue` must hold values of the space. Got {value!r} for {name!r}, "
            f"which is a {distribution}. Choose a value of it, or widen the space."
        )
    return kept


def _close(name: str, known: Iterable[str]) -> str:
    among = f"Choose among {', '.join(sorted(known)[:20])}."
    return did_you_mean(name, known) or among
