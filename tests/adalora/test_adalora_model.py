"""The adapted model: forward, gradients, precision, switching off, dropout."""

import copy
import functools
import pickle
from concurrent.futures import ThreadPoolExecutor

import accelerate
import pytest
import torch
import transformers
from _tiny import (
    SIZES,
    adapt,
    adapted_bert,
    build,
    classifier_loss,
    encoder_loss,
    hidden,
    randomise,
    tiny_bert,
    tiny_classifier,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
    tokens,
    train,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from sk_adalora.adalora import AdaLoraConfig, RowBank, SVDLinear, get_peft_model
from sk_adalora.adalora.layers import _moved

# ---- forward ----------------------------------------------------------------


def test_the_update_starts_at_zero():
    assert torch.equal(hidden(adapt(tiny_bert())), hidden(tiny_bert()))


def test_the_update_can_start_at_random():
    model = adapt(tiny_bert(), init_lora_weights=False)

    assert not torch.allclose(hidden(model), hidden(tiny_bert()), atol=1e-2)
    assert model.triplets.singular_values.std() > 0.5


@pytest.mark.parametrize(
    ("offloaded", "options", "name"),
    [
        ("", {}, "layers.0.self_attn.q_proj"),
        ("layers.1", {}, "layers.1.self_attn.q_proj"),
        ("norm", {"modules_to_save": ["norm"]}, "norm"),
        (
            "layers.1.mlp.up_proj",
            {"target_modules": ["q_proj"], "modules_to_save": ["mlp"]},
            "layers.1.mlp",
        ),
    ],
)
def test_what_accelerate_has_offloaded_is_refused(offloaded, options, name):
    base = tiny_llama(make=transformers.LlamaModel)
    accelerate.cpu_offload(base.get_submodule(offloaded), execution_device="cpu")
    message = f"must hold its weights. Got '{name}', which accelerate has offloaded"
    with pytest.raises(ValueError, match=message):
        adapt(base, **options)

    assert not any(isinstance(part, SVDLinear) for part in base.modules())


def test_rows_start_small_and_depend_on_the_generator_alone():
    with torch.random.fork_rng(devices=[]):
        one, two, other = (adapt(tiny_bert(), seed) for seed in (0, 0, 1))
    state = torch.random.get_rng_state()
    adapt(tiny_bert())

    assert torch.equal(torch.random.get_rng_state(), state)
    for bank, same, different in zip(
        one.triplets.banks, two.triplets.banks, other.triplets.banks, strict=True
    ):
        assert torch.equal(bank.rows, same.rows)
        assert not torch.equal(bank.rows, different.rows)
        assert bank.rows.detach().std() == pytest.approx(0.02, rel=0.1)
    assert not one.triplets.singular_values.any()


def test_an_adapted_layer_computes_the_formula():
    model = randomise(adapt(nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2))))
    x = torch.randn(7, 5)
    (left, values, right), _ = model.triplets.per_layer()
    first = model.adapted["0"]
    expected = first.base_layer(x) + x @ right.T @ torch.diag(values) @ left * (
        8 / (4 + 1e-5)
    )

    model(x)  # hands the rows out
    torch.testing.assert_close(first(x), expected)


@pytest.mark.parametrize("shape", [(5,), (1, 5), (2, 3, 5), (2, 1, 3, 5), (0, 5)])
def test_inputs_of_any_shape(shape):
    model = randomise(adapt(nn.Sequential(nn.Linear(5, 3))))
    x = torch.randn(shape)
    got = model(x)
    merged = model.merge_and_unload()(x)

    assert got.shape == (*shape[:-1], 3)
    torch.testing.assert_close(got, merged)


