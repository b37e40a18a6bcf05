"""Write a folder whole, or not at all, and read it whole, beside other writers."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from ._card import CARD_NAME, OUR_MARK
from ._folder_files import BACKBONE, STATE_NAME

# The hidden folder that a writer fills: "new" is to come, "old" was there.
_SCRATCH = re.compile(r"\..*-[0-9a-f]{16}", re.DOTALL)
_STALE = 24 * 60 * 60  # seconds
# How often to look whether it is our turn to move files, and the seconds between.
_WAITS, _WAIT = 100, 0.05
# How often to read a folder that changes meanwhile: for a second.
_READS = 20
_MOVING = 60  # seconds that no writer takes to move its files
_T = TypeVar("_T")


@contextmanager
def written_whole(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Write to a temporary folder, then put it in place: all of it, or nothing."""
    folder = Path(os.path.abspath(folder))
    with _turn(folder, shared=True):
        _check_vacant(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    stays = folder.exists() and _must_stay(folder)
    beside = folder if stays else folder.parent
    _discard_stale(beside, folder.name)
    # Not by tempfile: on Windows its folders are closed to other users, and files that
    # are moved out of them stay so.
    scratch = beside / f".{folder.name}-{uuid4().hex[:16]}"
    try:
        scratch.mkdir()
        if folder.exists():  # what is closed to others stays so meanwhile
            mode = scratch.stat().st_mode & (folder.stat().st_mode | 0o7700)
            _set_mode(scratch, mode & 0o7777)
        staged = scratch / "new"
        staged.mkdir()
        yield staged
        for path in staged.rglob("*"):
            if path.is_file():  # only the owner may read what safetensors writes
                _set_mode(path, staged.stat().st_mode & 0o666)
        with _turn(folder):
            # Others may have written meanwhile.
            _check_vacant(folder, overwrite)
            exchange = _refill if stays else _exchange
            exchange(staged, folder, scratch / "old")
    finally:
        # If even moving back has failed, `scratch` holds the old files: keep it.
        if not (scratch / "old").exists() or (folder.exists() and not stays):
            _discard(scratch)


def read_whole(folder: Path, read: Callable[[], _T]) -> _T:
    """Return what `read` returns; call it again if a writer came in between.

    Parameters
    ----------
    folder : Path
        What it reads. There need not be any: it may be the name of a repository.
    read : callable
        Raises an error if files are missing, or do not belong together.

    Returns
    -------
    object
    """
    for _ in range(_READS):
        with _turn(folder, shared=True):
            before = _state_of(folder)
            try:
                # No folder for a moment does not mean that there is none.
                if before is not None or not _is_being_moved(folder):
                    return read()
            except (OSError, ValueError):
                if before == _state_of(folder) and not _is_being_moved(folder):
                    raise
        time.sleep(_WAIT)
    return read()


def read_model_whole(model: str | os.PathLike[str], read: Callable[[], _T]) -> _T:
    """Return what `read` returns of a pretrained model, which may lie in such a folder.

    Parameters
    ----------
    model : str or path-like
        Its folder, or its name.
    read : callable
        As that of :func:`read_whole`.

    Returns
    -------
    object
    """
    path = Path(os.path.expanduser(model))
    return read_whole(path.parent, read) if path.name == BACKBONE else read()


def _state_of(folder: Path) -> tuple[int, int] | None:
    """Return what tells one state of a saved folder from the next, if it is there."""
    try:
        status = (folder / STATE_NAME).stat()
    except (OSError, ValueError):  # the latter if there is a NUL in the name
        return None
    return status.st_ino, status.st_mtime_ns


def _is_being_moved(folder: Path) -> bool:
    """Tell whether a writer has just moved away what was there before."""
    folder = Path(os.path.abspath(folder))
    with suppress(OSError):  # moved back meanwhile
        # One that is older was left by a writer that was killed.
        return any(
            (path / "old").exists() and time.time() - path.stat().st_mtime < _MOVING
            for beside in (folder, folder.parent)
            for path in _hidden(beside, folder.name)
        )
    return True


def _set_mode(path: Path, mode: int) -> None:
    """Set the permissions of a file, if its file system has any: FAT has not."""
    with suppress(OSError):
        path.chmod(mode)


def _discard(scratch: Path) -> None:
    """Delete a folder, also when that is interrupted."""
    try:
        shutil.rmtree(scratch, ignore_errors=True)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _must_stay(folder: Path) -> bool:
    """Tell whether a folder must be refilled: others refer to it, not to its name.

    It is the working directory, a mount point, an empty folder made in advance, or one
    that another writer refills. Nor can one be replaced whose parent is closed.
    """
    if os.path.samefile(folder, os.curdir) or os.path.ismount(folder):
        return True
    if not os.access(folder.parent, os.W_OK | os.X_OK):
        return True
    inside = [*folder.iterdir()]
    return not inside or any(map(_is_scratch, inside))


def _is_scratch(path: Path) -> bool:
    """Tell whether a path is the hidden folder of a writer, this or another."""
    if not _SCRATCH.fullmatch(path.name) or path.is_symlink():
        return False
    try:
        return {inside.name for inside in path.iterdir()} <= {"new", "old"}
    except NotADirectoryError:
        return False
    except OSError:  # just deleted by its writer, or closed to others
        return True


def _hidden(beside: Path, name: str) -> list[Path]:
    """Return the hidden folders of those who write the folder of that name."""
    ours = re.compile(rf"\.{re.escape(name)}-[0-9a-f]{{16}}")
    with suppress(OSError, ValueError):  # not there, or closed to others
        return [path for path in beside.iterdir() if ours.fullmatch(path.name)]
    return []


def _discard_stale(beside: Path, name: str) -> None:
    """Delete the hidden folders of writers that died before they moved any file.

    No writer needs a day from one file to the next. What was there before is not
    deleted: it may be all that is left of it.
    """
    for path in _hidden(beside, name):
        with suppress(OSError):  # of another user, or deleted by another writer
            if _is_scratch(path) and not (path / "old").exists():
                inside = [path, *path.rglob("*")]
                if time.time() - max(p.stat().st_mtime for p in inside) > _STALE:
                    _discard(path)


@contextmanager
def _turn(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Let one writer look into a folder and move its files, or readers read them.

    The lock is that of the folder itself, so that no file stays behind. Moving takes
    no time, and reading little: whoever holds it for long is not waited for.
    """
    opened = None
    try:
        # No folder yet, or a file system without locks; or a NUL in the name.
        with suppress(OSError, ValueError):
            while opened is None:
                opened = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
                _lock(opened, shared)
                if not os.path.samestat(os.fstat(opened), os.stat(folder)):
                    os.close(opened)  # replaced by another writer meanwhile
                    opened = None
        yield
    finally:
        if opened is not None:
            _unlock(opened)
            os.close(opened)


def _lock(opened: int, shared: bool) -> None:
    try:
        import fcntl
    except ImportError:  # Windows, where a folder cannot be opened either
        return
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    for _ in range(_WAITS):
        try:
            fcntl.flock(opened, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_WAIT)


def _unlock(opened: int) -> None:
    """Unlock also what a child has open that was forked meanwhile."""
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(opened, fcntl.LOCK_UN)


def _refill(new: Path, folder: Path, old: Path) -> None:
    """Replace the files in a folder that stays; on failure, put the old ones back."""
    old.mkdir()
    moved: list[tuple[Path, Path]] = []
    try:
        for source in [*folder.iterdir()]:
            if not _is_scratch(source):  # another writer's is in use
                moved.append((old / source.name, source))
                source.rename(old / source.name)
        for source in [*new.iterdir()]:
            moved.append((folder / source.name, source))
            source.rename(folder / source.name)
    except BaseException:
        for there, before in reversed(moved):
            # The last may not have been moved.
            if os.path.lexists(there) and not os.path.lexists(before):
                there.rename(before)
        with suppress(OSError):  # somebody wrote a file in the place of an old one
            old.rmdir()
        raise
    _discard(old)


def _exchange(new: Path, folder: Path, old: Path) -> None:
    """Replace a folder by a new one; on failure, put the old one back."""
    if not folder.exists():
        new.rename(folder)
        return
    _set_mode(new, folder.stat().st_mode & 0o7777)
    try:
        folder.rename(old)
        new.rename(folder)
    except BaseException:  # an interrupt may come when either has moved
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise


def _check_vacant(folder: Path, overwrite: bool) -> None:
    """Refuse to replace what is there, except hidden folders of writers."""
    if not (folder.exists() or folder.is_symlink()):
        return
    plain = folder.is_dir() and not folder.is_symlink()
    empty = plain and all(map(_is_scratch, folder.iterdir()))
    ours = plain and _is_ours(folder)
    if empty or (ours and overwrite):
        return
    do = (
        "It is a link: pass what it points to, or choose another path."
        if folder.is_symlink()
        else "Pass overwrite=True to replace it, or choose another path."
        if ours
        else "sk-adalora did not write it, so it is not replaced: choose another path."
    )
    raise FileExistsError(
        f"`folder` must be new or empty. Got {str(folder)!r}, which is not. {do}"
    )


def _is_ours(folder: Path) -> bool:
    if (folder / STATE_NAME).is_file():
        return True
    try:
        card = (folder / CARD_NAME).read_text(encoding="utf8", errors="replace")
    except OSError:
        return False
    return OUR_MARK in card.splitlines()[:5]
