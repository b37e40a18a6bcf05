"""The adapted model: forward, merging, switching off, storing and copying."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from _tiny import (
    BERT_LAYERS,
    QUIET,
    SIZES,
    adamw,
    adapt,
    build,
    config,
    encoder_loss,
    hidden,
    labels,
    no_warning,
    one_step,
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

from sk_adalora.adalora import AdaLoraConfig, RowBank, SVDLinear, get_peft_model

CONV1D = "ignore:fan_in_fan_out is set to False"


def adapted_bert(seed=0, **options):
    return randomise(adapt(tiny_bert(), seed, **options), seed + 1)


def snapshot(model):
    """Names, bytes and addresses of all frozen tensors."""
    return {
        name: (p.data_ptr(), p.detach().clone().contiguous().numpy().tobytes())
        for name, p in model.named_parameters()
        if not p.requires_grad
    }


def plain_parameters(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


# ---- forward ----------------------------------------------------------------


def test_the_update_starts_at_zero():
    assert torch.equal(hidden(adapt(tiny_bert())), hidden(tiny_bert()))


def test_the_update_can_start_at_random():
    model = adapt(tiny_bert(), init_lora_weights=False)

    assert not torch.allclose(hidden(model), hidden(tiny_bert()), atol=1e-2)
    assert model.triplets.singular_values.std() > 0.5


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


def test_the_whole_adapter_is_five_tensors():
    trained = dict(adapt(tiny_bert()).trainable_parameters())

    assert {name: tuple(p.shape) for name, p in trained.items()} == {
        "triplets.singular_values": (48,),
        "triplets.left.0.rows": (40, 32),
        "triplets.left.1.rows": (8, 48),
        "triplets.right.0.rows": (40, 32),
        "triplets.right.1.rows": (8, 48),
    }


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


def test_the_body_called_without_its_head():
    model = randomise(adapt(tiny_classifier()))
    head, _ = model(tokens()), randomise(model, seed=5)
    body = model.bert(tokens()).pooler_output

    assert not torch.allclose(model.classifier(body), head.logits, atol=1e-4)
    torch.testing.assert_close(model.classifier(body), model(tokens()).logits)


def test_an_adapted_layer_without_a_model_says_so():
    with pytest.raises(RuntimeError, match=r"must belong to an adapted model.*Call"):
        SVDLinear(nn.Linear(4, 4), rank=2)(torch.zeros(1, 4))


def test_a_failed_forward_leaves_no_trace():
    model = adapted_bert()
    expected = hidden(model)
    randomise(model, seed=7)
    with pytest.raises(IndexError):
        model(torch.full((2, 3), 10_000))

    assert not torch.allclose(hidden(model), expected)
    randomise(model, seed=1)
    torch.testing.assert_close(hidden(model), expected)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")
def test_gradient_checkpointing():
    plain, saving = adapted_bert(), adapted_bert()
    saving.train()
    saving.gradient_checkpointing_enable({"use_reentrant": False})
    encoder_loss(plain, 0).backward()
    encoder_loss(saving, 0).backward()

    for one, two in zip(
        plain.triplets.parameters(), saving.triplets.parameters(), strict=True
    ):
        torch.testing.assert_close(one.grad, two.grad)


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


@pytest.mark.parametrize("ranks", ["equal", "pruned"])
def test_gradients_of_forward_and_penalty(ranks):
    base = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 5), nn.Tanh())
    model = randomise(adapt(base.double(), init_r=3, target_r=1))
    if ranks == "pruned":
        model.triplets.keep(torch.tensor([1, 0, 1, 0, 0, 1]).bool(), None)
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
@pytest.mark.filterwarnings(CONV1D)
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


def test_the_fused_layer_cannot_be_differentiated_twice_and_says_so():
    model = randomise(adapt(nn.Sequential(nn.Linear(5, 3))))
    x = torch.randn(4, 5, requires_grad=True)
    loss = model(x).square().sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)

    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


class Penalty(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self):
        return self.model.orthogonality_loss()


def test_the_penalty_of_orthonormal_rows_is_zero_with_a_finite_gradient():
    model = adapt(nn.Sequential(nn.Linear(6, 6)), init_r=3)
    with torch.no_grad():
        for bank in model.triplets.banks:
            bank.rows.copy_(torch.eye(6)[:3])
    penalty = model.orthogonality_loss()
    penalty.backward()

    assert penalty == 0
    assert all(torch.isfinite(b.rows.grad).all() for b in model.triplets.banks)


@pytest.mark.parametrize("pruned", [False, True])
def test_the_penalty_is_the_formula(pruned):
    model = adapted_bert(orth_reg_weight=0.3)
    if pruned:
        generator = torch.Generator().manual_seed(3)
        model.triplets.keep(torch.rand(48, generator=generator) < 0.4, None)
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
    model.triplets.keep(top.flatten(), None)
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


def test_everything_pruned_is_the_pretrained_model():
    model = adapted_bert()
    model.triplets.keep(torch.zeros(48, dtype=torch.bool), None)
    out = model(tokens()).last_hidden_state

    assert torch.equal(out, hidden(tiny_bert()))
    assert not out.requires_grad
    assert model.orthogonality_loss() == 0
    assert model.get_nb_trainable_parameters()[0] == 0
    model.merge()
    assert torch.equal(hidden(model), out)


# ---- precision --------------------------------------------------------------


def test_on_a_bfloat16_base_the_triplets_stay_float32():
    model = randomise(adapt(tiny_bert().bfloat16()))
    out = model(tokens()).last_hidden_state
    out.float().mean().backward()

    assert out.dtype == torch.bfloat16
    for parameter in model.triplets.parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32
    assert model.orthogonality_loss().dtype == torch.float32


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


def test_the_default_dtype_does_not_matter():
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = adapt(tiny_bert())
    finally:
        torch.set_default_dtype(torch.float32)

    assert {p.dtype for p in model.triplets.parameters()} == {torch.float32}


def test_training_on_a_bfloat16_base_follows_the_float32_one():
    wide, narrow = adapt(tiny_bert()), adapt(tiny_bert().bfloat16())
    assert train(wide, range(12)) == train(narrow, range(12))

    difference = hidden(wide) - hidden(narrow).float()
    assert difference.abs().mean() < 0.05


def test_autocast():
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
    """Eight-bit weights, as in quantised models: computes in the input's type."""

    def __init__(self, width):
        super().__init__(width, width, bias=False)
        whole = (self.weight.detach() * 100).round().to(torch.int8)
        self.weight = nn.Parameter(whole, requires_grad=False)

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype) / 100)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantised_layers_are_adapted_but_not_merged(dtype):
    base = nn.Sequential(Quantised(6), nn.ReLU(), Quantised(6))
    model = randomise(adapt(base))
    out = model(torch.randn(3, 6, dtype=dtype))
    out.float().mean().backward()

    assert out.dtype == dtype
    assert model.triplets.singular_values.grad.any()
    with pytest.raises(TypeError, match=r"needs weights in floating.*torch\.int8"):
        model.merge()


