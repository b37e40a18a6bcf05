"""Estimators on the hub: there and back, with whose access, and nothing else sent."""

import errno
import os
import pickle
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import transformers
from _folders import STRONG, bytes_of
from _toy import make, topics
from huggingface_hub.utils import filter_repo_objects

import sk_adalora
from sk_adalora import AdaLoraClassifier
from sk_adalora.files.layout import HEAD_NAME

X, Y = topics(48)


# ---- the hub ----------------------------------------------------------------


class Hub:
    """Stands in for the hub: repositories are folders of one folder."""

    def __init__(self, root):
        self.root, self.calls = root, []

    def snapshot_download(
        self, repo_id, *, revision=None, local_files_only=False, allow_patterns=None
    ):
        self.calls.append(("download", repo_id, revision))
        if "/" not in repo_id:
            raise huggingface_hub.errors.HFValidationError("no such name")
        snapshot = self.root / repo_id / "snapshots" / (revision or "main")
        cached = self.root / "cache" / repo_id / "snapshots" / snapshot.name
        if not (cached if local_files_only else snapshot).is_dir():
            raise huggingface_hub.errors.LocalEntryNotFoundError("not there")
        if local_files_only:
            return str(cached)
        files = (p for p in snapshot.rglob("*") if p.is_file())
        names = [path.relative_to(snapshot).as_posix() for path in files]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            (cached / name).parent.mkdir(parents=True, exist_ok=True)
            if not (cached / name).exists():
                blobs = self.root / "cache" / repo_id / "blobs"
                blobs.mkdir(exist_ok=True)
                target = Path(os.readlink(snapshot / name))
                shutil.copy(target, blobs / target.name)
                (cached / name).symlink_to(blobs / target.name)
        return str(cached)

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
        self.calls.append(("create", repo_id, private, exist_ok))
        whole = repo_id if "/" in repo_id else f"me/{repo_id}"
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{whole}")

    def create_branch(self, repo_id, *, branch, exist_ok=False):
        self.calls.append(("branch", repo_id, branch, exist_ok))
        self.refuse_bare(repo_id)

    def refuse_bare(self, repo_id):
        if "/" not in repo_id:
            raise huggingface_hub.errors.RepositoryNotFoundError(
                "404 Client Error", response=ANSWER
            )

    def file_exists(self, repo_id, filename, *, revision=None):
        self.refuse_bare(repo_id)
        snapshot = self.root / repo_id / "snapshots" / (revision or "main")
        return (snapshot / filename).exists()

    def upload_folder(
        self, *, repo_id, folder_path, revision, commit_message, delete_patterns=None
    ):
        self.calls.append(("upload", repo_id, revision, commit_message))
        self.refuse_bare(repo_id)
        blobs = self.root / repo_id / "blobs"
        snapshot = self.root / repo_id / "snapshots" / (revision or "main")
        if delete_patterns is not None:
            there = bytes_of(snapshot)
            for name in filter_repo_objects(there, allow_patterns=delete_patterns):
                (snapshot / name).unlink()
        # As in the hub's cache: links to files that are named by their content.
        for name, data in bytes_of(folder_path).items():
            blob = blobs / f"{name.replace('/', '-')}-{hash(data)}"
            blobs.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(data)
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).unlink(missing_ok=True)
            (snapshot / name).symlink_to(blob)
        return f"https://hub.example/{repo_id}/commit/1"


ANSWER = SimpleNamespace(headers={}, request=None)  # of the hub
# What a download may raise although there is such a repository.
REFUSALS = [
    OSError(errno.ENOSPC, "No space left on device"),
    PermissionError(errno.EACCES, "Permission denied"),
    huggingface_hub.errors.GatedRepoError("Agree to its terms", response=ANSWER),
    huggingface_hub.errors.HfHubHTTPError("Server error", response=ANSWER),
]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    stand_in = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: stand_in)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", stand_in.snapshot_download
    )
    return stand_in


