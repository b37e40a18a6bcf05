""" "auto" -> a device and a precision."""

import contextlib
import pickle
import sys
import warnings

import numpy as np
import pytest
import torch
from _toy import make as make_classifier
from _toy import toy

from sk_adalora import clear_backbone_cache
from sk_adalora.runtime import devices as _devices
from sk_adalora.runtime.devices import (
    Compute,
    available_devices,
    resolve_compute,
    warn_of_emulation,
)


@pytest.fixture
def tried(monkeypatch):
    """Devices that are tried, in their order; `torch.ones` makes tensors on the CPU."""
    ones, found = torch.ones, []

    def make(*shape, device, dtype):
        found.append(device)
        return ones(*shape, dtype=dtype)

    monkeypatch.setattr(torch, "ones", make)
    _devices._first_that_computes.cache_clear()
    yield found
    _devices._first_that_computes.cache_clear()


@pytest.fixture
def no_gpu(monkeypatch, tried):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch, tried):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))


def cpu_that_computes_bfloat16(monkeypatch, *, avx512=False, amx=False):
    found = {"avx512_bf16": avx512, "amx_bf16": amx}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)


# ---- which device -----------------------------------------------------------


def test_auto_is_the_cpu_where_there_is_nothing_else(no_gpu):
    assert available_devices() == ["cpu"]
    assert resolve_compute().device == torch.device("cpu")


def test_a_gpu_that_the_driver_is_too_old_for_is_none(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    assert resolve_compute().device == torch.device("cpu")
    with pytest.raises(ValueError, match=r"one of 'cpu'\. Got 'cuda'"):
        resolve_compute("cuda")


def test_who_asks_for_the_cpu_does_not_start_cuda(monkeypatch, tiny_model):
    """A process that has started it cannot fork others that use it."""

    def start():
        # A torch that is built for CUDA may ask so at each step of an optimizer, the
        # newest by way of torch.accelerator.
        caller = sys._getframe(1)
        while caller is not None:
            if caller.f_globals["__name__"].startswith("torch.optim."):
                return False
            caller = caller.f_back
        raise AssertionError("CUDA was started")

    monkeypatch.setattr(torch.cuda, "is_available", start)
    make_classifier(tiny_model).fit(["good film", "poor film"] * 4, ["a", "b"] * 4)
    clear_backbone_cache()


def test_auto_is_the_first_gpu(two_gpus, tried):
    assert available_devices()[:2] == ["cuda:0", "cuda:1"]
    # Otherwise the same place would have two names, and the model two copies.
    assert resolve_compute("cuda") == resolve_compute("cuda:0")
    assert resolve_compute("cuda:1").device.index == 1
    assert tried == []  # who names a device gets it untried
    assert resolve_compute() == resolve_compute() == resolve_compute("cuda:0")
    assert tried == ["cuda:0"]  # once a process


# What a card raises that computes nothing, and what one that is busy.
NO_KERNEL = RuntimeError(
    "CUDA error: no kernel image is available for execution on the device\n"
    "CUDA kernel errors might be asynchronously reported at some other API call."
)
NO_ROOM = RuntimeError("MPS backend out of memory (MPS allocated: 0 bytes).")
BUSY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("Cannot re-initialize CUDA in forked subprocess. To use CUDA"),
]


def raising(monkeypatch, name, error):
    """Have one device raise an error where a tensor is made on it."""
    ones = torch.ones

    def make(*shape, device, dtype):
        if device == name:
            raise error
        return ones(*shape, device=device, dtype=dtype)

    monkeypatch.setattr(torch, "ones", make)


@pytest.mark.parametrize(
    ("devices", "error", "match"),
    [
        (
            ["cuda:0", "cuda:1", "cpu"],
            NO_KERNEL,
            r"^device='auto' takes .*\. Got 'cuda:0', where a small sum raised "
            r"RuntimeError: CUDA error: no kernel image is available for execution on "
            r"the device\. The next choice is 'cuda:1'\. Install a build of torch",
        ),
        # As Apple's device of a virtual machine, which has no memory at all.
        (["mps", "cpu"], NO_ROOM, "raised RuntimeError: MPS .* is 'cpu'"),
    ],
)
def test_auto_passes_over_what_cannot_compute(
    tried, monkeypatch, devices, error, match
):
    monkeypatch.setattr(_devices, "available_devices", lambda: devices)
    raising(monkeypatch, devices[0], error)
    with pytest.warns(UserWarning, match=match) as caught:
        assert resolve_compute(precision="float32").device == torch.device(devices[1])
    assert [warning.filename for warning in caught] == [__file__]

    with warnings.catch_warnings():  # once a process
        warnings.simplefilter("error")
        assert resolve_compute(precision="float32").device == torch.device(devices[1])


@pytest.mark.parametrize("error", BUSY, ids=str)
def test_auto_stays_with_a_card_that_computes_at_other_times(
    two_gpus, monkeypatch, error
):
    """What fails then says so; a CPU would be taken until the process ends."""
    raising(monkeypatch, "cuda:0", error)

    assert resolve_compute().device == torch.device("cuda:0")


def test_apples_device_may_have_a_number(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)

    assert resolve_compute("mps:0") == resolve_compute("mps")
    with pytest.raises(ValueError, match="Got 'mps:1'"):
        resolve_compute("mps:1")


@pytest.mark.parametrize(
    "device", ["cuda", "cuda:0", "cuda:7", "mps", "mps:0", "cpu:1", "gpu", "tpu:x"]
)
def test_an_unknown_device_is_refused_with_those_that_exist(no_gpu, device):
    match = rf"`device` must be 'auto' or one of 'cpu'\. Got '{device}'\. Choose one"
    with pytest.raises(ValueError, match=match):
        resolve_compute(device)


