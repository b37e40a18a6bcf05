"""What a fit to a mixed table found and cost, as a small table: TableFitReport."""

from __future__ import annotations

from dataclasses import dataclass

from sk_adalora.runtime.html import html_grid


@dataclass(frozen=True)
class TableFitReport:
    """What a fit to a mixed table found and cost; `print` shows it as a table.

    Attributes
    ----------
    n_rows : int
        Number of rows with a weight above 0.
    columns : dict of str to str
        The role of each column by its name, as `column_roles_`.
    weights : dict of str to float
        The share of each part in a prediction.
    scores : dict of str to dict of str to float
        What each part scored out of fold, and their weighted mean as "blend": "R2", or
        "accuracy" and "log loss". The weights were chosen on the same rows.
    part_seconds : dict of str to float
        How long each part took.
    seconds : float
        How long the whole fit took.
    """

    n_rows: int
    columns: dict[str, str]
    weights: dict[str, float]
    scores: dict[str, dict[str, float]]
    part_seconds: dict[str, float]
    seconds: float

    def __str__(self) -> str:
        lines = [f"{'rows':<9}{self.n_rows:,}"]
        for role in dict.fromkeys(self.columns.values()):
            names = [name for name, has in self.columns.items() if has == role]
            lines.append(f"{role:<9}{', '.join(names)}")
        lines.append("")
        for part, *cells in self._parts():
            lines.append(f"{part:<9}" + "".join(f"{cell:>10}" for cell in cells))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = self._parts()
        tints = [[float(line[1]), *(0.0 for _ in line[2:])] for line in parts[1:]]
        title = f"{type(self).__name__}: {self.n_rows:,} rows"
        return html_grid(title, parts, tints)

    def _parts(self) -> list[list[str]]:
        """Return the table of the parts, with a line of headings."""
        scored = [*self.scores["blend"]]
        lines = [["part", "weight", *scored, "seconds"]]
        for part, scores in self.scores.items():
            weight = self.weights.get(part, 1.0)
            seconds = self.part_seconds.get(part, self.seconds)
            cells = [f"{weight:.2f}", *(f"{scores[name]:.3f}" for name in scored)]
            lines.append([part, *cells, f"{seconds:,.1f}"])
        return lines
