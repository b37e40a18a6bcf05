"""What a search may try: ranges, choices and fixed values, for every kind of search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from optuna.distributions import BaseDistribution

from sk_adalora.estimators.parameters import SHARED_RULES

from .dimensions import CalledSpace, Part, Range, Space, draws_itself, read_part

# Parameters whose ranges are even on a logarithmic scale.
_LOG = {
    "init_r",
    "orth_reg_weight",
    "lora_alpha",
    "learning_rate",
    "batch_size",
}
# Parameters of which whole numbers mean something else than fractions.
_STEPS_OR_SHARES = {"target_r", "tinit", "tfinal", "deltaT"}
_WHOLE = {"init_r", "epochs", "batch_size"}
_TIE = "beta1"


@dataclass(frozen=True, kw_only=True)
class AdaLoraSpace:
    """The parameters of an AdaLora estimator that a search tries, and their values.

    Give each parameter a tuple ``(low, high)`` for a range, ends included; a list, a
    one-dimensional array or Python's ``range(4, 9)`` for choices; None to leave it as
    the estimator has it; or anything else for a fixed value. Ranges are on a linear
    scale, unless the parameter says otherwise. Ranks and steps are shares, so that each
    point of the space is a valid setting for any number of rows: see Notes.

    Parameters
    ----------
    init_r : object, default=(4, 32)
        Rank of every update when training starts. A range is on a logarithmic scale.
    target_r : object, default=(0.2, 0.9)
        Average rank when training ends, as a share of `init_r`; or ints, none of them
        above the lowest `init_r`.
    tinit : object, default=(0.0, 0.3)
        Last step at which all updates have full rank, as a share of all steps. Ints are
        steps, which suit one number of rows only: not recommended.
    tfinal : object, default=(0.1, 0.65)
        How many steps are at the final ranks, likewise. The largest shares of `tinit`
        and `tfinal` must sum to less than 1.
    deltaT : object, default=None
        Steps between two allocations, a share of all steps, or "auto".
    beta1 : object, default=(0.6, 0.98)
        Decay factor of the moving average of the sensitivity.
    beta2 : object, default="beta1"
        Decay factor of the moving average of its uncertainty. "beta1" gives it the
        value of `beta1`, so that the search has one parameter less.
    orth_reg_weight : object, default=(0.01, 1.0)
        Weight of the orthogonality penalty. A range is on a logarithmic scale.
    learning_rate : object, default=(0.001, 0.03)
        Peak learning rate of the updates. A range is on a logarithmic scale.
    lora_alpha : object, default=None
        Strength of the updates: they are multiplied by ``lora_alpha / init_r``. A range
        is on a logarithmic scale.
    lora_dropout : object, default=None
        Dropout of the inputs of the updates.
    epochs : object, default=None
        How many times training goes over the rows.
    batch_size : object, default=None
        Largest number of rows in a batch. A range is on a logarithmic scale.
    target_modules : object, default=None
        Which layers get an update, as choices: ``["all-linear", ["query", "value"]]``.

    Raises
    ------
    ValueError
        If the estimators do not take a value, or if a point of the space would not be a
        valid setting.

    Notes
    -----
    A range that depends on another value (``suggest_int("target_r", 1, init_r)``)
    changes from trial to trial, and Optuna's samplers then leave the parameter out of
    what they model. Here every name has one distribution. What None leaves alone must
    go together with the rest: a share for `target_r` needs an `init_r`.

    Examples
    --------
    >>> from sk_adalora import AdaLoraSpace
    >>> space = AdaLoraSpace(init_r=[8, 16], orth_reg_weight=0.1, beta1=None)
    >>> sorted(space.distributions("clf__"))
    ['clf__init_r', 'clf__learning_rate', 'clf__target_r', 'clf__tfinal', 'clf__tinit']
    >>> space.complete({"clf__init_r": 8}, prefix="clf__")
    {'clf__orth_reg_weight': 0.1, 'clf__init_r': 8}
    """

    init_r: Any = (4, 32)
    target_r: Any = (0.2, 0.9)
    tinit: Any = (0.0, 0.3)
    tfinal: Any = (0.1, 0.65)
    deltaT: Any = None
    beta1: Any = (0.6, 0.98)
    beta2: Any = _TIE
    orth_reg_weight: Any = (1e-2, 1.0)
    learning_rate: Any = (1e-3, 3e-2)
    lora_alpha: Any = None
    lora_dropout: Any = None
    epochs: Any = None
    batch_size: Any = None
    target_modules: Any = None

    def __post_init__(self) -> None:
        parts: dict[str, Any] = {**self._declare().parts}
        for name, part in parts.items():
            _check_values(name, part, getattr(self, name))
        _check_ranks(self, parts)
        _check_shares(self, parts)

    def _declare(self, prefix: str = "") -> Space:
        _check_prefix(prefix)
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        ties = {}
        if isinstance(self.beta2, str) and self.beta2 == _TIE:
            del given["beta2"]
            ties = {f"{prefix}beta2": f"{prefix}beta1"}
        parts = {
            f"{prefix}{name}": _read_field(name, value)
            for name, value in given.items()
            if value is not None
        }
        return Space(parts, ties)

    def distributions(self, prefix: str = "") -> dict[str, BaseDistribution]:
        """Return Optuna's distribution of each parameter that is searched.

        Parameters
        ----------
        prefix : str, default=""
            What stands before each name: in a pipeline, the step's name and two
            underscores.

        Returns
        -------
        dict of str to BaseDistribution
            The distributions, without fixed and tied parameters: see :meth:`complete`.

        Raises
        ------
        TypeError, ValueError
            If `prefix` is no str, or neither "" nor one that ends in "__".
        """
        return self._declare(prefix).distributions()

    def fixed(self, prefix: str = "") -> dict[str, Any]:
        """Return the parameters that have a fixed value.

        Parameters
        ----------
        prefix : str, default=""
            What stands before each name: in a pipeline, the step's name and two
            underscores.

        Returns
        -------
        dict of str to object
            The values, by parameter.

        Raises
        ------
        TypeError, ValueError
            If `prefix` is no str, or neither "" nor one that ends in "__".
        """
        return self._declare(prefix).fixed()

    def complete(self, values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """Turn what a trial holds into parameters of the estimator.

        Parameters
        ----------
        values : mapping of str to object
            What `trial.params` or `study.best_params` holds. Names that the space does
            not know stay as they are.
        prefix : str, default=""
            What stands before each name, as in :meth:`distributions`.

        Returns
        -------
        dict of str to object
            Parameters for `set_params`. Fixed and tied values are added, and choices
            are those that the space was given, of which a study may keep only the text.

        Raises
        ------
        TypeError, ValueError
            If `prefix` is no str, or neither "" nor one that ends in "__".
        """
        return self._declare(prefix).complete(values)

    def random(self, prefix: str = "") -> dict[str, Any]:
        """Return the space for `RandomizedSearchCV` and `HalvingRandomSearchCV`.

        These cannot tie two parameters together, so a tied `beta2` is drawn by itself,
        from the range of `beta1`.

        Parameters
        ----------
        prefix : str, default=""
            What stands before each name: in a pipeline, the step's name and two
            underscores.

        Returns
        -------
        dict of str to scipy distribution or list
            What `RandomizedSearchCV` takes as `param_distributions`.

        Raises
        ------
        TypeError, ValueError
            If `prefix` is no str, or neither "" nor one that ends in "__".
        """
        space = self._declare(prefix)
        parts: dict[str, Any] = {**space.parts}
        for name, source in space.ties.items():
            if source in parts:
                parts[name] = parts[source]
        return {name: part.draws() for name, part in parts.items()}

    def grid(self, prefix: str = "", n: int = 3) -> dict[str, list[Any]]:
        """Return the space for `GridSearchCV` and `HalvingGridSearchCV`.

        These cannot tie two parameters together, so a tied `beta2` is left to the
        estimator, unless `beta1` is fixed. The default space has 2187 points at
        ``n=3``: fix most of it.

        Parameters
        ----------
        prefix : str, default=""
            What stands before each name: in a pipeline, the step's name and two
            underscores.
        n : int, default=3
            Number of values of each range, ends included; at least 2.

        Returns
        -------
        dict of str to list
            What `GridSearchCV` takes as `param_grid`.

        Raises
        ------
        TypeError, ValueError
            If `n` is below 2; if `prefix` is no str, or neither "" nor one that ends in
            "__".
        """
        if n < 2:
            raise ValueError(
                f"`n` must be at least 2, the ends of a range. Got {n}. Fix what "
                "should have one value in the space."
            )
        space = self._declare(prefix)
        parts: dict[str, Any] = {**space.parts}
        for name, source in space.ties.items():
            if source in space.fixed():
                parts[name] = parts[source]
        return {name: part.points(n) for name, part in parts.items()}


def suggest_params(
    trial: Any,
    space: Any = None,
    *,
    prefix: str = "",
    fixed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Ask a trial of Optuna's for the parameters of an estimator.

    Parameters
    ----------
    trial : optuna.trial.BaseTrial
        The trial that runs; or `study.best_trial` or a `FixedTrial`, to get the
        parameters of a trial that is over.
    space : AdaLoraSpace, dict, callable or None, default=None
        The parameters and values that may be tried. None stands for ``AdaLoraSpace()``.
        A dict has names that `set_params` takes. Its values are Optuna's distributions,
        tuples (low, high) on a linear scale (of two ints: whole numbers), lists or
        one-dimensional arrays of choices, fixed values, or an `AdaLoraSpace` under the
        name of its step, which a full name overrides. A function gets the trial and
        returns a dict.
    prefix : str, default=""
        What stands before the names of an `AdaLoraSpace`: in a pipeline, the step's
        name and two underscores. Other spaces have full names.
    fixed : dict or None, default=None
        Values that are not searched, named as in the space.

    Returns
    -------
    dict of str to object
        Parameters for `set_params`.

    Raises
    ------
    TypeError, ValueError
        If the space or the prefix is wrong.

    Examples
    --------
    >>> import optuna
    >>> from sk_adalora import AdaLoraSpace, suggest_params
    >>> space = AdaLoraSpace(init_r=16, target_r=0.5, orth_reg_weight=None,
    ...                      learning_rate=None, tinit=0.1, tfinal=0.5)
    >>> trial = optuna.trial.FixedTrial({"clf__beta1": 0.7})
    >>> params = suggest_params(trial, space, prefix="clf__", fixed={"epochs": 4})
    >>> params["clf__beta1"], params["clf__beta2"], params["clf__epochs"]
    (0.7, 0.7, 4)
    """
    fixed = dict(fixed or {})
    if space is None:
        space = AdaLoraSpace()
    if isinstance(space, AdaLoraSpace):
        known = {f.name for f in fields(AdaLoraSpace)} & fixed.keys()
        # A list of one is a fixed value, whatever its type.
        space = replace(space, **{name: [fixed.pop(name)] for name in known})
        fixed = {f"{prefix}{name}": value for name, value in fixed.items()}
    elif isinstance(space, Mapping):
        space = {**space, **{name: [value] for name, value in fixed.items()}}
    return {**read_space(space, prefix).suggest(trial), **fixed}


