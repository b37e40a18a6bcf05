"""What was passed as X -> a table of columns, as Arrow arrays where no cell changes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, time, timedelta
from numbers import Number
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from .cells import (
    IS_PLAIN,
    IS_TIME,
    TEXT,
    has_type,
    in_arrow_unit,
    is_missing,
    nan_to_null,
    text_array,
    whole_as_integer,
    write_arrow,
    write_cells,
)

# What the cells of a column are, by their type in Arrow. All others are text.
_ROLES = {
    "category": (pt.is_dictionary,),
    "boolean": (pt.is_boolean,),
    "number": (pt.is_integer, pt.is_floating, pt.is_decimal),
    "date": IS_TIME,
}


@dataclass(frozen=True)
class Column:
    """One column: Arrow cells where Arrow writes each as we want, else objects."""

    name: str
    cells: pa.Array | list[Any]

    @property
    def holds_floats(self) -> bool:
        cells = self.cells
        return isinstance(cells, pa.Array) and pt.is_floating(cells.type)

    @property
    def holds_codes(self) -> bool:
        """Whether the cells are integers or booleans."""
        if not isinstance(self.cells, pa.Array):
            return False
        return pt.is_integer(self.cells.type) or pt.is_boolean(self.cells.type)

    @property
    def role(self) -> str:
        """What the cells are: "text", "number", "date", "boolean" or "category"."""
        if isinstance(self.cells, pa.Array):
            return _role_of_type(self.cells.type)
        roles = {_role_of_cell(cell) for cell in self.cells if not is_missing(cell)}
        return roles.pop() if len(roles) == 1 else "text"

    def values(self) -> list[Any]:
        """Python values: None where missing, and integers for whole floats.

        Beside a missing number, pandas makes floats of integers.
        """
        if isinstance(self.cells, pa.Array):
            cells = nan_to_null(self.cells).to_pylist()
        else:
            cells = [None if is_missing(cell) else cell for cell in self.cells]
        return [whole_as_integer(cell) for cell in cells]

    def texts(self) -> pa.LargeStringArray:
        """Texts of shape (n_samples,), null where missing."""
        if isinstance(self.cells, pa.Array):
            return self._check_utf8(write_arrow(self.cells))
        for row, cell in enumerate(self.cells):
            if isinstance(cell, bytes | bytearray):
                raise TypeError(
                    f"{self.name} must hold text, not bytes. Got bytes in row {row}. "
                    "Decode them first, for example with .decode('utf-8')."
                )
        return text_array(write_cells(self.cells), self.name)

    def _check_utf8(self, texts: pa.LargeStringArray) -> pa.LargeStringArray:
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"{self.name} must hold valid Unicode. Got text of Arrow that is no "
                f"UTF-8: {error}. Read it as pa.binary(), and decode that."
            ) from error
        return texts


@dataclass(frozen=True)
class Table:
    """Columns of equal length; names are None unless all of them are strings."""

    columns: list[Column]
    n_rows: int
    feature_names: np.ndarray | None = None
    is_1d: bool = False

    def called_as(self, fitted: Sequence[str]) -> "Table":
        """Return the table with the column names of the fit, by position.

        `fitted` are these names, empty if there were none. Where both tables have
        names, nothing changes: whether they agree is checked elsewhere.
        """
        named_then, named_now = len(fitted) > 0, self.feature_names is not None
        if named_then == named_now:
            return self
        names = fitted if named_then else _numbered(len(self.columns))
        if len(names) != len(self.columns):
            return self
        columns = [
            replace(column, name=name)
            for column, name in zip(self.columns, names, strict=True)
        ]
        return replace(self, columns=columns)


def read_table(X: Any) -> Table:
    """Read `X`, whatever kind of table, column or list it is.

    Raises
    ------
    ValueError, TypeError
        If it is none of these, or without rows or columns.
    """
    if isinstance(X, str | bytes):
        raise ValueError(
            "X must hold one text for each sample. Got a single "
            f"{type(X).__name__}. Pass [X] instead."
        )
    table = X if isinstance(X, Table) else _read_kind(X)
    _check_not_empty(table)
    return table


def _read_kind(X: Any) -> Table:
    """Dispatch on the kind of `X`; nothing is copied that Arrow can share."""
    if isinstance(X, list | tuple):
        return _read_list(X)
    datasets = sys.modules.get("datasets")  # X cannot be one if it was never imported
    if datasets is not None and isinstance(X, datasets.Dataset):
        X = _dataset_to_arrow(X)
    if datasets is not None and isinstance(X, datasets.Column):
        return _single_column(list(X[:]))  # lists are cells
    if is_arrow_dataset(X):
        X = X.to_table()
    if isinstance(X, pa.Array):
        X = pa.chunked_array([X])
    native: Any = nw.from_native(X, allow_series=True, pass_through=True)
    if native is X and hasattr(X, "__arrow_c_stream__"):  # a batch, say
        native = nw.from_native(pa.table(X))
    if isinstance(native, nw.DataFrame):
        return _read_frame(native)
    if isinstance(native, nw.Series):
        return _single_column(_series_cells(native))
    if hasattr(X, "__array__") and not isinstance(native, nw.LazyFrame):
        return _read_array(np.asarray(X))
    raise TypeError(
        "X must be a list or tuple, a 1-D or 2-D array, a series or table of pandas, "
        "polars or Arrow, or a Dataset or column of `datasets`: in memory, and dense "
        f"data, not sparse. Got {type(X).__module__}.{type(X).__qualname__}. Convert "
        "it to one of these, with one row for each sample."
    )


def is_arrow_dataset(X: Any) -> bool:
    """Tell whether X is one of `pyarrow.dataset`, such as a folder of Parquet files."""
    module = sys.modules.get("pyarrow.dataset")
    return module is not None and isinstance(X, module.Dataset)


def _dataset_to_arrow(dataset: Any) -> pa.Table:
    """Return the columns of a dataset that its format chose, or its transform made."""
    columns = dataset.format["columns"]
    if dataset.format["type"] == "custom":  # another format would replace the transform
        dataset, columns = type(dataset).from_dict(dataset[:]), None
    return dataset.with_format("arrow", columns=columns)[:]


def _read_list(X: Sequence[Any]) -> Table:
    """Read a list of cells, or a list of rows."""
    is_row = [
        isinstance(row, list | tuple) or (isinstance(row, np.ndarray) and row.ndim > 0)
        for row in X
    ]
    if not any(is_row):
        return _single_column(list(X))
    n_columns = len(X[is_row.index(True)])
    for row, cells in enumerate(X):
        if not is_row[row] or len(cells) != n_columns:
            got = len(cells) if is_row[row] else type(cells).__name__
            raise ValueError(
                f"The rows of X must all be lists of {n_columns} cells. Got {got} in "
                f"row {row}. {_advice(X[is_row.index(True)])}"
            )
    columns = [list(cells) for cells in zip(*X, strict=True)]
    return _nameless_table(columns, len(X))


def _advice(cells: Sequence[Any]) -> str:
    """Say what to do with rows of unequal length: those of words may be tokens."""
    if all(isinstance(cell, str) for cell in cells):
        return (
            'If the cells are tokens, pass " ".join(row) of each row; else, fill the '
            "missing ones with None."
        )
    return "Fill the missing cells with None."


def _read_frame(frame: nw.DataFrame[Any]) -> Table:
    series: Any = frame.iter_columns()  # a type of the unstable narwhals
    cells = [*map(_series_cells, series)]
    names = frame.columns
    if not all(isinstance(name, str) for name in names):
        return _nameless_table(cells, len(frame))
    columns = [Column(name, c) for name, c in zip(names, cells, strict=True)]
    return Table(columns, len(frame), np.array(names, dtype=object))


def _read_array(X: np.ndarray) -> Table:
    """Read a 1-D or 2-D array."""
    if X.dtype.kind == "c":
        raise ValueError(
            "Complex data not supported. Got an X of complex numbers. Pass the real "
            "and the imaginary parts as columns."
        )
    if X.ndim not in (1, 2):
        raise ValueError(
            "X must be a 1-D array of texts or a 2-D array of cells. Got an array of "
            f"shape {X.shape}. Reshape your data to one row for each sample."
        )
    if X.dtype.kind == "U":
        X = X.astype(object)  # Arrow ends the texts of such an array at a NUL
    X = in_arrow_unit(X)
    if X.ndim == 1:
        return _single_column(X)
    return _nameless_table(list(X.T), len(X))


def _single_column(cells: pa.Array | np.ndarray | list[Any]) -> Table:
    return Table([Column("X", _to_cells(cells))], len(cells), is_1d=True)


def _nameless_table(columns: list[Any], n_rows: int) -> Table:
    names = _numbered(len(columns))
    named = [Column(n, _to_cells(c)) for n, c in zip(names, columns, strict=True)]
    return Table(named, n_rows)


def _numbered(n_columns: int) -> list[str]:
    """Name columns x0, x1, ... as scikit-learn does."""
    return [f"x{i}" for i in range(n_columns)]


def _series_cells(series: nw.Series[Any]) -> pa.Array | list[Any]:
    """Return a frame's column as Arrow, or as a list if Arrow would write it oddly."""
    dtype = getattr(series.to_native(), "dtype", "")
    names = getattr(dtype, "categories", None)
    is_object = str(getattr(names, "dtype", dtype)).lower() == "object"
    if is_object and not _are_texts(names):  # of which Arrow would make one type
        return _to_cells(series.to_list())
    try:
        array = series.to_arrow()
    except (pa.ArrowException, UnicodeError):  # intervals, say, or lone surrogates
        return series.to_list()
    return array if has_type(array, IS_PLAIN) else series.to_list()


