"""The storage that a user named: a database or a journal file, opened with care."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import (
    BaseStorage,
    InMemoryStorage,
    JournalStorage,
    RDBStorage,
    _CachedStorage,
)
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as NoConnection

from sk_adalora.runtime.messages import warn_user

# Optuna locks a journal by a symbolic link, which few users may make on Windows.
_LINKS_ARE_FREE = os.name != "nt"
# Seconds that SQLite waits for another worker's write.
_PATIENCE = 60
# Seconds to wait, again and again, for what will pass in a moment, and what an error
# says then: that another program is creating the tables, or that a server restarts.
_WAITS = (0.1, 0.5, 2.0)
_PASSING = (
    "already exists",
    "alembic_version",
    "starting up",
    "shutting down",
    "terminating connection",
    "closed the connection",
)
# Seconds for which a database may be away, and between two tries, of which each waits
# twice as long as the one before.
_AWAY = 600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
# What an error says that waiting does not mend.
_LASTING = ("readonly database", "no such table")
# The calls of a storage, and the one that ends a trial.
_CALLS = {name for name in dir(BaseStorage) if not name.startswith("_")}
_ENDS = "set_trial_state_values"
# How a database of SQLite begins, and how a line of a journal.
_SQLITE = b"SQLite format 3\0"
_LINE = b'{"op_code"'


def open_storage(storage: Any) -> BaseStorage:
    """Return where a study is kept.

    None stands for memory, a text with "://" for a database, and another text or a path
    for a journal file.

    Raises
    ------
    ImportError
        If the database needs a driver that is not installed.
    FileNotFoundError
        If the path is that of a folder, or in a folder that does not exist.
    ValueError
        If the path is that of another file, or if the URL is that of no database.
    """
    if storage is None:
        return InMemoryStorage()
    if isinstance(storage, BaseStorage):
        if isinstance(storage, RDBStorage):
            return PatientStorage(storage)
        return storage
    path = os.fspath(storage)
    if "://" not in path:
        return _open_journal(os.path.expanduser(path))
    return PatientStorage(_open_database(path))


def _open_database(text: str) -> RDBStorage:
    scheme = text.partition("://")[0]
    try:
        url = make_url(text)
        has_psycopg_3 = not find_spec("psycopg2") and find_spec("psycopg")
        if scheme == "postgresql" and has_psycopg_3:
            url = url.set(drivername="postgresql+psycopg")
        # A server may have closed a connection during a long fit.
        options: dict[str, Any] = {"pool_pre_ping": True}
        path = _file_of(url)
        if url.get_backend_name() == "sqlite":
            options = {"connect_args": {"timeout": _PATIENCE}}
        if path is not None:
            _check_file(path)
        full = url.render_as_string(hide_password=False)
        storage = _create_tables(partial(RDBStorage, full, engine_kwargs=options))
    except ImportError as error:
        raise ImportError(
            f"`storage` needs a driver for databases of {scheme!r}. Got none that is "
            "installed. For PostgreSQL, run: pip install 'sk-adalora[scale]'"
        ) from error
    except (ArgumentError, ValueError):
        # Without a cause: Optuna's has the whole URL in it, password and all.
        raise ValueError(
            "`storage` must be the URL of a database, or the path of a journal file. "
            f"Got a URL of {scheme!r} that SQLAlchemy does not understand. Pass one "
            "such as 'postgresql://user@host/name' or 'sqlite:///study.db', or a path "
            "without '://'."
        ) from None
    if path is not None and os.access(path, os.W_OK):
        _lock_before_reading(storage)
    return storage


def _file_of(url: Any) -> str | None:
    """Return the path of SQLite's file; None for memory, a URI or another database."""
    file = url.database or ":memory:"
    if url.get_backend_name() != "sqlite" or file.startswith((":", "file:")):
        return None
    return os.path.abspath(file)


