"""JSON and tensors from untrusted files."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

# No settings are this long, or hold so many lists and objects, or such numbers: the
# file is something else, and would take a lot of memory.
MAX_BYTES = 16 * 2**20
MAX_NESTED = 2**18
_MAX_DIGITS = 64
# No adapter and no file of a model has so many tensors, nor so long a list of them: to
# read 1.2 million empty ones would take minutes.
MAX_TENSORS = 50_000
MAX_HEADER_BYTES = 16 * 2**20


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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of an untrusted file at once: it may be replaced meanwhile.

    Parameters
    ----------
    path : Path
        A file of safetensors.

    Returns
    -------
    dict of str to torch.Tensor

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is none of safetensors, or has too many tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"The folder must hold {path.name}. Got {str(path.parent)!r} without it. "
            "Check the path."
        )
    try:
        check_header(path)
        return load(path.read_bytes())
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(
            f"{path.name} must hold tensors. Got a file in {str(path.parent)!r} that "
            f"cannot be read: {error}. Copy it again."
        ) from error


def check_header(path: Path) -> None:
    """Refuse a file of safetensors that lists too many tensors, before it is parsed.

    Whatever else is wrong with it, safetensors says.
    """
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        # Each tensor begins with one of these, and so does the list.
        n_tensors = file.read(min(length, MAX_HEADER_BYTES)).count(b"{") - 1
    if length > MAX_HEADER_BYTES or n_tensors > MAX_TENSORS:
        raise ValueError(
            f"it must list at most {MAX_TENSORS} tensors in {MAX_HEADER_BYTES} bytes. "
            f"Got {max(n_tensors, 0)} in {length}"
        )
