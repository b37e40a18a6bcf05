"""Words as a reader sees them."""

import pytest

from sk_adalora.data.words import find_words, without_word


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  \n ", []),
        ("Don't stop, e-mail me!!", ["Don't", "stop", ",", "e-mail", "me", "!!"]),
        ("3.14 and 1,000.", ["3.14", "and", "1,000", "."]),
        ("👩‍👩‍👧👍🏽🇩🇪🇫🇷❤️", ["👩‍👩‍👧", "👍🏽", "🇩🇪", "🇫🇷", "❤️"]),
        ("cafe\u0301 नमस्ते", ["cafe\u0301", "नमस्ते"]),
        ("مرحبا، بالعالم", ["مرحبا", "،", "بالعالم"]),
        ("東京タワー 한국어", ["東", "京", "タワー", "한국어"]),
    ],
)
def test_words(text, words):
    assert [text[a:b] for a, b in find_words(text)] == words


@pytest.mark.parametrize(
    ("word", "left"),
    [("a", "good film."), ("good", "a film."), ("film", "a good ."), (".", None)],
)
def test_a_word_takes_one_space_with_it(word, left):
    text = "a good film."
    start = text.index(word)

    assert without_word(text, start, start + len(word)) == (left or "a good film")