def test_to_the_hub_and_back(fitted, hub):
    address = fitted.push_to_hub("me/topics", private=True)
    loaded = AdaLoraClassifier.from_pretrained("me/topics")

    assert address == "https://hub.example/me/topics/commit/1"
    calls = [call[0] for call in hub.calls]
    assert calls == ["create", "upload", "download"]
    assert hub.calls[0] == ("create", "me/topics", True, True)
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize("revision", [None, "v2"])
def test_a_name_without_a_user_is_one_of_the_user_s_own(fitted, hub, revision):
    address = fitted.push_to_hub("topics", revision=revision)
    loaded = AdaLoraClassifier.from_pretrained("me/topics", revision=revision)

    assert address == "https://hub.example/me/topics/commit/1"
    assert hub.calls[0] == ("create", "topics", None, True)
    assert loaded.ranks_ == fitted.ranks_


def test_a_branch_of_the_hub(fitted, hub):
    fitted.push_to_hub("me/topics", revision="v2", commit_message="Better")
    loaded = AdaLoraClassifier.from_pretrained("me/topics", revision="v2")

    assert ("branch", "me/topics", "v2", True) in hub.calls
    assert ("upload", "me/topics", "v2", "Better") in hub.calls
    assert loaded.ranks_ == fitted.ranks_
    with pytest.raises(FileNotFoundError, match="or is out of reach"):
        AdaLoraClassifier.from_pretrained("me/topics")


