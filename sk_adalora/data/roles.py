"""What the columns of a mixed table are: text, numbers, categories or dates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from sk_adalora.runtime.rules import did_you_mean

from .cells import TEXT, join, nan_to_null
from .columns import Column, Table
from .texts import write_fields

if TYPE_CHECKING:
    import pandas as pd

# What a user may call a column. One without any value is "empty", and left out.
ROLES = ("text", "number", "category", "date")

# More distinct strings than these are text; so are those of which half are distinct.
MOST_CATEGORIES = 40
_MOST_DISTINCT = 0.5
# What stands for a missing number or date in tables of strings, in lower case.
_MISSING = pa.array(
    "- -- ... ? na n/a #n/a <na> nan nat none null nil missing unknown".split(),
    TEXT,
)
# No date is longer.
_LONGEST_DATE = 40
_IS_NUMBER = (pt.is_boolean, pt.is_integer, pt.is_floating, pt.is_decimal)
_IS_DATE = (pt.is_date, pt.is_timestamp)


def import_skrub() -> Any:
    """Import skrub, which the extra `tables` installs."""
    try:
        import skrub
    except ImportError as error:
        raise ImportError(
            "Tables of text and other columns need skrub. Got an environment without "
            "it. Run: pip install 'sk-adalora[tables]'"
        ) from error
    return skrub


@dataclass(frozen=True)
class MixedTable:
    """A table by the roles of its columns.

    Parameters
    ----------
    texts : pyarrow.Table of shape (n_samples, n_text_columns)
        The text columns.
    others : DataFrame of shape (n_samples, n_other_columns)
        Numbers as floats, categories as pandas' categories, and dates in UTC.
    """

    texts: pa.Table
    others: pd.DataFrame

    def __len__(self) -> int:
        return len(self.others)

    @property
    def whole(self) -> pd.DataFrame:
        """All columns, with the texts as strings."""
        texts = self.texts.to_pandas().set_axis(self.others.index)
        return self.others.join(texts)

    @property
    def words(self) -> np.ndarray:
        """The texts of each row as one, of shape (n_samples,); none is empty."""
        cells = [self.texts[name].combine_chunks() for name in self.texts.column_names]
        columns = [*map(Column, self.texts.column_names, cells)]
        fields = write_fields(columns).fill_null("")
        words: np.ndarray = join(["text ", fields]).to_numpy(zero_copy_only=False)
        return words

    def take(self, rows: np.ndarray) -> MixedTable:
        """Return some of the rows."""
        return MixedTable(self.texts.take(pa.array(rows)), self.others.iloc[rows])


@dataclass(frozen=True)
class Roles:
    """The roles of a table's columns, and how its dates are written.

    Parameters
    ----------
    of : dict of str to str
        The role of each column by its name.
    date_formats : dict of str to str
        The format of each column of dates that holds strings, as of `strptime`.
    """

    of: dict[str, str]
    date_formats: dict[str, str] = field(default_factory=dict)

    def read(self, table: Table) -> MixedTable:
        """Read the cells of a table with these columns.

        Raises
        ------
        ValueError
            If a number or a date cannot be read.
        """
        import pandas as pd

        texts: dict[str, pa.Array] = {}
        others: dict[str, Any] = {}
        for column in map(_with_arrow_dates, table.columns):
            role = self.of[column.name]
            if role == "text":
                texts[column.name] = column.texts()
            elif role == "number":
                others[column.name] = _finite(_numbers(column), column.name)
            elif role == "category":
                words = _blank_to_null(column.texts())
                others[column.name] = pd.Categorical(words.to_pandas())
            elif role == "date":
                form = self.date_formats.get(column.name)
                others[column.name] = _dates(column, form)
        return MixedTable(
            pa.table(texts), pd.DataFrame(others, index=pd.RangeIndex(table.n_rows))
        )


def find_roles(table: Table, given: Mapping[str, str] | None = None) -> Roles:
    """Find the role of each column.

    Parameters
    ----------
    table : Table
        The rows of a fit.
    given : dict of str to str or None, default=None
        The roles of some columns, which are not looked for.

    Returns
    -------
    Roles
        Numbers, booleans and durations are "number", also if they are strings; dates
        are "date". Other strings are a "category" if at most 40 differ, and at most
        half as many as rows have one; otherwise "text". So are single columns.

    Raises
    ------
    ValueError
        If a given role or column does not exist, or if cells do not fit a given role.
    """
    given = dict(given or {})
    _check_given(given, [column.name for column in table.columns])
    roles, formats = {}, {}
    for column in map(_with_arrow_dates, table.columns):
        role = given.get(column.name)
        if _blank_to_null(column.texts()).null_count == table.n_rows:
            role = "empty"
        elif role is None:
            role = "text" if table.is_1d else _role_of(column)
        roles[column.name] = role
        if role == "date" and not _has(column, _IS_DATE):
            formats[column.name] = _format_of(column)
    if {*roles.values()} == {"empty"}:
        raise ValueError(
            "X must have a column with values. Got none in "
            f"{', '.join(map(repr, [*roles][:20]))}. Pass at least one."
        )
    return Roles(roles, formats)


def _check_given(given: Mapping[str, str], names: list[str]) -> None:
    for name, role in given.items():
        if name not in names:
            known = f"The columns are {', '.join(map(repr, names[:20]))}."
            close = did_you_mean(str(name), names)
            raise ValueError(
                f"`column_roles` must name columns of X. Got {name!r}. "
                f"{close or known} Correct the name, or leave it out."
            )
        if role not in ROLES:
            raise ValueError(
                f"The roles in `column_roles` must be among {', '.join(ROLES)}. Got "
                f"{role!r} for {name!r}. {did_you_mean(str(role), ROLES)} Give one of "
                "these, or leave the column out of it."
            )


def _role_of(column: Column) -> str:
    """Find the role of a column that has a value."""
    if _has(column, (*_IS_NUMBER, pt.is_duration)):
        return "number"
    if _has(column, _IS_DATE):
        return "date"
    if _has(column, (pt.is_dictionary,)):
        return "category"
    distinct = _distinct(column)
    if not _unreadable(distinct, _parse_numbers(distinct)).any():
        return "number"
    if _guess_format(distinct) is not None:
        return "date"
    few = min(MOST_CATEGORIES, _MOST_DISTINCT * _n_values(column))
    return "category" if len(distinct) <= few else "text"


def _has(column: Column, kinds: tuple[Any, ...]) -> bool:
    cells = column.cells
    return isinstance(cells, pa.Array) and any(kind(cells.type) for kind in kinds)


def _n_values(column: Column) -> int:
    texts = _blank_to_null(column.texts())
    return len(texts) - int(texts.null_count)


def _distinct(column: Column) -> pa.LargeStringArray:
    return pc.unique(_blank_to_null(column.texts())).drop_null()


def _with_arrow_dates(column: Column) -> Column:
    """Convert Python's dates, which `read_table` leaves as they are, to Arrow."""
    if isinstance(column.cells, pa.Array):
        return column
    try:
        cells = pa.array(column.cells, from_pandas=True)
    except (pa.ArrowException, UnicodeError, OverflowError, TypeError):
        return column
    dates = any(kind(cells.type) for kind in (*_IS_DATE, pt.is_duration))
    return Column(column.name, cells) if dates else column


