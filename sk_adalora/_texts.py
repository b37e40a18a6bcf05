"""Rows of a table -> texts, or pairs of texts.

A text depends on the cells of its own row and on the column's type only, never on
the other rows: permuted rows give permuted texts, and a row reads the same in
``predict`` as it did in ``fit``. That is why whole-column niceties ("this column
holds dates only, drop the clock") are decided cell by cell.

How cells are written:

* numbers in their shortest exact form: ``3``, ``0.1``, ``1.5``, and ``3`` for 3.0, so
  that an integer column reads the same after missing cells made it a float column;
* booleans as ``true`` and ``false``; categories as their labels;
* dates and times in ISO 8601, without a midnight clock or trailing zeros;
* anything else (lists, dictionaries, intervals, ...) by ``str``.
"""

import difflib
import functools
import string
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from narwhals.exceptions import DuplicateError

__all__ = ["Texts", "read_texts"]

# 64-bit offsets: one column may hold more than 2 GB of text.
_TEXT = pa.large_string()

RowFormat = str | Callable[[Any], str]


@dataclass(frozen=True)
class Texts:
    """The texts of a table, in row order, and what the table looked like.

    Attributes
    ----------
    first : LargeStringArray of shape (n_samples,)
        One text a row, without nulls.
    second : LargeStringArray of shape (n_samples,) or None
        The second texts where ``row_format="pair"``.
    n_empty : int
        Rows without any text: missing, empty or blank (both texts of a pair).
    feature_names : ndarray of shape (n_features,), dtype object, or None
        The column names; None where the input has none, or not all are strings.
    n_features : int
        The number of columns, 1 for one-dimensional input.
    """

    first: pa.LargeStringArray
    second: pa.LargeStringArray | None
    n_empty: int
    feature_names: np.ndarray | None
    n_features: int

    def __len__(self) -> int:
        return len(self.first)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Texts":
        """Return the texts of some rows, in the order of `indices`."""
        indices = pa.array(np.asarray(indices, dtype=np.int64))
        first = self.first.take(indices)
        second = None if self.second is None else self.second.take(indices)
        n_empty = _count_empty(first, second)
        return Texts(first, second, n_empty, self.feature_names, self.n_features)


def read_texts(X: Any, row_format: RowFormat = "auto") -> Texts:
    """Turn each row of `X` into a text, or into a pair of texts.

    Parameters
    ----------
    X : list, array, series or table of shape (n_samples,) or (n_samples, n_features)
        One text a row: a list, tuple, 1-D array, or a pandas, polars, Arrow or
        `datasets` column of texts and missing cells. Or a table: pandas, polars,
        Arrow, `datasets.Dataset`, 2-D array, or list of equally long rows.
    row_format : {"auto", "pair"}, template or callable, default="auto"
        How a table's row becomes a text. "auto": the only column is the text; several
        columns become ``name: value`` lines in column order, without the missing
        cells. "pair": the two columns are a pair of texts. Any other string is a
        `str.format` template over the column names. A callable gets each row as a
        dictionary (the cell itself where `X` is one-dimensional; None for a missing
        cell) and returns its text.

    Returns
    -------
    Texts
        The texts; a missing text is an empty one.

    Raises
    ------
    ValueError, TypeError
        If `X` is not a table or column of this kind, or does not fit `row_format`.
    """
    if not (isinstance(row_format, str) or callable(row_format)):
        raise TypeError(
            "`row_format` must be 'auto', 'pair', a template or a callable. Got "
            f"{row_format!r}. Pass 'auto' to write every column as `name: value`."
        )
    table = _read_table(X)
    _check_not_empty(table)
    first, second = _write_rows(table, row_format)
    first = pc.fill_null(first, "")
    second = None if second is None else pc.fill_null(second, "")
    n_empty = _count_empty(first, second)
    return Texts(first, second, n_empty, table.feature_names, len(table.columns))


# What was passed in -> columns


@dataclass(frozen=True)
class _Column:
    """One column: Arrow cells where Arrow writes each as we want, else objects."""

    name: str
    cells: pa.Array | list

    def values(self) -> list:
        """Python values, None where missing."""
        if isinstance(self.cells, pa.Array):
            return _nan_to_null(self.cells).to_pylist()
        return [None if _is_missing(cell) else cell for cell in self.cells]

    def texts(self) -> pa.LargeStringArray:
        """Texts of shape (n_samples,), null where missing."""
        if isinstance(self.cells, pa.Array):
            return _write_arrow(self.cells)
        for row, cell in enumerate(self.cells):
            if isinstance(cell, bytes | bytearray):
                raise TypeError(
                    f"{self.name} must hold text, not bytes. Got bytes in row {row}. "
                    "Decode them first, for example with .decode('utf-8')."
                )
        return _text_array(map(_write_cell, self.cells), self.name)


