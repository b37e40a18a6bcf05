"""What the length of a batch should be a multiple of, in bfloat16 on a CPU.

Each multiple is measured in a process of its own, in turn. Prints a table of CPU
seconds and peak memory. Run from the repository, with the extra `bench`:
python benchmarks/length_multiples.py
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import json
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from unittest import mock

sys.path.append(str(Path(__file__).parent.parent))

from benchmarks.data import load_task, split
from benchmarks.machine import describe_machine
from benchmarks.results import table
from sk_adalora import AdaLoraClassifier
from sk_adalora._devices import Place

MULTIPLES = [1, 4, 8]
ROUNDS = 3


def main():
    """Measure each multiple in turn, in rounds, or the one that is given."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
        return
    found = defaultdict(list)
    for _ in range(ROUNDS):
        for multiple in MULTIPLES:
            command = [sys.executable, __file__, str(multiple)]
            done = subprocess.run(command, capture_output=True, check=True, text=True)
            found[multiple].append(json.loads(done.stdout))
    lines = []
    for multiple, rounds in found.items():
        fit, predict, peak = map(statistics.median, zip(*rounds, strict=True))
        lines.append([str(multiple), f"{fit:.1f}", f"{predict:.1f}", f"{peak:.0f}"])
    print(
        f"{describe_machine()}\n\n1,000 quotes, two epochs; 1,000 others predicted:\n"
    )
    print(table(["multiple", "fit, CPU s", "predict, CPU s", "peak, MB"], lines))


def measure(multiple):
    """Return CPU seconds of a fit and of a prediction, and peak memory in MB."""
    X_train, y_train, X_test, _ = split(load_task("quotes"), 1000, 1000, 0)
    settings = {"random_state": 0, "device": "cpu", "precision": "bfloat16"}
    with mock.patch.object(Place, "length_multiple", multiple):
        AdaLoraClassifier(epochs=1, **settings).fit(X_train[:40], y_train[:40])
        start = time.process_time()
        classifier = AdaLoraClassifier(epochs=2, **settings).fit(X_train, y_train)
        fitted = time.process_time()
        classifier.predict(X_test)
        predicted = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return fitted - start, predicted - fitted, peak


if __name__ == "__main__":
    main()
