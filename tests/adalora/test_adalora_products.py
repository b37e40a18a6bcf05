"""Products by MKL and by oneDNN: the same numbers, gradients and rules."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.pytorch_utils import Conv1D

from sk_adalora.adalora import AdaLoraConfig, get_peft_model, products
from sk_adalora.adalora.layers import SVDLinear

needs_onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch without oneDNN"
)


needs_bfloat16 = pytest.mark.skipif(
    not products.ONEDNN_HAS_BFLOAT16, reason="oneDNN without bfloat16"
)


@pytest.fixture(params=[False, pytest.param(True, marks=needs_onednn)])
def onednn(request, monkeypatch):
    """Whether oneDNN multiplies, on any processor."""
    monkeypatch.setattr(products, "MKL_IS_SLOW", request.param)
    return request.param


@pytest.fixture
def forced(monkeypatch):
    """Have oneDNN multiply on any processor."""
    monkeypatch.setattr(products, "MKL_IS_SLOW", True)


class Called(TorchDispatchMode):
    """Names of the operations that torch is asked to do."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._schema.name)
        return func(*args, **kwargs or {})


def by_onednn(function, *args):
    """Whether a call multiplies by oneDNN."""
    with Called() as called:
        function(*args)
    return "mkldnn::_linear_pointwise" in called.names


def assert_close(found, exact):
    """Compare with numbers in float64, to the precision of float32."""
    torch.testing.assert_close(found, exact, check_dtype=False)


def layouts():
    """Two-dimensional tensors of 6 x 4 in memory, one after the other or not."""
    torch.manual_seed(0)
    return {
        "contiguous": torch.randn(6, 4),
        "transposed": torch.randn(4, 6).t(),
        "rows of a bank": torch.randn(9, 4)[2:8],
        "strided": torch.randn(6, 8)[:, ::2],
    }


@pytest.mark.parametrize("of_x", layouts())
@pytest.mark.parametrize("of_weight", layouts())
def test_products_are_exact_in_any_layout(onednn, of_x, of_weight):
    x, weight = layouts()[of_x], layouts()[of_weight] + 1
    bias = torch.randn(6)
    exact = x.double() @ weight.double().t()
    assert by_onednn(products.linear, x, weight) is onednn
    assert_close(products.linear(x, weight), exact)
    assert_close(products.linear(x, weight, bias), exact + bias)


@needs_onednn
def test_only_plain_float32_on_a_cpu_goes_to_onednn(forced):
    x, weight = torch.randn(5, 4), torch.randn(6, 4)
    assert products.onednn_is_faster(x, weight)
    assert products.onednn_is_faster(x, nn.Parameter(weight))
    assert not products.onednn_is_faster(x.double(), weight.double())
    assert not products.onednn_is_faster(x.bfloat16(), weight.bfloat16())
    assert not products.onednn_is_faster(x, weight.bfloat16())
    assert not products.onednn_is_faster(x.to("meta"), weight.to("meta"))


@needs_bfloat16
def test_onednn_adds_the_bias_of_bfloat16():
    x, weight, bias = (torch.randn(*s).bfloat16() for s in [(5, 4), (6, 4), (6,)])
    exact = x.double() @ weight.double().t() + bias.double()

    assert by_onednn(products.linear, x, weight, bias)
    torch.testing.assert_close(
        products.linear(x, weight, bias), exact.bfloat16(), rtol=2e-2, atol=2e-2
    )
    # Without one, torch's own product is as fast.
    assert not by_onednn(products.linear, x, weight)


@needs_bfloat16
def test_frozen_layers_in_bfloat16_add_their_bias(monkeypatch):
    layer = nn.Linear(4, 6).bfloat16().requires_grad_(False)
    model = nn.Sequential(layer)
    config = AdaLoraConfig(init_r=2, target_r=1, total_step=9, target_modules=["0"])
    model = get_peft_model(model, config)
    nn.init.ones_(model.triplets.singular_values)
    x = torch.randn(5, 4).bfloat16()

    assert by_onednn(model, x)
    monkeypatch.setattr(products, "ONEDNN_HAS_BFLOAT16", False)
    assert not by_onednn(model, x)


@needs_onednn
@pytest.mark.parametrize(
    ("found", "slow"),
    [
        ({"cpu_name": "AMD EPYC 9755", "avx512_f": True, "avx_vnni": True}, True),
        ({"cpu_name": "AMD", "avx512_f": True, "avx512_vp2intersect": True}, True),
        ({"cpu_name": "AMD EPYC 9654", "avx512_f": True, "avx_vnni": False}, False),
        ({"cpu_name": "AMD Ryzen 7 5800X", "avx512_f": False}, False),
        ({"cpu_name": "Intel(R) Xeon(R)", "avx512_f": True, "avx_vnni": True}, False),
        ({"architecture": "aarch64"}, False),
    ],
)
def test_mkl_is_slow_on_zen_5(monkeypatch, found, slow):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert products._mkl_is_slow() is slow