@dataclass(frozen=True)
class _Table:
    columns: list[_Column]
    n_rows: int
    feature_names: np.ndarray | None = None
    is_1d: bool = False


def _read_table(X: Any) -> _Table:
    """Dispatch on the kind of `X`; nothing is copied that Arrow can share."""
    _check_kind(X)
    X = _unwrap_dataset(X)
    if isinstance(X, list | tuple):
        return _read_list(X)
    if isinstance(X, pa.Array):
        X = pa.chunked_array([X])
    native = _from_native(X)
    if isinstance(native, nw.LazyFrame):
        raise TypeError(
            f"X must be a table in memory. Got a lazy {type(X).__name__}. Pass "
            "X.collect(), or the equivalent of your library."
        )
    if isinstance(native, nw.DataFrame):
        return _read_frame(native)
    if isinstance(native, nw.Series):
        return _single_column(_series_cells(native))
    if hasattr(X, "__arrow_c_stream__"):
        return _read_frame(_from_native(pa.table(X)))
    if isinstance(X, np.ma.MaskedArray):
        X = np.where(np.ma.getmaskarray(X), None, X.data.astype(object))
    if hasattr(X, "detach"):  # a torch tensor that tracks gradients or lives elsewhere
        X = X.detach().cpu()
    if hasattr(X, "__array__"):
        return _read_array(np.asarray(X))
    raise TypeError(
        f"X must be a list, array, series or table of texts. Got {type(X).__name__}. "
        "Pass list(X), or a table with one row for each sample."
    )


def _from_native(X: Any) -> Any:
    """Wrap a frame or a series of any library; leave other things as they are."""
    try:
        return nw.from_native(X, allow_series=True, pass_through=True)
    except DuplicateError as error:
        names = Counter(map(str, getattr(X, "column_names", X.columns)))
        twice = [name for name, count in names.items() if count > 1]
        raise ValueError(
            "The columns of X must have names of their own. Got "
            f"{', '.join(map(repr, twice[:20]))} more than once. Rename them."
        ) from error


def _check_kind(X: Any) -> None:
    """Refuse what would only fail later, and obscurely."""
    sparse = sys.modules.get("scipy.sparse")  # imported if X is sparse
    if sparse is not None and sparse.issparse(X):
        raise TypeError(
            "Sparse data was passed for X, but dense data is required. Pass the texts "
            "themselves, or X.toarray() to have the numbers written out."
        )
    if X is None or isinstance(X, str | bytes | dict) or np.isscalar(X):
        wrap = "pd.DataFrame(X)" if isinstance(X, dict) else "[X]"
        raise ValueError(
            "X must hold one text for each sample. Got a single "
            f"{type(X).__name__}. Pass {wrap} instead."
        )


def _unwrap_dataset(X: Any) -> Any:
    """Give a Hugging Face dataset or its column as Arrow."""
    datasets = sys.modules.get("datasets")  # X cannot be one if it was never imported
    if datasets is None:
        return X
    if isinstance(X, datasets.Dataset):
        return X.with_format("arrow")[:]
    source = getattr(X, "source", None)
    if isinstance(source, datasets.Dataset):
        name = X.column_name
        return source.select_columns(name).with_format("arrow")[:][name]
    return X


def _read_list(X: Sequence) -> _Table:
    """Read a list of cells, or a list of rows."""
    is_row = [isinstance(row, list | tuple | np.ndarray) for row in X]
    if not any(is_row):
        return _single_column(list(X))
    n_columns = len(X[is_row.index(True)])
    for row, cells in enumerate(X):
        if not is_row[row] or len(cells) != n_columns:
            got = len(cells) if is_row[row] else type(cells).__name__
            raise ValueError(
                f"The rows of X must all be lists of {n_columns} cells. Got {got} in "
                f"row {row}. Fill the missing cells with None."
            )
    columns = [list(cells) for cells in zip(*X, strict=True)]
    return _nameless_table(columns, len(X))


def _read_frame(frame: nw.DataFrame) -> _Table:
    cells = [_series_cells(series) for series in frame.iter_columns()]
    names = frame.columns
    if not all(isinstance(name, str) for name in names):
        return _nameless_table(cells, len(frame))
    columns = [_Column(name, c) for name, c in zip(names, cells, strict=True)]
    return _Table(columns, len(frame), np.array(names, dtype=object))


