"""Compaction: what died is left out, and nothing else changes."""

import pytest
import torch
import transformers
from _tiny import (
    adamw,
    adapt,
    encoder_loss,
    give_gradients,
    hidden,
    one_step,
    small_adapted,
    tiny_bert,
    train,
)
from torch.utils._python_dispatch import TorchDispatchMode

OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "adamw, fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "adamw, amsgrad": lambda p: torch.optim.AdamW(p, lr=1e-2, amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_compaction_keeps_the_output_and_shrinks_the_optimizer(name):
    model = adapt(tiny_bert())
    parameters = [p for _, p in model.trainable_parameters()]
    optimizer = OPTIMIZERS[name](parameters)
    train(model, range(10), optimizer)
    before, ranks = hidden(model), model.ranks
    old = {n: p.detach().clone() for n, p in model.trainable_parameters()}
    model.compact(optimizer)
    new = dict(model.trainable_parameters())

    torch.testing.assert_close(hidden(model), before, rtol=1e-5, atol=1e-6)
    assert (
        model.ranks
        == ranks
        == dict(zip(model.adapted, model.triplets.ranks, strict=True))
    )
    assert sum(ranks.values()) == len(model.triplets.singular_values) == 24
    assert sum(p.numel() for p in new.values()) < sum(p.numel() for p in old.values())
    assert optimizer.param_groups[0]["params"] == list(new.values())
    for parameter in new.values():
        for value in optimizer.state.get(parameter, {}).values():
            if torch.is_tensor(value) and value.ndim:
                assert value.shape == parameter.shape
    train(model, range(10, 12), optimizer)
    assert len(optimizer.state) <= len(new)


def without_momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


