"""What a search asks, races, tells and finds."""

import time

import joblib
import numpy as np
import optuna
import pytest
from _search_worker import FLOAT, Peak, rows, search, two_scores, values
from _toy import make, toy
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

from sk_adalora import (
    AdaLoraClassifier,
    AdaLoraSearchCV,
    AdaLoraSpace,
)
from sk_adalora.search.folds import FoldEvaluator
from sk_adalora.search.start import check_names, starting_points

X, Y = rows()
WHOLE = optuna.distributions.IntDistribution


def identity():
    return FunctionTransformer(validate=False)


# ---- what a search finds -------------------------------------------------------


def test_a_search_finds_the_peak_and_refits_it():
    fitted = search(n_trials=25).fit(X, Y)

    assert fitted.best_params_["a"] == pytest.approx(0.3, abs=0.1)
    assert fitted.best_params_["b"] == pytest.approx(0.7, abs=0.1)
    assert fitted.best_estimator_.a == fitted.best_params_["a"]
    assert fitted.predict(X).tolist() == [0] * len(X)
    assert fitted.study_.best_value == fitted.best_score_
    assert fitted.study_.best_params == fitted.best_params_


def test_the_table_is_that_of_a_grid_search_and_more():
    fitted = search(return_train_score=True).fit(X, Y)
    table = fitted.cv_results_
    folds = np.array([table[f"split{k}_test_score"] for k in range(3)])

    np.testing.assert_allclose(table["mean_test_score"], folds.mean(axis=0))
    np.testing.assert_allclose(table["std_test_score"], folds.std(axis=0))
    assert table["rank_test_score"][fitted.best_index_] == 1
    assert table["trial_number"].tolist() == list(range(6))
    assert set(table["state"]) == {"complete"}
    assert table["pruned_at_fold"].tolist() == [-1] * 6
    np.testing.assert_allclose(table["running_mean"], table["mean_test_score"])
    assert np.isfinite(table["mean_train_score"]).all()
    assert [p["a"] for p in table["params"]] == values(fitted)
    assert table["param_a"].tolist() == values(fitted)
    assert (table["mean_fit_time"] >= 0).all()


def test_scores_are_those_of_cross_validation():
    fitted = search(n_trials=3).fit(X, Y)
    best = Peak(**fitted.best_params_)

    expected = cross_val_score(best, X, Y, cv=3)

    np.testing.assert_array_equal(
        [
            fitted.cv_results_[f"split{k}_test_score"][fitted.best_index_]
            for k in (0, 1, 2)
        ],
        expected,
    )


def test_a_pipeline_of_an_adalora_estimator_is_searched_as_it_is(tiny_model):
    texts, labels = toy()
    pipe = Pipeline([("same", identity()), ("clf", make(tiny_model, epochs=1))])
    fitted = AdaLoraSearchCV(pipe, n_trials=3, cv=2, pruner="auto", random_state=0)

    fitted.fit(texts, labels)

    assert {name.split("__")[0] for name in fitted.best_params_} == {"clf"}
    assert fitted.best_params_["clf__beta1"] == fitted.best_params_["clf__beta2"]
    assert set(fitted.predict(texts)) <= {0, 1}
    assert fitted.predict_proba(texts).shape == (len(texts), 2)
    assert fitted.classes_.tolist() == [0, 1]


def test_the_first_trial_is_the_estimator_as_it_is(tiny_model):
    texts, labels = toy()
    estimator = make(tiny_model, epochs=1, target_r=8, learning_rate=0.5)
    fitted = AdaLoraSearchCV(estimator, n_trials=1, cv=2).fit(texts, labels)

    params = fitted.trials_[0].params
    assert params == {
        "init_r": 12,
        "target_r": pytest.approx(8 / 12),
        "tinit": 0.12,
        "tfinal": 0.48,
        "beta1": 0.85,
        "orth_reg_weight": 0.1,
        "learning_rate": 0.03,  # moved into its range
    }


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ([("clf", Peak())], "none"),
        (
            [("one", AdaLoraClassifier()), ("two", AdaLoraClassifier())],
            "'one' and 'two'",
        ),
    ],
)
def test_no_prefix_or_several_are_an_error(steps, found):
    with pytest.raises(ValueError, match=f"must hold one AdaLora.*Got {found}"):
        AdaLoraSearchCV(Pipeline(steps)).fit(X, Y)


