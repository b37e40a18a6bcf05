"""Rows of a table -> texts."""

import collections
import enum
import itertools
import re
import struct
import time
import traceback
import zoneinfo
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as clock
from decimal import Decimal

import dateutil.parser
import dateutil.tz
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from _process import run_python
from _tiny import no_warning
from hypothesis import given, settings
from hypothesis import strategies as st

from sk_adalora.data import cells as _cells
from sk_adalora.data.cells import TEXT, _write_zoned
from sk_adalora.data.texts import read_texts

WORDS = ["a fine film", None, "dull"]


def listed(X, row_format="auto"):
    """The texts of `X` as a list."""
    return read_texts(X, row_format).first.to_pylist()


@pytest.fixture
def films():
    return pd.DataFrame(
        {
            "title": ["Alien", None, "Brazil"],
            "year": [1979, 1999, 1985],
            "rating": [8.5, 7.0, np.nan],
            "seen": [True, False, True],
            "genre": pd.Categorical(["horror", None, "satire"]),
            "added": pd.to_datetime(
                ["2024-01-05", "2024-01-06 12:30", None], format="ISO8601"
            ),
        }
    )


FILM_TEXTS = [
    "title: Alien\nyear: 1979\nrating: 8.5\nseen: true\ngenre: horror\n"
    "added: 2024-01-05",
    "year: 1999\nrating: 7\nseen: false\nadded: 2024-01-06 12:30:00",
    "title: Brazil\nyear: 1985\nseen: true\ngenre: satire",
]


def _strings_of_numpy_2(texts):
    pytest.importorskip("numpy", "2.0")
    return np.array(texts, dtype=np.dtypes.StringDType(na_object=None))


COLUMNS = {
    "list": lambda: list(WORDS),
    "tuple": lambda: tuple(WORDS),
    "list with NaN": lambda: [WORDS[0], float("nan"), WORDS[2]],
    "object array": lambda: np.array(WORDS, dtype=object),
    "StringDType": lambda: _strings_of_numpy_2(WORDS),
    "pandas object": lambda: pd.Series(WORDS, dtype=object),
    "pandas str": lambda: pd.Series(WORDS, dtype="str"),
    "pandas string": lambda: pd.Series(WORDS, dtype="string"),
    "pandas pd.NA": lambda: pd.Series([WORDS[0], pd.NA, WORDS[2]], dtype=object),
    "pandas Arrow": lambda: pd.Series(WORDS, dtype=pd.ArrowDtype(pa.string())),
    "pandas category": lambda: pd.Series(WORDS, dtype="category"),
    "pandas index": lambda: pd.Index(WORDS),
    "polars": lambda: pl.Series(WORDS),
    "polars category": lambda: pl.Series(WORDS, dtype=pl.Categorical),
    "Arrow": lambda: pa.array(WORDS),
    "Arrow dictionary": lambda: pa.array(WORDS).dictionary_encode(),
    "Arrow chunks": lambda: pa.chunked_array([WORDS[:1], WORDS[1:]]),
    "Arrow dictionary chunks": lambda: pa.chunked_array(
        [pa.array(WORDS[i:j]).dictionary_encode() for i, j in ((0, 1), (1, 3))]
    ),
    "single-column frame": lambda: pd.DataFrame({"text": WORDS}),
    "2-D array": lambda: np.array(WORDS, dtype=object)[:, None],
    "list of rows": lambda: [[word] for word in WORDS],
}


def test_a_function_gets_floats_of_python_for_wider_ones_of_numpy():
    X = np.array([[1], [7]], dtype=np.longdouble) / 3

    assert listed(X, lambda row: repr(row["x0"])) == [repr(1 / 3), repr(7 / 3)]


def test_a_function_gets_integers_for_whole_floats_among_others():
    cells = [[np.float32(3)], [3.0], ["a"]]

    assert listed(cells, lambda row: repr(row["x0"])) == ["3", "3", "'a'"]


@pytest.mark.parametrize("kind", COLUMNS)
def test_one_text_a_row(kind):
    texts = read_texts(COLUMNS[kind]())
    assert texts.first.to_pylist() == ["a fine film", "", "dull"]
    assert texts.first.type == pa.large_string()
    assert texts.second is None
    assert (len(texts), texts.n_empty, texts.n_features) == (3, 1, 1)


@pytest.mark.parametrize(
    "make",
    [
        list,
        np.array,
        lambda texts: np.array(texts).astype(">U9"),
        lambda texts: np.array(texts)[:, None],
        lambda texts: np.array(texts, dtype=object),
        pd.Series,
        pl.Series,
        pa.array,
    ],
)
def test_a_nul_does_not_end_a_text(make):
    texts = ["a\0b", "\0c", "d"]

    assert listed(make(texts)) == texts


def test_datasets_and_their_columns():
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": WORDS, "n": [1, 2, None]})
    assert listed(data["text"]) == ["a fine film", "", "dull"]
    shuffled = data.select([2, 0])
    assert listed(shuffled["text"]) == ["dull", "a fine film"]
    texts = read_texts(shuffled)
    assert texts.first.to_pylist() == ["text: dull", "text: a fine film\nn: 1"]
    assert texts.feature_names.tolist() == ["text", "n"]


# Tables


def to_datasets(frame):
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_pandas(frame)


@pytest.mark.parametrize(
    "convert",
    [
        lambda frame: frame,
        lambda frame: frame.astype(object),
        lambda frame: frame.convert_dtypes(),
        lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
        pl.from_pandas,
        pa.Table.from_pandas,
        lambda frame: pa.Table.from_pandas(frame).to_batches()[0],
        to_datasets,
    ],
)
def test_a_table_reads_the_same_in_every_library(films, convert):
    texts = read_texts(convert(films))
    assert texts.first.to_pylist() == FILM_TEXTS
    assert texts.feature_names.tolist() == list(films.columns)
    assert texts.feature_names.dtype == object
    assert texts.n_features == 6
    assert texts.n_empty == 0


@pytest.mark.parametrize(
    "X",
    [
        np.array([[1.0, 0.1], [np.nan, 2.5]]),
        np.array([[1.0, 0.1], [None, 2.5]], dtype=object),
        np.array([[1.0, 0.1], [np.nan, 2.5]], dtype=np.float32),
        [[1, 0.1], (None, 2.5)],
        [np.array([1, 0.1]), np.array([np.nan, 2.5])],
        pd.DataFrame([[1, 0.1], [None, 2.5]]),
        torch.tensor([[1.0, 0.1], [torch.nan, 2.5]], requires_grad=True),
    ],
)
def test_nameless_columns_are_named_as_scikit_learn_does(X):
    texts = read_texts(X)
    assert texts.first.to_pylist() == ["x0: 1\nx1: 0.1", "x1: 2.5"]
    assert texts.feature_names is None
    assert texts.n_features == 2


