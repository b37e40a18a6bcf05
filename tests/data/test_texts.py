"""Rows of a table -> texts."""

import collections
import time
import zoneinfo
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as clock
from decimal import Decimal

import dateutil.tz
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from _process import run_python
from hypothesis import given, settings
from hypothesis import strategies as st

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


# Texts and tables in any container


def _strings_of_numpy_2(texts):
    pytest.importorskip("numpy", "2.0")
    return np.array(texts, dtype=np.dtypes.StringDType(na_object=None))


COLUMNS = {
    "list": list,
    "tuple": tuple,
    "list with NaN": lambda words: [word or float("nan") for word in words],
    "object array": lambda words: np.array(words, dtype=object),
    "StringDType": _strings_of_numpy_2,
    "pandas object": lambda words: pd.Series(words, dtype=object),
    "pandas string": lambda words: pd.Series(words, dtype="string"),
    "pandas pd.NA": lambda words: pd.Series([w or pd.NA for w in words], dtype=object),
    "pandas Arrow": lambda words: pd.Series(words, dtype=pd.ArrowDtype(pa.string())),
    "pandas category": lambda words: pd.Series(words, dtype="category"),
    "pandas index": pd.Index,
    "polars": pl.Series,
    "polars category": lambda words: pl.Series(words, dtype=pl.Categorical),
    "Arrow": pa.array,
    "Arrow dictionary chunks": lambda words: pa.chunked_array(
        [pa.array(words[i:j]).dictionary_encode() for i, j in ((0, 1), (1, 3))]
    ),
    "single-column frame": lambda words: pd.DataFrame({"text": words}),
    "2-D array": lambda words: np.array(words, dtype=object)[:, None],
    "list of rows": lambda words: [[word] for word in words],
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_one_text_a_row(kind):
    texts = read_texts(COLUMNS[kind](WORDS))

    assert texts.first.to_pylist() == ["a fine film", "", "dull"]
    assert texts.first.type == pa.large_string()
    assert texts.second is None
    assert (len(texts), texts.n_empty, texts.n_features) == (3, 1, 1)


@pytest.mark.parametrize("make", [list, np.array, pd.Series, pl.Series, pa.array])
def test_a_nul_does_not_end_a_text(make):
    assert listed(make(["a\0b", "\0c", "d"])) == ["a\0b", "\0c", "d"]


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
        lambda frame: pytest.importorskip("datasets").Dataset.from_pandas(frame),
    ],
)
def test_a_table_reads_the_same_in_every_library(films, convert):
    before = films.copy(deep=True)
    texts = read_texts(convert(films))

    assert texts.first.to_pylist() == [
        "title: Alien\nyear: 1979\nrating: 8.5\nseen: true\ngenre: horror\n"
        "added: 2024-01-05",
        "year: 1999\nrating: 7\nseen: false\nadded: 2024-01-06 12:30:00",
        "title: Brazil\nyear: 1985\nseen: true\ngenre: satire",
    ]
    assert texts.feature_names.tolist() == list(films.columns)
    assert texts.feature_names.dtype == object
    assert (texts.n_features, texts.n_empty) == (6, 0)
    pd.testing.assert_frame_equal(films, before)


@pytest.mark.parametrize(
    "X",
    [
        np.array([[1.0, 0.1], [np.nan, 2.5]]),
        np.array([[1.0, 0.1], [np.nan, 2.5]], dtype=">f8"),
        np.array([[1.0, 0.1], [None, 2.5]], dtype=object),
        np.array([[1.0, 0.1], [np.nan, 2.5]], dtype=np.float32),
        [[1, 0.1], (None, 2.5)],
        [np.array([1, 0.1]), np.array([np.nan, 2.5])],
        pd.DataFrame([[1, 0.1], [None, 2.5]]),
    ],
)
def test_nameless_columns_are_named_as_scikit_learn_does(X):
    texts = read_texts(X)

    assert texts.first.to_pylist() == ["x0: 1\nx1: 0.1", "x1: 2.5"]
    assert texts.feature_names is None
    assert texts.n_features == 2


# Cells


