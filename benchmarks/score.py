"""Accuracy of all contestants on all tasks and sizes; can be run in pieces.

Each result is a line of a JSONL file, and what is there is not measured again.
"""

import json
import statistics
import time
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from itertools import product

from sk_adalora import clear_backbone_cache

from . import results
from .arguments import positive
from .contestants import (
    CONTESTANTS,
    FINE_TUNING,
    ON_REQUEST,
    epochs_of,
    fit,
    learning_rate_of,
    settings_of,
)
from .data import TASKS, digest, split
from .machine import describe_commit, describe_processor
from .worker import Clock

# A task with fewer rows than this share of a size is not measured at that size.
_ENOUGH = 0.9
# A mean rank of fewer rows of the table says little.
_FEWEST_RANKED = 3
_SIZES = [200, 1000, 4000]
_KEY = ("contestant", "task", "size", "seed")
_SAME = ("epochs", "batch_size", "max_length", "precision", "model", "n_test")


def add_options(parser):
    """Declare the options of the subcommand."""
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=list(TASKS),
        default=list(TASKS),
        help="default: all; --data replaces them",
    )
    parser.add_argument(
        "--contestants",
        nargs="+",
        choices=list(CONTESTANTS),
        default=[name for name in CONTESTANTS if name not in ON_REQUEST],
        help=f"default: all but {', '.join(ON_REQUEST)}",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=positive,
        help="rows to learn from (default: 200 1000 4000, fewer of few)",
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2"
    )
    parser.add_argument(
        "--n-test", type=positive, help="rows to predict (default: 1000, fewer of few)"
    )
    parser.add_argument(
        "--again",
        nargs="+",
        choices=list(CONTESTANTS),
        default=[],
        help="forget what was measured of these contestants",
    )


def quicken(options):
    """Set the options to a smoke test."""
    options.sizes, options.seeds, options.n_test = [80], [0], 64
    options.tasks, options.epochs = options.tasks[:1], 1


def run(options):
    """Measure what is missing, then sum up all."""
    path = options.results / f"score-{options.kept_as}.jsonl"
    tasks = {name: options.load(name) for name in _names(options)}
    # The hash of each task's data; of those in packages, the version is fixed.
    data = {name: digest(tasks[name]) if options.data else None for name in tasks}
    sizes = _sizes(options, tasks)
    records = _known(path, options, tasks, data, sizes)
    for name, task in tasks.items():
        for size, seed in product(sizes[name], options.seeds):
            rows = split(task, size, options.n_test, seed)
            for contestant in options.contestants:
                key = (contestant, task.name, size, seed)
                if key in records:
                    continue
                record = {
                    **dict(zip(_KEY, key, strict=True)),
                    **_measure(options, contestant, rows, seed),
                }
                record["settings"]["data"] = data[name]
                records[key] = record
                results.append(path, record)
                options.say(
                    f"{task.name} {size} seed {seed}, {contestant}: "
                    f"{record['accuracy']:.3f} ({record['seconds']:.0f} s)"
                )
    # Another run may have written lines meanwhile.
    records = _by_key(results.read_lines(path))
    return {**_said(path.with_suffix(".json")), "records": list(records.values())}


def _by_key(records):
    return {tuple(record[name] for name in _KEY): record for record in records}


def _said(path):
    """Return what the page says of the records, as it was written into their file."""
    # A command that measures one cell must not stand for all.
    origin = "`python -m benchmarks score` wrote, in pieces, the last of them on:"
    earlier = json.loads(path.read_text("utf-8")) if path.exists() else {}
    said = {key: earlier[key] for key in ("origin", "splits") if key in earlier}
    return {"origin": origin, **said}


def _names(options):
    return [options.load().name] if options.data else options.tasks


def _sizes(options, tasks):
    """Return by task the numbers of rows to learn from that it has enough rows for."""
    left = {name: len(task.texts) - options.n_test for name, task in tasks.items()}
    sizes = {
        name: [n for n in options.sizes or _SIZES if rows >= _ENOUGH * n]
        for name, rows in left.items()
    }
    if options.sizes is None or options.quick:  # of few rows, all
        return {name: sizes[name] or [left[name]] for name in sizes}
    if not any(sizes.values()):
        asked = ", ".join(map(str, options.sizes))
        raise ValueError(
            f"One of --sizes must be at most the {max(left.values())} rows beside "
            f"those of --n-test. Got {asked}. Name a smaller one."
        )
    return sizes


def _known(path, options, tasks, data, sizes):
    """Read what was measured; drop what is to be measured again."""
    if options.quick:  # a smoke test measures something
        path.unlink(missing_ok=True)
    records = results.read_lines(path)
    kept = [record for record in records if not _is_again(record, options, data, sizes)]
    # All that a file keeps is compared, whoever is measured now.
    for record in kept:
        _refuse_other_data(record, data, path)
        _refuse_other_settings(record, options, tasks, path)
    if len(kept) < len(records):
        path.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
    return _by_key(kept)


def _is_again(record, options, data, sizes):
    return (
        record["contestant"] in options.again
        and record["contestant"] in options.contestants
        and record["seed"] in options.seeds
        and record["task"] in data
        and record["size"] in sizes[record["task"]]
        and _data_of(record) == data[record["task"]]
    )


