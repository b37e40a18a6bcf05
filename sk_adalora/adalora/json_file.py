"""JSON from untrusted files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

# No settings are this long, or hold so many lists and objects, or such numbers: the
# file is something else, and would take a lot of memory.
MAX_BYTES = 16 * 2**20
MAX_NESTED = 2**18
_MAX_DIGITS = 64


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from an untrusted file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is too long, nested without end, no JSON, or no object, or holds NaN,
        numbers that are too large, or very many lists.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"The folder must hold {path.name}. Got {str(path.parent)!r} without it. "
            "Check the path. If another process saves there just now, load it again."
        )
    try:
        values = json.loads(
            read_bounded(path),
            parse_constant=_read_float,
            parse_float=_read_float,
            parse_int=_read_int,
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} must be JSON. Got: {error}. The file is broken."
        ) from error
    if not isinstance(values, dict):
        raise ValueError(
            f"{path} must hold a JSON object. Got {type(values).__name__}. The file is "
            "broken."
        )
    return values


def read_bounded(
    path: Path, most_bytes: int = MAX_BYTES, most_nested: int = MAX_NESTED
) -> str:
    """Return the text of a JSON file; refuse one that would take much time or memory.

    Parameters
    ----------
    path : Path
        The file.
    most_bytes : int, default=MAX_BYTES
        How long it may be.
    most_nested : int, default=MAX_NESTED
        How many lists and objects it may hold.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If it is too long, holds too many lists and objects, or is no UTF-8.
    """
    size = path.stat().st_size
    if size > most_bytes:
        raise ValueError(
            f"{path} must be at most {most_bytes} bytes long. Got {size}. It is "
            "not what it says it is."
        )
    data = path.read_bytes()
    n_nested = data.count(b"[") + data.count(b"{")
    if n_nested > most_nested:
        raise ValueError(
            f"{path} must hold at most {most_nested} lists and objects. Got "
            f"{n_nested}. It is not what it says it is."
        )
    try:
        return data.decode("utf8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be UTF-8. Got: {error}. The file is broken."
        ) from error


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number in JSON, or too large")
    return value


def _read_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)
