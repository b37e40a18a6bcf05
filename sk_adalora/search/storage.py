"""The storage that a user named: a database or a journal file, opened with care."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

# Optuna locks a journal by a symbolic link, which few users may make on Windows.
_LINKS_ARE_FREE = os.name != "nt"
# Seconds that SQLite waits for another worker's write.
_PATIENCE = 60
# Seconds to wait, again and again, where another program is creating the tables, and
# what an error says then: also that their version stands in its table already.
_WAITS = (0.1, 0.5, 2.0)
_OTHERS_CREATE = ("already exists", "alembic_version")
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
        return storage
    path = os.fspath(storage)
    if "://" not in path:
        return _open_journal(os.path.expanduser(path))
    return _open_database(path)


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
    """Connect to a database, whose tables several programs may create at once."""
    for seconds in _WAITS:
        try:
            return connect()
        except Exception as error:  # of whichever driver
            if not any(words in str(error) for words in _OTHERS_CREATE):
                raise
        time.sleep(seconds)
    return connect()


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