# ---- merging ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 2e-5), (torch.float64, 1e-6), (torch.bfloat16, 0.1)],
)
def test_merged_equals_unmerged(dtype, tolerance):
    model = randomise(adapt(tiny_bert().to(dtype)))
    apart = hidden(model)
    model.merge()
    merged = hidden(model)
    model.unmerge()

    torch.testing.assert_close(merged, apart, rtol=tolerance, atol=tolerance)
    assert torch.equal(hidden(model), apart)


@pytest.mark.parametrize("make", [tiny_bert, tiny_classifier, tiny_llama, tiny_t5])
def test_frozen_weights_are_never_written(make):
    base = make()
    before = {n: (p.data_ptr(), p.detach().clone()) for n, p in base.named_parameters()}
    owners = list(base.parameters())
    model = randomise(adapt(base))
    ids = {"input_ids": tokens()}
    if make is tiny_t5:
        ids["decoder_input_ids"] = tokens()

    def loss(model, step):
        return model(**ids)[0].square().mean()

    train(model, range(12), loss=loss)
    model.merge()
    model(**ids)
    model.unmerge()
    model.merge()
    model.compact()
    with model.disable_adapter():
        model(**ids)

    for (name, (address, value)), p in zip(before.items(), owners, strict=True):
        assert p.data_ptr() == address, name
        assert torch.equal(p, value), name


