"""`AdaLoraSearchCV` beside random search for the same time, and other searches.

    python -m benchmarks racing

--show shows what is there, and with --results benchmarks/results what is published.
All searches of a task and seed get the same rows and folds, and their winners are
refitted and scored on rows that no search has seen. Times are CPU seconds of one
thread, so that they mean the same on a busy machine. Each result is a line of a JSONL
file, and what is there is not measured again.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"

import shlex
import sys
import time
import warnings
from itertools import product
from operator import itemgetter
from pathlib import Path

import numpy as np
import optuna
from sklearn.model_selection import ParameterSampler, RandomizedSearchCV

from sk_adalora import AdaLoraClassifier, AdaLoraSearchCV, AdaLoraSpace
from sk_adalora.pretrained.find import DEFAULT_MODEL
from sk_adalora.search.dimensions import plain

from . import results
from .arguments import positive, script_parser, without_results
from .data import Task, load_task, split

TASKS = ("headlines", "quotes", "films", "newsgroups")
SPACE = AdaLoraSpace()
EPOCHS = 5
_SAME = ("rows", "test_rows", "folds", "trials", "epochs", "max_length", "model")

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

    seconds = None

    def _run_search(self, evaluate_candidates, *, callback_ctx=None):
        candidates = ParameterSampler(
            self.param_distributions, self.n_iter, random_state=self.random_state
        )
        if self.seconds is None:
            raise ValueError(
                "The time of `timed` is that of `racing`. Got no result of that for "
                "this task and seed. Add it: --methods racing timed."
            )
        start = time.process_time()
        for params in candidates:
            evaluate_candidates([params])
            if time.process_time() - start >= self.seconds:
                return
        raise RuntimeError(f"{self.n_iter} candidates took less than the time to use.")


def racing(model, settings, seed, seconds):
    return AdaLoraSearchCV(
        model,
        SPACE,
        n_trials=settings["trials"],
        cv=settings["folds"],
        random_state=seed,
    )


def unpruned(model, settings, seed, seconds):
    return racing(model, settings, seed, seconds).set_params(pruner=None)


def integration(model, settings, seed, seconds):
    """Optuna's own: TPE, and without ties, so that `beta2` stays as it is."""
    from optuna_integration import OptunaSearchCV

    return OptunaSearchCV(
        model,
        SPACE.distributions(),
        n_trials=settings["trials"],
        cv=settings["folds"],
        random_state=seed,
    )


def drawn(model, settings, seed, seconds):
    return RandomizedSearchCV(
        model,
        SPACE.random(),
        n_iter=settings["trials"],
        cv=settings["folds"],
        random_state=seed,
    )


def drawn_in_time(model, settings, seed, seconds):
    search = TimedRandomizedSearchCV(
        model, SPACE.random(), n_iter=1000, cv=settings["folds"], random_state=seed
    )
    search.seconds = seconds
    return search


METHODS = {
    "racing": ("`AdaLoraSearchCV`", racing),
    "timed": ("random search, same time", drawn_in_time),
    "unpruned": ("`AdaLoraSearchCV(pruner=None)`", unpruned),
    "optuna": ("`OptunaSearchCV`", integration),
    "random": ("`RandomizedSearchCV`, as many candidates", drawn),
}
_EVERYWHERE = ("racing", "timed")  # in this order: the second gets the first one's time


# ---- measuring ---------------------------------------------------------------


def load(name):
    """Read a task. Few rows are too few for 20 groups: of these, every fourth is."""
    task = load_task(name)
    if name != "newsgroups":
        return task
    kept = set(sorted(set(task.labels))[::4])
    rows = [row for row in zip(task.texts, task.labels, strict=True) if row[1] in kept]
    return Task(name, [text for text, _ in rows], [label for _, label in rows])


def measure(task, method, seed, settings, seconds=None):
    """Fit one search, score its winner, and count what the search took.

    `seconds` is the time that a search gets, if it is one that asks for it.
    """
    X, y, X_test, y_test = split(task, settings["rows"], settings["test_rows"], seed)
    model = Counted(
        settings["model"],
        epochs=settings["epochs"],
        max_length=settings["max_length"],
        device="cpu",
        random_state=0,
    )
    model.fit(X[:20], y[:20])  # what only the first fit does
    search = METHODS[method][1](model, settings, seed, seconds)
    fits.clear()
    start = time.process_time()
    search.fit(np.array(X, dtype=object), np.array(y))
    taken = time.process_time() - start
    found = {
        "fits": len(fits) - 1,  # without the refit
        "seconds": taken - fits[-1],
        "cv": float(search.best_score_),
        "error": standard_error(search, settings["folds"]),
        "scores": scores_of_folds(search, settings["folds"]),
        "correct": correct(search, X_test, y_test),
        "params": {k: plain(v) for k, v in search.best_params_.items()},
    }
    if method == "racing":
        found |= about_defaults(search, model, (X, y, X_test, y_test))
    return found


