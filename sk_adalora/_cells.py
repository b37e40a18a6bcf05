"""One cell -> its text.

A text depends on the cell and on the column's type only, never on other rows. That is
why whole-column niceties ("this column holds dates only, drop the clock") are decided
cell by cell. How cells are written:

* numbers in their shortest exact form: ``3``, ``0.1``, ``1.5``, and ``3`` for 3.0, so
  that an integer column reads the same after missing cells made it a float column;
* booleans as ``true`` and ``false``; categories as their labels;
* dates and times in ISO 8601, without trailing zeros, and without a midnight clock
  where no time zone follows it;
* durations as Python writes them, ``1 day, 2:30:00``, in whatever library they are, and
  with nine decimals where there are nanoseconds;
* lists, tuples and dictionaries by ``str``, with whole numbers as integers and None for
  what is missing in them; arrays as lists; sets in the order of their items' texts;
* members of enumerations of texts or integers as their values;
* anything else (intervals, ...) by ``str``.
"""

import re
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

# 64-bit offsets: one column may hold more than 2 GB of text.
TEXT = pa.large_string()

# From here on, not every integer is a float.
_INEXACT = float(2**53)

# Units of NumPy's dates (M) and durations (m) -> those of Arrow that hold them.
_SHORT = {"h": "s", "m": "s", "s": "s", "ms": "ms", "us": "us", "ns": "ns"}
_UNITS = {"M": {"W": "D", "D": "D", **_SHORT}, "m": {"W": "s", "D": "s", **_SHORT}}
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

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


def arrow_unit(dtype: np.dtype) -> str | None:
    """Return the unit that Arrow counts dates or durations of NumPy's in, if any."""
    units = _UNITS.get(dtype.kind)
    return None if units is None else units.get(np.datetime_data(dtype)[0])


def in_arrow_unit(array: np.ndarray) -> np.ndarray:
    """Convert dates and durations to a unit that Arrow has.

    Raises
    ------
    OverflowError
        If one of them is too large for that unit.
    """
    unit = arrow_unit(array.dtype)
    if unit is None:
        return array
    # NumPy before 2.5 would wrap around, as Arrow does with days.
    if not _are_held(array).all():
        raise OverflowError
    return array.astype(f"{array.dtype.kind}8[{unit}]")


