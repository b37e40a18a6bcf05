"""Tables in HTML, for notebooks; they take their colours from the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_CELL = "padding: 1px 10px; text-align: {}; background: transparent"


def html_table(title: str, rows: Mapping[str, Any]) -> str:
    """Return a table of names and values under a title."""
    lines = [
        f'<tr><td style="{_CELL.format("left")}"><code>{escape(name)}</code></td>'
        f'<td style="{_CELL.format("right")}">{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    ]
    return f"<div><b>{escape(title)}</b><table>{''.join(lines)}</table></div>"


def html_grid(title: str, cells: Sequence[Sequence[str]], shares: Any) -> str:
    """Return a table with a line of headings, its numbers tinted by `shares`, 0 to 1.

    The first of each further line is its name.
    """
    heads = "".join(f"<th>{escape(head)}</th>" for head in cells[0])
    lines = [f"<tr>{heads}</tr>"]
    for (name, *values), tints in zip(cells[1:], shares, strict=True):
        line = [f"<th>{escape(name)}</th>"]
        for value, share in zip(values, tints, strict=True):
            style = "text-align: center"
            if value:
                style += f"; background: rgba(0, 114, 178, {0.6 * share:.2f})"
            line.append(f'<td style="{style}">{escape(value)}</td>')
        lines.append(f"<tr>{''.join(line)}</tr>")
    return f"<div><b>{escape(title)}</b><table>{''.join(lines)}</table></div>"


def html_curve(values: Sequence[float], label: str) -> str:
    """Return a small line chart of values from left to right."""
    low, high = min(values), max(values)
    span, last = (high - low) or 1.0, max(1, len(values) - 1)
    points = " ".join(
        f"{240 * i / last:.1f},{36 * (high - value) / span + 2:.1f}"
        for i, value in enumerate(values)
    )
    return (
        f'<svg viewBox="0 0 240 40" width="240" height="40" role="img" '
        f'aria-label="{escape(label)}"><polyline points="{points}" fill="none" '
        'stroke="currentColor" stroke-width="1.5"/></svg>'
    )