def test_frozen_weights_outlive_merge_and_unload():
    base = tiny_bert()
    weights = {path: base.get_submodule(path).weight for path in BERT_LAYERS}
    copies = {path: w.detach().clone() for path, w in weights.items()}
    merged = randomise(adapt(base)).merge_and_unload()

    for path, weight in weights.items():
        assert torch.equal(weight, copies[path])
        assert not torch.equal(merged.get_submodule(path).weight, weight)


def test_merge_and_unload_returns_the_plain_model():
    base = tiny_bert()
    model = randomise(adapt(base))
    expected = hidden(model)
    plain = model.merge_and_unload()

    assert plain is base
    assert not any(isinstance(m, SVDLinear) for m in plain.modules())
    assert set(plain.state_dict()) == set(tiny_bert().state_dict())
    assert not hooks_of(plain)
    torch.testing.assert_close(hidden(plain), expected, rtol=1e-4, atol=1e-5)
    copy.deepcopy(plain)
    adapt(plain)  # can be adapted once more


def hooks_of(model):
    return [
        hook
        for module in model.modules()
        for name in (
            "_forward_pre_hooks",
            "_forward_hooks",
            "_forward_hooks_always_called",
        )
        for hook in getattr(module, name).values()
    ]


def test_unload_restores_the_model():
    base = tiny_classifier()
    weights = dict(base.named_parameters())
    order = list(base.state_dict())
    model = randomise(adapt(base, bias="all", modules_to_save=["classifier"]))
    train(model, range(3), loss=classifier_loss)
    plain = model.unload()

    assert plain is base
    assert dict(plain.named_parameters()).keys() == weights.keys()
    assert all(p is weights[name] for name, p in plain.named_parameters())
    assert list(plain.state_dict()) == order
    assert not hooks_of(plain)
    assert torch.equal(plain(tokens()).logits, tiny_classifier()(tokens()).logits)


def classifier_loss(model, step):
    return model(tokens(step), labels=labels(step)).loss


def test_other_hooks_stay():
    base = tiny_bert()
    base.register_forward_hook(lambda *_: None)
    base.register_forward_pre_hook(lambda *_: None)
    adapt(base).unload()

    assert len(hooks_of(base)) == 2


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_merging_refuses_broken_numbers_and_merges_nothing(number):
    model = adapted_bert()
    with torch.no_grad():
        model.triplets.singular_values[-1] = number
    with pytest.raises(ValueError, match=r"must be finite. Got NaN or infinity"):
        model.merge()
    assert all(layer.merged_weight is None for layer in model.adapted.values())

    model.merge(safe_merge=False)
    assert hidden(model).isnan().any()


def test_merged_weights_are_not_stored():
    model = adapted_bert()
    names = set(model.state_dict())
    model.merge()

    assert set(model.state_dict()) == names
    assert not any("merged" in name for name in model.model.state_dict())


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


@pytest.mark.parametrize("options", [{}, {"bias": "all"}, {"bias": "lora_only"}])
def test_disabling_nested_and_after_an_error(options):
    model = randomise(
        adapt(tiny_classifier(), modules_to_save=["classifier"], **options)
    )
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


