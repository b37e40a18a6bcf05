"""How trials are drawn: samplers that learn from scores of folds."""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from ._messages import Muted
from ._search_workers import ERROR

# The Gaussian process takes cubic time in the trials.
_GP_TRIALS = 100

# Where Optuna says, once, that its Gaussian process is slower without greenlet.
_GREENLET = logging.getLogger("optuna._gp.batched_lbfgsb")


def make_sampler(
    sampler: Any,
    distributions: Mapping[str, BaseDistribution],
    n_trials: int,
    seed: int | None,
) -> BaseSampler:
    """Return the sampler of a study.

    Parameters
    ----------
    sampler : "auto" or BaseSampler
        A sampler of the user's is copied: a search changes none of its parameters.
    distributions : mapping of str to BaseDistribution
        What is searched, if that is known.
    n_trials : int
        How many trials there will be.
    seed : int or None
        Of an automatic sampler.

    Returns
    -------
    BaseSampler
    """
    if isinstance(sampler, BaseSampler):
        return copy.deepcopy(sampler)
    numeric = bool(distributions) and all(
        isinstance(d, IntDistribution | FloatDistribution)
        for d in distributions.values()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if numeric and n_trials <= _GP_TRIALS:
            return InformedGPSampler(seed=seed)
        return TPESampler(
            multivariate=True,
            group=True,  # there may be parameters that not all trials have
            constant_liar=True,
            seed=seed,
        )


class InformedGPSampler(GPSampler):
    """Optuna's Gaussian process, which also learns from pruned and failed trials.

    `GPSampler` looks at complete trials only, and would propose what was pruned again
    and again.
    """

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Sample parameters, as the base class does.

        Parameters
        ----------
        study : optuna.Study
            The study.
        trial : FrozenTrial
            The trial to sample for.
        search_space : dict of str to BaseDistribution
            What to sample.

        Returns
        -------
        dict of str to object
        """
        estimated: Any = _Estimated(study)
        with _silent_greenlet():
            return super().sample_relative(estimated, trial, search_space)


@contextmanager
def _mute_greenlet() -> Iterator[None]:
    before = _GREENLET.level
    try:
        _GREENLET.setLevel(logging.ERROR)
        yield
    finally:
        _GREENLET.setLevel(before)


_silent_greenlet = Muted(_mute_greenlet)


class _Estimated:
    """A study in which pruned and failed trials are complete, with estimated values."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Any = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        # As Optuna's process does. `get_trials` may leave some of them out: those of
        # another bracket, with a `HyperbandPruner`.
        trials = self._study._get_trials(deepcopy=False)
        if states is None or TrialState.COMPLETE in states:
            trials = with_estimates(trials)
        if states is not None and TrialState.RUNNING not in states:
            trials = with_promises(trials)  # of Optuna 4.5 to 4.7
        return [t for t in trials if states is None or t.state in states]


def with_estimates(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Give pruned and failed trials an estimated value.

    A trial that was pruned after some folds gets their mean, plus the mean change of
    complete trials from the same folds to all: some folds are easier than others. A
    trial that failed gets the worst value of all.

    Parameters
    ----------
    trials : list of FrozenTrial
        Of one study.

    Returns
    -------
    list of FrozenTrial
        The others are the same objects.
    """
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    if not complete:
        return trials
    values = {}
    for trial in trials:
        if trial.state is TrialState.PRUNED and trial.intermediate_values:
            values[trial.number] = _estimate(trial, complete)
    worst = min([*values.values(), *(t.value for t in complete if t.value is not None)])
    known = complete[0].params.keys()
    for trial in trials:
        if ERROR in trial.user_attrs and trial.params.keys() >= known:
            values[trial.number] = worst
    return [
        _completed(t, values[t.number]) if t.number in values else t for t in trials
    ]


def with_promises(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Give running trials the best value of all, so that none is proposed beside them.

    Parameters
    ----------
    trials : list of FrozenTrial
        Of one study.

    Returns
    -------
    list of FrozenTrial
        The others are the same objects.
    """
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    best = max((t.value for t in complete if t.value is not None), default=None)
    if best is None:
        return trials
    known = complete[0].params.keys()
    return [
        _completed(t, best)
        if t.state is TrialState.RUNNING and t.params.keys() >= known
        else t
        for t in trials
    ]


def _estimate(pruned: FrozenTrial, complete: list[FrozenTrial]) -> float:
    step = max(pruned.intermediate_values)
    rises = [
        t.value - t.intermediate_values[step]
        for t in complete
        if t.value is not None
        and math.isfinite(t.value)
        and step in t.intermediate_values
    ]
    return float(pruned.intermediate_values[step] + (np.mean(rises) if rises else 0.0))


def _completed(trial: FrozenTrial, value: float) -> FrozenTrial:
    twin = copy.copy(trial)
    twin.state, twin.values = TrialState.COMPLETE, [value]
    return twin
