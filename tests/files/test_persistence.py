"""Files of fitted estimators: what is in them, and what loading needs."""

import copy
import dataclasses
import io
import pickle
import pickletools
import shutil
import socket
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
from _folders import STRONG, assert_equal_estimators
from _process import run_python
from _toy import make, make_regressor, topics, toy
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import sk_adalora
from sk_adalora.files import versions as _versions
from sk_adalora.pretrained import find as _find
from sk_adalora.pretrained import weights as _weights
from sk_adalora.pretrained.weights import content_hash

X, Y = topics(48)


@pytest.fixture
def moving(tiny_model, tmp_path):
    """A classifier fitted on a model folder of its own, which may be moved."""
    return make(shutil.copytree(tiny_model, str(tmp_path / "model"))).fit(X, Y)


def by_pickle(protocol):
    return lambda value, path: pickle.loads(pickle.dumps(value, protocol))


def by_joblib(compress, mmap_mode=None):
    def there_and_back(value, path):
        joblib.dump(value, path / "fitted.joblib", compress=compress)
        return joblib.load(path / "fitted.joblib", mmap_mode)

    return there_and_back


WAYS = {
    "pickle": by_pickle(pickle.DEFAULT_PROTOCOL),
    "pickle 2": by_pickle(2),
    "mapped": by_joblib(0, mmap_mode="r"),
    "compressed": by_joblib(3),
    "cloudpickle": lambda value, path: cloudpickle.loads(cloudpickle.dumps(value)),
    "deepcopy": lambda value, path: copy.deepcopy(value),
    "copy": lambda value, path: copy.copy(value),
}


@pytest.mark.parametrize("way", WAYS)
def test_there_and_back(fitted, tmp_path, way):
    before = dict(vars(fitted))
    loaded = WAYS[way](fitted, tmp_path)

    assert vars(fitted) == before
    assert "_predictor" not in vars(loaded)
    for method in ("predict", "predict_log_proba", "decision_function"):
        np.testing.assert_array_equal(
            getattr(loaded, method)(X), getattr(fitted, method)(X)
        )
    for name in ("ranks_", "rank_pattern_", "schedule_", "history_", "fit_report_"):
        assert getattr(loaded, name) == getattr(fitted, name)
    assert loaded.get_params() == fitted.get_params()
    assert loaded.classes_.dtype == fitted.classes_.dtype
    # And on from there, after a prediction.
    loaded.save_pretrained(tmp_path / "folder")
    again = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize("way", WAYS)
def test_there_and_back_unfitted(tiny_model, tmp_path, way):
    loaded = WAYS[way](make(tiny_model), tmp_path)

    assert loaded.get_params() == make(tiny_model).get_params()
    with pytest.raises(NotFittedError):
        loaded.predict(X)


TABLE = pd.DataFrame({"a": X, "b": X[::-1]})
FITS = {
    "several labels, named columns": lambda model: make(
        model, row_format="{a} {b}"
    ).fit(TABLE, np.eye(3, dtype=int)[np.arange(48) % 3]),
    "regressor": lambda model: make_regressor(model).fit(X, np.linspace(-3, 9, 48)),
}


@pytest.mark.parametrize("fit", FITS)
def test_other_fits_there_and_back(tiny_model, fit):
    fitted = FITS[fit](tiny_model)
    loaded = pickle.loads(pickle.dumps(fitted))
    rows = TABLE if hasattr(fitted, "feature_names_in_") else X

    fitted._predictor = None
    assert_equal_estimators(loaded, fitted)
    np.testing.assert_array_equal(loaded.predict(rows), fitted.predict(rows))


# ---- what is in the file ----------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_file_is_read_without_torch(fitted, protocol):
    """Nobody needs a GPU, or even torch, to look at a result."""
    fitted.predict(X)
    roots = set()

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            roots.add(module.split(".")[0])
            return super().find_class(module, name)

    data = pickle.dumps(fitted, protocol)
    Reader(io.BytesIO(data)).load()

    assert "sk_adalora" in roots
    allowed = {"sk_adalora", "numpy", "builtins", "__builtin__"}
    assert roots <= allowed | {"copy_reg", "_codecs"}
    # Nor does it hold tensors as bytes that something else would unpack.
    strings = {arg for _, arg, _ in pickletools.genops(data) if isinstance(arg, str)}
    assert not [s for s in strings if s.startswith(("torch.", "transformers."))]


