"""Explain predictions: leave out a word or a cell."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sk_adalora.data.columns import Column, Table, read_table
from sk_adalora.data.targets import Numbers, Targets
from sk_adalora.data.texts import read_texts
from sk_adalora.data.words import find_words, without_word

from .explanation import Explanation, Explanations
from .predicting import outputs_of_texts, read_new

# Rows are explained together until they have this many variants.
_MOST_VARIANTS = 4096


@dataclass(frozen=True)
class Explainer:
    """What an estimator predicts, and of what.

    Parameters
    ----------
    table : Table
        The rows.
    text_columns : set of str
        The columns that are explained word by word.
    targets : Targets
        What is predicted.
    predict : callable
        Gets a table and returns what `measure` reads, of shape (n_samples, k).
    measure : callable
        Gets that and the output to explain of each row; returns numbers of shape
        (n_samples,).
    """

    table: Table
    text_columns: set[str]
    targets: Targets
    predict: Callable[[Table], np.ndarray]
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Variants:
    """A row as it is, without each of its cells, and without each of its words.

    Parameters
    ----------
    texts : dict of str to str
        The texts that words are left out of, by column.
    words : list of (str, int, int)
        Column, begin and end of each word.
    columns : dict of str to list
        The cells of each variant.
    """

    texts: dict[str, str]
    words: list[tuple[str, int, int]]
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return 1 + len(self.columns) + len(self.words)


class ExplainsMixin:
    """The method `explain` of estimators that predict."""

    @abstractmethod
    def _explainer(self, X: Any) -> Explainer:
        """Check and read the rows to explain."""

    def explain(self, X: Any, *, target: Any = None) -> Explanations:
        """Say how much each word, and each cell of a table, moved a prediction.

        A word is left out of its text, with one of the spaces around it,
        and the row is predicted again. The value of the word is the difference: the
        prediction of the whole row minus that without the word. The value of a cell is
        the same, with a missing cell in its place.

        Parameters
        ----------
        X : array-like of str of shape (n_samples,), or table
            Texts or rows, in the form in which `fit` got them.
        target : object, default=None
            What to explain: a class of `classes_`, or the number of a column where
            `y` has several. None stands for the second of two classes, the likeliest
            of several classes or labels, and the first of several numbers.

        Returns
        -------
        Explanations
            An `Explanation` for each row: of a classifier in log-odds of the class,
            ``log(p / (1 - p))``; of a regressor in the units of the target.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If `target` is nothing that the estimator predicts, if `X` has another form
            than in `fit`, if a parameter was set to a wrong value since, or if the
            pretrained model is not the one of `fit`.
        OSError
            If the pretrained model cannot be found any more.
        FloatingPointError
            If an output of the network is NaN or infinite.

        Notes
        -----
        To leave out words takes a prediction for each. Values do not add up to the
        prediction: of two words that say the same, leaving out one changes little.
        """
        explainer = self._explainer(X)
        which = _find_target(explainer.targets, target)
        rows: list[Explanation] = []
        for variants in _in_parts(explainer):
            rows += _explain_part(explainer, variants, which)
        return Explanations(rows)


def text_explainer(estimator: Any, X: Any) -> Explainer:
    """Return the explainer of an estimator of texts."""
    read_new(estimator, X)  # refuses what is wrong
    table = read_table(X).called_as(getattr(estimator, "feature_names_in_", ()))
    row_format = estimator.row_format
    # Of one column or two, each is a text, even if it is stored as categories.
    as_text = {"text", "category"} if table.is_1d or row_format == "pair" else {"text"}
    text_columns = {c.name for c in table.columns if c.role in as_text}

    def predict(varied: Table) -> np.ndarray:
        return outputs_of_texts(estimator, read_texts(varied, row_format))

    targets = estimator._targets
    table = with_texts(table, text_columns)
    return Explainer(table, text_columns, targets, predict, targets.measure)


def with_texts(table: Table, text_columns: set[str]) -> Table:
    """Write as texts what Arrow may hold as categories."""
    columns = [
        replace(column, cells=column.texts())
        if column.name in text_columns and isinstance(column.cells, pa.Array)
        else column
        for column in table.columns
    ]
    return replace(table, columns=columns)


def _find_target(targets: Targets, target: Any) -> int | None:
    """Return the position of the output to explain; None where rows differ."""
    if target is None:
        return None
    known = targets.explainable
    if target not in known:
        some = ", ".join(map(repr, known[:20]))
        raise ValueError(
            f"`target` must be what the estimator predicts: {some}. Got {target!r}. "
            "Pass one of these, or None."
        )
    return known.index(target)


def _in_parts(explainer: Explainer) -> Iterator[list[_Variants]]:
    """Yield the variants of some rows at a time."""
    of_columns = {c.name: c.values() for c in explainer.table.columns}
    part: list[_Variants] = []
    for row in range(explainer.table.n_rows):
        cells = {name: values[row] for name, values in of_columns.items()}
        part.append(_vary(row, cells, explainer.text_columns))
        if sum(map(len, part)) >= _MOST_VARIANTS:
            yield part
            part = []
    if part:
        yield part


def _vary(row: int, cells: dict[str, Any], text_columns: set[str]) -> _Variants:
    """Return the variants of a row: as it is, without each cell, without each word.

    Cells are positions of rows, None where left out, or texts without a word.
    """
    texts = {
        name: cell
        for name, cell in cells.items()
        if name in text_columns and isinstance(cell, str)
    }
    words = [(name, *span) for name, text in texts.items() for span in find_words(text)]
    columns: dict[str, list[Any]] = {}
    for i, name in enumerate(cells):
        variants: list[Any] = [row] * (1 + len(cells) + len(words))
        variants[1 + i] = None
        for j, (column, start, end) in enumerate(words):
            if column == name:
                varied = without_word(texts[name], start, end)
                variants[1 + len(cells) + j] = varied
        columns[name] = variants
    return _Variants(texts, words, columns)


def _explain_part(
    explainer: Explainer, part: list[_Variants], which: int | None
) -> list[Explanation]:
    columns = [
        _vary_column(
            column, [cell for row in part for cell in row.columns[column.name]]
        )
        for column in explainer.table.columns
    ]
    sizes = [len(row) for row in part]
    table = replace(explainer.table, columns=columns, n_rows=sum(sizes))
    outputs = explainer.predict(table)
    starts = [0, *accumulate(sizes)][:-1]
    of_rows = explainer.targets.usually_explained(outputs[starts])
    if which is not None:
        of_rows[:] = which
    measured = explainer.measure(outputs, np.repeat(of_rows, sizes))
    values = [
        measured[a] - measured[a : a + n] for a, n in zip(starts, sizes, strict=True)
    ]
    return [
        _describe(explainer, row, float(measured[a]), of_row, int(output))
        for row, a, of_row, output in zip(part, starts, values, of_rows, strict=True)
    ]


def _vary_column(column: Column, variants: list[Any]) -> Column:
    """Return a column of the variants' cells, of the same type as before."""
    cells = column.cells
    if isinstance(cells, list):
        varied = [cells[v] if isinstance(v, int) else v for v in variants]
        return replace(column, cells=varied)
    of_rows = [v if isinstance(v, int) else None for v in variants]
    taken = cells.take(pa.array(of_rows, pa.int64()))
    if any(isinstance(v, str) for v in variants):
        texts = [v if isinstance(v, str) else None for v in variants]
        is_new = pa.array([text is not None for text in texts])
        taken = pc.if_else(is_new, pa.array(texts, cells.type), taken)
    return replace(column, cells=taken)


def _describe(
    explainer: Explainer,
    row: _Variants,
    output: float,
    values: np.ndarray,
    which: int,
) -> Explanation:
    target, n_cells = explainer.targets.explainable[which], len(row.columns)
    several = len(explainer.targets.explainable) > 1
    if not isinstance(explainer.targets, Numbers):
        unit = f"log-odds of {target!r}"
    else:
        unit = f"prediction of target {target}" if several else "prediction"
    at = row.columns[next(iter(row.columns))][0]
    cells = {
        column.name: replace(column, cells=column.cells[at : at + 1]).values()[0]
        for column in explainer.table.columns
        if column.name not in row.texts
    }
    return Explanation(
        target=target,
        unit=unit,
        output=output,
        words=[row.texts[name][start:end] for name, start, end in row.words],
        values=values[1 + n_cells :],
        columns=[name for name, _, _ in row.words],
        spans=np.array([w[1:] for w in row.words], np.int64).reshape(-1, 2),
        texts=row.texts,
        cells=cells,
        column_values=dict(
            zip(row.columns, values[1 : 1 + n_cells].tolist(), strict=True)
        ),
    )