# Where users import them from: for pickles.
AdaLoraSpace.__module__ = suggest_params.__module__ = "sk_adalora"


def read_space(space: Any, prefix: str = "") -> Space:
    """Read a space of any kind.

    Parameters
    ----------
    space : AdaLoraSpace, mapping or callable
        As in :func:`suggest_params`.
    prefix : str, default=""
        Put before the names of an `AdaLoraSpace`.

    Returns
    -------
    Space

    Raises
    ------
    TypeError
        If it is none of these, or if the prefix of an `AdaLoraSpace` is no str.
    ValueError
        If a value of a mapping is none that can be searched, or if that prefix is
        neither "" nor ends in "__".
    """
    if isinstance(space, AdaLoraSpace):
        return space._declare(prefix)
    if isinstance(space, Mapping):
        return _read_mapping(space)
    if callable(space) and not isinstance(space, type):
        return CalledSpace(function=space)
    raise TypeError(
        "`space` must be an AdaLoraSpace, a dict of distributions, or a callable that "
        f"gets a trial. Got {space!r}. For the default space, pass AdaLoraSpace()."
    )


def _read_mapping(space: Mapping[str, Any]) -> Space:
    parts: dict[str, Part | BaseDistribution] = {}
    # By full names, which take precedence over a space.
    named: dict[str, Part | BaseDistribution] = {}
    ties: dict[str, str] = {}
    for name, value in space.items():
        if isinstance(value, AdaLoraSpace):
            inner = value._declare(f"{name}__")
            parts |= inner.parts
            ties |= inner.ties
        elif value is None:
            raise ValueError(
                f"`{name}` of the space must be a distribution, a range, choices or a "
                "value. Got None. Leave the name out to leave the parameter alone, or "
                "give [None] to set it to None."
            )
        else:
            named[name] = read_part(name, value)
    ties = {name: source for name, source in ties.items() if name not in named}
    return Space(parts | named, ties)


