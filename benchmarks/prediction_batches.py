"""How many tokens to predict at once on a CPU.

Prints a table of CPU seconds.

    python -m benchmarks batches
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import time
from collections import defaultdict
from unittest import mock

from sk_adalora import AdaLoraClassifier
from sk_adalora.runtime.devices import Compute

from .data import load_task, split
from .machine import describe_machine
from .results import table

SIZES = [512, 1024, 2048, 4096, 8192]
ROUNDS = 3


def main():
    """Predict the same review quotes with batches of each size in turn."""
    X_train, y_train, X_test, _ = split(load_task("quotes"), 200, 600, 0)
    lines = []
    for precision in ("bfloat16", "float32"):
        classifier = AdaLoraClassifier(
            epochs=1, random_state=0, device="cpu", precision=precision
        ).fit(X_train, y_train)
        taken = defaultdict(list)
        for turn in range(ROUNDS + 1):
            for size in SIZES:
                with mock.patch.object(Compute, "tokens_to_predict", size):
                    start = time.process_time()
                    classifier.predict(X_test)
                if turn:  # the first one warms up
                    taken[size].append(time.process_time() - start)
        seconds = [statistics.median(taken[size]) for size in SIZES]
        lines.append([precision, *(f"{s:.2f}" for s in seconds)])
    print(f"{describe_machine()}\n\nCPU seconds of 600 quotes:\n")
    print(table(["tokens at once", *SIZES], lines))


if __name__ == "__main__":
    main()
