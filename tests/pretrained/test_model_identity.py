"""A pretrained model whose settings or vocabulary changed is another model."""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import transformers
from _toy import make, toy

import sk_adalora
from sk_adalora import AdaLoraClassifier
from sk_adalora.pretrained import identity as _model_identity
from sk_adalora.pretrained.backbone import load_backbone
from sk_adalora.pretrained.identity import (
    changed_settings,
    read_settings,
    vocabulary_hash,
)
from sk_adalora.runtime.devices import resolve_place

pytestmark = pytest.mark.usefixtures("empty_cache")

PLACE = resolve_place("cpu", "float32")
X, Y = toy(32)


def change(path, **values):
    """Set values in a JSON file; ... deletes one."""
    settings = json.loads(path.read_text()) | values
    kept = {name: value for name, value in settings.items() if value is not ...}
    path.write_text(json.dumps(kept))


def save_and_load(how, estimator, tmp_path):
    """Save an estimator without its model, and load it."""
    if how == "pickle":
        return pickle.loads(pickle.dumps(estimator))
    estimator.save_pretrained(tmp_path / "saved")
    return AdaLoraClassifier.from_pretrained(tmp_path / "saved")


# ---- settings ---------------------------------------------------------------


@pytest.mark.parametrize("how", ["pickle", "folder"])
@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"num_attention_heads": 4}, "num_attention_heads: 4 instead of 2"),
        ({"hidden_act": "relu"}, "hidden_act: 'relu' instead of 'gelu'"),
        ({"layer_norm_eps": 0.5}, "layer_norm_eps: 0.5 instead of 1e-12"),
    ],
)
def test_other_settings_are_refused(own_model, tmp_path, how, values, match):
    fitted = make(str(own_model)).fit(X, Y)
    loaded = save_and_load(how, fitted, tmp_path)
    change(own_model / "config.json", **values)

    with pytest.raises(ValueError, match=r"config\.json of the pre") as raised:
        loaded.predict(X)
    assert match in str(raised.value)
    assert str(own_model.resolve()) in str(raised.value)


def test_what_changes_no_output_may_change(own_model):
    fitted = make(str(own_model)).fit(X, Y)
    expected = fitted.predict_proba(X)
    loaded = pickle.loads(pickle.dumps(fitted))
    change(
        own_model / "config.json",
        _name_or_path="elsewhere",
        transformers_version="4.8.2",
        architectures=["BertForMaskedLM"],
        torch_dtype="float16",
        dtype=...,
        id2label={"0": "a", "1": "b", "2": "c"},
        label2id={"a": 0, "b": 1, "c": 2},
        use_cache=False,
        initializer_range=0.5,
        layer_norm_eps=...,  # as it is by default
    )
    sk_adalora.clear_backbone_cache()

    np.testing.assert_array_equal(loaded.predict_proba(X), expected)


def test_all_entries_as_transformers_writes_them(own_model):
    """Some programs write those too that are as they are by default."""
    before = read_settings(own_model)
    config = transformers.AutoConfig.from_pretrained(own_model)
    config.to_json_file(own_model / "config.json", use_diff=False)
    after = read_settings(own_model)

    assert len(after) > len(before)
    assert changed_settings(before, after) == {}
    assert changed_settings(after, before) == {}


REWRITTEN = {
    # As version 4 of transformers wrote them.
    "llama": {"rope_theta": 10000.0, "rope_scaling": None, "pretraining_tp": 1},
    "modernbert": {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0},
}


@pytest.mark.parametrize("kind", REWRITTEN)
def test_what_another_version_of_transformers_wrote(tmp_path, kind):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.AutoConfig.for_model(kind, **sizes)
    config.save_pretrained(tmp_path)
    now = read_settings(tmp_path)
    then = {n: v for n, v in now.items() if n not in ("rope_parameters", "layer_types")}
    then |= REWRITTEN[kind]

    assert then != now
    assert changed_settings(then, now) == {}
    assert changed_settings(now, then) == {}
    assert "hidden_size" in changed_settings(then | {"hidden_size": 64}, now)


def test_what_only_one_has_or_what_is_none_is_no_difference():
    then = {"model_type": "llama", "head_dim": None, "rope": {"theta": 1.0}}
    now = {"model_type": "llama", "head_dim": 16, "rope": {"factor": 2.0}, "new": True}

    assert changed_settings(then, now) == changed_settings(now, then) == {}


def test_whole_numbers_may_be_written_as_fractions():
    then = {"model_type": "bert", "hidden_dropout_prob": 0, "max": [1, 2]}

    assert (
        changed_settings(then, then | {"hidden_dropout_prob": 0.0, "max": [1.0, 2]})
        == {}
    )


def test_a_number_of_labels_is_not_compared():
    now = {"model_type": "modernbert", "num_labels": 2, "sizes": {"num_labels": 2}}
    then = now | {"num_labels": 10**7, "sizes": {"num_labels": 3}}

    assert changed_settings(then, now) == {}


