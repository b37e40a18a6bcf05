"""Rows of a table -> texts, or pairs of texts.

A text depends on the cells of its own row and on the columns' types only, never on
the other rows: permuted rows give permuted texts, and a row reads the same in
``predict`` as it did in ``fit``.
"""

import functools
import re
import reprlib
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sk_adalora.runtime.rules import did_you_mean

from .cells import IS_TEXT, TEXT, has_type, is_missing, join, nan_to_null, text_array
from .columns import Column, Table, read_table

RowFormat = str | Callable[[Any], str]
# Characters that the formats of a template may ask for in all: one that comes with
# somebody else's model could fill the memory.
_WIDEST = 10_000
# More columns of floats than this are what a step before makes of texts. scikit-learn's
# checks of estimators have such tables too, but of 27 rows at most.
_FEW_COLUMNS = 10
_FEW_ROWS = 40


@dataclass(frozen=True)
class Texts:
    """The texts of a table, in row order, and what the table looked like.

    Attributes
    ----------
    first : LargeStringArray of shape (n_samples,)
        One text a row, without nulls.
    second : LargeStringArray of shape (n_samples,) or None
        The second texts where ``row_format="pair"``.
    feature_names : ndarray of shape (n_features,), dtype object, or None
        The column names; None where the input has none, or not all are strings.
    n_features : int
        The number of columns, 1 for one-dimensional input.
    columns : dict of str to str
        The role of each column by its name, see `Column.role`. Empty for
        one-dimensional input.
    all_numbers : bool
        Whether all columns hold floats or, without names, integers and booleans, and
        `row_format` writes them as they are.
    """

    first: pa.LargeStringArray
    second: pa.LargeStringArray | None
    feature_names: np.ndarray | None
    n_features: int
    columns: dict[str, str]
    all_numbers: bool

    def __len__(self) -> int:
        return len(self.first)

    @property
    def n_empty(self) -> int:
        """Rows without any text: missing, empty or blank (both texts of a pair)."""
        blank = pc.equal(pc.utf8_trim_whitespace(self.first), "")
        if self.second is not None:
            blank = pc.and_(blank, pc.equal(pc.utf8_trim_whitespace(self.second), ""))
        return int(pc.sum(blank, min_count=0).as_py())

    @property
    def seem_encoded(self) -> bool:
        """Whether a step before has probably turned texts into numbers."""
        wide = self.n_features > _FEW_COLUMNS and len(self) > _FEW_ROWS
        return wide and self.all_numbers

    def slice(self, start: int, count: int) -> "Texts":
        """Return up to `count` texts from a row on, without a copy."""
        first = self.first.slice(start, count)
        second = None if self.second is None else self.second.slice(start, count)
        return replace(self, first=first, second=second)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Texts":
        """Return the texts of some rows, in the order of `indices`."""
        indices = pa.array(np.asarray(indices, dtype=np.int64))
        first = self.first.take(indices)
        second = None if self.second is None else self.second.take(indices)
        return replace(self, first=first, second=second)


def read_texts(
    X: Any,
    row_format: RowFormat = "auto",
    fitted_names: Sequence[str] | None = None,
) -> Texts:
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
    fitted_names : sequence of str or None, default=None
        Names of the columns in the fit before, empty if they had none. Where only one
        of the two tables has names, the columns are called as in the fit.

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
    table = read_table(X)
    if fitted_names is not None:
        table = table.called_as(fitted_names)
    first, second = _write_rows(table, row_format)
    first = pc.fill_null(first, "")
    second = None if second is None else pc.fill_null(second, "")
    return Texts(
        first,
        second,
        table.feature_names,
        n_features=len(table.columns),
        columns={} if table.is_1d else {c.name: c.role for c in table.columns},
        all_numbers=row_format == "auto" and _all_numbers(table),
    )


def _all_numbers(table: Table) -> bool:
    # With names, integers may be counts and facts; without, they are tokens or words.
    unnamed = table.feature_names is None
    return all(c.holds_floats or (unnamed and c.holds_codes) for c in table.columns)


def _write_rows(
    table: Table, row_format: RowFormat
) -> tuple[pa.LargeStringArray, pa.LargeStringArray | None]:
    """Texts and second texts, null where missing."""
    if callable(row_format):
        return _call_rows(table, row_format), None
    if table.is_1d:
        check_column_of_texts(table.columns[0], row_format)
        return table.columns[0].texts(), None
    if row_format == "auto":
        return write_fields(table.columns), None
    if row_format == "pair":
        if len(table.columns) != 2:
            raise ValueError(
                "row_format='pair' needs exactly 2 columns. Got "
                f"{len(table.columns)}. Select the two columns of the pair."
            )
        return table.columns[0].texts(), table.columns[1].texts()
    return _fill_template(table.columns, row_format), None