def _are_texts(categories: Any) -> bool:
    """Tell whether categories of pandas, if there are any, are strings."""
    some = categories is not None and len(categories) > 0
    return some and all(isinstance(name, str) for name in categories)


def _to_cells(cells: pa.Array | np.ndarray | list[Any]) -> pa.Array | list[Any]:
    """Convert an array or a list of objects to Arrow, if no cell changes by that."""
    if isinstance(cells, pa.Array):
        return cells
    if isinstance(cells, np.ndarray) and cells.dtype != object:
        try:
            array = pa.array(cells, from_pandas=True)
        except pa.ArrowException:  # of bytes in another order, say
            return list(cells)
        return array if has_type(array, IS_PLAIN) else list(cells)
    # Arrow converts all objects of a list to one type: integers beside floats. A row's
    # text would depend on the other rows.
    cells = [None if is_missing(cell) else cell for cell in cells]
    kinds = set(map(type, cells)) - {type(None)}
    are_texts = all(issubclass(kind, str) for kind in kinds)
    if not are_texts and (len(kinds) > 1 or not kinds <= {int, float, bool}):
        return cells
    try:
        return pa.array(cells, TEXT if are_texts else None)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return cells


def _role_of_type(kind: pa.DataType) -> str:
    roles = (role for role, kinds in _ROLES.items() if any(is_(kind) for is_ in kinds))
    return next(roles, "text")


def _role_of_cell(cell: Any) -> str:
    if isinstance(cell, bool | np.bool_):
        return "boolean"
    if isinstance(cell, date | time | timedelta | np.datetime64 | np.timedelta64):
        return "date"
    return "number" if isinstance(cell, Number) else "text"


def _check_not_empty(table: Table) -> None:
    """Raise scikit-learn's errors for tables without rows or columns."""
    n_columns = len(table.columns)
    shape = (table.n_rows,) if table.is_1d else (table.n_rows, n_columns)
    for n, what in ((table.n_rows, "sample"), (n_columns, "feature")):
        if n == 0:
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={shape}) while a minimum of 1 "
                "is required."
            )
