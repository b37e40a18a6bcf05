"""Warnings that point to the user's own line; other libraries kept silent."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import joblib
import sklearn

from ._forks import in_children, make_lock

# Folders of code between the user's line and a warning: this package and its callers.
_BETWEEN = (
    *(str(Path(m.__file__).parent) + os.sep for m in (sklearn, joblib)),
    str(Path(__file__).parent) + os.sep,
    contextlib.__file__,
)


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called the library, however deep in it the cause is.

    Parameters
    ----------
    message : str
        What is wrong, what was given, what to do.
    category : type of Warning, default=UserWarning
        Kind of warning.
    """
    level = 2
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_BETWEEN):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


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
