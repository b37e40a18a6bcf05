"""OptunaPruning: scores of epochs go to a trial, and a poor trial ends."""

import functools
import math
import pickle
import warnings
from types import SimpleNamespace

import joblib
import numpy as np
import optuna
import pandas as pd
import pytest
from _toy import attributes, same_attributes, topics
from _toy import make as make_classifier
from optuna.trial import FixedTrial, TrialState
from scipy import sparse
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_adalora import AdaLoraRegressor, OptunaPruning
from sk_adalora.training.epochs import EpochCallbacks

pytestmark = pytest.mark.usefixtures("quiet_optuna")

X, Y = topics(36)
X_VAL, Y_VAL = topics(24, seed=1)


@pytest.fixture(scope="module")
def make(tiny_model):
    """Function: changed parameters -> a classifier of 12 steps, 3 an epoch."""
    return functools.partial(make_classifier, tiny_model, epochs=4)


def new_study(**options):
    return optuna.create_study(direction="maximize", **options)


def watch(trial, **options):
    return OptunaPruning(trial, **{"X_val": X_VAL, "y_val": Y_VAL, **options})


class Always(optuna.pruners.BasePruner):
    """Prunes whatever was reported, from a step on."""

    def __init__(self, first=0):
        self.first = first

    def prune(self, study, trial):
        return trial.last_step is not None and trial.last_step >= self.first


class Scores:
    """A scorer that tells given scores, one after the other."""

    def __init__(self, *scores):
        self.left = list(scores)

    def __call__(self, estimator, X, y):
        return self.left.pop(0)


def nullable(y):
    """An indicator matrix in pandas' nullable integers."""
    return pd.DataFrame(y).astype("Int64")


def reported(trial):
    return trial.study.get_trials()[trial.number].intermediate_values


# ---- what is reported -------------------------------------------------------


def test_the_scores_are_those_of_the_held_out_rows(make):
    trial = new_study(pruner=optuna.pruners.NopPruner()).ask()
    fitted = make().set_callbacks(watch(trial, phase="any")).fit(X, Y)
    scores = reported(trial)

    assert list(scores) == [0, 1, 2, 3]
    assert scores[3] == fitted.score(X_VAL, Y_VAL)
    own = make(early_stopping=True, n_iter_no_change=9).fit(
        X, Y, X_val=X_VAL, y_val=Y_VAL
    )
    assert list(scores.values()) == own.history_.score


@pytest.mark.parametrize(
    ("tinit", "tfinal", "first"),
    [
        (0.1, 0.65, 1),  # the last allocation is at step 5, in the second epoch
        (0.1, 0.5, 2),  # at step 6, the first of the third epoch
        (0.1, 0.55, 2),
        (0.1, 0.1, 3),
        (0.1, 0.0, 3),
        (0, 9, 1),
        (0, 10, 0),
    ],
)
def test_no_report_before_the_ranks_are_final(make, monkeypatch, tinit, tfinal, first):
    final = []
    end = EpochCallbacks.end

    def noting(hooks, run, history):
        final.append(run.allocator.finished)
        return end(hooks, run, history)

    monkeypatch.setattr(EpochCallbacks, "end", noting)
    trial = new_study(pruner=optuna.pruners.NopPruner()).ask()
    make(tinit=tinit, tfinal=tfinal).set_callbacks(watch(trial)).fit(X, Y)

    assert list(reported(trial)) == np.flatnonzero(final).tolist() == [*range(first, 4)]


def test_a_score_of_choice(make):
    trial = new_study().ask()
    watcher = watch(trial, scoring="neg_log_loss")
    make().set_callbacks(watcher).fit(X, Y)

    scores = [*reported(trial).values()]
    assert scores
    assert max(scores) < 0


@pytest.mark.parametrize("form", [sparse.csr_array, nullable])
@pytest.mark.parametrize("scoring", ["roc_auc", "average_precision", "f1_micro"])
def test_indicators_may_be_sparse_or_nullable(make, form, scoring):
    y = np.eye(3, dtype=int)[np.arange(len(X)) % 3]
    y_val = np.eye(3, dtype=int)[np.arange(len(X_VAL)) % 3]
    scores = []
    for told in (form(y_val), y_val):
        trial = new_study().ask()
        watcher = watch(trial, y_val=told, scoring=scoring, phase="any")
        make(epochs=1).set_callbacks(watcher).fit(X, y)
        scores.append(reported(trial))

    assert scores[0] == scores[1]
    assert len(scores[0]) == 1


