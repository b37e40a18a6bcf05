"""Fits that are killed with SIGKILL as they write, and started again.

Arguments: a model's folder, a folder to write to, and names of cases. Prints a line for
each: its name, how often it was killed, how often it went on from a checkpoint, and
whether the end was that of the unbroken fit.
"""

import os
import random
import signal
import sys
import traceback
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from _toy import QUICK, make, make_regressor, topics, toy

from sk_adalora import AdaLoraEncoder, AdaLoraTableClassifier
from sk_adalora.files import checkpoint

checkpoint._SECONDS = checkpoint._TIMES_WRITING = 0  # after each step
SHARED = {"lora_dropout": 0.1, "epochs": 3}


def draw_another_seed(folder):
    """Seed NumPy's generator, but a fit that goes on shall not draw from it."""
    np.random.seed(1 if any(folder.glob("*.safetensors")) else 0)  # noqa: NPY002


def stopping(model, folder):
    """Early stopping, dropout and weights of classes and rows."""
    X, y = topics(60)
    return make(
        model,
        checkpoint_dir=folder,
        early_stopping=True,
        n_iter_no_change=1,
        class_weight="balanced",
        **{**SHARED, "epochs": 8, "batch_size": 8},
    ).fit(X, y, np.linspace(0.5, 1, 60))


def unseeded(model, folder):
    X, y = toy()
    draw_another_seed(folder)
    return make(model, checkpoint_dir=folder, **{**SHARED, "random_state": None}).fit(
        X, y
    )


def labels(model, folder):
    X, y = topics()
    Y = np.column_stack([y == "art", y != "sport"]).astype(int)
    return make(model, checkpoint_dir=folder, **SHARED).fit(X, Y)


def own_head(model, folder):
    X, y = toy()
    return make(model, checkpoint_dir=folder, pooling="model", **SHARED).fit(X, y)


def numbers(model, folder):
    X, _ = toy()
    fitted = make_regressor(model, checkpoint_dir=folder, **SHARED)
    return fitted.fit(X, np.arange(48.0))


def encoder(model, folder):
    X, y = toy()
    settings = {**QUICK, **SHARED, "checkpoint_dir": folder, "cv": 2}
    fitted = AdaLoraEncoder(model, n_components=2, **settings)
    fitted.vectors = fitted.fit_transform(X, y)
    return fitted


def table(model, folder):
    X, y = toy()
    X = pd.DataFrame({"text": X, "number": np.arange(48.0)})
    settings = {**QUICK, **SHARED, "checkpoint_dir": folder, "random_state": None}
    draw_another_seed(folder)
    inner = AdaLoraEncoder(model, **settings)
    fitted = AdaLoraTableClassifier(
        inner, cv=2, parts=("vectors", "text"), column_roles={"text": "text"}
    ).fit(X, y)
    fitted.encoder_.vectors = fitted.predict_proba(X)
    return fitted.encoder_


CASES = {
    case.__name__: case
    for case in (stopping, unseeded, labels, own_head, numbers, encoder, table)
}


def learned(fitted):
    """Return all that must be the same in the end."""
    history = {**vars(fitted.history_), "seconds": None}
    extra = getattr(fitted, "vectors", None)
    return fitted.ranks_, history, fitted._adapter.arrays, extra


def die_at(moment):
    """Kill this process as it writes or moves its `moment`th checkpoint."""
    count = 0

    def counted(real):
        def call(*given):
            nonlocal count
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given)

        return call

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)


def in_a_child(function):
    """Call a function in a child; tell whether it ended by itself."""
    child = os.fork()
    if not child:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0, "the fit failed"
    return not os.WIFSIGNALED(status)


def attack(case, model, scratch):
    """Compare a fit that is killed again and again with one that is not."""
    out = scratch / case.__name__
    out.mkdir()
    moments = random.Random(0)

    def fit(name, moment=None):
        if moment is not None:
            die_at(moment)
        joblib.dump(learned(case(model, out / f"{name}-checkpoints")), out / name)

    in_a_child(lambda: fit("unbroken"))
    killed = resumed = 0
    while True:
        resumed += any(out.glob("killed-checkpoints/*.safetensors"))
        moment = moments.randint(1, 20)
        if in_a_child(lambda: fit("killed", moment)):  # noqa: B023
            break
        killed += 1
    ends = [joblib.hash(joblib.load(out / name)) for name in ("unbroken", "killed")]
    left = [*out.glob("*-checkpoints")]
    return f"{case.__name__} {killed=} {resumed=} same={ends[0] == ends[1]} {left=}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, scratch, *names = sys.argv[1:]
    numbers(folder, Path(scratch) / "warm")  # children need not import again
    for name in names:
        sys.stdout.write(attack(CASES[name], folder, Path(scratch)) + "\n")
