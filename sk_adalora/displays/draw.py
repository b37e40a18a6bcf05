"""Draw ranks, budgets and histories with matplotlib, which is imported then."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from operator import mul
from typing import Any

import numpy as np

from sk_adalora.training.rank_table import headline

# Okabe and Ito's colours, told apart with every kind of colour blindness.
BLUE, SKY, ORANGE, GREEN = "#0072B2", "#56B4E9", "#E69F00", "#009E73"
VERMILION = "#D55E00"  # dark enough for a line on white
GREY = "#8C8C8C"  # as far from black as from white
# Numbers smaller than this, in points, nobody can read: they are left out.
_SMALLEST = 5.5
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


# ---- what all pictures share ---------------------------------------------


def import_pyplot() -> Any:
    """Import matplotlib's pyplot, or say how to install it."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib. Got an environment without it. Run: "
            "pip install 'sk-adalora[plot]'"
        ) from error
    return pyplot


def list_axes(ax: Any, n_panels: int = 1, alone: str = "") -> np.ndarray:
    """Return the Axes to draw on: one, or as many as there are panels.

    `alone` is what is drawn where there is one Axes for several panels. Refuse other
    things than Axes, and another number of them.
    """
    from matplotlib.axes import Axes

    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    others = [type(one).__name__ for one in axes if not isinstance(one, Axes)]
    if others:
        raise TypeError(
            f"`ax` must be Axes of matplotlib. Got {others[0]}. Make them with "
            f"`_, ax = plt.subplots({n_panels if n_panels > 1 else ''})`."
        )
    if len(axes) not in {1, n_panels}:
        if n_panels == 1:
            allowed, do = "", "Pass one of them, such as `axes[0]`"
        else:
            allowed = f", for {alone} alone, or {n_panels} for all panels"
            do = f"Make them with `plt.subplots({n_panels})`"
        raise ValueError(f"`ax` must be one Axes{allowed}. Got {len(axes)}. {do}.")
    return axes


def text_colour(background: Any) -> str:
    """Return black or white, whichever is easier to read on a colour (from 0 to 1)."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in background[:3]
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Where WCAG's contrast with black equals that with white.
    return "black" if luminance > 0.179 else "white"


def paper_of(ax: Any) -> tuple[float, float, float]:
    """Return the colour behind an Axes; of a transparent one, what its texts need."""
    from matplotlib.colors import to_rgb

    *colour, alpha = ax.get_facecolor()
    seen = alpha == 1 and ax.get_frame_on()
    return to_rgb(colour if seen else text_colour(to_rgb(ax.title.get_color())))


def blue_on(ax: Any) -> str:
    """Return the blue that stands out on the background of an Axes."""
    return BLUE if text_colour(paper_of(ax)) == "black" else SKY


def ink_on(ax: Any) -> str:
    """Return the colour of text on an Axes; of a transparent one, its title's."""
    if ax.get_facecolor()[3] == 0:
        return ax.title.get_color()  # such as grey, which is for light and dark pages
    return text_colour(paper_of(ax))