def test_a_prefix_can_be_given():
    steps = [("one", AdaLoraClassifier()), ("two", AdaLoraClassifier())]
    given = AdaLoraSearchCV(Pipeline(steps), AdaLoraSpace(), prefix="two__")

    assert all(name.startswith("two__") for name in given._read_space().distributions())


# ---- where the search begins ---------------------------------------------------


def test_settings_of_the_user_are_tried_first():
    fitted = search(enqueue=[{"a": 0.1, "b": 0.2}, {"a": 0.9}]).fit(X, Y)

    assert values(fitted)[:2] == [0.1, 0.9]
    assert fitted.trials_[0].params["b"] == 0.2


def test_without_settings_the_first_trial_is_drawn():
    drawn = values(search(n_trials=1).fit(X, Y))
    paper = values(search(n_trials=1, enqueue="paper").fit(X, Y))

    assert paper == [0.5]
    assert drawn != paper


def test_choices_are_queued_as_they_are_given():
    space = {"a": [0.1, 0.2], "b": [None, 0.7, 0.3]}
    fitted = search(space=space, n_trials=1, enqueue={"a": 0.2, "b": 0.3}).fit(X, Y)

    assert fitted.best_params_ == {"a": 0.2, "b": 0.3}


class Any(Peak):
    """Takes whatever it is given."""

    def score(self, X, y, sample_weight=None):
        return 0.5


HALF_OF_16 = {"target_r": 0.5, "init_r": 16}


@pytest.mark.parametrize(
    ("own", "space", "point"),
    [
        ({}, {"target_r": [4, 8, 16]}, {"target_r": 8}),
        ({"target_r": 4}, AdaLoraSpace(init_r=12, target_r=[4, 8]), {"target_r": 4}),
        (HALF_OF_16, {"target_r": [4, 8]}, {"target_r": 8}),
        (HALF_OF_16, {"target_r": [0.25, 0.5]}, {"target_r": 0.5}),
        ({"target_r": 8, "init_r": 16}, {"target_r": [0.25, 0.5]}, {"target_r": 0.5}),
        ({"target_r": 0.5, "init_r": None}, {"target_r": [4, 8]}, {}),
        ({"target_r": np.int64(4)}, {"target_r": WHOLE(2, 8)}, {"target_r": 4}),
        ({"target_r": 6}, {"target_r": [4, 8]}, {}),
        ({"deltaT": 5}, {"deltaT": ["auto", 5, 10]}, {"deltaT": 5}),
        ({"deltaT": 5}, {"deltaT": FLOAT(0.001, 0.5)}, {}),
        ({"tfinal": 0.5}, {"tfinal": [10, 50]}, {}),
        ({"init_r": 11}, {"init_r": WHOLE(4, 32, step=4)}, {"init_r": 12}),
        ({"tinit": 50}, {"tinit": [0, 50]}, {"tinit": 50}),
        ({"tinit": 50}, {"tinit": [0.1, 0.2]}, {}),
        ({"init_r": None}, {"init_r": [None, 16]}, {"init_r": None}),
        ({"init_r": None}, {"init_r": [12, 16]}, {"init_r": 12}),
        ({}, {"lora_alpha": FLOAT(4, 32)}, {}),
        ({}, {"lora_alpha": [8, None, 12]}, {"lora_alpha": None}),
        ({"init_r": 40}, {"init_r": WHOLE(4, 32)}, {"init_r": 32}),
        ({}, {"init_r": 16, "target_r": [0.25, 0.5]}, {"target_r": 0.5}),
        ({}, {"init_r": [6, 12], "target_r": 4}, {"init_r": 6}),
        (HALF_OF_16, {"target_r": FLOAT(0.25, 0.75)}, {"target_r": 0.5}),
        ({"target_r": 4, "init_r": 16}, {"target_r": [0.25, 8]}, {"target_r": 0.25}),
        ({"tfinal": 0.5}, {"tfinal": WHOLE(1, 50)}, {}),
    ],
)
def test_the_own_ranks_and_steps_are_choices_like_others(own, space, point):
    given = AdaLoraSearchCV(AdaLoraClassifier(**own), space)
    read = given._read_space()
    (first,) = starting_points("paper", given.estimator, read) or [{}]

    named = {*space} if isinstance(space, dict) else {"target_r"}
    assert {name: first[name] for name in named & {*first}} == point


