"""Who is compared: functions ``fit(texts, labels, settings) -> predictor``.

A predictor has ``predict(texts)``, which returns a label a text. Reading the pretrained
model and tokenising belong to `fit`, for everyone. `CONTESTANTS` at the end names them.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_adalora import AdaLoraClassifier

from . import huggingface
from .inside import folder_of, resolve_place, resolve_schedule

_REGULARISATION = [0.1, 1, 10, 100]
DEFAULT_MODEL = AdaLoraClassifier().model


@dataclass(frozen=True)
class Settings:
    """What all contestants of a comparison share.

    Parameters
    ----------
    epochs : int or None
        Passes over the rows. None is as many as ours takes by itself, for all.
    batch_size : int
        Rows in a batch, when training and when Trainer predicts.
    max_length : int
        Tokens that a text is cut to.
    device : {"auto", "cpu", "cuda"}
        Where to compute.
    precision : {"default", "float32", "bfloat16"}
        "default" is each contestant's own: float32 for all but ours, which takes
        bfloat16 where the hardware has it. For Trainer, bfloat16 is ``bf16=True``.
    seed : int
        Source of randomness.
    learning_rate : float or None
        None is the contestant's own, see `learning_rate_of`.
    model : str
        Folder or Hugging Face id of the pretrained model.
    max_steps : int
        Optimizer steps after which Trainer stops, -1 for all.
    """

    epochs: int | None = None
    batch_size: int = 32
    max_length: int = 128
    device: str = "auto"
    precision: str = "default"
    seed: int = 0
    learning_rate: float | None = None
    model: str = DEFAULT_MODEL
    max_steps: int = -1

    @property
    def folder(self):
        """Folder of the pretrained model."""
        return folder_of(self.model)

    @property
    def place(self):
        """Device, and the precision that others than ours compute in."""
        default = self.precision == "default"
        return resolve_place(self.device, "float32" if default else self.precision)


def settings_of(options, **more):
    """Return the settings that a command line asks for, and some more."""
    common = ("epochs", "batch_size", "max_length", "device", "model")
    return Settings(**{name: getattr(options, name) for name in common}, **more)


def fit(name, texts, labels, settings):
    """Fit a contestant of `CONTESTANTS`.

    Returns
    -------
    object
        With ``predict(texts)``.
    """
    if name not in CONTESTANTS:
        raise ValueError(
            f"The contestant must be one of {', '.join(CONTESTANTS)}. Got {name!r}. "
            "Choose one."
        )
    settings = replace(settings, epochs=epochs_of(name, settings, labels))
    return CONTESTANTS[name](list(texts), labels, settings)


def epochs_of(name, settings, labels):
    """Return how often a contestant goes over rows with these labels, or None.

    More epochs score higher where rows are few, so none may have more than another.
    """
    if name not in FINE_TUNING:
        return None
    plan = resolve_schedule(
        len(labels),
        batch_size=settings.batch_size,
        epochs=settings.epochs or "auto",
        n_classes=len(set(labels)),
    )
    return plan.epochs


def learning_rate_of(name, settings):
    """Return the learning rate that a contestant is trained with, or None."""
    return settings.learning_rate or huggingface.LEARNING_RATES.get(name)


# ---- ours --------------------------------------------------------------------


def fit_ours(texts, labels, settings):
    """Fit `AdaLoraClassifier` with its defaults."""
    given = {"epochs": settings.epochs, "learning_rate": settings.learning_rate}
    classifier = AdaLoraClassifier(
        settings.model,
        batch_size=settings.batch_size,
        max_length=settings.max_length,
        device=settings.device,
        precision=settings.precision.replace("default", "auto"),
        random_state=settings.seed,
        **{name: value for name, value in given.items() if value is not None},
    )
    return classifier.fit(texts, labels)


# ---- without fine-tuning -----------------------------------------------------


class Embedder:
    """Texts -> normalised mean of the frozen model's hidden states."""

    def __init__(self, settings):
        from transformers import AutoModel

        self.settings, self.place = settings, settings.place
        self.tokenizer = huggingface.load_tokenizer(settings)
        self.model = AutoModel.from_pretrained(settings.folder, dtype=self.place.dtype)
        self.model.eval().to(self.place.device)

    @torch.inference_mode()
    def __call__(self, texts, batch_size=64):
        # Similar lengths together, as the package sentence-transformers does.
        order = np.argsort([-len(text) for text in texts], kind="stable")
        vectors = np.empty((len(texts), self.model.config.hidden_size), np.float32)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = self.tokenizer(
                [texts[i] for i in rows],
                truncation=True,
                max_length=self.settings.max_length,
                padding=True,
                return_tensors="pt",
            ).to(self.place.device)
            hidden = self.model(**batch).last_hidden_state.float()  # (n, t, w)
            mask = batch["attention_mask"].unsqueeze(2)
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            vectors[rows] = torch.nn.functional.normalize(mean).cpu().numpy()
        return vectors


def fit_embeddings(texts, labels, settings):
    """Fit a linear model on the frozen model's embeddings."""
    embed = Embedder(settings)
    linear = _linear_model(labels, settings).fit(embed(texts), labels)
    return make_pipeline(FunctionTransformer(embed), linear)


def fit_tfidf(texts, labels, settings):
    """Fit a linear model on weighted counts of words."""
    words = TfidfVectorizer(sublinear_tf=True)
    linear = _linear_model(labels, settings, [*_REGULARISATION, 1000])
    return make_pipeline(words, linear).fit(texts, labels)


def _linear_model(y, settings, regularisation=_REGULARISATION):
    """Return one whose regularisation is chosen by cross-validation: no straw man."""
    if np.asarray(y).dtype.kind == "f":  # numbers; a penalty of each column
        return RidgeCV(np.logspace(-2, 3, 16), alpha_per_target=True)
    folds = StratifiedKFold(3, shuffle=True, random_state=settings.seed)
    regression = LogisticRegression(max_iter=1000)
    return GridSearchCV(regression, {"C": regularisation}, cv=folds)


CONTESTANTS = {
    "ours": fit_ours,
    "peft-adalora": huggingface.fit_peft_adalora,
    "peft-tuned": huggingface.fit_peft_tuned,
    "peft-lora": huggingface.fit_peft_lora,
    "lora-tuned": huggingface.fit_lora_tuned,
    "full": huggingface.fit_full,
    "full-tuned": huggingface.fit_full_tuned,
    "skorch": huggingface.fit_skorch,
    "setfit": huggingface.fit_setfit,
    "embeddings": fit_embeddings,
    "tfidf": fit_tfidf,
}
# Measured only where they are asked for. SetFit is made for a handful of rows a class:
# of 200 rows, a fit takes half an hour to hours. The others have a table of their own.
ON_REQUEST = ("setfit", "lora-tuned", "full-tuned")
FINE_TUNING = (
    *("ours", "peft-adalora", "peft-tuned"),
    *("peft-lora", "lora-tuned", "full", "full-tuned", "skorch"),
)