# ---- what is trained --------------------------------------------------------


def test_print_trainable_parameters(capsys):
    model = adapt(tiny_bert())
    model.print_trainable_parameters()
    trained, total = model.get_nb_trainable_parameters()

    assert trained == sum(
        4 * (layer.in_features + layer.out_features + 1)
        for layer in model.adapted.values()
    )
    assert total == trained + sum(p.numel() for p in tiny_bert().parameters())
    assert capsys.readouterr().out == (
        f"trainable params: {trained:,d} || all params: {total:,d} || "
        f"trainable%: {100 * trained / total:.4f}\n"
    )


def trained_outside(model):
    return {n for n, _ in model.trainable_parameters() if not n.startswith("triplets")}


def test_bias_none_trains_no_bias():
    assert trained_outside(adapt(tiny_bert())) == set()


def test_bias_lora_only_trains_those_of_the_adapted_layers():
    model = adapt(tiny_bert(), target_modules=["query"], bias="lora_only")

    assert trained_outside(model) == {
        f"model.encoder.layer.{i}.attention.self.query.base_layer.bias" for i in (0, 1)
    }


def test_bias_all_trains_every_bias():
    base = tiny_bert()
    biases = [n for n, _ in base.named_parameters() if n.endswith("bias")]
    model = adapt(base, target_modules=["query"], bias="all")

    assert len(trained_outside(model)) == len(biases)
    assert all(name.endswith(".bias") for name in trained_outside(model))


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases_are_copies(bias):
    base = tiny_bert()
    before = snapshot(base.requires_grad_(False))
    originals = dict(base.named_parameters())
    model = randomise(adapt(base, bias=bias))
    train(model, range(3))
    state = model.state_dict()
    changed = [n for n in state if n.endswith(".bias")]

    assert changed
    for name in changed:
        if "pooler" in name:  # the loss does not depend on it
            continue
        path = name.removeprefix("base_model.model.").replace(".base_layer", "")
        assert not torch.equal(state[name], originals[path])
    for name, parameter in originals.items():
        assert parameter.detach().numpy().tobytes() == before[name][1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"task_type": "SEQ_CLS"}, {"classifier"}),
        ({"task_type": "TOKEN_CLS"}, {"classifier"}),
        ({"task_type": "QUESTION_ANS"}, set()),
        ({"task_type": "CAUSAL_LM"}, set()),
        ({"task_type": None}, set()),
        ({"task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}, {"classifier"}),
        ({"modules_to_save": ["pooler"]}, {"bert.pooler"}),
        ({"modules_to_save": ["bert.pooler", "pooler.dense"]}, {"bert.pooler"}),
    ],
)
def test_modules_to_save_and_the_head_of_the_task(options, expected):
    base = tiny_classifier()
    inside = {
        f"model.{n}"
        for n, _ in base.named_parameters()
        if any(n.startswith(e + ".") for e in expected)
    }
    original = base.classifier
    model = adapt(base, **options)

    assert trained_outside(model) == inside
    assert (base.classifier is original) == ("classifier" not in expected)
    stored = {n for n in model.state_dict() if ".lora_" not in n}
    assert stored == {n.replace("model.", "base_model.model.", 1) for n in inside}


def test_the_head_of_a_llama_is_called_score():
    make = transformers.LlamaForSequenceClassification
    model = adapt(tiny_llama(make=make), task_type="SEQ_CLS")

    assert trained_outside(model) == {"model.score.weight"}


def test_unknown_modules_to_save_are_refused_before_anything_changes():
    base = tiny_classifier()
    with pytest.raises(ValueError, match=r"Got 'heads', which matches none.*: bert, "):
        adapt(base, modules_to_save=["heads"])

    assert not any(isinstance(m, SVDLinear) for m in base.modules())
    assert all(p.requires_grad for p in base.parameters())


