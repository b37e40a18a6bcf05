"""Probabilities on few rows: as they come, and after scikit-learn's calibration.

`CalibratedClassifierCV` fits one number, a temperature, to the predictions of rows that
were left out, in five folds. Prints a table of log losses and accuracies.

    python -m benchmarks calibration
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import time
import warnings

from sklearn.calibration import CalibratedClassifierCV

from sk_adalora import AdaLoraClassifier

from .data import load_task, split
from .machine import describe_machine
from .probabilities import accuracy_and_loss
from .results import table

TASKS = ["headlines", "quotes", "films"]
ROWS, TEST_ROWS, MAX_LENGTH = 200, 600, 64
SEEDS = [0]


def main():
    """Fit with and without calibration, on the same rows."""
    warnings.simplefilter("ignore")  # of cut texts and rare classes
    lines = []
    for name in TASKS:
        for seed in SEEDS:
            found = measure(*split(load_task(name), ROWS, TEST_ROWS, seed), seed)
            lines.append([f"{name}, seed {seed}", *found])
    print(f"{describe_machine()}\n")
    methods = ["as they come", "calibrated"]
    header = [
        "",
        *(f"{what}, {m}" for what in ("log loss", "accuracy") for m in methods),
    ]
    print(table([*header, "CPU s of a fit", "with calibration"], lines))


def measure(X_train, y_train, X_test, y_test, seed):
    """Return log losses, accuracies and CPU seconds, without and with calibration."""
    plain = AdaLoraClassifier(random_state=seed, max_length=MAX_LENGTH, device="cpu")
    calibrated = CalibratedClassifierCV(plain, method="temperature", ensemble=False)
    losses, accuracies, seconds = [], [], []
    for classifier in (plain, calibrated):
        start = time.process_time()
        classifier.fit(X_train, y_train)
        seconds.append(f"{time.process_time() - start:.0f}")
        accuracy, loss = accuracy_and_loss(classifier, X_test, y_test)
        losses.append(f"{loss:.2f}")
        accuracies.append(f"{accuracy:.3f}")
    return *losses, *accuracies, *seconds


if __name__ == "__main__":
    main()
