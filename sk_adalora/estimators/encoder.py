"""The encoder of texts: vectors tuned to a target, out of fold on training rows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sk_adalora.data.targets import (
    Classes,
    Labels,
    Numbers,
    Targets,
    read_label_targets,
    read_number_targets,
)
from sk_adalora.pretrained.find import DEFAULT_MODEL
from sk_adalora.runtime.ranks import ranks_now
from sk_adalora.training.epochs import data_of_fit

from .base import BaseAdaLora, with_callbacks
from .cross_fit import encode_out_of_fold, principal_axes
from .fitting import fit_whole, keep_untuned
from .inputs import FitInputs, prepare_fit
from .parameters import ENCODER_RULES
from .predicting import predict_both


class AdaLoraEncoder(BaseAdaLora):
    """Encode texts as vectors that a pretrained transformer was fine-tuned to give.

    A fit fine-tunes the model with AdaLoRA [1]_ to predict `y` from the texts, and
    keeps the vectors that it predicts from. :meth:`transform` gives those of new rows,
    for any model beside any other columns.

    The vectors of rows that a model was tuned on know the targets of these rows, and
    mislead what is fitted next. So :meth:`fit_transform`, which a
    :class:`~sklearn.pipeline.Pipeline` calls, is cross-fitted: as in
    :class:`sklearn.preprocessing.TargetEncoder`, each row is encoded by a model that
    was tuned on other folds only.

    Parameters
    ----------
    model : str or path-like, default="sentence-transformers/all-MiniLM-L6-v2"
        The pretrained transformer: a Hugging Face id or a local folder. The default is
        small enough for a CPU, and knows English only.
    n_components : int or None, default=30
        Number of columns that the vectors are reduced to, by their principal components
        over the rows of the fit; fewer if the rows are fewer. None keeps all.
    output : {"vectors", "predictions", "both"}, default="vectors"
        What the columns are: vectors; what the tuned model predicts of `y`, as log-odds
        or logits of classes or as numbers in the units of `y`; or predictions, then
        vectors.
    tune : bool, default=True
        Whether to fine-tune the model. False gives the vectors of the pretrained model,
        and so does a fit without `y`.
    cv : int, cross-validation generator or iterable, default=3
        Folds of `fit_transform`: each costs a fine-tuning. An int shuffles the rows and
        spreads those of each class evenly.
    target_type : {"auto", "multiclass", "continuous"}, default="auto"
        What `y` holds: labels (or an indicator matrix), or numbers. "auto" takes text
        and whole numbers as labels and other numbers as numbers, as
        :class:`sklearn.preprocessing.TargetEncoder` does.
    target_r : int or float, default=8
        Average rank of the updates when training ends. A higher rank can express more,
        and costs more. A float in (0, 1) is a share of `init_r`, which must then be
        given.
    epochs : int or "auto", default="auto"
        How many times training goes over the rows. "auto" takes few rows and many
        classes more often: as many times as make 96 optimizer steps, or 8 for each
        class or label if that is more; at least 3, or 5 for more than 12 classes or
        labels, and at most 10 or, of few rows, as many as make 64 steps in batches of
        32. Numbers have 32 and 22 in the place of 96 and 64, however many columns.
    learning_rate : float, default=0.008
        Peak learning rate of the updates. One for training all weights, such as 2e-5,
        hardly changes anything. Lower it if the training loss rises, and search it,
        from the default downwards, for another `model`.
    batch_size : int, default=32
        Largest number of rows in a training batch; all batches of a fit have about the
        same number. Predictions do not depend on it.
    max_length : int, default=256
        Longest text in tokens, or less if the model takes less; `fit_report_` counts
        the longer ones. If texts are long, a lower value saves time and memory.
    random_state : int, RandomState instance or None, default=None
        Seed of all that is random: initial values, folds, order of rows and dropout.
        None draws a seed from NumPy's global generator, as everywhere in scikit-learn;
        no other global generator is used or changed.
    init_r : int or None, default=None
        Rank of every update when training starts. None stands for
        ``ceil(1.5 * target_r)``. If it equals `target_r`, no rank is removed.
    tinit : int or float, default=0.12
        Last optimizer step, counted from 0, at which all updates have full rank; ranks
        fall at the allocations after it. A float in [0, 1) is a share of all steps.
    tfinal : int or float, default=0.48
        Number of optimizer steps at the final ranks, before training ends. A float in
        [0, 1) is a share of all steps.
    deltaT : int, float or "auto", default="auto"
        Number of optimizer steps between two allocations, which remove rank. A float in
        (0, 1) is a share of all steps. "auto" is 1/200 of the steps in which ranks
        fall, at least 1.
    beta1 : float, default=0.85
        Decay factor, in (0, 1), of the moving average of the sensitivity,
        ``|number * gradient|``. Rank is removed where that and its uncertainty are low.
    beta2 : float, default=0.85
        Decay factor, in (0, 1), of the moving average of the uncertainty: how much the
        sensitivity varies. Like `beta1`, it rarely needs a change.
    orth_reg_weight : float, default=0.1
        Weight, in the loss, of the penalty that keeps the directions of an update
        orthogonal.
    lora_alpha : float or None, default=None
        Strength of the updates: they are multiplied by ``lora_alpha / init_r``. None
        stands for `init_r`, which makes that 1.
    lora_dropout : float, default=0.0
        Probability, in [0, 1), with which training drops an input of an update. Above
        0, a fit may take twice the time.
    target_modules : str or list of str, default="all-linear"
        Which linear layers get an update. A list holds endings of their names, a str is
        a regular expression for whole paths, and "all-linear" is every linear layer
        except pooler, embeddings and head.
    warmup_ratio : float, default=0.06
        Share of all optimizer steps, the first ones, in which the learning rates rise
        to their peak.
    max_steps : int or None, default=None
        Most optimizer steps of each fine-tuning, whatever `epochs` says. If these read
        fewer rows than there are, so many are drawn at random, one of each class among
        them. `fit` reads no other text. None sets no bound.
    timeout : float or None, default=None
        Seconds that `fit` may take: as many steps are planned as this machine has
        time for, and ranks and learning rates reach their end. So two fits differ. All
        rows are tokenised before. The least of `epochs`, `max_steps` and `timeout`
        counts. None sets no bound.
    row_format : str or callable, default="auto"
        How a row of a table becomes a text. "auto": a single column is the text,
        several become lines ``name: value`` without the missing cells. "pair": two
        columns are a pair of texts. Any other str is a `str.format` template with the
        names of columns. A function gets a row, as a dict, and returns its text. For a
        list or Series, give "auto", or a function, which then gets the cell.
    long_text : str, default="truncate"
        What happens to longer texts. "truncate" cuts off their end, "head_tail" cuts
        out their middle. "windows": a prediction averages the outputs of windows that
        overlap by half, and training reads the first window.
    pooling : {"mean", "cls", "last", "max"}, default="mean"
        How the vectors of a text's tokens become one. Give what the model was
        pretrained with.
    class_weight : dict, "balanced" or None, default=None
        How much the rows of each class count, as everywhere in scikit-learn. It needs
        one label a row; with an indicator matrix, use `sample_weight`.
    device : str, default="auto"
        Where to compute: "cpu", "cuda", "cuda:1", "mps", or "auto" for the first GPU
        that computes, and otherwise the CPU.
    precision : str, default="auto"
        Number format of the frozen weights and of what is computed with them:
        "float32", "bfloat16", "float16" (not on a CPU), or "auto" for bfloat16 if both
        hardware and model compute in it, and otherwise float32. Updates, head, loss and
        optimizer are always in float32.
    model_kwargs : dict or None, default=None
        Arguments for the ``from_pretrained`` of transformers, by their names there:
        `revision` (commit, tag or branch on the hub), `local_files_only` (True never
        uses the network), `trust_remote_code` (True runs code that the model's
        repository contains, or names in another), `quantization_config` (weights of 8
        or 4 bits), and others.
    checkpoint_dir : path-like or None, default=None
        Where to save the state of the fits now and then, so that they can be killed.
        Run the same program again: they go on from there, and on a CPU end at the same
        numbers as if nothing had happened. The folder is of one fit; what is in it is
        deleted when the fit ends. None saves nothing.
    verbose : int, default=0
        Whether to show a progress bar for each fine-tuning, and at the end the table of
        ranks.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted; only of a fit to labels.
    n_components_ : int
        Number of columns with vectors.
    n_features_in_ : int
        Number of columns of `X`; 1 for a list of texts.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if all of them are strings.
    n_iter_ : int
        Number of epochs of the fine-tuning on all rows; 0 where nothing is tuned.
    total_step_ : int
        Number of optimizer steps that its schedule has.
    schedule_ : ResolvedSchedule
        The ranks and steps that shares, None and "auto" stood for.
    ranks_ : dict of str to int
        The rank that is left in each adapted weight matrix, by its path in the model.
    rank_pattern_ : dict of str to list of bool
        The same, as PEFT writes it.
    history_ : TrainingHistory
        Lists: `loss`, `orthogonality` (the penalty), `learning_rate` and `budget` at
        each step, and the `ranks` of all matrices whenever they fell.
    fit_report_ : FitReport
        What the fit used: rows, tokens, device, precision, size and time. `print` it.

    See Also
    --------
    AdaLoraClassifier : Predict from the texts alone.
    sklearn.preprocessing.TargetEncoder : The same idea for categories.

    Notes
    -----
    `fit` costs one fine-tuning, and `fit_transform` one more for each fold. They share
    the pretrained model, the tokens and the vectors before tuning. Every fold starts
    from the same seed, and its vectors are rotated onto those of the model that all
    rows have tuned (orthogonal Procrustes, on rows that both have seen).

    References
    ----------
    .. [1] Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient
       Fine-Tuning", ICLR 2023, arXiv:2303.10512.

    Examples
    --------
    >>> from sk_adalora import AdaLoraEncoder
    >>> from sklearn.ensemble import HistGradientBoostingRegressor
    >>> from sklearn.compose import make_column_transformer
    >>> from sklearn.pipeline import make_pipeline
    >>> columns = make_column_transformer(
    ...     (AdaLoraEncoder(target_r=4), ["title", "plot"]),
    ...     ("passthrough", ["year", "length"]),
    ... )
    >>> model = make_pipeline(columns, HistGradientBoostingRegressor())
    """

    __module__ = "sk_adalora"  # where users import it from: for pickles

    _for_tables = "AdaLoraTableClassifier` or `AdaLoraTableRegressor"
    _rules = ENCODER_RULES
    _target_kinds = (Classes, Labels, Numbers)
    _array_names = ("_centre", "_components")
    # What it has no parameters for.
    early_stopping = warm_start = False
    scoring = None

    classes_: np.ndarray
    _centre: np.ndarray
    _components: np.ndarray

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        n_components: int | None = 30,
        output: str = "vectors",
        tune: bool = True,
        cv: Any = 3,
        target_type: str = "auto",
        target_r: int | float = 8,
        epochs: int | str = "auto",
        learning_rate: float = 0.008,
        batch_size: int = 32,
        max_length: int = 256,
        random_state: Any = None,
        init_r: int | None = None,
        tinit: int | float = 0.12,
        tfinal: int | float = 0.48,
        deltaT: int | float | str = "auto",
        beta1: float = 0.85,
        beta2: float = 0.85,
        orth_reg_weight: float = 0.1,
        lora_alpha: float | None = None,
        lora_dropout: float = 0.0,
        target_modules: Any = "all-linear",
        warmup_ratio: float = 0.06,
        max_steps: int | None = None,
        timeout: float | None = None,
        row_format: str | Callable[[Any], str] = "auto",
        long_text: str = "truncate",
        pooling: str = "mean",
        class_weight: Any = None,
        device: str = "auto",
        precision: str = "auto",
        model_kwargs: Mapping[str, Any] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.n_components = n_components
        self.output = output
        self.tune = tune
        self.cv = cv
        self.target_type = target_type
        self.target_r = target_r
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_length = max_length
        self.random_state = random_state
        self.init_r = init_r
        self.tinit = tinit
        self.tfinal = tfinal
        self.deltaT = deltaT
        self.beta1 = beta1
        self.beta2 = beta2
        self.orth_reg_weight = orth_reg_weight
        self.lora_alpha = lora_alpha
        self.lora_dropout = lora_dropout
        self.target_modules = target_modules
        self.warmup_ratio = warmup_ratio
        self.max_steps = max_steps
        self.timeout = timeout
        self.row_format = row_format
        self.long_text = long_text
        self.pooling = pooling
        self.class_weight = class_weight
        self.device = device
        self.precision = precision
        self.model_kwargs = model_kwargs
        self.checkpoint_dir = checkpoint_dir
        self.verbose = verbose

    def _read_targets(self, y: Any) -> tuple[Targets, Tensor]:  # type: ignore[override]
        kind = self.target_type
        if kind == "auto":
            continuous = type_of_target(y, input_name="y").startswith("continuous")
            kind = "continuous" if continuous else "multiclass"
        return read_number_targets(y) if kind == "continuous" else read_label_targets(y)

    @with_callbacks
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:  # type: ignore[override]
        """Fine-tune the pretrained model on texts and their targets.

        Parameters
        ----------
        X : array-like of str of shape (n_samples,) or (n_samples, n_features)
            One text a row, or a table of texts, whose rows become texts by
            `row_format`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            The target of each row: labels, an indicator matrix, or numbers. None leaves
            the model as it is.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            How much each row counts, relative to the others; zero or more.

        Returns
        -------
        AdaLoraEncoder
            The encoder itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data is wrong; nothing is trained, and the encoder
            stays as it was.
        OSError
            If the pretrained model cannot be found.
        ImportError
            If the pretrained model needs a package that is not installed.
        FloatingPointError
            If a feature of the pretrained model, the loss or a trained number is NaN or
            infinite; the encoder stays as it was.
        """
        with self._fitting() as (ranks, folder):
            self._fit(X, y, sample_weight, folder)
        self._warn_of_fit(ranks)
        return self

    def fit_transform(  # type: ignore[override]
        self, X: Any, y: Any = None, sample_weight: Any = None
    ) -> Any:
        """Fit, and encode the rows of the fit out of fold.

        Parameters
        ----------
        X : array-like of str of shape (n_samples,) or (n_samples, n_features)
            As of :meth:`fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            As of :meth:`fit`.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            As of :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_columns), dtype float32, or DataFrame
            Each row as a model gives it that was tuned on the other folds of `cv`. It
            is not what :meth:`transform` gives of these rows: that knows their targets.

        Raises
        ------
        ValueError, TypeError, OSError, ImportError, FloatingPointError
            As :meth:`fit`.
        """
        return self._fit_transform(X, y, sample_weight)

    @with_callbacks
    def _fit_transform(
        self, X: Any, y: Any, sample_weight: Any, keep_checkpoints: bool = False
    ) -> Any:
        """Fit and encode, and perhaps leave the checkpoints to whoever goes on."""
        with self._fitting(keep_checkpoints) as (ranks, folder):
            inputs, spread = self._fit(X, y, sample_weight, folder, True)
            if inputs.folds:
                vectors, outputs = encode_out_of_fold(self, inputs, spread)
            else:
                rows = np.arange(len(inputs.examples.tokens))
                vectors, outputs = inputs.encode(self._predictor, rows)
        self._warn_of_fit(ranks)
        return self._to_columns(vectors, outputs)

    @property
    def n_components_(self) -> int:
        """Number of columns with vectors."""
        return len(self._components)

    def _is_tuned(self, y: Any) -> bool:
        """Tell whether there is something to learn; only predictions need it."""
        tuned = bool(self.tune) and y is not None
        if not tuned:
            self._refuse_predictions()
        return tuned

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        folder: Path | None,
        cross_fit: bool = False,
    ) -> tuple[FitInputs, np.ndarray]:
        """Fit to all rows, and find the axes.

        Returns
        -------
        inputs : FitInputs
            For trainings on folds.
        vectors : ndarray of shape (n_spread, width)
            What the network that all rows have tuned makes of the spread rows.
        """
        start = time.perf_counter()
        tuned = ranks_now().from_first(lambda: self._is_tuned(y))
        if not tuned:
            y = None
        inputs = prepare_fit(
            self,
            X,
            y,
            sample_weight,
            folder=folder,
            encodes=True,
            cross_fits=cross_fit,
        )
        if tuned:
            data = data_of_fit(X, y, sample_weight)
            fit_whole(self, inputs, data, start).finish()
        else:
            keep_untuned(self, inputs, start)
        vectors, _ = inputs.encode(self._predictor, inputs.spread)
        weights = inputs.examples.weights
        of_spread = None if weights is None else weights.numpy()[inputs.spread]
        self._centre, self._components = ranks_now().from_first(
            lambda: principal_axes(vectors, of_spread, self.n_components)
        )
        return inputs, vectors

    def _refuse_predictions(self) -> None:
        if self.output != "vectors":
            raise ValueError(
                "`output` must be 'vectors' where nothing is tuned. Got "
                f"{self.output!r} with {'no y' if self.tune else 'tune=False'}. Change "
                "it, or pass `y` and set tune=True."
            )

    def transform(self, X: Any) -> Any:
        """Encode rows with the model that all rows of the fit have tuned.

        Parameters
        ----------
        X : array-like of str of shape (n_samples,), or table
            Texts or rows, in the form in which `fit` got them.

        Returns
        -------
        ndarray of shape (n_samples, n_columns), dtype float32, or DataFrame
            The columns that `output` names, as `set_output` asks for.

        Raises
        ------
        NotFittedError
            If the encoder has not been fitted.
        ValueError, TypeError
            If `X` has another form than in `fit`, if a parameter was set to a wrong
            value since, or if the pretrained model is not the one of `fit`.
        OSError
            If the pretrained model cannot be found any more.
        FloatingPointError
            If a number of the network is NaN or infinite.
        """
        vectors, outputs = predict_both(self, X)  # refuses what is not fitted
        return self._to_columns(vectors, outputs)

    def _to_columns(self, vectors: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Lay out vectors and outputs as `output` says."""
        parts = []
        if self.output != "vectors":
            parts.append(self._targets.columns(outputs).astype(np.float32))
        if self.output != "predictions":
            parts.append((vectors - self._centre) @ self._components.T)
        return np.hstack(parts)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the columns: a prediction by its label, and "adaloraencoder0", ...

        Parameters
        ----------
        input_features : None, default=None
            Ignored; it is there for scikit-learn.

        Returns
        -------
        ndarray of shape (n_columns,), dtype object
            The names.

        Raises
        ------
        NotFittedError
            If the encoder has not been fitted.
        """
        check_is_fitted(self)
        names = []
        if self.output != "vectors":
            names += [f"prediction_{name}" for name in self._targets.column_names]
        if self.output != "predictions":
            prefix = type(self).__name__.lower()
            names += [f"{prefix}{i}" for i in range(self.n_components_)]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags
