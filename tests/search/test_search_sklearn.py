"""A search among scikit-learn's tools: scores, routing, workers, pictures."""

import pickle
import re
import threading

import datasets
import joblib
import numpy as np
import optuna
import pandas as pd
import pyarrow as pa
import pytest
from _search_worker import FLOAT, Peak, rows, search, two_scores, values
from _toy import global_states, make, toy
from optuna.trial import TrialState
from packaging.version import Version
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    cross_val_score,
    cross_validate,
)
from sklearn.utils import get_tags

from sk_adalora import (
    AdaLoraClassifier,
    AdaLoraRegressor,
    AdaLoraSearchCV,
    AdaLoraSpace,
)

X, Y = rows()


# ---- scikit-learn --------------------------------------------------------------


@pytest.mark.parametrize("pruner", [None, "auto"])
def test_several_scores(pruner):
    fitted = search(
        scoring={"low": make_scorer(f1_score), "acc": "accuracy"},
        refit="acc",
        pruner=pruner,
    ).fit(X, Y)

    assert fitted.multimetric_
    assert fitted.study_.best_value == fitted.best_score_
    assert {
        "mean_test_low",
        "mean_test_acc",
        "rank_test_acc",
    } <= fitted.cv_results_.keys()


def test_the_search_maximises_the_score_that_refit_names():
    by_high = search(n_trials=15, scoring=two_scores, refit="high").fit(X, Y)
    by_low = search(n_trials=15, scoring=two_scores, refit="low").fit(X, Y)

    assert by_high.best_params_["a"] == pytest.approx(0.3, abs=0.2)
    assert by_low.best_params_["a"] == pytest.approx(1.0, abs=0.2)


def test_refit_must_name_one_of_the_scores_of_a_callable():
    with pytest.raises(ValueError, match="refit must be set to a scorer key"):
        search(scoring=two_scores).fit(X, Y)


def test_several_scores_of_a_fit_that_fails():
    points = [{"a": 0.9, "b": 0.7}, {"a": 0.2, "b": 0.7}]
    given = search(
        Peak(fail_above=0.5),
        n_trials=2,
        enqueue=points,
        scoring=two_scores,
        refit="high",
        pruner="auto",
    )
    with pytest.warns(FitFailedWarning, match="1 of 2"):
        fitted = given.fit(X, Y)

    assert fitted.cv_results_["mean_test_low"].tolist()[0] != 0
    assert np.isnan(fitted.cv_results_["mean_test_low"][0])


@pytest.mark.parametrize("refit", ["high", False])
def test_several_scores_of_a_scorer_that_fails_first(refit):
    def scores(estimator, X, y):
        if estimator.a > 0.5:
            raise ZeroDivisionError
        return two_scores(estimator, X, y)

    points = [{"a": 0.9, "b": 0.7}, {"a": 0.2, "b": 0.7}]
    given = search(n_trials=2, enqueue=points, scoring=scores, refit=refit)
    with pytest.warns(UserWarning, match="Scoring failed"):
        fitted = given.fit(X, Y)

    assert fitted.multimetric_
    assert fitted.cv_results_["state"].tolist() == ["failed", "complete"]
    if refit:
        assert fitted.best_params_ == points[1]


def test_a_search_without_refit_has_no_predict():
    fitted = search(refit=False).fit(X, Y)

    assert fitted.best_params_
    assert not hasattr(fitted, "predict")


def test_a_search_keeps_nothing_of_an_earlier_fit():
    again = search().fit(pd.DataFrame(X, columns=["row"]), Y)
    other = {"refit": False, "scoring": ["accuracy", "f1"]}
    again.set_params(**other).fit(X, Y)

    fresh = search(**other).fit(X, Y)
    assert vars(again).keys() == vars(fresh).keys()


def test_a_search_keeps_what_a_subclass_has():
    class Counts(AdaLoraSearchCV):
        def fit(self, X, y):
            self.n_rows_ = len(X)
            return super().fit(X, y)

    assert Counts(Peak(), {"a": FLOAT(0, 1)}, n_trials=1).fit(X, Y).n_rows_ == len(X)


def test_a_search_that_fails_keeps_the_earlier_fit():
    again = search().fit(X, Y)
    before = dict(vars(again))
    with pytest.raises(ValueError, match="inconsistent numbers"):
        again.fit(X, Y[1:])
    assert vars(again) == before

    before = dict(vars(again.set_params(refit=lambda table: 99)))
    with pytest.raises(IndexError):  # when all is evaluated
        again.fit(X, Y)
    assert vars(again) == before


