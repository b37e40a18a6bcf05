"""Who works on a study, and whose trials are tried again."""

import multiprocessing
import os
import signal
import threading
import time
from datetime import timedelta

import joblib
import numpy as np
import optuna
import pytest
from _search_worker import FLOAT, SPACE, Peak, rows, search
from _threads import WAIT
from optuna.trial import TrialState
from sklearn.exceptions import FitFailedWarning

from sk_adalora import AdaLoraSearchCV
from sk_adalora.search import workers as _search_workers
from sk_adalora.search.study import DEATHS, ERROR, FOLD, READY, RUN, is_over

X, Y = rows()


@pytest.fixture
def kept():
    """Options of a search with which another one can go on."""
    return {"storage": optuna.storages.InMemoryStorage(), "study_name": "s"}


def lose(trial, deaths=0):
    """Leave a trial as a process does that is killed while it evaluates the folds."""
    trial.set_user_attr(RUN, "of a dead process")
    trial.set_user_attr(READY, True)
    if deaths:
        trial.set_user_attr(DEATHS, deaths)


def worker_of(study, max_deaths=3):
    return _search_workers.Worker(study, beats=False, max_deaths=max_deaths)


def test_a_point_whose_run_ended_at_once_is_tried_again(kept):
    def space(trial):
        if not given.allowed:
            raise ArithmeticError
        return {"a": trial.suggest_float("a", 0, 1)}

    given = search(space=space, n_trials=1, enqueue=[{"a": 0.123}], **kept)
    given.allowed = True
    study = optuna.create_study(**kept, direction="maximize")
    study.enqueue_trial({"a": 0.123})
    given.allowed = False
    with pytest.raises(ArithmeticError):
        given.set_params(enqueue=None).fit(X, Y)
    given.allowed = True

    assert given.fit(X, Y).trials_[-1].params == {"a": 0.123}


def test_what_kills_each_process_is_given_up():
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"a": 0.9})
    for deaths in (1, 2, 3):
        trial = study.ask()
        trial.suggest_float("a", 0, 1)
        lose(trial)
        assert not is_over(study.trials[-1])
        worker_of(study).take_back()
        waiting = [t for t in study.trials if t.state is TrialState.WAITING]
        assert [t.user_attrs.get(DEATHS) for t in waiting] == [deaths][: deaths < 3]

    last = study.trials[-1]
    assert is_over(last)
    assert last.user_attrs[ERROR].startswith("3 processes died in a row")


def test_what_has_failed_is_not_tried_again_though_the_search_ended_then():
    class Broken(optuna.storages.InMemoryStorage):
        def set_trial_user_attr(self, trial_id, key, value):
            if key == f"{FOLD}1" and self.get_trial(trial_id).number == 0:
                raise KeyboardInterrupt
            super().set_trial_user_attr(trial_id, key, value)

    point = {"a": 0.9, "b": 0.7}
    given = search(Peak(fail_above=0.8), n_trials=2, enqueue=point, refit=False)
    given.set_params(storage=Broken(), study_name="s")
    with pytest.raises(KeyboardInterrupt):
        given.fit(X, Y)
    with pytest.warns(FitFailedWarning, match="1 of 2 trials failed"):
        fitted = given.fit(X, Y)

    assert fitted.cv_results_["state"].tolist() == ["failed", "complete"]
    assert fitted.cv_results_["params"][1] != point


def test_a_setting_for_which_another_worker_left_no_room_stays_in_line(
    monkeypatch, kept
):
    ask = optuna.Study.ask

    def ask_after_another(study):
        monkeypatch.setattr(optuna.Study, "ask", ask)
        study.tell(study.ask(), 1.0)
        return study.ask()

    monkeypatch.setattr(optuna.Study, "ask", ask_after_another)
    points = [{"a": 0.1, "b": 0.7}, {"a": 0.2, "b": 0.7}]
    given = search(n_trials=1, enqueue=points, refit=False, **kept)
    withdrawn, again = given.fit(X, Y).trials_[1:]

    assert (withdrawn.state, again.state) == (TrialState.FAIL, TrialState.WAITING)
    assert again.system_attrs["fixed_params"] == points[1]


