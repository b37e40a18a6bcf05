"""From rows to outputs and vectors: what a fit needs of it, and every prediction."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from sk_adalora.data.texts import Texts, read_texts
from sk_adalora.files.state import AdapterState, check_files, rebuild_network
from sk_adalora.network.network import TextNetwork
from sk_adalora.pretrained.backbone import Backbone, load_backbone
from sk_adalora.pretrained.find import request
from sk_adalora.pretrained.read import count_vectors
from sk_adalora.runtime.devices import Compute, own_settings_of_torch, resolve_compute
from sk_adalora.runtime.messages import announce, progress_bar
from sk_adalora.runtime.ranks import ranks_now
from sk_adalora.runtime.rules import check_parameters
from sk_adalora.runtime.threads import ahead
from sk_adalora.tokens.batches import (
    Batch,
    pad,
    prediction_batches,
    round_count_up,
)
from sk_adalora.tokens.long_texts import Windows, encode_for_prediction
from sk_adalora.tokens.table import TokenTable
from sk_adalora.tokens.tokenize import distinct_texts

# Distinct texts that are tokenised at once, while the ones before are computed.
PART_ROWS = 10_000
# Parameters that predictions use.
_USED = (
    *("model", "model_kwargs", "row_format", "max_length", "long_text"),
    *("device", "precision"),
)


@dataclass(frozen=True)
class Predictor:
    """The network that predicts: rebuilt on demand, never pickled.

    Parameters
    ----------
    network : TextNetwork
        The adapted encoder with its head.
    backbone : Backbone
        The pretrained model in it.
    model : str
        What the user called that.
    chosen_compute : Compute
        What the user chose to compute with; the model may need float32 instead.
    """

    network: TextNetwork
    backbone: Backbone
    model: str
    chosen_compute: Compute

    @property
    def compute(self) -> Compute:
        """Device and precision that it computes with."""
        return self.backbone.compute


def read_inputs(estimator: Any, X: Any, *, reset: bool) -> Texts:
    """Turn rows into texts; set (`reset`) or check names and number of columns."""
    # Texts contain the names of columns: where one of the two tables has none,
    # columns are called as in the fit.
    names = None if reset else getattr(estimator, "feature_names_in_", ())
    texts = read_texts(X, estimator.row_format, names)
    check_columns(estimator, X, texts.feature_names, texts.n_features, reset=reset)
    return texts


def read_new(estimator: Any, X: Any) -> Texts:
    """Turn rows to predict into texts; refuse an estimator that cannot predict."""
    check_ready(estimator)
    return read_inputs(estimator, X, reset=False)


def check_columns(
    estimator: Any, X: Any, names: np.ndarray | None, n_features: int, *, reset: bool
) -> None:
    """Set (`reset`) or check the names and the number of the columns of `X`."""
    if names is None and not reset:  # scikit-learn would warn of names beside it
        _check_number(estimator, n_features)
    if names is not None:
        # An empty table with these names, so that scikit-learn checks them for any
        # kind of table.
        X = pa.table({name: [] for name in names})
    validate_data(estimator, X, reset=reset, skip_check_array=True, ensure_2d=False)
    if reset:
        estimator.n_features_in_ = n_features
    else:
        _check_number(estimator, n_features)


def _check_number(estimator: Any, n_features: int) -> None:
    if n_features != estimator.n_features_in_:
        raise ValueError(
            f"X has {n_features} features, but {type(estimator).__name__} is "
            f"expecting {estimator.n_features_in_} features as input. Pass the columns "
            "of the fit."
        )


def load_model(
    estimator: Any, compute: Compute, n_outputs: int, fitted: AdapterState | None = None
) -> Backbone:
    """Load the pretrained model: for a new fit, or the one of `fitted` again."""
    pooling = estimator.pooling if fitted is None else fitted.pooling
    found = None
    if fitted is not None and fitted.model == os.fspath(estimator.model):
        found = fitted.found
    load = partial(
        load_backbone,
        estimator.model,
        compute,
        or_float32=estimator.precision == "auto",
        model_kwargs=estimator.model_kwargs,
        n_labels=n_outputs if pooling == "model" else None,
        found=found,
        check=None if fitted is None else partial(check_files, fitted),
    )
    ranks = ranks_now()
    if ranks.is_first:
        announce(estimator.verbose, f"loading {os.fspath(estimator.model)} ...")
    return ranks.together(load)


def most_tokens(max_length: int, backbone: Backbone) -> int:
    """Return `max_length`, or less where the model takes less."""
    return int(min(max_length, backbone.longest or max_length))


@own_settings_of_torch()
def load_predictor(estimator: Any) -> Predictor:
    """Return the network that predicts; build it if none fits the parameters."""
    predictor: Predictor | None = getattr(estimator, "_predictor", None)
    compute = resolve_compute(estimator.device, estimator.precision)
    model = os.fspath(estimator.model)
    if predictor is not None:
        options = request(model, estimator.model_kwargs).options
        as_chosen = (predictor.model, predictor.chosen_compute) == (model, compute)
        as_chosen = as_chosen and predictor.backbone.asked.options == options
        # "auto" may have fallen back to float32, and is not asked for any more.
        exact = estimator.precision == "auto" or predictor.compute == compute
        if as_chosen and exact:
            return predictor
    network, backbone = load_network(estimator, compute)
    predictor = Predictor(network, backbone, model, compute)
    estimator._predictor = predictor
    return predictor


def load_network(estimator: Any, compute: Compute) -> tuple[TextNetwork, Backbone]:
    """Build a fitted estimator's network; return it and its backbone."""
    adapter, n_outputs = estimator._adapter, estimator._targets.n_outputs
    backbone = load_model(estimator, compute, n_outputs, adapter)
    return rebuild_network(adapter, backbone), backbone


