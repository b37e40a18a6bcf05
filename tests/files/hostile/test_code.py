"""Folders with code in them: nothing of it is run, unless the caller asks for it."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from _folders import read, write
from _hostile import ADAPTER, X, Y, assert_refused
from _toy import make

from sk_adalora import AdaLoraClassifier


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_in_place_of_weights(folder, tmp_path):
    (folder / ADAPTER).unlink()
    torch.save({"weight": Evil(tmp_path / "ran")}, folder / "adapter_model.bin")

    assert_refused(folder, match="adapter_model")
    assert not (tmp_path / "ran").exists()


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
    try:
        AdaLoraClassifier.from_pretrained(tmp_path / "f").predict(X)
    except ValueError as error:
        assert " must " in str(error)  # noqa: PT017

    assert not (tmp_path / "ran").exists()


def test_trust_is_given_by_the_caller_only(folder, fitted):
    described = read(folder)
    asks = [["trust_remote_code", True]]
    described["parameters"]["model_kwargs"] = {"items": asks}
    write(folder, described)

    assert_refused(folder, match=r"Pass trust_remote_code=True if you trust")
    loaded = AdaLoraClassifier.from_pretrained(folder, trust_remote_code=True)
    assert loaded.model_kwargs == {"trust_remote_code": True}


def test_extra_files_are_not_read(folder, tmp_path, fitted):
    (folder / "evil.py").write_text(EVIL_CODE.format(path=str(tmp_path / "ran")))
    (folder / "conftest.py").write_text("raise SystemExit")
    (folder / "fitted.pkl").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    torch.save({"a": Evil(tmp_path / "ran")}, folder / "adapter_model.bin")
    loaded = AdaLoraClassifier.from_pretrained(folder)

    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))
    assert not (tmp_path / "ran").exists()
