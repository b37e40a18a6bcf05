"""Threads and forked children that use one tokenizer."""

import contextlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from sk_adalora.tokens import tokenize as _tokens
from sk_adalora.tokens.tokenize import encode, locked

TEXTS = [f"the good film {word}" for word in ("one", "two", "three", "four")]


def as_texts(texts):
    return SimpleNamespace(first=pa.array(texts, pa.large_string()), second=None)


@pytest.fixture
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("error", [None, ValueError()])
def test_settings_are_given_back(tokenizer, padded, error):
    backend = tokenizer.backend_tokenizer
    if padded:
        backend.enable_padding(length=3)
        backend.enable_truncation(7)
    before = backend.to_str()

    for _ in range(2):
        with contextlib.suppress(ValueError), locked(tokenizer):
            backend.no_padding() if padded else backend.enable_padding()
            backend.enable_truncation(2)
            if error:
                raise error

        encode(as_texts(TEXTS), tokenizer, 5)
        assert backend.to_str() == before
        assert tokenizer.backend_tokenizer is backend  # a copy takes long to make


@pytest.mark.parametrize("big", [20_000, 0], ids=["memory", "disk"])
def test_many_threads_with_one_tokenizer(tokenizer, monkeypatch, big):
    """Or one would cut its texts where another wants them to be cut."""
    monkeypatch.setattr(_tokens, "_CHUNK", 1)
    monkeypatch.setattr(_tokens, "_BIG", big)
    texts = as_texts(TEXTS)
    lengths = [*range(3, 8)] * 3
    alone = {length: encode(texts, tokenizer, length) for length in range(3, 8)}

    with ThreadPoolExecutor(4) as threads:
        tables = list(threads.map(lambda n: encode(texts, tokenizer, n), lengths))

    for length, table in zip(lengths, tables, strict=True):
        np.testing.assert_array_equal(table.ids, alone[length].ids)
        np.testing.assert_array_equal(table.truncated, alone[length].truncated)


def in_child(work, seconds=20):
    """Run something in a forked child; False where it raises or hangs."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


# Python 3.12 and later warn of what is tested here.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_tokenizer_in_use_can_be_used_in_a_child(tokenizer):
    """It has locks of its own, which stay with the thread that was using it."""
    settings = tokenizer.backend_tokenizer.to_str()
    texts, long = as_texts(["good film"]), as_texts(["the good film " * 100_000])
    ids = encode(texts, tokenizer, 3).ids.tolist()
    read = threading.Thread(target=encode, args=(long, tokenizer, 1_000_000))

    def work():
        assert encode(texts, tokenizer, 3).ids.tolist() == ids
        assert tokenizer.backend_tokenizer.to_str() == settings

    read.start()
    while tokenizer.backend_tokenizer.truncation is None:  # it has not begun
        time.sleep(0.001)
    time.sleep(0.2)  # the library beneath is reading by now
    assert read.is_alive()
    assert in_child(work)
    read.join()
