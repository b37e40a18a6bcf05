"""Tables whose columns are not all text, and what is predicted of each row.

All but films of `--movies` are read out of files of packages, which are not imported.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from .data import Plain, installed, query_films

# The file of each shop, and its column of prices.
_SHOPS = {
    "wines_pl": ("wine_pl", "price"),
    "wines_com": ("wine_dot_com_prices", "Prices"),
    "wines_vivino": ("wine_vivino_price", "Price"),
}
# What else is known of a film once its gross is.
_TAKINGS = ["US Gross", "Worldwide Gross", "US DVD Sales"]
# A genre with fewer films is left out: a class needs rows to learn from.
_FEWEST_FILMS = 30


def load_table(name, movies=None):
    """Read a table of `TABLES`, or of `OF_MOVIES`, whose file is `movies`.

    Raises
    ------
    ValueError
        If there is no such table.
    ModuleNotFoundError
        If the package that it lies in is missing; the message says how to install it.
    """
    if name in OF_MOVIES:
        return OF_MOVIES[name](name, movies)
    if name not in TABLES:
        known = ", ".join([*TABLES, *OF_MOVIES])
        raise ValueError(
            f"The table must be one of {known}. Got {name!r}. Choose one, or name a "
            "file of your own with --data."
        )
    return TABLES[name](name)


def read_csv(path, label):
    """Read a table of your own: its column `label` is predicted from all others.

    Raises
    ------
    ValueError
        If there is no such column.
    """
    table = pd.read_csv(path)
    if label not in table:
        raise ValueError(
            f"--label must name a column of {path}. Got {label!r}. Choose among "
            f"{', '.join(table)}."
        )
    return _predict(Path(path).stem, table, label)


def _predict(name, table, label, without=()):
    """Return a task: a column is predicted from all but some others."""
    table = table.dropna(subset=label)
    # A row in the training and the test rows at once would be no test.
    X = table.drop(columns=[label, *without]).drop_duplicates()
    y = table.loc[X.index, label]
    numbers = pd.api.types.is_numeric_dtype(y)
    return Plain(name, X, y.astype(float) if numbers else y.astype(str).tolist())


def _read_carte(name):
    root = installed("carte_ai", "--no-deps carte-ai==0.0.26")
    return pd.read_parquet(root / "data" / f"{name}.parquet")


def read_wines(name):
    """Return wines of a shop, and the logarithms of their prices."""
    file, price = _SHOPS[name]
    return _predict(name, _read_carte(file), price)


def read_songs(name):
    """Return songs, and whether each was a hit."""
    songs = _read_carte("spotify")
    songs["popularity"] = songs["popularity"].map({0: "flop", 1: "hit"})
    return _predict(name, songs, "popularity")


def read_decades(name):
    """Return songs, and the decade of each."""
    return _predict(name, _read_carte("spotify"), "decade", ["popularity"])


def read_films(name):
    """Return films, and their marks of Metacritic."""
    columns = "Title Year Runtime Genre Released Director Writer Cast Language Country"
    columns = [*columns.split(), "Metacritic"]
    quoted = ", ".join(f'"{column}"' for column in columns)
    rows = query_films(
        f"SELECT {quoted} FROM omdb WHERE Metacritic IS NOT NULL ORDER BY ID"
    )
    films = pd.DataFrame(rows, columns=columns).astype({"Metacritic": float})
    return _predict(name, films, "Metacritic")


def _read_movies(file):
    movies = pd.read_json(file)
    return movies.assign(Title=movies["Title"].astype("string"))  # some are numbers


def read_gross(name, file):
    """Return films, and the logarithm of what each took in the United States."""
    films = _read_movies(file)
    films = films[films["US Gross"] > 0]
    films = films.assign(gross=np.log10(films["US Gross"].astype(float)))
    return _predict(name, films, "gross", _TAKINGS)


def read_genres(name, file):
    """Return films, and the genre of each."""
    films = _read_movies(file)
    counts = films.groupby("Major Genre")["Title"].transform("size")
    return _predict(name, films[counts >= _FEWEST_FILMS], "Major Genre")


TABLES = {
    **dict.fromkeys(_SHOPS, read_wines),
    "songs": read_songs,
    "decades": read_decades,
    "films": read_films,
}
OF_MOVIES = {"gross": read_gross, "genres": read_genres}