@pytest.mark.parametrize("asked", [False, True], ids=["with a place alone", "asked"])
@pytest.mark.parametrize("n_before", [1, 2])
def test_what_a_grid_lost_is_tried_again(n_before, asked, kept):
    """What fails is not shown to the sampler, which would end the search."""
    sampler = optuna.samplers.GridSampler({"a": [0.1, 0.3, 0.6]}, seed=0)
    options = {"space": {"a": [0.1, 0.3, 0.6]}, "sampler": sampler, **kept}
    search(n_trials=n_before, refit=False, **options).fit(X, Y)
    lost = optuna.load_study(**kept, sampler=sampler).ask()
    if asked:
        lost.suggest_categorical("a", [0.1, 0.3, 0.6])
    lose(lost)
    fitted = search(n_trials=5, refit=False, **options).fit(X, Y)

    assert sorted(p["a"] for p in fitted.cv_results_["params"]) == [0.1, 0.3, 0.6]
    assert all(trial.state.is_finished() for trial in fitted.trials_)


def test_all_that_a_grid_lost_is_tried_again(kept):
    """Of two lost trials, the sampler takes the second for tried after the first."""
    sampler = optuna.samplers.GridSampler({"a": [0.1, 0.3, 0.6]}, seed=0)
    options = {"space": {"a": [0.1, 0.3, 0.6]}, "sampler": sampler, **kept}
    search(n_trials=1, refit=False, **options).fit(X, Y)
    study = optuna.load_study(**kept, sampler=sampler)
    lost, later = study.ask(), study.ask()
    lose(lost)
    worker_of(study).take_back()
    lose(later)
    fitted = search(n_trials=5, refit=False, **options).fit(X, Y)

    assert sorted(p["a"] for p in fitted.cv_results_["params"]) == [0.1, 0.3, 0.6]
    assert all(trial.state.is_finished() for trial in fitted.trials_)


@pytest.mark.parametrize(
    "mark",
    [{DEATHS: 2}, {ERROR: "of a fold"}],
    ids=["given up", "failed"],
)
def test_nothing_is_tried_after_the_last_setting_was_given_up(mark, kept):
    """The sampler sees it, or it would draw one of the settings a second time."""
    sampler = optuna.samplers.GridSampler({"a": [0.1, 0.3, 0.6]}, seed=0)
    options = {"space": {"a": [0.1, 0.3, 0.6]}, "sampler": sampler, **kept}
    search(n_trials=2, refit=False, enqueue=None, **options).fit(X, Y)
    lost = optuna.load_study(**kept, sampler=sampler).ask()
    lost.suggest_categorical("a", [0.1, 0.3, 0.6])
    lose(lost)
    for name, value in mark.items():
        lost.set_user_attr(name, value)
    given = search(n_trials=10, refit=False, enqueue=None, **options)
    with pytest.warns(FitFailedWarning):
        fitted = given.fit(X, Y)

    assert [t.state.name for t in fitted.trials_] == ["COMPLETE", "COMPLETE", "FAIL"]


@pytest.mark.parametrize("given_up", [False, True])
def test_a_queued_trial_has_no_place_in_a_grid(given_up, kept):
    """For which the sampler looks when one of its settings is left."""
    sampler = optuna.samplers.GridSampler({"a": [0.1]}, seed=0)
    options = {"space": {"a": [0.1, 0.3]}, "sampler": sampler, **kept}
    given = search(n_trials=5, refit=False, enqueue={"a": 0.3}, **options)
    if given_up:
        study = optuna.create_study(**kept, direction="maximize")
        study.enqueue_trial({"a": 0.3})
        lost = study.ask()
        lose(lost, deaths=2)
        with pytest.warns(FitFailedWarning, match="3 processes died"):
            fitted = given.fit(X, Y)
    else:
        fitted = given.fit(X, Y)

    states = ["FAIL" if given_up else "COMPLETE", "COMPLETE"]
    assert [t.state.name for t in fitted.trials_] == states
    assert fitted.trials_[1].params == {"a": 0.1}


def test_a_grid_begins_with_none_but_its_own_settings():
    """It cannot draw what the estimator has for `b` and the space has not."""
    space = {"a": [0.1, 0.5], "b": [0.6, 0.7]}
    sampler = optuna.samplers.GridSampler(space, seed=0)
    given = search(space=space, sampler=sampler, enqueue="paper", n_trials=9)
    points = [(t.params["a"], t.params["b"]) for t in given.fit(X, Y).trials_]

    assert sorted(points) == [(0.1, 0.6), (0.1, 0.7), (0.5, 0.6), (0.5, 0.7)]