def _read_array(X: np.ndarray) -> _Table:
    """Read a 1-D or 2-D array."""
    if X.dtype.kind == "c":
        raise ValueError(
            "Complex data not supported. Got an X of complex numbers. Pass the real "
            "and the imaginary parts as columns."
        )
    if X.ndim not in (1, 2) or X.dtype.names is not None:
        raise ValueError(
            "X must be a 1-D array of texts or a 2-D array of cells. Got an array of "
            f"shape {X.shape} and type {X.dtype}. Reshape your data to one row for "
            "each sample."
        )
    if X.dtype.kind == "f" and X.dtype.itemsize > 8:
        X = X.astype(np.float64)  # Arrow knows no wider float
    if X.ndim == 1:
        return _single_column(X)
    return _nameless_table(list(X.T), len(X))


def _single_column(cells: pa.Array | np.ndarray | list) -> _Table:
    return _Table([_Column("X", _to_cells(cells))], len(cells), is_1d=True)


def _nameless_table(columns: list, n_rows: int) -> _Table:
    """Name the columns x0, x1, ... as scikit-learn does."""
    named = [_Column(f"x{i}", _to_cells(cells)) for i, cells in enumerate(columns)]
    return _Table(named, n_rows)


def _series_cells(series: nw.Series) -> pa.Array | list:
    """Give a frame's column as Arrow, unless Arrow would write it oddly."""
    if series.dtype in (nw.Object, nw.Unknown):
        return _to_cells(series.to_list())
    try:
        array = _whole(series.to_arrow())
    except (pa.ArrowException, UnicodeError):
        return series.to_list()
    return array if _has_type(array, _IS_PLAIN) else series.to_list()


def _to_cells(cells: pa.Array | np.ndarray | list) -> pa.Array | list:
    """Give an array or a list of objects as Arrow where no cell changes by that."""
    if isinstance(cells, pa.Array):
        return cells
    try:
        array = _whole(pa.array(cells, from_pandas=True))
    except (pa.ArrowException, OverflowError, UnicodeError, ValueError, TypeError):
        return list(cells)
    if isinstance(cells, np.ndarray) and cells.dtype != object:
        return array if _has_type(array, _IS_PLAIN) else list(cells)
    # Arrow makes the objects of a list alike: integers beside floats, times in other
    # zones, other sets of keys. A row's text would depend on the other rows.
    alike = len(set(map(type, cells)) - {type(None)}) == 1
    safe = _has_type(array, _IS_BASIC if alike else _IS_TEXT)
    return array if safe else list(cells)


def _check_not_empty(table: _Table) -> None:
    """Raise scikit-learn's errors for tables without rows or columns."""
    n_columns = len(table.columns)
    shape = (table.n_rows,) if table.is_1d else (table.n_rows, n_columns)
    for n, what in ((table.n_rows, "sample"), (n_columns, "feature")):
        if n == 0:
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={shape}) while a minimum of 1 "
                "is required."
            )


# Cells -> texts


# From here on, not every integer is a float.
_INEXACT = float(2**53)

_IS_TEXT = (pt.is_string, pt.is_large_string, pt.is_string_view)
# Types that Arrow tells from objects of one class without changing them.
_IS_BASIC = (*_IS_TEXT, pt.is_null, pt.is_boolean, pt.is_integer, pt.is_floating)
# Types that `_write_arrow` writes as a reader expects.
_IS_PLAIN = (*_IS_BASIC, pt.is_date, pt.is_timestamp, pt.is_time, pt.is_decimal)


def _has_type(cells: pa.Array | pa.ChunkedArray, kinds: tuple[Callable, ...]) -> bool:
    """Tell whether the cells, or the categories they name, are of these kinds."""
    type_ = cells.type.value_type if pt.is_dictionary(cells.type) else cells.type
    return any(is_kind(type_) for is_kind in kinds)


