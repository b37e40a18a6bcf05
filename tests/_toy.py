"""A task that a random encoder can learn, and estimators that are quick to fit."""

import random

import numpy as np
import torch

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor

GOOD = ["good", "great", "best", "win", "film", "red"]
BAD = ["bad", "poor", "worst", "loss", "price", "blue"]


def toy(n_rows=48, seed=0):
    """Texts of good words and texts of bad words, of mixed lengths; labels 1, 0."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_rows) % 2
    texts = [
        " ".join(rng.choice(GOOD if label else BAD, size=rng.integers(2, 7)))
        for label in y
    ]
    return texts, y


def topics(n_rows=48, seed=0):
    """Like `toy` with three classes."""
    rng = np.random.default_rng(seed)
    words = [["music", "film"], ["team", "game"], ["market", "price"]]
    y = np.arange(n_rows) % 3
    texts = [" ".join(rng.choice(words[k], size=rng.integers(2, 7))) for k in y]
    return texts, np.array(["art", "sport", "business"])[y]


# What makes a fit on the tiny model quick, and the same always.
QUICK = {
    "target_r": 2,
    "epochs": 2,
    "batch_size": 16,
    "learning_rate": 0.02,
    "device": "cpu",
    "precision": "float32",
    "random_state": 0,
}


def make(model, **changed):
    """A classifier that is quick to fit on the tiny model and gives the same always."""
    return AdaLoraClassifier(model, **{**QUICK, **changed})


def make_regressor(model, **changed):
    """Like `make`, a regressor."""
    return AdaLoraRegressor(model, **{**QUICK, **changed})


def save_each_step(monkeypatch):
    """Have fits write a checkpoint after each step."""
    for name in ("_SECONDS", "_TIMES_WRITING"):
        monkeypatch.setattr(f"sk_adalora.files.checkpoint.{name}", 0)


def attributes(estimator):
    """The attributes of an estimator by name, to compare before and after."""
    return dict(vars(estimator))


def same_attributes(estimator, before):
    """Whether an estimator holds the very same attributes as before."""
    after = vars(estimator)
    return after.keys() == before.keys() and all(
        after[name] is value for name, value in before.items()
    )


def rounding(vectors, weight):
    """How much the last digits of float32 in vectors may change outputs of a layer.

    Of nearly equal vectors, as the tiny model's of first tokens, the outputs differ by
    large weights, which show this as much larger.
    """
    return 5e-7 * float(vectors.norm(dim=1).max() * weight.norm(dim=1).max())


def numbers(fitted):
    """All numbers that a fit learned, by name."""
    return {name: array.copy() for name, array in fitted._adapter.arrays.items()}


def global_states():
    """The states of the global random generators, to compare before and after."""
    of_numpy = np.random.get_state()  # noqa: NPY002
    return (
        torch.get_rng_state().numpy().tobytes(),
        (of_numpy[1].tobytes(), *of_numpy[2:]),
        random.getstate(),
    )
