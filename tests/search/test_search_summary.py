"""What a search says at its end, if asked to be verbose."""

from fractions import Fraction

import numpy as np
import optuna
import pytest
from _search_worker import rows, search
from sklearn.base import BaseEstimator

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


def test_settings_that_a_function_excludes_have_no_fits(capfd):
    def asked(trial):
        a = trial.suggest_float("a", 0, 1)
        if trial.number == 1:
            raise optuna.TrialPruned
        return {"a": a}

    search(space=asked, n_trials=3, verbose=1).fit(X, Y)

    assert "3 trials: 2 complete, 1 pruned. 6 fits." in lines_of(capfd)


class Any(BaseEstimator):
    """It takes any value, and each scores 1."""

    def __init__(self, value=None):
        self.value = value

    def fit(self, X, y):
        return self

    def score(self, X, y):
        return 1.0


class Loud:
    def __repr__(self):
        return "Loud(\n  1)"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1 / 3, "0.3333"),
        (100_000, "100000"),
        (True, "True"),
        (None, "None"),
        ("query", "'query'"),
        (np.float32(0.25), "0.25"),
        (np.int64(12_345), "12345"),
        (np.str_("query"), "'query'"),
        (Fraction(1, 3), "Fraction(1, 3)"),
        (Loud(), "Loud( 1)"),
        ("a" * 70, f"'{56 * 'a'}..."),
    ],
)
def test_values_of_any_kind_have_a_short_line(value, shown, capfd):
    """A function may return what no study holds."""
    search(Any(), space=lambda trial: {"value": value}, n_trials=1, verbose=1).fit(X, Y)

    assert lines_of(capfd)[-3:] == [
        "1 trial: 1 complete. 3 fits.",
        "Best mean score: 1, of trial 0:",
        f"  value  {shown}",
    ]


@pytest.mark.filterwarnings(r"ignore:.*constraints_func")
def test_trials_that_break_a_constraint_are_counted(capfd):
    sampler = optuna.samplers.TPESampler(
        seed=0, constraints_func=lambda trial: [trial.params["a"] - 0.5]
    )
    points = [{"a": 0.3, "b": 0.7}, {"a": 0.9, "b": 0.7}]
    search(n_trials=2, enqueue=points, sampler=sampler, verbose=1).fit(X, Y)

    assert "2 trials: 1 complete, 1 infeasible. 6 fits." in lines_of(capfd)
