"""What users see: warnings, bars that show progress, other libraries kept silent."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from traceback import walk_stack
from types import FrameType
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


def write_lines(text: str) -> None:
    """Write what was asked for with `verbose`, where progress bars are shown too."""
    from tqdm.auto import tqdm

    # To stderr, like the bars: stdout is left to what the program prints.
    tqdm.write(text, file=sys.stderr)


class Muted:
    """Keeps a library silent as long as one of several threads asks for it.

    An interrupt or a time limit may be raised between any two lines, those that end a
    `with` block included. So the user's setting stays here until it is restored, and
    blocks close others whose end was cut off: those with a `with` statement in a frame
    that no thread is in. It must not be that of a generator, which may be waiting.

    Parameters
    ----------
    read : callable
        Returns the library's setting, which is not None.
    write : callable
        Called with a setting, to make it the library's.
    silence : callable
        Called with the user's setting; returns the one to be silent with.
    """

    def __init__(
        self,
        read: Callable[[], Any],
        write: Callable[[Any], object],
        silence: Callable[[Any], Any],
    ) -> None:
        self._read = read
        self._write = write
        self._silence = silence
        self._wanted: Any = None  # the user's setting, as long as another may be set
        self._lock = make_lock()
        self._open: dict[object, FrameType] = {}  # blocks, and where they are
        in_children(self._close_ended)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Keep the library silent in a `with` block."""
        block = object()
        try:
            try:
                # The frame of the `with` statement: that of contextlib is between.
                self._begin(block, sys._getframe(2))
                yield
            finally:
                self._end(block)
        finally:  # again, as something may have been raised in the other call
            self._end(block)

    def _begin(self, block: object, frame: FrameType) -> None:
        with self._lock:
            self._close_ended()
            self._open[block] = frame
            self._update()

    def _end(self, block: object) -> None:
        with self._lock:
            self._open.pop(block, None)
            self._close_ended()

    def _close_ended(self) -> None:
        """Close blocks that were cut off, or whose threads a forked child lacks."""
        if self._open:
            running = _running_frames()
            for block, frame in [*self._open.items()]:
                if id(frame) not in running:
                    self._open.pop(block, None)
        self._update()

    def _update(self) -> None:
        """Be silent if a block is open, and as the user wants if none is."""
        if self._open and self._wanted is None:
            self._wanted = self._read()
            self._write(self._silence(self._wanted))
        elif not self._open and self._wanted is not None:
            self._write(self._wanted)
            self._wanted = None


def _running_frames() -> set[int]:
    """Return the ids of the frames that threads are in.

    The frames themselves would keep their variables for long, this one's among them.
    """
    return {
        id(frame)
        for top in sys._current_frames().values()
        for frame, _ in walk_stack(top)
    }
