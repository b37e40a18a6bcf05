"""Searches that are pickled, and those that come from a study."""

import pickle

import numpy as np
import optuna
import pytest
from _search_worker import SPACE, Peak, rows, search, values

from sk_adalora import AdaLoraSearchCV

X, Y = rows()


# ---- pickles -------------------------------------------------------------------


def test_a_pickle_holds_the_study_and_no_storage(tmp_path):
    folder = tmp_path / "hush-hush"
    folder.mkdir()
    options = {"storage": f"sqlite:///{folder / 'study.db'}", "study_name": "s"}
    fitted = search(**options).fit(X, Y)

    pickled = pickle.dumps(fitted)
    loaded = pickle.loads(pickled)

    assert b"hush-hush" not in pickled
    assert len(pickled) < 50_000
    assert loaded.storage is None
    assert loaded.study_.best_value == fitted.study_.best_value
    assert loaded.study_.study_name == "s"
    assert [t.number for t in loaded.study_.trials] == list(range(6))
    assert loaded.predict(X).tolist() == fitted.predict(X).tolist()
    assert fitted.storage == options["storage"]


def test_an_unfitted_search_keeps_its_storage_for_workers():
    given = search(storage="sqlite:///some.db")

    assert pickle.loads(pickle.dumps(given)).storage == "sqlite:///some.db"


def test_a_trial_that_was_queued_out_of_range_comes_along():
    """Optuna warns of it, and takes it."""

    def queue(study, trial):
        if trial.number == 0:
            study.enqueue_trial({"a": 1.5})

    with pytest.warns(UserWarning, match=r"value 1\.5 is out of range"):
        fitted = search(n_trials=3, callbacks=[queue]).fit(X, Y)
    loaded = pickle.loads(pickle.dumps(fitted))
    again = AdaLoraSearchCV.from_study(fitted.study_, Peak(), X, Y, space=SPACE, cv=3)

    assert values(fitted)[1] == 1.5
    for copied in (loaded, again):
        assert [t.params for t in copied.study_.trials] == [
            t.params for t in fitted.trials_
        ]


# ---- from a study --------------------------------------------------------------


def test_the_best_trial_of_workers_is_refitted_by_name(kept):
    worker = search(refit=False, **kept).fit(X, Y)
    before = Peak.fits

    fitted = AdaLoraSearchCV.from_study(
        "s", Peak(), X, Y, space=SPACE, storage=kept["storage"], cv=3
    )

    assert Peak.fits == before + 1
    assert fitted.best_params_ == worker.best_params_
    assert fitted.best_estimator_.a == worker.best_params_["a"]
    np.testing.assert_array_equal(
        fitted.cv_results_["split2_test_score"],
        worker.cv_results_["split2_test_score"],
    )


def test_workers_of_several_scores_leave_the_refit_to_another(kept):
    scores = {"scoring": ["accuracy", "f1"], "n_trials": 2}
    search(refit=False, **scores, **kept).fit(X, Y)
    fitted = AdaLoraSearchCV.from_study(
        "s",
        Peak(),
        X,
        Y,
        space={**SPACE},
        storage=kept["storage"],
        cv=3,
        scoring=["accuracy", "f1"],
        refit="accuracy",
    )
    assert fitted.best_score_ == fitted.cv_results_["mean_test_accuracy"].max()
    with pytest.raises(ValueError, match="or the metric that `refit` names"):
        search(refit="f1", **scores, **kept).fit(X, Y)


def test_a_study_of_other_data_is_not_refitted(kept):
    search(refit=False, **kept).fit(X, Y)

    with pytest.raises(ValueError, match="Got other values of: the rows"):
        AdaLoraSearchCV.from_study(
            "s", Peak(), X + 1, Y, space=SPACE, storage=kept["storage"], cv=3
        )


def test_an_unknown_study_is_named(kept):
    search(n_trials=1, **kept).fit(X, Y)

    with pytest.raises(ValueError, match=r"Got 't', and the storage has \['s'\]"):
        AdaLoraSearchCV.from_study(
            "t", Peak(), X, Y, space=SPACE, storage=kept["storage"]
        )


def test_a_study_that_is_nowhere_needs_a_storage():
    with pytest.raises(ValueError, match=r"has \[\]\. Pass the `storage` that has it"):
        AdaLoraSearchCV.from_study("s", Peak(), X, Y, space=SPACE)


@pytest.mark.parametrize("study", [search(), [], None])
def test_what_is_no_study_is_called_so(study):
    with pytest.raises(TypeError, match=r"`study` must be .* Got .*Pass `study_` of a"):
        AdaLoraSearchCV.from_study(study, Peak(), X, Y, space=SPACE)


def test_a_study_that_minimises_is_not_refitted():
    with pytest.raises(ValueError, match=r"greater scores are better.*\['minimize'\]"):
        AdaLoraSearchCV.from_study(optuna.create_study(), Peak(), X, Y, space=SPACE)


def test_a_study_that_no_search_began_is_not_refitted(kept):
    study = optuna.create_study(**kept, direction="maximize")
    match = "one that AdaLoraSearchCV began.* set on the estimator what `suggest_params"
    for n_trials in (0, 1):  # with and without trials of another program
        study.optimize(lambda trial: trial.suggest_float("a", 0, 1), n_trials)
        for given, storage in ((study, None), ("s", kept["storage"])):
            with pytest.raises(ValueError, match=match):
                AdaLoraSearchCV.from_study(
                    given, Peak(), X, Y, space=SPACE, storage=storage
                )

    assert optuna.load_study(**kept).user_attrs == {}