Point = collections.namedtuple("Point", "x y")
SECONDS = timezone(-timedelta(minutes=53, seconds=28))  # which Arrow does not know
CELLS = [
    (3.0, "3"),
    (0.1, "0.1"),
    (1e16, "1e+16"),
    (1 / 3, "0.3333333333333333"),
    (float("inf"), "inf"),
    (np.float32(0.1), "0.1"),
    (np.float16(0.5), "0.5"),
    (np.int8(7), "7"),
    (2**70, str(2**70)),
    (True, "true"),
    (np.bool_(False), "false"),
    (Decimal("1.50"), "1.50"),
    (Decimal("NaN"), ""),
    (date(2024, 1, 5), "2024-01-05"),
    (datetime(2024, 1, 5), "2024-01-05"),
    (datetime(2024, 1, 5, 12, 0, 0, 500), "2024-01-05 12:00:00.0005"),
    (clock(12, 30, tzinfo=UTC), "12:30:00"),
    (timedelta(days=1, hours=2.5), "1 day, 2:30:00"),
    (np.timedelta64(90, "s"), "0:01:30"),
    (np.datetime64("2200-01-01", "ns"), "2200-01-01"),
    (np.datetime64("2024-01"), "2024-01-01"),
    (pd.Timestamp("2024-01-05 12:00", tz="UTC"), "2024-01-05 12:00:00Z"),
    (datetime(1890, 1, 5, 12, tzinfo=SECONDS), "1890-01-05 12:00:00-0053"),
    (pd.Interval(0, 1), "(0, 1]"),
    (Point(1.0, 2), "Point(x=1.0, y=2)"),
    ((1.0, "a", np.nan), "(1, 'a', None)"),
    (np.array([[1, 2]]), "[[1, 2]]"),
    (np.arange(2000), str([*range(2000)])),
    ({"a": np.float64(1), "b": [np.int64(3), None]}, "{'a': 1, 'b': [3, None]}"),
    ([np.datetime64("2020-01-01", "ns")], "[datetime.datetime(2020, 1, 1, 0, 0)]"),
    (np.array([60, "NaT"], "m8[s]"), "[datetime.timedelta(seconds=60), None]"),
    (pd.NaT, ""),
    (pd.NA, ""),
    (np.datetime64("NaT", "ns"), ""),
]


@pytest.mark.parametrize(("cell", "text"), CELLS, ids=range(len(CELLS)))
def test_a_cell_reads_the_same_alone_and_beside_any_other(cell, text):
    alone = np.empty((1, 1), dtype=object)
    alone[0, 0] = cell
    beside = [cell, "text", {"a": 1}, 3, 0.5]

    assert listed(alone) == [text]
    for missing in (0, 100):  # of a hundred cells, narwhals guesses the type
        column = pd.Series([None] * missing + beside, dtype=object)
        texts = listed(pd.DataFrame({"x": column}))[missing:]
        assert texts == [text, "text", "{'a': 1}", "3", "0.5"]


# Arrow ends the process at a date of NumPy's before a number of NumPy's.
DATES_AND_NUMBERS = """
import numpy as np, pandas as pd
from sk_adalora.data.texts import read_texts

date, number = np.datetime64("2020-01-01", "D"), np.int64(1)
cells = np.array([date, number], dtype=object)
labels = pd.Categorical.from_codes([0, 1], pd.Index(cells))
for X in (
    cells[:, None], [[date], [number]], [[[date]], [[number]]],
    pd.DataFrame({"x": cells}), pd.DataFrame({"x": labels}),
):
    print(read_texts(X).first.to_pylist())
"""


def test_dates_and_numbers_of_numpy_may_stand_in_one_column():
    plain = "['2020-01-01', '1']"
    nested = "['[datetime.datetime(2020, 1, 1, 0, 0)]', '[1]']"

    lines = run_python(DATES_AND_NUMBERS).stdout.splitlines()
    assert lines == [plain, plain, nested, plain, plain]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.cut([1, 2, np.nan], 2), ["(0.999, 1.5]", "(1.5, 2.0]", ""]),
        (pd.Categorical([1, None, 2]), ["1", "", "2"]),
        (pd.PeriodIndex(["2020-01", None], freq="M"), ["2020-01", ""]),
        (pd.arrays.SparseArray([0, 2]), ["0", "2"]),
        (np.array([0.5, np.nan], dtype=np.float16), ["0.5", ""]),
        (np.array(["2024-01-05T10", "NaT"], "M8[h]"), ["2024-01-05 10:00:00", ""]),
        (pd.Series([[1.0, 2.5], None]), ["[1, 2.5]", ""]),
    ],
)
def test_unusual_pandas_columns(column, expected):
    assert listed(pd.DataFrame({"x": column})) == expected


