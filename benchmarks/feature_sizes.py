"""What is learned of features of another size: R2 of numbers, accuracy of labels.

The features of the default model are multiplied, as other models have shorter or longer
ones. "standardised" is what the library does: the head learns on features that are
centred and of length 1. In "as they are", it learns on those of the model. 200 rows to
learn from. Prints a table.

    python -m benchmarks features
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import warnings
from contextlib import nullcontext
from unittest import mock

from sklearn.model_selection import train_test_split

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor
from sk_adalora.network import network as _network
from sk_adalora.network.head import LinearHead

from .data import load_task, split
from .machine import describe_machine
from .regression import read_targets
from .results import say, table

FACTORS = [0.1, 1, 3, 10, 30]
NUMBERS, LABELS = ["a quote is fresh", "year"], ["headlines", "quotes"]
WAYS = {
    "standardised": nullcontext,
    "as they are": lambda: mock.patch.object(LinearHead, "set_scale"),
}
N_TRAIN, N_TEST, SEED = 200, 1000, 20


def main():
    """Measure all cells, and print a table of them."""
    warnings.simplefilter("ignore")  # that a fit diverges is what is looked for
    targets = read_targets()
    lines = []
    for name in [*NUMBERS, *LABELS]:
        if name in NUMBERS:
            texts, y = targets[name]
            X_train, X_test, y_train, y_test = train_test_split(
                texts, y, train_size=N_TRAIN, test_size=N_TEST, random_state=SEED
            )
        else:
            rows = split(load_task(name), N_TRAIN, N_TEST, SEED)
            X_train, y_train, X_test, y_test = rows
        make = AdaLoraRegressor if name in NUMBERS else AdaLoraClassifier
        for way in WAYS:
            line = [f"{name}, {'R2' if name in NUMBERS else 'accuracy'}", way]
            for factor in FACTORS:
                estimator = make(max_length=64, device="cpu", random_state=SEED)
                with sized(factor), WAYS[way]():
                    estimator.fit(X_train, y_train)
                    score = estimator.score(X_test, y_test)
                line.append(f"{score:.3f}")
                say(*line[:2], factor, line[-1])
            lines.append(line)
    print(f"{describe_machine()}\n\nOn {N_TEST:,} rows; features times:\n")
    print(table(["target", "the head learns on", *map(str, FACTORS)], lines))


def sized(factor):
    """Return a context in which all features are so much longer."""
    pool = _network.pool
    return mock.patch.object(_network, "pool", lambda *args: factor * pool(*args))


if __name__ == "__main__":
    main()
