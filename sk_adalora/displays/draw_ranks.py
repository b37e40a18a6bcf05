"""Draw a table of ranks as coloured cells with their numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from sk_adalora.training.rank_table import headline

from .plotting import (
    GREY,
    import_pyplot,
    ink_on,
    list_axes,
    paper_of,
    text_colour,
    whole_numbers,
)

# Numbers smaller than this, in points, nobody can read: they are left out.
_SMALLEST = 5.5


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
