"""Texts -> token ids."""

import copy
import gc
import os
import pickle
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import datasets
import numpy as np
import pyarrow as pa
import pytest
from _time_limit import cut
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from sk_adalora.tokens import tokenize as _tokens
from sk_adalora.tokens.tokenize import encode

WORDS = "the film was a fine dull one".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
VOCAB = {word: i for i, word in enumerate([*SPECIAL, *WORDS, "##s"])}
CLS, SEP = VOCAB["[CLS]"], VOCAB["[SEP]"]


@pytest.fixture(scope="module")
def tokenizer():
    """A tiny BERT tokenizer; tests must leave it as it is."""
    backend = Tokenizer(models.WordPiece(VOCAB, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    backend.enable_truncation(99, stride=1)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


class SlowTokenizer(PreTrainedTokenizer):
    """A tokenizer in Python: words to positions in the vocabulary."""

    model_input_names = ("input_ids", "token_type_ids", "attention_mask")

    @property
    def vocab_size(self):
        return len(VOCAB)

    def get_vocab(self):
        return dict(VOCAB)

    def _tokenize(self, text, **kwargs):
        return text.split()

    def _convert_token_to_id(self, token):
        return VOCAB.get(token, VOCAB["[UNK]"])

    def _convert_id_to_token(self, index):
        return list(VOCAB)[index]

    def build_inputs_with_special_tokens(self, first, second=None):
        return [CLS, *first, SEP] + ([*second, SEP] if second is not None else [])

    def create_token_type_ids_from_sequences(self, first, second=None):
        return [0] * (len(first) + 2) + (
            [1] * (len(second) + 1) if second is not None else []
        )


@pytest.fixture(scope="module")
def slow_tokenizer():
    return SlowTokenizer(pad_token="[PAD]", unk_token="[UNK]")


def as_texts(first, second=None):
    to_array = lambda texts: pa.array(texts, pa.large_string())  # noqa: E731
    second = None if second is None else to_array(second)
    return SimpleNamespace(first=to_array(first), second=second)


def token_rows(table, name="ids"):
    """The token ids of each row as lists."""
    values = getattr(table, name)
    spans = zip(table.starts[table.text_of], table.stops[table.text_of], strict=True)
    return [values[start:stop].tolist() for start, stop in spans]


def assert_same(table, other):
    for name in ("ids", "starts", "stops", "text_of", "truncated"):
        np.testing.assert_array_equal(getattr(table, name), getattr(other, name))
    if table.type_ids is not None or other.type_ids is not None:
        np.testing.assert_array_equal(table.type_ids, other.type_ids)
    assert table.pad_id == other.pad_id


TEXTS = ["the film", "a fine film", "the film", "", "unknown films"]


@pytest.mark.parametrize("kind", ["tokenizer", "slow_tokenizer"])
def test_ids_are_the_tokenizer_s(kind, request):
    tokenizer = request.getfixturevalue(kind)
    table = encode(as_texts(TEXTS), tokenizer, 16)
    ids = tokenizer(TEXTS)["input_ids"]

    assert token_rows(table) == ids
    assert table.ids.dtype == np.int32
    assert table.text_of.tolist() == [0, 1, 0, 2, 3]
    assert table.lengths.tolist() == [*map(len, ids)]
    assert table.type_ids is None
    assert (table.truncated_share, table.pad_id, len(table)) == (0, 0, 5)


@pytest.mark.parametrize("kind", ["tokenizer", "slow_tokenizer"])
def test_equal_pairs_are_encoded_once(kind, request):
    tokenizer = request.getfixturevalue(kind)
    first = ["the film", "the film", "a", "the film"]
    second = ["a fine one", "dull", "dull", "a fine one"]
    table = encode(as_texts(first, second), tokenizer, 16)
    expected = tokenizer(first, second)

    assert token_rows(table) == expected["input_ids"]
    assert token_rows(table, "type_ids") == expected["token_type_ids"]
    assert table.text_of.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("kind", ["tokenizer", "slow_tokenizer"])
@pytest.mark.parametrize("paired", [False, True])
def test_truncation_is_told_exactly(kind, paired, request):
    tokenizer = request.getfixturevalue(kind)
    first = [" ".join(["film"] * n) for n in range(9)]
    second = ["dull one"] * 9 if paired else None
    whole = tokenizer(first, second)["input_ids"]
    table = encode(as_texts(first, second), tokenizer, 7)
    assert table.truncated.tolist() == [len(ids) > 7 for ids in whole]
    assert table.lengths.tolist() == [min(len(ids), 7) for ids in whole]
    assert table.truncated_share == pytest.approx(table.truncated.mean())


@pytest.fixture(scope="module")
def byte_level():
    """A tokenizer like GPT-2's, whose words begin with the space before them."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet)
    backend.train_from_iterator([" ".join(WORDS), "films  it's"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="!")


@pytest.fixture(scope="module")
def undivided():
    """A tokenizer to which each text is one word, as to Llama's."""
    backend = Tokenizer(models.BPE())
    backend.train_from_iterator([*WORDS, "a b"] * 9, trainers.BpeTrainer(vocab_size=40))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="a")


@pytest.fixture(scope="module")
def left(byte_level):
    """A tokenizer that cuts the starts of texts."""
    tokenizer = copy.deepcopy(byte_level)
    tokenizer.truncation_side = "left"
    return tokenizer


ODD = ["films", "it's", "x" * 150, "  ", "\n", "é", "電影", "12,5"]
LONG = st.lists(st.sampled_from([*WORDS, *ODD]), min_size=5, max_size=60)


@pytest.mark.parametrize(
    "kind", ["tokenizer", "slow_tokenizer", "byte_level", "undivided", "left"]
)
@given(parts=LONG, joint=st.sampled_from([" ", ""]))
@example(parts=["film" + "s" * 150, "the"], joint=" ")  # too long to be cut into pieces
@settings(max_examples=60, deadline=None)
def test_the_start_of_a_long_text_gives_the_tokens_of_the_whole(
    kind, request, parts, joint
):
    tokenizer = request.getfixturevalue(kind)
    text = joint.join(parts)
    with mock.patch.object(_tokens, "_CHARACTERS_A_TOKEN", 4):
        table = encode(as_texts([text, "the film"]), tokenizer, 9)
    whole = tokenizer(text)["input_ids"]
    cut = tokenizer(text, truncation=True, max_length=9)["input_ids"]

    # Of letters that none of its tokens has, nothing is left.
    assert token_rows(table)[0] == (cut or [tokenizer.pad_token_id])
    assert table.truncated[0] == (len(whole) > 9)


def watch(monkeypatch, tokenizer):
    """The lengths of the texts of each call of the tokenizer from now on."""
    read, call = [], type(tokenizer).__call__

    def watched(self, first, *args, **kwargs):
        read.append([*map(len, first)])
        return call(self, first, *args, **kwargs)

    monkeypatch.setattr(type(tokenizer), "__call__", watched)
    return read


def test_of_a_long_text_only_the_start_is_read(tokenizer, monkeypatch):
    read = watch(monkeypatch, tokenizer)
    encode(as_texts(["the film " * 10_000, "the film", "x" * 10_000]), tokenizer, 9)

    # Of a word without end, nothing is known before its end.
    assert read == [[144, 8, 144], [10_000]]


def test_of_two_long_texts_the_longer_one_in_tokens_is_cut(tokenizer):
    # Many characters may be few tokens.
    first, second = "x" * 1_000 + " a fine film", "the film was a dull one " * 4
    table = encode(as_texts([first], [second]), tokenizer, 9)
    cut = tokenizer(first, second, truncation="longest_first", max_length=9)

    assert token_rows(table) == [cut["input_ids"]]
    assert table.truncated.tolist() == [True]


def plain_tokenizer(**special):
    """A tokenizer that puts nothing around a text."""
    backend = Tokenizer(models.WordLevel(VOCAB, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


@pytest.mark.parametrize(
    ("special", "token"),
    [
        ({}, "[PAD]"),  # the first of the vocabulary
        ({"eos_token": "[SEP]"}, "[SEP]"),
        # One that a model's head takes for padding comes last.
        ({"eos_token": "[SEP]", "pad_token": "film"}, "[SEP]"),
        ({"bos_token": "[CLS]", "eos_token": "[SEP]"}, "[CLS]"),
    ],
)
def test_an_empty_text_has_one_token(special, token):
    tokenizer = plain_tokenizer(**special)
    table = encode(as_texts(["", "film"]), tokenizer, 4)

    assert token_rows(table) == [[VOCAB[token]], [VOCAB["film"]]]
    assert table.pad_id == (tokenizer.pad_token_id or 0)
    tokenizer.model_input_names = ["input_ids", "token_type_ids"]
    table = encode(as_texts([""], [""]), tokenizer, 4)
    assert (table.lengths.tolist(), table.type_ids.tolist()) == ([1], [0])


@pytest.mark.parametrize("unknown", [None, "[UNK]"])
def test_an_end_in_a_text_is_unknown_where_there_is_such_a_token(unknown):
    """Of T5's "</s>" in a text, the network would read an end."""
    tokenizer = plain_tokenizer(eos_token="[SEP]", unk_token=unknown)
    tokenizer.split_special_tokens = True
    (row, other) = token_rows(encode(as_texts(["film [SEP]", "film"]), tokenizer, 4))

    assert row == [VOCAB["film"], VOCAB[unknown or "[SEP]"]]
    assert other == [VOCAB["film"]]


@pytest.mark.parametrize("big", [20_000, 0], ids=["memory", "disk"])
@pytest.mark.parametrize("paired", [False, True])
def test_few_long_texts_go_into_a_call(tokenizer, monkeypatch, big, paired):
    first = ["the", "film " * 3, "a dull one " * 9, "one", "was", "fine " * 2]
    second = first[::-1] if paired else None
    at_once = encode(as_texts(first, second), tokenizer, 2**30)
    monkeypatch.setattr(_tokens, "_CHARACTERS_A_CALL", 20)
    monkeypatch.setattr(_tokens, "_BIG", big)
    read = watch(monkeypatch, tokenizer)

    assert_same(encode(as_texts(first, second), tokenizer, 2**30), at_once)
    alone = [[3, 15], [99], [3, 3, 10]]
    assert read == ([[length] for length in map(len, first)] if paired else alone)


@pytest.mark.parametrize("kind", ["tokenizer", "slow_tokenizer"])
@pytest.mark.parametrize("paired", [False, True])
def test_on_disk_equals_in_memory(kind, paired, request, monkeypatch):
    tokenizer = request.getfixturevalue(kind)
    rng = np.random.default_rng(0)
    first = [" ".join(rng.choice(WORDS, rng.integers(0, 9))) for _ in range(300)]
    second = first[::-1] if paired else None
    texts = as_texts(first, second)
    in_memory = encode(texts, tokenizer, 8)
    assert in_memory.truncated.any()
    monkeypatch.setattr(_tokens, "_BIG", 0)
    monkeypatch.setattr(_tokens, "_CHUNK", 64)
    assert_same(encode(texts, tokenizer, 8), in_memory)


@pytest.fixture
def on_disk(monkeypatch, tmp_path):
    """Make every table big, and return the folder of temporary files."""
    monkeypatch.setattr(_tokens, "_BIG", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_ids_have_no_name_that_a_killed_process_would_leave(tokenizer, on_disk):
    table = encode(as_texts(TEXTS), tokenizer, 16)

    assert list(on_disk.iterdir()) == []
    assert token_rows(table) == tokenizer(TEXTS)["input_ids"]
    assert type(table.ids) is np.ndarray


def test_a_part_and_a_copy_of_a_table_outlive_it(tokenizer, on_disk):
    table = encode(as_texts(TEXTS), tokenizer, 16)
    part = table.take([1])
    del table
    gc.collect()
    assert token_rows(part) == tokenizer(TEXTS[1:2])["input_ids"]
    copy = pickle.loads(pickle.dumps(part))
    del part
    gc.collect()
    assert list(on_disk.iterdir()) == []
    assert token_rows(copy) == tokenizer(TEXTS[1:2])["input_ids"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_is_an_error_that_names_its_folder(tokenizer, on_disk, monkeypatch):
    make = tempfile.mkdtemp

    def without_room(**options):
        folder = make(**options)
        Path(folder, "ids.bin").symlink_to("/dev/full")
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", without_room)
    with pytest.raises(OSError, match="No space left") as caught:
        encode(as_texts(TEXTS), tokenizer, 16)

    (note,) = caught.value.__notes__
    assert str(on_disk) in note
    assert "TMPDIR" in note
    assert list(on_disk.iterdir()) == []


def test_no_files_are_left_wherever_a_time_limit_is_raised(tokenizer, on_disk):
    making = [_tokens._encode_in_folder, _tokens._flatten, _tokens._write_and_map]

    def work():
        encode(as_texts(TEXTS), tokenizer, 16)

    for last in range(1, 1000):
        code = cut(work, making, last)
        assert list(on_disk.iterdir()) == [], last
        if code is None:
            break
    assert last > 25  # it was raised at each line before


@pytest.mark.parametrize("bars", [False, True])
def test_datasets_settings_are_left_alone(tokenizer, on_disk, bars, capfd):
    set_bars = {
        False: datasets.disable_progress_bars,
        True: datasets.enable_progress_bars,
    }
    had_bars = not datasets.are_progress_bars_disabled()
    set_bars[bars]()
    try:
        encode(as_texts(TEXTS), tokenizer, 16)
        assert datasets.are_progress_bars_disabled() is not bars
    finally:
        set_bars[had_bars]()
    assert capfd.readouterr() == ("", "")


def test_max_length_leaves_room_for_text(tokenizer):
    with pytest.raises(
        ValueError, match=r"2 special tokens. Got 2. Raise `max_length`"
    ):
        encode(as_texts(["a"]), tokenizer, 2)
    with pytest.raises(ValueError, match=r"3 special tokens. Got 3"):
        encode(as_texts(["a"], ["b"]), tokenizer, 3)


def test_take_and_distinct(tokenizer):
    table = encode(as_texts(TEXTS), tokenizer, 4)
    part = table.take(np.array([4, 2, 0, 2]))
    rows = token_rows(table)

    assert token_rows(part) == [rows[4], rows[2], rows[0], rows[2]]
    assert part.ids is table.ids
    assert part.truncated_share == 0.25
    assert table.take([0, 3]).truncated_share == 0
    assert not table.take([1, 0]).all_distinct

    distinct = part.distinct()
    assert len(distinct) == 2
    results = np.array([sum(ids) for ids in token_rows(distinct)])
    assert results[part.text_of].tolist() == [sum(ids) for ids in token_rows(part)]


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join),
        min_size=1,
        max_size=12,
    ),
    st.randoms(),
)
def test_permuted_texts_give_permuted_token_rows(tokenizer, first, random):
    second = first[::-1]
    order = list(range(len(first)))
    random.shuffle(order)
    for pair in (None, second):
        table = encode(as_texts(first, pair), tokenizer, 7)
        moved = encode(
            as_texts([first[i] for i in order], pair and [pair[i] for i in order]),
            tokenizer,
            7,
        )
        rows = token_rows(table)
        assert token_rows(moved) == [rows[i] for i in order]
        n_distinct = len(set(first if pair is None else zip(first, pair, strict=True)))
        assert len(table.starts) == n_distinct
        assert int((table.stops - table.starts).sum()) == len(table.ids)
