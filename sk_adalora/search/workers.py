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
from optuna.trial import FrozenTrial, TrialState

from sk_adalora.runtime.messages import warn_user

from .study import AGAIN, DEATHS, ERROR, RUN, WORKER

# Seconds between two signs of life, and seconds without one after which a run is dead.
_BEAT = 20.0
_GRACE = 120.0

# Processes that may die over the same parameters before these are given up.
_MOST_DEATHS = 3

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
    """

    def __init__(self, study: optuna.Study, *, beats: bool) -> None:
        self.study, self.beats = study, beats
        self.run_id = uuid.uuid4().hex
        self._over = threading.Event()
        self._heart: threading.Thread | None = None

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
                    f"{_GRACE / 60:.0f} minutes."
                )

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
        and time.time() - record["beat"] < _GRACE
    }


def take_back(study: optuna.Study, unsigned: dict[int, float]) -> None:
    """Fail the running trials of dead workers, and queue their parameters again.

    `unsigned` is the caller's, who keeps it: since when it has seen trials without a
    run, by number. Whoever asked for them will sign them in a moment, or is dead.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    alive = living_runs(study) if running else set()
    now = time.monotonic()
    for trial in running:
        run = trial.user_attrs.get(RUN)
        if run is None:
            dead = now - unsigned.setdefault(trial.number, now) > _GRACE
        else:
            dead = run not in alive
        if dead:
            try_again(study, trial, died=True)


def try_again(study: optuna.Study, trial: FrozenTrial, *, died: bool) -> None:
    """Fail a running trial that will not get to its end, and queue its parameters.

    `died` tells whether the process that evaluated it did, as for lack of memory.
    Parameters over which three have died are not tried again.
    """
    deaths = trial.user_attrs.get(DEATHS, 0) + died
    given_up = deaths >= _MOST_DEATHS
    has_failed = ERROR in trial.user_attrs  # by then, with an error of its own
    try:
        if given_up:
            reason = f"{deaths} processes died while they evaluated these parameters."
            # Not by a `Trial`: making one would have the sampler begin it anew.
            study._storage.set_trial_user_attr(trial._trial_id, ERROR, reason)
        if given_up or has_failed:  # the sampler is to know: nothing comes after it
            study.tell(trial.number, state=TrialState.FAIL)
            return
        # As Optuna fails those of dead processes. Not by `tell`, which shows it to the
        # sampler: `BruteForceSampler` takes a trial that has no parameters yet for all
        # settings, and would end the search.
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    except (ValueError, RuntimeError):  # another worker was quicker
        return
    # What was queued for it, and what it had asked for by then.
    point = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    place = {k: trial.system_attrs[k] for k in _PLACE if k in trial.system_attrs}
    if point or place:
        again = optuna.trial.create_trial(
            state=TrialState.WAITING,
            user_attrs={AGAIN: trial.number} | ({DEATHS: deaths} if deaths else {}),
            system_attrs={"fixed_params": point, **place},
        )
        study.add_trial(again)