# ---- which precision --------------------------------------------------------

PRECISIONS = ("float32", "bfloat16", "float16")


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(("avx512", "amx"), [(0, 0), (0, 1), (1, 0)])
def test_auto_is_bfloat16_where_the_cpu_computes_in_it(monkeypatch, older, avx512, amx):
    if older:  # versions of torch, which are asked otherwise
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    else:
        cpu_that_computes_bfloat16(monkeypatch, avx512=avx512, amx=amx)

    expected = "bfloat16" if avx512 or amx else "float32"
    assert resolve_compute("cpu").precision == expected
    for asked in ("float32", "bfloat16"):  # beats what is found
        assert resolve_compute(torch.device("cpu"), asked).precision == asked


@pytest.mark.parametrize(
    ("capability", "hip", "precision"),
    [
        ((7, 5), None, "float32"),
        ((8, 0), None, "bfloat16"),
        ((9, 0), None, "bfloat16"),
        ((7, 5), "6.2", "bfloat16"),  # ROCm's capabilities are no versions of CUDA
    ],
)
def test_auto_is_bfloat16_from_ampere_on(
    two_gpus, monkeypatch, capability, hip, precision
):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

    assert resolve_compute("cuda:1").precision == precision


def test_auto_is_apples_device_before_the_cpu_in_float32(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)

    assert resolve_compute() == Compute(torch.device("mps"), "float32")


def test_float16_needs_a_gpu(two_gpus):
    assert [resolve_compute("cuda", p).dtype for p in PRECISIONS] == [
        torch.float32,
        torch.bfloat16,
        torch.float16,
    ]
    with pytest.raises(ValueError, match=r"'float16' needs a GPU\. Got device='cpu'"):
        resolve_compute("cpu", "float16")


@pytest.mark.parametrize(
    ("device", "fast", "emulated"),
    [
        ("cpu", False, {"bfloat16"}),
        ("cpu", True, set()),
        ("cuda:0", False, {"bfloat16"}),
        ("cuda:0", True, set()),
    ],
)
def test_bfloat16_in_software_is_warned_of(monkeypatch, device, fast, emulated):
    cpu_that_computes_bfloat16(monkeypatch, avx512=fast)
    capability = (8, 0) if fast else (7, 5)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    for precision in PRECISIONS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_emulation(Compute(torch.device(device), precision))
        said = [str(warning.message) for warning in caught]
        assert bool(said) == (precision in emulated)
        assert all("needs a processor that multiplies in it" in text for text in said)


# ---- how to compute there ---------------------------------------------------


@pytest.mark.parametrize(
    ("device", "precision", "capability", "mkl_is_slow", "attention", "multiple"),
    [
        ("cpu", "bfloat16", None, False, "eager", 4),
        ("cpu", "float32", None, False, None, 1),
        ("cpu", "float32", None, True, None, 4),
        ("mps", "float32", None, False, None, 4),
        ("cuda:1", "bfloat16", (8, 0), False, None, 1),  # A100
        ("cuda:1", "bfloat16", (9, 0), False, None, 4),  # H100
        ("cuda:1", "float32", (9, 0), False, None, 1),
        ("cuda:1", "float16", (10, 0), False, None, 4),  # B200
        ("cuda:1", "bfloat16", (12, 0), False, None, 1),  # RTX 5090
    ],
)
def test_attention_and_lengths_are_what_is_fast_there(
    monkeypatch, device, precision, capability, mkl_is_slow, attention, multiple
):
    monkeypatch.setattr(_devices, "MKL_IS_SLOW", mkl_is_slow)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    compute = Compute(torch.device(device), precision)

    assert (compute.attention, compute.length_multiple) == (attention, multiple)


@pytest.mark.parametrize(
    ("device", "precision", "threads", "to_train", "to_predict"),
    [
        ("cpu", "float32", 1, 1024, 2048),
        ("cpu", "bfloat16", 2, 1536, 2048),
        ("cpu", "bfloat16", 16, 12288, 2048),
        ("cuda", "bfloat16", 2, 16_384, 8192),
    ],
)
def test_how_many_tokens_go_through_a_model_at_once(
    device, precision, threads, to_train, to_predict, monkeypatch
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    compute = Compute(torch.device(device), precision)

    assert (compute.tokens_to_train, compute.tokens_to_predict) == (
        to_train,
        to_predict,
    )


@pytest.mark.parametrize(
    "ambient",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: torch.device("meta"),
        None,
    ],
    ids=["no_grad", "inference_mode", "autocast", "default device", "default dtype"],
)
def test_what_the_caller_set_for_torch_changes_nothing(tiny_model, tmp_path, ambient):
    texts, y = toy(24)
    expected = make_classifier(tiny_model).fit(texts, y).predict_proba(texts)
    try:
        if ambient is None:
            torch.set_default_dtype(torch.float64)
        with ambient() if ambient else contextlib.nullcontext():
            fitted = make_classifier(tiny_model).fit(texts, y)
            inside = fitted.predict_proba(texts)
            loaded = pickle.loads(pickle.dumps(fitted)).predict_proba(texts)
            fitted.save_pretrained(tmp_path / "f")
            fitted.merge_and_save(tmp_path / "m")
    finally:
        torch.set_default_dtype(torch.float32)

    np.testing.assert_array_equal(inside, expected)
    np.testing.assert_array_equal(loaded, expected)
    np.testing.assert_array_equal(fitted.predict_proba(texts), expected)
