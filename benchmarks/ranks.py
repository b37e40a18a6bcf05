"""Which rank, and does it help to move it to the weight matrices that need it?

Three ways to one average rank: the same rank in each matrix from the first step to the
last, which is plain LoRA but for its singular values; the default, which begins with
half as much again; and a start with rank 12. Prints a table.

    python -m benchmarks ranks [--sizes 200]
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import warnings
from collections import defaultdict

from sk_adalora import AdaLoraClassifier

from .arguments import chosen_sizes
from .data import CUT, cells
from .machine import describe_machine
from .probabilities import accuracy_and_loss, means
from .results import say, table

TASKS = ["headlines", "quotes", "films", "newsgroups"]
SEEDS = {200: [20, 21, 22], 1000: [20, 21], 4000: [20, 21, 22]}
N_TEST = 1000
_LEFT_OUT = {("headlines", 4000)}  # there are 2,096 of them
RANKS = [1, 4, 8, 16, 32]
# The rank to start with. None stands for the default.
WAYS = {
    "the same in each": {rank: rank for rank in RANKS},
    "from half as much again": dict.fromkeys(RANKS),
    "from 12": dict.fromkeys([1, 4], 12),  # with 8, that is the default
}


def main(arguments=None):
    """Measure all cells, and print a table of their means."""
    wanted = chosen_sizes(arguments, "ranks", __doc__.partition("\n")[0], [*SEEDS])
    warnings.simplefilter("ignore")  # that some texts are cut
    scores = defaultdict(list)
    for name, size, seed, rows in cells(wanted, TASKS, SEEDS, N_TEST, _LEFT_OUT):
        for way, starts in WAYS.items():
            for target_r, init_r in starts.items():
                found = measure(name, rows, seed, target_r=target_r, init_r=init_r)
                scores[name, size, way, target_r].append(found)
                say(name, size, seed, way, target_r, found)
    keys = dict.fromkeys(key[:3] for key in scores)
    lines = [
        [name, f"{size:,}", way, *(_cell(scores, name, size, way, r) for r in RANKS)]
        for name, size, way in keys
    ]
    print(f"{describe_machine()}\n\nAccuracy / log loss on {N_TEST:,} rows:\n")
    print(table(["task", "rows", "rank", *map(str, RANKS)], lines))


def _cell(scores, *key):
    return means(scores[key]) if key in scores else ""


def measure(name, rows, seed, **ranks):
    """Return accuracy and log loss of a fit with the defaults, but for its ranks."""
    X_train, y_train, X_test, y_test = rows
    classifier = make(max_length=CUT.get(name, 128), random_state=seed, **ranks)
    return accuracy_and_loss(classifier.fit(X_train, y_train), X_test, y_test)


def make(**options):
    """Return the estimator."""
    return AdaLoraClassifier(device="cpu", **options)


if __name__ == "__main__":
    main()