def test_settings_of_a_part(own_model):
    parts = {"text_config": {"num_hidden_layers": 2, "dtype": "float16"}}
    change(own_model / "config.json", **parts)
    before = read_settings(own_model)
    parts["text_config"]["dtype"] = "float32"
    change(own_model / "config.json", **parts)
    assert changed_settings(before, read_settings(own_model)) == {}

    parts["text_config"]["num_hidden_layers"] = 3
    change(own_model / "config.json", **parts)
    changed = changed_settings(before, read_settings(own_model))
    assert changed == {"text_config.num_hidden_layers": "3 instead of 2"}


def test_only_some_of_many_changes_are_listed(own_model):
    change(own_model / "config.json", **{f"size_{i}": i for i in range(1000)})
    loaded = pickle.loads(pickle.dumps(make(str(own_model)).fit(X, Y)))
    change(own_model / "config.json", **{f"size_{i}": -1 - i for i in range(1000)})

    with pytest.raises(ValueError, match=r"size_1: -2 instead of 1, .*, 997 more"):
        loaded.predict(X)


def test_lists_are_compared_whole():
    then = {"layer_types": ["full", "sliding"]}

    changed = changed_settings(then, {"layer_types": ["full", "full"]})
    assert list(changed) == ["layer_types"]


def test_an_infinite_setting_is_saved_and_loaded(own_model, tmp_path):
    """Some state space models limit a step to at most Infinity."""
    change(own_model / "config.json", limit=[0.0, float("inf")], other=float("nan"))
    fitted = make(str(own_model)).fit(X, Y)
    loaded = save_and_load("folder", fitted, tmp_path)

    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


# ---- tokens -----------------------------------------------------------------


def fold_case(folder, lowercase):
    """Let the tokenizer of a folder lower all letters, or leave them."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = folder / name
        settings = json.loads(path.read_text())
        if name == "tokenizer.json":
            settings["normalizer"]["lowercase"] = lowercase
        else:
            settings["do_lower_case"] = lowercase
        path.write_text(json.dumps(settings))


def exchange(folder, one, other):
    """Exchange the ids of two tokens."""
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text())
    tokens = settings["model"]["vocab"]
    tokens[one], tokens[other] = tokens[other], tokens[one]
    path.write_text(json.dumps(settings))


def test_a_tokenizer_that_changes_is_read_again(own_model):
    before = load_backbone(own_model, PLACE)
    fold_case(own_model, lowercase=False)
    after = load_backbone(own_model, PLACE)

    assert after is not before
    assert after.content_hash == before.content_hash
    assert after.tokenizer_hash != before.tokenizer_hash
    assert after.vocabulary_hash == before.vocabulary_hash


def test_files_that_say_the_same_make_the_same_tokenizer(own_model):
    before = load_backbone(own_model, PLACE)
    path = own_model / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=7))
    after = load_backbone(own_model, PLACE)

    assert after is not before
    assert after.tokenizer_hash == before.tokenizer_hash
    assert after.vocabulary_hash == before.vocabulary_hash


@pytest.mark.parametrize("how", ["pickle", "folder"])
@pytest.mark.parametrize("what", ["splits otherwise", "other ids", "cuts otherwise"])
def test_another_tokenizer_is_refused(own_model, tmp_path, how, what):
    loaded = save_and_load(how, make(str(own_model)).fit(X, Y), tmp_path)
    if what == "other ids":
        exchange(own_model, "good", "bad")
    elif what == "cuts otherwise":
        change(own_model / "tokenizer_config.json", truncation_side="left")
    else:
        fold_case(own_model, lowercase=False)

    with pytest.raises(ValueError, match="tokenizer must make the tokens of texts"):
        loaded.predict(X)


def test_tokens_that_are_added_are_no_part_of_the_vocabulary(own_model):
    tokenizer = transformers.AutoTokenizer.from_pretrained(own_model)
    before = vocabulary_hash(tokenizer)
    tokenizer.add_tokens(["a new one"])

    assert vocabulary_hash(tokenizer) == before


@pytest.mark.parametrize("error", [NotImplementedError, AttributeError, TypeError])
def test_a_tokenizer_that_tells_no_vocabulary(error):
    class Own:
        def get_vocab(self):
            raise error

    assert vocabulary_hash(Own()) is None


def test_a_vocabulary_that_there_is_no_memory_for(monkeypatch, tiny_model):
    """What is kept must not say that there is none: later, there would be one."""
    backbone = load_backbone(tiny_model, PLACE)

    def fail(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(_model_identity, "_hash", fail)
    with pytest.raises(MemoryError):
        vocabulary_hash(backbone.tokenizer)


def test_a_tokenizer_whose_tokens_are_bytes():
    first, same, other = (
        SimpleNamespace(get_vocab=vocabulary.copy)
        for vocabulary in (
            {b"a": 0, "<end>": 1, b"b": 2},
            {"<end>": 1, b"b": 2, b"a": 0},
            {"<end>": 1, b"b": 0, b"a": 2},
        )
    )
    assert vocabulary_hash(first) == vocabulary_hash(same)
    assert vocabulary_hash(first) != vocabulary_hash(other)


def test_a_tokenizer_without_a_file_of_its_vocabulary():
    tokenizer = transformers.ByT5Tokenizer()

    assert vocabulary_hash(tokenizer) == vocabulary_hash(transformers.ByT5Tokenizer())
    assert vocabulary_hash(tokenizer) != vocabulary_hash(
        transformers.ByT5Tokenizer(extra_ids=7)
    )
