"""The one class behind the estimators: a fit as plain steps, and thin methods."""

from __future__ import annotations

import copy
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sk_adalora.data.targets import Targets
from sk_adalora.files import folder as folder_files
from sk_adalora.files.checkpoint import remove_checkpoints, sole_fit
from sk_adalora.files.state import AdapterState, with_plain_records, with_records
from sk_adalora.network.network import TextNetwork
from sk_adalora.pretrained.backbone import Backbone
from sk_adalora.pretrained.find import DEFAULT_MODEL, WITHOUT_TRUST
from sk_adalora.runtime.devices import own_settings_of_torch, resolve_compute
from sk_adalora.runtime.doc_links import LINK_TEMPLATE
from sk_adalora.runtime.ranks import Ranks, shared_fit
from sk_adalora.runtime.rules import Rule, check_parameters
from sk_adalora.runtime.transaction import CALLBACKS, unchanged_on_error
from sk_adalora.training.advice import warn_of_history
from sk_adalora.training.epochs import data_of_fit
from sk_adalora.training.loop import TrainingHistory
from sk_adalora.training.rank_table import lay_out
from sk_adalora.training.report import FitReport
from sk_adalora.training.schedule_steps import ResolvedSchedule

from .calibration import fit_calibration
from .fitting import fit_whole
from .in_parts import PredictsInParts
from .inputs import prepare_fit
from .predicting import (
    EncodedRows,
    Predictor,
    check_has_vectors,
    encode_ahead,
    load_network,
    load_predictor,
    predict_outputs,
    predict_vectors,
)

if TYPE_CHECKING:  # scikit-learn's is untyped: what it decorates would be Any
    _Method = TypeVar("_Method", bound=Callable[..., Any])

    def with_callbacks(method: _Method) -> _Method: ...

else:
    from sklearn.callback import with_callbacks

# Attribute of an instance whose state comes from a pickle or a copy.
_FROM_PICKLE = "from_pickle"


def _new_of_a_pickle(cls: type[BaseAdaLora]) -> BaseAdaLora:
    """Make an instance for `__setstate__` to fill from a pickle or a copy."""
    new = cls.__new__(cls)
    new.__dict__[_FROM_PICKLE] = True
    return new


# Pickles record it, and no module of ours.
_new_of_a_pickle.__module__ = "sk_adalora"


