"""Folders changed by chance: each is read, or refused with a clear error."""

import json
import shutil

import pytest
from _folders import read, write
from _hostile import CHECKED, CLEAR, STATE, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sk_adalora import AdaLoraClassifier

SAFE = settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
WORDS = st.sampled_from(["dtype", "values", "items", "<i8", "|O", "<U3", "<M8[s]"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(WORDS | st.text(max_size=3), inner | WORDS, max_size=5)
    ),
    max_leaves=15,
)


def assert_read_or_refused(folder):
    try:
        AdaLoraClassifier.from_pretrained(folder)
    except CLEAR:
        pass


@SAFE
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(folder, data):
    (folder / STATE).write_bytes(data)

    assert_read_or_refused(folder)


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
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_any_change_is_read_or_refused(saved, folder, name, data):
    original = (saved / name).read_bytes()
    (folder / name).write_bytes(mutated(data.draw, original))
    try:
        assert_read_or_refused(folder)
    finally:
        shutil.copy(saved / name, folder / name)


@SAFE
@given(change=st.data())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_any_value_in_the_state_is_read_or_refused(saved, folder, change):
    described = read(saved)
    path = change.draw(st.sampled_from(sorted(paths(described), key=repr)))
    put(*path, value=change.draw(JSON))(described)
    write(folder, json.loads(json.dumps(described)))

    assert_read_or_refused(folder)


def paths(value, before=()):
    """All places in nested objects."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*before, key)
        yield from paths(inner, (*before, key))
