"""Rows that come in parts: from files, from streams, or cut from a table."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .rows import take_rows


def read_parts(
    source: Any, size: int, names: Sequence[str] | None
) -> tuple[Iterator[Any], int | None]:
    """Return an iterator of parts, none with more rows than `size`, and their rows.

    Parameters
    ----------
    source : path, table, list, or iterable of these
        A Parquet file or a folder of such, whatever can be predicted at once, a
        `pyarrow.RecordBatchReader`, a `datasets.IterableDataset`, or any other iterator
        of tables or lists, each of which is a part.
    size : int
        Most rows of a part.
    names : sequence of str or None
        The columns to read of what has others too. None reads all.

    Returns
    -------
    parts : iterator
        Tables or lists, in order; nothing is read yet.
    count : int or None
        Rows of all parts, None where only reading tells.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        If `source` is nothing of this kind.
    """
    if isinstance(source, str | os.PathLike):
        return _of_files(_parquet_files(source), size, names)
    if isinstance(source, pa.RecordBatchReader):
        batches: Iterable[Any] = (_columns(batch, names) for batch in source)
        return _no_larger(batches, size), None
    for module, kind, read in _LAZY:
        found = sys.modules.get(module)
        if found is not None and isinstance(source, getattr(found, kind)):
            return read(source, size, names)
    if isinstance(source, Iterator):
        return _no_larger(source, size), None
    if hasattr(source, "__len__") and not isinstance(source, dict | set | bytes):
        return _no_larger([source], size), len(source)
    raise TypeError(
        "`source` must be a table, a list of texts, the path of Parquet files, or an "
        f"iterator of tables or lists. Got {type(source).__name__}. Pass one of these."
    )


def _no_larger(parts: Iterable[Any], size: int) -> Iterator[Any]:
    """Cut parts that are larger than `size`, and leave out empty ones."""
    for part in parts:
        count = len(part)
        if 0 < count <= size:
            yield part
            continue
        for start in range(0, count, size):
            rows = np.arange(start, min(start + size, count))
            yield take_rows(part, rows)


# ---- files -------------------------------------------------------------------


def _parquet_files(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files of a path, in the order of their names."""
    whole = Path(path).expanduser()
    if whole.is_file():
        return [whole]
    files = sorted(whole.rglob("*.parquet"))
    if not files:
        raise FileNotFoundError(
            "`source` must be the path of a Parquet file, or of a folder with such. "
            f"Got {str(path)!r}, where there is none. For a text, pass a list."
        )
    return files


def _of_files(
    files: list[Path], size: int, names: Sequence[str] | None
) -> tuple[Iterator[Any], int]:
    """Read files row group by row group, of which a part at a time is decoded."""
    from pyarrow.parquet import ParquetFile

    count = 0
    for path in files:
        try:
            with ParquetFile(path) as file:
                count += file.metadata.num_rows
                columns = file.schema_arrow.names
        except pa.ArrowInvalid as error:
            raise ValueError(
                "`source` must be the path of Parquet files. Got "
                f"{str(path)!r}: {error}. Read it, and pass its rows."
            ) from error
        _check_columns(columns, names, f" of {str(path)!r}")

    def read() -> Iterator[Any]:
        for path in files:
            with ParquetFile(path) as file:
                for batch in file.iter_batches(size, columns=names):
                    yield _columns(batch, names)

    return _no_larger(read(), size), count


def _columns(batch: Any, names: Sequence[str] | None) -> pa.Table:
    """Return the columns of a batch that are read, in the order of the fit."""
    table = (
        pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
    )
    if names is None:
        return table
    _check_columns(table.column_names, names, "")
    return table.select(list(names))


def _check_columns(have: Sequence[str], names: Sequence[str] | None, of: str) -> None:
    missing = [name for name in names or () if name not in have]
    if missing:
        raise ValueError(
            f"The columns{of} must include those of the fit. Got {list(have)}, without "
            f"{missing}. Rename them, or pass another `source`."
        )


# ---- tables that are read when needed ------------------------------------------

_Read = Callable[[Any, int, Sequence[str] | None], tuple[Iterator[Any], int | None]]


def _of_arrow_dataset(
    source: Any, size: int, names: Sequence[str] | None
) -> tuple[Iterator[Any], int | None]:
    _check_columns(source.schema.names, names, "")
    # Few at once: by default, much is read ahead.
    batches = source.to_batches(
        columns=None if names is None else list(names),
        batch_size=size,
        batch_readahead=1,
        fragment_readahead=1,
    )
    return _no_larger(
        map(partial(_columns, names=names), batches), size
    ), source.count_rows()


def _of_dataset(
    source: Any, size: int, names: Sequence[str] | None
) -> tuple[Iterator[Any], int | None]:
    _check_columns(source.column_names, names, "")
    if names is not None:
        source = source.select_columns(list(names))
    starts = range(0, len(source), size)
    parts = (source.select(range(i, min(i + size, len(source)))) for i in starts)
    return iter(parts), len(source)


def _of_stream(
    source: Any, size: int, names: Sequence[str] | None
) -> tuple[Iterator[Any], int | None]:
    batches = map(pa.Table.from_pydict, source.iter(batch_size=size))
    return (_columns(batch, names) for batch in batches), None


_LAZY: list[tuple[str, str, _Read]] = [
    ("pyarrow.dataset", "Dataset", _of_arrow_dataset),
    ("datasets", "Dataset", _of_dataset),
    ("datasets", "IterableDataset", _of_stream),
]
