"""What classifier and regressor share: how to fit, how to predict, what to keep."""

from __future__ import annotations

import copy
import time
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.metrics import check_scoring
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)
from torch import Tensor

from ._backbone import Backbone, TextNetwork, load_backbone
from ._batches import pad, prediction_batches
from ._devices import Place, resolve_place
from ._early_stopping import ScoreWatcher
from ._parameters import Rule, check_parameters
from ._persistence import TRANSIENT, freeze_state, thaw_network
from ._report import make_report
from ._steps import ResolvedSchedule, resolve_schedule
from ._texts import Texts, read_texts
from ._tokens import TokenTable, encode
from ._training import Examples, LossFunction, Recipe, Run, TrainingHistory, train

# Above this share of truncated rows a fit warns.
_TRUNCATED = 0.10


@dataclass(frozen=True)
class TrainingRows:
    """The rows of a fit.

    Parameters
    ----------
    texts : Texts
        Their texts.
    targets : torch.Tensor of shape (n_samples,) or (n_samples, n_outputs)
        What they should give.
    weights : torch.Tensor of shape (n_samples,) or None
        Weights of their losses.
    """

    texts: Texts
    targets: Tensor
    weights: Tensor | None

    def take(self, rows: np.ndarray) -> TrainingRows:
        """Return some of the rows."""
        weights = None if self.weights is None else self.weights[rows]
        return replace(
            self,
            texts=self.texts.take(rows),
            targets=self.targets[rows],
            weights=weights,
        )


@dataclass(frozen=True)
class Live:
    """What an estimator needs to predict: rebuilt on demand, never pickled."""

    network: TextNetwork
    backbone: Backbone
    place: Place
    max_length: int


