"""Rows that come in parts: from streams and data sets, or cut from a table."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from .columns import is_arrow_dataset
from .rows import take_rows


def read_parts(
    source: Any, size: int, names: Sequence[str] | None
) -> tuple[Iterator[Any], int | None]:
    """Return an iterator of parts, none with more rows than `size`, and their rows.

    Parameters
    ----------
    source : table, list, data set, or iterator
        Whatever can be predicted at once, a `pyarrow.RecordBatchReader` or `Dataset`, a
        `datasets.IterableDataset`, or any other iterator of tables or lists, each of
        which is a part.
    size : int
        Most rows of a part.
    names : sequence of str or None
        The columns to read of data sets, which have others too. None reads all.

    Returns
    -------
    parts : iterator
        Tables or lists, in order; nothing is read yet.
    count : int or None
        Rows of all parts, None where only reading tells.

    Raises
    ------
    TypeError, ValueError
        If `source` is nothing of this kind, or lacks a column.
    """
    datasets = sys.modules.get("datasets")  # imported if `source` is one of it
    columns = None if names is None else list(names)
    if isinstance(source, pa.RecordBatchReader):
        return _no_larger(_selected(source, columns), size), None
    if is_arrow_dataset(source):
        _check_columns(source.schema.names, columns)
        # Few at once: by default, much is read ahead.
        ahead = {"batch_readahead": 1, "fragment_readahead": 1}
        batches = source.to_batches(columns=columns, batch_size=size, **ahead)
        return _no_larger(_selected(batches, columns), size), source.count_rows()
    if datasets is not None and isinstance(source, datasets.IterableDataset):
        batches = map(pa.Table.from_pydict, source.iter(batch_size=size))
        return _selected(batches, columns), None
    if datasets is not None and isinstance(source, datasets.Dataset) and columns:
        _check_columns(source.column_names, columns)
        source = source.select_columns(columns)
    if isinstance(source, Iterator):
        return _no_larger(source, size), None
    if hasattr(source, "__len__") and not isinstance(source, dict | set | str | bytes):
        return _no_larger([source], size), len(source)
    raise TypeError(
        "`source` must be a table, a list of texts, or an iterator of tables or lists. "
        f"Got {type(source).__name__}. Pass one of these; of Parquet files, "
        "pyarrow.dataset.dataset(path)."
    )


def _no_larger(parts: Iterable[Any], size: int) -> Iterator[Any]:
    """Cut parts that are larger than `size`, and leave out empty ones."""
    for part in parts:
        for start in range(0, len(part), size):
            rows = np.arange(start, min(start + size, len(part)))
            yield part if len(rows) == len(part) else take_rows(part, rows)


def _selected(batches: Iterable[Any], columns: list[str] | None) -> Iterator[pa.Table]:
    """Yield the columns that are read, in the order of the fit."""
    for batch in batches:
        table = batch
        if isinstance(batch, pa.RecordBatch):
            table = pa.Table.from_batches([batch])
        _check_columns(table.column_names, columns)
        yield table if columns is None else table.select(columns)


def _check_columns(have: Sequence[str], names: Sequence[str] | None) -> None:
    missing = [name for name in names or () if name not in have]
    if missing:
        raise ValueError(
            "The columns of `source` must include those of the fit. Got "
            f"{list(have)}, without {missing}. Rename them, or pass another `source`."
        )