def whole_numbers(axis: Any) -> None:
    """Keep the ticks of an axis at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


# ---- ranks ---------------------------------------------------------------


def draw_ranks(
    ranks: np.ndarray,
    layers: Sequence[Any],
    kinds: Sequence[str],
    *,
    initial: int | None,
    ax: Any,
    cmap: Any,
    colorbar: bool,
) -> tuple[Any, Any, np.ndarray]:
    """Draw the picture, as `RankAllocationDisplay.plot` says.

    Returns
    -------
    ax : Axes
    cells : QuadMesh
    numbers : ndarray of shape (n_layers, n_kinds)
        The texts in the cells; None where there is none.
    """
    plt = import_pyplot()
    cmap = plt.get_cmap(cmap)  # before a figure is made, which an error would leave
    if ax is None:
        n_layers, n_kinds = ranks.shape
        size = _figure_size(n_layers, n_kinds, max(map(len, map(str, layers))))
        _, ax = plt.subplots(figsize=size, layout="tight")
    (ax,) = list_axes(ax)
    cells = ax.pcolormesh(
        np.ma.masked_where(~(ranks > 0), ranks),
        cmap=cmap,
        vmin=0,
        vmax=initial or max(np.nanmax(ranks), 1),
    )
    width, height = _cell_size(ax, *ranks.shape)
    gap = {
        "edgecolor": paper_of(ax),
        "linewidth": float(np.clip(0.12 * (height - 4), 0, 1)),
    }
    cells.set(**gap)
    ax.set(
        xlim=(0, ranks.shape[1]),
        ylim=(ranks.shape[0], 0),  # the first layer on top, as in the table
        ylabel="layer (the input is on top)",
    )
    ax.grid(False)  # it would run through the numbers
    _hatch(ax, ranks, gap)
    numbers = _write_numbers(ax, ranks, cells, min(0.62 * height, 0.4 * width, 10))
    _name_rows(ax, layers, height)
    _name_columns(ax, kinds, width)
    title = headline(ranks[np.isfinite(ranks)].tolist(), initial)
    ax.set_title(title.replace(": ", ":\n"), loc="left", fontsize="medium")
    if colorbar:
        whole_numbers(ax.figure.colorbar(cells, ax=ax, label="rank left").ax.yaxis)
    return ax, cells, numbers


def animate_ranks(
    history: np.ndarray,
    steps: np.ndarray,
    layers: Sequence[Any],
    kinds: Sequence[str],
    *,
    initial: int,
    ax: Any,
    cmap: Any,
    colorbar: bool,
    interval: int,
) -> Any:
    """Draw a picture for each state, as `RankAllocationDisplay.animate` says."""
    import_pyplot()
    from matplotlib.animation import FuncAnimation

    draw = partial(draw_ranks, layers=layers, kinds=kinds, initial=initial, cmap=cmap)
    is_own = ax is None
    ax, *_ = draw(history[-1], ax=ax, colorbar=colorbar)
    if is_own:  # with the room of the last picture, which may explain hatches
        ax.figure.get_layout_engine().execute(ax.figure)
        ax.figure.set_layout_engine("none")

    def show(frame: int) -> None:
        ax.clear()
        draw(history[frame], ax=ax, colorbar=False)
        title = ax.get_title("left").replace(" now", f" after {steps[frame]} steps")
        ax.set_title(title, loc="left", fontsize="medium")

    return FuncAnimation(ax.figure, show, frames=len(history), interval=interval)


def _figure_size(n_layers: int, n_kinds: int, longest: int) -> tuple[float, float]:
    row = 0.3 if n_layers <= 24 else 0.22  # inches
    names = 0.1 * max(longest - 10, 0)  # of the rows; a number needs no room
    return max(5.5, 2 + 0.85 * n_kinds) + names, 1.8 + row * max(n_layers, 4)


def _cell_size(ax: Any, n_layers: int, n_kinds: int) -> tuple[float, float]:
    """Return width and height of a cell in points."""
    box = ax.get_window_extent()
    points = 72 / ax.figure.dpi
    return box.width * points / n_kinds, box.height * points / n_layers


def _hatch(ax: Any, ranks: np.ndarray, gap: dict[str, Any]) -> None:
    """Mark the matrices of rank 0, and say what that means."""
    from matplotlib.patches import Rectangle

    pruned = np.argwhere(ranks == 0)
    for row, column in pruned:
        hatched = {"edgecolor": GREY, "hatch": "////", "linewidth": 0}
        for look in (hatched, gap):
            ax.add_patch(Rectangle((column, row), 1, 1, facecolor="none", **look))
    if len(pruned):
        text = "hatched: no rank left, the matrix is as pretrained"
        ax.set_xlabel(text, fontsize="small")


def _write_numbers(
    ax: Any, ranks: np.ndarray, cells: Any, fontsize: float
) -> np.ndarray:
    numbers = np.full(ranks.shape, None, dtype=object)
    if fontsize < _SMALLEST:
        return numbers
    paper = {"facecolor": paper_of(ax), "edgecolor": "none", "pad": 0.8}
    for row, column in np.argwhere(np.isfinite(ranks)):
        rank = ranks[row, column]
        numbers[row, column] = ax.text(
            column + 0.5,
            row + 0.5,
            f"{rank:g}",
            ha="center",
            va="center_baseline",
            fontsize=fontsize,
            color=text_colour(cells.to_rgba(rank)) if rank else ink_on(ax),
            bbox=None if rank else paper,  # a number on hatches is hard to read
        )
    return numbers


def _name_rows(ax: Any, layers: Sequence[Any], height: float) -> None:
    fontsize = min(max(0.7 * height, 6), 10)
    every = max(1, int(np.ceil(fontsize / height)))
    shown = range(0, len(layers), every)
    ax.set_yticks([i + 0.5 for i in shown], [str(layers[i]) for i in shown])
    ax.tick_params(axis="y", length=0, labelsize=fontsize)
    stacks = [str(layer).rpartition(" ")[0] for layer in layers]
    for row in range(1, len(layers)):
        if stacks[row] != stacks[row - 1]:
            ax.axhline(row, color=ink_on(ax), linewidth=1.5)


def _name_columns(ax: Any, kinds: Sequence[str], width: float) -> None:
    fontsize = 9
    broken = [re.sub(r"(?<=[ +_.])(?=.)", "\n", kind) for kind in kinds]
    broken = [kind.replace(" \n", "\n") for kind in broken]
    longest = max(len(line) for name in broken for line in name.split("\n"))
    upright = longest * 0.6 * fontsize <= width
    ax.xaxis.tick_top()
    ax.set_xticks(np.arange(len(kinds)) + 0.5, broken if upright else list(kinds))
    ax.tick_params(
        axis="x", length=0, labelsize=fontsize, labelrotation=0 if upright else 90
    )


# ---- budget --------------------------------------------------------------


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


# ---- history -------------------------------------------------------------


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
