"""Makes `benchmarks`, which is not installed, importable, and what its tests share."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
if not (ROOT / "benchmarks" / "__main__.py").exists():
    pytest.skip("the tests are here without benchmarks/", allow_module_level=True)
sys.path.append(str(ROOT))

from _toy import topics  # noqa: E402

from benchmarks.__main__ import MEASUREMENTS  # noqa: E402
from benchmarks.contestants import Settings  # noqa: E402

X, Y = topics(24)
X, Y = list(X), [str(y) for y in Y]
# `defaults` compares our own settings, on a page of its own.
COMPARISONS = [what for what in MEASUREMENTS if what != "defaults"]


def settings(tiny_model, **changed):
    """Return settings of a quick fit."""
    given = {"epochs": 2, "batch_size": 4, "max_length": 32, "device": "cpu"}
    return Settings(**{**given, "model": tiny_model, **changed})


def records(accuracies, **cell):
    where = {"task": "quotes", "size": 200, "seed": 0, **cell}
    return [{"contestant": n, "accuracy": a, **where} for n, a in accuracies.items()]
