"""Threads take turns with a tokenizer, and each restores its settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from sk_adalora.runtime.threads import make_lock


class _Turns:
    """The locks of a tokenizer, and its settings before the call that is running.

    Two locks make the turns fair. A thread takes `queue` and waits until `inside` is
    free. So a thread that leaves and comes back is as good as always behind one that
    waited.
    """

    def __init__(self) -> None:
        self.queue, self.inside = make_lock(), make_lock()
        # What the thread inside restores: truncation, padding, special tokens.
        self.found: tuple[Any, Any, bool] | None = None

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for the tokenizer, in a thread that does not hold it yet."""
        with self.queue, self.inside:
            pass
        # Only `with` holds a lock: beside a bare `acquire()`, an exception that another
        # thread or a signal raises here would leave it held for ever.
        with self.inside:
            yield


_turns: WeakKeyDictionary[Any, _Turns] = WeakKeyDictionary()
_lock = make_lock()


@contextmanager
def locked(tokenizer: Any) -> Iterator[None]:
    """Use a tokenizer exclusively, and restore the settings that calls change.

    A fast tokenizer keeps the truncation and the padding of its last call. The thread
    must not hold the tokenizer yet.
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
    """Replace the backend that a thread of the parent was using during a fork.

    The backend has locks of its own: that thread, which the child does not have, still
    holds them.
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
    """Return the locks of a tokenizer; each tokenizer has its own."""
    with _lock:
        if tokenizer not in _turns:
            _turns[tokenizer] = _Turns()
        return _turns[tokenizer]