def test_buffers_of_saved_modules_are_stored():
    base = nn.ModuleDict({"norm": nn.BatchNorm1d(4), "up": nn.Linear(4, 4)})
    model, fresh = (
        adapt(copy.deepcopy(base), modules_to_save=["norm"]) for _ in range(2)
    )
    model.model["norm"](torch.randn(9, 4))
    fresh.load_state_dict(model.state_dict())

    assert fresh.model["norm"].running_mean.any()
    assert fresh.model["norm"].num_batches_tracked == 1


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (tiny_bert(), {"init_r": 4}, "`config` must be an AdaLoraConfig. Got dict"),
        ("bert", config(), "`model` must be a torch.nn.Module. Got str"),
        (adapt(tiny_bert()), config(), "must not be adapted already.*Call `unload`"),
        (adapt(tiny_bert()).model, config(), "must not be adapted already"),
    ],
)
def test_wrong_arguments_say_so(model, settings, message):
    with pytest.raises(TypeError, match=message):
        get_peft_model(model, settings)


def test_inference_mode_trains_nothing():
    assert not dict(adapt(tiny_bert(), inference_mode=True).trainable_parameters())


def test_unknown_attributes_are_those_of_the_model():
    model = adapt(tiny_bert())

    assert model.config is model.model.config
    with pytest.raises(AttributeError, match="nonsense"):
        model.nonsense  # noqa: B018


# ---- state ------------------------------------------------------------------


def trained_classifier(steps=12, **options):
    options = {"task_type": "SEQ_CLS", "bias": "lora_only", **options}
    model = adapt(tiny_classifier(), **options)
    train(model, range(steps), loss=classifier_loss)
    return model


def test_the_state_is_the_adapter_under_the_names_of_peft():
    model = adapt(tiny_bert())
    state = model.state_dict()

    assert set(state) == {
        f"base_model.model.{path}.lora_{letter}"
        for path in BERT_LAYERS
        for letter in "ABE"
    }
    assert state["base_model.model.encoder.layer.0.output.dense.lora_A"].shape == (
        4,
        48,
    )
    assert state["base_model.model.encoder.layer.0.output.dense.lora_B"].shape == (
        32,
        4,
    )
    assert state["base_model.model.encoder.layer.0.output.dense.lora_E"].shape == (4, 1)
    assert all(t.is_contiguous() and not t.requires_grad for t in state.values())


def test_the_state_does_not_change_with_further_training():
    model = trained_classifier(3)
    state = model.state_dict()
    before = copy.deepcopy(state)
    train(model, range(3, 6), loss=classifier_loss)

    assert all(torch.equal(state[name], before[name]) for name in state)
    assert not torch.equal(
        model.state_dict()["base_model.model.classifier.weight"],
        before["base_model.model.classifier.weight"],
    )


@pytest.mark.parametrize("compact", [False, True], ids=["full rank", "pruned rank"])
def test_a_fresh_model_takes_the_state(compact):
    model = trained_classifier()
    if compact:
        model.compact()
    fresh = adapt(tiny_classifier(), seed=5, task_type="SEQ_CLS", bias="lora_only")
    fresh.load_state_dict(model.state_dict())

    assert fresh.triplets.ranks == model.triplets.ranks
    assert torch.equal(fresh(tokens()).logits, model(tokens()).logits)
    assert all(
        torch.equal(value, fresh.state_dict()[name])
        for name, value in model.state_dict().items()
    )
    assert fresh.ranks == (model.ranks if compact else dict.fromkeys(fresh.adapted, 4))


def test_pruned_ranks_are_final_and_full_ones_start_again():
    pruned = trained_classifier()
    full = pruned.state_dict()
    pruned.compact()
    small = pruned.state_dict()
    model = adapt(tiny_classifier(), task_type="SEQ_CLS", bias="lora_only")
    model.load_state_dict(small)

    assert model.allocator.finished
    assert train(model, range(12), loss=classifier_loss) == [24] * 12
    model.load_state_dict(full)
    assert not model.allocator.finished
    assert train(model, range(12), loss=classifier_loss)[-1] == 24


