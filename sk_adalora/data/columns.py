"""What was passed as X -> a table of columns, as Arrow arrays where no cell changes."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from narwhals.exceptions import DuplicateError

from .cells import (
    IS_BASIC,
    IS_PLAIN,
    IS_TEXT,
    has_type,
    in_arrow_unit,
    is_missing,
    nan_to_null,
    text_array,
    whole_array,
    whole_as_integer,
    write_arrow,
    write_cells,
)


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
    def holds_texts(self) -> bool:
        return isinstance(self.cells, pa.Array) and has_type(self.cells, IS_TEXT)

    def values(self) -> list[Any]:
        """Python values: None where missing, and integers for whole floats.

        Beside a missing number, pandas makes floats of integers.
        """
        if isinstance(self.cells, pa.Array):
            try:
                cells = nan_to_null(self.cells).to_pylist()
            except (OverflowError, ValueError) as error:  # of dates, and of time zones
                raise ValueError(
                    f"The cells of {self.name!r} must be values that Python has, for "
                    f"`row_format` to get them. Got {self.cells.type}: "
                    f"{str(error).rstrip('.')}. Change them, or convert all to text."
                ) from error
        else:
            cells = [None if is_missing(cell) else cell for cell in self.cells]
        return [whole_as_integer(cell) for cell in cells]

    def texts(self) -> pa.LargeStringArray:
        """Texts of shape (n_samples,), null where missing."""
        if isinstance(self.cells, pa.Array):
            return write_arrow(self.cells)
        for row, cell in enumerate(self.cells):
            if isinstance(cell, bytes | bytearray):
                raise TypeError(
                    f"{self.name} must hold text, not bytes. Got bytes in row {row}. "
                    "Decode them first, for example with .decode('utf-8')."
                )
        return text_array(write_cells(self.cells), self.name)


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
    _check_kind(X)
    table = _read_kind(X)
    _check_not_empty(table)
    return table


def _read_kind(X: Any) -> Table:
    """Dispatch on the kind of `X`; nothing is copied that Arrow can share."""
    X = _unwrap_dataset(X)
    if isinstance(X, list | tuple):
        return _read_list(X)
    if isinstance(X, pa.Array):
        X = pa.chunked_array([X])
    native = from_native(X)
    if isinstance(native, nw.LazyFrame):
        raise TypeError(_lazy(X, "X", "X.collect(), or the like, as X.df() of DuckDB"))
    if isinstance(native, nw.DataFrame):
        return _read_frame(native)
    if isinstance(native, nw.Series):
        return _single_column(_series_cells(native))
    # Of an array of xarray's, Arrow would make a table with the numbers of the rows.
    if hasattr(X, "__arrow_c_stream__") and not hasattr(X, "dtype"):
        return _read_frame(from_native(pa.table(X)))
    if isinstance(X, np.ma.MaskedArray):
        return _read_array(X)
    if hasattr(X, "detach") and hasattr(X, "cpu"):  # a tensor, on whatever device
        X = X.detach().cpu()
        X = X.float() if X.is_floating_point() and X.itemsize < 4 else X
    if hasattr(X, "__array__"):
        return _read_array(np.asarray(X))
    way = "list(X), or a table with one row for each sample"
    if hasattr(X, "to_pandas"):  # a stream of records, or a data set of Ray's
        way = "the columns of X.to_pandas() that are not the target"
    raise TypeError(
        f"X must be a list, array, series or table of texts. Got {type(X).__name__}. "
        f"Pass {way}."
    )


def _lazy(X: Any, name: str, ways: str) -> str:
    """Say why a table that is not in memory is refused."""
    got = f"Got a lazy {type(X).__name__}"
    return f"{name} must be a table in memory. {got}. Pass {ways}."


def from_native(X: Any, name: str = "X") -> Any:
    """Wrap a frame or a series of any library; leave other things as they are.

    Raises
    ------
    TypeError
        If it is a table of dask; `name` is what the message calls it.
    ValueError
        If columns share a name.
    """
    dask = sys.modules.get("dask.dataframe")  # imported if X is a table of it
    if dask is not None and isinstance(X, dask.DataFrame):
        raise TypeError(_lazy(X, name, f"{name}.compute()"))  # narwhals would warn
    try:
        return nw.from_native(X, allow_series=True, pass_through=True)
    except DuplicateError as error:
        names = Counter(map(str, getattr(X, "column_names", X.columns)))
        twice = [name for name, count in names.items() if count > 1]
        raise ValueError(
            f"The columns of {name} must have names of their own. Got "
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
    if X is None or isinstance(X, str | bytes | Mapping) or np.isscalar(X):
        wrap = "pd.DataFrame(X)" if isinstance(X, Mapping) else "[X]"
        if type(X).__name__ == "BatchEncoding":  # what a tokenizer returns
            wrap = "the texts that it was made of"
        is_splits = type(X).__name__.endswith("DatasetDict")
        if isinstance(X, Mapping) and is_splits:
            wrap = f"X[{next(iter(X), 'train')!r}]"
        raise ValueError(
            "X must hold one text for each sample. Got a single "
            f"{type(X).__name__}. Pass {wrap} instead."
        )


def _unwrap_dataset(X: Any) -> Any:
    """Return a Hugging Face dataset or its column as Arrow, other things unchanged."""
    datasets = sys.modules.get("datasets")  # X cannot be one if it was never imported
    if datasets is None:
        return X
    if isinstance(X, datasets.Dataset):
        chosen = X.format  # of its columns, `set_format` may have chosen some
        columns = None if chosen["output_all_columns"] else chosen["columns"]
        return _arrow_rows(X, columns)
    if not isinstance(X, datasets.Column):
        return X
    source, name = X.source, X.column_name
    if not isinstance(source, datasets.Dataset) or source.format["type"] == "custom":
        # A field of records, or what a transform makes of whole rows.
        cells = X[:]
        several = isinstance(cells, list | Iterator) or np.ndim(cells) > 1
        return np.fromiter(cells, object) if several else cells  # lists are cells
    return _arrow_rows(source.select_columns(name), None)[name]


def _arrow_rows(dataset: Any, columns: list[str] | None) -> pa.Table:
    """Return some columns of a dataset, or all, with its transform applied."""
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
                f"row {row}. Fill the missing cells with None."
            )
    columns = [list(cells) for cells in zip(*X, strict=True)]
    return _nameless_table(columns, len(X))


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
    if X.ndim not in (1, 2) or X.dtype.names is not None:
        way = "Reshape your data to one row for each sample"
        if X.ndim == 1:  # of records
            way = "Pass pd.DataFrame(X) as a table"
        raise ValueError(
            "X must be a 1-D array of texts or a 2-D array of cells. Got an array of "
            f"shape {X.shape} and type {X.dtype}. {way}."
        )
    if X.dtype.kind == "f" and X.dtype.itemsize > 8:
        X = X.astype(np.float64)  # Arrow knows no wider float
    if X.dtype.kind == "U":
        X = X.astype(object)  # Arrow ends the texts of such an array at a NUL
    if X.dtype == object and isinstance(X, np.ma.MaskedArray):
        nothing: Any = None
        X = np.where(X.mask, nothing, X.data)
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
    if _holds_objects(series):
        return _to_cells(series.to_list())
    try:
        array = whole_array(series.to_arrow())
    except (pa.ArrowException, UnicodeError):
        return series.to_list()
    return array if has_type(array, IS_PLAIN) else series.to_list()


def _holds_objects(series: nw.Series[Any]) -> bool:
    """Tell whether the cells, or the categories they name, are objects of any class."""
    # Of pandas' columns, narwhals tells it from the first hundred cells.
    dtype = getattr(series.to_native(), "dtype", None)
    dtype = getattr(getattr(dtype, "categories", None), "dtype", dtype)
    return series.dtype == nw.Object or str(dtype) == "object"


def _to_cells(cells: pa.Array | np.ndarray | list[Any]) -> pa.Array | list[Any]:
    """Convert an array or a list of objects to Arrow, if no cell changes by that."""
    if isinstance(cells, pa.Array):
        return cells
    is_typed = isinstance(cells, np.ndarray) and cells.dtype != object
    kinds = set() if is_typed else set(map(type, cells))
    if not all(map(_is_for_arrow, kinds)):
        return list(cells)
    try:
        array = whole_array(pa.array(cells, from_pandas=True))
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return list(cells)
    if is_typed:
        return array if has_type(array, IS_PLAIN) else list(cells)
    # Arrow converts all objects of a list to one type: integers beside floats. A row's
    # text would depend on the other rows.
    alike = len(kinds - {type(None)}) == 1
    safe = has_type(array, IS_BASIC if alike else IS_TEXT)
    return array if safe else list(cells)


def _is_for_arrow(kind: type) -> bool:
    """Tell whether Arrow may be asked to convert objects of this class.

    Of others it keeps no type that is used here; and of a date of NumPy's beside a
    number of NumPy's, also inside of cells, it ends the process.
    """
    plain = (str, int, float, np.bool_, np.integer, np.floating, type(None))
    pandas = sys.modules.get("pandas")  # no cell is pd.NA if pandas was never imported
    missing = () if pandas is None else (type(pandas.NA), type(pandas.NaT))
    return issubclass(kind, (*plain, *missing))


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
