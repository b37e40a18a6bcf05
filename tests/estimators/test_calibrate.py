"""Temperatures and thresholds, fitted to rows that the model has not learned from."""

import joblib
import numpy as np
import pytest
import torch
from _toy import QUICK, make, make_regressor, numbers, topics
from scipy.special import softmax
from sklearn.base import clone
from sklearn.metrics import f1_score, log_loss
from sklearn.model_selection import GridSearchCV

from sk_adalora import AdaLoraClassifier, AdaLoraEncoder
from sk_adalora.estimators.folds import even_folds

X, Y = topics(60)
X = np.array(X, object)
Y = Y.copy()
Y[np.random.default_rng(0).integers(0, 60, 15)] = "art"  # else nothing is doubtful
TAGS = np.random.default_rng(1).random((60, 3)) < 0.3
TAGS = np.column_stack([TAGS, np.zeros(60)]).astype(int)  # the last is never given
# The folds of random_state=0.
SEED = np.random.RandomState(0).randint(2**31 - 1)


@pytest.fixture(scope="module")
def calibrated(tiny_model):
    """Do not refit."""
    return make(tiny_model, calibrate="temperature").fit(X, Y)


@pytest.fixture(scope="module")
def tagger(tiny_model):
    """Do not refit."""
    return make(tiny_model, calibrate="temperature", thresholds="f1").fit(X, TAGS)


def outputs_out_of_fold(classifier, y, codes, sample_weight=None):
    plain = clone(classifier).set_params(calibrate=None, thresholds=None)
    found = np.empty((60, len(classifier.classes_)))
    for train, held in even_folds(3, codes, 60, SEED):
        weight = None if sample_weight is None else sample_weight[train]
        fold = plain.fit(X[train], y[train], sample_weight=weight)
        found[held] = fold.decision_function(X[held])
    return found


@pytest.mark.parametrize("weighted", [False, True])
def test_the_temperature_has_the_least_log_loss_out_of_fold(tiny_model, weighted):
    weight = np.linspace(0.5, 2, 60) if weighted else None
    classifier = make(tiny_model, calibrate="temperature").fit(X, Y, weight)
    codes = np.searchsorted(classifier.classes_, Y)
    outputs = outputs_out_of_fold(classifier, Y, codes, weight)

    def loss(heat):
        return log_loss(Y, softmax(outputs / heat, axis=1), sample_weight=weight)

    def softened(heat):
        logs = -np.log(softmax(outputs / heat, axis=1))
        return loss(heat) * 60 / 61 + np.average(logs.mean(1), weights=weight) / 61

    found = classifier.fit_report_.calibration
    heat = classifier.temperature_
    assert found["temperature"] == heat != 1
    assert found["log loss"] == pytest.approx(loss(1), rel=1e-4)
    assert found["calibrated log loss"] == pytest.approx(loss(heat), rel=1e-4)
    assert softened(heat) < min(softened(heat * 1.01), softened(heat / 1.01))


def test_the_rest_of_the_fit_stays(tiny_model, calibrated):
    plain = make(tiny_model).fit(X, Y)
    before, after = numbers(plain), numbers(calibrated)

    assert all((before[name] == after[name]).all() for name in before)
    assert (calibrated.predict(X) == plain.predict(X)).all()
    np.testing.assert_allclose(
        calibrated.decision_function(X) * calibrated.temperature_,
        plain.decision_function(X),
    )
    np.testing.assert_allclose(
        calibrated.predict_proba(X), softmax(calibrated.decision_function(X), axis=1)
    )
    assert not hasattr(plain, "temperature_")
    heat = calibrated.temperature_
    of_both = [each.explain(X[:1], target="art")[0] for each in (plain, calibrated)]
    chance = calibrated.predict_proba(X[:1])[0, 0]
    assert of_both[1].output == pytest.approx(np.log(chance / (1 - chance)), rel=1e-4)
    assert f"temperature {heat:>20.3g}"[:11] in str(calibrated.fit_report_)


def test_validation_rows_take_no_further_fit(tiny_model):
    classifier = make(tiny_model, calibrate="temperature", early_stopping=True)
    classifier.fit(X[:40], Y[:40], X_val=X[40:], y_val=Y[40:])
    outputs = classifier.decision_function(X[40:])

    found = classifier.fit_report_.calibration
    assert found["calibrated log loss"] == pytest.approx(
        log_loss(Y[40:], softmax(outputs, axis=1)), rel=1e-5
    )


