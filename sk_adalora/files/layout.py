"""The files of a saved estimator: their names, and whether they are as written."""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from sk_adalora.adalora.config import CONFIG_NAME
from sk_adalora.adalora.peft_format import WEIGHTS_NAME
from sk_adalora.pretrained.weights import exact_state_of, weight_files

from .card import CARD_NAME

STATE_NAME = "sk_adalora.json"
HEAD_NAME = "head.safetensors"
BACKBONE = "backbone"
SEAL = "sha256"


def broken(must: str, got: Any) -> ValueError:
    """Return the error about a part of ``sk_adalora.json``."""
    return ValueError(
        f"{STATE_NAME} must {must}. Got {reprlib.repr(got)}. The file is broken, or "
        "was changed: copy the folder again."
    )


def refuse_links(folder: Path, root: Path) -> None:
    """Refuse links to what lies outside of `root`."""
    if not os.path.lexists(folder / STATE_NAME):
        return  # reading that file will raise the error
    # Not by `rglob`, which fails where a writer deletes its hidden folder meanwhile.
    for inside, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.realpath(os.path.join(inside, name))
            if not Path(path).is_relative_to(root):
                raise ValueError(
                    f"The files must lie in the folder. Got {name!r}, which links to "
                    "a place outside. Replace the link by the file."
                )


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that must stay as it is, by relative path.

    The card may be edited. The pretrained weights are checked when they are used.
    """
    left_out = {folder / STATE_NAME, folder / CARD_NAME}
    left_out |= {*weight_files(folder / BACKBONE)}
    return {
        path.relative_to(folder).as_posix(): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in left_out
    }


def seal_of(described: dict[str, Any]) -> str:
    """Return the SHA-256 of what ``sk_adalora.json`` holds, except this hash."""
    rest = {name: value for name, value in described.items() if name != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def with_hashes(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """Return what ``sk_adalora.json`` is to hold, with the hashes of the files."""
    files = digests(folder)
    missing = _needed(described) - set(files)
    if missing:
        raise FileNotFoundError(
            f"The folder must hold {sorted(missing)} when it is complete. Got "
            f"{str(folder)!r} without. Another program deleted what was just written: "
            "save again."
        )
    described = described | {"files": files}
    return described | {SEAL: seal_of(described)}


def check_files(folder: Path, described: dict[str, Any]) -> None:
    """Refuse a folder whose files are not those that were written."""
    listed = described["files"]
    missing = _needed(described) - set(listed)
    if missing:
        raise broken(f"list {sorted(missing)} under 'files'", listed)
    for name, digest in listed.items():
        inside = PurePosixPath(name)
        elsewhere = inside.is_absolute() or ".." in inside.parts
        elsewhere |= "\\" in name or bool(PureWindowsPath(name).drive)
        if not inside.parts or elsewhere:
            raise broken("list files of the folder only", name)
        path = folder / name
        if not os.path.isfile(path):  # False for whatever is wrong with the name
            raise FileNotFoundError(
                f"The folder must hold {name[:80]!r}. Got {str(folder)!r} without it, "
                "or it is replaced just now: copy or load the folder again."
            )
        if _digest(path) != digest:
            raise ValueError(
                f"{name!r} must be as it was written, with SHA-256 "
                f"{reprlib.repr(digest)}. Got a file that differs. It is broken, was "
                "changed, or was replaced just now: copy or load the folder again. If "
                "git changed the line ends, set -text for the folder in .gitattributes "
                "first."
            )


@contextmanager
def in_one_state(folder: Path) -> Iterator[None]:
    """Refuse what is read in a `with` block if files are replaced meanwhile.

    Also by files as before: what was read in between may be of others.
    """
    before = _states_of(folder)
    try:
        yield
    except (OSError, ValueError) as error:
        if _states_of(folder) == before:
            raise
        raise _replaced(folder) from error
    if _states_of(folder) != before:
        raise _replaced(folder)


def _replaced(folder: Path) -> ValueError:
    return ValueError(
        f"The folder must stay as it is while it is read. Got {str(folder)!r}, where "
        "files were replaced just now: load it again."
    )


def _states_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return what tells each file that is read from others of its name."""
    states = {}
    for name in (STATE_NAME, CONFIG_NAME, WEIGHTS_NAME, HEAD_NAME):
        with suppress(OSError):  # not there
            states[name] = exact_state_of(folder / name)
    return states


def _needed(described: dict[str, Any]) -> set[str]:
    """Return the files without which an estimator cannot be loaded."""
    needed = {CONFIG_NAME, WEIGHTS_NAME}
    if described["pooling"] != "model":
        needed.add(HEAD_NAME)
    if described["includes_backbone"]:
        needed.add(f"{BACKBONE}/config.json")
    return needed


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
