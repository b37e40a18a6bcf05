"""The documented ways to use the engine, on tiny models."""

import gc
import importlib
import weakref

import pytest
import torch
import transformers
from _tiny import (
    adamw,
    adapt,
    encoder_loss,
    hidden,
    labels,
    no_warning,
    tiny_bert,
    tiny_llama,
    tokens,
    train,
)

from sk_adalora import AdaLoraConfig, get_peft_model
from sk_adalora.adalora import export_lora, save_adapter


def classifier():
    return tiny_llama(make=transformers.LlamaForSequenceClassification)


def batch_of(model, step):
    ids = tokens(step)
    head = type(model.model).__name__
    if head.endswith("ForSequenceClassification"):
        return {"input_ids": ids, "labels": labels(step)}
    return {"input_ids": ids, "labels": ids}


def train_at(model, steps):
    """The loop of the documentation, over a choice of the schedule's steps."""
    optimizer = adamw(model)
    budgets = {}
    for step in steps:
        loss = model(**batch_of(model, step)).loss + model.orthogonality_loss()
        loss.backward()
        optimizer.step()
        budgets[step] = model.update_and_allocate(step)
        optimizer.zero_grad()
        if model.allocator.finished:
            model.compact(optimizer)
    return budgets


def assert_falls_cubically(budgets, config, n_layers):
    first, last = config.init_r * n_layers, config.target_r * n_layers
    window = config.total_step - config.tfinal - config.tinit
    for step, budget in budgets.items():
        if step <= config.tinit:
            assert budget == first
        elif step >= config.total_step - config.tfinal:
            assert budget == last
        else:
            allocated = step - step % config.deltaT
            left = 1 - (allocated - config.tinit) / window
            if allocated > config.tinit:
                assert budget == int((first - last) * left**3 + last)


def test_ten_steps_of_warmup_seventy_of_reduction_twenty_at_the_target():
    config = AdaLoraConfig(
        init_r=12,
        target_r=8,
        tinit=10,
        tfinal=20,
        total_step=100,
        target_modules=["q_proj", "v_proj"],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(tiny_llama(), config)
    budgets = train_at(model, range(100))
    values = list(budgets.values())

    assert_falls_cubically(budgets, config, n_layers=4)
    assert set(values[:11]) == {48}
    assert values[11] < 48
    assert values == sorted(values, reverse=True)
    assert set(values[80:]) == {32}
    assert sum(model.ranks.values()) == 32

    ids = tokens()
    with torch.no_grad():
        adapted = model(ids).logits
        merged = model.merge_and_unload()(ids).logits
    torch.testing.assert_close(adapted, merged, rtol=1e-4, atol=1e-5)


def test_copies_of_data_parallel_are_refused(monkeypatch):
    """What it copies to, several GPUs, is pretended."""
    torchs = importlib.import_module("torch.nn.parallel.replicate")
    monkeypatch.setattr(torchs, "_get_device_index", lambda device, optional: device)
    monkeypatch.setattr(
        torchs,
        "_broadcast_coalesced_reshape",
        lambda tensors, devices, detach=False: [tensors for _ in devices],
    )
    model = adapt(tiny_bert(), init_lora_weights=False)
    with pytest.raises(RuntimeError, match=r"Got DataParallel.*Use Distributed.*, or"):
        torchs.replicate(model, [0, 1])


# ---- evaluation between steps ------------------------------------------------


@pytest.mark.parametrize("finished", [False, True])
def test_training_goes_on_after_a_state_is_loaded_in_inference_mode(finished):
    other, model = (adapt(tiny_bert(), init_lora_weights=False) for _ in range(2))
    train(other, range(2), adamw(other))
    if finished:
        other.allocator.finish()
        other.compact()  # so that the state has fewer rows
    with torch.inference_mode():
        model.load_state_dict(other.state_dict())
        model.allocator.load_state_dict(other.allocator.state_dict())

    assert model.ranks == other.ranks
    train(model, range(4), adamw(model))  # without an error


def test_a_model_is_freed_at_once():
    """Its parts refer to each other in no circle, which would wait for a collector."""
    model = adapt(tiny_bert())
    train(model, range(12), adamw(model))
    model.compact()
    model.merge()
    parts = [weakref.ref(part) for part in model.modules()]
    gc.collect()
    gc.disable()
    try:
        del model
        assert all(part() is None for part in parts)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "use",
    [
        lambda model, folder: model.merge(),
        lambda model, folder: model.merge_and_unload(),
        lambda model, folder: save_adapter(model, folder),
        lambda model, folder: export_lora(model, folder),
    ],
)
def test_a_trained_adapter_whose_ranks_nobody_allocated_is_warned_of(use, tmp_path):
    """As by a loop, or a Trainer, that forgets `update_and_allocate`."""
    forgets, allocates, fresh = (adapt(tiny_bert()) for _ in range(3))
    optimizer = adamw(forgets)
    encoder_loss(forgets, 0).backward()
    optimizer.step()
    train(allocates, range(1), adamw(allocates))
    with no_warning():
        use(allocates, tmp_path)
        use(fresh, tmp_path)

    with pytest.warns(UserWarning, match="`update_and_allocate` was never called"):
        use(forgets, tmp_path)


def test_names_that_programs_for_peft_use():
    model = adapt(tiny_bert(), init_lora_weights=False)
    before = hidden(model)
    model.merge_adapter()
    torch.testing.assert_close(hidden(model), before, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()

    assert torch.equal(hidden(model), before)
    assert model.base_model.model is model.get_base_model() is model.model
    encoder_loss(model, 0).backward()
    assert hasattr(model.base_model, "update_and_allocate")
    assert model.base_model.update_and_allocate(0) == model.allocator.budget
