"""Settings of ours beside each other: what benchmarks/DEFAULTS.md is written from."""

import math
from dataclasses import replace

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, LabelBinarizer

from benchmarks.contestants import Embedder
from benchmarks.data import TASKS
from benchmarks.inside import pool

from .study import Study, grid

STUDIES = {}  # by the name that `python -m benchmarks NAME` runs them by

PACKAGED = list(TASKS)
# What only changes the time, or nothing, would be a study of `costs.py`.


def _penalty(of_rows):
    """Give the linear probe a penalty, the same for any number of classes."""

    def setting(cell, **parameters):
        inside = {"penalty": of_rows(cell.size), "penalty_of_shares": 1e9}
        return {**parameters, "inside": inside}

    return setting


def _light(**parameters):
    """Penalise as the first variants did, before today's default."""
    parameters = {"head_learning_rate": 1e-3, **parameters}
    return lambda cell: _penalty(lambda rows: 1 / rows)(cell, **parameters)


_MANY = {"max_length": 128, "epochs": 3}
# All others are the estimator's defaults of the day. They are written out where a
# default changed since, so that a line stays what it was.
VARIANTS = {
    "random, 3 epochs": {"head_init": "random", "epochs": 3},
    # Rates that change nothing: logistic regression on the frozen features.
    "probe alone": _light(epochs=1, learning_rate=1e-9, head_learning_rate=1e-9),
    "probe, 3 epochs": _light(epochs=3, head_learning_rate=8e-3),
    "probe, 3 epochs, head 1e-3": _light(epochs=3),
    "probe, 5 epochs, head 1e-3": _light(epochs=5),
    "probe, 10 epochs": _light(epochs=10, head_learning_rate=8e-3),
    "probe, 10 epochs, head 1e-3": _light(epochs=10),
    "probe, 10 epochs, 4e-3, head 1e-3": _light(epochs=10, learning_rate=4e-3),
    "probe, 10 epochs, 2e-3, head 1e-3": _light(epochs=10, learning_rate=2e-3),
    # The estimator's defaults of 2026-11-25, and one change of them each.
    "defaults": {},
    "lora_alpha=24": {"lora_alpha": 24},
    "lora_alpha=6": {"lora_alpha": 6},
    "lora_dropout=0.1": {"lora_dropout": 0.1},
    "orth_reg_weight=0.5": {"orth_reg_weight": 0.5},
    "warmup_ratio=0.2": {"warmup_ratio": 0.2},
    "weight_decay=1": {"weight_decay": 1.0},
    "lr_scheduler_type=cosine": {"lr_scheduler_type": "cosine"},
    "batch_size=16": {"batch_size": 16},
    "head_init=random": {"head_init": "random"},
    "head_learning_rate=3e-3": {"head_learning_rate": 3e-3},
    "head_learning_rate=8e-3": {"head_learning_rate": 8e-3},
    "epochs=6": {"epochs": 6},
    "penalty 0.001": _penalty(lambda rows: 0.001),
    "penalty 1 / rows": _penalty(lambda rows: 1 / rows),
    "penalty 0.003": _penalty(lambda rows: 0.003),
    "penalty 0.03": _penalty(lambda rows: 0.03),
    "penalty 0.1": _penalty(lambda rows: 0.1),
    "probe of all rows": lambda cell: {"inside": {"probe_rows": cell.size}},
    # For many classes, beside what was the default then.
    "128 tokens, epochs=3": _MANY,
    "128 tokens, lora_alpha=32": {**_MANY, "lora_alpha": 32},
    "128 tokens, learning_rate=0.016": {**_MANY, "learning_rate": 0.016},
    "128 tokens, penalty 0.001": lambda cell: _penalty(lambda rows: 0.001)(
        cell, **_MANY
    ),
    "128 tokens, head_learning_rate=8e-3": {**_MANY, "head_learning_rate": 8e-3},
    "128 tokens, head_init=random": {**_MANY, "head_init": "random"},
    "128 tokens, epochs=6": {**_MANY, "epochs": 6},
}


def _all_kept(setting):
    """Keep all of a training; how much should be is the study `interpolation`."""

    def changed(cell):
        parameters = setting(cell) if callable(setting) else setting
        return {"interpolation": 1, **parameters}

    return changed


STUDIES["defaults"] = Study(
    "Does any change of one of our own settings score higher than the defaults?",
    settings={name: _all_kept(setting) for name, setting in VARIANTS.items()},
    cells=grid(PACKAGED, {size: [0, 1, 2] for size in [200, 1000, 4000]}),
    n_test=600,
    max_length=256,
    across="tasks",
)


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
    settings={str(x): {"interpolation": x} for x in (0, 0.5, 0.7, 0.85, 1)},
    cells=grid(
        PACKAGED,
        {40: [30, 31, 32, 33], 200: [30, 31, 32], 1000: [30]},
        without=[("articles", 1000)],  # nearly all are right with 200 rows
    ),
    max_length=256,
)

STUDIES["epochs"] = Study(
    "How long to train on thousands of rows of many classes, and what to keep of it?",
    settings={
        f"{epochs} epochs, {kept}": {"epochs": epochs, "interpolation": kept}
        for epochs in (3, 5)
        for kept in (0.85, 1)
    },
    cells={
        ("abstracts", 2500): [30, 31],  # they are 3,348
        **grid(["kinds", "stories", "banking"], {4000: [30, 31]}),
    },
    n_test=800,
    cuts=False,
)

STUDIES["faster"] = Study(
    "Do larger updates, a faster head, or both score higher than the defaults?",
    settings={
        "defaults": {},
        "`lora_alpha=32`": {"lora_alpha": 32},
        "`head_learning_rate=4e-3`": {"head_learning_rate": 4e-3},
        "both": {"lora_alpha": 32, "head_learning_rate": 4e-3},
    },
    cells=grid(
        ["headlines", "quotes", "films", "questions", "tweets", "subjectivity"],
        {1000: [20, 21], 200: [20, 21]},
    ),
    cuts=False,
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

STUDIES["features"] = Study(
    "What is learned from features that are shorter or longer than the model's?",
    settings={
        f"{way}, times {factor}": {
            "inside": {
                "pool": lambda *args, factor=factor: factor * pool(*args),
                **still,
            }
        }
        for way, still in {
            "standardised": {},  # as the library does
            "as they are": {"set_scale": lambda *args, **kwargs: None},
        }.items()
        for factor in (0.1, 1, 3, 10, 30)
    },
    cells=grid(["a quote is fresh", "year", "headlines", "quotes"], {200: [20]}),
    max_length=64,
    across="tasks",
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
        "`interpolation=0.5`": {"interpolation": 0.5},
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
