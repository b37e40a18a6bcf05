"""What a race over folds saves, beside other searches with as many trials.

Prints a section of docs/benchmarks.md. Run from the repository:
python benchmarks/search_racing.py

It needs optuna-integration. Times are CPU seconds of one thread, so that they mean the
same on a busy machine.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import optuna
from optuna_integration import OptunaSearchCV
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import RandomizedSearchCV, train_test_split

from sk_adalora import AdaLoraClassifier, AdaLoraSearchCV, AdaLoraSpace

sys.path.append(str(Path(__file__).parent.parent / "examples"))

from machine import describe_machine
from quickstart import read_headlines

TEST_ROWS = 500
FOLDS = 5
SPACE = AdaLoraSpace()

fits = []  # CPU seconds of each fit


class Counted(AdaLoraClassifier):
    """Counts its fits, wherever they come from."""

    def fit(self, X, y, **params):
        start = time.process_time()
        try:
            return super().fit(X, y, **params)
        finally:
            fits.append(time.process_time() - start)


def unpruned(trials, seed):
    return AdaLoraSearchCV(
        Counted(random_state=0),
        SPACE,
        n_trials=trials,
        pruner=None,
        cv=FOLDS,
        random_state=seed,
    )


def racing(trials, seed):
    return unpruned(trials, seed).set_params(pruner="auto")


def integration(trials, seed):
    """Optuna's own: TPE, and without ties, so that `beta2` stays as it is."""
    return OptunaSearchCV(
        Counted(random_state=0),
        SPACE.distributions(),
        n_trials=trials,
        cv=FOLDS,
        random_state=seed,
    )


def drawn(trials, seed):
    return RandomizedSearchCV(
        Counted(random_state=0),
        SPACE.random(),
        n_iter=trials,
        cv=FOLDS,
        random_state=seed,
    )


METHODS = {
    "`AdaLoraSearchCV`, no pruner": unpruned,
    "`AdaLoraSearchCV`, racing": racing,
    "`OptunaSearchCV`": integration,
    "`RandomizedSearchCV`": drawn,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rows", type=int, default=300, help="to search with")
    parser.add_argument("--seeds", type=int, default=1, help="splits and searches")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    warnings.simplefilter("ignore", FitFailedWarning)
    warnings.filterwarnings("ignore", "`optuna.terminator`", FutureWarning)

    headlines, topics = read_headlines()
    measured = defaultdict(list)
    for seed in range(options.seeds):
        X, X_test, y, y_test = train_test_split(
            np.array(headlines, dtype=object),
            np.array(topics),
            train_size=options.rows,
            test_size=TEST_ROWS,
            stratify=topics,
            random_state=seed,
        )
        Counted(epochs=1).fit(X, y)  # loads the model
        measured["defaults, no search"].append(defaults(X, y, X_test, y_test))
        for name, make in METHODS.items():
            search = make(options.trials, seed)
            measured[name].append(measure(search, X, y, X_test, y_test))
            print(".", end="", file=sys.stderr, flush=True)
    print("\n", file=sys.stderr)
    print_report(options, measured)


def defaults(X, y, X_test, y_test):
    fits.clear()
    model = Counted(random_state=0).fit(X, y)
    return {
        "fits": 1,
        "seconds": fits[0],
        "cv": np.nan,
        "error": np.nan,
        "test": model.score(X_test, y_test),
    }


def measure(search, X, y, X_test, y_test):
    """Fit and score one search, and count what it took."""
    fits.clear()
    start = time.process_time()
    search.fit(X, y)
    seconds = time.process_time() - start
    return {
        "fits": len(fits) - 1,  # without the refit
        "seconds": seconds,
        "cv": search.best_score_,
        "error": standard_error(search),
        "test": search.score(X_test, y_test),
    }


def standard_error(search):
    """Of the best trial's mean over the folds."""
    if isinstance(search, OptunaSearchCV):
        folds = [
            value
            for name, value in search.best_trial_.user_attrs.items()
            if name.startswith("split") and name.endswith("_test_score")
        ]
    else:
        table, best = search.cv_results_, search.best_index_
        folds = [table[f"split{k}_test_score"][best] for k in range(FOLDS)]
    return np.std(folds, ddof=1) / np.sqrt(FOLDS)


def print_report(options, measured):
    print(f"{describe_machine()}; optuna {optuna.__version__}\n")
    print(
        f"{options.rows} headlines to search with, {TEST_ROWS} others to test on, "
        f"{options.trials} trials of {FOLDS} folds, {options.seeds} seeds; means.\n"
    )
    print("| method | fits of folds | CPU s | best score of folds | test accuracy |")
    print("|---|---|---|---|---|")
    for name, runs in measured.items():
        mean = {key: np.mean([run[key] for run in runs]) for key in runs[0]}
        score = f"{mean['cv']:.3f} ± {mean['error']:.3f}"
        print(
            f"| {name} | {mean['fits']:.0f} | {mean['seconds']:.0f} | "
            f"{'' if np.isnan(mean['cv']) else score} | {mean['test']:.3f} |"
        )
    full, raced = (measured[name] for name in list(METHODS)[:2])
    for seed, (a, b) in enumerate(zip(full, raced, strict=True)):
        print(
            f"\nSeed {seed}: racing took {b['fits'] / a['fits']:.2f} of the fits, and "
            f"its best score is {a['cv'] - b['cv']:.3f} below that without a pruner, "
            f"whose standard error is {a['error']:.3f}."
        )


if __name__ == "__main__":
    main()
