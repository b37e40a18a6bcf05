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
from _folders import STRONG
from _process import run_python
from _toy import make, topics, toy
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import sk_adalora
from sk_adalora.estimators import predicting as _predicting
from sk_adalora.files import state as _persistence
from sk_adalora.files import versions as _file_versions
from sk_adalora.pretrained import find as _find_model
from sk_adalora.pretrained import weights as _model_files
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
    "pickle 5": by_pickle(5),
    "joblib": by_joblib(0),
    "mapped": by_joblib(0, mmap_mode="r"),
    "compressed": by_joblib(3),
    "lzma": by_joblib(("xz", 3)),
    "cloudpickle": lambda value, path: cloudpickle.loads(cloudpickle.dumps(value)),
    "deepcopy": lambda value, path: copy.deepcopy(value),
    "copy": lambda value, path: copy.copy(value),
}


@pytest.mark.parametrize("way", WAYS)
def test_there_and_back(fitted, tmp_path, way):
    loaded = WAYS[way](fitted, tmp_path)

    assert loaded.get_params() == fitted.get_params()
    for method in (
        "predict",
        "predict_proba",
        "predict_log_proba",
        "decision_function",
    ):
        np.testing.assert_array_equal(
            getattr(loaded, method)(X), getattr(fitted, method)(X)
        )
    assert loaded.ranks_ == fitted.ranks_
    assert loaded.rank_pattern_ == fitted.rank_pattern_
    assert loaded.schedule_ == fitted.schedule_
    assert loaded.history_ == fitted.history_
    assert loaded.fit_report_ == fitted.fit_report_
    assert loaded.classes_.dtype == fitted.classes_.dtype
    assert loaded.score(X, Y) == fitted.score(X, Y)


@pytest.mark.parametrize("way", WAYS)
def test_there_and_back_unfitted(tiny_model, tmp_path, way):
    unfitted = make(tiny_model)
    loaded = WAYS[way](unfitted, tmp_path)

    assert loaded.get_params() == unfitted.get_params()
    with pytest.raises(NotFittedError):
        loaded.predict(X)
    np.testing.assert_array_equal(
        loaded.fit(X, Y).predict(X), unfitted.fit(X, Y).predict(X)
    )


def test_a_second_pickle_of_a_loaded_estimator(fitted):
    once = pickle.loads(pickle.dumps(fitted))
    unused = pickle.loads(pickle.dumps(once))  # was never asked to predict
    once.predict(X)
    used = pickle.loads(pickle.dumps(once))

    for loaded in (unused, used):
        np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_pickling_changes_nothing(fitted):
    before = dict(vars(fitted))
    pickle.dumps(fitted)

    assert vars(fitted) == before


def test_several_labels_and_named_columns(tiny_model):
    table = pd.DataFrame({"a": X, "b": X[::-1]})
    y = np.eye(3, dtype=int)[np.arange(48) % 3]
    fitted = make(tiny_model, row_format="{a} {b}").fit(table, y)
    loaded = pickle.loads(pickle.dumps(fitted))

    assert loaded.feature_names_in_.tolist() == ["a", "b"]
    np.testing.assert_array_equal(loaded.predict(table), fitted.predict(table))
    with pytest.raises(ValueError, match="same order"):
        loaded.predict(table[["b", "a"]])


# ---- what is in the file ----------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_file_is_read_without_torch(fitted, protocol):
    """Nobody needs a GPU, or even torch, to look at a result."""
    fitted.predict(X)
    imported = set()

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            imported.add((module, name))
            return super().find_class(module, name)

    data = pickle.dumps(fitted, protocol)
    Reader(io.BytesIO(data)).load()

    assert ("sk_adalora.estimators.classifier", "AdaLoraClassifier") in imported
    assert ("sk_adalora.estimators.base", "_new_of_a_pickle") in imported
    roots = {module.split(".")[0] for module, _ in imported}
    assert roots <= {
        "sk_adalora",
        "numpy",
        "builtins",
        "__builtin__",
        "copy_reg",
        "_codecs",
    }
    # Nor does it hold tensors as bytes that something else would unpack.
    strings = {arg for _, arg, _ in pickletools.genops(data) if isinstance(arg, str)}
    assert not [s for s in strings if s.startswith(("torch.", "transformers."))]