def about_defaults(search, model, rows):
    """Score the setting that `AdaLoraSearchCV` tries first, the estimator's own."""
    X, y, X_test, y_test = rows
    return {
        "states": search.cv_results_["state"].tolist(),
        "default_cv": float(search.cv_results_["mean_test_score"][0]),
        "default_correct": correct(model.fit(X, y), X_test, y_test),
    }


def correct(model, X, y):
    """Return a 1 for each row whose label was found, else a 0."""
    return "".join("01"[int(hit)] for hit in model.predict(X) == np.array(y))


def standard_error(search, n_folds):
    """Of the best trial's mean over the folds."""
    if hasattr(search, "best_trial_"):  # Optuna's own has no table
        best = search.best_trial_.user_attrs
        folds = [best[f"split{k}_test_score"] for k in range(n_folds)]
    else:
        table, best = search.cv_results_, search.best_index_
        folds = [table[f"split{k}_test_score"][best] for k in range(n_folds)]
    return float(np.std(folds, ddof=1) / np.sqrt(n_folds))


def scores_of_folds(search, n_folds):
    """Return the scores of all candidates, a list each, to replay other races with."""
    table = getattr(search, "cv_results_", None)
    if table is None:
        return None
    folds = np.array([table[f"split{k}_test_score"] for k in range(n_folds)]).T
    return [[round(float(x), 6) for x in row if not np.isnan(x)] for row in folds]


def jobs_of(options):
    """Yield what to measure: two methods on all tasks, then the rest on some."""
    first = [m for m in _EVERYWHERE if m in options.methods]
    for seed, task, method in product(options.seeds, options.tasks, first):
        yield task, method, seed
    others = [m for m in options.methods if m not in _EVERYWHERE]
    for seed, task, method in product(options.seeds, options.others_on, others):
        yield task, method, seed


def run(options, settings):
    """Measure what is missing, and write each result at once; return all records."""
    path = options.results / "racing-cpu.jsonl"
    known = read_known(path, None if options.show else settings)
    for name, method, seed in () if options.show else jobs_of(options):
        if (name, method, seed) in known:
            continue
        raced = known.get((name, "racing", seed), {})
        found = measure(load(name), method, seed, settings, raced.get("seconds"))
        record = {"task": name, "method": method, "seed": seed, **settings, **found}
        known[name, method, seed] = record
        results.append(path, record)
        results.say(
            f"{name}, {method}, seed {seed}: {found['fits']} fits, "
            f"{found['seconds']:.0f} s, {found['cv']:.3f}, {score(found):.3f}"
        )
    # Another run may have written lines meanwhile.
    return list(read_known(path, None).values())


def read_known(path, settings):
    """Read what was measured; refuse what had other settings, if some are asked for."""
    records = results.read_lines(path)
    for record in records:
        record.setdefault("model", DEFAULT_MODEL)  # the first ones do not say
        for name in _SAME:
            if settings is not None and record[name] != settings[name]:
                raise ValueError(
                    f"All results of {path} must have the same settings. Got {name}="
                    f"{settings[name]} after {record[name]}. Name another folder with "
                    "--results."
                )
    return {(r["task"], r["method"], r["seed"]): r for r in records}


# ---- the report --------------------------------------------------------------


def score(record, key="correct"):
    """Return the accuracy on the test rows."""
    return record[key].count("1") / len(record[key])


def error_of(record, key="correct"):
    p = score(record, key)
    return np.sqrt(p * (1 - p) / len(record[key]))


def difference(one, other):
    """Return by how much `one` is better on the same rows, and the standard error."""
    gains = [int(a) - int(b) for a, b in zip(one, other, strict=True)]
    return np.mean(gains), np.std(gains, ddof=1) / np.sqrt(len(gains))


def to_markdown(records):
    """Return a table of the races, and of what has a race to compare with."""
    lines = []
    races = {(r["task"], r["seed"]): r for r in records if r["method"] == "racing"}
    for (task, seed), race in races.items():
        lines.append([task, seed, "defaults, no search", "", "", *_scores(
            race["default_cv"], None, race, "default_correct"
        ), ""])  # fmt: skip
        for method, (title, _) in METHODS.items():
            for r in records:
                if (r["task"], r["seed"], r["method"]) != (task, seed, method):
                    continue
                compared = difference(race["correct"], r["correct"])
                lines.append([
                    task, seed, title, r["fits"], f"{r['seconds']:.0f}",
                    *_scores(r["cv"], r["error"], r),
                    "" if r is race else "{:+.3f} ± {:.3f}".format(*compared),
                ])  # fmt: skip
    header = ["task", "seed", "search", "fits of folds", "CPU s"]
    header += [
        "best mean over folds",
        "test accuracy",
        "`AdaLoraSearchCV` is better by",
    ]
    return results.table(header, lines)


