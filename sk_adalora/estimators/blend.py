"""What a blend averages, by the kind of targets, and the shares that suit best."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit, softmax
from sklearn.metrics import accuracy_score, r2_score

from sk_adalora.data.targets import Classes, Labels, Numbers, Targets

# No probability is taken to be smaller: a class may be missing in a fold.
_LEAST = 1e-6
# The log-odds of 0 and 1 are finite: those of this probability, and of 1 minus it.
_NEVER = 1e-12
# Parts of a smaller share are left out.
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Blended(ABC):
    """What is averaged: numbers, or the probabilities of classes or labels.

    `coded` are targets as `Targets` codes them, of shape (n,) or (n, k); predictions
    have shape (n, k).

    Parameters
    ----------
    targets : Targets
        What is predicted.
    """

    targets: Any

    def constants(self, coded: np.ndarray) -> np.ndarray:
        """Return what a learner need not learn, of shape (k,): NaN where it must."""
        return np.full(self.targets.n_outputs, np.nan)

    @abstractmethod
    def for_encoder(self, coded: np.ndarray) -> np.ndarray:
        """Return the targets to tune an encoder to."""

    @abstractmethod
    def from_encoder(self, columns: np.ndarray) -> np.ndarray:
        """Turn an encoder's predictions into what is averaged."""

    @abstractmethod
    def for_learner(self, coded: np.ndarray, constants: np.ndarray) -> np.ndarray:
        """Return the targets to fit a learner to."""

    @abstractmethod
    def from_learner(self, learner: Any, X: Any, constants: np.ndarray) -> np.ndarray:
        """Return what is averaged, as a fitted learner predicts it."""

    @abstractmethod
    def of_true(self, predictions: np.ndarray, coded: np.ndarray) -> np.ndarray:
        """Return what the loss reads, of shape (n, m)."""

    @abstractmethod
    def loss(self, of_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return losses of what :meth:`of_true` returned, and their derivatives."""

    @abstractmethod
    def scores(
        self, predictions: np.ndarray, coded: np.ndarray, weights: np.ndarray | None
    ) -> dict[str, float]:
        """Return scores by name."""

    @abstractmethod
    def decode(self, predictions: np.ndarray) -> np.ndarray:
        """Turn averages into what an estimator predicts."""

    @abstractmethod
    def measure(self, predictions: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Return one prediction of each row, as log-odds or in units of the target."""

    def choose_shares(
        self,
        predictions: dict[str, np.ndarray],
        coded: np.ndarray,
        weights: np.ndarray | None,
    ) -> dict[str, float]:
        """Choose the shares, at least 0 and 1 in all, whose mean has the least loss.

        Small ones become 0.
        """
        parts = np.stack([self.of_true(p, coded) for p in predictions.values()])
        of_rows = np.ones(len(coded)) if weights is None else weights
        of_rows = (of_rows / of_rows.sum())[:, None] / parts.shape[2]

        def objective(shares: np.ndarray) -> tuple[float, np.ndarray]:
            losses, slopes = self.loss(np.tensordot(shares, parts, 1))
            return (of_rows * losses).sum(), np.tensordot(parts, of_rows * slopes, 2)

        n_parts = len(predictions)
        found = minimize(
            objective,
            np.full(n_parts, 1 / n_parts),
            jac=True,
            method="SLSQP",
            bounds=[(0, 1)] * n_parts,
            constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1},
            options={"ftol": 1e-9},
        )
        shares = np.where(found.x < _LEAST_SHARE, 0, found.x)
        return dict(zip(predictions, (shares / shares.sum()).tolist(), strict=True))


