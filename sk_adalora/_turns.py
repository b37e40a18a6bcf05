"""Threads take turns with a tokenizer, and each leaves its settings as they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from ._forks import make_lock


class _Turns:
    """The locks of a tokenizer, which holds the settings of the call under way.

    `queue` is held by the thread that comes next, and for a moment only by the one that
    is inside: who leaves `inside` and wants it again stands behind the one that waits.
    """

    def __init__(self) -> None:
        self.queue, self.inside = make_lock(), make_lock()

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
    with turns_of(tokenizer).take():
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            yield
            return
        truncation, padding = backend.truncation, backend.padding
        special = backend.encode_special_tokens
        try:
            yield
        finally:
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
        return _turns.setdefault(tokenizer, _Turns())
