"""Picture of texts on a plane, as the pretrained and the tuned model see them."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_regressor
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import normalize
from sklearn.utils.multiclass import type_of_target

from sk_adalora.estimators.base import BaseAdaLora
from sk_adalora.estimators.encoder import AdaLoraEncoder
from sk_adalora.estimators.predicting import predict_vectors
from sk_adalora.runtime.html import html_table

from .displays import fitted_adalora, last_step
from .draw import GREEN, GREY, ORANGE, SKY, VERMILION, blue_on, import_pyplot, list_axes

# What decides which vectors a model gives before it is tuned.
_OF_VECTORS = (
    *("model", "model_kwargs", "row_format", "max_length", "long_text", "pooling"),
    *("device", "precision"),
)
# Shapes tell classes apart where colours do not, and where these come again.
_MARKERS = ("o", "^", "s", "D", "v", "P", "X")


class EmbeddingMapDisplay:
    """Picture of texts on a plane, before and after a fit.

    A point is a text, and its colour is its target. Texts that are near to each other
    are alike to the model.

    Make it with :meth:`from_estimator`.

    Parameters
    ----------
    after : array-like of shape (n_samples, 2)
        Where each text is after the fit.
    y : array-like of shape (n_samples,)
        Its target.
    before : array-like of shape (n_samples, 2) or None, default=None
        Where it is before the fit. None draws one panel.
    silhouettes : tuple of (float or None, float or None), default=(None, None)
        How well the vectors part the classes, before and after: scikit-learn's
        `silhouette_score` of the whole vectors, from -1 to 1. None for numbers.
    is_number : bool, default=False
        Whether targets are numbers, for a colour bar, or classes, for a legend.

    Attributes
    ----------
    ax_ : ndarray of Axes
        The axes of the panels.
    figure_ : matplotlib Figure
        The figure around them, to save.

    Examples
    --------
    >>> from sk_adalora import EmbeddingMapDisplay
    >>> display = EmbeddingMapDisplay([[0, 0], [1, 0]], ["art", "sport"])
    >>> display.after.shape
    (2, 2)
    """

    __module__ = "sk_adalora"  # where users import it from: for pickles

    def __init__(
        self,
        after: ArrayLike,
        y: ArrayLike,
        *,
        before: ArrayLike | None = None,
        silhouettes: tuple[float | None, float | None] = (None, None),
        is_number: bool = False,
    ) -> None:
        self.after = np.asarray(after, dtype=float)
        self.y = np.asarray(y)
        self.before = None if before is None else np.asarray(before, dtype=float)
        self.silhouettes = silhouettes
        self.is_number = is_number

    def _repr_html_(self) -> str:
        rows: dict[str, Any] = {"texts": len(self.y)}
        for name, value in zip(("before", "after"), self.silhouettes, strict=True):
            if value is not None:
                rows[f"silhouette {name}"] = f"{value:.2f}"
        return html_table(type(self).__name__, rows)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        before_after: bool = True,
        projection: str = "tsne",
        random_state: Any = 0,
        ax: Any = None,
    ) -> Self:
        """Compute the vectors of texts, and draw them on a plane.

        Parameters
        ----------
        estimator : estimator
            A fitted AdaLoraClassifier, AdaLoraRegressor or AdaLoraEncoder, or a
            pipeline or search that ends with one.
        X : array-like of str of shape (n_samples,), or table
            Texts or rows, in the form in which `fit` got them. Take rows that the fit
            has not seen.
        y : array-like of shape (n_samples,)
            What colours them: a label or a number each.
        before_after : bool, default=True
            Whether to draw the vectors of the pretrained model, too.
        projection : {"tsne", "pca"}, default="tsne"
            What puts the vectors on a plane: scikit-learn's `TSNE`, which shows
            neighbours, or `PCA`, which shows large distances.
        random_state : int, RandomState instance or None, default=0
            Seed of the projection.
        ax : matplotlib Axes, sequence of them, or None, default=None
            Where to draw, as in :meth:`plot`. None makes a new figure.

        Returns
        -------
        display
            The display, drawn.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If it has no vectors, or an argument is wrong.
        ImportError
            If matplotlib is not installed.
        """
        fitted, X = _fitted_on_texts(estimator, X, cls.__name__)
        y = _check(y, len(X), projection)
        is_number = is_regressor(fitted) or type_of_target(y) == "continuous"
        vectors = [predict_vectors(fitted, X)]
        if before_after:
            vectors.insert(0, _before(fitted, X))
        # Of unit length: cosine is how vectors of texts are compared.
        vectors = [normalize(one.astype(np.float64)) for one in vectors]
        planes = [_project(one, projection, random_state) for one in vectors]
        silhouettes = [None if is_number else _silhouette(one, y) for one in vectors]
        display = cls(
            planes[-1],
            y,
            before=planes[0] if before_after else None,
            silhouettes=(silhouettes[0] if before_after else None, silhouettes[-1]),
            is_number=is_number,
        )
        return display.plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw a panel, or one for before and one for after.

        Parameters
        ----------
        ax : matplotlib Axes, sequence of them, or None, default=None
            Where to draw: as many as there are panels, or one, for the texts after the
            fit alone. None makes a new figure.

        Returns
        -------
        display
            The display itself.

        Raises
        ------
        TypeError, ValueError
            If `ax` is not Axes, or not as many.
        ImportError
            If matplotlib is not installed.
        """
        plt = import_pyplot()
        panels = [("after the fit", self.after, self.silhouettes[1])]
        if self.before is not None:
            panels.insert(0, ("pretrained", self.before, self.silhouettes[0]))
        if ax is None:
            size = (1.6 + 4 * len(panels), 4.2)
            _, ax = plt.subplots(1, len(panels), figsize=size, layout="constrained")
        axes = list_axes(ax, len(panels), alone="the texts after the fit")
        for one, (name, plane, silhouette) in zip(
            axes, panels[-len(axes) :], strict=True
        ):
            points = self._draw(one, plane)
            score = "" if silhouette is None else f"\nsilhouette {silhouette:.2f}"
            one.set_title(name + score, loc="left", fontsize="medium")
            one.set(xticks=[], yticks=[])  # distances on the plane have no unit
        figure = axes[0].figure
        if self.is_number:
            figure.colorbar(points, ax=axes.tolist(), label="target")
        else:
            axes[-1].legend(
                loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", frameon=False
            )
        self.ax_, self.figure_ = axes, figure
        return self

    def _draw(self, ax: Any, plane: np.ndarray) -> Any:
        """Draw the points of a panel; return those drawn last."""
        # Of many points, each is smaller.
        size = float(np.clip(4000 / max(len(plane), 1), 6, 40))
        if self.is_number:
            return ax.scatter(*plane.T, c=self.y.astype(float), s=size, cmap="viridis")
        classes = np.unique(self.y)
        colours = [blue_on(ax), ORANGE, GREEN, VERMILION, "#CC79A7", GREY]
        if blue_on(ax) != SKY:
            colours.append(SKY)
        looks = zip(cycle(colours), cycle(_MARKERS), strict=False)
        for i, (colour, marker) in enumerate(islice(looks, len(classes))):
            own = self.y == classes[i]
            look = {"color": colour, "marker": marker, "linewidth": 0, "alpha": 0.8}
            points = ax.scatter(*plane[own].T, s=size, label=str(classes[i]), **look)
        return points


