"""What fine-tuning adds on the headlines of the quickstart, over five splits.

Prints a section of docs/benchmarks.md.

    python -m benchmarks quickstart

Times are CPU seconds of one thread, so that they mean the same on a busy machine.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import joblib
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline

from sk_adalora import AdaLoraClassifier

sys.path.append(str(Path(__file__).parent.parent / "examples"))

from quickstart import embed, read_headlines

from .machine import describe_machine

SEEDS = range(5)
REGULARISATION = [0.1, 1, 10, 100]


class MiniLM(TransformerMixin, BaseEstimator):
    """Texts -> the vectors of the pretrained model as it is."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return embed(list(X))


def words(X, y):
    """Search how words are counted and weighed; fit the best anew."""
    pipeline = Pipeline(
        [
            ("tfidf", TfidfVectorizer()),
            ("regression", LogisticRegression(max_iter=2000)),
        ]
    )
    grid = {
        "tfidf__ngram_range": [(1, 1), (1, 2)],
        "tfidf__sublinear_tf": [False, True],
        "regression__C": REGULARISATION,
    }
    best = GridSearchCV(pipeline, grid, cv=5, refit=False).fit(X, y).best_params_
    return pipeline.set_params(**best)


def frozen(X, y):
    """Search the regularisation; the vectors are computed once for that."""
    grid = {"C": REGULARISATION}
    regression = LogisticRegression(max_iter=2000)
    search = GridSearchCV(regression, grid, cv=5, refit=False).fit(embed(list(X)), y)
    regression.set_params(**search.best_params_)
    return Pipeline([("minilm", MiniLM()), ("regression", regression)])


def adalora(X, y):
    """Search nothing: the quickstart's classifier."""
    return AdaLoraClassifier(target_r=4, random_state=0, device="cpu")


METHODS = {
    "TF-IDF, logistic regression": words,
    "frozen MiniLM, logistic regression": frozen,
    "`AdaLoraClassifier(target_r=4)`": adalora,
}


def main():
    headlines, topics = read_headlines()
    measured = {name: defaultdict(list) for name in METHODS}
    rows = headlines[:64] + headlines[-64:]
    AdaLoraClassifier(epochs=1, device="cpu").fit(rows, [0, 1] * 64)
    for parts in splits(headlines, topics):
        for name, prepare in METHODS.items():
            for key, value in measure(prepare, *parts).items():
                measured[name][key].append(value)
            print(".", end="", file=sys.stderr, flush=True)
    print("\n", file=sys.stderr)
    print_report(headlines, topics, measured)


def splits(headlines, topics):
    """Return headlines to learn from and to predict, then their topics, five times."""
    return [
        train_test_split(
            headlines, topics, train_size=1600, stratify=topics, random_state=seed
        )
        for seed in SEEDS
    ]


def measure(prepare, X_train, X_test, y_train, y_test):
    """Fit and score on one split, and take the time."""
    model = prepare(X_train, y_train)
    start = time.process_time()
    model.fit(X_train, y_train)
    fitted = time.process_time()
    predicted = model.predict(X_test)
    end = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        joblib.dump(model, Path(folder) / "model.joblib")
        size = (Path(folder) / "model.joblib").stat().st_size
    return {
        "accuracy": np.mean(predicted == np.asarray(y_test)),
        "fit": fitted - start,
        "predict": end - fitted,
        "size": size / 1e6,
    }


def shares_seen(headlines, topics):
    """Return the share of the headlines to predict that are learned from, by split."""
    return [
        np.isin(X_test, X_train).mean()
        for X_train, X_test, *_ in splits(headlines, topics)
    ]


def print_report(headlines, topics, measured):
    repeated = 1 - len(set(headlines)) / len(headlines)
    seen = shares_seen(headlines, topics)
    print(f"{describe_machine()}\n")
    share = f"{min(seen):.0%} to {max(seen):.0%}"
    print(f"{len(headlines):,} headlines, {repeated:.0%} of them repeated.\n")
    print(f"Of those to predict, {share} are among those to learn from.\n")
    times = "fit, CPU s | predict 625, CPU s"
    print(f"| method | accuracy | worst to best | {times} | file, MB |")
    print("|---|---|---|---|---|---|")
    for name, m in measured.items():
        scores = m["accuracy"]
        print(
            f"| {name} | {np.mean(scores):.3f} | "
            f"{min(scores):.3f} to {max(scores):.3f} | {np.median(m['fit']):.1f} | "
            f"{np.median(m['predict']):.2f} | {np.median(m['size']):.2f} |"
        )
    own = measured["`AdaLoraClassifier(target_r=4)`"]["accuracy"]
    print("\nHow often in 5 splits `AdaLoraClassifier` scores higher:\n")
    for name, m in measured.items():
        if m["accuracy"] is not own:
            wins = sum(a > b for a, b in zip(own, m["accuracy"], strict=True))
            print(f"- than {name}: {wins}")


if __name__ == "__main__":
    main()