@pytest.mark.filterwarnings("ignore:The 'generic' unit:DeprecationWarning")
def test_cells_are_written_in_their_shortest_exact_form():
    cells = [
        (3.0, "3"),
        (0.1, "0.1"),
        (1e16, "1e+16"),
        (1 / 3, "0.3333333333333333"),
        (float("inf"), "inf"),
        (np.float32(0.1), "0.1"),
        (np.longdouble(0.1), "0.1"),
        (2**70, str(2**70)),
        (True, "true"),
        (np.bool_(False), "false"),
        (Decimal("1.50"), "1.50"),
        (date(2024, 1, 5), "2024-01-05"),
        (datetime(2024, 1, 5), "2024-01-05"),
        (datetime(2024, 1, 5, 12, 0, 0, 500), "2024-01-05 12:00:00.0005"),
        (np.datetime64("2200-01-01", "ns"), "2200-01-01"),
        (pd.Timestamp("2024-01-05 12:00", tz="UTC"), "2024-01-05 12:00:00Z"),
        (datetime(1890, 1, 5, 12, tzinfo=SECONDS), "1890-01-05 12:00:00-0053"),
        (pd.Interval(0, 1), "(0, 1]"),
        ((1, "a"), "(1, 'a')"),
        (Point(1.0, 2), "Point(x=1.0, y=2)"),
        (Tags(["a", "b"]), "#a #b"),
        ({8, 0}, "{0, 8}"),
        (frozenset([("b",), ("a",)]), "{('a',), ('b',)}"),
        (set(), "set()"),
        (Tone.GOOD, "good"),
        (Stars.FIVE, "5"),
        (pd.NaT, ""),
        (pd.NA, ""),
        (np.datetime64("NaT"), ""),  # newer versions of NumPy warn of it
        (np.datetime64("NaT", "ns"), ""),
        (np.datetime64("2024-01-05"), "2024-01-05"),
        (np.datetime64("2024-01-05T00:00:00"), "2024-01-05"),
        (np.datetime64("2024-01-05T10", "h"), "2024-01-05 10:00:00"),
        (np.datetime64("2024-01"), "2024-01"),
    ]
    for cell, text in cells:
        alone = np.empty((1, 1), dtype=object)
        alone[0, 0] = cell
        assert listed(alone) == [text], cell
        beside_others = pd.DataFrame({"x": [cell, "text", {"a": 1}]}, dtype=object)
        assert listed(beside_others) == [text, "text", "{'a': 1}"], cell


Point = collections.namedtuple("Point", "x y")


class Tags(list):
    """A list that is written in a way of its own."""

    def __str__(self):
        return " ".join(f"#{tag}" for tag in self)


class Tone(str, enum.Enum):  # noqa: UP042, since str() of a StrEnum is its value
    """Texts with names."""

    GOOD = "good"


class Stars(int, enum.Enum):
    """Numbers with names."""

    FIVE = 5


def test_a_member_of_an_enumeration_reads_the_same_beside_any_other_cell():
    for cell in (Tone.GOOD, Stars.FIVE):
        alone = listed([[cell]])
        for other in ("text", 3, 0.5, np.nan, None, cell, {"a": 1}):
            assert listed([[cell], [other]])[:1] == alone, other


def test_sets_are_written_in_one_order():
    """Python's depends on a seed of the process, and on what was added first."""
    assert {8, 0} == {0, 8}
    assert [*map(str, ({8, 0}, {0, 8}))] == ["{8, 0}", "{0, 8}"]
    assert listed([[{8, 0}], [{0, 8}]]) == ["{0, 8}"] * 2
    assert listed([["a", {"tags": {8, 0}}]]) == ["x0: a\nx1: {'tags': {0, 8}}"]


DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ((np.float64(1.5), np.int64(3)), "(1.5, 3)"),
        ((1.0, np.nan, np.bool_(True)), "(1, None, True)"),
        ({np.int64(3): np.float64(1)}, "{3: 1}"),
        ([np.datetime64("2020-01-01")], "[datetime.datetime(2020, 1, 1, 0, 0)]"),
        (
            [np.timedelta64(1, "s"), np.datetime64("NaT", "D")],
            "[datetime.timedelta(seconds=1), None]",
        ),
        ({"a": ({np.str_("b")},)}, "{'a': ({'b'},)}"),
        ([np.timedelta64(1, "M")], "['1 months']"),
        ([np.timedelta64(2, "Y"), np.datetime64("2024-01")], "['2 years', '2024-01']"),
        ([np.longdouble(0.5)], "[0.5]"),
        ([np.datetime64("12000-01-01")], "['12000-01-01']"),  # Python has no such year
        (np.array(["300000-01-01"], "M8[D]"), "['300000-01-01']"),
        (np.array([[1, 2]], "m8[D]"), f"[[{DAY!r}, {2 * DAY!r}]]"),
        ({frozenset([8, 0]): {8, 0}}, "{{0, 8}: {0, 8}}"),
        (collections.OrderedDict(b={}), "{'b': {}}"),
    ],
)
def test_what_is_in_a_cell_reads_the_same_in_every_version_of_numpy(cell, text):
    assert listed([["a", cell]]) == [f"x0: a\nx1: {text}"]


def arrow_frame(columns):
    """A DataFrame whose columns are Arrow's."""
    return pd.DataFrame(
        {n: pd.array(c, dtype=pd.ArrowDtype(c.type)) for n, c in columns.items()}
    )


@pytest.mark.parametrize("frame", [pa.table, arrow_frame])
def test_dates_of_64_bits(frame):
    """They count milliseconds; Python's dates end with the year 9999."""
    days = np.array(["2024-01-05", "12024-01-05"], "M8[D]")
    cells = pa.array([*days.astype("M8[ms]").astype(np.int64), None], pa.date64())

    assert listed(frame({"x": cells})) == [*days.astype(str), ""]