def _read_field(name: str, value: Any) -> Part:
    if isinstance(value, BaseDistribution | Mapping) or draws_itself(value):
        raise ValueError(
            f"`{name}` of AdaLoraSpace must be a tuple, a list, a value or None. Got "
            f"{value!r}. For distributions of Optuna's, pass a dict as the space."
        )
    part = read_part(name, value, log=name in _LOG)
    assert not isinstance(part, BaseDistribution), "these are refused above"
    if isinstance(part, Range) and name not in _WHOLE | _STEPS_OR_SHARES:
        return replace(part, low=float(part.low), high=float(part.high))
    return part


def _check_prefix(prefix: Any) -> None:
    if not isinstance(prefix, str):
        raise TypeError(
            f"`prefix` must be a str, such as 'clf__'. Got {prefix!r}. Pass the name "
            "of the step and two underscores, and other arguments by their names."
        )
    if prefix and not prefix.endswith("__"):
        name = prefix.rstrip("_")
        raise ValueError(
            "`prefix` must be '' or the name of a step and two underscores. Got "
            f"{prefix!r}. Pass {f'{name}__' if name else ''!r}."
        )


def _check_values(name: str, part: Part, given: Any) -> None:
    rule = SHARED_RULES[name]
    if name == "target_modules" and isinstance(part, Range):
        wrong, wording = given, "choices, as a list"
    else:
        refused = [v for v in part.values if not rule.accepts(v)]
        if not refused:
            return
        wrong, wording = refused[0], rule.wording
    within = "" if wrong is given else f" in {given!r}"
    raise ValueError(
        f"`{name}` of AdaLoraSpace must be {wording}. Got {wrong!r}{within}. "
        "Change it there."
    )