def test_a_fixed_share_does_not_hide_what_the_initial_rank_is():
    pipeline = Pipeline([("clf", AdaLoraClassifier())])  # target_r=8, so init_r is 12
    space = {"clf": AdaLoraSpace(target_r=0.5, init_r=[8, 12])}
    read = AdaLoraSearchCV(pipeline, space)._read_space()
    (first,) = starting_points("paper", pipeline, read)

    assert first["clf__init_r"] == 12


@pytest.mark.parametrize(
    ("choices", "value"),
    [
        # Of sets that are equal, Python may write the members in another order.
        ([{0, 8}, {1}], {8, 0}),
        ([frozenset({0, 8}), 1], frozenset({8, 0})),
        ([[{0, 8}], 1], ({8, 0},)),
        ([{"x": 0, "y": [8]}, {"x": 1}], {"y": [8], "x": 0}),
        ([float("nan"), -1], float("nan")),
    ],
)
def test_a_choice_is_known_by_its_content(choices, value):
    space = AdaLoraSearchCV(Any(), {"a": choices})._read_space()
    (label, _) = space.distributions()["a"].choices

    for enqueue, own in (("paper", Any(value)), ({"a": value}, Any())):
        (point,) = starting_points(enqueue, own, space)
        assert repr(point["a"]) == repr(label)


def conditional(trial):
    if trial.suggest_categorical("kind", ["x", "y"]) == "x":
        return {"a": trial.suggest_float("of x", 0, 1)}
    return {"b": trial.suggest_float("of y", 0, 1)}


def test_a_tied_parameter_may_be_named_with_the_value_that_it_gets():
    given = AdaLoraSpace(beta1=(0.8, 0.95), beta2="beta1")
    space = AdaLoraSearchCV(AdaLoraClassifier(), given)._read_space()
    point = {"beta1": 0.9, "beta2": 0.9}

    assert starting_points(point, AdaLoraClassifier(), space) == [{"beta1": 0.9}]
    with pytest.raises(ValueError, match="Got 'beta2'"):
        starting_points({**point, "beta2": 0.8}, AdaLoraClassifier(), space)


def test_a_step_that_is_set_brings_parameters_of_its_own():
    pipeline = Pipeline([("clf", LogisticRegression())])
    space = {"clf": SVC(), "clf__gamma": FLOAT(0.1, 1)}
    check_names(pipeline, AdaLoraSearchCV(pipeline, space)._read_space())

    space = {"clf2__gamma": FLOAT(0.1, 1), "clf": SVC()}
    with pytest.raises(ValueError, match="Got 'clf2__gamma'"):
        check_names(pipeline, AdaLoraSearchCV(pipeline, space)._read_space())


def test_what_a_conditional_function_may_ask_for_can_be_queued():
    points = [{"kind": "x", "of x": 0.3}, {"kind": "y", "of y": 0.4}]
    fitted = search(space=conditional, n_trials=2, enqueue=points).fit(X, Y)

    assert [trial.params for trial in fitted.trials_] == points


def test_the_best_of_an_earlier_search_comes_first():
    space = {"a": FLOAT(0, 1), "b": 0.6}
    best = search(space=space).fit(X, Y).best_params_
    again = search(space=space, n_trials=1, enqueue=best).fit(X, Y)

    assert best["b"] == 0.6
    assert again.best_params_ == best
    match = r"are searched.* Got 'b'\. The space sets it to 0\.6: leave it out"
    with pytest.raises(ValueError, match=match):
        search(space=space, enqueue={**best, "b": 0.7}).fit(X, Y)


