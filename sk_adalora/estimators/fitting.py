"""Fit a text estimator: rows -> tokens -> network -> training -> fitted attributes."""

from __future__ import annotations

import copy
import math
import os
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.metrics import check_scoring
from sklearn.utils import check_random_state
from torch import Tensor

from sk_adalora.adalora.targets import check_all_match
from sk_adalora.data.rows import (
    TrainingRows,
    check_targets,
    check_validation_rows,
    read_at_once,
    read_sample_weight,
    split_rows,
    take_rows,
    weights_tensor,
)
from sk_adalora.data.texts import Texts
from sk_adalora.files.state import (
    FITTED_ATTRIBUTES,
    collect_state,
    continue_from,
    fitted_attributes,
    rebuild_network,
)
from sk_adalora.network.network import TextNetwork, build_network
from sk_adalora.pretrained.backbone import Backbone
from sk_adalora.pretrained.find import commit_of
from sk_adalora.runtime.devices import (
    Place,
    resolve_place,
    warn_of_emulation,
    warn_of_sharing,
)
from sk_adalora.runtime.messages import write_lines
from sk_adalora.runtime.rules import check_parameters
from sk_adalora.runtime.torch_settings import own_settings_of_torch
from sk_adalora.runtime.transaction import unchanged_on_error
from sk_adalora.tokens.long_texts import encode_for_training
from sk_adalora.tokens.table import TokenTable
from sk_adalora.training.advice import (
    warn_of_history,
    warn_of_model,
    warn_of_rank,
    warn_of_texts,
)
from sk_adalora.training.callbacks import Hooks, data_of_fit
from sk_adalora.training.early_stopping import ScoreWatcher, one_number
from sk_adalora.training.interpolation import Interpolation
from sk_adalora.training.loop import (
    Examples,
    LossFunction,
    Recipe,
    Run,
    TrainingHistory,
    train,
)
from sk_adalora.training.rank_table import headline, lay_out
from sk_adalora.training.report import FitReport, make_report
from sk_adalora.training.schedule_steps import (
    ENOUGH_STEPS,
    ResolvedSchedule,
    resolve_schedule,
)
from sk_adalora.training.start_head import centre_head, continue_head, fit_head

from .predicting import Live, PredictMixin, check_tokens

# Default learning rate of a head that starts at a linear probe. docs/defaults.md has
# the studies behind this and the next two.
_FITTED_HEAD_RATE = 1e-3
# `interpolation="auto"` after a training of more than _FEW_EPOCHS epochs over at most
# _FEW_ROWS rows, if the network predicted sensibly at its start. Otherwise it keeps
# the trained network as it is.
_INTERPOLATION = 0.85
_FEW_EPOCHS, _FEW_ROWS = 3, 1000