def test_the_network_can_be_left_out(fitted, hub):
    fitted.push_to_hub("me/topics")
    match = "Got 'me/topics', which is neither, or is not in the local cache"
    with pytest.raises(FileNotFoundError, match=match):
        AdaLoraClassifier.from_pretrained("me/topics", local_files_only=True)
    assert not (hub.root / "cache").exists()

    as_saved = AdaLoraClassifier.from_pretrained("me/topics")
    loaded = AdaLoraClassifier.from_pretrained("me/topics", local_files_only=True)
    assert as_saved.model_kwargs is None
    assert loaded.model_kwargs == {"local_files_only": True}
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize("error", REFUSALS, ids=lambda e: type(e).__name__)
def test_what_is_not_absence_keeps_its_words(tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    for use in (
        lambda: AdaLoraClassifier.from_pretrained("me/topics"),
        lambda: AdaLoraClassifier("me/model").fit(X, Y),
    ):
        with pytest.raises(type(error), match=re.escape(str(error))) as raised:
            use()
        assert raised.value is error


def test_a_complete_folder_on_the_hub(tiny_model, tmp_path, hub):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    fitted = make(str(model), **STRONG).fit(X, Y)
    expected = fitted.predict_proba(X)
    fitted.push_to_hub("me/complete", include_backbone=True)
    shutil.rmtree(model)
    sk_adalora.clear_backbone_cache()
    loaded = AdaLoraClassifier.from_pretrained("me/complete")

    np.testing.assert_array_equal(loaded.predict_proba(X), expected)


@pytest.fixture(scope="module")
def in_several_files(tiny_model, tmp_path_factory):
    """The tiny model with its weights in several files. Do not write into it."""
    model = transformers.AutoModel.from_pretrained(tiny_model)
    folder = tmp_path_factory.mktemp("several") / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len([*folder.glob("*.safetensors")]) > 1
    return str(folder)


@pytest.mark.parametrize("branch", ["main", "v2"])
def test_nothing_is_left_of_what_was_pushed_before(
    fitted, in_several_files, tmp_path, hub, branch
):
    revision = None if branch == "main" else branch
    own_head = make(in_several_files, pooling="model").fit(X, Y)
    snapshot = hub.root / "me" / "topics" / "snapshots" / branch
    snapshot.mkdir(parents=True)
    (snapshot / "notes.md").write_text("mine")
    pushes = [(own_head, True), (fitted, True), (own_head, False)]
    for i, (estimator, complete) in enumerate(pushes):
        estimator.push_to_hub("me/topics", revision=revision, include_backbone=complete)
        estimator.save_pretrained(tmp_path / f"{i}", include_backbone=complete)

        names = bytes_of(tmp_path / f"{i}").keys()
        assert bytes_of(snapshot).keys() == names | {"notes.md"}
    loaded = AdaLoraClassifier.from_pretrained("me/topics", revision=revision)
    np.testing.assert_array_equal(loaded.predict_proba(X), own_head.predict_proba(X))


def test_a_repository_of_something_else_loses_no_file(fitted, hub):
    other = hub.root / "me" / "model" / "snapshots" / "main"
    (other / "backbone").mkdir(parents=True)
    for name in ("config.json", "backbone/mine.txt"):
        (other / name).write_text("{}")
    fitted.push_to_hub("me/model", revision="v2")  # there is one of ours now
    fitted.push_to_hub("me/model")

    assert {"config.json", "backbone/mine.txt"} <= bytes_of(other).keys()


def test_a_snapshot_with_a_link_out_of_its_repository(fitted, hub, tmp_path):
    fitted.push_to_hub("me/topics")
    AdaLoraClassifier.from_pretrained("me/topics")
    head = hub.root / "cache" / "me" / "topics" / "snapshots" / "main" / HEAD_NAME
    outside = shutil.copy(head, tmp_path / "outside")
    head.unlink()
    head.symlink_to(outside)

    with pytest.raises(ValueError, match=r"'head.* which links to a place outside"):
        AdaLoraClassifier.from_pretrained("me/topics")


def test_only_files_of_an_estimator_are_fetched(fitted, hub):
    fitted.push_to_hub("me/topics", include_backbone=True)
    snapshot = hub.root / "me" / "topics" / "snapshots" / "main"
    for name in ("big.bin", "modeling.py", "backbone/modeling.py"):
        (snapshot / name).symlink_to((snapshot / HEAD_NAME).resolve())
    cached = hub.root / "cache" / "me" / "topics" / "snapshots" / "main"
    AdaLoraClassifier.from_pretrained("me/topics")
    fetched = bytes_of(cached)

    assert {HEAD_NAME, "sk_adalora.json", "README.md"} <= fetched.keys()
    assert {"backbone/tokenizer.json", "backbone/model.safetensors"} <= fetched.keys()
    assert not [name for name in fetched if name.endswith((".bin", ".py"))]
    # Code comes along only for those who ask for it, and never beside the adapter.
    AdaLoraClassifier.from_pretrained("me/topics", trust_remote_code=True)
    assert bytes_of(cached).keys() - fetched.keys() == {"backbone/modeling.py"}


def test_a_repository_of_something_else(hub):
    other = hub.root / "me" / "model" / "snapshots" / "main"
    other.mkdir(parents=True)
    (other / "config.json").write_text("{}")

    with pytest.raises(FileNotFoundError, match=r"must hold sk_adalora\.json"):
        AdaLoraClassifier.from_pretrained("me/model")


# ---- tokens -----------------------------------------------------------------

TOKEN = "hf_MarkerThatMustNotBeFoundAnywhere"


def test_no_token_anywhere(tiny_model, tmp_path, monkeypatch, hub, caplog, capfd):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    caplog.set_level(0)
    fitted = make(tiny_model).fit(X, Y)
    fitted.save_pretrained(tmp_path / "f", include_backbone=True)
    fitted.export_lora(tmp_path / "l")
    fitted.merge_and_save(tmp_path / "m")
    fitted.push_to_hub("me/topics")
    loaded = AdaLoraClassifier.from_pretrained("me/topics")
    loaded.predict(X)
    shown = capfd.readouterr()

    written = {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert len(written) > 20
    assert not [name for name, data in written.items() if TOKEN.encode() in data]
    assert TOKEN.encode() not in pickle.dumps(fitted) + pickle.dumps(loaded)
    for text in (repr(fitted), repr(loaded.get_params()), caplog.text, *shown):
        assert TOKEN not in text
    assert not [name for name in fitted.get_params() if "token" in name]


def test_nothing_is_shown(fitted, tmp_path, capfd):
    fitted.save_pretrained(tmp_path / "f", include_backbone=True)
    fitted.merge_and_save(tmp_path / "m")
    AdaLoraClassifier.from_pretrained(tmp_path / "f").predict(X)

    assert "".join(capfd.readouterr()) == ""
