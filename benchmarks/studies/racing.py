"""`AdaLoraSearchCV` beside random search for the same time, and other searches.

All searches of a task and seed get the same rows and folds, and their winners are
refitted and scored on rows that no search has seen. Times are CPU seconds of one
thread, so that they mean the same on a busy machine.
"""

import time

import numpy as np
import optuna
from sklearn.model_selection import ParameterSampler, RandomizedSearchCV

from benchmarks.results import table
from sk_adalora import AdaLoraClassifier, AdaLoraSearchCV, AdaLoraSpace

from .study import KEY, Study, grid

STUDIES = {}  # by the name that `python -m benchmarks NAME` runs them by

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


# ---- the searches ------------------------------------------------------------


class TimedRandomizedSearchCV(RandomizedSearchCV):
    """Draws candidates until `seconds` of CPU time are over.

    The candidate that is evaluated then is completed, so that it never gets less time.
    Candidates are those of `RandomizedSearchCV` with the same `random_state`.
    """

    seconds = 0.0

    def _run_search(self, evaluate_candidates, *, callback_ctx=None):
        candidates = ParameterSampler(
            self.param_distributions, self.n_iter, random_state=self.random_state
        )
        start = time.process_time()
        for params in candidates:
            evaluate_candidates([params])
            if time.process_time() - start >= self.seconds:
                return
        raise RuntimeError(f"{self.n_iter} candidates took less than the time to use.")


def _race(cell, model, **more):
    trials, folds = cell.options.trials, cell.options.folds
    given = {"n_trials": trials, "cv": folds, "random_state": cell.seed}
    return AdaLoraSearchCV(model, SPACE, **given, **more)


def _unpruned(cell, model):
    return _race(cell, model, pruner=None)


def _integration(cell, model):
    """Optuna's own: TPE, and without ties, so that `beta2` stays as it is."""
    from optuna_integration import OptunaSearchCV

    trials, folds = cell.options.trials, cell.options.folds
    given = {"n_trials": trials, "cv": folds, "random_state": cell.seed}
    return OptunaSearchCV(model, SPACE.distributions(), **given)


def _drawn(cell, model, make=RandomizedSearchCV, n_iter=None):
    n_iter = n_iter or cell.options.trials
    given = {"cv": cell.options.folds, "random_state": cell.seed}
    return make(model, SPACE.random(), n_iter=n_iter, **given)


def _drawn_in_time(cell, model):
    if "racing" not in cell.found:
        raise ValueError(
            "The time of `timed` is that of `racing`. Got no result of that for "
            "this task and seed. Add it: --methods racing timed."
        )
    search = _drawn(cell, model, TimedRandomizedSearchCV, 1000)
    search.seconds = cell.found["racing"]["seconds"]
    return search


METHODS = {
    "racing": ("`AdaLoraSearchCV`", _race),
    "timed": ("random search, same time", _drawn_in_time),
    "unpruned": ("`AdaLoraSearchCV(pruner=None)`", _unpruned),
    "optuna": ("`OptunaSearchCV`", _integration),
    "random": ("`RandomizedSearchCV`, as many candidates", _drawn),
}


# ---- measuring ---------------------------------------------------------------


