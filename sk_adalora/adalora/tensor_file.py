"""Tensors from untrusted files."""

from __future__ import annotations

import struct
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

# No adapter and no file of a model has so many tensors, nor so long a list of them: to
# read 1.2 million empty ones would take minutes.
MAX_TENSORS = 50_000
MAX_HEADER_BYTES = 16 * 2**20


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
