"""Which processes work on a study, and which of its trials nobody will finish.

Optuna's own heartbeats need a database. A search signs each trial with its run, and the
study lists the runs: where they are, and their latest sign of life.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from sk_adalora.runtime.messages import warn_user

from .folds import kept_folds
from .storage import PatientStorage
from .study import AGAIN, DEATHS, ERROR, FOLD, READY, RUN, WORKER, setting_of

# Seconds between two signs of life, and seconds without one after which a run is dead.
_BEAT = 20.0
GRACE = 120.0

# System attributes by which a `GridSampler` knows the place of a trial, and without
# which it fails.
_PLACE = ("grid_id", "search_space")


class Worker:
    """A search that works on a study, from `with` to its end.

    Parameters
    ----------
    study : optuna.Study
        The study.
    beats : bool
        Whether to write signs of life, for other processes.
    max_deaths : int or None
        Processes that may die in a row over the same parameters before these are given
        up.
    """

    def __init__(
        self, study: optuna.Study, *, beats: bool, max_deaths: int | None
    ) -> None:
        self.study, self.beats, self.max_deaths = study, beats, max_deaths
        self.run_id = uuid.uuid4().hex
        self._over = threading.Event()
        self._heart: threading.Thread | None = None
        # Since when trials without a run were seen, by number.
        self._unsigned: dict[int, float] = {}

    def __enter__(self) -> Worker:
        try:
            self._write()
            if self.beats:
                self._heart = threading.Thread(target=self._keep_beating, daemon=True)
                self._heart.start()
        except BaseException as error:  # such as an interrupt while the thread starts
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        self.hurry()
        # A beat under way must not overwrite the end.
        if self._heart is not None and self._heart.is_alive():
            self._heart.join(_BEAT)
        try:
            self._write(ended=True)
        except Exception as failure:
            if error[0] is None:  # else the first error is to be raised
                warn_user(
                    "The storage of the study could not be told that this search is "
                    f"over. Got {type(failure).__name__}: {failure}. Nothing is lost, "
                    "and there is nothing to do: others notice it in "
                    f"{GRACE / 60:.0f} minutes."
                )

    def hurry(self) -> None:
        """Wait no longer for a storage that is away: what is left to say is little."""
        if isinstance(self.study._storage, PatientStorage):
            self.study._storage.hurry()

    def signing(self, sampler: BaseSampler) -> BaseSampler:
        """Have a sampler sign each trial of this run before it proposes anything.

        Others tell by that whether a trial still runs.
        """
        begin = sampler.before_trial

        def before_trial(study: optuna.Study, trial: FrozenTrial) -> None:
            if not self._over.is_set():  # else somebody else goes on with the study
                # Not in the `study` that is given: that may be a part of ours.
                storage = self.study._storage
                storage.set_trial_user_attr(trial._trial_id, RUN, self.run_id)
            begin(study, trial)

        sampler.before_trial = before_trial  # type: ignore[method-assign]
        return sampler

    def take_back(self) -> None:
        """Fail the running trials of dead workers, and queue their parameters again.

        A trial without a run was asked for by somebody who will sign it in a moment, or
        is dead. After the storage was away, all get the time for a sign of life.
        """
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        now = time.monotonic()
        if not running or now - getattr(self.study._storage, "back", -now) < GRACE:
            return
        alive = living_runs(self.study)
        for trial in running:
            run = trial.user_attrs.get(RUN)
            if run is None:
                dead = now - self._unsigned.setdefault(trial.number, now) > GRACE
            else:
                dead = run not in alive
            if dead:
                self.try_again(trial, died=True)

    def try_again(self, trial: FrozenTrial, *, died: bool) -> None:
        """Fail a running trial that will not get to its end, and queue its parameters.

        `died` tells whether the process that evaluated it did, as for lack of memory.
        Parameters over which too many have died are not tried again.
        """
        study, deaths = self.study, self._deaths(trial, died)
        given_up = self.max_deaths is not None and deaths >= self.max_deaths
        has_failed = ERROR in trial.user_attrs  # by then, with an error of its own
        try:
            if given_up:
                reason = (
                    f"{deaths} processes died in a row while they evaluated these "
                    "parameters. If they were stopped from outside, raise `max_deaths`."
                )
                # Not by a `Trial`: making one would have the sampler begin it anew.
                study._storage.set_trial_user_attr(trial._trial_id, ERROR, reason)
            if given_up or has_failed:  # the sampler is to know: nothing comes after it
                study.tell(trial.number, state=TrialState.FAIL)
                return
            # As Optuna fails those of dead processes. Not by `tell`, which shows it to
            # the sampler: `BruteForceSampler` takes a trial that has no parameters yet
            # for all settings, and would end the search.
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except (ValueError, RuntimeError):  # another worker was quicker
            return
        self._queue(trial, deaths)

    def _deaths(self, trial: FrozenTrial, died: bool) -> int:
        """Count the processes that died in a row over a trial's parameters.

        One that ended a fold before, or that had not begun to evaluate, does not count.
        """
        own = trial.user_attrs
        ended = {name for name in own if name.startswith(FOLD)}
        if ended - kept_folds(trial, self.study.get_trials(deepcopy=False)).keys():
            return 0
        return int(own.get(DEATHS, 0)) + (died and READY in own)

    def _queue(self, trial: FrozenTrial, deaths: int) -> None:
        """Queue what was queued for a trial, and what it had asked for by then."""
        point = setting_of(trial)
        place = {k: trial.system_attrs[k] for k in _PLACE if k in trial.system_attrs}
        if point or place:
            again = optuna.trial.create_trial(
                state=TrialState.WAITING,
                user_attrs={AGAIN: trial.number} | ({DEATHS: deaths} if deaths else {}),
                system_attrs={"fixed_params": point, **place},
            )
            self.study.add_trial(again)

    def waits_for(self) -> str:
        """Say which trials others evaluate, and what is known of them."""
        runs, told = self.study.user_attrs, []
        running = (TrialState.RUNNING,)
        for trial in self.study.get_trials(deepcopy=False, states=running):
            record = runs.get(f"{WORKER}{trial.user_attrs.get(RUN)}")
            who = "a process that has not signed it"
            if record is not None:
                seconds = max(0.0, time.time() - record["beat"])
                who = (
                    f"process {record['pid']} on {record['machine']!r}, last seen "
                    f"{seconds:.0f} s ago"
                )
            told.append(f"trial {trial.number} of {who}")
        return "; ".join(told)

    def alone(self) -> bool:
        """Tell whether no other run is alive."""
        return living_runs(self.study) <= {self.run_id}

    def _keep_beating(self) -> None:
        while not self._over.wait(_BEAT):
            try:
                self._write()
            except Exception:  # a busy storage: the next beat will do
                continue

    def _write(self, *, ended: bool = False) -> None:
        record = {
            "machine": socket.gethostname(),
            "pid": os.getpid(),
            "beat": time.time(),
            "ended": ended,
        }
        self.study.set_user_attr(f"{WORKER}{self.run_id}", record)


def living_runs(study: optuna.Study) -> set[str]:
    """Return the runs that still work on a study."""
    return {
        name.removeprefix(WORKER)
        for name, record in study.user_attrs.items()
        if name.startswith(WORKER)
        and not record["ended"]
        and time.time() - record["beat"] < GRACE
    }