class _Probabilities(Blended):
    """The loss is the logarithmic one of the true class's probability."""

    def measure(self, predictions: np.ndarray, which: np.ndarray) -> np.ndarray:
        one = predictions[np.arange(len(predictions)), which]
        log_odds: np.ndarray = logit(np.clip(one, _NEVER, 1 - _NEVER))
        return log_odds

    def loss(self, of_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probabilities = np.maximum(of_true, _LEAST)
        return -np.log(probabilities), -1 / probabilities

    def scores(
        self, predictions: np.ndarray, coded: np.ndarray, weights: np.ndarray | None
    ) -> dict[str, float]:
        hits = accuracy_score(coded, self._codes(predictions), sample_weight=weights)
        losses, _ = self.loss(self.of_true(predictions, coded))
        log_loss = np.average(losses.mean(axis=1), weights=weights)
        return {"accuracy": float(hits), "log loss": float(log_loss)}

    @staticmethod
    @abstractmethod
    def _codes(predictions: np.ndarray) -> np.ndarray:
        """Return the likeliest classes or labels."""


class _ClassesBlended(_Probabilities):
    def constants(self, coded: np.ndarray) -> np.ndarray:
        constants = super().constants(coded)
        if coded.min() == coded.max():  # in a fold, where the other class is rare
            constants = np.eye(len(constants))[coded[0]]
        return constants

    def for_encoder(self, coded: np.ndarray) -> np.ndarray:
        labels: np.ndarray = self.targets.classes[coded]
        return labels

    def from_encoder(self, columns: np.ndarray) -> np.ndarray:
        columns = columns.astype(np.float64)
        if columns.shape[1] == 1:  # the log-odds of the second class
            columns = np.hstack([np.zeros_like(columns), columns])
        probabilities: np.ndarray = softmax(columns, axis=1)
        return probabilities

    def for_learner(self, coded: np.ndarray, constants: np.ndarray) -> np.ndarray:
        return coded

    def from_learner(self, learner: Any, X: Any, constants: np.ndarray) -> np.ndarray:
        given = learner.predict_proba(X)
        probabilities = np.zeros((len(given), len(constants)))
        probabilities[:, np.asarray(learner.classes_, np.int64)] = given
        return probabilities

    def of_true(self, predictions: np.ndarray, coded: np.ndarray) -> np.ndarray:
        return np.take_along_axis(predictions, coded[:, None], 1)

    @staticmethod
    def _codes(predictions: np.ndarray) -> np.ndarray:
        codes: np.ndarray = predictions.argmax(axis=1)
        return codes

    def decode(self, predictions: np.ndarray) -> np.ndarray:
        labels: np.ndarray = self.targets.classes[self._codes(predictions)]
        return labels


class _LabelsBlended(_Probabilities):
    def constants(self, coded: np.ndarray) -> np.ndarray:
        low, high = coded.min(axis=0), coded.max(axis=0)
        return np.where(low == high, low, np.nan)

    def for_encoder(self, coded: np.ndarray) -> np.ndarray:
        return coded.astype(np.int64)

    def from_encoder(self, columns: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = expit(columns.astype(np.float64))
        return probabilities

    def for_learner(self, coded: np.ndarray, constants: np.ndarray) -> np.ndarray:
        return coded[:, np.isnan(constants)].astype(np.int64)

    def from_learner(self, learner: Any, X: Any, constants: np.ndarray) -> np.ndarray:
        given = learner.predict_proba(X)
        if isinstance(given, list):  # a pair of columns for each label
            given = np.column_stack([of_label[:, 1] for of_label in given])
        return np.asarray(given, np.float64)[:, -np.isnan(constants).sum() :]

    def of_true(self, predictions: np.ndarray, coded: np.ndarray) -> np.ndarray:
        return np.where(coded == 1, predictions, 1 - predictions)

    @staticmethod
    def _codes(predictions: np.ndarray) -> np.ndarray:
        return (predictions > 0.5).astype(int)

    def decode(self, predictions: np.ndarray) -> np.ndarray:
        return self._codes(predictions)


class _NumbersBlended(Blended):
    def for_encoder(self, coded: np.ndarray) -> np.ndarray:
        return coded.ravel() if self.targets.one_dimensional else coded

    def from_encoder(self, columns: np.ndarray) -> np.ndarray:
        return columns.astype(np.float64)

    def for_learner(self, coded: np.ndarray, constants: np.ndarray) -> np.ndarray:
        return coded.ravel() if coded.shape[1] == 1 else coded

    def from_learner(self, learner: Any, X: Any, constants: np.ndarray) -> np.ndarray:
        return np.asarray(learner.predict(X), np.float64).reshape(-1, len(constants))

    def of_true(self, predictions: np.ndarray, coded: np.ndarray) -> np.ndarray:
        spread = coded.std(axis=0)
        return (predictions - coded) / np.where(spread > 0, spread, 1)

    def loss(self, of_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return squares: the difference of a mean is the mean of differences."""
        return of_true**2, 2 * of_true

    def scores(
        self, predictions: np.ndarray, coded: np.ndarray, weights: np.ndarray | None
    ) -> dict[str, float]:
        return {"R2": float(r2_score(coded, predictions, sample_weight=weights))}

    def decode(self, predictions: np.ndarray) -> np.ndarray:
        return self.for_encoder(predictions)

    def measure(self, predictions: np.ndarray, which: np.ndarray) -> np.ndarray:
        one: np.ndarray = predictions[np.arange(len(predictions)), which]
        return one


_KINDS: dict[type[Targets], type[Blended]] = {
    Classes: _ClassesBlended,
    Labels: _LabelsBlended,
    Numbers: _NumbersBlended,
}


def blended(targets: Targets) -> Blended:
    """Return what a blend averages for these targets."""
    return _KINDS[type(targets)](targets)