def test_wrong_validation_targets_are_named(make):
    y = np.eye(3, dtype=int)[np.arange(len(X)) % 3]
    watcher = watch(new_study().ask(), y_val=-1 * y[: len(X_VAL)], phase="any")

    with pytest.raises(ValueError, match="`y_val` as an indicator matrix"):
        make(epochs=1).set_callbacks(watcher).fit(X, y)


def test_several_scores_are_refused(make):
    watcher = watch(new_study().ask(), scoring=lambda fitted, X, y: {"accuracy": 1.0})

    with pytest.raises(
        TypeError, match=r"`scoring` must return one number.*'accuracy': 1"
    ):
        make().set_callbacks(watcher).fit(X, Y)


def test_a_regressor_reports_its_score(make):
    params = make().get_params()
    for name in ("class_weight", "calibrate", "thresholds"):
        del params[name]
    trial = new_study(pruner=optuna.pruners.NopPruner()).ask()
    watcher = OptunaPruning(trial, X_val=X, y_val=np.arange(36.0))
    fitted = AdaLoraRegressor(**params).set_callbacks(watcher).fit(X, np.arange(36.0))

    assert reported(trial)[3] == pytest.approx(fitted.score(X, np.arange(36.0)))


def test_watching_does_not_change_what_is_learned(make):
    watched = make(lora_dropout=0.1).set_callbacks(
        watch(new_study().ask(), phase="any")
    )
    alone = make(lora_dropout=0.1).fit(X, Y)

    np.testing.assert_array_equal(
        watched.fit(X, Y).predict_proba(X), alone.predict_proba(X)
    )


def test_a_fixed_trial_is_never_pruned(make):
    """So an objective can be called by hand."""
    watcher = watch(FixedTrial({}), phase="any")

    assert make().set_callbacks(watcher).fit(X, Y).n_iter_ == 4


# ---- what is pruned ---------------------------------------------------------


def test_a_pruned_fit_leaves_the_estimator_as_it_was(make):
    estimator = make().set_callbacks(watch(new_study(pruner=Always()).ask()))
    before = attributes(estimator)
    with pytest.raises(optuna.TrialPruned, match=r"after epoch 2, with a score of \d"):
        estimator.fit(X, Y)

    assert same_attributes(estimator, before)


@pytest.mark.parametrize("phase", ["final", "any"])
def test_nan_ends_a_trial_at_any_time(make, phase):
    study = new_study(pruner=optuna.pruners.NopPruner())
    trial = study.ask()
    watcher = watch(trial, phase=phase, scoring=Scores(0.5, math.nan))
    with pytest.raises(optuna.TrialPruned, match="score of epoch 1 is NaN"):
        make().set_callbacks(watcher).fit(X, Y)

    assert not any(map(math.isnan, reported(trial).values()))
    study.tell(trial, state=TrialState.PRUNED)


def test_a_threshold_ends_a_trial_at_any_time(make):
    trial = new_study(pruner=optuna.pruners.NopPruner()).ask()
    scores = Scores(0.4, 0.4, 0.39)
    with pytest.raises(
        optuna.TrialPruned, match=r"epoch 2 is 0\.39, below the threshold of 0\.4"
    ):
        make().set_callbacks(watch(trial, threshold=0.4, scoring=scores)).fit(X, Y)

    assert reported(trial) == {}


def test_a_study_with_the_median_pruner(make):
    """Good trials run to the end, poor ones are pruned when their ranks are final."""
    scores = {0: [0, 0, 0.8, 0.9], 1: [0, 0, 0.7, 0.8], 2: [0.9, 0.9, 0.1, 0.1]}

    def objective(trial):
        watcher = watch(trial, scoring=Scores(*scores[trial.number]))
        return make().set_callbacks(watcher).fit(X, Y).score(X_VAL, Y_VAL)

    study = new_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=2))
    study.optimize(objective, n_trials=3)

    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED]
    assert study.trials[2].intermediate_values == {2: 0.1}
    assert study.trials[1].intermediate_values == {2: 0.7, 3: 0.8}
    assert study.best_trial.number in (0, 1)