def test_a_submodule_called_by_itself_uses_the_present_numbers():
    model = adapted_bert()
    layer = model.model.encoder.layer[0].intermediate
    x = torch.randn(2, 3, 32)
    before = layer(x)  # before the model ever ran
    hidden(model)
    again = layer(x)
    randomise(model, seed=9)
    after = layer(x)
    after.sum().backward()
    layer(x).sum().backward()  # once more, with a graph of its own
    model.merge()

    torch.testing.assert_close(before, again)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(layer(x), after)
    assert model.triplets.singular_values.grad.any()


def test_an_adapted_layer_without_a_model_says_so():
    with pytest.raises(RuntimeError, match=r"must belong to an adapted model.*Call"):
        SVDLinear(nn.Linear(4, 4), rank=2)(torch.zeros(1, 4))


def interrupt(run, at):
    """Interrupt `run` after the module `at`, as Ctrl+C does."""

    def stop(*_):
        raise KeyboardInterrupt

    hook = at.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        run()
    hook.remove()


def loaded(model):
    model.load_state_dict(adapted_bert(2, init_r=2, target_r=1).state_dict())
    return model


def compacted(model):
    model.allocator.finish()
    model.compact()
    return model


CHANGES = {
    "numbers": lambda model: randomise(model, seed=7),
    "loaded": loaded,
    "compacted": compacted,
    "copied": lambda model: randomise(copy.deepcopy(model), seed=7),
}


def first_block(model):
    x = torch.linspace(-1, 1, 192).view(2, 3, 32)
    return model.model.encoder.layer[0].intermediate(x)


@pytest.mark.parametrize(
    ("change", "run"),
    [
        *((change, hidden) for change in CHANGES),
        *((change, first_block) for change in ("loaded", "compacted", "copied")),
    ],
)
def test_an_interrupted_forward_leaves_no_trace(change, run):
    model = adapted_bert()
    interrupt(lambda: model(tokens()), at=model.model.encoder.layer[0])
    model = CHANGES[change](model)
    other = adapt(tiny_bert())
    other.load_state_dict(model.state_dict())

    for seed in (8, 9):
        assert torch.equal(run(model), run(other))
        randomise(model, seed)
        randomise(other, seed)
    assert torch.equal(run(model), run(other))


def test_two_forwards_before_one_backward():
    model, other = adapted_bert(), adapted_bert()
    (encoder_loss(model, 0) + encoder_loss(model, 1)).backward()
    encoder_loss(other, 0).backward()
    encoder_loss(other, 1).backward()

    for one, two in zip(
        model.triplets.parameters(), other.triplets.parameters(), strict=True
    ):
        torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize("make", [tiny_classifier, tiny_llama, tiny_t5])
def test_rows_are_handed_out_once_a_forward_and_not_when_merged(make, monkeypatch):
    model = randomise(adapt(make()))
    calls, hand_out = [], model.triplets.hand_out
    monkeypatch.setattr(
        model.triplets, "hand_out", lambda: (calls.append(1), hand_out())
    )
    ids = {"input_ids": tokens()}
    if make is tiny_t5:
        ids["decoder_input_ids"] = tokens()
    model(**ids)
    assert len(calls) == 1

    model.merge()
    model(**ids)
    assert len(calls) == 1


def tiny_clip():
    text = {**SIZES, "eos_token_id": 49, "bos_token_id": 1}
    image = {**SIZES, "image_size": 16, "patch_size": 8}
    config = transformers.CLIPConfig(
        text_config=text, vision_config=image, projection_dim=8
    )
    return build(lambda: transformers.CLIPModel(config))


