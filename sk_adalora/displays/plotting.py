"""What all pictures share: matplotlib, imported when one is drawn, and its colours."""

from __future__ import annotations

from typing import Any

import numpy as np

# Okabe and Ito's colours, told apart with every kind of colour blindness.
BLUE, SKY, ORANGE, GREEN = "#0072B2", "#56B4E9", "#E69F00", "#009E73"
VERMILION = "#D55E00"  # dark enough for a line on white
GREY = "#8C8C8C"  # as far from black as from white


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
    return BLUE if ink_on(ax) == "black" else SKY


def ink_on(ax: Any) -> str:
    """Return the colour of text on the background of an Axes."""
    return text_colour(paper_of(ax))


def whole_numbers(axis: Any) -> None:
    """Keep the ticks of an axis at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
