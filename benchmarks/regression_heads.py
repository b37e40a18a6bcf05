"""Where the head of a regressor should start: R2 on other rows, by task and seed.

Prints a table. Run from the repository, with the extra `bench`:
python benchmarks/regression_heads.py
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

sys.path.append(str(Path(__file__).parent.parent))

from benchmarks.data import installed, load_task
from benchmarks.machine import describe_machine
from benchmarks.results import table
from sk_adalora import AdaLoraRegressor

SEEDS = [0, 1]
N_TRAIN, N_TEST = 800, 1000
# Rates that change nothing: a ridge regression on the frozen features. All of each
# training is kept, as it is with a head that starts at random.
VARIANTS = {
    "probe alone": {
        "head_init": "linear_probe",
        "epochs": 1,
        "learning_rate": 1e-9,
        "head_learning_rate": 1e-9,
    },
    "linear_probe": {"head_init": "linear_probe", "interpolation": 1},
    "random": {"head_init": "random"},
}
_FILMS = """
    SELECT o.Title AS title, o.Director AS director, o."Cast" AS "cast",
           o.Genre AS genres, o.Country AS country, o.Year AS year, t.Rating AS rating
    FROM omdb AS o JOIN tomatoes AS t ON o.ID = t.ID
    WHERE t.Rating IS NOT NULL AND t.Reviews >= 10
    ORDER BY o.ID
"""


def main():
    """Fit each variant on each task and seed, and print the table."""
    lines = []
    for name, (X, y) in read_tasks().items():
        for seed in SEEDS:
            X_train, X_test, y_train, y_test = train_test_split(
                X, y, train_size=N_TRAIN, test_size=N_TEST, random_state=seed
            )
            line = [f"{name}, seed {seed}"]
            for settings in VARIANTS.values():
                regressor = AdaLoraRegressor(
                    max_length=64, random_state=seed, **settings
                ).fit(X_train, y_train)
                line.append(f"{regressor.score(X_test, y_test):.3f}")
            lines.append(line)
            print(*line, file=sys.stderr)
    print(f"{describe_machine()}\n\nR2 on {N_TEST:,} rows after {N_TRAIN}:\n")
    print(table(["target", *VARIANTS], lines))


def read_tasks():
    """Return rows and numbers by the name of what is predicted."""
    quotes = load_task("quotes")
    fresh = np.array([label == "fresh" for label in quotes.labels], dtype=float)
    file = (
        installed("bokeh_sampledata", "bokeh-sampledata==2026.1")
        / "_data"
        / "movies.db"
    )
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        films = pd.read_sql(_FILMS, connection)
    texts = films.drop(columns=["year", "rating"]).replace("", None)
    return {
        "quote is fresh, 0 or 1": (np.array(quotes.texts, dtype=object), fresh),
        "rating of a film": (texts, films["rating"].to_numpy(float)),
        "year of a film": (texts, films["year"].to_numpy(float)),
    }


if __name__ == "__main__":
    main()
