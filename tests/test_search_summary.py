"""What a search says at its end, if asked to be verbose."""

import numpy as np
import optuna
import pytest
from _search_worker import Peak, rows, search, two_scores

from sk_adalora import AdaLoraSearchCV

X, Y = rows()


def lines_of(capfd):
    """What is written below the bar."""
    out, err = capfd.readouterr()
    assert out == ""
    return err.rstrip("\n").splitlines()


def test_it_names_the_best_setting(capfd):
    points = [{"a": 0.3, "b": 0.7}, {"a": 0.9, "b": 0.123456}]
    fitted = search(n_trials=2, enqueue=points, verbose=1).fit(X, Y)

    assert lines_of(capfd)[-4:] == [
        "2 trials: 2 complete. 6 fits.",
        f"Best mean score: {fitted.best_score_:.4g}, of trial 0:",
        "  a  0.3",
        "  b  0.7",
    ]


def test_it_counts_the_fits_that_a_race_saved(capfd):
    points = [{"a": a, "b": 0.7} for a in (0.3, 0.31, 0.32, 0.9, 1.0)]
    search(n_trials=5, enqueue=points, pruner="auto", verbose=1).fit(X, Y)

    assert "5 trials: 3 complete, 2 pruned. 11 fits instead of 15." in lines_of(capfd)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
def test_it_counts_trials_that_failed(capfd):
    points = [{"a": 0.9, "b": 0.7}, {"a": 0.3, "b": 0.7}]
    given = search(Peak(fail_above=0.5), n_trials=2, enqueue=points, verbose=1)
    given.fit(X, Y)

    lines = lines_of(capfd)
    assert "2 trials: 1 complete, 1 failed. 6 fits." in lines
    assert any(line.endswith(", of trial 1:") for line in lines)


def test_settings_that_a_function_excludes_have_no_fits(capfd):
    def asked(trial):
        a = trial.suggest_float("a", 0, 1)
        if trial.number == 1:
            raise optuna.TrialPruned
        return {"a": a}

    search(space=asked, n_trials=3, verbose=1).fit(X, Y)

    assert "3 trials: 2 complete, 1 pruned. 6 fits." in lines_of(capfd)


@pytest.mark.parametrize("refit", ["low", False])
def test_of_several_scores_it_shows_the_one_that_is_compared(refit, capfd):
    given = search(scoring={"acc": "accuracy", "low": Low()}, refit=refit, verbose=1)
    fitted = given.fit(X, Y)

    name = refit or "acc"
    best = fitted.cv_results_[f"mean_test_{name}"].max()
    expected = f"Best mean {name}: {best:.4g}, of trial "
    assert any(line.startswith(expected) for line in lines_of(capfd))


class Low:
    """A score that is higher for what `Peak` thinks worse."""

    def __call__(self, estimator, X, y):
        return two_scores(estimator, X, y)["low"]


def test_values_of_any_kind_have_a_short_line(capfd):
    space = {
        "a": [1 / 3],
        "b": [0.5],
        "seconds": [0],
        "log": [None],
        "fail_above": [np.float64(2.0)],
    }
    search(space=space, n_trials=1, verbose=1).fit(X, Y)

    assert lines_of(capfd)[-5:] == [
        "  a           0.3333",
        "  b           0.5",
        "  seconds     0",
        "  log         None",
        "  fail_above  2",
    ]


def test_a_study_of_another_program_is_summarised(capfd):
    study = optuna.create_study(direction="maximize")
    study.optimize(lambda trial: -((trial.suggest_float("a", 0, 1) - 0.3) ** 2), 3)
    capfd.readouterr()
    space = {"a": optuna.distributions.FloatDistribution(0, 1)}
    AdaLoraSearchCV.from_study(study, Peak(), X, Y, space=space, verbose=1)

    lines = lines_of(capfd)
    assert lines[0] == "3 trials: 3 complete."
    assert lines[1].endswith(f", of trial {study.best_trial.number}:")
