""" "auto" -> a device and a precision."""

import contextlib
import pickle
import re
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from _toy import make as make_classifier
from _toy import toy

from sk_adalora import clear_backbone_cache
from sk_adalora.runtime import devices as _devices
from sk_adalora.runtime.devices import (
    Place,
    _why_not,
    available_devices,
    resolve_place,
    warn_of_emulation,
)


@pytest.fixture(autouse=True)
def tried(monkeypatch):
    """Devices that "auto" has tried, in their order: none yet, and all compute."""
    found = []
    monkeypatch.setattr(_devices, "_tried", {})
    monkeypatch.setattr(_devices, "_why_not", lambda name: found.append(name) or "")
    return found


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))


def cpu_that_computes_bfloat16(monkeypatch, *, avx512=False, amx=False):
    found = {"avx512_bf16": avx512, "amx_bf16": amx}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)


def test_auto_is_the_cpu_where_there_is_nothing_else(no_gpu):
    assert available_devices() == ["cpu"]
    assert resolve_place().device == torch.device("cpu")


def test_a_gpu_that_the_driver_is_too_old_for_is_none(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    assert resolve_place().device == torch.device("cpu")
    with pytest.raises(ValueError, match=r"one of 'cpu'\. Got 'cuda'"):
        resolve_place("cuda")


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


def test_auto_is_the_first_gpu(two_gpus):
    assert available_devices()[:2] == ["cuda:0", "cuda:1"]
    assert resolve_place().device == torch.device("cuda:0")


def test_a_gpu_without_number_is_the_first(two_gpus):
    # Otherwise the same place would have two names, and the model two copies.
    assert resolve_place("cuda") == resolve_place("cuda:0")
    assert resolve_place("cuda:1").device.index == 1


def test_auto_is_apples_device_before_the_cpu(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)

    assert resolve_place() == Place(torch.device("mps"), "float32")


def cards_that_raise(monkeypatch, **errors):
    """Have torch make tensors on the CPU for some devices, and errors for others."""
    ones, made = torch.ones, []
    computes = _why_not  # as it was before the fixture replaced it

    def make(*shape, device, dtype):
        made.append(device)
        if (error := errors.get(device.replace(":", ""))) is not None:
            raise error
        return ones(*shape, dtype=dtype)

    monkeypatch.setattr(torch, "ones", make)
    monkeypatch.setattr(_devices, "_why_not", computes)
    return made


NO_KERNEL = RuntimeError(
    "CUDA error: no kernel image is available for execution on the device\n"
    "CUDA kernel errors might be asynchronously reported at some other API call."
)
NO_ROOM = RuntimeError(
    "MPS backend out of memory (MPS allocated: 0 bytes, max allowed: 7.93 GB). "
    "Tried to allocate 256 bytes on shared pool."
)


def test_auto_passes_over_what_cannot_compute(two_gpus, monkeypatch):
    """As a card that this torch has no kernels for."""
    made = cards_that_raise(monkeypatch, cuda0=NO_KERNEL)
    match = (
        r"^device='auto' takes the first accelerator that can compute\. Got 'cuda:0', "
        r"where a small sum raised RuntimeError: CUDA error: no kernel image is "
        r"available for execution on the device\. The next choice is 'cuda:1'\. "
        r"Install a build of torch for that accelerator, or set `device`\.$"
    )
    with pytest.warns(UserWarning, match=match) as caught:
        assert resolve_place().device == torch.device("cuda:1")
    assert [warning.filename for warning in caught] == [__file__]

    with warnings.catch_warnings():  # once a process
        warnings.simplefilter("error")
        assert resolve_place().device == torch.device("cuda:1")
    assert made == ["cuda:0", "cuda:1"]


def test_auto_is_the_cpu_where_no_accelerator_computes(two_gpus, monkeypatch):
    """As Apple's device of a virtual machine, which has no memory at all."""
    monkeypatch.setattr(_devices, "available_devices", lambda: ["mps", "cpu"])
    cards_that_raise(monkeypatch, mps=NO_ROOM)
    with pytest.warns(UserWarning, match="raised RuntimeError: MPS .* is 'cpu'"):
        assert resolve_place().device == torch.device("cpu")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("Cannot re-initialize CUDA in forked subprocess. To use CUDA"),
    ],
    ids=str,
)
def test_auto_stays_with_a_card_that_computes_at_other_times(
    two_gpus, monkeypatch, error
):
    """What fails then says so; a CPU would be taken until the process ends."""
    cards_that_raise(monkeypatch, cuda0=error)

    assert resolve_place().device == torch.device("cuda:0")