@pytest.mark.filterwarnings("ignore:BruteForceSampler is experimental")
@pytest.mark.parametrize("n_deaths", [(2, 0), (0, 2)])
def test_what_was_lost_beside_what_is_given_up_is_tried_again(n_deaths, kept):
    """The sampler takes what still runs for tried, and stops the study at once."""
    sampler = optuna.samplers.BruteForceSampler(seed=0)
    options = {"space": {"a": [0.1, 0.3, 0.6]}, "sampler": sampler, **kept}
    search(n_trials=1, refit=False, enqueue=None, **options).fit(X, Y)
    study = optuna.load_study(**kept, sampler=sampler)
    for lost, deaths in zip([study.ask(), study.ask()], n_deaths, strict=True):
        lost.suggest_categorical("a", [0.1, 0.3, 0.6])
        lose(lost, deaths)
    given = search(n_trials=5, refit=False, enqueue=None, **options)
    with pytest.warns(FitFailedWarning):
        fitted = given.fit(X, Y)

    names = [trial.state.name for trial in fitted.trials_]
    assert names == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]


class EndsWithoutParameters(optuna.samplers.RandomSampler):
    """Takes a trial that has none for the last one, as `BruteForceSampler` does."""

    def after_trial(self, study, trial, state, values):
        if not trial.params:
            study.stop()


def test_a_trial_that_was_lost_before_it_had_parameters_does_not_end_the_search(kept):
    given = search(sampler=EndsWithoutParameters(seed=0), refit=False, **kept)
    given.set_params(n_trials=1).fit(X, Y)
    lost = optuna.load_study(**kept).ask()
    lose(lost)
    fitted = given.set_params(n_trials=3).fit(X, Y)

    assert fitted.cv_results_["trial_number"].tolist() == [0, 2, 3]


@pytest.mark.parametrize("hours", [-2, 0, 2])
def test_a_trial_that_was_just_asked_for_is_left_alone(hours, monkeypatch):
    """Whoever did has not signed it yet, and may have a clock of another time zone."""
    study = optuna.create_study(direction="maximize")
    trial = optuna.trial.create_trial(state=TrialState.RUNNING)
    trial.datetime_start += timedelta(hours=hours)
    study.add_trial(trial)
    with worker_of(study), worker_of(study) as worker:
        worker.take_back()
        assert study.trials[0].state is TrialState.RUNNING
        now = time.monotonic() + _search_workers.GRACE + 1
        monkeypatch.setattr(time, "monotonic", lambda: now)
        worker.take_back()

    assert study.trials[0].state is TrialState.FAIL  # who asked for it is gone


class TerminatedWorkerError(Exception):
    """Named as joblib's."""


class Killer(Peak):
    def fit(self, X, y):
        if self.a == 0.9:
            raise TerminatedWorkerError
        return super().fit(X, y)


def test_only_what_kills_is_given_up():
    points = [{"a": a, "b": 0.7} for a in (0.1, 0.9, 0.2, 0.3)]
    options = {"storage": optuna.storages.InMemoryStorage(), "study_name": "s"}
    given = search(
        Killer(), n_trials=4, n_jobs=4, enqueue=points, error_score="raise", **options
    )
    before = {*threading.enumerate()}
    with joblib.parallel_config("threading"):
        for _ in range(3):
            with pytest.raises(TerminatedWorkerError):
                given.fit(X, Y)
        # Threads that go on after the error put the filters of warnings back.
        for thread in {*threading.enumerate()} - before:
            thread.join(WAIT)
        with pytest.warns(FitFailedWarning, match="3 processes died in a row"):
            given.fit(X, Y)
    table = given.cv_results_
    complete = table["state"] == "complete"

    assert sorted(table["param_a"][complete]) == [0.1, 0.2, 0.3]
    assert table["param_a"][~complete].tolist() == [0.9]


@pytest.mark.parametrize("order", [(0.1, 0.9), (0.9, 0.1)])
def test_what_may_kill_is_evaluated_alone(order, kept):
    study = optuna.create_study(**kept, direction="maximize")
    for a in order:
        deaths = {DEATHS: 1} if a == 0.9 else None
        study.enqueue_trial({"a": a, "b": 0.7}, user_attrs=deaths)
    given = search(Killer(), n_trials=2, n_jobs=2, error_score="raise", **kept)
    with joblib.parallel_config("threading"), pytest.raises(TerminatedWorkerError):
        given.fit(X, Y)
    blamed = [t for t in study.trials if DEATHS in t.user_attrs]

    assert {t.system_attrs["fixed_params"]["a"] for t in blamed} == {0.9}


