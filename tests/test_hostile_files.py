"""Broken and hostile folders: a clear error each, no code run, nothing written.

Most cases are sealed again after the change, as an attacker would do: what is tested
there is not the checksum but what stands behind it.
"""

import copy
import json
import os
import pickle
import re
import shutil
import struct

import numpy as np
import pytest
import torch
from _folders import bytes_of, make_regressor, read, write
from _tiny import tiny_bert
from _toy import make, topics
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.torch import load_file, save_file

from sk_adalora import AdaLoraClassifier, AdaLoraRegressor
from sk_adalora._json_values import from_json, to_json
from sk_adalora.adalora import load_peft_adapter
from sk_adalora.adalora.config import read_json
from sk_adalora.adalora.peft_format import read_adapter

X, Y = topics(48)
STATE = "sk_adalora.json"
CONFIG = "adapter_config.json"
ADAPTER = "adapter_model.safetensors"
HEAD = "head.safetensors"
CHECKED = [STATE, CONFIG, ADAPTER, HEAD]


@pytest.fixture(scope="module")
def fitted(tiny_model):
    """Fitted on `topics(48)`. Do not refit."""
    return make(tiny_model).fit(X, Y)


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    """The folder of `fitted`. Do not write into it."""
    folder = tmp_path_factory.mktemp("saved") / "estimator"
    fitted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def own_head(tiny_model, tmp_path_factory):
    """The folder of a model with its own head. Do not write into it."""
    folder = tmp_path_factory.mktemp("saved") / "own-head"
    make(tiny_model, pooling="model").fit(X, Y).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def regressor(tiny_model, tmp_path_factory):
    """The folder of a regressor. Do not write into it."""
    folder = tmp_path_factory.mktemp("saved") / "regressor"
    make_regressor(tiny_model).fit(X, np.arange(48.0)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A folder that the test may break."""
    return shutil.copytree(saved, tmp_path / "f")


# What may be raised: nothing of these says "there is a bug in the reader".
CLEAR = (ValueError, OSError)


def assert_refused(folder, match="", estimator=AdaLoraClassifier):
    """Loading, or else the first prediction, says what is wrong, and only that."""
    before = bytes_of(folder)
    with pytest.raises(CLEAR, match=match or None) as caught:
        estimator.from_pretrained(folder).predict(X[:4])
    message = str(caught.value)

    assert not isinstance(caught.value, UnicodeError)
    assert re.search(r"\b(Got|Missing)\b", message), message
    assert re.search(r"\b(must|supports|does not support)\b", message), message
    assert re.search(
        r"[Cc]opy|[Ii]nstall|[Cc]heck|[Pp]ass|[Rr]eplace|[Ll]oad it|[Cc]hange|"
        r"[Tt]rain again|broken|belong|[Ll]eave|[Rr]aise|[Ll]ower|Choose|Save|Point",
        message,
    ), message
    assert len(message) < 1500, len(message)
    assert bytes_of(folder) == before
    assert [p.name for p in folder.parent.iterdir() if p.name.startswith(".")] == []


# ---- accidents: not sealed again --------------------------------------------


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.99, "one byte less", "more"])
def test_truncated(folder, name, share):
    data = (folder / name).read_bytes()
    cut = {"one byte less": data[:-2], "more": data + b"\0"}.get(share)
    (folder / name).write_bytes(data[: int(len(data) * share)] if cut is None else cut)

    assert_refused(folder)


@pytest.mark.parametrize("name", CHECKED)
def test_each_flipped_bit_is_noticed(fitted, folder, name):
    """Or it changes nothing, such as one blank for another."""
    data = (folder / name).read_bytes()
    rng = np.random.default_rng(0)
    # All of the header, and a sample of the rest.
    places = {*range(0, 64, 3), *rng.integers(len(data), size=60)}
    for place in sorted(places):
        broken = bytearray(data)
        broken[place] ^= 1 << rng.integers(8)
        (folder / name).write_bytes(broken)
        try:
            loaded = AdaLoraClassifier.from_pretrained(folder)
        except CLEAR:
            continue
        assert name == STATE, (place, bytes(broken[place - 5 : place + 5]))
        assert json.loads(broken) == json.loads(data)
        assert loaded.get_params() == fitted.get_params()


@pytest.mark.parametrize("name", [*CHECKED, "tokenizer.json"])
def test_missing(folder, name):
    (folder / name).unlink()

    with pytest.raises(FileNotFoundError, match=re.escape(name)):
        AdaLoraClassifier.from_pretrained(folder)
    assert_refused(folder)


@pytest.mark.parametrize("name", CHECKED)
def test_a_folder_in_place_of_a_file(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()

    assert_refused(folder)


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("target", ["outside", "/etc/passwd", "/dev/zero", "../f.json"])
def test_a_link_out_of_the_folder(folder, name, target):
    (folder.parent / "outside").write_bytes((folder / name).read_bytes())
    (folder / name).unlink()
    target = folder.parent / "outside" if target == "outside" else target
    (folder / name).symlink_to(target)

    assert_refused(folder, match="which links to a place outside")


def test_a_folder_that_is_a_link_out(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "backbone").symlink_to(tmp_path / "elsewhere")

    assert_refused(folder, match="which links to a place outside")


def test_a_link_to_itself(folder):
    (folder / HEAD).unlink()
    (folder / HEAD).symlink_to(HEAD)

    assert_refused(folder)


def test_links_inside_the_folder_are_followed(folder, fitted):
    (folder / HEAD).rename(folder / "blob")
    (folder / HEAD).symlink_to("blob")

    loaded = AdaLoraClassifier.from_pretrained(folder)
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_place_of_a_file(folder):
    (folder / STATE).unlink()
    os.mkfifo(folder / STATE)
    with pytest.raises(FileNotFoundError, match=r"must hold sk_adalora\.json"):
        AdaLoraClassifier.from_pretrained(folder)


# ---- the text of the JSON files ---------------------------------------------

DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000
TEXTS = {
    "nothing": "",
    "no JSON": "not JSON",
    "a list": "[]",
    "a number": "1",
    "null": "null",
    "a str": '"text"',
    "nested deeply": DEEP,
    "a deep list": "[" * 100_000,
    "just too deep": '{"format": ' + "[" * 60 + "]" * 60 + "}",
    "NaN": '{"format": NaN}',
    "infinity": '{"format": -Infinity}',
    "too large": '{"format": 1e999}',
    "many digits": '{"format": ' + "1" * 4000 + "}",
    "very many digits": '{"format": ' + "1" * 10_000 + "}",
    "a key twice": '{"format": 1, "format": 1}',
    "a mark before": '\ufeff{"format": 1}',
    "no UTF-8": b'{"format": "\xff"}',
    "UTF-16": '{"format": 1}'.encode("utf-16"),
    "zeros": b"\0" * 1000,
    "cut off": '{"format": ',
    "more behind": '{"format": 1} {}',
    "empty": "{}",
}


@pytest.mark.parametrize("name", [STATE, CONFIG])
@pytest.mark.parametrize("text", TEXTS)
def test_texts_that_are_no_settings(folder, name, text):
    data = TEXTS[text]
    data = data.encode("utf8") if isinstance(data, str) else data
    (folder / name).write_bytes(data)
    if name == CONFIG:
        write(folder, read(folder))  # sealed again
    if (name, text) == (CONFIG, "empty"):
        return  # all fields have defaults, which the next test covers

    assert_refused(folder)


def test_a_file_that_is_too_long(folder):
    with (folder / STATE).open("r+b") as file:
        file.truncate(2**40)  # sparse: it takes no room
    with pytest.raises(ValueError, match="must be at most 67108864 bytes long"):
        AdaLoraClassifier.from_pretrained(folder)


# ---- sk_adalora.json, sealed again ------------------------------------------


def put(*path, value):
    """A change: set what stands at a path of keys; `...` deletes it."""

    def change(described):
        *outer, last = path
        for key in outer:
            described = described[key]
        if value is ...:
            del described[last]
        else:
            described[last] = value

    return change


def array(dtype, shape, values):
    return {"type": "array", "dtype": dtype, "shape": shape, "values": values}


def classes(dtype, shape, values):
    return put("fitted", "classes_", value=array(dtype, shape, values))


def parameter(name, value):
    return put("parameters", name, value=value)


def wrong_type(name):
    return {
        f"{name} is {shown!r}": (put(name, value=shown), "")
        for shown in (None, [], True, "x", 1.5, {})
        if not (name in ("found_in", "model") and shown == "x")
        and not (name == "includes_backbone" and shown is True)
        and not (name == "files" and shown == {"x": 1})
        and not (name == "versions" and shown == {})
        and not (name == "content_hash" and shown == "x")
    }


BOMB = [1]
for _ in range(30):
    BOMB = [BOMB]

STATES = {
    # Format and class.
    "a later format": (put("format", value=2), r"1 or before\. Got format 2, of sk-"),
    "a huge format": (put("format", value=10**60), "Install a newer"),
    "format 0": (put("format", value=0), "at least 1"),
    "a negative format": (put("format", value=-1), "at least 1"),
    "no format": (put("format", value=...), "'format' as int"),
    "another class": (put("class", value="AdaLoraRegressor"), "own class"),
    "an unknown class": (put("class", value="os.system"), "own class"),
    "a class above": (put("class", value="BaseEstimator"), "own class"),
    "the root class": (put("class", value="object"), "own class"),
    **wrong_type("format"),
    **wrong_type("class"),
    **wrong_type("files"),
    **wrong_type("fitted"),
    **wrong_type("parameters"),
    **wrong_type("includes_backbone"),
    **wrong_type("n_outputs"),
    **wrong_type("pooling"),
    **wrong_type("layers"),
    **{k: v for k, v in wrong_type("model").items() if "'x'" not in k},
    **{k: v for k, v in wrong_type("content_hash").items() if "'x'" not in k},
    **{k: v for k, v in wrong_type("versions").items() if "{}" not in k},
    # Names.
    "a file outside": (put("files", "../secret", value="0"), "files of the folder"),
    "an absolute file": (put("files", "/etc/passwd", value="0"), "files of the folder"),
    "a file with a drive": (put("files", "C:\\secret", value="0"), "of the folder"),
    "a file without a name": (put("files", "", value="0"), "files of the folder"),
    "a file with NUL": (put("files", "a\0b", value="0"), "without it"),
    "a file of a long name": (put("files", "a" * 5000, value="0"), "without it"),
    "a file that is the folder": (put("files", ".", value="0"), ""),
    "an unlisted adapter": (put("files", ADAPTER, value=...), "under 'files'"),
    "an unlisted head": (put("files", HEAD, value=...), "under 'files'"),
    "a hash that is none": (put("files", HEAD, value="kept"), "as it was written"),
    "a backbone that is not there": (put("includes_backbone", value=True), "backbone"),
    "layers of others": (put("layers", value=["a", "b"]), "under 'layers'"),
    # Parameters.
    "an unknown parameter": (parameter("__class__", "os.system"), "parameters of"),
    "a private parameter": (parameter("_adapter", 1), "parameters of"),
    "epochs=0": (parameter("epochs", 0), "`epochs` of AdaLoraClassifier must be"),
    "epochs as text": (parameter("epochs", "3"), "`epochs`"),
    "a huge learning rate": (parameter("learning_rate", -1.0), "`learning_rate`"),
    "batch_size is a list": (parameter("batch_size", BOMB), "`batch_size`"),
    "a wrong device": (parameter("device", "nowhere"), "`device`"),
    "a device that is a list": (parameter("device", []), "`device`"),
    "an unknown pooling": (parameter("pooling", "evil"), "`pooling`"),
    "a template": (parameter("row_format", ""), "`row_format`"),
    "a class": (parameter("scoring", {"type": "class", "value": "os"}), "known type"),
    "remote code": (parameter("trust_remote_code", True), "must not ask for code"),
    "remote code as text": (
        parameter("trust_remote_code", "yes"),
        "must not ask for code",
    ),
    "remote code as 1": (parameter("trust_remote_code", 1), "must not ask for code"),
    "a model above": (parameter("model", "../../etc"), "`model` must"),
    "a model of the system": (parameter("model", "/etc"), "`model`"),
    "a file as model": (parameter("model", "/etc/passwd"), "`model` must"),
    "a model by address": (parameter("model", "https://evil.example/x"), "`model`"),
    "a model with NUL": (parameter("model", "a\0b"), "`model`"),
    # Labels and other coding.
    "too few labels": (classes("<U1", [2], ["a", "b"]), "as many classes"),
    "too many labels": (classes("<i8", [4], [1, 2, 3, 4]), "as many classes"),
    "equal labels": (classes("<U1", [3], ["a", "a", "b"]), "distinct labels"),
    "no labels": (classes("<i8", [0], []), "distinct labels"),
    "labels in two dimensions": (classes("<i8", [3, 1], [1, 2, 3]), "distinct"),
    "labels that are no array": (put("fitted", "classes_", value=[1, 2]), "distinct"),
    "labels missing": (put("fitted", "classes_", value=...), "'classes_'"),
    "a NaN label": (
        classes("<f8", [3], [1.0, 2.0, {"type": "float", "value": "nan"}]),
        "distinct labels",
    ),
    "lists as labels": (classes("O", [3], [[], [1], [2]]), "wrong place"),
    "objects": (classes("|O", [3], [1, 2, 3]), "not read"),
    "objects of 8 bytes": (classes("O8", [3], [1, 2, 3]), "not read"),
    "void": (classes("|V8", [3], [1, 2, 3]), "not read"),
    "records": (classes("i4,i4", [3], [1, 2, 3]), "not read"),
    "bytes": (classes("|S3", [3], ["a", "b", "c"]), "not read"),
    "complex": (classes("<c16", [3], [1, 2, 3]), "not read"),
    "an unknown type": (classes("<q8", [3], [1, 2, 3]), "not read"),
    "a type of an odd size": (classes("<i3", [3], [1, 2, 3]), "known type"),
    "a date of no unit": (classes("<M8[nope]", [3], [1, 2, 3]), "not read"),
    "a date of a wrong unit": (classes("<M8[qq]", [3], [1, 2, 3]), "known type"),
    "a date of text": (classes("<M8[ns]", [3], ["2020", "2021", "2022"]), "place"),
    "very long texts": (classes("<U99999999", [3], ["a", "b", "c"]), "more than"),
    "longer than numpy has": (classes("<U999999999", [3], ["a", "b", "c"]), "known"),
    "longer than possible": (classes("<U9999999999", [3], ["a", "b", "c"]), "known"),
    "texts that are too long": (classes("<U1", [3], ["aa", "b", "c"]), "too long"),
    "numbers as text": (classes("<U1", [3], [1, 2, 3]), "wrong place"),
    "text as numbers": (classes("<i8", [3], ["1", "2", "3"]), "wrong place"),
    "fractions as int": (classes("<i8", [3], [1.5, 2, 3]), "wrong place"),
    "bool as int": (classes("<i8", [3], [True, 2, 3]), "wrong place"),
    "too large for int8": (classes("|i1", [3], [1, 2, 300]), "no int8"),
    "too large for any": (classes("<i8", [3], [1, 2, 10**50]), "no int64"),
    "negative unsigned": (classes("<u8", [3], [1, 2, -1]), "no uint64"),
    "a huge shape": (classes("<i8", [10**12], [1, 2, 3]), "do not fill"),
    "a shape beyond int64": (classes("<i8", [10**30], [1, 2, 3]), "do not fill"),
    "an empty huge shape": (classes("<i8", [0, 10**12], []), ""),
    "a negative shape": (classes("<i8", [-1], [1, 2, 3]), "at least 0"),
    "a shape of text": (classes("<i8", ["3"], [1, 2, 3]), "at least 0"),
    "a shape of many dimensions": (classes("<i8", [1] * 100 + [3], [1, 2, 3]), ""),
    "no shape": (classes("<i8", None, [1, 2, 3]), "list expected"),
    "no values": (classes("<i8", [3], None), "list expected"),
    "an array in an array": (classes("O", [1], [array("<i8", [0], [])]), "place"),
    "a key that is a list": (
        parameter("class_weight", {"type": "dict", "items": [[[1], 2]]}),
        "unhashable",
    ),
    "a key twice": (
        parameter("class_weight", {"type": "dict", "items": [[1, 2], [1, 3]]}),
        "same key twice",
    ),
    "items that are no pairs": (
        parameter("class_weight", {"type": "dict", "items": [[1, 2, 3]]}),
        "known type",
    ),
    "an unknown type of value": (parameter("epochs", {"type": "exec"}), "known type"),
    "a type that is a list": (parameter("epochs", {"type": [1]}), "known type"),
    "a float that is none": (
        parameter("learning_rate", {"type": "float", "value": "os"}),
        "known type",
    ),
    "_multilabel is 1": (put("fitted", "_multilabel", value=1), "true or false"),
    "no features": (put("fitted", "n_features_in_", value=0), "at least 1"),
    "true features": (put("fitted", "n_features_in_", value=True), "at least 1"),
    "names of too many features": (
        put("fitted", "feature_names_in_", value=array("O", [2], ["a", "b"])),
        "feature_names_in_",
    ),
    "names that are numbers": (
        put("fitted", "feature_names_in_", value=array("<i8", [1], [1])),
        "array of names",
    ),
    # Records.
    "a record too little": (put("fitted", "history_", value=...), "TrainingHistory"),
    "a record of other fields": (
        put("fitted", "history_", value={"loss": []}),
        "TrainingHistory",
    ),
    "a field too many": (put("fitted", "fit_report_", "evil", value=1), "FitReport"),
    "a loss that is text": (put("fitted", "history_", "loss", value=["a"]), "'loss'"),
    "epochs that are text": (
        put("fitted", "history_", "epochs", value="2"),
        "'epochs'",
    ),
    "a schedule of null": (put("fitted", "schedule_", "tinit", value=None), "'tinit'"),
    "a report of lists": (put("fitted", "fit_report_", "device", value=[]), "'device'"),
    # Sizes.
    "huge outputs": (put("n_outputs", value=10**15), "head.safetensors must hold"),
    "other outputs": (put("n_outputs", value=2), "head.safetensors must hold"),
    "no outputs": (put("n_outputs", value=0), "head.safetensors must hold"),
    "negative outputs": (put("n_outputs", value=-3), "head.safetensors must hold"),
    "pooling that is unknown": (put("pooling", value="evil"), "'pooling' that is"),
    "a head of the model's": (put("pooling", value="model"), "head with 3 outputs"),
    "another hash": (put("content_hash", value="0" * 64), "must be the one that"),
    "versions of numbers": (put("versions", value={"torch": 2}), "'versions' as str"),
}


@pytest.mark.parametrize("case", STATES)
def test_states(folder, case):
    change, match = STATES[case]
    described = read(folder)
    change(described)
    write(folder, described)

    assert_refused(folder, match)


REGRESSORS = {
    "a scale of 0": (
        put("fitted", "_target_scale", value=array("<f8", [1], [0.0])),
        "above 0",
    ),
    "a mean of NaN": (
        put(
            "fitted",
            "_target_mean",
            value=array("<f8", [1], [{"type": "float", "value": "nan"}]),
        ),
        "finite numbers",
    ),
    "two means": (
        put("fitted", "_target_mean", value=array("<f8", [2], [0.0, 1.0])),
        "as many classes or targets",
    ),
    "a mean of text": (
        put("fitted", "_target_mean", value=array("<U1", [1], ["a"])),
        "finite numbers",
    ),
    "_one_target is null": (put("fitted", "_one_target", value=None), "true or false"),
}


@pytest.mark.parametrize("case", REGRESSORS)
def test_states_of_regressors(regressor, tmp_path, case):
    change, match = REGRESSORS[case]
    folder = shutil.copytree(regressor, tmp_path / "f")
    described = read(folder)
    change(described)
    write(folder, described)

    assert_refused(folder, match, AdaLoraRegressor)


def test_a_state_that_was_changed_by_hand(folder):
    described = read(folder)
    described["parameters"]["epochs"] = 9
    (folder / STATE).write_text(json.dumps(described))

    assert_refused(folder, "be as it was written")


# ---- adapter_config.json, sealed again --------------------------------------

LAYER = "encoder.layer.0.attention.self.query"


def pattern(change):
    """A change of the flags of one layer."""

    def changed(values):
        flags = values["rank_pattern"][f"{LAYER}.lora_E"]
        values["rank_pattern"][f"{LAYER}.lora_E"] = change(flags)

    return changed


CONFIGS = {
    "a flag too few": (pattern(lambda f: f[:-1]), "3 flags for|`init_r`=3 flags"),
    "a flag too many": (pattern(lambda f: [*f, False]), "`init_r`=3 flags"),
    "flags 0 and 1": (pattern(lambda f: [int(x) for x in f]), "true and false"),
    "flags turned round": (pattern(lambda f: [not x for x in f]), "`init_r`=3 flags"),
    "flags of null": (pattern(lambda f: None), "true and false"),
    "flags as text": (pattern(lambda f: "TTT"), "true and false"),
    "a list of flags": (put("rank_pattern", value=[True]), "true and false"),
    "a text of flags": (put("rank_pattern", value="T"), "true and false"),
    "a layer without flags": (
        put("rank_pattern", f"{LAYER}.lora_E", value=...),
        "no flags",
    ),
    "no pattern": (put("rank_pattern", value=None), "no pattern"),
    "a huge rank": (put("init_r", value=10**12), "`init_r`"),
    "a huge rank, no pattern": (
        lambda values: values.update(init_r=10**12, rank_pattern=None),
        "`init_r`",
    ),
    "a rank of 0": (put("init_r", value=0), "`init_r`"),
    "a rank of text": (put("init_r", value="3"), "`init_r`"),
    "target above init": (put("target_r", value=99), "`target_r` must be at most"),
    "a target of null": (put("target_r", value=None), "`target_r`"),
    "alpha of text": (put("lora_alpha", value="8"), "`lora_alpha`"),
    "a huge alpha": (put("lora_alpha", value=10**63), ""),
    "a negative alpha": (put("lora_alpha", value=-1), "`lora_alpha`"),
    "dropout of 1": (put("lora_dropout", value=1.0), "`lora_dropout`"),
    "an unknown bias": (put("bias", value="evil"), "`bias`"),
    "a bias that is a list": (put("bias", value=[]), "`bias`"),
    "another method": (put("peft_type", value="LORA"), "`peft_type`"),
    "a method that is a list": (put("peft_type", value=[1]), "`peft_type`"),
    "DoRA": (put("use_dora", value=True), "DoRA"),
    "a schedule without steps": (put("total_step", value=0), "`total_step`"),
    "a schedule of text": (put("total_step", value="9"), "`total_step`"),
    "a schedule that is full": (put("tinit", value=10**9), "`tinit`"),
    "a negative interval": (put("deltaT", value=-1), "`deltaT`"),
    "beta of 2": (put("beta1", value=2.0), "`beta1`"),
    "a task that is a list": (put("task_type", value=[1]), "`task_type`"),
    "modules as text": (put("modules_to_save", value="classifier"), "modules_to"),
    "modules as numbers": (put("modules_to_save", value=[1]), "modules_to_save"),
    "initial values of text": (put("init_lora_weights", value="evil"), "init_lora"),
    "a model that is a list": (put("base_model_name_or_path", value=[]), "base_model"),
}


@pytest.mark.parametrize("case", CONFIGS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_configs(folder, case):
    change, match = CONFIGS[case]
    values = json.loads((folder / CONFIG).read_text("utf8"))
    change(values)
    (folder / CONFIG).write_text(json.dumps(values), "utf8")
    write(folder, read(folder))
    if case == "a huge alpha":  # is a number as others
        read_adapter(folder)
        return

    assert_refused(folder, match)
    with pytest.raises(CLEAR):
        read_adapter(folder)


@pytest.mark.parametrize(
    "changed",
    [
        {"auto_mapping": {"base_model_class": "X", "parent_library": "evil_module"}},
        {"target_modules": "(((a+)+)+)+$"},
        {"target_modules": ["evil"], "exclude_modules": "(a+)+$"},
        {"layers_to_transform": [99], "layers_pattern": "(a+)+$"},
        {"modules_to_save": ["evil"]},
        {"trust_remote_code": True},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Left out:UserWarning")
def test_settings_that_are_not_followed(folder, fitted, changed):
    values = json.loads((folder / CONFIG).read_text("utf8")) | changed
    (folder / CONFIG).write_text(json.dumps(values), "utf8")
    write(folder, read(folder))
    loaded = AdaLoraClassifier.from_pretrained(folder)

    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


# ---- tensors, sealed again --------------------------------------------------

START = f"base_model.model.{LAYER}.lora_"


def tensor(name, change):
    """A change of one tensor; it becomes what `change` returns, or is left out."""

    def changed(tensors):
        value = change(tensors.pop(name))
        if value is not None:
            tensors[name] = value

    return changed


def renamed(name, new):
    return lambda tensors: tensors.update({new: tensors.pop(name)})


def spoilt(value):
    def change(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[0] = value
        return tensor

    return change


def of_another_width(tensors):
    """A layer whose factors fit each other, but not the model."""
    tensors[START + "A"] = torch.zeros(len(tensors[START + "E"]), 7)


TENSORS = {
    "a factor is missing": (ADAPTER, tensor(START + "A", lambda t: None), "of shape"),
    "no values": (ADAPTER, tensor(START + "E", lambda t: None), "of shape"),
    "no tensors": (ADAPTER, lambda tensors: tensors.clear(), "at least one layer"),
    "NaN": (ADAPTER, tensor(START + "A", spoilt(torch.nan)), "must be finite"),
    "infinity": (ADAPTER, tensor(START + "B", spoilt(torch.inf)), "must be finite"),
    "too large for float32": (
        ADAPTER,
        tensor(START + "A", lambda t: t.double() * 1e300 + 1e300),
        "must be finite",
    ),
    "integers": (ADAPTER, tensor(START + "A", lambda t: t.int()), "floating point"),
    "flags": (ADAPTER, tensor(START + "A", lambda t: t > 0), "floating point"),
    "a factor turned round": (
        ADAPTER,
        tensor(START + "A", lambda t: t.T.contiguous()),
        "",
    ),
    "a factor of one dimension": (ADAPTER, tensor(START + "A", torch.flatten), "shape"),
    "a factor of none": (ADAPTER, tensor(START + "E", lambda t: t.sum()), "of shape"),
    "a factor of three": (ADAPTER, tensor(START + "B", lambda t: t[None]), "of shape"),
    "a row less": (ADAPTER, tensor(START + "A", lambda t: t[:-1]), "of shape"),
    "two columns of values": (
        ADAPTER,
        tensor(START + "E", lambda t: t.repeat(1, 2)),
        "of shape",
    ),
    "another width": (ADAPTER, of_another_width, "must have shapes"),
    "another name": (ADAPTER, renamed(START + "A", "lora_A"), "must be named"),
    "a path above": (
        ADAPTER,
        renamed(START + "A", "base_model.model.../../etc/passwd.lora_A"),
        "must be named",
    ),
    "an absolute path": (
        ADAPTER,
        renamed(START + "A", "base_model.model./etc/passwd.lora_A"),
        "must be named",
    ),
    "an attribute of the class": (
        ADAPTER,
        renamed(START + "A", "base_model.model.__class__.lora_A"),
        "of shape",
    ),
    "an empty name": (ADAPTER, renamed(START + "A", ""), "must be named"),
    "a tensor too many": (
        ADAPTER,
        lambda tensors: tensors.update({"base_model.model.evil": torch.zeros(2)}),
        "only",
    ),
    "a bias too many": (
        ADAPTER,
        lambda tensors: tensors.update(
            {f"base_model.model.{LAYER}.base_layer.bias": torch.zeros(32)}
        ),
        "only",
    ),
    "a layer too many": (
        ADAPTER,
        lambda tensors: tensors.update(
            {
                f"base_model.model.evil.lora_{k}": tensors[START + k].clone()
                for k in "ABE"
            }
        ),
        "no flags",
    ),
    "a head of other outputs": (HEAD, tensor("weight", lambda t: t[:2]), "3 rows"),
    "a head of other width": (
        HEAD,
        tensor("weight", lambda t: t[:, :5].contiguous()),
        "head's weight must have shape",
    ),
    "a head of NaN": (HEAD, tensor("weight", spoilt(torch.nan)), "finite"),
    "a head of halves": (HEAD, tensor("weight", lambda t: t.half()), "float32"),
    "a head of integers": (HEAD, tensor("weight", lambda t: t.int()), "float32"),
    "a head without bias": (HEAD, tensor("bias", lambda t: None), "'bias'"),
    "a head with more": (
        HEAD,
        lambda tensors: tensors.update(evil=torch.zeros(1)),
        "'bias'",
    ),
    "a head without weight": (HEAD, lambda tensors: tensors.clear(), "'weight'"),
    "a flat head": (HEAD, tensor("weight", torch.flatten), "3 rows"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors(folder, case):
    name, change, match = TENSORS[case]
    tensors = load_file(folder / name)
    tensors = {n: t.clone() for n, t in tensors.items()}
    change(tensors)
    save_file(tensors, folder / name)
    write(folder, read(folder))

    assert_refused(folder, match)


HEADS = {
    "no head": lambda tensors: [
        tensors.pop(n) for n in [*tensors] if ".lora_" not in n
    ],
    "no bias": lambda tensors: tensors.pop("base_model.model.classifier.bias"),
    "other outputs": tensor(
        "base_model.model.classifier.weight", lambda t: t[:2].clone()
    ),
    "NaN": tensor("base_model.model.classifier.weight", spoilt(torch.nan)),
    "other width": tensor(
        "base_model.model.classifier.weight", lambda t: t[:, :5].contiguous()
    ),
    "another module": renamed(
        "base_model.model.classifier.bias", "base_model.model.evil.bias"
    ),
}


@pytest.mark.parametrize("case", HEADS)
def test_tensors_of_a_model_with_its_own_head(own_head, tmp_path, case):
    folder = shutil.copytree(own_head, tmp_path / "f")
    tensors = {n: t.clone() for n, t in load_file(folder / ADAPTER).items()}
    HEADS[case](tensors)
    save_file(tensors, folder / ADAPTER)
    write(folder, read(folder))

    assert_refused(folder)


def with_header(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


FLOAT = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
RAW = {
    "nothing": b"",
    "zeros": b"\0" * 64,
    "a huge header": struct.pack("<Q", 2**60) + b"{}",
    "a header beyond the file": struct.pack("<Q", 1000) + b"{}",
    "no JSON": with_header(b"nonsense"),
    "a list": with_header([]),
    "a huge shape": with_header({"weight": {**FLOAT, "shape": [10**12]}}, b"\0" * 4),
    "a shape that overflows": with_header(
        {"weight": {**FLOAT, "shape": [2**40, 2**40]}}, b"\0" * 4
    ),
    "offsets beyond": with_header({"weight": {**FLOAT, "data_offsets": [0, 2**50]}}),
    "offsets reversed": with_header({"weight": {**FLOAT, "data_offsets": [4, 0]}}),
    "offsets negative": with_header({"weight": {**FLOAT, "data_offsets": [-4, 0]}}),
    "an unknown dtype": with_header({"weight": {**FLOAT, "dtype": "O8"}}, b"\0" * 4),
    "a hole": with_header({"weight": {**FLOAT, "data_offsets": [4, 8]}}, b"\0" * 8),
    "more behind": with_header({"weight": FLOAT}, b"\0" * 400),
    "deep": with_header(b'{"a":' * 50_000),
    "a pickle": pickle.dumps({"weight": 1}),
    "a tensor of eight bits": with_header(
        {
            "base_model.model.a.lora_A": {
                "dtype": "F8_E4M3",
                "shape": [4],
                "data_offsets": [0, 4],
            }
        },
        b"\x7f" * 4,
    ),
}


@pytest.mark.parametrize("name", [ADAPTER, HEAD])
@pytest.mark.parametrize("case", RAW)
def test_files_that_hold_no_tensors(folder, name, case):
    (folder / name).write_bytes(RAW[case])
    write(folder, read(folder))

    assert_refused(folder)


# ---- code that nobody asked for ---------------------------------------------


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_in_place_of_weights(folder, tmp_path):
    (folder / ADAPTER).unlink()
    torch.save({"weight": Evil(tmp_path / "ran")}, folder / "adapter_model.bin")
    write(folder, read(folder))

    assert_refused(folder, match="adapter_model")
    with pytest.raises(ValueError, match=r"adapter_model\.bin must hold tensors") as e:
        load_peft_adapter(tiny_bert(), folder)
    assert "weights_only" not in str(e.value)  # no hint how to run it
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "data", [b"", b"PK\3\4nonsense", b"\x80\x04N.", pickle.dumps([1])]
)
def test_a_bin_that_holds_no_tensors(folder, data):
    (folder / ADAPTER).unlink()
    (folder / "adapter_model.bin").write_bytes(data)
    with pytest.raises(ValueError, match=r"adapter_model\.bin must hold tensors"):
        read_adapter(folder)


@pytest.mark.parametrize("value", [[torch.zeros(1)], {"a": 1}, {1: torch.zeros(1)}])
def test_a_bin_of_other_things(folder, value):
    (folder / ADAPTER).unlink()
    torch.save(value, folder / "adapter_model.bin")
    with pytest.raises(ValueError, match="must"):
        read_adapter(folder)


EVIL_CODE = "import pathlib; pathlib.Path({path!r}).write_text('ran')\n"


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_backbone_that_brings_code(tiny_model, tmp_path, file):
    """With or without an error: its code is not run."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    make(str(model)).fit(X, Y).save_pretrained(tmp_path / "f", include_backbone=True)
    backbone = tmp_path / "f" / "backbone"
    code = EVIL_CODE.format(path=str(tmp_path / "ran"))
    (backbone / "evil.py").write_text(code)
    values = json.loads((backbone / file).read_text("utf8"))
    names = ("AutoConfig", "AutoModel", "AutoTokenizer")
    values["auto_map"] = dict.fromkeys(names, "evil.Evil") | {
        "AutoTokenizer": ["evil.Evil", "evil.Evil"]
    }
    values["model_type"] = "evil"
    values["tokenizer_class"] = "Evil"
    (backbone / file).write_text(json.dumps(values))
    write(tmp_path / "f", read(tmp_path / "f"))
    try:
        AdaLoraClassifier.from_pretrained(tmp_path / "f").predict(X)
    except ValueError as error:
        assert "`model` must be one that transformers can read" in str(error)  # noqa: PT017

    assert not (tmp_path / "ran").exists()


def test_trust_is_given_by_the_caller_only(folder, fitted):
    described = read(folder)
    described["parameters"]["trust_remote_code"] = True
    write(folder, described)

    assert_refused(folder, match=r"Pass trust_remote_code=True if you trust")
    loaded = AdaLoraClassifier.from_pretrained(folder, trust_remote_code=True)
    assert loaded.trust_remote_code is True


def test_extra_files_are_not_read(folder, tmp_path, fitted):
    (folder / "evil.py").write_text(EVIL_CODE.format(path=str(tmp_path / "ran")))
    (folder / "conftest.py").write_text("raise SystemExit")
    (folder / "fitted.pkl").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    torch.save({"a": Evil(tmp_path / "ran")}, folder / "adapter_model.bin")
    loaded = AdaLoraClassifier.from_pretrained(folder)

    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))
    assert not (tmp_path / "ran").exists()