class BaseAdaLora(
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    PredictsInParts,
    BaseEstimator,
):
    """A text estimator. Subclasses say what targets are, and what to predict of them.

    They document the parameters and the attributes.
    """

    # What HTML representations link to.
    _doc_link_module = "sk_adalora"
    _doc_link_template = LINK_TEMPLATE

    _rules: ClassVar[Mapping[str, Rule]]
    _target_kinds: ClassVar[tuple[type[Targets], ...]]
    # The estimator for tables with numbers.
    _for_tables: ClassVar[str]
    # Attributes that are a mean and axes of vectors; an encoder's.
    _array_names: ClassVar[tuple[str, ...]] = ()

    # What a fit sets.
    n_features_in_: int
    feature_names_in_: np.ndarray
    n_iter_: int
    total_step_: int
    schedule_: ResolvedSchedule
    ranks_: dict[str, int]
    rank_pattern_: dict[str, list[bool]]
    history_: TrainingHistory
    fit_report_: FitReport
    _targets: Targets
    _adapter: AdapterState

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
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
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 3,
        scoring: Any = None,
        warm_start: bool = False,
        device: str = "auto",
        precision: str = "auto",
        model_kwargs: Mapping[str, Any] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
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
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.scoring = scoring
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.model_kwargs = model_kwargs
        self.checkpoint_dir = checkpoint_dir
        self.verbose = verbose

    if TYPE_CHECKING:  # scikit-learn's are untyped

        def set_callbacks(self, *callbacks: Any) -> Self: ...

        def set_params(self, **params: Any) -> Self: ...

        def set_output(self, *, transform: str | None = None) -> Self: ...

        def set_fit_request(self, **kwargs: bool | str | None) -> Self: ...

        def set_score_request(self, **kwargs: bool | str | None) -> Self: ...

        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float: ...

    @staticmethod
    @abstractmethod
    def _read_targets(y: Any) -> tuple[Targets, Tensor]:
        """Return the kind of the targets, and the targets of the rows."""

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
            The target of each row. A classifier takes labels of any type that
            scikit-learn takes, such as text, whole numbers or booleans; or an
            indicator matrix of 0 and 1, with a column for each label, if a row may
            have several. A regressor takes numbers, or several, one a column, and
            standardises them internally.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            How much each row counts, relative to the others; zero or more. Rows of
            weight 0 are left out.
        X_val, y_val : like `X` and `y`, or None, default=None
            Validation rows to score after each epoch, with ``early_stopping=True``
            only. None sets a part of the rows apart.

        Returns
        -------
        estimator
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
        start = time.perf_counter()
        with self._fitting() as (ranks, folder):
            given = (X, y, sample_weight, X_val, y_val)
            inputs = prepare_fit(self, *given, folder=folder)
            data = data_of_fit(X, y, sample_weight)
            trained = fit_whole(self, inputs, data, start)
            fit_calibration(self, inputs, trained)
            trained.finish()
        self._warn_of_fit(ranks)
        return self

    def _warn_of_fit(self, ranks: Ranks) -> None:
        # Only then: where warnings are errors, the fit is kept.
        if self.history_.loss and ranks.is_first:
            warn_of_history(self.history_)

    @contextmanager
    def _fitting(
        self, keep_checkpoints: bool = False
    ) -> Iterator[tuple[Ranks, Path | None]]:
        """Change the estimator whole or not at all.

        Return who shares the fit, and the folder to save in, on rank 0.
        """
        with unchanged_on_error(self), own_settings_of_torch(), ExitStack() as stack:
            ranks = stack.enter_context(shared_fit())
            ranks.together(lambda: check_parameters(self, self._rules))
            with ExitStack() as saving:
                only_one = sole_fit(self.checkpoint_dir)
                folder = ranks.on_first(lambda: saving.enter_context(only_one))
                yield ranks, folder
            if not keep_checkpoints and ranks.is_first:
                remove_checkpoints(self.checkpoint_dir)

    def transform(self, X: Any) -> np.ndarray:
        """Return the vector that the fine-tuned model makes of each row.

        It is what the head reads: the vectors of a text's tokens, pooled. So one can
        draw a map of texts, look for similar ones, or learn something else from them.

        Parameters
        ----------
        X : array-like of str of shape (n_samples,), or table
            Texts or rows, in the form in which `fit` got them.

        Returns
        -------
        ndarray of shape (n_samples, width), or a table by `set_output`
            The vectors, in float32, as wide as the model's hidden states. Of a text in
            windows (`long_text`), their mean.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If `X` has another form than in `fit`, if a parameter was set to a wrong
            value since, if the pretrained model is not the one of `fit`, or if the fit
            was one with ``pooling="model"``.
        OSError
            If the pretrained model cannot be found any more.
        FloatingPointError
            If a vector is NaN or infinite.

        Notes
        -----
        The vectors of the rows that `fit` got know the targets of these rows. A model
        that learns the same targets from them trusts them more than it can trust those
        of new rows. `AdaLoraEncoder` has vectors for that: its ``fit_transform`` gives
        each row the vector of a model that was tuned without it.
        """
        return predict_vectors(self, X)

    def fit_transform(self, X: Any, y: Any, **fit_params: Any) -> np.ndarray:
        """Fit, and return the vectors of the same rows, which know their targets.

        They serve for a picture of the training rows. Another model must not learn the
        same targets from them: see :meth:`transform`, and use `AdaLoraEncoder`.

        Parameters
        ----------
        X : array-like of str of shape (n_samples,) or (n_samples, n_features)
            Texts or rows, as for :meth:`fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The target of each row, as for :meth:`fit`.
        **fit_params : dict
            More for :meth:`fit`, such as `sample_weight`.

        Returns
        -------
        ndarray of shape (n_samples, width), or a table by `set_output`
            The vectors, in float32.
        """
        return self.fit(X, y, **fit_params).transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns of `transform`.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the columns of `X`, which are only compared with those of `fit`.

        Returns
        -------
        ndarray of shape (width,)
            The name of the class in small letters, and a number from 0 on.

        Raises
        ------
        ValueError
            If the estimator has not been fitted, or with ``pooling="model"``, which
            has no vectors.
        """
        check_has_vectors(self)
        names: np.ndarray = super().get_feature_names_out(input_features)
        return names

    @property
    def _n_features_out(self) -> int | None:
        return self._adapter.width

    def _predict_outputs(self, X: Any) -> np.ndarray:
        """Return the head's outputs, of shape (n_samples, n_outputs), in float32."""
        return predict_outputs(self, X)

    def _make_ready(self) -> Callable[[Iterable[Any]], Generator[EncodedRows]]:
        return encode_ahead(self)

    def _ready(self) -> Predictor:
        """Return the network that predicts; build it if none fits the parameters."""
        return load_predictor(self)

    def _exact_network(self) -> tuple[TextNetwork, Backbone]:
        """Build a new network in float32 on the CPU; return it and its backbone."""
        exact = copy.copy(self)
        exact.model_kwargs = dict(self.model_kwargs or {})
        exact.model_kwargs.pop("quantization_config", None)
        return load_network(exact, resolve_compute("cpu", "float32"))

    def rank_table(self) -> Any:
        """Return the rank that is left in each weight matrix, as a table.

        Returns
        -------
        DataFrame
            A row for each layer and a column for each kind of matrix, such as "query".
            A matrix outside the layers has a row of its own and the column "other".
            Ranks are integers, missing if a layer has no such matrix. The index is
            called "layer".

        Raises
        ------
        ImportError
            If pandas is missing, which `datasets` installs.
        NotFittedError
            If the estimator has not been fitted.
        """
        check_is_fitted(self)
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "`rank_table` needs pandas. Got an environment without it. Run: "
                "pip install pandas"
            ) from error
        table = lay_out(self.ranks_)
        columns = {kind: table.column(kind) for kind in table.kinds}
        frame = pd.DataFrame(columns, index=pd.Index(table.layers, name="layer"))
        # Integers stay integers where some are missing.
        return frame.astype(
            {kind: "Int64" for kind, ranks in columns.items() if None in ranks}
        )

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        include_backbone: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Save the fitted estimator as a folder, without pickle.

        Parameters
        ----------
        folder : path-like
            Where to write. The folder gets PEFT's two adapter files, the head, the
            tokenizer, ``sk_adalora.json`` and a model card. "~" is the home directory.
        include_backbone : bool, default=False
            Whether to copy the pretrained model too, so that the folder is complete. A
            model that lies in the folder to be replaced is copied in any case.
        overwrite : bool, default=False
            Whether to replace a folder that sk-adalora wrote, with everything that was
            put into it since.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        FileExistsError
            If the folder is not empty and `overwrite` is False, or sk-adalora did not
            write it; if it is a file or a link; or if another process saves to it.
        TypeError
            If a parameter, such as a function, cannot be written as JSON.
        ValueError
            If a parameter is wrong, if the pretrained model is not the one of `fit`, or
            if the fit took more than about a million steps: save with joblib.
        OSError
            If the pretrained model cannot be found, or the folder cannot be written;
            what was there before is still there.

        Notes
        -----
        A folder appears as a whole or not at all. A process that loads it meanwhile
        gets the old estimator, the new one or an error, and never files of both. A
        process that is killed leaves a hidden folder, from which `from_pretrained`
        still finds the old estimator, and which the next save removes (not on Windows:
        move back what is in its `old`, and delete it). With `include_backbone`, all
        files ``*.json`` and ``*.txt`` beside the weights are copied, too.
        """
        folder_files.save(self, folder, include_backbone, overwrite)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        local_files_only: bool | None = None,
        trust_remote_code: bool = False,
        **parameters: Any,
    ) -> Self:
        """Load an estimator from a folder, or from the Hugging Face hub.

        Parameters
        ----------
        source : path-like or str
            A folder that :meth:`save_pretrained` wrote, or the id of a repository.
        revision : str or None, default=None
            Commit, tag or branch of the repository `source`. That of the pretrained
            model is as it was saved: change it afterwards, with ``set_params``.
        local_files_only : bool or None, default=None
            Whether to never use the network, neither for `source` nor for the
            pretrained model. None allows it for `source`, and leaves the parameter as
            it was saved.
        trust_remote_code : bool, default=False
            Whether the pretrained model may bring code of its own.
        **parameters : dict
            Parameters to set on the estimator, such as ``device="cpu"``.

        Returns
        -------
        estimator
            A fitted estimator, which predicts as the saved one did.

        Raises
        ------
        FileNotFoundError
            If there is no such folder, or a file of it is missing.
        OSError
            If the repository cannot be downloaded for another reason.
        ValueError
            If a file is broken, changed or too new, if the folder is of another class
            or asks for remote code, or if a parameter is wrong.
        """
        loaded: Self = folder_files.load(
            cls, source, revision, local_files_only, trust_remote_code, parameters
        )
        return loaded

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload an AdaLoRA estimator",
        include_backbone: bool = False,
    ) -> str:
        """Upload the fitted estimator to the Hugging Face hub.

        The token is that of ``hf auth login`` or of the environment.

        Parameters
        ----------
        repo_id : str
            Name of the repository: ``"user/name"``, or ``"name"`` for one of your own.
            It is created if there is none. An estimator in it is replaced; other files
            stay.
        private : bool or None, default=None
            Whether a new repository is private. None stands for the hub's default.
        revision : str or None, default=None
            Branch to upload to; it is created if there is none. None stands for the
            main branch.
        commit_message : str, default="Upload an AdaLoRA estimator"
            Message of the commit.
        include_backbone : bool, default=False
            Whether to upload the pretrained model too.

        Returns
        -------
        str
            Address of the commit.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        TypeError
            If a parameter, such as a function, cannot be written as JSON.
        ValueError
            If a parameter or `repo_id` is wrong, if the pretrained model is not the one
            of `fit`, or if the fit took more than about a million steps.
        OSError
            If the hub cannot be reached or refuses, or if the pretrained model cannot
            be found.
        """
        return folder_files.push_to_hub(
            self, repo_id, private, revision, commit_message, include_backbone
        )

    def export_lora(
        self, folder: str | os.PathLike[str], *, overwrite: bool = False
    ) -> None:
        """Write the updates as plain LoRA, for programs that do not know AdaLoRA.

        Parameters
        ----------
        folder : path-like
            Where to write. The folder gets ``adapter_config.json``,
            ``adapter_model.safetensors`` and a card.
        overwrite : bool, default=False
            Whether to replace a folder that sk-adalora wrote.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        FileExistsError
            If the folder is not empty and `overwrite` is False, or sk-adalora did not
            write it; if it is a file or a link; or if another process saves to it.
        ValueError
            If it is the folder of the pretrained model, if a parameter is wrong, or if
            no layer has a rank left.
        OSError
            If it cannot be written; what was there before is still there.
        """
        folder_files.export_lora(self, folder, overwrite)

    def merge_and_save(
        self, folder: str | os.PathLike[str], *, overwrite: bool = False
    ) -> None:
        """Write a plain transformers model with the updates merged in, in float32.

        Parameters
        ----------
        folder : path-like
            Where to write. The folder gets the model and its tokenizer, for
            ``AutoModel.from_pretrained``, the head in ``head.safetensors``, and what
            ``SentenceTransformer`` needs to pool as in the fit. Of an encoder-decoder,
            the encoder is the adapted part. With ``pooling="model"`` the head is in
            the model, for ``transformers.pipeline("text-classification")``.
            The updates are added to the weights of the file, whatever `precision` and
            `model_kwargs` are: so predictions may differ by what these round.
        overwrite : bool, default=False
            Whether to replace a folder that sk-adalora wrote.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        FileExistsError
            If the folder is not empty and `overwrite` is False, or sk-adalora did not
            write it; if it is a file or a link; or if another process saves to it.
        ValueError
            If it is the folder of the pretrained model, if a parameter is wrong, or if
            that model is not the one of `fit`.
        OSError
            If the pretrained model cannot be found, or the folder cannot be written;
            what was there before is still there.
        """
        folder_files.merge_and_save(self, folder, overwrite)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled.

        Never: the backbone's weights and tokenizer (they are found again by name
        and checked by hash), device handles, the optimizer, caches, the callbacks of
        a fitted estimator. Always: the parameters, the triplets and the head as
        float32 arrays on the CPU, ranks, the coding of the targets, names of
        columns, report and history, the backbone's name and hash, versions and a
        format number. Records such as `history_` are dicts in it, so that a file
        names no class but the estimator's.
        """
        state = dict(super().__getstate__())
        state.pop("_predictor", None)
        state.pop(_FROM_PICKLE, None)
        # Fitted, or a copy that a callback got: its callbacks have done their work.
        if "_adapter" in state or "_callback_fit_ctx" in state:
            for name in CALLBACKS:
                state.pop(name, None)
        return with_plain_records(state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`__getstate__` returned.

        Whoever wrote a file of skops is not trusted to run code here: of
        `model_kwargs`, only `revision` and `local_files_only` stay. A pickle is a
        program, and keeps all.

        Raises
        ------
        ValueError
            If a later version wrote something that this one does not know.
        """
        state = with_records(state)
        if not self.__dict__.pop(_FROM_PICKLE, False) and state.get("model_kwargs"):
            given = dict(state["model_kwargs"])
            kept = {name: given[name] for name in given.keys() & WITHOUT_TRUST}
            state["model_kwargs"] = kept or None
        super().__setstate__(state)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # Pickles and copies come by here; skops asks for the state alone.
        made = super().__reduce_ex__(protocol)
        assert isinstance(made, tuple), "an instance is no global name"
        if getattr(made[0], "__module__", None) != "copyreg":  # of a subclass
            return made
        return (_new_of_a_pickle, (type(self),), *made[2:])

    def __sklearn_is_fitted__(self) -> bool:
        return (
            hasattr(self, "_adapter") or getattr(self, "_predictor", None) is not None
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        tags.input_tags.two_d_array = True
        tags.transformer_tags.preserves_dtype = []  # of texts, float32
        return tags