def test_a_study_in_a_database(make, tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"

    def objective(trial):
        watcher = watch(trial, scoring=Scores(0.5, 0.5, 0.5, 0.5))
        return make().set_callbacks(watcher).fit(X, Y).score(X_VAL, Y_VAL)

    study = new_study(storage=storage, study_name="s", pruner=Always(3))
    study.optimize(objective, n_trials=2)
    loaded = optuna.load_study(study_name="s", storage=storage)

    assert [t.state for t in loaded.trials] == [TrialState.PRUNED] * 2
    assert [t.intermediate_values for t in loaded.trials] == [{2: 0.5, 3: 0.5}] * 2


# ---- inside of other things -------------------------------------------------


def same(texts):
    return texts


def test_the_last_step_of_a_pipeline_is_pruned(make):
    """On the last step, with rows as that step gets them."""
    trial = new_study(pruner=Always()).ask()
    pipeline = make_pipeline(FunctionTransformer(same), make())
    pipeline[-1].set_callbacks(watch(trial))
    with pytest.raises(optuna.TrialPruned):
        pipeline.fit(X, Y)

    assert list(reported(trial)) == [2]


def test_cross_validation_continues_the_steps(make):
    trial = new_study(pruner=optuna.pruners.NopPruner()).ask()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna's, about steps that were reported
        scores = cross_val_score(
            make().set_callbacks(watch(trial)), X, Y, cv=2, error_score="raise"
        )

    assert len(scores) == 2
    assert list(reported(trial)) == [2, 3, 6, 7]


def test_cross_validation_lets_pruning_through_only_if_errors_are_raised(make):
    estimator = make().set_callbacks(watch(new_study(pruner=Always()).ask()))
    with pytest.raises(optuna.TrialPruned):
        cross_val_score(estimator, X, Y, cv=2, error_score="raise")

    estimator.set_callbacks(watch(new_study(pruner=Always(6)).ask()))
    with pytest.warns(FitFailedWarning):
        scores = cross_val_score(estimator, X, Y, cv=2)
    assert np.isnan(scores).tolist() == [False, True]  # what the docstring warns of


def test_a_fitted_estimator_is_saved_without_it(make, tmp_path):
    fitted = make().set_callbacks(watch(new_study().ask())).fit(X, Y)
    joblib.dump(fitted, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib")

    assert not hasattr(again, "_skl_callbacks")
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))


@pytest.mark.parametrize("database", [False, True])
def test_it_does_not_go_to_other_processes(make, tmp_path, database):
    storage = f"sqlite:///{tmp_path / 'study.db'}" if database else None
    watcher = watch(new_study(storage=storage).ask())
    estimator = make().set_callbacks(watcher)

    with pytest.raises(TypeError, match=r"trial of this process.*n_jobs=None"):
        pickle.dumps(estimator)
    with pytest.raises(pickle.PicklingError, match="Could not pickle") as raised:
        cross_val_score(estimator, X, Y, cv=2, n_jobs=2, error_score="raise")
    assert "trial of this process" in str(raised.value.__cause__)


# ---- errors -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"phase": "last"}, ValueError, "`phase` must be 'final' or 'any'. Got 'last'"),
        ({"threshold": math.nan}, ValueError, "`threshold` must be a finite number"),
        ({"threshold": math.inf}, ValueError, "`threshold` must be a finite number"),
        ({"threshold": "0.5"}, ValueError, "`threshold` must be a finite number"),
    ],
)
def test_what_a_parameter_must_be(options, error, message):
    with pytest.raises(error, match=message):
        watch(new_study().ask(), **options)


@pytest.mark.parametrize("given", [3, SimpleNamespace(report=print)])
def test_the_trial_must_be_one(given):
    with pytest.raises(TypeError, match=r"`trial` must be a trial of Optuna's\. Got "):
        watch(given)


@pytest.mark.parametrize(
    ("directions", "words"),
    [(["minimize"], "minimize"), (["maximize", "minimize"], "maximize, minimize")],
)
def test_the_study_must_maximize(directions, words):
    trial = optuna.create_study(directions=directions).ask()
    with pytest.raises(ValueError, match=f"directions: {words}. Make it with"):
        watch(trial)


def test_other_estimators_have_other_epochs():
    estimator = LogisticRegression().set_callbacks(watch(new_study().ask()))
    with pytest.raises(TypeError, match=r"Got LogisticRegression.*In a pipeline"):
        estimator.fit(np.eye(2), [0, 1])
