"""What a search does about fits that fail, and scores that are no numbers."""

import numpy as np
import pytest
from _search_worker import SPACE, Peak, rows, search
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import KFold

X, Y = rows()
POINTS = [{"a": 0.9, "b": 0.7}, {"a": 0.2, "b": 0.7}]


# ---- failures ------------------------------------------------------------------


@pytest.mark.parametrize("pruner", [None, "auto"])
def test_a_trial_with_a_failing_fold_fails_and_is_left_out(pruner):
    given = search(
        Peak(fail_above=0.5), n_trials=2, pruner=pruner, enqueue=POINTS, refit=True
    )

    with pytest.warns(FitFailedWarning, match=r"1 of 2 trials failed[\s\S]*too much"):
        fitted = given.fit(X, Y)

    assert fitted.cv_results_["state"].tolist() == ["failed", "complete"]
    assert fitted.best_params_["a"] == 0.2
    assert "RuntimeError: a=0.9" in fitted.trials_[0].user_attrs["sk_adalora:error"]


def test_one_fold_of_nan_fails_the_trial():
    def scoring(estimator, X, y):
        return np.nan if estimator.a > 0.5 and 0 in X else estimator.score(X, y)

    given = search(n_trials=2, enqueue=POINTS, scoring=scoring)

    with pytest.warns(FitFailedWarning, match="The score of fold 0 is NaN"):
        fitted = given.fit(X, Y)

    assert fitted.best_index_ == 1
    assert fitted.cv_results_["state"].tolist() == ["failed", "complete"]


@pytest.mark.parametrize(("error_score", "best"), [(9.0, 0.9), (-9.0, 0.2)])
def test_a_number_for_a_scorer_that_fails_counts_like_any_other(error_score, best):
    """As the guide says: scikit-learn does not tell it from a score."""

    def scoring(estimator, X, y):
        if estimator.a > 0.5:
            raise RuntimeError("no score")
        return estimator.score(X, y)

    given = search(n_trials=2, enqueue=POINTS, scoring=scoring, error_score=error_score)

    with pytest.warns(UserWarning, match="Scoring failed"):
        assert given.fit(X, Y).best_params_["a"] == best


@pytest.mark.parametrize("pruner", [None, "auto"])
def test_a_fit_that_fails_has_the_error_score_for_a_training_score_too(pruner):
    """As in scikit-learn, also where all fits fail that run at once."""

    class FailsOnce(Peak):
        def fit(self, X, y):
            if self.a > 0.5 and 0 not in X:
                raise RuntimeError("no first row")
            return super().fit(X, y)

    options = {"enqueue": {"a": 0.9, "b": 0.7}, "pruner": pruner, "error_score": -9.0}
    given = search(FailsOnce(), n_trials=1, return_train_score=True, **options)
    with pytest.warns(FitFailedWarning, match="1 of 3 fits failed"):
        table = given.fit(X, Y).cv_results_

    assert table["split0_train_score"] == table["split0_test_score"] == -9.0
    assert np.isfinite(table["mean_train_score"]).all()


@pytest.mark.parametrize(("pruner", "n_kept"), [(None, 4), ("auto", 2)])
def test_a_trial_that_fails_keeps_what_was_measured(pruner, n_kept):
    calls = []

    def scoring(estimator, X, y):
        calls.append(estimator.a)
        score = estimator.score(X, y)
        return {"high": np.nan if len(calls) == 2 else score, "low": 1 - score}

    options = {"n_trials": 2, "cv": 4, "pruner": pruner, "enqueue": POINTS}
    with pytest.warns(FitFailedWarning, match="The score of fold 1 is NaN"):
        fitted = search(scoring=scoring, refit="high", **options).fit(X, Y)
    table = fitted.cv_results_
    low = [table[f"split{k}_test_low"][0] for k in range(4)]
    high = [table[f"split{k}_test_high"][0] for k in range(4)]

    assert calls.count(0.9) == n_kept
    assert np.isfinite(low).tolist() == [k < n_kept for k in range(4)]
    assert np.isfinite(high).tolist() == [k < n_kept and k != 1 for k in range(4)]
    assert np.isnan([table["mean_test_low"][0], table["mean_test_high"][0]]).all()
    assert fitted.best_index_ == 1
    assert table["state"].tolist() == ["failed", "complete"]


@pytest.mark.parametrize("pruner", [None, "auto"])
def test_a_number_as_error_score_is_a_score(pruner):
    given = search(
        Peak(fail_above=0.5),
        n_trials=2,
        enqueue=POINTS,
        error_score=-1.0,
        pruner=pruner,
    )
    with pytest.warns(FitFailedWarning, match=r"^3 of 6 fits failed and have `error"):
        fitted = given.fit(X, Y)

    assert fitted.cv_results_["mean_test_score"][0] == -1.0
    assert fitted.cv_results_["state"].tolist() == ["complete", "complete"]
    kept = fitted.trials_[0].user_attrs["sk_adalora:fold:1"]
    assert "RuntimeError: a=0.9 is too much" in kept["error"]


@pytest.mark.parametrize("pruner", [None, "auto"])
def test_a_search_whose_fits_all_fail_is_an_error(pruner):
    """A number as `error_score` would make its trials complete, and one the best."""
    given = search(Peak(fail_above=-1.0), n_trials=4, error_score=0.0, pruner=pruner)

    with pytest.raises(ValueError, match=r"Got 4 comp.*all of whose[\s\S]*too much"):
        given.fit(X, Y)
    with pytest.raises(ValueError, match="all of whose fits failed"):
        given.set_params(refit=False).fit(X, Y)


