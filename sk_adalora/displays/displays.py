"""Pictures of a fit: where rank is left, when it fell, and how training went."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sk_adalora.adalora.schedule import BudgetSchedule
from sk_adalora.estimators.base import BaseAdaLora
from sk_adalora.runtime.html import html_curve, html_grid, html_table
from sk_adalora.training.rank_table import lay_out

from .draw import animate_ranks, draw_budget, draw_history, draw_ranks


class _Display(ABC):
    """What draws a fitted estimator."""

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **kwargs: Any) -> Self:
        """Draw what a fitted estimator has kept.

        Parameters
        ----------
        estimator : estimator
            A fitted AdaLoraClassifier or AdaLoraRegressor, a pipeline that ends with
            one, or a search that has refitted one.
        ax : matplotlib Axes, sequence of them, or None, default=None
            Where to draw, as in :meth:`plot`. None makes a new figure.
        **kwargs : dict
            Further arguments of :meth:`plot`.

        Returns
        -------
        display
            The display, drawn.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        TypeError
            If it is no such estimator, or `ax` is not Axes.
        ImportError
            If matplotlib is not installed.
        """
        display = cls._of(fitted_adalora(estimator, cls.__name__))
        drawn: Self = display.plot(ax, **kwargs)
        return drawn

    @classmethod
    @abstractmethod
    def _of(cls, fitted: BaseAdaLora) -> Any:
        """Return the display of a fitted estimator, not drawn yet."""


class RankAllocationDisplay(_Display):
    """Picture of the rank that is left in each weight matrix.

    A row is a layer of the model, and a column is a kind of weight matrix in it. The
    number and colour of a cell say in how many directions the fit may change that
    matrix. A hatched cell is a matrix of rank 0: it is as it was pretrained. In an
    empty cell, the layer has no such matrix, or the matrix was not adapted.

    Make it with :meth:`from_estimator` or :meth:`from_ranks`.

    Parameters
    ----------
    ranks : array-like of shape (n_layers, n_kinds)
        The rank of each matrix; NaN where there is none.
    layers : sequence of shape (n_layers,)
        The names of the rows.
    kinds : sequence of str of shape (n_kinds,)
        The names of the columns.
    initial : int or None, default=None
        Rank of each matrix at the start, at which the colours end. None stands for the
        largest rank in `ranks`.
    history : array-like of shape (n_states, n_layers, n_kinds) or None, default=None
        The ranks during the training, for :meth:`animate`; the last are `ranks`.
    steps : array-like of int of shape (n_states,) or None, default=None
        The number of optimizer steps taken before each of them.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes with the picture.
    figure_ : matplotlib Figure
        The figure around it, to save.
    image_ : matplotlib QuadMesh
        The coloured cells.
    text_ : ndarray of shape (n_layers, n_kinds)
        The numbers in the cells; None where a cell has none.

    Examples
    --------
    >>> from sk_adalora import RankAllocationDisplay
    >>> display = RankAllocationDisplay(
    ...     [[4, 0], [1, 3]], layers=[0, 1], kinds=["query", "key"], initial=4
    ... )
    >>> display.ranks.sum(axis=1).tolist()
    [4.0, 4.0]
    """

    __module__ = "sk_adalora"  # where users import it from: for pickles

    def __init__(
        self,
        ranks: ArrayLike,
        layers: Sequence[Any],
        kinds: Sequence[str],
        *,
        initial: int | None = None,
        history: ArrayLike | None = None,
        steps: ArrayLike | None = None,
    ) -> None:
        self.ranks = np.asarray(ranks, dtype=float)
        self.layers = list(layers)
        self.kinds = list(kinds)
        self.initial = initial
        self.history = None if history is None else np.asarray(history, dtype=float)
        self.steps = None if steps is None else np.asarray(steps)

    @classmethod
    def _of(cls, fitted: BaseAdaLora) -> Self:
        display = cls._laid_out(fitted.ranks_, fitted.schedule_.init_r)
        rows = [dict(zip(fitted.ranks_, r, strict=True)) for r in fitted.history_.ranks]
        tables = [lay_out(row).ranks for row in rows]
        display.history = np.array(tables, dtype=float)
        display.steps = np.array(fitted.history_.rank_steps)
        return display

    @classmethod
    def from_ranks(
        cls,
        ranks: Mapping[str, int],
        *,
        initial: int | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the ranks of any adapted model.

        Parameters
        ----------
        ranks : mapping of str to int
            The rank of each matrix, by its path in the model, as `AdaLoraModel.ranks`
            has them.
        initial : int or None, default=None
            Rank of each matrix at the start: `init_r` of the configuration. None stands
            for the largest rank in `ranks`.
        ax : matplotlib Axes or None, default=None
            Where to draw. None makes a new figure that suits the number of layers.
        **kwargs : dict
            Further arguments of :meth:`plot`.

        Returns
        -------
        RankAllocationDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            If `ranks` is no mapping.
        ValueError
            If it is empty.
        ImportError
            If matplotlib is not installed.
        """
        if not isinstance(ranks, Mapping):
            raise TypeError(
                "`ranks` must be a mapping of module paths to ranks. Got "
                f"{type(ranks).__name__}. Pass `model.ranks` of an AdaLoraModel, or an "
                "estimator to `from_estimator`."
            )
        if not ranks:
            raise ValueError(
                "`ranks` must hold at least one matrix. Got an empty mapping. Pass "
                "`model.ranks` of a model with adapted layers."
            )
        return cls._laid_out(ranks, initial).plot(ax, **kwargs)

    @classmethod
    def _laid_out(cls, ranks: Mapping[str, int], initial: int | None) -> Self:
        table = lay_out(ranks)
        cells = np.array(table.ranks, dtype=float)  # None becomes NaN
        return cls(cells, table.layers, table.kinds, initial=initial)

    def _repr_html_(self) -> str:
        known = np.nan_to_num(self.ranks)
        top = self.initial or known.max() or 1
        rows = [
            [str(layer), *("" if np.isnan(r) else f"{r:g}" for r in ranks)]
            for layer, ranks in zip(self.layers, self.ranks, strict=True)
        ]
        cells = [["layer", *self.kinds], *rows]
        return html_grid("Rank left in each weight matrix", cells, known / top)

    def plot(
        self,
        ax: Any = None,
        *,
        cmap: Any = "cividis",
        colorbar: bool = True,
    ) -> Self:
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw. None makes a new figure that suits the number of layers.
        cmap : str or matplotlib Colormap, default="cividis"
            Colours from rank 0 to the rank at the start.
        colorbar : bool, default=True
            Whether to draw the scale of the colours.

        Returns
        -------
        RankAllocationDisplay
            The display itself.

        Raises
        ------
        TypeError, ValueError
            If `ax` is not a single Axes.
        ImportError
            If matplotlib is not installed.
        """
        self.ax_, self.image_, self.text_ = draw_ranks(
            self.ranks,
            self.layers,
            self.kinds,
            initial=self.initial,
            ax=ax,
            cmap=cmap,
            colorbar=colorbar,
        )
        self.figure_ = self.ax_.figure
        return self

    def animate(
        self,
        ax: Any = None,
        *,
        cmap: Any = "cividis",
        colorbar: bool = True,
        interval: int = 100,
    ) -> Any:
        """Show how the ranks fell during the training.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw. None makes a new figure that suits the number of layers.
        cmap : str or matplotlib Colormap, default="cividis"
            Colours from rank 0 to the rank at the start.
        colorbar : bool, default=True
            Whether to draw the scale of the colours.
        interval : int, default=100
            Milliseconds between two frames.

        Returns
        -------
        matplotlib.animation.FuncAnimation
            A frame for the start of the training and for each allocation. Show it with
            ``to_jshtml()``, or write it with ``save("ranks.gif")``. Keep a reference to
            it until then.

        Raises
        ------
        ValueError
            If the display has no history, as one of :meth:`from_ranks`.
        TypeError
            If `ax` is not a single Axes.
        ImportError
            If matplotlib is not installed.
        """
        if self.history is None or self.steps is None or not len(self.history):
            raise ValueError(
                "`animate` must have the ranks at each allocation. Got a display "
                "without a history. Make it with `from_estimator`, or give `history` "
                "and `steps` to the constructor."
            )
        return animate_ranks(
            self.history,
            self.steps,
            self.layers,
            self.kinds,
            initial=self.initial or int(max(np.nanmax(self.history), 1)),
            ax=ax,
            cmap=cmap,
            colorbar=colorbar,
            interval=interval,
        )


class BudgetDisplay(_Display):
    """Picture of the total rank of all weight matrices over the training.

    The background shows three phases: all matrices have full rank; ranks fall, where
    they matter least; the rest is trained at the final ranks.

    Make it with :meth:`from_estimator` or :meth:`from_schedule`.

    Parameters
    ----------
    planned : array-like of shape (n_steps,)
        The total rank after each optimizer step, as planned.
    phases : sequence of str of shape (n_steps,)
        The phase of each step: "initial", "reduction" or "final".
    actual : array-like of shape (n_steps_taken,) or None, default=None
        The total rank after each step that was taken. It is shorter than `planned` if
        training stopped early, and longer if it went on. None draws the plan alone.
    n_matrices : int or None, default=None
        Number of matrices, for a second scale with their average rank. None leaves that
        scale out.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes with the picture.
    figure_ : matplotlib Figure
        The figure around it, to save.

    Examples
    --------
    >>> from sk_adalora import BudgetDisplay
    >>> display = BudgetDisplay([8, 6, 4], ["initial", "reduction", "final"])
    >>> display.planned.tolist()
    [8, 6, 4]
    """

    __module__ = "sk_adalora"  # where users import it from: for pickles

    def __init__(
        self,
        planned: ArrayLike,
        phases: Sequence[str],
        *,
        actual: ArrayLike | None = None,
        n_matrices: int | None = None,
    ) -> None:
        self.planned = np.asarray(planned)
        self.phases = list(phases)
        self.actual = None if actual is None else np.asarray(actual)
        self.n_matrices = n_matrices

    def _repr_html_(self) -> str:
        total = self.planned if self.actual is None else self.actual
        rows = {"total rank": f"{total[0]} to {total[-1]}", "steps": len(total)}
        curve = html_curve(total.tolist(), "the total rank after each step")
        return html_table(type(self).__name__, rows) + curve

    @classmethod
    def _of(cls, fitted: BaseAdaLora) -> Self:
        n_matrices = len(fitted.ranks_)
        schedule = fitted.schedule_.config().schedule(n_matrices)
        return cls._planned(schedule, fitted.history_.budget, n_matrices)

    @classmethod
    def from_schedule(
        cls,
        schedule: BudgetSchedule,
        *,
        actual: ArrayLike | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Draw a schedule, before a training or after it.

        Parameters
        ----------
        schedule : BudgetSchedule
            The plan.
        actual : array-like of shape (n_steps_taken,) or None, default=None
            The total rank after each step, as `AdaLoraModel.update_and_allocate`
            returns it. None draws the plan alone.
        ax : matplotlib Axes or None, default=None
            Where to draw. None makes a new figure.
        **kwargs : dict
            Further arguments of :meth:`plot`.

        Returns
        -------
        BudgetDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            If `schedule` is no `BudgetSchedule`.
        ImportError
            If matplotlib is not installed.
        """
        if not isinstance(schedule, BudgetSchedule):
            raise TypeError(
                "`schedule` must be a BudgetSchedule. Got "
                f"{type(schedule).__name__}. Make one with `BudgetSchedule(...)`, or "
                "pass an estimator to `from_estimator`."
            )
        return cls._planned(schedule, actual, None).plot(ax, **kwargs)

    @classmethod
    def _planned(
        cls,
        schedule: BudgetSchedule,
        actual: ArrayLike | None,
        n_matrices: int | None,
    ) -> Self:
        steps = range(schedule.total_step)
        return cls(
            [schedule.held_budget(step) for step in steps],
            [schedule.phase(step) for step in steps],
            actual=actual,
            n_matrices=n_matrices,
        )

    def plot(self, ax: Any = None) -> Self:
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        BudgetDisplay
            The display itself.

        Raises
        ------
        TypeError, ValueError
            If `ax` is not a single Axes.
        ImportError
            If matplotlib is not installed.
        """
        self.ax_ = draw_budget(
            self.planned, self.phases, self.actual, self.n_matrices, ax
        )
        self.figure_ = self.ax_.figure
        return self


class TrainingHistoryDisplay(_Display):
    """Picture of what happened at each optimizer step.

    The panels show, from top to bottom: the loss; the validation score after each
    epoch, if there was one; the penalty that keeps the directions of an update
    orthogonal; the learning rate.

    Make it with :meth:`from_estimator`.

    Parameters
    ----------
    loss, orthogonality, learning_rate : array-like of shape (n_steps,)
        Mean loss of the rows of each optimizer step, penalty, and learning rate.
    score : array-like of shape (n_epochs,) or None, default=None
        The validation score after each epoch. None or an empty one leaves that panel
        out.
    best_epoch : int or None, default=None
        The epoch, counted from 0, whose state was kept. None marks none.
    steps_per_epoch : int or None, default=None
        Number of optimizer steps in an epoch. It must be given if there are scores.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        The panels, from top to bottom.
    ax_ : matplotlib Axes
        The panel of the loss.
    figure_ : matplotlib Figure
        The figure around them, to save.

    Examples
    --------
    >>> from sk_adalora import TrainingHistoryDisplay
    >>> display = TrainingHistoryDisplay([0.7, 0.5], [0.1, 0.05], [0.001, 0.0])
    >>> display.loss.tolist()
    [0.7, 0.5]
    """

    __module__ = "sk_adalora"  # where users import it from: for pickles

    def __init__(
        self,
        loss: ArrayLike,
        orthogonality: ArrayLike,
        learning_rate: ArrayLike,
        *,
        score: ArrayLike | None = None,
        best_epoch: int | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        self.loss = np.asarray(loss, dtype=float)
        self.orthogonality = np.asarray(orthogonality, dtype=float)
        self.learning_rate = np.asarray(learning_rate, dtype=float)
        self.score = np.asarray([] if score is None else score, dtype=float)
        self.best_epoch = best_epoch
        self.steps_per_epoch = steps_per_epoch

    def _repr_html_(self) -> str:
        loss = self.loss.tolist()
        rows = {"steps": len(loss), "loss": f"{loss[0]:.3f} to {loss[-1]:.3f}"}
        if len(self.score):
            rows |= {"best score": f"{self.score.max():.3f}"}
        curve = html_curve(loss, "the loss of each step")
        return html_table(type(self).__name__, rows) + curve

    @classmethod
    def _of(cls, fitted: BaseAdaLora) -> Self:
        history = fitted.history_
        return cls(
            history.loss,
            history.orthogonality,
            history.learning_rate,
            score=history.score,
            best_epoch=history.best_epoch,
            steps_per_epoch=fitted.schedule_.steps_per_epoch,
        )

    def plot(self, ax: Any = None) -> Self:
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, sequence of them, or None, default=None
            Where to draw: an Axes for each panel, or a single one for the loss alone.
            None makes a new figure.

        Returns
        -------
        TrainingHistoryDisplay
            The display itself.

        Raises
        ------
        TypeError
            If there is something else than Axes in `ax`.
        ValueError
            If `ax` does not hold one Axes for each panel, or if there are scores and
            `steps_per_epoch` is None.
        ImportError
            If matplotlib is not installed.
        """
        self.axes_ = draw_history(
            loss=self.loss,
            orthogonality=self.orthogonality,
            learning_rate=self.learning_rate,
            score=self.score,
            best_epoch=self.best_epoch,
            steps_per_epoch=self.steps_per_epoch,
            ax=ax,
        )
        self.ax_ = self.axes_[0]
        self.figure_ = self.ax_.figure
        return self