class BaseAdaLora(BaseEstimator):
    """Fit and predict skeletons. Subclasses say what targets, loss and outputs are."""

    _rules: ClassVar[Mapping[str, Rule]]

    # ---- what subclasses say ------------------------------------------------

    @abstractmethod
    def _learn_targets(self, y: Any) -> Tensor:
        """Learn the coding of the targets and return them coded."""

    @abstractmethod
    def _row_weights(self, y: Any, sample_weight: Any) -> np.ndarray | None:
        """Return a weight for each row, or None where all are equal."""

    @abstractmethod
    def _n_outputs(self) -> int:
        """Return the number of outputs of the head."""

    @abstractmethod
    def _loss(self) -> LossFunction:
        """Return the loss of each row."""

    @abstractmethod
    def _stratify(self, y: Any) -> Any:
        """Return what a validation split is stratified by, or None."""

    # ---- fit ----------------------------------------------------------------

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, X_val: Any, y_val: Any
    ) -> BaseAdaLora:
        """Fit in one go: nothing of the estimator changes unless all went well."""
        with unchanged_on_error(self):
            start = time.perf_counter()
            check_parameters(self, self._rules)
            generator = make_generator(self.random_state)
            rows = self._read_rows(X, y, sample_weight)
            rows, validation = self._hold_out(rows, X, y, X_val, y_val, generator)
            schedule = self._resolve_schedule(len(rows.texts))
            place = resolve_place(self.device, self.precision)
            backbone = self._load_backbone(place)
            max_length = self._longest(backbone)
            tokens = encode(rows.texts, backbone.tokenizer, max_length)
            network = self._adapt(backbone, schedule, generator)
            live = Live(network, backbone, place, max_length)
            watcher = self._watch(validation, live)
            examples = Examples(tokens, rows.targets, rows.weights, self._loss())
            run = Run(network, examples, self._recipe(schedule), place)
            history = train(run, generator, verbose=self.verbose, on_epoch_end=watcher)
            if watcher is not None:
                watcher.restore(network)
            self._keep(live, schedule, history)
            self._report(live, tokens, rows.texts.n_empty, start)
        return self

    def _read_rows(self, X: Any, y: Any, sample_weight: Any) -> TrainingRows:
        """Check and read what the user gave, before anything is loaded."""
        texts = self._read_texts(X, reset=True)
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but "
                "the target y is None. Pass a target for each row."
            )
        n_targets = y.shape[0] if hasattr(y, "shape") and y.shape else len(y)
        if n_targets != len(texts):
            raise ValueError(
                "`X` and `y` must have the same number of rows. "
                f"Got {len(texts)} and {n_targets}. Pass one target a row."
            )
        targets = self._learn_targets(y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                sample_weight, np.empty((len(texts), 0)), ensure_non_negative=True
            )
        weights = self._row_weights(y, sample_weight)
        if weights is None or np.all(weights == weights[0]):
            return TrainingRows(texts, targets, None)
        return TrainingRows(texts, targets, torch.as_tensor(weights).float())

    def _read_texts(self, X: Any, *, reset: bool) -> Texts:
        """Turn rows into texts; learn, or check, names and number of columns."""
        texts = read_texts(X, self.row_format)
        validate_data(self, X, reset=reset, skip_check_array=True, ensure_2d=False)
        if reset:
            self.n_features_in_ = texts.n_features
        elif texts.n_features != self.n_features_in_:
            raise ValueError(
                f"X has {texts.n_features} features, but {type(self).__name__} is "
                f"expecting {self.n_features_in_} features as input."
            )
        return texts

    def _hold_out(
        self,
        rows: TrainingRows,
        X: Any,
        y: Any,
        X_val: Any,
        y_val: Any,
        generator: torch.Generator,
    ) -> tuple[TrainingRows, tuple[Any, Any] | None]:
        """Set validation rows apart, when the score is to be watched."""
        if (X_val is None) != (y_val is None):
            raise ValueError(
                "`X_val` and `y_val` must be passed together. Got one of them. "
                "Pass both, or neither."
            )
        if not self.early_stopping:
            if X_val is not None:
                raise ValueError(
                    "`X_val` and `y_val` are used for early stopping only. Got them "
                    "with early_stopping=False. Set early_stopping=True."
                )
            return rows, None
        if X_val is None:
            kept, held = self._split(len(rows.texts), y, generator)
            X_val, y_val = _safe_indexing(X, held), _safe_indexing(y, held)
            rows = rows.take(kept)
        elif not len(self._read_texts(X_val, reset=False)):
            raise ValueError("`X_val` must have rows. Got none. Pass some.")
        return rows, (X_val, y_val)

    def _split(
        self, n_rows: int, y: Any, generator: torch.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.model_selection import train_test_split

        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        try:
            kept, held = train_test_split(
                np.arange(n_rows),
                test_size=self.validation_fraction,
                stratify=self._stratify(y),
                random_state=seed,
            )
        except ValueError as error:
            raise ValueError(
                "`validation_fraction` must leave enough rows on both sides. Got "
                f"{self.validation_fraction} of {n_rows} rows: {error} Change it, "
                "pass `X_val` and `y_val`, or set early_stopping=False."
            ) from error
        return kept, held

    def _watch(
        self, validation: tuple[Any, Any] | None, live: Live
    ) -> ScoreWatcher | None:
        """Return what scores the network on rows that it does not learn from."""
        if validation is None:
            return None
        scorer = check_scoring(self, scoring=self.scoring)
        view = copy.copy(self)
        view._live = live  # all that prediction needs of a fitted estimator
        return ScoreWatcher(
            lambda: float(scorer(view, *validation)), self.n_iter_no_change
        )

    def _resolve_schedule(self, n_samples: int) -> ResolvedSchedule:
        return resolve_schedule(
            n_samples,
            batch_size=self.batch_size,
            epochs=self.epochs,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
            init_r=self.init_r,
            target_r=self.target_r,
            tinit=self.tinit,
            tfinal=self.tfinal,
            deltaT=self.deltaT,
        )

    def _load_backbone(self, place: Place) -> Backbone:
        return load_backbone(
            self.model,
            place,
            revision=self.revision,
            local_files_only=self.local_files_only,
            trust_remote_code=self.trust_remote_code,
        )

    def _longest(self, backbone: Backbone) -> int:
        """Return the longest text in tokens: what is asked for and possible."""
        return min(self.max_length, backbone.longest or self.max_length)

    def _adapt(
        self,
        backbone: Backbone,
        schedule: ResolvedSchedule,
        generator: torch.Generator,
    ) -> TextNetwork:
        """Put triplets beside the layers of a copy of the backbone, and a head on."""
        modules = self.target_modules
        config = schedule.config(
            beta1=self.beta1,
            beta2=self.beta2,
            orth_reg_weight=self.orth_reg_weight,
            lora_alpha=self.lora_alpha or schedule.init_r,
            lora_dropout=self.lora_dropout,
            target_modules=modules if isinstance(modules, str) else list(modules),
            task_type="FEATURE_EXTRACTION",
            base_model_name_or_path=backbone.name,
            revision=self.revision,
        )
        return TextNetwork(backbone, config, self._n_outputs(), self.pooling, generator)

    def _recipe(self, schedule: ResolvedSchedule) -> Recipe:
        return Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            accumulation=self.gradient_accumulation_steps,
            total_step=schedule.total_step,
            learning_rate=self.learning_rate,
            head_learning_rate=self.head_learning_rate or self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_ratio=self.warmup_ratio,
            lr_scheduler_type=self.lr_scheduler_type,
            max_grad_norm=self.max_grad_norm,
        )

    def _keep(
        self, live: Live, schedule: ResolvedSchedule, history: TrainingHistory
    ) -> None:
        """Take over what was learned, as plain arrays."""
        self._adapter = freeze_state(live.network, live.backbone, live.max_length)
        self._live = replace(live, network=thaw_network(self._adapter, live.backbone))
        self.ranks_ = live.network.encoder.ranks
        self.rank_pattern_ = self._adapter.config["rank_pattern"]
        self.schedule_ = schedule
        self.total_step_ = schedule.total_step
        self.history_ = history
        self.n_iter_ = history.epochs

    def _report(
        self, live: Live, tokens: TokenTable, n_empty: int, start: float
    ) -> None:
        """Write down what the fit saw, and warn about much that was cut off."""
        network = live.network
        trained = [*network.encoder.triplets.parameters(), *network.head.parameters()]
        self.fit_report_ = make_report(
            tokens,
            n_empty=n_empty,
            max_length=live.max_length,
            place=live.place,
            trainable=sum(p.numel() for p in trained),
            total=sum(p.numel() for p in network.parameters()),
            seconds=time.perf_counter() - start,
        )
        share = self.fit_report_.truncated_share
        if share > _TRUNCATED:
            warnings.warn(
                f"{share:.0%} of the texts are longer than max_length="
                f"{live.max_length} tokens and were cut. Raise `max_length` if the "
                "model has positions for more, or shorten the texts.",
                UserWarning,
                stacklevel=4,
            )

    # ---- predict ------------------------------------------------------------

    @torch.inference_mode()
    def _predict_outputs(self, X: Any) -> np.ndarray:
        """Return the head's outputs.

        Returns
        -------
        ndarray of shape (n_samples, n_outputs), dtype float32
        """
        check_is_fitted(self)
        texts = self._read_texts(X, reset=False)
        live = self._ready()
        tokens = encode(texts, live.backbone.tokenizer, live.max_length)
        distinct = tokens.distinct()
        outputs = np.empty((len(distinct), self._n_outputs()), np.float32)
        for rows in prediction_batches(distinct):
            batch = pad(distinct, rows).to(live.place.device)
            outputs[rows] = live.network(batch).float().cpu().numpy()
        return outputs[tokens.rows]

    def _ready(self) -> Live:
        """Return the network that predicts; build it after loading from a file."""
        live: Live | None = getattr(self, "_live", None)
        place = resolve_place(self.device, self.precision)
        if live is None or live.place != place:
            backbone = self._load_backbone(place)
            network = thaw_network(self._adapter, backbone)
            live = Live(network, backbone, place, self._adapter.max_length)
            self._live = live
        return live

    # ---- scikit-learn -------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled.

        Never: the backbone's weights and tokenizer (they are found again by name
        and checked by hash), device handles, the optimizer, caches. Always: the
        parameters, the triplets and the head as float32 arrays on the CPU, ranks,
        the coding of the targets, names of columns, report and history, the
        backbone's name and hash, versions and a format number.
        """
        state = dict(super().__getstate__())
        for name in TRANSIENT:
            state.pop(name, None)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        tags.input_tags.two_d_array = True
        return tags


@contextmanager
def unchanged_on_error(estimator: Any) -> Iterator[None]:
    """Undo every change of attributes if the block fails or is interrupted."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def make_generator(random_state: Any) -> torch.Generator:
    """Make torch's generator from scikit-learn's `random_state`."""
    seed = check_random_state(random_state).randint(2**31 - 1)
    return torch.Generator().manual_seed(int(seed))