def measure(cell, setting):
    """Fit one search, score its winner, and count what the search took."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    X, y, X_test, y_test = cell.rows
    model = Counted(**cell.ours, random_state=0)
    search = setting[1](cell, model)
    fits.clear()
    start = time.process_time()
    search.fit(np.array(X, dtype=object), np.array(y))
    taken = time.process_time() - start
    winner = search.best_params_.items()
    found = {
        "fits": len(fits) - 1,  # without the refit
        "seconds": taken - fits[-1],
        "cv": float(search.best_score_),
        "scores": scores_of_folds(search, cell.options.folds),
        "correct": correct(search, X_test, y_test),
        "params": {k: getattr(v, "item", lambda v=v: v)() for k, v in winner},
    }
    if setting is METHODS["racing"]:  # what it tries first: the estimator's own
        found["default_cv"] = float(search.cv_results_["mean_test_score"][0])
        found["default_correct"] = correct(model.fit(X, y), X_test, y_test)
    return found


def correct(model, X, y):
    """Return a 1 for each row whose label was found, else a 0."""
    return "".join("01"[int(hit)] for hit in model.predict(X) == np.array(y))


def scores_of_folds(search, n_folds):
    """Return the scores of all candidates, a list each, to replay other races with."""
    found = getattr(search, "cv_results_", None)
    if found is None:  # Optuna's own has no table
        return None
    folds = np.array([found[f"split{k}_test_score"] for k in range(n_folds)]).T
    return [[round(float(x), 6) for x in row if not np.isnan(x)] for row in folds]


# ---- the report --------------------------------------------------------------


def score(record, key="correct"):
    """Return the accuracy on the test rows."""
    return record[key].count("1") / len(record[key])


def difference(one, other):
    """Return by how much `one` is better on the same rows, and the standard error."""
    gains = [int(a) - int(b) for a, b in zip(one, other, strict=True)]
    return np.mean(gains), np.std(gains, ddof=1) / np.sqrt(len(gains))


def to_markdown(study, about, records):
    """Return a table of the races and of what they are compared with, and the means."""
    found = {tuple(r[name] for name in KEY[:4]): r for r in records}
    lines = []
    for (method, *cell), r in found.items():
        race = found.get(("racing", *cell))
        line = [cell[0], cell[2], METHODS[method][0], r["fits"], f"{r['seconds']:.0f}"]
        line += [f"{r['cv']:.3f}", f"{score(r):.3f}", ""]
        if race is r:
            own = f"{r['default_cv']:.3f}", f"{score(r, 'default_correct'):.3f}"
            lines.append([*line[:2], "defaults, no search", "", "", *own, ""])
        elif race:
            line[-1] = "{:+.3f} ± {:.3f}".format(
                *difference(race["correct"], r["correct"])
            )
        lines.append(line)
    header = ["task", "seed", "search", "fits of folds", "CPU s"]
    header += ["best mean over folds", "test accuracy"]
    header.append("`AdaLoraSearchCV` is better by")
    return f"{table(header, lines)}\n\n{by_task(records)}"


def by_task(records):
    """Return a table: means over the seeds of both methods that all tasks have."""
    found = {tuple(r[name] for name in KEY[:4]): r for r in records}
    lines = []
    for task in dict.fromkeys(r["task"] for r in records):
        pairs = [
            (race, found["timed", *cell])
            for (method, *cell), race in found.items()
            if method == "racing" and cell[0] == task and ("timed", *cell) in found
        ]
        if not pairs:
            continue
        compared = [difference(a["correct"], b["correct"]) for a, b in pairs]
        gains, errors = zip(*compared, strict=True)
        error = np.sqrt(np.square(errors).sum()) / len(pairs)
        columns = [
            np.mean([score(race, "default_correct") for race, _ in pairs]),
            np.mean([score(race) for race, _ in pairs]),
            np.mean([score(r) for _, r in pairs]),
        ]
        fixed = pairs[0][0]["fixed"]
        share = np.mean([race["fits"] for race, _ in pairs])
        share /= fixed["trials"] * fixed["folds"]
        means = [f"{value:.3f}" for value in columns]
        gain = f"{np.mean(gains):+.3f} ± {error:.3f}"
        lines.append([task, len(pairs), *means, gain, f"{share:.2f}"])
    header = ["task", "seeds", "defaults", "`AdaLoraSearchCV`"]
    header += ["random search, same time", "better by", "share of all fits"]
    return table(header, lines)


STUDIES["racing"] = Study(
    "What does `AdaLoraSearchCV` find, beside random search for the same time?",
    settings=METHODS,
    cells=grid(["headlines", "quotes", "films", "five groups"], {100: [0]}),
    n_test=500,
    cuts=False,
    on_request=("unpruned", "optuna", "random"),
    options={"folds": 3, "trials": 20, "epochs": 5, "max_length": 24},
    measure=measure,
    to_markdown=to_markdown,
)
