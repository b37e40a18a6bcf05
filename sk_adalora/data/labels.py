"""Labels of any type: checked, read as they are, and weighted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from .cells import is_missing


def check_labels(y: Any, name: str = "y") -> None:
    """Refuse what are no labels, and labels that are missing or of several types.

    An indicator matrix may be sparse. `name` is what the labels are called.
    """
    stored = y.tocoo().data if hasattr(y, "tocoo") else y  # what is not stored is 0
    # As objects: among words in a list, NaN would become the word "nan".
    values = np.asarray(stored, dtype=object if isinstance(y, Sequence) else None)
    _refuse_missing(values, name)
    kinds = {type(v) for v in values.ravel()} if values.dtype == object else set()
    got = " and ".join(sorted(kind.__name__ for kind in kinds))
    if 0 < sum(issubclass(kind, str) for kind in kinds) < len(kinds):
        raise ValueError(  # of a list, NumPy would make the number 1 the word "1"
            f"`{name}` must hold labels of one type. Got {got}. Convert them, for "
            "example with str."
        )
    try:
        check_classification_targets(y)
    except ValueError as error:
        if not kinds:
            raise
        raise ValueError(
            f"`{name}` must hold labels that are text, whole numbers or booleans. "
            f"Got objects of {got}: {error} Convert them, such as by .astype(int) or "
            ".astype(str). Of several labels a row, make an indicator matrix by "
            "sklearn.preprocessing.MultiLabelBinarizer."
        ) from error


def _refuse_missing(values: np.ndarray, name: str) -> None:
    """Refuse missing labels, which some containers would make into a class."""
    if values.dtype == object:
        missing = np.array([_tells_nothing(value) for value in values.ravel()], bool)
    elif values.dtype.kind in "fmM":
        missing = ~np.isfinite(values)
    else:
        return
    count = int(missing.sum())
    if count:
        raise ValueError(
            f"`{name}` must not hold NaN, infinity or missing values. Input {name} "
            f"contains NaN or such: got {count} of them. Drop those rows."
        )


def _tells_nothing(label: Any) -> bool:
    """Tell whether a label is missing or infinite."""
    return is_missing(label) or (
        isinstance(label, float | np.floating) and bool(np.isinf(label))
    )


def read_indicator(y: Any, name: str = "y") -> np.ndarray:
    """Return an indicator matrix as floats, of shape (n_samples, n_classes)."""
    if not hasattr(y, "toarray"):
        indicator = np.asarray(y).astype(np.float32)
    elif y.dtype == bool:  # a cell that is given twice is True, not 2
        indicator = y.toarray().astype(np.float32)
    else:
        indicator = y.astype(np.float32).toarray()
    # scikit-learn calls any two numbers an indicator: -1 and 1, say.
    others = indicator[(indicator != 0) & (indicator != 1)]
    if len(others):
        raise ValueError(
            f"`{name}` as an indicator matrix must hold 1 for yes and 0 for no. Got "
            f"{others[0]:g}. If 1 stands for yes in it, pass `{name} == 1`."
        )
    return indicator


def read_labels(y: Any, name: str = "y", warn: bool = False) -> np.ndarray:
    """Return the labels in the type that they came in, of shape (n_samples,)."""
    shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
    if len(shape) == 2 and shape[1] > 1:
        raise ValueError(
            f"`{name}` must have one label a row, or be a matrix of 0 and 1. Got "
            f"{shape[1]} columns of other labels. Pass one column, or fit an estimator "
            "to each with sklearn.multioutput.MultiOutputClassifier."
        )
    if hasattr(y, "iloc") and len(shape) == 2:  # a frame of one column
        column_or_1d(y[:0], warn=warn)
        y = y.iloc[:, 0]
    # scikit-learn would make floats of the integers and booleans of pandas' own types.
    own = getattr(getattr(y, "dtype", None), "numpy_dtype", np.dtype(object))
    if own.kind in "biuf":
        y = y.to_numpy(dtype=own)
    elif hasattr(getattr(y, "dtype", None), "categories"):
        y = np.asarray(y)
    return np.asarray(column_or_1d(y, warn=warn))


def as_set(labels: np.ndarray) -> set[Any]:
    """Return labels as values of Python."""
    return set(labels.tolist())


def in_order(labels: set[Any]) -> list[Any]:
    """Sort what `as_set` returned, one type after the other."""
    return sorted(labels, key=lambda label: (str(type(label)), label))


def class_weights(
    class_weight: Any,
    classes: np.ndarray,
    codes: np.ndarray,
    sample_weight: np.ndarray | None,
) -> np.ndarray:
    """Return a weight for each class; `codes` are the positions of the rows' classes.

    "balanced" stands for those of scikit-learn, without the rows of weight 0.
    """
    if not isinstance(class_weight, str):
        return _given_weights(class_weight, classes)
    counts = np.bincount(codes, sample_weight)  # each class has a row
    present = counts > 0
    scaled = present.sum() * counts
    return np.divide(counts.sum(), scaled, out=np.ones(len(classes)), where=present)


def _given_weights(class_weight: Mapping[Any, Any], classes: np.ndarray) -> np.ndarray:
    """Look up the weight of each class, 1 where there is none."""
    # scikit-learn's own function would look up the number 1 for the label "1".
    labels = classes.tolist()
    unknown = [label for label in class_weight if label not in labels]
    without = [label for label in labels if label not in class_weight]
    if unknown and without:
        raise ValueError(
            f"`class_weight` must hold labels of `y`. Got {unknown[:5]}, which are "
            f"not in `y`, and no weight for {without[:5]}. Write the labels as they "
            "are in `y`."
        )
    return np.array([float(class_weight.get(label, 1)) for label in labels])
