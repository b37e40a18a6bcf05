"""Texts -> token ids."""

import copy
import errno
import gc
import os
import pickle
import shutil
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

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


def test_what_fills_up_is_the_tokenizer_s(tokenizer):
    other = copy.deepcopy(tokenizer)
    other.pad_token = "film"

    assert other.pad_token_id != 0
    assert encode(as_texts(TEXTS), other, 16).pad_id == other.pad_token_id


@pytest.mark.parametrize("kind", ["tokenizer", "slow_tokenizer"])
def test_ids_are_the_tokenizer_s(kind, request):
    tokenizer = request.getfixturevalue(kind)
    table = encode(as_texts(TEXTS), tokenizer, 16)
    assert token_rows(table) == tokenizer(TEXTS)["input_ids"]
    assert table.ids.dtype == np.int32
    assert table.text_of.tolist() == [0, 1, 0, 2, 3]
    assert table.lengths.tolist() == [4, 5, 4, 2, len(tokenizer(TEXTS[4])["input_ids"])]
    assert table.type_ids is None
    assert not table.truncated.any()
    assert table.truncated_share == 0
    assert table.pad_id == 0
    assert len(table) == 5


@pytest.mark.parametrize("kind", ["tokenizer", "slow_tokenizer"])
def test_equal_pairs_are_encoded_once(kind, request):
    tokenizer = request.getfixturevalue(kind)
    first = ["the film", "the film", "a", "the film"]
    second = ["a fine one", "dull", "dull", "a fine one"]
    table = encode(as_texts(first, second), tokenizer, 16)
    expected = tokenizer(first, second)
    assert token_rows(table) == expected["input_ids"]
    assert token_rows(table, "type_ids") == expected["token_type_ids"]
    assert table.type_ids.dtype == np.int8
    assert table.text_of.tolist() == [0, 1, 2, 0]


def test_types_that_are_not_those_of_the_tokens_are_refused():
    class Forgetful(SlowTokenizer):
        def create_token_type_ids_from_sequences(self, first, second=None):
            return [0] * (len(first) + 2)

    tokenizer = Forgetful(pad_token="[PAD]", unk_token="[UNK]")
    match = "a type for each token of a pair. Got a Forgetful"
    with pytest.raises(ValueError, match=match):
        encode(as_texts(["the film"], ["dull"]), tokenizer, 16)


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


def byte_level_tokenizer():
    """A tokenizer like GPT-2's, whose words begin with the space before them."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet)
    backend.train_from_iterator([" ".join(WORDS), "films  it's"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="!")


def undivided_tokenizer():
    """A tokenizer to which each text is one word, as to Llama's."""
    backend = Tokenizer(models.BPE())
    backend.train_from_iterator([*WORDS, "a b"] * 9, trainers.BpeTrainer(vocab_size=40))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="a")


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


def test_of_a_long_text_only_the_start_is_read(tokenizer, monkeypatch):
    read = []
    call = type(tokenizer).__call__

    def watched(self, first, *args, **kwargs):
        read.append([len(text) for text in first])
        return call(self, first, *args, **kwargs)

    monkeypatch.setattr(type(tokenizer), "__call__", watched)
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


def test_a_first_text_that_is_long_goes_into_a_call_of_its_own(monkeypatch):
    monkeypatch.setattr(_tokens, "_CHARACTERS_A_CALL", 20)
    texts = pa.table({"first": pa.array(["film " * 9, "the"])})

    assert [len(part) for part in _tokens._few_characters(texts)] == [1, 1]


def test_a_slow_tokenizer_may_split_special_tokens():
    """It tells no encodings, in which others are asked for ends of texts."""
    tokenizer = SlowTokenizer(unk_token="[UNK]", eos_token="[SEP]")
    tokenizer.split_special_tokens = True
    (row,) = token_rows(encode(as_texts(["the film"]), tokenizer, 16))

    assert row == [CLS, VOCAB["the"], VOCAB["film"], SEP]


