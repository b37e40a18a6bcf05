"""Folders changed by chance: each is read, or refused with a clear error."""

import copy
import json
import re
import shutil

import numpy as np
import pytest
from _folders import read, write
from _hostile import CHECKED, CLEAR, STATE, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sk_adalora import AdaLoraClassifier
from sk_adalora.adalora.json_file import read_json
from sk_adalora.files.json_values import from_json, to_json

SAFE = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**63), 10**63)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([np.float32(1.5), np.int8(-3), np.str_("a"), np.bool_(True)])
)
KEYS = st.text(max_size=5) | st.integers(-5, 5) | st.booleans()
ARRAYS = npst.arrays(
    st.sampled_from(
        ["<i8", "|i1", "<u8", "<f8", "<f2", "|b1", "<U7", "<M8[ns]", "<m8[D]", ">i4"]
    ),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
VALUES = st.recursive(
    LEAVES | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.sets(KEYS, max_size=4)
        | st.frozensets(KEYS, max_size=4)
    ),
    max_leaves=12,
)


def assert_same(first, second):
    assert type(first) is type(second)
    if isinstance(first, np.ndarray):
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, dict):
        assert [*first] == [*second]
        for key in first:
            assert_same(first[key], second[key])
    else:
        assert first == second or (first != first and second != second)


@SAFE
@given(VALUES)
def test_values_there_and_back(value):
    text = json.dumps(to_json(value))

    assert_same(from_json({"x": json.loads(text)}), {"x": value})


@pytest.mark.parametrize(
    "value",
    [
        object(),
        1j,
        b"bytes",
        np.array([1j]),
        np.array([b"a"]),
        np.array([object()]),
        np.zeros(1, dtype=[("a", int)]),
        [lambda: 0],
        {"a": print},
        10**70,
        np.zeros(2**22),
        type,
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", repr(value)),
)
def test_values_that_are_not_written(value):
    with pytest.raises(TypeError):
        to_json(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "value", "values", "items", "dtype", "shape", "x"])
            | st.text(max_size=3),
            inner
            | st.sampled_from(["array", "scalar", "dict", "tuple", "set", "float"])
            | st.sampled_from(["<i8", "O", "<U3", "<M8[s]", "<f16"]),
            max_size=5,
        )
    ),
    max_leaves=15,
)


@SAFE
@given(JSON)
def test_any_json_is_a_value_or_refused(value):
    try:
        from_json({"x": value})
    except ValueError:
        pass


@SAFE
@given(st.binary(max_size=300))
def test_any_bytes_are_settings_or_refused(folder, data):
    (folder / STATE).write_bytes(data)
    try:
        read_json(folder / STATE)
    except ValueError:
        pass


def mutated(draw, data):
    """Some bytes changed, cut out, or doubled."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "number"]))
        if kind == "flip" and data:
            data[place] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del data[place : place + draw(st.integers(1, 40))]
        elif kind == "insert":
            data[place:place] = draw(st.binary(max_size=20))
        else:
            data[place:place] = b"9" * draw(st.integers(1, 30))
    return bytes(data)


@pytest.mark.parametrize("name", CHECKED)
@SAFE
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_change_is_read_or_refused(saved, folder, name, data):
    original = (saved / name).read_bytes()
    (folder / name).write_bytes(mutated(data.draw, original))
    try:
        described = json.loads((saved / STATE).read_bytes())
        if name == STATE:
            described = json.loads((folder / STATE).read_bytes())
        write(folder, described)  # past the checksums
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass
    try:
        AdaLoraClassifier.from_pretrained(folder)
    except CLEAR:
        pass
    finally:
        for each in CHECKED:
            shutil.copy(saved / each, folder / each)


@SAFE
@given(change=st.data())
def test_any_value_in_the_state_is_read_or_refused(saved, folder, change):
    described = read(saved)
    path = change.draw(st.sampled_from(sorted(paths(described), key=repr)))
    put(*path, value=change.draw(JSON))(described)
    write(folder, copy.deepcopy(described))
    try:
        AdaLoraClassifier.from_pretrained(folder)
    except CLEAR:
        pass


def paths(value, before=()):
    """All places in nested objects."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*before, key)
        yield from paths(inner, (*before, key))
