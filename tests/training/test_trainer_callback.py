"""`AdaLoraCallback` in the Trainer of transformers, with the Trainer's defaults."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from _tiny import adapt, build, tiny_classifier, tiny_llama, tokens
from torch import nn

from sk_adalora import AdaLoraCallback
from sk_adalora.adalora import load_peft_adapter

STEPS = 12  # the schedule of `adapt`: the last allocation is at step 9
TARGETS = ["query", "value"]


def rows_of(n_rows):
    ids = tokens(rows=n_rows)
    return [{"input_ids": row, "labels": row[0] % 3, "unknown": row} for row in ids]


def train(model, folder, *, resume=None, callbacks=(), **options):
    options = {"max_steps": STEPS, "learning_rate": 5e-2, "save_steps": 6} | options
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **options,
    )
    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=rows_of(16),
        eval_dataset=rows_of(8),
        callbacks=[AdaLoraCallback(), *callbacks],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def classifier(**options):
    return adapt(
        tiny_classifier(), target_modules=TARGETS, task_type="SEQ_CLS", **options
    )


def assert_same(model, other):
    assert model.ranks == other.ranks
    one, two = model.state_dict(), other.state_dict()
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


class Batches(transformers.TrainerCallback):
    """Remembers the batches that a model gets."""

    def __init__(self, model):
        self.seen = []
        model.register_forward_pre_hook(self._remember, with_kwargs=True)

    def _remember(self, module, args, kwargs):
        self.seen.append({k: v for k, v in kwargs.items() if k != "num_items_in_batch"})


@pytest.mark.parametrize("accumulation", [1, 2])
def test_equals_a_loop_with_the_penalty_in_the_loss(tmp_path, accumulation):
    model, by_hand = classifier(), classifier()
    watch = Batches(model)
    trainer = train(
        model,
        tmp_path,
        gradient_accumulation_steps=accumulation,
        per_device_train_batch_size=4,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        max_grad_norm=0.3,  # so small that the penalty is clipped, too
        save_strategy="no",
    )

    # BERT is one whose losses Trainer adds up; older versions average them.
    share = trainer.accelerator.gradient_accumulation_steps
    trained = [parameter for _, parameter in by_hand.trainable_parameters()]
    optimizer = torch.optim.AdamW(trained, lr=5e-2, weight_decay=0.0)
    by_hand.train()
    for step in range(STEPS):
        by_hand.orthogonality_loss().backward()
        for batch in watch.seen[step * accumulation : (step + 1) * accumulation]:
            (by_hand(**batch).loss / share).backward()
        nn.utils.clip_grad_norm_(trained, 0.3)
        optimizer.step()
        by_hand.update_and_allocate(step)
        optimizer.zero_grad()
    assert len(watch.seen) == STEPS * accumulation
    assert sum(model.ranks.values()) == 2 * len(model.adapted)
    assert model.ranks == by_hand.ranks
    torch.testing.assert_close(model.state_dict(), by_hand.state_dict())


@pytest.mark.parametrize("step", [6, 10])  # while ranks fall, and when they are final
def test_a_resumed_training_equals_the_unbroken_one(tmp_path, step):
    unbroken, resumed = classifier(), classifier()
    train(unbroken, tmp_path, save_steps=step)
    folder = tmp_path / f"checkpoint-{step}"
    again = load_peft_adapter(tiny_classifier(), folder)
    train(resumed, tmp_path, save_steps=step, resume=str(folder))

    assert_same(resumed, unbroken)
    assert set(again.ranks) == set(unbroken.ranks)


def test_a_checkpoint_may_be_elsewhere(tmp_path):
    unbroken, resumed = classifier(), classifier()
    train(unbroken, tmp_path / "first")
    folder = str(tmp_path / "first" / "checkpoint-6")
    with pytest.raises(FileNotFoundError, match="set `resume_from_checkpoint` of Tra"):
        train(resumed, tmp_path / "second", resume=folder)
    train(resumed, tmp_path / "second", resume=folder, resume_from_checkpoint=folder)

    assert_same(resumed, unbroken)


@pytest.mark.parametrize("bf16", [False, True])  # with it, `forward` is wrapped
def test_evaluates_predicts_and_saves_with_the_defaults(tmp_path, bf16):
    model = classifier()
    trainer = train(model, tmp_path, bf16=bf16)
    metrics = trainer.evaluate()
    predicted = trainer.predict(rows_of(8))

    assert metrics["eval_loss"] == pytest.approx(predicted.metrics["test_loss"])
    assert predicted.predictions.shape == (8, 3)
    assert predicted.label_ids.shape == (8,)
    again = load_peft_adapter(tiny_classifier(), tmp_path)
    ids = tokens(rows=2)
    vars(model).pop("forward", None)
    torch.testing.assert_close(again(ids).logits, model.eval()(ids).logits)


def test_the_penalty_is_scaled_as_the_loss_is():
    model, scaled = classifier(), classifier()
    model.orthogonality_loss().backward()
    optimizer = SimpleNamespace(scaler=torch.amp.GradScaler("cpu", init_scale=8.0))
    AdaLoraCallback().on_step_begin(None, None, None, scaled, optimizer)

    pairs = zip(model.triplets.parameters(), scaled.triplets.parameters(), strict=True)
    for one, other in pairs:
        if one.grad is not None:
            torch.testing.assert_close(8 * one.grad, other.grad)


def test_labels_of_question_answering_are_named(tmp_path):
    config = tiny_classifier().config
    config.num_labels = 2
    base = build(lambda: transformers.BertForQuestionAnswering(config))
    model = adapt(base, target_modules=TARGETS, task_type="QUESTION_ANS")
    names = ["start_positions", "end_positions"]
    rows = [{"input_ids": row, **dict.fromkeys(names, 2)} for row in tokens(rows=8)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), report_to=[], use_cpu=True, label_names=names
    )
    found = transformers.Trainer(model, arguments).predict(rows)

    assert found.metrics["test_loss"] > 0
    assert [positions.shape for positions in found.label_ids] == [(8,), (8,)]


def test_the_best_checkpoint_gets_final_ranks(tmp_path):
    model = classifier()
    trainer = train(
        model,
        tmp_path,
        eval_strategy="steps",
        eval_steps=4,
        save_steps=4,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,  # an early one, before the ranks are final
    )

    assert trainer.state.best_global_step < 10
    assert model.allocator.finished
    assert sum(model.ranks.values()) == 2 * len(model.adapted)
    assert load_peft_adapter(tiny_classifier(), tmp_path).ranks == model.ranks


def test_a_training_that_stops_early_has_final_ranks(tmp_path):
    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **others):
            control.should_training_stop = state.global_step == 5

    model = classifier()
    train(model, tmp_path, callbacks=[Stop()], save_strategy="no")

    assert sum(model.ranks.values()) == 2 * len(model.adapted)
    assert not (tmp_path / "adapter_config.json").exists()


def test_a_causal_model_learns(tmp_path):
    model = adapt(tiny_llama(), target_modules=["q_proj", "v_proj"])
    rows = [{"input_ids": row, "labels": row} for row in tokens(rows=8)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=STEPS,
        learning_rate=0.1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=1,
        save_strategy="no",
    )
    trainer = transformers.Trainer(
        model, arguments, train_dataset=rows, callbacks=[AdaLoraCallback()]
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    assert losses[-1] < losses[0]


def test_refuses_a_plain_model_and_a_schedule_without_end(tmp_path):
    with pytest.raises(TypeError, match=r"must be an AdaLoraModel\. Got BertForSeq"):
        train(tiny_classifier(), tmp_path)
    with pytest.raises(ValueError, match=r"which is 8\. Got 12\. Set `total_step=8`"):
        train(classifier(), tmp_path, max_steps=8)