def test_the_search_is_of_the_kind_of_its_estimator():
    assert is_classifier(AdaLoraSearchCV(AdaLoraClassifier()))
    assert is_regressor(AdaLoraSearchCV(AdaLoraRegressor()))
    assert get_tags(AdaLoraSearchCV(AdaLoraClassifier())).estimator_type == "classifier"


def test_clone_and_parameters_of_parts():
    given = search(storage=optuna.storages.InMemoryStorage())
    copied = clone(given).set_params(estimator__a=0.9, n_trials=2)

    assert copied.estimator.a == 0.9
    assert copied.n_trials == 2
    assert given.estimator.a == 0.5
    copied.fit(X, Y)


@pytest.mark.parametrize(
    ("container", "message"),
    [
        (
            lambda X: datasets.Dataset.from_dict({"a": X}),
            "Dataset. Pass X.to_pandas().",
        ),
        (
            lambda X: pa.RecordBatch.from_pydict({"a": X}),
            "RecordBatch. Pass X.to_pandas().",
        ),
        pytest.param(
            pd.Index,
            "Index. Pass list(X).",
            marks=pytest.mark.skipif(
                Version(pd.__version__) < Version("3"),
                reason="scikit-learn takes folds out of an Index of pandas 2",
            ),
        ),
    ],
)
def test_rows_that_have_no_folds_are_refused_first(tmp_path, container, message):
    study = {"storage": tmp_path / "journal.log", "study_name": "s"}
    given = search(n_trials=1, **study)

    match = re.escape(f"scikit-learn can split into folds. Got {message}")
    with pytest.raises(TypeError, match=match):
        given.fit(container([str(number) for number in X.ravel()]), Y)
    assert not study["storage"].exists()


def test_the_name_of_a_column_is_no_target():
    with pytest.raises(ValueError, match=r"names a column, pass X\['label'\]"):
        search(n_trials=1).fit(pd.DataFrame({"label": Y}), "label")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_jobs": 0}, "`n_jobs` of AdaLoraSearchCV must be an int other than 0"),
        ({"enqueue": {"aa": 0.1}}, "must name parameters that are searched"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(tmp_path, options, message):
    given = search(storage=tmp_path / "journal.log", study_name="s", **options)

    with pytest.raises(ValueError, match=message):
        given.fit(X, Y)
    assert list(tmp_path.iterdir()) == []


def test_a_generator_of_folds_serves_one_fit():
    given = search(n_trials=1, cv=KFold(4).split(X)).fit(X, Y)

    assert given.n_splits_ == 4
    for empty in (given.cv, []):
        match = r"`cv` must give at least one fold\. Got .*, which gives none\. Pass a"
        with pytest.raises(ValueError, match=match):
            given.set_params(cv=empty).fit(X, Y)


def test_metadata_is_routed(enable_metadata_routing):
    estimator = Peak().set_fit_request(sample_weight=True)
    estimator.set_score_request(sample_weight=False)
    cv = GroupKFold(4).set_split_request(groups=True)
    weight = np.full(len(X), 2.0)

    fitted = search(estimator, n_trials=1, cv=cv).fit(
        X, Y, sample_weight=weight, groups=np.repeat(np.arange(4), 10)
    )

    assert fitted.best_estimator_.weight_ == 2.0 * len(X)
    assert fitted.n_splits_ == 4


@pytest.fixture
def enable_metadata_routing():
    import sklearn

    with sklearn.config_context(enable_metadata_routing=True):
        yield


def test_callbacks_of_scikit_learn_see_the_fits(tiny_model):
    texts, labels = toy(24)
    estimator = make(tiny_model, epochs=3)
    space = AdaLoraSpace(init_r=4, target_r=0.5, tinit=0.1, tfinal=0.5, beta1=None)
    kept = {"storage": optuna.storages.InMemoryStorage(), "study_name": "s"}
    given = AdaLoraSearchCV(estimator, space, n_trials=2, cv=2, pruner="auto", **kept)
    depths = []
    for n_fits in (2 * 2 + 1, 1):  # then, nothing is left but the refit
        monitor = ScoringMonitor(scoring="accuracy")
        estimator.set_callbacks(monitor)
        given.fit(texts, labels)

        log = monitor.get_logs().data_as_pandas
        epochs = log[log["task_name"] == "epoch"]
        assert len(epochs) == 3 * n_fits
        depths.append({*epochs["task_id_path"].map(len)})
    assert depths[1] <= depths[0]  # as deep below the search


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hush/hush@host/db",
        "postgresql://me:hu'sh-hush@host/db",
        "postgresql://me:hush@hush@host/db",
        "postgresql://me:hush hush@host/db",
        "postgresql://me:h@sh'hush-hush@host/db",
        "postgresql://me:h@sh hush@host/db",
        "postgresql://me@server:hush@host/db",  # SQLAlchemy takes both as the name
        "postgresql://host/db?user=me&password=hush",
        "postgresql://host/db?user=me&PASSWORD=hush",
        "mysql://host/db?user=me&passwd=hush",
        "postgresql://host/db?sslpassword=hush&user=me",
        "mssql+pyodbc:///?odbc_connect=SERVER%3Dhost%3BUID%3Dme%3BPWD%3Dhush",
    ],
)
def test_the_representation_hides_unusual_passwords(url):
    given = search(storage=url, study_name="team@home")
    for text in (repr(given), given._repr_html_()):
        assert "hush" not in text
        assert "host" in text
        assert "team@home" in text


