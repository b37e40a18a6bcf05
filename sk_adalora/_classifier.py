"""AdaLoraClassifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.callback import with_callbacks
from sklearn.utils.multiclass import type_of_target
from torch import Tensor
from torch.nn import functional as F

from ._base import BaseAdaLora
from ._labels import check_labels, class_weights, read_indicator, read_labels
from ._model_files import DEFAULT_MODEL
from ._parameters import CLASSIFIER_RULES
from ._training import LossFunction

# Rows per chunk, when outputs are turned into probabilities.
_ROWS = 1_000


class AdaLoraClassifier(ClassifierMixin, BaseAdaLora):
    """Classify texts with a pretrained transformer, fine-tuned with AdaLoRA [1]_.

    The pretrained weights stay frozen. Beside the weight matrix of each linear layer a
    low-rank update is trained, and a shrinking budget moves rank to the matrices where
    it matters, until the average rank is `target_r`.

    Parameters
    ----------
    model : str or path-like, default="sentence-transformers/all-MiniLM-L6-v2"
        Pretrained transformer: a Hugging Face id or a local folder.
    target_r : int or float, default=8
        Average rank of an update when training ends. A float in (0, 1) is a share
        of `init_r`, which must be given then.
    init_r : int or None, default=None
        Rank of every update when training starts. None stands for
        ``ceil(1.5 * target_r)``.
    tinit : int or float, default=0.12
        Last optimizer step of the initial phase, counted from 0: ranks are full up to
        it, and fall at the allocations after it. A float in [0, 1) is a share of all
        steps.
    tfinal : int or float, default=0.48
        Optimizer steps at the target before training ends. A float in [0, 1) is a
        share of all steps.
    deltaT : int, float or "auto", default="auto"
        Optimizer steps between two allocations, or a share of all steps. "auto" is
        1/200 of the steps in which the budget falls, at least 1.
    beta1 : float, default=0.85
        Decay factor of the moving average of the sensitivity, in (0, 1).
    beta2 : float, default=0.85
        Decay factor of the moving average of its uncertainty, in (0, 1).
    orth_reg_weight : float, default=0.1
        Weight of the orthogonality penalty in the loss.
    lora_alpha : float or None, default=None
        Updates are scaled by ``lora_alpha / init_r``. None stands for `init_r`.
    lora_dropout : float, default=0.0
        Probability of dropping an input of an update while training, in [0, 1).
    target_modules : str or list of str, default="all-linear"
        Layers to adapt: name endings, a regular expression for whole paths, or
        "all-linear": every linear layer except pooler, embeddings and head.
    epochs : int or "auto", default="auto"
        Passes over the rows. "auto" stands for as many as make 96 optimizer steps, or 8
        for each class or label if that is more; at least 3, and at most 10 or, of few
        rows, as many as make 64 steps in batches of 32. A regressor has 32 and 22 in
        the place of 96 and 64, however many columns.
    batch_size : int, default=32
        Most rows in a batch. All batches have about the same number of rows.
    gradient_accumulation_steps : int, default=1
        Most batches in an optimizer step. All steps have about the same number.
    learning_rate : float, default=0.008
        Peak learning rate of the updates.
    head_learning_rate : float or None, default=None
        Peak learning rate of the head. None stands for 0.001 where it starts at a
        linear probe, and for `learning_rate` elsewhere. A linear head learns on
        features that are standardised by their mean and their root-mean-square
        distance from it; with ``pooling="model"`` it gets them as they are.
    head_init : {"auto", "linear_probe", "random"}, default="auto"
        Where the head starts: at a linear model of the pretrained model's features,
        fitted to the rows (of many, to about 1,000) before training, which is LP-FT of
        arXiv:2202.10054; or at random, which for numbers is around their mean.
        "auto" is "linear_probe" in a classifier, "random" in a regressor. The head of
        ``pooling="model"`` starts as in the pretrained files, or at random where they
        have none that fits.
    interpolation : float or "auto", default="auto"
        Which point between the start (0) and the end (1) of the training is kept, in
        [0, 1]: WiSE-FT of arXiv:2109.01903. With a head that started at a linear probe,
        0 is that linear model; in a regressor whose head was initialised at random, 0
        predicts numbers around their mean. "auto" is 0.85 after a linear probe, and in
        every regressor, if the training is of more than three epochs; it is 1
        elsewhere, and with ``pooling="model"``. A fit that continues another
        (`warm_start`) keeps the end of the training, whatever this says.
    weight_decay : float, default=0.0
        Decoupled weight decay.
    warmup_ratio : float, default=0.06
        Share of all steps in which the learning rates rise.
    lr_scheduler_type : str, default="linear"
        How the learning rates fall: "linear", "cosine", "constant",
        "constant_with_warmup" or "inverse_sqrt".
    max_grad_norm : float or None, default=1.0
        Bound on the norm of the gradient. None stands for no bound.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as everywhere in scikit-learn; not with an indicator
        matrix.
    early_stopping : bool, default=False
        Whether to watch a validation score at the end of each epoch, keep the best
        state of the final phase, and stop when the score no longer rises.
    validation_fraction : float, default=0.1
        Share of the rows to set apart for that, stratified, where `fit` gets no
        validation rows.
    n_iter_no_change : int, default=3
        Epochs of the final phase without a better score before training stops.
    scoring : str, callable or None, default=None
        The validation score, as in :func:`sklearn.metrics.check_scoring`. None
        stands for `score`.
    warm_start : bool, default=False
        Whether `fit` continues from the triplets and the head of the fit before,
        with a new schedule.
    row_format : str or callable, default="auto"
        How a row of a table becomes a text. "auto": a single column is the text,
        several become lines ``name: value`` without the missing cells; "pair": two
        columns are a pair of texts; a `str.format` template over the names of the
        columns; or a callable from a row, as a dict, to its text. A list or Series
        takes "auto", or a callable, which gets the cell.
    max_length : int, default=256
        Longest text in tokens, or less where the model takes less. Longer texts are
        counted in `fit_report_`.
    long_text : str, default="truncate"
        What becomes of longer texts. "truncate": their end is cut off; "head_tail":
        their middle is; "windows": a prediction averages the outputs of windows that
        overlap by half, and training reads the first window.
    pooling : str, default="mean"
        How the tokens of a text become one vector: "mean", "cls", "last" or "max",
        below a linear head; or "model": the classification head of the model's own
        architecture, for programs that expect it.
    device : str, default="auto"
        Where to compute: "cpu", "cuda", "cuda:1", "mps", or "auto" for the first GPU
        that computes, else the CPU.
    precision : str, default="auto"
        Of the frozen weights and of what is computed through them: "float32",
        "bfloat16", "float16" (not on a CPU), or "auto" for bfloat16 where the hardware
        and the model compute in it, else float32. Updates, head, loss and optimizer
        are in float32.
    revision : str or None, default=None
        Commit, tag or branch of the model on the hub.
    local_files_only : bool, default=False
        Whether the network must not be used.
    trust_remote_code : bool, default=False
        Whether to run code that the model's repository brings along.
    random_state : int, RandomState instance or None, default=None
        Seed of initial values (but of the head of ``pooling="model"``), rows set apart,
        order of rows and dropout. None draws one from NumPy's global generator, as in
        all of scikit-learn; no other is used or changed.
    verbose : int, default=0
        Whether to show a progress bar, and the table of ranks at the end.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, or column numbers where `y` is an indicator matrix.
    n_features_in_ : int
        Columns of `X`; 1 for a list of texts.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where they all are strings.
    n_iter_ : int
        Epochs trained.
    total_step_ : int
        Optimizer steps of the schedule.
    schedule_ : ResolvedSchedule
        Ranks and steps that shares and "auto" resolved to.
    ranks_ : dict of str to int
        Surviving rank of each adapted weight matrix.
    rank_pattern_ : dict of str to list of bool
        The same, as PEFT writes it.
    history_ : TrainingHistory
        Loss, penalty, learning rate and budget of each step, and scores.
    fit_report_ : FitReport
        Rows, tokens, device, precision, size and duration of the fit.

    See Also
    --------
    sk_adalora.get_peft_model : Adapt any torch model, with a loop of your own.

    References
    ----------
    .. [1] Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient
       Fine-Tuning", ICLR 2023, arXiv:2303.10512.

    Examples
    --------
    >>> from sk_adalora import AdaLoraClassifier
    >>> X = ["good film", "bad film", "a joy", "a bore"] * 8
    >>> y = ["fresh", "rotten"] * 16
    >>> clf = AdaLoraClassifier(target_r=2, random_state=0)
    >>> clf.fit(X, y).predict(["a good joy"])  # doctest: +SKIP
    array(['fresh'], dtype='<U6')
    """

    _rules = CLASSIFIER_RULES
    _auto_head_init = "linear_probe"  # docs/defaults.md: why, and why not for numbers
    _coding = ("classes_", "_multilabel")
    classes_: np.ndarray

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        target_r: float = 8,
        init_r: int | None = None,
        tinit: float = 0.12,
        tfinal: float = 0.48,
        deltaT: float | str = "auto",
        beta1: float = 0.85,
        beta2: float = 0.85,
        orth_reg_weight: float = 0.1,
        lora_alpha: float | None = None,
        lora_dropout: float = 0.0,
        target_modules: Any = "all-linear",
        epochs: int | str = "auto",
        batch_size: int = 32,
        gradient_accumulation_steps: int = 1,
        learning_rate: float = 0.008,
        head_learning_rate: float | None = None,
        head_init: str = "auto",
        interpolation: float | str = "auto",
        weight_decay: float = 0.0,
        warmup_ratio: float = 0.06,
        lr_scheduler_type: str = "linear",
        max_grad_norm: float | None = 1.0,
        class_weight: Any = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 3,
        scoring: Any = None,
        warm_start: bool = False,
        row_format: Any = "auto",
        max_length: int = 256,
        long_text: str = "truncate",
        pooling: str = "mean",
        device: str = "auto",
        precision: str = "auto",
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            model=model,
            target_r=target_r,
            init_r=init_r,
            tinit=tinit,
            tfinal=tfinal,
            deltaT=deltaT,
            beta1=beta1,
            beta2=beta2,
            orth_reg_weight=orth_reg_weight,
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            target_modules=target_modules,
            epochs=epochs,
            batch_size=batch_size,
            gradient_accumulation_steps=gradient_accumulation_steps,
            learning_rate=learning_rate,
            head_learning_rate=head_learning_rate,
            head_init=head_init,
            interpolation=interpolation,
            weight_decay=weight_decay,
            warmup_ratio=warmup_ratio,
            lr_scheduler_type=lr_scheduler_type,
            max_grad_norm=max_grad_norm,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            scoring=scoring,
            warm_start=warm_start,
            row_format=row_format,
            max_length=max_length,
            long_text=long_text,
            pooling=pooling,
            device=device,
            precision=precision,
            revision=revision,
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    @with_callbacks
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
    ) -> AdaLoraClassifier:
        """Fine-tune the pretrained model.

        Parameters
        ----------
        X : array-like of str of shape (n_samples,), or table of shape \
