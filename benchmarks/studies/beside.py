"""Ours with other models, and beside or inside what scikit-learn has."""

import tempfile
from pathlib import Path

import joblib
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.metaestimators import available_if

from benchmarks.data import NUMBERS

from .study import Study, grid, measure

STUDIES = {}  # by the name that `python -m benchmarks NAME` runs them by


class Together(BaseEstimator):
    """The mean of what estimators predict, as of scikit-learn's two that vote."""

    def __init__(self, *estimators):
        self.estimators = estimators

    def fit(self, X, y):
        for estimator in self.estimators:
            estimator.fit(X, y)
        self.classes_ = getattr(self.estimators[0], "classes_", None)
        return self

    def predict(self, X):
        return sum(e.predict(X) for e in self.estimators) / len(self.estimators)

    @available_if(lambda self: hasattr(self.estimators[0], "predict_proba"))
    def predict_proba(self, X):
        return sum(e.predict_proba(X) for e in self.estimators) / len(self.estimators)


def _with_words(cell):
    return Together(cell.contestant("tfidf"), cell.estimator())


STUDIES["voting"] = Study(
    "What does a soft vote of ours and of counted words score?",
    settings={"TF-IDF": "tfidf", "ours": {}, "both": _with_words},
    cells=grid(
        ["headlines", "quotes", "newsgroups", "films"], {200: [20, 21], 1000: [20, 21]}
    ),
    cuts=False,
)

STUDIES["regression"] = Study(
    "What becomes of numbers, by setting and beside ridge regressions?",
    settings={
        "embeddings": "embeddings",
        "TF-IDF": "tfidf",
        "defaults": {},
        "defaults and TF-IDF": _with_words,
        "all kept": {"inside": {"kept": 1}},
        "10 epochs, all kept": {"epochs": 10, "inside": {"kept": 1}},
    },
    cells=grid(NUMBERS, {200: [20, 21], 1000: [20, 21]}),
    max_length=64,
)


def _rate(rate):
    return lambda cell: {"learning_rate": rate, "pooling": cell.options.pooling}


STUDIES["models"] = Study(
    "What do the defaults reach with another --model, by learning rate?",
    settings={
        "TF-IDF": "tfidf",
        "embeddings": "embeddings",
        **{str(rate): _rate(rate) for rate in (0.002, 0.004, 0.008, 0.016)},
    },
    cells={
        ("headlines", 200): [20, 21],
        ("headlines", 1000): [20, 21],
        ("quotes", 200): [20],
    },
    n_test=600,
    max_length=64,
    shown={"accuracy": ".3f", "fit_cpu": ".0f"},
    options={"pooling": "mean"},
)


# ---- the quickstart ----------------------------------------------------------

_REGULARISATION = [0.1, 1, 10, 100]


def _words(cell):
    """Search how words are counted and weighed, before the fit that is timed."""
    pipeline = Pipeline(
        [("words", TfidfVectorizer()), ("linear", LogisticRegression(max_iter=2000))]
    )
    searched = {
        "words__ngram_range": [(1, 1), (1, 2)],
        "words__sublinear_tf": [False, True],
        "linear__C": _REGULARISATION,
    }
    search = GridSearchCV(pipeline, searched, cv=5, refit=False).fit(*cell.rows[:2])
    return pipeline.set_params(**search.best_params_)


def _frozen(cell):
    """Search the regularisation on the vectors of the quickstart, before the fit."""
    from quickstart import embed  # `data.read_quickstart` made it importable

    X, y = cell.rows[:2]
    linear = LogisticRegression(max_iter=2000)
    search = GridSearchCV(linear, {"C": _REGULARISATION}, cv=5, refit=False)
    linear.set_params(**search.fit(embed(X), y).best_params_)
    return make_pipeline(FunctionTransformer(embed), linear)


def _with_file(cell, setting):
    """Measure, and the size of a file of the estimator in MB."""
    estimator = setting(cell)
    found = measure(cell, estimator)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.joblib"
        joblib.dump(estimator, path)
        return {**found, "file_mb": path.stat().st_size / 1e6}


STUDIES["quickstart"] = Study(
    "What does fine-tuning add on the headlines of the quickstart, over five splits?",
    settings={
        "TF-IDF, logistic regression": _words,
        "frozen MiniLM, logistic regression": _frozen,
        "`AdaLoraClassifier(target_r=4)`": lambda cell: cell.estimator(target_r=4),
    },
    cells={("quickstart", 1600): [0, 1, 2, 3, 4]},
    n_test=625,
    shown={"accuracy": ".3f", "fit_cpu": ".1f", "predict_cpu": ".2f", "file_mb": ".2f"},
    across="measures",
    measure=_with_file,
)
