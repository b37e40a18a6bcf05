"""What a fit gains from a second rank: CPU time of each, and the bytes of a step."""

import os
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
import torch
import torch.distributed as dist

from sk_adalora import AdaLoraClassifier

from .memory import _WORDS
from .results import say, table


def add_options(add):
    """Declare the options of the command."""
    add("--rows", type=int, default=640, help="rows of an epoch")
    add("--words", type=int, default=62, help="words of a row, beside two tokens")
    add("--batch-size", type=int, default=32)
    add("--ranks", nargs="+", type=int, default=[1, 2])


def quicken(options):
    """Set the options to a smoke test."""
    options.rows, options.words = 32, 4


def run(options):
    """Fit on each number of ranks, each rank in a forked process with one thread."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    labels = np.arange(options.rows) % 2
    texts = [" ".join(rng.choice(_WORDS, options.words)) for _ in labels]
    classifier = AdaLoraClassifier(
        options.model,
        epochs=1,
        batch_size=options.batch_size,
        device="cpu",
        precision="float32",
        random_state=0,
    )
    classifier.fit(texts[:2], labels[:2])  # the ranks need not load the model
    rows = []
    for count in options.ranks:
        with tempfile.TemporaryDirectory() as folder:
            found = _fit_on(count, Path(folder), classifier, texts, labels)
        rows.append({"ranks": count, **found})
        say(f"{count} ranks: {found['cpu_seconds']:.1f} CPU seconds of the busiest")
    return {"rows": options.rows, "batch_size": options.batch_size}, rows


def to_markdown(about, rows):
    """Return the table."""
    one = rows[0]["cpu_seconds"] * rows[0]["ranks"]
    header = ["ranks", "CPU seconds a rank", "speed-up", "MB sent a step"]
    lines = [
        [
            row["ranks"],
            f"{row['cpu_seconds']:.1f}",
            f"{one / row['cpu_seconds']:.2f}",
            f"{row['bytes_a_step'] / 1e6:.1f}",
        ]
        for row in rows
    ]
    return table(header, lines)


def _fit_on(count, folder, classifier, texts, labels):
    """Return the CPU seconds of the busiest rank, and the bytes that it sent a step."""
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            try:
                store = dist.FileStore(str(folder / "store"), count)
                dist.init_process_group(
                    "gloo", store=store, rank=rank, world_size=count
                )
                sent = _count_bytes()
                start = time.process_time()
                classifier.fit(texts, labels)
                seconds = time.process_time() - start
                joblib.dump((seconds, max(sent, default=0)), folder / str(rank))
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    found = [joblib.load(folder / str(rank)) for rank in range(count)]
    seconds, sent = map(max, zip(*found, strict=True))
    return {"cpu_seconds": seconds, "bytes_a_step": sent}


def _count_bytes():
    """Note how much each exchange adds up; return the list of it."""
    sent, real = [], dist.all_reduce

    def all_reduce(tensor, *given, **named):
        sent.append(tensor.numel() * tensor.element_size())
        return real(tensor, *given, **named)

    dist.all_reduce = all_reduce
    return sent
