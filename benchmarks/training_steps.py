"""Single training steps on made-up tokens: ours, PEFT's, and a floor to compare with.

The floor is the same frozen model as torch computes it, forward and backward, with
pooling and head but without adapter, penalty, optimizer or allocation.
"""

from contextlib import nullcontext

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sk_adalora import AdaLoraConfig

from . import huggingface as hf
from . import inside
from .contestants import Settings

_CLASSES = 5
# Every step is one of the reduction phase and allocates: the most that a step can do.
_SCHEDULE = {"tinit": 0, "tfinal": 1, "deltaT": 1, "total_step": 1_000_000}


def make_tokens(rows, length, vocabulary=20_000):
    """Return a table of random token ids, all rows of one length."""
    rng = np.random.default_rng(0)
    low = min(1000, vocabulary // 2)
    starts = np.arange(rows, dtype=np.int64) * length
    return inside.TokenTable(
        ids=rng.integers(low, vocabulary, rows * length).astype(np.int32),
        starts=starts,
        stops=starts + length,
        text_of=np.arange(rows),
        type_ids=None,
        truncated=np.zeros(rows, bool),
        pad_id=0,
        max_length=length,
    )


class Floor:
    """Forward and backward through the frozen model."""

    def __init__(self, settings, tokens, compute):
        backbone = inside.load_backbone(settings.model, compute)
        self.encoder = backbone.copy()
        for module in self.encoder.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(_let_gradients_in)
        self.head = nn.Linear(backbone.width, _CLASSES).to(compute.device)
        self.batch = inside.pad(tokens, np.arange(len(tokens))).to(compute.device)
        self.labels = _labels(len(tokens), compute)

    def __call__(self):
        outputs = self.encoder(
            input_ids=self.batch.input_ids, attention_mask=self.batch.attention_mask
        )
        pooled = inside.pool(outputs.last_hidden_state.float(), None, "mean")
        cross_entropy(self.head(pooled), self.labels).backward()
        self.head.zero_grad()


def _let_gradients_in(module, inputs, output):
    """Let the backward pass reach as far down as the lowest adapter would make it."""
    if torch.is_grad_enabled() and not output.requires_grad:
        output.requires_grad_()


class OurStep:
    """A step of `AdaLoraClassifier`: batching, training, allocation."""

    def __init__(self, settings, tokens, compute):
        generator = torch.Generator().manual_seed(0)
        config = AdaLoraConfig(
            init_r=hf.INIT_R,
            target_r=hf.TARGET_R,
            lora_alpha=hf.INIT_R,
            target_modules="all-linear",
            task_type="FEATURE_EXTRACTION",
            orth_reg_weight=0.1,
            **_SCHEDULE,
        )
        backbone = inside.load_backbone(settings.model, compute)
        network = inside.build_network(backbone, config, _CLASSES, "mean", generator)
        recipe = inside.Recipe(
            epochs=1,
            batch_size=len(tokens),
            total_step=_SCHEDULE["total_step"],
            learning_rate=1e-3,
            head_learning_rate=1e-3,
            warmup_ratio=0.0,
        )
        targets = _labels(len(tokens), compute).cpu()
        examples = inside.Examples(tokens, targets, None, _row_losses)
        self.run = inside.TrainingRun(network, examples, recipe, compute)
        network.train()

    def __call__(self):
        inside.train_step(self.run, np.arange(len(self.run.examples.tokens)))

    def parts(self):
        """Return what a step does beside forward and backward, as functions."""
        run, model = self.run, self.run.network.encoder

        def penalty():
            model.orthogonality_loss().backward()

        def clip():
            torch.nn.utils.clip_grad_norm_(run.parameters, 1.0)

        def allocate():
            model.update_and_allocate(run.step)
            run.step += 1

        for parameter in run.parameters:  # a step leaves none
            parameter.grad = 1e-3 * torch.ones_like(parameter)
        return {
            "orthogonality, forward and backward": penalty,
            "clipping": clip,
            "optimizer": run.optimizer.step,
            "allocation": allocate,
        }


def _row_losses(outputs, targets):
    return cross_entropy(outputs, targets, reduction="none")


class PeftStep:
    """A step as Trainer takes it, with PEFT's LoRA or AdaLoRA."""

    def __init__(
        self, settings, tokens, compute, method="lora", load=hf.load_classifier
    ):
        from peft import AdaLoraConfig, TaskType, get_peft_model

        _, model = load(settings, _CLASSES)
        config = hf.lora_config()
        if method == "adalora":
            config = AdaLoraConfig(
                task_type=TaskType.SEQ_CLS,
                init_r=hf.INIT_R,
                target_r=hf.TARGET_R,
                lora_alpha=hf.ALPHA,
                target_modules="all-linear",
                **_SCHEDULE,
            )
        self.model = get_peft_model(model, config).to(compute.device).train()
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-3, fused=True)
        self.method, self.compute, self.step = method, compute, 0
        batch = inside.pad(tokens, np.arange(len(tokens))).to(compute.device)
        self.batch = {
            "input_ids": batch.input_ids,
            "attention_mask": torch.ones_like(batch.input_ids),  # as Trainer's collator
            "labels": _labels(len(tokens), compute),
        }

    def __call__(self):
        cast = nullcontext()
        if self.compute.precision != "float32":
            cast = torch.autocast(self.compute.device.type, self.compute.dtype)
        with cast:
            loss = self.model(**self.batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        if self.method == "adalora":
            self.model.base_model.update_and_allocate(self.step)
        self.optimizer.zero_grad()
        self.step += 1


def _labels(rows, compute):
    return (torch.arange(rows) % _CLASSES).to(compute.device)


def _peft_adalora(settings, tokens, compute):
    return PeftStep(settings, tokens, compute, "adalora")


def _peft_tuned(settings, tokens, compute):
    step = PeftStep(settings, tokens, compute, "adalora", hf.load_mean_pooled)
    hf.stay_in_half_precision(step.model, compute)
    return step


STEPS = {
    "floor": Floor,
    "ours": OurStep,
    "peft-lora": PeftStep,
    "peft-adalora": _peft_adalora,
    "peft-tuned": _peft_tuned,
}


def steps_of(model):
    """Return the names of `STEPS` that a model can take: some lack `peft-tuned`."""
    known = hf.model_type(Settings(model=model)) in hf.MEAN_POOLED
    return [name for name in STEPS if known or name != "peft-tuned"]


def make_step(name, rows, length, compute, model):
    """Return a step of a contestant, as a function without arguments.

    Parameters
    ----------
    name : str
        One of `STEPS`.
    rows, length : int
        Shape of its batch, in texts and tokens.
    compute : Compute
        Where, and in which precision.
    model : str
        Folder or Hugging Face id of the pretrained model.
    """
    vocabulary = inside.load_backbone(model, compute).module.config.vocab_size
    tokens = make_tokens(rows, length, min(20_000, vocabulary))
    # Some choose kernels by it: not those of the card, where the CPU is asked for.
    where = {"device": str(compute.device), "precision": compute.precision}
    return STEPS[name](Settings(model=model, **where), tokens, compute)
