"""Tiny random models, and one way to train them, for the tests of the engine."""

import contextlib
import warnings

import torch
import transformers
from torch import nn
from transformers.utils import logging

from sk_adalora.adalora import AdaLoraConfig, get_peft_model

logging.disable_progress_bar()

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
}
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

BERT_LAYERS = {
    f"encoder.layer.{i}.{name}"
    for i in range(2)
    for name in (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    )
}


def build(make, seed=0):
    """What `make()` returns, random by `seed` alone, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return make().eval()


def tiny_bert(seed=0, dropout=False):
    config = transformers.BertConfig(**SIZES, **({} if dropout else QUIET))
    return build(lambda: transformers.BertModel(config), seed)


def tiny_classifier(seed=0, **options):
    config = transformers.BertConfig(**SIZES, **QUIET, num_labels=3, **options)
    return build(lambda: transformers.BertForSequenceClassification(config), seed)


def tiny_distilbert(seed=0):
    """One with a head in two parts, `pre_classifier` and `classifier`."""
    config = transformers.DistilBertConfig(
        vocab_size=50,
        dim=32,
        n_layers=2,
        n_heads=2,
        hidden_dim=48,
        dropout=0.0,
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
        num_labels=3,
    )
    return build(lambda: transformers.DistilBertForSequenceClassification(config), seed)


def tiny_gpt2(seed=0, make=transformers.GPT2LMHeadModel):
    config = transformers.GPT2Config(
        vocab_size=50,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=32,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=49,
        pad_token_id=0,
        num_labels=3,
    )
    return build(lambda: make(config), seed)


def tiny_llama(seed=0, make=transformers.LlamaForCausalLM):
    config = transformers.LlamaConfig(
        **SIZES,
        num_key_value_heads=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=49,
        num_labels=3,
    )
    return build(lambda: make(config), seed)


def tiny_t5(seed=0):
    config = transformers.T5Config(
        vocab_size=50,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
    )
    return build(lambda: transformers.T5ForConditionalGeneration(config), seed)


def config(**options):
    """An `AdaLoraConfig` for a short schedule, without dropout."""
    base = {
        "init_r": 4,
        "target_r": 2,
        "tinit": 2,
        "tfinal": 3,
        "total_step": 12,
        "lora_alpha": 8,
    }
    return AdaLoraConfig(**{**base, **options})


def adapt(base, seed=0, **options):
    """The model adapted by `config(**options)`, with rows that depend on `seed`."""
    generator = torch.Generator().manual_seed(seed)
    return get_peft_model(base, config(**options), generator=generator)


def randomise(model, seed=1):
    """Give every triplet a value, as if it had started at random: no update is zero."""
    model.peft_config.init_lora_weights = False
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.triplets.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return model


def small_adapted(widths=((6, 5), (5, 6)), **options):
    """Two adapted linear layers with different widths, without penalty."""
    blocks = [nn.Linear(*w) for w in widths]
    options = {"orth_reg_weight": 0.0, **options}
    return randomise(adapt(nn.Sequential(*blocks), **options))


def give_gradients(model, seed=0, scale=1.0):
    """Give every triplet a random gradient, as a backward pass would."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.triplets.parameters():
        p.grad = torch.randn(p.shape, generator=generator) * scale


def alive(model):
    """The number of triplets whose singular value is not zero."""
    return int((model.triplets.singular_values != 0).sum())


def adapted_bert(seed=0, **options):
    """An adapted BERT whose update is not zero."""
    return randomise(adapt(tiny_bert(), seed, **options), seed + 1)


def tokens(seed=0, rows=4, length=7):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 49, (rows, length), generator=generator)


def labels(seed=0, rows=4, classes=3):
    generator = torch.Generator().manual_seed(seed + 1000)
    return torch.randint(0, classes, (rows,), generator=generator)


def hidden(model, ids=None):
    """The last hidden states of an encoder, without gradient."""
    with torch.no_grad():
        return model(tokens() if ids is None else ids).last_hidden_state


def encoder_loss(model, step, length=7):
    """A loss of an encoder without head that differs from step to step."""
    states = model(tokens(step, length=length)).last_hidden_state
    generator = torch.Generator().manual_seed(step)
    return (states * torch.randn(states.shape, generator=generator)).mean()


def classifier_loss(model, step):
    """A loss of a classifier that differs from step to step."""
    return model(tokens(step), labels=labels(step)).loss


def one_step(model, optimizer, step, loss=encoder_loss):
    """A training step in the order of the paper; return the living triplets."""
    total = loss(model, step) + model.orthogonality_loss()
    total.backward()
    optimizer.step()
    living = model.update_and_allocate(step)
    optimizer.zero_grad()
    return living


def adamw(model, lr=1e-2):
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)


def train(model, steps, optimizer=None, loss=encoder_loss):
    """Train for the given steps; return the number of living triplets after each."""
    optimizer = optimizer or adamw(model)
    return [one_step(model, optimizer, step, loss) for step in steps]


@contextlib.contextmanager
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
