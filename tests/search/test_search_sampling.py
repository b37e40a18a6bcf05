"""What "auto" draws: nothing twice, near nothing that runs, and without a word."""

import logging
import math
from itertools import product

import numpy as np
import optuna
import pytest
import torch
from _search_worker import FLOAT, SPACE, Peak, rows, search, values
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.samplers import GPSampler, RandomSampler
from optuna.trial import TrialState
from sklearn.exceptions import FitFailedWarning

from sk_adalora.search.sampler import (
    DistinctTPESampler,
    InformedGPSampler,
    all_tried,
    count_points,
    make_sampler,
)

X, Y = rows()
INT = IntDistribution


class Corner(Peak):
    """Best where `a` is highest and `b` is lowest."""

    def score(self, X, y):
        return self.a - self.b


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
    sampler = make_sampler("auto", space, n_trials, seed, [0])
    return optuna.create_study(direction="maximize", sampler=sampler)


def n_distinct(points):
    return len({tuple(sorted(point.items())) for point in points})


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


# ---- which draws are the same --------------------------------------------------


def draws(sampler):
    study = optuna.create_study(sampler=sampler)
    return tuple(study.ask(SPACE).params["a"] for _ in range(3))


def test_a_sampler_of_the_user_is_copied_and_reseeded_after_the_first_run():
    given_by_user = RandomSampler(seed=0)
    for _ in range(2):
        first = make_sampler(given_by_user, SPACE, 9, None, [0])
        assert draws(first) == draws(RandomSampler(seed=0))

    later = make_sampler(given_by_user, SPACE, 9, None, [1])
    assert draws(later) != draws(RandomSampler(seed=0))


@pytest.mark.parametrize("n_trials", [30, 200])  # Gaussian process, and TPE
def test_each_seed_and_each_run_draws_its_own(n_trials):
    def of(seed, run):
        return draws(make_sampler("auto", SPACE, n_trials, seed, run))

    runs = [[0], [1], [1, 2]]
    assert len({of(seed, run) for seed in (0, 1) for run in runs}) == 6
    assert of(0, [1]) == of(0, [1])


# ---- nothing twice -------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_the_corner_of_a_space_is_tried_once(warned):
    fitted = search(Corner(), n_trials=18).fit(X, Y)

    assert isinstance(fitted.study_.sampler, InformedGPSampler)
    assert fitted.best_params_ == {"a": 1.0, "b": 0.0}
    assert n_distinct(trial.params for trial in fitted.trials_) == 18
    assert warned == []


@pytest.mark.parametrize(
    ("n_trials", "kind"), [(100, InformedGPSampler), (101, DistinctTPESampler)]
)
def test_the_gaussian_process_proposes_up_to_100_trials(n_trials, kind):
    space = {"x": FLOAT(0, 1), "n": INT(1, 9)}

    assert type(make_sampler("auto", space, n_trials, 0, [0])) is kind


@pytest.mark.parametrize("switched_off", [torch.no_grad, torch.inference_mode])
def test_gradients_that_the_caller_switched_off(switched_off):
    """The Gaussian process, which proposes from the eleventh trial on, needs them."""
    with_gradients = run(auto({"x": FLOAT(0, 1)}), {"x": FLOAT(0, 1)}, parabola, 13)
    with switched_off():
        without = run(auto({"x": FLOAT(0, 1)}), {"x": FLOAT(0, 1)}, parabola, 13)

    assert without == with_gradients


def parabola(params):
    return -((params["x"] - 0.3) ** 2)


@pytest.mark.parametrize("n_trials", [30, 200])  # Gaussian process, and TPE
def test_all_points_of_a_small_space_come_before_a_repeat(n_trials, warned):
    space = {"i": INT(1, 4), "x": FLOAT(0.1, 0.3, step=0.1), "one": INT(5, 5)}

    points = run(auto(space, n_trials), space, lambda p: p["i"] - p["x"], 14)

    assert n_distinct(points[:12]) == n_distinct(points) == 12
    assert {point["i"] for point in points} == {1, 2, 3, 4}
    assert sorted({point["x"] for point in points}) == pytest.approx([0.1, 0.2, 0.3])
    assert warned == []  # a repeat is proposed like any other point


@pytest.mark.parametrize("n_trials", [30, 200])
def test_trials_that_begin_together_are_not_the_same(n_trials):
    """Before any is complete, which would tell what to sample."""
    space = {"i": INT(1, 6)}
    study = auto(space, n_trials)

    assert {study.ask(space).params["i"] for _ in range(6)} == {1, 2, 3, 4, 5, 6}


