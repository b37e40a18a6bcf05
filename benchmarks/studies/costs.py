"""What it costs: seconds and memory of fits and predictions, by how they compute."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from unittest import mock

import numpy as np
import torch

from benchmarks.contestants import Embedder
from benchmarks.inside import training_batches
from benchmarks.timing import resident_bytes
from benchmarks.worker import run_job

from .study import Study, grid, measure

STUDIES = {}  # by the name that `python -m benchmarks NAME` runs them by

_COSTS = {"fit_cpu": ".1f", "predict_cpu": ".2f", "peak_bytes": ".3g"}


def _apart(cell, setting):
    """Fit and predict in a process of its own: seconds of both, and peak memory."""
    inside = dict(setting)
    precision = inside.pop("precision", "default")
    settings = asdict(cell.contestant("ours", precision=precision).settings)
    given = {"data": cell.rows, "settings": settings, "inside": inside}
    return run_job(job="fit", contestant="ours", **given)


def _in_both(name, values):
    """Return settings: an inner name has each of some values, in each precision."""
    return {
        f"{precision}, {value}": {"precision": precision, name: value}
        for precision in ("float32", "bfloat16")
        for value in values
    }


STUDIES["attention"] = Study(
    "Which attention kernel is the fastest?",
    settings=_in_both("attention", ["eager", "sdpa"]),
    cells=grid(["headlines", "quotes", "articles"], {200: [0, 1, 2]}),
    cuts=False,
    shown=_COSTS,
    across="tasks",
    measure=_apart,
)

STUDIES["batches"] = Study(
    "How many tokens to predict at once on a CPU?",
    settings=_in_both("tokens_to_predict", [512, 1024, 2048, 4096, 8192]),
    cells=grid(["quotes"], {200: [0, 1, 2]}),
    shown=_COSTS,
    across="measures",
    measure=_apart,
)

STUDIES["lengths"] = Study(
    "To which multiple of tokens to pad batches on a CPU?",
    settings=_in_both("length_multiple", [1, 4, 8]),
    cells=grid(["quotes"], {1000: [0, 1, 2]}),
    shown=_COSTS,
    across="measures",
    measure=_apart,
)


def _full(tokens, batch_size, generator):
    """Deal sorted rows into full batches and one of the rest, the longest rows."""
    order = torch.randperm(len(tokens), generator=generator).numpy()
    run = np.arange(len(order)) // (50 * batch_size)
    order = order[np.lexsort((tokens.lengths[order], run))]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    shuffled = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[i] for i in shuffled]


def _mixed(tokens, batch_size, generator):
    """Deal rows at random into batches of equal size."""
    order = torch.randperm(len(tokens), generator=generator).numpy()
    return np.array_split(order, -(-len(order) // batch_size))


STUDIES["grouping"] = Study(
    "How to deal rows into training batches?",
    settings={
        "equal": {"inside": {"training_batches": training_batches}},  # as the library
        "full": {"inside": {"training_batches": _full}},
        "mixed": {"inside": {"training_batches": _mixed}},
    },
    cells=grid(
        ["headlines", "articles", "quotes", "newsgroups", "films"],
        {33: [60, 61, 62, 63], 200: [60, 61, 62]},
        without=[("newsgroups", 33)],  # of twenty classes
    ),
    max_length=256,
    shown={"accuracy": ".3f", "log_loss": ".2f", "fit_cpu": ".1f"},
)

# ---- beside other programs ---------------------------------------------------

_WAIT = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")


@contextmanager
def _at_work(count):
    """Keep so many programs running that only count."""
    command = [sys.executable, "-c", "while True: pass"]
    with ExitStack() as stack:
        for _ in range(count):
            # In a session of its own, as another program is.
            program = subprocess.Popen(command, start_new_session=True)
            stack.callback(program.wait)
            stack.callback(program.kill)
        yield


def _beside_others(cell, setting):
    kept = {name: value for name, value in os.environ.items() if name not in _WAIT}
    with (
        _at_work(int(cell.case.split()[0])),
        mock.patch.dict(os.environ, {**kept, **setting}, clear=True),
    ):
        return _apart(cell, {})


STUDIES["busy"] = Study(
    "What does a fit take beside other programs, by how torch's threads wait?",
    # The first is what GNU's OpenMP does by itself.
    settings={
        **{
            f"spin {n:,} times": {"GOMP_SPINCOUNT": str(n)}
            for n in (300_000, 10_000, 3_000, 1_000)
        },
        "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
        "one thread": {"OMP_NUM_THREADS": "1"},
    },
    cells={("headlines", 100): [0, 1, 2]},
    n_test=1,
    cases={f"{n} others": None for n in (0, 1, 2)},
    shown={"fit_wall": ".2f", "predict_wall": ".3f"},
    options={"epochs": 1},
    measure=_beside_others,
)

# ---- figures of the user guide -----------------------------------------------

STUDIES["pooling"] = Study(
    "What does the head of the model's own architecture score?",
    settings={
        f"{pooling}, {epochs} epochs": {"pooling": pooling, "epochs": epochs}
        for pooling in ("mean", "model")
        for epochs in (3, 10)
    },
    cells={("headlines", 200): [0]},
)


def _tokens(cell, setting):
    """Return tokens for each CPU second; those of a fit count in each epoch."""
    found = measure(cell, setting)
    tokenize = Embedder(cell.contestant("embeddings").settings).tokenizer
    train, test = (
        sum(map(len, tokenize(list(texts))["input_ids"])) for texts in cell.rows[::2]
    )
    return {
        **found,
        "tokens_of_a_text": train / len(cell.rows[0]),
        "fit": setting["epochs"] * train / found["fit_cpu"],
        "predict": test / found["predict_cpu"],
    }


STUDIES["tokens"] = Study(
    "How many tokens a second does a fit learn from, and a prediction read?",
    settings={p: {"precision": p, "epochs": 3} for p in ("float32", "auto")},
    cells={("quotes", 1000): [0]},
    shown={"tokens_of_a_text": ".0f", "fit": ",.0f", "predict": ",.0f"},
    across="measures",
    measure=_tokens,
)


def _calls(cell, setting):
    """Predict in one call, one by one, and after a fit with two threads.

    Returns
    -------
    dict
        CPU seconds of the first two; by how many MB the process grew in the second; and
        of the last two how much a probability changed at most, and how many labels.
    """
    X_train, y_train, texts, _ = cell.rows
    before, shares = torch.get_num_threads(), []
    try:
        torch.set_num_threads(1)
        fitted = cell.estimator(**setting).fit(X_train, y_train)
        fitted.predict(texts[:1])  # reads what a first call needs
        start = time.process_time()
        shares.append(fitted.predict_proba(texts))
        middle, held = time.process_time(), resident_bytes()
        shares.append(np.vstack([fitted.predict_proba([text]) for text in texts]))
        end, grown = time.process_time(), resident_bytes() - held
        torch.set_num_threads(2)
        fitted = cell.estimator(**setting).fit(X_train, y_train)
        shares.append(fitted.predict_proba(texts))
    finally:
        torch.set_num_threads(before)
    found = {"in_one": middle - start, "one_by_one": end - middle, "mb": grown / 1e6}
    labels = shares[0].argmax(axis=1)
    for name, other in (("alone", shares[1]), ("two_threads", shares[2])):
        found[f"change_{name}"] = float(np.abs(other - shares[0]).max())
        found[f"labels_{name}"] = float((other.argmax(axis=1) != labels).sum())
    return found


STUDIES["calls"] = Study(
    "What does it take and change to predict one by one, or with two threads?",
    settings={p: {"precision": p, "epochs": 3} for p in ("float32", "auto")},
    cells={("headlines", 200): [0]},
    n_test=500,
    shown={
        **{"in_one": ".1f", "one_by_one": ".1f", "mb": ".0f"},
        **{"change_alone": ".1e", "labels_alone": ".0f"},
        **{"change_two_threads": ".1e", "labels_two_threads": ".0f"},
    },
    across="measures",
    measure=_calls,
)
