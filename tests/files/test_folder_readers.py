"""Folders of estimators that are read while another process writes them.

What is read is of one state of the folder, or an error says to load it again.
"""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from _folders import bytes_of
from _tiny_model import random_bert, write_model
from _toy import make, toy

import sk_adalora
from sk_adalora import AdaLoraClassifier
from sk_adalora.files import read as _read_folder
from sk_adalora.files import swap as _whole_folder
from sk_adalora.pretrained import backbone as _backbone
from sk_adalora.pretrained import weights as _model_files

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


def interrupt(monkeypatch, module, name, write, error=None):
    """Have a writer come as soon as a function is called, which may fail then."""
    function = getattr(module, name)

    def interrupted(*args):
        monkeypatch.setattr(module, name, function)
        write()
        if error is not None:
            raise error
        return function(*args)

    monkeypatch.setattr(module, name, interrupted)


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("labels", [Y, [*"abc"] * 8])
def test_what_is_replaced_while_it_is_read_is_refused(
    fitted, place, monkeypatch, stays, labels
):
    """Also where the files of both do not fit together."""
    other = make(fitted.model, random_state=5).fit(X, labels)
    monkeypatch.setattr(_whole_folder, "_must_stay", lambda folder: stays)
    write = partial(other.save_pretrained, place, overwrite=True)
    interrupt(monkeypatch, _read_folder, "read_fitted", write)
    with pytest.raises(ValueError, match=r"replaced just now: load it again\."):
        AdaLoraClassifier.from_pretrained(place)

    loaded = AdaLoraClassifier.from_pretrained(place)
    np.testing.assert_array_equal(loaded.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize("stays", [False, True])
def test_what_was_replaced_only_while_it_was_read_is_refused(
    fitted, place, monkeypatch, stays
):
    """All hashes are as before, but what was read is of two trainings."""
    other = make(fitted.model, random_state=5).fit(X, Y)
    monkeypatch.setattr(_whole_folder, "_must_stay", lambda folder: stays)

    def meanwhile(*args, read=_read_folder.read_fitted):
        other.save_pretrained(place, overwrite=True)
        found = read(*args)
        fitted.save_pretrained(place, overwrite=True)
        return found

    monkeypatch.setattr(_read_folder, "read_fitted", meanwhile)
    with pytest.raises(ValueError, match=r"replaced just now: load it again\."):
        AdaLoraClassifier.from_pretrained(place)


def test_an_error_while_a_folder_is_replaced_is_taken_for_its_consequence(
    fitted, place, monkeypatch
):
    error = FileNotFoundError("No such file")
    write = partial(fitted.save_pretrained, place, overwrite=True)
    interrupt(monkeypatch, _read_folder, "read_fitted", write, error)
    with pytest.raises(ValueError, match=r"replaced just now: load it again\.") as e:
        AdaLoraClassifier.from_pretrained(place)

    assert e.value.__cause__ is error


def test_other_files_in_a_folder_may_change_while_it_is_read(place, monkeypatch):
    interrupt(monkeypatch, _read_folder, "read_fitted", Path(place, "log.txt").touch)

    assert AdaLoraClassifier.from_pretrained(place).ranks_


def test_files_that_were_moved_away_and_back_are_refused(fitted, place, monkeypatch):
    """As by a writer whose disk is full. Another's may have been there meanwhile."""
    head = Path(place, "head.safetensors")

    def meanwhile():
        head.rename("away")
        Path("away").rename(head)

    interrupt(monkeypatch, _read_folder, "read_fitted", meanwhile)
    with pytest.raises(ValueError, match=r"replaced just now: load it again\."):
        AdaLoraClassifier.from_pretrained(place)


def test_an_interrupt_while_a_folder_is_replaced_is_an_interrupt(
    fitted, place, monkeypatch
):
    write = partial(fitted.save_pretrained, place, overwrite=True)
    interrupt(monkeypatch, _read_folder, "read_fitted", write, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        AdaLoraClassifier.from_pretrained(place)


def moved_away(folder, names):
    """Move files away, as a writer does that moves them one by one."""
    old = folder / f".{folder.name}-{0:016x}" / "old"
    old.mkdir(parents=True)
    for name in names:
        (folder / name).rename(old / name)


@pytest.mark.parametrize("name", ["sk_adalora.json", "head.safetensors"])
def test_what_is_being_moved_is_an_error(place, name):
    moved_away(Path(place), [name])

    with pytest.raises(FileNotFoundError, match=f"must hold '?{name}.*load .*again"):
        AdaLoraClassifier.from_pretrained(place)


def test_a_folder_that_is_being_moved_is_an_error(place):
    Path(place).rename("old")

    with pytest.raises(FileNotFoundError, match=r"saves there just now, load it again"):
        AdaLoraClassifier.from_pretrained(place, local_files_only=True)


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


@pytest.mark.parametrize("use", [predict, fit])
@pytest.mark.parametrize("found", [False, True])
def test_a_model_that_is_being_moved_is_an_error(fitted, complete, place, use, found):
    """It is read at the first use, when `from_pretrained` is long done."""
    if found:  # by a fit, under the same name
        complete.fit(X, Y)
        sk_adalora.clear_backbone_cache()
        complete._live = None
    Path(place).rename("old")
    with pytest.raises(FileNotFoundError, match="backbone', which is no folder"):
        use(complete)

    Path("old").rename(place)
    np.testing.assert_array_equal(use(complete), fitted.predict_proba(X))


@pytest.mark.parametrize("use", [predict, fit])
def test_a_model_that_is_replaced_while_it_is_read_is_refused(
    fitted, complete, place, monkeypatch, use
):
    write = partial(fitted.save_pretrained, place, **COMPLETE)
    interrupt(monkeypatch, _backbone, "read_pretrained", write)
    with pytest.raises(ValueError, match=r"replaced just now\. Try again"):
        use(complete)

    np.testing.assert_array_equal(use(complete), fitted.predict_proba(X))


def test_another_model_is_never_taken_for_the_one_that_was_hashed(
    complete, other, place, monkeypatch
):
    write = partial(other.save_pretrained, place, **COMPLETE)
    interrupt(monkeypatch, _backbone, "read_pretrained", write)
    with pytest.raises(ValueError, match=r"replaced just now\. Try again"):
        complete.predict(X)
    with pytest.raises(ValueError, match="must be the one that the estimator was"):
        complete.predict(X)

    complete.fit(X, Y)
    assert complete._adapter.content_hash == other._adapter.content_hash


def test_a_model_that_was_another_one_only_while_it_was_read_is_refused(
    fitted, complete, other, place, monkeypatch
):
    def interrupted(*args, read=_backbone.read_pretrained):
        monkeypatch.setattr(_backbone, "read_pretrained", read)
        other.save_pretrained(place, **COMPLETE)
        found = read(*args)
        fitted.save_pretrained(place, **COMPLETE)  # the same hashes as before
        return found

    monkeypatch.setattr(_backbone, "read_pretrained", interrupted)
    with pytest.raises(ValueError, match=r"replaced just now\. Try again"):
        complete.predict(X)

    np.testing.assert_array_equal(complete.predict_proba(X), fitted.predict_proba(X))


def test_what_is_no_longer_the_model_is_not_copied(complete, place):
    complete.predict(X)
    config = Path(place, "backbone", "config.json")
    settings = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(settings | {"hidden_act": "relu"}), encoding="utf-8")
    match = r"and the config\.json that were .* others\. Put the .* not need them"
    with pytest.raises(ValueError, match=match):
        complete.save_pretrained("copy", include_backbone=True)

    for gone in (config.unlink, partial(shutil.rmtree, place)):
        gone()
        with pytest.raises(ValueError, match=r"gone or others\. .* to another folder"):
            complete.save_pretrained("copy", include_backbone=True)
    assert not Path("copy").exists()
    complete.save_pretrained("copy")


@pytest.mark.parametrize("target", ["copy", "models/clf"])
def test_a_model_that_is_being_moved_is_not_left_out(complete, place, target):
    complete.predict(X)
    Path(place).rename("old")
    with pytest.raises(ValueError, match=r"gone or others\. .* to another folder"):
        complete.save_pretrained(target, overwrite=True, include_backbone=True)

    assert not Path(target).exists()


@pytest.mark.parametrize("target", ["copy", "models/clf"])
def test_a_copy_without_weights_is_not_saved(complete, place, monkeypatch, target):
    """As when the folder is away while it is listed, and back at once."""
    complete.predict(X)
    before = bytes_of("models")
    listed, calls = _model_files.weight_files, []

    def away_at_first(folder):
        calls.append(folder)
        return listed(folder) if calls[1:] else []

    monkeypatch.setattr(_model_files, "weight_files", away_at_first)
    with pytest.raises(ValueError, match=r"while they are copied.*Save again"):
        complete.save_pretrained(target, **COMPLETE)

    assert bytes_of("models") == before
    assert not Path("copy").exists()


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("{}")])
def test_a_copy_with_another_tokenizer_is_not_saved(
    complete, place, monkeypatch, change
):
    """It could not be loaded."""
    complete.predict(X)
    copied, folder = shutil.copyfile, complete._live.backbone.folder

    def copyfile(source, target):
        if Path(source) == folder / "model.safetensors":  # the first
            change(folder / "tokenizer.json")
        copied(source, target)

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(ValueError, match=r"while they are copied.*Save again"):
        complete.save_pretrained("copy", include_backbone=True)
    assert not Path("copy").exists()


