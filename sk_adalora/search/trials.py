"""Ask Optuna for trials, have their folds evaluated, and report the results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from sk_adalora.runtime.digest import digest
from sk_adalora.runtime.messages import warn_user

from .dimensions import Space
from .folds import FoldFit, FoldResult, kept_folds
from .results import warn_of_unasked
from .study import (
    AGAIN,
    DEATHS,
    ERROR,
    FOLD,
    READY,
    SearchStudy,
    is_over,
    may_be_best,
    worker_died,
)
from .workers import GRACE, Worker

# Folds to evaluate -> their results, each as soon as it is there.
Evaluate = Callable[[list[FoldFit]], Iterable[tuple[FoldFit, FoldResult]]]

# Seconds between two looks at trials that other workers have not finished, and looks
# before it is said what is waited for.
_POLL = 1.0
_LOOKS = 5


@dataclass(eq=False)
class Candidate:
    """A running trial."""

    trial: optuna.Trial
    params: dict[str, Any] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    # By fold: also those that an earlier try has kept, and this has not come to yet.
    results: dict[int, FoldResult] = field(default_factory=dict)


@dataclass(kw_only=True, eq=False)
class TrialRunner:
    """Runs the trials of a study.

    Parameters
    ----------
    study : SearchStudy
        The study.
    space : Space
        The space that is searched.
    worker : Worker
        This run, among others on the same study.
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
    worker: Worker
    n_trials: int
    n_folds: int
    batch: int
    racing: bool
    timeout: float | None
    metric: str | None
    callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], Any]]
    bar: Any

    def __post_init__(self) -> None:
        self.open: list[Candidate] = []
        self.looks = 0  # at the trials of others, with nothing else to do
        seconds = math.inf if self.timeout is None else self.timeout
        self.deadline = time.monotonic() + seconds

    def run(self, evaluate: Evaluate) -> None:
        """Evaluate trials until the study has enough of them.

        Also wait for trials that other workers evaluate: if a worker dies, its trials
        are evaluated here.
        """
        try:
            while not self.study.stopped:
                self._show()
                batch = self._ask()
                if batch:
                    self._evaluate(batch, evaluate)
                elif self._over() < self.n_trials and self._others_run():
                    self._wait()
                else:
                    break
                if self._is_late():
                    break
        except BaseException as error:
            self._abandon(died=worker_died(error))
            raise
        self._show()

    def _ask(self) -> list[Candidate]:
        """Begin as many trials at once as there is room for."""
        self.worker.take_back()
        asked: list[Candidate] = []
        while (
            len(asked) < self.batch and not self.study.stopped and not self._no_room()
        ):
            if asked and (self._is_late() or self._is_doubtful_next()):
                break
            candidate = self._ask_one()
            if candidate is not None:
                asked.append(candidate)
                if DEATHS in candidate.trial.user_attrs:
                    break  # evaluated alone: a further death is due to it
            elif self._is_late():
                break
        return asked

    def _is_late(self) -> bool:
        return time.monotonic() >= self.deadline

    def _is_doubtful_next(self) -> bool:
        """Tell whether the next queued trial may have killed a process."""
        waiting = (TrialState.WAITING,)
        queued = self.study.get_trials(deepcopy=False, states=waiting)
        return bool(queued) and DEATHS in queued[0].user_attrs

    def _ask_one(self) -> Candidate | None:
        candidate = Candidate(self.study.ask())
        self.open.append(candidate)
        trial = candidate.trial
        queued = self.study.get_trials(deepcopy=False)[trial.number]
        # Another worker may have asked at the same time: the lower number stays.
        if self._no_room(trial.number):
            self.open.remove(candidate)
            self.worker.try_again(queued, died=False)
            return None
        try:
            candidate.params = self.space.suggest(trial)
        except optuna.TrialPruned:  # a callable space excludes this combination
            self._tell(candidate, TrialState.PRUNED)
            return None
        warn_of_unasked(queued, trial.params)
        candidate.results = self._results_of_earlier_tries(candidate, queued)
        trial.set_user_attr(READY, True)
        return candidate

    def _results_of_earlier_tries(
        self, candidate: Candidate, queued: FrozenTrial
    ) -> dict[int, FoldResult]:
        """Return the folds that a trial need not evaluate again, as it has them."""
        kept = kept_folds(queued, self.study.get_trials(deepcopy=False))
        if not kept:
            return {}
        # A function may return something else for another number.
        number = queued.user_attrs[AGAIN]
        before = self.space.complete(candidate.trial.params, number)
        if digest(before) != digest(candidate.params):
            return {}
        return {
            int(name.removeprefix(FOLD)): FoldResult.of_attribute(value)
            for name, value in kept.items()
        }

    def _no_room(self, below: float = math.inf) -> bool:
        """Tell whether the trials with numbers below a bound are as many as wanted."""
        begun = [
            t
            for t in self.study.get_trials(deepcopy=False)
            if t.number < below and (is_over(t) or t.state is TrialState.RUNNING)
        ]
        return len(begun) >= self.n_trials

    def _over(self) -> int:
        """Count the trials that are over."""
        return sum(map(is_over, self.study.get_trials(deepcopy=False)))

    def _others_run(self) -> bool:
        running = (TrialState.RUNNING,)
        return bool(self.study.get_trials(deepcopy=False, states=running))

    def _wait(self) -> None:
        """Wait for the trials of others, and say once what for."""
        self.looks += 1
        if self.looks == _LOOKS:
            warn_user(
                "The search waits for trials that others have begun. Got "
                f"{self.worker.waits_for()}. There is nothing to do: those of a "
                f"process that has ended are tried again here, {GRACE / 60:.0f} "
                "minutes after its last sign of life."
            )
        time.sleep(_POLL)

    def _evaluate(self, batch: list[Candidate], evaluate: Evaluate) -> None:
        """Evaluate all folds at once, or in a race one after the other.

        When trials have dropped out of a race, workers that are free evaluate further
        folds of the remaining ones.
        """
        folds = list(range(self.n_folds))
        while batch and folds:
            width = self.batch // len(batch) if self.racing else len(folds)
            group, folds = folds[:width], folds[width:]
            self._fill(batch, group, evaluate)
            for candidate in batch:
                for fold in group:
                    if candidate in self.open:
                        self._record(candidate, fold, last=fold == group[-1])
            batch = [candidate for candidate in batch if candidate in self.open]

    def _fill(
        self, batch: list[Candidate], group: list[int], evaluate: Evaluate
    ) -> None:
        """Keep the results of some folds of trials, each as soon as it is there."""
        trials = {candidate.trial.number: candidate for candidate in batch}
        left = []
        for number, candidate in trials.items():
            for fold in group:
                if fold in candidate.results:  # of an earlier try
                    self._keep(candidate, fold, candidate.results[fold])
                else:
                    left.append(FoldFit(number, candidate.params, fold))
        if left:
            for fit, result in evaluate(left):
                self._keep(trials[fit.number], fit.fold, result)

    def _keep(self, candidate: Candidate, fold: int, result: FoldResult) -> None:
        candidate.results[fold] = result
        with self._unless_taken(candidate):
            candidate.trial.set_user_attr(f"{FOLD}{fold}", result.as_attribute())

    def _record(self, candidate: Candidate, fold: int, *, last: bool) -> None:
        """Report the result of a fold, and end the trial if that was enough.

        `last` tells whether it is the last of the folds that were evaluated at once: a
        trial that fails keeps them all.
        """
        trial, result = candidate.trial, candidate.results[fold]
        score = result.objective(self.metric)
        candidate.scores.append(score)
        mean = _mean(candidate.scores)
        with self._unless_taken(candidate):
            if not math.isnan(mean):
                trial.report(mean, step=fold)
            elif ERROR not in trial.user_attrs:
                trial.set_user_attr(ERROR, result.error or _no_mean(candidate.scores))
        if candidate not in self.open:
            return
        if math.isnan(mean):
            if last:
                self._tell(candidate, TrialState.FAIL)
        elif fold == self.n_folds - 1:
            self._tell(candidate, TrialState.COMPLETE, mean)
        elif self.racing and trial.should_prune():
            self._tell(candidate, TrialState.PRUNED)

    def _tell(
        self, candidate: Candidate, state: TrialState, value: float | None = None
    ) -> None:
        frozen = None
        with self._unless_taken(candidate):
            frozen = self.study.tell(
                candidate.trial, value, state=state, skip_if_finished=True
            )
            self.open.remove(candidate)
        if frozen is None or frozen.state is not state:
            return  # another run took us for dead and requeued it
        self._show()
        for callback in self.callbacks:
            callback(self.study, frozen)

    @contextmanager
    def _unless_taken(self, candidate: Candidate) -> Iterator[None]:
        """Drop a trial that another run has queued again, as it took us for dead."""
        try:
            yield
        except (ValueError, RuntimeError):
            if self._is_ours(candidate.trial):
                raise
            if candidate in self.open:
                self.open.remove(candidate)

    def _is_ours(self, trial: optuna.Trial) -> bool:
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        return frozen.state is TrialState.RUNNING

    def _abandon(self, *, died: bool) -> None:
        """Queue the running trials again.

        That a worker process of joblib `died` counts against them.
        """
        self.worker.hurry()
        for candidate in self.open:
            with suppress(Exception):  # the error that ends the run is to be raised
                trials = self.study.get_trials(deepcopy=False)
                self.worker.try_again(trials[candidate.trial.number], died=died)

    def _show(self) -> None:
        if self.bar.disable:
            return
        over = [t for t in self.study.get_trials(deepcopy=False) if is_over(t)]
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