def test_an_interruption_is_no_death(kept):
    class Stopped(Peak):
        def fit(self, X, y):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(Stopped(), n_trials=2, **kept).fit(X, Y)
    *_, again = optuna.load_study(**kept).trials

    assert again.state is TrialState.WAITING
    assert DEATHS not in again.user_attrs


def test_an_error_of_the_storage_is_the_one_to_see(monkeypatch):
    def report(self, value, step):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(optuna.Trial, "report", report)
    with pytest.raises(RuntimeError, match="the disk is full"):
        search(n_trials=1, timeout=2).fit(X, Y)


def test_a_trial_that_was_taken_away_in_the_end_is_not_shown(monkeypatch, kept):
    report = optuna.Trial.report

    def report_and_steal(self, value, step):
        report(self, value, step)
        if self.number == 0 and step == 2:
            optuna.load_study(**kept).tell(0, state=TrialState.FAIL)

    monkeypatch.setattr(optuna.Trial, "report", report_and_steal)
    shown = []
    callbacks = [lambda study, trial: shown.append(trial.number)]
    fitted = search(n_trials=3, callbacks=callbacks, **kept).fit(X, Y)

    assert shown == fitted.cv_results_["trial_number"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("pruner", "n_fits"), [(None, 3), ("auto", 1)])
def test_a_trial_that_was_taken_away_is_not_told(pruner, n_fits):
    """As when a machine sleeps for longer than others wait for its heartbeat."""

    class Thief(Peak):
        def fit(self, X, y):
            fits.append(1)
            if not stolen:
                number = len(studies[0].trials) - 1
                studies[0].tell(number, state=TrialState.FAIL)
                stolen.append(number)
            return super().fit(X, y)

    fits, stolen, studies = [], [], []
    storage = optuna.storages.InMemoryStorage()
    kept = {"storage": storage, "study_name": "s"}
    given = search(Thief(), n_trials=3, pruner=pruner, **kept)
    optuna.create_study(**kept, direction="maximize")
    studies.append(optuna.load_study(**kept))

    fitted = given.fit(X, Y)

    assert fitted.cv_results_["trial_number"].tolist() == [1, 2, 3]
    assert stolen == [0]
    assert len(fits) == n_fits + 3 * 3 + 1  # in a race, none of its further folds


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_error_has_the_trials_with_it(error):
    class Fails(Peak):
        def fit(self, X, y):
            if len(X) == len(Y):  # the refit
                raise error
            return super().fit(X, y)

    with pytest.raises(error) as caught:
        search(Fails(), n_trials=3).fit(X, Y)
    (note,) = caught.value.__notes__
    read = AdaLoraSearchCV.from_study(
        caught.value.study, Fails(), X, Y, space={**SPACE}, cv=3, refit=False
    )

    assert note.startswith("3 complete trials are in `study` of this error")
    assert len(read.trials_) == 3


def test_an_error_before_any_trial_has_no_study():
    with pytest.raises(ValueError, match="`space` must name parameters") as caught:
        search(space={"c": FLOAT(0, 1)}).fit(X, Y)

    assert not hasattr(caught.value, "study")
    assert not hasattr(caught.value, "__notes__")


# ---- nothing lost, nothing silent ----------------------------------------------


def test_a_trial_is_signed_before_anything_is_proposed(kept):
    class Looks(optuna.samplers.RandomSampler):
        def before_trial(self, study, trial):
            signed.append(RUN in study.trials[trial.number].user_attrs)

    signed = []
    fitted = search(sampler=Looks(seed=0), n_trials=2, refit=False, **kept).fit(X, Y)
    fitted.study_.ask()  # nobody's any more

    assert signed == [True, True, False]