(n_samples, n_features)
            One text a row, or a table whose rows become texts by `row_format`.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels of any type, or an indicator matrix for several labels a row.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights of the rows, zero or more; rows of 0 are left out.
        X_val, y_val : like `X` and `y`, or None, default=None
            Rows to score on. They need ``early_stopping=True``.

        Returns
        -------
        AdaLoraClassifier
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data is not as it must be; nothing is trained
            and the estimator stays as it was.
        OSError
            If the pretrained model cannot be found.
        ImportError
            If the pretrained model needs a package that is not installed.
        FloatingPointError
            If a feature of the pretrained model, the loss or a trained number is NaN
            or infinite; the estimator stays as it was.
        """
        return self._fit(X, y, sample_weight, X_val, y_val)  # type: ignore[return-value]

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the outputs of the head.

        Parameters
        ----------
        X : array-like of str of shape (n_samples,), or table
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            The larger, the likelier. With two classes, the log-odds of the second
            one; with several labels a row, the log-odds of each; with more classes,
            the logits, whose softmax are the probabilities.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If `X` is not as `fit` got it, a parameter that was changed since is not as
            it must be, or the pretrained model is another one than then.
        OSError
            If the pretrained model cannot be found any more.
        FloatingPointError
            If the outputs of the network are not finite.
        """
        # In float64: scikit-learn's calibration computes in the type that it gets.
        outputs = self._predict_outputs(X).astype(np.float64)
        if self._multilabel or len(self.classes_) > 2:
            return outputs
        return outputs[:, 1] - outputs[:, 0]

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest label of each row.

        Parameters
        ----------
        X : array-like of str of shape (n_samples,), or table
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            Labels as `fit` got them, or an indicator matrix.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If `X` is not as `fit` got it, a parameter that was changed since is not as
            it must be, or the pretrained model is another one than then.
        OSError
            If the pretrained model cannot be found any more.
        FloatingPointError
            If the outputs of the network are not finite.
        """
        outputs = self._predict_outputs(X)
        if self._multilabel:
            return (outputs > 0).astype(int)
        return self.classes_[outputs.argmax(axis=1)]

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of `predict_proba`.

        Parameters
        ----------
        X : array-like of str of shape (n_samples,), or table
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Finite where a probability is too small to be told from 0.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If `X` is not as `fit` got it, a parameter that was changed since is not as
            it must be, or the pretrained model is another one than then.
        OSError
            If the pretrained model cannot be found any more.
        FloatingPointError
            If the outputs of the network are not finite.
        """
        outputs = torch.from_numpy(self._predict_outputs(X))
        logs = outputs.new_empty(outputs.shape, dtype=torch.float64)
        # In chunks: else, doubles of all outputs would be in memory twice.
        for rows, of_rows in zip(outputs.split(_ROWS), logs.split(_ROWS), strict=True):
            exact = rows.double()
            of_rows.copy_(
                F.logsigmoid(exact) if self._multilabel else exact.log_softmax(dim=1)
            )
        return logs.numpy()

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like of str of shape (n_samples,), or table
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Rows sum to 1, unless `fit` got an indicator matrix.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If `X` is not as `fit` got it, a parameter that was changed since is not as
            it must be, or the pretrained model is another one than then.
        OSError
            If the pretrained model cannot be found any more.
        FloatingPointError
            If the outputs of the network are not finite.
        """
        logs = self.predict_log_proba(X)
        return np.exp(logs, out=logs)

    # ---- targets ------------------------------------------------------------

    def _read_targets(self, y: Any) -> Tensor:
        if not self._continues():
            return self._encode_labels(y)
        before, several = self.classes_, self._multilabel
        targets = self._encode_labels(y)
        if several != self._multilabel or not np.array_equal(before, self.classes_):
            raise ValueError(
                "With warm_start=True `y` must hold the classes of the fit before: "
                f"{before.tolist()}, {_labels_a_row(several)}. Got "
                f"{self.classes_.tolist()}, {_labels_a_row(self._multilabel)}. Set "
                "warm_start=False to start anew."
            )
        return targets

    def _encode_labels(self, y: Any) -> Tensor:
        check_labels(y)
        self._multilabel = type_of_target(y, input_name="y") == "multilabel-indicator"
        if self._multilabel:
            indicator = read_indicator(y)
            self.classes_ = np.arange(indicator.shape[1])
            return torch.from_numpy(indicator)
        labels = read_labels(y, warn=True)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                "`y` must have at least 2 classes. Got 1 class: "
                f"{self.classes_.tolist()[0]!r}. Pass rows of another class too."
            )
        return torch.from_numpy(codes.astype(np.int64))

    def _row_weights(
        self, y: Any, sample_weight: np.ndarray | None
    ) -> np.ndarray | None:
        if self.class_weight is None:
            return sample_weight
        if self._multilabel:
            raise ValueError(
                "`class_weight` needs one label a row. Got an indicator matrix as "
                "`y`. Use `sample_weight`."
            )
        labels = read_labels(y)
        weights = class_weights(self.class_weight, self.classes_, labels, sample_weight)
        if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.any()):
            raise ValueError(
                "`class_weight` must hold finite numbers of at least 0, and not all "
                f"0. Got {self.class_weight!r}. Change the weights."
            )
        of_rows = weights[np.searchsorted(self.classes_, labels)]
        return of_rows if sample_weight is None else of_rows * sample_weight

    def _check_validation_targets(self, y: Any, targets: Tensor) -> None:
        check_labels(y, "y_val")
        indicator = type_of_target(y, input_name="y_val") == "multilabel-indicator"
        alike = indicator == self._multilabel
        if alike and indicator:
            alike = read_indicator(y, "y_val").shape[1] == len(self.classes_)
        if not alike:
            raise ValueError(
                "`y_val` must be of the form of `y`: one label a row, or an indicator "
                "matrix with the same columns. Got another one. Change it."
            )
        known = set(self.classes_.tolist())
        labels = [] if indicator else read_labels(y, "y_val").tolist()
        unknown = [label for label in dict.fromkeys(labels) if label not in known]
        if unknown:
            raise ValueError(
                f"`y_val` must hold classes of `y`. Got {unknown[:5]}, which `y` does "
                "not have. Drop those rows, or pass rows of these classes to learn "
                "from."
            )

    def _label_names(self) -> dict[int, str]:
        return {i: str(label) for i, label in enumerate(self.classes_)}

    def _problem_type(self) -> str:
        kind = "multi" if self._multilabel else "single"
        return f"{kind}_label_classification"

    def _n_classes(self) -> int:
        return self._n_outputs()

    def _n_outputs(self) -> int:
        return len(self.classes_)

    def _outputs_for(self, y: Any) -> np.ndarray:
        if self._multilabel:
            return 2 * read_indicator(y) - 1
        codes = np.searchsorted(self.classes_, read_labels(y))
        outputs = np.zeros((len(codes), len(self.classes_)), np.float32)
        outputs[np.arange(len(codes)), codes] = 1
        return outputs

    def _stratify(self, y: Any) -> Any:
        return None if self._multilabel else y

    def _targets_to_score(self, y: Any) -> Any:
        # Of pandas' nullable types, scikit-learn's scores take no indicator matrix.
        return read_indicator(y).astype(np.int64) if self._multilabel else y

    def _loss(self) -> LossFunction:
        return multilabel_loss if self._multilabel else multiclass_loss

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _labels_a_row(multilabel: bool) -> str:
    return "any number of them a row" if multilabel else "one a row"


def multiclass_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each row, of shape (n,)."""
    return F.cross_entropy(outputs, targets, reduction="none")


def multilabel_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of each row, of shape (n,)."""
    losses = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    return losses.mean(dim=1)