def test_parameters_stay_the_same_objects_where_no_rank_changes():
    model = trained_classifier()
    before = [p for _, p in model.trainable_parameters()]
    model.load_state_dict(adapt_classifier(seed=3).state_dict())

    assert all(
        p is q for p, (_, q) in zip(before, model.trainable_parameters(), strict=True)
    )


def adapt_classifier(seed=0):
    return adapt(tiny_classifier(), seed, task_type="SEQ_CLS", bias="lora_only")


LAYER = "base_model.model.bert.encoder.layer.1.output.dense."
HEAD = "base_model.model.classifier."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(LAYER + "lora_E"), r"must hold '.*layer\.1.*lora_E'. Got no"),
        (lambda s: s.pop(HEAD + "bias"), r"Missing: \['.*classifier.bias'\]"),
        (lambda s: s.update(extra=torch.ones(1)), r"Unknown: \['extra'\]"),
        (
            lambda s: s.update({LAYER + "lora_A": torch.ones(4, 32)}),
            r"'bert.encoder.layer.1.output.dense' must have shapes \(4, 48\), "
            r"\(32, 4\), \(4, 1\). Got \(4, 32\), ",
        ),
        (
            lambda s: s.update({LAYER + "lora_E": torch.ones(3, 1)}),
            r"must have shapes \(3, 48\)",
        ),
        (lambda s: s.update({LAYER + "lora_E": torch.ones(4)}), r"Got .*\(4,\)"),
        (lambda s: s.update({LAYER + "lora_E": torch.tensor(1.0)}), "must have shapes"),
        (
            lambda s: s.update({HEAD + "weight": torch.ones(5, 32)}),
            r"'.*classifier.weight' must have shape \(3, 32\). Got \(5, 32\)",
        ),
        # Would be broadcast.
        (lambda s: s.update({HEAD + "bias": torch.ones(1)}), r"Got \(1,\)"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    model = adapt_classifier()
    before = model.state_dict()
    state = trained_classifier().state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        model.load_state_dict(state)

    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_names_beside_the_layers_may_be_missing_when_not_strict():
    model = adapt_classifier()
    state = trained_classifier().state_dict()
    del state[HEAD + "bias"]
    state["extra"] = torch.ones(1)
    model.load_state_dict(state, strict=False)

    assert torch.equal(model.state_dict()[HEAD + "weight"], state[HEAD + "weight"])
    del state[LAYER + "lora_E"]
    with pytest.raises(ValueError, match="must hold"):
        model.load_state_dict(state, strict=False)


def test_a_state_can_be_part_of_a_bigger_one():
    outer = nn.ModuleDict({"text": adapt(tiny_bert()), "head": nn.Linear(32, 2)})

    assert {n.split(".")[0] for n in outer.state_dict()} == {"text", "head"}
    assert sum(n.startswith("text.base_model.model.") for n in outer.state_dict()) == 36


def test_loading_drops_rows_that_were_handed_out():
    model = adapted_bert()
    hidden(model)
    layer = model.adapted["encoder.layer.0.intermediate.dense"]
    x = torch.randn(2, 32)
    before = layer(x)
    model.load_state_dict(adapted_bert(seed=4).state_dict())

    assert not torch.allclose(layer(x), before)


def test_a_rank_pattern_gives_the_ranks():
    pattern = {
        f"{path}.lora_E": [i < n for i in range(4)]
        for n, path in zip([0, 1, 2, 3, 4] * 3, sorted(BERT_LAYERS), strict=False)
    }
    model = adapt(tiny_bert(), rank_pattern=pattern)
    ranks = {f"{path}.lora_E": rank for path, rank in model.ranks.items()}

    assert ranks == {path: sum(flags) for path, flags in pattern.items()}
    assert model.allocator.finished
    assert model.peft_config.scale == 8 / (4 + 1e-5)  # pruning does not rescale


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ({}, r"must name every adapted layer. Got none for 'encoder"),
        (
            {f"{path}.lora_E": [True] * 3 for path in BERT_LAYERS},
            r"must hold `init_r`=4 flags a layer. Got 3 for",
        ),
    ],
)
def test_a_rank_pattern_that_does_not_fit_is_refused(pattern, message):
    base = tiny_bert()
    with pytest.raises(ValueError, match=message):
        adapt(base, rank_pattern=pattern)

    assert not any(isinstance(m, SVDLinear) for m in base.modules())