def _data_of(record):
    return record["settings"].get("data")  # the first lines do not say


def _settings(options, contestant, seed, labels):
    settings = _settings_typed(options, contestant, seed)
    return replace(settings, epochs=epochs_of(contestant, settings, labels))


def _settings_typed(options, contestant, seed):
    rate = options.learning_rates.get(contestant)
    return settings_of(options, seed=seed, learning_rate=rate)


def _shared(settings, options):
    """Return what must be the same for all lines of a file."""
    known = {**asdict(settings), "n_test": options.n_test}
    return {name: known[name] for name in _SAME}


def _refuse_other_data(record, data, path):
    """Refuse a file of the name of a task that stands for something else there."""
    task = record["task"]
    if task in data and _data_of(record) != data[task]:
        raise ValueError(
            f"All lines of {path} of a task must be of the same data. Got "
            f"data={data[task]!r} after {_data_of(record)!r} of {task!r}. Give the "
            "file of --data another name, or use another --results."
        )


def _refuse_other_settings(record, options, tasks, path):
    contestant, known = record["contestant"], record["settings"]
    asked = _settings_asked(record, options, tasks)
    for name, value in asked.items():
        if known[name] != value:
            raise ValueError(
                f"All lines of {path} must have the same settings. Got "
                f"{name}={value!r} after {known[name]!r} of {contestant}. Use --again "
                f"{contestant} on all that it was measured on, or another --results."
            )


def _settings_asked(record, options, tasks):
    """Return what the settings of a line would be now, as far as that can be told."""
    contestant, task = record["contestant"], tasks.get(record["task"])
    settings = _settings_typed(options, contestant, record["seed"])
    asked = _shared(settings, options)
    epochs = asked.pop("epochs")
    if contestant in options.contestants:  # elsewhere no rate is asked for
        asked["learning_rate"] = learning_rate_of(contestant, settings)
    if contestant not in FINE_TUNING:
        asked["epochs"] = None
    elif task is not None:
        rows = split(task, record["size"], options.n_test, record["seed"])
        asked["epochs"] = epochs_of(contestant, settings, rows[1])
    elif epochs:  # else they depend on rows that are not read
        asked["epochs"] = epochs
    return asked


def _measure(options, contestant, rows, seed):
    X_train, y_train, X_test, y_test = rows
    settings = _settings(options, contestant, seed, y_train)
    clear_backbone_cache()  # all others read the weights anew
    clock = Clock(settings)
    predicted = fit(contestant, X_train, y_train, settings).predict(X_test)
    clock.stop()
    return {
        "n_train": len(X_train),
        "accuracy": statistics.mean(
            p == t for p, t in zip(predicted, y_test, strict=True)
        ),
        "seconds": clock.wall,
        "settings": {
            **_shared(settings, options),
            "learning_rate": learning_rate_of(contestant, settings),
        },
        "date": time.strftime("%Y-%m-%d"),
        "commit": describe_commit(),
        "machine": describe_processor(),
    }


# ---- summing up --------------------------------------------------------------


def summarise(records):
    """Return mean accuracies by cell, mean ranks and worst gaps.

    Parameters
    ----------
    records : list of dict
        With `contestant`, `task`, `size`, `seed` and `accuracy`.

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
        cell.setdefault(record["contestant"], {})[record["seed"]] = record["accuracy"]
    present = {record["contestant"] for record in records}
    names = [name for name in CONTESTANTS if name in present]
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


def to_markdown(result):
    """Return the table of cells, mean ranks and worst gaps."""
    summary = summarise(result["records"])
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
    note = (
        "Mean accuracy over the seeds that all in a row have; ranks over the "
        f"{len(summary['complete'])} of {len(summary['cells'])} rows that all "
        "contestants have; gaps over the rows that a contestant has, each pair on the "
        "seeds that both have."
    )
    machines = Counter(record.get("machine", "?") for record in result["records"])
    if len(machines) > 1:
        parts = (f"{count} on {name}" for name, count in machines.items())
        note += f"\n\nOf the fits, {'; '.join(parts)}."
    return f"{results.table(['task', 'rows', 'seeds', *names], lines)}\n\n{note}"


def ahead_to_markdown(found):
    """Return by how much ours is better than each other.

    Parameters
    ----------
    found : list of dict
        Results; what their ``splits`` says heads their columns, or of several without
        it, what ends the names of their files.
    """
    unnamed = sum("splits" not in result for result in found)
    columns = [
        column
        for result in found
        for column in _columns(result, f", {result['kept_as']}" if unnamed > 1 else "")
    ]
    ahead = [summarise(records)["ahead"] for _, records in columns]
    present = {name for column in ahead for name in column}
    names = [name for name in CONTESTANTS if name in present and name != "ours"]
    of_ours = [len(column.get("ours", {})) for column in ahead]
    titles = [
        f"{title} ({_tasks(count)})"
        for (title, _), count in zip(columns, of_ours, strict=True)
    ]
    lines = [[f"`{name}`", *map(partial(_ahead, name), ahead)] for name in names]
    return results.table(["ours beside", *titles], lines)


def _columns(result, whose):
    """Return titles and records: of the smallest size, and of the larger ones.

    What is ahead on few rows need not be on more, which a mean over both would hide.
    """
    title, records = result.get("splits", f"all splits{whose}"), result["records"]
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