# Arrow ends the process at a date of NumPy's before a number of NumPy's.
DATES_AND_NUMBERS = """
import numpy as np, pandas as pd
from sk_adalora.data.texts import read_texts

dates = np.array(["2020-01-01", "2020-01-02"], "M8[D]")
numbers = np.array([1, 2])
date, number = dates[0], numbers[0]
for X in (
    [dates, numbers],
    np.array([[date, "a"], [number, "b"]], dtype=object),
    pd.DataFrame({"a": ["b", "c"], "x": np.array([date, number], dtype=object)}),
    [["a", [date, number]]],
    [["a", {"b": date}], ["c", {"b": number}]],
    [["a", date], ["b", np.ma.masked]],
):
    print(read_texts(X).first.to_pylist())
print(read_texts([date, number], row_format=str).first.to_pylist())
"""


def test_dates_and_numbers_of_numpy_may_stand_in_one_column():
    date = "datetime.datetime(2020, 1, 1, 0, 0)"
    assert run_python(DATES_AND_NUMBERS).stdout.splitlines() == [
        "['x0: 2020-01-01\\nx1: 2020-01-02', 'x0: 1\\nx1: 2']",
        "['x0: 2020-01-01\\nx1: a', 'x0: 1\\nx1: b']",
        "['a: b\\nx: 2020-01-01', 'a: c\\nx: 1']",
        f"['x0: a\\nx1: [{date}, 1]']",
        f"[\"x0: a\\nx1: {{'b': {date}}}\", \"x0: c\\nx1: {{'b': 1}}\"]",
        "['x0: a\\nx1: 2020-01-01', 'x0: b']",
        "['2020-01-01', '1']",
    ]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.cut([1, 2, np.nan], 2), ["(0.999, 1.5]", "(1.5, 2.0]", ""]),
        (pd.Categorical([1, None, 2]), ["1", "", "2"]),
        (pd.Categorical([2**70, None, -(2**64)]), [str(2**70), "", str(-(2**64))]),
        (pd.PeriodIndex(["2020-01", None], freq="M"), ["2020-01", ""]),
        (pd.to_timedelta([1, None], unit="D"), ["1 day, 0:00:00", ""]),
        (pd.arrays.SparseArray([0, 2]), ["0", "2"]),
        (np.array([0.5, np.nan], dtype=np.float16), ["0.5", ""]),
        (
            np.array(["2024-01-05T10", "NaT"], dtype="datetime64[h]"),
            ["2024-01-05 10:00:00", ""],
        ),
        (
            pd.to_datetime(["2024-01-05", None]).tz_localize("Europe/Berlin"),
            ["2024-01-05 00:00:00+0100", ""],
        ),
    ],
)
def test_unusual_pandas_columns(column, expected):
    assert listed(pd.DataFrame({"x": column})) == expected


@pytest.mark.parametrize("unit", ["W", "D", "h", "m", "s", "ms", "us", "ns"])
def test_dates_and_durations_of_numpy_read_alike_in_every_unit(unit):
    date = np.datetime64("2024-01-04", unit)  # NumPy's weeks begin on Thursdays
    span = np.timedelta64(7, "D").astype(f"m8[{unit}]")
    for cell, text in ((date, "2024-01-04"), (span, "7 days, 0:00:00")):
        later = cell + np.timedelta64(1, "W")
        texts = [text, text.replace("7", "14").replace("04", "11")]
        next_one = cell + np.timedelta64(1, unit)

        assert listed(np.array([[cell], [later]])) == texts
        assert listed([[cell], [later]]) == texts
        assert listed([[cell], [later], ["text"]]) == [*texts, "text"]
        for X in (np.array([[next_one]]), [[next_one]]):
            is_exact = unit != "ns" or cell is date  # to the microsecond
            assert (listed(X) != [text]) == is_exact


@pytest.fixture
def zone_of_python(tmp_path):
    """A time zone that Python knows and Arrow does not: on Windows, every one."""
    header = struct.pack(">4s16x6l", b"TZif", 0, 0, 0, 0, 1, 4)
    (tmp_path / "Half").mkdir()
    (tmp_path / "Half" / "Past").write_bytes(
        header + struct.pack(">lBB4s", 5400, 0, 0, b"HP")
    )
    zoneinfo.reset_tzpath([tmp_path])
    yield zoneinfo.ZoneInfo("Half/Past")
    zoneinfo.reset_tzpath()


@pytest.mark.parametrize(
    "convert",
    [
        lambda times: pd.DataFrame({"x": times}),
        lambda times: pd.DataFrame({"x": times}, dtype=object),
        lambda times: pa.table({"x": pa.array(times)}),
        lambda times: [[time] for time in times],
    ],
)
def test_times_in_a_zone_that_arrow_does_not_know(zone_of_python, convert):
    times = [datetime(2024, 1, 5, 12, 0, 0, 500, zone_of_python), None]

    assert listed(convert(times)) == ["2024-01-05 12:00:00.0005+0130", ""]


SUMMER = datetime(2040, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
NEW_YORK = zoneinfo.ZoneInfo("America/New_York")
NOON_Z, NOON_1 = "2024-01-05 12:00:00Z", "2024-01-05 12:00:00+0100"
FAR = pd.Timestamp(np.datetime64("12000-01-01", "s"))


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (dateutil.parser.isoparse("2024-01-05T12:30:00Z"), "2024-01-05 12:30:00Z"),
        (pd.Timestamp("2024-01-05 12:30", tz="Etc/UTC"), "2024-01-05 12:30:00Z"),
        (SUMMER, "2040-07-01 12:00:00+0200"),  # which Arrow takes for winter
        (FAR, "12000-01-01"),
        (datetime(9999, 12, 31, 23, 59, tzinfo=NEW_YORK), "9999-12-31 23:59:00-0500"),
        (pd.Timestamp(-1, tz="Europe/Berlin"), "1970-01-01 00:59:59.999999999+0100"),
        (datetime(2024, 1, 5, 12, tzinfo=dateutil.tz.tzoffset(None, 0)), NOON_Z),
        (datetime(2024, 1, 5, 12, tzinfo=dateutil.tz.tzoffset(None, 3600)), NOON_1),
        (pd.Timestamp("2024-01-05 00:00:00.1234567"), "2024-01-05 00:00:00.1234567"),
        (pd.Timestamp("2024-01-05 00:00:00.5", tz="UTC"), "2024-01-05 00:00:00.5Z"),
        (pd.Timedelta(-1500, "ns"), "-1 day, 23:59:59.999998"),
    ],
)
def test_times_read_alike_in_a_column_and_among_others(time, text):
    typed = pd.DataFrame({"x": pd.Series([time, pd.NaT])})
    assert typed["x"].dtype != object

    assert listed(typed) == [text, ""]
    assert listed(pd.DataFrame({"x": [time, "open"]})) == [text, "open"]


