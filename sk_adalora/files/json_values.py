"""Python and numpy values <-> JSON, type by type, so that labels come back as sent."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# bool, int, unsigned, float, str, date, duration: what an array or a scalar may hold.
_DTYPE = re.compile(r"[<>|]([biufUmM])\d{1,10}(\[\d{0,9}[a-zA-Z]{1,2}\])?")
_MAX_DIGITS = 64  # of an int; JSON itself has no bound
# Of an array, when written: of texts two bytes a character, as JSON takes up to six.
_MAX_BYTES = 16 * 2**20
# All arrays of a group of values together, as numpy stores them, with room for the
# longest text in the place of each: no file may ask for more than this.
_MAX_MEMORY = 2**28
# Characters that an array of texts has room for, beyond its longest text: predictions
# repeat a label with all of its room.
_MOST_ROOM = 2**14
_PLAIN = (bool, int, float, str, np.generic, type(None))
# Arrays that would come back as others, or not at all.
_ODD = (np.ma.MaskedArray, np.matrix)


# ---- writing ----------------------------------------------------------------


def to_json(value: Any) -> Any:
    """Turn a value into what JSON can hold.

    Parameters
    ----------
    value : object
        None, bool, int, float, str, numpy scalars and arrays, and lists, tuples,
        sets and mappings of such; the latter come back as dicts.

    Returns
    -------
    object
        Of JSON's types; what they cannot tell apart is an object with a ``"type"``.

    Raises
    ------
    TypeError
        If the value, or a part of it, is of another type, or too large.
    """
    if type(value) is int and abs(value) >= 10**_MAX_DIGITS:
        raise TypeError(f"an int of more than {_MAX_DIGITS} digits")
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"type": "float", "value": str(value)}
    if isinstance(value, np.generic):
        return {"type": "scalar", **_numbers_to_json(np.asarray(value))}
    if isinstance(value, np.ndarray) and not isinstance(value, _ODD):
        return {
            "type": "array",
            "shape": list(value.shape),
            **_numbers_to_json(value),
        }
    if type(value) is list:
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        if "type" not in value and all(type(key) is str for key in value):
            return {key: to_json(item) for key, item in value.items()}
        pairs = [[to_json(k), to_json(v)] for k, v in value.items()]
        return {"type": "dict", "items": pairs}
    for name, kind in _COLLECTIONS.items():
        if type(value) is kind:
            members: Any = value
            items = members if kind is tuple else sorted(members, key=repr)
            return {"type": name, "items": [to_json(item) for item in items]}
    raise TypeError(f"{type(value).__name__} is no plain value")


def _numbers_to_json(array: np.ndarray) -> dict[str, Any]:
    dtype = array.dtype
    flat = array.ravel()
    if dtype.kind == "O":
        if not all(isinstance(item, _PLAIN) for item in flat):
            raise TypeError("an array of objects that are no plain values")
        return {"dtype": "O", "values": [to_json(item) for item in flat]}
    if not _DTYPE.fullmatch(dtype.str):
        raise TypeError(f"{dtype} is no plain type of number or text")
    size = flat.nbytes
    if dtype.kind == "U" and size <= _MAX_MEMORY:
        size = 2 * sum(map(len, flat.tolist()))
    if size > _MAX_BYTES:
        raise TypeError(f"an array of more than {_MAX_BYTES} bytes")
    if dtype.kind in "mM":
        flat = flat.astype(np.int64)
    elif dtype.kind == "f" and dtype.itemsize > 8:  # longer than Python's
        return {"dtype": dtype.str, "values": [str(item) for item in flat]}
    elif dtype.kind == "U" and _room(dtype) > _MOST_ROOM:
        dtype = np.asarray(flat.tolist() or [""]).dtype  # no wider than its texts
    return {"dtype": dtype.str, "values": [to_json(item) for item in flat.tolist()]}


# ---- reading ----------------------------------------------------------------


def from_json(values: dict[str, Any]) -> dict[str, Any]:
    """Turn back what :func:`to_json` returned.

    Parameters
    ----------
    values : dict of str to object
        Values by name, from an untrusted file; not nested too deeply for recursion.

    Returns
    -------
    dict of str to object

    Raises
    ------
    ValueError
        If one is nothing that :func:`to_json` returns, or if all together would take
        too much memory.
    """
    reader, result = _Reader(), {}
    for name, value in values.items():
        try:
            result[name] = reader.read(value)
        except (KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
            raise ValueError(
                f"A value must be of a known type and size. Got {reprlib.repr(value)}: "
                f"{error}. The file is broken."
            ) from error
    return result


class _Reader:
    """Reads values, within a bound on memory."""

    def __init__(self) -> None:
        self.left = _MAX_MEMORY
        self.readers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "float": lambda value: float(_checked(value["value"], str)),
            "dict": self.read_dict,
            "scalar": lambda value: self.read_numbers(value, (1,))[0],
            "array": self.read_array,
        }

    def read(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.read(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "type" not in value:
            return {key: self.read(item) for key, item in value.items()}
        name = _checked(value["type"], str)
        if name in _COLLECTIONS:
            items = _checked(value["items"], list)
            return _COLLECTIONS[name](self.read(item) for item in items)
        return self.readers[name](value)

    def read_dict(self, value: dict[str, Any]) -> dict[Any, Any]:
        pairs = [_checked(pair, list) for pair in _checked(value["items"], list)]
        result = {self.read(key): self.read(item) for key, item in pairs}
        if len(result) != len(pairs):
            raise ValueError("the same key twice")
        return result

    def read_array(self, value: dict[str, Any]) -> np.ndarray:
        shape = _checked(value["shape"], list)
        if not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("a shape is a list of ints of at least 0")
        return self.read_numbers(value, tuple(shape))

    def read_numbers(self, value: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
        name = _checked(value["dtype"], str)
        values = _checked(value["values"], list)
        if math.prod(shape) != len(values):
            raise ValueError(f"{len(values)} values do not fill the shape")
        items = [self.read(item) for item in values]
        if name == "O":
            _check_all(items, _PLAIN)
            array = np.empty(len(items), dtype=object)
            array[:] = items
            return array.reshape(shape)
        if not _DTYPE.fullmatch(name):
            raise ValueError(f"arrays of {name[:20]!r} are not read")
        dtype = np.dtype(name)
        self.left -= dtype.itemsize * max(1, len(items))
        if self.left < 0:
            raise ValueError(f"arrays of more than {_MAX_MEMORY} bytes")
        return _numbers(items, dtype).reshape(shape)


def _numbers(items: list[Any], dtype: np.dtype) -> np.ndarray:
    """Make an array of values that must be of its type already."""
    if dtype.kind == "f" and dtype.itemsize > 8:
        _check_all(items, (str,))
        return np.array([dtype.type(item) for item in items], dtype=dtype)
    kinds = {"b": (bool,), "f": (float, int), "U": (str,)}.get(dtype.kind, (int,))
    _check_all(items, kinds)
    if dtype.kind in "mM":
        return np.array(items, dtype=np.int64).astype(dtype)
    array = np.empty(len(items), dtype=dtype)
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        if not all(bounds.min <= item <= bounds.max for item in items):
            raise ValueError(f"an int that is no {dtype}")
    elif dtype.kind == "U":
        longest = max(map(len, items), default=0)
        if longest > _room(dtype):
            raise ValueError(f"a text that is too long for {dtype}")
        if _room(dtype) > max(longest, _MOST_ROOM):
            raise ValueError(f"texts that are much too short for {dtype}")
    array[:] = items
    return array


def _room(dtype: np.dtype) -> int:
    """Return how many characters each text of an array may have."""
    return dtype.itemsize // 4


def _check_all(items: list[Any], kinds: tuple[type, ...]) -> None:
    for item in items:
        if not isinstance(item, kinds) or (type(item) is bool and bool not in kinds):
            raise ValueError(f"a {type(item).__name__} is in the wrong place")


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{kind.__name__} expected, {type(value).__name__} found")
    return value


_COLLECTIONS: dict[str, type] = {"tuple": tuple, "set": set, "frozenset": frozenset}
