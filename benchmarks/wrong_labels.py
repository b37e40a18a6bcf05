"""Wrong labels: accuracy by the share of training rows that have one.

A wrong label is one of the other classes, drawn evenly. The test rows have the right
ones. The splits had no part in the choice of a setting. Prints a table.

    python -m benchmarks wrong [--sizes 200]
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import warnings
from collections import defaultdict

import numpy as np
from sklearn.linear_model import LogisticRegression

from sk_adalora import AdaLoraClassifier

from .arguments import chosen_sizes
from .contestants import Embedder, Regression, Settings, fit_embeddings, fit_tfidf
from .data import CUT, TASKS, cells
from .machine import describe_machine
from .results import say, table

SHARES = [0, 0.15, 0.3]
SEEDS = {200: [70, 71, 72], 1000: [70]}
N_TEST = 1000
# With 1,000 rows, two data sets of short texts; three epochs are the default there.
_LEFT_OUT = {("articles", 1000), ("newsgroups", 1000), ("films", 1000)}
OURS = {
    "defaults": {},
    "`epochs=3`": {"epochs": 3},
    "`interpolation=0.5`": {"interpolation": 0.5},
    "`early_stopping=True`": {"early_stopping": True},
}


def main(arguments=None):
    """Measure all cells, and print a table of their means."""
    wanted = chosen_sizes(arguments, "wrong", __doc__.partition("\n")[0], [*SEEDS])
    warnings.simplefilter("ignore")  # of cut texts and rare classes
    scores = defaultdict(list)
    for name, size, seed, rows in cells(wanted, TASKS, SEEDS, N_TEST, _LEFT_OUT):
        X_train, y_train, X_test, y_test = rows
        for share in SHARES:
            labels = replace_some(y_train, share, seed)
            predictors = fit_all(name, X_train, labels, seed)
            for what, predictor in predictors:
                found = np.mean(np.asarray(predictor.predict(X_test)) == y_test)
                scores[name, size, share, what].append(found)
                say(f"{name} {size} seed {seed}, {share} wrong, {what}: {found:.3f}")
    methods = list(dict.fromkeys(what for *_, what in scores))
    lines = [
        [name, f"{size:,}", f"{share:.0%}"]
        + [f"{statistics.mean(scores[name, size, share, m]):.3f}" for m in methods]
        for name, size, share in dict.fromkeys(key[:3] for key in scores)
    ]
    print(f"{describe_machine()}\n\nAccuracy on {N_TEST:,} rows, means of seeds:\n")
    print(table(["task", "rows", "wrong labels", *methods], lines))


def replace_some(labels, share, seed):
    """Return labels of which a share are replaced by another class."""
    rng = np.random.default_rng(seed)
    classes = sorted(set(labels))
    labels = list(labels)
    for i in rng.permutation(len(labels))[: round(share * len(labels))]:
        labels[i] = str(rng.choice([c for c in classes if c != labels[i]]))
    return labels


def fit_all(name, texts, labels, seed):
    """Yield ours with each of the settings, and linear models, by name."""
    length = CUT.get(name, 128)
    for what, more in OURS.items():
        classifier = AdaLoraClassifier(
            max_length=length, device="cpu", random_state=seed, **more
        )
        yield what, classifier.fit(texts, labels)
    settings = Settings(max_length=length, device="cpu", seed=seed)
    yield "embeddings", fit_embeddings(texts, labels, settings)
    embed = Embedder(settings)
    regression = LogisticRegression(max_iter=1000).fit(embed(texts), labels)
    yield "embeddings, `C=1`", Regression(embed, regression)
    yield "tfidf", fit_tfidf(texts, labels, settings)


if __name__ == "__main__":
    main()