def _lock_before_reading(storage: RDBStorage) -> None:
    """Have SQLite lock its file when a transaction begins, as SQLAlchemy documents.

    By itself it locks when the transaction writes first. So two workers could read that
    a trial waits, and both take it.
    """

    @event.listens_for(storage.engine, "connect")
    def leave_beginning_to_us(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(storage.engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()  # connections made before


def _create_tables(connect: Callable[[], RDBStorage]) -> RDBStorage:
    """Connect to a database, whose tables several programs may create at once.

    A server that restarts is tried again. One that is not there may be misspelt.
    """
    for seconds in _WAITS:
        try:
            return connect()
        except Exception as error:  # of whichever driver
            if not any(words in str(error) for words in _PASSING):
                raise
        time.sleep(seconds)
    return connect()


class PatientStorage(_CachedStorage):
    """A database that is waited for while it cannot be reached.

    A call that fails for that is made again, for minutes. So the trials that run go on
    after a restart of the server.

    Parameters
    ----------
    backend : RDBStorage
        The database.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._state = threading.Lock()
        self._gone: float | None = None  # since when, while it is away
        self._gone_at = ""
        self._patience = _AWAY
        # When it was back. Until then, nobody could write a sign of life.
        self.back = -math.inf

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return partial(self._until_reached, found) if name in _CALLS else found

    def hurry(self) -> None:
        """Wait no longer, as when a search is to end."""
        self._patience = 0.0

    def _until_reached(self, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        pause = _FIRST_PAUSE
        while True:
            try:
                result = call(*args, **named)
            except UpdateFinishedTrialError:
                # Only the answer was lost, where an earlier try has ended the trial so.
                ends = pause > _FIRST_PAUSE and call.__name__ == _ENDS
                if not ends or self._backend.get_trial(args[0]).state is not args[1]:
                    raise
                result = True
            except (StorageInternalError, SQLAlchemyError) as error:
                cause = error if isinstance(error, SQLAlchemyError) else error.__cause__
                if not _may_pass(cause):
                    raise
                self._backend.remove_session()  # and roll back what it had begun
                self._note_gone(cause)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            self._note_back()
            return result

    def _note_gone(self, cause: BaseException | None) -> None:
        """Say once that the database is away; raise an error if it is for too long."""
        with self._state:
            is_new = self._gone is None
            if self._gone is None:
                self._gone, self._gone_at = time.monotonic(), time.strftime("%H:%M:%S")
            late = time.monotonic() - self._gone >= self._patience
        text = str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0]
        if late:
            raise ConnectionError(
                "The database of the study must be reachable. Got no answer since "
                f"{self._gone_at}: {text}. Start it, and call `fit` again."
            ) from cause
        if is_new:
            warn_user(
                "The database of the study should be reachable. Got no answer since "
                f"{self._gone_at}, retrying for {_AWAY / 60:.0f} minutes: {text}. "
                "Start it, if it does not come back by itself."
            )

    def _note_back(self) -> None:
        with self._state:
            if self._gone is not None:
                self._gone, self.back = None, time.monotonic()


def _may_pass(error: BaseException | None) -> bool:
    """Tell whether an error is one of a database that may be back later."""
    # The last is raised instead of the first, where Optuna asks a second time.
    passing = (OperationalError, InterfaceError, NoConnection, PendingRollbackError)
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if not (lost or isinstance(error, passing)):
        return False
    return not any(words in str(error) for words in _LASTING)


class _Journal(JournalFileBackend):
    """A journal that removes its last line if a crash has left it incomplete.

    Optuna ignores such a line when it reads, but would append to it when it writes.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write logs, each a line."""
        if _is_torn(self._file_path):
            self._lock.acquire()
            try:
                if _is_torn(self._file_path):  # no other worker is writing it now
                    _cut(self._file_path)
            finally:
                self._lock.release()
        super().append_logs(logs)


def _open_journal(path: str) -> JournalStorage:
    # The lock stands beside the file, for all who come by other links. It is a link
    # itself, which a relative path would break.
    path = os.path.realpath(path)
    _check_file(path)
    if os.path.exists(path):
        with open(path, "rb") as file:
            start = file.read(len(_SQLITE))
        if not _LINE.startswith(start[: len(_LINE)]):
            got, do = "another file", "another path"
            if start == _SQLITE:
                got, do = "a database of SQLite", repr(f"sqlite:///{path}")
            raise ValueError(
                "`storage` must be the path of a journal file, or a URL. Got "
                f"{path!r}, which is {got}. Pass {do}."
            )
    lock = None if _LINKS_ARE_FREE else JournalFileOpenLock(path)
    return JournalStorage(_Journal(path, lock))


def _check_file(path: str) -> None:
    """Refuse the path of a folder, or in a folder that does not exist."""
    is_folder, folder = os.path.isdir(path), os.path.dirname(path)
    if is_folder or not os.path.isdir(folder):
        got = "a folder" if is_folder else f"in {folder!r}, which does not exist"
        do = "Pass the path of a file" if is_folder else "Make that folder"
        raise FileNotFoundError(
            "`storage` must be the path of a journal file, or a URL. Got "
            f"{path!r}, which is {got}. {do}, or choose another path."
        )


def _is_torn(path: str) -> bool:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read() not in (b"", b"\n")


def _cut(path: str) -> None:
    with open(path, "r+b") as file:
        file.truncate(file.read().rfind(b"\n") + 1)
