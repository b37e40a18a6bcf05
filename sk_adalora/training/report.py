"""What a fit used, as a small table: FitReport."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields

import numpy as np
import torch

from .loop import TrainingRun


@dataclass(frozen=True)
class FitReport:
    """What a fit read and used; `print` shows it as a table.

    Attributes
    ----------
    n_rows : int
        Number of rows trained on.
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
    """

    n_rows: int
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

    def __str__(self) -> str:
        rows = []
        for field in fields(self):
            value = getattr(self, field.name)
            shown = f"{value:,}" if isinstance(value, int) else value
            if isinstance(value, float):
                shown = f"{value:,.0f}" if value >= 999.5 else f"{value:.3g}"
            rows.append(f"{field.name:<21}{shown:>12}")
        return "\n".join(rows)


def make_report(run: TrainingRun, n_empty: int, start: float) -> FitReport:
    """Summarise a fit that ends now.

    It began at `start`, by `time.perf_counter`.
    """
    network, tokens, compute = run.network, run.examples.tokens, run.compute
    lengths = tokens.lengths
    # A length that some row has: more than a tenth may exceed what lies between two.
    p90 = np.quantile(lengths, 0.9, method="inverted_cdf")
    return FitReport(
        n_rows=len(tokens),
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
    )
