"""Tables of text, numbers, categories and dates: ours beside recipes of a few lines.

The table says R² or accuracy, and on how many cells each is better than the recipe that
everybody can write: trees, beside vectors of a model that is not tuned.
"""

from dataclasses import replace
from statistics import mean

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from benchmarks.inside import text_columns
from benchmarks.mixed_tables import OF_MOVIES, TABLES, load_table, read_csv
from benchmarks.results import say, table
from sk_adalora import (
    AdaLoraEncoder,
    AdaLoraTableClassifier,
    AdaLoraTableRegressor,
)

from .score import rows_of, summarise
from .study import Study, grid
from .study import to_markdown as to_table

STUDIES = {}  # by the name that `python -m benchmarks NAME` runs them by

FROZEN = "frozen + trees"

# ---- what is compared --------------------------------------------------------


class OfTheSameFit(AdaLoraEncoder):
    """An encoder that gives the rows of its fit vectors that know their targets."""

    def fit_transform(self, X, y=None):
        return self.fit(X, y).transform(X)


def _trees(cell):
    """Return boosted trees, behind what skrub prepares for them."""
    from skrub import tabular_pipeline

    numbers = cell.has_numbers
    make = HistGradientBoostingRegressor if numbers else HistGradientBoostingClassifier
    return tabular_pipeline(make(random_state=cell.seed))


def _without_text(cell):
    from skrub import DropCols

    return make_pipeline(DropCols(text_columns(cell.rows[0])), _trees(cell))


def _encoder(cell, make=AdaLoraEncoder, **parameters):
    """Return an encoder with its own defaults."""
    shared = {**cell.ours, "random_state": cell.seed, **parameters}
    del shared["max_length"]
    return make(**shared)


def _encoded(*given, **parameters):
    """Return a setting: trees on vectors of the text, beside all other columns."""

    def make(cell):
        columns = make_column_transformer(
            (_encoder(cell, *given, **parameters), text_columns(cell.rows[0])),
            remainder="passthrough",
            verbose_feature_names_out=False,
        )
        return make_pipeline(columns.set_output(transform="pandas"), _trees(cell))

    return make


def _skrub(cell):
    from skrub import tabular_pipeline

    return tabular_pipeline("regressor" if cell.has_numbers else "classifier")


def _written(X):
    """Return the rows of a table as words, without what is missing."""
    return [
        " ".join(f"{name} {cell}" for name, cell in row.items() if pd.notna(cell))
        for row in X.to_dict("records")
    ]


def _words(cell):
    linear = LogisticRegression(C=10, max_iter=1000)
    if cell.has_numbers:
        linear = RidgeCV(np.logspace(-2, 2, 9))
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    return make_pipeline(FunctionTransformer(_written), words, linear)


def _table(cell):
    make = AdaLoraTableRegressor if cell.has_numbers else AdaLoraTableClassifier
    return make(_encoder(cell), random_state=cell.seed)


# ---- what is read, and shown -------------------------------------------------


def load(names, options):
    """Return tables by name, without those of a file that is not given."""
    if options.data:
        own = read_csv(options.data, options.label)
        return {own.name: own}
    left_out = [name for name in names if name in OF_MOVIES and not options.movies]
    if left_out:
        say(f"Without --movies, {' and '.join(left_out)} are left out.")
    kept = [name for name in names if name not in left_out]
    return {name: load_table(name, options.movies) for name in kept}


def to_markdown(study, about, records):
    """Return R² or accuracy, and what they come to; then the log losses."""
    records = [{**r, "accuracy": r.get("r2", r.get("accuracy"))} for r in records]
    summary = summarise(records, study.settings)
    names = summary["names"]
    lines = rows_of(summary)
    cells = [summary["cells"][key] for key in summary["complete"]]
    if FROZEN in names:
        wins = [sum(cell[name] > cell[FROZEN] for cell in cells) for name in names]
        wins = [f"{count}/{len(cells)}" for count in wins]
        lines.append([f"**better than {FROZEN}**", "all", "", *wins])
    for part, shown in (("fit_cpu", "fit"), ("predict_cpu", "predict")):
        means = [
            mean(r[part] for r in records if r["setting"] == name) for name in names
        ]
        means = [f"{seconds:.1f}" for seconds in means]
        lines.append([f"**CPU seconds, {shown}**", "all", "", *means])
    note = (
        "R² of numbers, accuracy of classes: the mean over the seeds that all in a row "
        f"have. Ranks and what is better: over the {len(cells)} of "
        f"{len(summary['cells'])} rows that all have. CPU seconds: the mean over all "
        "that was measured, to predict the rows to test on."
    )
    parts = [table(["task", "rows", "seeds", *names], lines), note]
    if classes := [record for record in records if "log_loss" in record]:
        losses = to_table(replace(study, shown={"log_loss": ".3f"}), about, classes)
        parts += ["Log loss:", losses]
    return "\n\n".join(parts)


STUDIES["tables"] = Study(
    "What is predicted best from tables of text, numbers, categories and dates?",
    settings={
        "trees": _without_text,
        FROZEN: _encoded(tune=False),
        "skrub": _skrub,
        "words": _words,
        "text": {},
        "same fit + trees": _encoded(OfTheSameFit),
        "out of fold + trees": _encoded(),
        "table": _table,
    },
    cells=grid([*TABLES, *OF_MOVIES], {1000: [0, 1, 2]}),
    cuts=False,
    options={"movies": ""},
    load=load,
    to_markdown=to_markdown,
)
