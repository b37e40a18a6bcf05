"""Objects -> what a study compares them by, the same in every process.

Functions are compared by their names, their byte code, and the constants in defaults
and closure; classes by their names, estimators by their parameters too, and other
objects by their repr. Byte code is that of one minor version of Python.
"""

from __future__ import annotations

import dis
import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from enum import Enum
from functools import partial
from numbers import Number
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

from .digest import BY_REPR, digest, lasting_repr

# Of what a function holds, types whose values stay as they are; of arrays, it is
# assumed. Lists, dicts and other objects may be its log or its cache.
_CONSTANTS = (*BY_REPR, Number, timedelta, range, Enum, np.ndarray, frozenset)
# Instructions of byte code that assign to variables of an enclosing function.
_WRITES = ("STORE_DEREF", "DELETE_DEREF")
# The main module, and what a spawned process calls it.
_MAIN = ("__main__", "__mp_main__")
# Parameters that change where or how a fit runs, but not its result: workers may differ
# in these.
_NOT_COMPARED = {"device", "local_files_only", "memory", "n_jobs", "verbose"}


def describe(value: Any, named: Collection[int] | None = None) -> Any:
    """Describe an object, without what changes from process to process.

    Estimators are described with their parameters; by their type alone those whose ids
    are `named`, as their parameters have names of their own, and without ids all.
    """
    inner = partial(describe, named=named)
    if isinstance(value, np.generic):
        value = value.item()  # its repr differs between versions of NumPy
    if isinstance(value, Mapping):
        return {str(key): inner(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [inner(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(inner, value), key=repr)
    parts = _parts(value)
    if parts is not None:
        return [inner(part) for part in parts]
    if isinstance(value, type):
        return value.__qualname__
    if hasattr(value, "get_params"):
        kind = type(value).__qualname__
        whole = named is not None and id(value) not in named
        return [kind, inner(compared_parameters(value))] if whole else kind
    if hasattr(value, "__qualname__"):  # a function
        module = getattr(value, "__module__", None)
        module = _MAIN[0] if module in _MAIN else module
        return f"{module}.{value.__qualname__}"
    if hasattr(value, "__array__") or hasattr(value, "tocsr"):  # of sparse matrices
        return digest(value)
    if isinstance(value, re.Pattern):  # whose repr is cut off
        return [value.pattern, value.flags]
    # The repr of these says nothing of their state.
    if isinstance(value, np.random.RandomState):
        return ["RandomState", digest(value.get_state(legacy=False))]
    if isinstance(value, np.random.Generator):
        return ["Generator", digest(value.bit_generator.state)]
    return lasting_repr(value)


def compared_parameters(estimator: Any, *, deep: bool = False) -> dict[str, Any]:
    """Return the parameters on which scores depend; a path and its text are alike."""
    return {
        name: str(value) if isinstance(value, PurePath) else value
        for name, value in estimator.get_params(deep=deep).items()
        if name.split("__")[-1] not in _NOT_COMPARED
    }


def code_of(held: Any) -> str:
    """Hash the functions in lists, dicts, partials and scorers by what they do."""
    return digest([_code(f) for leaf in _leaves(held) for f in _functions(leaf)])


def _leaves(value: Any) -> Iterator[Any]:
    """Find what lists, dicts, partials and scorers consist of."""
    if isinstance(value, Mapping):
        value = [value[key] for key in sorted(value, key=str)]
    parts = value if isinstance(value, list | tuple) else _parts(value)
    if parts is None:
        yield value
    else:
        for part in parts:
            yield from _leaves(part)


def _parts(value: Any) -> list[Any] | None:
    """Return what a partial, or what `make_scorer` makes, consists of; else None."""
    if isinstance(value, FunctionType | MethodType):
        return None  # `functools.wraps` copies a scorer's attributes to a function
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if "_score_func" in getattr(value, "__dict__", {}):
        names = ("_score_func", "_sign", "_kwargs", "_response_method")
        return [getattr(value, name) for name in names]
    return None


def _functions(value: Any) -> Iterator[FunctionType]:
    """Find a function, or that of a method, and those that it wraps."""
    while value is not None:
        if isinstance(value, MethodType):
            value = value.__func__
        if isinstance(value, FunctionType):
            yield value
        # Not by `getattr`, to which an object may answer whatever it likes.
        value = inspect.getattr_static(value, "__wrapped__", None)


def _code(function: FunctionType) -> list[Any]:
    """Describe the byte code of a function, and the constants that it holds.

    File and line numbers are left out, and variables that the function assigns to.
    """
    code = function.__code__
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    steps = dis.get_instructions(code)
    written = {step.argval for step in steps if step.opname in _WRITES}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if name not in written:
            held.append(None)
            with suppress(ValueError):  # it was deleted
                held[-1] = cell.cell_contents
    return [_instructions(code, function.__doc__), list(map(_constant, held))]


def _constant(value: Any) -> Any:
    """Describe what stays as it is; of others only that they are there."""
    if isinstance(value, tuple):
        return list(map(_constant, value))
    if isinstance(value, _CONSTANTS) or hasattr(value, "__qualname__"):
        return describe(value)
    return None


def _instructions(code: CodeType, doc: str | None = None) -> list[Any]:
    constants = [
        _instructions(const) if isinstance(const, CodeType) else describe(const)
        for const in code.co_consts
        if const is None or const != doc
    ]
    # What `try` covers is in the table alone.
    return [code.co_code, code.co_exceptiontable, constants, code.co_names]