def test_a_file_holds_what_was_trained_and_no_row(tiny_model):
    def size(n_rows):
        texts, y = toy(n_rows)
        texts = [f"secret {text}" for text in texts]
        fitted = make(tiny_model, epochs=4, batch_size=n_rows).fit(texts, y)
        fitted.predict(texts)
        data = pickle.dumps(fitted)
        arrays = fitted._adapter.arrays.values()
        assert b"secret" not in data
        assert {array.dtype for array in arrays} == {np.dtype("float32")}
        assert len(data) < sum(array.nbytes for array in arrays) + 16_000
        return len(data)

    assert abs(size(32) - size(512)) < 3_000


def test_a_file_says_what_wrote_it(fitted):
    state = pickle.loads(pickle.dumps(fitted))._adapter

    assert state.format == _versions.FORMAT == 1
    packages = ("python", "sk-adalora", "torch", "transformers", "scikit-learn")
    assert set(state.versions) == {*packages, "numpy"}
    assert state.content_hash == content_hash(Path(state.found_in))


# ---- versions ---------------------------------------------------------------


def test_a_file_of_a_later_format(fitted):
    later = copy.copy(fitted)
    later._adapter = dataclasses.replace(
        fitted._adapter, format=2, versions={"sk-adalora": "9.9"}
    )

    match = r"of format 1\. Got format 2, of sk-adalora '9\.9'\. Install a newer"
    with pytest.raises(ValueError, match=match):
        pickle.loads(pickle.dumps(later))


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_another_version_warns_once(fitted, monkeypatch, package):
    monkeypatch.setattr(_versions, "_warned", set())
    older = copy.copy(fitted)
    versions = fitted._adapter.versions | {package: "0.1"}
    older._adapter = dataclasses.replace(fitted._adapter, versions=versions)
    with pytest.warns(UserWarning, match=f"trained with {package} 0.1 and runs with"):
        older.predict(X[:3])

    pickle.loads(pickle.dumps(older)).predict(X[:3])  # a warning would fail the test


# ---- loading elsewhere ------------------------------------------------------

LOAD = """
import sys
import joblib
import numpy
from sk_adalora import AdaLoraClassifier, clear_backbone_cache
loads = {"folder": AdaLoraClassifier.from_pretrained, "file": joblib.load}
for place, load in loads.items():
    clear_backbone_cache()
    fitted = load(place)
    assert "_predictor" not in vars(fitted)
    numpy.save(place, fitted.predict_proba(sys.argv[1:]))
"""


