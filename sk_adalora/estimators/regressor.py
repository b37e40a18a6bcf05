"""The regressor of texts: its parameters, its targets and what it predicts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.validation import _num_samples
from torch import Tensor

from sk_adalora.data.numbers import read_numbers
from sk_adalora.data.rows import TrainingRows
from sk_adalora.training.loop import LossFunction

from .base import BaseAdaLora, with_callbacks
from .parameters import REGRESSOR_RULES


class AdaLoraRegressor(RegressorMixin, BaseAdaLora):
    """Predict numbers from texts with a pretrained transformer and AdaLoRA [1]_.

    The pretrained weights stay as they are. A fit learns a low-rank update for the
    weight matrix of each linear layer, and a head that computes the outputs. All
    updates start with the same rank. During training, rank is removed wherever it
    matters least, until the average rank is `target_r`. The loss is the squared error
    of the standardised targets.

    Parameters
    ----------
    model : str or path-like, default="sentence-transformers/all-MiniLM-L6-v2"
        The pretrained transformer: a Hugging Face id or a local folder. The default is
        small enough for a CPU, and knows English only.
    target_r : int or float, default=8
        Average rank of the updates when training ends. A higher rank can express more,
        and costs more. A float in (0, 1) is a share of `init_r`, which must then be
        given.
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
    epochs : int or "auto", default="auto"
        How many times training goes over the rows. "auto" takes few rows and many
        classes more often: as many times as make 96 optimizer steps, or 8 for each
        class or label if that is more; at least 3, or 5 for more than 12 classes or
        labels, and at most 10 or, of few rows, as many as make 64 steps in batches of
        32. A regressor has 32 and 22 in the place of 96 and 64, however many columns.
    batch_size : int, default=32
        Largest number of rows in a training batch; all batches of a fit have about the
        same number. Predictions do not depend on it.
    gradient_accumulation_steps : int, default=1
        Largest number of batches in an optimizer step; all steps have about the same
        number. If memory is short, raise it and lower `batch_size`: the steps are those
        of larger batches.
    learning_rate : float, default=0.008
        Peak learning rate of the updates. One for training all weights, such as 2e-5,
        hardly changes anything. Lower it if the training loss rises, and search it,
        from the default downwards, for another `model`.
    head_learning_rate : float or None, default=None
        Peak learning rate of the head. None stands for 0.001 if the head starts as a
        linear probe, and otherwise for `learning_rate`. A linear head learns on
        features that are standardised by their mean and their root-mean-square distance
        from it; with ``pooling="model"``, the model's own head gets them as they are.
    head_init : {"auto", "linear_probe", "random"}, default="auto"
        How the head starts. "linear_probe": as a linear model of the pretrained model's
        features, fitted before training to the rows, or to about 1,000 of many (LP-FT,
        arXiv:2202.10054). "random": at random, which for numbers is around their mean.
        "auto" is "linear_probe" in a classifier and "random" in a regressor. The head
        of ``pooling="model"`` starts as in the pretrained files, or at random if they
        have none that fits.
    interpolation : float or "auto", default="auto"
        How much of the training is kept, from 0, its start, to 1, its end (WiSE-FT,
        arXiv:2109.01903). With a head that started at a linear probe, 0 is that linear
        model; with a regressor's random head, it predicts numbers around their mean.
        "auto" is 0.85 after more than three `epochs` over at most 1,000 rows, even of a
        fit that stops early, if it is a regressor's or started at a linear probe;
        otherwise, and with ``pooling="model"``, it is 1. If rows are few and say
        little, try 0.5. A fit that continues another (`warm_start`) keeps all, whatever
        this says.
    weight_decay : float, default=0.0
        AdamW's decoupled weight decay, of updates and head.
    warmup_ratio : float, default=0.06
        Share of all optimizer steps, the first ones, in which the learning rates rise
        to their peak.
    lr_scheduler_type : str, default="linear"
        How the learning rates fall afterwards: "linear", "cosine", "constant" (not at
        all, and without a rise), "constant_with_warmup" or "inverse_sqrt".
    max_grad_norm : float or None, default=1.0
        Largest norm of all gradients together; larger gradients are scaled down to it.
        None does not limit them.
    early_stopping : bool, default=False
        Whether to score validation rows after each epoch, stop when the score no longer
        rises, and keep the state with the best score. Only epochs that end in the final
        phase, the last `tfinal` steps, count.
    validation_fraction : float, default=0.1
        Share of the rows that is set apart for that if `fit` gets no validation rows.
        A classifier stratifies them, if each has one label.
    n_iter_no_change : int, default=3
        Training stops after this many epochs of the final phase without a better score.
    scoring : str, callable or None, default=None
        The validation score, as in :func:`sklearn.metrics.check_scoring`. None stands
        for the estimator's `score`.
    warm_start : bool, default=False
        Whether `fit` continues from the updates and the head of the fit before, with a
        new schedule.
    row_format : str or callable, default="auto"
        How a row of a table becomes a text. "auto": a single column is the text,
        several become lines ``name: value`` without the missing cells. "pair": two
        columns are a pair of texts. Any other str is a `str.format` template with the
        names of columns. A function gets a row, as a dict, and returns its text. For a
        list or Series, give "auto", or a function, which then gets the cell.
    max_length : int, default=256
        Longest text in tokens, or less if the model takes less; `fit_report_` counts
        the longer ones. If texts are long, a lower value saves time and memory.
    long_text : str, default="truncate"
        What happens to longer texts. "truncate" cuts off their end, "head_tail" cuts
        out their middle. "windows": a prediction averages the outputs of windows that
        overlap by half, and training reads the first window.
    pooling : str, default="mean"
        How the vectors of a text's tokens become the one that a linear head reads:
        "mean", "cls" (that of the first token), "last" or "max". Give what the model
        was pretrained with. "model" uses the classification head of the model's own
        architecture instead, for programs that expect it.
    device : str, default="auto"
        Where to compute: "cpu", "cuda", "cuda:1", "mps", or "auto" for the first GPU
        that computes, and otherwise the CPU.
    precision : str, default="auto"
        Number format of the frozen weights and of what is computed with them:
        "float32", "bfloat16", "float16" (not on a CPU), or "auto" for bfloat16 if both
        hardware and model compute in it, and otherwise float32. Updates, head, loss and
        optimizer are always in float32.
    revision : str or None, default=None
        Commit, tag or branch of the model on the hub. None stands for an installed
        copy, if there is one, and otherwise for the main branch.
    local_files_only : bool, default=False
        Whether to never use the network. The model must then be a folder, in the hub's
        cache or in an installed package.
    trust_remote_code : bool, default=False
        Whether to run code that the model's repository contains, or names in another.
    random_state : int, RandomState instance or None, default=None
        Seed of all that is random: initial values (but not the head of
        ``pooling="model"``), rows set apart, order of rows and dropout. None draws a
        seed from NumPy's global generator, as everywhere in scikit-learn; no other
        global generator is used or changed.
    verbose : int, default=0
        Whether to show a progress bar, and at the end the table of ranks.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns of `X`; 1 for a list of texts.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if all of them are strings.
    n_iter_ : int
        Number of epochs trained.
    total_step_ : int
        Number of optimizer steps that the schedule has.
    schedule_ : ResolvedSchedule
        The ranks and steps that shares, None and "auto" stood for.
    ranks_ : dict of str to int
        The rank that is left in each adapted weight matrix, by its path in the model.
    rank_pattern_ : dict of str to list of bool
        The same, as PEFT writes it.
    history_ : TrainingHistory
        Lists: `loss`, `orthogonality` (the penalty), `learning_rate` and `budget` at
        each step, and the validation `score` after each epoch.
    fit_report_ : FitReport
        What the fit used: rows, tokens, device, precision, size and time. `print` it.

    See Also
    --------
    AdaLoraClassifier : The same for labels.

    References
    ----------
    .. [1] Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient
       Fine-Tuning", ICLR 2023, arXiv:2303.10512.

    Examples
    --------
    >>> from sk_adalora import AdaLoraRegressor
    >>> X = ["good film", "bad film", "a joy", "a bore"] * 8
    >>> y = [7.5, 2.0, 9.0, 1.5] * 8
    >>> reg = AdaLoraRegressor(target_r=2, random_state=0)
    >>> reg.fit(X, y).predict(["a good joy"]).shape  # doctest: +SKIP
    (1,)
    """

    _rules = REGRESSOR_RULES
    # On numbers, a probe overfits, and so do many steps: docs/defaults.md.
    _auto_head_init = "random"
    _enough_steps = 32
    _coding = ("_one_target", "_target_mean", "_target_scale")

    if TYPE_CHECKING:  # scikit-learn's is untyped, and in its stubs takes no lists

        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float: ...

    @with_callbacks
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
    ) -> Self:
        """Fine-tune the pretrained model on texts and their targets.

        Parameters
        ----------
        X : array-like of str of shape (n_samples,) or (n_samples, n_features)
            One text a row, or a table, without the target column, whose rows become
            texts by `row_format`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The number of each row, or several, one a column. The fit standardises them
            internally.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            How much each row counts, relative to the others; zero or more. Rows of
            weight 0 are left out.
        X_val, y_val : like `X` and `y`, or None, default=None
            Validation rows to score after each epoch, with ``early_stopping=True``
            only. None sets a part of the rows apart.

        Returns
        -------
        AdaLoraRegressor
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data is wrong; nothing is trained, and the estimator
            stays as it was.
        OSError
            If the pretrained model cannot be found.
        ImportError
            If the pretrained model needs a package that is not installed.
        FloatingPointError
            If a feature of the pretrained model, the loss or a trained number is NaN or
            infinite; the estimator stays as it was.
        """
        return self._fit(X, y, sample_weight, X_val, y_val)

    def predict(self, X: Any) -> np.ndarray:
        """Return the expected number of each row.

        Parameters
        ----------
        X : array-like of str of shape (n_samples,), or table
            Texts or rows, in the form in which `fit` got them.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Numbers in the units of the targets that `fit` got, and with as many
            columns.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If `X` has another form than in `fit`, if a parameter was set to a wrong
            value since, or if the pretrained model is not the one of `fit`.
        OSError
            If the pretrained model cannot be found any more.
        FloatingPointError
            If an output of the network is NaN or infinite.
        """
        values = self._predict_outputs(X).astype(np.float64)
        values *= self._target_scale
        values += self._target_mean
        return values.ravel() if self._one_target else values

    # ---- targets ------------------------------------------------------------

    # Where a method has no docstring, FitMixin, PredictMixin or FolderMixin declares it
    # and says what it is for.

    def _read_targets(self, y: Any) -> Tensor:
        values = read_numbers(y, "y")
        self._one_target = values.ndim == 1
        values = values.reshape(len(values), -1)
        if self._continues():
            self._check_n_targets(values)
        # Torch takes no array of negative strides, such as a reversed Series.
        return torch.from_numpy(values.copy())

    def _code_targets(self, rows: TrainingRows) -> TrainingRows:
        """Standardise the targets by the training rows only."""
        values = rows.targets.numpy()
        weights = None if rows.weights is None else rows.weights.double().numpy()
        if weights is not None and np.all(weights == weights[0]):
            weights = None  # the same to the last bit as without weights
        if self._continues():
            self._rescale_targets(values, weights)
        else:
            self._fit_target_scale(values, weights)
        varied = self._target_scale > 0  # equal numbers may differ by rounding
        differences = np.where(varied, values - self._target_mean, 0.0)
        scaled = differences / np.where(varied, self._target_scale, 1.0)
        return replace(rows, targets=torch.from_numpy(scaled.astype(np.float32)))

    def _fit_target_scale(self, values: np.ndarray, weights: np.ndarray | None) -> None:
        """Set mean and scale of each target from those of the training rows."""
        # Scale by powers of 2, which is exact: squares of 1e200 would be infinite.
        _, exponent = np.frexp(np.abs(values).max(axis=0))
        scaled = np.ldexp(values, -exponent)
        mean = np.average(scaled, axis=0, weights=weights)
        spread = np.average((scaled - mean) ** 2, axis=0, weights=weights)
        deviation = np.sqrt(spread)
        rounding = 4 * np.finfo(np.float64).eps * np.abs(mean)
        scale = np.ldexp(deviation, exponent)
        # The mean of many equal numbers may differ from them by more than `rounding`.
        vary = values.min(axis=0) < values.max(axis=0)
        spreads = vary & (deviation > rounding) & (scale >= np.finfo(np.float64).tiny)
        # A scale of 0 predicts equal numbers as they are, whatever the outputs; so it
        # does where one row has practically all of the weight.
        equal = values[0 if weights is None else weights.argmax()]
        self._target_mean = np.where(spreads, np.ldexp(mean, exponent), equal)
        self._target_scale = np.where(spreads, scale, 0.0)

    def _rescale_targets(self, values: np.ndarray, weights: np.ndarray | None) -> None:
        """Learn the units of targets that were constant; widen those of the others.

        Far outside the scale of the fit before, the rates would hardly move anything.
        (In a narrower one, they could not mend what a wider one left.) Predictions
        stay: the head's outputs shrink as their scale grows.
        """
        mean, scale = self._target_mean, self._target_scale
        self._fit_target_scale(values, weights)
        varied = scale > 0
        reach = np.hypot(self._target_scale, self._target_mean - mean)
        # The model's own head may be of any form.
        wider = scale if self.pooling == "model" else np.maximum(scale, reach)
        self._target_mean = np.where(varied, mean, self._target_mean)
        self._target_scale = np.where(varied, wider, self._target_scale)
        if np.any(wider > scale):
            factors = np.divide(scale, wider, out=np.ones_like(scale), where=varied)
            self._adapter = self._adapter.with_scaled_outputs(factors)

    def _check_n_targets(self, values: np.ndarray) -> None:
        """Refuse another number of targets than in the fit before."""
        if values.shape[1] != len(self._target_mean):
            raise ValueError(
                "With warm_start=True `y` must have the number of targets of the fit "
                f"before: {len(self._target_mean)}. Got {values.shape[1]}. Set "
                "warm_start=False to start anew."
            )

    def _check_validation_targets(self, y: Any, targets: Tensor) -> None:
        values = read_numbers(y, "y_val")
        n_columns = 1 if values.ndim == 1 else values.shape[1]
        if n_columns != targets.shape[1]:
            raise ValueError(
                f"`y_val` must have as many columns as `y`: {targets.shape[1]}. Got "
                f"{n_columns}. Pass one column a target."
            )

    def _start_predicts(self) -> bool:
        return self.pooling != "model"  # a random head, too, starts around the mean

    def _label_names(self) -> dict[int, str]:
        return {i: f"target_{i}" for i in range(self._n_outputs())}

    def _problem_type(self) -> str:
        return "regression"

    def _units(self) -> str:
        mean, scale = self._target_mean.tolist(), self._target_scale.tolist()
        return (
            "Its outputs are standardised: the numbers are "
            f"`output * {scale} + {mean}`."
        )

    def _n_outputs(self) -> int:
        return len(self._target_mean)

    def _made_up_outputs(self, y: Any) -> np.ndarray:
        return np.zeros((_num_samples(y), self._n_outputs()))  # the mean of targets

    def _loss(self) -> LossFunction:
        return squared_error

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error of each row, of shape (n,)."""
    return (outputs - targets).square().mean(dim=1)