def test_nor_are_those_of_a_function_that_asks_for_a_fixed_value_too():
    study = auto({})

    def begin():
        trial = study.ask()
        trial.suggest_int("one", 5, 5)
        return trial.suggest_int("i", 1, 6)

    assert {begin() for _ in range(6)} == {1, 2, 3, 4, 5, 6}


def test_the_gaussian_process_allows_for_what_is_queued():
    """Its best proposal, 4 and 1, would be 1 and 1 for a trial whose `i` is queued."""
    space = {"i": INT(1, 4), "j": INT(1, 3)}
    study = auto(space)
    for i, j in sorted({*product((1, 2, 3, 4), (1, 2, 3))} - {(1, 3), (4, 1)}):
        study.add_trial(finished({"i": i, "j": j}, space, value=i - j))
    study.enqueue_trial({"i": 1})

    assert study.ask(space).params == {"i": 1, "j": 3}


def test_a_search_ends_when_all_settings_were_tried(capsys):
    space = {"a": [0.1, 0.3], "b": [0.2, 0.7, 0.9]}
    with pytest.warns(UserWarning, match=r"number of settings in the space, 6\. Got 9"):
        fitted = search(Peak(), space=space, n_trials=9, verbose=1).fit(X, Y)
    enough = search(Peak(), space=space, n_trials=6).fit(X, Y)  # which does not warn

    bar = capsys.readouterr().err
    assert "6/6" in bar
    assert "/9" not in bar
    for each in (fitted, enough):
        assert n_distinct(trial.params for trial in each.trials_) == 6
        assert len(each.trials_) == 6
        assert each.best_params_ == {"a": 0.3, "b": 0.7}


@pytest.mark.parametrize(
    "enqueue",
    [[{"a": 0.1}] * 2, [{"a": 0.1, "b": 0.2}] * 2, [{"b": 0.7}, {"b": 0.7}]],
)
@pytest.mark.filterwarnings("ignore:`n_trials` should be at most")
def test_all_settings_are_tried_after_those_in_line(enqueue):
    """Also if these are equal, or leave something to be drawn."""
    space = {"a": [0.1, 0.3, 0.5], "b": [0.2, 0.7, 0.9]}
    for seed in range(4):
        fitted = search(
            Peak(), space=space, n_trials=30, enqueue=enqueue, random_state=seed
        ).fit(X, Y)

        assert n_distinct(trial.params for trial in fitted.trials_) == 9


@pytest.mark.parametrize(
    ("sampler", "space"),
    [
        (RandomSampler(seed=0), {"a": [0.1, 0.3]}),
        ("auto", lambda trial: {"a": trial.suggest_categorical("a", [0.1, 0.3])}),
        ("auto", {"a": FLOAT(0.1, 0.3)}),
    ],
)
def test_other_searches_make_all_their_trials(sampler, space):
    """What a function asks for is not known, and samplers of Optuna's may repeat."""
    fitted = search(Peak(), space=space, n_trials=4, sampler=sampler).fit(X, Y)

    assert len(fitted.trials_) == 4


@pytest.mark.parametrize(
    ("space", "n_points"),
    [
        ({"x": INT(1, 9, step=2), "y": CategoricalDistribution("ab")}, 10),
        ({"x": FLOAT(0.1, 0.3, step=0.1), "one": FLOAT(0.5, 0.5)}, 3),
        ({"x": INT(1, 1000)}, 1000),
        ({"x": INT(1, 1001)}, math.inf),
        ({"x": INT(1, 100), "y": INT(1, 11)}, math.inf),
        ({"x": FLOAT(0, 1), "y": INT(1, 2)}, math.inf),
        ({"one": INT(3, 3)}, 1),
    ],
)
def test_the_points_of_a_space_are_counted(space, n_points):
    assert count_points(space) == n_points


def finished(params, space, value=0.5):
    return optuna.trial.create_trial(params=params, distributions=space, value=value)


def test_what_a_branch_does_not_ask_for_makes_no_difference(warned):
    """A function as space: 2 + 4 combinations, of which one is excluded."""

    def space(trial):
        if trial.suggest_categorical("c", ["x", "y"]) == "x":
            return {"a": trial.suggest_int("i", 0, 1)}
        k = trial.suggest_int("k", 0, 3)
        if k == 3:
            raise optuna.TrialPruned
        return {"b": k}

    fitted = search(space=space, n_trials=18, refit=False).fit(X, Y)
    points = [trial.params for trial in fitted.study_.trials]

    assert isinstance(fitted.study_.sampler, DistinctTPESampler)
    assert n_distinct(points) == 6
    assert warned == []


