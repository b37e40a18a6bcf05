"""Which running trials of a study are still evaluated by somebody."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

# Attribute of a running trial: a count that goes on as long as its process lives.
_BEAT = "sk_adalora:beat"
# Seconds between two beats, and looks without a beat after which a process is dead.
_SECONDS = 10.0
_MISSED = 6


class Heartbeats:
    """Signs of life of the trials that run here, and a look at those of others.

    Optuna's own need a database, and `Study.optimize`. These count up an attribute of
    the trial, in any storage. No clocks are compared: a trial is dead if its count has
    stood still while this process has looked several times, with the storage at hand.

    Parameters
    ----------
    study : optuna.Study
        The study.

    Attributes
    ----------
    running : dict of int to optuna.Trial
        The trials that run here, by number.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self.running: dict[int, optuna.Trial] = {}
        # Of trials that run elsewhere: their count, and looks since it has changed.
        self._seen: dict[int, tuple[Any, int]] = {}
        self._alive: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> Heartbeats:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        self._thread.join(_SECONDS)

    def is_dead(self, number: int) -> bool:
        """Tell whether a running trial was left by its process."""
        return self._seen.get(number, (None, 0))[1] >= _MISSED

    def is_alive(self, number: int) -> bool:
        """Tell whether a running trial has ever given a sign of life."""
        return number in self.running or number in self._alive

    def _keep_beating(self) -> None:
        count = 0
        while not self._over.wait(_SECONDS):
            count += 1
            try:
                self._beat(count)
            except Exception:  # the storage is away, for others too: all begin anew
                self._seen.clear()

    def _beat(self, count: int) -> None:
        for own in list(self.running.values()):
            with suppress(UpdateFinishedTrialError):  # it has just ended
                own.set_user_attr(_BEAT, count)
        seen = {}
        running = (TrialState.RUNNING,)
        for trial in self.study.get_trials(deepcopy=False, states=running):
            number, now = trial.number, trial.user_attrs.get(_BEAT)
            before, looks = self._seen.get(number, (now, -1))
            if number not in self.running:
                seen[number] = (now, looks + 1 if now == before else 0)
            if now != before:
                self._alive.add(number)
        self._seen = seen