def features_loss(model):
    """A loss of what two methods of the model return, without its `forward`."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(4, 3, 16, 16, generator=generator)
    image = model.get_image_features(pixel_values=pixels)
    text = model.get_text_features(input_ids=tokens())
    return (image.pooler_output * text.pooler_output).sum()


def tiny_own_model():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = tiny_bert()

        def forward(self, ids):
            return self.bert(ids).last_hidden_state

    return build(Own)


def test_parts_that_are_called_by_themselves_hand_out_once(monkeypatch):
    calls = []
    for base, targets, run in (
        (tiny_clip(), ["q_proj", "fc1"], features_loss),
        (tiny_own_model(), None, lambda m: [m.bert(tokens()) for _ in range(2)]),
    ):
        model = randomise(adapt(base, target_modules=targets))
        hand_out = model.triplets.hand_out
        monkeypatch.setattr(
            model.triplets,
            "hand_out",
            lambda hand_out=hand_out: (calls.append(1), hand_out()),
        )
        calls.clear()
        run(model)
        assert len(calls) == 2


@pytest.mark.parametrize(
    "duplicate", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_gradient_checkpointing_of_parts_that_are_called_by_themselves(duplicate):
    model = randomise(adapt(tiny_clip()))
    features_loss(model).backward()
    expected = [p.grad for p in model.triplets.parameters()]
    model.zero_grad()
    model = duplicate(model)
    save_less(model.train(), {"use_reentrant": False})
    features_loss(model).backward()

    for parameter, gradient in zip(model.triplets.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


class Halves(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.second = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.run = lambda part, x: part(x)

    def forward(self, x):
        return self.run(self.second, self.run(self.first, x))


@pytest.mark.parametrize("alone", [False, True], ids=["inside", "alone"])
def test_checkpointing_of_what_may_begin_a_pass(alone):
    model = randomise(adapt(build(Halves)))
    x = torch.randn(3, 8)
    before = model if alone else model.model.first
    before(x)  # in the other way
    gradients = []
    for run in (model.model.run, functools.partial(checkpoint, use_reentrant=False)):
        model.model.run = run
        out = run(model.model.first, x) if alone else model(x)
        gradients.append(torch.autograd.grad(out.sum(), model.triplets.parameters()))

    torch.testing.assert_close(*gradients)


def test_a_model_compiles_into_one_graph():
    base = tiny_bert()
    del base.encoder.layer[1:]  # a layer takes seconds to trace
    model = randomise(adapt(base))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for seed in (2, 3):
        randomise(model, seed)
        expected, found = model(tokens()), compiled(tokens())
        torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state)


@pytest.mark.parametrize("wanted", ["all-linear", r".*query"])
def test_a_compiled_model_is_refused(wanted):
    compiled = torch.compile(tiny_bert(), backend="eager")
    config = AdaLoraConfig(total_step=9, target_modules=wanted)

    with pytest.raises(TypeError, match="must be adapted before it is compiled"):
        get_peft_model(compiled, config)


def test_threads_do_not_trip_over_each_other():
    model = adapted_bert()
    batches = [tokens(seed) for seed in range(8)]
    expected = [hidden(model, batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda batch: hidden(model, batch), batches * 5))

    assert all(torch.equal(a, b) for a, b in zip(found, expected * 5, strict=True))
    randomise(model, seed=11)  # and nobody thinks that the model is still running
    assert not torch.allclose(hidden(model, batches[0]), expected[0])


# ---- gradients --------------------------------------------------------------


class Penalty(nn.Module):
    """The penalty of a model as a forward pass, for `functional_call`."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self):
        return self.model.orthogonality_loss()


@pytest.mark.parametrize("ranks", ["equal", "pruned"])
def test_gradients_of_forward_and_penalty(ranks):
    base = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 5), nn.Tanh())
    model = randomise(adapt(base.double(), init_r=3, target_r=1))
    if ranks == "pruned":
        model.triplets.keep(torch.tensor([1, 0, 1, 0, 0, 1]).bool())
    model.triplets.double()
    x = torch.randn(4, 5, dtype=torch.double)
    names = [name for name, _ in model.triplets.named_parameters()]
    values = [p.detach().requires_grad_() for p in model.triplets.parameters()]

    def outputs(*numbers):
        # `functional_call` puts `numbers` where the parameters are.
        new = {f"triplets.{n}": v for n, v in zip(names, numbers, strict=True)}
        out = torch.func.functional_call(model, new, (x,))
        penalty = torch.func.functional_call(
            Penalty(model), {f"model.{n}": v for n, v in new.items()}, ()
        )
        return out, penalty

    assert torch.autograd.gradcheck(outputs, values)


