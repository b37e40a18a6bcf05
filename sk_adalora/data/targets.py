"""What is predicted, classes, labels or numbers, and all that depends on which."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _num_samples
from torch import Tensor
from torch.nn import functional as F

from .labels import (
    as_set,
    check_labels,
    class_weights,
    in_order,
    read_indicator,
    read_labels,
)
from .numbers import read_numbers

# Rows per chunk, when outputs are turned into probabilities.
_ROWS = 1_000


@dataclass(frozen=True)
class Targets(ABC):
    """What a fit learns to predict: everything that depends on the kind of targets.

    `read_label_targets` and `read_number_targets` make one from `y`, with the targets
    of the rows as a tensor.
    """

    # What head_init="auto" stands for, and whether a random head predicts, too.
    head_init: ClassVar[str] = "linear_probe"
    random_head_predicts: ClassVar[bool] = False
    # Optimizer steps that epochs="auto" aims at (benchmarks/DEFAULTS.md).
    enough_steps: ClassVar[int] = 96

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Outputs of the head."""

    @property
    def n_classes(self) -> int:
        """Classes or labels, which `epochs="auto"` depends on."""
        return self.n_outputs

    @property
    @abstractmethod
    def problem_type(self) -> str:
        """The `problem_type` of the task in transformers' configurations."""

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """A name for each output, for programs that load an export."""

    @property
    def units(self) -> str:
        """How to convert outputs to the units of the targets; "" if not needed."""
        return ""

    @property
    def attributes(self) -> dict[str, Any]:
        """Public attributes of a fitted estimator."""
        return {}

    def to_state(self) -> dict[str, Any]:
        """Return plain values and arrays, which `from_state` reads."""
        return {"kind": type(self).__name__, **vars(self)}

    @abstractmethod
    def is_sound(self) -> bool:
        """Tell whether values that come from a file are what a fit leaves."""

    @staticmethod
    @abstractmethod
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each row, of shape (n,)."""

    @abstractmethod
    def check_continues(self, before: Targets) -> None:
        """Refuse targets other than those of the fit that `warm_start` continues."""

    @abstractmethod
    def check_validation(self, y: Any) -> None:
        """Refuse validation targets that do not match."""

    @abstractmethod
    def row_weights(
        self, coded: Tensor, sample_weight: np.ndarray | None, class_weight: Any
    ) -> np.ndarray | None:
        """Return a weight for each row, or None where all are equal."""

    def encode(
        self, coded: Tensor, weights: Tensor | None, before: Targets | None, own: bool
    ) -> tuple[Targets, Tensor]:
        """Return what the head is trained on, and the targets that decode it.

        Parameters
        ----------
        coded : torch.Tensor of shape (n_samples,) or (n_samples, n_outputs)
            Targets of the rows that are trained on.
        weights : torch.Tensor of shape (n_samples,) or None
            Their weights.
        before : Targets or None
            Those of the fit that this one continues.
        own : bool
            Whether the head is the model's own, which may be of any form.
        """
        return self, coded

    def output_factors(self, before: Targets) -> np.ndarray | None:
        """Return what outputs of the fit before are multiplied by, if not by 1."""
        return None

    def stratify(self, y: Any) -> Any:
        """Return the classes that stratify a validation split, or None."""
        return None

    def first_of_each(self, coded: Tensor) -> np.ndarray:
        """Return the position of the first row of each class, or with each label."""
        return np.zeros(0, np.int64)

    def to_score(self, y: Any) -> Any:
        """Return validation targets in a form that every scorer takes."""
        return y

    @abstractmethod
    def made_up_outputs(self, y: Any) -> np.ndarray:
        """Make up outputs of the head for these targets, to try a scorer with."""

    @abstractmethod
    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Turn outputs of the head, of shape (n, k), into predictions."""

    @abstractmethod
    def columns(self, outputs: np.ndarray) -> np.ndarray:
        """Turn outputs of the head into columns (n, p) that another model can use."""

    @property
    def column_names(self) -> list[str]:
        """Names of :meth:`columns`."""
        return self.names

    @property
    @abstractmethod
    def explainable(self) -> list[Any]:
        """What can be explained, a label or number for each output."""

    @abstractmethod
    def usually_explained(self, outputs: np.ndarray) -> np.ndarray:
        """Return the output that is explained of each row if none is named."""

    @abstractmethod
    def measure(self, outputs: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Return one output of each row, as log-odds or in units of the target."""


@dataclass(frozen=True)
class Classes(Targets):
    """One label a row.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        The labels in order, in the type that they came in.
    temperature : float or None, default=None
        What outputs are divided by, once it is fitted.
    """

    classes: np.ndarray
    temperature: float | None = None

    problem_type: ClassVar[str] = "single_label_classification"
    form: ClassVar[str] = "one label a row"

    @property
    def n_outputs(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> list[str]:
        return [str(label) for label in self.classes]

    @property
    def units(self) -> str:
        if self.temperature is None:
            return ""
        return f"Its outputs are to be divided by the temperature {self.temperature}."

    @property
    def attributes(self) -> dict[str, Any]:
        found = {"classes_": self.classes, "temperature_": self.temperature}
        return {name: value for name, value in found.items() if value is not None}

    def is_sound(self) -> bool:
        known = isinstance(self.classes, np.ndarray)
        if not known or self.classes.dtype.kind not in "biufUOmM":
            return False
        heat = self.temperature
        if heat is not None and not (type(heat) is float and 0 < heat < np.inf):
            return False
        labels = self.classes.tolist()
        least = 1 if isinstance(self, Labels) else 2
        distinct = len(set(labels)) == len(labels) >= least
        return distinct and all(label == label for label in labels)

    @staticmethod
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")

    def check_continues(self, before: Targets) -> None:
        assert isinstance(before, Classes), "a classifier has classes or labels"
        if type(self) is not type(before):
            raise ValueError(
                "With warm_start=True `y` must be of the form of the fit before: "
                f"{before.form}. Got {self.form}. Set warm_start=False to start anew."
            )
        old, new = as_set(before.classes), as_set(self.classes)
        if old != new:
            raise ValueError(
                f"With warm_start=True `y` must have the {len(old)} classes, or "
                f"columns, of the fit before. Got {len(new)}: missing "
                f"{in_order(old - new)[:5]}, new {in_order(new - old)[:5]}. Set "
                "warm_start=False to start anew; or, if none is new, add a row of "
                "weight 0, or a column of 0, for each."
            )

    def check_validation(self, y: Any) -> None:
        check_labels(y, "y_val")
        indicator = type_of_target(y, input_name="y_val") == "multilabel-indicator"
        self._check_form(y, indicator)
        labels = set() if indicator else as_set(read_labels(y, "y_val"))
        unknown = in_order(labels - as_set(self.classes))
        if unknown:
            raise ValueError(
                f"`y_val` must hold classes of `y`. Got {unknown[:5]}, which `y` does "
                "not have. Drop those rows, or pass rows of these classes to learn "
                "from."
            )

    def _check_form(self, y: Any, indicator: bool) -> None:
        alike = indicator == isinstance(self, Labels)
        if alike and indicator:
            alike = read_indicator(y, "y_val").shape[1] == len(self.classes)
        if not alike:
            raise ValueError(
                "`y_val` must be of the form of `y`: one label a row, or an indicator "
                "matrix with the same columns. Got another form. Code it as `y`."
            )

    def code(self, y: Any) -> Tensor:
        """Return validation targets in the form of those that are trained on."""
        return torch.from_numpy(np.searchsorted(self.classes, read_labels(y)))

    def soften(self, coded: Tensor, share: float) -> Tensor:
        """Return targets as probabilities (n, k), a share of which all classes split.

        Parameters
        ----------
        coded : torch.Tensor of shape (n,) or (n, n_labels)
            The targets.
        share : float
            What is taken from them, in [0, 1].
        """
        sure = F.one_hot(coded, len(self.classes)).double()
        return sure.lerp(torch.full_like(sure, 1 / len(self.classes)), share)

    def row_weights(
        self, coded: Tensor, sample_weight: np.ndarray | None, class_weight: Any
    ) -> np.ndarray | None:
        if class_weight is None:
            return sample_weight
        codes = coded.numpy()
        weights = class_weights(class_weight, self.classes, codes, sample_weight)
        if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.any()):
            raise ValueError(
                "`class_weight` must hold finite numbers of at least 0, and not all "
                f"0. Got {class_weight!r}. Change the weights."
            )
        of_rows = weights[codes]
        return of_rows if sample_weight is None else of_rows * sample_weight

    def stratify(self, y: Any) -> Any:
        return y

    def first_of_each(self, coded: Tensor) -> np.ndarray:
        return np.unique(coded.numpy(), return_index=True)[1]

    def made_up_outputs(self, y: Any) -> np.ndarray:
        return F.one_hot(self.code(y), len(self.classes)).float().numpy()

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        return self.classes[outputs.argmax(axis=1)]

    def columns(self, outputs: np.ndarray) -> np.ndarray:
        return self.decision(outputs).reshape(len(outputs), -1)

    @property
    def column_names(self) -> list[str]:
        return self.names if len(self.classes) > 2 else self.names[1:]

    @property
    def explainable(self) -> list[Any]:
        labels: list[Any] = self.classes.tolist()
        return labels

    def usually_explained(self, outputs: np.ndarray) -> np.ndarray:
        if outputs.shape[1] == 2:
            return np.ones(len(outputs), np.int64)
        return outputs.argmax(axis=1)

    def measure(self, outputs: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Return the log-odds of one class of each row."""
        others, rows = self._scaled(outputs), np.arange(len(outputs))
        one = others[rows, which]
        others[rows, which] = -np.inf
        difference: np.ndarray = one - logsumexp(others, axis=1)
        return difference

    def decision(self, outputs: np.ndarray) -> np.ndarray:
        """Return logits, or with two classes the log-odds of the second, in float64."""
        exact = self._scaled(outputs)
        return exact if len(self.classes) > 2 else exact[:, 1] - exact[:, 0]

    def _scaled(self, outputs: np.ndarray) -> np.ndarray:
        """Return outputs divided by the temperature, a copy in float64."""
        # scikit-learn's calibration computes in the type that it gets.
        exact = outputs.astype(np.float64)
        return exact if self.temperature is None else exact / self.temperature

    def log_probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Return the logarithms of the probabilities, of shape (n, k), in float64."""
        values, heat = torch.from_numpy(outputs), self.temperature or 1.0
        logs = values.new_empty(values.shape, dtype=torch.float64)
        # In chunks: else, doubles of all outputs would be in memory twice.
        for rows, of_rows in zip(values.split(_ROWS), logs.split(_ROWS), strict=True):
            of_rows.copy_(self._log_probabilities(rows.double() / heat))
        return logs.numpy()

    @staticmethod
    def _log_probabilities(outputs: Tensor) -> Tensor:
        return outputs.log_softmax(dim=1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return the probabilities, of shape (n, k), in the precision of `outputs`."""
        return (outputs / (self.temperature or 1.0)).softmax(dim=1)


@dataclass(frozen=True)
class Labels(Classes):
    """Several labels a row, or none: an indicator matrix.

    Parameters
    ----------
    classes : ndarray of shape (n_labels,)
        The numbers of its columns.
    temperature : float or None, default=None
        What outputs are divided by, once it is fitted.
    thresholds : ndarray of shape (n_labels,) or None, default=None
        The least probability of each label for a yes, once they are fitted; None is
        above 0.5.
    """

    thresholds: np.ndarray | None = None

    problem_type: ClassVar[str] = "multi_label_classification"
    form: ClassVar[str] = "an indicator matrix"

    @staticmethod
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean binary cross-entropy of each row."""
        losses = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        return losses.mean(dim=1)

    @property
    def attributes(self) -> dict[str, Any]:
        levels = self.thresholds
        own = {} if levels is None else {"thresholds_": levels}
        return {**super().attributes, **own}

    def is_sound(self) -> bool:
        levels = self.thresholds
        if levels is not None:
            known = isinstance(levels, np.ndarray) and levels.dtype == np.float64
            if not known or levels.shape != self.classes.shape:
                return False
            if not ((levels >= 0) & (levels <= 1)).all():
                return False
        return super().is_sound()

    def code(self, y: Any) -> Tensor:
        return torch.from_numpy(read_indicator(y))

    def soften(self, coded: Tensor, share: float) -> Tensor:
        sure = coded.double()
        return sure.lerp(torch.full_like(sure, 0.5), share)

    def row_weights(
        self, coded: Tensor, sample_weight: np.ndarray | None, class_weight: Any
    ) -> np.ndarray | None:
        if class_weight is not None:
            raise ValueError(
                "`class_weight` needs one label a row. Got an indicator matrix as "
                "`y`. Use `sample_weight`."
            )
        return sample_weight

    def stratify(self, y: Any) -> Any:
        return None

    def first_of_each(self, coded: Tensor) -> np.ndarray:
        present = coded[:, (coded > 0).any(dim=0)]
        return np.unique(present.argmax(dim=0).numpy())

    def to_score(self, y: Any) -> Any:
        # Of pandas' nullable types, scikit-learn's scores take no indicator matrix.
        return read_indicator(y, "y_val").astype(np.int64)

    def made_up_outputs(self, y: Any) -> np.ndarray:
        return 2 * read_indicator(y) - 1

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        if self.thresholds is None:
            return (outputs > 0).astype(int)
        return (np.exp(self.log_probabilities(outputs)) >= self.thresholds).astype(int)

    @property
    def column_names(self) -> list[str]:
        return self.names

    def usually_explained(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.argmax(axis=1)

    def measure(self, outputs: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Return the log-odds of one label of each row."""
        return self.decision(outputs)[np.arange(len(outputs)), which]

    def decision(self, outputs: np.ndarray) -> np.ndarray:
        """Return the log-odds of each label."""
        return self._scaled(outputs)

    @staticmethod
    def _log_probabilities(outputs: Tensor) -> Tensor:
        return F.logsigmoid(outputs)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return the probability of each label, in the precision of `outputs`."""
        return (outputs / (self.temperature or 1.0)).sigmoid()


def read_label_targets(y: Any) -> tuple[Targets, Tensor]:
    """Read labels, or an indicator matrix.

    Returns
    -------
    targets : Classes or Labels
    coded : torch.Tensor of shape (n_samples,) or (n_samples, n_labels)
        The positions of the rows' classes, or 1 for yes and 0 for no.
    """
    check_labels(y)
    if type_of_target(y, input_name="y") == "multilabel-indicator":
        indicator = read_indicator(y)
        return Labels(np.arange(indicator.shape[1])), torch.from_numpy(indicator)
    classes, codes = np.unique(read_labels(y, warn=True), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            "`y` must have at least 2 classes. Got 1 class: "
            f"{classes.tolist()[0]!r}. Pass rows of another class too."
        )
    return Classes(classes), torch.from_numpy(codes.astype(np.int64))


@dataclass(frozen=True)
class Numbers(Targets):
    """One or several numbers a row, which the head predicts standardised.

    Parameters
    ----------
    one_dimensional : bool
        Whether `y` had one dimension, as predictions shall have.
    mean, scale : ndarray of shape (n_outputs,)
        What is taken off each target, and what the difference is divided by: 0 for a
        target of equal numbers, which is predicted as it is.
    """

    # On numbers, a probe overfits, and so do many steps (benchmarks/DEFAULTS.md). A
    # random head, too, starts around the mean.
    head_init: ClassVar[str] = "random"
    random_head_predicts: ClassVar[bool] = True
    enough_steps: ClassVar[int] = 32
    n_classes: ClassVar[int] = 1  # numbers need no more, however many per row
    problem_type: ClassVar[str] = "regression"

    one_dimensional: bool
    mean: np.ndarray
    scale: np.ndarray

    @property
    def n_outputs(self) -> int:
        return len(self.mean)

    def is_sound(self) -> bool:
        arrays = (self.mean, self.scale)
        if not all(isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in arrays):
            return False
        finite = all(bool(np.isfinite(a).all()) for a in arrays)
        alike = len(self.mean) == len(self.scale) >= 1
        one = type(self.one_dimensional) is bool and (
            not self.one_dimensional or len(self.mean) == 1
        )
        return finite and alike and one and bool((self.scale >= 0).all())

    @property
    def names(self) -> list[str]:
        return [f"target_{i}" for i in range(self.n_outputs)]

    @property
    def units(self) -> str:
        mean, scale = self.mean.tolist(), self.scale.tolist()
        return (
            "Its outputs are standardised: the numbers are "
            f"`output * {scale} + {mean}`."
        )

    @staticmethod
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error of each row."""
        return (outputs - targets).square().mean(dim=1)

    def check_continues(self, before: Targets) -> None:
        if self.n_outputs != before.n_outputs:
            raise ValueError(
                "With warm_start=True `y` must have the number of targets of the fit "
                f"before: {before.n_outputs}. Got {self.n_outputs}. Set "
                "warm_start=False to start anew."
            )

    def check_validation(self, y: Any) -> None:
        values = read_numbers(y, "y_val")
        n_columns = 1 if values.ndim == 1 else values.shape[1]
        if n_columns != self.n_outputs:
            raise ValueError(
                f"`y_val` must have as many columns as `y`: {self.n_outputs}. Got "
                f"{n_columns}. Pass one column a target."
            )

    def row_weights(
        self, coded: Tensor, sample_weight: np.ndarray | None, class_weight: Any
    ) -> np.ndarray | None:
        return sample_weight

    def encode(
        self, coded: Tensor, weights: Tensor | None, before: Targets | None, own: bool
    ) -> tuple[Targets, Tensor]:
        """Standardise the targets by the rows that are trained on."""
        values = coded.numpy()
        row_weights = None if weights is None else weights.double().numpy()
        if row_weights is not None and np.all(row_weights == row_weights[0]):
            row_weights = None  # the same to the last bit as without weights
        mean, scale = _mean_and_scale(values, row_weights)
        fitted = replace(self, mean=mean, scale=scale)
        if isinstance(before, Numbers):
            fitted = fitted._widened(before, own)
        varied = fitted.scale > 0  # equal numbers may differ by rounding
        differences = np.where(varied, values - fitted.mean, 0.0)
        scaled = differences / np.where(varied, fitted.scale, 1.0)
        return fitted, torch.from_numpy(scaled.astype(np.float32))

    def _widened(self, before: Numbers, own: bool) -> Numbers:
        """Learn the units of targets that were constant; widen those of the others.

        Far outside the scale of the fit before, the rates would hardly move anything.
        (In a narrower one, they could not mend what a wider one left.) Predictions
        stay: the head's outputs shrink as their scale grows.
        """
        varied = before.scale > 0
        reach = np.hypot(self.scale, self.mean - before.mean)
        wider = before.scale if own else np.maximum(before.scale, reach)
        mean = np.where(varied, before.mean, self.mean)
        return replace(self, mean=mean, scale=np.where(varied, wider, self.scale))

    def output_factors(self, before: Targets) -> np.ndarray | None:
        assert isinstance(before, Numbers), "a regressor predicts numbers"
        if not np.any(self.scale > before.scale):
            return None
        varied = before.scale > 0
        ones = np.ones_like(self.scale)
        return np.divide(before.scale, self.scale, out=ones, where=varied)

    def made_up_outputs(self, y: Any) -> np.ndarray:
        return np.zeros((_num_samples(y), self.n_outputs))  # the mean of targets

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        values = outputs.astype(np.float64)
        values *= self.scale
        values += self.mean
        return values.ravel() if self.one_dimensional else values

    def columns(self, outputs: np.ndarray) -> np.ndarray:
        return self.decode(outputs).reshape(len(outputs), -1)

    @property
    def explainable(self) -> list[Any]:
        return list(range(self.n_outputs))

    def usually_explained(self, outputs: np.ndarray) -> np.ndarray:
        return np.zeros(len(outputs), np.int64)

    def measure(self, outputs: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Return one number of each row."""
        return self.columns(outputs)[np.arange(len(outputs)), which]


def _mean_and_scale(
    values: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each target."""
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
    mean = np.where(spreads, np.ldexp(mean, exponent), equal)
    return mean, np.where(spreads, scale, 0.0)


def read_number_targets(y: Any) -> tuple[Targets, Tensor]:
    """Read numbers.

    Returns
    -------
    targets : Numbers
        Not yet standardised: `encode` does it.
    coded : torch.Tensor of shape (n_samples, n_outputs), dtype float64
    """
    values = read_numbers(y, "y")
    one_dimensional = values.ndim == 1
    values = values.reshape(len(values), -1)
    zeros = np.zeros(values.shape[1])
    # Torch takes no array of negative strides, such as a reversed Series.
    return Numbers(one_dimensional, zeros, zeros + 1), torch.from_numpy(values.copy())


_KINDS: dict[str, type[Targets]] = {
    kind.__name__: kind for kind in (Classes, Labels, Numbers)
}


def from_state(state: dict[str, Any]) -> Targets:
    """Make targets of what `Targets.to_state` returned.

    Raises
    ------
    KeyError, TypeError
        If values are missing, or others are there.
    """
    values = dict(state)
    return _KINDS[values.pop("kind")](**values)
