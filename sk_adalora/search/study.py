"""The study of a search: made, resumed and copied, and what is noted on its trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sk_adalora.runtime.messages import Muted

from .fingerprint import check_same

# Attribute of a study: the fingerprint of what it was made with.
FINGERPRINT = "sk_adalora:fingerprint"
# Attribute of a study, followed by the name of a run: where that run is.
WORKER = "sk_adalora:worker:"
# Attribute of a trial: the run that evaluates it.
RUN = "sk_adalora:run"
# Attribute of a trial that has all of its parameters: its folds are evaluated.
READY = "sk_adalora:ready"
# Attribute of a trial, followed by the number of a fold, counted from 0: its results.
FOLD = "sk_adalora:fold:"
# Attribute of a trial that failed by an error of its own. Whoever fails a trial without
# it queues its parameters again, if it had any.
ERROR = "sk_adalora:error"
# Attribute of a trial that was queued when the search began.
FIRST = "sk_adalora:first"
# Attribute of a trial that was queued again: the number of the one that did not get to
# its end.
AGAIN = "sk_adalora:again"
# Attribute of a trial: how many processes died in a row while they evaluated its
# parameters, without ending a fold.
DEATHS = "sk_adalora:deaths"

# System attribute of a trial where Optuna keeps what a sampler's `constraints_func`
# returned; since 5.0 also, with a colon and a name, each constraint that was set.
_CONSTRAINTS = "constraints"


def setting_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return what was queued for a trial, and what it has asked for."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def place_of(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    """Return a trial's number among `trials`, as if none had been tried again."""
    if AGAIN in trial.user_attrs:
        return place_of(trials[trial.user_attrs[AGAIN]], trials)
    before = trials[: trial.number]
    return trial.number - sum(AGAIN in other.user_attrs for other in before)


def is_over(trial: FrozenTrial) -> bool:
    """Tell whether a trial is over and will not be tried again."""
    if trial.state is TrialState.FAIL:
        return ERROR in trial.user_attrs
    return trial.state.is_finished()


def is_feasible(trial: FrozenTrial) -> bool:
    """Tell whether a trial that is over keeps all constraints, if there are any."""
    kept = trial.system_attrs
    found = [*(kept.get(_CONSTRAINTS) or ())]
    found += [kept[name] for name in kept if name.startswith(f"{_CONSTRAINTS}:")]
    return all(value <= 0 for value in found)


def may_be_best(trial: FrozenTrial) -> bool:
    """Tell whether a trial may be the best: is complete and keeps the constraints."""
    return trial.state is TrialState.COMPLETE and is_feasible(trial)


class SearchStudy(optuna.Study):
    """A study whose `stop` works in the callbacks of a search.

    A sampler that goes through all settings stops it after the last of them, but takes
    what was lost for tried: its stop waits for what is tried again.
    """

    _stop_asked = _all_tried = False

    @property
    def stopped(self) -> bool:
        """Whether no further trial is to begin."""
        return self._stop_asked or (self._all_tried and not self._tries_again())

    def tell(self, *args: Any, **kwargs: Any) -> FrozenTrial:
        """Tell Optuna, and note whether the sampler asked for no further trial."""
        asked = self._stop_asked
        try:
            return super().tell(*args, **kwargs)
        except KeyError as error:
            if error.args != ("grid_id",):
                raise
            # A `GridSampler` looks for the place of a queued trial, which has none. The
            # trial was told all the same.
            return super().tell(*args, **{**kwargs, "skip_if_finished": True})
        finally:
            self._all_tried |= self._stop_asked
            self._stop_asked = asked

    def stop(self) -> None:
        """Ask the search, or Optuna's `optimize`, for no further trial."""
        self._stop_asked = True
        with suppress(RuntimeError):  # Optuna's own knows of `optimize` only
            super().stop()

    def _tries_again(self) -> bool:
        queued = self.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return any(AGAIN in trial.user_attrs for trial in queued)


def open_study(
    storage: BaseStorage,
    name: str | None,
    pruner: BasePruner,
    points: Sequence[Mapping[str, Any]],
    *,
    load_if_exists: bool,
) -> SearchStudy:
    """Create a study, with some settings first in line, or load it.

    Without a name, it is a new one.

    Raises
    ------
    ValueError
        If the study exists and may not be loaded, or if it is of another kind.
    """
    try:
        created = optuna.create_study(
            storage=storage, study_name=name, direction="maximize"
        )
    except optuna.exceptions.DuplicatedStudyError:
        if not load_if_exists:
            raise ValueError(
                f"`study_name` must be new with load_if_exists=False. Got {name!r}, "
                "which the storage has. Choose another, or go on with that study by "
                "load_if_exists=True."
            ) from None
        return load_study(storage, name, pruner)
    study = SearchStudy(created.study_name, storage, pruner=pruner)
    try:
        for point in points:
            study.enqueue_trial(dict(point), user_attrs={FIRST: True})
    except BaseException:  # nothing is left behind
        optuna.delete_study(study_name=study.study_name, storage=storage)
        raise
    return study


