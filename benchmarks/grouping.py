"""How rows are dealt into training batches: accuracy, log loss and CPU seconds.

"equal" is what the library does: rows of about the same length go together, in batches
of equal size. "full" fills all batches but one, which has the rest: the longest rows.
"mixed" has batches of equal size of rows at random. The splits had no part in the
choice of a setting. Prints a table.

    python -m benchmarks grouping [--sizes 33]
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time
import warnings
from collections import defaultdict
from unittest import mock

import numpy as np
import torch

from sk_adalora import AdaLoraClassifier
from sk_adalora.tokens.batches import training_batches
from sk_adalora.training import loop as _training

from .arguments import chosen_sizes
from .data import CUT, TASKS, cells
from .machine import describe_machine
from .probabilities import accuracy_and_loss, means
from .results import say, table

SEEDS = {33: [60, 61, 62, 63], 200: [60, 61, 62]}
N_TEST = 1000
_LEFT_OUT = {("newsgroups", 33)}  # of twenty classes


def full(tokens, batch_size, generator):
    """Deal sorted rows into full batches and one of the rest."""
    order = torch.randperm(len(tokens), generator=generator).numpy()
    run = np.arange(len(order)) // (50 * batch_size)
    order = order[np.lexsort((tokens.lengths[order], run))]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    shuffled = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[i] for i in shuffled]


def mixed(tokens, batch_size, generator):
    """Deal rows at random into batches of equal size."""
    order = torch.randperm(len(tokens), generator=generator).numpy()
    return np.array_split(order, -(-len(order) // batch_size))


WAYS = {"equal": training_batches, "full": full, "mixed": mixed}


def main(arguments=None):
    """Measure all cells, and print a table of their means."""
    wanted = chosen_sizes(arguments, "grouping", __doc__.partition("\n")[0], [*SEEDS])
    warnings.simplefilter("ignore")  # that many texts are cut
    scores = defaultdict(list)
    for name, size, seed, rows in cells(wanted, TASKS, SEEDS, N_TEST, _LEFT_OUT):
        measure(name, rows, seed, "equal", epochs=1)  # what the first fit loads
        for way in WAYS:
            found = measure(name, rows, seed, way)
            scores[name, size, way].append(found)
            say(
                f"{name} {size} seed {seed}, {way}: "
                "{:.3f} {:.3f} {:.1f} s".format(*found)
            )
    keys = list(dict.fromkeys((name, size) for name, size, _ in scores))
    lines = [
        [name, f"{size:,}", len(scores[name, size, "equal"])]
        + [means(cell[:2] for cell in scores[name, size, way]) for way in WAYS]
        + [_slower(scores[name, size, "mixed"], scores[name, size, "equal"])]
        for name, size in keys
    ]
    print(f"{describe_machine()}\n\nAccuracy / log loss on {N_TEST:,} rows:\n")
    print(table(["task", "rows", "seeds", *WAYS, "CPU s, mixed / equal"], lines))


def measure(name, rows, seed, way, epochs="auto"):
    """Return accuracy and log loss of a fit, and its CPU seconds."""
    X_train, y_train, X_test, y_test = rows
    classifier = AdaLoraClassifier(
        epochs=epochs,
        max_length=CUT.get(name, 256),
        device="cpu",
        random_state=seed,
    )
    with mock.patch.object(_training, "training_batches", WAYS[way]):
        start = time.process_time()
        classifier.fit(X_train, y_train)
        seconds = time.process_time() - start
    return *accuracy_and_loss(classifier, X_test, y_test), seconds


def _slower(found, others):
    pairs = zip(found, others, strict=True)
    return f"{statistics.mean(a[2] / b[2] for a, b in pairs):.2f}"


if __name__ == "__main__":
    main()