def test_times_of_a_day_have_no_zone():
    noon = clock(12, 30, tzinfo=UTC)

    assert listed([[noon], [noon.replace(tzinfo=None)]]) == ["12:30:00", "12:30:00"]
    assert listed(pa.table({"x": pa.array([noon])})) == ["12:30:00"]


@pytest.fixture
def machine_in_tokyo(monkeypatch):
    if not hasattr(time, "tzset"):
        pytest.skip("the zone of this process cannot be changed")
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("machine_in_tokyo")
def test_the_zone_of_the_machine_is_not_read():
    forward = datetime(2024, 3, 10, 7, tzinfo=UTC)  # New York's clocks
    times = [forward - timedelta(minutes=1), forward, forward + timedelta(hours=9)]
    cells = pa.array(times, pa.timestamp("s", "America/New_York"))

    assert _write_zoned(cells).to_pylist() == [
        "2024-03-10 01:59:00-0500",
        "2024-03-10 03:00:00-0400",
        "2024-03-10 12:00:00-0400",
    ]


@pytest.mark.parametrize("zone", ["Half/Future", "/etc/zone"])
def test_a_zone_that_nobody_knows_is_named(zone):
    cells = pa.array([0]).cast(pa.timestamp("s", zone))
    with pytest.raises(ValueError, match=rf"Got '{zone}'\. Run: pip install tzdata"):
        read_texts(pa.table({"x": cells}))


def arrow_knows(zone):
    try:
        pa.array([0]).cast(pa.timestamp("s", zone)).cast(TEXT)
    except pa.ArrowInvalid:
        return False
    return True


FIXED = pytest.mark.skipif(
    not arrow_knows("+05:30"), reason="this pyarrow writes no times at a fixed offset"
)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize(
    "zone",
    ["UTC", pytest.param("+05:30", marks=FIXED), "Europe/London", "America/New_York"],
)
def test_times_are_written_as_by_arrow(unit, zone):
    ticks = pa.array([-4_000_000_001, -1, 0, None, 1_700_000_000, 1_720_000_000])
    cells = ticks.cast(pa.timestamp("s")).cast(pa.timestamp(unit, zone))
    by_arrow = [re.sub(r"\.0+", "", t or "") for t in cells.cast(TEXT).to_pylist()]

    assert listed(pa.table({"x": cells})) == by_arrow


@pytest.mark.parametrize(
    ("second", "zone", "text"),
    [
        (-62_135_596_800, "America/New_York", "0000-12-31 19:03:58-0456"),
        (253_402_300_799, "Asia/Tokyo", "10000-01-01 08:59:59+0900"),
    ],
)
def test_times_whose_clocks_python_cannot_show(second, zone, text):
    cells = pa.array([second]).cast(pa.timestamp("s", zone))

    assert listed(pa.table({"x": cells})) == [text]


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("+05:30", ["1970-01-01 05:29:59+0530", None]),
        ("-03:30", ["1969-12-31 20:29:59-0330", None]),
    ],
)
def test_times_at_a_fixed_offset_are_written_by_any_arrow(zone, expected):
    cells = pa.array([-1, None]).cast(pa.timestamp("s", zone))

    assert _write_zoned(cells).to_pylist() == expected
    assert read_texts(pa.table({"x": cells})).first.to_pylist() == [expected[0], ""]


DURATIONS = [
    timedelta(hours=1),
    timedelta(0),
    None,
    timedelta(days=1, microseconds=20),
    timedelta(hours=-1),
    timedelta(days=-400, seconds=59.5),
    timedelta(days=9999, hours=23, minutes=59, seconds=59, milliseconds=1),
]


@pytest.mark.parametrize(
    "convert",
    [
        lambda cells: pd.DataFrame({"x": pd.Series(cells, dtype="timedelta64[ns]")}),
        lambda cells: pd.DataFrame({"x": pd.Series(cells, dtype="timedelta64[us]")}),
        lambda cells: pd.DataFrame({"x": pd.Series(cells, dtype=object)}),
        lambda cells: pd.DataFrame({"x": pd.Categorical(pd.to_timedelta(cells))}),
        lambda cells: pd.DataFrame(
            {"x": pd.Series([*map(pd.Timedelta, cells)], dtype=object)}
        ),
        lambda cells: pl.DataFrame({"x": pl.Series(cells, dtype=pl.Duration("ns"))}),
        lambda cells: pl.DataFrame({"x": cells}),
        lambda cells: pa.table({"x": pa.array(cells, pa.duration("ns"))}),
        lambda cells: pa.table({"x": cells}).slice(0),
        lambda cells: np.array(cells, dtype="m8[us]")[:, None],
        lambda cells: np.array(cells, dtype="m8[us]").astype(object)[:, None],
        lambda cells: [[cell and np.timedelta64(cell)] for cell in cells],
        lambda cells: [[cell] for cell in cells],
    ],
)
def test_durations_read_as_in_python_in_every_library(convert):
    expected = ["" if cell is None else str(cell) for cell in DURATIONS]

    assert listed(convert(DURATIONS)) == expected
    for row in (0, 4):
        assert listed(convert(DURATIONS[row : row + 1])) == expected[row : row + 1]


@pytest.mark.filterwarnings("ignore:The 'generic' unit:DeprecationWarning")
@pytest.mark.parametrize(
    ("unit", "text"),
    [("25s", "0:00:50"), ("Y", "2 years"), ("ps", "2 picoseconds")],
)
def test_durations_of_numpy_in_odd_units(unit, text):
    column = np.array([[2], ["NaT"]], dtype=f"m8[{unit}]")

    assert listed(column) == listed([[cell] for cell in column[:, 0]]) == [text, ""]


def test_a_million_durations_are_fast():
    cells = np.random.default_rng(0).integers(-(10**15), 10**15, 1_000_000)
    start = time.process_time()  # other programs do not count
    texts = read_texts(pd.DataFrame({"x": cells.astype("m8[us]")})).first

    assert time.process_time() - start < 5
    assert texts[0].as_py() == str(timedelta(microseconds=int(cells[0])))


def test_polars_nan_lists_and_enums():
    frame = pl.DataFrame(
        {
            "nan": [1.0, float("nan")],
            "list": [[1, 2], None],
            "enum": pl.Series(["low", "high"], dtype=pl.Enum(["low", "high"])),
        }
    )
    assert listed(frame) == ["nan: 1\nlist: [1, 2]\nenum: low", "enum: high"]


