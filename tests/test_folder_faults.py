"""Folders of estimators that were changed, by accident or by an attacker."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from _folders import read, write
from _toy import make, toy

from sk_adalora import AdaLoraClassifier, _read_folder
from sk_adalora._folder_files import HEAD_NAME, STATE_NAME
from sk_adalora._json_values import to_json
from sk_adalora.adalora.peft_format import WEIGHTS_NAME


@pytest.fixture(scope="module")
def saved(tiny_model, tmp_path_factory):
    """A saved classifier. Do not change it."""
    folder = tmp_path_factory.mktemp("saved") / "f"
    make(tiny_model).fit(*toy(24)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to change."""
    return Path(shutil.copytree(saved, tmp_path / "f"))


def test_a_parameter_that_was_edited_is_noticed(folder):
    described = read(folder)
    described["parameters"]["max_length"] = 7
    (folder / STATE_NAME).write_text(json.dumps(described), "utf8")

    with pytest.raises(ValueError, match=f"{STATE_NAME} must be as it was written"):
        AdaLoraClassifier.from_pretrained(folder)


@pytest.mark.parametrize("name", [WEIGHTS_NAME, HEAD_NAME, "tokenizer.json"])
def test_a_file_that_was_changed_is_noticed(folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"'{name}' must be as it was written"):
        AdaLoraClassifier.from_pretrained(folder)

    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"must hold '{name}'"):
        AdaLoraClassifier.from_pretrained(folder)


def test_line_ends_that_git_changed_are_noticed(folder):
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    with pytest.raises(ValueError, match=r"'tokenizer\.json' must .* \.gitattributes"):
        AdaLoraClassifier.from_pretrained(folder)


def test_line_ends_of_what_has_its_own_hash_do_not_matter(folder):
    for name in (STATE_NAME, "README.md"):
        path = folder / name
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    AdaLoraClassifier.from_pretrained(folder)


# What an attacker says, who can compute hashes -> the error.
LIES = {
    "format-0": (lambda d: d.update(format=0), "of format 1 or before. Got format 0"),
    "format-true": (lambda d: d.update(format=True), "hold 'format' as int"),
    "above": (lambda d: d["files"].update({"../x": "kept"}), "of the folder only"),
    "via": (lambda d: d["files"].update({"a/../../x": "kept"}), "of the folder only"),
    "root": (lambda d: d["files"].update({"/x": "kept"}), "of the folder only"),
    "roots": (lambda d: d["files"].update({"//x": "kept"}), "of the folder only"),
    "windows": (lambda d: d["files"].update({"a\\x": "kept"}), "of the folder only"),
    "drive": (lambda d: d["files"].update({"C:x": "kept"}), "of the folder only"),
    "no-head": (lambda d: d["files"].pop(HEAD_NAME), "must list .*head"),
    "no-backbone": (
        lambda d: d.update(includes_backbone=True),
        r"must list \['backbone/config\.json'\] under 'files'",
    ),
    "parameter": (
        lambda d: d["parameters"].update(x=1),
        r"hold the parameters of AdaLoraClassifier only\. Got \['x'\].*Install a newer",
    ),
    "field": (
        lambda d: d["fitted"]["schedule_"].update(x=1),
        r"of ResolvedSchedule only\. Got \['x'\] too, of sk-ada.*Install a newer",
    ),
    "code": (
        lambda d: d["parameters"].update(trust_remote_code=True),
        "must not ask for code",
    ),
    "base": (lambda d: d.update({"class": "ClassifierMixin"}), "of class AdaLoraC"),
    "hash": (lambda d: d.update(content_hash="<b>"), "'content_hash' as a SHA-256"),
    "version": (
        lambda d: d["versions"].update(torch="2.0\n\n# Pay here"),
        "names and numbers in 'versions'",
    ),
    "wide": (
        lambda d: d["fitted"].update(
            classes_={**to_json(np.array(["a", "b"])), "dtype": "<U2000000"}
        ),
        "known type and size",
    ),
    "many": (
        lambda d: d["parameters"].update(
            dict.fromkeys(
                ["model", "epochs", "tinit"],
                {"type": "array", "shape": [8000], "dtype": "<U4096"}
                | {"values": ["a"] * 8000},
            )
        ),
        "arrays of more than 268435456 bytes",
    ),
    "outputs": (lambda d: d.update(n_outputs=3), "head"),
    "classes": (
        lambda d: d["fitted"].update(classes_=to_json(np.arange(3))),
        "as many classes or targets",
    ),
    "nan": (
        lambda d: d["fitted"].update(classes_=to_json(np.array([0.0, np.nan]))),
        "'classes_' as an array of distinct labels",
    ),
    "names": (
        lambda d: d["fitted"].update(
            feature_names_in_=to_json(np.array(["a", "b"], dtype=object))
        ),
        "hold 1 'feature_names_in_'",
    ),
    "pooling": (lambda d: d.update(pooling="sum"), "'pooling' that is known"),
    "layers": (lambda d: d["layers"].pop(), "the adapted layers under 'layers'"),
}


def test_what_a_reader_fills_in_breaks_no_seal(folder, monkeypatch):
    """A field that a later version adds is not in the files of this one."""
    check = _read_folder._check_fields

    def filling(values, *others):
        check(values, *others)
        if "found_in" in values:  # not a record inside
            values["found_in"] = "filled in"

    monkeypatch.setattr(_read_folder, "_check_fields", filling)

    loaded = AdaLoraClassifier.from_pretrained(folder)
    assert loaded._adapter.found_in == "filled in"


@pytest.mark.parametrize("name", LIES)
def test_lies_are_refused(folder, name):
    lie, message = LIES[name]
    described = read(folder)
    lie(described)
    write(folder, described)

    with pytest.raises(ValueError, match=message):
        AdaLoraClassifier.from_pretrained(folder)


def test_a_class_alone_and_one_target_of_several_outputs_are_refused():
    shared = {"n_features_in_": 1}
    classes = {"classes_": np.array(["a"]), "_multilabel": False}
    targets = {"_target_mean": np.zeros(2), "_target_scale": np.ones(2)}

    with pytest.raises(ValueError, match="as many classes or targets"):
        _read_folder._check_together(shared | classes, n_outputs=1)
    with pytest.raises(ValueError, match="one target only"):
        _read_folder._check_together(shared | targets | {"_one_target": True}, 2)


def test_a_name_that_no_file_can_have_is_refused(folder):
    described = read(folder)
    described["files"]["x" * 5000] = "kept"
    write(folder, described)

    with pytest.raises(FileNotFoundError, match=r"must hold 'x{80}'\."):
        AdaLoraClassifier.from_pretrained(folder)


def test_code_is_run_for_those_who_ask_for_it_only(folder):
    assert not AdaLoraClassifier.from_pretrained(folder).trust_remote_code

    loaded = AdaLoraClassifier.from_pretrained(folder, trust_remote_code=True)
    assert loaded.trust_remote_code


@pytest.mark.parametrize("name", [HEAD_NAME, "backbone"])
def test_a_link_to_a_place_outside_is_refused(folder, tmp_path, name):
    (folder / "backbone").mkdir()
    (folder / name).rename(tmp_path / name)
    try:
        os.symlink(tmp_path / name, folder / name)
    except OSError:
        pytest.skip("links need rights here")

    with pytest.raises(ValueError, match="links to a place outside"):
        AdaLoraClassifier.from_pretrained(folder)
