"""How trials are drawn: samplers that learn from scores of folds."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from sklearn.utils import check_random_state

from sk_adalora.runtime.devices import own_settings_of_torch
from sk_adalora.runtime.messages import Muted

from .study import ERROR, READY, setting_of

# The Gaussian process takes cubic time in the trials.
_GP_TRIALS = 100

# Draws before the points of a finite space are gone through, and the most of these.
_DRAWS = 20
_POINTS = 1000
# Numbers are the same that are no further apart, as a share of their range.
_SAME = 1e-6

# Where Optuna says, once, that its Gaussian process is slower without greenlet.
_GREENLET = logging.getLogger("optuna._gp.batched_lbfgsb")


def make_sampler(
    sampler: Any,
    distributions: Mapping[str, BaseDistribution],
    n_trials: int,
    random_state: Any,
    begun: list[int],
) -> BaseSampler:
    """Return a sampler that does not repeat the draws of earlier or parallel runs.

    Parameters
    ----------
    sampler : "auto" or BaseSampler
        A sampler of the user's is copied: a search changes none of its parameters.
    distributions : mapping of str to BaseDistribution
        What is searched, if that is known.
    n_trials : int
        How many trials there will be.
    random_state : int, RandomState or None
        Seed of an automatic sampler; None draws one from NumPy's global generator.
    begun : list of int
        What tells this run from others: [0] for the first, on its own.
    """
    first = begun == [0]
    if isinstance(sampler, BaseSampler):
        own = copy.deepcopy(sampler)
        if not first:
            own.reseed_rng()  # as Optuna's own workers do
        return own
    seed = int(check_random_state(random_state).randint(2**31))
    if not first:
        words = np.random.SeedSequence([seed, *begun]).generate_state(1)
        seed = int(words[0]) % 2**31
    numeric = bool(distributions) and all(
        isinstance(d, IntDistribution | FloatDistribution)
        for d in distributions.values()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if numeric and n_trials <= _GP_TRIALS:
            return InformedGPSampler(distributions, seed=seed)
        return DistinctTPESampler(distributions, seed=seed, group=True)


class DistinctTPESampler(TPESampler):
    """TPE that proposes nothing again, while the space has anything else.

    All trials have the same folds and seeds, so a repeat gets the same score again.

    Parameters
    ----------
    declared : mapping of str to BaseDistribution
        What is searched, if that is known.
    seed : int
        Of all draws.
    group : bool
        Whether there may be parameters that not all trials have.
    """

    def __init__(
        self,
        declared: Mapping[str, BaseDistribution],
        *,
        seed: int,
        group: bool,
    ) -> None:
        super().__init__(multivariate=True, group=group, constant_liar=True, seed=seed)
        self.declared = _searched(declared)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return what to sample: what is declared, or else what trials tell."""
        told = super().infer_relative_search_space(study, trial)
        if self.declared:
            return dict(self.declared)
        # What a function asked for in trials that failed or run is not among that.
        asked = (t.distributions for t in _others(study, trial))
        found = {n: d for each in asked for n, d in each.items() if not d.single()}
        # In the order that Optuna gives them as soon as a trial is over. So how many
        # trials have begun before that does not change what is drawn.
        return dict(sorted((found | told).items()))

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Sample parameters that no other trial has."""
        ask = super().sample_relative
        queued = _queued(trial, search_space)
        # Not a generator of our own of the same seed: what a function asks for beside
        # this is drawn by that of the base class, and would get the same numbers.
        random = self._random_sampler.sample_independent

        def draw(proposal: dict[str, Any]) -> dict[str, Any]:
            drawn = {
                name: random(study, trial, name, distribution)
                for name, distribution in search_space.items()
                if name not in proposal
            }
            return proposal | drawn | queued

        first = draw(ask(study, trial, search_space))
        points = itertools.chain(
            [first],
            (draw(ask(study, trial, search_space)) for _ in range(_DRAWS)),
            (draw({}) for _ in range(_DRAWS)),
            (point | queued for point in _points(search_space)),
        )
        tried = _others(study, trial)
        fresh = (p for p in points if not _was_tried(p, search_space, tried))
        return next(fresh, first)


def _searched(space: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """Return what has several values, in the order in which Optuna samples it."""
    return {name: space[name] for name in sorted(space) if not space[name].single()}


def _queued(trial: FrozenTrial, space: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a queued trial has in place of what is drawn for it."""
    queued = trial.system_attrs.get("fixed_params", {})
    return {name: value for name, value in queued.items() if name in space}


def _others(study: optuna.Study, trial: FrozenTrial) -> list[FrozenTrial]:
    """Return the other trials that have begun, those of other workers too.

    Not those that did not get to their end: they are tried again.
    """
    return [
        t
        for t in study._get_trials(deepcopy=False)
        if setting_of(t)
        and t.number != trial.number
        and not (t.state is TrialState.FAIL and ERROR not in t.user_attrs)
    ]