def test_polars_nan_lists_and_enums():
    frame = pl.DataFrame(
        {
            "nan": [1.0, float("nan")],
            "list": [[1, 2], None],
            "enum": pl.Series(["low", "high"], dtype=pl.Enum(["low", "high"])),
        }
    )
    assert listed(frame) == [
        "nan: 1\nlist: [1, 2]\nenum: low",
        "enum: high",
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1e10, "10000000000"),
        (-3e15, "-3000000000000000"),
        (2.0**53 - 1, "9007199254740991"),
        (2.0**53, "9.007199254740992e+15"),
        (12345678901.5, "1.23456789015e+10"),
    ],
)
def test_large_floats(number, text):
    frame = pd.DataFrame({"n": [number, np.nan], "b": ["x", "y"]})

    assert listed(frame) == [f"n: {text}\nb: x", "b: y"]
    assert listed([[number, "x"], [None, "y"]])[0] == f"x0: {text}\nx1: x"


FAR = pd.Timestamp(np.datetime64("12000-01-01", "s"))
SUMMER = datetime(2040, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
SINCE_PANDAS_3 = pytest.mark.skipif(
    pd.__version__ < "3", reason="pandas 2 has no such time in a column"
)
NO_NAME = dateutil.tz.tzoffset(None, 0)


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (pd.Timestamp("2024-01-05 12:30", tz="Etc/UTC"), "2024-01-05 12:30:00Z"),
        (datetime(2024, 1, 5, 12, tzinfo=NO_NAME), "2024-01-05 12:00:00Z"),
        (pd.Timestamp("2024-01-05", tz="Europe/London"), "2024-01-05 00:00:00+0000"),
        # Arrow takes it for winter.
        pytest.param(SUMMER, "2040-07-01 12:00:00+0200", marks=SINCE_PANDAS_3),
        pytest.param(FAR, "12000-01-01", marks=SINCE_PANDAS_3),
        (pd.Timestamp(-1, tz="Europe/Berlin"), "1970-01-01 00:59:59.999999999+0100"),
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


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize(
    ("zone", "offsets"),
    [
        ("UTC", ["Z", "Z"]),
        ("-03:30", ["-0330", "-0330"]),
        ("America/New_York", ["-0500", "-0400"]),
    ],
)
def test_times_of_arrow_in_every_unit_and_zone(unit, zone, offsets):
    moments = pa.array([1_700_000_000, None, 1_720_000_000]).cast(pa.timestamp("s"))
    texts = listed(pa.table({"x": moments.cast(pa.timestamp(unit, zone))}))

    assert texts.pop(1) == ""
    assert [text[19:] for text in texts] == offsets
    for text, moment in zip(texts, moments.to_pylist()[::2], strict=True):
        assert datetime.fromisoformat(text) == moment.replace(tzinfo=UTC)


@pytest.mark.parametrize(("second", "zone"), [(0, "No/Zone"), (2**40, "Asia/Tokyo")])
def test_a_zone_or_a_year_that_python_does_not_know(second, zone):
    cells = pa.array([second]).cast(pa.timestamp("s", zone))

    with pytest.raises(ValueError, match=rf"Got '{zone}'\. .* pip install tzdata"):
        read_texts(pa.table({"x": cells}))


@pytest.mark.parametrize("unit", ["W", "D", "h", "m", "s", "ms", "us", "ns"])
def test_dates_and_durations_of_numpy_read_alike_in_every_unit(unit):
    day = np.datetime64("2024-01-04", unit)  # NumPy's weeks begin on Thursdays
    span = np.timedelta64(7, "D").astype(f"m8[{unit}]")
    for cell, text in ((day, "2024-01-04"), (span, "7 days, 0:00:00")):
        assert listed(np.array([[cell]])) == listed([[cell]]) == [text]
        assert listed([[cell], ["text"]]) == [text, "text"]


DURATIONS = [
    timedelta(0),
    None,
    timedelta(days=1, microseconds=20),
    timedelta(days=-400, seconds=59.5),
]


@pytest.mark.parametrize(
    "convert",
    [
        lambda cells: pd.DataFrame({"x": pd.Series(cells, dtype="timedelta64[ns]")}),
        lambda cells: pd.DataFrame({"x": pd.Series(cells, dtype=object)}),
        lambda cells: pd.DataFrame({"x": pd.Categorical(pd.to_timedelta(cells))}),
        lambda cells: pl.DataFrame({"x": cells}),
        lambda cells: pa.table({"x": pa.array(cells, pa.duration("ns"))}),
        lambda cells: np.array(cells, dtype="m8[us]")[:, None],
        lambda cells: [[cell and np.timedelta64(cell)] for cell in cells],
        lambda cells: [[cell] for cell in cells],
    ],
)
def test_durations_read_as_in_python_in_every_library(convert):
    expected = ["" if cell is None else str(cell) for cell in DURATIONS]

    assert listed(convert(DURATIONS)) == expected


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


# Rows


def test_rows_without_text_are_counted():
    frame = pd.DataFrame({"a": ["x", None, None], "b": ["y", "z", None]})

    assert read_texts(["a", "", " \n", None]).n_empty == 3
    assert read_texts(frame).n_empty == read_texts(frame, "pair").n_empty == 1
    for X in ([None] * 2, pd.Series([np.nan] * 2), pl.Series([np.nan] * 2)):
        assert read_texts(X).n_empty == 2


def test_rows_are_taken_in_any_order_and_number():
    frame = pd.DataFrame({"a": ["x", None, "z"], "b": ["1", None, "3"]})
    texts = read_texts(frame, "pair").take(np.array([1, 2, 1]))

    assert texts.first.to_pylist() == ["", "z", ""]
    assert texts.second.to_pylist() == ["", "3", ""]
    assert (len(texts), texts.n_empty, texts.n_features) == (3, 2, 2)
    assert len(texts.take([])) == 0


# Numbers that a step before may have made of texts

FLOATS = np.random.default_rng(0).normal(size=(41, 11))


@pytest.mark.parametrize(
    "make",
    [
        np.float32,
        np.ndarray.tolist,
        torch.tensor,
        pd.DataFrame,
        pl.DataFrame,
        lambda X: np.where(X > 1, np.nan, X),
        lambda X: (X * 9).astype(int).tolist(),  # as of token ids, or counted words
        lambda X: X > 0,  # as of texts taken for categories
    ],
)
def test_many_columns_of_numbers_seem_encoded(make):
    texts = read_texts(make(FLOATS))

    assert texts.seem_encoded
    assert not texts.take(range(40)).seem_encoded
    assert not read_texts(make(FLOATS), lambda row: str(row)).seem_encoded


@pytest.mark.parametrize(
    "X",
    [
        FLOATS[:, :10],
        pd.DataFrame((FLOATS * 9).astype(int)).add_prefix("number of "),
        FLOATS.astype(str),
        pd.DataFrame(FLOATS).assign(text="a text"),
        WORDS * 20,
        [[("a", "b")] * 11] * 41,
    ],
)
def test_other_tables_do_not_seem_encoded(X):
    assert not read_texts(X).seem_encoded


# Row formats


def test_a_pair_is_two_columns_as_they_are(films):
    texts = read_texts(films[["title", "genre"]], "pair")

    assert texts.first.to_pylist() == ["Alien", "", "Brazil"]
    assert texts.second.to_pylist() == ["horror", "", "satire"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{{title}}} of {year}: {rating}", ["{Alien} of 1979: 8.5", "{} of 1999: 7"]),
        ("{rating:.2f} {title!r:>9}", ["8.50   'Alien'", "7.00 "]),
        ("{title:.2}{year:.3}", ["Al1.98e+03", "2e+03"]),
        ("{added:%Y}", ["2024", "2024"]),
    ],
)
def test_templates(films, template, expected):
    assert listed(films, template)[:2] == expected


