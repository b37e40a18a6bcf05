"""Our own settings against each other: what docs/defaults.md is written from.

Each fit is a line of a JSONL file, and what is there is not measured again.
"""

import statistics
import time
from contextlib import ExitStack
from itertools import product
from unittest import mock

from sk_adalora import AdaLoraClassifier
from sk_adalora.training import linear_probe as _linear_probe
from sk_adalora.training import start_head as _prepare_head

from . import results
from .arguments import positive
from .data import CUT, TASKS, split
from .machine import describe_commit
from .probabilities import accuracy_and_loss

# Not parameters of the estimator, but constants of these modules: rows -> value.
_ROWS = "_ENOUGH_ROWS"
_MODULES = {
    _ROWS: _prepare_head,
    "_PENALTY": _linear_probe,
    "_PENALTY_OF_SHARES": _linear_probe,
}


def _penalty(of_rows):
    """Change the penalty, and let it be the same for any number of classes."""
    return {"_PENALTY": of_rows, "_PENALTY_OF_SHARES": lambda rows: 1e9}


# The first variants were measured with another penalty than today's default.
_LIGHT = {**_penalty(lambda rows: 1 / rows), "head_learning_rate": 1e-3}
_MANY = {"max_length": 128, "epochs": 3}

# What each variant changes: all others are the estimator's defaults of the day. They
# are written out where a default changed since, so that a line stays what it was. All
# of a training is kept here; how much should be is the study of `interpolation.py`.
VARIANTS = {
    "random, 3 epochs": {"head_init": "random", "epochs": 3},
    # Rates that change nothing: logistic regression on the frozen features.
    "probe alone": {
        **_LIGHT,
        "epochs": 1,
        "learning_rate": 1e-9,
        "head_learning_rate": 1e-9,
    },
    "probe, 3 epochs": {**_LIGHT, "epochs": 3, "head_learning_rate": 8e-3},
    "probe, 3 epochs, head 1e-3": {**_LIGHT, "epochs": 3},
    "probe, 5 epochs, head 1e-3": {**_LIGHT, "epochs": 5},
    "probe, 10 epochs": {**_LIGHT, "epochs": 10, "head_learning_rate": 8e-3},
    "probe, 10 epochs, head 1e-3": {**_LIGHT, "epochs": 10},
    "probe, 10 epochs, 4e-3, head 1e-3": {
        **_LIGHT,
        "epochs": 10,
        "learning_rate": 4e-3,
    },
    "probe, 10 epochs, 2e-3, head 1e-3": {
        **_LIGHT,
        "epochs": 10,
        "learning_rate": 2e-3,
    },
    # The estimator's defaults of 2026-11-25, and one change of them each.
    "defaults": {},
    "lora_alpha=24": {"lora_alpha": 24},
    "lora_alpha=6": {"lora_alpha": 6},
    "lora_dropout=0.1": {"lora_dropout": 0.1},
    "orth_reg_weight=0.5": {"orth_reg_weight": 0.5},
    "warmup_ratio=0.2": {"warmup_ratio": 0.2},
    "weight_decay=1": {"weight_decay": 1.0},
    "lr_scheduler_type=cosine": {"lr_scheduler_type": "cosine"},
    "batch_size=16": {"batch_size": 16},
    "head_init=random": {"head_init": "random"},
    "head_learning_rate=3e-3": {"head_learning_rate": 3e-3},
    "head_learning_rate=8e-3": {"head_learning_rate": 8e-3},
    "epochs=6": {"epochs": 6},
    "penalty 0.001": _penalty(lambda rows: 0.001),
    "penalty 1 / rows": _penalty(lambda rows: 1 / rows),
    "penalty 0.003": _penalty(lambda rows: 0.003),
    "penalty 0.03": _penalty(lambda rows: 0.03),
    "penalty 0.1": _penalty(lambda rows: 0.1),
    "probe of all rows": {_ROWS: lambda rows: rows},
    # For many classes, beside what was the default then.
    "128 tokens, epochs=3": _MANY,
    "128 tokens, lora_alpha=32": {**_MANY, "lora_alpha": 32},
    "128 tokens, learning_rate=0.016": {**_MANY, "learning_rate": 0.016},
    "128 tokens, penalty 0.001": {**_MANY, **_penalty(lambda rows: 0.001)},
    "128 tokens, head_learning_rate=8e-3": {**_MANY, "head_learning_rate": 8e-3},
    "128 tokens, head_init=random": {**_MANY, "head_init": "random"},
    "128 tokens, epochs=6": {**_MANY, "epochs": 6},
}
_KEY = ("variant", "task", "size", "seed")