def test_another_process_in_another_folder(tiny_model, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(tiny_model, tmp_path / "here" / "model")
    monkeypatch.chdir(tmp_path / "here")
    fitted = make("model", **STRONG).fit(X, Y)  # a relative path
    fitted.save_pretrained(elsewhere / "folder")
    joblib.dump(fitted, elsewhere / "file")
    run_python(LOAD, *X[:8], cwd=elsewhere)

    for place in ("folder", "file"):
        proba = np.load(elsewhere / f"{place}.npy")
        np.testing.assert_array_equal(proba, fitted.predict_proba(X[:8]))


def flip_a_bit(model):
    """Change the weights in a model's folder."""
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


@pytest.mark.parametrize("becomes", ["another", "empty"])
def test_a_copy_of_a_project_uses_its_own_model(
    tiny_model, tmp_path, monkeypatch, becomes
):
    shutil.copytree(tiny_model, tmp_path / "first" / "mine")
    monkeypatch.chdir(tmp_path / "first")
    fitted = make("mine").fit(X, Y)
    expected, file = fitted.predict_proba(X), pickle.dumps(fitted)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    sk_adalora.clear_backbone_cache()
    if becomes == "empty":
        shutil.rmtree("mine")
        Path("mine").mkdir()
    else:
        flip_a_bit(Path("mine"))

    monkeypatch.chdir(tmp_path / "second")
    np.testing.assert_array_equal(pickle.loads(file).predict_proba(X), expected)


@pytest.mark.parametrize(
    ("module", "closed"), [(_weights, "weight_names"), (_find, "content_hash")]
)
def test_another_user_uses_a_model_of_their_own(
    tiny_model, tmp_path, monkeypatch, module, closed
):
    """Who trained as root has found the model where others may not look."""
    for user in ("root", "other"):
        shutil.copytree(tiny_model, tmp_path / user / "mine")
    monkeypatch.chdir(tmp_path / "root")
    fitted = make("mine").fit(X, Y)
    expected, file = fitted.predict_proba(X), pickle.dumps(fitted)
    sk_adalora.clear_backbone_cache()
    look = getattr(module, closed)

    def refused(folder):
        if folder == tmp_path / "root" / "mine":
            raise PermissionError(13, "Permission denied", str(folder))
        return look(folder)

    monkeypatch.setattr(module, closed, refused)
    monkeypatch.chdir(tmp_path / "other")
    np.testing.assert_array_equal(pickle.loads(file).predict_proba(X), expected)


def test_a_device_that_is_not_there_any_more(fitted):
    loaded = pickle.loads(pickle.dumps(fitted)).set_params(device="cuda:63")
    with pytest.raises(ValueError, match="`device` must be 'auto' or one of"):
        loaded.predict(X)

    np.testing.assert_array_equal(
        loaded.set_params(device="cpu").predict(X), fitted.predict(X)
    )


def test_loading_and_predicting_use_no_network(fitted, monkeypatch):
    data = pickle.dumps(fitted)
    expected = fitted.predict(X)
    sk_adalora.clear_backbone_cache()

    def connect(*args, **kwargs):
        raise AssertionError("connected")

    monkeypatch.setattr(socket.socket, "connect", connect)
    np.testing.assert_array_equal(pickle.loads(data).predict(X), expected)


# ---- the model is another, or elsewhere -------------------------------------


def test_a_model_that_moved(moving, tmp_path):
    expected = moving.predict_proba(X)
    moving.save_pretrained(tmp_path / "folder")
    data = pickle.dumps(moving)
    sk_adalora.clear_backbone_cache()
    moved = str(tmp_path / "moved")
    shutil.move(moving.model, moved)
    for loaded in (
        pickle.loads(data),
        sk_adalora.AdaLoraClassifier.from_pretrained(tmp_path / "folder"),
    ):
        assert loaded.ranks_ == moving.ranks_  # loading needs no model
        assert str(loaded.fit_report_) == str(moving.fit_report_)
        with pytest.raises(FileNotFoundError, match=r"Got '.*model', which is no fold"):
            loaded.predict(X)
        loaded.set_params(model=moved)
        np.testing.assert_array_equal(loaded.predict_proba(X), expected)


def test_another_model_is_refused_until_the_next_fit(fitted, tiny_model, tmp_path):
    other = Path(shutil.copytree(tiny_model, tmp_path / "other"))
    flip_a_bit(other)
    loaded = pickle.loads(pickle.dumps(fitted)).set_params(model=str(other))

    with pytest.raises(ValueError, match=r"found then in '.*tiny-bert'.*Got '.*other'"):
        loaded.predict(X)
    assert loaded.fit(X, Y).score(X, Y) >= 0  # a new fit is free to take it
    loaded.set_params(model=fitted.model)  # of the one in memory just as of a file
    with pytest.raises(ValueError, match=r"found then in '.*other'.*Got '.*tiny-bert"):
        loaded.predict(X)


# ---- parameters that change after a fit -------------------------------------


def test_parameters_of_training_do_not_matter_after_it(fitted):
    expected = fitted.predict_proba(X)
    for loaded in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        loaded.set_params(
            target_r=5,
            init_r=9,
            learning_rate=1.0,
            lora_alpha=77.0,
            target_modules=["query"],
            pooling="model",
            random_state=5,
            class_weight="balanced",
        )
        np.testing.assert_array_equal(loaded.predict_proba(X), expected)
        assert clone(loaded).get_params() == loaded.get_params()


def test_the_precision_can_change_after_a_fit(fitted):
    loaded = pickle.loads(pickle.dumps(fitted)).set_params(precision="bfloat16")

    np.testing.assert_allclose(
        loaded.predict_proba(X), fitted.predict_proba(X), atol=0.05
    )
    network = loaded._ready().network
    loaded.predict(X)
    assert loaded._ready().network is network  # it is built once
    loaded.set_params(precision="float32")
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_a_loaded_estimator_can_be_fitted(fitted):
    other, labels = toy(32)
    fresh = clone(fitted).fit(other, labels).predict_proba(other)
    expected = fitted.predict_proba(X)
    for loaded in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        loaded.predict(X)
        loaded.fit(other, labels)

        assert loaded.classes_.tolist() == [0, 1]
        np.testing.assert_array_equal(loaded.predict_proba(other), fresh)
    np.testing.assert_array_equal(fitted.predict_proba(X), expected)


class Noting(sk_adalora.AdaLoraClassifier):
    """Reads an attribute of its own whenever one is set."""

    def __init__(self, model="none", *, epochs=1):
        vars(self)["noted"] = []
        super().__init__(model, epochs=epochs)

    def __setattr__(self, name, value):
        self.noted.append(name)
        super().__setattr__(name, value)


@pytest.mark.parametrize("way", ["copy", "deepcopy", "pickle"])
def test_a_copy_sets_no_attribute_before_its_state_is_there(tmp_path, way):
    made = WAYS[way](Noting(epochs=5), tmp_path)

    assert made.epochs == 5
    assert made.noted == Noting().noted