# ---- chance -----------------------------------------------------------------

SAFE = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**63), 10**63)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([np.float32(1.5), np.int8(-3), np.str_("a"), np.bool_(True)])
)
KEYS = st.text(max_size=5) | st.integers(-5, 5) | st.booleans()
ARRAYS = npst.arrays(
    st.sampled_from(
        ["<i8", "|i1", "<u8", "<f8", "<f2", "|b1", "<U7", "<M8[ns]", "<m8[D]", ">i4"]
    ),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
VALUES = st.recursive(
    LEAVES | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.sets(KEYS, max_size=4)
        | st.frozensets(KEYS, max_size=4)
    ),
    max_leaves=12,
)


def assert_same(first, second):
    assert type(first) is type(second)
    if isinstance(first, np.ndarray):
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, dict):
        assert [*first] == [*second]
        for key in first:
            assert_same(first[key], second[key])
    else:
        assert first == second or (first != first and second != second)


@SAFE
@given(VALUES)
def test_values_there_and_back(value):
    text = json.dumps(to_json(value))

    assert_same(from_json(json.loads(text)), value)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        1j,
        b"bytes",
        np.array([1j]),
        np.array([b"a"]),
        np.array([object()]),
        np.zeros(1, dtype=[("a", int)]),
        [lambda: 0],
        {"a": print},
        10**70,
        np.zeros(2**22),
        type,
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", repr(value)),
)
def test_values_that_are_not_written(value):
    with pytest.raises(TypeError):
        to_json(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "value", "values", "items", "dtype", "shape", "x"])
            | st.text(max_size=3),
            inner
            | st.sampled_from(["array", "scalar", "dict", "tuple", "set", "float"])
            | st.sampled_from(["<i8", "O", "<U3", "<M8[s]", "<f16"]),
            max_size=5,
        )
    ),
    max_leaves=15,
)


