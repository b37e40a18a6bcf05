"""From rows to the head's outputs: what a fit needs of it, and every prediction."""

from __future__ import annotations

import os
from abc import ABCMeta, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from sk_adalora.data.texts import Texts, read_texts
from sk_adalora.files.state import AdapterState, rebuild_network
from sk_adalora.network.network import TextNetwork
from sk_adalora.pretrained.backbone import Backbone, load_backbone
from sk_adalora.pretrained.read import count_vectors
from sk_adalora.runtime.devices import Place, resolve_place
from sk_adalora.runtime.rules import check_parameters
from sk_adalora.runtime.torch_settings import own_settings_of_torch
from sk_adalora.tokens.batches import pad, prediction_batches, round_count_up
from sk_adalora.tokens.long_texts import encode_for_prediction
from sk_adalora.tokens.table import TokenTable

from .parameters import Parameters

# Parameters that predictions use.
_IN_USE = (
    *("model", "revision", "local_files_only", "trust_remote_code"),
    *("row_format", "max_length", "long_text", "device", "precision"),
)


@dataclass(frozen=True)
class Live:
    """What an estimator needs to predict: rebuilt on demand, never pickled."""

    network: TextNetwork
    backbone: Backbone
    model: str  # what the user called it
    chosen_place: Place  # what the user chose; the model may need float32 instead

    @property
    def place(self) -> Place:
        """Device and precision that it computes with."""
        return self.backbone.place


class PredictMixin(Parameters, metaclass=ABCMeta):
    """Read rows, find the pretrained model, and run the network over texts."""

    # What a fit sets.
    n_features_in_: int
    feature_names_in_: np.ndarray
    _adapter: AdapterState

    @abstractmethod
    def _n_outputs(self) -> int:
        """Return the number of outputs of the head."""

    def _read_texts(self, X: Any, *, reset: bool) -> Texts:
        """Turn rows into texts; set (`reset`) or check names and number of columns."""
        # Texts contain the names of columns: where one of the two tables has none,
        # columns are called as in the fit.
        names = None if reset else getattr(self, "feature_names_in_", ())
        texts = read_texts(X, self.row_format, names)
        if texts.feature_names is not None:
            # An empty table with these names, so that scikit-learn checks them for any
            # kind of table.
            X = pa.table({name: [] for name in texts.feature_names})
        validate_data(self, X, reset=reset, skip_check_array=True, ensure_2d=False)
        if reset:
            self.n_features_in_ = texts.n_features
        elif texts.n_features != self.n_features_in_:
            raise ValueError(
                f"X has {texts.n_features} features, but {type(self).__name__} is "
                f"expecting {self.n_features_in_} features as input."
            )
        return texts

    def _load_backbone(
        self, place: Place, fitted: AdapterState | None = None
    ) -> Backbone:
        """Load the pretrained model: for a new fit, or the one of `fitted` again."""
        pooling = self.pooling if fitted is None else fitted.pooling
        found = None
        if fitted is not None and fitted.model == os.fspath(self.model):
            found = fitted.found
        return load_backbone(
            self.model,
            place,
            or_float32=self.precision == "auto",
            revision=self.revision,
            local_files_only=self.local_files_only,
            trust_remote_code=self.trust_remote_code,
            n_labels=self._n_outputs() if pooling == "model" else None,
            found=found,
        )

    def _most_tokens(self, backbone: Backbone) -> int:
        """Return `max_length`, or less where the model takes less."""
        return int(min(self.max_length, backbone.longest or self.max_length))

    @own_settings_of_torch(gradients=False)
    def _predict_outputs(self, X: Any) -> np.ndarray:
        """Return the head's outputs.

        Returns
        -------
        ndarray of shape (n_samples, n_outputs), dtype float32
        """
        check_is_fitted(self)
        # Parameters may have been changed since the fit.
        check_parameters(self, {name: self._rules[name] for name in _IN_USE})
        texts = self._read_texts(X, reset=False)
        live = self._ready()
        tokenizer, most = live.backbone.tokenizer, self._most_tokens(live.backbone)
        tokens, windows = encode_for_prediction(texts, tokenizer, most, self.long_text)
        del texts  # frees what may be a copy of all of X
        check_tokens(windows.tokens, live)
        outputs = np.empty((len(windows.tokens), self._n_outputs()), np.float32)
        parts: Iterable[Any] = _outputs_of_batches(live, windows.tokens)
        if live.place.device.type != "cpu":
            parts = [*parts]  # compute all, as each copy waits for the device
        for rows, of_rows in parts:
            outputs[rows] = of_rows.cpu().numpy()
        _check_finite(outputs, live.place)
        of_texts = windows.average(outputs)
        # Indexing copies the table, for nothing where each row has its own text.
        return of_texts if tokens.all_distinct else of_texts[tokens.text_of]

    @own_settings_of_torch()
    def _ready(self) -> Live:
        """Return the network that predicts; build it if none fits the parameters."""
        live: Live | None = getattr(self, "_live", None)
        place = resolve_place(self.device, self.precision)
        model = os.fspath(self.model)
        if live is not None and self.precision != "auto" and live.place != place:
            live = None  # "auto" fell back to float32, and is not asked for any more
        if live is None or (live.model, live.chosen_place) != (model, place):
            backbone = self._load_backbone(place, self._adapter)
            network = rebuild_network(self._adapter, backbone)
            live = Live(network, backbone, model, place)
            self._live = live
        return live

    def _exact_network(self) -> tuple[TextNetwork, Backbone]:
        """Build a new network in float32 on the CPU; return it and its backbone."""
        place = resolve_place("cpu", "float32")
        backbone = self._load_backbone(place, self._adapter)
        return rebuild_network(self._adapter, backbone), backbone


def _outputs_of_batches(
    live: Live, tokens: TokenTable
) -> Iterable[tuple[np.ndarray, Tensor]]:
    """Compute outputs batch by batch: yield the rows of a batch, and theirs."""
    place, network = live.place, live.network
    # Not of one in training: a model may keep tables, as of rotary embeddings, from one
    # pass to the next, and autograd refuses what inference mode has made.
    frozen = network.encoder.peft_config.inference_mode
    limit, multiple = place.tokens_to_predict, place.length_multiple
    if live.backbone.findings.sees_padding:  # a text alone must not be padded
        multiple = 1
    for rows in prediction_batches(tokens, limit, multiple):
        n_rows = round_count_up(len(rows)) if place.compiles_shapes else None
        batch = pad(tokens, rows, multiple, n_rows).to(place.device)
        with torch.inference_mode(frozen):
            outputs = network(batch)
        yield rows, outputs[: len(rows)].float()


def _check_finite(outputs: np.ndarray, place: Place) -> None:
    """Refuse NaN and infinite outputs: argmax would make a class even of these."""
    if not np.isfinite(outputs).all():
        raise FloatingPointError(
            "The outputs of the network must be finite. Got NaN or infinity. Fit with "
            f"a lower `learning_rate`{place.or_exact}."
        )


def check_tokens(tokens: TokenTable, live: Live) -> None:
    """Refuse tokens without an embedding.

    After CUDA's own error, this process could not use the GPU any more.
    """
    count = count_vectors(live.backbone.module)
    highest = int(tokens.ids.max(initial=0))
    if count is not None and highest >= count:
        raise ValueError(
            "The tokenizer of `model` must give tokens that the model has vectors for. "
            f"Got token {highest} of {live.model!r}, which has {count}. Call its "
            "`resize_token_embeddings`, and save it."
        )