def test_one_fit_that_does_not_fail_is_enough():
    class Picky(Peak):
        def fit(self, X, y):
            if 0 in X:
                raise RuntimeError("it has the first row")
            return super().fit(X, y)

    given = search(Picky(), n_trials=2, cv=KFold(3), error_score=0.0, refit=False)
    with pytest.warns(FitFailedWarning, match=r"^4 of 6 fits failed"):
        fitted = given.fit(X, Y)

    assert fitted.cv_results_["state"].tolist() == ["complete", "complete"]


@pytest.mark.parametrize("pruner", [None, "auto"])
def test_without_a_complete_trial_the_first_cause_is_shown(pruner):
    given = search(Peak(fail_above=-1.0), n_trials=3, pruner=pruner)

    with pytest.raises(ValueError, match=r"Got 3 failed, 0 pruned[\s\S]*is too much"):
        given.fit(X, Y)

    assert not hasattr(given, "best_estimator_")


def test_an_error_surfaces_when_it_shall():
    given = search(Peak(fail_above=-1.0), error_score="raise")

    with pytest.raises(RuntimeError, match="is too much"):
        given.fit(X, Y)

    assert vars(given).keys() == given.get_params(deep=False).keys()


@pytest.mark.parametrize("refit", [False, True, lambda table: 0])
def test_a_scorer_that_returns_no_score_is_an_error(refit):
    given = search(scoring=lambda estimator, X, y: {}, refit=refit)

    with pytest.raises(ValueError, match=r"a dict of at least one\. Got {}\. Return"):
        given.fit(X, Y)


class Shuffled:
    """A scorer whose dict has another order in each call, as one made of a set has."""

    def __init__(self, *names):
        self.names, self.calls = names, 0

    def __call__(self, estimator, X, y):
        self.calls += 1
        scores = {"first": estimator.a, "second": -100 * estimator.a, "third": 7.0}
        order = self.names[:: 1 if self.calls % 2 else -1]
        return {name: scores[name] for name in order}


@pytest.mark.parametrize("pruner", ["auto", None])
def test_scores_in_any_order_are_not_mixed(pruner, tmp_path):
    options = {"refit": False, "pruner": pruner, "study_name": "s"}
    options |= {"space": {"a": (0.0, 1.0)}, "storage": tmp_path / "j.log"}
    search(scoring=Shuffled("first", "second"), n_trials=2, **options).fit(X, Y)
    again = Shuffled("first", "second")
    again.calls = 1  # a process that goes on begins with the other order
    fitted = search(scoring=again, n_trials=3, **options).fit(X, Y)

    table = fitted.cv_results_
    assert set(table["state"]) == {"complete"}
    np.testing.assert_allclose(table["running_mean"], table["param_a"].astype(float))
    np.testing.assert_allclose(table["mean_test_first"], table["running_mean"])
    np.testing.assert_allclose(table["mean_test_second"], -100 * table["running_mean"])
    assert [t.value for t in fitted.trials_] == pytest.approx(table["running_mean"])


def test_a_scorer_whose_names_change_is_an_error():
    def scoring(estimator, X, y):
        return {"a": 1.0} if 0 in X else {"a": 1.0, "b": 2.0}

    given = search(scoring=scoring, refit="a", cv=KFold(3))
    message = r"same names for each fold\. Got \['a', 'b'\] after \['a'\]\. Return NaN"
    with pytest.raises(ValueError, match=message):
        given.fit(X, Y)


def test_a_trial_that_an_error_ended_is_queued_again(tmp_path):
    options = {"storage": tmp_path / "j.log", "study_name": "s", "n_trials": 2}
    with pytest.raises(RuntimeError, match="is too much"):
        search(
            Peak(fail_above=0.5), error_score="raise", enqueue=POINTS, **options
        ).fit(X, Y)

    with pytest.warns(FitFailedWarning, match="1 of 2 trials failed"):
        fitted = search(
            Peak(fail_above=0.5), space={**SPACE}, enqueue=POINTS, **options
        ).fit(X, Y)

    assert fitted.cv_results_["trial_number"].tolist() == [2, 1]
    assert fitted.cv_results_["state"].tolist() == ["failed", "complete"]
    assert fitted.cv_results_["param_a"].tolist() == [0.9, 0.2]


# ---- scores that are no numbers -------------------------------------------------


@pytest.mark.parametrize("pruner", ["auto", None])
def test_scores_without_a_mean_are_a_failure(pruner):
    class Infinite(Peak):
        def score(self, X, y, sample_weight=None):
            return [np.inf, -np.inf, 1.0][int(X[0, 0]) % 3] if self.a > 0.5 else self.a

    space, points = {"a": [0.1, 0.9]}, [{"a": 0.9}, {"a": 0.1}]
    options = {"n_trials": 2, "cv": KFold(3), "enqueue": points, "pruner": pruner}
    with pytest.warns(FitFailedWarning, match="folds have no mean: \\[inf, -inf"):
        fitted = search(Infinite(), space, **options).fit(np.roll(X, 1)[::1], Y)

    assert fitted.cv_results_["state"].tolist() == ["failed", "complete"]
    assert fitted.best_params_ == {"a": 0.1}


def test_refit_must_choose_what_is_complete():
    bad = [{"a": 1.0, "b": 0.0}]
    good = [{"a": 0.3, "b": 0.7}, {"a": 0.31, "b": 0.7}, {"a": 0.29, "b": 0.7}]
    options = {"n_trials": 4, "pruner": "auto", "enqueue": good + bad}
    fitted = search(
        refit=lambda table: int(np.nanargmax(table["mean_test_score"])), **options
    ).fit(X, Y)

    assert fitted.best_params_ == good[0]
    with pytest.raises(ValueError, match=r"row 3 .* state is 'pruned'.*np.nanargmax"):
        search(
            refit=lambda table: int(table["mean_test_score"].argmax()), **options
        ).fit(X, Y)
