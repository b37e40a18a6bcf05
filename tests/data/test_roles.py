"""Roles of columns: found, given, and read again."""

import time
from datetime import date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

pytest.importorskip("skrub", reason="needs the extra `tables`")

from sk_adalora.data.columns import read_table
from sk_adalora.data.roles import find_roles

SOME_TEXT = [f"the film number {i}" for i in range(6)]
DAYS = [date(2020, 1, day) for day in range(1, 7)]

# Of these, month and day cannot be confused.
LATE = [date(2020, 1, day) for day in range(10, 16)]


def read(cells, role=None):
    """The role of a column, and what is read of it."""
    table = read_table({"c": cells} if isinstance(cells, pa.Table) else as_frame(cells))
    roles = find_roles(table, role and {"c": role})
    cells = roles.read(table)
    return roles.of["c"], cells.others.get("c", cells.texts)


def as_frame(cells):
    if isinstance(cells, list):  # of a list, pandas would make other types
        cells = pd.Series(cells, dtype=object)
    if isinstance(cells, pl.Series):
        return pl.DataFrame({"c": cells})
    return (
        pa.table({"c": cells})
        if isinstance(cells, pa.Array)
        else pd.DataFrame({"c": cells})
    )


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (np.array([1, 2, 3, 4]), [1, 2, 3, 4]),
        (np.array([1.5, np.nan, 2, 3]), [1.5, np.nan, 2, 3]),
        ([True, None, False, True], [1, np.nan, 0, 1]),
        (pd.array([1, None], "Int8"), [1, np.nan]),
        (pl.Series([1, None, 3]), [1, np.nan, 3]),
        ([Decimal("1.5"), None], [1.5, np.nan]),
        (["1", "N/A", " 2.5 ", "+3", "-1e3", "?"], [1, np.nan, 2.5, 3, -1000, np.nan]),
        (["N/A", 13, 0.5], [np.nan, 13, 0.5]),
        ([timedelta(hours=1), None], [3600, np.nan]),
        (pa.array([timedelta(minutes=1)], pa.duration("ms")), [60]),
    ],
)
def test_numbers_and_strings_of_numbers_are_numbers(cells, expected):
    role, numbers = read(cells)

    assert role == "number"
    np.testing.assert_array_equal(numbers, expected)


@pytest.mark.parametrize(
    "cells",
    [
        DAYS,
        [datetime(2020, 1, d.day, 5) for d in DAYS],
        pd.Series(pd.to_datetime(DAYS)),
        pl.Series(DAYS),
        [d.strftime("%d/%m/%Y") for d in LATE],
        [d.isoformat() + "T10:00:00+02:00" for d in DAYS],
        ["2020-01-01", None, "unknown", "2020-01-04"],
    ],
)
def test_dates_and_strings_of_dates_are_dates(cells):
    role, dates = read(cells)

    assert role == "date"
    days = pd.Series(dates).dropna().dt.day
    assert len(days) >= 2
    assert days.is_monotonic_increasing


def test_times_are_read_in_utc():
    local = pd.Series(pd.to_datetime(["2020-06-01 12:00"])).dt.tz_localize("Asia/Tokyo")
    written = pd.Series(["2020-06-01T12:00:00+09:00"])

    assert read(local)[1][0] == read(written)[1][0] == pd.Timestamp("2020-06-01 03:00")


@pytest.mark.parametrize(
    ("cells", "role"),
    [
        (["a", "b"] * 2, "category"),
        (["a", "b", "c"], "text"),  # more than half differ
        ([f"c{i % 40}" for i in range(80)], "category"),
        ([f"c{i % 41}" for i in range(820)], "text"),
        (["a", None, " ", "b", "a", "b", "c"], "text"),  # 3 of 5 differ
        (pd.Categorical(["a", "b", "c"]), "category"),  # called so by the user
        (pd.Categorical(["a", "b"], pd.Index(["a", "b"], dtype=object)), "category"),
        (["Jan", "Feb"] * 2, "category"),
        (SOME_TEXT, "text"),
        (["1", "2", "three", "4"], "text"),
        ([[1], [2], [3]], "text"),
    ],
)
def test_other_strings_are_categories_if_they_repeat(cells, role):
    assert read(cells)[0] == role


def test_a_column_without_values_is_left_out():
    columns = {"a": [None] * 2, "b": [np.nan] * 2, "c": ["", " "], "d": [1, 2]}
    table = read_table(pd.DataFrame(columns))
    roles = find_roles(table, {"a": "text"})

    assert [*roles.of.values()] == ["empty"] * 3 + ["number"]
    assert [*roles.read(table).others] == ["d"]
    assert roles.read(table).texts.num_columns == 0
    with pytest.raises(ValueError, match=r"with values. Got none in 'a', 'b'"):
        find_roles(read_table(pd.DataFrame(columns)[["a", "b"]]))


def test_a_list_of_texts_is_text_however_few_differ():
    assert find_roles(read_table(["good", "bad"] * 50)).of == {"X": "text"}


