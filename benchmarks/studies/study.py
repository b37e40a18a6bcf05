"""One study: settings x task x size x seed -> lines of a file -> a table.

A study is a declaration, a `Study`; `run` measures it. Each fit is a line of a file,
and what is there is not measured again.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.metrics import f1_score, log_loss, r2_score

from benchmarks import results
from benchmarks.contestants import DEFAULT_MODEL, Settings, fit
from benchmarks.data import CUT, digest, load_csv, load_task, split
from benchmarks.inside import changed, resolve_compute
from benchmarks.timing import Clock
from sk_adalora import AdaLoraClassifier, AdaLoraRegressor, clear_backbone_cache

KEY = ("setting", "task", "size", "seed", "case")
# A task with fewer rows than this share of a size is not measured at that size.
_ENOUGH = 0.9


@dataclass(frozen=True)
class Study:
    """What is compared, on what, and how it is shown.

    Parameters
    ----------
    question : str
        What is asked, in one line.
    settings : dict of str to setting
        What is compared. A setting is a dict of parameters of our estimator (with the
        key "inside", a dict of what `changed` gives other values), the name of a
        contestant, or a function of the cell that returns one of these or an estimator.
    cells : dict of (str, int) to list of int
        Task and number of rows to learn from -> seeds. See `grid`.
    n_test : int, default=1000
        Rows to test on.
    cases : dict of str to callable or None
        What is done to the rows, ``(rows, seed) -> rows``, by its name in the table.
    max_length : int, default=128
        Tokens that ours cuts texts to; tasks of `CUT` at fewer, unless `cuts` is false.
    shown : dict of str to str
        Which numbers of `measure` stand in a cell of the table, and their formats.
    across : {"settings", "tasks", "measures"}
        What the columns of the table are.
    on_request : tuple of str
        Settings that only --settings measures.
    options : dict of str to object
        Further options of the command line, and their defaults. All lines of a file
        must have the same, except of options that are None or empty by default.
    load : callable or None
        ``(names of tasks, options) -> dict``: the tasks by name, in place of those of
        `load_task` and `load_csv`.
    measure : callable
        ``(cell, setting) -> dict``: what is written to a line.
    fixed : callable or None
        ``(cell, name of a setting) -> dict``: more of what a line was measured with.
    to_markdown : callable or None
        ``(study, about, records) -> str``, in place of the table.
    """

    question: str
    settings: dict
    cells: dict
    n_test: int = 1000
    cases: dict = field(default_factory=lambda: {"": None})
    max_length: int = 128
    cuts: bool = True
    shown: dict = field(
        default_factory=lambda: {"accuracy": ".3f", "log_loss": ".2f", "r2": ".3f"}
    )
    across: str = "settings"
    on_request: tuple = ()
    options: dict = field(default_factory=dict)
    load: Callable | None = None
    measure: Callable | None = None
    fixed: Callable | None = None
    to_markdown: Callable | None = None


@dataclass
class Cell:
    """Rows to learn from and to test on, and what all settings share."""

    task: str
    size: int
    seed: int
    case: str
    rows: tuple
    ours: dict
    options: object
    data: str | None
    found: dict = field(default_factory=dict)  # records of the cell by setting

    def key(self, setting):
        """Return what tells a record of a setting from all others."""
        return setting, self.task, self.size, self.seed, self.case

    @property
    def has_numbers(self):
        """Whether numbers are predicted, not classes."""
        return np.asarray(self.rows[1]).dtype.kind == "f"

    def estimator(self, **parameters):
        """Return our estimator for the rows, with some parameters changed."""
        make = AdaLoraRegressor if self.has_numbers else AdaLoraClassifier
        return make(**{**self.ours, "random_state": self.seed, **parameters})

    def contestant(self, name, **more):
        """Return an estimator of a contestant's name."""
        return Contestant(name, Settings(**{**self.ours, "seed": self.seed, **more}))


class Contestant(BaseEstimator):
    """A contestant as an estimator."""

    def __init__(self, name, settings):
        self.name, self.settings = name, settings

    def fit(self, X, y):
        clear_backbone_cache()  # all others read the weights anew
        self.predictor_ = fit(self.name, X, y, self.settings)
        if hasattr(self.predictor_, "predict_proba"):
            self.predict_proba = self.predictor_.predict_proba
            self.classes_ = self.predictor_.classes_
        return self

    def predict(self, X):
        return self.predictor_.predict(X)


def grid(tasks, seeds, without=()):
    """Return cells: tasks, and the seeds of each number of rows."""
    cells = {(task, size): seeds[size] for size in seeds for task in tasks}
    return {key: cells[key] for key in cells if key not in without}


# ---- the command line --------------------------------------------------------


