"""Folders with code in them: nothing of it is run, unless the caller asks for it."""

import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
from _folders import read, write
from _hostile import ADAPTER, X, Y, assert_refused
from _tiny import tiny_bert
from _toy import make

from sk_adalora import AdaLoraClassifier
from sk_adalora.adalora import load_peft_adapter
from sk_adalora.adalora.read_peft import read_adapter


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


class Large:
    """Fills memory when it is unpickled."""

    def __reduce__(self):
        return bytearray, (3 * 10**9,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bin_that_fills_memory(folder, zipped):
    (folder / ADAPTER).unlink()
    path = folder / "adapter_model.bin"
    tensors = {"weight": torch.zeros(1), "large": Large()}
    with torch.no_grad():
        torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="fill memory that it does not store"):
        read_adapter(folder)


TENSORS = {
    "repeated by its strides": (lambda t: t.expand(10**6, 10**6), "take 4000000000"),
    "huge and sparse": (
        lambda t: t.to_sparse().sparse_resize_([10**6] * 2, 2, 0),
        "take 4000000000",
    ),
    "sparse": (lambda t: t.to_sparse(), "torch.sparse_coo"),
    "sparse by rows": (lambda t: t.to_sparse_csr(), "torch.sparse_csr"),
    "without numbers": (lambda t: t.to("meta"), "on 'meta'"),
    "nested": (lambda t: torch.nested.nested_tensor([t, t]), "nested|more than ten"),
    "complex": (lambda t: t.to(torch.complex64), "torch.complex64"),
    "quantised": (
        lambda t: torch.quantize_per_tensor(t, 1.0, 0, torch.qint8),
        "torch.qint8|more than ten",
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # some are in a beta state
@pytest.mark.parametrize("tensor", ["a.lora_A", "classifier.weight"])
@pytest.mark.parametrize("name", TENSORS)
def test_a_bin_of_tensors_that_are_not_written_out(folder, name, tensor):
    """A file of 2 KB may ask for terabytes."""
    make, match = TENSORS[name]
    (folder / ADAPTER).unlink()
    value = make(torch.ones(1, 1))
    torch.save({f"base_model.model.{tensor}": value}, folder / "adapter_model.bin")
    with pytest.raises(ValueError, match=rf"must .*Got .*({match}).*(broken|Copy)"):
        read_adapter(folder)


def test_a_bin_of_many_names_for_the_same_numbers(folder):
    value = torch.zeros(1000)
    names = [f"base_model.model.a{i}.lora_A" for i in range(1000)]
    (folder / ADAPTER).unlink()
    torch.save(dict.fromkeys(names, value), folder / "adapter_model.bin")
    with pytest.raises(ValueError, match="its tensors take 4000000 bytes, and it has"):
        read_adapter(folder)


def test_a_bin_that_torch_would_inflate(folder, monkeypatch):
    """It is refused before torch reads it: memory would be full by then."""
    (folder / ADAPTER).unlink()
    torch.save({"base_model.model.a.lora_A": torch.zeros(10**6)}, folder / "plain")
    archives = (
        zipfile.ZipFile(folder / "plain"),
        zipfile.ZipFile(folder / "adapter_model.bin", "w", zipfile.ZIP_DEFLATED),
    )
    with archives[0] as plain, archives[1] as deflated:
        for name in plain.namelist():
            deflated.writestr(name, plain.read(name))

    def load(*args, **kwargs):
        raise AssertionError("inflated")

    monkeypatch.setattr(torch, "load", load)
    match = r"adapter_model\.bin must hold tensors.*take 400\d{4} bytes, and it has"
    with pytest.raises(ValueError, match=match):
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