def test_rows_without_text_are_counted():
    assert read_texts(["a", "", " \n", None]).n_empty == 3
    frame = pd.DataFrame({"a": ["x", None, None], "b": ["y", "z", None]})
    assert read_texts(frame).n_empty == 1
    assert read_texts(frame, "pair").n_empty == 1
    assert read_texts([None, None]).n_empty == 2
    assert read_texts(pd.Series([np.nan, np.nan])).n_empty == 2
    assert read_texts(pl.Series([np.nan, np.nan])).n_empty == 2


def test_rows_are_taken_in_any_order_and_number():
    frame = pd.DataFrame({"a": ["x", None, "z"], "b": ["1", None, "3"]})
    texts = read_texts(frame, "pair").take(np.array([1, 2, 1]))
    assert texts.first.to_pylist() == ["", "z", ""]
    assert texts.second.to_pylist() == ["", "3", ""]
    assert (len(texts), texts.n_empty, texts.n_features) == (3, 2, 2)
    assert len(texts.take([])) == 0


def test_input_is_left_alone(films):
    before = films.copy(deep=True)
    read_texts(films)
    read_texts(films, "{title:>9}{rating}")
    pd.testing.assert_frame_equal(films, before)


cells = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.datetimes(),
)


@settings(deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=8), st.randoms())
def test_a_text_depends_on_its_own_row_only(rows, random):
    whole = listed(rows)
    assert [listed([row])[0] for row in rows] == whole
    order = list(range(len(rows)))
    random.shuffle(order)
    assert listed([rows[i] for i in order]) == [whole[i] for i in order]


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_written_floats_are_exact(values):
    texts = listed(np.array(values)[:, None])
    assert [float(text) for text in texts] == values


# Row formats


def test_a_pair_is_two_columns_as_they_are(films):
    texts = read_texts(films[["title", "genre"]], "pair")
    assert texts.first.to_pylist() == ["Alien", "", "Brazil"]
    assert texts.second.to_pylist() == ["horror", "", "satire"]
    assert texts.n_empty == 1


def test_a_template_names_columns_and_keeps_braces(films):
    assert listed(films, "{{{title}}} of {year}: {rating}") == [
        "{Alien} of 1979: 8.5",
        "{} of 1999: 7",
        "{Brazil} of 1985: ",
    ]


def test_template_with_format_specs(films):
    assert listed(films, "{rating:.2f} {title!r:>9}") == [
        "8.50   'Alien'",
        "7.00 ",
        "  'Brazil'",
    ]
    with pytest.raises(ValueError, match=r"\{title\}.*Got 'Alien' in row 0 with 'd'"):
        read_texts(films, "{title:d}")
    with pytest.raises(ValueError, match=r"Got 2000000 in row 0 with 'c': %c arg not"):
        read_texts([[2_000_000, "a"]], "{x0:c}")
    with pytest.raises(ValueError, match=r"Got \['a'\] in row 0 with '>9'"):
        read_texts(pd.DataFrame({"tags": [["a"]]}), "{tags:>9}")
    letter = pd.DataFrame({"title": [f"Dear sir, {'a secret ' * 9} Yours"]})
    match = r"Got 'Dear.*\.\.\..*Yours' in row 0"
    with pytest.raises(ValueError, match=match) as caught:
        read_texts(letter, "{title:d}")
    assert "secret a secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("row_format", ["{when:%Y}", str])
@pytest.mark.parametrize(
    ("tick", "kind"),
    [
        (253_402_300_800, pa.timestamp("s")),  # the year 10000
        (253_402_300_799, pa.timestamp("s", "Asia/Tokyo")),  # is 9999 in London
        (0, pa.timestamp("s", "No/Zone")),
        (2**55, pa.duration("s")),
    ],
    ids=str,
)
def test_cells_that_python_does_not_have_name_their_column(tick, kind, row_format):
    table = pa.table({"when": pa.array([tick], kind), "n": [1]})

    match = rf"The cells of 'when' must .* Got {re.escape(str(kind))}: .*[^.]\. Change"
    with pytest.raises(ValueError, match=match):
        read_texts(table, row_format)


@pytest.mark.parametrize("dtype", ["str", "category", "string[pyarrow]"])
def test_a_template_may_cut_long_texts(dtype):
    table = pd.DataFrame({"title": ["Alien"], "plot": ["In space " * 9999]})

    template = "{title:.9000}: {plot:.8000}{title!r:.9999s}"
    (text,) = listed(table.astype(dtype), template)
    assert text == f"Alien: {table['plot'][0][:8000]}'Alien'"
    assert listed(pd.DataFrame({"n": [12]}), "{n!s:.9999}{n!s:.9999}") == ["1212"]
    with pytest.raises(ValueError, match=r"widths .* below 10000"):
        read_texts(table, "{title:5000.9000}{plot:5000}")


def test_template_names_may_hold_spaces_and_dots():
    assert listed(pd.DataFrame({"a b": ["x"], "c.d": ["y"]}), "{a b}{c.d}") == ["xy"]


@pytest.mark.parametrize(
    ("template", "match"),
    [
        (
            "{titel}",
            r"Got \{titel\} in '\{titel\}'. Did you mean 'title'\? The columns",
        ),
        ("{zzz}", "The columns are 'title', 'year'"),
        ("{title.__class__}", "attributes and items cannot be used"),
        ("{title[0]}", "attributes and items cannot be used"),
        ("{0}", "Positions, attributes"),
        ("{}", "Positions, attributes"),
        ("{title", "must be a valid str.format template"),
        ("Auto", r"'auto', 'pair' or a template.*Got 'Auto'.*'\{title\}'"),
    ],
)
def test_wrong_templates(films, template, match):
    with pytest.raises(ValueError, match=match):
        read_texts(films, template)


def test_a_template_names_no_column_in_a_format():
    days = pd.DataFrame({"day": [date(2020, 1, 2)], "form": ["%Y"]})

    assert read_texts(days, "{day:%Y}").first.to_pylist() == ["2020"]
    match = r"The formats in `row_format` must not name.*Got {day} with '%d {form}'"
    with pytest.raises(ValueError, match=match):
        read_texts(days, "{day:%d {form}}")


def test_a_callable_gets_each_row_by_its_columns(films):
    def write(row):
        assert list(row) == list(films.columns)
        return f"{row['title']}/{row['year']}/{row['rating']}"

    assert listed(films, write) == [
        "Alien/1979/8.5",
        "None/1999/7",
        "Brazil/1985/None",
    ]
    assert listed(np.array([[1, 2]]), lambda row: str(row)) == ["{'x0': 1, 'x1': 2}"]
    assert listed(["a", None], lambda text: f"<{text}>") == ["<a>", "<None>"]
    assert listed([{"t": "a"}, {"t": "b"}], lambda cell: cell["t"]) == ["a", "b"]