def conv1d(in_width, out_width):
    return transformers.pytorch_utils.Conv1D(out_width, in_width)


@pytest.mark.parametrize(
    "make",
    [nn.Linear, lambda i, o: nn.Linear(i, o, bias=False), conv1d],
    ids=["linear", "no bias", "Conv1D"],
)
def test_the_fused_layer_has_the_gradients_of_the_sum(make):
    # A hook on the frozen layer is a reason to call it, and to leave the sum to torch.
    model = randomise(adapt(nn.Sequential(make(5, 3), nn.Tanh()).double()))
    model.triplets.double()
    x = torch.randn(2, 4, 5, dtype=torch.double, requires_grad=True)
    trained = [x, *model.triplets.parameters()]
    seen = []

    def run():
        out = model(x)
        return [out, *torch.autograd.grad(out.square().sum(), trained)]

    fused = run()
    layer = model.adapted["0"].base_layer
    layer.register_forward_hook(lambda *_: seen.append("called"))
    summed = run()

    assert seen == ["called"]
    for one, other in zip(fused, summed, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "make",
    [nn.Linear, lambda i, o: nn.Linear(i, o, bias=False), conv1d],
    ids=["linear", "no bias", "Conv1D"],
)
def test_without_gradients_the_same_is_computed(make, dtype):
    model = randomise(adapt(nn.Sequential(make(5, 3), nn.Tanh()).to(dtype)))
    x = torch.randn(2, 4, 5).to(dtype)
    expected, before = model(x).detach(), x.clone()
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
    torch.testing.assert_close(x, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "hook", ["forward", "forward_pre", "full_backward", "full_backward_pre", "own"]
)
def test_what_others_put_on_a_frozen_layer_is_heeded(hook):
    model = randomise(adapt(nn.Sequential(nn.Linear(5, 3), nn.Tanh())))
    base, seen = model.adapted["0"].base_layer, []
    if hook == "own":
        forward = base.forward
        base.forward = lambda x: [seen.append("called"), forward(x)][1]
    else:
        getattr(base, f"register_{hook}_hook")(lambda *_: seen.append("called"))
    model(torch.ones(2, 5, requires_grad=True)).sum().backward()

    assert seen == ["called"]


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_frozen_layer_that_is_trained_by_others_gets_its_gradient(name):
    model, x = randomise(adapt(nn.Sequential(nn.Linear(5, 3)))), torch.randn(2, 5)
    parameter = getattr(model.adapted["0"].base_layer, name)
    parameter.requires_grad_(True)
    model(x).sum().backward()

    expected = {"weight": x.sum(dim=0).expand(3, 5), "bias": torch.full((3,), 2.0)}
    torch.testing.assert_close(parameter.grad, expected[name])


class Doubled(nn.Linear):
    """A linear layer with a forward method of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


class DoubledConv1D(transformers.pytorch_utils.Conv1D):
    """A transposed layer with a forward method of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("layer", [Doubled(5, 3), DoubledConv1D(3, 5)])
def test_a_frozen_layer_computes_in_its_own_way(layer):
    base, x = nn.Sequential(layer), torch.randn(4, 5, requires_grad=True)
    expected = base(x)
    (of_x,) = torch.autograd.grad(expected.sum(), x)
    model = adapt(base)  # its update is zero
    out = model(x)

    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out.sum(), x), (of_x,))
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected)
    kind = type(layer).__name__
    with pytest.raises(TypeError, match=f"a {kind}, which computes something else"):
        model.merge()


