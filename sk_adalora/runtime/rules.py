"""Rules for parameters: what a value may be, and the error for another one."""

from __future__ import annotations

import difflib
import inspect
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

# The rates of `lr_scheduler_type`, which `training/loop.py` computes.
# How the tokens of a text become one vector, which a linear head reads.
POOLINGS = ("mean", "cls", "last", "max")

# Characters of a value that a message shows.
_SHOWN = 500


@dataclass(frozen=True)
class Rule:
    """What a parameter may be.

    Parameters
    ----------
    accepts : callable
        Tells whether a value is allowed.
    wording : str
        Completes the sentence "`name` must be ...".
    words : callable, default=tuple
        Returns the words that are allowed, to suggest one for a misspelt value.
    """

    accepts: Callable[[Any], bool]
    wording: str
    words: Callable[[], Iterable[str]] = tuple

    def __or__(self, other: Rule) -> Rule:
        return Rule(
            lambda value: self.accepts(value) or other.accepts(value),
            f"{self.wording}, or {other.wording}",
            lambda: [*self.words(), *other.words()],
        )


def integer(low: int, high: float = math.inf) -> Rule:
    """Allow whole numbers from `low` on, up to `high`."""
    bound = f" and at most {high}" if math.isfinite(high) else ""
    return Rule(
        lambda v: _is_integer(v) and low <= v <= high,
        f"an int of at least {low}{bound}",
    )


def number(
    low: float = -math.inf,
    high: float = math.inf,
    *,
    with_low: bool = True,
    with_high: bool = False,
) -> Rule:
    """Allow finite numbers in an interval."""

    def accepts(value: Any) -> bool:
        if not isinstance(value, Real) or _is_bool(value) or not _is_finite(value):
            return False
        x: Any = value
        above = x >= low if with_low else x > low
        return above and (x <= high if with_high else x < high)

    left, right = "[" if with_low else "(", "]" if with_high else ")"
    return Rule(accepts, f"a number in {left}{low:g}, {high:g}{right}")


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float can hold
        return False


def share(*, with_zero: bool) -> Rule:
    """Allow floats below 1, as shares; an int would mean a number of steps or ranks."""
    inside = number(0, 1, with_low=with_zero)
    return Rule(
        lambda v: inside.accepts(v) and not _is_integer(v),
        f"a float in {'[' if with_zero else '('}0, 1)",
    )


def choice(*values: str) -> Rule:
    """Allow some words."""
    return Rule(
        lambda v: isinstance(v, str) and v in values,
        f"one of {', '.join(map(repr, values))}" if len(values) > 1 else repr(*values),
        lambda: values,
    )


def instance(kind: type | tuple[type, ...], wording: str) -> Rule:
    """Allow objects of some types."""
    return Rule(lambda v: isinstance(v, kind), wording)


def _scorers() -> list[str]:
    from sklearn.metrics import get_scorer_names  # a space needs no metrics

    return get_scorer_names()


NONE = Rule(lambda v: v is None, "None")
BOOLEAN = Rule(lambda v: isinstance(v, bool | np.bool_), "True or False")
TEXT = Rule(lambda v: isinstance(v, str) and bool(v), "a str that is not empty")
PATH = Rule(
    lambda v: isinstance(v, str | os.PathLike) and bool(os.fspath(v)),
    "a Hugging Face model id or a folder",
)
DEVICE = Rule(TEXT.accepts, "'auto', or a device's name as a str, such as 'cuda:0'")
FUNCTION = Rule(callable, "a callable")
SCORER = Rule(
    lambda v: isinstance(v, str) and v in _scorers(),
    "a name of `sklearn.metrics.get_scorer_names()`",
    _scorers,
)
NAMES = Rule(
    lambda v: (
        isinstance(v, Collection)
        and not isinstance(v, str | Mapping)
        and len(v) > 0
        and all(isinstance(name, str) for name in v)
    ),
    "a list of str",
)
SPLITS = Rule(
    lambda v: not isinstance(v, str) and (isinstance(v, Iterable) or _splits(v)),
    "a cross-validation generator or pairs of indices",
)
RANDOM_STATE = (
    integer(0, high=2**32 - 1) | instance(np.random.RandomState, "a RandomState") | NONE
)


def check_parameters(estimator: Any, rules: Mapping[str, Rule]) -> None:
    """Check every parameter of an estimator that has a rule."""
    for name, value in estimator.get_params(deep=False).items():
        rule = rules.get(name)  # none for what a subclass adds
        if rule is not None and not rule.accepts(value):
            raise ValueError(
                f"`{name}` of {type(estimator).__name__} must be {rule.wording}. "
                f"Got {_shown(value)}. {_meant(value, rule)}Change it with "
                f"`set_params({name}=...)`."
            )


def _shown(value: Any) -> str:
    shown = repr(value)  # may be hundreds of lines, as of a model or a table
    return shown if len(shown) <= _SHOWN else f"an object of {type(value).__name__}"


def _meant(value: Any, rule: Rule) -> str:
    close = did_you_mean(value, rule.words()) if isinstance(value, str) else ""
    return f"{close} " if close else ""


def defaults_of(cls: Any) -> dict[str, Any]:
    """Return the parameters that have a default: an older version may lack some."""
    own = inspect.signature(cls).parameters
    return {
        name: own[name].default
        for name in cls._get_param_names()
        if own[name].default is not inspect.Parameter.empty
    }


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Suggest words that are close to one that is not known; nothing if none is."""
    words = [*known]
    # The beginning of a word, or a parameter's name without that of its step, mostly
    # means that word, but difflib rarely finds it close.
    longer = [w for w in words if given and w.startswith(given)]
    longer += [w for w in words if w.endswith(f"__{given}")]
    others = difflib.get_close_matches(given, words, n=3)
    close = [*dict.fromkeys([*longer, *others])][:3]
    return f"Did you mean {' or '.join(map(repr, close))}?" if close else ""


def _splits(value: Any) -> bool:
    return hasattr(value, "split") and hasattr(value, "get_n_splits")


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not _is_bool(value)
