"""A device that is the CPU under another name, and as strict as a GPU.

Its tensors compute what the CPU does, but they do not mix with tensors of the CPU, are
never in double precision, and what makes the host wait for a GPU is written down.
Importing it registers a backend with torch, for good: do so only in a process of its
own, see test_other_device.py.
"""

import traceback
from collections import Counter

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

KIND = "pretend"
# What brings a number, or a size that depends on numbers, to the host.
READS = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::is_nonzero",
    "aten::equal",
    "aten::masked_select",
}
COPIES = {"aten::_to_copy", "aten::to", "aten::copy_"}
# A GPU takes these with an index that lies on the CPU.
INDEXED = {"aten::index", "aten::index_put_", "aten::_index_put_impl_"}


class _Backend(backend_registration._DummyBackendModule):
    """What torch asks of a kind of device."""

    def is_available(self):
        return True

    def is_initialized(self):
        return True

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]


backend_registration._setup_privateuseone_for_python_backend(
    KIND, backend_module=_Backend()
)
DEVICE = torch.device(KIND, 0)

has_double = False  # as on Apple's GPUs
# Place in our code, or in transformers' or torch's -> how often the host waited there.
waits = Counter()


class PretendedTensor(torch.Tensor):
    """A tensor of the device; its numbers are in `raw`, on the CPU."""

    @staticmethod
    def __new__(cls, raw):
        if raw.dtype == torch.float64 and not has_double:
            raise TypeError(f"Apple's GPUs, like this device, have no {raw.dtype}.")
        with torch.inference_mode(False):
            return torch.Tensor._make_wrapper_subclass(
                cls,
                raw.size(),
                strides=raw.stride(),
                storage_offset=raw.storage_offset(),
                dtype=raw.dtype,
                device=DEVICE,
            )

    def __init__(self, raw):
        self.raw = raw

    def __repr__(self):
        return f"PretendedTensor({self.raw})"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.tolist:  # torch refuses it to subclasses
            _write_down("tolist")
            return args[0].raw.tolist()
        if func == torch.Tensor.data.__set__:  # the rest is torch's
            args[0].raw = args[1].raw
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


class Pretend(TorchDispatchMode):
    """Makes tensors on the device, where a call asks for it."""

    def __enter__(self):
        self._made = _Made()
        self._made.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._made.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


class _Made(TorchFunctionMode):
    """What does not reach the dispatcher."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.pin_memory:
            return args[0]
        device = kwargs.get("device")
        if func is torch.tensor and device and torch.device(device) == DEVICE:
            return func(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        return func(*args, **kwargs)


def _compute(func, args, kwargs):
    """Compute on the CPU what is asked of the device, or of both."""
    leaves = [*_leaves(args), *_leaves(kwargs.values())]
    if not any(isinstance(x, PretendedTensor) or _is_there(x) for x in leaves):
        return func(*args, **kwargs)
    name = func._schema.name
    tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
    own = [x for x in tensors if isinstance(x, PretendedTensor)]
    there = bool(own)  # whether the result is on the device
    for device in (x for x in leaves if isinstance(x, torch.device)):
        there = _is_there(device)
    if name == "aten::copy_":
        there = isinstance(args[0], PretendedTensor)
    if own and name not in COPIES | INDEXED:
        _refuse_mixture(name, tensors)
    if own and name in READS:
        _write_down(name)
    if name in COPIES and _crosses(args, there) and not _goes_on(args, kwargs):
        _write_down(f"{name} {'to' if there else 'from'} the device")
    out = func(*_mapped(_raw, args), **{k: _mapped(_raw, v) for k, v in kwargs.items()})
    if not there:
        return out
    out = _mapped(lambda x: PretendedTensor(x) if _is_raw(x) else x, out)
    if own and name != "aten::to":
        return return_and_correct_aliasing(func, args, kwargs, out)
    return out


def _leaves(values):
    """Yield what a call is given, lists and tuples opened; torch's trees are slow."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        else:
            yield value


def _mapped(change, value):
    if isinstance(value, list | tuple):
        return type(value)([_mapped(change, part) for part in value])
    return change(value)


def _is_there(value):
    return isinstance(value, torch.device) and value.type == KIND


def _raw(value):
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.raw if isinstance(value, PretendedTensor) else value


def _is_raw(value):
    return isinstance(value, torch.Tensor) and not isinstance(value, PretendedTensor)


def _crosses(args, there):
    """Whether a copy goes from one device to the other."""
    source = args[1] if len(args) > 1 and isinstance(args[1], torch.Tensor) else args[0]
    return isinstance(source, PretendedTensor) != there


def _goes_on(args, kwargs):
    """Whether a copy to the device was asked for without waiting."""
    return bool(kwargs.get("non_blocking")) and not isinstance(args[0], PretendedTensor)


def _refuse_mixture(name, tensors):
    """Refuse tensors of the CPU beside those of the device, but for single numbers."""
    strange = [x for x in tensors if _is_raw(x) and x.dim() > 0]
    if strange:
        found = [(str(x.device), tuple(x.shape)) for x in tensors]
        raise RuntimeError(f"{name}: all tensors must be on one device. Got {found}.")


def _write_down(what):
    """Count a wait at the innermost line that is not torch's own machinery."""
    places = ("sk_adalora/", "transformers/", "torch/optim/", "clip_grad")
    for frame in reversed(traceback.extract_stack()):
        if any(place in frame.filename for place in places):
            waits[f"{what} in {frame.filename.rpartition('/')[2]}:{frame.lineno}"] += 1
            return
    waits[what] += 1