class Precise(nn.Linear):
    """A head that returns float32, whatever it gets."""

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            bias = self.bias.float()
            return nn.functional.linear(x.float(), self.weight.float(), bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_update_is_added_to_what_a_layer_returns_in_float32(dtype):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(5, 4), Precise(4, 2)).to(dtype)
    x = torch.randn(3, 6, 5).to(dtype)
    model = randomise(adapt(base))
    with model.disable_adapter():
        plain = model(x)
    (delta,) = [d for d in model.triplets.deltas() if d.shape == (2, 4)]
    model.adapted["0"].enabled = False
    hidden = base[0](x)
    out = model(x)

    assert out.dtype == plain.dtype == torch.float32
    expected = plain + hidden.float() @ delta.T
    torch.testing.assert_close(out, expected, rtol=0.05, atol=0.05)
    out.sum().backward()
    assert model.triplets.singular_values.grad.any()
    with pytest.raises(TypeError, match="a Precise, which computes something else"):
        model.merge()


@pytest.mark.parametrize("term", ["output", "penalty"])
def test_second_derivatives_are_an_error(term):
    model = randomise(adapt(nn.Sequential(nn.Linear(5, 3))))
    first = model(torch.ones(5)).sum()
    if term == "penalty":
        first = model.orthogonality_loss()
    rows = [bank.rows for bank in model.triplets.banks]
    with pytest.raises(RuntimeError, match="must not be differentiated again"):
        torch.autograd.grad(first, rows, create_graph=True)


