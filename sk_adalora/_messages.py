"""What users see: warnings, bars that show progress, other libraries kept silent."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from ._locks import in_children, make_lock
from .adalora.messages import warn_user as warn_user


class _NoBar:
    """Stands in for a progress bar that nobody asked for.

    Even a disabled bar of tqdm starts a thread, and makes a lock that fixes the start
    method of `multiprocessing`.
    """

    disable = True
    n = 0

    def update(self, n: int = 1) -> None: ...
    def set_postfix(self, *args: Any, **shown: Any) -> None: ...
    def close(self) -> None: ...


def progress_bar(total: int, verbose: int, desc: str, unit: str) -> Any:
    """Make a bar of tqdm, to be closed by the caller, or a stand-in that shows nothing.

    Parameters
    ----------
    total : int
        Units until the end.
    verbose : int
        Whether to show it.
    desc, unit : str
        What is done, and the name of one unit.

    Returns
    -------
    tqdm.tqdm
    """
    if not verbose:
        return _NoBar()
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=desc, unit=unit)


class Muted:
    """Keeps a library silent as long as one of several threads asks for it.

    Parameters
    ----------
    mute : callable
        Returns a context manager in which the library is silent.
    """

    def __init__(self, mute: Callable[[], AbstractContextManager[None]]) -> None:
        self._mute = mute
        self._muting = ExitStack()
        self._lock = make_lock()
        self._inside: list[tuple[int, object]] = []  # open blocks and their threads
        in_children(self._leave_dead_threads)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Keep the library silent in a `with` block."""
        block = (threading.get_ident(), object())
        # All of it inside `try`: a time limit may be raised between any two lines.
        try:
            with self._lock:
                self._inside.append(block)
                if len(self._inside) == 1:
                    self._muting.enter_context(self._mute())
            yield
        finally:
            with self._lock:
                self._leave(block)

    def _leave(self, *blocks: tuple[int, object]) -> None:
        self._inside = [block for block in self._inside if block not in blocks]
        if not self._inside:
            self._muting.close()

    def _leave_dead_threads(self) -> None:
        """Close the blocks of threads that do not exist in a forked child."""
        alive = threading.get_ident()
        self._leave(*(block for block in self._inside if block[0] != alive))