# ---- predict ----------------------------------------------------------------

# What is computed of a batch of n rows, as a tensor of shape (n, any).
OfBatch = Callable[[TextNetwork, Batch], Tensor]


def outputs_of(network: TextNetwork, batch: Batch) -> Tensor:
    """Compute the head's outputs, of shape (n, k)."""
    outputs: Tensor = network(batch)
    return outputs


def vectors_of(network: TextNetwork, batch: Batch) -> Tensor:
    """Compute the pooled vectors, of shape (n, w)."""
    return network.features(batch)


def both_of(network: TextNetwork, batch: Batch) -> Tensor:
    """Compute outputs and vectors in one pass, of shape (n, k + w)."""
    vectors = network.features(batch)
    return torch.cat([network.head(vectors), vectors], dim=1)


def predict_outputs(estimator: Any, X: Any) -> np.ndarray:
    """Return the head's outputs for each row.

    Returns
    -------
    ndarray of shape (n_samples, n_outputs), dtype float32
    """
    return predict_rows(estimator, X, outputs_of)


def predict_vectors(estimator: Any, X: Any) -> np.ndarray:
    """Return the pooled vector of each row, before any head.

    Returns
    -------
    ndarray of shape (n_samples, width), dtype float32
    """
    check_has_vectors(estimator)
    return predict_rows(estimator, X, vectors_of)


