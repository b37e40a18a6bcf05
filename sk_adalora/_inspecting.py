"""The ranks that a fit left, as a table and as lines of text."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import check_is_fitted

from ._attributes import Parameters
from ._messages import write_lines
from ._rank_table import headline, lay_out


class InspectMixin(Parameters):
    """Show what a fit did to the model."""

    def rank_table(self) -> Any:
        """Return the rank that is left in each weight matrix, as a table.

        Returns
        -------
        DataFrame
            A row for each layer and a column for each kind of matrix, such as "query".
            A matrix outside the layers has a row of its own and the column "other".
            Ranks are integers, missing if a layer has no such matrix. The index is
            called "layer".

        Raises
        ------
        ImportError
            If pandas is missing, which `datasets` installs.
        NotFittedError
            If the estimator has not been fitted.
        """
        check_is_fitted(self)
        pd = _import_pandas()
        table = lay_out(self.ranks_)
        columns = {kind: table.column(kind) for kind in table.kinds}
        frame = pd.DataFrame(columns, index=pd.Index(table.layers, name="layer"))
        # Integers stay integers where some are missing.
        return frame.astype(
            {kind: "Int64" for kind, ranks in columns.items() if None in ranks}
        )

    def _show_ranks(self) -> None:
        """Write the table below the progress bar, where one was asked for."""
        if not self.verbose:
            return
        title = headline(list(self.ranks_.values()), self.schedule_.init_r)
        write_lines(f"{title}\n{lay_out(self.ranks_).to_text()}")


def _import_pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "`rank_table` needs pandas. Got an environment without it. Run: "
            "pip install pandas"
        ) from error
    return pandas