# ---- copies -----------------------------------------------------------------


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, by_pickle])
@pytest.mark.parametrize("stage", ["fresh", "trained", "compact", "merged"])
def test_a_copy_is_equal_and_independent(duplicate, stage):
    model = randomise(adapt_classifier())
    if stage != "fresh":
        train(model, range(5 if stage == "trained" else 12), loss=classifier_loss)
    if stage == "compact":
        model.compact()
    if stage == "merged":
        model.merge()
    expected = model(tokens()).logits
    other = duplicate(model)
    assert torch.equal(other(tokens()).logits, expected)

    other.unmerge()
    randomise(other, seed=8)
    changed = other(tokens()).logits
    model(tokens())
    assert not torch.allclose(changed, expected, atol=1e-3)
    assert torch.equal(other(tokens()).logits, changed)
    assert torch.equal(model(tokens()).logits, expected)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, by_pickle])
def test_a_copy_trains_on_like_the_original(duplicate):
    model = adapt_classifier()
    train(model, range(5), loss=classifier_loss)
    other = duplicate(model)
    assert other.allocator.triplets is other.triplets

    results = []
    for one in (model, other):
        train(one, range(5, 12), adamw(one), classifier_loss)
        one.compact()
        results.append(one.state_dict())
    assert all(torch.equal(results[1][n], value) for n, value in results[0].items())


def test_adapted_copies_share_the_frozen_tensors():
    base = tiny_bert().requires_grad_(False)
    frozen = {p.data_ptr() for p in base.parameters()}
    shared = {id(p): p for p in base.parameters()}
    one, two = (
        randomise(adapt(copy.deepcopy(base, memo=dict(shared))), seed)
        for seed in (1, 2)
    )
    for model in (one, two):
        train(model, range(12))
        model.merge()
        model.unmerge()
        kept = {p.data_ptr() for p in model.parameters() if not p.requires_grad}
        assert kept == frozen

    assert not torch.allclose(hidden(one), hidden(two), atol=1e-3)
    assert torch.equal(hidden(base), hidden(tiny_bert()))


def test_moving_the_model_moves_what_is_outside_of_it():
    model = adapt(tiny_classifier(), modules_to_save=["classifier"], bias="lora_only")
    train(model, range(4), loss=classifier_loss)
    model.to("meta")

    assert model.allocator.kept.is_meta
    assert all(a.sensitivity.is_meta for a in model.allocator.averages)
    with model.disable_adapter():
        assert all(p.is_meta for p in model.parameters())
    assert all(p.is_meta for p in model.unload().parameters())


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


def test_dropout_without_a_generator_uses_the_global_one():
    model = randomise(get_peft_model(tiny_bert(), config(lora_dropout=0.5))).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = hidden(model)
        torch.manual_seed(0)
        again = hidden(model)

    assert torch.equal(first, again)


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

    torch.testing.assert_close(dropped.mean(0), exact.mean(0), rtol=0.05, atol=0.02)
    assert dropped.std(0).min() > 0


# ---- generate ---------------------------------------------------------------


