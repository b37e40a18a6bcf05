"""Where and how torch computes: device, precision, settings and threads."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch

from sk_adalora.adalora.products import MKL_IS_SLOW

from .messages import warn_user
from .ranks import is_joined

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# Major compute capabilities of cards on which torch may prefer cuDNN's attention.
_CUDNN_ATTENDS = (9, 10)

# How a lack of memory is told by all but torch's allocators on a GPU, in lower case:
# cuBLAS and its like, which have memory of their own, CUDA, Apple's devices, and the
# CPU, on Windows and elsewhere.
_NO_MEMORY = (
    *("status_alloc_failed", "status_not_initialized", "out of memory"),
    *("not enough memory", "can't allocate memory"),
)

# Whether this process has warned that it shares a GPU with others.
_warned_of_sharing = False

# The first process of this one and its ancestors that has computed, by its number.
_computed_in: int | None = None


@dataclass(frozen=True)
class Compute:
    """Where to compute, and in which precision.

    Parameters
    ----------
    device : torch.device
        With its index, where there are several.
    precision : {"float32", "bfloat16", "float16"}
        Of the frozen weights and of the computation through them.
    """

    device: torch.device
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        """Precision as torch names it."""
        return _DTYPES[self.precision]

    @property
    def or_exact(self) -> str:
        """End of an advice: to compute in float32, unless that is the precision."""
        return "" if self.precision == "float32" else ", or set precision='float32'"

    @property
    def attention(self) -> str | None:
        """Attention kernel that is the fastest here, or None for the model's own.

        On a CPU in bfloat16, a training step takes 1.4 to 1.7 times as long with the
        fused kernel as with plain products, and a prediction no less time; in float32
        the fused kernel is as fast, and faster on long texts
        (`python -m benchmarks attention`).
        """
        slow = self.device.type == "cpu" and self.precision == "bfloat16"
        return "eager" if slow else None

    @property
    def tokens_to_predict(self) -> int:
        """Maximum number of tokens in a batch of a prediction.

        A CPU is fastest while the activations between two layers fit in its cache:
        with 8,192 tokens a prediction took 1.3 times as long as with 2,048
        (`python -m benchmarks batches`).
        """
        return 2048 if self.device.type == "cpu" else 8192

    @property
    def tokens_to_train(self) -> int:
        """About how many tokens go through the model at once in training.

        Larger batches are processed in parts. On a GPU, that bounds the memory of a
        step: the default batch is one part. On a CPU it needs less memory, and no
        more time, because the activations fit in the cache: in parts, a batch of 8,192
        tokens took 0.6 of the time in bfloat16 and 0.8 in float32
        (`python -m benchmarks parts`). With two threads, twice as large parts would
        take up to 4% less time for long texts, and more memory. More threads get
        larger parts, to share enough work; nobody has measured that.
        """
        if self.device.type != "cpu":
            return 16_384
        fitting = 1024 if self.precision == "float32" else 1536
        return fitting * max(1, torch.get_num_threads() // 2)

    @property
    def compiles_shapes(self) -> bool:
        """Whether a kernel is compiled, and kept in memory, for each number of tokens.

        oneDNN does so, which multiplies in half precision on a CPU, and in float32 on
        some. Fewer different numbers of tokens take less memory, and hardly more time
        (`python -m benchmarks lengths`). On Apple's GPUs torch keeps a graph for each
        shape (pytorch/pytorch#181213). On NVIDIA's Hopper and its Blackwell for data
        centres, attention in half precision may be cuDNN's, which prepares and keeps a
        plan for each (pytorch/pytorch#155958). Neither effect is measured.
        """
        is_half = self.precision != "float32"
        if self.device.type == "cuda":
            capability = torch.cuda.get_device_capability(self.device)
            return is_half and capability[0] in _CUDNN_ATTENDS
        if self.device.type == "cpu":
            return is_half or MKL_IS_SLOW
        return self.device.type == "mps"

    @property
    def length_multiple(self) -> int:
        """The number of tokens to a multiple of which batches are padded, at least."""
        return 4 if self.compiles_shapes else 1


def resolve_compute(
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> Compute:
    """Choose the device and the precision.

    "auto" is the first CUDA device, else Apple's, else the CPU; one that cannot compute
    is passed over, with a warning. Of precisions, it is bfloat16 where the hardware
    computes in it, else float32. Refuse a device that does not exist here, or that
    cannot compute in the precision.
    """
    where = _device(device)
    if precision == "auto":
        precision = "bfloat16" if _has_bfloat16(where) else "float32"
    if precision == "float16" and where.type == "cpu":
        raise ValueError(
            "`precision` 'float16' needs a GPU. Got device='cpu'. "
            "Use 'bfloat16' or 'float32'."
        )
    return Compute(where, precision)


def _device(name: str | torch.device) -> torch.device:
    # Looking for GPUs may initialise CUDA, which forked processes cannot use then.
    if str(name) in ("cpu", "cpu:0"):
        return torch.device("cpu")
    available = available_devices()
    if name == "auto":
        return torch.device(_first_that_computes(tuple(_own_first(available))))
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(_unknown_device(name, available)) from error
    index: int | None = device.index
    if device.type == "cuda" and index is None and "cuda:0" in available:
        return torch.device("cuda:0")
    if device.type == "mps" and device.index == 0:  # there is one
        device = torch.device("mps")
    if str(device) not in available:
        raise ValueError(_unknown_device(name, available))
    return device


def _own_first(available: list[str]) -> list[str]:
    """Put the GPU of this rank before those of other ranks on this machine."""
    local = os.environ.get("LOCAL_RANK", "")
    count = sum(name.startswith("cuda") for name in available)
    if not (is_joined() and local.isdecimal() and count):
        return available
    own = int(local) % count  # of a launcher that shows each rank one GPU, that
    return [available[own], *(name for name in available if name != available[own])]


def available_devices() -> list[str]:
    """Name the devices of this machine, the preferred one first."""
    # device_count also counts GPUs whose driver is too old for CUDA.
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [f"cuda:{i}" for i in range(count)]
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


@cache
def _first_that_computes(names: tuple[str, ...]) -> str:
    """Return the preferred device of those that compute; the last one is the CPU.

    Each is tried once a process.
    """
    for name, following in pairwise(names):
        reason = _why_not(name)
        if not reason:
            return name
        warn_user(
            "device='auto' takes the first accelerator that can compute. Got "
            f"{name!r}, where a small sum raised {reason} The next choice is "
            f"{following!r}. Install a build of torch for that accelerator, or set "
            "`device`."
        )
    return names[-1]


def _why_not(name: str) -> str:
    """Try a small sum; return what it raised, or "" where the device computes."""
    try:
        # Not in torch's default, which may be float64: Apple's GPUs have none.
        torch.ones(2, device=name, dtype=torch.float32).sum().item()
    except RuntimeError as error:
        # A card that others fill computes all the same, and so does one that a forked
        # child cannot reach: whoever uses it gets an error that says so.
        passing = lacks_memory(error) or "fork" in str(error)
        if not (name.startswith("cuda") and passing):
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            return f"{type(error).__name__}: {reason}."
    return ""


def computes(device: torch.device) -> bool:
    """Tell whether a device multiplies two numbers, as torch is set at present."""
    try:
        one = torch.ones(1, 1, device=device, dtype=torch.float32)
        (one @ one).item()
    except RuntimeError:
        return False
    return True


def warn_of_sharing(compute: Compute) -> None:
    """Warn, once per process, if each worker process loads its own model on one GPU."""
    global _warned_of_sharing
    is_worker = multiprocessing.parent_process() is not None  # of joblib, for one
    if compute.device.type != "cuda" or not is_worker or _warned_of_sharing:
        return
    _warned_of_sharing = True
    warn_user(
        "Each process keeps a pretrained model of its own on the GPU. Got "
        f"{compute.device} in the worker process "
        f"{multiprocessing.current_process().name}. Use n_jobs=1, whose fits share "
        "one model, unless the GPU has room for all of them.",
    )


def warn_of_emulation(compute: Compute) -> None:
    """Warn if bfloat16 is only emulated on this device."""
    emulated = (
        compute.device.type in ("cpu", "cuda") and compute.precision == "bfloat16"
    )
    if emulated and not _has_bfloat16(compute.device):
        warn_user(
            "`precision` 'bfloat16' needs a processor that multiplies in it. Got one "
            "that does not, where a fit takes many times as long as in float32. Use "
            "'auto' or 'float32'.",
        )


def lacks_memory(error: BaseException) -> bool:
    """Tell an error for lack of memory from one that tells of a model."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in said for sign in _NO_MEMORY)


def _unknown_device(name: object, available: list[str]) -> str:
    return (
        f"`device` must be 'auto' or one of {', '.join(map(repr, available))}. "
        f"Got {name!r}. Choose one that torch finds on this machine; for another, "
        "install a build of torch that supports it."
    )


def _has_bfloat16(device: torch.device) -> bool:
    """Tell whether the hardware itself multiplies in bfloat16."""
    if device.type == "cuda":
        # On ROCm the capability is AMD's own number; all GPUs that torch supports there
        # have bfloat16.
        amd = torch.version.hip is not None
        return amd or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return _cpu_has_bfloat16()
    return False


def _cpu_has_bfloat16() -> bool:
    """Tell whether the CPU computes in bfloat16; emulated, that is slow."""
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    # Older versions of torch; every processor with AMX has it for bfloat16.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextmanager
def own_settings_of_torch(*, gradients: bool = True) -> Iterator[None]:
    """Compute as the estimator's parameters say, whatever the caller has set for torch.

    Three of the caller's settings stay in force: the precision of float32 products
    (`torch.set_float32_matmul_precision`), whether algorithms must be deterministic
    (`torch.use_deterministic_algorithms`), and which kernels may be used, as by
    `torch.backends` and `sdpa_kernel`.

    Parameters
    ----------
    gradients : bool, default=True
        Whether to record gradients.
    """
    prepare_threads()
    with ExitStack() as settings:
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.set_grad_enabled(gradients))
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                settings.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            settings.enter_context(torch.device("cpu"))
        yield


def prepare_threads() -> None:
    """Let torch compute with one thread where it would wait for others for ever.

    Call it before torch computes. The threads of OpenMP are not forked with a process,
    and it does not notice. torch's own DataLoader does the same in its workers.
    """
    global _computed_in
    if _computed_in is None:
        _computed_in = os.getpid()
    if _computed_in != os.getpid() and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
