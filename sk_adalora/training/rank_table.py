"""Ranks by module path -> a table of layers and kinds of matrix. Pure Python."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

# Column of the matrices that belong to no numbered layer, such as a pooler.
OUTSIDE = "other"

# Short names of what transformers call their matrices, in the order of a forward pass.
# They are compared with the end of what follows the layer's number, in lower case.
_IN_ATTENTION = {
    "query": "q|query|q_proj|q_lin|query_proj|q_head|linear_q",
    "key": "k|key|k_proj|k_lin|key_proj|k_head|linear_k",
    "value": "v|value|v_proj|v_lin|value_proj|v_head|linear_v",
    "query+key+value": "c_attn|wqkv|query_key_value|qkv_proj|qkv|in_proj",
    "attention out": r"o|o_proj|out_proj|out_lin|c_proj|wo|dense|output\.dense|"
    "post_proj|linear_out",
}
_ELSEWHERE = {
    "gate": "gate_proj|wi_0",
    "gate+up": "gate_up_proj",
    "up": r"up_proj|intermediate\.dense|fc1|fc_in|lin1|linear_1|c_fc|wi|wi_1|ffn|"
    "dense_h_to_4h",
    "down": r"down_proj|output\.dense|fc2|fc_out|lin2|linear_2|mlp\.c_proj|wo|"
    "ffn_output|dense_4h_to_h",
}
_ATTENTION = re.compile(r"(?:^|\.)\w*att\w*(?:\.\w+)*?\.(?P<matrix>.+)$")
_CROSS = re.compile(r"cross|encdec|encoder_att")
# Paths of modules may hold any characters.
_IN_MARKDOWN = str.maketrans(
    {"<": "&lt;", "|": r"\|", "`": r"\`", "[": r"\[", "\n": " ", "\r": " "}
)
_ORDER = [*_IN_ATTENTION, *(f"cross {name}" for name in _IN_ATTENTION), *_ELSEWHERE]


@dataclass(frozen=True)
class RankTable:
    """Ranks, a row a layer and a column a kind of matrix.

    Parameters
    ----------
    layers : list of int, or of str
        Names of the rows: numbers, or texts where numbers do not tell the rows apart
        or some matrix is outside the layers.
    kinds : list of str
        Names of the columns.
    ranks : list of list of int or None
        Rank of each matrix; None where a layer has no such matrix.
    """

    layers: list[int] | list[str]
    kinds: list[str]
    ranks: list[list[int | None]]

    def column(self, kind: str) -> list[int | None]:
        """Return the ranks of one kind, from the first layer to the last."""
        index = self.kinds.index(kind)
        return [row[index] for row in self.ranks]

    def cells(self) -> list[list[str]]:
        """Return the table as texts, with a line of headings."""
        body = [
            [str(layer), *("" if rank is None else str(rank) for rank in row)]
            for layer, row in zip(self.layers, self.ranks, strict=True)
        ]
        return [["layer", *self.kinds], *body]

    def to_text(self) -> str:
        """Return the table as lines of text."""
        lines = self.cells()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True))
            for line in lines
        )

    def to_markdown(self) -> str:
        """Return the table in Markdown."""
        head, *body = self.cells()
        lines = [head, ["---"] * len(head), *body]
        return "\n".join(
            f"| {' | '.join(cell.translate(_IN_MARKDOWN) for cell in line)} |"
            for line in lines
        )


@dataclass(frozen=True)
class _Position:
    """Where a matrix is: in which stack of layers, in which layer, and what it is."""

    stack: str
    numbers: tuple[int, ...]
    suffix: str


def lay_out(ranks: Mapping[str, int]) -> RankTable:
    """Lay ranks out as a table.

    The number in a path is that of its layer, what follows it says which matrix it is.
    Well-known matrices get a plain name; of others, the end of the path that tells
    them apart. Models with several stacks of layers, such as encoder and decoder,
    have them one below the other. A matrix outside the layers has a row of its own.

    Parameters
    ----------
    ranks : mapping of str to int
        Module path of each matrix, and its rank.

    Returns
    -------
    RankTable

    Examples
    --------
    >>> table = lay_out({
    ...     "encoder.layer.0.attention.self.query": 4,
    ...     "encoder.layer.0.output.dense": 1,
    ...     "encoder.layer.1.attention.self.query": 0,
    ...     "encoder.layer.1.output.dense": 3,
    ... })
    >>> print(table.to_text())
    layer  query  down
        0      4     1
        1      0     3
    """
    positions = _positions(ranks)
    kinds = _kinds(positions.values())
    stacks = _heads(
        {position.stack for position in positions.values() if position.numbers}
    )
    cells: dict[tuple[str, tuple[int, ...], str], dict[str, int]] = {}
    for path, position in positions.items():
        # Outside the layers, the path itself is the row.
        row = (position.stack, position.numbers, "" if position.numbers else path)
        cells.setdefault(row, {})[kinds[position]] = int(ranks[path])
    order = list(dict.fromkeys(stack for stack, _, _ in cells))
    rows = sorted(cells, key=lambda row: (not row[1], order.index(row[0]), row[1]))
    columns = _in_order(kinds.values())
    return RankTable(
        _row_names(rows, stacks),
        columns,
        [[cells[row].get(kind) for kind in columns] for row in rows],
    )


def _positions(paths: Iterable[str]) -> dict[str, _Position]:
    """Say where each matrix is."""
    positions = {path: _split(path) for path in paths}
    # A second number tells layers apart (blocks of a stage), or only counts the parts
    # of a layer: then no two paths differ in it alone, and it is left out.
    parts = Counter((p.stack, p.numbers[:1], p.suffix) for p in positions.values())
    for path, position in positions.items():
        if parts[position.stack, position.numbers[:1], position.suffix] == 1:
            positions[path] = replace(position, numbers=position.numbers[:1])
    same = Counter(positions.values())
    return {
        path: position if same[position] == 1 else replace(position, suffix=path)
        for path, position in positions.items()
    }


def _split(path: str) -> _Position:
    parts = path.split(".")
    numbered = [i for i, part in enumerate(parts) if part.isdecimal()]
    if not numbered:
        return _Position("", (), path)
    first = numbered[0]
    words = [part for part in parts[first:] if not part.isdecimal()]
    return _Position(
        stack=".".join(parts[:first]),
        numbers=tuple(int(parts[i]) for i in numbered),
        # In a list of matrices alone, only the list has a name.
        suffix=".".join(words or parts[:first][-1:] or ["linear"]),
    )


def _kinds(positions: Iterable[_Position]) -> dict[_Position, str]:
    """Name the kind of each matrix, so that no two of a layer have the same name."""
    positions = list(positions)
    names = {p.suffix: _known_name(p.suffix) for p in positions if p.numbers}
    taken: dict[tuple[str, tuple[int, ...], str], set[str]] = {}
    for p in positions:
        if p.numbers and (name := names[p.suffix]):
            taken.setdefault((p.stack, p.numbers, name), set()).add(p.suffix)
    for suffixes in taken.values():
        if len(suffixes) > 1:  # one name for two matrices would be ambiguous
            names |= dict.fromkeys(suffixes)
    rest = _tails(suffix for suffix, name in names.items() if name is None)
    while clash := set(rest.values()) & set(names.values()):
        names |= {suffix: None for suffix, name in names.items() if name in clash}
        rest = _tails(suffix for suffix, name in names.items() if name is None)
    return {
        p: (names[p.suffix] or rest[p.suffix]) if p.numbers else OUTSIDE
        for p in positions
    }


def _known_name(suffix: str) -> str | None:
    text = suffix.lower()
    if (inside := _ATTENTION.search(text)) is not None:
        for name, leaves in _IN_ATTENTION.items():
            if re.search(rf"(?:^|\.)(?:{leaves})$", inside["matrix"]):
                return f"cross {name}" if _CROSS.search(text) else name
    for name, leaves in _ELSEWHERE.items():
        if re.search(rf"(?:^|\.)(?:{leaves})$", text):
            return name
    return None


def _in_order(kinds: Iterable[str]) -> list[str]:
    """Sort columns as a forward pass goes, where all are known; outsiders last."""
    found = list(dict.fromkeys(kinds))
    inside = [kind for kind in found if kind != OUTSIDE]
    if set(inside) <= set(_ORDER):
        inside.sort(key=_ORDER.index)
    return inside + [kind for kind in found if kind == OUTSIDE]


def _row_names(
    rows: Sequence[tuple[str, tuple[int, ...], str]], stacks: Mapping[str, str]
) -> list[int] | list[str]:
    if len(stacks) <= 1 and all(len(numbers) == 1 for _, numbers, _ in rows):
        return [numbers[0] for _, numbers, _ in rows]
    names = []
    for stack, numbers, path in rows:
        number = ".".join(map(str, numbers))
        prefix = f"{stacks[stack]} " if numbers and len(stacks) > 1 else ""
        names.append(prefix + number if numbers else path)
    return names


def _tails(paths: Iterable[str]) -> dict[str, str]:
    """Shorten paths to the last parts that tell them apart."""
    backwards = {path: path.split(".")[::-1] for path in dict.fromkeys(paths)}
    return {p: ".".join(_shortest(p, backwards)[::-1]) for p in backwards}


def _heads(paths: Iterable[str]) -> dict[str, str]:
    """Shorten paths to the first parts that tell them apart."""
    parts = {path: path.split(".") for path in dict.fromkeys(paths)}
    most = min(map(len, parts.values()), default=1) - 1  # each keeps a part
    shared = 0
    while shared < most and len({p[shared] for p in parts.values()}) == 1:
        shared += 1
    parts = {path: p[shared:] for path, p in parts.items()}
    return {path: ".".join(_shortest(path, parts)) for path in parts}


def _shortest(path: str, parts: Mapping[str, list[str]]) -> list[str]:
    own = parts[path]
    others = [p for other, p in parts.items() if other != path]
    for length in range(1, len(own)):
        if all(p[:length] != own[:length] for p in others):
            return own[:length]
    return own


def headline(ranks: Sequence[float], initial: int | None = None) -> str:
    """Sum ranks up in a line that needs no knowledge of the method.

    Parameters
    ----------
    ranks : sequence of float
        Rank of each matrix.
    initial : int or None, default=None
        Rank of each at the start, when it is known.

    Returns
    -------
    str

    Examples
    --------
    >>> headline([6, 2, 4], initial=6)
    'Rank left in each weight matrix: 6 at the start, 4 on average now'
    """
    average = f"{round(sum(ranks) / len(ranks), 2):g} on average now"
    start = "" if initial is None else f"{initial} at the start, "
    return f"Rank left in each weight matrix: {start}{average}"