@pytest.mark.parametrize(
    ("enqueue", "message"),
    [
        ({"aa": 0.1}, r"Got 'aa'\. Did you mean 'a'\?"),
        ({"seconds": 0.1}, r"Got 'seconds'\. Choose among a, b"),
        (["paper"], r"a dict or a list of dict\. Got a list with 'paper' in it\. Pass"),
        ([{"a": 0.1}, 1], "Got a list with 1 in it"),
        ({"a": 7.0}, "must hold values of the space. Got 7.0 for 'a'"),
        ({"a": "x"}, "must hold values of the space. Got 'x' for 'a'"),
        ({"a": True}, "must hold values of the space. Got True for 'a'"),
    ],
)
def test_settings_outside_the_space_are_refused(enqueue, message):
    with pytest.raises(ValueError, match=message):
        search(enqueue=enqueue).fit(X, Y)


def test_what_a_function_does_not_ask_for_is_warned_of_once(kept):
    points = [{"kind": "x", "of x": 0.5}, {"kind": "x", "of y": 0.5, "a": 0.5}]
    options = {"space": conditional, "enqueue": points, "n_jobs": 2, **kept}
    what = (
        r"`enqueue` should name what .*\. Got 'of y', 'a', and trial 1 was asked for "
        r"'kind', 'of x'\. Take names from"
    )
    with pytest.warns(UserWarning, match=what) as warned:
        fitted = search(n_trials=2, **options).fit(X, Y)
    again = search(n_trials=4, **options).fit(X, Y)  # without a warning

    assert sum("enqueue" in str(w.message) for w in warned) == 1
    assert [t.params["kind"] for t in fitted.trials_] == ["x", "x"]
    assert len(again.trials_) == 4


def test_a_value_that_a_function_refuses_is_not_queued(kept):
    points = [{"kind": "x"}, {"kind": "z"}]
    with pytest.raises(ValueError, match=r"'z' not in \('x', 'y'\)"):
        search(space=conditional, enqueue=points, **kept).fit(X, Y)

    assert optuna.get_all_study_names(kept["storage"]) == []  # nothing waits there


def test_points_for_a_function_are_plain_or_refused_whole():
    def space(trial):
        return {"a": trial.suggest_int("a", 0, 5) / 5}

    options = {"space": space, "n_trials": 1, "refit": False}
    fitted = search(enqueue={"a": np.int64(3)}, **options).fit(X, Y)
    assert values(fitted) == [3]
    (trial,) = fitted.study_.trials
    assert type(trial.system_attrs["fixed_params"]["a"]) is int  # JSON has no other

    class Broken(optuna.storages.InMemoryStorage):
        def create_new_trial(self, *args, **kwargs):
            raise ConnectionError

    kept = {"storage": Broken(), "study_name": "s"}
    with pytest.raises(ConnectionError):
        search(enqueue={"a": 3}, **options, **kept).fit(X, Y)
    assert optuna.get_all_study_names(kept["storage"]) == []


def test_a_function_may_go_by_the_number_of_the_trial():
    def space(trial):
        first = trial.number % 2 == 0
        return {"a": trial.suggest_float("low" if first else "high", 0, 1)}

    fitted = search(space=space, n_trials=4).fit(X, Y)
    drawn = [next(iter(trial.params.values())) for trial in fitted.trials_]

    assert [p["a"] for p in fitted.cv_results_["params"]] == drawn


def test_a_function_may_say_that_there_is_no_such_combination():
    def space(trial):
        a = trial.suggest_float("a", 0, 1)
        if a > 0.5:
            raise optuna.TrialPruned
        return {"a": a, "b": trial.suggest_float("b", 0, 1)}

    # No warning that it does not ask for the first "b".
    points = [{"a": 0.9, "b": 0.1}, {"a": 0.3, "b": 0.1}, {"a": 0.1, "b": 0.1}]
    fitted = search(space=space, n_trials=3, enqueue=points).fit(X, Y)

    assert fitted.cv_results_["state"].tolist() == ["pruned", "complete", "complete"]
    assert fitted.cv_results_["params"][0] == {"a": 0.9}
    assert fitted.best_params_ == {"a": 0.3, "b": 0.1}


