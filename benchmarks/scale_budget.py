"""Does a fit end when `timeout` says; memory of millions of rows."""

import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from sk_adalora import AdaLoraClassifier

from .memory import make_texts
from .results import say, table
from .timing import peak_bytes, resident_bytes

_PART = 250_000  # rows of a Parquet file


def add_options(add):
    """Declare the options of the command."""
    add("--rows", nargs="+", type=int, default=[500, 2_000, 20_000])
    add("--seconds", nargs="+", type=float, default=[20.0, 60.0])
    add("--most-rows", type=int, default=5_000_000, help="of the Parquet folder")


def quicken(options):
    """Set the options to a smoke test."""
    options.rows, options.seconds = [40], [2.0]
    options.most_rows = 500


def run(options):
    """Fit with limits, and measure the memory of many rows."""
    settings = {"device": options.device, "model": options.model, "random_state": 0}
    timed(AdaLoraClassifier(**settings, max_steps=1), 40)  # loads the model
    rows = []
    for n_rows in options.rows:
        for seconds in options.seconds:
            made = AdaLoraClassifier(**settings, timeout=seconds)
            rows.append(row("timeout", n_rows, seconds, timed(made, n_rows), made))
    made = AdaLoraClassifier(**settings, max_steps=20)
    before = resident_bytes()
    with tempfile.TemporaryDirectory() as folder:
        X, y = write_parquet(Path(folder), options.most_rows)
        start = time.perf_counter()
        made.fit(X, y)
        took = time.perf_counter() - start
    rows.append(row("max_steps=20, Parquet", options.most_rows, None, took, made))
    rows[-1] |= {"peak_bytes": peak_bytes(), "bytes_before": before}
    return {}, rows


def timed(classifier, n_rows):
    """Return the seconds of a fit."""
    data = make_texts(n_rows)
    start = time.perf_counter()
    classifier.fit(*data)
    return time.perf_counter() - start


def row(what, n_rows, expected, took, classifier):
    """Describe a fit, and say it."""
    report = classifier.fit_report_
    say(f"{what}, {n_rows:,} rows: {took:.1f} seconds, expected {expected}")
    return {
        "what": what,
        "rows": n_rows,
        "expected": expected,
        "took": took,
        "steps": report.n_steps,
        "seen_share": report.seen_share,
    }


def write_parquet(folder, n_rows):
    """Write short texts; return them as a dataset, and their labels."""
    for part, start in enumerate(range(0, n_rows, _PART)):
        texts, labels = make_texts(min(_PART, n_rows - start))
        texts = [f"{text} {part}" for text in texts]
        written = pa.table({"text": texts, "label": labels})
        pa.parquet.write_table(written, folder / f"{part:05}.parquet")
    dataset = pa.dataset.dataset(folder)
    labels = dataset.to_table(["label"])["label"].dictionary_encode()
    y = np.concatenate([chunk.indices.to_numpy() for chunk in labels.chunks])
    return dataset.replace_schema(pa.schema({"text": pa.string()})), y


def to_markdown(about, rows):
    """Return the table."""
    lines = []
    for of_fit in rows:
        expected, peak = of_fit["expected"], of_fit.get("peak_bytes")
        line = [of_fit["what"], f"{of_fit['rows']:,}"]
        line += ["" if expected is None else f"{expected:.0f}", f"{of_fit['took']:.1f}"]
        line += [of_fit["steps"], f"{of_fit['seen_share']:.3g}"]
        line.append(f"{peak / 1e9:.2f}" if peak else "")
        lines.append(line)
    header = ["what", "rows", "asked, s", "took, s", "steps"]
    return table([*header, "part of the rows seen", "peak of memory, GB"], lines)
