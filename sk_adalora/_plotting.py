"""What all pictures share: matplotlib, imported when one is drawn, and its colours."""

from __future__ import annotations

from typing import Any

# Okabe and Ito's colours, told apart with every kind of colour blindness.
BLUE, SKY, ORANGE, GREEN = "#0072B2", "#56B4E9", "#E69F00", "#009E73"
GREY = "#8C8C8C"  # as far from black as from white


def import_pyplot() -> Any:
    """Import matplotlib's pyplot.

    Returns
    -------
    module

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib. Got an environment without it. Run: "
            "pip install 'sk-adalora[plot]'"
        ) from error
    return pyplot


def text_colour(background: Any) -> str:
    """Return black or white, whichever is easier to read on a colour.

    Parameters
    ----------
    background : tuple of float
        Red, green and blue, from 0 to 1.

    Returns
    -------
    {"black", "white"}
    """
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in background[:3]
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Where WCAG's contrast with black equals that with white.
    return "black" if luminance > 0.179 else "white"


def blue_on(ax: Any) -> str:
    """Return the blue that stands out on the background of an Axes."""
    return BLUE if text_colour(ax.get_facecolor()) == "black" else SKY


def ink_on(ax: Any) -> str:
    """Return the colour of text on the background of an Axes."""
    return text_colour(ax.get_facecolor())


def whole_numbers(axis: Any) -> None:
    """Keep the ticks of an axis at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))
