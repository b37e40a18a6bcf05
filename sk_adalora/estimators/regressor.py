"""The regressor of texts: its parameters, its targets and what it predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin

from sk_adalora.data.targets import Numbers, read_number_targets

from .base import BaseAdaLora
from .explain import Explainer, ExplainsMixin, text_explainer
from .exporting import ExportsOnnx
from .parameters import SHARED_RULES


class AdaLoraRegressor(RegressorMixin, ExplainsMixin, ExportsOnnx, BaseAdaLora):
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
    epochs : int or "auto", default="auto"
        How many times training goes over the rows. "auto" takes few rows and many
        classes more often: as many times as make 96 optimizer steps, or 8 for each
        class or label if that is more; at least 3, or 5 for more than 12 classes or
        labels, and at most 10 or, of few rows, as many as make 64 steps in batches of
        32. A regressor has 32 and 22 in the place of 96 and 64, however many columns.
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
        Seed of all that is random: initial values (but not the head of
        ``pooling="model"``), rows set apart, order of rows and dropout. None draws a
        seed from NumPy's global generator, as everywhere in scikit-learn; no other
        global generator is used or changed.
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
        Most optimizer steps, whatever `epochs` says. If these read fewer rows than
        there are, so many are drawn at random, one of each class among them, and no
        other text is read. None sets no bound.
    timeout : float or None, default=None
        Seconds that `fit` may take: as many steps are planned as this machine has
        time for, and ranks and learning rates reach their end. So two fits differ. All
        rows are tokenised before. The least of `epochs`, `max_steps` and `timeout`
        counts. None sets no bound.
    row_format : str or callable, default="auto"
        How a row of a table becomes a text. "auto": a single column is the text,
        several become lines ``name: value`` without the missing cells, numbers too,
        which a warning tells. "pair": two columns are a pair of texts. Any other str is
        a `str.format` template with the names of columns. A function gets a row, as a
        dict, and returns its text. For a list or Series, give "auto", or a function,
        which then gets the cell.
    long_text : str, default="truncate"
        What happens to longer texts. "truncate" cuts off their end, "head_tail" cuts
        out their middle. "windows": a prediction averages the outputs of windows that
        overlap by half, and training reads the first window.
    pooling : str, default="mean"
        How the vectors of a text's tokens become the one that a linear head reads:
        "mean", "cls" (that of the first token), "last" or "max". Give what the model
        was pretrained with. "model" uses the classification head of the model's own
        architecture instead, for programs that expect it.
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
        Where to save the state of the fit now and then, so that it can be killed. Run
        the same program again: it goes on from there, and on a CPU ends at the same
        numbers as if it had not been killed. The folder is of one fit; what is in it is
        deleted when the fit ends. None saves nothing.
    verbose : int, default=0
        1 says what the fit does and how far it is, and at the end where the rank is.

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
        each step, the validation `score` after each epoch, and the `ranks` of all
        matrices whenever they fell.
    fit_report_ : FitReport
        What the fit used: rows, columns, tokens, device, precision, size and time.
        `print` it.

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

    __module__ = "sk_adalora"  # where users import it from: for pickles

    _for_tables = "AdaLoraTableRegressor"
    _rules = SHARED_RULES
    _read_targets = staticmethod(read_number_targets)
    _target_kinds = (Numbers,)

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
        outputs = self._predict_outputs(X)  # refuses what is not fitted
        return self._targets.decode(outputs)

    def _explainer(self, X: Any) -> Explainer:
        return text_explainer(self, X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
