"""Draw what changed over the steps of a training: the budget, and the history."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import mul
from typing import Any

import numpy as np

from .plotting import (
    GREEN,
    GREY,
    ORANGE,
    SKY,
    blue_on,
    import_pyplot,
    ink_on,
    list_axes,
    whole_numbers,
)

# Colour and meaning of the phases.
_PHASES = {
    "initial": (SKY, "every matrix at full rank"),
    "reduction": (ORANGE, "the least important ranks go"),
    "final": (GREEN, "what is left is trained on"),
}
# A phase of a smaller share of the steps has no room for its name.
_ROOM = 0.1
# More epochs than this are not marked: the marks would hide the curves.
_MOST_MARKS = 30


def draw_budget(
    planned: np.ndarray,
    phases: Sequence[str],
    actual: np.ndarray | None,
    n_matrices: int | None,
    ax: Any,
) -> Any:
    """Draw the total rank over the steps, as `BudgetDisplay.plot` says."""
    plt = import_pyplot()
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 4.4), layout="tight")
    (ax,) = list_axes(ax)
    for phase in _PHASES:
        _shade(ax, phase, np.flatnonzero(np.array(phases) == phase), len(phases))
    n_taken = 0 if actual is None else len(actual)
    steps = np.arange(max(len(planned), n_taken))  # some loops outlast their plan
    alone = "o" if len(planned) == 1 else None  # a line needs two points
    plan = {"color": blue_on(ax), "lw": 5, "alpha": 0.5, "marker": alone, "ms": 10}
    ax.step(steps[: len(planned)], planned, where="mid", label="planned", **plan)
    if actual is not None:
        taken = steps[:n_taken]
        line = {"color": ink_on(ax), "lw": 1.3, "marker": alone, "ms": 4}
        ax.step(taken, actual, where="mid", label="actual", **line)
        if 0 < n_taken < len(planned):
            end = (taken[-1], actual[-1])
            ax.plot(*end, "o", color=ink_on(ax), label="training ended here")
    average = "" if n_matrices is None else f", in {n_matrices} weight matrices"
    # A single step has the final rank already.
    start = f"{planned[0]} at the start, " if phases[0] == "initial" else ""
    ax.set_title(
        f"Rank of the whole model{average}:\n{start}{planned[-1]} at the end",
        loc="left",
        fontsize="medium",
    )
    ax.set(xlabel="optimizer step", ylabel="total rank")
    ax.set(xlim=(-0.5, len(steps) - 0.5), ylim=(0, 1.2 * max(planned)))
    whole_numbers(ax.xaxis)
    if n_matrices is not None:
        right = ax.secondary_yaxis(
            "right",
            functions=(partial(mul, 1 / n_matrices), partial(mul, n_matrices)),
        )
        right.set_ylabel("average rank of a matrix")
    if planned[len(planned) // 2] < 0.4 * max(planned):  # low from the middle on
        ax.legend(loc="upper right", bbox_to_anchor=(1, 0.92), fontsize="small")
    else:
        ax.legend(loc="lower left", fontsize="small")
    return ax


def _shade(ax: Any, phase: str, steps: np.ndarray, n_steps: int) -> None:
    """Shade one phase; name it on top if it is wide enough, and in the legend."""
    if not len(steps):
        return
    colour, meaning = _PHASES[phase]
    ax.axvspan(
        steps[0] - 0.5,
        steps[-1] + 0.5,
        color=colour,
        alpha=0.2,
        lw=0,
        label=f"{phase}: {meaning}",
    )
    if len(steps) >= _ROOM * n_steps:
        ax.text(
            (steps[0] + steps[-1]) / 2,
            0.97,
            phase,
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="top",
            color=ink_on(ax),
        )


def draw_history(
    *,
    loss: np.ndarray,
    orthogonality: np.ndarray,
    learning_rate: np.ndarray,
    score: np.ndarray,
    best_epoch: int | None,
    steps_per_epoch: int | None,
    ax: Any,
) -> np.ndarray:
    """Draw what `TrainingHistoryDisplay` holds, as its `plot` says."""
    if len(score) and steps_per_epoch is None:
        raise ValueError(
            "`steps_per_epoch` must be given to place the scores. Got None. Pass the "
            "number of optimizer steps of an epoch."
        )
    n_panels = 4 if len(score) else 3
    plt = import_pyplot()
    if ax is None:
        size = (7, 0.6 + 1.8 * n_panels)
        _, ax = plt.subplots(n_panels, sharex=True, figsize=size, layout="tight")
    axes = list_axes(ax, n_panels, alone="the loss")
    title = "Loss on the rows of each step (lower is better)"
    _draw_series(axes[0], loss, "loss", title, smooth=True)
    panels = list(axes[1:])
    if panels and len(score):
        _draw_score(panels.pop(0), score, best_epoch, steps_per_epoch)
    if panels:
        title = "Penalty that keeps the directions of an update apart"
        _draw_series(panels[0], orthogonality, "orthogonality", title)
        title = "Learning rate: how far a step goes"
        _draw_series(panels[1], learning_rate, "learning rate", title)
    marks = _marks(steps_per_epoch, len(loss))
    for one in axes:
        for step in marks:
            one.axvline(step - 0.5, color=GREY, lw=0.7, ls=":", zorder=0)
        # Maybe of a fit drawn before, and 0 if no step was ever taken.
        end = max(len(loss) - 1, one.dataLim.x1, 0) + 0.5
        # With scores, there is room for half a star at the last step.
        one.set_xlim(-0.5, end + (0.02 * (end + 0.5) if len(score) else 0))
        whole_numbers(one.xaxis)
    meaning = " (dotted: a new epoch begins)" if marks else ""
    axes[-1].set_xlabel(f"optimizer step{meaning}")
    axes[0].figure.align_ylabels(axes.tolist())
    return axes


def _draw_series(
    ax: Any, values: np.ndarray, name: str, title: str, smooth: bool = False
) -> None:
    """Draw a curve; a long noisy one pale, with its running mean."""
    window = len(values) // 20 if smooth else 1
    long = window >= 3
    colour = blue_on(ax)
    marker = "o" if len(values) == 1 else None  # a line needs two points
    width, alpha = (1, 0.35) if long else (1.5, 1)
    ax.plot(values, color=colour, alpha=alpha, lw=width, marker=marker)
    if long:
        mean = np.convolve(values, np.ones(window) / window, mode="valid")
        middle = np.arange(len(mean)) + (window - 1) / 2
        ax.plot(middle, mean, color=colour, label=f"mean of {window} steps")
        ax.legend(fontsize="small")
    ax.set_ylabel(name)
    ax.set_title(title, loc="left", fontsize="medium")


def _draw_score(
    ax: Any, score: np.ndarray, best_epoch: int | None, steps_per_epoch: Any
) -> None:
    ends = (np.arange(len(score)) + 1) * steps_per_epoch - 1
    ax.plot(ends, score, "o-", color=blue_on(ax))
    ax.margins(y=0.15)  # room for half a star
    if best_epoch is not None:
        finite = np.isfinite(score[best_epoch])
        why = "the best of the final phase" if finite else "the last (no finite score)"
        ax.plot(
            ends[best_epoch],
            score[best_epoch],
            "*",
            color=ORANGE,
            markeredgecolor=ink_on(ax),
            markersize=15,
            label=f"kept: epoch {best_epoch}, {why}",
        )
        ax.legend(fontsize="small")
    ax.set_ylabel("score")
    ax.set_title(
        "Score on rows that are not learned from (higher is better)",
        loc="left",
        fontsize="medium",
    )


def _marks(steps_per_epoch: int | None, n_steps: int) -> range:
    """Return the steps at which a new epoch begins; none if they are too many."""
    if not steps_per_epoch or n_steps > _MOST_MARKS * steps_per_epoch:
        return range(0)
    return range(steps_per_epoch, n_steps, steps_per_epoch)
