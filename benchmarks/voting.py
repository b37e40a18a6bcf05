"""Words and a transformer together: accuracy and log loss of a soft vote of the two.

What `VotingClassifier(..., voting="soft")` makes of `AdaLoraClassifier` and a logistic
regression of counted words (TF-IDF): the mean of their probabilities. The splits had no
part in the choice of a setting. Prints a table.

    python -m benchmarks voting
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import warnings
from collections import defaultdict

from .contestants import Settings, fit_ours, fit_tfidf
from .data import cells
from .machine import describe_machine
from .probabilities import means, of_shares
from .results import say, table

TASKS = ["headlines", "quotes", "newsgroups", "films"]
SIZES, N_TEST = [200, 1000], 1000
SEEDS = [20, 21]


def main():
    """Measure all cells, and print a table of their means."""
    warnings.simplefilter("ignore")  # that many texts are cut
    scores = defaultdict(list)
    splits = dict.fromkeys(SIZES, SEEDS)
    for name, size, seed, rows in cells(SIZES, TASKS, splits, N_TEST):
        for method, (accuracy, loss) in measure(*rows, Settings(seed=seed)).items():
            scores[name, size, method].append((accuracy, loss))
            say(f"{name} {size} seed {seed}, {method}: {accuracy:.3f} {loss:.3f}")
    methods = list(dict.fromkeys(method for _, _, method in scores))
    lines = [
        [name, f"{size:,}", *(means(scores[name, size, m]) for m in methods)]
        for name in TASKS
        for size in SIZES
    ]
    seeds = " ".join(map(str, SEEDS))
    print(f"{describe_machine()}\n\nMeans of seeds {seeds} on {N_TEST:,} rows:\n")
    print(table(["task", "rows", *methods], lines))


def measure(X_train, y_train, X_test, y_test, settings):
    """Return accuracy and log loss by method."""
    words = fit_tfidf(X_train, y_train, settings)
    ours = fit_ours(X_train, y_train, settings)
    classes = ours.classes_
    of_words = words.regression.predict_proba(words.features(X_test))
    of_ours = ours.predict_proba(X_test)
    shares = {
        "TF-IDF": of_words,
        "ours": of_ours,
        "both": (of_words + of_ours) / 2,
    }
    return {name: of_shares(classes, share, y_test) for name, share in shares.items()}


if __name__ == "__main__":
    main()
