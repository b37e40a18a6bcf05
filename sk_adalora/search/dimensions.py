"""Values that a parameter may have, and spaces of them, for Optuna and scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

# Types that Optuna's storages keep unchanged.
_PLAIN = (str, bool, int, float, type(None))


@dataclass(frozen=True)
class Range:
    """All numbers between two, the ends included; whole ones if the ends are ints."""

    low: float
    high: float
    log: bool = False

    @property
    def values(self) -> tuple[Any, ...]:
        """The ends: all values are valid if they are."""
        return (self.low, self.high)

    @property
    def _whole(self) -> bool:
        return isinstance(self.low, int)

    def distribution(self) -> BaseDistribution:
        """Return the range as Optuna writes it."""
        kind: Any = IntDistribution if self._whole else FloatDistribution
        return kind(self.low, self.high, log=self.log)

    def draws(self) -> Any:
        """Return the range as RandomizedSearchCV takes it."""
        from scipy import stats

        if self._whole:
            low, high = int(self.low), int(self.high)
            return LogIntegers(low, high) if self.log else stats.randint(low, high + 1)
        if self.log:
            return stats.loguniform(self.low, self.high)
        return stats.uniform(self.low, self.high - self.low)

    def points(self, n: int) -> list[Any]:
        """Return at most `n` values from end to end."""
        spaced = np.geomspace if self.log else np.linspace
        points = spaced(self.low, self.high, n).clip(self.low, self.high).tolist()
        return list(dict.fromkeys(map(round, points))) if self._whole else points


@dataclass(frozen=True)
class Choices:
    """Some values, of any type."""

    values: tuple[Any, ...]

    @property
    def labels(self) -> list[Any]:
        """What a study stores for each: plain values themselves, the repr of others."""
        return [v if isinstance(v, _PLAIN) else repr(v) for v in self.values]

    def distribution(self) -> BaseDistribution:
        """Return the choices as Optuna writes them."""
        return CategoricalDistribution(self.labels)

    def decode(self, value: Any) -> Any:
        """Return the parameter that a label stands for."""
        labels = self.labels
        return self.values[labels.index(value)] if value in labels else value

    def draws(self) -> list[Any]:
        """Return the choices as RandomizedSearchCV takes them."""
        return list(self.values)

    def points(self, n: int) -> list[Any]:
        """Return all choices."""
        return list(self.values)


@dataclass(frozen=True)
class Fixed:
    """One value."""

    value: Any

    @property
    def values(self) -> tuple[Any, ...]:
        """The value, alone."""
        return (self.value,)

    def draws(self) -> list[Any]:
        """Return the value as RandomizedSearchCV takes it."""
        return [self.value]

    def points(self, n: int) -> list[Any]:
        """Return the value, once."""
        return [self.value]


@dataclass(frozen=True)
class LogIntegers:
    """Log-uniform integers, with the method `rvs` of scipy's distributions."""

    low: int
    high: int

    def rvs(self, size: Any = None, random_state: Any = None) -> Any:
        """Draw one, or `size` of them, with a seed or a generator of numpy's."""
        from sklearn.utils import check_random_state

        if not isinstance(random_state, np.random.Generator):
            random_state = check_random_state(random_state)
        # Half a unit more on both sides: else the ends would be drawn too rarely.
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        drawn = np.exp(random_state.uniform(low, high, size=size))
        whole = np.clip(np.rint(drawn), self.low, self.high).astype(np.int64)
        return whole if size is not None else int(whole)


Part = Range | Choices | Fixed


@dataclass(frozen=True)
class Space:
    """What a search may try, known before the first trial.

    Parameters
    ----------
    parts : dict of str to Range, Choices, Fixed or BaseDistribution
        What each parameter may be, under the names that `set_params` takes.
    ties : dict of str to str
        Parameters that get the value of another.
    """

    parts: Mapping[str, Part | BaseDistribution] = field(default_factory=dict)
    ties: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> set[str]:
        """Return the parameters that the space sets."""
        tied = (name for name, source in self.ties.items() if source in self.parts)
        return {*self.parts, *tied}

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return Optuna's distribution of each name that is searched."""
        return {
            name: part if isinstance(part, BaseDistribution) else part.distribution()
            for name, part in self.parts.items()
            if not isinstance(part, Fixed)
        }

    def fixed(self) -> dict[str, Any]:
        """Return the parameters that have one value."""
        return {n: p.value for n, p in self.parts.items() if isinstance(p, Fixed)}

    def choices(self) -> dict[str, tuple[Any, ...]]:
        """Return the values of the parameters that have some to choose from."""
        return {
            name: part.values if isinstance(part, Choices) else tuple(part.choices)
            for name, part in self.parts.items()
            if isinstance(part, Choices | CategoricalDistribution)
        }

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Ask a trial for parameters, as `set_params` takes them."""
        asked = self.distributions().items()
        return self.complete({name: _suggest(trial, name, d) for name, d in asked})

    def complete(self, values: Mapping[str, Any], number: int = 0) -> dict[str, Any]:
        """Turn what a trial holds into parameters, whatever its `number`.

        Names that the space does not know stay as they are.
        """
        completed = self.fixed()
        for name, value in values.items():
            part = self.parts.get(name)
            completed[name] = part.decode(value) if isinstance(part, Choices) else value
        for name, source in self.ties.items():
            if source in completed:
                completed[name] = completed[source]
        return completed


@dataclass(frozen=True)
class CalledSpace(Space):
    """A function that asks the trial itself, and returns parameters.

    What it sets is not known before it runs: nothing of it is declared.
    """

    function: Callable[[Any], Mapping[str, Any]] = field(kw_only=True)

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Call the function, and make sure that it can be called again.

        Raises
        ------
        optuna.TrialPruned
            If the function raises it.
        TypeError
            If the function returns something else than a dict.
        ValueError
            If it does not return the same when it is called again.
        """
        params = self._call(trial)
        try:
            again = self.complete(trial.params, trial.number)
        except Exception as error:
            raise ValueError(
                "A function as `space` may use nothing of its trial but "
                "`trial.number` and the values that it suggests: it is called again, "
                "without the study, when the table is made. Got "
                f"{type(error).__name__}: {error}. Compute the rest without the trial."
            ) from error
        for name in sorted(params.keys() | again.keys()):
            both = [repr(p[name]) if name in p else "nothing" for p in (params, again)]
            if "nothing" in both or _differs(params[name], again[name]):
                raise ValueError(
                    "A function as `space` must return the same each time that it is "
                    f"called for a trial. Got {both[0]} and then {both[1]} for "
                    f"{name!r}. Draw values with the trial's `suggest_` methods only."
                )
        return params

    def _call(self, trial: Any) -> dict[str, Any]:
        params = self.function(trial)
        if not isinstance(params, Mapping):
            raise TypeError(
                "A function as `space` must return a dict of parameters. Got "
                f"{params!r}. Return the names and values that `set_params` takes."
            )
        return dict(params)

    def complete(self, values: Mapping[str, Any], number: int = 0) -> dict[str, Any]:
        """Turn what a trial holds into parameters, by calling the function again."""
        try:
            return self._call(optuna.trial.FixedTrial(dict(values), number=number))
        except optuna.TrialPruned:  # it returned none: take those that it asked for
            return dict(values)