def _was_tried(
    params: dict[str, Any],
    space: Mapping[str, BaseDistribution],
    tried: list[FrozenTrial],
) -> bool:
    """Tell whether a trial had these parameters, or those of them that it asked for.

    Of a trial that is not over, all of them: it may ask for more. So it is with one
    that was given up, as its process may have died before it had asked for all.
    """
    for trial in tried:
        over = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        asked_all = over or READY in trial.user_attrs
        had = trial.params if asked_all else setting_of(trial)
        known = {**space, **trial.distributions}
        drawn = {n: had[n] for n in had if n not in known or not known[n].single()}
        if drawn and (asked_all or params.keys() <= drawn.keys()):
            if drawn.keys() <= params.keys() and all(
                _is_same(known[n], params[n], drawn[n]) for n in drawn
            ):
                return True
    return False


def _is_same(distribution: Any, one: Any, other: Any) -> bool:
    try:
        first, second = map(distribution.to_internal_repr, (one, other))
    except ValueError:  # what was queued is no value of it
        return False
    if isinstance(distribution, CategoricalDistribution):
        return first == second
    low, high = distribution.low, distribution.high
    if distribution.log:
        low, high, first, second = map(math.log, (low, high, first, second))
    return abs(first - second) <= _SAME * (high - low)


def _points(space: Mapping[str, BaseDistribution]) -> Iterator[dict[str, Any]]:
    """Go through all points of a space, if they can be counted."""
    if count_points(space) < math.inf:
        for values in itertools.product(*map(_values, space.values())):
            yield dict(zip(space, values, strict=True))


def count_points(space: Mapping[str, BaseDistribution]) -> float:
    """Return how many points a space has; infinity for more than `_POINTS`."""
    axes = [_values(distribution) for distribution in space.values()]
    n_points = math.prod(map(len, axes))
    return n_points if all(axes) and n_points <= _POINTS else math.inf


def all_tried(space: Mapping[str, BaseDistribution], trials: list[FrozenTrial]) -> bool:
    """Tell whether the trials have all points of a space that can be counted.

    A trial that runs and has no parameters yet may get any of them.
    """
    drawn = _searched(space)
    if len(trials) < count_points(drawn):
        return False
    left = sum(not _was_tried(point, drawn, trials) for point in _points(drawn))
    begins = sum(not setting_of(t) and not t.state.is_finished() for t in trials)
    return not drawn or left <= begins


def _values(distribution: Any) -> Sequence[Any]:
    """Return the values of a choice or of a range with steps; none of another."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    low, high, step = distribution.low, distribution.high, distribution.step
    if low == high:
        return [low]
    if step is None or high - low > step * _POINTS:
        return ()
    return [min(high, low + i * step) for i in range(round((high - low) / step) + 1)]


class InformedGPSampler(GPSampler):
    """Optuna's Gaussian process, which also learns from pruned and failed trials.

    `GPSampler` looks at complete trials only, and would propose what was pruned again
    and again. So it does with a corner of the space towards which the scores rise. What
    was tried is left to TPE.

    Parameters
    ----------
    declared : mapping of str to BaseDistribution
        What is searched.
    seed : int
        Of all draws.
    """

    def __init__(self, declared: Mapping[str, BaseDistribution], *, seed: int) -> None:
        super().__init__(seed=seed)
        self._instead = DistinctTPESampler(declared, seed=seed, group=False)

    def reseed_rng(self) -> None:
        """Draw something else than copies of this sampler."""
        super().reseed_rng()
        self._instead.reseed_rng()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return what to sample: what is declared."""
        return self._instead.infer_relative_search_space(study, trial)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Sample parameters that no other trial has."""
        estimated: Any = _Estimated(study)
        # The process fits by gradients, which the caller may have switched off.
        with _silent_greenlet(), own_settings_of_torch():
            params = super().sample_relative(estimated, trial, search_space)
        # Only now, because other workers go on while a proposal is computed.
        proposal = params | _queued(trial, search_space)
        if params and not _was_tried(proposal, search_space, _others(estimated, trial)):
            return params
        return self._instead.sample_relative(study, trial, search_space)


_silent_greenlet = Muted(
    lambda: _GREENLET.level, _GREENLET.setLevel, lambda wanted: logging.ERROR
)


class _Estimated:
    """A study whose trials are shown to a sampler with estimated values."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Any = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        # As Optuna's samplers do. `get_trials` may leave some of them out: those of
        # another bracket, with a `HyperbandPruner`.
        trials = self._study._get_trials(deepcopy=False, use_cache=use_cache)
        shown = with_estimates(trials)
        return [t for t in shown if states is None or t.state in states]


def with_estimates(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Give pruned and failed trials of a study an estimated value.

    A trial that was pruned after some folds gets their mean, plus the mean change of
    complete trials from the same folds to all: some folds are easier than others. A
    trial that failed gets the worst value of all. The others are the same objects.
    """
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    if not complete:
        return trials
    known = complete[0].params.keys()
    whole = [t for t in trials if t.params.keys() >= known]  # what the process can read
    values = {
        trial.number: _estimate(trial, complete)
        for trial in whole
        if trial.state is TrialState.PRUNED and trial.intermediate_values
    }
    worst = min([*values.values(), *(t.value for t in complete if t.value is not None)])
    for trial in whole:
        if ERROR in trial.user_attrs:
            values[trial.number] = worst
    return [
        _completed(t, values[t.number]) if t.number in values else t for t in trials
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
