"""Does an exported model agree, and how fast does it answer, alone and served?"""

import json
import runpy
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sk_adalora import AdaLoraClassifier

from .data import load_task, split
from .results import say, table

SERVE = Path(__file__).parent.parent / "examples" / "serve.py"
CLIENTS = 20


def add_options(add):
    """Declare the options of the command."""
    add("--n-train", type=int, default=400, help="headlines to fit")
    add("--n-test", type=int, default=1000, help="others to compare")
    add("--n-alone", type=int, default=200, help="of these, one at a time")
    add("--splits", type=int, default=3, help="fits whose labels are compared")
    add("--requests", type=int, default=1000, help="of one text each, to the server")


def quicken(options):
    """Set the options to a smoke test."""
    options.n_train, options.n_test = 40, 20
    options.n_alone, options.splits, options.requests = 5, 2, 20


def run(options):
    """Export classifiers of headlines, and compare what they say and take."""
    with tempfile.TemporaryDirectory() as scratch:
        fits = [
            _compare(options, seed, Path(scratch)) for seed in range(options.splits)
        ]
        rows = fits[0]  # the times are of one fit
        for same_kind in zip(*(fit[1:] for fit in fits), strict=True):
            first = same_kind[0]
            first["difference"] = max(row["difference"] for row in same_kind)
            first["same"] = float(np.mean([row["same"] for row in same_kind]))
        _, _, new, _ = split(load_task("headlines"), options.n_train, options.n_test, 0)
        texts = [new[i % len(new)] for i in range(options.requests)]
        for most in (1, 32):
            rate = _serve(Path(scratch) / "0" / "None", texts, most)
            rows.append({"model": f"server, batches of {most}", "rate": rate})
            say(rows[-1])
    return {}, rows


def _compare(options, seed, scratch):
    """Return a row for a fitted classifier, and one for each export of it."""
    X, y, new, _ = split(load_task("headlines"), options.n_train, options.n_test, seed)
    ours = AdaLoraClassifier(
        options.model, device=options.device, precision="float32", random_state=seed
    ).fit(X, y)
    expected, labels = ours.predict_proba(new), ours.predict(new)
    alone = new[: options.n_alone]
    rows = [{"model": "predict", "alone": _seconds(ours.predict, alone)}]
    for kind in (None, "int8"):
        folder = scratch / f"{seed}" / f"{kind}"
        ours.export_onnx(folder, quantize=kind)
        model = runpy.run_path(str(folder / "run.py"))["Model"](folder)
        rows.append(
            {
                "model": f"ONNX, {kind or 'float32'}",
                "alone": _seconds(model.predict, alone),
                "difference": float(np.abs(model.outputs(new) - expected).max()),
                "same": float(np.mean(model.predict(new) == labels)),
                "bytes": (folder / "model.onnx").stat().st_size,
            }
        )
        say(rows[-1])
    return rows


def _seconds(predict, texts):
    predict(texts[:1])
    start = time.perf_counter()
    for text in texts:
        predict([text])
    return (time.perf_counter() - start) / len(texts)


def _serve(folder, texts, most):
    """Return the requests a second that many clients at once get answers to."""
    command = [sys.executable, str(SERVE), "--model", str(folder), "--port", "0"]
    command += ["--batch", str(most)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split()[-1]
            with ThreadPoolExecutor(CLIENTS) as clients:
                start = time.perf_counter()
                list(clients.map(lambda text: _post(address, text), texts))
                return len(texts) / (time.perf_counter() - start)
        finally:
            server.terminate()


def _post(address, text):
    headers = {"content-type": "application/json"}
    content = json.dumps({"texts": [text]}).encode()
    request = urllib.request.Request(address, content, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def to_markdown(about, rows):
    """Return the tables of models and of servers."""
    lines = []
    for row in rows:
        if "alone" in row:
            faster = rows[0]["alone"] / row["alone"]
            line = [row["model"], f"{1000 * row['alone']:.1f}", f"{faster:.1f}"]
            if "same" in row:
                line += [f"{row['bytes'] / 1e6:.0f}", f"{row['difference']:.1e}"]
                line += [f"{100 * row['same']:.1f}"]
            lines.append([*line, *[""] * (6 - len(line))])
    header = ["model", "ms a text alone", "times as fast", "MB"]
    header += ["largest difference", "same labels, %"]
    models = table(header, lines)
    served = [[r["model"], f"{r['rate']:.0f}"] for r in rows if "rate" in r]
    return f"{models}\n\n{table(['20 clients', 'requests a second'], served)}"