@pytest.mark.parametrize("target", ["copy", "models/clf"])
def test_the_model_of_another_is_not_saved_as_its_own(complete, other, place, target):
    complete.predict(X)
    other.save_pretrained(place, **COMPLETE)
    before = bytes_of("models")
    with pytest.raises(ValueError, match=r"must hold the weights and the config\.json"):
        complete.save_pretrained(target, **COMPLETE)

    assert bytes_of("models") == before
    assert not Path("copy").exists()


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
@pytest.mark.parametrize("stays", [False, True])
def test_a_reader_beside_another_process_that_writes(fitted, place, stays):
    sources, written_states = [], set()
    for seed in (0, 5):
        estimator = make(fitted.model, random_state=seed).fit(X, Y)
        estimator.save_pretrained(f"source-{seed}")
        sources.append(f"source-{seed}")
        written_states.add(state_of(estimator))
    code = WRITER
    if stays:  # then files are moved one by one
        code = f"import os\nos.path.ismount = lambda path: True\n{code}"
    written = [sys.executable, "-c", code, *sources, place, "4"]
    root = Path(sk_adalora.__file__).parent.parent
    env = {**os.environ, "PYTHONPATH": str(root)}
    states, errors = set(), []
    with subprocess.Popen(written, stdout=subprocess.PIPE, text=True, env=env) as p:
        assert p.stdout.readline() == "ready\n"
        while p.poll() is None:
            try:
                states.add(state_of(AdaLoraClassifier.from_pretrained(place)))
            except (OSError, ValueError) as error:
                errors.append(str(error))
    assert p.returncode == 0
    assert states == written_states
    assert [error for error in errors if "again" not in error] == []
