"""JSON from untrusted files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

# No settings are this long, and no number in them: such a file is something else.
MAX_BYTES = 64 * 2**20
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
        If it is too long, nested without end, no JSON, or no object, or holds NaN or
        numbers that are too large.
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


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number in JSON, or too large")
    return value


def _read_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)
