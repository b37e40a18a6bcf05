"""JSON from untrusted files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

# No settings are this long, or nested this deeply; such a file is something else.
MAX_BYTES = 64 * 2**20
_MAX_DEPTH = 50
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
        If it is too long, nested too deeply, no JSON, or no object, or holds NaN,
        numbers that are too large, or a key twice.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"The folder must hold {path.name}. Got {str(path.parent)!r} without it. "
            "Check the path. If another process saves there just now, load it again."
        )
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(
            f"{path} must be at most {MAX_BYTES} bytes long. Got {size}. It is "
            "not what it says it is."
        )
    try:
        values = json.loads(
            path.read_text(encoding="utf8"),
            parse_constant=_refuse_constant,
            parse_float=_read_float,
            parse_int=_read_int,
            object_pairs_hook=_read_object,
        )
        _check_depth(values)
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


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number in JSON")


def _read_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is too large")
    return value


def _read_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS + 1:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice in the same object")
    return values


def _check_depth(values: Any) -> None:
    level = [values] if isinstance(values, dict | list) else []
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"values nested more than {_MAX_DEPTH} deep")
