"""Threads take turns with a tokenizer, and each leaves its settings as they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from ._forks import make_lock


class _Turns:
    """The locks of a tokenizer, which holds the settings of the call under way.

    Two locks make the turns fair. A thread takes `queue`, waits for `inside`, and then
    frees `queue`. So one that leaves and comes back stands behind one that waited.
    """

    def __init__(self) -> None:
        self.queue, self.inside = make_lock(), make_lock()
        # What the thread inside gives back: truncation, padding, special tokens.
        self.found: tuple[Any, Any, bool] | None = None

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for the tokenizer, in a thread that has not got it yet."""
        with self.queue:
            self.inside.acquire()
        try:
            yield
        finally:
            self.inside.release()


_turns: WeakKeyDictionary[Any, _Turns] = WeakKeyDictionary()
_lock = make_lock()


@contextmanager
def same_settings(tokenizer: Any) -> Iterator[None]:
    """Have a tokenizer alone, and undo what calling it changes.

    Truncation and padding stick to a fast tokenizer.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A tokenizer that this thread has not got yet.
    """
    turns = turns_of(tokenizer)
    with turns.take():
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            yield
            return
        if turns.found is not None:
            _renew(tokenizer)
            _give_back(tokenizer.backend_tokenizer, *turns.found)
        backend = tokenizer.backend_tokenizer
        special = backend.encode_special_tokens
        turns.found = backend.truncation, backend.padding, special
        try:
            yield
        finally:
            _give_back(backend, *turns.found)
            turns.found = None


def _renew(tokenizer: Any) -> None:
    """Copy what a thread was using that a forked child has not got.

    The library beneath has locks of its own, which still belong to that thread.
    """
    backend = tokenizer.backend_tokenizer
    tokenizer._tokenizer = type(backend).from_str(backend.to_str())


def _give_back(backend: Any, truncation: Any, padding: Any, special: bool) -> None:
    if truncation is None:
        backend.no_truncation()
    else:
        backend.enable_truncation(**truncation)
    if padding is None:
        backend.no_padding()
    else:
        backend.enable_padding(**padding)
    backend.encode_special_tokens = special


def turns_of(tokenizer: Any) -> _Turns:
    """Return the locks of a tokenizer: one does not wait for another's."""
    with _lock:
        if tokenizer not in _turns:
            _turns[tokenizer] = _Turns()
        return _turns[tokenizer]
