"""How long to train on thousands of rows of many classes, and how much of it to keep.

Three epochs, which few classes get, and five. 0.85 of a training is what few rows keep
by default, and 1 all of it; both are of the same fits. FOLDER is what `public_data.py`
wrote. Prints a table.

    python -m benchmarks epochs FOLDER
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import warnings
from collections import defaultdict

from sk_adalora import AdaLoraClassifier

from .arguments import chosen_files_and_sizes
from .data import load_csv, split
from .interpolation import STILL, between
from .machine import describe_machine
from .probabilities import accuracy_and_loss, means
from .results import say, table

# The abstracts are 3,348.
TASKS = {"abstracts": 2500, "kinds": 4000, "stories": 4000, "banking": 4000}
EPOCHS, SHARES = [3, 5], [0.85, 1]
SEEDS, N_TEST = [30, 31], 800


def main(arguments=None):
    """Measure all cells, and print a table of their means."""
    files, wanted = chosen_files_and_sizes(
        arguments,
        "epochs",
        __doc__.partition("\n")[0],
        list(TASKS),
        sorted({*TASKS.values()}),
    )
    warnings.simplefilter("ignore")  # that many texts are cut
    lines = []
    for name, size in TASKS.items():
        if size not in wanted:
            continue
        task = load_csv(files[name], "text", "label")
        scores = defaultdict(list)
        for seed in SEEDS:
            for cell, found in measure(split(task, size, N_TEST, seed), seed).items():
                scores[cell].append(found)
                say(name, seed, *cell, found)
        found = [means(scores[cell]) for cell in scores]
        lines.append([name, f"{size:,}", len({*task.labels}), *found])
    heads = [f"{epochs} epochs, {share}" for epochs in EPOCHS for share in SHARES]
    print(f"{describe_machine()}\n\nAccuracy / log loss on {N_TEST:,} rows:\n")
    print(table(["task", "rows", "classes", *heads], lines))


def measure(rows, seed):
    """Return accuracy and log loss by epochs and share."""
    X_train, y_train, X_test, y_test = rows
    start = make(seed, **STILL).fit(X_train, y_train)
    found = {}
    for epochs in EPOCHS:
        end = make(seed, epochs=epochs).fit(X_train, y_train)
        for share in SHARES:
            mixed = between(start, end, share)
            found[epochs, share] = accuracy_and_loss(mixed, X_test, y_test)
    return found


def make(seed, **options):
    """Return a classifier that keeps all of its training."""
    return AdaLoraClassifier(
        random_state=seed, max_length=128, interpolation=1, **options
    )


if __name__ == "__main__":
    main()