@pytest.mark.parametrize(
    ("cells", "role", "expected"),
    [
        ([10001, 10001, 10002], "category", ["10001", "10001", "10002"]),
        ([1.0, None, 2.0], "category", ["1", None, "2"]),
        (["2019", "2020", "2021"], "date", pd.to_datetime(["2019", "2020", "2021"])),
        (["1", "2"], "number", [1, 2]),
        (["a", "a"], "text", [["a", "a"]]),
        (["1", None], "text", [["1", None]]),
    ],
)
def test_a_given_role_counts(cells, role, expected):
    found, read_cells = read(cells, role)

    assert found == role
    if role == "text":
        read_cells = [column.to_pylist() for column in read_cells.columns]
        assert read_cells == expected
    else:
        pd.testing.assert_series_equal(
            pd.Series(read_cells).astype(object).reset_index(drop=True),
            pd.Series(expected, dtype=object).where(
                lambda cells: cells.notna(), np.nan
            ),
            check_names=False,
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"titel": "text"}, "Got 'titel'. Did you mean 'title'?"),
        ({"title": "txt"}, "Got 'txt' for 'title'. Did you mean 'text'?"),
        (
            {"title": "number"},
            "'title' has the role 'number'.*Got 'the film .* in row 0",
        ),
        ({"title": "date"}, "'title' must hold dates that are written alike. Got 'the"),
    ],
)
def test_a_role_that_does_not_exist_or_fit_is_an_error(given, message):
    table = read_table(pd.DataFrame({"title": SOME_TEXT}))

    with pytest.raises(ValueError, match=message):
        find_roles(table, given).read(table)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([1, 2, 3], [1, 2, "three"], "role 'number'.*Got 'three' in row 2"),
        (["1", "2", "3"], ["1", "two", "three"], "Got 'two' in row 1"),
        (["01/02/2020"] * 2, ["1 May", "2 May"], "role 'date'.*Got '1 May' in row 0"),
        ([1.0, 2.0], [1.0, np.inf], "finite numbers. Got inf in row 1"),
        ([1.0, 2.0], [-1e300, 1.0], "finite numbers. Got -1e.300 in row 0"),
    ],
)
def test_cells_that_do_not_fit_the_role_are_named(before, after, message):
    roles = find_roles(read_table(as_frame(before)))

    with pytest.raises(ValueError, match=f"'c'.*{message}"):
        roles.read(read_table(as_frame(after)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["1", "2"], np.array([1, 2])),
        (np.array([1, 2]), ["1", "2.0"]),
        ([d.strftime("%d.%m.%Y") for d in LATE], pd.Series(pd.to_datetime(LATE))),
        (pd.Series(pd.to_datetime(DAYS)), [d.isoformat() for d in DAYS]),
        ([1, 2], pl.Series([1.0, 2.0])),
    ],
)
def test_a_column_may_come_in_another_type_than_in_the_fit(before, after):
    tables = [read_table(as_frame(cells)) for cells in (before, after)]
    roles = find_roles(tables[0])
    first, second = (roles.read(table).others for table in tables)

    pd.testing.assert_frame_equal(first, second)


def test_all_kinds_of_tables_are_read_alike():
    columns = {
        "text": SOME_TEXT,
        "number": [1.0, None, 3.0, 4.0, 5.0, 6.0],
        "date": DAYS,
        "category": ["a", "b"] * 3,
    }
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    tables = [pd.DataFrame(columns), pl.DataFrame(columns), pa.table(columns), rows]
    of_all = [find_roles(read_table(table)) for table in tables]
    cells = [r.read(read_table(t)) for r, t in zip(of_all, tables, strict=True)]

    assert {tuple(roles.of.values()) for roles in of_all} == {tuple(columns)}
    for each in cells[1:]:
        renamed = each.others.set_axis([*cells[0].others], axis=1)
        pd.testing.assert_frame_equal(renamed, cells[0].others)
        assert each.texts.columns == cells[0].texts.columns


def test_order_and_neighbours_of_rows_do_not_matter():
    frame = pd.DataFrame(
        {"n": ["1", "2"] * 5, "c": ["b", "a"] * 5, "d": ["1/1/2020"] * 10}
    )
    roles = find_roles(read_table(frame))
    back = roles.read(read_table(frame[::-1])).others[::-1].reset_index(drop=True)

    assert find_roles(read_table(frame[::-1])) == roles
    pd.testing.assert_frame_equal(back, roles.read(read_table(frame)).others)


def test_a_large_table_is_read_in_seconds():
    n_rows, rng = 100_000, np.random.default_rng(0)
    numbers = rng.normal(size=(n_rows, 10))
    frame = pd.DataFrame({f"n{i}": column for i, column in enumerate(numbers.T)})
    frame["s"] = frame.n0.astype(str)
    frame["c"] = rng.choice(["a", "b", "c"], n_rows)
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(n_rows), unit="h")
    frame["d"] = days.strftime("%d/%m/%Y %H:%M")
    start = time.process_time()
    table = read_table(frame)
    find_roles(table).read(table)

    assert time.process_time() - start < 3
