"""What of a pretrained model is hashed, compared and copied, and what is refused."""

import hashlib
import json
import os
import pickle
import shutil
import time
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from _tiny_model import random_bert
from _toy import make, toy
from safetensors.torch import load_file, save_file

import sk_adalora
from sk_adalora import AdaLoraClassifier
from sk_adalora.pretrained.backbone import load_backbone
from sk_adalora.pretrained.weights import (
    changed_settings,
    check_folder,
    content_hash,
    copy_backbone,
    file_hashes,
    has_vocabulary,
    lies_in,
    read_settings,
    tokenizer_hash,
    weight_names,
)
from sk_adalora.runtime.devices import resolve_compute

pytestmark = pytest.mark.usefixtures("empty_cache")

CPU = resolve_compute("cpu", "float32")
X, Y = toy(32)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def change(path, **values):
    """Set values in a JSON file; ... deletes one."""
    settings = json.loads(path.read_text()) | values
    kept = {name: value for name, value in settings.items() if value is not ...}
    path.write_text(json.dumps(kept))


# ---- which files ------------------------------------------------------------


def test_the_hash_of_one_file_is_the_published_one(tiny_model):
    folder = Path(tiny_model)
    assert weight_names(folder) == ["model.safetensors"]
    assert content_hash(folder) == sha256((folder / "model.safetensors").read_bytes())


def test_the_hash_of_several_files_depends_on_each(own_model):
    module = random_bert(own_model, seed=0)
    (own_model / "model.safetensors").unlink()
    module.save_pretrained(own_model, max_shard_size="50KB")
    names = weight_names(own_model)
    assert len(names) > 1
    lines = [sha256((own_model / name).read_bytes()) for name in names]
    expected = sha256("\n".join(lines).encode())

    assert content_hash(own_model) == expected
    for name in names:
        held = (own_model / name).read_bytes()
        (own_model / name).write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
        assert content_hash(own_model) != expected
        (own_model / name).write_bytes(held)
    assert set(make(own_model).fit(X, Y).predict(X)) <= {0, 1}


OTHERS = [
    "model.fp16.safetensors",
    "consolidated.safetensors",  # Mistral's second copy
    "pytorch_model.generator.bin",  # DeBERTa's
    "training_args.bin",
]


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_the_weights_are_what_transformers_reads(own_model, tmp_path, weights):
    """Whether another program has fetched other files into a cache changes nothing."""
    if weights == "pytorch_model.bin":
        torch.save(random_bert(own_model, seed=0).state_dict(), own_model / weights)
        (own_model / "model.safetensors").unlink()
    before = content_hash(own_model)
    others = [*OTHERS, *(["pytorch_model.bin"] if "safe" in weights else [])]
    for name in others:
        (own_model / name).touch()
    copy_backbone(own_model, tmp_path / "copy")

    assert content_hash(own_model) == content_hash(tmp_path / "copy") == before
    copied = {path.name for path in (tmp_path / "copy").iterdir()}
    assert copied.isdisjoint(others)
    load_backbone(own_model, CPU)  # transformers does not look at the empty files


@pytest.mark.parametrize("replace", [os.replace, shutil.copy2])
def test_another_file_of_the_same_time_and_size_is_hashed_anew(
    own_model, tmp_path, replace
):
    """As archives with fixed times unpack it."""
    weights, other = own_model / "model.safetensors", tmp_path / "other"
    numbers = bytearray(weights.read_bytes())
    numbers[-1] ^= 1
    other.write_bytes(numbers)
    for path in (weights, other):
        os.utime(path, (0, 0))
    before = content_hash(own_model)
    time.sleep(0.05)  # some file systems count time in such steps
    replace(other, weights)

    assert content_hash(own_model) != before


VOCABULARIES = [
    *("vocab.txt", "vocab.json", "tokenizer.json", "tekken.json", "spiece.model"),
    *("source.spm", "prophetnet.tokenizer", "bpe.codes", "qwen.tiktoken"),
]


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_vocabulary_of_any_form_is_found(tmp_path, name):
    folder = tmp_path / "model"
    folder.mkdir()
    for other in ("config.json", "added.txt"):
        (folder / other).touch()
    assert not has_vocabulary(folder)
    (folder / name).touch()
    assert has_vocabulary(folder)

    copy_backbone(folder, tmp_path / "copy")
    assert sorted(os.listdir(tmp_path / "copy")) == sorted(os.listdir(folder))
    assert [n for n, _ in file_hashes(folder)] == sorted(os.listdir(folder))


