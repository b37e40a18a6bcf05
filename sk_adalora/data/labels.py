"""Labels of any type: checked, read as they are, and weighted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from .cells import is_missing

# Types that hold several labels of one row. In a column of lists, NumPy makes arrays.
_SEVERAL = (set, frozenset, list, tuple, np.ndarray)


def check_labels(y: Any, name: str = "y") -> None:
    """Refuse what are no labels, and labels that are missing or of several types.

    An indicator matrix may be sparse. `name` is what the labels are called.
    """
    try:
        _check_labels(y, name)
    except TypeError:  # such as of dates beside numbers: say how many columns
        # Of a tensor, torch says what to do; of a matrix, scikit-learn.
        if not (hasattr(y, "detach") or isinstance(y, np.matrix)):
            _refuse_columns(y, name)
        raise


def _check_labels(y: Any, name: str) -> None:
    """Do the checks; a TypeError may be due to columns that make no array."""
    if hasattr(y, "tocoo") and y.ndim == 1:
        column_or_1d(y)  # refuses it; the check below would fail for want of rows
    stored = y.tocoo().data if hasattr(y, "tocoo") else y  # what is not stored is 0
    # As objects: among words in a list, NaN would become the word "nan".
    values = np.asarray(stored, dtype=object if isinstance(y, Sequence) else None)
    _refuse_missing(values, name)
    kinds = {type(v) for v in values.ravel()} if values.dtype == object else set()
    got = " and ".join(sorted(kind.__name__ for kind in kinds))
    if values.dtype.kind == "S" or any(issubclass(kind, bytes) for kind in kinds):
        raise TypeError(
            f"`{name}` must hold labels that are text, whole numbers or booleans, not "
            "bytes. Decode them first, for example with .decode('utf-8')."
        )
    if 0 < sum(issubclass(kind, str) for kind in kinds) < len(kinds):
        _refuse_columns(y, name)
        raise ValueError(  # of a list, NumPy would make the number 1 the word "1"
            f"`{name}` must hold labels of one type. Got {got}. Convert them, for "
            "example with str."
        )
    if isinstance(y, list | tuple):
        _refuse_cut(kinds, name)
    try:
        check_classification_targets(y)
    except ValueError as error:
        if "Unknown label type: unknown" not in str(error) or not kinds:
            raise
        do = f"Convert them, such as by np.array({name}).astype(int) or .astype(str)"
        if any(issubclass(kind, _SEVERAL) for kind in kinds):
            do = "Make an indicator matrix by sklearn.preprocessing.MultiLabelBinarizer"
            if isinstance(y, pa.Array | pa.ChunkedArray):  # whose items do not compare
                do += f"().fit_transform({name}.to_pylist())"
        raise ValueError(
            f"`{name}` must hold labels that are text, whole numbers or booleans. "
            f"Unknown label type: got objects of {got}. {do}."
        ) from error


def _refuse_missing(values: np.ndarray, name: str) -> None:
    """Refuse missing labels, which some containers would make into a class."""
    if values.dtype.kind == "f":
        missing = ~np.isfinite(values)
    elif values.dtype.kind in "mM":
        missing = np.isnat(values)
    elif values.dtype == object:
        missing = np.array([_tells_nothing(value) for value in values.ravel()], bool)
    else:
        return
    count = int(missing.sum())
    if count:
        raise ValueError(
            f"`{name}` must not hold NaN, infinity or missing values. Input {name} "
            f"contains NaN or such: got {count} of them. Drop those rows."
        )


def _refuse_cut(kinds: set[type], name: str) -> None:
    """Refuse string Enums that NumPy would cut: `str` of them is not their value."""
    for kind in kinds:
        if issubclass(kind, str) and issubclass(kind, Enum):
            cut = next((label for label in kind if str(label) != label.value), None)
            if cut is not None:
                raise ValueError(
                    f"`{name}` must hold labels that NumPy does not cut. Got a list of "
                    f"{kind.__name__}, such as {cut}, of which it keeps "
                    f"{str(cut)[: len(cut)]!r}. Pass their values: [label.value for "
                    f"label in {name}]."
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


def _refuse_columns(y: Any, name: str) -> None:
    """Refuse several columns."""
    shape = y.shape if hasattr(y, "shape") else np.asarray(y, dtype=object).shape
    if len(shape) == 2 and shape[1] > 1:
        do = "fit an estimator to each with sklearn.multioutput.MultiOutputClassifier"
        if isinstance(y, list | tuple):  # perhaps of tags, and as many in each row
            do += (
                ". If each row has several labels of one kind, make an indicator "
                "matrix by sklearn.preprocessing.MultiLabelBinarizer"
            )
        raise ValueError(
            f"`{name}` must have one label a row, or be a matrix of 0 and 1. "
            f"Got {shape[1]} columns of other labels. Pass one column, or {do}."
        )


def read_labels(y: Any, name: str = "y", warn: bool = False) -> np.ndarray:
    """Return the labels in the type that they came in, of shape (n_samples,)."""
    _refuse_columns(y, name)
    if hasattr(y, "iloc") and y.shape[1:] == (1,):  # a frame of one column
        column_or_1d(y[:0], warn=warn)
        y = y.iloc[:, 0]
    # scikit-learn would make floats of the integers and booleans of pandas' own types.
    own = getattr(getattr(y, "dtype", None), "numpy_dtype", np.dtype(object))
    if hasattr(getattr(y, "dtype", None), "categories"):
        y = np.asarray(y)
    elif own.kind in "biuf":
        y = y.to_numpy(dtype=own)
    return np.asarray(column_or_1d(y, warn=warn))


def as_set(labels: np.ndarray) -> set[Any]:
    """Return labels as values of Python, dates and durations alike in every unit.

    Those that differ from a whole microsecond are integers beside the others.
    """
    if labels.dtype.kind in "mM":
        values = labels.astype(f"{labels.dtype.kind}8[us]")
        whole = values.astype(labels.dtype) == labels
        return {*values[whole].tolist(), *labels[~whole].tolist()}
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
    # scikit-learn's own function would compare objects with all others.
    counts = np.bincount(codes, sample_weight)  # each class has a row
    present = counts > 0
    scaled = present.sum() * counts
    return np.divide(counts.sum(), scaled, out=np.ones(len(classes)), where=present)


def _given_weights(class_weight: Mapping[Any, Any], classes: np.ndarray) -> np.ndarray:
    """Look up the weight of each class, 1 where there is none."""
    # scikit-learn would look up the number 1 for the label "1", and fail for dates.
    weights, without, used = np.ones(len(classes)), [], set()
    for i, names in enumerate(zip(classes, classes.tolist(), strict=True)):
        key = next((name for name in names if name in class_weight), None)
        if key is None:
            without.append(names[1])
            continue
        used.add(key)
        try:
            weights[i] = float(class_weight[key])
        except (TypeError, ValueError):
            weights[i] = np.nan
    unknown = [label for label in class_weight if label not in used]
    if unknown and without:
        raise ValueError(
            f"`class_weight` must hold labels of `y`. Got {unknown[:5]}, which are "
            f"not in `y`, and no weight for {without[:5]}. Write the labels as they "
            "are in `y`."
        )
    return weights
