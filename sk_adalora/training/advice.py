"""The warnings of a fit: of its rows, its model, its rates, its loss and its scores."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sk_adalora.data.input_warnings import column_of_targets
from sk_adalora.data.texts import Texts
from sk_adalora.pretrained.backbone import Backbone
from sk_adalora.runtime.messages import warn_user
from sk_adalora.runtime.ranks import is_joined
from sk_adalora.tokens.table import TokenTable

from .loop import TrainingHistory

# Warn if more than this share of the rows was truncated.
_TRUNCATED = 0.10
# Warn if the last epoch's mean loss exceeds the first's by more than
# `_RISE * max(1, first)`: losses near 0 fluctuate.
_RISE = 0.1
# A learning rate of these is a habit from full fine-tuning: a smaller one is meant to
# train nothing, and a larger one trains, if slowly.
_HABITS = (1e-6, 1e-4)
# Steps of such a rate reach somewhere if they add up to this; the default's add up to
# 0.3 and more (benchmarks/DEFAULTS.md).
_FAR = 0.1


def warn_of_leak(X: Any, y: Any) -> None:
    """Warn of a column with the targets: new rows will not have it."""
    if (name := column_of_targets(X, y)) is not None:
        warn_user(
            f"X must not hold the targets. Got the column {name!r}, which is equal to "
            "`y` in every row, so that nothing else is learned. Drop it from X."
        )


def warn_of_processes() -> None:
    """Warn of a launcher that starts several processes, each of which fits by itself.

    A program that has joined its processes knows what it does.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    is_worker = multiprocessing.parent_process() is not None  # of joblib, for one
    if world.isdecimal() and int(world) > 1 and not is_joined() and not is_worker:
        warn_user(
            "Processes must be in a process group to share a fit. Got "
            f"WORLD_SIZE={world} in the environment, as of torchrun, and no group: the "
            f"whole fit runs {world} times. Call "
            "torch.distributed.init_process_group() at the start of the program."
        )


def warn_of_texts(
    texts: Texts, tokens: TokenTable, long_text: str, row_format: Any, instead: str
) -> None:
    """Warn of texts that are equal, hold or are numbers, or are truncated.

    `instead` names the estimator for tables with numbers.
    """
    _warn_of_equal_texts(texts, len(tokens.starts))
    if texts.seem_encoded:  # a larger `max_length` would not help
        _warn_of_vectors(texts)
    else:
        _warn_of_numbers(texts, row_format, instead)
        _warn_of_cuts(tokens, long_text, row_format)


def _warn_of_equal_texts(texts: Texts, n_distinct: int) -> None:
    """Warn if there is nothing to learn from."""
    if n_distinct == 1 < len(texts):
        empty = len(texts) == texts.n_empty
        got = "no text in any of them" if empty else "the same text in all of them"
        warn_user(
            f"The rows of X must differ. Got {len(texts):,} rows to learn from, and "
            f"{got}. Pass the columns that tell something about the target."
        )


def _warn_of_vectors(texts: Texts) -> None:
    """Warn that a step before the estimator seems to have replaced the texts."""
    warn_user(
        "X should hold texts, not numbers made from them. Got "
        f"{texts.n_features} columns, all of numbers. If a step before the estimator, "
        "such as a tokenizer, a vectorizer or an encoder, replaces the texts, leave it "
        "out: pass the texts themselves."
    )


def _warn_of_numbers(texts: Texts, row_format: Any, instead: str) -> None:
    """Warn that the numbers of a table become words, unless the user wrote how."""
    numbers = [name for name, role in texts.columns.items() if role == "number"]
    if row_format == "auto" and numbers and "text" in texts.columns.values():
        where = f"the column {numbers[0]!r}"
        if len(numbers) > 1:
            where = f"{len(numbers)} columns, such as {numbers[0]!r},"
        warn_user(
            "X should hold texts: numbers in it are written out as words. Got numbers "
            f"in {where} beside texts. Use `{instead}`, which takes numbers as "
            "numbers. To have them read as words, name the columns in `row_format`."
        )


