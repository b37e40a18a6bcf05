"""What moved a prediction: words and columns with their values, as data and as HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, overload

import numpy as np

# Orange and blue are told apart with every kind of colour blindness. They are mixed
# with the page's own colour, so that its text stays readable on them, light or dark.
_RAISES, _LOWERS = "230, 97, 0", "0, 114, 178"
_STRONGEST = 0.6  # opacity of the word that moved the output most
# More rows, a page does not show; and more words, a terminal does not.
_MOST_ROWS, _MOST_WORDS = 20, 12


@dataclass(frozen=True, eq=False)
class Explanation:
    """How much each word and each column of one row moved a prediction.

    `print` it for a list of the strongest words. In a notebook, it is the text, tinted.

    Parameters
    ----------
    target : object
        The class, label or number of the column that is explained.
    unit : str
        What the values count: log-odds of a class, or units of the target.
    output : float
        What the estimator predicts of the row, in that unit.
    words : list of str
        The words of the text columns, in reading order. Punctuation is a word of its
        own, and so is each occurrence of a word.
    values : ndarray of shape (n_words,)
        By how much `output` is higher with the word than without it.
    columns : list of str of shape (n_words,)
        The column of each word.
    spans : ndarray of shape (n_words, 2)
        Where each word begins and ends in the text of its column.
    texts : dict of str to str
        The text of each text column that has one, by the column's name; "X" where the
        input has no columns.
    cells : dict of str to object
        The cells of the other columns, and None for what is missing.
    column_values : dict of str to float
        By how much `output` is higher with the column's cell than with a missing one.

    Examples
    --------
    >>> explanation = classifier.explain(["a fine film"])[0]  # doctest: +SKIP
    >>> dict(zip(explanation.words, explanation.values))  # doctest: +SKIP
    {'a': 0.1, 'fine': 2.3, 'film': -0.2}
    """

    __module__ = "sk_adalora"  # where users import it from: for pickles

    target: Any
    unit: str
    output: float
    words: list[str]
    values: np.ndarray
    columns: list[str]
    spans: np.ndarray
    texts: dict[str, str]
    cells: dict[str, Any]
    column_values: dict[str, float]

    def __repr__(self) -> str:
        order = np.argsort(-np.abs(self.values), kind="stable")[:_MOST_WORDS]
        several = len(self.column_values) > 1
        lines = [f"{self.unit}: {self.output:+.3f}"]
        for i in order.tolist():
            column = f"  ({self.columns[i]})" if several else ""
            lines.append(f"  {self.values[i]:+.3f}  {self.words[i]}{column}")
        if len(self.words) > len(order):
            lines.append(f"  and {len(self.words) - len(order)} weaker words")
        if several:
            lines.append("columns:")
            for name, value in self.column_values.items():
                cell = f" = {self.cells[name]}" if name in self.cells else ""
                lines.append(f"  {value:+.3f}  {name}{cell}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self._html(self._strongest(), legend=True)

    def _strongest(self) -> float:
        values = [*self.values.tolist(), *self.column_values.values()]
        if len(self.column_values) == 1:
            values = self.values.tolist()
        return max(map(abs, values), default=0.0)

    def _html(self, strongest: float, legend: bool) -> str:
        """Write the row; `strongest` is the value of the full colour."""
        parts = [f"<div><b>{escape(self.unit)}: {self.output:+.2f}</b></div>"]
        several = len(self.column_values) > 1
        for name, value in self.column_values.items():
            if name in self.texts:
                cell = self._tinted(name, strongest)
            else:
                cell = escape(str(self.cells.get(name, "")))
            if several:
                tinted = _mark(escape(name), value, strongest)
                parts.append(f'<div dir="auto">{tinted}: {cell}</div>')
            else:
                parts.append(f'<div dir="auto">{cell}</div>')
        if legend:
            parts.append(_legend(self.unit))
        body = "".join(parts)
        style = "white-space: pre-wrap; line-height: 1.8; margin: 0.5em 0"
        return f'<div style="{style}">{body}</div>'

    def _tinted(self, column: str, strongest: float) -> str:
        text, end, parts = self.texts[column], 0, []
        for i, of in enumerate(self.columns):
            if of == column:
                start, stop = self.spans[i].tolist()
                parts.append(escape(text[end:start]))
                word = escape(text[start:stop])
                parts.append(_mark(word, float(self.values[i]), strongest))
                end = stop
        return "".join([*parts, escape(text[end:])])


class Explanations(Sequence[Explanation]):
    """Explanations of several rows; a sequence, with one for each row.

    In a notebook, it shows the texts of the first 20 rows, in one scale of colours.

    Parameters
    ----------
    rows : sequence of Explanation
        One for each row.

    Examples
    --------
    >>> explanations = classifier.explain(texts)  # doctest: +SKIP
    >>> print(explanations[0])  # doctest: +SKIP
    """

    __module__ = "sk_adalora"  # where users import it from: for pickles

    def __init__(self, rows: Sequence[Explanation]) -> None:
        self._rows = list(rows)

    @overload
    def __getitem__(self, index: int) -> Explanation: ...

    @overload
    def __getitem__(self, index: slice) -> Explanations: ...

    def __getitem__(self, index: int | slice) -> Explanation | Explanations:
        if isinstance(index, slice):
            return Explanations(self._rows[index])
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self._rows)

    def __repr__(self) -> str:
        shown = [repr(row) for row in self._rows[:_MOST_ROWS]]
        return "\n\n".join([*shown, *self._rest()])

    def _repr_html_(self) -> str:
        shown = self._rows[:_MOST_ROWS]
        strongest = max((row._strongest() for row in shown), default=0.0)
        parts = [row._html(strongest, legend=False) for row in shown]
        units = {row.unit for row in shown}
        unit = units.pop() if len(units) == 1 else "output in bold"
        rest = "".join(f"<div>{text}</div>" for text in self._rest())
        return f"<div>{''.join(parts)}{rest}{_legend(unit)}</div>"

    def _rest(self) -> list[str]:
        n_more = len(self._rows) - _MOST_ROWS
        return [f"and {n_more} more rows"] if n_more > 0 else []


def _mark(word: str, value: float, strongest: float) -> str:
    """Tint a word; a line below says the same without colours."""
    share = abs(value) / strongest if strongest else 0.0
    colour, line = (_RAISES, "solid") if value > 0 else (_LOWERS, "dotted")
    if share < 0.02:
        colour = "0, 0, 0"
        share, line = 0.0, "none"
    style = (
        f"background: rgba({colour}, {_STRONGEST * share:.2f}); color: inherit; "
        f"border-bottom: 2px {line} rgba({colour}, {min(1.0, 2 * share):.2f}); "
        "border-radius: 3px; padding: 1px 0"
    )
    return f'<mark style="{style}" title="{value:+.3f}">{word}</mark>'


def _legend(unit: str) -> str:
    raises, lowers = _mark("raises", 1.0, 1.0), _mark("lowers", -1.0, 1.0)
    raises, lowers = (
        part.replace(' title="+1.000"', "").replace(' title="-1.000"', "")
        for part in (raises, lowers)
    )
    style = "font-size: smaller; margin: 0.5em 0"
    return f'<div style="{style}">{raises} or {lowers} the {escape(unit)}</div>'
