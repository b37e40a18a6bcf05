"""Threads take turns with a tokenizer, and do not wait for those of others."""

import contextlib
import ctypes
import gc
import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from sk_adalora.tokens import tokenize as _tokens
from sk_adalora.tokens.lock import locked, turns_of
from sk_adalora.tokens.tokenize import encode

LONG = [f"the good film {word}" for word in ("one", "two", "three", "four")]
SHORT = ["a good film of many words"]


@pytest.fixture
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(params=[20_000, 0], ids=["memory", "disk"])
def chunks(monkeypatch, request):
    """Hand the tokenizer one text a call, of tables in memory or on disk."""
    monkeypatch.setattr(_tokens, "_CHUNK", 1)
    monkeypatch.setattr(_tokens, "_BIG", request.param)


def as_texts(texts):
    return SimpleNamespace(first=pa.array(texts, pa.large_string()), second=None)


def watch(tokenizer, seen):
    """Have `seen` called with the texts of each call of a tokenizer, before it."""

    class Watched(type(tokenizer)):
        def __call__(self, first, *args, **kwargs):
            seen(first)
            return super().__call__(first, *args, **kwargs)

    tokenizer.__class__ = Watched


def assert_rows(table, texts, tokenizer, max_length):
    rows = [
        table.ids[table.starts[row] : table.stops[row]].tolist()
        for row in table.text_of
    ]
    assert rows == tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("error", [None, ValueError()])
def test_settings_are_given_back(tokenizer, padded, error):
    backend = tokenizer.backend_tokenizer
    if padded:
        backend.enable_padding(length=3)
    before = backend.to_str()

    for _ in range(2):
        with contextlib.suppress(ValueError), locked(tokenizer):
            backend.no_padding() if padded else backend.enable_padding()
            backend.enable_truncation(2)
            backend.encode_special_tokens = True
            if error:
                raise error

        assert backend.to_str() == before
        assert not backend.encode_special_tokens
        assert tokenizer.backend_tokenizer is backend  # a copy takes long to make


def test_another_tokenizer_is_not_waited_for(tokenizer, tiny_model, chunks):
    other = AutoTokenizer.from_pretrained(tiny_model)
    ended = []

    def seen(texts):
        """In the midst of a table, wait for a thread with another tokenizer."""
        thread = threading.Thread(target=encode, args=(as_texts(SHORT), other, 5))
        thread.start()
        thread.join(20)
        ended.append(not thread.is_alive())

    watch(tokenizer, seen)
    encode(as_texts(LONG), tokenizer, 16)

    assert ended == [True] * len(LONG)


def test_who_shares_a_tokenizer_waits_for_a_chunk(tokenizer, chunks):
    calls, tables, threads = [], [], []
    before = tokenizer.backend_tokenizer.to_str()

    def shorter():
        tables.append(encode(as_texts(SHORT), tokenizer, 5))

    def seen(texts):
        """In the first call, wait until another thread stands in the queue."""
        calls.extend(texts)
        if len(calls) > 1:
            return
        threads.append(threading.Thread(target=shorter))
        threads[0].start()
        queue, until = turns_of(tokenizer).queue, time.monotonic() + 20
        while queue.acquire(blocking=False):
            queue.release()
            assert time.monotonic() < until
            time.sleep(0.001)

    watch(tokenizer, seen)
    table = encode(as_texts(LONG), tokenizer, 6)
    threads[0].join()

    assert calls == [LONG[0], *SHORT, *LONG[1:]]
    assert tokenizer.backend_tokenizer.to_str() == before
    assert_rows(table, LONG, tokenizer, 6)
    assert_rows(tables[0], SHORT, tokenizer, 5)
    assert table.truncated.tolist() == [
        len(ids) > 6 for ids in tokenizer(LONG, truncation=False)["input_ids"]
    ]


def test_many_threads_with_one_tokenizer(tokenizer, chunks):
    texts = as_texts(LONG)
    alone = {length: encode(texts, tokenizer, length) for length in range(3, 8)}
    found = []

    def work(length):
        found.append((length, encode(texts, tokenizer, length)))

    threads = [threading.Thread(target=work, args=(n,)) for n in [*alone] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == len(threads)
    for length, table in found:
        np.testing.assert_array_equal(table.ids, alone[length].ids)
        np.testing.assert_array_equal(table.truncated, alone[length].truncated)


def test_a_tokenizer_that_is_gone_has_no_locks(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    turns = weakref.ref(turns_of(tokenizer))
    assert turns() is not None
    del tokenizer
    gc.collect()
    assert turns() is None


def test_a_thread_that_is_ended_while_it_waits_holds_nothing(tokenizer):
    class TimeLimitError(Exception):
        pass

    def wait():
        with contextlib.suppress(TimeLimitError), locked(tokenizer):
            pass

    for _ in range(5):
        waiting = threading.Thread(target=wait)
        with locked(tokenizer):
            waiting.start()
            while turns_of(tokenizer).queue.acquire(blocking=False):
                turns_of(tokenizer).queue.release()
                time.sleep(0.01)  # until it waits
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(waiting.ident), ctypes.py_object(TimeLimitError)
            )
        waiting.join(10)
        assert not waiting.is_alive()
        other = threading.Thread(target=wait, daemon=True)
        other.start()
        other.join(10)
        assert not other.is_alive()
