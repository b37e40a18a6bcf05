"""How estimators, reports and histories look in a notebook and in a shell."""

import html
import pickle
import re
from dataclasses import fields, replace

import pandas as pd
import pytest
import sklearn
from _toy import make as make_classifier
from _toy import toy
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor
from sk_adalora.runtime.doc_links import DOCUMENTATION
from sk_adalora.training.loop import TrainingHistory
from sk_adalora.training.report import FitReport

X, Y = toy(24)


@pytest.fixture(scope="module", params=["classifier", "regressor"])
def estimator(request, tiny_model):
    """An unfitted estimator; do not fit it."""
    classifier = make_classifier(tiny_model, epochs=1)
    if request.param == "classifier":
        return classifier
    params = classifier.get_params()
    for name in ("class_weight", "calibrate", "thresholds"):
        del params[name]
    return AdaLoraRegressor(**params)


@pytest.fixture(scope="module")
def fitted(estimator):
    """A fitted estimator; do not refit it."""
    return sklearn.clone(estimator).fit(pd.DataFrame({"text": X}), Y)


def test_the_page_shows_parameters_and_fitted_attributes(estimator, fitted):
    unfitted, page = estimator_html_repr(estimator), estimator_html_repr(fitted)

    for parameter in estimator.get_params():
        assert parameter in unfitted
    for attribute in (name for name in vars(fitted) if name.endswith("_")):
        assert attribute in page
    assert "Not fitted" in unfitted
    assert "Fitted attributes" not in unfitted
    assert "Not fitted" not in page
    assert len(page) < 100_000
    assert "tensor(" not in page  # holds no weights
    assert "_adapter" not in page


def test_the_page_of_a_fit_with_the_own_head_of_the_model(estimator):
    """It has no vectors, whose names the page lists of others."""
    fitted = sklearn.clone(estimator).set_params(pooling="model").fit(X, Y)

    assert "Fitted attributes" in estimator_html_repr(fitted)


def test_looking_loads_and_changes_nothing(fitted):
    """A notebook draws an estimator at every mention."""
    moved = pickle.loads(pickle.dumps(fitted)).set_params(model="unused")
    before = dict(vars(moved))

    estimator_html_repr(GridSearchCV(make_pipeline(moved), {}))
    repr(moved)
    moved._repr_mimebundle_()
    with sklearn.config_context(display="text"):
        assert "text/html" not in moved._repr_mimebundle_()

    assert vars(moved) == before


def test_it_links_to_the_documentation(estimator):
    page = f"{DOCUMENTATION}/generated/sk_adalora.{type(estimator).__name__}.html"
    shown = estimator_html_repr(estimator)

    assert f'href="{page}"' in shown
    for parameter in estimator.get_params():
        assert f'href="{page}#:~:text={parameter},-' in shown


def test_a_class_of_the_users_links_nowhere():
    class Mine(AdaLoraClassifier):
        """Not a class of the package."""

    assert Mine()._get_doc_link() == ""


def test_texts_in_parameters_are_escaped(estimator):
    odd = sklearn.clone(estimator).set_params(row_format="<b>{text}</b>")
    page = estimator_html_repr(odd)

    assert "<b>{text}" not in page
    assert html.escape("'<b>{text}</b>'") in page


def test_the_repr_shows_what_was_changed(estimator):
    shown = repr(estimator)

    assert shown.startswith(f"{type(estimator).__name__}(")
    assert "target_r=2" in shown
    assert "tinit" not in shown
    assert repr(AdaLoraClassifier()) == "AdaLoraClassifier()"
    assert repr(AdaLoraRegressor(target_r=4)) == "AdaLoraRegressor(target_r=4)"


# Report and history


def test_a_history_has_a_number_for_each_step(fitted):
    history, steps = fitted.history_, fitted.total_step_
    numbers = (
        *(history.loss, history.orthogonality),
        *(history.learning_rate, history.budget),
    )

    assert [len(each) for each in numbers] == [steps] * 4
    assert history.budget[-1] == sum(fitted.ranks_.values())
    assert history.score == []
    shown = r"TrainingHistory\(steps=2, epochs=1, loss=[\d.]+, seconds=[\d.]+\)"
    assert re.fullmatch(shown, repr(history))
    assert repr(TrainingHistory()) == "TrainingHistory(steps=0, epochs=0, seconds=0.0)"


def test_the_report_is_a_small_table(fitted):
    report = replace(
        fitted.fit_report_,
        n_rows=1_234,
        trainable_parameters=1_234_567,
        truncated_share=0.12345,
        seconds=12.3456,
    )
    lines = str(report).splitlines()
    cells = dict(line.split() for line in lines)

    names = [field.name for field in fields(FitReport)]
    assert list(cells) == [n for n in names if n != "calibration"] + ["text"]
    assert len({len(line) for line in lines}) == 1  # numbers stand below each other
    assert len(lines[0]) <= 40
    assert cells["n_rows"] == "1,234"
    assert cells["trainable_parameters"] == "1,234,567"
    assert cells["truncated_share"] == "0.123"
    assert cells["seconds"] == "12.3"
    for seconds, shown in ((999.4, "999"), (999.96, "1,000"), (1234.4, "1,234")):
        assert f"{'seconds':<21}{shown:>12}" in str(replace(report, seconds=seconds))