def load_study(
    storage: BaseStorage,
    name: str | None,
    pruner: BasePruner | None = None,
) -> SearchStudy:
    """Load a study.

    Raises
    ------
    ValueError
        If there is no such study, or if lower values are better in it.
    """
    names = optuna.get_all_study_names(storage)
    if name not in names:
        raise ValueError(
            f"The study must be in the storage. Got {name!r}, and the storage has "
            f"{names[:20]}. "
            + ("Choose one of them." if names else "Pass the `storage` that has it.")
        )
    study = SearchStudy(str(name), storage, pruner=pruner)
    check_directions(study)
    return study


def check_directions(study: optuna.Study) -> None:
    """Refuse a study of several values, or of one of which less is better."""
    if study.directions != [StudyDirection.MAXIMIZE]:
        raise ValueError(
            "A study must maximize a single value, since greater scores are better in "
            f"scikit-learn. Got {study.study_name!r} with "
            f"{[direction.name.lower() for direction in study.directions]}. Choose "
            "another study."
        )


def bind(study: optuna.Study, fingerprint: Mapping[str, Any]) -> None:
    """Tie a study to what it is made with, or check that it is the same.

    Raises
    ------
    ValueError
        If the study was made with something else, or by another program.
    """
    # Read first: what another worker has evaluated since then, it has tied before.
    trials = study.get_trials(deepcopy=False)
    begun = any(t.state.is_finished() for t in trials)
    if begun or FINGERPRINT in study.user_attrs:
        check_bound(study, fingerprint)
    else:
        study.set_user_attr(FINGERPRINT, dict(fingerprint))


def check_bound(study: optuna.Study, fingerprint: Mapping[str, Any]) -> None:
    """Refuse a study or a trial that no search has made, and a study of other data."""
    stored = study.user_attrs.get(FINGERPRINT)
    complete = (TrialState.COMPLETE,)
    trials = study.get_trials(deepcopy=False, states=complete)
    if stored is None or any(RUN not in trial.user_attrs for trial in trials):
        raise ValueError(
            f"The study {study.study_name!r} must be one that AdaLoraSearchCV began. "
            "Got one that another program made, or to which trials were added. To "
            "search, choose another `study_name`, and give the best settings of this "
            "one as `enqueue`. To refit its best trial, set on the estimator what "
            "`suggest_params(study.best_trial, space)` returns (with the `prefix` of "
            "the space, if it had one), and fit that."
        )
    check_same(stored, fingerprint, study.study_name)


@contextmanager
def resumable(study: optuna.Study, *, stored: bool) -> Iterator[None]:
    """Have an error say how the search goes on.

    Attach a study that is in memory: its trials would be lost otherwise.
    """
    try:
        yield
    except BaseException as error:
        carrier: Any = error
        with suppress(Exception):  # the error that ended the search is to be raised
            n_complete = sum(map(may_be_best, study.get_trials(deepcopy=False)))
            if stored:
                error.add_note(
                    f"The study {study.study_name!r} keeps {n_complete} complete "
                    "trials, and the folds that ended. `fit` with the same `storage` "
                    f"and study_name={study.study_name!r} goes on with them."
                )
            elif n_complete:
                carrier.study = study
                error.add_note(
                    f"{n_complete} complete trials are in `study` of this error. "
                    "AdaLoraSearchCV.from_study refits the best of them, if nothing "
                    f"of what was searched has changed. {_KEEP}"
                )
            elif worker_died(error) or not isinstance(error, Exception):
                error.add_note(f"No trial was complete. {_KEEP}")
        raise


# What to do so that a search that is cut short is not lost.
_KEEP = "With a `storage` and a `study_name`, `fit` would go on where it was."


def worker_died(error: BaseException) -> bool:
    """Tell whether an error is that of joblib whose process was killed."""
    # By its name: it is loky's, which is imported only for several `n_jobs`.
    return type(error).__name__ == "TerminatedWorkerError"


def in_memory(
    trials: Sequence[FrozenTrial],
    name: str,
    attributes: Mapping[str, Any],
    storage: InMemoryStorage | None = None,
) -> optuna.Study:
    """Make a study of trials that needs no storage, or one in `storage`."""
    storage = storage or InMemoryStorage()
    with silent_optuna():
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize"
        )
    study_id = storage.get_study_id_from_name(name)
    for trial in trials:  # `add_trials` refuses those queued with values out of range
        storage.create_new_trial(study_id, template_trial=trial)
    for key, value in attributes.items():
        study.set_user_attr(key, value)
    return study


def record_of(study: optuna.Study) -> tuple[str, dict[str, Any]]:
    """Return a study's name and attributes, but not where its workers ran."""
    attributes = study.user_attrs.items()
    kept = {key: value for key, value in attributes if not key.startswith(WORKER)}
    return study.study_name, kept


# Keeps Optuna from logging each trial, and that its samplers would like more packages.
silent_optuna = Muted(
    optuna.logging.get_verbosity,
    optuna.logging.set_verbosity,
    lambda wanted: max(wanted, optuna.logging.ERROR),
)
