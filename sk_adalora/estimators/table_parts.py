"""The steps of a fit to a mixed table, and the parts whose predictions are blended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import clone, config_context
from sklearn.base import is_classifier, is_regressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.validation import _num_samples, has_fit_parameter

from sk_adalora.data.columns import Table, read_table
from sk_adalora.data.roles import (
    MOST_CATEGORIES,
    ROLES,
    MixedTable,
    Roles,
    find_roles,
    import_skrub,
)
from sk_adalora.data.rows import (
    check_targets,
    read_at_once,
    read_sample_weight,
    take_rows,
)
from sk_adalora.data.targets import Labels, Numbers, Targets
from sk_adalora.data.texts import check_column_of_texts, write_fields
from sk_adalora.runtime.messages import warn_user, write_lines

from .blend import Blended, blended
from .cross_fit import make_folds
from .encoder import AdaLoraEncoder
from .parameters import TABLE_PARTS
from .predicting import check_columns
from .table_report import TableFitReport

# Terms that half of a few rows would lack.
_FEW_ROWS = 200
_MOST_TERMS = 50_000
# Single letters and digits are words too, as in "rating: 5".
_WORD = r"(?u)\b\w+\b"
# Strengths of the linear models, on tables of films: the loss is flat around them.
_C = 3.0
_ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0)
# The default, and what a user makes of it: for several outputs there is one of each.
_WRAPPED = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)


@dataclass(frozen=True)
class TableRows:
    """Rows of a mixed table, read.

    Parameters
    ----------
    cells : MixedTable
        Texts, and what is not text.
    words : ndarray of shape (n_samples,), dtype object
        Each row as words.
    """

    cells: MixedTable
    words: np.ndarray

    def __len__(self) -> int:
        return len(self.words)

    def take(self, rows: np.ndarray) -> TableRows:
        """Return some of the rows."""
        return TableRows(self.cells.take(rows), self.words[rows])


@dataclass(frozen=True)
class TableFit:
    """What the parts of a fit share.

    Parameters
    ----------
    rows : TableRows
        The rows, without those of weight 0.
    blended : Blended
        What is predicted.
    coded : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        Their targets.
    weights : ndarray of shape (n_samples,) or None
        Their weights.
    folds : list of (ndarray, ndarray)
        Rows to fit to, and rows to predict.
    seed : int
        Of all that is random.
    """

    rows: TableRows
    blended: Blended
    coded: np.ndarray
    weights: np.ndarray | None
    folds: list[tuple[np.ndarray, np.ndarray]]
    seed: int

    def constants(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return what a learner of these rows need not learn."""
        return self.blended.constants(self.coded[rows])


def read_columns(estimator: Any, X: Any, *, reset: bool) -> tuple[Table, Roles]:
    """Read a table; find (`reset`) the roles of its columns, or check their names."""
    table = read_table(X)
    if table.is_1d:
        check_column_of_texts(table.columns[0], "auto")
    if not reset:
        table = table.called_as(getattr(estimator, "feature_names_in_", ()))
    check_columns(estimator, table.feature_names, len(table.columns), reset=reset)
    if reset:
        return table, find_roles(table, estimator.column_roles)
    return table, Roles(estimator.column_roles_, estimator._date_formats)


def read_cells(table: Table, roles: Roles) -> TableRows:
    """Read the cells of a table by the roles of its columns."""
    words = write_fields(table.columns).fill_null("").to_numpy(zero_copy_only=False)
    return TableRows(roles.read(table), words)


def read_fit(estimator: Any, X: Any, y: Any, sample_weight: Any) -> TableFit:
    """Check and read what the user gave, before anything is loaded."""
    table, roles = read_columns(estimator, X, reset=True)
    check_targets(y, table.n_rows, estimator)
    y = read_at_once(y)
    targets, coded = estimator._read_targets(y)
    weights = read_sample_weight(read_at_once(sample_weight), table.n_rows)
    class_weight = getattr(estimator, "class_weight", None)
    weights = targets.row_weights(coded, weights, class_weight)
    rows, used = read_cells(table, roles), _weighted(weights, table.n_rows)
    if weights is not None and len(used) < table.n_rows:
        rows, weights = rows.take(used), weights[used]
        targets, coded = estimator._read_targets(take_rows(y, used))
    # Only now: bad rows must not move a generator of the user's on.
    seed = int(check_random_state(estimator.random_state).randint(2**31 - 1))
    folds = _folds_of(estimator.cv, y, targets, coded.numpy(), used, seed)
    vars(estimator).update(
        column_roles_=roles.of,
        _date_formats=roles.date_formats,
        _targets=targets,
        **targets.attributes,
    )
    return TableFit(rows, blended(targets), coded.numpy(), weights, folds, seed)


