"""Contestants built from Trainer, PEFT, skorch and SetFit, as these document it.

Trainer keeps its own defaults but for what a benchmark must switch off: reports,
saving, evaluation, logging and progress bars.
"""

import math
import tempfile
from functools import partial

import numpy as np
import torch
import transformers

transformers.logging.set_verbosity_error()  # that a head is new is no news
transformers.logging.disable_progress_bar()

# Chosen, because the defaults of Trainer (5e-5) and of PEFT's tour (1e-3) would have
# made straw men: the best mean of the accuracies on 400 headlines (500 to test on) and
# on quotes (500 and 400; AdaLoRA 1,000 and 500), seed 0:
#   AdaLoRA  .828 and .768; at 4e-3 .470 and .714. On the 300 test rows of that .470,
#            1e-3 had .417, 1e-2 .833 and 2e-2 .830, which was not tried on quotes
#   LoRA     .866 and .725; at 2e-3 .808 and .735, at 1e-3 .744 and .750
#   all      .836 and .765; at 5e-5 .738 and .660
# Of AdaLoRA with mean pooling, 1e-2 had .732 and 4e-3 .717 on 200 quotes in ten epochs.
# Higher rates of the last two were tried later: benchmarks/README.md has the figures.
LEARNING_RATES = {
    "peft-adalora": 1e-2,
    "peft-tuned": 1e-2,
    "peft-lora": 4e-3,
    "lora-tuned": 2e-3,  # half of that one, which learned nothing from 4,000 rows
    "full": 2e-4,
    "full-tuned": 2e-4,
    "skorch": 2e-4,
}

# Ranks and shares of the schedule as in `AdaLoraClassifier`, so that the two do the
# same work; alpha as in PEFT's example of AdaLoRA.
INIT_R, TARGET_R, ALPHA = 12, 8, 32
TINIT, TFINAL = 0.12, 0.48

# Architectures that `load_mean_pooled` knows: their dropouts have the names of BERT's.
MEAN_POOLED = ("bert", "mpnet")


class TrainerPredictor:
    """A model after training, with the Trainer that predicts with it."""

    def __init__(self, trainer, encode, classes, folder, by_length=False):
        self.trainer, self.encode, self.classes = trainer, encode, classes
        self.folder = folder  # lives as long as this
        self.by_length = by_length

    def predict(self, texts):
        texts = list(texts)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        if not self.by_length:
            order = np.arange(len(texts))
        outputs = self.trainer.predict(self.encode([texts[i] for i in order]))
        rows = np.empty(len(texts), int)
        rows[order] = outputs.predictions.argmax(axis=1)
        return [self.classes[i] for i in rows]


def fit_peft_tuned(texts, labels, settings):
    """Fit PEFT's AdaLoRA as one would who knows model, Trainer and kernels well.

    Mean pooling, for which the default model was made; no dropout in the frozen part;
    batches of texts of about the same length; on a CPU in bfloat16, attention as plain
    products, frozen weights held in it, and updates that stay in it; and merged weights
    to predict with. All but the merging is what ours does.
    """
    predictor = _fit_adalora(
        "peft-tuned",
        texts,
        labels,
        settings,
        load=load_mean_pooled,
        by_length=True,
        adapt=lambda model: stay_in_half_precision(model, settings.place),
    )
    trainer = predictor.trainer
    trainer.model = trainer.model_wrapped = trainer.model.merge_and_unload()
    # In evaluation, Trainer casts the weights then, rather than at each product.
    trainer.args.bf16_full_eval = settings.place.precision == "bfloat16"
    return predictor


def _fit_adalora(name, texts, labels, settings, adapt=lambda model: model, **options):
    from peft import AdaLoraConfig, TaskType, get_peft_model

    total = settings.epochs * math.ceil(len(texts) / settings.batch_size)
    config = AdaLoraConfig(
        task_type=TaskType.SEQ_CLS,
        init_r=INIT_R,
        target_r=TARGET_R,
        lora_alpha=ALPHA,
        target_modules="all-linear",
        total_step=total,
        tinit=int(TINIT * total),
        tfinal=int(TFINAL * total),
    )
    return _fit_trainer(
        name,
        texts,
        labels,
        settings,
        adapt=lambda model: adapt(get_peft_model(model, config)),
        callbacks=[make_allocation_callback()],
        **options,
    )


def is_half_on_cpu(place):
    """Tell where frozen weights in half precision save time: see `load_mean_pooled`."""
    return place.device.type == "cpu" and place.precision != "float32"


def stay_in_half_precision(model, place):
    """Keep what PEFT's layers compute out of float32, where that is faster.

    The number of ranks that an update is divided by, a vector in float32, would make
    the update one of float32, and the layer casts what it is given to float32 first.
    """
    if is_half_on_cpu(place):
        for layer in model.modules():
            if hasattr(layer, "ranknum"):
                number = layer.ranknum["default"]
                number.data = number.data.reshape(())
                layer.cast_input_dtype_enabled = False
    return model


