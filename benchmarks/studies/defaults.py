"""Settings of ours beside each other: what benchmarks/DEFAULTS.md is written from."""

import math
from dataclasses import replace

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, LabelBinarizer

from benchmarks.contestants import Embedder
from benchmarks.data import TASKS

from .study import Study, grid

STUDIES = {}  # by the name that `python -m benchmarks NAME` runs them by

PACKAGED = list(TASKS)


def _steps(at_least):
    """Go over the rows ten times, or as often as so many steps take."""
    return lambda cell: {
        "batch_size": 32,
        "epochs": max(10, math.ceil(at_least / math.ceil(cell.size / 32))),
    }


STUDIES["few"] = Study(
    "How often to go over few rows?",
    settings={
        "10 epochs": _steps(0),
        **{f"{steps} steps or more": _steps(steps) for steps in (32, 64, 96)},
    },
    cells=grid(
        PACKAGED,
        {size: [40, 41, 42] for size in [40, 100, 200]},
        without=[("newsgroups", 40)],  # of twenty classes
    ),
    n_test=600,
)

STUDIES["interpolation"] = Study(
    "How much of a training to keep?",
    settings={str(x): {"inside": {"kept": x}} for x in (0, 0.5, 0.7, 0.85, 1)},
    cells=grid(
        PACKAGED,
        {40: [30, 31, 32, 33], 200: [30, 31, 32], 1000: [30]},
        without=[("articles", 1000)],  # nearly all are right with 200 rows
    ),
    max_length=256,
)

STUDIES["ranks"] = Study(
    "Which rank, and does it help to move it to the matrices that need it?",
    settings={
        **{f"{r} in each": {"target_r": r, "init_r": r} for r in (1, 4, 8, 16, 32)},
        **{f"{r}, from half as much again": {"target_r": r} for r in (1, 4, 8, 16, 32)},
        **{f"{r}, from 12": {"target_r": r, "init_r": 12} for r in (1, 4)},
    },
    cells=grid(
        ["headlines", "quotes", "films", "newsgroups"],
        {200: [20, 21, 22], 1000: [20, 21], 4000: [20, 21, 22]},
        without=[("headlines", 4000)],  # there are 2,096
    ),
    across="tasks",
)

STUDIES["many"] = Study(
    "How much to penalise the probe of many classes, or of rare ones?",
    settings={
        "embeddings": "embeddings",
        "0.01": {"inside": {"penalty_of_shares": 1e9}},  # of few frequent classes
        "default": {},
        "a quarter": {"inside": {"penalty_of_shares": 1}},
    },
    # 200 rows of 150 classes would be one of each. Of the last two, some are rare.
    cells={
        **grid(["banking", "newswire"], {size: [30, 31] for size in [200, 1000]}),
        **grid(["intents", "questions"], {1000: [30, 31]}),
    },
    cuts=False,
)


def _as_labels(rows, seed):
    """Return rows with a column of 0 and 1 a class."""
    X_train, y_train, X_test, y_test = rows
    encode = LabelBinarizer().fit(y_train).transform
    return X_train, encode(y_train), X_test, encode(y_test)


STUDIES["many-labels"] = replace(
    STUDIES["many"],
    question="The same of many classes as labels, one a row, in micro-averaged F1",
    settings={
        name: STUDIES["many"].settings[name]
        for name in list(STUDIES["many"].settings)[1:]
    },
    cells=grid(["banking", "intents"], {200: [30, 31], 1000: [30, 31]}),
    cases={"": _as_labels},
    shown={"f1": ".3f"},
)


def wrong_labels(share):
    """Give a share of the rows to learn from another class, drawn evenly."""

    def change(rows, seed):
        X_train, y_train, *rest = rows
        rng = np.random.default_rng(seed)
        classes, labels = sorted(set(y_train)), list(y_train)
        for i in rng.permutation(len(labels))[: round(share * len(labels))]:
            labels[i] = str(rng.choice([c for c in classes if c != labels[i]]))
        return X_train, labels, *rest

    return change


def _plain(cell):
    """Return a logistic regression on embeddings with scikit-learn's own penalty."""
    embed = Embedder(cell.contestant("embeddings").settings)
    return make_pipeline(FunctionTransformer(embed), LogisticRegression(max_iter=1000))


STUDIES["wrong"] = Study(
    "What is learned where a share of the training labels is wrong?",
    settings={
        "defaults": {},
        "`epochs=3`": {"epochs": 3},
        "`early_stopping=True`": {"early_stopping": True},
        "embeddings": "embeddings",
        "embeddings, `C=1`": _plain,
        "tfidf": "tfidf",
    },
    cells=grid(
        PACKAGED,
        {200: [70, 71, 72], 1000: [70]},
        without=[(task, 1000) for task in ("articles", "newsgroups", "films")],
    ),
    cases={f"{share:.0%} wrong": wrong_labels(share) for share in (0, 0.15, 0.3)},
    shown={"accuracy": ".3f"},
)
