"""The table of a search: what a study keeps of folds, and what is made of it."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from optuna.trial import TrialState, create_trial

from sk_adalora.search.results import (
    FoldResult,
    TrialRow,
    TrialTable,
    check_best,
    make_table,
)
from sk_adalora.search.space import read_space
from sk_adalora.search.study import ERROR, FOLD

COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
NAN, INF = float("nan"), float("inf")


def fold(test, train=None, error=None):
    return FoldResult(test, train, fit_time=2.0, score_time=1.0, error=error)


def row(state, *folds, user_attrs=None, **kept):
    """A trial that is over, with results of its folds, or None, as it stores them."""
    stored = {f"{FOLD}{k}": each.as_attribute() for k, each in enumerate(folds) if each}
    trial = create_trial(state=state, user_attrs=stored | (user_attrs or {}), **kept)
    return TrialRow(trial, {}, [*folds])


def test_what_a_fold_gave_comes_back_from_json():
    """Which has neither NaN nor infinity."""
    given = fold({"a": NAN, "b": INF}, {"a": 0.5, "b": -INF}, "it failed")
    text = json.dumps(given.as_attribute(), allow_nan=False)

    read = FoldResult.of_attribute(json.loads(text))
    np.testing.assert_equal(asdict(read), asdict(given))


def test_the_end_of_a_long_error_is_kept():
    """It says what happened."""
    times = {"fit_time": 2.0, "score_time": 1.0}
    long = "a line\n" * 9000 + "what happened"
    read = FoldResult.read({"fit_error": long, "test_scores": NAN, **times})

    assert len(read.error) == 4000
    assert read.error.endswith("what happened")


def test_a_score_that_is_nan_has_the_last_rank():
    """Of several, the one that is compared may be a number."""
    scores = [{"low": NAN, "high": 0.9}, {"low": 0.1, "high": 0.5}]
    rows = [row(COMPLETE, fold(each), value=each["high"]) for each in scores]
    results = {
        f"mean_test_{name}": np.array([each[name] for each in scores])
        for name in ("low", "high")
    }
    TrialTable(rows, ["low", "high"]).correct(results)

    assert results["rank_test_high"].tolist() == [1, 2]
    assert results["rank_test_low"].tolist() == [2, 1]


def test_a_score_of_minus_infinity_is_ahead_of_what_is_not_complete():
    """As where a fold lacks a class, and `error_score` is that."""
    failed = fold(-INF, error="a fold lacks a class")
    rows = [
        row(PRUNED, failed, None),
        row(COMPLETE, failed, fold(0.5), value=-INF),
    ]
    results = {"mean_test_score": np.full(2, -INF)}
    TrialTable(rows, None).correct(results)

    assert results["rank_test_score"].tolist() == [2, 1]
    assert results["mean_test_score"][1] == -INF


def test_a_function_that_asks_for_more_than_was_drawn():
    """The trial may have ended before; one that is complete is of another space."""
    space = read_space(lambda trial: {"a": trial.suggest_int("a", 0, 9)}, "")
    ended, complete = row(PRUNED).trial, row(COMPLETE, value=0.5).trial

    assert make_table([ended], space, 0).rows[0].params == {}
    with pytest.raises(ValueError, match="'a'"):
        make_table([complete], space, 0)


def test_without_a_best_trial_those_that_run_are_counted():
    failed = row(FAIL, user_attrs={ERROR: "it failed"})
    trials = [failed.trial, create_trial(state=TrialState.RUNNING)]

    match = r"Got 1 failed, 0 pruned and 1 running ones\..*with:\nit failed$"
    with pytest.raises(ValueError, match=match):
        check_best(TrialTable([failed], None), trials)
