"""The folder of a pretrained model that was changed after the fit."""

import json
import pickle

import pytest
from _toy import make, toy

from sk_adalora.adalora import untrusted
from sk_adalora.pretrained import backbone as _backbone

X, Y = toy(24)


@pytest.fixture
def loaded(own_model, empty_cache):
    """An estimator that comes from a pickle, and has not read its model yet."""
    written = pickle.dumps(make(str(own_model)).fit(X, Y))
    _backbone.clear_backbone_cache()
    return pickle.loads(written)


def change(folder, **changed):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf8")) | changed), "utf8")


CHANGED = {
    # Names of labels may change, so they are not compared.
    "labels": ({"num_labels": 3_000_000}, "at most 100000 of `num_labels`"),
    "names": (
        {"id2label": {str(i): "a" for i in range(100_001)}},
        "at most 100000 of `id2label`",
    ),
    "layers": ({"num_hidden_layers": 10**6}, "at most 1000 of `num_hidden_layers`"),
    "positions": ({"text_config": {"n_positions": 10**9}}, "of `n_positions`"),
    "other layers": ({"num_hidden_layers": 900}, "900 instead of 2"),
    "other width": ({"hidden_size": 10**6}, "1000000 instead of 32"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_changed_settings_are_refused_before_they_are_parsed(
    loaded, own_model, monkeypatch, case
):
    changed, match = CHANGED[case]
    change(own_model, **changed)
    monkeypatch.setattr(_backbone, "read_pretrained", None)  # would be a TypeError

    with pytest.raises(ValueError, match=match):
        loaded.predict(X)


def test_other_weights_are_refused_before_they_are_parsed(
    loaded, own_model, monkeypatch
):
    with (own_model / "model.safetensors").open("ab") as file:
        file.write(b"more")
    monkeypatch.setattr(_backbone, "read_pretrained", None)

    with pytest.raises(ValueError, match=r"found then in .* with SHA-256"):
        loaded.predict(X)


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_a_model_that_is_larger_than_its_files_is_refused(own_model, pooling):
    """What the files lack would be drawn: here, vectors of 300 million tokens."""
    change(own_model, vocab_size=300_000_000)

    with pytest.raises(ValueError, match=r"settings ask for \d+ bytes of numbers"):
        make(str(own_model), pooling=pooling).fit(X, Y)


def test_a_list_of_too_many_tensors_is_refused(own_model, monkeypatch):
    monkeypatch.setattr(untrusted, "MAX_TENSORS", 10)

    with pytest.raises(ValueError, match="list at most 10 tensors"):
        make(str(own_model)).fit(X, Y)