def _are_held(times: np.ndarray) -> np.ndarray:
    """Tell which dates or durations Arrow can hold, in the unit that it has."""
    base, count = np.datetime_data(times.dtype)
    unit = arrow_unit(times.dtype)
    factor = int(np.array(1, f"m8[{count}{base}]") // np.array(1, f"m8[{unit}]"))
    most = (2**31 - 1 if unit == "D" else 2**63 - 1) // factor
    numbers = times.astype(np.int64)
    return (-most <= numbers) & (numbers <= most) | np.isnat(times)


def nan_to_null(cells: pa.Array) -> pa.Array:
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
        return _write_durations(cells)
    if pt.is_date(cells.type) or pt.is_timestamp(cells.type):
        texts = _write_dates(cells)
    else:
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
    try:
        return cells.cast(TEXT)
    except pa.ArrowInvalid:
        # Arrow knows the time zones of the system: on Windows, and in small
        # containers, none, not even UTC.
        if not pt.is_timestamp(cells.type) or cells.type.tz is None:
            raise
    # Python's dates have years of four digits.
    return _write_dates(cells, 1, 9999, _write_zoned)


def _write_zoned(cells: pa.Array) -> pa.LargeStringArray:
    """Write times in a zone as Arrow would, by the time zones that Python knows."""
    unit, zone = cells.type.unit, cells.type.tz
    clocks = cells.cast(pa.timestamp(unit))  # those of UTC
    if zone == "UTC":
        return join([clocks.cast(TEXT), "Z"])
    try:
        place = _zone(zone)
    except (KeyError, ValueError) as error:
        raise ValueError(
            "The times in X must be in a time zone that is known here. Got "
            f"{zone!r}. Run: pip install tzdata"
        ) from error
    local = [
        t and t.replace(tzinfo=UTC).astimezone(place)
        for t in clocks.cast(pa.timestamp("s"), safe=False).to_pylist()
    ]
    offsets = [t and t.utcoffset() for t in local]
    clocks = pc.add(clocks, pa.array(offsets, pa.duration(unit)))
    names = pa.array([t and f"{t:%z}"[:5] for t in local], TEXT)
    return join([clocks.cast(TEXT), names])


def _zone(name: str) -> tzinfo:
    """Return the zone with a name of Arrow's, such as "Europe/Berlin" or "+05:30".

    Arrow itself would ask pytz where it is installed, which knows no zone but its own
    and rounds the offsets of the 19th century to minutes.
    """
    if re.fullmatch(r"[+-]\d\d:\d\d", name):
        offset = timedelta(hours=int(name[1:3]), minutes=int(name[4:]))
        return timezone(-offset if name[0] == "-" else offset)
    return ZoneInfo(name)


def _write_durations(cells: pa.Array) -> pa.LargeStringArray:
    """Write durations as `str` writes a timedelta, and keep their nanoseconds."""
    per_second = _PER_SECOND[cells.type.unit]
    ticks = pc.fill_null(cells.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    seconds, fraction = np.divmod(ticks, per_second)
    days, seconds = np.divmod(seconds, 86_400)
    minutes, seconds = np.divmod(seconds, 60)
    hours, minutes = np.divmod(minutes, 60)
    nanoseconds = fraction * (10**9 // per_second)
    texts = join([_digits(hours), ":", _digits(minutes, 2), ":", _digits(seconds, 2)])
    exact = pa.array(nanoseconds % 1000 == 0)
    decimals = _digits(nanoseconds // 1000, 6)
    decimals = pc.if_else(exact, decimals, _digits(nanoseconds, 9))
    texts = pc.if_else(pa.array(nanoseconds == 0), texts, join([texts, ".", decimals]))
    unit = pc.if_else(pa.array(abs(days) == 1), " day, ", " days, ").cast(TEXT)
    texts = pc.if_else(pa.array(days == 0), texts, join([_digits(days), unit, texts]))
    return pc.if_else(cells.is_valid(), texts, pa.scalar(None, TEXT))


def _digits(numbers: np.ndarray, width: int = 1) -> pa.LargeStringArray:
    return pc.utf8_lpad(pa.array(numbers).cast(TEXT), width, "0")


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


def _write_dates(
    cells: pa.Array,
    first: int = -32767,
    last: int = 32767,
    write: Callable[[pa.Array], pa.LargeStringArray] = _cast_to_text,
) -> pa.LargeStringArray:
    """Write dates, as NumPy does those outside of the years that `write` can write.

    Arrow writes an error in their place or another year, or raises an error. In a time
    zone, where the year may be another one than in UTC, they are written in UTC.
    """
    zoned = pt.is_timestamp(cells.type) and cells.type.tz is not None
    times = cells.to_numpy(zero_copy_only=False)
    years = times.astype("M8[Y]")
    bounds = np.array([first + zoned, last - zoned]) - 1970
    low, high = bounds.astype("M8[Y]")
    far = (years < low) | (years > high)
    if not far.any():
        return write(cells)
    near = pc.if_else(pa.array(far), pa.scalar(None, cells.type), cells)
    if pt.is_date(cells.type):
        times = times.astype("M8[D]")
    zone = "Z" if zoned else ""
    written = [f"{time}{zone}".replace("T", " ") for time in times[far].astype(str)]
    texts = write(near)
    return pc.replace_with_mask(texts, pa.array(far), pa.array(written, TEXT))


# What Arrow writes; a subclass of float among them is NumPy's float64.
_BY_ARROW = (float, np.floating, datetime, time, np.datetime64, np.timedelta64)


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
    if isinstance(cell, np.longdouble):
        cell = float(cell)  # Arrow knows no wider float
    if isinstance(cell, np.datetime64 | np.timedelta64) and arrow_unit(cell.dtype):
        return _write_times(np.array([cell]))[0]
    if isinstance(cell, timedelta):
        return _write_duration(cell)
    if isinstance(cell, float | np.floating | datetime | time):
        try:
            return write_arrow(pa.array([cell]))[0].as_py()
        except pa.ArrowInvalid:  # an offset from UTC that has seconds
            return str(cell)
    return str(_nested(cell))


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
        return _python_time(cell)
    return _nested(float(cell) if isinstance(cell, np.longdouble) else cell)


def _python_time(cell: np.datetime64 | np.timedelta64) -> Any:
    """Return Python's date or duration, or the text of one that it cannot hold."""
    if arrow_unit(cell.dtype) is None:
        return str(cell)
    try:
        exact = cell.astype(f"{cell.dtype.kind}8[us]")
    except OverflowError:  # NumPy before 2.5 wraps around
        return str(cell)
    found = exact.item()
    fits = isinstance(found, datetime | timedelta) and exact.astype(cell.dtype) == cell
    return found if fits else str(cell)


def whole_as_integer(cell: Any) -> Any:
    """Return the integer of a whole float: beside a missing one, it became a float."""
    whole = isinstance(cell, float | np.floating) and cell.is_integer()
    return int(cell) if whole and abs(cell) < _INEXACT else cell


def _write_duration(cell: timedelta) -> str:
    whole = timedelta(cell.days, cell.seconds, cell.microseconds)
    nanoseconds = getattr(cell, "nanoseconds", 0)  # of pandas
    if not nanoseconds:
        return str(whole)
    decimals = "" if cell.microseconds else ".000000"
    return f"{whole}{decimals}{nanoseconds:03}"


def write_cells(cells: list[Any]) -> list[str | None]:
    """Write each object as :func:`write_cell` does; those of a kind at once."""
    texts: list[str | None] = [None] * len(cells)
    groups: dict[Any, list[int]] = {}
    for row, cell in enumerate(cells):
        kind = _column_of(cell)
        if kind is None:
            texts[row] = write_cell(cell)
        else:
            groups.setdefault(kind, []).append(row)
    for rows in groups.values():
        for row, text in zip(rows, _write_alike([cells[i] for i in rows]), strict=True):
            texts[row] = text
    return texts


def _column_of(cell: Any) -> Hashable:
    """Return what the cells of one Arrow column have in common; None for others."""
    if type(cell) is float:
        return float
    if not isinstance(cell, _BY_ARROW) or isinstance(cell, np.longdouble):
        return None
    if is_missing(cell):
        return None
    if isinstance(cell, np.generic):
        return cell.dtype if cell.dtype.kind == "f" or arrow_unit(cell.dtype) else None
    zone = getattr(cell, "tzinfo", None)
    zone = zone if isinstance(zone, Hashable) else id(zone)
    return type(cell), zone, getattr(cell, "unit", None)


def _write_alike(cells: list[Any]) -> list[str | None]:
    """Write cells of one kind, as :func:`_column_of` tells them."""
    try:
        if isinstance(cells[0], np.datetime64 | np.timedelta64):
            return _write_times(np.array(cells))
        return write_arrow(pa.array(cells)).to_pylist()
    # One of them is out of range.
    except (pa.ArrowException, OverflowError, ValueError):
        return [write_cell(cell) for cell in cells]


def _write_times(times: np.ndarray) -> list[str | None]:
    """Write dates or durations of NumPy's; as NumPy does, those too large for Arrow."""
    held = _are_held(times)
    texts = np.empty(len(times), dtype=object)
    texts[held] = write_arrow(pa.array(in_arrow_unit(times[held]))).to_pylist()
    texts[~held] = [str(cell) for cell in times[~held]]
    return texts.tolist()


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