def test_who_names_a_device_gets_it_untried(two_gpus, tried):
    for _ in range(2):
        assert resolve_place("cuda:1").device == torch.device("cuda:1")
    assert tried == []
    assert resolve_place() == resolve_place("cuda:0")
    assert tried == ["cuda:0"]


def test_threads_try_a_device_once(two_gpus, monkeypatch):
    tries = []

    def slow(name):
        tries.append(name)
        time.sleep(0.05)
        return ""

    monkeypatch.setattr(_devices, "_why_not", slow)
    with ThreadPoolExecutor(4) as threads:
        found = [*threads.map(lambda _: resolve_place().device, range(8))]

    assert found == [torch.device("cuda:0")] * 8
    assert tries == ["cuda:0"]


@pytest.mark.parametrize("device", [torch.device("cpu"), "cpu:0"])
def test_the_device_may_be_given_as_torch_has_it(device):
    assert resolve_place(device, "float32").device == torch.device("cpu")


def test_apples_device_may_have_a_number(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)

    assert resolve_place("mps:0") == resolve_place("mps")
    with pytest.raises(ValueError, match="Got 'mps:1'"):
        resolve_place("mps:1")


@pytest.mark.parametrize(
    "device", ["cuda", "cuda:0", "cuda:7", "mps", "mps:0", "cpu:1", "gpu", "tpu:x"]
)
def test_an_unknown_device_is_refused_with_those_that_exist(no_gpu, device):
    match = rf"`device` must be 'auto' or one of 'cpu'\. Got '{device}'\. Choose one"
    with pytest.raises(ValueError, match=match):
        resolve_place(device)


def test_the_message_lists_all_devices(two_gpus):
    with pytest.raises(ValueError, match=r"'cuda:0', 'cuda:1', .*'cpu'.*'cuda:2'"):
        resolve_place("cuda:2")


@pytest.mark.parametrize(
    ("avx512", "amx", "precision"),
    [
        (False, False, "float32"),
        (True, False, "bfloat16"),
        (False, True, "bfloat16"),
        (True, True, "bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_the_cpu_computes_in_it(
    monkeypatch, avx512, amx, precision
):
    cpu_that_computes_bfloat16(monkeypatch, avx512=avx512, amx=amx)

    assert resolve_place("cpu").precision == precision


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")],
)
def test_auto_is_bfloat16_from_ampere_on(two_gpus, monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

    assert resolve_place("cuda:1").precision == precision


def test_auto_is_bfloat16_on_rocm_whose_capabilities_are_no_versions_of_cuda(
    two_gpus, monkeypatch
):
    monkeypatch.setattr(torch.version, "hip", "6.2")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))

    assert resolve_place("cuda:1").precision == "bfloat16"


def test_what_is_asked_for_beats_what_is_found(monkeypatch):
    cpu_that_computes_bfloat16(monkeypatch)
    assert resolve_place("cpu", "bfloat16").precision == "bfloat16"
    cpu_that_computes_bfloat16(monkeypatch, avx512=True)
    assert resolve_place("cpu", "float32").precision == "float32"


@pytest.mark.parametrize(
    ("avx512", "device", "precision", "slow"),
    [
        (False, "cpu", "bfloat16", True),
        (True, "cpu", "bfloat16", False),
        (False, "cpu", "float32", False),
    ],
)
def test_bfloat16_in_software_is_warned_of(
    monkeypatch, avx512, device, precision, slow
):
    cpu_that_computes_bfloat16(monkeypatch, avx512=avx512)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_emulation(Place(torch.device(device), precision))

    match = r"needs a processor that multiplies in it\. Got one .* Use 'auto'"
    assert [bool(re.search(match, str(w.message))) for w in caught] == [True] * slow