def _weighted(weights: np.ndarray | None, n_rows: int) -> np.ndarray:
    """Return the positions of the rows with a weight above 0: at least two."""
    used = np.arange(n_rows) if weights is None else np.flatnonzero(weights)
    if len(used) < 2:
        raise ValueError(
            "At least 2 rows must have a weight above 0: some are fitted, and others "
            f"predicted. Got {len(used)} sample(s) of {n_rows}. Pass more rows, or "
            "raise some weights."
        )
    return used


def _folds_of(
    cv: Any, y: Any, targets: Targets, coded: np.ndarray, used: np.ndarray, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the folds of the rows that are used, by their positions among these."""
    if isinstance(cv, int | np.integer):
        return make_folds(cv, coded, targets, len(used), seed)
    n_rows = _num_samples(y)  # which the user's own folds are of
    position = np.full(n_rows, -1)
    position[used] = np.arange(len(used))
    folds = make_folds(cv, y, targets, n_rows, seed)
    of_used = [(position[rows], position[held]) for rows, held in folds]
    return [(rows[rows >= 0], held[held >= 0]) for rows, held in of_used]


def choose_parts(estimator: Any, rows: TableRows) -> tuple[str, ...]:
    """Return the parts that a table with these columns can have.

    Without other columns, the table's part would read what the text's reads.
    """
    if not rows.cells.texts.num_columns:
        warn_user(
            f"{type(estimator).__name__} found no column of text in X: it fits "
            "`final_estimator` alone. If a column is text, say so, such as by "
            "column_roles={'name': 'text'}."
        )
        return ("table",)
    without = {"table"} if rows.cells.others.columns.empty else set()
    if estimator.encoder is not None and not estimator.encoder.tune:
        without.add("text")  # a model that is not tuned predicts nothing
    parts = tuple(part for part in TABLE_PARTS if part in {*estimator.parts} - without)
    return parts or ("table",)


# ---- the text ---------------------------------------------------------------


@dataclass(frozen=True)
class Encoded:
    """What an encoder makes of the text columns.

    Parameters
    ----------
    predictions : ndarray of shape (n_samples, k) or None
        What a blend averages; None of a model that is not tuned.
    vectors : ndarray of shape (n_samples, n_components)
        Its vectors.
    """

    predictions: np.ndarray | None
    vectors: np.ndarray


def default_encoder() -> Any:
    """Return the encoder that `encoder=None` stands for."""
    return AdaLoraEncoder()


def make_encoder(estimator: Any, seed: int) -> Any:
    """Return a new encoder for a fit, without its folds."""
    encoder = default_encoder()
    if estimator.encoder is not None:
        encoder = clone(estimator.encoder)
    encoder.set_params(
        output="both" if encoder.tune else "vectors",
        target_type="continuous" if is_regressor(estimator) else "multiclass",
        verbose=max(encoder.verbose, estimator.verbose),
    )
    return _seeded(encoder, seed)


def encode_out_of_fold(encoder: Any, fit: TableFit) -> Encoded:
    """Fit an encoder, and encode each row by a model that was not tuned on it."""
    cv = encoder.cv
    encoder.set_params(cv=fit.folds)
    y = fit.blended.for_encoder(fit.coded)
    columns = encoder.fit_transform(fit.rows.cells.texts, y, fit.weights)
    encoder.set_params(cv=cv)  # a pickle needs no lists of rows
    return _split(encoder, columns, fit.blended)


def encode(encoder: Any, rows: TableRows, blended: Blended) -> Encoded:
    """Encode new rows."""
    return _split(encoder, encoder.transform(rows.cells.texts), blended)


def _split(encoder: Any, columns: Any, blended: Blended) -> Encoded:
    columns = np.asarray(columns)
    n_predictions = columns.shape[1] - encoder.n_components_
    predictions, vectors = np.split(columns, [n_predictions], axis=1)
    return Encoded(
        blended.from_encoder(predictions) if n_predictions else None, vectors
    )


# ---- the table, and words ---------------------------------------------------


def features_of(part: str, rows: TableRows, encoded: Encoded | None) -> Any:
    """Return what the learner of a part reads.

    The final estimator reads numbers, categories and dates, and vectors of the text.
    """
    import pandas as pd

    if part == "words":
        return rows.words
    if encoded is None:
        return rows.cells.others
    names = [f"adalora_vector_{i}" for i in range(encoded.vectors.shape[1])]
    index = rows.cells.others.index
    vectors = pd.DataFrame(encoded.vectors, columns=names, index=index)
    return pd.concat([rows.cells.others, vectors], axis=1)


def make_learner(part: str, estimator: Any, fit: TableFit) -> Pipeline:
    """Return a new learner for a part, which prepares what it reads."""
    targets = fit.blended.targets
    if part == "words":
        return make_words(targets, len(fit.rows))
    learner = prepare_for(_final_estimator(estimator, fit), targets)
    return _seeded(learner, fit.seed)


def make_words(targets: Targets, n_rows: int) -> Pipeline:
    """Return a linear model on counted words and pairs of words."""
    terms = TfidfVectorizer(
        ngram_range=(1, 2),
        token_pattern=_WORD,
        sublinear_tf=True,
        min_df=2 if n_rows > _FEW_ROWS else 1,
        max_features=_MOST_TERMS,
        dtype=np.float64,
    )
    if isinstance(targets, Numbers):
        return make_pipeline(terms, RidgeCV(_ALPHAS, cv=3))
    linear: Any = LogisticRegression(C=_C, max_iter=1000)
    several = isinstance(targets, Labels)
    return make_pipeline(terms, _for_each(linear, targets) if several else linear)


def default_final_estimator(estimator: Any) -> Any:
    """Return the learner that `final_estimator=None` stands for."""
    # A split for early stopping needs two rows of each class.
    if is_regressor(estimator):
        return HistGradientBoostingRegressor(early_stopping=False)
    return HistGradientBoostingClassifier(early_stopping=False)


def _final_estimator(estimator: Any, fit: TableFit) -> Any:
    """Return a new final estimator; refuse one that cannot do what is asked for."""
    kind = type(estimator).__name__
    if estimator.final_estimator is None:
        return default_final_estimator(estimator)
    final = clone(estimator.final_estimator)
    got = type(final).__name__
    classifies = not is_regressor(estimator)
    if not (is_classifier(final) if classifies else is_regressor(final)):
        wanted = "classifier" if classifies else "regressor"
        raise ValueError(
            f"`final_estimator` of {kind} must be a {wanted}. Got {got}. Pass a "
            f"{wanted} of scikit-learn's interface."
        )
    if classifies and not hasattr(final, "predict_proba"):
        raise ValueError(
            f"`final_estimator` of {kind} must have `predict_proba`. Got {got} "
            "without it. Pass another one, or wrap it in "
            "sklearn.calibration.CalibratedClassifierCV."
        )
    tags = get_tags(final)
    several = tags.classifier_tags.multi_label if classifies else _multi_output(tags)
    several = several or isinstance(final, _WRAPPED)
    if _has_several(fit.blended.targets) and not several:
        wrapper = "MultiOutputClassifier" if classifies else "MultiOutputRegressor"
        raise ValueError(
            "`final_estimator` must predict several outputs, as `y` has them. Got "
            f"{got}. Wrap it in sklearn.multioutput.{wrapper}."
        )
    last = final[-1] if isinstance(final, Pipeline) else final
    if fit.weights is not None and not has_fit_parameter(last, "sample_weight"):
        raise ValueError(
            "`final_estimator` must take `sample_weight`, as rows have weights by "
            f"`sample_weight` or `class_weight`. Got {got}. Pass another one, or no "
            "weights."
        )
    return final


def _multi_output(tags: Any) -> bool:
    return bool(tags.target_tags.multi_output)


def _has_several(targets: Targets) -> bool:
    numbers = isinstance(targets, Numbers) and targets.n_outputs > 1
    return numbers or isinstance(targets, Labels)


def prepare_for(final: Any, targets: Targets) -> Pipeline:
    """Put before a final estimator what prepares numbers, categories and dates."""
    learner: Pipeline = import_skrub().tabular_pipeline(final)
    vectorizer = learner[0]
    if vectorizer.cardinality_threshold == MOST_CATEGORIES:  # "below", and not "up to"
        vectorizer.set_params(cardinality_threshold=MOST_CATEGORIES + 1)
    if isinstance(vectorizer.low_cardinality, OneHotEncoder):
        # It would warn of categories that a fold, or a fit, has not seen.
        vectorizer.set_params(low_cardinality__drop=None)
    if _has_several(targets) and isinstance(final, _WRAPPED):
        learner.steps[-1] = (learner.steps[-1][0], _for_each(final, targets))
    return learner


def _for_each(learner: Any, targets: Targets) -> Any:
    """Fit one learner for each output."""
    with config_context(enable_metadata_routing=True):  # where a user has it on
        learner.set_fit_request(sample_weight=True)
    numbers = isinstance(targets, Numbers)
    return (MultiOutputRegressor if numbers else MultiOutputClassifier)(learner)


def _seeded(estimator: Any, seed: int) -> Any:
    """Seed all that is random in an estimator, and not seeded yet."""
    seeds = {
        name: seed
        for name, value in estimator.get_params().items()
        if name.split("__")[-1] == "random_state" and value is None
    }
    return estimator.set_params(**seeds)


def fit_learner(
    learner: Pipeline, X: Any, fit: TableFit, rows: np.ndarray | slice = slice(None)
) -> np.ndarray:
    """Fit a learner to some rows, of which `X` are the features.

    Returns
    -------
    ndarray of shape (k,)
        What it need not learn, as `Blended.constants`.
    """
    constants = fit.constants(rows)
    if np.isnan(constants).any():
        y = fit.blended.for_learner(fit.coded[rows], constants)
        weights = {} if fit.weights is None else {"sample_weight": fit.weights[rows]}
        # Step by step: a pipeline would ask for routing of the weights.
        learner[-1].fit(learner[:-1].fit_transform(X, y), y, **weights)
    return constants


def predict_learner(
    learner: Pipeline, X: Any, constants: np.ndarray, blended: Blended
) -> np.ndarray:
    """Return what is averaged, of shape (n_samples, k)."""
    predictions = np.tile(constants, (len(X), 1))
    learned = np.isnan(constants)
    if learned.any():
        predictions[:, learned] = blended.from_learner(learner, X, constants)
    return predictions


def predict_out_of_fold(learner: Pipeline, X: Any, fit: TableFit) -> np.ndarray:
    """Return what a learner predicts of each row when fitted to other rows."""
    predictions = np.empty((len(X), fit.blended.targets.n_outputs))
    for rows, held in fit.folds:
        of_fold = clone(learner)
        constants = fit_learner(of_fold, _take(X, rows), fit, rows)
        predictions[held] = predict_learner(
            of_fold, _take(X, held), constants, fit.blended
        )
    return predictions


def _take(X: Any, rows: np.ndarray) -> Any:
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


# ---- the blend --------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """The parts of a fit, not fitted yet.

    Parameters
    ----------
    names : tuple of str
        What is blended.
    encoder : AdaLoraEncoder or None
        Of the text; None if no part needs it.
    learners : dict of str to Pipeline
        Of the parts "table" and "words".
    """

    names: tuple[str, ...]
    encoder: Any
    learners: dict[str, Pipeline]


@dataclass(frozen=True)
class OutOfFold:
    """What the parts predict of rows that they were not fitted to.

    Parameters
    ----------
    predictions : dict of str to ndarray of shape (n_samples, k)
        By part.
    encoded : Encoded or None
        What the encoder made of the text.
    seconds : dict of str to float
        How long each part took so far.
    """

    predictions: dict[str, np.ndarray]
    encoded: Encoded | None
    seconds: dict[str, float]


def prepare_parts(estimator: Any, fit: TableFit) -> Parts:
    """Choose the parts, and make what each of them fits."""
    names = choose_parts(estimator, fit.rows)
    texts = fit.rows.cells.texts.num_columns
    learners = {
        name: make_learner(name, estimator, fit) for name in names if name != "text"
    }
    encodes = texts and names != ("words",)
    encoder = make_encoder(estimator, fit.seed) if encodes else None
    if estimator.verbose:
        found = estimator.column_roles_
        of_roles = ", ".join(f"{name} {role}" for name, role in found.items())
        write_lines(f"{len(fit.rows):,} rows of {of_roles}; parts {', '.join(names)}")
    return Parts(names, encoder, learners)


def blend_out_of_fold(estimator: Any, fit: TableFit, parts: Parts) -> OutOfFold:
    """Fit each part to the folds, and the encoder to all rows too."""
    predictions: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    encoded = None
    if parts.encoder is not None:
        start = time.perf_counter()
        n_fits = len(fit.folds) + 1
        _say(estimator, f"text: {n_fits} fits of the encoder ...")
        encoded = encode_out_of_fold(parts.encoder, fit)
        seconds["text"] = time.perf_counter() - start
        if "text" in parts.names and encoded.predictions is not None:
            predictions["text"] = encoded.predictions
    for name, learner in parts.learners.items():
        start = time.perf_counter()
        _say(estimator, f"{name}: {len(fit.folds)} fits to folds ...")
        X = features_of(name, fit.rows, encoded)
        predictions[name] = predict_out_of_fold(learner, X, fit)
        seconds[name] = time.perf_counter() - start
    in_order = {name: predictions[name] for name in parts.names}
    return OutOfFold(in_order, encoded, seconds)


def refit_parts(
    estimator: Any, fit: TableFit, parts: Parts, out_of_fold: OutOfFold
) -> None:
    """Fit to all rows what has a share, and keep it on the estimator."""
    shares = estimator.weights_
    shown = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
    _say(estimator, f"weights: {shown}; fitting to all rows ...")
    fitted: dict[str, Any] = {"table": None, "words": None}
    for name, learner in parts.learners.items():
        if shares[name]:
            start = time.perf_counter()
            X = features_of(name, fit.rows, out_of_fold.encoded)
            fit_learner(learner, X, fit)
            fitted[name] = learner
            out_of_fold.seconds[name] += time.perf_counter() - start
    estimator.encoder_ = parts.encoder
    estimator.final_estimator_ = fitted["table"]
    estimator.words_ = fitted["words"]
    estimator._constants = fit.constants()


def make_report(
    estimator: Any, fit: TableFit, out_of_fold: OutOfFold, start: float
) -> TableFitReport:
    """Summarise a fit that ends now, and began at `start`."""
    roles = Roles(estimator.column_roles_)
    predictions, shares = out_of_fold.predictions, estimator.weights_
    mean = sum(shares[name] * of_part for name, of_part in predictions.items())
    scores = {
        name: fit.blended.scores(of_part, fit.coded, fit.weights)
        for name, of_part in {**predictions, "blend": np.asarray(mean)}.items()
    }
    return TableFitReport(
        n_rows=len(fit.rows),
        columns={role: roles.named(role) for role in (*ROLES, "empty")},
        weights=dict(shares),
        scores=scores,
        part_seconds=dict(out_of_fold.seconds),
        seconds=time.perf_counter() - start,
    )


def predict_blend(estimator: Any, X: Any) -> np.ndarray:
    """Return the weighted mean of the parts' predictions, of shape (n_samples, k)."""
    rows = read_cells(*read_columns(estimator, X, reset=False))
    averaged, constants = blended(estimator._targets), estimator._constants
    shares = {name: share for name, share in estimator.weights_.items() if share}
    encoded = None
    if estimator.encoder_ is not None and {*shares} != {"words"}:
        encoded = encode(estimator.encoder_, rows, averaged)
    learners = {"table": estimator.final_estimator_, "words": estimator.words_}
    mean = np.zeros((len(rows), len(constants)))
    for name, share in shares.items():
        if name == "text":
            assert encoded is not None, "the text has an encoder"
            of_part = encoded.predictions
        else:
            features = features_of(name, rows, encoded)
            of_part = predict_learner(learners[name], features, constants, averaged)
        mean += share * of_part
    return mean


def _say(estimator: Any, text: str) -> None:
    if estimator.verbose:
        write_lines(text)
