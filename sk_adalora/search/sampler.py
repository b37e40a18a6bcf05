"""How trials are drawn: by samplers of Optuna's, with a seed of its own for each."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from sklearn.utils import check_random_state

from .study import place_of

# The Gaussian process takes cubic time in the trials.
_GP_TRIALS = 100


def make_sampler(
    sampler: Any,
    space: Mapping[str, BaseDistribution],
    n_trials: int,
    random_state: Any,
    *,
    racing: bool,
    is_first: bool,
) -> BaseSampler:
    """Return what draws the trials of a search.

    Parameters
    ----------
    sampler : "auto" or BaseSampler
        A sampler of the user's is copied: a search changes none of its parameters.
    space : mapping of str to BaseDistribution
        What is searched, if that is known.
    n_trials : int
        How many trials there will be.
    random_state : int, RandomState or None
        Seed of an automatic sampler; None draws one from NumPy's global generator.
    racing : bool
        Whether trials may be stopped before their last fold.
    is_first : bool
        Whether nobody else draws or has drawn trials of the study. Otherwise, a sampler
        of the user's is seeded anew, as by Optuna.
    """
    if isinstance(sampler, BaseSampler):
        own = copy.deepcopy(sampler)
        if not is_first:
            own.reseed_rng()
        return own
    has_choices = any(isinstance(d, CategoricalDistribution) for d in space.values())
    # It learns from complete trials alone, and would propose again and again what was
    # stopped. TPE learns from both.
    may_be_gaussian = not racing and not has_choices and n_trials <= _GP_TRIALS

    def make(seed: int) -> BaseSampler:
        if space and count_points(space) <= n_trials:
            return EachPointOnce(space, seed)
        if space and may_be_gaussian:
            return GPSampler(seed=seed)
        return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)

    return SeededByTrial(make, int(check_random_state(random_state).randint(2**31)))


class SeededByTrial(BaseSampler):
    """Draws each trial by a sampler of its own, whose seed the trial's place decides.

    So workers of the same seed draw different settings, and a search that goes on with
    a study draws what it would have drawn without a break.

    Parameters
    ----------
    make : callable
        Returns a sampler of a seed.
    seed : int
        That of the search.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._begin(0)

    def _begin(self, place: int) -> None:
        words = np.random.SeedSequence([self._seed, place]).generate_state(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self.sampler = self._make(int(words[0]) % 2**31)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of a trial that begins."""
        self._begin(place_of(trial, study.get_trials(deepcopy=False)))
        self.sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return what is sampled together."""
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        """Sample parameters together."""
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Sample a parameter by itself."""
        return self.sampler.sample_independent(
            study, trial, param_name, param_distribution
        )

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Learn from a trial that is over."""
        self.sampler.after_trial(study, trial, state, values)


class EachPointOnce(RandomSampler):
    """Draws the points of a small space in any order, each once.

    Parameters
    ----------
    space : mapping of str to BaseDistribution
        What is searched.
    seed : int
        Of the draws.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], seed: int) -> None:
        super().__init__(seed)
        self._space = dict(space)
        self._random = np.random.default_rng(seed)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all that is searched."""
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        """Return a point that no other trial has."""
        others = study.get_trials(deepcopy=False)
        tried = [other.params for other in others if other.number != trial.number]
        values = itertools.product(*map(_values, search_space.values()))
        points = [dict(zip(search_space, each, strict=True)) for each in values]
        left = [point for point in points if point not in tried] or points
        return left[self._random.integers(len(left))]


def count_points(space: Mapping[str, BaseDistribution]) -> float:
    """Return how many points a space has."""
    return math.prod(map(_n_values, space.values()))


def _n_values(distribution: Any) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if distribution.single():
        return 1
    if distribution.step is None:
        return math.inf
    return round((distribution.high - distribution.low) / distribution.step) + 1


def _values(distribution: Any) -> Sequence[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    n_values, low = int(_n_values(distribution)), distribution.low
    return [low + i * (distribution.step or 0) for i in range(n_values)]