@needs_onednn
def test_a_compiled_model_is_one_graph(forced):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    config = AdaLoraConfig(init_r=2, target_r=1, total_step=10)
    model = get_peft_model(model, config)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    x = torch.randn(3, 4)

    torch.testing.assert_close(compiled(x), model(x))


# ---- layers -----------------------------------------------------------------


def make_layer(base, state):
    """Return an adapted layer of widths 4 and 6, adapted, merged, disabled or empty."""
    torch.manual_seed(1)
    layer = SVDLinear(base, rank=0 if state == "rank 0" else 2)
    layer.left = torch.randn(layer.rank, 6).requires_grad_()
    layer.right = torch.randn(layer.rank, 4).requires_grad_()
    layer.enabled = state != "disabled"
    if state == "merged":
        layer.merge(layer.left.t() @ layer.right, check=True)
    return layer.requires_grad_(False)


@pytest.mark.parametrize("state", ["adapted", "merged", "disabled", "rank 0"])
@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
def test_layers_compute_the_same_by_either(monkeypatch, kind, state, onednn):
    torch.manual_seed(0)
    base = nn.Linear(4, 6) if kind == "Linear" else Conv1D(6, 4)
    weight = base.weight if kind == "Linear" else base.weight.t()
    weight, bias = weight.detach().double(), base.bias.detach().double()
    layer = make_layer(base, state)
    x = torch.randn(2, 3, 4, requires_grad=True)
    with Called() as called:
        out = layer(x)
        out.pow(2).sum().backward()
    by_onednn = "mkldnn::_linear_pointwise" in called.names
    assert by_onednn is (onednn and state != "disabled")  # which is as pretrained

    left, right = (rows.detach().double() for rows in (layer.left, layer.right))
    left, right = left.requires_grad_(), right.requires_grad_()
    twin = x.detach().double().requires_grad_()
    if state in ("adapted", "merged"):
        weight = weight + left.t() @ right
    exact = F.linear(twin, weight, bias)
    exact.pow(2).sum().backward()
    assert_close(out, exact)
    assert_close(x.grad, twin.grad)
    if state == "adapted":
        assert_close(layer.left.grad, left.grad)
        assert_close(layer.right.grad, right.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
def test_updates_of_zero_leave_the_outputs_exactly_as_they_were(onednn, kind, dtype):
    """At the start and switched off, whichever library multiplies afterwards."""
    torch.manual_seed(0)
    base = nn.Linear(300, 500) if kind == "Linear" else Conv1D(500, 300)
    # Frozen as in the model: torch multiplies trainable weights by other products.
    plain = nn.Sequential(base).to(dtype).requires_grad_(False)
    config = AdaLoraConfig(init_r=4, target_r=2, total_step=9)
    model = get_peft_model(copy.deepcopy(plain), config)
    inputs = torch.randn(6, 7, 300, dtype=dtype)
    for x in (inputs, inputs.transpose(0, 1), inputs[0, :1]):
        x = x.contiguous() if kind == "Conv1D" else x
        expected = plain(x).detach()
        assert torch.equal(model(x), expected)
        with torch.no_grad():
            assert torch.equal(model(x), expected)

    model(inputs).float().square().sum().backward()
    assert model.triplets.singular_values.grad.any()
    nn.init.ones_(model.triplets.singular_values)
    assert not torch.equal(model(inputs), plain(inputs))
    with model.disable_adapter():
        assert torch.equal(model(inputs), plain(inputs))


def test_switched_off_a_transformer_of_torch_takes_its_fast_path_again():
    """Which gives rows of padding other outputs."""
    layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
    plain = nn.TransformerEncoder(layer, 2).eval()
    names = ["linear1", "linear2"]
    config = AdaLoraConfig(init_r=4, target_r=2, total_step=9, target_modules=names)
    model = get_peft_model(copy.deepcopy(plain), config)
    x, padding = torch.randn(3, 5, 32), torch.arange(5) >= torch.tensor([[5], [3], [2]])

    def outputs(encoder):
        with torch.no_grad():
            return encoder(x, src_key_padding_mask=padding)

    with model.disable_adapter():
        assert torch.equal(outputs(model), outputs(plain))
    assert not torch.equal(outputs(model), outputs(plain))


@needs_onednn
@pytest.mark.parametrize("state", ["adapted", "merged", "disabled"])
def test_autocast_has_its_way(forced, state):
    layer = make_layer(nn.Linear(4, 6), state)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(3, 4)).dtype == torch.bfloat16
