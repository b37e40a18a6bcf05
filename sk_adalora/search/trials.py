"""Ask Optuna for trials, have their folds evaluated, and tell the results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from sk_adalora.runtime.messages import warn_user

from .dimensions import Space
from .folds import FoldFit, FoldResult
from .heartbeats import Heartbeats
from .results import warn_of_unasked
from .storage import until_reached
from .study import ERROR, FOLD, SearchStudy, is_over, may_be_best, try_again

# Seconds between two looks at trials that other processes have not finished, and looks
# before it is said what is waited for.
_POLL = 1.0
_LOOKS = 3


@dataclass(eq=False)
class Candidate:
    """A running trial, and the scores of its folds so far."""

    trial: optuna.Trial
    params: dict[str, Any]
    scores: list[float] = field(default_factory=list)
    error: str | None = None


@dataclass(kw_only=True, eq=False)
class TrialRunner:
    """Runs the trials of a study.

    Parameters
    ----------
    study : SearchStudy
        The study.
    space : Space
        The space that is searched.
    evaluate : callable
        Fits and scores on some folds of trials.
    shared : bool
        Whether other processes may work on the study.
    n_trials : int
        Trials of the study in all, whoever evaluates them.
    n_folds : int
        Folds of a complete trial.
    batch : int
        Trials that are evaluated at once.
    racing : bool
        Whether trials are evaluated fold by fold and stopped when they are behind.
    timeout : float or None
        Seconds after which no further trial begins.
    metric : str or None
        Of several metrics the one to compare; None stands for the first.
    callbacks : sequence of callable
        Called with the study and each finished trial.
    bar : tqdm
        Shows the trials.
    """

    study: SearchStudy
    space: Space
    evaluate: Callable[[list[FoldFit]], list[FoldResult]]
    shared: bool
    n_trials: int
    n_folds: int
    batch: int
    racing: bool
    timeout: float | None
    metric: str | None
    callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], Any]]
    bar: Any

    def run(self) -> None:
        """Evaluate trials until the study has enough of them.

        Also wait for trials that others evaluate: those of a process that was killed
        are evaluated here.
        """
        self.beats = Heartbeats(self.study)
        seconds = math.inf if self.timeout is None else self.timeout
        deadline, looks = time.monotonic() + seconds, 0
        # Killed trials are tried again before others are proposed, as these depend on
        # their scores.
        doubtful = {t.number for t in self._trials() if t.state is TrialState.RUNNING}
        with ExitStack() as stack:
            if self.shared:
                stack.enter_context(self.beats)
            stack.push(self._abandon)
            while not self.study.stopped:
                trials = self._take_back()
                self._show(trials)
                running = {t.number for t in trials if t.state is TrialState.RUNNING}
                doubtful = {n for n in doubtful & running if not self.beats.is_alive(n)}
                batch: list[Candidate] = []
                begun = len(running) + sum(map(is_over, trials))
                if not doubtful:
                    wanted = min(self.batch, self.n_trials - begun)
                    while len(batch) < wanted and not self.study.stopped:
                        batch += self._ask()
                        if time.monotonic() >= deadline:
                            break
                if batch:
                    self._evaluate(batch)
                elif begun - len(running) < self.n_trials and running:
                    looks += 1
                    if looks == _LOOKS:
                        warn_user(
                            "The search waits for trials that other processes have "
                            f"begun. Got {sorted(running)}. There is nothing to do: "
                            "they are tried again here, if there is no sign of life "
                            "for a minute."
                        )
                    time.sleep(_POLL)
                elif begun >= self.n_trials:
                    break
                if time.monotonic() >= deadline:
                    break
        self._show(self._trials())

    def _trials(self) -> list[FrozenTrial]:
        found: list[FrozenTrial] = until_reached(self.study.get_trials, deepcopy=False)
        return found

    def _take_back(self) -> list[FrozenTrial]:
        """Queue the trials of killed processes again, and return all trials."""
        trials = self._trials()
        for trial in trials:
            if trial.state is TrialState.RUNNING and self.beats.is_dead(trial.number):
                until_reached(try_again, self.study, trial, trials)
        return self._trials()

    def _ask(self) -> list[Candidate]:
        """Begin a trial, if a function as space does not exclude what it asks for."""
        trial = until_reached(self.study.ask)
        self.beats.running[trial.number] = trial
        try:
            params = until_reached(self.space.suggest, trial)
        except optuna.TrialPruned:
            self._tell(Candidate(trial, {}), TrialState.PRUNED)
            return []
        warn_of_unasked(self._trials()[trial.number], trial.params)
        return [Candidate(trial, params)]

    def _evaluate(self, batch: list[Candidate]) -> None:
        """Evaluate all folds at once, or in a race one after the other.

        When trials have dropped out of a race, workers that are free evaluate further
        folds of the remaining ones.
        """
        folds = list(range(self.n_folds))
        while batch and folds:
            width = self.batch // len(batch) if self.racing else len(folds)
            group, folds = folds[:width], folds[width:]
            fits = [
                FoldFit(candidate.trial.number, candidate.params, fold)
                for candidate in batch
                for fold in group
            ]
            results = self.evaluate(fits)
            for k, candidate in enumerate(batch):
                own = results[k * len(group) : (k + 1) * len(group)]
                try:
                    for fold, result in zip(group, own, strict=True):
                        until_reached(self._record, candidate, fold, result)
                    self._judge(candidate, is_last=not folds)
                except UpdateFinishedTrialError:  # another process took it for dead
                    del self.beats.running[candidate.trial.number]
            batch = [c for c in batch if c.trial.number in self.beats.running]

    def _record(self, candidate: Candidate, fold: int, result: FoldResult) -> None:
        """Keep what a fold gave, and report the mean of the scores so far."""
        trial = candidate.trial
        trial.set_user_attr(f"{FOLD}{fold}", result.as_attribute())
        scores = [*candidate.scores, result.objective(self.metric)]
        mean = _mean(scores)
        if not math.isnan(mean):
            trial.report(mean, step=fold)
        elif candidate.error is None:
            candidate.error = result.error or _no_mean(scores)
        candidate.scores = scores

    def _judge(self, candidate: Candidate, *, is_last: bool) -> None:
        """End a trial that has failed, that is complete, or that is behind."""
        if candidate.error is not None:
            until_reached(candidate.trial.set_user_attr, ERROR, candidate.error)
            self._tell(candidate, TrialState.FAIL)
        elif is_last:
            self._tell(candidate, TrialState.COMPLETE, _mean(candidate.scores))
        elif self.racing and until_reached(candidate.trial.should_prune):
            self._tell(candidate, TrialState.PRUNED)

    def _tell(
        self, candidate: Candidate, state: TrialState, value: float | None = None
    ) -> None:
        number = candidate.trial.number
        frozen = until_reached(
            self.study.tell, number, value, state=state, skip_if_finished=True
        )
        del self.beats.running[number]
        if frozen.state is state:  # else it was taken for dead
            self._show(self._trials())
            for callback in self.callbacks:
                callback(self.study, frozen)

    def _abandon(self, kind: Any, error: Any, traceback: Any) -> None:
        """Queue the trials that still run here again, as when an error ends a fit."""
        for number in list(self.beats.running):
            with suppress(Exception):  # the error that ends the run is to be raised
                trials = self.study.get_trials(deepcopy=False)
                try_again(self.study, trials[number], trials)

    def _show(self, trials: list[FrozenTrial]) -> None:
        if self.bar.disable:
            return
        over = [t for t in trials if is_over(t)]
        values = [t.value for t in over if may_be_best(t)]
        pruned = sum(t.state is TrialState.PRUNED for t in over)
        shown: dict[str, Any] = {"pruned": pruned} if pruned else {}
        if values:
            shown["best"] = f"{max(v for v in values if v is not None):.4g}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(len(over) - self.bar.n)


def _mean(scores: list[float]) -> float:
    """Return the mean of the scores: NaN if one is, or if +inf and -inf are there."""
    with np.errstate(invalid="ignore"):
        return float(np.mean(scores))


def _no_mean(scores: list[float]) -> str:
    """Say why the scores of the folds so far cannot be compared with others."""
    if math.isnan(scores[-1]):
        return (
            f"The score of fold {len(scores) - 1} is NaN. If the scorer failed, a "
            "warning 'Scoring failed' says how; with error_score='raise', it ends the "
            "search."
        )
    return f"The scores of the folds have no mean: {scores}."