def _warn_of_cuts(tokens: TokenTable, long_text: str, row_format: Any) -> None:
    """Warn if many texts are truncated."""
    share = tokens.truncated_share
    if share > _TRUNCATED and long_text == "truncate":
        ways = "" if row_format == "pair" else ", or set `long_text`"
        warn_user(
            f"{share:.0%} of the texts are longer than max_length="
            f"{tokens.max_length} tokens and are cut. Raise `max_length` if the "
            f"model can read more tokens{ways}."
        )


def warn_of_model(model: str, backbone: Backbone, pooling: str) -> None:
    """Warn of a model that sees padding, or has weights drawn at random."""
    _warn_of_padding(model, backbone, pooling)
    _warn_of_drawn(model, backbone, pooling)


def _warn_of_padding(model: str, backbone: Backbone, pooling: str) -> None:
    """Warn if the model gives a text other vectors when it is padded otherwise."""
    if backbone.sees_padding:
        ways = "`model` or `pooling`" if pooling == "model" else "`model`"
        warn_user(
            "`model` must ignore what texts are padded with. Got "
            f"{model!r}, a {type(backbone.module).__name__}, which does not: the "
            "prediction for a text depends on the other texts of its batch. Give "
            f"another {ways}, or predict one text at a time."
        )


def _warn_of_drawn(model: str, backbone: Backbone, pooling: str) -> None:
    """Warn if weights that the vectors of texts depend on are random numbers."""
    # The head of an architecture is new in most fits. Poolers are left out by
    # pretraining, and read by such heads only, which train what is drawn.
    body = f"{backbone.module.base_model_prefix}." if pooling == "model" else ""
    lacks = [name for name in backbone.pretrained.drawn if name.startswith(body)]
    if lacks := [name for name in lacks if "pooler" not in name]:
        warn_user(
            "The files of `model` should hold all of its weights. Got those of "
            f"{model!r} without {len(lacks)} of a {type(backbone.module).__name__}, "
            f"such as {lacks[0]!r}, which were drawn at random. Check that it was "
            "saved as this kind of model, with such names."
        )


def warn_of_history(history: TrainingHistory) -> None:
    """Warn of what the training has come to."""
    _warn_of_rate(history.learning_rate)
    warn_of_divergence(history)
    _warn_of_scores(history)


def _warn_of_rate(rates: list[float]) -> None:
    """Warn of updates that can hardly have moved: a step is of the size of its rate."""
    largest = max(rates)
    if _HABITS[0] <= largest < _HABITS[1] and sum(rates) < _FAR:
        warn_user(
            "`learning_rate` must be much larger than for full fine-tuning, since "
            f"updates start at zero. Got {largest:.2g} for {len(rates):,} steps, which "
            "have hardly changed the model. Use the default of 0.008, or one from "
            "0.001 to 0.02.",
            ConvergenceWarning,
        )


def warn_of_divergence(history: TrainingHistory) -> None:
    """Warn if the training loss has risen."""
    losses, epochs = history.loss, history.epochs
    n_steps = len(losses) // epochs  # of an epoch
    first = float(np.mean(losses[:n_steps]))
    last = float(np.mean(losses[-n_steps:]))
    if last > first + _RISE * max(1.0, first):
        warn_user(
            f"The training loss must fall. Got {first:.3g} in the first epoch and "
            f"{last:.3g} in the last. Lower `learning_rate`.",
            ConvergenceWarning,
        )


def _warn_of_scores(history: TrainingHistory) -> None:
    """Warn if no state was better than another: a NaN or -inf is the best score."""
    best = history.best_epoch
    if best is not None and not history.score[best] > -np.inf:
        warn_user(
            "The validation score was not a finite number in any epoch of the final "
            "phase: the state of the last one is kept. Pass more validation rows, or "
            "another `scoring`."
        )
