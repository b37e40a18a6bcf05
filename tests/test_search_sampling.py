"""What "auto" draws and learns from: near nothing that runs, and without a word."""

import logging

import optuna
import pytest
from _search_worker import SPACE, rows, search
from optuna.trial import TrialState

from sk_adalora import _search_sampling
from sk_adalora._search_sampling import _Estimated, make_sampler, with_estimates

X, Y = rows()


def run(study, space, value, n_trials, batch=1):
    """Ask for trials, some at a time, and tell their values -> their parameters."""
    asked = []
    while len(asked) < n_trials:
        trials = [study.ask(space) for _ in range(batch)]
        for trial in trials:
            study.tell(trial, value(trial.params))
        asked += [trial.params for trial in trials]
    return asked


def auto(space, n_trials=30, seed=0):
    sampler = make_sampler("auto", space, n_trials, seed)
    return optuna.create_study(direction="maximize", sampler=sampler)


def finished(params, space, value=0.5):
    return optuna.trial.create_trial(params=params, distributions=space, value=value)


@pytest.fixture
def warned():
    """Messages of Optuna's about parameters that are drawn apart from the others."""
    messages = []

    class Handler(logging.Handler):
        def emit(self, record):
            if "independent" in record.getMessage():
                messages.append(record.getMessage())

    handler, logger = Handler(), logging.getLogger("optuna")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


# ---- conditions ----------------------------------------------------------------


def test_a_conditional_space_is_modelled_as_one(warned):
    """Each parameter of a branch together with what all branches have."""

    def space(trial):
        if trial.suggest_categorical("c", ["x", "y"]) == "x":
            return {"a": trial.suggest_float("a_x", 0, 1)}
        return {"b": trial.suggest_float("b_y", 0, 1)}

    search(space=space, n_trials=16).fit(X, Y)

    assert warned == []


# ---- what is learned from ------------------------------------------------------


@pytest.fixture
def one_runs():
    """A study of two complete trials and one that runs, and of one that begins."""
    study = optuna.create_study(direction="maximize")
    for value in (0.25, 0.75):
        study.add_trial(finished({"a": value}, {"a": SPACE["a"]}, value))
    study.ask({"a": SPACE["a"]})
    study.ask()
    return study


def test_a_process_that_looks_at_complete_trials_only_gets_what_runs(one_runs):
    """That of Optuna 4.5 to 4.7, which would propose the same again."""
    seen = _Estimated(one_runs)._get_trials(states=(TrialState.COMPLETE,))

    assert [trial.number for trial in seen] == [0, 1, 2]
    assert seen[2].value == 0.75
    states = [trial.state for trial in one_runs.trials]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.RUNNING] * 2


def test_a_process_that_looks_at_running_trials_gets_them_as_they_are(one_runs):
    states = (TrialState.COMPLETE, TrialState.RUNNING)

    as_they_are = [trial.state for trial in one_runs.trials]

    for given in (states, None):
        seen = _Estimated(one_runs)._get_trials(states=given)
        assert [trial.state for trial in seen] == as_they_are


def test_before_a_trial_is_complete_nothing_is_made_up():
    study = optuna.create_study(direction="maximize")
    study.ask(SPACE)

    assert _Estimated(study)._get_trials(states=(TrialState.COMPLETE,)) == []


def test_trials_at_the_same_time_are_apart():
    points = run(auto(SPACE), SPACE, lambda p: -((p["a"] - 0.5) ** 2), 16, batch=2)

    for one, other in zip(points[::2], points[1::2], strict=True):
        assert max(abs(one[name] - other[name]) for name in SPACE) > 1e-3


def test_trials_of_all_brackets_are_learned_from(monkeypatch, warned):
    """Asked for its trials, the study of a bracket leaves those of others out."""
    seen = []

    def spy(trials):
        seen.append(len(trials))
        return with_estimates(trials)

    monkeypatch.setattr(_search_sampling, "with_estimates", spy)
    search(n_trials=14, cv=4, pruner=optuna.pruners.HyperbandPruner()).fit(X, Y)

    assert seen[-1] == 14  # the last one, which begins, included
    assert warned == []
