"""How estimators, reports and histories look in a notebook and in a shell."""

import html
import re
from dataclasses import fields, replace
from html.parser import HTMLParser

import pandas as pd
import pytest
import sklearn
from _toy import make as make_classifier
from _toy import toy
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_html_repr

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor
from sk_adalora.runtime.doc_links import DOCUMENTATION, DocLinkMixin
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
    del params["class_weight"]
    return AdaLoraRegressor(**params)


@pytest.fixture(scope="module")
def fitted(estimator):
    """A fitted estimator; do not refit it."""
    return sklearn.clone(estimator).fit(pd.DataFrame({"text": X}), Y)


@pytest.fixture
def no_links(monkeypatch):
    """Tables hold names alone, without links and the tooltips that come with them."""
    monkeypatch.setattr(DocLinkMixin, "_doc_link_template", "")


class Reader(HTMLParser):
    """Check that tags close, and collect the rows of tables by their heading."""

    VOID = frozenset({"input", "br", "img", "meta", "link", "hr"})

    def __init__(self, page):
        super().__init__()
        self.open, self.tables, self.heading = [], {}, None
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.tables.setdefault(self.heading, []).append([])
        if tag in ("td", "th"):
            self.tables[self.heading][-1].append("")

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "summary":
            self.heading = data.strip()
        elif {"td", "th"} & set(self.open):
            self.tables[self.heading][-1][-1] += data.strip()


def test_an_unfitted_estimator_has_a_table_of_parameters(estimator, no_links):
    page = estimator_html_repr(estimator)
    tables = Reader(page).tables
    shown = {row[1]: row[2] for row in tables["Parameters"]}

    assert shown.keys() == estimator.get_params().keys()
    assert shown["target_r"] == "2"
    assert shown["deltaT"] == "'auto'"
    assert "Not fitted" in page
    assert "Fitted attributes" not in tables


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


def test_changed_parameters_stand_out(estimator, no_links):
    page = estimator_html_repr(estimator)
    marked = re.findall(
        r'<tr class="user-set">.*?<td class="param">(\w+)', page, re.DOTALL
    )

    assert {"epochs", "target_r", "batch_size", "random_state"} <= set(marked)
    assert "tinit" not in marked


def test_a_fitted_estimator_has_a_table_of_its_attributes(fitted, no_links):
    page = estimator_html_repr(fitted)
    tables = Reader(page).tables
    rows = tables["Fitted attributes"]
    shown = {row[0]: row[1:] for row in rows[1:]}
    public = {name for name in vars(fitted) if name.endswith("_")}

    assert rows[0] == ["Name", "Type", "Value"]
    assert shown.keys() == public
    assert shown["n_iter_"] == ["int", "1"]
    assert shown["ranks_"][0] == "dict"
    assert shown["fit_report_"][0] == "FitReport"
    assert shown["history_"][1].startswith("TrainingHisto")  # cut short by sklearn
    assert "Not fitted" not in page


def test_the_page_is_small_and_holds_no_weights(fitted):
    page = estimator_html_repr(fitted)

    assert len(page) < 100_000
    assert "tensor(" not in page
    assert "_adapter" not in page


def test_looking_loads_and_changes_nothing(fitted, monkeypatch):
    """A notebook draws an estimator at every mention."""
    monkeypatch.setattr(type(fitted), "_ready", None)
    monkeypatch.setattr(type(fitted), "_load_backbone", None)
    before = dict(vars(fitted))

    estimator_html_repr(fitted)
    repr(fitted)
    fitted._repr_mimebundle_()

    assert vars(fitted) == before


def test_texts_in_parameters_are_escaped(estimator):
    odd = sklearn.clone(estimator).set_params(row_format="<b>{text}</b>")
    page = estimator_html_repr(odd)

    assert "<b>{text}" not in page
    assert html.escape("'<b>{text}</b>'") in page


def test_inside_a_pipeline_and_a_search(fitted, estimator):
    pipeline = make_pipeline(FunctionTransformer(), sklearn.clone(estimator))
    page = estimator_html_repr(GridSearchCV(pipeline, {}))
    Reader(page)

    assert type(estimator).__name__ in page
    Reader(estimator_html_repr(make_pipeline(FunctionTransformer(), fitted)))


def test_the_repr_shows_what_was_changed(estimator):
    shown = repr(estimator)

    assert shown.startswith(f"{type(estimator).__name__}(")
    assert "target_r=2" in shown
    assert "tinit" not in shown
    assert repr(AdaLoraClassifier()) == "AdaLoraClassifier()"
    assert repr(AdaLoraRegressor(target_r=4)) == "AdaLoraRegressor(target_r=4)"


def test_display_as_text(fitted):
    with sklearn.config_context(display="text"):
        assert not hasattr(fitted, "_repr_html_")
        assert "text/html" not in fitted._repr_mimebundle_()


# Report and history


REPORT = FitReport(
    n_rows=1_234,
    n_distinct=1_200,
    n_empty=3,
    tokens_median=9,
    tokens_p90=20,
    tokens_max=256,
    truncated_share=0.12345,
    max_length=256,
    device="cuda:0",
    precision="bfloat16",
    n_threads=1,
    trainable_parameters=1_234_567,
    total_parameters=22_700_000,
    seconds=12.3456,
)


def test_the_report_is_a_small_table():
    lines = str(REPORT).splitlines()
    cells = dict(line.split() for line in lines)

    assert list(cells) == [field.name for field in fields(FitReport)]
    assert len({len(line) for line in lines}) == 1  # numbers stand below each other
    assert len(lines[0]) <= 40
    assert cells["n_rows"] == "1,234"
    assert cells["trainable_parameters"] == "1,234,567"
    assert cells["truncated_share"] == "0.123"
    assert cells["seconds"] == "12.3"
    assert cells["device"] == "cuda:0"
    for seconds, shown in ((999.4, "999"), (999.96, "1,000"), (1234.4, "1,234")):
        assert f"{'seconds':<21}{shown:>12}" in str(replace(REPORT, seconds=seconds))


def test_the_report_of_a_fit(fitted):
    report = fitted.fit_report_
    shown = str(report)

    assert report.n_rows == 24
    assert (report.device, report.precision) == ("cpu", "float32")
    assert report.tokens_median <= report.tokens_p90 <= report.tokens_max
    assert 0 < report.trainable_parameters < report.total_parameters
    assert report.seconds > 0
    assert "n_rows" in shown
    assert repr(report).startswith("FitReport(n_rows=24, ")


def test_the_report_cannot_be_changed(fitted):
    with pytest.raises(AttributeError, match="cannot assign"):
        fitted.fit_report_.n_rows = 0


def test_the_repr_of_a_history_is_one_line(fitted):
    shown = repr(fitted.history_)

    assert re.fullmatch(
        r"TrainingHistory\(steps=2, epochs=1, loss=[\d.]+, seconds=[\d.]+\)", shown
    )
    assert repr(TrainingHistory()) == (
        "TrainingHistory(steps=0, epochs=0, seconds=0.0)"
    )


def test_a_history_has_a_number_for_each_step(fitted):
    history = fitted.history_
    steps = fitted.total_step_

    assert [
        len(history.loss),
        len(history.orthogonality),
        len(history.learning_rate),
        len(history.budget),
    ] == [steps] * 4
    assert history.budget[-1] == sum(fitted.ranks_.values())
    assert history.score == []
