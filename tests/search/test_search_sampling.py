"""What is drawn: by which sampler, with which seeds, and when a small space ends."""

import warnings

import optuna
import pytest
from _search_worker import FLOAT, SPACE, Peak, rows, search, values
from optuna.samplers import GPSampler, RandomSampler, TPESampler
from sklearn.exceptions import FitFailedWarning

from sk_adalora.search.sampler import EachPointOnce, make_sampler

X, Y = rows()
CHOICES = {"a": [0.1, 0.2], "b": FLOAT(0, 1)}
SMALL = {"a": [0.1, 0.3], "b": [0.2, 0.7, 0.9]}


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"n_trials": 100}, GPSampler),
        ({"n_trials": 101}, TPESampler),
        # The Gaussian process would not learn from what was stopped.
        ({"pruner": "auto"}, TPESampler),
        ({"space": CHOICES}, TPESampler),
        ({"space": SMALL, "n_trials": 5}, TPESampler),
        ({"space": SMALL}, EachPointOnce),
        ({"space": lambda trial: {"a": trial.suggest_int("a", 0, 1)}}, TPESampler),
    ],
)
def test_the_sampler_suits_the_space_and_the_race(options, kind):
    fitted = search(timeout=1e-9, **options).fit(X, Y)

    assert isinstance(fitted.study_.sampler.sampler, kind)


# ---- seeds ---------------------------------------------------------------------


def ask_twelve(study, *samplers):
    """Ask for twelve trials, from workers in turn, before any of them is over."""
    asked = []
    for number in range(12):
        study.sampler = samplers[number % len(samplers)]
        asked.append(study.ask(SPACE).params)
    return asked


@pytest.mark.parametrize("n_trials", [30, 200])  # Gaussian process, and TPE
def test_workers_of_one_seed_draw_what_one_alone_would_draw(n_trials):
    drawn = []
    for n_workers in (1, 2, 3):
        samplers = [
            make_sampler("auto", SPACE, n_trials, 0, racing=False, is_first=False)
            for _ in range(n_workers)
        ]
        drawn.append(ask_twelve(optuna.create_study(), *samplers))

    assert drawn[0] == drawn[1] == drawn[2]
    assert len({params["a"] for params in drawn[0]}) == 12


class Interrupted(Peak):
    """Ends the search in a few of its fits, as Ctrl-C does."""

    left = 0

    def fit(self, X, y):
        type(self).left -= 1
        if type(self).left in (0, 6, 13):
            raise KeyboardInterrupt
        return super().fit(X, y)


@pytest.mark.parametrize("pruner", [None, "auto"])  # Gaussian process, and TPE
def test_a_search_that_is_interrupted_draws_what_it_would_have_drawn(kept, pruner):
    options = {"n_trials": 14, "pruner": pruner, "refit": False}
    whole = search(Interrupted(), **options).fit(X, Y)
    Interrupted.left = 18
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            search(Interrupted(), **options, **kept).fit(X, Y)
    found = search(Interrupted(), **options, **kept).fit(X, Y).cv_results_

    assert found["params"] == whole.cv_results_["params"]
    assert found["state"].tolist() == whole.cv_results_["state"].tolist()
    assert found["trial_number"].tolist() != whole.cv_results_["trial_number"].tolist()


def test_of_equal_scores_the_first_try_is_the_best(kept):
    class Level(Interrupted):
        def score(self, X, y):
            return 0.5

    Level.left = 5
    options = {"n_trials": 4, "refit": False}
    with pytest.raises(KeyboardInterrupt):
        search(Level(), **options, **kept).fit(X, Y)
    Level.left = 0
    broken = search(Level(), **options, **kept).fit(X, Y)

    assert broken.best_index_ == 0
    assert broken.best_params_ == search(Level(), **options).fit(X, Y).best_params_


def test_a_study_that_goes_on_draws_what_it_would_have_drawn(kept):
    first = search(n_trials=4, **kept).fit(X, Y)
    later = search(n_trials=13, **kept).fit(X, Y)

    assert values(later) == values(search(n_trials=13).fit(X, Y))
    assert values(later)[:4] == values(first)


def test_a_seed_makes_the_search_repeatable():
    first, second = (values(search(n_trials=12).fit(X, Y)) for _ in range(2))
    other = values(search(n_trials=12, random_state=1).fit(X, Y))

    assert first == second
    assert first != other


def draws(sampler):
    study = optuna.create_study(sampler=sampler)
    return [study.ask(SPACE).params["a"] for _ in range(3)]


def test_a_sampler_of_the_user_is_copied_and_seeded_anew_in_later_processes():
    given, options = RandomSampler(seed=0), {"racing": False}
    for _ in range(2):
        first = make_sampler(given, SPACE, 9, None, is_first=True, **options)
        assert draws(first) == draws(RandomSampler(seed=0))

    later = make_sampler(given, SPACE, 9, None, is_first=False, **options)
    assert draws(later) != draws(RandomSampler(seed=0))


# ---- small spaces --------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pruner", [None, "auto"])
def test_a_search_ends_when_all_settings_were_tried(pruner, seed, capsys):
    options = {"n_trials": 9, "random_state": seed, "pruner": pruner, "verbose": 1}
    fitted = search(space=SMALL, enqueue="paper", **options).fit(X, Y)

    assert len({tuple(trial.params.values()) for trial in fitted.trials_}) == 6
    assert len(fitted.trials_) == 6
    assert fitted.best_params_ == {"a": 0.3, "b": 0.7}
    assert "6/6" in capsys.readouterr().err


def test_settings_that_failed_were_tried():
    with pytest.warns(FitFailedWarning, match="3 of 6 trials failed"):
        fitted = search(Peak(fail_above=0.2), space=SMALL, n_trials=9).fit(X, Y)

    assert len(fitted.trials_) == 6


@pytest.mark.parametrize(
    ("space", "n_points"),
    [
        ({"a": (1, 4), "b": optuna.distributions.IntDistribution(1, 9, step=4)}, 12),
        ({"a": FLOAT(0.1, 0.3, step=0.1), "b": FLOAT(0.5, 0.5)}, 3),
        ({"a": optuna.distributions.IntDistribution(1, 4, log=True), "b": 0.5}, 4),
        ({"a": 0.5}, 1),
    ],
)
def test_numbers_with_steps_are_a_small_space_too(space, n_points):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = search(Peak(fail_above=9), space, n_trials=40).fit(X, Y)

    assert len({tuple(trial.params.items()) for trial in fitted.trials_}) == n_points
    assert len(fitted.trials_) == n_points
