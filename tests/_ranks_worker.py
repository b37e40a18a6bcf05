"""Fits that 1, 2 and 3 processes share, each of them forked from this one.

Arguments: a model's folder, and a folder to write to. Writes what each rank of each
group learned in each case, as `COUNT-RANK` of joblib.
"""

import os
import sys
import traceback
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from _toy import QUICK, make, make_regressor, topics, toy

from sk_adalora import AdaLoraEncoder, AdaLoraTableClassifier
from sk_adalora.adalora import AdaLoraModel
from sk_adalora.files import checkpoint
from sk_adalora.training import loop

COUNTS = (1, 2, 3)
checkpoint._SECONDS = checkpoint._TIMES_WRITING = 0  # after each step
SHORT = {"epochs": 2, "batch_size": 10}


def learned(fitted, **more):
    """Return all that must be the same."""
    history = {**vars(fitted.history_), "seconds": None}
    return {"ranks": fitted.ranks_, **history, **fitted._adapter.arrays, **more}


def plain(model, folder, rank):
    X, y = topics(61)  # the last batches are smaller, and the last rank has fewer rows
    seed = {"random_state": np.random.RandomState(rank)}
    if not rank:
        fitted = make(model, **SHORT, **seed).fit(X, y)
    else:  # which rank 0 reads for all
        fitted = make(model, **SHORT, **seed).fit(None, None)
    return learned(
        fitted,
        labels=fitted.predict(X).tolist(),
        report=(
            fitted.fit_report_.n_rows,
            fitted.n_features_in_,
            fitted.classes_.tolist(),
        ),
    )


def weighted(model, folder, rank):
    X, y = topics(40)
    weights = np.linspace(0, 1, 40)
    return learned(make(model, class_weight="balanced", **SHORT).fit(X, y, weights))


def stopping(model, folder, rank):
    X, y = topics(60)
    options = {"early_stopping": True, "n_iter_no_change": 1, "epochs": 6}
    fitted = make(model, **{**SHORT, **options, "calibrate": "temperature"}).fit(X, y)
    return learned(
        fitted,
        best=fitted.history_.best_epoch,
        temperature=fitted.temperature_,
    )


def labels(model, folder, rank):
    X, y = topics(40)
    Y = np.column_stack([y == "art", y != "sport"]).astype(int)
    return learned(make(model, **SHORT).fit(X, Y))


def numbers(model, folder, rank):
    X, _ = toy(40)
    return learned(make_regressor(model, **SHORT).fit(X, np.arange(40.0)))


def few_rows(model, folder, rank):
    X, y = toy(4)
    return learned(make(model, **{**SHORT, "batch_size": 2}).fit(X, y))


def own_head(model, folder, rank):
    return learned(make(model, pooling="model", **SHORT).fit(*toy(20)))


def goes_on(model, folder, rank):
    """Leave a checkpoint, which a group of another number of ranks finds."""
    X, y = toy(40)
    settings = {**SHORT, "checkpoint_dir": folder}
    return learned(make(model, **settings).fit(X, y))


def unbroken(model, folder, rank):
    return goes_on(model, None, rank)


def encoder(model, folder, rank):
    X, y = toy(30)
    settings = {**QUICK, **SHORT, "cv": 2}
    fitted = AdaLoraEncoder(model, n_components=2, **settings)
    vectors = fitted.fit_transform(X, y)
    return learned(fitted, vectors=vectors)


def table(model, folder, rank):
    X, y = toy(40)
    X = pd.DataFrame({"text": X, "number": np.arange(40.0)})
    inner = AdaLoraEncoder(model, **{**QUICK, **SHORT})
    fitted = AdaLoraTableClassifier(
        inner,
        cv=2,
        parts=("text", "columns"),
        column_roles={"text": "text"},
        random_state=np.random.RandomState(rank),
    ).fit(X, y)
    return learned(
        fitted.encoder_,
        shares=list(fitted.weights_.values()),
        proba=fitted.predict_proba(X),
    )


CASES = (
    *(
        plain,
        weighted,
        stopping,
        labels,
        numbers,
        few_rows,
        own_head,
        unbroken,
        encoder,
        table,
    ),
)


class Stopped(Exception):
    """What ends a fit after some checkpoints."""


def stop_at(moment):
    count = iter(range(1, 1000))
    real = os.fsync

    def fsync(handle):
        if next(count) == moment:
            raise Stopped("here")
        real(handle)

    os.fsync = fsync
    return real


def resumed(model, folder, rank, count):
    """Start on some ranks, and go on with one more."""
    real = stop_at(5)
    try:
        goes_on(model, folder, rank)
    except (Stopped, RuntimeError) as error:
        os.fsync = real
        return f"{type(error).__name__}: {error}"
    return "was not stopped"


def errors(model, folder, rank):
    """Collect what each rank raises where one of them fails."""
    X, y = toy(24)
    told = {}

    def attempt(name, function):
        try:
            function()
        except Exception as error:
            told[name] = (type(error).__name__, str(error))
        else:
            told[name] = None

    def failing_step():
        real = loop.pad

        def pad(*given):
            raise ValueError("no room for this.")

        if rank == 1:
            loop.pad = pad
        try:
            make(model).fit(X, y)
        finally:
            loop.pad = real

    def failing_elsewhere():
        real = AdaLoraModel.compact

        def compact(self, *given):
            raise OSError("a private fault")

        if rank == 1:
            AdaLoraModel.compact = compact
        try:
            make(model).fit(X, y)
        finally:
            AdaLoraModel.compact = real

    attempt("bad rows", lambda: make(model).fit([1j] if not rank else X, y))
    attempt("bad parameter", lambda: make(model, epochs=-rank).fit(X, y))
    attempt("other parameter", lambda: make(model, epochs=1 + rank).fit(X, y))
    attempt("a shard", lambda: make(model).fit(X, y if not rank else 1 - y))
    attempt("in a step", failing_step)
    attempt("elsewhere", failing_elsewhere)
    attempt("after all", lambda: make(model, epochs=1).fit(X, y))
    return told


def join(folder, name, rank, count):
    store = dist.FileStore(str(folder / f"store-{name}"), count)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count)


def in_children(function, count, scratch):
    """Call `function(rank, count)` in a forked child for each rank."""
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            status = 1
            try:
                if count > 1:
                    join(scratch, f"{function.__name__}-{count}", rank, count)
                result = function(rank, count)
                joblib.dump(result, scratch / f"{function.__name__}-{count}-{rank}")
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    return [os.waitpid(child, 0)[1] for child in children]


def main(model, scratch):
    def fits(rank, count):
        cases = CASES if count == 3 else (*CASES, encoder, table)
        return {case.__name__: case(model, None, rank) for case in cases}

    def begins(rank, count):
        return resumed(model, scratch / f"checkpoints-{count}", rank, count)

    def ends(rank, count):
        return goes_on(model, scratch / f"checkpoints-{count % 3 + 1}", rank)

    def faults(rank, count):
        return errors(model, scratch, rank)

    for count in COUNTS:
        in_children(fits, count, scratch)
    for count in COUNTS:
        in_children(begins, count, scratch)
    for count in COUNTS:
        in_children(ends, count, scratch)
    in_children(faults, 3, scratch)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    # Children need not import again.
    for pooling in ("mean", "model"):
        make(sys.argv[1], epochs=1, pooling=pooling).fit(*toy(8))
    main(sys.argv[1], Path(sys.argv[2]))
