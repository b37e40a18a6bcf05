"""Predictions of rows that come in parts."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any

from sk_adalora.data.parts import read_parts
from sk_adalora.runtime.messages import progress_bar

_METHODS = (
    *("predict", "predict_proba", "predict_log_proba", "decision_function"),
    "transform",
)


class PredictsInParts:
    """An estimator that predicts rows without end."""

    def predict_iter(
        self, source: Any, method: str = "predict", *, batch_rows: int = 10_000
    ) -> Iterator[Any]:
        """Predict rows part by part, in order, in the memory of one part.

        Parameters
        ----------
        source : iterator, data set, or table or list of shape (n_samples, ...)
            An iterator of tables or of lists of texts; a `pyarrow.dataset.Dataset`,
            such as of a folder of Parquet files; a `pyarrow.RecordBatchReader`; a
            `datasets.Dataset` or `IterableDataset`; or whatever `predict` takes. Of
            data sets, only the columns of the fit are read.
        method : {"predict", "predict_proba", "predict_log_proba", \
"decision_function", "transform"}, default="predict"
            What to call for each part; of an encoder, ``"transform"``.
        batch_rows : int, default=10_000
            Most rows of a part. What an iterator yields is a part, and is cut only
            where it has more.

        Returns
        -------
        iterator
            What the method returns for each part, without an empty one.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        ValueError, TypeError
            If an argument is wrong, or rows do not suit the fit.
        """
        prepare = self._make_ready()
        known = [name for name in _METHODS if hasattr(self, name)]
        if method not in known:
            raise ValueError(
                f"`method` must be one of {', '.join(map(repr, known))}. Got "
                f"{method!r}. Choose one of these."
            )
        if not isinstance(batch_rows, int) or batch_rows < 1:
            raise ValueError(
                f"`batch_rows` must be an int above 0. Got {batch_rows!r}. Pass one, "
                "or leave it out."
            )
        names = getattr(self, "feature_names_in_", None)
        parts, count = read_parts(
            source, batch_rows, None if names is None else [*names]
        )
        return _predict_each(self, prepare(parts), count, getattr(self, method))

    def _make_ready(self) -> Callable[[Iterable[Any]], Generator[Any]]:
        """Check that this can predict; return what prepares parts for its methods."""
        raise NotImplementedError


def _predict_each(
    estimator: Any,
    parts: Generator[Any],
    count: int | None,
    predict: Callable[[Any], Any],
) -> Iterator[Any]:
    done = 0
    with closing(progress_bar(count, estimator.verbose, "predict", "row")) as bar:
        try:
            for part in parts:
                yield predict(part)
                done += len(part)
                bar.update(len(part))
        except Exception as error:
            error.add_note(f"It was raised after {done:,} rows of `source`.")
            raise
        finally:
            parts.close()
