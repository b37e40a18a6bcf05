"""Tensors that a folder must not have: a clear error each."""

import json
import pickle
import shutil
import struct

import pytest
import torch
from _hostile import ADAPTER, HEAD, LAYER, assert_refused
from safetensors.torch import load_file, save_file

PACKED = getattr(torch, "float4_e2m1fn_x2", torch.uint8)
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
    "two numbers a byte": (
        ADAPTER,
        tensor(START + "A", lambda t: t.byte().view(PACKED)),
        "floating point",
    ),
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
        "of shape",
    ),
    "a pattern": (
        ADAPTER,
        renamed(START + "A", "base_model.model.(x+x+)+y.lora_A"),
        "of shape",
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
    "a column as head": (
        HEAD,
        tensor("weight", lambda t: t[:, 0].contiguous()),
        "3 rows",
    ),
    "a bias of one output": (HEAD, tensor("bias", lambda t: t[:1]), "3 rows and a"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_hostile_tensors_are_refused(folder, case):
    name, change, match = TENSORS[case]
    tensors = load_file(folder / name)
    tensors = {n: t.clone() for n, t in tensors.items()}
    change(tensors)
    save_file(tensors, folder / name)

    assert_refused(folder, match)


HEADS = {
    "no head": lambda tensors: [
        tensors.pop(n) for n in [*tensors] if ".lora_" not in n
    ],
    "no bias": lambda tensors: tensors.pop("base_model.model.classifier.bias"),
    "a number": lambda tensors: tensors.update(
        {
            "base_model.model.classifier.bias": tensors.pop(
                "base_model.model.classifier.weight"
            ).sum()
        }
    ),
    "other outputs": tensor(
        "base_model.model.classifier.weight", lambda t: t[:2].clone()
    ),
    "NaN": tensor("base_model.model.classifier.weight", spoilt(torch.nan)),
    "two numbers a byte": tensor(
        "base_model.model.classifier.weight", lambda t: t.byte().view(PACKED)
    ),
    "other width": tensor(
        "base_model.model.classifier.weight", lambda t: t[:, :5].contiguous()
    ),
    "another module": renamed(
        "base_model.model.classifier.bias", "base_model.model.evil.bias"
    ),
}


@pytest.mark.parametrize("case", HEADS)
def test_tensors_of_a_model_with_its_own_head(own_head, tmp_path, case):
    if case == "two numbers a byte" and PACKED is torch.uint8:
        pytest.skip("this torch has no such numbers")  # and whole ones are read
    folder = shutil.copytree(own_head, tmp_path / "f")
    tensors = {n: t.clone() for n, t in load_file(folder / ADAPTER).items()}
    HEADS[case](tensors)
    save_file(tensors, folder / ADAPTER)

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
    "a type that torch lacks": with_header(
        {"weight": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}},
        b"\0" * 3,
    ),
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

    assert_refused(folder)
