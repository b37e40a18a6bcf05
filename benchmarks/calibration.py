"""Do probabilities say how often a model is right, with and without `calibrate`?"""

import time
from itertools import product

import numpy as np
from scipy.special import expit, softmax
from sklearn.metrics import f1_score

from sk_adalora import AdaLoraClassifier

from .data import load_task, split
from .results import say, table

_BINS = 15
_GENRES = "eight genres"  # a film may have several: yes or no to each
TASKS = ("headlines", "quotes", "five groups", _GENRES)


def add_options(add):
    """Declare the options of the command."""
    add("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    add("--rows", nargs="+", type=int, default=[200, 1000], help="to learn from")
    add("--n-test", type=int, default=1000, help="rows to predict")
    add("--seeds", nargs="+", type=int, default=[0, 1])


def quicken(options):
    """Set the options to a smoke test."""
    options.tasks = ["headlines", _GENRES]
    options.rows, options.n_test, options.seeds = [24], 24, [0]


def run(options):
    """Fit once to each draw of each task, and judge the outputs with and without."""
    found = []
    for seed, size, name in product(options.seeds, options.rows, options.tasks):
        found.append(_measure(name, size, seed, options))
        say(found[-1])
    return {"n_test": options.n_test}, found


def to_markdown(about, rows):
    """Return the table: means over the seeds."""
    names = ["accuracy", "ece", "calibrated_ece", "log_loss", "calibrated_log_loss"]
    header = ["task", "rows", "temperature", "accuracy", "ECE", "calibrated"]
    header += ["log loss", "calibrated"]
    lines, text = [], []
    for task, size in sorted({(row["task"], row["rows"]) for row in rows}):
        same = [row for row in rows if (row["task"], row["rows"]) == (task, size)]
        heats = ", ".join(f"{row['temperature']:.2f}" for row in same)
        means = [f"{_mean(same, name):.3f}" for name in names]
        lines.append([task, f"{size:,}", heats, *means])
        if "f1" in same[0]:
            before, after = _mean(same, "f1"), _mean(same, "tuned_f1")
            text.append(f"{before:.3f} and {after:.3f} with {size:,} rows")
    draws = len({row["seed"] for row in rows})
    note = f"{about['n_test']:,} rows to predict, {draws} draws, {_BINS} bins."
    if text:
        note += (
            f' Mean F1 of genres without and with `thresholds="f1"`: {", ".join(text)}.'
        )
    return f"{table(header, lines)}\n\n{note}"


def _mean(rows, name):
    return float(np.mean([row[name] for row in rows]))


def _measure(name, size, seed, options):
    """Fit with `calibrate`: without it, all but the temperature is the same."""
    several = name == _GENRES
    task = load_task("twelve numbers" if several else name)
    X, y, X_test, y_test = split(task, size, options.n_test, seed)
    if several:
        y, y_test = (np.asarray(each)[:, 4:].astype(int) for each in (y, y_test))
    classifier = AdaLoraClassifier(
        options.model,
        device=options.device,
        max_length=64,
        calibrate="temperature",
        thresholds="f1" if several else None,
        random_state=seed,
    )
    start = time.process_time()
    classifier.fit(X, y)
    seconds = time.process_time() - start
    outputs, heat = classifier.decision_function(X_test), classifier.temperature_
    yes = y_test
    if not several:
        yes = np.array(y_test)[:, None] == classifier.classes_
    found = {"task": name, "rows": size, "seed": seed}
    found |= {"temperature": heat, "seconds": seconds}
    found |= _judge(outputs * heat, yes, several, "")
    found |= _judge(outputs, yes, several, "calibrated_")
    if several:
        options_of_f1 = {"average": "macro", "zero_division": 0}
        found["f1"] = f1_score(yes, outputs > 0, **options_of_f1)
        found["tuned_f1"] = f1_score(yes, classifier.predict(X_test), **options_of_f1)
    return found


def _judge(outputs, yes, several, prefix):
    """Return how good probabilities are; of several labels, those of each yes."""
    if several:
        chances, right = expit(outputs).ravel(), yes.ravel()
        sure, of_true = chances, np.where(right, chances, 1 - chances)
        accuracy = ((chances > 0.5) == right).mean()
    else:
        if outputs.ndim == 1:
            outputs = np.stack([np.zeros_like(outputs), outputs], axis=1)
        chances = softmax(outputs, axis=1)
        sure, of_true = chances.max(axis=1), chances[yes]
        right = yes[np.arange(len(yes)), chances.argmax(axis=1)]
        accuracy = right.mean()
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, sure - right, _BINS)
    return {
        "accuracy": float(accuracy),
        f"{prefix}ece": float(np.abs(gaps).sum() / len(sure)),
        f"{prefix}log_loss": float(-np.log(np.maximum(of_true, 1e-15)).mean()),
    }