def test_a_search_says_what_it_waits_for(kept, monkeypatch):
    monkeypatch.setattr("sk_adalora.search.trials._POLL", 0.05)
    search(n_trials=1, refit=False, **kept).fit(X, Y)
    study = optuna.load_study(**kept)
    study.ask(SPACE).set_user_attr(RUN, "theirs")
    record = {"machine": "there", "pid": 12, "beat": time.time() + 1, "ended": False}
    study.set_user_attr(f"{_search_workers.WORKER}theirs", record)
    study.ask(SPACE)
    monkeypatch.setattr(_search_workers, "GRACE", 2.0)
    message = r"Got trial 1 of process 12 on 'there', last seen 0 s ago; trial 2 of a p"
    with pytest.warns(UserWarning, match=message):
        fitted = search(n_trials=3, refit=False, **kept).fit(X, Y)

    assert fitted.cv_results_["state"].tolist() == ["complete"] * 3


def test_processes_that_die_between_two_parameters_block_nothing(kept):
    space = {"a": [0.1, 0.3, 0.5], "b": [0.1, 0.3, 0.5, 0.7]}
    given = search(space=space, n_trials=12, refit=False, enqueue=None, **kept)
    given.set_params(n_trials=1).fit(X, Y)
    study = optuna.load_study(**kept)
    for _ in range(3):
        lost = study.ask()
        lost.suggest_categorical("a", space["a"])
        lost.set_user_attr(RUN, "of a dead process")
        worker_of(study).take_back()
    fitted = given.set_params(n_trials=12).fit(X, Y)
    tried = [tuple(t.params.values()) for t in fitted.study_.trials if t.values]

    assert len(tried) == len(set(tried)) == 12


@pytest.mark.parametrize(
    ("max_deaths", "ends_folds", "counted"),
    [(3, False, [1, 2]), (3, True, [None] * 4), (1, False, []), (None, False, None)],
)
def test_only_deaths_without_progress_count(max_deaths, ends_folds, counted):
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"a": 0.9})
    deaths = []
    for k in range(4):
        trial = study.ask()
        trial.suggest_float("a", 0, 1)
        lose(trial)
        if ends_folds:
            trial.set_user_attr(f"{FOLD}{k}", {})
        worker_of(study, max_deaths).take_back()
        if is_over(study.trials[-1]):
            break
        deaths.append(study.trials[-1].user_attrs.get(DEATHS))

    assert deaths == ([1, 2, 3, 4] if counted is None else counted)


class StopsIn(Peak):
    """Ends the search in its fourth fit, the second of the second trial."""

    def fit(self, X, y):
        fits.append((self.a, int(np.setdiff1d(rows()[0], X)[0])))
        if len(fits) == 5:
            raise KeyboardInterrupt
        return super().fit(X, y)


fits = []


@pytest.mark.parametrize("pruner", [None, "auto"])
def test_folds_that_ended_are_not_computed_again(pruner, kept):
    fits.clear()
    given = search(StopsIn(), n_trials=3, pruner=pruner, refit=False, **kept)
    with pytest.raises(KeyboardInterrupt) as caught:
        given.fit(X, Y)
    table = given.fit(X, Y).cv_results_
    whole = search(n_trials=3, enqueue=table["params"][:2]).fit(X, Y)

    assert len(fits) == 3 * 3 + 1
    assert len(set(fits)) == 3 * 3
    assert (
        "fit` with the same `storage` and study_name='s'" in caught.value.__notes__[0]
    )
    scores = [f"split{k}_test_score" for k in range(3)]
    for name in scores:
        assert table[name][:2].tolist() == whole.cv_results_[name][:2].tolist()


def test_a_function_that_uses_the_number_of_a_trial_gets_all_folds_anew(kept):
    def space(trial):
        return {"a": trial.suggest_float("a", 0, 1), "b": trial.number / 10}

    fits.clear()
    given = search(StopsIn(), space, n_trials=2, refit=False, **kept)
    with pytest.raises(KeyboardInterrupt):
        given.fit(X, Y)
    given.fit(X, Y)

    assert len(fits) == 2 * 3 + 2


class Dies(Peak):
    def fit(self, X, y):
        if self.a == 0.9 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(X, y)


@pytest.mark.slow
@pytest.mark.parametrize("stored", [True, False])
def test_a_killed_process_of_joblib_says_how_to_go_on(stored, kept):
    options = kept if stored else {}
    given = search(Dies(), n_trials=2, n_jobs=2, enqueue={"a": 0.9, "b": 0.7})
    given.set_params(refit=False, **options)
    with pytest.raises(Exception, match="was unexpectedly terminated") as caught:
        given.fit(X, Y)
    note = caught.value.__notes__[-1]

    assert (
        "study_name='s' goes on" if stored else "No trial was complete. With"
    ) in note