def read_part(name: str, value: Any, *, log: bool = False) -> Part | BaseDistribution:
    """Read what a parameter may be.

    Parameters
    ----------
    name : str
        The parameter, for errors.
    value : object
        A tuple is a range; a list, a 1-D array or a `range` is choices; anything else
        but a distribution is a fixed value.
    log : bool, default=False
        Whether a range is on a logarithmic scale.

    Returns
    -------
    Range, Choices, Fixed or BaseDistribution

    Raises
    ------
    ValueError
        If the range is empty, the choices cannot be told apart, or the distribution
        is scipy's.
    """
    if isinstance(value, BaseDistribution):
        return value
    if draws_itself(value):
        raise ValueError(
            f"`{name}` of the space must be a distribution of Optuna's, a tuple, a "
            f"list of choices or a value. Got {value!r}, which has a method `rvs`, as "
            "scipy's distributions do. Give a tuple (low, high), a list, or, for "
            "example, optuna.distributions.FloatDistribution(1e-3, 1e-2, log=True)."
        )
    if isinstance(value, tuple):
        return _read_range(name, value, log)
    if isinstance(value, np.ndarray) and value.ndim != 1:
        raise ValueError(
            f"An array is choices: `{name}` must have one dimension. Got an array of "
            f"shape {value.shape}. Give [array] for one value that is an array."
        )
    if isinstance(value, list | range | np.ndarray):
        return _read_choices(name, list(value))
    return Fixed(plain(value))


def draws_itself(value: Any) -> bool:
    """Tell whether a value is a distribution of scipy, or has its `rvs`."""
    return hasattr(value, "rvs")


def _read_range(name: str, ends: tuple[Any, ...], log: bool) -> Range:
    ends = tuple(map(plain, ends))
    numbers = all(isinstance(v, Real) and not isinstance(v, bool) for v in ends)
    if len(ends) != 2 or not numbers or not -math.inf < ends[0] < ends[1] < math.inf:
        raise ValueError(
            f"A tuple is a range: `{name}` must be two finite numbers (low, high) with "
            f"low < high. Got {ends!r}. Give choices as a list, and a fixed value "
            "without brackets."
        )
    if log and ends[0] <= 0:
        raise ValueError(
            f"The range of `{name}` is on a logarithmic scale and must start above 0. "
            f"Got {ends!r}. Raise its lower end, or give choices as a list."
        )
    if not all(isinstance(v, int) for v in ends):
        ends = tuple(map(float, ends))
    low, high = ends
    return Range(low, high, log)


def _read_choices(name: str, values: list[Any]) -> Choices | Fixed:
    choices = Choices(tuple(map(plain, values)))
    if len(values) == 1:
        return Fixed(choices.values[0])
    labels = choices.labels
    clear = len(set(labels)) == len(labels) and not any(
        " at 0x" in label for label in map(str, labels)
    )
    if not values or not clear:
        raise ValueError(
            f"A list is choices: `{name}` must hold values that differ, also as texts, "
            f"by which a study tells them apart. Got {[*choices.values]!r}. Leave out "
            "duplicates. For functions, and objects without a text of their own, use "
            "a function as `space`, which chooses among names for them."
        )
    return choices


def _differs(first: Any, second: Any) -> bool:
    """Tell whether two plain values differ.

    Other objects count as equal, since each call may make new ones.
    """
    first, second = plain(first), plain(second)
    if not isinstance(first, str | int | float | None):
        return False
    if not isinstance(second, str | int | float | None):
        return True
    both_nan = first != first and second != second
    return first != second and not both_nan


def plain(value: Any) -> Any:
    """Turn numpy's numbers into Python's, which storages can write."""
    return value.item() if isinstance(value, np.generic) else value


def _suggest(trial: Any, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        kind = trial.suggest_int
    elif isinstance(distribution, FloatDistribution):
        kind = trial.suggest_float
    else:
        raise TypeError(
            f"`{name}` of the space must be a FloatDistribution, an IntDistribution or "
            f"a CategoricalDistribution. Got {distribution!r}. Use one of the three."
        )
    low, high = distribution.low, distribution.high
    return kind(name, low, high, step=distribution.step, log=distribution.log)
