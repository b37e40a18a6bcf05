"""Locks that work after a fork: a child has its parent's locks, not its threads."""

import os
import threading
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakSet, WeakValueDictionary

_locks: WeakSet[Any] = WeakSet()
# The locks of things, each as long as a thread has it or waits for it.
_of_things: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()


def make_lock() -> Any:
    """Make a reentrant lock that is free in a forked child, whoever held it."""
    lock = threading.RLock()
    _locks.add(lock)
    return lock


_lock = make_lock()


def lock_of(thing: Hashable) -> Any:
    """Return the lock of one thing, so that threads wait only for others that use it.

    Equal things have one lock.
    """
    with _lock:
        lock = _of_things.get(thing)
        if lock is None:
            lock = _of_things[thing] = make_lock()
        return lock


def in_children(call: Callable[[], None]) -> None:
    """Have something called in each child, once its locks are free."""
    if hasattr(os, "register_at_fork"):  # Windows does not fork
        os.register_at_fork(after_in_child=call)


def _free() -> None:
    for lock in _locks:
        if lock.acquire(blocking=False):  # free, or held by the thread that lives on
            lock.release()
        else:
            lock._at_fork_reinit()  # as the standard library does it


in_children(_free)