def _whole(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Join chunks; texts get 64-bit offsets first, so that they fit in one array."""
    if _has_type(array, _IS_TEXT) and not pt.is_dictionary(array.type):
        array = array.cast(_TEXT)
    if isinstance(array, pa.ChunkedArray):
        return array.unify_dictionaries().combine_chunks()
    return array


def _nan_to_null(cells: pa.Array) -> pa.Array:
    if not pt.is_floating(cells.type):
        return cells
    if pt.is_float16(cells.type):
        cells = cells.cast(pa.float32())
    return pc.if_else(pc.is_nan(cells), pa.scalar(None, cells.type), cells)


def _write_arrow(cells: pa.Array) -> pa.LargeStringArray:
    """Write plain Arrow cells; nulls and NaN stay null."""
    if pt.is_dictionary(cells.type):
        return _write_arrow(cells.dictionary).take(cells.indices)
    texts = _nan_to_null(cells).cast(_TEXT)
    if pt.is_float64(cells.type):
        texts = _write_large_whole(cells, texts)
    if not (pt.is_timestamp(cells.type) or pt.is_time(cells.type)):
        return texts
    zone = r"(Z|[+-]\d{4})?$"
    texts = pc.replace_substring_regex(texts, r"\.0+" + zone, r"\1")
    texts = pc.replace_substring_regex(texts, r"(\.\d*[1-9])0+" + zone, r"\1\2")
    return pc.replace_substring_regex(texts, r" 00:00:00$", "")


def _write_large_whole(
    cells: pa.Array, texts: pa.LargeStringArray
) -> pa.LargeStringArray:
    """Write large whole numbers as integers: Arrow writes 1e10 and more otherwise."""
    size = pc.abs(cells)
    large = pc.and_(pc.greater_equal(size, 1e10), pc.less(size, _INEXACT))
    large = pc.and_(large, pc.equal(cells, pc.floor(cells)))
    if not pc.any(large).as_py():
        return texts
    whole = pc.if_else(large, cells, pa.scalar(None, cells.type)).cast(pa.int64())
    return pc.if_else(pc.fill_null(large, False), whole.cast(_TEXT), texts)


def _write_cell(cell: Any) -> str | None:
    """Write one object as `_write_arrow` would have in a column of its own."""
    if _is_missing(cell):
        return None
    if isinstance(cell, str):
        return str(cell)
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    if isinstance(cell, float | np.floating | datetime | time):
        return _write_arrow(pa.array([cell]))[0].as_py()
    return str(cell)


def _is_missing(cell: Any) -> bool:
    """Tell None, NaN, NaT and pd.NA from values."""
    if cell is None or isinstance(cell, str):
        return cell is None
    pandas = sys.modules.get("pandas")  # no cell is pd.NA if pandas was never imported
    if pandas is not None and cell is pandas.NA:
        return True
    # Only NaN and NaT differ from themselves.
    return isinstance(cell, float | np.generic | datetime) and bool(cell != cell)


def _text_array(texts: Iterable[str | None], name: str) -> pa.LargeStringArray:
    texts = list(texts)
    try:
        return _whole(pa.array(texts, _TEXT))
    except UnicodeEncodeError as error:
        row = texts.index(error.object)
        raise ValueError(
            f"{name} must hold valid Unicode. Got a lone surrogate in row {row}. Clean "
            "it with text.encode('utf-8', 'replace').decode()."
        ) from error


def _count_empty(first: pa.Array, second: pa.Array | None) -> int:
    blank = pc.equal(pc.utf8_trim_whitespace(first), "")
    if second is not None:
        blank = pc.and_(blank, pc.equal(pc.utf8_trim_whitespace(second), ""))
    return pc.sum(blank).as_py() or 0


# Columns -> one text a row


def _write_rows(
    table: _Table, row_format: RowFormat
) -> tuple[pa.LargeStringArray, pa.LargeStringArray | None]:
    """Texts and second texts, null where missing."""
    if callable(row_format):
        return _call_rows(table, row_format), None
    if table.is_1d:
        _check_column_of_texts(table.columns[0], row_format)
        return table.columns[0].texts(), None
    if row_format == "auto":
        return _write_fields(table.columns), None
    if row_format == "pair":
        if len(table.columns) != 2:
            raise ValueError(
                "row_format='pair' needs exactly 2 columns. Got "
                f"{len(table.columns)}. Select the two columns of the pair."
            )
        return table.columns[0].texts(), table.columns[1].texts()
    return _fill_template(table.columns, row_format), None


def _check_column_of_texts(column: _Column, row_format: str) -> None:
    if row_format != "auto":
        raise ValueError(
            f"row_format={row_format!r} needs a table with named columns. Got a "
            "one-dimensional X. Pass a table, or row_format='auto'."
        )
    cells = column.cells
    if isinstance(cells, list):
        for row, cell in enumerate(cells):
            if not (isinstance(cell, str | bytes) or _is_missing(cell)):
                raise ValueError(
                    "X must hold one text for each sample. Got "
                    f"{type(cell).__name__} in row {row}. Pass a table to have its "
                    "cells written out, or convert with str."
                )
        return
    if not _has_type(cells, _IS_TEXT) and _nan_to_null(cells).null_count < len(cells):
        raise ValueError(
            f"X must hold one text for each sample. Got a 1-D array of {cells.type}. "
            "Convert it with .astype(str). Reshape your data using "
            "X.reshape(-1, 1) if it is a table of one column, or X.reshape(1, -1) if "
            "it is a single sample."
        )


def _write_fields(columns: list[_Column]) -> pa.LargeStringArray:
    """Join `name: value` fields by newlines; a missing cell takes no line."""
    if len(columns) == 1:
        return columns[0].texts()
    fields = [_join([f"{column.name}: ", column.texts()]) for column in columns]
    # Arrow's join drops a row, instead of leaving it empty, where every field is null.
    all_missing = functools.reduce(pc.and_, [field.is_null() for field in fields])
    fields[0] = pc.if_else(all_missing, pa.scalar("", _TEXT), fields[0])
    return _join(fields, separator="\n", null_handling="skip")


def _join(
    parts: Sequence[str | pa.Array],
    separator: str = "",
    null_handling: str = "emit_null",
) -> pa.LargeStringArray:
    """Join texts row by row; a plain string stands in every row."""
    parts = [pa.scalar(p, _TEXT) if isinstance(p, str) else p for p in parts]
    return pc.binary_join_element_wise(
        *parts, pa.scalar(separator, _TEXT), null_handling=null_handling
    )


def _fill_template(columns: list[_Column], template: str) -> pa.LargeStringArray:
    """Fill a `str.format` template, column by column."""
    by_name = {column.name: column for column in columns}
    parts: list[str | pa.Array] = []
    for literal, field, spec, conversion in _parse_template(template):
        parts.append(literal)
        if field is None:
            continue
        if field not in by_name:
            raise ValueError(_unknown_field(field, template, list(by_name)))
        texts = _format_column(by_name[field], spec or "", conversion)
        parts.append(pc.fill_null(texts, ""))
    if not any(isinstance(part, pa.Array) for part in parts):
        raise ValueError(
            f"`row_format` must be 'auto', 'pair' or a template that names a column. "
            f"Got {template!r}. Name columns in braces, for example "
            f"'{{{columns[0].name}}}'."
        )
    return _join(parts)


def _parse_template(
    template: str,
) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    try:
        yield from string.Formatter().parse(template)
    except ValueError as error:
        raise ValueError(
            f"`row_format` must be a valid str.format template. Got {template!r}: "
            f"{error}. Write a literal brace as '{{{{' or '}}}}'."
        ) from error


def _unknown_field(field: str, template: str, names: list[str]) -> str:
    """Say why a template's field is refused."""
    if field.isdigit() or not field or "." in field or "[" in field:
        why = "Positions, attributes and items cannot be used: write {name}."
    else:
        close = difflib.get_close_matches(field, names, n=3)
        why = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
        why += f"The columns are {', '.join(map(repr, names[:20]))}."
    return (
        f"The fields of `row_format` must be columns of X. Got {{{field}}} in "
        f"{template!r}. {why}"
    )


def _format_column(column: _Column, spec: str, conversion: str | None) -> pa.Array:
    """Write a template's field; only a format spec costs a Python loop."""
    if not spec and conversion is None:
        return column.texts()
    convert = string.Formatter().convert_field
    texts: list[str | None] = []
    for row, value in enumerate(column.values()):
        try:
            text = None if value is None else format(convert(value, conversion), spec)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"The format of {{{column.name}}} in `row_format` must suit its cells. "
                f"Got {value!r} in row {row} with {spec!r}: {error}."
            ) from error
        texts.append(text)
    return _text_array(texts, column.name)


def _call_rows(table: _Table, write: Callable[[Any], str]) -> pa.LargeStringArray:
    """Call the user's function on every row."""
    columns = [column.values() for column in table.columns]
    names = [column.name for column in table.columns]
    rows: Iterable = zip(*columns, strict=True)
    texts: list[str | None] = []
    for row, cells in enumerate(rows):
        arg = cells[0] if table.is_1d else dict(zip(names, cells, strict=True))
        try:
            text = write(arg)
        except Exception as error:
            raise ValueError(
                "`row_format` must return a text for every row. It raised "
                f"{type(error).__name__} for row {row}: {error}."
            ) from error
        if not isinstance(text, str):
            raise TypeError(
                f"`row_format` must return a str. Got {type(text).__name__} for row "
                f"{row}. Return '' for a row without text."
            )
        texts.append(text)
    return _text_array(texts, "The result of `row_format`")
