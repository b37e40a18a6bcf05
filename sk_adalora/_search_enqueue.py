"""Where a search begins: names of parameters, and settings to try first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
)

from ._base import BaseAdaLora
from ._dimensions import CalledSpace, DeclaredSpace, Space, plain
from ._parameters import did_you_mean
from ._search_digest import digest
from ._steps import default_init_r, rank_of_share

# Marks that the space has no such value. Not None, which may be one of its values.
_LEFT_OUT = object()
# How often a function is called to find out whether it asks for a name.
_REHEARSALS = 30


def find_prefix(estimator: Any) -> str:
    """Find the AdaLora estimator in a pipeline or another composite.

    Returns
    -------
    str
        The prefix of the names of its parameters: "", or for example "clf__".

    Raises
    ------
    ValueError
        If there is none, or more than one.
    """
    if isinstance(estimator, BaseAdaLora):
        return ""
    parts = estimator.get_params(deep=True).items()
    found = [name for name, part in parts if isinstance(part, BaseAdaLora)]
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

    Parameters
    ----------
    enqueue : "paper", dict, list of dict or None
        What the user asked for.
    estimator : estimator
        Has the parameters that "paper" stands for.
    space : Space
        What may be tried.

    Returns
    -------
    list of dict

    Raises
    ------
    ValueError
        If a name or a value is not in the space.
    """
    if enqueue is None:
        return []
    distributions = space.distributions()
    if isinstance(enqueue, str):
        if not distributions:
            return []  # what a function will ask for is not known
        own = estimator.get_params(deep=True)
        current = _with_initial_ranks(own | space.complete({}), own)
        point = {
            name: value
            for name in distributions
            if (value := _express(name, distributions, current)) is not _LEFT_OUT
        }
        return [point] if point else []
    points: list[Any] = [enqueue] if isinstance(enqueue, Mapping) else list(enqueue)
    for point in points:
        if not isinstance(point, Mapping):
            raise ValueError(
                "`enqueue` must be 'paper', a dict or a list of dict. Got a list with "
                f"{point!r} in it. Pass a dict of parameters for each setting."
            )
    if isinstance(space, CalledSpace):
        return _asked_for(points, space)
    return [_checked(point, space) for point in points]


def _asked_for(
    given: Sequence[Mapping[str, Any]], space: CalledSpace
) -> list[dict[str, Any]]:
    """Refuse points with names that the function does not ask its trial for."""
    rehearsal = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [{n: plain(value) for n, value in point.items()} for point in given]
    for point in points:
        asked: set[str] = set()
        # What a function asks for may depend on what a point leaves out.
        for _ in range(_REHEARSALS):
            rehearsal.enqueue_trial(point)
            trial = rehearsal.ask()
            try:
                space.suggest(trial)
            except optuna.TrialPruned:  # perhaps before it has asked for everything
                asked |= point.keys()
            asked |= trial.params.keys()
            if asked >= point.keys():
                break
        for name in point:
            if name not in asked:
                raise ValueError(
                    "`enqueue` must name parameters that `space` asks the trial for. "
                    f"Got {name!r}. {_close(name, asked)}"
                )
    return points