class FitMixin(PredictMixin):
    """The steps of every fit. Subclasses define targets, loss and outputs."""

    _auto_head_init: ClassVar[str]  # what head_init="auto" stands for
    _enough_steps: ClassVar[int] = ENOUGH_STEPS  # what epochs="auto" aims at

    # What a fit sets.
    n_iter_: int
    total_step_: int
    schedule_: ResolvedSchedule
    ranks_: dict[str, int]
    rank_pattern_: dict[str, list[bool]]
    history_: TrainingHistory
    fit_report_: FitReport

    # ---- what subclasses define ---------------------------------------------

    @abstractmethod
    def _read_targets(self, y: Any) -> Tensor:
        """Check and convert the targets; set the attributes that describe them."""

    def _code_targets(self, rows: TrainingRows) -> TrainingRows:
        """Return the training rows with the targets that the head is trained on."""
        return rows

    def _row_weights(
        self, targets: Tensor, sample_weight: np.ndarray | None
    ) -> np.ndarray | None:
        """Return a weight for each row, or None where all are equal."""
        return sample_weight

    @abstractmethod
    def _check_validation_targets(self, y: Any, targets: Tensor) -> None:
        """Refuse validation targets that do not match the training targets."""

    def _n_classes(self) -> int:
        """Return the number of classes or labels, which `epochs="auto"` depends on."""
        return 1  # numbers need no more, however many per row (docs/defaults.md)

    @abstractmethod
    def _loss(self) -> LossFunction:
        """Return the loss of each row."""

    @abstractmethod
    def _made_up_outputs(self, y: Any) -> np.ndarray:
        """Make up outputs of the head for these targets, to try a scorer with."""

    def _stratify(self, y: Any) -> Any:
        """Return the classes that stratify a validation split, or None."""
        return None

    def _targets_to_score(self, y: Any) -> Any:
        """Return validation targets in a form that every scorer takes."""
        return y

    # ---- fit ----------------------------------------------------------------

    def _fit(self, X: Any, y: Any, sample_weight: Any, X_val: Any, y_val: Any) -> Self:
        """Fit the estimator; on any error it stays as it was."""
        with unchanged_on_error(self), own_settings_of_torch():
            start = time.perf_counter()
            check_parameters(self, self._rules)
            rows = self._read_rows(X, y, sample_weight, X_val, y_val)
            # Only now: bad rows must not move a generator of the user's on.
            generator = make_generator(self.random_state)
            rows, validation = self._choose_rows(rows, X, y, X_val, y_val, generator)
            rows = self._code_targets(rows)
            schedule = self._resolve_schedule(len(rows.texts))
            live, tokens = self._prepare(rows.texts, schedule, generator)
            watcher = self._watch(validation, live)
            examples = Examples(tokens, rows.targets, rows.weights, self._loss())
            run = Run(live.network, examples, self._recipe(schedule), live.place)
            self._start_head(run, generator)
            report = partial(make_report, run, rows.texts.n_empty, start)
            del rows  # frees the texts, which may be a copy of all of X
            fitted = partial(self._fitted_attributes, live, schedule, report)
            # Only after `_start_head`: the interpolation remembers the head as it is.
            interpolation = self._interpolation_of(run)
            data = data_of_fit(X, y, sample_weight)
            hooks = Hooks(self, data, schedule.epochs, fitted, interpolation, watcher)
            history = train(run, generator, verbose=self.verbose, hooks=hooks)
            self._keep(live, fitted, history, interpolation, watcher)
            hooks.finish(history)
            self._show_ranks()
        # Only now: where warnings are errors, the fit is kept.
        warn_of_history(self.history_, self.head_learning_rate)
        return self

    def _prepare(
        self, texts: Texts, schedule: ResolvedSchedule, generator: torch.Generator
    ) -> tuple[Live, TokenTable]:
        """Load the model, adapt it, and cut the texts into tokens."""
        place = self._choose_place()
        backbone = self._load_backbone(place)
        tokenizer, most = backbone.tokenizer, self._most_tokens(backbone)
        tokens = encode_for_training(texts, tokenizer, most, self.long_text)
        network = self._adapt(backbone, schedule, generator)
        live = Live(network, backbone, os.fspath(self.model), place)
        check_tokens(tokens, live)
        warn_of_texts(texts, tokens, self.long_text, self.row_format)
        return live, tokens

    def _keep(
        self,
        live: Live,
        fitted: Callable[[TrainingHistory], dict[str, Any]],
        history: TrainingHistory,
        interpolation: Interpolation,
        watcher: ScoreWatcher | None,
    ) -> None:
        """Set the fitted attributes, of the interpolated or the best scored state."""
        interpolation.apply()
        if watcher is not None:  # the states that it scored were interpolated already
            watcher.restore(live.network)
        vars(self).update(fitted(history))
        # Predict with the network that is also built after unpickling: predictions are
        # the same before and after, and the network in training can be freed.
        network = rebuild_network(self._adapter, live.backbone)
        self._live = replace(live, network=network)

    def _read_rows(
        self, X: Any, y: Any, sample_weight: Any, X_val: Any, y_val: Any
    ) -> TrainingRows:
        """Check and read what the user gave, before anything is loaded."""
        texts = self._read_texts(X, reset=True)
        check_targets(y, len(texts), self)
        weight = read_sample_weight(read_at_once(sample_weight), len(texts))
        targets = self._read_targets(read_at_once(y))
        weights = weights_tensor(self._row_weights(targets, weight))
        self._check_validation_rows(X_val, y_val, targets)
        return TrainingRows(texts, targets, weights)

    def _check_validation_rows(self, X_val: Any, y_val: Any, targets: Tensor) -> None:
        """Refuse validation rows that do not match the training rows."""
        check_validation_rows(X_val, y_val, self.early_stopping)
        if X_val is None:
            return
        try:
            n_rows = len(self._read_texts(X_val, reset=False))
        except (TypeError, ValueError) as error:
            error.add_note("X is `X_val` here.")
            raise
        check_targets(y_val, n_rows, self, ("X_val", "y_val"))
        self._check_validation_targets(read_at_once(y_val), targets)

    def _choose_rows(
        self,
        rows: TrainingRows,
        X: Any,
        y: Any,
        X_val: Any,
        y_val: Any,
        generator: torch.Generator,
    ) -> tuple[TrainingRows, tuple[Any, Any] | None]:
        """Leave out rows of weight 0; for early stopping, set validation rows apart."""
        used = rows.weighted()
        if not self._continues():  # rows that an earlier fit set apart do not matter
            vars(self).pop("_validation_seed", None)
        if not self.early_stopping:
            return rows.take(used), None
        y, y_val = read_at_once(y), read_at_once(y_val)
        if X_val is None:
            classes = self._stratify(y)
            kept, held = split_rows(
                len(used),
                float(self.validation_fraction),
                None if classes is None else take_rows(classes, used),
                self._split_seed(generator),
            )
            X_val, y_val = take_rows(X, used[held]), take_rows(y, used[held])
            used = used[kept]
        return rows.take(used), (X_val, y_val)

    def _split_seed(self, generator: torch.Generator) -> int:
        """Return the seed of the validation split.

        A fit that continues another one keeps its seed: the same rows in the same
        order are split alike, so that no validation row was trained on before.
        """
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        if not hasattr(self, "_validation_seed"):  # `_choose_rows` removes others
            self._validation_seed = seed
        return self._validation_seed

    def _watch(
        self, validation: tuple[Any, Any] | None, live: Live
    ) -> ScoreWatcher | None:
        """Return what scores the network on the validation rows, if there are any."""
        if validation is None:
            return None
        scorer = check_scoring(self, scoring=self.scoring)
        X, y = validation[0], self._targets_to_score(validation[1])
        view = self._without_fit()
        if isinstance(self.scoring, str):  # else it would fail only after an epoch
            self._try_scorer(scorer, view, X, y)
        view._live = live  # the one fitted attribute that predictions need
        return ScoreWatcher(
            lambda: one_number(scorer(view, X, y)), self.n_iter_no_change
        )

    def _without_fit(self) -> Self:
        """Return a copy for a scorer: without what an earlier fit has set.

        It keeps what `_read_targets` has set in this one.
        """
        view = copy.copy(self)
        for name in FITTED_ATTRIBUTES & vars(view).keys():
            delattr(view, name)
        return view

    def _try_scorer(
        self, scorer: Callable[..., Any], view: FitMixin, X: Any, y: Any
    ) -> None:
        """Refuse a score that fails on these rows, by a trial on made-up outputs."""
        pretender, outputs = copy.copy(view), self._made_up_outputs(y)
        vars(pretender)["_predict_outputs"] = lambda X: outputs
        try:
            if math.isnan(one_number(scorer(pretender, X, y))):
                raise ValueError("it is NaN")
        except (AttributeError, TypeError, ValueError) as error:
            reason = str(error).rstrip(".")
            # A method that the estimator lacks, it lacks on other rows too.
            of_rows = not isinstance(error, AttributeError)
            instead = ", or pass `X_val` and `y_val` on which it works"
            raise ValueError(
                "`scoring` must be defined for the validation rows. Got "
                f"{self.scoring!r}, which failed on them: {reason}. Choose another "
                f"score{instead if of_rows else ''}."
            ) from error

    def _resolve_schedule(self, n_samples: int) -> ResolvedSchedule:
        return resolve_schedule(
            n_samples,
            batch_size=self.batch_size,
            epochs=self.epochs,
            enough_steps=self._enough_steps,
            n_classes=self._n_classes(),
            gradient_accumulation_steps=self.gradient_accumulation_steps,
            init_r=self.init_r,
            target_r=self.target_r,
            tinit=self.tinit,
            tfinal=self.tfinal,
            deltaT=self.deltaT,
        )

    def _choose_place(self) -> Place:
        place = resolve_place(self.device, self.precision)
        warn_of_sharing(place)
        warn_of_emulation(place)
        return place

    def _adapt(
        self,
        backbone: Backbone,
        schedule: ResolvedSchedule,
        generator: torch.Generator,
    ) -> TextNetwork:
        """Build the network: a copy of the backbone, adapted, with a head."""
        model = os.fspath(self.model)
        warn_of_model(model, backbone, self.pooling)
        modules = self.target_modules
        if not isinstance(modules, str):
            check_all_match(list(modules), backbone.module)
        config = schedule.config(
            beta1=self.beta1,
            beta2=self.beta2,
            orth_reg_weight=self.orth_reg_weight,
            lora_alpha=self.lora_alpha or schedule.init_r,
            lora_dropout=self.lora_dropout,
            target_modules=modules if isinstance(modules, str) else list(modules),
            task_type="SEQ_CLS" if self.pooling == "model" else "FEATURE_EXTRACTION",
            base_model_name_or_path=model,
            revision=commit_of(backbone.folder) or self.revision,
        )
        network = build_network(
            backbone, config, self._n_outputs(), self.pooling, generator
        )
        warn_of_rank(network, schedule.target_r)
        if self._continues():
            continue_from(self._adapter, network, backbone)
        return network

    def _start_head(self, run: Run, generator: torch.Generator) -> None:
        """Initialise the head: from the fit before, by a linear probe, or at random."""
        if self.pooling == "model":
            return
        if self._continues():
            length = self._adapter.feature_length
            assert length is not None, "only the model's own head has none"
            continue_head(run, generator, length)
        elif self._fits_head_first():
            fit_head(run, generator)
        else:
            centre_head(run)

    def _fits_head_first(self) -> bool:
        """Tell whether a new head is fitted to the frozen features before training."""
        start = self._auto_head_init if self.head_init == "auto" else self.head_init
        return start == "linear_probe" and self.pooling != "model"

    def _start_predicts(self) -> bool:
        """Tell whether the network predicts before training, at least the mean.

        Only then is it worth interpolating between the start and the end of training.
        """
        return self._fits_head_first()

    def _continues(self) -> bool:
        """Tell whether the fit continues an earlier one, by `warm_start`."""
        return bool(self.warm_start) and hasattr(self, "_adapter")

    def _interpolation_of(self, run: Run) -> Interpolation:
        """Return what keeps a point between the network of now and the trained one."""
        if self._continues():  # interpolation needs updates that start at 0
            share = 1.0
        elif self.interpolation != "auto":
            share = float(self.interpolation)
        else:
            few_rows = len(run.examples.tokens) <= _FEW_ROWS
            memorises = few_rows and run.recipe.epochs > _FEW_EPOCHS
            gains = memorises and self._start_predicts()
            share = _INTERPOLATION if gains else 1.0
        return Interpolation(run.network, share)

    def _recipe(self, schedule: ResolvedSchedule) -> Recipe:
        own = _FITTED_HEAD_RATE if self._fits_head_first() else self.learning_rate
        return Recipe(  # with Python's numbers: NumPy's may be of few digits
            epochs=schedule.epochs,
            batch_size=int(self.batch_size),
            accumulation=int(self.gradient_accumulation_steps),
            total_step=schedule.total_step,
            learning_rate=float(self.learning_rate),
            head_learning_rate=float(self.head_learning_rate or own),
            weight_decay=float(self.weight_decay),
            warmup_ratio=float(self.warmup_ratio),
            lr_scheduler_type=self.lr_scheduler_type,
            max_grad_norm=self.max_grad_norm,
        )

    def _fitted_attributes(
        self,
        live: Live,
        schedule: ResolvedSchedule,
        report: Callable[[], FitReport],
        history: TrainingHistory,
    ) -> dict[str, Any]:
        """Return the attributes of a fit that ends now, as plain arrays and records."""
        adapter = collect_state(live.network, live.backbone, live.model)
        return fitted_attributes(adapter, schedule, copy.deepcopy(history), report())

    def _show_ranks(self) -> None:
        """Write the table below the progress bar, where one was asked for."""
        if not self.verbose:
            return
        title = headline(list(self.ranks_.values()), self.schedule_.init_r)
        write_lines(f"{title}\n{lay_out(self.ranks_).to_text()}")


def make_generator(random_state: Any) -> torch.Generator:
    """Make torch's generator from scikit-learn's `random_state`."""
    seed = check_random_state(random_state).randint(2**31 - 1)
    return torch.Generator().manual_seed(int(seed))
