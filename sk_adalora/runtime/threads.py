"""Locks that a forked child does not wait for: it has none of its parent's threads."""

import os
import threading
from collections.abc import Hashable
from typing import Any
from weakref import WeakValueDictionary

# The locks of things, each as long as a thread has it or waits for it.
_locks: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
_guard = threading.Lock()


def lock_of(thing: Hashable) -> Any:
    """Return the reentrant lock of one thing; equal things have one lock."""
    with _guard:
        lock = _locks.get(thing)
        if lock is None:
            lock = _locks[thing] = threading.RLock()
        return lock


def _forget() -> None:
    """Have new locks in a child: those that other threads held are never released."""
    global _guard
    _guard = threading.Lock()
    _locks.clear()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_forget)
