"""What "auto" draws and learns from, without a word."""

import logging

import optuna
import pytest
from _search_worker import rows, search

from sk_adalora import _search_sampling
from sk_adalora._search_sampling import with_estimates

X, Y = rows()


@pytest.fixture
def warned():
    """Messages of Optuna's about parameters that are drawn apart from the others."""
    messages = []

    class Handler(logging.Handler):
        def emit(self, record):
            if "independent" in record.getMessage():
                messages.append(record.getMessage())

    handler, logger = Handler(), logging.getLogger("optuna")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


# ---- what is learned from ------------------------------------------------------


def test_trials_of_all_brackets_are_learned_from(monkeypatch, warned):
    """Asked for its trials, the study of a bracket leaves those of others out."""
    seen = []

    def spy(trials):
        seen.append(len(trials))
        return with_estimates(trials)

    monkeypatch.setattr(_search_sampling, "with_estimates", spy)
    search(n_trials=14, cv=4, pruner=optuna.pruners.HyperbandPruner()).fit(X, Y)

    assert seen[-1] == 14  # the last one, which begins, included
    assert warned == []
