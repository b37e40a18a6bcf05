"""What the length of a batch should be a multiple of on a CPU, in either precision.

Each multiple is measured in a process of its own, in turn. Prints a table of CPU
seconds and peak memory.

    python -m benchmarks lengths
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import itertools
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from unittest import mock

from sk_adalora import AdaLoraClassifier
from sk_adalora.runtime.devices import Compute, resolve_compute

from .data import load_task, split
from .machine import describe_machine
from .results import table
from .worker import peak_bytes

MULTIPLES = [1, 4, 8]
ROUNDS = 3
HEADER = ["precision", "multiple", "fit, CPU s", "predict, CPU s", "peak, MB"]


def main():
    """Measure each multiple in turn, in rounds, or the one that is given."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
        return
    found = defaultdict(list)
    precisions = dict.fromkeys(["float32", resolve_compute("cpu").precision])
    for _ in range(ROUNDS):
        for case in itertools.product(precisions, MULTIPLES):
            module = ["-W", "ignore", "-m", __spec__.name]
            command = [sys.executable, *module, *map(str, case)]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, check=True, text=True
            )
            found[case].append(json.loads(done.stdout))
    lines = []
    for (precision, multiple), rounds in sorted(found.items()):
        fit, predict, peak = map(statistics.median, zip(*rounds, strict=True))
        measured = [f"{fit:.1f}", f"{predict:.1f}", f"{peak:.0f}"]
        lines.append([precision, str(multiple), *measured])
    print(
        f"{describe_machine()}\n\n1,000 quotes, two epochs; 1,000 others predicted:\n"
    )
    print(table(HEADER, lines))


def measure(precision, multiple):
    """Return CPU seconds of a fit and of a prediction, and peak memory in MB."""
    X_train, y_train, X_test, _ = split(load_task("quotes"), 1000, 1000, 0)
    settings = {"random_state": 0, "device": "cpu", "precision": precision}
    with mock.patch.object(Compute, "length_multiple", multiple):
        AdaLoraClassifier(epochs=1, **settings).fit(X_train[:40], y_train[:40])
        start = time.process_time()
        classifier = AdaLoraClassifier(epochs=2, **settings).fit(X_train, y_train)
        fitted = time.process_time()
        classifier.predict(X_test)
        predicted = time.process_time()
    return fitted - start, predicted - fitted, peak_bytes() / 1e6


if __name__ == "__main__":
    main()
