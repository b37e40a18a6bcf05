"""Picture of the words that move a class most, over many rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sk_adalora.estimators.explanation import Explanation
from sk_adalora.runtime.html import html_table

from .displays import last_step
from .draw import VERMILION, blue_on, import_pyplot, ink_on, list_axes


class WordImportanceDisplay:
    """Picture of the words that move a prediction most, over many rows.

    A bar is the mean of a word's values over the rows that have it: how much the
    prediction is higher with the word than without it. Rows that have it several times
    count the sum. Small and capital letters count as one word.

    Make it with :meth:`from_estimator` or :meth:`from_explanations`.

    Parameters
    ----------
    words : sequence of str of shape (n_words,)
        The words, from the top of the picture on.
    importances : array-like of shape (n_words,)
        The mean value of each.
    n_rows : array-like of shape (n_words,)
        In how many rows each of them occurs.
    unit : str, default="prediction"
        What the values count.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes with the picture.
    figure_ : matplotlib Figure
        The figure around it, to save.
    bars_ : matplotlib BarContainer
        The bars.

    Examples
    --------
    >>> from sk_adalora import WordImportanceDisplay
    >>> display = WordImportanceDisplay(["goal", "bank"], [1.5, -0.5], [4, 2])
    >>> display.importances.tolist()
    [1.5, -0.5]
    """

    __module__ = "sk_adalora"  # where users import it from: for pickles

    def __init__(
        self,
        words: Sequence[str],
        importances: ArrayLike,
        n_rows: ArrayLike,
        *,
        unit: str = "prediction",
    ) -> None:
        self.words = list(words)
        self.importances = np.asarray(importances, dtype=float)
        self.n_rows = np.asarray(n_rows, dtype=int)
        self.unit = unit

    def _repr_html_(self) -> str:
        values = [f"{value:+.3f}" for value in self.importances]
        return html_table(self.unit, dict(zip(self.words, values, strict=True)))

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        target: Any,
        n_words: int = 15,
        min_rows: int = 2,
        ax: Any = None,
    ) -> Self:
        """Explain rows, and draw the words that move the prediction most.

        Parameters
        ----------
        estimator : estimator
            A fitted classifier or regressor of this package, or a pipeline or search
            that ends with one.
        X : array-like of str of shape (n_samples,), or table
            Texts or rows, in the form in which `fit` got them.
        target : object
            The class to explain, as in the estimator's `explain`; None for numbers or
            two classes.
        n_words : int, default=15
            How many words to draw.
        min_rows : int, default=2
            In how many rows a word must occur.
        ax : matplotlib Axes or None, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        display
            The display, drawn.

        Raises
        ------
        ValueError
            If no word occurs in `min_rows` rows, or `explain` refuses the arguments.
        ImportError
            If matplotlib is not installed.
        """
        estimator, X = last_step(estimator, X)
        explanations = estimator.explain(X, target=target)
        return cls.from_explanations(
            explanations, n_words=n_words, min_rows=min_rows, ax=ax
        )

    @classmethod
    def from_explanations(
        cls,
        explanations: Iterable[Explanation],
        *,
        n_words: int = 15,
        min_rows: int = 2,
        ax: Any = None,
    ) -> Self:
        """Draw the words that move the prediction most in what `explain` returned.

        Parameters
        ----------
        explanations : iterable of Explanation
            Explanations of the same target.
        n_words : int, default=15
            How many words to draw.
        min_rows : int, default=2
            In how many rows a word must occur.
        ax : matplotlib Axes or None, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        display
            The display, drawn.

        Raises
        ------
        ValueError
            If the rows explain different targets, or no word occurs in `min_rows` rows.
        ImportError
            If matplotlib is not installed.
        """
        rows = list(explanations)
        units = sorted({row.unit for row in rows})
        if len(units) > 1:
            raise ValueError(
                "`explanations` must be of the same target. Got "
                f"{', '.join(units[:5])}. Pass `target` to `explain`."
            )
        sums: dict[str, float] = defaultdict(float)
        counts: Counter[str] = Counter()
        for row in rows:
            words = [word.casefold() for word in row.words]
            for word, value in zip(words, row.values.tolist(), strict=True):
                sums[word] += value
            counts.update({word for word in words if any(map(str.isalnum, word))})
        means = {w: sums[w] / n for w, n in counts.items() if n >= min_rows}
        if not means:
            raise ValueError(
                f"`explanations` must have a word that occurs in {min_rows} rows. Got "
                f"{len(rows)} rows without one. Explain more rows, or lower `min_rows`."
            )
        # Of equal means, the word that comes first in the alphabet.
        strongest = sorted(means, key=lambda w: (-abs(means[w]), w))[:n_words]
        words = sorted(strongest, key=lambda w: (-means[w], w))
        display = cls(
            words, [means[w] for w in words], [counts[w] for w in words], unit=units[0]
        )
        return display.plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        display
            The display itself.

        Raises
        ------
        TypeError
            If `ax` is not Axes.
        ImportError
            If matplotlib is not installed.
        """
        plt = import_pyplot()
        if ax is None:
            size = (6.4, 1.2 + 0.28 * max(len(self.words), 4))
            _, ax = plt.subplots(figsize=size, layout="tight")
        (ax,) = list_axes(ax)
        raises = self.importances > 0
        colours = [VERMILION if above else blue_on(ax) for above in raises]
        places = np.arange(len(self.words))
        self.bars_ = ax.barh(places, self.importances, color=colours)
        names = [
            f"{word} ({n})" for word, n in zip(self.words, self.n_rows, strict=True)
        ]
        ax.set_yticks(places, names)
        ax.set_ylim(len(self.words) - 0.4, -0.6)  # the first on top
        ax.axvline(0, color=ink_on(ax), linewidth=0.8)
        ax.set_xlabel(f"change of the {self.unit} by the word (mean over its rows)")
        title = f"Words that move the {self.unit} most\n(in how many rows)"
        ax.set_title(title, loc="left", fontsize="medium")
        self.ax_, self.figure_ = ax, ax.figure
        return self
