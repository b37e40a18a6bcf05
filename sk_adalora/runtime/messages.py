"""What users see: warnings, bars that show progress, other libraries kept silent."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from sk_adalora.adalora.messages import warn_user as warn_user

from .threads import lock_of


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


def progress_bar(total: int | None, verbose: int, desc: str, unit: str) -> Any:
    """Make a bar of tqdm, for the caller to close, or a stand-in that shows nothing.

    Where nobody knows the `total`, None.
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


def announce(verbose: int, text: str) -> None:
    """Say what is done now, if that was asked for with `verbose`."""
    if verbose:
        write_lines(text)


class Muted:
    """Keeps a library silent as long as one of several threads asks for it.

    Parameters
    ----------
    read : callable
        Returns the library's setting.
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
        self._wanted: Any = None  # the user's setting, while blocks are open
        self._n_open = 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Keep the library silent in a `with` block."""
        with lock_of(self):
            if self._n_open == 0:
                self._wanted = self._read()
                self._write(self._silence(self._wanted))
            self._n_open += 1
        try:
            yield
        finally:
            with lock_of(self):
                self._n_open -= 1
                if self._n_open == 0:
                    self._write(self._wanted)