def test_a_backward_pass_may_run_under_autocast():
    """As where autocast spans a whole step, and a layer is outside of it."""
    model = randomise(adapt(nn.Sequential(nn.Linear(5, 3))))
    x = torch.randn(4, 5, requires_grad=True)
    loss = model(x).square().sum()
    (expected,) = torch.autograd.grad(loss, x, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss.backward()

    torch.testing.assert_close(x.grad, expected, rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("scale", [1, 2**16])  # which a GradScaler starts with
def test_the_penalty_of_orthonormal_rows_is_zero_with_a_finite_gradient(scale):
    model = adapt(nn.Sequential(nn.Linear(6, 6)), init_r=3)
    with torch.no_grad():
        for bank in model.triplets.banks:
            bank.rows.copy_(torch.eye(6)[:3])
    penalty = model.orthogonality_loss()
    (penalty * scale).backward()

    assert penalty == 0
    assert all(torch.isfinite(b.rows.grad).all() for b in model.triplets.banks)


@pytest.mark.parametrize("pruned", [False, True])
def test_the_penalty_is_the_formula(pruned):
    model = adapted_bert(orth_reg_weight=0.3)
    if pruned:
        generator = torch.Generator().manual_seed(3)
        model.triplets.keep(torch.rand(48, generator=generator) < 0.4)
        assert 0 in model.triplets.ranks
    penalty = model.orthogonality_loss()
    penalty.backward()
    rows = [bank.rows for bank in model.triplets.banks]
    gradients = [r.grad for r in rows]

    norms = []
    for bank in model.triplets.banks:
        for matrix in torch.split(bank.rows, bank.sizes):
            norms.append((matrix @ matrix.T - torch.eye(len(matrix))).norm())
    expected = 0.3 * torch.stack(norms).mean()

    torch.testing.assert_close(penalty, expected)
    for ours, autograd in zip(
        gradients, torch.autograd.grad(expected, rows), strict=True
    ):
        torch.testing.assert_close(ours, autograd)


def test_rank_zero_layers_are_passed_by_and_gradients_end_above_them():
    model = adapted_bert()
    top = torch.zeros(12, 4, dtype=torch.bool)
    top[-1, 1] = top[8, 2] = True  # both in the upper layer
    model.triplets.keep(top.flatten())
    seen = {}

    def note(name):
        return lambda _, __, out: seen.update({name: out.requires_grad})

    for i, block in enumerate(model.model.encoder.layer):
        block.register_forward_hook(lambda _, __, out, i=i: seen.update({i: out}))
    loss = model(tokens()).last_hidden_state.square().mean()
    loss.backward()
    lower, upper = (o[0] if isinstance(o, tuple) else o for o in seen.values())

    assert sum(model.triplets.ranks) == 2
    assert not lower.requires_grad
    assert upper.requires_grad
    assert model.triplets.singular_values.grad.all()


# ---- precision --------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "padded"), [(torch.float, [3, 1, 0]), (torch.bfloat16, [16, 16, 0])]
)
def test_half_precision_gets_rows_in_whole_blocks(dtype, padded):
    """Zero rows, so nothing changes but the shapes that kernels are made for."""
    bank = RowBank(8, [0, 1, 2], [3, 1, 0])
    rows = torch.arange(32.0).view(4, 8).to(dtype).requires_grad_()

    parts = bank.split(rows)
    sum(part.sum() for part in parts).backward()

    assert [len(part) for part in parts] == padded
    for part, own in zip(parts, torch.split(rows, [3, 1, 0]), strict=True):
        torch.testing.assert_close(part[: len(own)], own)
        assert not part[len(own) :].any()
    assert torch.equal(rows.grad, torch.ones_like(rows))


def test_a_layer_may_be_more_precise_than_the_others():
    """As in T5: only one side's rows came in whole blocks."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 12)

        def forward(self, x):
            return self.down(self.up(x.to(self.up.weight.dtype)).float())

    def adapted(dtype):
        torch.random.default_generator.manual_seed(0)
        mixed = Mixed()
        mixed.up.to(dtype)
        ranks = AdaLoraConfig(
            init_r=3, target_r=2, target_modules=["up", "down"], total_step=10
        )
        return randomise(get_peft_model(mixed, ranks))

    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    model, exact = adapted(torch.bfloat16), adapted(torch.float32)
    out, expected = model(x), exact(x)
    out.sum().backward()
    expected.sum().backward()

    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected, rtol=0.02, atol=0.02)
    for one, two in zip(
        model.triplets.parameters(), exact.triplets.parameters(), strict=True
    ):
        torch.testing.assert_close(one.grad, two.grad, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float, torch.bfloat16])
def test_a_step_after_inference_trains(dtype):
    """A tensor that inference made and kept would be an error."""
    model = randomise(adapt(tiny_bert().to(dtype)))
    model.triplets.keep(torch.arange(48) % 5 != 0)
    with torch.inference_mode():
        model(tokens())
        model.orthogonality_loss()
    states = model(tokens()).last_hidden_state
    (states.float().square().mean() + model.orthogonality_loss()).backward()

    assert all(p.grad.any() for p in model.triplets.parameters())


def test_training_on_a_bfloat16_base_follows_the_float32_one():
    wide, narrow = adapt(tiny_bert()), adapt(tiny_bert().bfloat16())
    assert train(wide, range(12)) == train(narrow, range(12))

    difference = hidden(wide) - hidden(narrow).float()
    assert difference.abs().mean() < 0.05


def test_autocast_leaves_penalty_and_gradients_in_float32():
    model, exact = adapted_bert(), adapted_bert()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(tokens()).last_hidden_state
        penalty = model.orthogonality_loss()
        encoder_loss(model, 0).backward()
    encoder_loss(exact, 0).backward()

    torch.testing.assert_close(penalty, exact.orthogonality_loss())
    torch.testing.assert_close(out.float(), hidden(exact), rtol=0.1, atol=0.1)
    for one, two in zip(
        model.triplets.parameters(), exact.triplets.parameters(), strict=True
    ):
        assert one.grad.dtype == torch.float32
        assert (
            nn.functional.cosine_similarity(
                one.grad.flatten(), two.grad.flatten(), dim=0
            )
            > 0.98
        )


def test_a_region_without_autocast_inside_an_autocast_forward():
    class Exact(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            x = self.up(x)
            with torch.autocast("cpu", enabled=False):
                return self.down(x.float())

    model = randomise(adapt(Exact()))
    x = torch.randn(3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)

    assert out.dtype == torch.float32
    torch.testing.assert_close(out, model(x), rtol=0.1, atol=0.1)


class Quantised(nn.Linear):
    """Weights as in quantised models: computes in the input's type."""

    def __init__(self, width, kind):
        super().__init__(width, width, bias=False)
        whole = (self.weight.detach() * 100).round().to(kind)
        self.weight = nn.Parameter(whole, requires_grad=False)

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype) / 100)


