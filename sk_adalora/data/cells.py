"""One cell -> its text.

A text depends on the cell and on the column's type only, never on other rows. That is
why whole-column niceties ("this column holds dates only, drop the clock") are decided
cell by cell. How cells are written:

* numbers in their shortest exact form: ``3``, ``0.1``, ``1.5``, and ``3`` for 3.0, so
  that an integer column reads the same after missing cells made it a float column;
* booleans as ``true`` and ``false``; categories as their labels;
* dates and times in ISO 8601, without trailing zeros, and without a midnight clock
  where no time zone follows it;
* durations as Python writes them, ``1 day, 2:30:00``, in whatever library they are, to
  the microsecond;
* lists, tuples and dictionaries by ``str``, with whole numbers as integers and None for
  what is missing in them; arrays as lists;
* anything else (intervals, ...) by ``str``.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

# 64-bit offsets: one column may hold more than 2 GB of text.
TEXT = pa.large_string()

# From here on, not every integer is a float.
_INEXACT = float(2**53)

IS_TEXT = (pt.is_string, pt.is_large_string, pt.is_string_view)
_IS_NUMBER = (pt.is_null, pt.is_boolean, pt.is_integer, pt.is_floating, pt.is_decimal)
IS_TIME = (pt.is_date, pt.is_timestamp, pt.is_time, pt.is_duration)
# Types that `write_arrow` writes as a reader expects.
IS_PLAIN = (*IS_TEXT, *_IS_NUMBER, *IS_TIME)


def has_type(
    cells: pa.Array | pa.ChunkedArray, kinds: tuple[Callable[..., bool], ...]
) -> bool:
    """Tell whether the cells, or the categories they name, are of these kinds."""
    type_ = cells.type.value_type if pt.is_dictionary(cells.type) else cells.type
    return any(is_kind(type_) for is_kind in kinds)


def in_arrow_unit(array: np.ndarray) -> np.ndarray:
    """Convert dates and durations to a unit that Arrow has."""
    if array.dtype.kind not in "mM":
        return array
    unit, _ = np.datetime_data(array.dtype)
    unit = unit if unit in ("s", "ms", "us", "ns") else "s"
    return array.astype(f"{array.dtype.kind}8[{unit}]")


def nan_to_null(cells: pa.Array) -> pa.Array:
    if not pt.is_floating(cells.type):
        return cells
    if pt.is_float16(cells.type):
        cells = cells.cast(pa.float32())
    return pc.if_else(pc.is_nan(cells), pa.scalar(None, cells.type), cells)


def write_arrow(cells: pa.Array) -> pa.LargeStringArray:
    """Write plain Arrow cells; nulls and NaN stay null."""
    kind = cells.type
    if pt.is_dictionary(kind):
        return write_arrow(cells.dictionary).take(cells.indices)
    if pt.is_duration(kind):
        durations = cells.to_numpy(zero_copy_only=False).astype("m8[us]").tolist()
        return pa.array([None if d is None else str(d) for d in durations], TEXT)
    if pt.is_timestamp(kind) and kind.tz is not None:
        return _write_zoned(cells)
    if pt.is_timestamp(kind) or pt.is_time(kind):
        return pc.replace_substring_regex(_write_clock(cells), " 00:00:00$", "")
    texts = nan_to_null(cells).cast(TEXT)
    return _write_large_whole(cells, texts) if pt.is_float64(kind) else texts


def _write_clock(cells: pa.Array) -> pa.LargeStringArray:
    """Write times without a zone, and without zeros at the end of their seconds."""
    texts = pc.replace_substring_regex(cells.cast(TEXT), r"\.0+$", "")
    return pc.replace_substring_regex(texts, r"(\.\d*[1-9])0+$", r"\1")


def _write_zoned(cells: pa.Array) -> pa.LargeStringArray:
    """Write times by the clocks of their zone, of which Python knows the offsets.

    Arrow knows the zones of the system, which may have none, and no summer after 2037.
    """
    zone = cells.type.tz
    if zone == "UTC":  # for which Arrow is right, and faster
        return join([_write_clock(cells.cast(pa.timestamp(cells.type.unit))), "Z"])
    try:
        moments = cells.to_pylist()
    except (KeyError, ValueError, OverflowError) as error:
        raise ValueError(
            "The times in X must be in a time zone that is known here, and in years "
            f"that Python has. Got {zone!r}. Convert them to UTC, or run: pip install "
            "tzdata"
        ) from error
    return pa.array([moment and _write_time(moment) for moment in moments], TEXT)


def _write_time(cell: datetime | time) -> str:
    """Write a time as :func:`write_arrow` does."""
    text = str(cell.replace(tzinfo=None))
    if "." in text:
        text = text.rstrip("0")
    if isinstance(cell, time):  # Arrow has no zones for times of a day
        return text
    if cell.tzinfo is None:
        return text.removesuffix(" 00:00:00")
    in_utc = not cell.utcoffset() and cell.tzname() in ("UTC", None)
    return text + ("Z" if in_utc else f"{cell:%z}"[:5])


def join(
    parts: Sequence[str | pa.Array],
    separator: str = "",
    null_handling: str = "emit_null",
) -> pa.LargeStringArray:
    """Join texts row by row; a plain string stands in every row."""
    parts = [pa.scalar(p, TEXT) if isinstance(p, str) else p for p in parts]
    return pc.binary_join_element_wise(
        *parts, pa.scalar(separator, TEXT), null_handling=null_handling
    )


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
    return pc.if_else(large, whole.cast(TEXT), texts)


def write_cells(cells: list[Any]) -> list[str | None]:
    """Write each object as :func:`write_cell` does; floats at once, which is faster."""
    floats = [cell if isinstance(cell, float) else None for cell in cells]
    texts = write_arrow(pa.array(floats, pa.float64())).to_pylist()
    return [
        text if isinstance(cell, float) else write_cell(cell)
        for cell, text in zip(cells, texts, strict=True)
    ]


def write_cell(cell: Any) -> str | None:
    """Write one object as `write_arrow` would have in a column of its own."""
    if is_missing(cell):
        return None
    if isinstance(cell, str):
        return str(cell)
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int):
        return str(cell)
    if isinstance(cell, datetime | time):
        return _write_time(cell)
    if isinstance(cell, timedelta):
        return str(timedelta(cell.days, cell.seconds, cell.microseconds))
    if isinstance(cell, np.generic):
        return write_arrow(pa.array(in_arrow_unit(np.array([cell]))))[0].as_py()
    try:
        return str(_nested(cell))
    except RecursionError as error:
        raise ValueError(
            f"The cells of X must end somewhere. Got a {type(cell).__name__} that "
            "contains itself, or is nested too deep. Pass a text in its place."
        ) from error


def _nested(cell: Any) -> Any:
    """Convert nested cells to Python's; pandas holds lists as arrays."""
    if isinstance(cell, np.ndarray | np.generic):
        if cell.dtype.kind in "mM":  # of nanoseconds, `tolist` would make integers
            cell = cell.astype(f"{cell.dtype.kind}8[us]")
        cell = cell.tolist()
    if type(cell) is list:
        return [_nested(item) for item in cell]
    if type(cell) is tuple:
        return tuple(map(_nested, cell))
    if isinstance(cell, dict):
        return {key: _nested(value) for key, value in cell.items()}
    return None if is_missing(cell) else whole_as_integer(cell)


def whole_as_integer(cell: Any) -> Any:
    """Return the integer of a whole float: beside a missing one, it became a float."""
    whole = isinstance(cell, float | np.floating) and cell.is_integer()
    return int(cell) if whole and abs(cell) < _INEXACT else cell


def is_missing(cell: Any) -> bool:
    """Tell whether a cell is None, NaN, NaT or pd.NA."""
    if cell is None or isinstance(cell, str):
        return cell is None
    pandas = sys.modules.get("pandas")  # no cell is pd.NA if pandas was never imported
    if pandas is not None and cell is pandas.NA:
        return True
    # Only NaN and NaT differ from themselves.
    may_differ = isinstance(cell, float | Decimal | np.generic | datetime)
    return may_differ and bool(cell != cell)


def text_array(texts: Iterable[str | None], name: str) -> pa.LargeStringArray:
    texts = list(texts)
    try:
        return pa.array(texts, TEXT)
    except UnicodeEncodeError as error:
        row = texts.index(error.object)
        raise ValueError(
            f"{name} must hold valid Unicode. Got a lone surrogate in row {row}. Clean "
            "it with text.encode('utf-8', 'replace').decode()."
        ) from error
