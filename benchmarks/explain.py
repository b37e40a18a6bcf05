"""Seconds, memory and faithfulness of `explain`."""

import os
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np

from sk_adalora import AdaLoraClassifier

from .data import load_task
from .results import say, table
from .timing import peak_bytes, resident_bytes

N_REMOVED = 3  # words of the deletion test


def add_options(add):
    """Declare the options of the command."""
    add("--n-train", type=int, default=1000, help="headlines to fit")
    add("--n-explained", type=int, default=100, help="other headlines to explain")


def quicken(options):
    """Set the options to a smoke test."""
    options.n_train, options.n_explained = 40, 4


def run(options):
    """Fit headlines, and explain others, in a process of its own."""
    texts, labels = read_task("headlines", options.n_train + options.n_explained)
    model = AdaLoraClassifier(options.model, device=options.device, random_state=0)
    model.fit(texts[: options.n_train], labels[: options.n_train])
    new = texts[options.n_train :]
    found, explained = _in_a_child(model, new)
    rng = np.random.default_rng(0)
    random = _drop(model, explained, lambda row: rng.permutation(len(row.values)))
    drop = _drop(model, explained, lambda row: np.argsort(-row.values))
    rows = [{"method": "explain", **found, "drop": drop}]
    say(f"{rows[0]}")
    return {"random_drop": random}, rows


def read_task(name, n_rows):
    """Return some rows of a task, in an order drawn at random."""
    task = load_task(name)
    order = np.random.default_rng(0).permutation(len(task.texts))[:n_rows]
    return [task.texts[i] for i in order], [task.labels[i] for i in order]


def _in_a_child(model, texts):
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        child = os.fork()
        if not child:
            try:
                joblib.dump(_explain(model, texts), result)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        return joblib.load(result)


def _explain(model, texts):
    """Explain all, and ten by themselves, for the seconds."""
    model.explain(texts[:1])  # warm
    before, start = resident_bytes(), time.process_time()
    model.explain(texts[:10])
    seconds = time.process_time() - start
    more = max(0, peak_bytes() - before)
    return {"cpu": seconds, "more": more}, model.explain(texts)


def _drop(model, explained, order):
    """Return by how much the log-odds fall without the first words of an order."""
    falls = []
    for row in explained:
        text = row.texts["X"]
        removed = sorted(order(row)[:N_REMOVED].tolist(), reverse=True)
        for i in removed:
            start, stop = row.spans[i]
            text = text[:start] + text[stop:]
        left = model.explain([" ".join(text.split())], target=row.target)[0].output
        falls.append(row.output - left)
    return float(np.mean(falls))


def to_markdown(about, rows):
    """Return the table."""
    lines = [
        [
            f"`{row['method']}`",
            f"{row['cpu']:.2f}",
            f"{row['more'] / 1e6:.0f}",
            f"{row['drop']:.2f}",
        ]
        for row in rows
    ]
    lines.append(["three random words", "", "", f"{about['random_drop']:.2f}"])
    header = [
        "method",
        "CPU seconds for 10 headlines",
        "MB above the model",
        f"fall of the log-odds without the top {N_REMOVED} words",
    ]
    return table(header, lines)