def test_an_end_in_a_text_stays_where_no_token_is_unknown():
    backend = Tokenizer(models.WordPiece(VOCAB, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bare = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]")
    bare.split_special_tokens = True

    assert token_rows(encode(as_texts(["film [SEP]"]), bare, 4)) == [
        [VOCAB["film"], SEP]
    ]


@pytest.mark.parametrize("big", [20_000, 0], ids=["memory", "disk"])
@pytest.mark.parametrize("paired", [False, True])
def test_few_long_texts_go_into_a_call(tokenizer, monkeypatch, big, paired):
    first = ["the", "film " * 3, "a dull one " * 9, "one", "was", "fine " * 2]
    second = first[::-1] if paired else None
    at_once = encode(as_texts(first, second), tokenizer, 2**30)
    read = []
    call = type(tokenizer).__call__

    def watched(self, first, second, **kwargs):
        read.append([*map(len, first)])
        return call(self, first, second, **kwargs)

    monkeypatch.setattr(type(tokenizer), "__call__", watched)
    monkeypatch.setattr(_tokens, "_CHARACTERS_A_CALL", 20)
    monkeypatch.setattr(_tokens, "_BIG", big)
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


@pytest.fixture(scope="module")
def byte_level():
    return byte_level_tokenizer()


@pytest.fixture(scope="module")
def undivided():
    return undivided_tokenizer()


@pytest.fixture(scope="module")
def left():
    """A tokenizer that cuts the starts of texts."""
    tokenizer = byte_level_tokenizer()
    tokenizer.truncation_side = "left"
    return tokenizer


@pytest.fixture
def on_disk(monkeypatch, tmp_path):
    """Make every table big, and return the folder of temporary files."""
    monkeypatch.setattr(_tokens, "_BIG", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture(params=[os.name == "nt", True])
def held(request, monkeypatch):
    """Read ids into memory also where a file that is mapped could be deleted."""
    monkeypatch.setattr(_tokens, "_MAPS_HOLD_FILES", request.param)
    return request.param


def test_ids_have_no_name_that_a_killed_process_would_leave(tokenizer, on_disk, held):
    table = encode(as_texts(TEXTS), tokenizer, 16)

    assert list(on_disk.iterdir()) == []
    assert token_rows(table) == tokenizer(TEXTS)["input_ids"]
    assert type(table.ids) is np.ndarray


def test_a_full_disk_is_called_by_its_folder(tokenizer, on_disk, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_tokens, "_write_and_map", fail)
    monkeypatch.setattr(_tokens, "_MAPS_HOLD_FILES", False)
    with pytest.raises(OSError, match="No space left") as caught:
        encode(as_texts(TEXTS), tokenizer, 16)

    (note,) = caught.value.__notes__
    assert str(on_disk) in note
    assert "TMPDIR" in note
    assert list(on_disk.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_files_are_mapped_while_they_are_deleted_only_where_that_works(
    tokenizer, on_disk, held, monkeypatch
):
    remove, mapped = shutil.rmtree, []

    def watched(folder, **options):
        maps = Path("/proc/self/maps").read_text()
        mapped.extend(n for n in os.listdir(folder) if str(Path(folder, n)) in maps)
        remove(folder, **options)

    monkeypatch.setattr(_tokens.shutil, "rmtree", watched)
    monkeypatch.setattr(_tokens, "_CHUNK", 1)  # there are many chunks
    table = encode(as_texts(TEXTS, TEXTS), tokenizer, 16)

    assert mapped == ([] if held else ["ids.bin"])
    assert len(table.ids)


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


def test_ids_are_on_disk_as_soon_as_they_are_made(tokenizer, on_disk, monkeypatch):
    there = []
    call = type(tokenizer).__call__

    def watched(self, *args, **kwargs):
        there.append(any(path.is_file() for path in on_disk.rglob("*")))
        return call(self, *args, **kwargs)

    monkeypatch.setattr(type(tokenizer), "__call__", watched)
    monkeypatch.setattr(_tokens, "_CHUNK", 1)
    encode(as_texts(TEXTS), tokenizer, 16)
    assert there[-1]


def test_neither_texts_nor_the_tokenizer_are_hashed(tokenizer, on_disk, monkeypatch):
    """Which `datasets` does to find names for its files."""
    from datasets.fingerprint import Hasher
    from datasets.table import Table

    hashed = []
    monkeypatch.setattr(Hasher, "update", lambda self, value: hashed.append(value))
    encode(as_texts(TEXTS), tokenizer, 9)

    assert not any(callable(value) or isinstance(value, Table) for value in hashed)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_is_an_error(tokenizer, on_disk, monkeypatch):
    make = tempfile.mkdtemp

    def without_room(**options):
        folder = make(**options)
        Path(folder, "ids.bin").symlink_to("/dev/full")
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", without_room)
    with pytest.raises(OSError, match="No space left"):
        encode(as_texts(TEXTS), tokenizer, 16)
    assert list(on_disk.iterdir()) == []


def test_files_that_cannot_be_deleted_stop_nothing(tokenizer, on_disk, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError("Access is denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        table = encode(as_texts(TEXTS), tokenizer, 16)

    assert [*on_disk.rglob("*.arrow")]
    assert token_rows(table) == tokenizer(TEXTS)["input_ids"]


def test_no_files_are_left_by_errors(tokenizer, on_disk, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(_tokens, "_encode_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encode(as_texts(TEXTS), tokenizer, 16)
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


def test_bars_that_the_user_decided_about_are_not_touched(
    tokenizer, on_disk, monkeypatch
):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "0")
    # It would warn that the environment decides.
    monkeypatch.setattr(datasets, "disable_progress_bars", None)
    encode(as_texts(TEXTS), tokenizer, 16)


@pytest.mark.parametrize("bars", [False, True])
def test_datasets_settings_are_left_alone(tokenizer, on_disk, bars, capfd):
    datasets = pytest.importorskip("datasets")
    had_bars = not datasets.are_progress_bars_disabled()
    environment, was_caching = dict(os.environ), datasets.is_caching_enabled()
    (datasets.enable_progress_bars if bars else datasets.disable_progress_bars)()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encode(as_texts(TEXTS), tokenizer, 16)
        assert datasets.are_progress_bars_disabled() is not bars
    finally:
        restore = datasets.enable_progress_bars if had_bars else None
        (restore or datasets.disable_progress_bars)()
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == environment
    assert datasets.is_caching_enabled() is was_caching


def test_the_tokenizer_is_left_as_it_was(tokenizer, capfd):
    before = tokenizer.backend_tokenizer.to_str()
    tokenizer.model_max_length, model_max_length = 3, tokenizer.model_max_length
    encode(as_texts(TEXTS, TEXTS), tokenizer, 5)
    tokenizer.model_max_length = model_max_length
    assert tokenizer.backend_tokenizer.to_str() == before
    with pytest.raises(TypeError):
        encode(as_texts(TEXTS), tokenizer, "5")
    assert tokenizer.backend_tokenizer.to_str() == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["tokenizer", "slow_tokenizer"])
def test_threads_take_turns(kind, request):
    """Or one would cut its texts where another wants them to be cut."""
    tokenizer = request.getfixturevalue(kind)
    inside, seen = [], []

    class Watched(type(tokenizer)):
        def __call__(self, *args, **kwargs):
            inside.append(1)
            time.sleep(0.002)  # let the others try
            seen.append(len(inside))
            encoded = super().__call__(*args, **kwargs)
            inside.pop()
            return encoded

    watched = copy.copy(tokenizer)
    watched.__class__ = Watched
    texts = as_texts(["the film was a fine dull one the film was a"])
    lengths = [3, 5, 8, 12] * 10
    with ThreadPoolExecutor(4) as threads:
        tables = list(threads.map(lambda n: encode(texts, watched, n), lengths))

    assert max(seen) == 1
    for length, table in zip(lengths, tables, strict=True):
        assert_same(table, encode(texts, tokenizer, length))


def test_an_empty_text_has_one_token():
    backend = Tokenizer(models.WordLevel(VOCAB, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    bare = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert token_rows(encode(as_texts(["", "film"]), bare, 4)) == [[0], [VOCAB["film"]]]
    assert encode(as_texts([""]), bare, 4).pad_id == 0
    bare = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]")
    assert token_rows(encode(as_texts([""]), bare, 4)) == [[SEP]]
    # One that a model's head takes for padding comes last.
    bare = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="[SEP]", pad_token="[UNK]"
    )
    assert token_rows(encode(as_texts([""]), bare, 4)) == [[SEP]]
    # The first token of a vocabulary is one as well.
    bare = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="[PAD]", eos_token="[SEP]"
    )
    assert token_rows(encode(as_texts([""]), bare, 4)) == [[VOCAB["[PAD]"]]]
    bare = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]")
    bare.model_input_names = ["input_ids", "token_type_ids"]
    table = encode(as_texts([""], [""]), bare, 4)
    assert (table.lengths.tolist(), table.type_ids.tolist()) == ([1], [0])


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
