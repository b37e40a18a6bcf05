"""What becomes of numbers: R2 of the regressor's settings and of two ridge regressions.

Six targets: whether a quote is fresh (0 or 1), four numbers of films from title,
director, cast, genres and countries, and these four and eight genres (0 or 1) together,
from all but the genres. The splits had no part in the choice of a setting. "defaults
and TF-IDF" is the mean of the two predictions, as of `VotingRegressor`. Prints a table.

    python -m benchmarks regression
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sqlite3
import statistics
import warnings
from collections import defaultdict
from contextlib import closing

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

from sk_adalora import AdaLoraRegressor
from sk_adalora.pretrained.find import DEFAULT_MODEL

from .arguments import positive, script_parser
from .contestants import Embedder, Settings
from .data import fields, installed, load_task
from .machine import describe_machine
from .results import say, table

N_TEST = 1000
MAX_LENGTH = 64
_PENALTIES = np.logspace(-2, 3, 16)
# What is set otherwise than by default.
VARIANTS = {
    "defaults": {},
    "all kept": {"interpolation": 1},
    "linear_probe": {"head_init": "linear_probe"},
    "10 epochs, all kept": {"epochs": 10, "interpolation": 1},
}
# Of more rows the defaults are three epochs, all of which is kept.
_MANY_ROWS = 400
_OF_FEW_ROWS = {"all kept", "10 epochs, all kept"}
_GENRES = "Drama Comedy Romance Action Crime Thriller Horror Fantasy".split()
_FILMS = """
    SELECT o.Title, o.Director, o."Cast", o.Genre, o.Country,
           t.Rating, o.Year, o.Runtime, t.Reviews
    FROM omdb AS o JOIN tomatoes AS t ON o.ID = t.ID
    WHERE t.Rating IS NOT NULL AND t.Reviews >= 10 AND o.Runtime IS NOT NULL
    ORDER BY o.ID
"""


def main(arguments=None):
    """Measure all cells, and print a table of their means."""
    options = make_parser().parse_args(arguments)
    warnings.simplefilter("ignore")  # that many texts are cut
    cells = defaultdict(list)
    targets = read_targets()
    for size in options.sizes:
        for name, (texts, y) in targets.items():
            for seed in options.seeds:
                rows = train_test_split(
                    texts, y, train_size=size, test_size=N_TEST, random_state=seed
                )
                for method, score in measure(*rows, seed):
                    cells[name, size, method].append(score)
                    say(f"{name} {size} seed {seed}, {method}: {score:.3f}")
    methods = list(dict.fromkeys(method for _, _, method in cells))
    lines = [
        [name, f"{size:,}", *(_cell(cells[name, size, m]) for m in methods)]
        for size in options.sizes
        for name in targets
    ]
    seeds = " ".join(map(str, options.seeds))
    print(f"{describe_machine()}\n\nR2 on {N_TEST:,} rows, mean of seeds {seeds}:\n")
    print(table(["target", "rows", *methods], lines))


def make_parser():
    """Return the parser of the options."""
    parser = script_parser("regression", __doc__.splitlines()[0])
    add = parser.add_argument
    add("--sizes", nargs="+", type=positive, default=[200, 1000])
    add("--seeds", nargs="+", type=int, default=[20, 21], help="splits")
    return parser


def measure(X_train, X_test, y_train, y_test, seed, model=DEFAULT_MODEL):
    """Yield names of methods and their R2 on the rows to test on."""
    words = TfidfVectorizer(sublinear_tf=True).fit(X_train).transform
    embed = Embedder(Settings(max_length=MAX_LENGTH, model=model))
    for name, features in (("embeddings", embed), ("TF-IDF", words)):
        ridge = RidgeCV(_PENALTIES, alpha_per_target=True).fit(
            features(X_train), y_train
        )
        of_ridge = ridge.predict(features(X_test))
        yield name, r2_score(y_test, of_ridge)
    for name, settings in VARIANTS.items():
        if name in _OF_FEW_ROWS and len(X_train) > _MANY_ROWS:
            continue
        regressor = AdaLoraRegressor(
            model, max_length=MAX_LENGTH, random_state=seed, **settings
        )
        of_ours = regressor.fit(X_train, y_train).predict(X_test)
        yield name, r2_score(y_test, of_ours)
        if name == "defaults":  # as VotingRegressor does
            yield "defaults and TF-IDF", r2_score(y_test, (of_ours + of_ridge) / 2)


def read_targets():
    """Return texts and numbers by the name of what is predicted."""
    quotes = load_task("quotes")
    fresh = np.array([label == "fresh" for label in quotes.labels], dtype=float)
    package = installed("bokeh_sampledata", "bokeh-sampledata==2026.1")
    file = package / "_data" / "movies.db"
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        films = connection.execute(_FILMS).fetchall()
    names = ("title", "director", "cast", "genres", "countries")
    texts = [fields(names, film[:-4]) for film in films]
    without = [fields(names, (*film[:3], None, film[4])) for film in films]
    rating, year, minutes, reviews = np.array([film[-4:] for film in films], float).T
    four = [rating, year, minutes.clip(40, 240), np.log(reviews)]
    genres = [{genre.strip() for genre in film[3].split(",")} for film in films]
    eight = [[name in film for film in genres] for name in _GENRES]
    return {
        "a quote is fresh": (quotes.texts, fresh),
        "rating of a film": (texts, rating),
        "year": (texts, year),
        "minutes, 40 to 240": (texts, four[2]),
        "logarithm of reviews": (texts, four[3]),
        "twelve numbers": (without, np.array([*four, *eight], float).T),
    }


def _cell(scores):
    """Return the mean R2, or a dash where nothing was measured."""
    return f"{statistics.mean(scores):.3f}" if scores else "-"


if __name__ == "__main__":
    main()
