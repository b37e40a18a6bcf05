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
  what is missing in them; arrays as lists; sets in the order of their items' texts;
* members of enumerations of texts or integers as their values;
* anything else (intervals, ...) by ``str``.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
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

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# Seconds since 1970 at the second day of the year 1, and at the last but one of 9999.
_FIRST, _LAST = -62_135_510_400, 253_402_128_000

IS_TEXT = (pt.is_string, pt.is_large_string, pt.is_string_view)
# Types that Arrow infers from objects of one class without changing their values.
IS_BASIC = (*IS_TEXT, pt.is_null, pt.is_boolean, pt.is_integer, pt.is_floating)
_IS_TIME = (pt.is_date, pt.is_timestamp, pt.is_time, pt.is_duration)
# Types that `write_arrow` writes as a reader expects.
IS_PLAIN = (*IS_BASIC, *_IS_TIME, pt.is_decimal)


def has_type(
    cells: pa.Array | pa.ChunkedArray, kinds: tuple[Callable[..., bool], ...]
) -> bool:
    """Tell whether the cells, or the categories they name, are of these kinds."""
    type_ = cells.type.value_type if pt.is_dictionary(cells.type) else cells.type
    return any(is_kind(type_) for is_kind in kinds)


def whole_array(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Join chunks; texts get 64-bit offsets first, so that they fit in one array."""
    if has_type(array, IS_TEXT) and not pt.is_dictionary(array.type):
        array = array.cast(TEXT)
    if isinstance(array, pa.ChunkedArray):
        return array.unify_dictionaries().combine_chunks()
    return array


def in_arrow_unit(array: np.ndarray) -> np.ndarray:
    """Convert dates and durations to a unit that Arrow has; months have none."""
    if array.dtype.kind not in "mM":
        return array
    unit, _ = np.datetime_data(array.dtype)
    if unit in ("W", "D", "h", "m"):
        unit = "s"
    is_known = unit in ("s", "ms", "us", "ns")
    return array.astype(f"{array.dtype.kind}8[{unit}]") if is_known else array


def nan_to_null(cells: pa.Array) -> pa.Array:
    if pt.is_dictionary(cells.type) and pt.is_floating(cells.type.value_type):
        cells = cells.dictionary_decode()
    if not pt.is_floating(cells.type):
        return cells
    if pt.is_float16(cells.type):
        cells = cells.cast(pa.float32())
    return pc.if_else(pc.is_nan(cells), pa.scalar(None, cells.type), cells)


def write_arrow(cells: pa.Array) -> pa.LargeStringArray:
    """Write plain Arrow cells; nulls and NaN stay null."""
    if pt.is_dictionary(cells.type):
        return write_arrow(cells.dictionary).take(cells.indices)
    if pt.is_duration(cells.type):
        durations = cells.to_numpy(zero_copy_only=False).astype("m8[us]").tolist()
        return pa.array([None if d is None else str(d) for d in durations], TEXT)
    texts = _cast_to_text(nan_to_null(cells))
    if pt.is_float64(cells.type):
        texts = _write_large_whole(cells, texts)
    if not (pt.is_timestamp(cells.type) or pt.is_time(cells.type)):
        return texts
    zone = r"(Z|[+-]\d{4})?$"
    texts = pc.replace_substring_regex(texts, r"\.0+" + zone, r"\1")
    texts = pc.replace_substring_regex(texts, r"(\.\d*[1-9])0+" + zone, r"\1\2")
    return pc.replace_substring_regex(texts, r" 00:00:00$", "")


def _cast_to_text(cells: pa.Array) -> pa.LargeStringArray:
    zone = cells.type.tz if pt.is_timestamp(cells.type) else None
    if zone == "UTC":  # which every system knows
        return join([cells.cast(pa.timestamp(cells.type.unit)).cast(TEXT), "Z"])
    return cells.cast(TEXT) if zone is None else _write_zoned(cells)


def _write_zoned(cells: pa.Array) -> pa.LargeStringArray:
    """Write times by the clocks of their zone, of which Python knows the offsets.

    Arrow knows the zones of the system, on Windows none, and no summer after 2037.
    """
    unit, zone = cells.type.unit, cells.type.tz
    ticks, per_second = cells.cast(pa.int64()).to_pylist(), _PER_SECOND[unit]
    seconds = [t if t is None else _near(t // per_second) for t in ticks]
    try:
        there = pa.array(seconds, pa.int64()).cast(pa.timestamp("s", zone)).to_pylist()
    except (KeyError, ValueError) as error:
        raise ValueError(
            "The times in X must be in a time zone that is known here. Got "
            f"{zone!r}. Run: pip install tzdata"
        ) from error
    offsets = [moment and moment.utcoffset() for moment in there]
    clocks = pc.add(
        cells.cast(pa.timestamp(unit)), pa.array(offsets, pa.duration(unit))
    )
    names = pa.array([moment and _write_offset(moment) for moment in there], TEXT)
    return join([clocks.cast(TEXT), names])


def _near(second: int) -> int:
    """Return a second since 1970, or the nearest that Python has in all time zones."""
    return min(max(second, _FIRST), _LAST)


def _write_offset(moment: datetime) -> str:
    if not moment.utcoffset() and moment.tzname() in ("UTC", None):
        return "Z"
    return f"{moment:%z}"[:5]


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


def write_cell(cell: Any) -> str | None:
    """Write one object as `write_arrow` would have in a column of its own."""
    if is_missing(cell):
        return None
    if isinstance(cell, str):
        return str.__str__(cell)  # of an enumeration, the value, as Arrow does
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    if isinstance(cell, int):
        return int.__repr__(cell)
    if isinstance(cell, datetime | time):
        return _write_time(cell)
    if isinstance(cell, timedelta):
        return str(timedelta(cell.days, cell.seconds, cell.microseconds))
    if isinstance(cell, float | np.longdouble):  # Arrow knows no wider float
        return _write_floats([float(cell)])[0]
    if isinstance(cell, np.floating | np.datetime64 | np.timedelta64):
        with suppress(pa.ArrowException):  # of months, for one
            return write_arrow(pa.array(in_arrow_unit(np.array([cell]))))[0].as_py()
    return str(_nested(cell))


def _write_time(cell: datetime | time) -> str:
    """Write a time as Arrow does, and as :func:`write_arrow` shortens it."""
    text = str(cell.replace(tzinfo=None))
    if "." in text:
        text = text.rstrip("0")
    if cell.tzinfo is None:
        return text.removesuffix(" 00:00:00")
    if isinstance(cell, time):  # Arrow has no zones for times of a day
        return text
    return text + _write_offset(cell)


def _write_floats(cells: list[float | None]) -> list[str | None]:
    return write_arrow(pa.array(cells, pa.float64())).to_pylist()


class _Items(list[Any]):
    """The items of a set, which have another order in each process."""

    def __repr__(self) -> str:
        return f"{{{', '.join(sorted(map(repr, self)))}}}" if self else "set()"


class _Fields(list[Any]):
    """The keys and values of a dictionary; a key may be one of these classes."""

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{key!r}: {value!r}' for key, value in self)}}}"


def _nested(cell: Any) -> Any:
    """Convert nested cells to Python's; pandas holds lists as arrays."""
    if isinstance(cell, np.ndarray | np.generic):
        if cell.dtype.kind not in "mM":
            cell = cell.tolist()
        elif cell.ndim:  # `tolist` would turn nanoseconds into integers
            items: Any = cell
            cell = list(items)
    if type(cell) is list:
        return [_item(item) for item in cell]
    if type(cell) is tuple:
        return tuple(map(_item, cell))
    if isinstance(cell, set | frozenset):
        return _Items(map(_item, cell))
    if isinstance(cell, dict):
        return _Fields((_item(key), _item(value)) for key, value in cell.items())
    return None if is_missing(cell) else whole_as_integer(cell)


def _item(cell: Any) -> Any:
    """Convert what is in a cell: NumPy writes its own in ways that change."""
    if isinstance(cell, np.datetime64 | np.timedelta64) and not is_missing(cell):
        if np.datetime_data(cell.dtype)[0] in ("Y", "M"):
            return str(cell)
        with suppress(OverflowError):  # as NumPy raises from 2.5 on
            exact = cell.astype(f"{cell.dtype.kind}8[us]").item()
            if isinstance(exact, datetime | timedelta):
                return exact
        return str(cell)
    return _nested(float(cell) if isinstance(cell, np.longdouble) else cell)


def whole_as_integer(cell: Any) -> Any:
    """Return the integer of a whole float: beside a missing one, it became a float."""
    whole = isinstance(cell, float | np.floating) and cell.is_integer()
    return int(cell) if whole and abs(cell) < _INEXACT else cell


def write_cells(cells: list[Any]) -> list[str | None]:
    """Write each object as :func:`write_cell` does; floats at once, which is faster."""
    floats = _write_floats([c if isinstance(c, float) else None for c in cells])
    return [
        text if isinstance(cell, float) else write_cell(cell)
        for cell, text in zip(cells, floats, strict=True)
    ]


def is_missing(cell: Any) -> bool:
    """Tell whether a cell is None, NaN, NaT, pd.NA or masked."""
    if cell is None or isinstance(cell, str):
        return cell is None
    if isinstance(cell, Decimal):
        return cell.is_nan()
    if cell is np.ma.masked:
        return True
    pandas = sys.modules.get("pandas")  # no cell is pd.NA if pandas was never imported
    if pandas is not None and cell is pandas.NA:
        return True
    # Only NaN and NaT differ from themselves.
    return isinstance(cell, float | np.generic | datetime) and bool(cell != cell)


def text_array(texts: Iterable[str | None], name: str) -> pa.LargeStringArray:
    texts = list(texts)
    try:
        return whole_array(pa.array(texts, TEXT))
    except UnicodeEncodeError as error:
        row = texts.index(error.object)
        raise ValueError(
            f"{name} must hold valid Unicode. Got a lone surrogate in row {row}. Clean "
            "it with text.encode('utf-8', 'replace').decode()."
        ) from error