def fitted_adalora(estimator: Any, display: str) -> BaseAdaLora:
    """Find the fitted AdaLora estimator in a pipeline or a search.

    Parameters
    ----------
    estimator : estimator
        What the user gave.
    display : str
        Name of the display, for messages.

    Returns
    -------
    BaseAdaLora

    Raises
    ------
    NotFittedError
        If it has not been fitted.
    TypeError
        If there is none.
    """
    inner = estimator
    while not isinstance(inner, BaseAdaLora):
        if isinstance(inner, Pipeline):
            inner = inner.steps[-1][1]
        elif hasattr(inner, "cv_results_") and not inner.refit:
            # Even where `best_estimator_` is left from a fit before.
            raise TypeError(
                f"{display} needs a search that has refitted its best candidate. Got "
                f"{type(inner).__name__} with refit={inner.refit!r}. Set refit=True."
            )
        elif hasattr(inner, "best_estimator_"):
            inner = inner.best_estimator_
        elif getattr(inner, "encoder_", None) is not None:  # of a table
            inner = inner.encoder_
        else:
            if isinstance(getattr(inner, "estimator", None), BaseAdaLora | Pipeline):
                check_is_fitted(inner)  # a search that has not run
            raise TypeError(
                f"{display}.from_estimator needs a fitted AdaLoraClassifier, "
                "AdaLoraRegressor or AdaLoraEncoder, a Pipeline that ends with one, or "
                f"a search over one. Got {type(inner).__name__}. Pass such an "
                "estimator; the docstring says how to draw other models."
            )
    check_is_fitted(inner)
    return inner


def last_step(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Find the last step of a pipeline or a search, and what it gets of `X`.

    Parameters
    ----------
    estimator : estimator
        What the user gave.
    X : array-like or table
        Rows as the user has them.

    Returns
    -------
    estimator : estimator
        What is neither a pipeline nor a search.
    X : array-like or table
        The rows, transformed by the steps before it.
    """
    while True:
        if isinstance(estimator, Pipeline):
            X = estimator[:-1].transform(X) if len(estimator) > 1 else X
            estimator = estimator[-1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            return estimator, X
