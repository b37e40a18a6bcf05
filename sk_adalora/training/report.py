"""What a fit used, as a small table: FitReport."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from sk_adalora.runtime.html import html_table

from .loop import TrainingRun


@dataclass(frozen=True)
class FitReport:
    """What a fit read and used; `print` shows it as a table.

    Attributes
    ----------
    n_given : int
        Number of rows that `fit` got.
    n_rows : int
        Number of rows to train on: without those of weight 0 and those to validate on,
        and with `max_steps` perhaps a draw of them.
    seen_share : float
        Part of the given rows that training has seen.
    n_steps : int
        Number of optimizer steps taken.
    n_distinct : int
        Number of distinct texts among them.
    n_empty : int
        Number of rows whose text is missing, empty or blank.
    tokens_median, tokens_p90, tokens_max : int
        Tokens of a row after cutting: the median, the number that nine tenths of the
        rows do not exceed, and the maximum.
    truncated_share : float
        Share of the rows that were longer than `max_length`, whatever `long_text` is.
    max_length : int
        Longest text in tokens: the parameter, or less if the model takes less.
    device, precision : str
        Where the fit computed, and with which number format.
    n_threads : int
        Threads of torch's on the CPU when the fit ended.
    trainable_parameters, total_parameters : int
        How many numbers were trained when the fit ended, after pruning, and how many
        the whole network has.
    seconds : float
        How long the whole fit took.
    columns : dict of str to str
        What each column of a table holds, by its name: "text", "number", "date" (or
        time), "boolean" or "category". Empty for one text a row.
    calibration : dict of str to float
        Of a calibrated classifier, the "temperature", and the "log loss" and the
        "calibrated log loss" of the rows that it was fitted to; otherwise empty.
    """

    n_given: int
    n_rows: int
    seen_share: float
    n_steps: int
    n_distinct: int
    n_empty: int
    tokens_median: int
    tokens_p90: int
    tokens_max: int
    truncated_share: float
    max_length: int
    device: str
    precision: str
    n_threads: int
    trainable_parameters: int
    total_parameters: int
    seconds: float
    columns: dict[str, str]
    calibration: dict[str, float]

    def __str__(self) -> str:
        table = self._table()
        return "\n".join(f"{name:<21}{_shown(x):>12}" for name, x in table.items())

    def _repr_html_(self) -> str:
        shown = {name: _shown(value) for name, value in self._table().items()}
        return html_table(type(self).__name__, shown)

    def _table(self) -> dict[str, Any]:
        table = {field.name: getattr(self, field.name) for field in fields(self)}
        roles = Counter(table.pop("columns").values())
        calibration = table.pop("calibration")
        if roles:
            table["columns"] = roles.total()
            table |= {f"  {role}": count for role, count in roles.most_common()}
        return table | calibration


def _shown(value: int | float | str) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 999.5 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else value


def make_report(
    run: TrainingRun,
    n_given: int,
    n_empty: int,
    columns: dict[str, str],
    start: float,
) -> FitReport:
    """Summarise a fit that ends now, of texts with these empty ones and columns.

    It began at `start`, by `time.perf_counter`.
    """
    network, tokens, compute = run.network, run.examples.tokens, run.compute
    lengths = tokens.lengths
    seen = min(1.0, run.step / run.steps_per_epoch)
    # A length that some row has: more than a tenth may exceed what lies between two.
    p90 = np.quantile(lengths, 0.9, method="inverted_cdf")
    return FitReport(
        n_given=n_given,
        n_rows=len(tokens),
        seen_share=seen * len(tokens) / n_given,
        n_steps=run.step,
        n_distinct=len(tokens.starts),
        n_empty=n_empty,
        tokens_median=int(np.median(lengths)),
        tokens_p90=int(p90),
        tokens_max=int(lengths.max()),
        truncated_share=tokens.truncated_share,
        max_length=tokens.max_length,
        device=str(compute.device),
        precision=compute.precision,
        n_threads=torch.get_num_threads(),
        trainable_parameters=sum(p.numel() for p in run.parameters),
        total_parameters=sum(p.numel() for p in network.parameters()),
        seconds=time.perf_counter() - start,
        columns=columns,
        calibration={},
    )
