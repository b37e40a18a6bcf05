"""What packed weights take and cost: bytes, CPU seconds of a fit, and its score."""

import time

import numpy as np

from sk_adalora import AdaLoraClassifier
from sk_adalora.pretrained.quantize import scales

from .data import load_task, split
from .results import say, table

KINDS = (None, "int8", "4bit")


def add_options(add):
    """Declare the options of the command."""
    add("--task", default="headlines")
    add("--n-train", type=int, default=400)
    add("--n-test", type=int, default=500)
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--precision", default="float32")


def quicken(options):
    """Set the options to a smoke test."""
    options.n_train, options.n_test, options.seeds = 40, 40, [0]


def run(options):
    """Fit and predict with each kind of weights, in turn for each seed."""
    task = load_task(options.task)
    rows = []
    for seed in options.seeds:
        data = split(task, options.n_train, options.n_test, seed)
        for kind in KINDS:
            result = _measure(options, data, kind, seed)
            rows.append({"weights": kind or "plain", "seed": seed, **result})
            say(f"{rows[-1]}")
    return {}, rows


def _measure(options, data, kind, seed):
    model = AdaLoraClassifier(
        options.model,
        quantization=kind,
        precision=options.precision,
        device=options.device,
        random_state=seed,
    )
    X, y, X_test, y_test = data
    start = time.process_time()
    model.fit(X, y)
    fitted = time.process_time()
    score = float(np.mean(model.predict(X_test) == np.asarray(y_test)))
    end = time.process_time()
    module = model._ready().backbone.module
    tensors = [*module.parameters(), *scales(module)]
    return {
        "bytes": sum(tensor.nbytes for tensor in tensors),
        "fit": fitted - start,
        "predict": end - fitted,
        "score": score,
    }


def to_markdown(about, rows):
    """Return the table of the means over the seeds."""
    lines = []
    for kind in KINDS:
        own = [row for row in rows if row["weights"] == (kind or "plain")]
        mean = {k: np.mean([r[k] for r in own]) for k in ("bytes", "fit", "predict")}
        score = 100 * np.mean([row["score"] for row in own])
        lines.append(
            [
                kind or "plain",
                f"{mean['bytes'] / 1e6:.0f}",
                f"{mean['fit']:.1f}",
                f"{mean['predict']:.1f}",
                f"{score:.1f}",
            ]
        )
    header = ["weights", "MB", "CPU seconds of fit", "of predict", "accuracy, %"]
    return table(header, lines)