def test_time_runs_out_for_what_is_no_combination_too():
    def space(trial):
        time.sleep(0.05)
        raise optuna.TrialPruned

    with pytest.raises(ValueError, match=r"0 failed, \d+ pruned and 0 running ones"):
        search(space=space, n_trials=10**6, timeout=0.3).fit(X, Y)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            lambda t: {"a": t.suggest_float("a", 0, 1) + 0 * len(t.study.trials)},
            r"it is called again.*Got AttributeError",
        ),
        (
            lambda t: {"a": np.random.default_rng().uniform()},
            r"must return the same each time .*\. Got 0\.\d+ and then 0\.\d+",
        ),
        (
            lambda t: {"a": np.random.default_rng().integers(2**60)},
            r"must return the same each time .*\. Got .*\d+.* and then ",
        ),
    ],
)
def test_a_function_that_cannot_be_called_again_is_refused_at_once(space, message):
    before = Peak.fits
    with pytest.raises(ValueError, match=message):
        search(space=space).fit(X, Y)

    assert Peak.fits == before


def test_errors_of_set_params_surface():
    with pytest.raises(ValueError, match="Invalid parameter 'nothing'"):
        search(space=lambda trial: {"nothing": 1}).fit(X, Y)


# ---- races ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def raced():
    """A race in which the first five trials are good, and the others are not."""
    good = [{"a": 0.34 - 0.01 * k, "b": 0.7} for k in range(5)]
    bad = [{"a": 1.0, "b": 0.1 * k} for k in range(5)]
    before = Peak.fits
    fitted = search(n_trials=10, pruner="auto", enqueue=good + bad, refit=False)
    fitted.fit(X, Y)
    return fitted, Peak.fits - before


def test_trials_that_are_behind_see_one_fold(raced):
    fitted, fits = raced
    table = fitted.cv_results_

    assert table["state"].tolist() == ["complete"] * 5 + ["pruned"] * 5
    assert table["pruned_at_fold"].tolist() == [-1] * 5 + [0] * 5
    assert fits == 5 * 3 + 5
    assert fitted.n_splits_ == 3  # not the one fold of the last group


def test_workers_that_a_race_leaves_free_take_further_folds(monkeypatch):
    seen = []
    evaluate = FoldEvaluator.__call__

    def spy(self, fits):
        seen.append((len({f.number for f in fits}), sorted({f.fold for f in fits})))
        return evaluate(self, fits)

    monkeypatch.setattr(FoldEvaluator, "__call__", spy)
    good = [{"a": 0.34 - 0.01 * k, "b": 0.7} for k in range(5)]
    points = [*good[:4], {"a": 1.0, "b": 0.0}, good[4]]
    options = {"n_jobs": 2, "n_trials": 6, "pruner": "auto", "refit": False}
    with joblib.parallel_config("threading"):
        fitted = search(enqueue=points, **options).fit(X, Y)
    alone = search(enqueue=points, **{**options, "n_jobs": 1}).fit(X, Y)

    assert seen[:8] == [*[(2, [k]) for k in (0, 1, 2)] * 2, (2, [0]), (1, [1, 2])]
    assert seen[8:] == [*[(1, [k]) for k in (0, 1, 2)] * 4, (1, [0])] + [
        (1, [k]) for k in (0, 1, 2)
    ]
    states = ["complete"] * 4 + ["pruned", "complete"]
    assert fitted.cv_results_["state"].tolist() == states
    for name in ("state", "mean_test_score", "running_mean", "pruned_at_fold"):
        np.testing.assert_array_equal(fitted.cv_results_[name], alone.cv_results_[name])


def test_folds_that_never_ran_are_nan_and_never_win(raced):
    table = raced[0].cv_results_

    assert np.isfinite(table["split0_test_score"]).all()
    assert np.isnan(table["split1_test_score"][5:]).all()
    assert np.isnan(table["mean_test_score"][5:]).all()
    assert table["rank_test_score"][5:].tolist() == [6] * 5
    np.testing.assert_array_equal(
        table["running_mean"][5:], table["split0_test_score"][5:]
    )
    for name in ("fit_time", "score_time"):  # of those that ran
        assert np.isfinite(table[f"mean_{name}"]).all()
        assert np.isfinite(table[f"std_{name}"]).all()
    assert raced[0].best_params_ == {"a": pytest.approx(0.3), "b": 0.7}