@pytest.mark.parametrize("kind", [int, np.float32, "Int64", object])
@pytest.mark.parametrize(
    "row_format", ["{n:,}", "{n!r}", "{n:>6}", "{n:d}", "{n:8.5}", None]
)
def test_a_row_reads_the_same_beside_a_missing_number(kind, row_format):
    row_format = row_format or (lambda row: str(row["n"]))
    whole = pd.DataFrame({"n": pd.Series([1200, 7, -3]).astype(kind)})
    beside_missing = pd.DataFrame({"n": [1200, None, -3]})
    of_whole, other = (listed(df, row_format) for df in (whole, beside_missing))
    assert of_whole[::2] == other[::2]
    assert of_whole[0].strip() in ("1200", "1,200", "1200.0")


def test_callable_errors_name_the_row_and_what_the_function_gets(films):
    with pytest.raises(ValueError, match="It raised KeyError for row 0: 'oops'"):
        read_texts(films, lambda row: row["oops"])
    with pytest.raises(TypeError, match=r"return a str. Got NoneType for row 1"):
        read_texts(films, lambda row: row["title"])
    with pytest.raises(ValueError, match="the function, which gets a dict, return"):
        read_texts(films, lambda row: row.title)
    with pytest.raises(ValueError, match="the function, which gets a str, return"):
        read_texts(["a text"], lambda row: row["title"])


@pytest.mark.parametrize("row_format", ["pair", "{text}"])
def test_row_formats_that_need_a_table(row_format):
    match = r"needs a table\. Got a one-dim.* or a function, which gets each text"
    with pytest.raises(ValueError, match=match):
        read_texts(["a", "b"], row_format)


def test_pair_needs_two_columns(films):
    with pytest.raises(ValueError, match=r"exactly 2 columns. Got 6"):
        read_texts(films, "pair")


def test_row_format_of_another_type():
    with pytest.raises(TypeError, match=r"`row_format` must be 'auto'.*Got 3"):
        read_texts(["a"], 3)


@pytest.mark.parametrize("row_format", ["auto", "pair", "{fine}", str])
def test_a_lone_surrogate_in_a_column_name_is_refused(row_format):
    X = pd.DataFrame([["a", "b"]])
    X.columns = pd.Index(["fine", "\ud800"], dtype=object)
    match = r"column name '\\ud800' must hold valid Unicode. Got a lone surrogate at p"
    with pytest.raises(ValueError, match=match):
        read_texts(X, row_format)
    if row_format == "auto":
        with pytest.raises(ValueError, match=match):
            read_texts(X.iloc[:, 1:])


@pytest.mark.parametrize("template", ["{a} \ud83d", "{a:\ud83d>5}"])
def test_a_lone_surrogate_in_a_template_is_refused_by_name(template):
    match = r"`row_format` must hold valid Unicode. Got a lone surrogate at position "
    with pytest.raises(ValueError, match=match + str(template.index("\ud83d"))):
        read_texts(pd.DataFrame({"a": ["x"]}), template)


# Refused input


class Stream:
    """Records that are not in memory, as an IterableDataset."""

    def to_pandas(self):
        raise AssertionError("a stream may be without an end")


@pytest.mark.parametrize(
    ("X", "error", "match"),
    [
        (np.array([1.0]), ValueError, r"1-D array of double.*astype\(str\).*Reshape"),
        ([1, 2], ValueError, "1-D array of int64"),
        (pd.Series([True]), ValueError, "1-D array of bool"),
        (pd.Series([1, 2], dtype="category"), ValueError, "1-D array of dictionary"),
        ([{"a": 1}], ValueError, r"Got dict in row 0. Pass pd\.DataFrame\(list"),
        (
            Stream(),
            TypeError,
            r"Got Stream\. Pass the columns of X\.to_pandas\(\) that",
        ),
        ([b"a"], TypeError, "not bytes. Got bytes in row 0. Decode"),
        (np.array([b"a"]), TypeError, "not bytes"),
        (pa.array([b"a"]), TypeError, "not bytes"),
        (pd.DataFrame({"t": ["a", b"b"]}), TypeError, "t must hold text.*row 1"),
        ([["a", "b"], [bytearray(b"a"), "b"]], TypeError, "x0 must hold text.*row 1"),
        (
            pd.Series(["a", "\ud800"], dtype=pd.StringDtype("python")),
            ValueError,
            "valid Unicode. Got a lone surrogate in row 1",
        ),
        (np.array("a"), ValueError, "shape \\(\\)"),
        (np.zeros(2, dtype=[("a", int)]), ValueError, r"Pass pd\.DataFrame\(X\) as"),
        (np.zeros((2, 1), dtype=[("a", int)]), ValueError, "Reshape your data"),
        (np.ma.masked_array([[1j]]), ValueError, "Complex data not supported"),
        (np.ma.masked_array([(1, 2)], dtype="i4, i4"), ValueError, "must be a 1-D"),
        ([["a", "b"], "cd"], ValueError, "lists of 2 cells. Got str in row 1"),
        ([None, ["a", "b"]], ValueError, "lists of 2 cells. Got NoneType in row 0"),
        (pd.DataFrame([["a", "b"]], columns=["x", "x"]), ValueError, "'x' more than"),
        (pa.table([["a"], ["b"]], names=["x", "x"]), ValueError, "'x' more than once"),
        (np.empty((0, 3)), ValueError, r"0 sample\(s\) \(shape=\(0, 3\)\)"),
        (
            np.empty((12, 0)),
            ValueError,
            r"0 feature\(s\) \(shape=\(12, 0\)\) while a minimum of 1 is required.",
        ),
        ([[], []], ValueError, r"0 feature\(s\) \(shape=\(2, 0\)"),
    ],
)
def test_what_is_no_rows_of_texts_is_refused(X, error, match):
    with pytest.raises(error, match=match):
        read_texts(X)


def test_an_array_that_can_be_a_table_stays_an_array():
    """xarray's gives Arrow a table, with the numbers of the rows as columns."""

    class Labelled:
        dtype = np.dtype(object)

        def __array__(self, dtype=None, copy=None):
            return np.array(["a text", "another"], dtype=object)

        def __arrow_c_stream__(self, requested_schema=None):
            table = pa.table({"row": [0, 1], "value": ["a text", "another"]})
            return table.__arrow_c_stream__(requested_schema)

    assert read_texts(Labelled()).first.to_pylist() == ["a text", "another"]


