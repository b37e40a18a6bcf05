"""How memory grows with the rows: fits of made-up texts, stopped after some steps."""

from dataclasses import replace
from unittest import mock

import numpy as np

from sk_adalora import AdaLoraModel

from .contestants import fit
from .results import say, table
from .worker import run_job

# Ours, and those of Trainer, which can be stopped after some steps.
CONTESTANTS = ("ours", "peft-adalora", "peft-tuned", "peft-lora", "full")
_WORDS = """
    river stone market letter winter garden engine bridge number island window paper
    music doctor forest silver train village captain summer kitchen history mountain
    teacher yellow morning object season station copper
""".split()
_LABELS = 4


def add_options(add):
    """Declare the options of the command."""
    add("--rows", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    add("--steps", type=int, default=20, help="optimizer steps")
    default = ["ours", "peft-adalora"]
    add("--contestants", nargs="+", choices=CONTESTANTS, default=default)


def quicken(options):
    """Set the options to a smoke test."""
    options.rows, options.steps = [200, 2_000], 2


def run(options):
    """Measure each contestant with each number of rows, each in its own process."""
    settings = {"epochs": 1, "device": options.device, "model": options.model}
    rows = []
    for contestant in options.contestants:
        for n_rows in options.rows:
            given = {"contestant": contestant, "n_rows": n_rows}
            result = run_job(
                job="memory", **given, steps=options.steps, settings=settings
            )
            rows.append({"contestant": contestant, "rows": n_rows, **result})
            say(f"{contestant}, {n_rows:,} rows: {_gigabytes(result['peak_bytes'])} GB")
    return {}, rows


def to_markdown(about, rows):
    """Return the table."""
    on_cuda = any(row.get("cuda_peak_bytes") for row in rows)
    lines = []
    for row in rows:
        line = [row["contestant"], f"{row['rows']:,}", row["steps"]]
        line += [f"{row['seconds']:.0f}", _gigabytes(row["peak_bytes"])]
        line.append(_gigabytes(row["peak_bytes"] - row["bytes_before"]))
        if on_cuda:
            line.append(_gigabytes(row["cuda_peak_bytes"]))
        lines.append(line)
    header = ["contestant", "rows", "steps", "seconds", "peak, GB", "of the fit, GB"]
    return table(header + ["on the card, GB"] * on_cuda, lines)


def _gigabytes(count):
    return f"{count / 1e9:.2f}"


# ---- what a process does -----------------------------------------------------


class _Enough(Exception):
    """Enough steps were taken."""


def make_texts(n_rows):
    """Return short texts, all different, and labels: lists of str."""
    drawn = np.random.default_rng(0).integers(len(_WORDS), size=(n_rows, 8))
    texts = [" ".join(_WORDS[j] for j in row) + f" {i}" for i, row in enumerate(drawn)]
    return texts, [f"class {i % _LABELS}" for i in range(n_rows)]


def fit_some_steps(contestant, texts, labels, settings, steps):
    """Begin a fit, stop it after some optimizer steps, and return how many it took."""
    if contestant != "ours":
        limited = replace(settings, max_steps=steps)
        return fit(contestant, texts, labels, limited).trainer.state.global_step
    allocate, done = AdaLoraModel.update_and_allocate, 0

    def counted(model, step):
        nonlocal done
        allocate(model, step)
        done += 1
        if done == steps:
            raise _Enough

    with mock.patch.object(AdaLoraModel, "update_and_allocate", counted):
        try:
            fit(contestant, texts, labels, settings)
        except _Enough:
            pass
    return done