def test_the_mean_so_far_is_reported_after_each_fold(raced):
    trial, table = raced[0].trials_[2], raced[0].cv_results_
    folds = [table[f"split{k}_test_score"][2] for k in range(3)]

    assert trial.intermediate_values == {
        k: pytest.approx(np.mean(folds[: k + 1])) for k in range(3)
    }


@pytest.mark.filterwarnings("error:.*scores are non-finite")
def test_a_pruned_trial_with_a_better_mean_so_far_does_not_win():
    class Against(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 0

    fitted = search(
        n_trials=2,
        pruner=Against(),
        enqueue=[{"a": 0.3, "b": 0.7}, {"a": 1.0, "b": 0.0}],
    ).fit(X, Y)

    assert fitted.cv_results_["running_mean"].argmax() == 0
    assert fitted.best_index_ == 1


def test_without_a_pruner_all_folds_are_seen():
    before = Peak.fits
    search(enqueue={"a": 1.0, "b": 0.0}, refit=False).fit(X, Y)

    assert Peak.fits - before == 6 * 3


# ---- constraints ---------------------------------------------------------------


# Optuna calls the way that works in all releases experimental, and later deprecated.
CONSTRAINED = pytest.mark.filterwarnings(r"ignore:.*constraints_func")


def constrained(largest, **options):
    """A search in which `a` must not be larger."""

    def constraints(trial):
        return [trial.params["a"] - largest]

    sampler = optuna.samplers.TPESampler(seed=0, constraints_func=constraints)
    points = [{"a": a, "b": 0.7} for a in (0.3, 0.1, 0.2, 0.4, 0.05)]
    return search(sampler=sampler, n_trials=5, enqueue=points, **options)


@CONSTRAINED
@pytest.mark.parametrize("scoring", [None, two_scores])
@pytest.mark.parametrize("pruner", [None, "auto"])
def test_what_breaks_a_constraint_is_never_the_best(pruner, scoring):
    name = "high" if scoring else "score"
    given = constrained(
        0.25, scoring=scoring, pruner=pruner, refit="high" if scoring else True
    )
    fitted = given.fit(X, Y)
    table = fitted.cv_results_
    infeasible = table["state"] == "infeasible"

    assert fitted.best_params_ == {"a": 0.2, "b": 0.7} == fitted.study_.best_params
    assert fitted.best_score_ == fitted.study_.best_value
    assert infeasible.tolist() == [True, False, False, True, False]
    assert np.isnan(table[f"mean_test_{name}"][infeasible]).all()
    assert table[f"rank_test_{name}"].tolist() == [4, 2, 1, 4, 3]
    assert table["running_mean"].argmax() == 0
    last = [metric for metric in ("low", "score") if f"rank_test_{metric}" in table]
    assert table[f"rank_test_{last[0]}"][infeasible].tolist() == [4, 4]


@CONSTRAINED
def test_something_complete_must_keep_the_constraints():
    with pytest.raises(ValueError, match="Got 5 complete trials, none of") as caught:
        constrained(0.0).fit(X, Y)

    assert not hasattr(caught.value, "study")  # nothing in it can be refitted


@CONSTRAINED
def test_a_function_that_refits_chooses_what_keeps_the_constraints():
    first = constrained(0.25, refit=lambda table: 0)
    with pytest.raises(ValueError, match=r"row 0 of .*, whose state is 'infeasible'"):
        first.fit(X, Y)

    best = constrained(0.25, refit=lambda t: int(np.nanargmax(t["mean_test_score"])))
    assert best.fit(X, Y).best_index_ == 2


@pytest.mark.skipif(
    not hasattr(optuna.Trial, "set_constraint"), reason="needs Optuna 5.0"
)
def test_a_function_may_set_constraints():
    def space(trial):
        a = trial.suggest_float("a", 0, 1)
        trial.set_constraint("small", a - 0.25)
        return {"a": a}

    points = [{"a": a} for a in (0.3, 0.1, 0.2)]
    fitted = search(space=space, n_trials=3, enqueue=points).fit(X, Y)

    assert fitted.cv_results_["state"].tolist() == ["infeasible", *2 * ["complete"]]
    assert fitted.best_params_ == {"a": 0.2}
