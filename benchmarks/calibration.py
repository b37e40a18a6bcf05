"""Probabilities on few rows: as they come, and after scikit-learn's calibration.

`CalibratedClassifierCV` fits one number, a temperature, to the predictions of rows that
were left out, in five folds. Prints a table of means of two splits.

    python -m benchmarks calibration
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import time
import warnings

from sklearn.calibration import CalibratedClassifierCV

from sk_adalora import AdaLoraClassifier

from .data import load_task, split
from .machine import describe_machine
from .probabilities import of_shares
from .results import say, table
from .wrong_labels import replace_some

TASKS = ["headlines", "quotes", "films"]
ROWS, TEST_ROWS, MAX_LENGTH = 200, 600, 64
SEEDS = [0, 1]
# What is set, and the share of training rows with a wrong label.
CASES = {
    "defaults": ({}, 0),
    "`epochs=3`": ({"epochs": 3}, 0),
    "`epochs=3`, 30% wrong labels": ({"epochs": 3}, 0.3),
}
MEASURES = {
    "accuracy": ".3f",
    "confidence": ".2f",
    "log loss": ".2f",
    "log loss, calibrated": ".2f",
    "CPU s of a fit": ".0f",
    "with calibration": ".0f",
}


def main():
    """Fit with and without calibration, on the same rows."""
    warnings.simplefilter("ignore")  # of cut texts and rare classes
    # What only the first fit of a process does is in no time.
    AdaLoraClassifier(epochs=1, device="cpu").fit(["a", "b"] * 8, [0, 1] * 8)
    lines = []
    for name in TASKS:
        for case in CASES:
            found = [measure(name, seed, case) for seed in SEEDS]
            means = map(statistics.mean, zip(*found, strict=True))
            formats = zip(means, MEASURES.values(), strict=True)
            lines.append([name, case, *(format(*pair) for pair in formats)])
            say(" ".join(lines[-1]))
    print(f"{describe_machine()}\n\nMeans of seeds {SEEDS}, {TEST_ROWS} test rows:\n")
    print(table(["task", "settings", *MEASURES], lines))


def measure(name, seed, case):
    """Return a number for each of `MEASURES`."""
    X_train, y_train, X_test, y_test = split(load_task(name), ROWS, TEST_ROWS, seed)
    settings, share = CASES[case]
    y_train = replace_some(y_train, share, seed)
    plain = AdaLoraClassifier(
        random_state=seed, max_length=MAX_LENGTH, device="cpu", **settings
    )
    calibrated = CalibratedClassifierCV(plain, method="temperature", ensemble=False)
    shares, seconds = [], []
    for classifier in (plain, calibrated):
        start = time.process_time()
        classifier.fit(X_train, y_train)
        seconds.append(time.process_time() - start)
        shares.append(classifier.predict_proba(X_test))
    (accuracy, loss), (_, calibrated_loss) = (
        of_shares(plain.classes_, each, y_test) for each in shares
    )
    confidence = shares[0].max(axis=1).mean()
    return accuracy, float(confidence), loss, calibrated_loss, *seconds


if __name__ == "__main__":
    main()