def _check_ranks(space: AdaLoraSpace, parts: Mapping[str, Part]) -> None:
    if space.init_r is None:
        return
    if space.target_r is None:
        raise ValueError(
            "`target_r` of AdaLoraSpace must be given when `init_r` is. Got "
            f"target_r=None and init_r={space.init_r!r}, which may be below the "
            "estimator's `target_r`. Give `target_r` as a share of `init_r`."
        )
    targets = parts["target_r"].values
    initial = parts["init_r"].values
    lowest = min((r for r in initial if r is not None), default=math.inf)
    shares = any(isinstance(t, float) for t in targets)
    whole = [t for t in targets if isinstance(t, int)]
    if (shares and None in initial) or max(whole, default=0) > lowest:
        raise ValueError(
            "`target_r` of AdaLoraSpace must be a share of an `init_r` that is a "
            f"number, or at most the lowest `init_r`. Got target_r={space.target_r!r} "
            f"and init_r={space.init_r!r}. Give `target_r` as a share in (0, 1)."
        )


def _check_shares(space: AdaLoraSpace, parts: Mapping[str, Part]) -> None:
    largest = [
        max((v for v in parts[name].values if isinstance(v, float)), default=0.0)
        for name in ("tinit", "tfinal")
        if name in parts
    ]
    if sum(largest) >= 1:
        raise ValueError(
            "The largest shares of `tinit` and `tfinal` of AdaLoraSpace must sum to "
            "less than 1, or no step is left for reducing the ranks. Got "
            f"tinit={space.tinit!r} and tfinal={space.tfinal!r}. Lower one of them."
        )