def test_a_table_of_dask_is_refused_without_a_warning():
    dask = pytest.importorskip("dask.dataframe", reason="needs dask[dataframe]")
    table = dask.from_pandas(pd.DataFrame({"a": ["b"]}), npartitions=1)

    with no_warning(), pytest.raises(TypeError, match=r"lazy .* Pass X\.compute"):
        read_texts(table)  # narwhals would ask for a package of its own


# Numbers that a step before may have made of texts

FLOATS = np.random.default_rng(0).normal(size=(41, 11))


@pytest.mark.parametrize(
    "make",
    [
        np.asarray,
        np.float32,
        np.ndarray.tolist,
        torch.tensor,
        pd.DataFrame,
        pl.DataFrame,
        lambda X: pd.DataFrame(X).astype("float32[pyarrow]"),
        lambda X: np.where(X > 1, np.nan, X),
        lambda X: (X * 9).astype(int),  # as of token ids, or of counted words
        lambda X: (X * 9).astype(int).tolist(),
        lambda X: torch.tensor(X * 9).to(torch.uint8),
        lambda X: X > 0,  # as of texts taken for categories
        lambda X: [[*row[:6], *map(int, row[6:])] for row in X.tolist()],
        lambda X: pd.DataFrame(X).assign(**{"11": 1}).set_axis(range(12), axis=1),
    ],
)
def test_many_columns_of_numbers_seem_encoded(make):
    texts = read_texts(make(FLOATS))

    assert texts.seem_encoded
    assert not texts.take(range(40)).seem_encoded


@pytest.mark.parametrize(
    "X",
    [
        FLOATS[:, :10],
        FLOATS[:40],
        FLOATS[:, :1],
        pd.DataFrame((FLOATS * 9).astype(int)).add_prefix("number of "),
        pd.DataFrame(FLOATS > 0).add_prefix("has "),
        FLOATS.astype(str),
        pd.DataFrame(FLOATS).assign(text="a text"),
        WORDS * 20,
        [[("a", "b")] * 11] * 41,
    ],
)
def test_other_tables_do_not_seem_encoded(X):
    assert not read_texts(X).seem_encoded


@pytest.mark.parametrize("row_format", ["is {x0:.1f} m tall", str])
def test_numbers_that_the_user_writes_out_do_not_seem_encoded(row_format):
    assert not read_texts(FLOATS, row_format).seem_encoded


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e5m2])
def test_tensors_of_narrow_floats(dtype):
    assert listed(torch.tensor([[1.5], [2.0]]).to(dtype)) == ["1.5", "2"]


def test_tensors_of_booleans():
    assert listed(torch.tensor([[True], [False]])) == ["true", "false"]


def test_tensors_of_wide_floats_keep_their_digits():
    wide = torch.tensor([[1 / 3]], dtype=torch.float64)

    assert listed(wide) == [str(1 / 3)]
    assert listed(wide.float()) == listed(wide.float().numpy())


def test_100_000_rows_are_fast():
    rng = np.random.default_rng(0)
    n = 100_000
    words = np.array([f"word{i}" for i in range(1000)])
    score = rng.normal(size=n)
    score[::9] = np.nan
    frame = pd.DataFrame(
        {
            "title": [" ".join(row) for row in words[rng.integers(0, 1000, (n, 5))]],
            "body": [" ".join(row) for row in words[rng.integers(0, 1000, (n, 20))]],
            "n": rng.integers(0, 1000, n),
            "score": score,
            "group": pd.Categorical(rng.choice(["red", "green", None], n)),
        }
    )
    frame.loc[::7, "title"] = None
    start = time.process_time()  # other programs do not count
    texts = read_texts(frame)
    assert time.process_time() - start < 2
    assert texts.first[7].as_py().startswith("body: word")
    assert len(texts) == n


# ---- large numbers, masks, names ------------------------------------------------


def test_a_float_that_stands_for_many_integers_is_none():
    """Among them a function would get one of 300 digits."""
    cells = pd.DataFrame({"n": [3.0, 2.0**53, 1e300, -1e300]})

    texts = read_texts(cells, lambda row: repr(row["n"])).first.to_pylist()
    assert texts == ["3", "9007199254740992.0", "1e+300", "-1e+300"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1e10, "10000000000"),
        (-3e15, "-3000000000000000"),
        (2.0**53 - 1, "9007199254740991"),
        (2.0**53, "9.007199254740992e+15"),
        (1e300, "1e+300"),
        (12345678901.5, "1.23456789015e+10"),
        (7.0, "7"),
    ],
)
def test_large_floats(number, text):
    frame = pd.DataFrame({"n": [number, np.nan], "b": ["x", "y"]})
    cells = [[number, "x"], [None, "y"]]  # objects of several kinds

    assert read_texts(frame).first.to_pylist() == [f"n: {text}\nb: x", "b: y"]
    assert read_texts(cells).first[0].as_py() == f"x0: {text}\nx1: x"


def test_masked_cells_are_missing():
    words = np.ma.masked_array(["secret", "b"], mask=[True, False])
    table = np.ma.masked_array([[1, 2], [3, 4]], mask=[[True, False], [False, False]])

    assert read_texts(words).first.to_pylist() == ["", "b"]
    assert read_texts(table).first.to_pylist() == ["x1: 2", "x0: 3\nx1: 4"]
    rows = [*np.ma.masked_array([[1, 2], [3, 4]], mask=[[True, False], [False] * 2])]
    assert listed(rows) == ["x1: 2", "x0: 3\nx1: 4"]
    assert listed([*words]) == ["", "b"]


@pytest.mark.parametrize(
    "kind",
    ["?", "i4", ">i4", "f2", "f4", "f8", ">f8", "g", "M8[ns]", "M8[D]", "m8[ns]"],
)
def test_a_mask_changes_no_cell_that_it_leaves(kind):
    table = np.array([[1, 10**4, 3], [7, 0, 5]]).astype(kind)
    table = table / 7 if table.dtype.kind == "f" else table
    mask = np.array([[True, False, False], [False, False, False]])
    masked = np.ma.masked_array(table, mask)

    assert listed(masked)[1] == listed(table)[1]
    assert listed(masked)[0] == listed(table)[0].partition("\n")[2]
    assert listed(masked[1:], "{x0}, {x2!s}") == listed(table[1:], "{x0}, {x2!s}")


