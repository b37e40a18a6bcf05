"""Speed and memory of `predict_iter` over a Parquet file, beside `predict`."""

import os
import tempfile
import time
from pathlib import Path

import joblib
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from sk_adalora import AdaLoraClassifier

from .memory import make_texts
from .results import say, table
from .timing import peak_bytes, resident_bytes


def add_options(add):
    """Declare the options of the command."""
    add("--rows", nargs="+", type=int, default=[10_000, 40_000])


def quicken(options):
    """Set the options to a smoke test."""
    options.rows = [50]


def run(options):
    """Predict files, each in a process of its own, which the model is loaded in."""
    texts, labels = make_texts(64)
    model = AdaLoraClassifier(
        options.model, device=options.device, random_state=0, max_steps=2
    )
    model.fit(pa.table({"text": texts}), labels)
    rows = []
    for count in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "texts.parquet"
            texts = [f"{text} {i}" for i, text in enumerate(make_texts(count)[0])]
            pq.write_table(pa.table({"text": texts}), path)
            del texts
            for method in (_predict, _predict_iter):
                found = _in_a_child(method, model, path)
                rows.append({"method": method.__name__[1:], "rows": count, **found})
                say(f"{rows[-1]}")
    return {}, rows


def _predict(model, path):
    return len(model.predict(pq.read_table(path)))


def _predict_iter(model, path):
    return sum(map(len, model.predict_iter(pyarrow.dataset.dataset(path))))


def _in_a_child(method, model, path):
    result = path.with_name("result")
    child = os.fork()
    if not child:
        try:
            before, start = resident_bytes(), time.process_time()
            done = method(model, path)
            seconds = time.process_time() - start
            more = max(0, peak_bytes() - before)
            joblib.dump({"done": done, "cpu": seconds, "more": more}, result)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return joblib.load(result)


def to_markdown(about, rows):
    """Return the table."""
    lines = [
        [
            f"`{row['method']}`",
            f"{row['rows']:,}",
            f"{row['rows'] / row['cpu']:,.0f}",
            f"{row['more'] / 1e6:.0f}",
        ]
        for row in rows
    ]
    header = ["method", "rows", "rows a CPU second", "MB above the model"]
    return table(header, lines)