def test_template_names_may_hold_spaces_and_dots():
    assert listed(pd.DataFrame({"a b": ["x"], "c.d": ["y"]}), "{a b}{c.d}") == ["xy"]


@pytest.mark.parametrize(
    ("template", "match"),
    [
        ("{titel}", r"in '\{titel\}'. Did you mean 'title'\? The columns are 'title'"),
        ("{zzz}", r"in '\{zzz\}'. The columns are 'title', 'year'"),
        ("{title.__class__}", "must be columns of X"),
        ("{}", "must be columns of X"),
        ("{title", "must be a valid str.format template"),
        ("Auto", r"'auto', 'pair' or a template.*Got 'Auto'.*'\{title\}'"),
        ("{title:d}", r"\{title\}.*Got 'Alien' in row 0 with 'd'"),
        ("{title:>10000}", r"widths .* below 10000 in all. Got \{title\} with"),
        ("{title:0<99999999999}", "widths"),
        ("{title:>500}" * 20, "widths"),
        ("pair", "exactly 2 columns. Got 6"),
    ],
)
def test_wrong_templates(films, template, match):
    with pytest.raises(ValueError, match=match):
        read_texts(films, template)


def test_an_error_about_a_cell_shows_little_of_it():
    letter = pd.DataFrame({"title": [f"Dear sir, {'a secret ' * 9} Yours"]})

    with pytest.raises(ValueError, match=r"Got 'Dear.*\.\.\..*Yours' in row 0"):
        read_texts(letter, "{title:d}")