@pytest.mark.parametrize(
    "kind", [torch.int8, torch.int32, torch.float8_e4m3fn, torch.float8_e5m2]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantised_layers_are_adapted_but_not_merged(dtype, kind):
    base = nn.Sequential(Quantised(6, kind), nn.ReLU(), Quantised(6, kind))
    model = randomise(adapt(base))
    out = model(torch.randn(3, 6, dtype=dtype))
    out.float().mean().backward()

    assert out.dtype == dtype
    assert model.adapted["0"].right.dtype == torch.float32  # not rounded
    assert model.triplets.singular_values.grad.any()
    message = rf"needs weights in floating point of 16 bits.*{kind}"
    with pytest.raises(TypeError, match=message):
        model.merge()


class Packed(torch.Tensor):
    """Weights that say they are float32, as those of torchao, and only multiply."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        name = getattr(function, "__name__", "")
        if name in ("t", "mm", "addmm", "matmul", "add"):
            raise NotImplementedError(f"Packed dispatch: {name}")
        result = super().__torch_function__(function, types, arguments, options or {})
        return result.as_subclass(torch.Tensor) if name == "linear" else result


class PackedLinear(nn.Linear):
    """A layer for such weights, as bitsandbytes has one."""

    def forward(self, x):
        return super().forward(x)


@pytest.mark.parametrize("kind", [nn.Linear, PackedLinear])
def test_weights_of_another_class_compute_in_their_own_way(kind):
    torch.manual_seed(0)
    base = nn.Sequential(kind(6, 6, bias=False), nn.ReLU(), kind(6, 6))
    for layer in (base[0], base[2]):  # the second one passes gradients on
        layer.weight = nn.Parameter(
            layer.weight.detach().as_subclass(Packed), requires_grad=False
        )
    model = randomise(adapt(base))
    model(torch.randn(3, 6)).mean().backward()

    assert model.triplets.singular_values.grad.all()
    with pytest.raises(TypeError, match="in a Packed"):
        model.merge()


# ---- switching off ----------------------------------------------------------


@pytest.mark.parametrize("merged", [False, True])
def test_disabling_gives_the_pretrained_model(merged):
    model = adapted_bert()
    expected = hidden(model)
    if merged:
        model.merge()
        expected = hidden(model)
    with model.disable_adapter():
        assert torch.equal(hidden(model), hidden(tiny_bert()))

    assert torch.equal(hidden(model), expected)


def test_disabling_nested_and_after_an_error():
    model = randomise(adapt(tiny_classifier(), modules_to_save=["classifier"]))
    train(model, range(4), loss=classifier_loss)

    def logits():
        with torch.no_grad():
            return model(tokens()).logits

    trained = logits()
    pretrained = tiny_classifier()(tokens()).logits

    def fail_inside():
        with model.disable_adapter():
            with model.disable_adapter():
                assert torch.equal(logits(), pretrained)
            assert torch.equal(logits(), pretrained)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert torch.equal(logits(), trained)
    assert not torch.allclose(trained, pretrained, atol=1e-3)


# ---- dropout ----------------------------------------------------------------


def test_dropout_with_a_generator_is_reproducible_and_leaves_the_global_state():
    outs = []
    before = torch.random.get_rng_state()
    for _ in range(2):
        model = randomise(adapt(tiny_bert(), lora_dropout=0.5)).train()
        model.model.eval()
        for layer in model.adapted.values():
            layer.train()
        outs.append([hidden(model), hidden(model)])

    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(outs[0][0], outs[1][0])
    assert torch.equal(outs[0][1], outs[1][1])
    assert not torch.equal(outs[0][0], outs[0][1])


def test_dropout_can_be_turned_off_and_on_by_others():
    """They look for torch's modules, as trl does to turn it off in a whole model."""
    model = randomise(adapt(tiny_bert(), lora_dropout=0.5)).train()
    drops = [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p == 0.5]

    assert len(drops) == len(model.adapted)
    for drop in drops:
        drop.p = 0
    torch.testing.assert_close(hidden(model), hidden(model), rtol=0, atol=0)
    model.eval()
    for drop in drops:
        drop.p = 0.5
    torch.testing.assert_close(hidden(model), hidden(model), rtol=0, atol=0)
    for drop in drops:  # Monte Carlo dropout
        drop.train()
    assert not torch.equal(hidden(model), hidden(model))


@pytest.mark.parametrize("seeded", [False, True])
def test_dropout_keeps_the_mean_and_is_off_in_evaluation(seeded):
    generator = torch.Generator().manual_seed(0) if seeded else None
    settings = AdaLoraConfig(init_r=4, target_r=2, total_step=9, lora_dropout=0.25)
    base = nn.Sequential(nn.Linear(8, 8))
    model = randomise(get_peft_model(base, settings, generator=generator))
    x = torch.ones(40_000, 8)
    with torch.no_grad():
        exact = model.eval()(x)
        dropped = model.train()(x)
        assert torch.equal(model.eval()(x), exact)
        with model.disable_adapter():
            frozen = model(x)

    mean, expected = (dropped - frozen).mean(0), (exact - frozen).mean(0)
    torch.testing.assert_close(mean, expected, rtol=0.05, atol=0.005)
    assert expected.abs().max() > 0.1
    assert dropped.std(0).min() > 0


@pytest.mark.parametrize(
    ("there", "moves"), [("cuda:1", True), ("meta", True), ("cpu", False)]
)
def test_a_generator_for_dropout_moves_with_its_layer(monkeypatch, there, moves):
    seeded = []
    before = torch.Generator("cpu").manual_seed(0)

    class Generator:  # this machine need not have its device
        def __init__(self, device):
            seeded.append(str(device))

        def manual_seed(self, seed):
            return self

    monkeypatch.setattr(torch, "Generator", Generator)
    after = _moved(before, torch.device(there))

    assert (after is not before) == moves
    assert seeded == [there] * moves


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_checkpointing_repeats_no_dropout_of_a_generator(dropout):
    model = adapted_bert(lora_dropout=dropout, init_lora_weights=False)
    save_less(model)
    model.enable_input_require_grads()
    loss = model.train()(tokens()).last_hidden_state.sum()
    if not dropout:
        loss.backward()
        assert model.triplets.singular_values.grad.abs().sum() > 0
        return

    with pytest.raises(RuntimeError, match="generator=None, or set lora_dropout=0"):
        loss.backward()


# ---- generate ---------------------------------------------------------------


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_t5])
def test_generate_uses_the_present_numbers(make):
    model = randomise(adapt(make()))
    ids = tokens(rows=3)
    options = {"max_new_tokens": 5, "do_sample": False}
    mask = torch.ones_like(ids)

    def generated(m):
        return m.generate(ids, attention_mask=mask, **options)

    first = generated(model)
    randomise(model, seed=12)
    second = generated(model)
    with model.disable_adapter():
        plain = generated(model)
    merged = model.merge_and_unload()

    assert first.shape != second.shape or not torch.equal(first, second)
    assert torch.equal(plain, generated(make()))
    assert torch.equal(generated(merged), second)


def save_less(model, kwargs=None):
    """Turn gradient checkpointing on, by the name that this transformers has for it."""
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    getattr(model, next(n for n in names if hasattr(model, n)))(kwargs)
