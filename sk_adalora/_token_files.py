"""Temporary files of token ids: written, mapped into memory, and deleted."""

import atexit
import secrets
import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pyarrow as pa

from ._locks import in_children

# Temporary folders of this process, and those that are to go as soon as that can be.
_made: set[Path] = set()
_left: set[Path] = set()


def free_folder() -> Path:
    """Return a name for a temporary folder, which :func:`make_folder` makes.

    `tempfile.mkdtemp` makes a folder that nobody knows of if it is interrupted.
    """
    name = f"sk_adalora_tokens_{secrets.token_hex(8)}"
    return Path(tempfile.gettempdir(), name).absolute()


def make_folder(folder: Path) -> None:
    """Make a folder that goes at the latest when Python ends."""
    _made.add(folder)
    folder.mkdir(0o700)


def write_and_map(column: pa.ChunkedArray, folder: Path) -> np.ndarray:
    """Write the values of a list column; `folder` is deleted as soon as it can be.

    A full disk is an error when a file is written; when a memory map is filled, it
    would end the process.
    """
    path = folder / "ids.bin"
    with path.open("wb") as file:
        for chunk in column.chunks:
            ids = np.ascontiguousarray(chunk.flatten().to_numpy(), np.int32)
            file.write(ids.data)
    mapped = np.memmap(path, np.int32, mode="r")
    weakref.finalize(mapped, remove_folder, folder)
    # A map needs no name, except on Windows: a process that is killed leaves no tokens.
    # (joblib would hand such an array to another process by its name.)
    remove_folder(folder)
    # A plain view keeps `mapped` alive, and indexing it gives plain arrays.
    return mapped.view(np.ndarray)


def remove_folder(folder: Path) -> None:
    """Delete a folder of this process, at the latest when Python ends.

    Windows keeps files as long as they are mapped, as they still are when this is
    called for the array that maps them.
    """
    if folder in _made:
        _left.add(folder)
    remove_what_is_left()


def remove_what_is_left() -> None:
    """Delete the folders that were still in use when they should have gone."""
    for folder in [*_left]:  # other threads may add to it
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            _left.discard(folder)
            _made.discard(folder)


@atexit.register
def _remove_all() -> None:
    """Delete the folders, those that an interrupt kept from being deleted too."""
    _left.update(_made)
    remove_what_is_left()


# They are the parent's, which may be using them.
in_children(_left.clear)
in_children(_made.clear)
