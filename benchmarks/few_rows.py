"""How often to go over few rows: accuracy and log loss by optimizer steps.

A default fit keeps a share of its training; so do these. The rows are of seeds that no
other setting was chosen on. Prints a table.

    python -m benchmarks few [--sizes 40]
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
import warnings
from collections import defaultdict

from sk_adalora import AdaLoraClassifier

from .arguments import chosen_sizes
from .data import CUT, TASKS, cells
from .machine import describe_machine
from .probabilities import accuracy_and_loss, means
from .results import say, table

# At least so many steps; 0 stands for ten epochs, however many steps they make.
STEPS = [0, 32, 64, 96]
SIZES = [40, 100, 200]
SEEDS = [40, 41, 42]
N_TEST = 600
_LEFT_OUT = {("newsgroups", 40)}  # of twenty classes
_BATCH_SIZE = 32


def main(arguments=None):
    """Measure all cells, and print a table of their means."""
    wanted = chosen_sizes(arguments, "few", __doc__.partition("\n")[0], SIZES)
    warnings.simplefilter("ignore")  # that some texts are cut
    scores = defaultdict(list)
    seeds = dict.fromkeys(SIZES, SEEDS)
    for name, size, seed, rows in cells(wanted, TASKS, seeds, N_TEST, _LEFT_OUT):
        found = {}  # by epochs: of two numbers of steps, one may be enough
        for steps in STEPS:
            epochs = max(10, math.ceil(steps / math.ceil(size / _BATCH_SIZE)))
            if epochs not in found:
                found[epochs] = measure(name, rows, epochs, seed)
                say(
                    f"{name} {size} seed {seed}, {epochs} epochs: "
                    "{:.3f} {:.3f}".format(*found[epochs])
                )
            scores[name, size, steps].append(found[epochs])
    keys = list(dict.fromkeys((name, size) for name, size, _ in scores))
    lines = [
        [name, size, *(means(scores[name, size, steps]) for steps in STEPS)]
        for name, size in keys
    ]
    print(
        f"{describe_machine()}\n\nAccuracy / log loss on {N_TEST} rows, means of "
        f"{len(SEEDS)} seeds:\n"
    )
    heads = ["10 epochs", *(f"{steps} steps or more" for steps in STEPS[1:])]
    print(table(["task", "rows", *heads], lines))


def measure(name, rows, epochs, seed):
    """Return accuracy and log loss of a fit."""
    X_train, y_train, X_test, y_test = rows
    classifier = AdaLoraClassifier(
        epochs=epochs,
        batch_size=_BATCH_SIZE,
        max_length=CUT.get(name, 128),
        device="cpu",
        random_state=seed,
    )
    return accuracy_and_loss(classifier.fit(X_train, y_train), X_test, y_test)


if __name__ == "__main__":
    main()
