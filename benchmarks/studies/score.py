"""Accuracy of all contestants on all tasks and sizes; can be run in pieces."""

import statistics
from collections import Counter
from functools import partial

from benchmarks.contestants import CONTESTANTS, ON_REQUEST, epochs_of, learning_rate_of
from benchmarks.data import TASKS
from benchmarks.results import table

from .study import Study, grid

STUDIES = {}  # by the name that `python -m benchmarks NAME` runs them by

# A mean rank of fewer rows of the table says little.
_FEWEST_RANKED = 3


def _contestant(name):
    """Return the setting that a contestant is."""

    def make(cell):
        options = cell.options
        rate = dict(options.learning_rate).get(name)
        return cell.contestant(name, batch_size=options.batch_size, learning_rate=rate)

    return make


def fixed(cell, name):
    """Return what a contestant is trained with."""
    settings = _contestant(name)(cell).settings
    return {
        "epochs": epochs_of(name, settings, cell.rows[1]),
        "learning_rate": learning_rate_of(name, settings),
    }


# ---- summing up --------------------------------------------------------------


def summarise(records, among=CONTESTANTS):
    """Return mean accuracies by cell, mean ranks and worst gaps.

    Parameters
    ----------
    records : list of dict
        With `setting` (the contestant), `task`, `size`, `seed` and `accuracy`.
    among : iterable of str
        Contestants in the order of the columns.

    Returns
    -------
    dict
        ``cells``: (task, size) -> contestant -> mean over the seeds that all of the
        cell have; ``seeds``: (task, size) -> how many these are; ``complete``: the
        cells that all contestants have; ``rank``: size, or None for all of them ->
        contestant -> mean rank over these cells, 1 is the best, equal means share the
        mean of their ranks; ``gap``: contestant -> how far it is behind another in a
        cell at worst, over all cells, each pair on the seeds that both have;
        ``ahead``: contestant -> task -> by how much ours is better, for each split
        that both have.
    """
    values = {}
    for record in records:
        cell = values.setdefault((record["task"], record["size"]), {})
        cell.setdefault(record["setting"], {})[record["seed"]] = record["accuracy"]
    present = {record["setting"] for record in records}
    names = [name for name in among if name in present]
    shared = {
        key: set.intersection(*map(set, cell.values())) for key, cell in values.items()
    }
    cells = {
        key: {
            name: statistics.mean(cell[name][seed] for seed in shared[key])
            for name in names
            if name in cell
        }
        for key, cell in values.items()
        if shared[key]
    }
    complete = [key for key, cell in cells.items() if len(cell) == len(names)]
    ranked = {size: [k for k in complete if k[1] == size] for _, size in complete}
    if len(ranked) > 1:
        ranked = {size: k for size, k in ranked.items() if len(k) >= _FEWEST_RANKED}
        ranked[None] = complete
    return {
        "names": names,
        "cells": cells,
        "seeds": {key: len(seeds) for key, seeds in shared.items()},
        "complete": complete,
        "rank": {
            size: {n: statistics.mean(_rank(cells[k], n) for k in keys) for n in names}
            for size, keys in ranked.items()
        },
        "gap": {name: _worst_gap(values.values(), name) for name in names},
        "ahead": {name: _ours_ahead(values, name) for name in names},
    }


def _ours_ahead(cells, name):
    """Return by how much ours is better, split by split of each task."""
    found = {}
    for (task, _), cell in cells.items():
        ours, theirs = cell.get("ours", {}), cell.get(name, {})
        for seed in ours.keys() & theirs.keys():
            found.setdefault(task, []).append(ours[seed] - theirs[seed])
    return found


def _worst_gap(cells, name):
    """Return by how much others are better at most, on the seeds of both."""
    worst = 0.0
    for cell in cells:
        own = cell.get(name, {})
        for other in cell.values():
            shared = own.keys() & other.keys()
            if shared:
                gap = statistics.mean(other[seed] - own[seed] for seed in shared)
                worst = max(worst, gap)
    return worst


def _rank(cell, name):
    # Means of the same scores may differ in their last digit.
    gains = [round(value - cell[name], 9) for value in cell.values()]
    return sum(gain > 0 for gain in gains) + (sum(gain == 0 for gain in gains) + 1) / 2


