"""Folders of estimators that are read while another process writes them."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Thread

import huggingface_hub
import numpy as np
import pytest
from _folders import bytes_of
from _tiny_model import random_bert, write_model
from _toy import make, toy

import sk_adalora
from sk_adalora import AdaLoraClassifier, _backbone, _read_folder, _whole_folder

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


@pytest.fixture
def no_hub(monkeypatch):
    def snapshot(name, **options):
        raise AssertionError(f"asked for {name}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)


class Mover:
    """A writer that has moved away what was there, and goes on while we sleep.

    Parameters
    ----------
    place : path-like
        The saved folder.
    inside : bool
        Whether the folder stays, and its files are moved one by one.
    moved : callable
        Whether to move a file of that name.
    """

    def __init__(self, place, inside, moved=lambda name: True):
        self.folder, self.inside = Path(place), inside
        beside = self.folder if inside else self.folder.parent
        self.scratch = beside / f".{self.folder.name}-{0:016x}"
        self.old = self.scratch / "old"
        self.scratch.mkdir()
        if inside:
            self.old.mkdir()
            for path in [*self.folder.iterdir()]:
                if path != self.scratch and moved(path.name):
                    path.rename(self.old / path.name)
        else:
            self.folder.rename(self.old)
        self.waits = 0

    def finish(self, seconds):
        self.waits += 1
        if self.waits < 3:
            return
        if self.inside:
            for path in [*self.old.iterdir()]:
                path.rename(self.folder / path.name)
            self.old.rmdir()
        else:
            self.old.rename(self.folder)
        self.scratch.rmdir()


WAYS = {
    "the folder": (False, None),
    "all files": (True, lambda name: True),
    "the state": (True, lambda name: name == "sk_adalora.json"),
    "all but the state": (True, lambda name: name != "sk_adalora.json"),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_being_moved_is_waited_for(fitted, place, no_hub, monkeypatch, way):
    mover = Mover(place, *WAYS[way])
    monkeypatch.setattr(_whole_folder.time, "sleep", mover.finish)
    loaded = AdaLoraClassifier.from_pretrained(place)

    assert mover.waits == 3
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_what_changes_while_it_is_read_is_read_again(fitted, place, monkeypatch):
    """The writer is done when the reader finds that the files do not fit."""
    other = make(fitted.model, random_state=5).fit(X, Y)
    read = _read_folder.read_fitted

    def replaced(*args):
        monkeypatch.setattr(_read_folder, "read_fitted", read)
        other.save_pretrained(place, overwrite=True)
        return read(*args)

    monkeypatch.setattr(_read_folder, "read_fitted", replaced)
    loaded = AdaLoraClassifier.from_pretrained(place)

    np.testing.assert_array_equal(loaded.predict_proba(X), other.predict_proba(X))
    assert not np.array_equal(other.predict_proba(X), fitted.predict_proba(X))


def test_a_writer_that_was_killed_is_not_waited_for_long(place, monkeypatch):
    mover = Mover(place, False)
    slept = []
    monkeypatch.setattr(_whole_folder.time, "sleep", slept.append)
    with pytest.raises(FileNotFoundError, match="`source` must be a folder"):
        AdaLoraClassifier.from_pretrained(place)

    assert sum(slept) == pytest.approx(1)
    assert mover.old.exists()


def test_what_was_left_by_a_writer_long_ago_is_not_waited_for(place, monkeypatch):
    mover = Mover(place, False)
    hour_ago = time.time() - 3600
    os.utime(mover.scratch, (hour_ago, hour_ago))
    monkeypatch.setattr(_whole_folder.time, "sleep", None)

    with pytest.raises(FileNotFoundError, match="`source` must be a folder"):
        AdaLoraClassifier.from_pretrained(place)


def broken(place):
    (Path(place) / "head.safetensors").write_bytes(b"")


def gone(place):
    Path(place).rename("elsewhere")


def without_state(place):
    (Path(place) / "sk_adalora.json").unlink()


@pytest.mark.parametrize("how", [broken, gone, without_state])
def test_what_nobody_writes_is_an_error_at_once(place, monkeypatch, how):
    def sleep(seconds):
        raise AssertionError("waited")

    monkeypatch.setattr(_whole_folder.time, "sleep", sleep)
    how(place)
    # The writer of another folder, and one that has moved nothing yet.
    Path("models/.other-0123456789abcdef/old").mkdir(parents=True)
    Path("models/.clf-0123456789abcdef/new").mkdir(parents=True)

    with pytest.raises((OSError, ValueError), match="Got"):
        AdaLoraClassifier.from_pretrained(place)


def test_a_wrong_parameter_is_an_error_at_once(place, monkeypatch):
    monkeypatch.setattr(_whole_folder.time, "sleep", None)
    with pytest.raises(ValueError, match="Invalid parameter"):
        AdaLoraClassifier.from_pretrained(place, no_such=1)


def test_a_writer_waits_for_who_reads(fitted, place, monkeypatch):
    pytest.importorskip("fcntl", reason="Windows locks no folder")
    other = make(fitted.model, random_state=5).fit(X, Y)
    read, reads, writers = _read_folder.read_fitted, [], []

    def slowly(*args):
        reads.append(args)
        options = {"overwrite": True}
        writer = Thread(target=other.save_pretrained, args=[place], kwargs=options)
        writers.append(writer)
        writer.start()
        writer.join(0.3)  # it would have replaced the folder by now
        return read(*args)

    monkeypatch.setattr(_read_folder, "read_fitted", slowly)
    before = AdaLoraClassifier.from_pretrained(place)
    monkeypatch.setattr(_read_folder, "read_fitted", read)
    for writer in writers:
        writer.join()
    after = AdaLoraClassifier.from_pretrained(place)

    assert len(reads) == 1
    np.testing.assert_array_equal(before.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(after.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize("readers", [False, True])
def test_a_writer_waits_once_for_who_reads_for_long(
    fitted, place, monkeypatch, readers
):
    pytest.importorskip("fcntl", reason="Windows locks no folder")
    slept = []
    monkeypatch.setattr(_whole_folder.time, "sleep", slept.append)
    with _whole_folder._turn(Path(place), shared=True) if readers else nullcontext():
        fitted.save_pretrained(place, overwrite=True)

    assert sum(slept) == pytest.approx(5 if readers else 0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("shared", [False, True])
def test_a_child_that_is_forked_meanwhile_keeps_no_lock(place, shared):
    fcntl = pytest.importorskip("fcntl", reason="Windows locks no folder")
    ends, end = os.pipe()
    with _whole_folder._turn(Path(place), shared=shared):
        child = os.fork()
        if not child:  # lives on with a copy of all that is open
            os.close(end)
            os.read(ends, 1)
            os._exit(0)
    try:
        opened = os.open(place, os.O_RDONLY)
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(opened)
    finally:
        os.close(end)
        os.waitpid(child, 0)
        os.close(ends)


@pytest.mark.parametrize("shared", [False, True])
def test_no_folder_stays_open_after_a_turn(place, shared):
    pytest.importorskip("fcntl", reason="Windows opens no folder")
    before = os.open(place, os.O_RDONLY)
    os.close(before)
    with _whole_folder._turn(Path(place), shared=shared):
        pass
    after = os.open(place, os.O_RDONLY)  # the lowest number that is free
    os.close(after)

    assert after == before


# ---- the pretrained model inside ---------------------------------------------

COMPLETE = {"include_backbone": True, "overwrite": True}


@pytest.fixture
def other(own_model):
    """Fitted on other weights of the same shape."""
    write_model(own_model, random_bert(own_model, seed=5))
    return make(str(own_model), random_state=5).fit(X, Y)


@pytest.fixture
def complete(fitted, place):
    """Loaded from a folder with its pretrained model, which has not been read yet."""
    fitted.save_pretrained(place, **COMPLETE)
    return AdaLoraClassifier.from_pretrained(place)


def predict(estimator):
    return estimator.predict_proba(X)


def fit(estimator):
    return estimator.fit(X, Y).predict_proba(X)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("use", [predict, fit])
@pytest.mark.parametrize("found", [False, True])
def test_a_model_that_is_being_moved_is_waited_for(
    fitted, complete, place, monkeypatch, way, use, found
):
    """It is read at the first use, when `from_pretrained` is long done."""
    if found:  # by a fit, under the same name
        complete.fit(X, Y)
        sk_adalora.clear_backbone_cache()
        complete._live = None
    mover = Mover(place, *WAYS[way])
    monkeypatch.setattr(_whole_folder.time, "sleep", mover.finish)
    predicted = use(complete)

    assert mover.waits == 3
    np.testing.assert_array_equal(predicted, fitted.predict_proba(X))


def interrupt(monkeypatch, write, error=None):
    """Have a writer come while a model is read, after the files were hashed."""
    read = _backbone.read_pretrained

    def interrupted(*args):
        monkeypatch.setattr(_backbone, "read_pretrained", read)
        write()
        if error is not None:
            raise error
        return read(*args)

    monkeypatch.setattr(_backbone, "read_pretrained", interrupted)
    monkeypatch.setattr(_whole_folder, "_WAITS", 1)  # else it waits for the reader


@pytest.mark.parametrize("use", [predict, fit])
def test_a_model_that_is_replaced_while_it_is_read_is_read_again(
    fitted, complete, place, monkeypatch, use
):
    gone = FileNotFoundError(2, "No such file or directory", "config.json")
    interrupt(monkeypatch, partial(fitted.save_pretrained, place, **COMPLETE), gone)

    np.testing.assert_array_equal(use(complete), fitted.predict_proba(X))


def test_another_model_is_never_taken_for_the_one_that_was_hashed(
    complete, other, place, monkeypatch
):
    interrupt(monkeypatch, partial(other.save_pretrained, place, **COMPLETE))
    with pytest.raises(ValueError, match="must be the one that the estimator was"):
        complete.predict(X)

    complete.fit(X, Y)
    assert complete._adapter.content_hash == other._adapter.content_hash


def test_a_model_that_was_another_one_only_while_it_was_read_is_read_again(
    fitted, complete, other, place, monkeypatch
):
    def interrupted(*args, read=_backbone.read_pretrained):
        monkeypatch.setattr(_backbone, "read_pretrained", read)
        other.save_pretrained(place, **COMPLETE)
        found = read(*args)
        fitted.save_pretrained(place, **COMPLETE)  # the same hashes as before
        return found

    monkeypatch.setattr(_backbone, "read_pretrained", interrupted)
    monkeypatch.setattr(_whole_folder, "_WAITS", 1)  # else it waits for the reader

    np.testing.assert_array_equal(complete.predict_proba(X), fitted.predict_proba(X))


def test_what_is_no_longer_the_model_is_not_copied(complete, place):
    complete.predict(X)
    config = Path(place, "backbone", "config.json")
    settings = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(settings | {"hidden_act": "relu"}), encoding="utf-8")
    match = r"and the config\.json that were .* others\. Put the .* not need them"
    with pytest.raises(ValueError, match=match):
        complete.save_pretrained("copy", include_backbone=True)

    shutil.rmtree(place)
    with pytest.raises(ValueError, match=r"gone or others\. .* to another folder"):
        complete.save_pretrained(place)
    assert not Path("copy").exists()
    complete.save_pretrained("copy")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", ["copy", "models/clf"])
def test_a_model_that_is_being_moved_is_copied_later(
    complete, fitted, place, monkeypatch, way, target
):
    complete.predict(X)
    mover = Mover(place, *WAYS[way])
    monkeypatch.setattr(_whole_folder.time, "sleep", mover.finish)
    complete.save_pretrained(target, overwrite=True, include_backbone=target == "copy")
    copied = AdaLoraClassifier.from_pretrained(target)

    assert mover.waits == 3
    np.testing.assert_array_equal(copied.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize("target", ["copy", "models/clf"])
def test_the_model_of_another_is_not_saved_as_its_own(complete, other, place, target):
    complete.predict(X)
    other.save_pretrained(place, **COMPLETE)
    before = bytes_of("models")
    with pytest.raises(ValueError, match=r"must hold the weights and the config\.json"):
        complete.save_pretrained(target, **COMPLETE)

    assert bytes_of("models") == before
    assert not Path("copy").exists()


def test_a_writer_waits_for_who_reads_a_model(complete, place, monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="Windows locks no folder")
    refused = []

    def write():
        opened = os.open(place, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(opened)
        refused.append(place)

    interrupt(monkeypatch, write)
    complete.predict(X)

    assert refused == [place]


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
        time.sleep(0.02)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stays", [False, True])
def test_a_reader_beside_another_process_that_writes(
    fitted, place, no_hub, monkeypatch, stays
):
    pytest.importorskip("fcntl", reason="an open file stops a writer on Windows")
    sources = []
    for seed in (0, 5):
        estimator = make(fitted.model, random_state=seed).fit(X, Y)
        estimator.save_pretrained(f"source-{seed}")
        sources.append(f"source-{seed}")
    code = WRITER
    if stays:  # then files are moved one by one
        code = f"import os\nos.path.ismount = lambda path: True\n{code}"
    written = [sys.executable, "-c", code, *sources, place, "4"]
    root = Path(sk_adalora.__file__).parent.parent
    env = {**os.environ, "PYTHONPATH": str(root)}
    states, reads = set(), 0
    with subprocess.Popen(written, stdout=subprocess.PIPE, text=True, env=env) as p:
        assert p.stdout.readline() == "ready\n"
        while p.poll() is None:
            loaded = AdaLoraClassifier.from_pretrained(place)
            states.add(loaded._adapter.arrays["head.bias"].tobytes())
            reads += 1
    assert p.returncode == 0
    assert len(states) == 2
    assert reads >= 5
