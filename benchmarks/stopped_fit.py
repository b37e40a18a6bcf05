"""Fits of made-up texts, stopped after some steps: what `memory` measures."""

from dataclasses import replace
from unittest import mock

import numpy as np

from .contestants import fit

_WORDS = """
    river stone market letter winter garden engine bridge number island window paper
    music doctor forest silver train village captain summer kitchen history mountain
    teacher yellow morning object season station copper
""".split()
_LABELS = 4


class _Enough(Exception):
    """Enough steps were taken."""


def make_texts(n_rows):
    """Return short texts, all different, and labels: lists of str."""
    drawn = np.random.default_rng(0).integers(len(_WORDS), size=(n_rows, 8))
    texts = [" ".join(_WORDS[j] for j in row) + f" {i}" for i, row in enumerate(drawn)]
    return texts, [f"class {i % _LABELS}" for i in range(n_rows)]


def fit_some_steps(contestant, texts, labels, settings, steps):
    """Begin a fit, and stop it after some optimizer steps.

    Returns
    -------
    int
        Optimizer steps taken.
    """
    if contestant == "ours":
        return _stop_ours(lambda: fit(contestant, texts, labels, settings), steps)
    limited = replace(settings, max_steps=steps)
    return fit(contestant, texts, labels, limited).trainer.state.global_step


def _stop_ours(begin, steps):
    from sk_adalora.training import loop as _training

    step = _training.train_step
    done = 0

    def counted(*args, **kwargs):
        nonlocal done
        if done == steps:
            raise _Enough
        done += 1
        return step(*args, **kwargs)

    with mock.patch.object(_training, "train_step", counted):
        try:
            begin()
        except _Enough:
            pass
    return done