def predict_both(estimator: Any, X: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return vector and outputs of each row, of one pass.

    Returns
    -------
    vectors : ndarray of shape (n_samples, width), dtype float32
    outputs : ndarray of shape (n_samples, n_outputs), dtype float32
    """
    both = predict_rows(estimator, X, both_of)
    outputs, vectors = np.split(both, [estimator._adapter.n_outputs], axis=1)
    return vectors, outputs


def check_has_vectors(estimator: Any) -> None:
    """Refuse an estimator that is not fitted, or was with the model's own head."""
    check_is_fitted(estimator)
    if estimator._adapter.width is None:
        raise ValueError(
            "`transform` needs vectors that `pooling` made of tokens. Got a fit with "
            "pooling='model', which leaves that to the model's own head. Fit with "
            "another `pooling`, such as 'mean'."
        )


@dataclass(frozen=True)
class EncodedRows:
    """Rows that have been read and tokenised: methods that predict take them as `X`.

    Parameters
    ----------
    tokens : TokenTable
        Which distinct text each row is.
    windows : Windows
        What the model is given of these texts.
    """

    tokens: TokenTable
    windows: Windows

    def __len__(self) -> int:
        return len(self.tokens)

    def compute(self, predictor: Predictor, of_batch: OfBatch) -> np.ndarray:
        """Compute something of each row, of shape (n_samples, any)."""
        of_windows = compute_rows(predictor, self.windows.tokens, of_batch)
        of_texts = self.windows.average(of_windows)
        # Indexing copies the table, for nothing where each row has its own text.
        return of_texts if self.tokens.all_distinct else of_texts[self.tokens.text_of]


def encoder_of(estimator: Any) -> Callable[[Texts], EncodedRows]:
    """Return what tokenises texts for a fitted estimator, in any thread."""
    backbone = load_predictor(estimator).backbone
    most = most_tokens(estimator.max_length, backbone)
    long_text = estimator.long_text

    def encode(texts: Texts) -> EncodedRows:
        tokenizer = backbone.tokenizer
        return EncodedRows(*encode_for_prediction(texts, tokenizer, most, long_text))

    return encode


def check_ready(estimator: Any) -> None:
    """Refuse to predict without a fit, or with wrong parameters."""
    check_is_fitted(estimator)
    # Parameters may have been changed since the fit.
    check_parameters(estimator, {name: estimator._rules[name] for name in _USED})


def encode_ahead(estimator: Any) -> Callable[[Iterable[Any]], Generator[EncodedRows]]:
    """Return what reads parts of rows, and tokenises each while one is computed."""
    check_ready(estimator)

    def prepare(parts: Iterable[Any]) -> Generator[EncodedRows]:
        encode = encoder_of(estimator)
        return ahead(
            lambda part: encode(read_inputs(estimator, part, reset=False)), parts
        )

    return prepare


@own_settings_of_torch(gradients=False)
def predict_rows(estimator: Any, X: Any, of_batch: OfBatch) -> np.ndarray:
    """Compute something of each row, of shape (n_samples, any), in float32."""
    if isinstance(X, EncodedRows):
        return X.compute(load_predictor(estimator), of_batch)
    texts = read_new(estimator, X)
    encode, predictor = encoder_of(estimator), load_predictor(estimator)
    if len(texts) <= PART_ROWS:
        rows = encode(texts)
        del texts
        return rows.compute(predictor, of_batch)
    text_of, distinct = distinct_texts(texts)
    del texts  # frees what may be a copy of all of X
    count = len(distinct)
    parts = (distinct.slice(i, PART_ROWS) for i in range(0, count, PART_ROWS))
    of_texts, done = np.empty((0, 0), np.float32), 0
    with closing(progress_bar(count, estimator.verbose, "predict", "text")) as bar:
        for part in ahead(encode, parts):
            of_part = part.compute(predictor, of_batch)
            if not len(of_texts):
                of_texts = np.empty((count, of_part.shape[1]), of_part.dtype)
            of_texts[done : done + len(part)] = of_part
            done += len(part)
            bar.update(len(part))
    return of_texts if text_of is None else of_texts[text_of]


@own_settings_of_torch(gradients=False)
def outputs_of_texts(estimator: Any, texts: Texts) -> np.ndarray:
    """Return the head's outputs of texts, many of which differ by a word.

    What is the same to the model is computed once: where the model does not see what
    differs, the outputs are equal to the last bit.
    """
    predictor = load_predictor(estimator)
    rows = encoder_of(estimator)(texts)
    first, same_as = rows.windows.tokens.distinct_ids()
    computed = compute_rows(predictor, rows.windows.tokens.take(first))
    return rows.windows.average(computed[same_as])[rows.tokens.text_of]


def compute_rows(
    predictor: Predictor, tokens: TokenTable, of_batch: OfBatch = outputs_of
) -> np.ndarray:
    """Run the network over tokens; refuse numbers that are not finite.

    Parameters
    ----------
    predictor : Predictor
        The network.
    tokens : TokenTable
        The texts, or windows of them.
    of_batch : callable, default=outputs_of
        What to compute of each batch: `outputs_of`, `vectors_of` or `both_of`.

    Returns
    -------
    ndarray of shape (n_texts, any), dtype float32
        What `of_batch` returns, in the order of the texts.
    """
    check_tokens(tokens, predictor.backbone, predictor.model)
    parts: Iterable[Any] = _batch_by_batch(predictor, tokens, of_batch)
    if predictor.compute.device.type != "cpu":
        parts = [*parts]  # compute all, as each copy waits for the device
    of_texts = np.empty((0, 0), np.float32)
    for rows, of_rows in parts:
        if not len(of_texts):
            of_texts = np.empty((len(tokens), of_rows.shape[1]), np.float32)
        of_texts[rows] = of_rows.cpu().numpy()
    _check_finite(of_texts, predictor.compute)
    return of_texts


def _batch_by_batch(
    predictor: Predictor, tokens: TokenTable, of_batch: OfBatch
) -> Iterable[tuple[np.ndarray, Tensor]]:
    """Yield the rows of each batch, and what is computed of them."""
    compute, network = predictor.compute, predictor.network
    # Not of one in training: a model may keep tables, as of rotary embeddings, from one
    # pass to the next, and autograd refuses what inference mode has made.
    frozen = network.encoder.peft_config.inference_mode
    limit, multiple = compute.tokens_to_predict, compute.length_multiple
    if predictor.backbone.sees_padding:  # a text alone must not be padded
        multiple = 1
    for rows in prediction_batches(tokens, limit, multiple):
        n_rows = round_count_up(len(rows)) if compute.compiles_shapes else None
        batch = pad(tokens, rows, multiple, n_rows).to(compute.device)
        with torch.inference_mode(frozen):
            of_rows = of_batch(network, batch)
        yield rows, of_rows[: len(rows)].float()


def _check_finite(outputs: np.ndarray, compute: Compute) -> None:
    """Refuse NaN and infinite outputs: argmax would make a class even of these."""
    if not np.isfinite(outputs).all():
        raise FloatingPointError(
            "The outputs of the network must be finite. Got NaN or infinity. Fit with "
            f"a lower `learning_rate`{compute.or_exact}."
        )


def check_tokens(tokens: TokenTable, backbone: Backbone, model: str) -> None:
    """Refuse tokens without an embedding.

    After CUDA's own error, this process could not use the GPU any more.
    """
    count = count_vectors(backbone.module)
    highest = int(tokens.ids.max(initial=0))
    if count is not None and highest >= count:
        raise ValueError(
            "The tokenizer of `model` must give tokens that the model has vectors for. "
            f"Got token {highest} of {model!r}, which has {count}. Call its "
            "`resize_token_embeddings`, and save it."
        )