@pytest.mark.parametrize(
    ("capability", "precision", "slow"),
    [
        ((7, 5), "bfloat16", True),
        ((7, 5), "float16", False),
        ((7, 5), "float32", False),
        ((8, 0), "bfloat16", False),
    ],
)
def test_bfloat16_is_emulated_on_gpus_of_before_ampere(
    monkeypatch, capability, precision, slow
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_emulation(Place(torch.device("cuda:0"), precision))

    assert len(caught) == slow


def test_the_warning_of_bfloat16_is_about_the_caller_of_fit(monkeypatch, tiny_model):
    cpu_that_computes_bfloat16(monkeypatch)
    classifier = make_classifier(tiny_model, device="cpu", precision="bfloat16")
    with pytest.warns(UserWarning, match="'bfloat16' needs a processor") as caught:
        classifier.fit(["good film", "poor film"] * 4, ["a", "b"] * 4)

    assert [warning.filename for warning in caught] == [__file__]


def test_float16_needs_a_gpu(two_gpus):
    assert resolve_place("cuda", "float16").dtype == torch.float16
    with pytest.raises(ValueError, match=r"'float16' needs a GPU\. Got device='cpu'"):
        resolve_place("cpu", "float16")


def test_each_precision_is_one_of_torch():
    for name in ("float32", "bfloat16", "float16"):
        assert Place(torch.device("cpu"), name).dtype == getattr(torch, name)


def test_plain_attention_is_for_bfloat16_on_a_cpu_only():
    def attention(device, precision):
        return Place(torch.device(device), precision).attention

    assert attention("cpu", "bfloat16") == "eager"
    assert attention("cpu", "float32") is None
    assert attention("cuda:0", "bfloat16") is None


@pytest.mark.parametrize(
    ("device", "precision", "mkl_is_slow", "expected"),
    [
        ("cpu", "bfloat16", False, 4),
        ("cpu", "float32", False, 1),
        ("cpu", "float32", True, 4),
        ("mps", "float32", False, 4),
    ],
)
def test_lengths_are_rounded_where_kernels_are_compiled_for_each(
    monkeypatch, device, precision, mkl_is_slow, expected
):
    monkeypatch.setattr(_devices, "MKL_IS_SLOW", mkl_is_slow)
    assert Place(torch.device(device), precision).length_multiple == expected


@pytest.mark.parametrize(
    ("card", "capability", "precision", "expected"),
    [
        ("A100", (8, 0), "bfloat16", 1),
        ("L4", (8, 9), "float16", 1),
        ("H100", (9, 0), "bfloat16", 4),
        ("H100", (9, 0), "float32", 1),
        ("B200", (10, 0), "float16", 4),
        ("RTX 5090", (12, 0), "bfloat16", 1),
    ],
)
def test_lengths_are_rounded_on_cards_where_cudnn_plans_attention_for_each(
    monkeypatch, card, capability, precision, expected
):
    def capability_of(device):
        assert str(device) == "cuda:1"
        return capability

    monkeypatch.setattr(torch.cuda, "get_device_capability", capability_of)
    multiple = Place(torch.device("cuda:1"), precision).length_multiple
    assert multiple == expected, card


@pytest.mark.parametrize(
    ("device", "precision", "threads", "expected"),
    [
        ("cpu", "float32", 1, 1024),
        ("cpu", "bfloat16", 2, 1536),
        ("cpu", "bfloat16", 16, 12288),
        ("cuda", "bfloat16", 2, None),
    ],
)
def test_a_cpu_trains_on_parts_of_long_batches(
    device, precision, threads, expected, monkeypatch
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert Place(torch.device(device), precision).tokens_to_train == expected


@pytest.mark.parametrize(("avx512", "amx"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_older_versions_of_torch_are_asked_otherwise(monkeypatch, avx512, amx):
    older = {"_is_avx512_bf16_supported": avx512, "_is_amx_tile_supported": amx}
    for name, answer in older.items():
        monkeypatch.setattr(torch.cpu, name, lambda answer=answer: bool(answer))
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)

    expected = "bfloat16" if avx512 or amx else "float32"
    assert resolve_place("cpu").precision == expected


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
