"""Python and numpy values <-> JSON, type by type, so that labels come back as sent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# Arrays of these kinds are written: bool, int, unsigned, float, str, object.
_KINDS = "biufUO"


def to_json(value: Any) -> Any:
    """Turn a value into what JSON can hold.

    Parameters
    ----------
    value : object
        None, bool, int, float, str, numpy scalars and arrays, and lists, tuples and
        dicts of such.

    Returns
    -------
    object
        Of JSON's types; what they cannot tell apart is an object with a ``"type"``.

    Raises
    ------
    TypeError
        If the value, or a part of it, is of another type.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"type": "float", "value": str(value)}
    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        return {
            "type": "scalar",
            "dtype": value.dtype.str,
            "value": to_json(value.item()),
        }
    if isinstance(value, np.ndarray):
        return _array_to_json(value)
    if type(value) in (list, tuple):
        items = [to_json(item) for item in value]
        return items if type(value) is list else {"type": "tuple", "items": items}
    if type(value) is dict:
        items = [[to_json(k), to_json(v)] for k, v in value.items()]
        return {"type": "dict", "items": items}
    raise TypeError(f"{type(value).__name__} is no plain value")


def _array_to_json(array: np.ndarray) -> dict[str, Any]:
    kind = array.dtype.kind
    if kind == "T":  # numpy's strings of any length
        array, kind = array.astype(object), "O"
    if kind not in _KINDS:
        raise TypeError(f"an array of {array.dtype} is no plain value")
    flat = array.ravel()
    values = list(flat) if kind == "O" else flat.tolist()
    return {
        "type": "array",
        "dtype": array.dtype.str if kind != "O" else "O",
        "shape": list(array.shape),
        "values": [to_json(v) for v in values],
    }


def from_json(value: Any) -> Any:
    """Turn back what :func:`to_json` returned.

    Parameters
    ----------
    value : object
        From a file that nobody vouches for.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If it is nothing that :func:`to_json` returns.
    """
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    try:
        return _READERS[value["type"]](value)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"A value must be of a known type. Got {str(value)[:80]!r}: {error}."
        ) from error


def _read_array(value: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(_checked(value["dtype"], str))
    if dtype.kind not in _KINDS:
        raise ValueError(f"arrays of {dtype} are not read")
    items = [from_json(item) for item in _checked(value["values"], list)]
    array = np.empty(len(items), dtype=dtype)
    array[:] = items
    return array.reshape(_checked(value["shape"], list))


def _read_scalar(value: dict[str, Any]) -> Any:
    dtype = np.dtype(_checked(value["dtype"], str))
    if dtype.kind not in "biufU":
        raise ValueError(f"scalars of {dtype} are not read")
    return dtype.type(from_json(value["value"]))


def _read_dict(value: dict[str, Any]) -> dict[Any, Any]:
    pairs = [_checked(pair, list) for pair in _checked(value["items"], list)]
    return {from_json(key): from_json(item) for key, item in pairs}


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{kind.__name__} expected, {type(value).__name__} found")
    return value


_READERS = {
    "float": lambda v: float(_checked(v["value"], str)),
    "tuple": lambda v: tuple(from_json(i) for i in _checked(v["items"], list)),
    "dict": _read_dict,
    "scalar": _read_scalar,
    "array": _read_array,
}