def test_masked_items_of_a_cell_are_missing():
    numbers = np.ma.masked_array([1, 2], mask=[False, True])
    dates = np.ma.masked_array(["2020-01-01", "2021-01-01"], numbers.mask, "M8[D]")
    date = "datetime.datetime(2020, 1, 1, 0, 0)"

    assert listed([[numbers, "a"]]) == ["x0: [1, None]\nx1: a"]
    assert listed([[dates, "a"]]) == [f"x0: [{date}, None]\nx1: a"]


@pytest.mark.parametrize("others", [[], [Decimal("1.5")], ["a word"]])
def test_a_decimal_nan_is_missing_whatever_is_beside_it(others):
    for nan in (Decimal("NaN"), Decimal("sNaN")):
        assert listed([[cell] for cell in [nan, *others]])[0] == ""


HOURS = [timedelta(hours=hours) for hours in range(40)]
NOON, OFFSET = datetime(1990, 1, 1, 12), timezone(timedelta(hours=5, minutes=30))
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
SECONDS = timezone(-timedelta(minutes=53, seconds=28))  # which Arrow does not know
NO_KEY = dateutil.tz.tzoffset(None, 3 * 3600)  # which a dictionary does not take


OBJECTS = {
    "datetime": [NOON + hours for hours in HOURS],
    "long ago": [datetime(1 + 40 * i, 1, 1, i % 24) for i in range(40)],
    "zones": [
        (NOON + hours).replace(tzinfo=[None, OFFSET, BERLIN, NO_KEY][i % 4])
        for i, hours in enumerate(HOURS)
    ],
    "seconds from UTC": [(NOON + hours).replace(tzinfo=SECONDS) for hours in HOURS],
    "Timestamp": [pd.Timestamp(NOON) + pd.Timedelta(i, "ns") for i in range(40)],
    "units": [
        pd.Timestamp(NOON).as_unit(["s", "ms", "us", "ns"][i % 4]) + hours
        for i, hours in enumerate(HOURS)
    ],
    "NaT": [pd.NaT if i % 3 else pd.Timestamp(NOON) for i in range(40)],
    "time": [clock(i % 24, i, 0, i % 2 * 1000) for i in range(40)],
    "datetime64": [np.datetime64(NOON + hours) for hours in HOURS],
    "datetime64 of several units": [
        np.datetime64(*[("2020",), ("2020-01",), ("2020-01-02",), ("NaT", "D")][i % 4])
        for i in range(40)
    ],
    "datetime64 out of range": [np.datetime64(-(10**17) * i, "s") for i in range(40)],
    "timedelta64": [
        np.timedelta64(i * 977, ["s", "ns", "D", "M"][i % 4]) for i in range(40)
    ],
    "float64": [np.float64(i) / 7 if i % 5 else np.float64("nan") for i in range(40)],
    "float32": [np.float32(10.0**i) / 3 for i in range(-10, 30)],
    "float16": [np.float16(i) / 7 for i in range(40)],
    "longdouble": [np.longdouble(i) / 4 for i in range(40)],
}


@pytest.mark.parametrize("kind", [*OBJECTS, "all"])
def test_objects_are_written_alike_alone_and_among_others(kind):
    cells = [*itertools.chain(*OBJECTS.values())] if kind == "all" else OBJECTS[kind]
    alone = [_cells.write_cell(cell) for cell in cells]

    assert _cells.write_cells(["text", *cells, 1]) == ["text", *alone, "1"]


@pytest.mark.parametrize("number", [1, 1.5, np.int8(1), True])
def test_a_number_may_stand_beside_a_duration_of_numpy(number):
    """NumPy's durations are a subclass of its integers."""
    cells = [[number], [np.timedelta64(90, "s")]]

    text = _cells.write_cell(number)
    assert listed(cells) == [text, "0:01:30"]
    assert listed(cells[::-1]) == ["0:01:30", text]


@pytest.mark.parametrize(
    "cells",
    [[np.float32(0.1), 0.1], [np.float16(0.1), np.float32(0.1)], [np.float16(0.1), 1]],
)
def test_floats_keep_their_digits_beside_wider_ones(cells):
    alone = [_cells.write_cell(cell) for cell in cells]

    assert listed([[cell] for cell in cells]) == alone
    assert listed(np.array([*cells, "a"], dtype=object)[:, None]) == [*alone, "a"]


@pytest.mark.parametrize("n_missing", [0, 100])  # of 100, narwhals guesses the type
@pytest.mark.parametrize(
    "cells",
    [
        [Decimal("1.50"), 2],
        [np.longdouble(1.5), 2],
        [np.float32(0.1), 0.25],
        [date(2020, 1, 1), datetime(2020, 1, 1, 5)],
        [timedelta(1), 2],
        [np.datetime64("2020-01-01"), np.int64(1)],  # of which Arrow ends the process
        [timedelta(1), np.ones((2, 2))],
    ],
)
def test_objects_in_a_column_of_a_frame_are_written_each_by_itself(cells, n_missing):
    cells = [None] * n_missing + cells
    frame = pd.DataFrame({"x0": pd.Series(cells, dtype=object), "x1": "a text"})
    rows = [[cell, "a text"] for cell in cells]

    assert read_texts(frame).first.to_pylist() == read_texts(rows).first.to_pylist()


@pytest.mark.parametrize(
    "cells",
    [
        [Decimal("1.50"), 2],
        [np.datetime64("2020-01-01"), np.int64(1)],  # of which Arrow ends the process
        [date(2020, 1, 1), datetime(2020, 1, 1, 5)],
    ],
)
def test_categories_that_are_objects_are_written_each_by_itself(cells):
    labels = pd.Categorical.from_codes([0, 1], pd.Index(cells, dtype=object))
    frame = pd.DataFrame({"x0": labels, "x1": "a text"})
    rows = [[cell, "a text"] for cell in cells]

    assert read_texts(frame).first.to_pylist() == read_texts(rows).first.to_pylist()


@pytest.mark.parametrize("convert", [lambda cells: cells, pc.dictionary_encode])
def test_chunks_of_texts_become_one_array(convert):
    chunks = pa.chunked_array([["a"], [None, "b"]])
    whole = _cells.whole_array(convert(chunks))

    # 64-bit offsets, as a column may hold more than 2 GB.
    assert _cells.write_arrow(whole).equals(pa.array(["a", None, "b"], TEXT))
    assert whole.type == TEXT or pa.types.is_dictionary(whole.type)