def test_a_file_holds_the_adapter_and_no_backbone(fitted):
    fitted.predict(X)
    adapter = sum(array.nbytes for array in fitted._adapter.arrays.values())
    model = sum(p.numel() for p in fitted._live.network.encoder.model.parameters())
    size = len(pickle.dumps(fitted))

    assert size < adapter + 8_000  # history, ranks and report
    assert size < model * 4 / 5
    again = len(pickle.dumps(pickle.loads(pickle.dumps(fitted))))
    assert again == pytest.approx(size, rel=0.02)  # strings are shared otherwise
    assert {a.dtype for a in fitted._adapter.arrays.values()} == {np.dtype("float32")}


def test_a_file_does_not_grow_with_the_data(tiny_model):
    small, large = (
        make(tiny_model, epochs=4, batch_size=n).fit(*toy(n)) for n in (32, 512)
    )

    assert abs(len(pickle.dumps(small)) - len(pickle.dumps(large))) < 3_000


def test_a_file_holds_no_row(tiny_model):
    texts = [f"secret {text}" for text in X]
    fitted = make(tiny_model, early_stopping=True).fit(texts, Y)
    fitted.predict(texts)

    assert b"secret" not in pickle.dumps(fitted)


def test_a_file_says_what_wrote_it(fitted):
    state = pickle.loads(pickle.dumps(fitted))._adapter

    assert state.format == _file_versions.FORMAT == 1
    assert set(state.versions) == {
        "python",
        "sk-adalora",
        "torch",
        "transformers",
        "scikit-learn",
        "numpy",
    }
    assert state.content_hash == content_hash(Path(state.found_in))


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
    assert "_live" not in vars(fitted)
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


def test_the_network_is_built_once(fitted, monkeypatch):
    built = []
    rebuild = _predicting.rebuild_network
    monkeypatch.setattr(
        _predicting, "rebuild_network", lambda *args: built.append(1) or rebuild(*args)
    )
    loaded = pickle.loads(pickle.dumps(fitted))
    for _ in range(3):
        loaded.predict(X[:2])
    assert built == [1]

    loaded.set_params(precision="bfloat16")
    loaded.predict(X[:2])
    assert built == [1, 1]


def test_what_a_fit_leaves_is_what_is_listed(fitted):
    left = _persistence.fitted_attributes(
        fitted._adapter, fitted.schedule_, fitted.history_, fitted.fit_report_
    )

    assert left.keys() == _persistence.OF_A_FIT
    assert {name: vars(fitted)[name] for name in left} == left


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
    ("module", "closed"),
    [(_model_files, "weight_files"), (_find_model, "content_hash")],
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
        loaded.set_params(device="cpu").predict(X),
        fitted.predict(X),
    )


def test_loading_and_predicting_use_no_network(fitted, monkeypatch):
    data = pickle.dumps(fitted)
    expected = fitted.predict(X)
    sk_adalora.clear_backbone_cache()

    def connect(*args, **kwargs):
        raise AssertionError("connected")

    monkeypatch.setattr(socket.socket, "connect", connect)
    np.testing.assert_array_equal(pickle.loads(data).predict(X), expected)


def test_loading_reads_no_model(moving):
    data = pickle.dumps(moving)
    shutil.rmtree(moving.model)
    loaded = pickle.loads(data)

    assert loaded.ranks_ == moving.ranks_
    assert repr(loaded) == repr(moving)
    assert str(loaded.fit_report_) == str(moving.fit_report_)


# ---- the model is another, or elsewhere -------------------------------------


