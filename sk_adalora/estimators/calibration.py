"""Probabilities and decisions, fitted to rows that the model has not learned from."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import precision_recall_curve
from torch import Tensor

from sk_adalora.data.targets import Classes, Labels
from sk_adalora.files.checkpoint import name_of_fold

from .fitting import Trained, train_on, without_fit
from .inputs import FitInputs, calibrates, set_targets
from .predicting import outputs_of

# Logarithms of the temperatures that are tried, and their precision.
_BOUNDS = (-5.0, 5.0)
_PRECISION = 1e-6


@dataclass(frozen=True)
class HeldOut:
    """What a model gives for rows that it has not learned from.

    Parameters
    ----------
    outputs : ndarray of shape (n_samples, n_outputs)
        Outputs of the head.
    coded : torch.Tensor of shape (n_samples,) or (n_samples, n_outputs)
        Targets, as they are trained on.
    weights : torch.Tensor of shape (n_samples,) or None
        Weights of the rows, or None where all are equal.
    """

    outputs: np.ndarray
    coded: Tensor
    weights: Tensor | None

    def loss(self, targets: Classes, temperature: float, coded: Tensor) -> float:
        """Return the mean log loss at a temperature."""
        outputs = torch.from_numpy(self.outputs).double() / temperature
        losses = targets.loss(outputs, coded).numpy()
        weights = None if self.weights is None else self.weights.numpy()
        return float(np.average(losses, weights=weights))


def fit_calibration(estimator: Any, inputs: FitInputs, trained: Trained) -> None:
    """Fit a temperature or thresholds, as a fitted classifier asks for."""
    if not calibrates(estimator):
        return
    start, ranks = time.perf_counter(), trained.run.ranks
    held: HeldOut | None
    if inputs.folds:
        held = _out_of_fold(estimator, inputs, trained)
    else:
        held = ranks.on_first(lambda: _validation_rows(estimator, inputs))
    targets, found = ranks.from_first(lambda: _fit(estimator, held))
    set_targets(estimator, targets)
    report = estimator.fit_report_
    seconds = report.seconds + time.perf_counter() - start
    estimator.fit_report_ = replace(report, seconds=seconds, calibration=found)


def _validation_rows(estimator: Any, inputs: FitInputs) -> HeldOut:
    assert inputs.held_out is not None, "early stopping has rows"
    X, y = inputs.held_out
    return HeldOut(estimator._predict_outputs(X), estimator._targets.code(y), None)


def _out_of_fold(estimator: Any, inputs: FitInputs, trained: Trained) -> HeldOut:
    """Fit to each fold anew, as to all rows, and predict the others."""
    examples = inputs.examples
    # With `warm_start`, too: what it would continue has learned from all rows.
    anew = without_fit(estimator)
    # Of fewer rows, "auto" would make more passes, after which a model is surer.
    anew.epochs = trained.run.schedule.epochs
    outputs = np.empty((len(inputs.used), anew._targets.n_outputs), np.float32)
    for number, (rows, held) in enumerate(inputs.folds):
        of_fold = train_on(anew, inputs, rows, name_of_fold(number)).predictor
        outputs[held] = inputs.compute(of_fold, held, outputs_of)
    return HeldOut(outputs, examples.targets, examples.weights)


def _fit(estimator: Any, held: HeldOut | None) -> tuple[Classes, dict[str, float]]:
    """Return targets with what was fitted, and what the report tells of it."""
    assert held is not None, "only the first rank fits"
    targets, found = estimator._targets, {}
    if estimator.calibrate:
        heat = best_temperature(targets, held)
        found = {
            "temperature": heat,
            "log loss": held.loss(targets, 1.0, held.coded),
            "calibrated log loss": held.loss(targets, heat, held.coded),
        }
        targets = replace(targets, temperature=heat)
    if estimator.thresholds:
        targets = replace(targets, thresholds=best_thresholds(targets, held))
    return targets, found


def best_temperature(targets: Classes, held: HeldOut) -> float:
    """Return the temperature of the least log loss.

    A share of 1 / (n + 1) of each target is split among the classes (Platt's rule):
    n rows that are all predicted right are no proof that none ever will be wrong.
    """
    soft = targets.soften(held.coded, 1 / (1 + len(held.outputs)))
    found = minimize_scalar(
        lambda log: held.loss(targets, math.exp(log), soft),
        bounds=_BOUNDS,
        method="bounded",
        options={"xatol": _PRECISION},
    )
    return math.exp(found.x)


def best_thresholds(targets: Labels, held: HeldOut) -> np.ndarray:
    """Return the threshold of the highest F1 of each label, of shape (n_labels,)."""
    weights = None if held.weights is None else held.weights.numpy()
    probabilities = np.exp(targets.log_probabilities(held.outputs))
    columns = zip(held.coded.numpy().T, probabilities.T, strict=True)
    return np.array([_best_threshold(yes, p, weights) for yes, p in columns])


def _best_threshold(
    yes: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None
) -> float:
    """Return the threshold of one label: midway between two probabilities.

    Of rows that are all alike there is nothing to learn: then it is 0.5.
    """
    if yes.min() == yes.max():
        return 0.5
    precision, recall, levels = precision_recall_curve(
        yes, probabilities, sample_weight=weights
    )
    best = int(((precision * recall) / (precision + recall + 1e-300))[:-1].argmax())
    below = levels[best - 1] if best else 0.0
    return float((levels[best] + below) / 2)
