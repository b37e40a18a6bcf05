"""What `compress` takes out of fitted estimators, and what it costs in score."""

import copy

import numpy as np

from sk_adalora import AdaLoraClassifier

from .data import load_task, split
from .results import say, table


def add_options(add):
    """Declare the options of the command."""
    add("--tasks", nargs="+", default=["headlines", "articles", "quotes", "films"])
    add("--n-train", type=int, default=1000)
    add("--n-test", type=int, default=1000)
    add("--seeds", nargs="+", type=int, default=[0, 1])
    add("--energy", nargs="+", type=float, default=[0.99, 0.95, 0.9, 0.8, 0.6])


def quicken(options):
    """Set the options to a smoke test."""
    options.n_train, options.n_test = 40, 40
    options.tasks, options.seeds, options.energy = ["headlines"], [0], [0.9]


def run(options):
    """Fit once for each task and seed, and compress copies of it."""
    rows = []
    for name in options.tasks:
        task = load_task(name)
        for seed in options.seeds:
            X, y, *test = split(task, options.n_train, options.n_test, seed)
            model = AdaLoraClassifier(
                options.model, device=options.device, random_state=seed
            ).fit(X, y)
            for energy in options.energy:
                report = copy.deepcopy(model).compress(*test, energy=energy)
                rows.append({"task": name, "seed": seed, "energy": energy})
                rows[-1] |= vars(report)
                say(rows[-1])
    return {}, rows


def to_markdown(about, rows):
    """Return the table of the means over tasks and seeds."""
    lines = []
    for energy in sorted({row["energy"] for row in rows}, reverse=True):
        own = [row for row in rows if row["energy"] == energy]
        left = [
            np.mean([r[f"{what}_after"] / r[f"{what}_before"] for r in own])
            for what in ("triplets", "bytes")
        ]
        change = [100 * (r["score_after"] - r["score_before"]) for r in own]
        error = np.std(change, ddof=1) / len(change) ** 0.5 if len(change) > 1 else 0
        lines.append([f"{energy:g}", *(f"{100 * x:.0f}%" for x in left)])
        lines[-1] += [f"{np.mean(change):+.1f} ± {error:.1f}"]
    return table(["energy", "ranks left", "bytes left", "points of accuracy"], lines)
