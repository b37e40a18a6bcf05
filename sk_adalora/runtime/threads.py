"""Work ahead in a thread, and locks that a forked child does not wait for."""

import os
import threading
from collections.abc import Callable, Generator, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from weakref import WeakValueDictionary

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")

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


def ahead(make: Callable[[_Given], _Made], parts: Iterable[_Given]) -> Generator[_Made]:
    """Make something of each part, in order: of the next one while one is used.

    Parameters
    ----------
    make : callable
        Called in a thread, for one part at a time.
    parts : iterable
        Read in the thread of the caller.

    Yields
    ------
    object
        What `make` returned. Where it raised, that is raised in its turn.
    """
    parts = iter(parts)
    with ThreadPoolExecutor(1, "sk_adalora_ahead") as pool:
        made = following = None
        while True:
            failure = None
            try:
                following = pool.submit(make, next(parts))
            except StopIteration:
                following = None
            except Exception as error:  # what came before it is still used
                following, failure = None, error
            if made is not None:
                yield made.result()
            if failure is not None:
                raise failure
            if following is None:
                return
            made = following