def test_the_representation_shows_no_part_of_a_password():
    """scikit-learn leaves out the middle of what is long, perhaps with the "@"."""
    given = search(storage="mysql://me:xyzzy-plugh@db.example.com:3306/studies")
    for text in (given._repr_html_(), *map(given.__repr__, range(20, 200))):
        assert "xyz" not in text
        assert "ugh@" not in text


def test_callbacks_are_neither_sent_to_workers_nor_saved():
    lock = threading.Lock()
    seen = []

    def callback(study, trial):
        with lock:
            seen.append(trial.number)

    fitted = search(n_trials=2, n_jobs=2, callbacks=[callback]).fit(X, Y)
    loaded = pickle.loads(pickle.dumps(fitted))

    assert sorted(seen) == [0, 1]
    assert loaded.callbacks is None
    assert fitted.callbacks == [callback]
    assert loaded.best_params_ == fitted.best_params_


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_trials": 0}, "`n_trials` of AdaLoraSearchCV must be an int of at least 1"),
        ({"timeout": 0}, "`timeout` of AdaLoraSearchCV must be a number"),
        ({"sampler": "tpe"}, "`sampler` of AdaLoraSearchCV must be 'auto'"),
        ({"pruner": "median"}, "`pruner` of AdaLoraSearchCV must be 'auto'"),
        ({"enqueue": "best"}, "`enqueue` of AdaLoraSearchCV must be 'paper'"),
        ({"callbacks": print}, "`callbacks` of AdaLoraSearchCV must be a list"),
        ({"storage": 5}, "`storage` of .* the URL of a database or"),
        (
            {"callbacks": [ProgressBar()]},
            r"\(for scikit-learn's callbacks call `set_callbacks`\), or None\. Got",
        ),
    ],
)
def test_parameters_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        search(**options).fit(X, Y)


def test_a_fit_changes_nothing_but_its_own(monkeypatch):
    before = optuna.logging.get_verbosity(), global_states()
    sampler = optuna.samplers.TPESampler(seed=0)
    pickled = pickle.dumps(sampler)
    given = search(sampler=sampler, verbose=2)

    given.fit(X, Y)

    assert (optuna.logging.get_verbosity(), global_states()) == before
    assert pickle.dumps(sampler) == pickled
    assert given.verbose == 2
    assert given.sampler is sampler


def test_a_seed_makes_the_search_repeatable():
    first, second = (values(search(n_trials=12).fit(X, Y)) for _ in range(2))
    other = values(search(n_trials=12, random_state=1).fit(X, Y))

    assert first == second
    assert first != other


def test_without_a_seed_it_is_drawn_from_numpys_generator():
    """As everywhere in scikit-learn."""

    def drawn(seed):
        np.random.seed(seed)  # noqa: NPY002
        return values(search(n_trials=3, random_state=None).fit(X, Y))

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


def ask_for_b_and_a(trial):
    return {name: trial.suggest_float(name, 0, 1) for name in "ba"}


@pytest.mark.parametrize(
    "space", [{"b": FLOAT(0, 1), "a": FLOAT(0, 1)}, ask_for_b_and_a]
)
def test_random_draws_do_not_depend_on_the_number_of_jobs(space):
    """Before trials are over, the space is as declared, and later by name."""

    def drawn(n_jobs):
        options = {"n_trials": 6, "n_jobs": n_jobs, "refit": False}
        return {
            trial.number: trial.params
            for trial in search(space=space, **options).fit(X, Y).trials_
        }

    with joblib.parallel_config("threading"):
        assert drawn(1) == drawn(2) == drawn(3)


# ---- time, callbacks, bar ------------------------------------------------------