def _blank_to_null(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    blank = pc.equal(pc.utf8_trim_whitespace(texts), "")
    return pc.if_else(blank, pa.scalar(None, TEXT), texts)


# ---- numbers ----------------------------------------------------------------


def _numbers(column: Column) -> np.ndarray:
    """Return a column's numbers, of shape (n_samples,): NaN where missing."""
    cells = column.cells
    if _has(column, (pt.is_duration,)):
        seconds: np.ndarray = pc.cast(cells, pa.duration("us"), safe=False).to_numpy(
            zero_copy_only=False
        ) / np.timedelta64(1, "s")
        return seconds
    if isinstance(cells, pa.Array) and _has(column, _IS_NUMBER):
        if pt.is_boolean(cells.type):
            cells = cells.cast(pa.uint8())
        numbers: np.ndarray = (
            nan_to_null(cells)
            .cast(pa.float64(), safe=False)
            .to_numpy(zero_copy_only=False)
        )
        return numbers
    return _parse_each(column, _parse_numbers, "number")


def _finite(numbers: np.ndarray, name: str) -> np.ndarray:
    """Refuse numbers that are infinite in float32, which learners compute in."""
    rows = np.flatnonzero(np.abs(numbers) > np.finfo(np.float32).max)
    if len(rows):
        raise ValueError(
            f"The column {name!r} must hold finite numbers. Got {numbers[rows[0]]:g} "
            f"in row {rows[0]}. Replace it, or make it missing."
        )
    return numbers


def _parse_numbers(texts: pa.LargeStringArray) -> np.ndarray:
    """Return the numbers that texts are: NaN where they are none."""
    import pandas as pd

    parsed = pd.to_numeric(pd.Series(texts.to_pylist(), dtype=object), errors="coerce")
    return np.asarray(parsed, np.float64)


def _unreadable(texts: pa.LargeStringArray, parsed: np.ndarray) -> np.ndarray:
    """Tell which texts are neither parsed nor a word for what is missing."""
    trimmed = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
    missing = pc.or_(texts.is_null(), pc.is_in(trimmed, _MISSING))
    unread: np.ndarray = (
        np.isnat(parsed) if parsed.dtype.kind == "M" else parsed != parsed
    )
    return unread & ~missing.to_numpy(zero_copy_only=False)


def _parse_each(column: Column, parse: Any, role: str) -> np.ndarray:
    """Parse a column of texts, each distinct one once."""
    coded = _blank_to_null(column.texts()).dictionary_encode()
    distinct = coded.dictionary
    parsed = parse(distinct)
    bad = np.flatnonzero(_unreadable(distinct, parsed))
    codes = coded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
    if len(bad):
        row = int(np.flatnonzero(np.isin(codes, bad))[0])
        cell = distinct[int(codes[row])].as_py()
        raise ValueError(
            f"The column {column.name!r} has the role {role!r}, and must hold one in "
            f"each row. Got {cell[:80]!r} in row {row}. Mend the cell, make it "
            "missing, or fit with another role in `column_roles`."
        )
    nothing = np.array(["NaT" if parsed.dtype.kind == "M" else "nan"], parsed.dtype)
    return np.concatenate([parsed, nothing])[codes]


# ---- dates ------------------------------------------------------------------


def _dates(column: Column, form: str | None) -> np.ndarray:
    """Return a column's dates in UTC, of shape (n_samples,): NaT where missing."""
    if isinstance(column.cells, pa.Array) and _has(column, _IS_DATE):
        kind = column.cells.type
        zone = kind.tz if pt.is_timestamp(kind) else None
        cells = pc.cast(column.cells, pa.timestamp("us", zone), safe=False)
        moments: np.ndarray = cells.cast(pa.timestamp("us")).to_numpy(
            zero_copy_only=False
        )
        return moments
    form = form or "ISO8601"
    return _parse_each(column, lambda t: _parse_dates(t, form), "date")


def _parse_dates(texts: pa.LargeStringArray, form: str) -> np.ndarray:
    """Return the dates that texts are: NaT where they are none."""
    import pandas as pd

    cells = pd.Series(texts.to_pylist(), dtype=object)
    parsed = pd.to_datetime(cells, format=form, errors="coerce", utc=True)
    return parsed.dt.tz_localize(None).to_numpy().astype("M8[us]")


def _guess_format(distinct: pa.LargeStringArray) -> str | None:
    """Guess how dates are written; None if these are none."""

    words = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(distinct)), _MISSING)
    distinct = distinct.filter(pc.invert(words))
    short = pc.less_equal(pc.utf8_length(distinct), _LONGEST_DATE)
    digits = pc.match_substring_regex(distinct, r"\d")
    if not len(distinct) or not pc.all(pc.and_(short, digits)).as_py():
        return None
    try:
        guess = import_skrub().ToDatetime().fit(distinct.to_pandas())
    except ValueError:  # skrub's RejectColumn is one
        return None
    form: str = guess.format_
    return form


def _format_of(column: Column) -> str:
    """Return the format of a column of dates."""
    form = _guess_format(_distinct(column))
    if form is None:
        raise ValueError(
            f"The column {column.name!r} must hold dates that are written alike. Got "
            f"{_distinct(column)[0].as_py()[:80]!r} and others. Convert it, such as "
            "with pd.to_datetime, or give it another role in `column_roles`."
        )
    return form