def add_options(add, study):
    """Declare the options of a study."""
    add("--tasks", nargs="+", help="default: those of the study")
    names = ("--settings", "--contestants", "--methods", "--variants")
    default = [name for name in study.settings if name not in study.on_request]
    choices = list(study.settings)
    add(*names, dest="settings", nargs="+", choices=choices, default=default)
    add("--sizes", "--rows", nargs="+", type=int, help="rows to learn from")
    add("--seeds", nargs="+", type=int)
    add("--n-test", type=int, help="rows to test on; of a short --data, a quarter")
    add("--again", action="store_true", help="measure anew what is there")
    add("--show", action="store_true", help="print what is there")
    add("--model", default=DEFAULT_MODEL, help="folder or Hugging Face id")
    add("--public", help="folder of the files that `public` wrote")
    add("--data", help="a CSV file of your own, with --text and --label")
    add("--text", help="name of the column with the texts")
    add("--label", help="name of the column with the labels")
    for name, default in study.options.items():
        many = {"nargs": "+"} if isinstance(default, list) else {}
        kind = int if default is None else type(default)
        kind = _named_number if isinstance(default, list) else kind
        add("--" + name.replace("_", "-"), type=kind, default=default, **many)


def _named_number(text):
    name, _, value = text.partition("=")
    return name, float(value)


def quicken(study, options):
    """Set the options to a smoke test."""
    options.settings = options.settings[:3]
    options.tasks = (options.tasks or [task for task, _ in study.cells])[:1]
    options.sizes, options.seeds, options.n_test = [40], [0], 40
    options.epochs, options.trials, options.folds = 1, 3, 2
    options.again = True


# ---- measuring ---------------------------------------------------------------


def run(name, study, options):
    """Measure what is missing, write all to a file, and print a table of it."""
    warnings.simplefilter("ignore")  # that texts are cut, and of others' libraries
    path = options.results / f"{name}-{options.kept_as}.jsonl"
    about, records = results.read(path)
    known = by_key(records)
    if not options.show:
        tasks = load_tasks(study, options)
        for record in [] if options.again else records:
            refuse_another(record, shared(study, options), path)
        # What only the first fit of a process does is in no time.
        first = AdaLoraClassifier(options.model, epochs=1, device=options.device)
        first.fit(["a", "b"] * 8, [0, 1] * 8)
        for cell in cells_of(study, options, tasks):
            keys = {name: cell.key(name) for name in study.settings}
            cell.found = {n: known[key] for n, key in keys.items() if key in known}
            for setting in options.settings:
                _measure_once(study, cell, setting, known, path)
        about = {**about, "what": name, "kept_as": options.kept_as}
        about |= {"machine": results.describe(), "command": options.command}
        # Another run may have written lines meanwhile.
        records = list(by_key(results.read(path)[1]).values())
        results.write(path, about, records)
    print(f"> {about.get('machine', 'several machines')}\n")
    print((study.to_markdown or to_markdown)(study, about, records))


def by_key(records):
    """Return the last record of each setting and cell."""
    return {tuple(record.get(name, "") for name in KEY): record for record in records}


def shared(study, options):
    """Return what must be the same for all lines of a file."""
    same = {name for name, default in study.options.items() if default}
    return {name: getattr(options, name) for name in ("n_test", "model", *sorted(same))}


def refuse_another(record, asked, path):
    """Refuse to add to lines of which one was measured otherwise.

    Raises
    ------
    ValueError
        If `record` was.
    """
    for name, value in asked.items():
        if (known := record["fixed"].get(name)) != value:
            raise ValueError(
                f"All lines of {path} must have the same settings. Got {name}={value} "
                f"after {known} of {record['setting']}. Use --again on all that is "
                "there, or another --results or --name."
            )