def _fitted_on_texts(estimator: Any, X: Any, display: str) -> tuple[BaseAdaLora, Any]:
    """Return the estimator that gives vectors, and its input."""
    inner, X = last_step(estimator, X)
    if getattr(inner, "encoder_", None) is not None:
        raise TypeError(
            f"{display}.from_estimator needs an estimator that reads the texts of `X`. "
            f"Got {type(inner).__name__}, which reads other columns, too. Pass its "
            "`encoder_`, and the text columns."
        )
    return fitted_adalora(inner, display), X


def _check(y: Any, n_rows: int, projection: str) -> np.ndarray:
    """Refuse what cannot colour or place the rows; return `y` as an array."""
    if projection not in ("tsne", "pca"):
        raise ValueError(
            f"`projection` must be 'tsne' or 'pca'. Got {projection!r}. Pass one of "
            "these."
        )
    y = np.asarray(y)
    if y.shape != (n_rows,):
        raise ValueError(
            f"`y` must hold one label or number for each of {n_rows} rows. Got shape "
            f"{y.shape}. Pass one column, such as `y[:, 0]`."
        )
    if n_rows < 3:
        raise ValueError(
            f"`X` must have at least 3 rows. Got {n_rows}. Pass more rows."
        )
    return y


def _before(fitted: BaseAdaLora, X: Any) -> np.ndarray:
    """Return the vectors of the pretrained model."""
    same = {name: getattr(fitted, name) for name in _OF_VECTORS}
    frozen = AdaLoraEncoder(**same, tune=False, n_components=None)
    return np.asarray(frozen.fit_transform(X))


def _project(vectors: np.ndarray, projection: str, random_state: Any) -> np.ndarray:
    """Put vectors of unit length on a plane, of shape (n_samples, 2)."""
    if projection == "pca":
        return PCA(2, random_state=random_state).fit_transform(vectors)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=random_state)
    return tsne.fit_transform(vectors)


def _silhouette(vectors: np.ndarray, y: np.ndarray) -> float | None:
    """Return how well vectors part classes; None where this is not defined."""
    if not 2 <= len(np.unique(y)) < len(y):
        return None
    return float(silhouette_score(vectors, y, metric="cosine"))
