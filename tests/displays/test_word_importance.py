"""The picture of words shows the means of their values."""

import numpy as np
import pytest
from _toy import make, topics

from sk_adalora import WordImportanceDisplay

pytestmark = pytest.mark.usefixtures("plt")


def test_bars_are_means_over_the_rows_that_have_a_word(tiny_model):
    classifier = make(tiny_model).fit(*topics())
    X = ["Team film film", "team, price", "film game", "rare"]
    explained = classifier.explain(X, target="sport")
    display = WordImportanceDisplay.from_estimator(classifier, X, target="sport")

    of_rows = [dict.fromkeys(map(str.casefold, row.words), 0.0) for row in explained]
    for row, sums in zip(explained, of_rows, strict=True):
        for word, value in zip(row.words, row.values, strict=True):
            sums[word.casefold()] += value
    team = (of_rows[0]["team"] + of_rows[1]["team"]) / 2
    film = (of_rows[0]["film"] + of_rows[2]["film"]) / 2
    shown = dict(zip(display.words, display.importances, strict=True))
    assert shown == pytest.approx({"team": team, "film": film}, abs=1e-5)
    assert [bar.get_width() for bar in display.bars_] == display.importances.tolist()
    assert np.all(np.diff(display.importances) <= 0)
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == [
        f"{word} (2)" for word in display.words
    ]


def test_rows_of_several_targets_are_refused(tiny_model):
    classifier = make(tiny_model).fit(*topics())
    rows = [classifier.explain(["film"], target=t)[0] for t in ("art", "sport")]

    with pytest.raises(ValueError, match=r"of the same target.*Pass `target`"):
        WordImportanceDisplay.from_explanations(rows)
    with pytest.raises(ValueError, match=r"a word that occurs in 2 rows"):
        WordImportanceDisplay.from_explanations(rows[:1])
