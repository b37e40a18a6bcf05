"""Tensors that a folder must not have: a clear error each."""

import json
import pickle
import shutil
import struct

import pytest
import torch
from _hostile import ADAPTER, ARRAYS, HEAD, LAYER, assert_refused
from safetensors.torch import load_file, save_file

from sk_adalora import AdaLoraEncoder

PACKED = getattr(torch, "float4_e2m1fn_x2", torch.uint8)
START = f"base_model.model.{LAYER}.lora_"
OWN_HEAD = "base_model.model.classifier."


def tensor(name, change):
    """A change of one tensor; it becomes what `change` returns, or is left out."""

    def changed(tensors):
        value = change(tensors.pop(name))
        if value is not None:
            tensors[name] = value.contiguous()

    return changed


def renamed(name, new):
    return lambda tensors: tensors.update({new: tensors.pop(name)})


def more(name, value):
    return lambda tensors: tensors.update({name: value})


def spoilt(value):
    def change(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[0] = value
        return tensor

    return change


def of_another_width(tensors):
    """A layer whose factors fit each other, but not the model."""
    tensors[START + "A"] = torch.zeros(len(tensors[START + "E"]), 7)


def of_another_layer(tensors):
    for kind in "ABE":
        name = f"base_model.model.evil.lora_{kind}"
        tensors[name] = tensors[START + kind].clone()


ADAPTERS = {
    "a factor is missing": (tensor(START + "A", lambda t: None), "of shape"),
    "no tensors": (lambda tensors: tensors.clear(), "at least one layer"),
    "NaN": (tensor(START + "A", spoilt(torch.nan)), "must be finite"),
    "infinity": (tensor(START + "B", spoilt(torch.inf)), "must be finite"),
    "too large": (tensor(START + "A", lambda t: t.double() + 1e300), "must be finite"),
    "integers": (tensor(START + "A", lambda t: t.int()), "floating point"),
    "two numbers a byte": (
        tensor(START + "A", lambda t: t.byte().view(PACKED)),
        "floating point|must hold tensors",
    ),
    "a factor turned round": (tensor(START + "A", lambda t: t.T), ""),
    "a factor of one dimension": (tensor(START + "A", torch.flatten), "shape"),
    "a factor of none": (tensor(START + "E", lambda t: t.sum()), "of shape"),
    "a factor of three": (tensor(START + "B", lambda t: t[None]), "of shape"),
    "a row less": (tensor(START + "A", lambda t: t[:-1]), "of shape"),
    "two columns": (tensor(START + "E", lambda t: t.repeat(1, 2)), "of shape"),
    "another width": (of_another_width, "must have shapes"),
    "another name": (renamed(START + "A", "lora_A"), "must be named"),
    "a path above": (
        renamed(START + "A", "base_model.model.../../etc/passwd.lora_A"),
        "must be named",
    ),
    "a pattern": (renamed(START + "A", "base_model.model.(x+x+)+y.lora_A"), "of shape"),
    "a tensor too many": (more("base_model.model.evil", torch.zeros(2)), "Unknown"),
    "a layer too many": (of_another_layer, "no flags"),
}
HEADS = {
    "other outputs": (tensor("weight", lambda t: t[:2]), "weight must have shape"),
    "other width": (tensor("weight", lambda t: t[:, :5]), "weight must have shape"),
    "NaN": (tensor("weight", spoilt(torch.nan)), "finite"),
    "halves": (tensor("weight", lambda t: t.half()), "float32"),
    "no bias": (tensor("bias", lambda t: None), "'bias'"),
    "more": (more("evil", torch.zeros(1)), "'bias'"),
    "nothing": (lambda tensors: tensors.clear(), "'weight'"),
    "a flat one": (tensor("weight", torch.flatten), "weight must have shape"),
    "a bias of one output": (tensor("bias", lambda t: t[:1]), "bias must have shape"),
}
OWN_HEADS = {
    "no head": lambda tensors: [
        tensors.pop(n) for n in [*tensors] if ".lora_" not in n
    ],
    "no bias": tensor(OWN_HEAD + "bias", lambda t: None),
    "a number": tensor(OWN_HEAD + "bias", lambda t: t.sum()),
    "other outputs": tensor(OWN_HEAD + "weight", lambda t: t[:2]),
    "NaN": tensor(OWN_HEAD + "weight", spoilt(torch.nan)),
    "other width": tensor(OWN_HEAD + "weight", lambda t: t[:, :5]),
    "another module": renamed(OWN_HEAD + "bias", "base_model.model.evil.bias"),
}
# Of an encoder: a mean (32,) and axes (3, 32).
MEAN, AXES = "_centre", "_components"


def of_width(width):
    def change(arrays):
        arrays |= {MEAN: torch.zeros(width), AXES: torch.zeros(3, width)}

    return change


OF_ENCODERS = {
    "no mean": (tensor(MEAN, lambda t: None), "must hold finite"),
    "another name": (renamed(AXES, "axes"), "must hold finite"),
    "more": (more("evil", torch.zeros(1)), "must hold finite"),
    "nothing": (lambda arrays: arrays.clear(), "must hold finite"),
    "NaN": (tensor(AXES, spoilt(torch.nan)), "must hold finite"),
    "infinity": (tensor(MEAN, spoilt(torch.inf)), "must hold finite"),
    "doubles": (tensor(AXES, torch.Tensor.double), "in float32"),
    "integers": (tensor(MEAN, torch.Tensor.int), "in float32"),
    "axes turned round": (tensor(AXES, lambda t: t.T), "have length 32"),
    "one axis": (tensor(AXES, lambda t: t[0]), "have length 32"),
    "no axes": (tensor(AXES, lambda t: t[:0]), "have length 32"),
    "more axes than numbers": (tensor(AXES, lambda t: t.repeat(11, 1)), "length 32"),
    "a mean of none": (tensor(MEAN, torch.sum), "have length 32"),
    "a mean of another width": (tensor(MEAN, lambda t: t[:31]), "have length 32"),
    "both of another width": (of_width(31), "have length 32"),
    "no width": (of_width(0), "have length 32"),
}


def change_tensors(path, change):
    tensors = {n: t.clone() for n, t in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize("case", ADAPTERS)
def test_hostile_tensors_of_an_adapter_are_refused(folder, case):
    change, match = ADAPTERS[case]
    change_tensors(folder / ADAPTER, change)

    assert_refused(folder, match)


@pytest.mark.parametrize("case", HEADS)
def test_hostile_tensors_of_a_head_are_refused(folder, case):
    change, match = HEADS[case]
    change_tensors(folder / HEAD, change)

    assert_refused(folder, match)


@pytest.mark.parametrize("case", OWN_HEADS)
def test_hostile_tensors_of_a_model_s_own_head_are_refused(own_head, tmp_path, case):
    folder = shutil.copytree(own_head, tmp_path / "f")
    change_tensors(folder / ADAPTER, OWN_HEADS[case])

    assert_refused(folder)


@pytest.mark.parametrize("case", OF_ENCODERS)
def test_hostile_arrays_of_an_encoder_are_refused(encoder, tmp_path, case):
    change, match = OF_ENCODERS[case]
    folder = shutil.copytree(encoder, tmp_path / "f")
    change_tensors(folder / ARRAYS, change)

    assert_refused(folder, match, AdaLoraEncoder)


@pytest.mark.parametrize("data", [b"", b"nonsense", None])
def test_an_encoder_without_arrays(encoder, tmp_path, data):
    folder = shutil.copytree(encoder, tmp_path / "f")
    (folder / ARRAYS).unlink()
    if data is not None:
        (folder / ARRAYS).write_bytes(data)

    assert_refused(folder, ARRAYS, AdaLoraEncoder)


def with_header(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def of_float(body=b"\0" * 4, **changed):
    header = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return with_header({"weight": {**header, **changed}}, body)


RAW = {
    "nothing": b"",
    "a huge header": struct.pack("<Q", 2**60) + b"{}",
    "a header beyond the file": struct.pack("<Q", 1000) + b"{}",
    "no JSON": with_header(b"nonsense"),
    "a list": with_header([]),
    "a huge shape": of_float(shape=[10**12]),
    "a shape that overflows": of_float(shape=[2**40, 2**40]),
    "offsets beyond": of_float(data_offsets=[0, 2**50]),
    "offsets reversed": of_float(data_offsets=[4, 0]),
    "offsets negative": of_float(data_offsets=[-4, 0]),
    "an unknown dtype": of_float(dtype="O8"),
    "a hole": of_float(b"\0" * 8, data_offsets=[4, 8]),
    "more behind": of_float(b"\0" * 400),
    "deep": with_header(b'{"a":' * 50_000),
    "a pickle": pickle.dumps({"weight": 1}),
    "a type that torch lacks": of_float(
        b"\0" * 3, dtype="F6_E2M3", shape=[4], data_offsets=[0, 3]
    ),
}


@pytest.mark.parametrize("name", [ADAPTER, HEAD])
@pytest.mark.parametrize("case", RAW)
def test_files_that_hold_no_tensors(folder, name, case):
    (folder / name).write_bytes(RAW[case])

    assert_refused(folder)
