"""Where a study is kept: opened, waited for, and shown without its password."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
)
from sqlalchemy.exc import TimeoutError as NoConnection

from sk_adalora.runtime.messages import warn_user

# The scheme of a URL, which is longer than the letter of a drive.
_SCHEME = re.compile(r"[a-z][\w+.-]+:/", re.IGNORECASE)
# The password in a URL: up to its last "@", or in its query, whose values may be
# settings in their turn, as ODBC's are.
_PASSWORD = re.compile(
    r"(:/+[^:/]*:).+(?=@)|((?:password|passwd|pwd|token|secret)(?:=|%3D))[^&]+",
    re.IGNORECASE | re.DOTALL,
)
# Seconds for which a database may be away: in a search, and when it begins, as an
# address may be misspelt.
_AWAY, _AWAY_AT_FIRST = 600.0, 60.0
# Seconds between two tries, of which each waits twice as long as the one before.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
# Errors of a database that restarts. The last are raised in place of the first, where
# a connection is used a second time or none is free.
_RESTARTS = (OperationalError, InterfaceError, PendingRollbackError, NoConnection)


class StorageURL(str):
    """The URL of a storage. Its text, its repr and its pickle hide the password."""

    def __str__(self) -> str:
        return _PASSWORD.sub(r"\1\2***", self[:])

    def __repr__(self) -> str:
        return repr(str(self))

    def __deepcopy__(self, memo: Any) -> StorageURL:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self),)


def open_storage(storage: Any) -> BaseStorage:
    """Return where a study is kept.

    None stands for memory, a URL for a database, and another text or a path for a
    journal file.

    Raises
    ------
    ImportError
        If the database needs a driver that is not installed.
    ConnectionError
        If the database cannot be reached.
    ValueError
        If it is the path of another file, or a URL of no database.
    """
    if storage is None:
        return InMemoryStorage()
    if isinstance(storage, BaseStorage):
        return storage
    text = os.fspath(storage)[:]
    if _SCHEME.match(text):
        return _open_database(text)
    # Optuna locks a journal by a symbolic link beside it, which a relative path would
    # break, and which few users may make on Windows.
    path = os.path.abspath(os.path.expanduser(text))
    if os.path.isfile(path):
        with open(path, "rb") as file:
            if file.read(1) not in (b"", b"{"):
                raise ValueError(
                    "`storage` must be the path of a journal file, or a URL. Got "
                    f"{path!r}, which is another file. Pass another path, or "
                    "'sqlite:///PATH' for a database of SQLite."
                )
    lock = JournalFileOpenLock(path) if os.name == "nt" else None
    return JournalStorage(JournalFileBackend(path, lock))


def _open_database(url: str) -> RDBStorage:
    is_file = url.startswith("sqlite")
    try:
        return until_reached(
            RDBStorage,
            url,
            # A server may have closed a connection during a long fit.
            engine_kwargs={"pool_pre_ping": True},
            seconds=0.0 if is_file else _AWAY_AT_FIRST,
            passing=(DBAPIError,),  # also if another process makes the tables just now
        )
    except ImportError as error:
        raise ImportError(
            f"`storage` needs a driver for {str(StorageURL(url))!r}. Got none that is "
            "installed. For PostgreSQL, run: pip install 'sk-adalora[scale]', and pass "
            "'postgresql+psycopg://...'."
        ) from error
    except (ArgumentError, ValueError):
        # Without a cause: its text may have the whole URL in it, password and all.
        raise ValueError(
            "`storage` must be the URL of a database, or the path of a journal file. "
            f"Got {str(StorageURL(url))!r}, which SQLAlchemy does not understand. Pass "
            "one such as 'postgresql+psycopg://user@host/name' or "
            "'sqlite:///study.db'."
        ) from None


def until_reached(
    call: Callable[..., Any],
    *args: Any,
    seconds: float = _AWAY,
    passing: tuple[type[Exception], ...] = _RESTARTS,
    **named: Any,
) -> Any:
    """Call something that uses a study, and again while its database is away.

    What is called may be under way when the database stops, and is then repeated as a
    whole: it must be the same to do it twice.

    Parameters
    ----------
    call : callable
        Called with `args` and `named`.
    seconds : float, default=600
        For how long a database may be away.
    passing : tuple of type, default=those of a database that restarts
        Errors of SQLAlchemy after which to try again.

    Raises
    ------
    ConnectionError
        If the database stays away.
    """
    pause, deadline = _FIRST_PAUSE, 0.0
    expected: tuple[type[Exception], ...] = (StorageInternalError, *passing)
    while True:
        try:
            return call(*args, **named)
        except expected as error:
            cause = error if isinstance(error, passing) else error.__cause__
            if not isinstance(cause, passing):
                raise
            got = str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0]
            if not deadline:
                deadline = time.monotonic() + seconds
                if seconds:
                    warn_user(
                        "The database of the study should be reachable. Got "
                        f"{got!r}. Trying again for {seconds / 60:.0f} min. Start it, "
                        "if it does not come back by itself."
                    )
            elif time.monotonic() >= deadline:
                raise ConnectionError(
                    "The database of the study must be reachable. Got "
                    f"{got!r} for {seconds / 60:.0f} min. Check that it runs, and the "
                    "address, the user and the password in `storage` (a pickle has no "
                    "password). Then call `fit` again: it goes on."
                ) from cause
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