@pytest.mark.parametrize("with_code", [False, True])
def test_files_are_copied_and_folders_are_not(own_model, tmp_path, with_code):
    """A link of the hub's cache is a file; code comes along if it is asked for."""
    (own_model / "older.json").mkdir()
    (own_model / "modeling_own.py").touch()
    (own_model / "config.json").rename(tmp_path / "settings")
    (own_model / "config.json").symlink_to(tmp_path / "settings")
    copy_backbone(own_model, tmp_path / "copy", with_code=with_code)

    copied = {path.name: path.is_symlink() for path in (tmp_path / "copy").iterdir()}
    assert copied["config.json"] is False
    assert "older.json" not in copied
    assert ("modeling_own.py" in copied) == with_code
    assert {"config.json", "modeling_own.py"} < dict(file_hashes(own_model)).keys()


@pytest.mark.parametrize("there", [True, False])
def test_a_model_lies_in_itself_and_in_the_folders_above_it(tmp_path, there):
    """Also through a link, and where another writer has just moved it away."""
    for name in ("real", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    inside = Path("saved", "model")
    if there:
        (tmp_path / "real" / inside).mkdir(parents=True)
    models = [tmp_path / name / inside for name in ("real", "link")]
    for model, other in product(models, models):
        assert lies_in(model, other)
        assert lies_in(model, other.parent)
        assert not lies_in(model, other / "within")
        assert not lies_in(model, tmp_path / "other")


# ---- what a folder names ----------------------------------------------------


def point_to(folder, *names):
    """Have an index name files, each for one half of the weights."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    of = {key: names[i % len(names)] for i, key in enumerate(tensors)}
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        part = {key: tensors[key] for key, file in of.items() if file == name}
        save_file(part, folder / name, metadata={"format": "pt"})
    path.unlink()
    index = {"metadata": {}, "weight_map": of}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["parts/a.bin", "{tmp}/a.bin", "x" * 300, "", 7])
def test_an_index_of_weights_elsewhere_is_refused(own_model, tmp_path, name):
    """They would not be hashed."""
    (own_model / "model.safetensors").unlink()
    named = name.format(tmp=tmp_path) if isinstance(name, str) else name
    index = {"metadata": {}, "weight_map": {"x": named}}
    (own_model / "pytorch_model.bin.index.json").write_text(json.dumps(index))

    with pytest.raises(ValueError, match=r"must be files of its folder.* which names"):
        load_backbone(own_model, CPU)


def test_an_index_of_weights_in_the_folder(own_model):
    expected = load_backbone(own_model, CPU).module.state_dict()
    sk_adalora.clear_backbone_cache()
    point_to(own_model, "model-1.safetensors", "model-2.safetensors")

    found = load_backbone(own_model, CPU).module.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("index", [None, "{", "[]", '{"weight_map": {}}'])
def test_a_folder_without_weights(own_model, index):
    (own_model / "model.safetensors").unlink()
    if index is not None:
        (own_model / "model.safetensors.index.json").write_text(index)

    with pytest.raises(ValueError, match=r"must hold weights\. Got .*own"):
        load_backbone(own_model, CPU)


def test_a_file_that_is_replaced_is_refused_before_it_is_copied(own_model, tmp_path):
    fitted = make(str(own_model)).fit(X, Y)
    random_bert(own_model, seed=1).save_pretrained(own_model)

    with pytest.raises(ValueError, match=r"the weights and the config\.json that"):
        fitted.save_pretrained(tmp_path / "f", include_backbone=True)


NAMED = {  # what is in config.json, and what is said of it
    "weights": ({"transformers_weights": "x.safetensors"}, "no other files"),
    "settings": ({"configuration_files": ["config.4.0.0.json"]}, "no other files"),
    "attention": ({"_attn_implementation": "evil/kernel"}, "code .*evil/kernel"),
    "of a part": ({"attn_implementation": {"text": "evil/kernel"}}, "evil/kernel"),
    "nested": ({"parts": [{"_attn_implementation": "evil/kernel:x"}]}, "evil/kernel"),
    "experts": ({"experts_implementation": "evil/kernel"}, "evil/kernel"),
    # transformers 5.0 sets what its configurations keep the name in.
    "holder": ({"_attn_implementation_internal": "evil/kernel"}, "evil/kernel"),
    "another name": (
        {"text_config": {"attribute_map": {"other": "transformers_weights"}}},
        "rename .*`attribute_map`",
    ),
    # transformers asks the hub for it, even if told not to use the network.
    "a model": ({"vision_config": {"backbone": "evil/model"}}, "by `backbone`"),
}


@pytest.mark.parametrize("case", NAMED)
def test_what_settings_must_not_name(own_model, case):
    """transformers would follow it, whatever `trust_remote_code` says."""
    settings, match = NAMED[case]
    change(own_model / "config.json", **settings)
    with pytest.raises(ValueError, match=match):
        load_backbone(own_model, CPU, model_kwargs={"local_files_only": True})

    if case not in ("weights", "settings"):
        check_folder(own_model, trust_remote_code=True)


@pytest.mark.parametrize("name", ["sdpa", "eager", None])
def test_attention_of_transformers_itself_is_not_refused(own_model, name):
    named = {"_attn_implementation": name, "source": "https://example.org/a"}
    change(own_model / "config.json", **named)
    check_folder(own_model, trust_remote_code=False)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("adapter_config.json", r"no adapter of PEFT's.*Merge it, or move"),
        ("shard-00001-model-00001-of-00001.safetensors", "no parts of a model"),
        ("sk_adalora.json", "a pretrained model. Got .* with a fitted estimator"),
    ],
)
def test_what_a_folder_must_not_hold(own_model, name, match):
    """transformers would load it silently, or find no weights."""
    (own_model / name).write_text("{}")

    with pytest.raises(ValueError, match=match):
        load_backbone(own_model, CPU)


@pytest.mark.parametrize(
    ("patterns", "match"),
    [
        (["config.json"], r"must hold config\.json\. Got .*own"),
        (["*token*", "vocab*"], r"a tokenizer\. Got .*own.*tokenizer\.save_pretrained"),
    ],
)
def test_what_a_folder_must_hold(own_model, patterns, match):
    for pattern in patterns:
        for path in own_model.glob(pattern):
            path.unlink()

    with pytest.raises(ValueError, match=match):
        load_backbone(own_model, CPU)


def test_a_package_that_is_missing(own_model, monkeypatch):
    def fail(*args, **kwargs):
        raise ModuleNotFoundError("It requires the SentencePiece library.\n")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    match = r"what is installed\. Got .*own.* SentencePiece library\. Install the pack"
    with pytest.raises(ImportError, match=match):
        load_backbone(own_model, CPU)


# ---- settings ---------------------------------------------------------------


def save_and_load(how, estimator, tmp_path):
    """Save an estimator without its model, and load it."""
    if how == "pickle":
        return pickle.loads(pickle.dumps(estimator))
    estimator.save_pretrained(tmp_path / "saved")
    return AdaLoraClassifier.from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize(
    ("how", "values", "match"),
    [
        ("pickle", {"num_attention_heads": 4}, "num_attention_heads: 4 instead of 2"),
        ("folder", {"hidden_act": "relu"}, "hidden_act: 'relu' instead of 'gelu'"),
        ("folder", {"layer_norm_eps": 0.5}, "layer_norm_eps: 0.5 instead of 1e-12"),
    ],
)
def test_other_settings_are_refused(own_model, tmp_path, how, values, match):
    loaded = save_and_load(how, make(str(own_model)).fit(X, Y), tmp_path)
    change(own_model / "config.json", **values)

    with pytest.raises(ValueError, match=r"config\.json of the pre.*own.*" + match):
        loaded.predict(X)


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
    assert changed_settings(then, now) == changed_settings(now, then) == {}
    assert "hidden_size" in changed_settings(then | {"hidden_size": 64}, now)
    # Some programs write those too that are as they are by default.
    config.to_json_file(tmp_path / "config.json", use_diff=False)
    assert changed_settings(now, read_settings(tmp_path)) == {}


@pytest.mark.parametrize(
    ("then", "now", "changed"),
    [
        ({"head_dim": None, "old": 1}, {"head_dim": 16, "new": 1}, []),
        ({"dropout": 0, "max": [1, 2]}, {"dropout": 0.0, "max": [1.0, 2]}, []),
        ({"types": ["full", "sliding"]}, {"types": ["full", "full"]}, ["types"]),
        ({"text": {"n": 2, "m": 1}}, {"text": {"n": 3, "m": 1}}, ["text.n"]),
        ({"text": {"dtype": "a"}, "n": 1}, {"text": {"dtype": "b"}, "n": 1}, []),
    ],
)
def test_entries_that_differ(own_model, then, now, changed):
    found = []
    for settings in (then, now):
        change(own_model / "config.json", **settings)
        found.append(read_settings(own_model))
        change(own_model / "config.json", **dict.fromkeys(settings, ...))

    assert list(changed_settings(*found)) == changed


def test_only_some_of_many_changes_are_listed(own_model):
    change(own_model / "config.json", **{f"size_{i}": i for i in range(1000)})
    loaded = pickle.loads(pickle.dumps(make(str(own_model)).fit(X, Y)))
    change(own_model / "config.json", **{f"size_{i}": -1 - i for i in range(1000)})

    with pytest.raises(ValueError, match=r"size_1: -2 instead of 1, .*, 997 more"):
        loaded.predict(X)


def test_an_infinite_setting_is_saved_and_loaded(own_model, tmp_path):
    """Some state space models limit a step to at most Infinity."""
    change(own_model / "config.json", limit=[0.0, float("inf")], other=float("nan"))
    fitted = make(str(own_model)).fit(X, Y)
    loaded = save_and_load("folder", fitted, tmp_path)

    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


# ---- tokens -----------------------------------------------------------------


def split_otherwise(folder):
    """Let the tokenizer of a folder leave capitals as they are."""
    change(folder / "tokenizer_config.json", do_lower_case=False)
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text())
    settings["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(settings))


def exchange_ids(folder):
    """Exchange the ids of two tokens, which are in no sample text."""
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text())
    tokens = settings["model"]["vocab"]
    tokens["good"], tokens["bad"] = tokens["bad"], tokens["good"]
    path.write_text(json.dumps(settings))


def cut_otherwise(folder):
    change(folder / "tokenizer_config.json", truncation_side="left")


def write_otherwise(folder):
    """The same in other words."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=7))


@pytest.mark.parametrize("how", ["pickle", "folder"])
@pytest.mark.parametrize("edit", [split_otherwise, exchange_ids, cut_otherwise])
def test_another_tokenizer_is_refused(own_model, tmp_path, how, edit):
    loaded = save_and_load(how, make(str(own_model)).fit(X, Y), tmp_path)
    edit(own_model)

    with pytest.raises(ValueError, match="tokenizer must make the tokens of texts"):
        loaded.predict(X)


@pytest.mark.parametrize(
    ("edit", "same"), [(split_otherwise, False), (write_otherwise, True)]
)
def test_a_tokenizer_whose_files_change_is_read_again(own_model, edit, same):
    before = load_backbone(own_model, CPU)
    edit(own_model)
    after = load_backbone(own_model, CPU)

    assert after is not before
    assert after.content_hash == before.content_hash
    assert (after.tokenizer_hash == before.tokenizer_hash) == same


def test_tokens_that_are_added_are_no_part_of_the_vocabulary(own_model):
    tokenizer = transformers.AutoTokenizer.from_pretrained(own_model)
    before = tokenizer_hash(tokenizer)
    tokenizer.add_tokens(["a new one"])

    assert tokenizer_hash(tokenizer) == before


class OwnTokenizer(SimpleNamespace):
    """A tokenizer that a model brings along."""

    def __call__(self, texts):
        return {"input_ids": [[0] for _ in texts]}


def test_a_tokenizer_that_tells_no_vocabulary():
    def fail():
        raise NotImplementedError

    assert tokenizer_hash(OwnTokenizer(get_vocab=fail))


def test_a_tokenizer_whose_tokens_are_bytes():
    hashes = [
        tokenizer_hash(OwnTokenizer(get_vocab=vocabulary.copy))
        for vocabulary in (
            {b"a": 0, "<end>": 1, b"b": 2},
            {"<end>": 1, b"b": 2, b"a": 0},
            {"<end>": 1, b"b": 0, b"a": 2},
        )
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_tokenizer_without_a_file_of_its_vocabulary():
    hashes = [
        tokenizer_hash(transformers.ByT5Tokenizer(extra_ids=n)) for n in (7, 7, 9)
    ]
    assert hashes[0] == hashes[1] != hashes[2]
