"""The folder of a saved estimator: names of files, and how it is put in place."""

from __future__ import annotations

import os
import re
import reprlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

if sys.platform != "win32":
    import fcntl

STATE_NAME = "sk_adalora.json"
HEAD_NAME = "head.safetensors"
ARRAYS_NAME = "arrays.safetensors"
CARD_NAME = "README.md"
BACKBONE = "backbone"
# A card with this line marks its folder as written by sk-adalora.
OUR_MARK = "library_name: sk-adalora"
# An array of labels may take this much memory: each has room for the longest.
MAX_ARRAY_BYTES = 2**28
# The hidden folder of a writer, and what may be in it: "new" is to come; "old", once it
# has this name, is all that was there; "moving" says that files are being replaced.
_SCRATCH = re.compile(r"\..*-[0-9a-f]{16}", re.DOTALL)
_NEW, _KEPT, _OLD, _GONE, _MOVING = "new", "kept", "old", "gone", "moving"


def broken(must: str, got: Any) -> ValueError:
    """Return the error about a part of ``sk_adalora.json``."""
    return ValueError(
        f"{STATE_NAME} must {must}. Got {reprlib.repr(got)}. The file is broken, or "
        "was changed: copy the folder again."
    )


def refuse_links(folder: Path, root: Path, mark: str = STATE_NAME) -> None:
    """Refuse links to what lies outside of `root`, in a folder with a file `mark`."""
    if not os.path.lexists(folder / mark):
        return  # it is none of ours, and reading that file will raise the error
    # Not by `rglob`, which fails where a writer deletes its hidden folder meanwhile.
    for inside, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.realpath(os.path.join(inside, name))
            if not Path(path).is_relative_to(root):
                raise ValueError(
                    f"The files must lie in the folder. Got {name!r}, which links to "
                    "a place outside. Replace the link by the file."
                )


# ---- written whole, or not at all -------------------------------------------


