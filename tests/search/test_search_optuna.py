"""Searches beside the rest of Optuna: its pictures and its messages."""

import pickle

import optuna
import pytest
from _search_worker import Peak, rows, search
from optuna.trial import TrialState
from sklearn.exceptions import FitFailedWarning

from sk_adalora.search import study as _search_study

X, Y = rows()

PICTURES = [
    "plot_optimization_history",
    "plot_intermediate_values",
    "plot_param_importances",
    "plot_parallel_coordinate",
    "plot_slice",
]


@pytest.fixture(scope="module")
def mixed():
    """A search with trials that are complete, pruned and failed."""
    good = [{"a": 0.34 - 0.01 * k, "b": 0.74 - 0.01 * k} for k in range(4)]
    others = [{"a": 0.8, "b": 0.1}, {"a": 0.95, "b": 0.5}]
    given = search(
        Peak(fail_above=0.9), n_trials=6, pruner="auto", enqueue=good + others
    )
    with pytest.warns(FitFailedWarning):
        fitted = given.fit(X, Y)
    states = [trial.state for trial in fitted.study_.trials]
    assert states == [TrialState.COMPLETE] * 4 + [TrialState.PRUNED, TrialState.FAIL]
    return fitted


@pytest.mark.parametrize("name", PICTURES)
def test_optuna_draws_the_study(mixed, name):
    pytest.importorskip("plotly")
    figure = getattr(optuna.visualization, name)(mixed.study_)

    assert figure.data
    text = figure.to_json()
    if name == "plot_optimization_history":
        assert list(figure.data[0].y) == [t.value for t in mixed.trials_[:4]]
    elif name == "plot_intermediate_values":
        folds = [len(curve.y) for curve in figure.data]
        assert folds == [3] * 4 + [1]  # what was pruned has one fold
    else:
        assert '"a"' in text
        assert '"b"' in text


def test_the_study_of_a_loaded_search_is_drawn_too(mixed):
    pytest.importorskip("plotly")
    loaded = pickle.loads(pickle.dumps(mixed))
    draw = optuna.visualization.plot_intermediate_values

    assert draw(loaded.study_).to_json() == draw(mixed.study_).to_json()


# ---- messages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "inside"),
    [
        (optuna.logging.DEBUG, optuna.logging.ERROR),
        (optuna.logging.CRITICAL, optuna.logging.CRITICAL),
    ],
)
def test_optuna_says_no_more_than_the_user_lets_it(chosen, inside):
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(chosen)
    try:
        with _search_study.silent_optuna():
            assert optuna.logging.get_verbosity() == inside
        assert optuna.logging.get_verbosity() == chosen
    finally:
        optuna.logging.set_verbosity(before)
