"""Where the trials of a search are kept: opening, resuming and copying studies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from ._messages import Muted
from ._search_fingerprint import check_same
from ._search_marks import FINGERPRINT, FIRST, WORKER

# Optuna locks a journal by a symbolic link, which few users may make on Windows.
_LINKS_ARE_FREE = os.name != "nt"
# Seconds that SQLite waits for another worker's write.
_PATIENCE = 60
# Seconds to wait, again and again, where another program is creating the tables.
_WAITS = (0.1, 0.5, 2.0)
# How a database of SQLite begins, and how a line of a journal.
_SQLITE = b"SQLite format 3\0"
_LINE = b'{"op_code"'


class SearchStudy(optuna.Study):
    """A study whose `stop` works in the callbacks of a search."""

    stopped = False

    def stop(self) -> None:
        """Ask the search, or Optuna's `optimize`, for no further trial."""
        self.stopped = True
        with suppress(RuntimeError):  # Optuna's own knows of `optimize` only
            super().stop()


def open_storage(storage: Any) -> BaseStorage:
    """Return where a study is kept.

    Parameters
    ----------
    storage : None, str, path-like or BaseStorage
        None stands for memory, a text with "://" for a database, and another text or
        a path for a journal file.

    Returns
    -------
    BaseStorage

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


def _open_database(url: str) -> RDBStorage:
    scheme = url.partition("://")[0]
    if scheme == "postgresql" and not find_spec("psycopg2") and find_spec("psycopg"):
        url = url.replace(scheme, "postgresql+psycopg", 1)
    # A server may have closed a connection during a long fit.
    options: dict[str, Any] = {"pool_pre_ping": True}
    if scheme == "sqlite":
        file = url.partition(":///")[2].partition("?")[0]
        if file and not file.startswith((":", "file:")):  # in memory, or a URI
            _check_file(os.path.abspath(file))
        options = {"connect_args": {"timeout": _PATIENCE}}
    try:
        return _create_tables(partial(RDBStorage, url, engine_kwargs=options))
    except ImportError as error:
        raise ImportError(
            f"`storage` needs a driver for databases of {scheme!r}. Got none that is "
            "installed. For PostgreSQL, run: pip install 'sk-adalora[scale]'"
        ) from error
    except Exception as error:
        if not _is_about_url(error):
            raise
        # Not `from error`: older releases put the whole URL in it, password and all.
        raise ValueError(
            "`storage` must be the URL of a database, or the path of a journal file. "
            f"Got a URL of {scheme!r} that SQLAlchemy does not understand. Pass one "
            "such as 'postgresql://user@host/name' or 'sqlite:///study.db', or a path "
            "without '://'."
        ) from None


def _create_tables(connect: Callable[[], RDBStorage]) -> RDBStorage:
    """Connect to a database, whose tables several programs may create at once."""
    for seconds in _WAITS:
        try:
            return connect()
        except Exception as error:  # of whichever driver
            if "already exists" not in str(error):
                raise
        time.sleep(seconds)
    return connect()


def _is_about_url(error: Exception) -> bool:
    """Tell whether SQLAlchemy, which Optuna brings, cannot read or place a URL."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return not kinds.isdisjoint({"ArgumentError", "ValueError"})


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
    path = os.path.abspath(path)  # a relative path would break the lock, a link
    _check_file(path)
    if os.path.exists(path):
        with open(path, "rb") as file:
            start = file.read(len(_SQLITE))
        line = start[: len(_LINE)]
        if line != _LINE[: len(line)]:
            database = start == _SQLITE
            raise ValueError(
                "`storage` must be the path of a journal file, or a URL. Got "
                f"{path!r}, which is {'a database of SQLite' if database else 'none'}. "
                f"Pass {f'sqlite:///{path}' if database else 'another path'!r}."
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


def open_study(
    storage: BaseStorage,
    name: str | None,
    pruner: BasePruner,
    *,
    load_if_exists: bool,
) -> tuple[SearchStudy, bool]:
    """Create a study, or load it.

    Parameters
    ----------
    storage : BaseStorage
        Where it is kept.
    name : str or None
        Its name. None stands for a new one.
    pruner : BasePruner
        What stops its trials.
    load_if_exists : bool
        Whether to go on with a study of that name.

    Returns
    -------
    study, created : SearchStudy, bool

    Raises
    ------
    ValueError
        If the study exists and may not be loaded, or if it is of another kind.
    """
    try:
        created = optuna.create_study(
            storage=storage, study_name=name, direction="maximize"
        )
    except optuna.exceptions.DuplicatedStudyError:
        if not load_if_exists:
            raise ValueError(
                f"`study_name` must be new with load_if_exists=False. Got {name!r}, "
                "which the storage has. Choose another, or go on with that study by "
                "load_if_exists=True."
            ) from None
        return load_study(storage, name, pruner), False
    return SearchStudy(created.study_name, storage, pruner=pruner), True


def load_study(
    storage: BaseStorage,
    name: str | None,
    pruner: BasePruner | None = None,
) -> SearchStudy:
    """Load a study.

    Parameters
    ----------
    storage, name, pruner : BaseStorage, str, BasePruner
        As in :func:`open_study`.

    Returns
    -------
    SearchStudy

    Raises
    ------
    ValueError
        If there is no such study, or if lower values are better in it.
    """
    names = optuna.get_all_study_names(storage)
    if name not in names:
        raise ValueError(
            f"The study must be in the storage. Got {name!r}, and the storage has "
            f"{names[:20]}. Choose one of them."
        )
    study = SearchStudy(str(name), storage, pruner=pruner)
    check_directions(study)
    return study


def check_directions(study: optuna.Study) -> None:
    """Refuse a study of several values, or of one of which less is better.

    Parameters
    ----------
    study : optuna.Study
        The study.

    Raises
    ------
    ValueError
        If it is one.
    """
    if study.directions != [StudyDirection.MAXIMIZE]:
        raise ValueError(
            "A study must have one value, of which more is better, as scikit-learn's "
            f"scores have it. Got {study.study_name!r} with "
            f"{[direction.name.lower() for direction in study.directions]}. Choose "
            "another study."
        )


def bind(study: optuna.Study, fingerprint: Mapping[str, Any]) -> None:
    """Tie a study to what it is made with, or check that it is the same.

    Parameters
    ----------
    study : optuna.Study
        The study.
    fingerprint : mapping of str to object
        Of the search.

    Raises
    ------
    ValueError
        If the study was made with something else.
    """
    # Read first: what another worker has evaluated since then, it has tied before.
    trials = study.get_trials(deepcopy=False)
    stored = study.user_attrs.get(FINGERPRINT)
    if stored is not None:
        check_same(stored, fingerprint, study.study_name)
        return
    if any(t.state.is_finished() for t in trials):
        raise ValueError(
            f"The study {study.study_name!r} must be one of AdaLoraSearchCV's to go on "
            "with it. Got one with trials that something else has scored, or that were "
            "added to it. Choose another `study_name`, with what was best there as "
            "`enqueue`, or refit its best trial with `AdaLoraSearchCV.from_study`."
        )
    study.set_user_attr(FINGERPRINT, dict(fingerprint))


def queue(study: optuna.Study, points: Sequence[Mapping[str, Any]]) -> None:
    """Put settings first in line, but for those that are in it.

    Parameters
    ----------
    study : optuna.Study
        The study.
    points : sequence of dict
        Values of trials.
    """
    trials = study.get_trials(deepcopy=False)
    places = {trial.user_attrs.get(FIRST) for trial in trials}
    for place, point in enumerate(points):
        if place not in places:
            study.enqueue_trial(dict(point), user_attrs={FIRST: place})


def is_new(study: optuna.Study) -> bool:
    """Tell whether no search has begun, and nobody else has queued anything.

    Parameters
    ----------
    study : optuna.Study
        A study that exists: whoever created it may have died before it queued all.

    Returns
    -------
    bool
    """
    trials = study.get_trials(deepcopy=False)
    bound = FINGERPRINT in study.user_attrs
    return not bound and all(FIRST in trial.user_attrs for trial in trials)


def in_memory(
    trials: Sequence[FrozenTrial],
    name: str,
    attributes: Mapping[str, Any],
    storage: InMemoryStorage | None = None,
) -> optuna.Study:
    """Make a study of trials that needs no storage.

    Parameters
    ----------
    trials : sequence of FrozenTrial
        All trials of a study, by number.
    name : str
        The study's name.
    attributes : mapping of str to object
        Its user attributes.
    storage : InMemoryStorage or None, default=None
        Where to put it. None stands for a storage of its own.

    Returns
    -------
    optuna.Study
    """
    with silent_optuna():
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize"
        )
    study.add_trials(trials)
    for key, value in attributes.items():
        study.set_user_attr(key, value)
    return study


def record_of(study: optuna.Study) -> tuple[str, dict[str, Any]]:
    """Return a study's name and attributes, but not where its workers ran.

    Parameters
    ----------
    study : optuna.Study
        The study.

    Returns
    -------
    name, attributes : str, dict
    """
    attributes = study.user_attrs.items()
    kept = {key: value for key, value in attributes if not key.startswith(WORKER)}
    return study.study_name, kept


@contextmanager
def _mute_optuna() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    try:
        optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
        yield
    finally:
        optuna.logging.set_verbosity(before)


# Keeps Optuna from logging each trial.
silent_optuna = Muted(_mute_optuna)
