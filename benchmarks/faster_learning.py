"""Larger updates, a faster head, or both: do they score higher than the defaults?

On 1,000 rows, which are taken three times by default, and on 200, which are taken ten
times. FOLDER is what `public_data.py` wrote. Prints a table.

    python -m benchmarks faster FOLDER [--sizes 200]
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import warnings

from sk_adalora import AdaLoraClassifier

from .arguments import chosen_files_and_sizes
from .data import load_csv, load_task, split
from .machine import describe_machine
from .probabilities import accuracy_and_loss
from .results import say, table

PACKAGED = ["headlines", "quotes", "films"]
PUBLIC = ["questions", "tweets", "subjectivity"]
SIZES, SEEDS, N_TEST = [1000, 200], [20, 21], 1000
_COLUMNS = "text", "label"
# By default, alpha is 12 and the rate 0.001.
VARIANTS = {
    "defaults": {},
    "`lora_alpha=32`": {"lora_alpha": 32},
    "`head_learning_rate=4e-3`": {"head_learning_rate": 4e-3},
    "both": {"lora_alpha": 32, "head_learning_rate": 4e-3},
}


def main(arguments=None):
    """Measure all cells, and print a table of their means."""
    files, sizes = chosen_files_and_sizes(
        arguments, "faster", __doc__.partition("\n")[0], PUBLIC, SIZES
    )
    warnings.simplefilter("ignore")  # that some texts are cut
    lines = []
    for size in sizes:
        for name in PACKAGED + PUBLIC:
            public = name in files
            task = load_csv(files[name], *_COLUMNS) if public else load_task(name)
            splits = [(seed, split(task, size, N_TEST, seed)) for seed in SEEDS]
            lines.append([name, f"{size:,}"])
            for variant, changed in VARIANTS.items():
                found = [measure(rows, seed, changed) for seed, rows in splits]
                accuracy, loss = map(statistics.mean, zip(*found, strict=True))
                lines[-1].append(f"{accuracy:.3f} / {loss:.3f}")
                say(*lines[-1][:2], variant, found)
    print(f"{describe_machine()}\n\nAccuracy / log loss:\n")
    print(table(["task", "rows", *VARIANTS], lines))


def measure(rows, seed, changed):
    """Return accuracy and log loss of the defaults, some of them changed."""
    X_train, y_train, X_test, y_test = rows
    classifier = make(random_state=seed, **changed).fit(X_train, y_train)
    return accuracy_and_loss(classifier, X_test, y_test)


def make(**changed):
    """Return the estimator."""
    return AdaLoraClassifier(max_length=128, device="cpu", **changed)


if __name__ == "__main__":
    main()
