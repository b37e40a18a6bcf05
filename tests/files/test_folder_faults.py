"""Folders of estimators that were changed, by accident or by an attacker."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from _folders import read
from _toy import make, toy

from sk_adalora import AdaLoraClassifier
from sk_adalora.adalora.peft_format import WEIGHTS_NAME
from sk_adalora.files import read as _read_folder
from sk_adalora.files.layout import HEAD_NAME, STATE_NAME


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


def test_a_class_alone_and_one_target_of_several_outputs_are_refused():
    shared = {"n_features_in_": 1}
    classes = {"classes_": np.array(["a"]), "_multilabel": False}
    targets = {"_target_mean": np.zeros(2), "_target_scale": np.ones(2)}

    with pytest.raises(ValueError, match="as many classes or targets"):
        _read_folder._check_together(shared | classes, n_outputs=1)
    with pytest.raises(ValueError, match="one target only"):
        _read_folder._check_together(shared | targets | {"_one_target": True}, 2)


def test_code_is_run_for_those_who_ask_for_it_only(folder):
    assert not AdaLoraClassifier.from_pretrained(folder).trust_remote_code

    loaded = AdaLoraClassifier.from_pretrained(folder, trust_remote_code=True)
    assert loaded.trust_remote_code
