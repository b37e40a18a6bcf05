"""Values that sk_adalora.json must not have: a clear error each."""

import shutil

import pytest
from _folders import read, write
from _hostile import X, assert_refused, put
from _toy import make_regressor

from sk_adalora import AdaLoraRegressor


def array(dtype, values):
    return {"dtype": dtype, "values": values}


def targets(name, value):
    return put("fitted", "targets", name, value=value)


def classes(dtype, values):
    return targets("classes", array(dtype, values))


def parameter(name, value):
    return put("parameters", name, value=value)


def own_head(described):
    described.update(pooling="model", feature_length=None)


# Fields, and what each may be of the values that are tried.
FIELDS = {
    "format": [],
    "class": [],
    "fitted": [],
    "parameters": [],
    "includes_backbone": [True],
    "n_outputs": [],
    "pooling": [],
    "layers": [],
    "is_folder": [True],
    "feature_length": [1.5],
    "commit": [None],
    "settings": [{}],
    "model": ["x"],
    "content_hash": [],
    "tokenizer_hash": ["x"],
    "versions": [{}],
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_another_type_is_refused(folder, name):
    described = read(folder)
    for value in (None, [], True, "x", 1.5, {}):
        if value not in FIELDS[name]:
            write(folder, described | {name: value})
            assert_refused(folder)


def test_every_field_must_be_there(folder):
    whole = read(folder)
    objects = {(): whole, ("fitted",): whole["fitted"]}
    records = ("schedule_", "history_", "fit_report_")
    objects |= {("fitted", n): whole["fitted"][n] for n in records}
    for outer, fields in objects.items():
        for name in fields.keys() - {"format"}:
            described = read(folder)
            put(*outer, name, value=...)(described)
            write(folder, described)
            assert_refused(folder, match=rf"must hold the .*, with \['{name}'\]")
            write(folder, whole)


STATES = {
    # Format and class.
    "a later format": (put("format", value=2), r"1\. Got format 2, of sk.*Install a"),
    "a huge format": (put("format", value=10**60), "Install a newer"),
    "format 0": (put("format", value=0), r"format 1\. Got format 0"),
    "format 1.0": (put("format", value=1.0), r"format 1\. Got format 1\.0"),
    "no format": (put("format", value=...), "Got format None"),
    "a later field": (put("later", value=1), r"Got \['later'\] too, of sk-"),
    "another class": (put("class", value="AdaLoraRegressor"), "own class"),
    "a class above": (put("class", value="BaseEstimator"), "own class"),
    # What identifies the pretrained model.
    "a branch for a commit": (put("commit", value="main"), "the hash of a commit"),
    "a path for a commit": (put("commit", value="../" * 40), "the hash of a commit"),
    "a commit and more": (put("commit", value="a" * 41), "the hash of a commit"),
    "other settings": (put("settings", value={"hidden_size": 8}), r"config\.json of"),
    "another tokenizer": (put("tokenizer_hash", value="x"), "must make the tokens"),
    "another hash": (put("content_hash", value="0" * 64), "must be the one that"),
    "a hash and more": (put("content_hash", value="0" * 65), "as a SHA-256"),
    "a length of 0": (put("feature_length", value=0), "number above 0"),
    "a length next to 0": (put("feature_length", value=1e-320), "number above 0"),
    "a huge length": (put("feature_length", value=10**40), "number above 0"),
    "no length": (put("feature_length", value=None), "number above 0, or null for a"),
    "a length of NaN": (put("feature_length", value=float("nan")), ""),
    "a version of several lines": (
        put("versions", "torch", value="2.0\n\n# Pay here"),
        "names and numbers in 'versions'",
    ),
    "versions of numbers": (put("versions", value={"torch": 2}), "'versions' as dict"),
    "layers of others": (put("layers", value=["a", "b"]), "under 'layers'"),
    "a layer twice": (lambda d: d["layers"].append(d["layers"][0]), "under 'layers'"),
    "a backbone that is not there": (put("includes_backbone", value=True), "`model`"),
    # Parameters.
    "an unknown parameter": (
        parameter("__class__", "os.system"),
        r"parameters of AdaLoraClassifier only\. Got \['__cl.*Install a newer",
    ),
    "a private parameter": (parameter("_adapter", 1), "parameters of"),
    "epochs=0": (parameter("epochs", 0), "`epochs` of AdaLoraClassifier must be"),
    "epochs as text": (parameter("epochs", "3"), "`epochs`"),
    "batch_size is a list": (parameter("batch_size", [[1]]), "`batch_size`"),
    "a wrong device": (parameter("device", "nowhere"), "`device`"),
    "a device that is a list": (parameter("device", []), "`device`"),
    "an unknown pooling": (parameter("pooling", "evil"), "`pooling`"),
    "a template": (parameter("row_format", ""), "`row_format`"),
    **{
        f"model_kwargs with {name}": (
            parameter("model_kwargs", {"items": [[name, value]]}),
            "must not say what transformers runs",
        )
        for name, value in (
            ("trust_remote_code", 1),
            ("attn_implementation", "someone/code"),
            ("use_kernels", True),
        )
    },
    "a model above": (parameter("model", "../../etc"), "`model` must"),
    "a file as model": (parameter("model", "/etc/passwd"), "`model` must"),
    "a model by address": (parameter("model", "https://evil.example/x"), "`model`"),
    "a model with NUL": (parameter("model", "a\0b"), "`model`"),
    "an object": (parameter("class_weight", {"a": 1}), "pairs in 'items'"),
    "a key that is a list": (
        parameter("class_weight", {"items": [[[1], 2]]}),
        "pairs in 'items'",
    ),
    "items that are no pairs": (
        parameter("class_weight", {"items": [[1, 2, 3]]}),
        "pairs in 'items'",
    ),
    # Labels and other coding.
    "too few labels": (classes("<U1", ["a", "b"]), "targets for its"),
    "too many labels": (classes("<i8", [1, 2, 3, 4]), "targets for its"),
    "equal labels": (classes("<U1", ["a", "a", "b"]), "as a fit leaves them"),
    "no labels": (classes("<i8", []), "as a fit leaves them"),
    "a NaN label": (classes("<f8", ["nan", 1.0, 2.0]), "as a fit leaves them"),
    "labels that are no array": (targets("classes", [1, 2]), "as a fit"),
    "lists as labels": (classes("|O", [[], [1], [2]]), "as an array"),
    "labels in two dimensions": (classes("<i8", [[1], [2], [3]]), "as an array"),
    "null as a label": (classes("|O", [None, 1, 2]), "as an array"),
    "void": (classes("|V8", [1, 2, 3]), "as an array"),
    "records": (classes("i4,i4", [1, 2, 3]), "as an array"),
    "arrays of arrays": (classes("1000000000i4", [1, 2, 3]), "as an array"),
    "complex": (classes("<c16", [1, 2, 3]), "as an array"),
    "a type of an odd size": (classes("<i3", [1, 2, 3]), "as an array"),
    "a date of a wrong unit": (classes("<M8[qq]", [1, 2, 3]), "as an array"),
    "a type that is a list": (classes([1], [1, 2, 3]), "as an array"),
    "no type": (targets("classes", {"values": [1]}), "as an array"),
    "no values": (classes("<i8", None), "as an array"),
    "long texts": (classes("<U99999999", ["a", "b", "c"]), "as an array"),
    "longer than numpy has": (classes("<U999999999", ["a", "b", "c"]), "as an array"),
    "longer than possible": (classes("<U9999999999", ["a", "b", "c"]), "as an array"),
    "text as numbers": (classes("<i8", ["a", "b", "c"]), "as an array"),
    "too large for int8": (classes("|i1", [1, 2, 300]), "as an array"),
    "too large for any": (classes("<i8", [1, 2, 10**50]), "as an array"),
    "negative unsigned": (classes("<u8", [1, 2, -1]), "as an array"),
    "targets of another estimator": (targets("kind", "Numbers"), "as a fit leaves"),
    "an unknown kind": (targets("kind", "os.system"), "as a fit leaves them"),
    "a kind that is a list": (targets("kind", []), "as a fit leaves them"),
    "a value too many": (targets("evil", 1), "as a fit leaves them"),
    "no targets": (put("fitted", "targets", value=None), "as a fit leaves them"),
    "no features": (put("fitted", "n_features_in_", value=0), "as a fit leaves them"),
    "true features": (
        put("fitted", "n_features_in_", value=True),
        "as a fit leaves them",
    ),
    "names of too many features": (
        put("fitted", "feature_names_in_", value=array("|O", ["a", "b"])),
        "as a fit leaves them",
    ),
    "names that are numbers": (
        put("fitted", "feature_names_in_", value=array("<i8", [1])),
        "as a fit leaves them",
    ),
    "a private attribute": (put("fitted", "__class__", value=1), "Install a newer"),
    # Records.
    "a record that is none": (put("fitted", "history_", value=1), "TrainingHistory"),
    "a field too many": (
        put("fitted", "fit_report_", "evil", value=1),
        r"of FitReport only\. Got \['evil'\] too, of sk-ada.*Install a newer",
    ),
    "a loss that is text": (put("fitted", "history_", "loss", value=["a"]), "'loss'"),
    "a schedule of null": (put("fitted", "schedule_", "tinit", value=None), "'tinit'"),
    "a report of lists": (put("fitted", "fit_report_", "device", value=[]), "'device'"),
    # Sizes.
    "huge outputs": (put("n_outputs", value=10**15), "targets for its"),
    "no outputs": (put("n_outputs", value=0), "targets for its"),
    "negative outputs": (put("n_outputs", value=-3), "targets for its"),
    "pooling that is unknown": (put("pooling", value="evil"), "'pooling' that is"),
    "a head of the model's": (own_head, "must match linear layers"),
    "a length of its own head": (put("pooling", value="model"), "or null for a model"),
}


@pytest.mark.parametrize("case", STATES)
def test_a_hostile_state_is_refused(folder, case):
    change, match = STATES[case]
    described = read(folder)
    change(described)
    write(folder, described)

    assert_refused(folder, match)


REGRESSORS = {
    "a scale below 0": ("scale", array("<f8", [-1.0])),
    "an infinite scale": ("scale", array("<f8", ["inf"])),
    "a mean of NaN": ("mean", array("<f8", ["nan"])),
    "two means": ("mean", array("<f8", [0.0, 1.0])),
    "a mean of text": ("mean", array("<U1", ["a"])),
    "one_dimensional is null": ("one_dimensional", None),
    "one_dimensional is 1": ("one_dimensional", 1),
}


@pytest.mark.parametrize("case", REGRESSORS)
def test_a_hostile_state_of_a_regressor_is_refused(regressor, tmp_path, case):
    folder = shutil.copytree(regressor, tmp_path / "f")
    described = read(folder)
    targets(*REGRESSORS[case])(described)
    write(folder, described)

    assert_refused(folder, "as a fit leaves them", AdaLoraRegressor)


def test_one_target_of_several_outputs_is_refused(tiny_model, tmp_path):
    several = make_regressor(tiny_model).fit(X, [[i, -i] for i in range(48)])
    several.save_pretrained(tmp_path / "f")
    described = read(tmp_path / "f")
    described["fitted"]["targets"]["one_dimensional"] = True
    write(tmp_path / "f", described)

    assert_refused(tmp_path / "f", "as a fit leaves them", AdaLoraRegressor)
