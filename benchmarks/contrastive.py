"""The contestant SetFit, as its documentation has it.

It trains the encoder to tell pairs of texts of one class from pairs of two, then fits a
logistic regression to its embeddings (Tunstall et al. 2022, arXiv:2209.11055). It is
made for a handful of rows a class: pairs grow in number with the square of the rows.
"""

import tempfile

from sk_adalora.pretrained.read import silent_transformers


class SetFitPredictor:
    """A SetFit model that returns labels."""

    def __init__(self, model):
        self.model = model

    def predict(self, texts):
        return list(self.model.predict(list(texts), show_progress_bar=False))


def fit_setfit(texts, labels, settings):
    """Fit the encoder on pairs, and a logistic regression on it, with SetFit's Trainer.

    All settings are SetFit's defaults: batches of 16 pairs, one pass over all of them,
    the rarer of the two kinds repeated until there are as many as of the other.
    """
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    if settings.compute.precision != "float32":
        raise ValueError(
            "SetFit is measured in float32, its default. Got "
            f"precision={settings.precision!r}. Leave it out of this comparison."
        )
    # The three parts of the published model: its encoder, mean pooling, length 1.
    encoder = modules.Transformer(settings.folder, max_seq_length=settings.max_length)
    pooling = modules.Pooling(encoder.get_embedding_dimension())
    parts = [encoder, pooling, modules.Normalize()]
    body = SentenceTransformer(modules=parts, device=str(settings.compute.device))
    classes = sorted(set(labels))
    model = SetFitModel(body, LogisticRegression(), labels=classes)
    rows = {"text": texts, "label": [classes.index(label) for label in labels]}
    with tempfile.TemporaryDirectory() as folder, silent_transformers():
        options = TrainingArguments(
            folder,
            seed=settings.seed,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            show_progress_bar=False,
        )
        Trainer(model, options, Dataset.from_dict(rows)).train()
    return SetFitPredictor(model)