@SAFE
@given(JSON)
def test_any_json_is_a_value_or_refused(value):
    try:
        from_json(value)
    except ValueError:
        pass


@SAFE
@given(st.binary(max_size=300))
def test_any_bytes_are_settings_or_refused(folder, data):
    (folder / STATE).write_bytes(data)
    try:
        read_json(folder / STATE)
    except ValueError:
        pass


def mutated(draw, data):
    """Some bytes changed, cut out, or doubled."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "number"]))
        if kind == "flip" and data:
            data[place] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del data[place : place + draw(st.integers(1, 40))]
        elif kind == "insert":
            data[place:place] = draw(st.binary(max_size=20))
        else:
            data[place:place] = b"9" * draw(st.integers(1, 30))
    return bytes(data)


@pytest.mark.parametrize("name", CHECKED)
@SAFE
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_change_is_read_or_refused(saved, folder, name, data):
    original = (saved / name).read_bytes()
    (folder / name).write_bytes(mutated(data.draw, original))
    try:
        described = json.loads((saved / STATE).read_bytes())
        if name == STATE:
            described = json.loads((folder / STATE).read_bytes())
        write(folder, described)  # past the checksums
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass
    try:
        AdaLoraClassifier.from_pretrained(folder)
    except CLEAR:
        pass
    finally:
        for each in CHECKED:
            shutil.copy(saved / each, folder / each)


@SAFE
@given(change=st.data())
def test_any_value_in_the_state_is_read_or_refused(saved, folder, change):
    described = read(saved)
    path = change.draw(st.sampled_from(sorted(paths(described), key=repr)))
    put(*path, value=change.draw(JSON))(described)
    write(folder, copy.deepcopy(described))
    try:
        AdaLoraClassifier.from_pretrained(folder)
    except CLEAR:
        pass


def paths(value, before=()):
    """All places in nested objects."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*before, key)
        yield from paths(inner, (*before, key))


def test_there_are_enough_cases():
    tables = (TEXTS, STATES, REGRESSORS, CONFIGS, TENSORS, HEADS, RAW)

    assert sum(map(len, tables)) > 200