def test_a_model_that_moved(moving, tmp_path):
    expected = moving.predict_proba(X)
    data = pickle.dumps(moving)
    sk_adalora.clear_backbone_cache()
    moved = str(tmp_path / "moved")
    shutil.move(moving.model, moved)
    loaded = pickle.loads(data)

    with pytest.raises(FileNotFoundError, match=r"Got '.*model', which is no folder"):
        loaded.predict(X)
    loaded.set_params(model=moved)
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)


def flip_a_bit(model):
    """Change the weights in a model's folder."""
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def test_a_model_that_changed(moving):
    loaded = pickle.loads(pickle.dumps(moving))
    before = content_hash(Path(moving.model))
    flip_a_bit(Path(moving.model))
    after = content_hash(Path(moving.model))

    with pytest.raises(ValueError, match="must be the one that the estimator was") as e:
        loaded.predict(X)
    message = str(e.value)
    assert before in message
    assert after in message
    assert message.count(str(Path(moving.model).resolve())) >= 2
    # The one that holds the model of training goes on with it.
    assert np.isfinite(moving.predict_proba(X)).all()


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


def test_a_file_of_a_later_version(fitted):
    later = copy.copy(fitted)
    later._adapter = dataclasses.replace(
        fitted._adapter, format=2, versions={"sk-adalora": "9.9"}
    )
    file = pickle.dumps(later)

    match = (
        r"of format 1 or before\. Got format 2, of sk-adalora '9\.9'\. Install a newer"
    )
    with pytest.raises(ValueError, match=match):
        pickle.loads(file)


@pytest.mark.parametrize("record", ["_adapter", "schedule_", "history_", "fit_report_"])
def test_a_record_of_a_later_version(fitted, record):
    state = fitted.__getstate__()
    state["_adapter"]["versions"] = {"sk-adalora": "9.9"}
    state[record]["later"] = 1
    loaded = object.__new__(type(fitted))

    match = r"Got \['later'\] too, of sk-adalora '9\.9'\. Install a newer sk-adalora"
    with pytest.raises(ValueError, match=match):
        loaded.__setstate__(state)


@pytest.mark.parametrize("record", ["_adapter", "schedule_", "history_", "fit_report_"])
def test_a_record_without_a_field(fitted, record):
    for name in vars(vars(fitted)[record]):
        state = fitted.__getstate__()
        del state[record][name]
        match = rf"hold the fields of .*Got them without \['{name}'\].*copy it again"
        with pytest.raises(ValueError, match=match):
            object.__new__(type(fitted)).__setstate__(state)


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
    loaded.set_params(precision="float32")
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_a_loaded_estimator_can_be_fitted(fitted):
    loaded = pickle.loads(pickle.dumps(fitted))
    loaded.predict(X)
    other, labels = toy(32)
    loaded.fit(other, labels)

    assert loaded.classes_.tolist() == [0, 1]
    np.testing.assert_array_equal(
        loaded.predict_proba(other),
        clone(fitted).fit(other, labels).predict_proba(other),
    )


def test_copies_are_independent(tiny_model):
    original = make(tiny_model).fit(X, Y)
    expected = original.predict_proba(X)
    copied = copy.deepcopy(original)
    copied.fit(*toy(32))

    np.testing.assert_array_equal(original.predict_proba(X), expected)
    assert original.classes_.tolist() == ["art", "business", "sport"]


class Noting(sk_adalora.AdaLoraClassifier):
    """Reads an attribute of its own whenever one is set."""

    def __init__(self, model="none", *, epochs=1):
        vars(self)["noted"] = []
        super().__init__(model, epochs=epochs)

    def __setattr__(self, name, value):
        self.noted.append(name)
        super().__setattr__(name, value)


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_sets_no_attribute_before_its_state_is_there(again):
    made = again(Noting(epochs=5))

    assert made.epochs == 5
    assert made.noted == Noting().noted