@pytest.mark.parametrize(
    "make", [OPTIMIZERS["adamw"], OPTIMIZERS["adamw, fused"], without_momentum]
)
def test_training_on_after_compaction_equals_training_with_a_mask(make):
    """Without the penalty, which sees the rows of pruned triplets until they go."""
    masked, compact = (adapt(tiny_bert(), orth_reg_weight=0.0) for _ in range(2))
    pairs = []
    for model in (masked, compact):
        optimizer = make([p for _, p in model.trainable_parameters()])
        train(model, range(10), optimizer)
        pairs.append((model, optimizer))
    compact.compact(pairs[1][1])
    for step in range(10, 20):
        for model, optimizer in pairs:
            one_step(model, optimizer, step)
    masked.compact()

    assert masked.triplets.ranks == compact.triplets.ranks
    for one, two in zip(
        masked.triplets.per_layer(), compact.triplets.per_layer(), strict=True
    ):
        for a, b in zip(one, two, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_compaction_waits_for_the_final_budget():
    model = small_adapted()
    give_gradients(model)
    for step in range(5):
        model.update_and_allocate(step)
    with pytest.raises(RuntimeError, match=r"at step 9. Got step 4. Call `finish`"):
        model.compact()


class NoMemory(TorchDispatchMode):
    """Memory runs out where some rows are chosen, after so many times."""

    def __init__(self, after):
        super().__init__()
        self.left = iter(range(after))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.index.Tensor and next(self.left, None) is None:
            raise torch.OutOfMemoryError
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("after", [0, 6, 12, 18, 20])
def test_compaction_that_there_is_no_memory_for_changes_nothing(after):
    model, other = adapt(tiny_bert()), adapt(tiny_bert())
    optimizers = adamw(model), adamw(other)
    for each, optimizer in zip((model, other), optimizers, strict=True):
        train(each, range(10), optimizer)
    with pytest.raises(torch.OutOfMemoryError), NoMemory(after):
        model.compact(optimizers[0])

    assert torch.equal(hidden(model), hidden(other))
    for each, optimizer in zip((model, other), optimizers, strict=True):
        each.compact(optimizer)
        train(each, range(10, 12), optimizer)
    assert torch.equal(hidden(model), hidden(other))


def test_compaction_keeps_the_parameter_objects():
    """So that lists of them, as for clipping, and hooks go on."""
    model = adapt(tiny_bert())
    parameters = [p for _, p in model.trainable_parameters()]
    seen = []
    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(lambda p: seen.append(p.shape))
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    train(model, range(10), optimizer)
    model.compact(optimizer)
    seen.clear()
    encoder_loss(model, 10).backward()

    assert [p for _, p in model.trainable_parameters()] == parameters
    assert sorted(seen) == sorted(p.shape for p in parameters)
    assert torch.nn.utils.clip_grad_norm_(parameters, 1.0) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_compaction_while_the_last_loss_is_alive(dtype):
    model = adapt(tiny_bert()).to(dtype)
    loss = encoder_loss(model, 0) + model.orthogonality_loss()
    loss.backward()
    model.allocator.finish()
    model.compact()
    assert all(p.grad is None for p in model.triplets.parameters())
    assert all(each.left is each.right is None for each in model.adapted.values())
    (encoder_loss(model, 1) + model.orthogonality_loss()).backward()

    for parameter in model.triplets.parameters():
        assert parameter.grad.shape == parameter.shape
    assert loss.grad_fn is not None


def states_fit(*optimizers):
    return all(
        value.shape in ((), parameter.shape)
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        for value in state.values()
    )


def test_compaction_shrinks_the_state_of_several_optimizers():
    def run(split):
        model = adapt(tiny_bert())
        parameters = [p for _, p in model.trainable_parameters()]
        parts = [parameters[:1], parameters[1:]] if split else [parameters]
        optimizers = [torch.optim.AdamW(part, lr=1e-2) for part in parts]
        for step in range(14):
            (encoder_loss(model, step) + model.orthogonality_loss()).backward()
            for optimizer in optimizers:
                optimizer.step()
            model.update_and_allocate(step)
            model.zero_grad()
            if step == 10:
                model.compact(*optimizers)
                kept = model.state_dict()
                assert states_fit(*optimizers)
                assert all(one.state_dict()["state"] for one in optimizers)
        after = model.state_dict()
        assert not any(torch.equal(kept[n], v) for n, v in after.items() if v.numel())
        return after

    one, two = run(split=False), run(split=True)
    assert all(torch.equal(v, two[name]) for name, v in one.items())


@pytest.mark.parametrize(
    "make", [adamw, lambda m: torch.optim.Adafactor(list(m.triplets.parameters()))]
)
def test_compaction_where_nothing_was_pruned_changes_nothing(make):
    """Then an optimizer may keep a state that cannot shrink."""
    model = adapt(tiny_bert(), init_r=2, target_r=2)
    optimizer = make(model)
    train(model, range(10), optimizer)
    parameters = list(model.triplets.parameters())
    encoder_loss(model, 10).backward()
    gradients = [p.grad for p in parameters]
    model.compact(optimizer)

    assert list(model.triplets.parameters()) == parameters
    assert all(p.grad is g for p, g in zip(parameters, gradients, strict=True))
    before = model.state_dict()
    optimizer.step()
    assert any(not torch.equal(before[n], v) for n, v in model.state_dict().items())


def in_eight_bits(parameter):
    """The state of such an optimizer: numbers, and tables of what they mean."""
    whole = torch.zeros_like(parameter, dtype=torch.uint8)
    return {"step": 3, "state1": whole, "qmap1": torch.zeros(256)}


def test_a_state_that_cannot_shrink_is_refused_before_anything_changes():
    """NaN or the state of other rows went on without an error."""
    model = adapt(tiny_bert())
    first, second = adamw(model), adamw(model)
    train(model, range(10), first)
    for _, parameter in model.trainable_parameters():
        second.state[parameter] = in_eight_bits(parameter)
    before = model.state_dict()
    match = r"Got AdamW, whose state holds .* or blocks.*make a new one"
    with pytest.raises(TypeError, match=match):
        model.compact(first, second)

    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    train(model, range(10, 12), first)
    model.compact(first)
    train(model, range(12, 14), first)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adafactor(p, lr=1e-2),
        lambda p: transformers.Adafactor(p, lr=None),
    ],
)
def test_rows_and_columns_of_adafactor_are_refused(make):
    model = adapt(tiny_bert())
    optimizer = make([p for _, p in model.trainable_parameters()])
    train(model, range(10), optimizer)
    ranks = model.triplets.ranks
    with pytest.raises(TypeError, match=r"Got Adafactor, whose state holds rows"):
        model.compact(optimizer)

    assert model.triplets.ranks == ranks
    model.compact()
    train(model, range(10, 12), make([p for _, p in model.trainable_parameters()]))
