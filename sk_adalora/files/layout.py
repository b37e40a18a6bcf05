"""The folder of a saved estimator: names of files, and how it is put in place."""

from __future__ import annotations

import os
import re
import reprlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

STATE_NAME = "sk_adalora.json"
HEAD_NAME = "head.safetensors"
ARRAYS_NAME = "arrays.safetensors"
CARD_NAME = "README.md"
BACKBONE = "backbone"
# A card with this line marks its folder as written by sk-adalora.
OUR_MARK = "library_name: sk-adalora"
# An array of labels may take this much memory: each has room for the longest.
MAX_ARRAY_BYTES = 2**28
# The hidden folder that a writer fills: "new" is to come, "old" was there.
_SCRATCH = re.compile(r"\..*-[0-9a-f]{16}", re.DOTALL)


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
    """Write to a temporary folder, then put it in place: all of it, or nothing."""
    folder = Path(os.path.abspath(folder))
    _refuse_other_mover(folder)
    _check_vacant(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    stays = folder.exists() and _must_stay(folder)
    beside = folder if stays else folder.parent
    # Not by tempfile: on Windows its folders are closed to other users, and files that
    # are moved out of them stay so.
    scratch = beside / f".{folder.name}-{uuid4().hex[:16]}"
    new, old = scratch / "new", scratch / "old"
    try:
        scratch.mkdir()
        if folder.exists():  # what is closed to others stays so meanwhile
            mode = scratch.stat().st_mode & (folder.stat().st_mode | 0o7700)
            _set_mode(scratch, mode & 0o7777)
        new.mkdir()
        yield new
        for path in new.glob("*.safetensors"):  # only the owner may read these
            _set_mode(path, new.stat().st_mode & 0o666)
        if stays:
            old.mkdir()
            _refuse_other_mover(folder, old)
        _check_vacant(folder, overwrite)  # others may have written meanwhile
        put_in_place = _refill if stays else _replace
        put_in_place(new, folder, old)
    finally:
        with suppress(OSError):  # not there, or not empty
            old.rmdir()
        # If even moving back has failed, `old` holds the old files: keep it.
        if not old.exists() or (folder.exists() and not stays):
            shutil.rmtree(scratch, ignore_errors=True)


def _set_mode(path: Path, mode: int) -> None:
    """Set the permissions of a file, if its file system has any: FAT has not."""
    with suppress(OSError):
        path.chmod(mode)


def _must_stay(folder: Path) -> bool:
    """Tell whether a folder must be refilled: others refer to it, not to its name.

    It is the working directory, a mount point, an empty folder made in advance, or one
    that another writer refills. Nor can one be replaced whose parent is closed.
    """
    if os.path.samefile(folder, os.curdir) or os.path.ismount(folder):
        return True
    if not os.access(folder.parent, os.W_OK):
        return True
    inside = [*folder.iterdir()]
    return not inside or any(map(_is_scratch, inside))


def _is_scratch(path: Path) -> bool:
    """Tell whether a path is the hidden folder of a writer, this or another."""
    named_so = _SCRATCH.fullmatch(path.name) is not None
    return named_so and path.is_dir() and not path.is_symlink()


def _refuse_other_mover(folder: Path, own: Path | None = None) -> None:
    """Refuse to move files of a folder while another writer does, or died doing it.

    Each makes its `own` before it looks for the others'. So no two go on, though both
    may give up.
    """
    for other in folder.glob(".*/old"):
        if other != own and _is_scratch(other.parent):
            raise FileExistsError(
                "`folder` must not be saved to by two at the same time. Got "
                f"{str(folder)!r} with {str(other)!r}, where another has moved its old "
                "files. Save again when that is done. If none is running, it was "
                "killed: move back the files that you need, and delete that folder."
            )


def _refill(new: Path, folder: Path, old: Path) -> None:
    """Replace the files in a folder that stays; on failure, put the old ones back."""
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
        raise
    shutil.rmtree(old, ignore_errors=True)


def _replace(new: Path, folder: Path, old: Path) -> None:
    """Replace a folder by a new one; on failure, put the old one back."""
    try:
        if folder.exists():
            _set_mode(new, folder.stat().st_mode & 0o7777)
            folder.rename(old)
        new.rename(folder)
    except BaseException:  # an interrupt may come when either has moved
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise


def _check_vacant(folder: Path, overwrite: bool) -> None:
    """Refuse to replace what is there, except hidden folders of writers."""
    if not os.path.lexists(folder):
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
    card = folder / CARD_NAME
    if not card.is_file():
        return False
    return OUR_MARK in card.read_text("utf8", errors="replace").splitlines()[:5]