def _fit_lora(name, texts, labels, settings, **options):
    from peft import get_peft_model

    return _fit_trainer(
        name,
        texts,
        labels,
        settings,
        adapt=lambda model: get_peft_model(model, lora_config()),
        **options,
    )


def lora_config():
    """Return the configuration of PEFT's LoRA."""
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=TARGET_R,
        lora_alpha=2 * TARGET_R,
        target_modules="all-linear",
    )


def make_allocation_callback():
    """Return the callback that moves the rank budget of PEFT's AdaLoRA."""
    from transformers import TrainerCallback

    class Allocate(TrainerCallback):
        """Allocate when the gradients are still there, as PEFT's documentation asks."""

        def on_optimizer_step(self, args, state, control, model=None, **others):
            model.base_model.update_and_allocate(state.global_step)

    return Allocate()


def load_tokenizer(settings):
    """Return the tokenizer of the pretrained folder, which can pad."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(settings.folder)
    if tokenizer.pad_token is None:  # GPT-2 and others have none
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_classifier(settings, n_classes):
    """Return tokenizer and classification model of the pretrained folder."""
    transformers.set_seed(settings.seed)  # the head is drawn at random
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        settings.folder, num_labels=n_classes, dtype=torch.float32
    )
    return load_tokenizer(settings), model


def model_type(settings):
    """Return what the configuration of the pretrained model calls its architecture."""
    return transformers.AutoConfig.from_pretrained(settings.folder).model_type


def load_mean_pooled(settings, n_classes, is_frozen=True):
    """Return tokenizer and a classification model with mean pooling."""
    config = transformers.AutoConfig.from_pretrained(settings.folder)
    if config.model_type not in MEAN_POOLED:
        raise ValueError(
            "The model of peft-tuned, lora-tuned and full-tuned must be one of "
            f"the types {', '.join(MEAN_POOLED)}. Got {settings.model!r}, of the type "
            f"{config.model_type}. Leave them out of --contestants, or choose another "
            "--model."
        )
    transformers.set_seed(settings.seed)
    half = is_half_on_cpu(settings.place)
    model = make_mean_pooled(config).from_pretrained(
        settings.folder,
        num_labels=n_classes,
        dtype=torch.float32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager" if half else None,
    )
    if half and is_frozen:
        model.base_model.to(settings.place.dtype)
    return load_tokenizer(settings), model


def make_mean_pooled(config):
    """Return a class of model with a linear head on the mean of the hidden states."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    from transformers.modeling_outputs import SequenceClassifierOutput

    class MeanPooled(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]):
        def __init__(self, config):
            super().__init__(config)
            self.base_model.pooler = None
            self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)

        # Trainer keeps the columns that this names; PEFT passes others, all None.
        def forward(
            self, input_ids, attention_mask, token_type_ids=None, labels=None, **_
        ):
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            hidden = self.base_model(input_ids, attention_mask, **types)[0]  # n, t, w
            mask = attention_mask.unsqueeze(2).to(hidden.dtype)
            logits = self.classifier((hidden * mask).sum(dim=1) / mask.sum(dim=1))
            loss = None
            if labels is not None:
                loss = torch.nn.functional.cross_entropy(logits, labels)
            return SequenceClassifierOutput(loss=loss, logits=logits)

    return MeanPooled


def _fit_trainer(
    name,
    texts,
    labels,
    settings,
    adapt=lambda model: model,
    load=load_classifier,
    by_length=False,
    **options,
):
    """Tokenise, load, adapt and train."""
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from transformers import DataCollatorWithPadding, Trainer
    from transformers.trainer_callback import PrinterCallback

    disable_progress_bar()
    classes = sorted(set(labels))
    tokenizer, model = load(settings, len(classes))
    code = {label: i for i, label in enumerate(classes)}

    def encode(texts, labels=None):
        columns = {"text": texts}
        if labels is not None:
            columns["label"] = [code[label] for label in labels]
        return Dataset.from_dict(columns).map(
            lambda rows: tokenizer(
                rows["text"], truncation=True, max_length=settings.max_length
            ),
            batched=True,
            remove_columns=["text"],
        )

    folder = tempfile.TemporaryDirectory()
    trainer = Trainer(
        model=adapt(model),
        args=_arguments(name, settings, folder.name, by_length),
        train_dataset=encode(texts, labels),
        data_collator=DataCollatorWithPadding(tokenizer),
        **options,
    )
    trainer.remove_callback(PrinterCallback)  # a line for each fit
    trainer.train()
    # Grouped, Trainer would shuffle what it predicts, too.
    trainer.args.train_sampling_strategy = "random"
    return TrainerPredictor(trainer, encode, classes, folder, by_length)


