"""What notebooks show of fits and pictures: tables without scripts or fixed colours."""

import re
from html.parser import HTMLParser

import pytest
from _toy import make, toy

from sk_adalora import (
    BudgetDisplay,
    EmbeddingMapDisplay,
    RankAllocationDisplay,
    TrainingHistoryDisplay,
    WordImportanceDisplay,
)
from sk_adalora.estimators.table_report import TableFitReport
from sk_adalora.training.loop import TrainingHistory

EMPTY = {"circle", "polyline", "br"}


class Balanced(HTMLParser):
    """Reads a piece of HTML, and refuses one whose tags do not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in EMPTY

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def shown(thing):
    html = thing._repr_html_()
    assert not re.search(r"color: (?!inherit)", html)  # dark pages have their own
    return Balanced(html).text


@pytest.fixture(scope="module")
def fitted(tiny_model):
    """A fit with a validation score. Do not refit."""
    return make(tiny_model, early_stopping=True).fit(*toy(48))


def test_report_and_history(fitted):
    report, history = shown(fitted.fit_report_), shown(fitted.history_)
    assert report[report.index("n_rows") + 1] == str(fitted.fit_report_.n_rows)
    assert history[history.index("epochs") + 1] == str(fitted.history_.epochs)
    assert {"score", "loss", "ranks"} <= {*history}
    assert "loss" not in shown(TrainingHistory())


def test_the_report_of_a_table():
    scores = {"text": {"R2": 0.5}, "blend": {"R2": 0.7}}
    report = TableFitReport(
        9, {"a": "text"}, {"text": 0.25}, scores, {"text": 2.0}, 3.0
    )
    lines = ["part", "weight", "R2", "seconds", "text", "0.25", "0.500", "2.0"]
    assert shown(report)[1:] == [*lines, "blend", "1.00", "0.700", "3.0"]


def test_pictures(fitted):
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    display = RankAllocationDisplay.from_estimator(fitted)
    rows = zip(display.layers, display.ranks.astype(int).tolist(), strict=True)
    cells = [str(cell) for layer, ranks in rows for cell in (layer, *ranks)]
    assert shown(display)[1:] == ["layer", *display.kinds, *cells]
    budget = shown(BudgetDisplay.from_estimator(fitted))
    assert budget[budget.index("steps") + 1] == str(len(fitted.history_.loss))
    assert "best score" in shown(TrainingHistoryDisplay.from_estimator(fitted))
    words = WordImportanceDisplay(["<goal>", "bank"], [1.5, -0.5], [4, 2])
    assert shown(words) == ["prediction", "<goal>", "+1.500", "bank", "-0.500"]
    plane = EmbeddingMapDisplay([[0, 0], [1, 0]], ["a", "b"], silhouettes=(0.1, 0.5))
    assert shown(plane)[-1] == "0.50"