def rows_of(summary):
    """Return the rows of a table: of cells, mean ranks and worst gaps."""
    names = summary["names"]
    lines = []
    for (task, size), cell in summary["cells"].items():
        best = max(cell.values())
        row = [_accuracy(cell.get(name), best) for name in names]
        lines.append([task, f"{size:,}", summary["seeds"][task, size], *row])
    for size, ranks in summary["rank"].items():
        shown = "all" if size is None else f"{size:,}"
        ranks = [f"{ranks[name]:.2f}" for name in names]
        lines.append(["**mean rank**", shown, "", *ranks])
    gaps = [f"{100 * summary['gap'][name]:.1f}" for name in names]
    lines.append(["**worst gap, points**", "all", "", *gaps])
    return lines


def to_markdown(study, about, records):
    """Return the table of cells, mean ranks and worst gaps."""
    summary = summarise(records)
    note = (
        "Mean accuracy over the seeds that all in a row have; ranks over the "
        f"{len(summary['complete'])} of {len(summary['cells'])} rows that all "
        "contestants have; gaps over the rows that a contestant has, each pair on the "
        "seeds that both have."
    )
    machines = Counter(record.get("machine", "?") for record in records)
    if len(machines) > 1:
        parts = (f"{count} on {name}" for name, count in machines.items())
        note += f"\n\nOf the fits, {'; '.join(parts)}."
    heads = ["task", "rows", "seeds", *summary["names"]]
    return f"{table(heads, rows_of(summary))}\n\n{note}"


def ahead_to_markdown(found):
    """Return by how much ours is better than each other.

    Parameters
    ----------
    found : list of (dict, list of dict)
        What files say of themselves, whose ``splits`` heads their columns, and their
        records.
    """
    columns = [
        column for about, records in found for column in _columns(about, records)
    ]
    ahead = [summarise(records)["ahead"] for _, records in columns]
    present = {name for column in ahead for name in column}
    names = [name for name in CONTESTANTS if name in present and name != "ours"]
    titles = [
        f"{title} ({_tasks(len(column.get('ours', {})))})"
        for (title, _), column in zip(columns, ahead, strict=True)
    ]
    lines = [[f"`{name}`", *map(partial(_ahead, name), ahead)] for name in names]
    return table(["ours beside", *titles], lines)


def _columns(about, records):
    """Return titles and records: of the smallest size, and of the larger ones.

    What is ahead on few rows need not be on more, which a mean over both would hide.
    """
    title = about.get("splits", f"splits of {about['kept_as']}")
    smallest = min((record["size"] for record in records), default=0)
    more = [record for record in records if record["size"] > smallest]
    if not more:
        return [(title, records)]
    few = [record for record in records if record["size"] == smallest]
    return [(f"{title}: {smallest:,} rows", few), (f"{title}: more rows", more)]


def _ahead(name, column):
    """Return the mean over tasks, whatever the number of splits of each."""
    by_task = column.get(name)
    if not by_task:
        return "-"
    points = 100 * statistics.mean(map(statistics.mean, by_task.values()))
    points = round(points, 1) + 0.0  # no "-0.0"
    splits = [difference for task in by_task.values() for difference in task]
    higher = sum(difference > 0 for difference in splits)
    fewer = f" ({_tasks(len(by_task))})" if len(by_task) < len(column["ours"]) else ""
    return f"{points:+.1f}{fewer}, {higher}/{len(splits)}"


def _tasks(count):
    return "1 task" if count == 1 else f"{count} tasks"


def _accuracy(value, best):
    if value is None:
        return "-"
    return f"**{value:.3f}**" if round(best - value, 9) == 0 else f"{value:.3f}"


STUDIES["score"] = Study(
    "How accurate are all contestants on all tasks, by the number of rows?",
    settings={name: _contestant(name) for name in CONTESTANTS},
    cells=grid(TASKS, {size: [0, 1, 2] for size in [200, 1000, 4000]}),
    cuts=False,
    on_request=ON_REQUEST,
    options={"epochs": None, "batch_size": 32, "max_length": 128, "learning_rate": []},
    fixed=fixed,
    to_markdown=to_markdown,
)