def _arguments(name, settings, folder, by_length):
    """Return Trainer's defaults, silent and without files."""
    from transformers import TrainingArguments

    place = settings.place
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate or LEARNING_RATES[name],
        bf16=place.precision == "bfloat16",
        use_cpu=place.device.type == "cpu",
        seed=settings.seed,
        report_to="none",
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        max_steps=settings.max_steps,
        train_sampling_strategy="group_by_length" if by_length else "random",
    )
    # Of several cards it would take all, with as many times the rows in a batch.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


# As documented, and with the mean pooling of `fit_peft_tuned`, in batches by length.
fit_peft_adalora = partial(_fit_adalora, "peft-adalora")
fit_peft_lora = partial(_fit_lora, "peft-lora")
fit_lora_tuned = partial(_fit_lora, "lora-tuned", load=load_mean_pooled, by_length=True)
fit_full = partial(_fit_trainer, "full")
# Weights that are trained stay in float32, as for Trainer's bfloat16.
fit_full_tuned = partial(
    _fit_trainer,
    "full-tuned",
    load=partial(load_mean_pooled, is_frozen=False),
    by_length=True,
)


# ---- skorch and SetFit -------------------------------------------------------


class Relabelled:
    """Predicts classes where another model predicts their numbers."""

    def __init__(self, predict, classes):
        self._predict, self.classes = predict, classes

    def predict(self, texts):
        return [self.classes[i] for i in np.asarray(self._predict(list(texts)), int)]


class LogitsModule(torch.nn.Module):
    """A classification model of transformers that returns its logits alone."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **inputs):
        return self.model(**inputs).logits


def fit_skorch(texts, labels, settings):
    """Fit all weights with skorch, as its notebook on Hugging Face models does."""
    from sklearn.pipeline import Pipeline
    from skorch import NeuralNetClassifier
    from skorch.callbacks import LRScheduler
    from skorch.hf import HuggingfacePretrainedTokenizer

    if settings.place.precision != "float32":
        raise ValueError(
            "skorch computes in float32 unless one writes a network class of one's "
            "own. Got precision='bfloat16'. Leave it out of this comparison."
        )
    classes, codes = np.unique(labels, return_inverse=True)
    encoder, model = load_classifier(settings, len(classes))
    total = settings.epochs * math.ceil(len(texts) / settings.batch_size)
    network = NeuralNetClassifier(
        LogitsModule(model),
        optimizer=torch.optim.AdamW,
        lr=settings.learning_rate or LEARNING_RATES["skorch"],
        max_epochs=settings.epochs,
        criterion=torch.nn.CrossEntropyLoss,
        batch_size=settings.batch_size,
        iterator_train__shuffle=True,
        train_split=None,  # learn from all rows, as the others do
        device=settings.place.device.type,
        callbacks=[
            LRScheduler(
                torch.optim.lr_scheduler.LambdaLR,
                lr_lambda=lambda step: max(0.0, 1 - step / total),
                step_every="batch",
            )
        ],
        verbose=0,
    )
    # It pads all texts to one length, so one sets that to the longest of them.
    longest = max(len(ids) for ids in encoder(texts, verbose=False)["input_ids"])
    tokenizer = HuggingfacePretrainedTokenizer(
        settings.folder, max_length=min(settings.max_length, longest)
    )
    pipeline = Pipeline([("tokenizer", tokenizer), ("network", network)])
    return Relabelled(pipeline.fit(texts, codes).predict, classes.tolist())


def fit_setfit(texts, labels, settings):
    """Fit the encoder on pairs, and a logistic regression on it, with SetFit's Trainer.

    It learns to tell pairs of texts of one class from pairs of two (Tunstall et al.
    2022, arXiv:2209.11055), which grow in number with the square of the rows. All
    settings are SetFit's defaults: batches of 16 pairs, one pass over all of them, the
    rarer of the two kinds repeated until there are as many as of the other.
    """
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    if settings.place.precision != "float32":
        raise ValueError(
            "SetFit is measured in float32, its default. Got "
            f"precision={settings.precision!r}. Leave it out of this comparison."
        )
    # The three parts of the published model: its encoder, mean pooling, length 1.
    encoder = modules.Transformer(settings.folder, max_seq_length=settings.max_length)
    pooling = modules.Pooling(encoder.get_embedding_dimension())
    parts = [encoder, pooling, modules.Normalize()]
    body = SentenceTransformer(modules=parts, device=str(settings.place.device))
    classes, codes = np.unique(labels, return_inverse=True)
    model = SetFitModel(body, LogisticRegression())
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder,
            seed=settings.seed,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            show_progress_bar=False,
        )
        rows = Dataset.from_dict({"text": texts, "label": codes.tolist()})
        Trainer(model, options, rows).train()
    predict = partial(model.predict, show_progress_bar=False)
    return Relabelled(predict, classes.tolist())
