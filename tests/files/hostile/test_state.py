"""Values that sk_adalora.json must not have, sealed again: a clear error each."""

import shutil

import pytest
from _folders import read, write
from _hostile import ADAPTER, HEAD, assert_refused, put

from sk_adalora import AdaLoraRegressor


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
        and not (name in ("versions", "settings") and shown == {})
        and not (name == "content_hash" and shown == "x")
    }


def own_head(described):
    described.update(pooling="model", feature_length=None)


BOMB = [1]
for _ in range(30):
    BOMB = [BOMB]

STATES = {
    # Format and class.
    "a later format": (
        put("format", value=2),
        r"of format 1 or before\. Got format 2, of sk-",
    ),
    "a huge format": (put("format", value=10**60), "Install a newer"),
    "format 0": (put("format", value=0), "of format 1 or before. Got format 0"),
    "a negative format": (
        put("format", value=-1),
        "of format 1 or before. Got format -1",
    ),
    "no format": (put("format", value=...), r"without \['format'\]"),
    "format 1.0": (put("format", value=1.0), "'format' as int"),
    "a later field": (put("later", value=1), r"Got \['later'\] too, of sk-"),
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
    **{k: v for k, v in wrong_type("is_folder").items() if "True" not in k},
    **{k: v for k, v in wrong_type("feature_length").items() if "1.5" not in k},
    **{k: v for k, v in wrong_type("commit").items() if "None" not in k},
    **wrong_type("vocabulary_hash"),
    **wrong_type("settings"),
    "a branch for a commit": (put("commit", value="main"), "the hash of a commit"),
    "a path for a commit": (put("commit", value="../" * 40), "the hash of a commit"),
    "a commit and more": (put("commit", value="a" * 41), "the hash of a commit"),
    "other settings": (put("settings", value={"hidden_size": 8}), r"config\.json of"),
    "another vocabulary": (put("vocabulary_hash", value="x"), "must make the tokens"),
    "a length below 0": (put("feature_length", value=-1.0), "number above 0"),
    "a length of 0": (put("feature_length", value=0), "number above 0"),
    "a length next to 0": (put("feature_length", value=1e-320), "number above 0"),
    "a huge length": (put("feature_length", value=10**40), "number above 0"),
    "no length": (put("feature_length", value=None), "number above 0, or null for a"),
    "a length of NaN": (put("feature_length", value=float("nan")), ""),
    **{k: v for k, v in wrong_type("model").items() if "'x'" not in k},
    **{k: v for k, v in wrong_type("content_hash").items() if "'x'" not in k},
    **{k: v for k, v in wrong_type("versions").items() if "{}" not in k},
    # Names.
    "a file outside": (put("files", "../secret", value="0"), "files of the folder"),
    "an absolute file": (put("files", "/etc/passwd", value="0"), "files of the folder"),
    "a file by a detour": (put("files", "a/../../x", value="0"), "of the folder"),
    "a file of the network": (put("files", "//x", value="0"), "files of the folder"),
    "a file of the folder of a drive": (put("files", "C:x", value="0"), "the folder"),
    "a file behind a backslash": (put("files", "..\\x", value="0"), "of the folder"),
    "a file with a drive": (put("files", "C:\\secret", value="0"), "of the folder"),
    "a file on another drive": (put("files", "C:/secret", value="0"), "of the folder"),
    "a file without a name": (put("files", "", value="0"), "files of the folder"),
    "a file with NUL": (put("files", "a\0b", value="0"), "without it"),
    "a file of a long name": (
        put("files", "a" * 5000, value="0"),
        r"must hold 'a{80}'\. .*without it",
    ),
    "a file that is the folder": (put("files", ".", value="0"), ""),
    "an unlisted adapter": (put("files", ADAPTER, value=...), "under 'files'"),
    "an unlisted head": (put("files", HEAD, value=...), "under 'files'"),
    "a hash that is none": (put("files", HEAD, value="kept"), "as it was written"),
    "a backbone that is not there": (
        put("includes_backbone", value=True),
        r"must list \['backbone/config\.json'\] under 'files'",
    ),
    "layers of others": (put("layers", value=["a", "b"]), "under 'layers'"),
    "a layer twice": (lambda d: d["layers"].append(d["layers"][0]), "under 'layers'"),
    # Parameters.
    "an unknown parameter": (
        parameter("__class__", "os.system"),
        r"parameters of AdaLoraClassifier only\. Got \['__cl.*Install a newer",
    ),
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
    "long texts": (classes("<U2000000", [2], ["a", "b"]), "known type and size"),
    "long texts in all": (
        lambda d: d["parameters"].update(
            dict.fromkeys(
                ["model", "epochs", "tinit"],
                array("<U4096", [8000], ["a"] * 8000),
            )
        ),
        "arrays of more than 268435456 bytes",
    ),
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
    "a record too little": (
        put("fitted", "history_", value=...),
        r"a fitted AdaLoraClassifier\. Got them without \['history_'\]",
    ),
    "a record that is none": (put("fitted", "history_", value=1), "TrainingHistory"),
    "a record of numbers": (
        put("fitted", "history_", value={"type": "dict", "items": [[1, 2], ["a", 2]]}),
        r"fields of TrainingHistory only\. Got \['a', 1\] too",
    ),
    "a record of other fields": (
        put("fitted", "history_", value={"loss": []}),
        "TrainingHistory",
    ),
    "a field too many": (
        put("fitted", "fit_report_", "evil", value=1),
        r"of FitReport only\. Got \['evil'\] too, of sk-ada.*Install a newer",
    ),
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
    "a head of the model's": (own_head, "head with 3 outputs"),
    "a length of its own head": (put("pooling", value="model"), "or null for a model"),
    "another hash": (put("content_hash", value="0" * 64), "must be the one that"),
    "a hash and more": (put("content_hash", value="0" * 65), "as a SHA-256"),
    "a version of several lines": (
        put("versions", "torch", value="2.0\n\n# Pay here"),
        "names and numbers in 'versions'",
    ),
    "versions of numbers": (put("versions", value={"torch": 2}), "'versions' as dict"),
}


def test_every_field_must_be_there(folder):
    whole = read(folder)
    objects = {(): whole, ("fitted",): whole["fitted"]}
    records = ("schedule_", "history_", "fit_report_")
    objects |= {("fitted", n): whole["fitted"][n] for n in records}
    for outer, fields in objects.items():
        for name in fields.keys() - {"sha256"}:  # which writing adds
            described = read(folder)
            put(*outer, name, value=...)(described)
            write(folder, described)
            match = rf"must hold the .*Got them without \['{name}'\]"
            assert_refused(folder, match)
            write(folder, whole)


@pytest.mark.parametrize("case", STATES)
def test_a_hostile_state_is_refused(folder, case):
    change, match = STATES[case]
    described = read(folder)
    change(described)
    write(folder, described)

    assert_refused(folder, match)


REGRESSORS = {
    "a scale below 0": (
        put("fitted", "_target_scale", value=array("<f8", [1], [-1.0])),
        "0 or above",
    ),
    "an infinite scale": (
        put(
            "fitted",
            "_target_scale",
            value=array("<f8", [1], [{"type": "float", "value": "inf"}]),
        ),
        "0 or above",
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