# ---- what is learned from ------------------------------------------------------


def plain_peak(trial):
    return trial.suggest_float("x", 0, 1)


def peak_of_each_branch(trial):
    """Two branches, of which no trial has the parameters of both."""
    branch = trial.suggest_categorical("branch", ["p", "q"])
    return trial.suggest_float(f"x of {branch}", 0, 1)


@pytest.mark.parametrize("ask", [plain_peak, peak_of_each_branch])
def test_later_trials_are_near_the_best(ask):
    drawn = []

    def objective(trial):
        drawn.append(ask(trial))
        return -abs(drawn[-1] - 0.3)

    sampler = make_sampler("auto", {}, 60, 0, [0])
    optuna.create_study(direction="maximize", sampler=sampler).optimize(objective, 60)

    # Of uniform draws, half are within 0.25.
    assert np.median(np.abs(np.array(drawn[30:]) - 0.3)) < 0.15


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_where_all_trials_are_complete_the_process_proposes_what_optunas_does():
    space, proposed = {"x": FLOAT(0, 1)}, []
    for sampler in (InformedGPSampler(space, seed=0), GPSampler(seed=0)):
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for x in np.linspace(0, 1, 12):
            study.add_trial(finished({"x": x}, space, value=parabola({"x": x})))
        proposed.append(study.ask(space).params)

    assert proposed[0] == proposed[1]


def test_trials_at_the_same_time_are_apart():
    points = run(auto(SPACE), SPACE, lambda p: -((p["a"] - 0.5) ** 2), 16, batch=2)

    for one, other in zip(points[::2], points[1::2], strict=True):
        assert max(abs(one[name] - other[name]) for name in SPACE) > 1e-3


LETTERS = CategoricalDistribution(["p", "q"])


@pytest.mark.parametrize("steps", [{}, {0: 0.5}])
def test_the_process_leaves_out_pruned_trials_of_other_parameters(steps):
    """Another program may add them while the search runs."""

    def add(study, trial):
        if trial.number == 10:
            study.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.PRUNED,
                    params={"letter": "q"},
                    distributions={"letter": LETTERS},
                    intermediate_values=steps,
                )
            )

    fitted = search(n_trials=14, callbacks=[add], refit=True).fit(X, Y)

    assert fitted.cv_results_["state"].tolist().count("complete") == 13
    assert np.isnan(fitted.cv_results_["mean_test_score"][11])


def choose_a(trial):
    """A space whose parameters are not known before a trial asks for them."""
    return {"a": trial.suggest_categorical("a", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])}


@pytest.mark.parametrize("seed", range(4))
def test_settings_of_a_function_are_not_repeated_before_one_is_complete(seed):
    failing = search(Peak(fail_above=0.15), space=choose_a, random_state=seed)
    with pytest.warns(FitFailedWarning, match="5 of 6 trials failed"):
        fitted = failing.fit(X, Y)
    assert sorted(values(fitted)) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def choose_kind(trial):
    """One of six settings, of which three ask for a parameter of their own."""
    kind = trial.suggest_categorical("kind", ["x", "y"])
    values = [0.1, 0.2, 0.3] if kind == "x" else [0.4, 0.5, 0.6]
    return {"a": trial.suggest_categorical(f"a of {kind}", values)}


@pytest.mark.parametrize("seed", range(4))
def test_settings_that_failed_are_not_repeated_once_others_are_complete(seed):
    failing = search(Peak(fail_above=0.35), space=choose_kind, random_state=seed)
    with pytest.warns(FitFailedWarning, match="3 of 6 trials failed"):
        fitted = failing.fit(X, Y)
    assert n_distinct([trial.params for trial in fitted.trials_]) == 6


def branch(trial):
    """A space of which each half asks for a parameter that the other lacks."""
    a = trial.suggest_float("a", 0, 1)
    return {"a": a, "b": trial.suggest_float("high" if a > 0.5 else "low", 0, 1)}


def test_a_trial_that_has_drawn_nothing_yet_may_get_the_last_setting():
    space, study = {"a": INT(0, 1)}, optuna.create_study()
    study.ask(space)
    assert not all_tried(space, study.trials)

    study.tell(study.ask(), state=TrialState.PRUNED)  # it gets none any more
    assert not all_tried(space, study.trials)
    study.ask()
    assert all_tried(space, study.trials)