def _scores(cv, error, record, key="correct"):
    spread = "" if error is None else f" ± {error:.3f}"
    test = f"{score(record, key):.3f} ± {error_of(record, key):.3f}"
    return f"{cv:.3f}{spread}", test


def by_task(records):
    """Return a table: means over the seeds of both methods that all tasks have."""
    found = {(r["task"], r["method"], r["seed"]): r for r in records}
    lines = []
    for task in dict.fromkeys(r["task"] for r in records):
        races = [r for r in records if (r["task"], r["method"]) == (task, "racing")]
        timed = [found.get((task, "timed", race["seed"])) for race in races]
        pairs = [pair for pair in zip(races, timed, strict=True) if pair[1]]
        if not pairs:
            continue
        gains, errors = zip(
            *(difference(race["correct"], r["correct"]) for race, r in pairs),
            strict=True,
        )
        error = np.sqrt(np.square(errors).sum()) / len(pairs)
        columns = [
            np.mean([score(race, "default_correct") for race, _ in pairs]),
            np.mean([score(race) for race, _ in pairs]),
            np.mean([score(r) for _, r in pairs]),
        ]
        share = np.mean([race["fits"] for race, _ in pairs]) / (
            races[0]["trials"] * races[0]["folds"]
        )
        means = [f"{value:.3f}" for value in columns]
        gain = f"{np.mean(gains):+.3f} ± {error:.3f}"
        lines.append([task, len(pairs), *means, gain, f"{share:.2f}"])
    header = ["task", "seeds", "defaults", "`AdaLoraSearchCV`"]
    header += ["random search, same time", "better by", "share of all fits"]
    return results.table(header, lines)


def verdicts(records):
    """Return a line for each comparison that is asked for."""
    found = {(r["task"], r["method"], r["seed"]): r for r in records}
    pairs = [(r, found.get((r["task"], "racing", r["seed"]))) for r in records]
    lines = []
    timed = [(race, r) for r, race in pairs if r["method"] == "timed" and race]
    for name, value in (
        ("mean over folds", itemgetter("cv")),
        ("test accuracy", score),
    ):
        # Means of the same scores may differ in their last digit.
        gains = [round(value(race) - value(r), 9) for race, r in timed]
        lines.append(
            f"- {name}: higher than of random search for the same time in "
            f"{sum(g > 0 for g in gains)}, equal in {sum(g == 0 for g in gains)} and "
            f"lower in {sum(g < 0 for g in gains)} of {len(gains)}"
        )
    for r, race in pairs:
        if r["method"] == "unpruned" and race:
            lines.append(
                f"- {r['task']}, seed {r['seed']}: {race['fits'] / r['fits']:.2f} of "
                f"the fits of a search without a pruner, and a best mean that is "
                f"{race['cv'] - r['cv']:+.3f} beside its (standard error "
                f"{r['error']:.3f})"
            )
    return "\n".join(lines)


def make_parser():
    """Return the parser of the options."""
    parser = script_parser("racing", __doc__)
    add = parser.add_argument
    add("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    add("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    add("--others-on", nargs="*", choices=TASKS, default=["headlines"])
    add("--seeds", nargs="+", type=int, default=[0], help="splits and searches")
    add("--trials", type=positive, default=20)
    add("--folds", type=positive, default=3)
    add("--rows", type=positive, default=100, help="to search with")
    add("--test-rows", type=positive, default=500)
    add("--epochs", type=positive, default=EPOCHS)
    add("--max-length", type=positive, default=24, help="tokens")
    add("--model", default=DEFAULT_MODEL, help="folder or Hugging Face id")
    add("--results", type=Path, default=results.MINE, help="folder")
    add("--show", action="store_true", help="what is there, without measuring")
    return parser


def main(arguments=None):
    """Measure what the command line asks for, and print the tables."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = make_parser().parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore")  # of rare classes, cut texts and experiments

    settings = {name: getattr(options, name) for name in _SAME}
    records = run(options, settings)
    if options.show:
        settings = {name: records[0][name] for name in _SAME} if records else {}
    else:
        asked = without_results(arguments)
        results.write(
            options.results,
            "racing",
            "cpu",
            shlex.join(["python", "-m", "benchmarks", "racing", *asked]),
            versions={"optuna": optuna.__version__},
            records=records,
        )
        print(f"> {results.describe()}; optuna {optuna.__version__}\n")
    print(", ".join(f"{name} {value}" for name, value in settings.items()) + "\n")
    print(f"{to_markdown(records)}\n\n{by_task(records)}\n\n{verdicts(records)}")


if __name__ == "__main__":
    main()