def add_options(parser):
    """Declare the options of the subcommand."""
    add = parser.add_argument
    add("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    add("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    add("--sizes", nargs="+", type=positive, default=[200, 1000, 4000])
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--n-test", type=positive, default=600, help="rows to predict (default: 600)")


def quicken(options):
    """Set the options to a smoke test."""
    options.variants = ["random, 3 epochs", "probe alone"]
    options.tasks, options.sizes, options.seeds = options.tasks[:1], [40], [0]
    options.n_test = 60


def run(options):
    """Measure what is missing, then sum up all."""
    path = options.results / f"defaults-{options.kept_as}.jsonl"
    if options.quick:  # a smoke test measures something
        path.unlink(missing_ok=True)
    records = _known(path, options)
    tasks = {name: options.load(name) for name in options.tasks}
    # A size after the other, and a seed: a run that is stopped has whole tables.
    for size, seed, name in product(options.sizes, options.seeds, options.tasks):
        rows = split(tasks[name], size, options.n_test, seed)
        for variant in options.variants:
            key = (variant, name, size, seed)
            if key in records:
                continue
            records[key] = {
                **dict(zip(_KEY, key, strict=True)),
                "n_test": options.n_test,
                **_measure(VARIANTS[variant], name, rows, seed, options.device),
            }
            results.append(path, records[key])
            options.say(f"{key}: {records[key]['accuracy']:.3f}")
    # Another run may have written lines meanwhile.
    return {"records": list(_known(path, options).values())}


def _known(path, options):
    """Return what was measured by its key, if it has the same number of test rows."""
    records = {}
    for record in results.read_lines(path):
        if record.setdefault("n_test", 600) != options.n_test:  # the first ones
            raise ValueError(
                f"All lines of {path} must have as many test rows. Got n_test="
                f"{options.n_test} after {record['n_test']}. Name another folder "
                "with --results."
            )
        records[tuple(record[name] for name in _KEY)] = record
    return records


def _measure(changed, name, rows, seed, device):
    X_train, y_train, X_test, y_test = rows
    parameters = {k: v for k, v in changed.items() if k not in _MODULES}
    classifier = AdaLoraClassifier(random_state=seed, device=device, interpolation=1)
    classifier.set_params(max_length=CUT.get(name, 256))
    classifier.set_params(**parameters)
    start = time.process_time()
    with ExitStack() as patches:
        for constant in changed.keys() - parameters.keys():
            value = changed[constant](len(X_train))
            module = _MODULES[constant]
            patches.enter_context(mock.patch.object(module, constant, value))
        classifier.fit(X_train, y_train)
    seconds = time.process_time() - start
    accuracy, loss = accuracy_and_loss(classifier, X_test, y_test)
    return {
        "n_train": len(X_train),
        "accuracy": accuracy,
        "log_loss": loss,
        "seconds": seconds,
        "date": time.strftime("%Y-%m-%d"),
        "commit": describe_commit(),
    }


def to_markdown(result):
    """Return a table for each size: variants by tasks."""
    parts = []
    for size in sorted({record["size"] for record in result["records"]}):
        records = [r for r in result["records"] if r["size"] == size]
        tasks = [name for name in TASKS if any(r["task"] == name for r in records)]
        lines = []
        for variant in VARIANTS:
            own = [record for record in records if record["variant"] == variant]
            if own:
                cells = [[r for r in own if r["task"] == name] for name in tasks]
                lines.append([variant, *map(_cell, cells)])
        parts.append(f"{size:,} rows:\n\n{results.table(['', *tasks], lines)}")
    return "\n\n".join(parts)


def _cell(records):
    """Return mean accuracy, mean log loss and number of seeds."""
    if not records:
        return "-"
    accuracy = statistics.mean(r["accuracy"] for r in records)
    loss = statistics.mean(r["log_loss"] for r in records)
    return f"{accuracy:.3f} / {loss:.2f} ({len(records)})"