@contextmanager
def written_whole(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Write to a temporary folder, then put it in place: all of it, or nothing.

    A folder that is there stays, and its files are replaced: others may refer to it, as
    to a working directory or a mount point, and its parent may be closed. A process
    that is killed meanwhile leaves what :func:`settled` finds.
    """
    folder = Path(os.path.abspath(folder))
    _check_vacant(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    stays = folder.exists()
    # Not by tempfile: on Windows its folders are closed to other users, and files that
    # are moved out of them stay so.
    beside = folder if stays else folder.parent
    scratch = beside / f".{folder.name}-{uuid4().hex[:16]}"
    new = scratch / _NEW
    try:
        scratch.mkdir()
        with _held(scratch):
            if stays:  # what is closed to others stays so meanwhile
                mode = scratch.stat().st_mode & (folder.stat().st_mode | 0o7700)
                _set_mode(scratch, mode & 0o7777)
            new.mkdir()
            with _named_errors(scratch, folder):
                yield new
            for path in new.glob("*.safetensors"):  # only the owner may read these
                _set_mode(path, new.stat().st_mode & 0o666)
            _put_in_place(new, folder, stays, overwrite)
    finally:
        if not (scratch / _OLD).exists():  # else even putting back has failed
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _named_errors(scratch: Path, folder: Path) -> Iterator[None]:
    """Have errors of the system, such as of a full disk, name the user's folder.

    safetensors and tokenizers tell their number in a text, Python's writers no path.
    """
    try:
        yield
    except Exception as error:
        told = re.search(r"\(os error (\d+)\)", str(error))
        number = int(told[1]) if told else getattr(error, "errno", None)
        path = getattr(error, "filename", None)
        ours = path is None or Path(str(path)).is_relative_to(scratch)
        if number is None or not ours:
            raise
        full = OSError(number, os.strerror(number), str(folder))
        full.add_note(
            "Make room there, or choose another `folder`. What was there is unchanged."
        )
        raise full from error


def settled(folder: Path) -> Path:
    """Return where the files of a folder are whole: it, or what a writer keeps of it.

    That is so while a writer replaces them, and after it was killed doing so.
    """
    return next(filter(is_kept, folder.glob(f".*/{_OLD}")), folder)


def is_kept(folder: Path) -> bool:
    """Tell whether a folder is what a writer keeps of another one."""
    return folder.name == _OLD and _is_scratch(folder.parent)


def _set_mode(path: Path, mode: int) -> None:
    """Set the permissions of a file, if its file system has any: FAT has not."""
    with suppress(OSError):
        path.chmod(mode)


def _is_scratch(path: Path) -> bool:
    """Tell whether a path is the hidden folder of a writer, this or another."""
    named_so = _SCRATCH.fullmatch(path.name) is not None
    return named_so and path.is_dir() and not path.is_symlink()


@contextmanager
def _held(scratch: Path) -> Iterator[bool]:
    """Lock a hidden folder for as long as this process lives; tell whether that went.

    It does not where another holds it, and where there are no such locks: on Windows.
    """
    if sys.platform == "win32":
        yield False
        return
    handle = os.open(scratch, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _put_in_place(new: Path, folder: Path, stays: bool, overwrite: bool) -> None:
    """Rename what is new to a folder, or move it into one, where no other does."""
    scratch = new.parent
    if stays:
        (scratch / _MOVING).mkdir()  # before looking for others, who do the same
        _sweep(folder, ".*", scratch)
        _check_vacant(folder, overwrite)  # others may have written meanwhile
        _refill(new, folder, scratch)
    else:
        _sweep(folder.parent, f".{escape(folder.name)}-*", scratch)
        _check_vacant(folder, overwrite=False)
        new.rename(folder)


def _sweep(beside: Path, names: str, own: Path) -> None:
    """Remove the hidden folders of killed writers, and put back what one has kept.

    Refuse to go on beside another writer that moves files.
    """
    for other in [*beside.glob(names)]:
        if other == own or not _is_scratch(other):
            continue
        with suppress(FileNotFoundError), _held(other) as is_dead:  # it may just end
            if is_dead:
                if (other / _OLD).exists():
                    _put_back(beside, other)
                shutil.rmtree(other, ignore_errors=True)
            elif (other / _MOVING).exists():
                raise FileExistsError(
                    "`folder` must not be saved to by two at the same time. Got "
                    f"{str(beside)!r} with {str(other)!r}, where another keeps its old "
                    "files. Save again when that is done. If none is running, move "
                    f"what is in its {_OLD!r} back, and delete it."
                )


def _refill(new: Path, folder: Path, scratch: Path) -> None:
    """Replace the files in a folder; on failure, put the old ones back."""
    kept, old = scratch / _KEPT, scratch / _OLD
    _copy(folder, kept)
    try:
        kept.rename(old)
        _clear(folder)
        for source in [*new.iterdir()]:
            source.rename(folder / source.name)
        old.rename(scratch / _GONE)
    except BaseException:  # an interrupt may also come when all is done
        if old.exists():
            _put_back(folder, scratch)
        raise


def _put_back(folder: Path, scratch: Path) -> None:
    """Have a folder hold again what a writer has kept of it.

    Until that is done, it is kept: this may be stopped, and begun again.
    """
    _clear(folder)
    _copy(scratch / _OLD, folder)
    (scratch / _OLD).rename(scratch / _GONE)


def _clear(folder: Path) -> None:
    """Delete what is in a folder, except hidden folders of writers: they are in use."""
    for path in [*folder.iterdir()]:
        if path.is_dir() and not path.is_symlink():
            if not _is_scratch(path):
                shutil.rmtree(path)
        else:
            path.unlink()


def _copy(folder: Path, target: Path) -> None:
    """Give a folder's files a second name in another one."""

    def of_writers(inside: str, names: list[str]) -> list[str]:
        top = Path(inside) == folder
        return [name for name in names if top and _is_scratch(folder / name)]

    shutil.copytree(
        folder,
        target,
        symlinks=True,
        ignore=of_writers,
        copy_function=_link,
        dirs_exist_ok=True,
    )


def _link(source: str, target: str) -> None:
    """Give a file a second name, or make a second file where it can have one only."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _check_vacant(folder: Path, overwrite: bool) -> None:
    """Refuse to replace what is there, except hidden folders of writers."""
    if not os.path.lexists(folder):
        return
    plain = folder.is_dir() and not folder.is_symlink()
    whole = settled(folder) if plain else folder
    empty = plain and all(map(_is_scratch, whole.iterdir()))
    ours = plain and _is_ours(whole)
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
    card = folder / CARD_NAME
    if not card.is_file():
        return False
    return OUR_MARK in card.read_text("utf8", errors="replace").splitlines()[:5]
