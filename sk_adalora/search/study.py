"""The study of a search: made, resumed and copied, and what is noted on its trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sk_adalora.runtime.messages import Muted

from .fingerprint import check_same

# Attribute of a study: the fingerprint of what it was made with.
FINGERPRINT = "sk_adalora:fingerprint"
# Attribute of a trial, followed by the number of a fold, counted from 0: its results.
FOLD = "sk_adalora:fold:"
# Attribute of a trial that failed by an error of its own. Others are tried again.
ERROR = "sk_adalora:error"
# Attribute of a trial that was queued when the search began.
FIRST = "sk_adalora:first"
# Attribute of a trial that was queued again, as its process did not get to its end: the
# place of the first try.
AGAIN = "sk_adalora:again"

# System attribute of a trial where Optuna keeps what a sampler's `constraints_func`
# returned; since 5.0 also, with a colon and a name, each constraint that was set.
_CONSTRAINTS = "constraints"


def place_of(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    """Return a trial's number among `trials`, as if none had been tried again."""
    before = trials[: trial.number]
    place = trial.number - sum(AGAIN in other.user_attrs for other in before)
    return int(trial.user_attrs.get(AGAIN, place))


def try_again(
    study: optuna.Study, trial: FrozenTrial, trials: Sequence[FrozenTrial]
) -> None:
    """Fail a running trial that will not get to its end, and queue its parameters."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):  # another process was quicker
        return
    # What was queued for it, and what it has asked for.
    point = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    study.enqueue_trial(point, user_attrs={AGAIN: place_of(trial, trials)})


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
    """A study that can be stopped without `optimize`, by a callback or a sampler."""

    stopped = False
    # Whether this process has made it.
    is_new = False

    def stop(self) -> None:
        """Ask the search, or Optuna's `optimize`, for no further trial."""
        self.stopped = True
        with suppress(RuntimeError):  # Optuna's own knows of `optimize` only
            super().stop()


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
    study.is_new = True
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
    if stored is None or any(f"{FOLD}0" not in t.user_attrs for t in trials):
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
                    "trials. `fit` with the same `storage` and "
                    f"study_name={study.study_name!r} goes on with them."
                )
            elif n_complete:
                carrier.study = study
                error.add_note(
                    f"{n_complete} complete trials are in `study` of this error. "
                    "AdaLoraSearchCV.from_study refits the best of them, if nothing "
                    f"of what was searched has changed. {_KEEP}"
                )
        raise


# What to do so that a search that is cut short is not lost.
_KEEP = "With a `storage` and a `study_name`, `fit` would go on where it was."


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
    """Return a study's name and attributes."""
    return study.study_name, dict(study.user_attrs)


# Keeps Optuna from logging each trial, and that its samplers would like more packages.
silent_optuna = Muted(
    optuna.logging.get_verbosity,
    optuna.logging.set_verbosity,
    lambda wanted: max(wanted, optuna.logging.ERROR),
)
