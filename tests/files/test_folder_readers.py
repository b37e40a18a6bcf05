"""Folders of estimators that are read while another process writes them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _tiny_model import random_bert, write_model
from _toy import make, toy

import sk_adalora
from sk_adalora import AdaLoraClassifier
from sk_adalora.files import folder as _folder
from sk_adalora.pretrained import backbone as _backbone

X, Y = toy(24)


@pytest.fixture(scope="module")
def fitted(tiny_model):
    """Do not refit."""
    return make(tiny_model).fit(X, Y)


@pytest.fixture
def place(fitted, tmp_path, monkeypatch):
    """The name of a saved folder, which might also be one of the hub's."""
    monkeypatch.chdir(tmp_path)
    fitted.save_pretrained("models/clf")
    return "models/clf"


def test_what_is_replaced_while_it_is_read_is_refused(fitted, place, monkeypatch):
    """Labels of one training and numbers of another would make a third."""
    other = make(fitted.model, random_state=5).fit(X, Y)

    def meanwhile(*args, read=_folder.read_fitted):
        monkeypatch.undo()
        other.save_pretrained(args[1], overwrite=True)
        return read(*args)

    monkeypatch.setattr(_folder, "read_fitted", meanwhile)
    folder = Path(place).resolve()
    with pytest.raises(ValueError, match=r"replaced just now: load it again\."):
        AdaLoraClassifier.from_pretrained(folder)

    loaded = AdaLoraClassifier.from_pretrained(folder)
    np.testing.assert_array_equal(loaded.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize("name", ["sk_adalora.json", "head.safetensors", ""])
def test_what_is_being_moved_is_an_error(place, name):
    Path(place, name).rename("old")

    with pytest.raises(FileNotFoundError, match=name or "load it again"):
        AdaLoraClassifier.from_pretrained(place, local_files_only=True)


# ---- the pretrained model inside ---------------------------------------------

COMPLETE = {"include_backbone": True, "overwrite": True}


@pytest.fixture
def complete(fitted, place):
    """Loaded from a folder with its pretrained model, which has not been read yet."""
    fitted.save_pretrained(place, **COMPLETE)
    return AdaLoraClassifier.from_pretrained(place)


@pytest.fixture
def other(own_model):
    """Fitted on other weights of the same shape."""
    write_model(own_model, random_bert(own_model, seed=5))
    return make(str(own_model), random_state=5).fit(X, Y)


def predict(estimator):
    return estimator.predict_proba(X)


def fit(estimator):
    return estimator.fit(X, Y).predict_proba(X)


@pytest.mark.parametrize("use", [predict, fit])
def test_a_model_that_is_being_moved_is_an_error(fitted, complete, place, use):
    """It is read at the first use, when `from_pretrained` is long done."""
    Path(place).rename("old")
    with pytest.raises(FileNotFoundError, match="backbone', which is no folder"):
        use(complete)

    Path("old").rename(place)
    np.testing.assert_array_equal(use(complete), fitted.predict_proba(X))


def test_another_model_is_never_taken_for_the_one_that_was_hashed(
    complete, other, place, monkeypatch
):
    def meanwhile(*args, read=_backbone.read_pretrained):
        monkeypatch.setattr(_backbone, "read_pretrained", read)
        other.save_pretrained(Path(place), **COMPLETE)
        return read(*args)

    monkeypatch.setattr(_backbone, "read_pretrained", meanwhile)
    with pytest.raises(ValueError, match=r"replaced just now\. Try again"):
        complete.predict(X)
    with pytest.raises(ValueError, match="must be the one that the estimator was"):
        complete.predict(X)

    complete.fit(X, Y)
    assert complete._adapter.content_hash == other._adapter.content_hash


# ---- another process --------------------------------------------------------


def state_of(estimator):
    """What tells two trainings apart, and is in several files."""
    arrays = sorted(estimator._adapter.arrays.items())
    return estimator.random_state, *(array.tobytes() for _, array in arrays)


WRITER = """
import sys, time
from sk_adalora import AdaLoraClassifier
one, other, place, seconds = sys.argv[1:]
both = [AdaLoraClassifier.from_pretrained(path) for path in (one, other)]
both[0]._ready(), both[1]._ready()
print("ready", flush=True)
end = time.monotonic() + float(seconds)
while time.monotonic() < end:
    for estimator in both:
        estimator.save_pretrained(place, overwrite=True)
        time.sleep(0.1)
"""


@pytest.mark.slow
def test_a_reader_beside_another_process_that_writes(fitted, place):
    sources, written_states = [], set()
    for seed in (0, 5):
        estimator = make(fitted.model, random_state=seed).fit(X, Y)
        estimator.save_pretrained(f"source-{seed}")
        sources.append(f"source-{seed}")
        written_states.add(state_of(estimator))
    written = [sys.executable, "-c", WRITER, *sources, place, "2"]
    root = Path(sk_adalora.__file__).parent.parent
    env = {**os.environ, "PYTHONPATH": str(root)}
    states = set()
    with subprocess.Popen(written, stdout=subprocess.PIPE, text=True, env=env) as p:
        assert p.stdout.readline() == "ready\n"
        while p.poll() is None:
            try:
                states.add(state_of(AdaLoraClassifier.from_pretrained(place)))
            except (OSError, ValueError):
                pass  # it may be loaded again
    assert p.returncode == 0
    assert states == written_states
