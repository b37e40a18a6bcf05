"""How many rows of the other splits had a part in the choice of settings.

Of the test rows of the splits that no setting was chosen on, the share that were test
rows of the tuning splits, or of any split that a setting was chosen on; and what always
answering the most frequent class scores. Nothing is trained.
"""

from collections import Counter

from benchmarks.data import TASKS, load_task, split
from benchmarks.results import table

# Numbers of test rows by seed: of the tables of `score`, and with those of the studies
# in benchmarks/DEFAULTS.md, by which settings were chosen or confirmed.
TUNING = dict.fromkeys([0, 1, 2], 1000)
CHOSEN_ON = {
    **TUNING,
    **dict.fromkeys([10, 11], 1500),
    **dict.fromkeys([30, 31, 32, 33], 1000),
    **dict.fromkeys([40, 41, 42], 600),
    **dict.fromkeys([60, 61, 62, 63], 1000),
}
OTHER = dict.fromkeys([20, 21, 22], 1000)


def add_options(add):
    """Declare the options of the command."""
    add("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))


def main(options):
    """Print a line of each task."""
    lines = []
    for name in options.tasks:
        task = load_task(name)
        other = _test_rows(task, OTHER)
        shares = [
            f"{len(other & _test_rows(task, splits)) / len(other):.0%}"
            for splits in (TUNING, CHOSEN_ON)
        ]
        most = Counter(task.labels).most_common(1)[0][1] / len(task.labels)
        lines.append([name, *shares, f"{most:.3f}"])
    heads = ["of tuning splits", "of splits that settings were chosen on"]
    print(table(["task", *heads, "most frequent class"], lines))


def _test_rows(task, splits):
    """Return the texts that any of some splits tests on."""
    return set().union(*(split(task, 1, n, seed)[2] for seed, n in splits.items()))