def check_column_of_texts(column: Column, row_format: str) -> None:
    if row_format != "auto":
        raise ValueError(
            f"row_format={row_format!r} needs a table. Got a one-dimensional X. Pass a "
            "table, or row_format='auto', or a function, which gets each text."
        )
    cells = column.cells
    if isinstance(cells, list):
        for row, cell in enumerate(cells):
            if not (isinstance(cell, str | bytes) or is_missing(cell)):
                do = "Pass a table to have its cells written out, or convert with str."
                if isinstance(cell, list | tuple | np.ndarray):
                    do = 'If these are tokens, pass " ".join(row) of each row.'
                raise ValueError(
                    "X must hold one text for each sample. Got "
                    f"{type(cell).__name__} in row {row}. {do}"
                )
    elif not has_type(cells, IS_TEXT) and nan_to_null(cells).null_count < len(cells):
        raise ValueError(
            f"X must hold one text for each sample. Got a 1-D array of {cells.type}. "
            "Convert it to text, such as with .astype(str). Reshape your data using "
            "X.reshape(-1, 1) if it is a table of one column, or X.reshape(1, -1) if "
            "it is a single sample."
        )


def write_fields(columns: list[Column]) -> pa.LargeStringArray:
    """Join `name: value` fields by newlines; a missing cell takes no line."""
    if len(columns) == 1:
        return columns[0].texts()
    fields = [join([f"{column.name}: ", column.texts()]) for column in columns]
    # Arrow's join drops a row, instead of leaving it empty, where every field is null.
    all_missing = functools.reduce(pc.and_, [field.is_null() for field in fields])
    fields[0] = pc.if_else(all_missing, pa.scalar("", TEXT), fields[0])
    return join(fields, separator="\n", null_handling="skip")


def _fill_template(columns: list[Column], template: str) -> pa.LargeStringArray:
    """Fill a `str.format` template, column by column."""
    by_name = {column.name: column for column in columns}
    parts: list[str | pa.Array] = []
    width = 0
    for literal, field, spec, conversion in _parse_template(template):
        parts.append(literal)
        if field is None:
            continue
        if field not in by_name:
            names = list(by_name)
            known = f"The columns are {', '.join(map(repr, names[:20]))}."
            raise ValueError(
                f"The fields of `row_format` must be columns of X. Got {{{field}}} in "
                f"{template!r}. {f'{did_you_mean(field, names)} {known}'.lstrip()}"
            )
        spec = spec or ""
        width += sum(map(int, re.findall(r"\d+", spec)))
        if width >= _WIDEST:
            raise ValueError(
                f"The widths in `row_format` must be below {_WIDEST} in all. Got "
                f"{{{field}}} with {spec[:40]!r}. Write a smaller one."
            )
        texts = _format_column(by_name[field], spec, conversion)
        parts.append(pc.fill_null(texts, ""))
    if not any(isinstance(part, pa.Array) for part in parts):
        raise ValueError(
            f"`row_format` must be 'auto', 'pair' or a template that names a column. "
            f"Got {template!r}. Name columns in braces, for example "
            f"'{{{columns[0].name}}}'."
        )
    return join(parts)


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


def _format_column(column: Column, spec: str, conversion: str | None) -> pa.Array:
    """Write a template's field; only a format spec costs a Python loop."""
    if not spec and conversion is None:
        return column.texts()
    convert = string.Formatter().convert_field
    texts: list[str | None] = []
    for row, value in enumerate(column.values()):
        try:
            text = None if value is None else _format(convert(value, conversion), spec)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(
                f"The format of {{{column.name}}} in `row_format` must suit its cells. "
                f"Got {reprlib.repr(value)} in row {row} with {spec!r}: {error}. "
                "Change the format, or the cells."
            ) from error
        texts.append(text)
    return text_array(texts, column.name)


def _format(value: Any, spec: str) -> str:
    try:
        return format(value, spec)
    except ValueError:
        if type(value) is not int:
            raise
        return format(float(value), spec)  # ".3" is not for integers


def _call_rows(table: Table, write: Callable[[Any], str]) -> pa.LargeStringArray:
    """Call the user's function on every row."""
    columns = [column.values() for column in table.columns]
    names = [column.name for column in table.columns]
    rows: Iterable[Any] = zip(*columns, strict=True)
    texts: list[str | None] = []
    for row, cells in enumerate(rows):
        arg = cells[0] if table.is_1d else dict(zip(names, cells, strict=True))
        try:
            text = write(arg)
        except Exception as error:
            raise ValueError(
                "`row_format` must return a text for every row. It raised "
                f"{type(error).__name__} for row {row}: {error}. Let the function, "
                f"which gets a {type(arg).__name__}, return a text for such rows too."
            ) from error
        if not isinstance(text, str):
            raise TypeError(
                f"`row_format` must return a str. Got {type(text).__name__} for row "
                f"{row}. Return '' for a row without text."
            )
        texts.append(text)
    return text_array(texts, "The result of `row_format`")