def test_time_runs_out_after_a_trial():
    fitted = search(Peak(seconds=0.05), n_trials=50, timeout=0.1).fit(X, Y)

    assert 1 <= len(fitted.trials_) < 5
    assert fitted.predict(X).shape == (len(X),)


def test_callbacks_see_each_trial_and_may_stop():
    seen = []

    def callback(study, trial):
        seen.append((trial.number, trial.state))
        if len(seen) == 3:
            study.stop()

    fitted = search(callbacks=[callback]).fit(X, Y)

    assert seen == [(k, TrialState.COMPLETE) for k in range(3)]
    assert len(fitted.trials_) == 3


def test_a_callback_may_stop_amid_what_is_no_combination():
    def space(trial):
        a = trial.suggest_float("a", 0, 1)
        if trial.number:
            raise optuna.TrialPruned
        return {"a": a}

    stop = optuna.study.MaxTrialsCallback(3, states=None)

    assert len(search(space=space, n_trials=9, callbacks=[stop]).fit(X, Y).trials_) == 3


def test_the_bar_counts_trials(capfd):
    fitted = search(verbose=1, n_trials=4).fit(X, Y)

    out, err = capfd.readouterr()
    assert "search: 100%" in err
    assert "4/4" in err
    assert f"best={fitted.best_score_:.4g}]" in err
    assert out == ""


# ---- parallel work -------------------------------------------------------------


@pytest.mark.parametrize("pruner", [None, "auto"])
def test_two_trials_at_a_time(pruner):
    fitted = search(n_trials=5, n_jobs=2, pruner=pruner).fit(X, Y)
    begun = [t.datetime_start for t in fitted.trials_]
    ended = [t.datetime_complete for t in fitted.trials_]

    assert len(fitted.trials_) == 5
    assert begun[1] < ended[0]
    assert begun[2] > ended[1]
    assert len(set(values(fitted))) == 5


def test_fits_run_on_a_cluster(tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs dask[distributed]")
    dask = pytest.importorskip("dask")

    with (
        dask.config.set(temporary_directory=str(tmp_path)),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        parallel = search(n_trials=4).fit(X, Y)

    assert len(parallel.trials_) == 4
    best = Peak(**parallel.best_params_)
    assert parallel.best_score_ == pytest.approx(
        cross_val_score(best, X, Y, cv=3).mean()
    )


def test_searches_nested_in_threads_leave_the_logger_as_it_was():
    before = optuna.logging.get_verbosity()
    with joblib.parallel_config("threading"):
        scores = cross_validate(search(n_trials=3), X, Y, cv=3, n_jobs=3)["test_score"]

    assert np.isfinite(scores).all()
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize("fail_above", [2.0, 0.0])
def test_an_error_of_a_callback_is_the_one_to_see(fail_above):
    def callback(study, trial):
        raise ValueError("enough of this")

    with pytest.raises(ValueError, match="enough of this"):
        search(Peak(fail_above=fail_above), callbacks=[callback]).fit(X, Y)


class Recorder:
    """A callback of scikit-learn's that notes the tasks of a search."""

    def __init__(self):
        self.seen = []
        self.data = []

    def setup(self, estimator, context):
        self.seen.append("setup")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None):
        self._note("begin", estimator, context, repr((X, y, metadata)))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None):
        self._note("end", estimator, context, repr((X, y, metadata)))

    def teardown(self, estimator, context):
        self.seen.append("teardown")

    def _note(self, what, estimator, context, data):
        if isinstance(estimator, AdaLoraSearchCV) and context.task_name in (
            "fit",
            "search",
            "refit-with-best-params",
        ):
            self.seen.append((what, context.task_name))
            self.data.append(data)


@pytest.mark.parametrize("weight", [None, np.arange(40.0)])
def test_callbacks_see_the_same_when_nothing_is_left_to_evaluate(tmp_path, weight):
    kept = {"storage": f"sqlite:///{tmp_path / 'study.db'}", "study_name": "s"}
    first, second = Recorder(), Recorder()
    weights = {} if weight is None else {"sample_weight": weight}
    search(**kept).set_callbacks(first).fit(X, Y, **weights)
    before = Peak.fits
    search(**kept).set_callbacks(second).fit(X, Y, **weights)

    assert Peak.fits == before + 1  # the refit
    begun, ended = (
        {name for what, name in first.seen[1:-1] if what == wanted}
        for wanted in ("begin", "end")
    )
    assert begun == ended == {"fit", "search", "refit-with-best-params"}
    assert second.seen == first.seen
    assert second.data == first.data
