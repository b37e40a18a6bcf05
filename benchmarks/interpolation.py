"""How much of a training to keep: accuracy and log loss of points from start to end.

The rows are of seeds that no other setting was chosen on. Two fits give all points of a
seed: one that learns, and one that learns nothing, whose numbers are mixed as
`AdaLoraClassifier(interpolation=...)` does. Prints a table.

    python -m benchmarks interpolation [--sizes 40]
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import copy
import warnings
from collections import defaultdict
from dataclasses import replace

from sk_adalora import AdaLoraClassifier

from .arguments import chosen_sizes
from .data import CUT, TASKS, cells
from .machine import describe_machine
from .probabilities import accuracy_and_loss, means
from .results import say, table

SHARES = [0, 0.5, 0.7, 0.85, 1]
SEEDS = {40: [30, 31, 32, 33], 200: [30, 31, 32], 1000: [30]}
N_TEST = 1000
_LEFT_OUT = {("articles", 1000)}  # nearly all of them are right with 200 rows
# Rates that change nothing.
STILL = {"epochs": 1, "learning_rate": 1e-12, "head_learning_rate": 1e-12}


def main(arguments=None):
    """Measure all cells, and print a table of their means."""
    wanted = chosen_sizes(
        arguments, "interpolation", __doc__.partition("\n")[0], [*SEEDS]
    )
    warnings.simplefilter("ignore")  # that many texts are cut
    scores = defaultdict(list)
    for name, size, seed, rows in cells(wanted, TASKS, SEEDS, N_TEST, _LEFT_OUT):
        for share, (accuracy, loss) in measure(name, rows, seed).items():
            scores[name, size, share].append((accuracy, loss))
            say(f"{name} {size} seed {seed}, {share}: {accuracy:.3f} {loss:.3f}")
    keys = list(dict.fromkeys((name, size) for name, size, _ in scores))
    lines = [
        [name, f"{size:,}", len(scores[name, size, 1])]
        + [means(scores[name, size, share]) for share in SHARES]
        for name, size in keys
    ]
    print(f"{describe_machine()}\n\nAccuracy / log loss on {N_TEST:,} rows:\n")
    print(table(["task", "rows", "seeds", *SHARES], lines))


def measure(name, rows, seed):
    """Return accuracy and log loss by share."""
    X_train, y_train, X_test, y_test = rows
    classifier = AdaLoraClassifier(
        random_state=seed, max_length=CUT.get(name, 256), interpolation=1
    )
    end = copy.copy(classifier).fit(X_train, y_train)
    start = classifier.set_params(**STILL).fit(X_train, y_train)
    return {
        share: accuracy_and_loss(between(start, end, share), X_test, y_test)
        for share in SHARES
    }


def between(start, end, share):
    """Return an estimator between two: singular values and head go back."""
    arrays = dict(end._adapter.arrays)
    for name, value in arrays.items():
        if name.endswith("lora_E"):
            arrays[name] = share * value
        elif name.startswith("head."):
            arrays[name] = share * value + (1 - share) * start._adapter.arrays[name]
    mixed = copy.copy(end)
    mixed._adapter, mixed._predictor = replace(end._adapter, arrays=arrays), None
    return mixed


if __name__ == "__main__":
    main()
