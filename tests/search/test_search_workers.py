"""Trials that somebody else runs, has left, or takes away."""

import multiprocessing
import os
import signal
import time

import optuna
import pytest
from _search_worker import FLOAT, SPACE, Peak, rows, search
from _threads import WAIT, start
from optuna.trial import TrialState

from sk_adalora.search import heartbeats as _heartbeats
from sk_adalora.search.folds import FoldResult
from sk_adalora.search.heartbeats import Heartbeats
from sk_adalora.search.study import FOLD

X, Y = rows()


@pytest.fixture(autouse=True)
def quick_beats(monkeypatch):
    monkeypatch.setattr(_heartbeats, "_SECONDS", 0.02)
    monkeypatch.setattr("sk_adalora.search.trials._POLL", 0.05)


@pytest.fixture
def kept():
    """Options of a search with which another one can go on."""
    return {"storage": optuna.storages.InMemoryStorage(), "study_name": "s"}


@pytest.mark.parametrize("space", [{}, {"a": SPACE["a"]}, SPACE])
def test_what_a_killed_process_has_left_is_tried_again(kept, space):
    """Also if it had not asked for all parameters yet."""
    search(n_trials=2, refit=False, **kept).fit(X, Y)
    lost = optuna.load_study(**kept).ask(space)
    with pytest.warns(UserWarning, match=r"Got \[2\]\. There is nothing to do"):
        fitted = search(n_trials=4, refit=False, **kept).fit(X, Y)
    table = fitted.cv_results_

    assert table["trial_number"].tolist() == [0, 1, 3, 4]
    assert fitted.trials_[2].state is TrialState.FAIL
    assert lost.params.items() <= fitted.trials_[3].params.items()
    unbroken = search(n_trials=4, refit=False).fit(X, Y).cv_results_["params"]
    asked = [k for k in range(4) if k != 2 or not space]
    assert [table["params"][k] for k in asked] == [unbroken[k] for k in asked]


@pytest.mark.filterwarnings("ignore:The search waits")
def test_a_setting_in_line_is_not_lost_with_its_process(kept):
    study = optuna.create_study(direction="maximize", **kept)
    study.enqueue_trial({"a": 0.3, "b": 0.7})
    study.ask()
    fitted = search(n_trials=1, refit=False, **kept).fit(X, Y)

    assert fitted.best_params_ == {"a": 0.3, "b": 0.7}


def test_a_trial_of_a_living_process_is_waited_for(kept):
    """And so a search sees all that its study has, when it refits."""
    search(n_trials=1, refit=False, **kept).fit(X, Y)
    study = optuna.load_study(**kept)
    with Heartbeats(study) as theirs:
        trial = study.ask(SPACE)
        theirs.running[trial.number] = trial
        ours = start(search(n_trials=2, **kept).fit, X, Y)
        with pytest.raises(TimeoutError):
            ours.result(0.02 * _heartbeats._MISSED * 5)
        result = FoldResult(2.0, None, fit_time=1.0, score_time=1.0)
        for k in range(3):
            trial.set_user_attr(f"{FOLD}{k}", result.as_attribute())
        study.tell(trial, 2.0)
    fitted = ours.result(WAIT)

    assert fitted.cv_results_["trial_number"].tolist() == [0, 1]
    assert fitted.best_score_ == 2.0


def test_nobody_is_dead_while_the_storage_is_away():
    class Away(optuna.storages.InMemoryStorage):
        away = False

        def get_all_trials(self, *args, **kwargs):
            if self.away:
                raise ConnectionError
            return super().get_all_trials(*args, **kwargs)

    study = optuna.create_study(storage=Away())
    number, beats = study.ask().number, Heartbeats(study)
    study._storage.away = True
    with beats:
        time.sleep(0.5)
        assert not beats.is_dead(number)
        study._storage.away = False
        time.sleep(0.5)
        assert beats.is_dead(number)


@pytest.mark.parametrize(("pruner", "n_fits"), [(None, 3), ("auto", 1)])
def test_a_trial_that_was_taken_away_is_not_told(pruner, n_fits, kept):
    """As when a machine sleeps for longer than others wait for its heartbeat."""

    class Thief(Peak):
        def fit(self, X, y):
            fits.append(1)
            if len(fits) == 1:
                optuna.load_study(**kept).tell(0, state=TrialState.FAIL)
            return super().fit(X, y)

    fits = []
    fitted = search(Thief(), n_trials=3, pruner=pruner, **kept).fit(X, Y)

    assert fitted.cv_results_["trial_number"].tolist() == [1, 2, 3]
    assert len(fits) == n_fits + 3 * 3 + 1  # in a race, none of its further folds


# ---- errors that end a search --------------------------------------------------


@pytest.mark.parametrize("pruner", [None, "auto"])
def test_an_interrupted_trial_is_tried_again_at_once(pruner, kept):
    class Stops(Peak):
        def fit(self, X, y):
            fits.append(self.a)
            if len(fits) == 5:
                raise KeyboardInterrupt
            return super().fit(X, y)

    fits = []
    given = search(Stops(), n_trials=3, pruner=pruner, refit=False, **kept)
    with pytest.raises(KeyboardInterrupt) as caught:
        given.fit(X, Y)
    table = given.fit(X, Y).cv_results_

    (note,) = caught.value.__notes__
    assert "keeps 1 complete trials. `fit` with the same `storage`" in note
    assert table["trial_number"].tolist() == [0, 2, 3]
    assert fits.count(table["params"][1]["a"]) == 2 + 3  # whole


class Dies(Peak):
    def fit(self, X, y):
        if self.a == 0.9 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(X, y)


@pytest.mark.slow
def test_a_killed_process_of_joblib_says_how_to_go_on(kept):
    given = search(Dies(), n_trials=2, n_jobs=2, enqueue={"a": 0.9, "b": 0.7})
    with pytest.raises(Exception, match="was unexpectedly terminated") as caught:
        given.set_params(refit=False, **kept).fit(X, Y)

    assert "study_name='s' goes on" in caught.value.__notes__[-1]


def test_an_error_of_the_storage_is_the_one_to_see(monkeypatch):
    def report(self, value, step):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(optuna.Trial, "report", report)
    with pytest.raises(RuntimeError, match="the disk is full"):
        search(n_trials=1, timeout=2).fit(X, Y)


def test_an_error_before_any_trial_has_no_note():
    with pytest.raises(ValueError, match="`space` must name parameters") as caught:
        search(space={"c": FLOAT(0, 1)}).fit(X, Y)

    assert not hasattr(caught.value, "__notes__")