def load_tasks(study, options):
    """Return the tasks that a command line asks for, by name; settle the test rows."""
    options.n_test = options.n_test or study.n_test
    names = dict.fromkeys(options.tasks or (task for task, _ in study.cells))
    tasks = (study.load or _load)(names, options)
    if options.data:
        (task,) = tasks.values()
        options.n_test = min(options.n_test, max(1, len(task.texts) // 4))
    return tasks


def _load(names, options):
    if options.data:
        task = load_csv(options.data, options.text, options.label)
        return {task.name: task}
    return {name: load_task(name, options.public) for name in names}


def cells_of(study, options, tasks):
    """Yield the cells that a command line asks for, a size after the other."""
    declared = study.cells
    declared_tasks, declared_sizes = map(set, zip(*declared, strict=True))
    sizes = options.sizes or list(dict.fromkeys(size for _, size in declared))
    for size, task in product(sizes, tasks.values()):
        name, left = task.name, len(task.texts) - options.n_test
        if (name, size) not in declared and name in declared_tasks:
            if size in declared_sizes:
                continue  # the study leaves it out
        if left < _ENOUGH * size:
            if not options.data or size > min(sizes):
                continue
            size = left  # of a short file, all
        seeds = declared.get((name, size), next(iter(declared.values())))
        data = digest(task) if options.data else None
        for seed, case in product(options.seeds or seeds, study.cases):
            rows = split(task, size, options.n_test, seed)
            if change := study.cases[case]:
                rows = change(rows, seed)
            ours = _ours(study, name, options)
            yield Cell(name, size, seed, case, rows, ours, options, data)


def _ours(study, task, options):
    """Return the parameters that all settings of ours share."""
    length = getattr(options, "max_length", None) or study.max_length
    length = min(length, CUT.get(task, length)) if study.cuts else length
    given = {"model": options.model, "device": options.device, "max_length": length}
    epochs = getattr(options, "epochs", None)
    return {**given, **({"epochs": epochs} if epochs else {})}


def _measure_once(study, cell, name, known, path):
    """Measure a setting on a cell, unless it was measured; write it to a line."""
    key, options = cell.key(name), cell.options
    fixed = {**shared(study, options), "data": cell.data}
    fixed |= study.fixed(cell, name) if study.fixed else {}
    if key in known and not options.again:
        refuse_another(known[key], fixed, path)
        return
    found = (study.measure or measure)(cell, study.settings[name])
    record = {**dict(zip(KEY, key, strict=True)), "fixed": fixed, **found}
    record |= {"n_train": len(cell.rows[0]), "date": time.strftime("%Y-%m-%d")}
    record |= results.origin()
    cell.found[name] = known[key] = record
    results.append(path, record)
    numbers = (f"{k} {v:.3g}" for k, v in found.items() if isinstance(v, float))
    results.say(f"{', '.join(map(str, key))}: {', '.join(numbers)}")


def measure(cell, setting):
    """Fit and predict, and return how well and in how many CPU seconds.

    Returns
    -------
    dict
        Of classes ``accuracy``, and with probabilities ``log_loss`` and ``confidence``,
        the mean probability of the likeliest; of labels ``f1``; of numbers ``r2``. Of
        all ``fit_cpu``, ``predict_cpu``, and ``seconds``, those on the wall of both.
    """
    if callable(setting):
        setting = setting(cell)
    inner = {}
    if isinstance(setting, str):
        estimator = cell.contestant(setting)
    elif isinstance(setting, dict):
        parameters = dict(setting)
        inner = parameters.pop("inside", {})
        estimator = cell.estimator(**parameters)
    else:
        estimator = setting
    X_train, y_train, X_test, y_test = cell.rows
    device = resolve_compute(cell.options.device).device
    with changed(inner):
        clock = Clock(device)
        estimator.fit(X_train, y_train)
        fitted = clock.stop().wall, clock.cpu
        clock = Clock(device)
        has_shares = hasattr(estimator, "predict_proba")
        predict = estimator.predict_proba if has_shares else estimator.predict
        predicted = predict(X_test)
        clock.stop()
    times = {"seconds": fitted[0] + clock.wall}
    times |= {"fit_cpu": fitted[1], "predict_cpu": clock.cpu}
    return {**scores(y_test, predicted, getattr(estimator, "classes_", None)), **times}


def scores(y, predicted, classes):
    """Return what predictions score: labels, shares of classes, or numbers."""
    kind = np.asarray(y).dtype.kind
    if kind == "f":
        return {"r2": float(r2_score(y, predicted))}
    if kind == "i":  # a column a label
        found = f1_score(y, np.asarray(predicted) > 0.5, average="micro")
        return {"f1": float(found)}
    if np.ndim(predicted) == 1:
        return {"accuracy": float(np.mean(np.asarray(predicted) == np.asarray(y)))}
    likeliest = np.asarray(classes)[predicted.argmax(axis=1)]
    return {
        "accuracy": float(np.mean(likeliest == np.asarray(y))),
        "log_loss": float(log_loss(y, predicted, labels=classes)),
        "confidence": float(predicted.max(axis=1).mean()),
    }


# ---- the table ---------------------------------------------------------------


def to_markdown(study, about, records):
    """Return a table of means over the seeds; in parentheses how many, if they differ.

    Its columns are the settings, the tasks, or what is measured.
    """
    records = sorted(records, key=lambda record: record["size"])  # stable
    if study.across == "measures":
        records = [
            {**record, "measure": name, **{n: None for n in study.shown if n != name}}
            for record in records
            for name in study.shown
        ]
    column = {"settings": "setting", "tasks": "task", "measures": "measure"}
    column = column[study.across]
    beside = [name for name in ("task", "size", "case", "setting") if name != column]
    if set(study.cases) == {""}:
        beside.remove("case")
    cells = {}
    for record in records:
        row = tuple(record.get(name, "") for name in beside)
        cells.setdefault(row, {}).setdefault(record[column], []).append(record)
    columns = list(dict.fromkeys(name for row in cells.values() for name in row))
    counts = {len(found) for row in cells.values() for found in row.values()}
    lines = []
    for row, found in cells.items():
        shown = [_cell(study, found.get(name, []), len(counts) > 1) for name in columns]
        start = [f"{x:,}" if isinstance(x, int) else x for x in row]
        lines.append([*start, *shown])
    heads = ["rows" if name == "size" else name for name in beside]
    return results.table([*heads, *columns], lines)


def _cell(study, records, counted):
    parts = []
    for name, style in study.shown.items():
        values = [r[name] for r in records if r.get(name) is not None]
        if values:
            parts.append(format(statistics.mean(values), style))
    count = f" ({len(records)})" if counted and records else ""
    return " / ".join(parts) + count if parts else "-"
