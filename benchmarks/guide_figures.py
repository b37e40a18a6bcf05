"""The figures of the user guide: own head, single predictions, last digits, speed.

Of 200 headlines, the accuracy with a linear head and with the head of the model's own
architecture (`pooling="model"`); the CPU seconds and the memory of a process that
predicts 500 headlines in one call, and one at a time; how much their probabilities
change by that, and by a fit with two threads instead of one; and of 1,000 quotes, how
many tokens a second a fit learns from and a prediction reads. Prints four tables, in
about five minutes.

    python -m benchmarks guide
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
import warnings

import numpy as np
import torch
from sklearn.base import clone

from sk_adalora import AdaLoraClassifier

from .data import load_task, split
from .machine import describe_machine
from .results import table
from .worker import resident_bytes

N_TRAIN, N_TEST, N_CALLS, N_QUOTES = 200, 1000, 500, 1000


def main():
    """Measure, and print the tables."""
    warnings.simplefilter("ignore")
    rows = split(load_task("headlines"), N_TRAIN, N_TEST, seed=0)
    print(f"{describe_machine()}\n\nAccuracy on {N_TEST:,} headlines, one seed:\n")
    heads = [
        [pooling, epochs, f"{accuracy(*rows, pooling=pooling, epochs=epochs):.3f}"]
        for pooling in ("mean", "model")
        for epochs in (3, 10)
    ]
    print(table(["pooling", "epochs", "accuracy"], heads))
    X_train, y_train, X_test, _ = rows
    classifier = AdaLoraClassifier(epochs=1, random_state=0, device="cpu")
    classifier.fit(X_train, y_train)
    calls = [
        [name, f"{seconds:.1f}", f"{grown / 1e6:.0f}"]
        for name, seconds, grown in predict_in_calls(classifier, X_test[:N_CALLS])
    ]
    print(f"\n{N_CALLS} headlines:\n")
    print(table(["predicted", "CPU s", "memory grew by, MB"], calls))
    changes = []
    for precision in ("float32", "auto"):
        fresh = AdaLoraClassifier(
            epochs=3, precision=precision, random_state=0, device="cpu"
        )
        changes.append([precision])
        for change, n in largest_changes(fresh, X_train, y_train, X_test[:N_CALLS]):
            changes[-1].append(f"{change:.1e}, {n}")
    print(f"\nLargest change of a probability, and labels changed, of {N_CALLS}:\n")
    names = ["precision", "predicted one by one", "two threads"]
    print(table(names, changes))
    quotes = split(load_task("quotes"), N_QUOTES, N_TEST, seed=0)
    speeds = [
        [precision, *(f"{n:,.0f}" for n in tokens_a_second(*quotes[:3], precision))]
        for precision in ("float32", "auto")
    ]
    print(f"\nTokens a second of {N_QUOTES:,} quotes, three epochs, default model:\n")
    print(table(["precision", "tokens of a quote", "fit", "predict"], speeds))


def accuracy(X_train, y_train, X_test, y_test, **settings):
    """Fit with some settings, and score on the test rows."""
    classifier = AdaLoraClassifier(random_state=0, **settings)
    return classifier.fit(X_train, y_train).score(X_test, y_test)


def tokens_a_second(X_train, y_train, X_test, precision):
    """Return the tokens of a text, and how many a fit and a prediction take.

    Returns
    -------
    a_text, fit, predict : float
        The last two in tokens for each CPU second; those of a fit count in each epoch.
    """
    classifier = AdaLoraClassifier(
        epochs=3, precision=precision, random_state=0, device="cpu"
    )
    start = time.process_time()
    classifier.fit(X_train, y_train)
    of_fit = time.process_time() - start
    count = classifier._predictor.backbone.tokenizer
    n_train, n_test = (sum(map(len, count(X)["input_ids"])) for X in (X_train, X_test))
    start = time.process_time()
    classifier.predict(X_test)
    of_predict = time.process_time() - start
    return n_train / len(X_train), 3 * n_train / of_fit, n_test / of_predict


def largest_changes(fresh, X_train, y_train, texts):
    """Return how much probabilities change by what should not matter.

    Returns
    -------
    alone, two_threads : (float, int)
        The largest change, and how many predicted labels changed, if each text is
        predicted on its own, and if two threads fitted and predicted, not one.
    """
    before, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            classifier = clone(fresh).fit(X_train, y_train)
            found.append(classifier.predict_proba(texts))
            if n_threads == 1:
                alone = [classifier.predict_proba([text]) for text in texts]
                found.append(np.vstack(alone))
    finally:
        torch.set_num_threads(before)
    expected, *others = found
    labels = expected.argmax(axis=1)
    return [
        (float(np.abs(other - expected).max()), int((other.argmax(1) != labels).sum()))
        for other in others
    ]


def predict_in_calls(classifier, texts):
    """Predict in one call, and then a text at a time.

    Returns
    -------
    list of (str, float, int)
        What was done, its CPU seconds and by how many bytes the process grew.
    """
    classifier.predict(texts[:1])  # reads what a first call needs

    def one_by_one():
        for text in texts:
            classifier.predict([text])

    found = []
    ways = {"in one call": lambda: classifier.predict(texts), "one by one": one_by_one}
    for name, predict in ways.items():
        before, start = resident_bytes(), time.process_time()
        predict()
        seconds = time.process_time() - start
        found.append((name, seconds, resident_bytes() - before))
    return found


if __name__ == "__main__":
    main()
