"""The estimators of mixed tables: text beside numbers, categories and dates."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sk_adalora.data.roles import import_skrub
from sk_adalora.data.targets import (
    Classes,
    Targets,
    from_state,
    read_label_targets,
    read_number_targets,
)
from sk_adalora.files import table_folder
from sk_adalora.files.checkpoint import remove_checkpoints
from sk_adalora.runtime.doc_links import LINK_TEMPLATE
from sk_adalora.runtime.ranks import shared_fit
from sk_adalora.runtime.rules import NONE, Rule, check_parameters, instance
from sk_adalora.runtime.transaction import unchanged_on_error

from .blend import blended
from .encoder import AdaLoraEncoder
from .explain import Explainer, ExplainsMixin
from .explain_table import table_explainer
from .in_parts import PredictsInParts
from .inputs import change_on_first, check_alike
from .parameters import TABLE_PARTS, TABLE_RULES
from .table_learners import default_final_estimator
from .table_parts import (
    EncodedText,
    Parts,
    blend_out_of_fold,
    encode_together,
    make_report,
    predict_blend,
    prepare_parts,
    refit_parts,
)
from .table_report import TableFitReport
from .table_rows import TableFit, read_fit


class _BaseTable(ExplainsMixin, PredictsInParts, BaseEstimator):
    """An estimator of mixed tables. Subclasses say what the targets are.

    They document the parameters and the attributes.
    """

    # What HTML representations link to.
    _doc_link_module = "sk_adalora"
    _doc_link_template = LINK_TEMPLATE

    _rules: ClassVar[Mapping[str, Rule]] = {
        "encoder": instance(AdaLoraEncoder, "an AdaLoraEncoder") | NONE,
        **TABLE_RULES,
    }

    # What a fit sets.
    encoder_: Any
    named_estimators_: dict[str, Any]
    weights_: dict[str, float]
    column_roles_: dict[str, str]
    n_features_in_: int
    feature_names_in_: np.ndarray
    fit_report_: TableFitReport
    _targets: Targets
    _constants: np.ndarray
    _date_formats: dict[str, str]

    def __init__(
        self,
        encoder: Any = None,
        final_estimator: Any = None,
        *,
        column_roles: Mapping[str, str] | None = None,
        parts: Sequence[str] = TABLE_PARTS,
        cv: Any = 3,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.encoder = encoder
        self.final_estimator = final_estimator
        self.column_roles = column_roles
        self.parts = parts
        self.cv = cv
        self.random_state = random_state
        self.verbose = verbose

    if TYPE_CHECKING:  # scikit-learn's are untyped

        def set_fit_request(self, **kwargs: bool | str | None) -> Self: ...

        def set_score_request(self, **kwargs: bool | str | None) -> Self: ...

        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float: ...

    @staticmethod
    @abstractmethod
    def _read_targets(y: Any) -> tuple[Targets, Tensor]:
        """Return the kind of the targets, and the targets of the rows."""

    def set_params(self, **params: Any) -> Self:
        """Set parameters, also those of the encoder and the final estimator.

        Parameters
        ----------
        **params : dict
            Parameters by name: ``encoder__target_r`` is one of the encoder's. Where
            `encoder` or `final_estimator` is None, the default takes its place.

        Returns
        -------
        estimator
            The estimator itself.
        """
        for name, default in self._defaults().items():
            nested = any(key.startswith(f"{name}__") for key in params)
            if nested and params.get(name, getattr(self, name)) is None:
                params = {**params, name: default}
        super().set_params(**params)
        return self

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name.

        Parameters
        ----------
        deep : bool, default=True
            Whether to return those of the encoder and the final estimator too. Where
            these are None, they are those of the default, as :meth:`set_params` would
            set them.

        Returns
        -------
        dict of str to any
            The parameters.
        """
        params: dict[str, Any] = super().get_params(deep)
        for name, default in self._defaults().items():
            if deep and params[name] is None:
                own = default.get_params()
                params |= {f"{name}__{key}": value for key, value in own.items()}
        return params

    def _defaults(self) -> dict[str, Any]:
        """Return what None stands for."""
        return {
            "encoder": AdaLoraEncoder(),
            "final_estimator": default_final_estimator(self),
        }

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the parts to a table, and choose their weights out of fold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            A table, without the target column; or one text a row.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The target of each row. A classifier takes labels, or an indicator matrix of
            0 and 1 with a column for each label. A regressor takes numbers, or several,
            one a column.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            How much each row counts, relative to the others; zero or more. Rows of
            weight 0 are left out.

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
            If skrub, or a package that the pretrained model needs, is not installed.
        FloatingPointError
            If a number of the fine-tuning is NaN or infinite; the estimator stays as
            it was.
        """
        with unchanged_on_error(self), shared_fit() as ranks:
            start = time.perf_counter()
            ranks.together(lambda: check_parameters(self, self._rules))
            ranks.together(import_skrub)
            check_alike(self, X, y)
            # Rank 0 does all but the tuning, which the ranks share.
            read, none = (lambda: _prepare(self, X, y, sample_weight)), lambda _: None
            prepared = change_on_first(self, read, none)
            text = encode_together(self, prepared)
            change_on_first(self, lambda: _finish(self, prepared, text, start), none)
        return self

    def _make_ready(self) -> Callable[[Iterable[Any]], Generator[Any]]:
        check_is_fitted(self)
        return lambda parts: (part for part in parts)

    def _predict(self, X: Any) -> np.ndarray:
        """Return the weighted mean of the parts' predictions, of shape (n, k)."""
        check_is_fitted(self)
        return predict_blend(self, X)

    def _explainer(self, X: Any) -> Explainer:
        return table_explainer(self, X)

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        include_backbone: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Save the fitted estimator as a folder, without pickle.

        To share it on the Hugging Face hub, upload the folder with
        ``huggingface_hub.upload_folder``. Requests made with `set_fit_request` of the
        estimator and of its `encoder` are left out.

        Parameters
        ----------
        folder : path-like
            Where to write. The folder gets ``encoder/``, as
            :meth:`AdaLoraEncoder.save_pretrained` writes it, if there is an encoder;
            ``table.skops`` with the rest; and ``README.md``. "~" is the home directory.
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
            If skops cannot write a parameter or the final estimator: save with joblib.
        ValueError
            If a parameter is wrong, if the pretrained model is not the one of `fit`, or
            if the fit is too large: save with joblib.
        OSError
            If the pretrained model cannot be found, or the folder cannot be written;
            what was there before is still there.
        ImportError
            If skops is not installed.
        """
        table_folder.save(self, folder, include_backbone, overwrite)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        trusted: Sequence[str | type] | None = None,
        trust_remote_code: bool = False,
        **parameters: Any,
    ) -> Self:
        """Load an estimator from a folder.

        What is on the Hugging Face hub, download before, with
        ``huggingface_hub.snapshot_download``.

        Parameters
        ----------
        source : path-like
            A folder that :meth:`save_pretrained` wrote.
        trusted : list of str or type, or None, default=None
            Types that the file may hold beside those of the default final estimator,
            or their names. Whoever wrote the file can then have them do anything.
        trust_remote_code : bool, default=False
            Whether the pretrained model may bring code of its own.
        **parameters : dict
            Parameters to set on the estimator. Those of the encoder, such as
            ``encoder__device="cpu"``, are set on the fitted `encoder_` too, except
            `output`, `cv` and `target_type`.

        Returns
        -------
        estimator
            A fitted estimator, which predicts as the saved one did.

        Raises
        ------
        FileNotFoundError
            If there is no such folder, or a file of it is missing.
        ValueError
            If a file is broken or changed, if it holds types that are not trusted, if
            the folder is of another class or asks for remote code, or if a parameter is
            wrong.
        ImportError
            If skops or skrub is not installed.
        """
        import_skrub()
        loaded: Self = table_folder.load(
            cls, AdaLoraEncoder, source, trusted, trust_remote_code, parameters
        )
        return loaded

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: the report as a dict, so that no module is named."""
        state = dict(super().__getstate__())
        if "fit_report_" in state:
            state["fit_report_"] = asdict(state["fit_report_"])
            state["_targets"] = state["_targets"].to_state()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`__getstate__` returned."""
        if "fit_report_" in state:
            report = TableFitReport(**state["fit_report_"])
            targets = from_state(state["_targets"])
            state = {**state, "fit_report_": report, "_targets": targets}
        super().__setstate__(state)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "fit_report_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        tags.input_tags.two_d_array = True
        return tags


def _prepare(
    estimator: Any, X: Any, y: Any, sample_weight: Any
) -> tuple[TableFit, Parts]:
    """Read the rows, and choose what to fit."""
    fit = read_fit(estimator, X, y, sample_weight)
    return fit, prepare_parts(estimator, fit)


def _finish(
    estimator: Any, prepared: tuple[TableFit, Parts], text: EncodedText, start: float
) -> None:
    """Fit and blend the parts, and set the fitted attributes."""
    fit, parts = prepared
    out_of_fold = blend_out_of_fold(estimator, fit, parts, text)
    estimator.weights_ = fit.blended.choose_shares(
        out_of_fold.predictions, fit.coded, fit.weights
    )
    refit_parts(estimator, fit, parts, out_of_fold)
    estimator.fit_report_ = make_report(estimator, fit, out_of_fold, start)
    if estimator.encoder_ is not None:
        remove_checkpoints(estimator.encoder_.checkpoint_dir)


class AdaLoraTableClassifier(ClassifierMixin, _BaseTable):
    """Predict labels from tables of text, numbers, categories and dates.

    A prediction is a weighted mean of those of four parts: a learner of tables on all
    columns; the same with fine-tuned vectors of the text; a transformer that is
    fine-tuned on the text; and a linear model on words and columns. Each part predicts
    the rows of the fit out of fold, and the weights are those with the least
    log loss. It needs the extra `tables`, which installs skrub.

    Parameters
    ----------
    encoder : AdaLoraEncoder or None, default=None
        Encodes the text columns; None is ``AdaLoraEncoder()``. Its `output`, `cv` and
        `target_type` are set by this estimator. With ``tune=False`` there is no part
        "text".
    final_estimator : estimator or None, default=None
        The classifier of two parts, of scikit-learn's interface. For it, skrub's
        ``tabular_pipeline`` prepares categories, dates and missing values. None is
        :class:`~sklearn.ensemble.HistGradientBoostingClassifier`. It gets
        the classes as 0, 1, ..., in the order of `classes_`.
    column_roles : dict of str to str or None, default=None
        Roles of columns that are not to be found by themselves: "text", "number",
        "category" or "date". The columns of a table without names are x0, x1, ...
    parts : tuple or list of str, default=("columns", "vectors", "text", "linear")
        Which predictions are averaged. "columns" is the final estimator on all columns,
        with the text as skrub's ``StringEncoder`` counts it; "vectors" is
        the same with fine-tuned vectors in the place of the text; "text" is the
        fine-tuned model on the text alone; "linear" is a linear model on counted words,
        numbers, categories and dates.
    cv : int, cross-validation generator or iterable, default=3
        Folds that the weights of the parts are chosen on; the encoder is fine-tuned
        once for each, and once to all rows. An int shuffles the rows and spreads those
        of each class evenly.
    class_weight : dict, "balanced" or None, default=None
        How much the rows of each class count, as everywhere in scikit-learn. It needs
        one label a row; with an indicator matrix, use `sample_weight`.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds, and of all estimators in it that have none. None draws a seed
        from NumPy's global generator, as everywhere in scikit-learn.
    verbose : int, default=0
        Whether to say each step, and to show the encoder's progress bars.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted; column numbers if `y` is an indicator matrix.
    encoder_ : AdaLoraEncoder or None
        The encoder, fitted to all rows; None if there is no text.
    named_estimators_ : dict of str to Pipeline
        The fitted learners of the parts that have a share, but for "text".
    weights_ : dict of str to float
        The share of each part in a prediction. They sum to 1.
    column_roles_ : dict of str to str
        The role of each column: "text", "number", "category", "date", or "empty" if it
        has no value in the fit, and is left out.
    n_features_in_ : int
        Number of columns of `X`; 1 for a list of texts.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if all of them are strings.
    fit_report_ : TableFitReport
        The columns by their roles, and what each part scored out of fold, weighs and
        took. `print` it.

    See Also
    --------
    AdaLoraClassifier : Write each row as a text, and fine-tune on that alone.
    AdaLoraEncoder : Encode text columns for a pipeline of your own.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_adalora import AdaLoraTableClassifier
    >>> X = pd.DataFrame(
    ...     {"review": ["good film", "a bad film", "a joy", "a bore"] * 8,
    ...      "minutes": [93, 160, 88, 171] * 8}
    ... )
    >>> y = ["fresh", "rotten"] * 16
    >>> clf = AdaLoraTableClassifier(column_roles={"review": "text"}, random_state=0)
    >>> clf.fit(X, y).predict(X[:2])  # doctest: +SKIP
    array(['fresh', 'rotten'], dtype='<U6')
    """

    __module__ = "sk_adalora"  # where users import it from: for pickles

    _read_targets = staticmethod(read_label_targets)
    _targets: Classes
    classes_: np.ndarray

    def __init__(
        self,
        encoder: Any = None,
        final_estimator: Any = None,
        *,
        column_roles: Mapping[str, str] | None = None,
        parts: Sequence[str] = TABLE_PARTS,
        cv: Any = 3,
        class_weight: Any = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            encoder=encoder,
            final_estimator=final_estimator,
            column_roles=column_roles,
            parts=parts,
            cv=cv,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest label of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, with the columns of `fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            Labels as `fit` got them, or an indicator matrix of the labels that are
            likelier than not.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If `X` has other columns than in `fit`, a number or a date cannot be read,
            or the pretrained model is not the one of `fit`.
        OSError
            If the pretrained model cannot be found any more.
        FloatingPointError
            If a number of the network is NaN or infinite.
        """
        mean = self._predict(X)  # refuses what is not fitted
        return blended(self._targets).decode(mean)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, with the columns of `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            The probabilities, with columns as in `classes_`. Each row sums to 1, unless
            `fit` got an indicator matrix.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError, OSError, FloatingPointError
            As :meth:`predict`.
        """
        return self._predict(X)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of the probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, with the columns of `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            The logarithms of `predict_proba`: minus infinity where that is 0.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError, OSError, FloatingPointError
            As :meth:`predict`.
        """
        with np.errstate(divide="ignore"):
            return np.log(self._predict(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class AdaLoraTableRegressor(RegressorMixin, _BaseTable):
    """Predict numbers from tables of text, numbers, categories and dates.

    A prediction is a weighted mean of those of four parts: a learner of tables on all
    columns; the same with fine-tuned vectors of the text; a transformer that is
    fine-tuned on the text; and a linear model on words and columns. Each part predicts
    the rows of the fit out of fold, and the weights are those with the least
    squared error. It needs the extra `tables`, which installs skrub.

    Parameters
    ----------
    encoder : AdaLoraEncoder or None, default=None
        Encodes the text columns; None is ``AdaLoraEncoder()``. Its `output`, `cv` and
        `target_type` are set by this estimator. With ``tune=False`` there is no part
        "text".
    final_estimator : estimator or None, default=None
        The regressor of two parts, of scikit-learn's interface. For it, skrub's
        ``tabular_pipeline`` prepares categories, dates and missing values. None is
        :class:`~sklearn.ensemble.HistGradientBoostingRegressor`.
    column_roles : dict of str to str or None, default=None
        Roles of columns that are not to be found by themselves: "text", "number",
        "category" or "date". The columns of a table without names are x0, x1, ...
    parts : tuple or list of str, default=("columns", "vectors", "text", "linear")
        Which predictions are averaged. "columns" is the final estimator on all columns,
        with the text as skrub's ``StringEncoder`` counts it; "vectors" is
        the same with fine-tuned vectors in the place of the text; "text" is the
        fine-tuned model on the text alone; "linear" is a linear model on counted words,
        numbers, categories and dates.
    cv : int, cross-validation generator or iterable, default=3
        Folds that the weights of the parts are chosen on; the encoder is fine-tuned
        once for each, and once to all rows. An int shuffles the rows and spreads those
        of each class evenly.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds, and of all estimators in it that have none. None draws a seed
        from NumPy's global generator, as everywhere in scikit-learn.
    verbose : int, default=0
        Whether to say each step, and to show the encoder's progress bars.

    Attributes
    ----------
    encoder_ : AdaLoraEncoder or None
        The encoder, fitted to all rows; None if there is no text.
    named_estimators_ : dict of str to Pipeline
        The fitted learners of the parts that have a share, but for "text".
    weights_ : dict of str to float
        The share of each part in a prediction. They sum to 1.
    column_roles_ : dict of str to str
        The role of each column: "text", "number", "category", "date", or "empty" if it
        has no value in the fit, and is left out.
    n_features_in_ : int
        Number of columns of `X`; 1 for a list of texts.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if all of them are strings.
    fit_report_ : TableFitReport
        The columns by their roles, and what each part scored out of fold, weighs and
        took. `print` it.

    See Also
    --------
    AdaLoraRegressor : Write each row as a text, and fine-tune on that alone.
    AdaLoraEncoder : Encode text columns for a pipeline of your own.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_adalora import AdaLoraTableRegressor
    >>> X = pd.DataFrame(
    ...     {"review": ["good film", "a bad film", "a joy", "a bore"] * 8,
    ...      "minutes": [93, 160, 88, 171] * 8}
    ... )
    >>> y = [8.0, 3.0, 9.0, 2.5] * 8
    >>> reg = AdaLoraTableRegressor(column_roles={"review": "text"}, random_state=0)
    >>> reg.fit(X, y).predict(X[:2])  # doctest: +SKIP
    array([8.1, 3.2])
    """

    __module__ = "sk_adalora"  # where users import it from: for pickles

    _read_targets = staticmethod(read_number_targets)

    def predict(self, X: Any) -> np.ndarray:
        """Return the number, or numbers, of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, with the columns of `fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Numbers in the units of `y`.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If `X` has other columns than in `fit`, a number or a date cannot be read,
            or the pretrained model is not the one of `fit`.
        OSError
            If the pretrained model cannot be found any more.
        FloatingPointError
            If a number of the network is NaN or infinite.
        """
        mean = self._predict(X)  # refuses what is not fitted
        return blended(self._targets).decode(mean)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags
