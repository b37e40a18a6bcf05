"""Texts with more tokens than the model takes: cut, both ends, or windows."""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from _toy import BAD, GOOD
from _toy import make as make_classifier
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sk_adalora import AdaLoraRegressor
from sk_adalora.data.texts import read_texts
from sk_adalora.tokens.long_texts import (
    Windows,
    encode_for_prediction,
    encode_for_training,
)

WORDS = [*GOOD, *BAD]
LONG_TEXTS = ("truncate", "head_tail", "windows")


@pytest.fixture(scope="module")
def bert(tiny_model):
    """A tokenizer with a special token at each end."""
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def bare():
    """A tokenizer without special tokens, as GPT-2 has it; a word is a token."""
    return bare_tokenizer()


def bare_tokenizer():
    vocabulary = {word: i for i, word in enumerate(["<|end|>", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<|end|>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")


@pytest.fixture(scope="module", params=["bert", "bare"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def rows_of(table):
    """The token ids of each row as lists."""
    spans = zip(table.starts[table.text_of], table.stops[table.text_of], strict=True)
    return [table.ids[start:stop].tolist() for start, stop in spans]


def whole(tokenizer, texts):
    """The token ids of whole texts, and how many special ones are at each end."""
    ends = len(tokenizer("")["input_ids"]) // 2
    ids = [tokenizer(text)["input_ids"] for text in texts]
    return [row or [tokenizer.eos_token_id] for row in ids], ends


# Naive references


def cut(ids, ends, max_length):
    if len(ids) <= max_length:
        return ids
    return ids[: max_length - ends] + ids[len(ids) - ends :]


def both_ends(ids, ends, max_length):
    while len(ids) > max_length:  # take the token in the middle out, one by one
        middle = (max_length + 1) // 2
        ids = ids[:middle] + ids[middle + 1 :]
    return ids


def windows(ids, ends, max_length):
    if len(ids) <= max_length:
        return [ids]
    content = ids[ends : len(ids) - ends]
    room = max_length - 2 * ends
    found, start = [], 0
    while start + room < len(content):
        found.append(content[start : start + room])
        start += max(1, room // 2)
    found.append(content[-room:])
    return [ids[:ends] + piece + ids[len(ids) - ends :] for piece in found]


sentences = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)
tables = st.lists(sentences, min_size=1, max_size=8)
lengths = st.integers(3, 40)


def first_window(ids, ends, max_length):
    return windows(ids, ends, max_length)[0]


WAYS = {"truncate": cut, "head_tail": both_ends, "windows": first_window}


@pytest.mark.parametrize("long_text", LONG_TEXTS)
@given(texts=tables, max_length=lengths)
def test_training_reads_the_start_or_both_ends(tokenizer, long_text, texts, max_length):
    table = encode_for_training(read_texts(texts), tokenizer, max_length, long_text)
    ids, ends = whole(tokenizer, texts)

    assert rows_of(table) == [WAYS[long_text](row, ends, max_length) for row in ids]
    assert table.truncated_share == np.mean([len(row) > max_length for row in ids])
    assert table.max_length == max_length  # none is padded to more


@given(texts=tables, max_length=lengths)
def test_windows_overlap_by_half_and_cover_all(tokenizer, texts, max_length):
    tokens, pieces = encode_for_prediction(
        read_texts(texts), tokenizer, max_length, "windows"
    )
    expected, ends = whole(tokenizer, texts)
    pieces_of_rows = [
        [row for row, owner in zip(rows_of(pieces.tokens), pieces.owners, strict=True)
         if owner == distinct]
        for distinct in tokens.text_of
    ]  # fmt: skip

    assert pieces_of_rows == [windows(ids, ends, max_length) for ids in expected]
    assert (pieces.tokens.lengths <= max_length).all()
    assert pieces.tokens.max_length == max_length
    for ids, found in zip(expected, pieces_of_rows, strict=True):
        assert {token for piece in found for token in piece} == set(ids)


def test_windows_of_a_tokenizer_that_knows_no_latin_letters():
    """It makes of "a" what it makes of nothing: its special tokens alone."""
    backend = Tokenizer(models.BPE({"[CLS]": 0, "[SEP]": 1, "\u5929": 2}, []))
    ends = [("[CLS]", 0), ("[SEP]", 1)]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    chinese = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[SEP]")
    assert chinese("a")["input_ids"] == [0, 1]
    texts = read_texts(["", "\u5929" * 5])  # the first says no more

    _, found = encode_for_prediction(texts, chinese, 4, "windows")

    assert rows_of(found.tokens) == [[0, 1], *[[0, 2, 2, 1]] * 4]


@pytest.mark.parametrize(
    ("template", "opening", "closing"),
    [
        ("[CLS] $A", [0], []),
        ("$A [SEP]", [], [1]),
        ("[CLS] $A [SEP] [SEP]", [0], [1, 1]),
    ],
)
def test_windows_of_a_tokenizer_whose_ends_are_not_alike(template, opening, closing):
    """Such as Llama's, which only opens a text, or T5's, which only closes it."""
    vocabulary = {"[CLS]": 0, "[SEP]": 1, **{c: i for i, c in enumerate("abcdefgh", 2)}}
    backend = Tokenizer(models.BPE(vocabulary, []))
    ends = [("[CLS]", 0), ("[SEP]", 1)]
    backend.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=ends
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[SEP]", sep_token="[SEP]"
    )
    # A text may hold what closes it.
    texts = ["abcdefgh", "a", "[SEP]bcdefghgfed"]
    _, found = encode_for_prediction(read_texts(texts), tokenizer, 5, "windows")
    room = 5 - len(opening) - len(closing)
    ids = [[*range(2, 10)], [2], [1, *range(3, 10), *range(8, 4, -1)]]

    for place, content in enumerate(ids):
        last = max(0, len(content) - room)
        firsts = [*range(0, last, max(1, room // 2)), last]
        assert [
            row
            for row, owner in zip(rows_of(found.tokens), found.owners, strict=True)
            if owner == place
        ] == [opening + content[i : i + room] + closing for i in firsts]


@given(
    owners=st.lists(st.integers(0, 4), max_size=12),
    seed=st.integers(0, 100),
)
def test_windows_average(owners, seed):
    owners = np.array([0, 1, 2, 3, 4, *owners])  # each text has one at least
    outputs = np.random.default_rng(seed).normal(size=(len(owners), 3))
    outputs = outputs.astype(np.float32)

    found = Windows(None, owners).average(outputs)

    expected = [outputs[owners == text].mean(axis=0) for text in range(5)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("long_text", LONG_TEXTS)
def test_each_way_with_long_texts_leaves_room_for_text(bert, long_text):
    with pytest.raises(ValueError, match=r"2 special tokens\. Got 2\. Raise"):
        encode_for_training(read_texts(["good"]), bert, 2, long_text)
    with pytest.raises(ValueError, match=r"2 special tokens\. Got 2\. Raise"):
        encode_for_prediction(read_texts(["good"]), bert, 2, long_text)


# Estimators


@pytest.fixture(scope="module")
def make(tiny_model):
    """Function: changed parameters -> a classifier that is quick to fit."""
    return functools.partial(make_classifier, tiny_model, max_length=8, epochs=2)


def long_rows(n_rows=24, n_words=20, seed=0):
    """Texts that begin with noise, and whose last words say what they are."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_rows) % 2
    texts = [
        " ".join([*rng.choice(["the", "a", "of"], n_words - 2), *rng.choice(words, 2)])
        for words in (GOOD if label else BAD for label in y)
    ]
    return texts, y


LONG, Y = long_rows()
SHORT = [" ".join(text.split()[-3:]) for text in LONG]


def test_short_texts_predict_the_same_to_the_last_bit(make):
    fits = [make(long_text=long_text).fit(SHORT, Y) for long_text in LONG_TEXTS]
    expected = fits[0].predict_proba(SHORT)

    for fitted in fits:
        np.testing.assert_array_equal(fitted.predict_proba(SHORT), expected)


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_windows_are_averaged_before_the_probabilities(make, kind):
    """The outputs of a long text are the mean of those of its windows."""
    estimator = make(long_text="windows")
    if kind == "regressor":
        params = estimator.get_params()
        for name in ("class_weight", "calibrate", "thresholds"):
            del params[name]
        estimator = AdaLoraRegressor(**params)
    fitted = estimator.fit(LONG, Y)
    pieces = [
        [" ".join(text.split()[start : start + 6]) for start in (0, 3, 6, 9, 12, 14)]
        for text in LONG[:5]
    ]  # 20 words, 6 in a window

    outputs = fitted.predict if kind == "regressor" else fitted.decision_function
    for method in (outputs, fitted.transform):
        one_by_one = np.array([[method([piece])[0] for piece in row] for row in pieces])

        np.testing.assert_allclose(
            method(LONG[:5]), one_by_one.mean(axis=1), rtol=1e-4, atol=1e-5
        )


def test_what_is_cut_off_is_not_seen(make):
    """The end of a text, its middle, or nothing of it."""
    words = LONG[0].split()
    other_end = " ".join([*words[:-1], "team"])
    other_middle = " ".join([*words[:9], "team", *words[10:]])

    for long_text, sees_end, sees_middle in (
        ("truncate", False, False),
        ("head_tail", True, False),
        ("windows", True, True),
    ):
        fitted = make(long_text=long_text, epochs=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted.fit(LONG, Y)
        proba = fitted.predict_proba([LONG[0], other_end, other_middle])
        changed = abs(proba[1:] - proba[0]).max(axis=1) > 1e-6
        assert changed.tolist() == [sees_end, sees_middle], long_text


@pytest.mark.parametrize("long_text", LONG_TEXTS)
def test_the_share_of_long_texts_is_reported(make, long_text):
    texts = [*LONG[:6], *SHORT[6:]]
    fitted = make(long_text=long_text, epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted.fit(texts, Y)

    report = fitted.fit_report_
    assert report.truncated_share == 0.25
    assert report.max_length == report.tokens_max == 8
    messages = [str(warning.message) for warning in caught]
    if long_text == "truncate":  # the only one that the user did not ask for
        (message,) = messages
        assert "25% of the texts are longer than max_length=8 tokens" in message
        assert caught[0].filename == __file__
    else:
        assert messages == []


@pytest.mark.parametrize("long_text", ["head_tail", "windows"])
def test_pairs_are_refused(make, long_text):
    X = pd.DataFrame({"first": LONG, "second": SHORT})
    estimator = make(long_text=long_text, row_format="pair")

    with pytest.raises(
        ValueError,
        match=f"`long_text` must be 'truncate' with pairs.*Got '{long_text}'. Change",
    ):
        estimator.fit(X, Y)

    fitted = make(row_format="pair", max_length=64, epochs=3).fit(X, Y)
    fitted.set_params(long_text=long_text)
    with pytest.raises(ValueError, match=f"with pairs.*Got '{long_text}'"):
        fitted.predict(X)


def test_windows_of_equal_and_mixed_texts(make):
    """Equal texts are computed once; each row gets its own text's average."""
    fitted = make(long_text="windows").fit(LONG, Y)
    mixed = [LONG[0], SHORT[0], LONG[1], LONG[0], ""]
    found = fitted.predict_proba(mixed)

    for row, text in enumerate(mixed):
        np.testing.assert_allclose(
            found[row], fitted.predict_proba([text])[0], atol=1e-6
        )
    np.testing.assert_array_equal(found[0], found[3])


@pytest.fixture(scope="module")
def gpt2(tiny_architecture, tmp_path_factory):
    """Folder of a decoder whose tokenizer has no special tokens around a text."""
    folder = str(tmp_path_factory.mktemp("models") / "gpt2")
    tiny_architecture("gpt2").save_pretrained(folder)
    bare_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("long_text", ["head_tail", "windows"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_model_without_special_tokens(gpt2, long_text, pooling):
    texts = [" ".join(np.resize(GOOD if label else BAD, 15)) for label in Y]
    texts[0] = ""
    fitted = make_classifier(
        gpt2, max_length=6, long_text=long_text, pooling=pooling
    ).fit(texts, Y)

    assert np.isfinite(fitted.predict_proba(texts)).all()
    assert fitted.fit_report_.truncated_share == 23 / 24
    if long_text == "windows":
        words = texts[1].split()
        pieces = [" ".join(words[i : i + 6]) for i in (0, 3, 6, 9)]
        np.testing.assert_allclose(
            fitted.decision_function([texts[1]]),
            fitted.decision_function(pieces).mean(),
            atol=1e-5,
        )