@pytest.mark.filterwarnings(CONV1D)
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


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_training_lowers_the_loss(dropout):
    settings = transformers.BertConfig(**SIZES, **QUIET, num_labels=3)
    base = build(lambda: transformers.BertForSequenceClassification(settings))
    model = adapt(
        base, total_step=60, tfinal=20, lora_dropout=dropout, task_type="SEQ_CLS"
    )
    ids, target = tokens(rows=16), labels(rows=16)

    def loss(model, _):
        return model(ids, labels=target).loss

    with torch.no_grad():
        before = loss(model, 0)
    optimizer = adamw(model, lr=2e-2)
    with no_warning():
        for step in range(60):
            one_step(model, optimizer, step, loss)
            if step == 45:
                model.compact(optimizer)

    assert loss(model.eval(), 0) < 0.5 * before


# ---- loading into a model that was used ----------------------------------------


def test_loading_drops_merged_weights():
    model = randomise(adapted_bert(), 1)
    state, expected = model.state_dict(), hidden(model)
    randomise(model, 2).merge()
    model.load_state_dict(state)

    torch.testing.assert_close(hidden(model), expected)


def test_loading_starts_the_allocation_anew():
    model = randomise(adapted_bert(), 1)
    state, expected = model.state_dict(), hidden(model)
    train(model, range(7))
    assert not model.allocator.kept.all()
    model.load_state_dict(state)
    again = adapted_bert()
    again.load_state_dict(model.state_dict())

    assert model.allocator.kept.all()
    assert model.allocator.budget == sum(model.ranks.values())
    torch.testing.assert_close(hidden(again), expected)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_checkpointing_repeats_no_dropout_of_a_generator(dropout):
    model = adapted_bert(lora_dropout=dropout, init_lora_weights=False)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    loss = model.train()(tokens()).last_hidden_state.sum()
    if not dropout:
        loss.backward()
        assert model.triplets.singular_values.grad.abs().sum() > 0
        return

    with pytest.raises(RuntimeError, match="generator=None, or set lora_dropout=0"):
        loss.backward()


class Around(nn.Module):
    """A module with an adapted one and a layer of its own."""

    def __init__(self, seed, init_r=4):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first = nn.Linear(3, 6)
            self.net = adapt(nn.Sequential(nn.Linear(6, 6)), init_r=init_r)
            randomise(self.net)


def test_a_module_around_it_is_saved_and_loaded():
    one, other = Around(0), Around(1)
    result = other.load_state_dict(one.state_dict())

    assert result.missing_keys == result.unexpected_keys == []
    assert other.state_dict().keys() == one.state_dict().keys()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)


def test_an_average_of_it_is_saved_and_loaded():
    model = Around(0).net
    average = torch.optim.swa_utils.AveragedModel(model)
    other = torch.optim.swa_utils.AveragedModel(Around(1).net)
    other.load_state_dict(average.state_dict())

    for name, value in average.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)


def test_a_module_around_it_says_what_is_missing_and_what_is_unknown():
    one, other = Around(0), Around(1)
    state = {n: v for n, v in one.state_dict().items() if not n.startswith("net.")}
    result = other.load_state_dict(state, strict=False)
    own = [n for n in one.state_dict() if n.startswith("net.")]

    assert result.missing_keys == own
    with pytest.raises(
        RuntimeError, match=r'Missing key.*"net.base_model.model.0.lora_A'
    ):
        other.load_state_dict(state)
    with pytest.raises(RuntimeError, match="must have shapes"):
        other.load_state_dict({**one.state_dict(), own[0]: torch.ones(4, 5)})
    unknown = {**one.state_dict(), "net.more": torch.ones(1)}
    assert other.load_state_dict(unknown, strict=False).unexpected_keys == ["net.more"]


def test_loading_says_what_torch_says():
    model = Around(0).net
    assert model.load_state_dict(model.state_dict()) == ([], [])
    state = {**model.state_dict(), "more": torch.ones(1)}
    assert model.load_state_dict(state, strict=False) == ([], ["more"])