def test_a_function_gets_each_row_by_its_columns(films):
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


@pytest.mark.parametrize(
    ("X", "expected"),
    [
        (
            pd.DataFrame({"x0": [1, "b", float("nan"), None, pd.NA, pd.NaT, 2.0]}),
            [1, "b", None, None, None, None, 2],
        ),
        (pl.DataFrame({"x0": [0.5, float("nan"), None]}), [0.5, None, None]),
        ([[np.float32(3)], [3.0], ["a"]], [3, 3, "a"]),
        (np.array([[3.0], [2.0**53], [-1e300]]), [3, 2.0**53, -1e300]),
    ],
)
def test_a_function_gets_none_and_integers_for_whole_floats(X, expected):
    assert listed(X, lambda row: repr(row["x0"])) == [*map(repr, expected)]


@pytest.mark.parametrize("kind", [int, np.float32, "Int64", object])
@pytest.mark.parametrize("row_format", ["{n:,}", "{n!r}", "{n:d}", "{n:8.5}", None])
def test_a_row_reads_the_same_beside_a_missing_number(kind, row_format):
    row_format = row_format or (lambda row: str(row["n"]))
    whole = pd.DataFrame({"n": pd.Series([1200, 7, -3]).astype(kind)})
    beside_missing = pd.DataFrame({"n": [1200, None, -3]})
    of_whole, other = (listed(df, row_format) for df in (whole, beside_missing))

    assert of_whole[::2] == other[::2]
    assert of_whole[0].strip() in ("1200", "1,200", "1200.0")


@pytest.mark.parametrize(
    ("X", "row_format", "error", "match"),
    [
        ([["a"]], lambda row: row["oops"], ValueError, "raised KeyError for row 0"),
        ([["a"]], lambda row: row.x0, ValueError, "which gets a dict, return a text"),
        (["a"], lambda row: row["x0"], ValueError, "which gets a str, return a text"),
        (["a", None], lambda text: text, TypeError, "Got NoneType for row 1"),
        (["a"], "pair", ValueError, "needs a table. Got a one-dim"),
        (["a"], "{text}", ValueError, "needs a table. Got a one-dim"),
        (["a"], 3, TypeError, "`row_format` must be 'auto'.*Got 3"),
    ],
)
def test_row_formats_that_do_not_suit(X, row_format, error, match):
    with pytest.raises(error, match=match):
        read_texts(X, row_format)


# Refused input


@pytest.mark.parametrize(
    ("X", "error", "match"),
    [
        (np.array([1.0]), ValueError, r"1-D array of double.*astype\(str\).*Reshape"),
        ([1, 2], ValueError, "1-D array of int64"),
        (pd.Series([1, 2], dtype="category"), ValueError, "1-D array of dictionary"),
        ([{"a": 1}], ValueError, "Got dict in row 0"),
        (np.array([b"a"]), TypeError, "not bytes. Got bytes in row 0. Decode"),
        (pd.DataFrame({"t": ["a", b"b"]}), TypeError, "t must hold text.*row 1"),
        (
            pd.Series(["a", "\ud800"], dtype=pd.StringDtype("python")),
            ValueError,
            "valid Unicode. Got a lone surrogate in row 1",
        ),
        (np.array("a"), ValueError, r"shape \(\)"),
        ([["a", "b"], "cd"], ValueError, "lists of 2 cells. Got str in row 1"),
        (pd.DataFrame([["a", "b"]], columns=["x", "x"]), ValueError, "unique column"),
        (np.empty((0, 3)), ValueError, r"0 sample\(s\) \(shape=\(0, 3\)\)"),
        (np.empty((12, 0)), ValueError, r"0 feature\(s\) \(shape=\(12, 0\)\)"),
    ],
)
def test_what_is_no_rows_of_texts_is_refused(X, error, match):
    with pytest.raises(error, match=match):
        read_texts(X)


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
            "span": rng.integers(-(10**15), 10**15, n).astype("m8[us]"),
        }
    )
    frame.loc[::7, "title"] = None
    start = time.process_time()  # other programs do not count
    texts = read_texts(frame)
    assert time.process_time() - start < 2.5
    assert texts.first[7].as_py().startswith("body: word")
    assert len(texts) == n