def _with_initial_ranks(
    current: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the parameters with numbers for ``init_r=None``.

    It depends on the estimator's own `target_r` where a space fixes that as a share.
    """
    resolved = dict(current)
    for name, value in own.items():
        prefix, short = _split(name)
        init_r = f"{prefix}init_r"
        if short == "target_r" and isinstance(value, Integral):
            is_hidden = not isinstance(current[name], Integral)
            if is_hidden and current.get(init_r, 0) is None:
                resolved[init_r] = default_init_r(int(value))
    return resolved


def _split(name: str) -> tuple[str, str]:
    """Cut a full name into its prefix, such as "clf__" or "", and the parameter."""
    prefix, underscores, short = name.rpartition("__")
    return prefix + underscores, short


def _express(
    name: str, distributions: Mapping[str, BaseDistribution], current: Mapping[str, Any]
) -> Any:
    """Return the current value in terms of its distribution, or `_LEFT_OUT`."""
    distribution = distributions[name]
    value = _in_units_of(name, distribution, current)
    if value is None and _split(name)[1] == "lora_alpha":
        value = _initial_rank(name, distributions, current)
    if isinstance(distribution, CategoricalDistribution):
        as_it_is = _nearest(current.get(name, _LEFT_OUT), distribution)
        if as_it_is is not _LEFT_OUT:
            return as_it_is
    return _nearest(value, distribution)


def _initial_rank(
    name: str, distributions: Mapping[str, BaseDistribution], current: Mapping[str, Any]
) -> Any:
    """Return the rank at the start, for which ``lora_alpha=None`` stands."""
    init_r = f"{_split(name)[0]}init_r"
    if init_r in distributions:  # its value in the trial may not be the current one
        return _express(init_r, distributions, current)
    return _in_units_of(init_r, distributions[name], current)


def _in_units_of(
    name: str, distribution: BaseDistribution, current: Mapping[str, Any]
) -> Any:
    """Return the current value: ranks and shares as the distribution counts them."""
    value = current.get(name, _LEFT_OUT)
    prefix, short = _split(name)
    init_r, target_r = (current.get(prefix + rank) for rank in ("init_r", "target_r"))
    if init_r is None and isinstance(target_r, Integral):
        init_r = default_init_r(int(target_r))
    whole = _is_whole(distribution)
    if short == "init_r" and value is None:
        return init_r
    if short == "target_r" and init_r is not None and isinstance(value, Real):
        return _rank(value, init_r, whole)
    if short in ("tinit", "tfinal", "deltaT") and isinstance(value, Integral) != whole:
        return _LEFT_OUT  # without the number of all steps, steps are not shares
    return value


def _is_whole(distribution: BaseDistribution) -> bool:
    """Tell whether a distribution holds whole numbers only."""
    if isinstance(distribution, CategoricalDistribution):
        return all(type(choice) is int for choice in distribution.choices)
    return isinstance(distribution, IntDistribution)


def _rank(target_r: Any, init_r: int, whole: bool) -> float:
    """Return a target rank as a number of ranks, or as a share."""
    if isinstance(target_r, Integral):
        return int(target_r) if whole else int(target_r) / init_r
    return rank_of_share(target_r, init_r) if whole else target_r


def _nearest(value: Any, distribution: Any) -> Any:
    """Return the nearest number, or the same choice as a study keeps it.

    `_LEFT_OUT` if there is none.
    """
    value = plain(value)
    if isinstance(distribution, CategoricalDistribution):
        return _label(value, distribution)
    if isinstance(value, bool) or not isinstance(value, Real) or value != value:
        return _LEFT_OUT
    low, high = distribution.low, distribution.high
    nearest = min(max(value, low), high)  # may have been infinite
    if distribution.step is not None and not distribution.log:
        steps = round((nearest - low) / distribution.step)
        nearest = min(low + steps * distribution.step, high)
    return int(nearest) if isinstance(distribution, IntDistribution) else float(nearest)


def _label(value: Any, distribution: CategoricalDistribution) -> Any:
    """Return what a study keeps of a choice, or `_LEFT_OUT` if it is none."""
    if value is None or isinstance(value, str | int | float):
        written = []  # kept as it is: "1" is not 1
    elif isinstance(value, list | tuple):
        written = [repr(list(value)), repr(tuple(value))]
    else:
        written = [repr(value)]
    for choice in distribution.choices:
        if _is_same(value, choice) or choice in written:
            return choice
    return _LEFT_OUT


def _is_same(value: Any, other: Any) -> bool:
    """Tell whether two values mean the same: 0 and 0.0 do, 1 and True do not."""
    if isinstance(value, bool) != isinstance(other, bool):
        return False
    try:
        return bool(value == other)
    except ValueError:  # of arrays
        return False


def _means(value: Any, fixed: Any) -> bool:
    """Tell whether a value is a fixed one, or another object with the same content."""
    return _is_same(value, fixed) or digest(value) == digest(fixed)


def _checked(point: Mapping[str, Any], space: DeclaredSpace) -> dict[str, Any]:
    """Return a queued point as a study keeps it; refuse what is not in the space."""
    distributions = space.distributions()
    searched = {name: value for name, value in point.items() if name in distributions}
    kept = {n: _value_of(n, value, distributions[n]) for n, value in searched.items()}
    implied = space.complete(kept)
    for name, value in point.items():
        # `best_params_` names fixed and tied parameters too.
        if name not in searched and not (
            name in implied and _means(value, implied[name])
        ):
            raise ValueError(
                "`enqueue` must name parameters that are searched, or Optuna would "
                f"leave them out without a word. Got {name!r}. "
                f"{_close(name, distributions)}"
            )
    return kept


def _value_of(name: str, value: Any, distribution: BaseDistribution) -> Any:
    """Return a queued value as a study keeps it; refuse one outside of the space."""
    kept = _nearest(value, distribution)
    is_choice = isinstance(distribution, CategoricalDistribution)
    if kept is _LEFT_OUT or not (is_choice or math.isclose(kept, value)):
        raise ValueError(
            f"`enqueue` must hold values of the space. Got {value!r} for {name!r}, "
            f"which is a {distribution}. Choose a value of it, or widen the space."
        )
    return kept


def _close(name: str, known: Iterable[str]) -> str:
    among = f"Choose among {', '.join(sorted(known)[:20])}."
    return did_you_mean(name, known) or among
