"""Ours and PEFT 0.21 train the same model: budgets, masks and weights agree."""

import pytest
import torch
from _oracle import (
    causal_batch,
    classifier_batch,
    living,
    numbers_of_peft,
    pair,
    sgd,
    step_ours,
    step_peft,
)
from _tiny import adamw, encoder_loss, tiny_bert, tiny_classifier, tiny_gpt2
from transformers import BertForSequenceClassification

from sk_adalora.pretrained.find import DEFAULT_MODEL, Request, find_folder

SCHEDULES = {
    "every step": {},
    "every third step": {"deltaT": 3, "total_step": 20, "tinit": 4, "tfinal": 5},
    "every fifth step, full rank between": {"deltaT": 5, "total_step": 19, "tinit": 6},
    "no initial phase": {"tinit": 0},
    "one final step": {"tfinal": 1},
    "longest initial phase": {"tinit": 8},
    "delta beyond the end": {"deltaT": 50},
    "to rank one": {"init_r": 6, "target_r": 1},
    "hardly any pruning": {"init_r": 4, "target_r": 3},
}
SETTINGS = {
    "weak penalty": {"orth_reg_weight": 0.1},
    "no penalty": {"orth_reg_weight": 0.0},
    "alpha 32": {"lora_alpha": 32},
    "alpha 0": {"lora_alpha": 0},
    "betas": {"beta1": 0.5, "beta2": 0.9},
    "two kinds of layer": {"target_modules": ["query", "intermediate.dense"]},
}


def assert_close(ours, theirs, where):
    for mine, reference in zip(ours, theirs, strict=True):
        for a, b in zip(mine, reference, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5, msg=where)


def assert_parity(make=tiny_classifier, batch=classifier_batch, by=adamw, **options):
    ours, theirs = pair(make, **options)
    one, two = by(ours), by(theirs)
    oracle = theirs.base_model.rankallocator
    total = ours.peft_config.total_step
    for step in range(total):
        losses = [
            step_ours(ours, one, step, batch(step)),
            step_peft(theirs, two, step, batch(step)),
        ]
        torch.testing.assert_close(*losses, rtol=0, atol=1e-5)
        if ours.peft_config.tfinal == 0 and step == total - 1:
            break  # here ours is final, and PEFT's never
        mine, reference = ours.triplets.per_layer(), numbers_of_peft(theirs)
        assert torch.equal(living(mine), living(reference)), f"masks at step {step}"
        assert_close(mine, reference, f"weights at step {step}")
        planned, masks = oracle.budget_schedule(step)
        assert ours.allocator.schedule.budget(step) == planned
        if masks and step < ours.allocator.schedule.final_step:
            assert ours.allocator.budget == planned
            assert living(mine).sum() == planned
    return ours, theirs


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_schedule_trains_as_by_peft(name):
    ours, _ = assert_parity(**{"tfinal": 3, **SCHEDULES[name]})

    target = ours.allocator.schedule.target
    assert living(ours.triplets.per_layer()).sum() == target
    assert ours.allocator.budget == target


@pytest.mark.slow
def test_the_pretrained_model():
    """36 matrices of real weights, whose importances lie closer together.

    The weights drift apart by rounding, and the masks stay the same.
    """
    folder = find_folder(Request(DEFAULT_MODEL))

    def make():
        torch.manual_seed(0)
        return BertForSequenceClassification.from_pretrained(
            folder,
            num_labels=2,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            dtype=torch.float32,
        )

    def batch(step):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(2000, 9000, (8, 12), generator=generator)
        ids[:, 0], ids[:, -1] = 101, 102  # [CLS] and [SEP]
        return {"input_ids": ids, "labels": (ids[:, 1] > 5500).long()}

    ours, theirs = pair(
        make,
        target_modules="all-linear",
        init_r=12,
        target_r=8,
        tinit=2,
        tfinal=6,
        total_step=16,
        lora_alpha=12,
        orth_reg_weight=0.1,
    )
    one, two = adamw(ours, 4e-3), adamw(theirs, 4e-3)
    budgets = []
    for step in range(16):
        step_ours(ours, one, step, batch(step))
        step_peft(theirs, two, step, batch(step))
        mine, reference = ours.triplets.per_layer(), numbers_of_peft(theirs)
        assert torch.equal(living(mine), living(reference)), f"masks at step {step}"
        budgets.append(ours.allocator.budget)
    assert len(mine) == 36
    assert (budgets[0], budgets[-1]) == (36 * 12, 36 * 8)


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_trains_as_by_peft(name):
    assert_parity(**{"tinit": 1, **SETTINGS[name]})


def test_sgd_with_momentum():
    assert_parity(by=sgd, total_step=20)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
def test_gpt2_with_its_transposed_layers():
    assert_parity(tiny_gpt2, causal_batch, total_step=14)


def test_the_update_is_that_of_peft_for_merged_models():
    ours, theirs = assert_parity()
    batch = {"input_ids": classifier_batch(99)["input_ids"]}
    with torch.no_grad():
        before = ours(**batch).logits
        torch.testing.assert_close(before, theirs(**batch).logits, rtol=0, atol=1e-5)
        merged = ours.merge_and_unload()(**batch).logits
        reference = theirs.merge_and_unload()(**batch).logits
    torch.testing.assert_close(merged, reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_gradients_make_the_step_of_one_large_batch(parts):
    whole, split = (pair(tiny_bert)[0] for _ in range(2))
    one, two = adamw(whole), adamw(split)
    for step in range(12):
        losses = [encoder_loss(whole, 100 * step + i) for i in range(parts)]
        (torch.stack(losses).mean() + whole.orthogonality_loss()).backward()
        for i in range(parts):
            loss = encoder_loss(split, 100 * step + i) / parts
            if i == parts - 1:  # once an optimizer step
                loss = loss + split.orthogonality_loss()
            loss.backward()
        for model, optimizer in ((whole, one), (split, two)):
            optimizer.step()
            model.update_and_allocate(step)
            optimizer.zero_grad()
        mine, other = whole.triplets.per_layer(), split.triplets.per_layer()
        assert torch.equal(living(mine), living(other))
        assert_close(mine, other, f"weights at step {step}")
