"""The data of the page to play with: words of headlines, which git must not keep."""

import sys
from pathlib import Path

import numpy as np
import pytest

from sk_adalora import Explanation

ROOT = Path(__file__).parent.parent


@pytest.fixture
def playground(monkeypatch):
    """The extension that makes the data."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "_extensions")
    for name in ("playground", "outer_pages"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import playground

    return playground


def test_git_ignores_the_headlines(playground):
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()

    assert playground.DATA.relative_to(ROOT).as_posix() in ignored


def test_pieces_are_the_text_and_words_have_their_values(playground):
    explanation = Explanation(
        target="sport",
        unit="log-odds of 'sport'",
        output=1.0,
        words=["'", "Hen", "wins"],
        values=np.array([0.5, -1.0, 2.0004]),
        columns=["X"] * 3,
        spans=np.array([[1, 2], [2, 5], [7, 11]]),
        texts={"X": " 'Hen  wins!"},
        cells={},
        column_values={"X": 0.0},
    )

    assert playground.tinted(explanation) == [
        (" ", None),
        ("'", 0.5),
        ("Hen", -1.0),
        ("  ", None),
        ("wins", 2.0),
        ("!", None),
    ]


def test_planes_fill_the_frame(playground):
    framed = np.array(playground.framed(np.array([[1.0, 5.0], [3.0, 1.0], [2.0, 2.0]])))

    assert framed.min(axis=0).tolist() == [-1, -1]
    assert framed.max(axis=0).tolist() == [1, 1]