def test_a_threshold_has_the_highest_f1_of_its_label(tagger):
    outputs = outputs_out_of_fold(tagger, TAGS, None)
    chances = 1 / (1 + np.exp(-outputs / tagger.temperature_))

    assert tagger.thresholds_.shape == (4,)
    assert tagger.thresholds_[3] == 0.5
    for label in range(3):
        yes, p = TAGS[:, label], chances[:, label]
        best = max(f1_score(yes, p >= level) for level in p)
        found = f1_score(yes, p >= tagger.thresholds_[label])
        assert found == pytest.approx(best)
    expected = tagger.predict_proba(X) >= tagger.thresholds_
    assert (tagger.predict(X) == expected).all()


@pytest.mark.parametrize("name", ["calibrated", "tagger"])
def test_what_is_saved_predicts_the_same(name, request, tmp_path):
    fitted = request.getfixturevalue(name)
    fitted.save_pretrained(tmp_path / "folder")
    joblib.dump(fitted, tmp_path / "file")
    for other in (
        AdaLoraClassifier.from_pretrained(tmp_path / "folder"),
        joblib.load(tmp_path / "file"),
    ):
        assert other.temperature_ == fitted.temperature_
        assert (other.predict_proba(X) == fitted.predict_proba(X)).all()
        assert (other.predict(X) == fitted.predict(X)).all()
        assert other.fit_report_ == fitted.fit_report_


def test_a_refit_fits_it_anew(tiny_model):
    classifier = make(tiny_model, calibrate="temperature", warm_start=True)
    first = classifier.fit(X, Y).temperature_
    again = classifier.fit(X, Y)
    assert again.temperature_ == first  # folds start at the pretrained model
    again.set_params(calibrate=None).fit(X, Y)
    assert not hasattr(again, "temperature_")
    assert again.fit_report_.calibration == {}


def test_a_killed_fit_goes_on(tiny_model, tmp_path, monkeypatch, calibrated):
    from sk_adalora.estimators import calibration

    classifier = make(tiny_model, calibrate="temperature", checkpoint_dir=tmp_path)
    real = calibration.train_on

    def stop(estimator, inputs, rows, name):
        if name == "fold-1":
            raise KeyboardInterrupt
        return real(estimator, inputs, rows, name)

    monkeypatch.setattr(calibration, "train_on", stop)
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(X, Y)
    assert not hasattr(classifier, "classes_")
    assert len([*tmp_path.iterdir()]) == 2
    monkeypatch.undo()
    assert classifier.fit(X, Y).temperature_ == calibrated.temperature_


@pytest.mark.parametrize(
    "changed",
    [{"max_steps": 3}, {"timeout": 3.0}, {"pooling": "model"}, {"max_length": 4}],
)
def test_it_goes_with_other_parameters(tiny_model, changed):
    long = {"long_text": "windows"} if "max_length" in changed else {}
    classifier = make(tiny_model, calibrate="temperature", **changed, **long)
    assert 0 < classifier.fit(X, Y).temperature_ < np.inf


def test_a_search_compares_it(tiny_model):
    grid = {"calibrate": [None, "temperature"]}
    search = GridSearchCV(make(tiny_model), grid, cv=2, scoring="neg_log_loss")
    search.fit(X, Y)
    assert len(np.unique(search.cv_results_["mean_test_score"])) == 2


def test_what_cannot_be_is_refused(tiny_model):
    with pytest.raises(ValueError, match=r"`thresholds` needs.*TunedThreshold"):
        make(tiny_model, thresholds="f1").fit(X, Y)
    with pytest.raises(ValueError, match=r"`calibrate` of .* must be.*Got 'isotonic'"):
        make(tiny_model, calibrate="isotonic").fit(X, Y)
    with pytest.raises(ValueError, match="at least 3 rows"):
        make(tiny_model, calibrate="temperature").fit(X[:2], ["a", "b"])
    assert "calibrate" not in make_regressor(tiny_model).get_params()
    assert "calibrate" not in AdaLoraEncoder(tiny_model).get_params()


def test_rows_without_doubt_leave_some(tiny_model):
    """Twenty rows that are right prove no more than about 1 wrong in 20."""
    from sk_adalora.data.targets import Classes
    from sk_adalora.estimators.calibration import HeldOut, best_temperature

    codes = torch.arange(20) % 2
    held = HeldOut(np.eye(2, dtype=np.float32)[codes.numpy()], codes, None)
    heat = best_temperature(Classes(np.array(["a", "b"])), held)
    sure = softmax(held.outputs / heat, axis=1).max()
    assert sure == pytest.approx(1 - 0.5 / 21, rel=1e-4)
    assert QUICK["random_state"] == 0
