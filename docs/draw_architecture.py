"""Draw the architecture of sk_adalora from the imports of its modules, as SVG.

    python docs/draw_architecture.py architecture.svg

The modules stand in boxes along the path of the data, from the top to the bottom. An
arrow from one box to another says that a module of the second imports one of the
first; it is left out where a longer way of arrows says so already. Imports are read
from the source, so that the picture cannot show what is not there.
"""

import ast
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "sk_adalora"


@dataclass(frozen=True)
class Group:
    """A box: its title, what it does, its modules, and whether it stands beside."""

    title: str
    does: str
    modules: str
    beside: bool = False


GROUPS = [
    Group("Texts", "rows of a table become texts", "_cells _columns _texts _rows"),
    Group(
        "Tokens",
        "token ids, in padded batches",
        "_tokenizer_lock _token_table _tokens _long_texts _batches",
    ),
    Group(
        "Model",
        "the shared pretrained model, adapted, with pooling and head",
        "_devices _torch_settings _find_model _model_files _check_model_files "
        "_read_model _model_identity _try_model _backbone _head _network",
    ),
    Group(
        "Training",
        "steps under a budget of ranks, and what is known afterwards",
        "_steps _learning_rates _training _linear_probe _prepare_head _interpolation "
        "_early_stopping _callbacks _report _rank_table",
    ),
    Group(
        "Saving",
        "files and folders, and the way back",
        "_file_versions _persistence _json_values _card _sentence_files _folder_files "
        "_write_folder _read_folder _whole_folder",
    ),
    Group(
        "Estimators",
        "fit, predict, save and load",
        "_predicting _folder _fit_warnings _fitting _base "
        "_labels _numbers _classifier _regressor",
    ),
    Group(
        "Search",
        "settings that Optuna proposes, scored over folds",
        "_dimensions _space _optuna_pruning _search_digest _search_code "
        "_search_fingerprint _search_marks _search_workers _search_pruner "
        "_search_sampling _search_storage _search_study _search_enqueue _search_table "
        "_search_summary _search_plot _search_rules _search_warnings _search_trials "
        "_search_hooks _search",
    ),
    Group(
        "Pictures",
        "of ranks, budget and training",
        "_draw_history _draw_ranks _displays",
    ),
    Group(
        "adalora, the engine",
        "for any torch model",
        "adalora.json_file adalora.messages adalora.config adalora.schedule "
        "adalora.products adalora.passes adalora.layers adalora.row_bank "
        "adalora.resizing adalora.triplets adalora.targets adalora.trained "
        "adalora.state adalora.allocator adalora.exchange adalora.loop_checks "
        "adalora.wrapper adalora.model adalora.peft_format adalora.read_peft",
        beside=True,
    ),
    Group(
        "Shared",
        "by all of the rest",
        "_parameters _messages _locks _transaction _doc_links _plotting",
        beside=True,
    ),
]

# Sizes in pixels.
WIDTH, PATH_WIDTH, SIDE_WIDTH = 800, 520, 190
MARGIN, GAP, PAD, LINE, CHIP = 30, 26, 12, 26, 20
CHARACTER = 7.3  # of the monospaced names


# What the source says


def module_name(path):
    """The module's name inside the package: "_texts", "adalora.config", ""."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_modules():
    """Mapping {module: path} of the package; the `__init__` files only list names."""
    paths = [p for p in sorted(PACKAGE.rglob("*.py")) if p.name != "__init__.py"]
    return {module_name(path): path for path in paths}


def imported_modules(name, modules):
    """The modules of ours that the module `name` imports, wherever in its source."""
    tree = ast.parse(modules[name].read_text("utf-8"))
    parents = name.split(".")
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parents[: len(parents) - node.level]
            base += node.module.split(".") if node.module else []
            found |= {".".join(base), *(".".join([*base, a.name]) for a in node.names)}
    # "from .adalora import X" goes through the names that the engine lists.
    of_the_engine = {"adalora.model"} if "adalora" in found else set()
    return (found & modules.keys()) | of_the_engine


def group_of_each(modules):
    """Mapping {module: group}; each module stands in one box."""
    placed = {name: group for group in GROUPS for name in group.modules.split()}
    if missing := sorted(modules.keys() - placed.keys()):
        raise ValueError(
            f"each module must stand in one of GROUPS. Got {missing}, which stand in "
            "none. Add them to the group whose job is theirs."
        )
    return placed


def edges_of_groups(modules):
    """Pairs (imported group, importing group), without those that others imply."""
    placed = group_of_each(modules)
    pairs = {
        (placed[imported], placed[name])
        for name in modules
        for imported in imported_modules(name, modules)
        if placed[imported] is not placed[name]
    }
    for above, below in pairs:
        on_the_path = not (above.beside or below.beside)
        if on_the_path and GROUPS.index(above) > GROUPS.index(below):
            raise ValueError(
                f"imports must go down the picture. Got one from {below.title!r} to "
                f"{above.title!r} below it. Move a module to another group."
            )
    return {pair for pair in pairs if not leads_around(pair, pairs - {pair})}


def leads_around(pair, pairs):
    """Whether the other pairs lead from the first of the pair to the second."""
    start, end = pair
    reached, left = set(), [start]
    while left:
        here = left.pop()
        reached.add(here)
        left += [b for a, b in pairs if a is here and b not in reached]
    return end in reached


# Where it stands


@dataclass
class Box:
    """A group's place on the page, and the places of its modules' names."""

    group: Group
    x: float
    y: float
    width: float
    height: float
    chips: list


def shown(name):
    """A module's name in its box: the engine's stand in a box with its name."""
    return name.removeprefix("adalora.")


def lay_out_box(group, names, x, y, width):
    """Place the names of a group in lines below its title."""
    chips, left, top = [], x + PAD, y + 46
    for name in names:
        wide = len(shown(name)) * CHARACTER + 14
        if left + wide > x + width - PAD and left > x + PAD:
            left, top = x + PAD, top + LINE
        chips.append((name, left, top, wide))
        left += wide + 6
    return Box(group, x, y, width, top + CHIP + PAD - y, chips)


def lay_out():
    """The boxes: the path in the wide column, what stands beside it on its right."""
    boxes, y, side_y = [], 10, 10
    for group in GROUPS:
        names = group.modules.split()
        if group.beside:
            side = WIDTH - SIDE_WIDTH - 10
            box = lay_out_box(group, names, side, side_y, SIDE_WIDTH)
            side_y = box.y + box.height + GAP
        else:
            box = lay_out_box(group, names, MARGIN, y, PATH_WIDTH)
            y = box.y + box.height + GAP
        boxes.append(box)
    return boxes


# How it is drawn


STYLE = """
text { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1b2733; }
.title { font-size: 15px; font-weight: 600; }
.does { font-size: 12px; fill: #4a5866; }
.name { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; }
.box { fill: #eef4fa; stroke: #7f9db9; }
.beside { fill: #fdf3e3; stroke: #c9a15b; }
.chip { fill: #ffffff; stroke: #c3d0dc; }
.edge { fill: none; stroke: #4a5866; stroke-width: 1.5; marker-end: url(#head); }
"""


def draw_box(box):
    beside = "beside" if box.group.beside else "box"
    title = escape(box.group.title)
    yield (
        f'<rect class="{beside}" x="{box.x}" y="{box.y}" width="{box.width}" '
        f'height="{box.height}" rx="6"/>'
    )
    if beside == "box":  # title and what it does on one line
        yield (
            f'<text class="title" x="{box.x + PAD}" y="{box.y + 26}">{title}'
            f'<tspan class="does" dx="12" font-weight="400">{escape(box.group.does)}'
            "</tspan></text>"
        )
    else:
        yield f'<text class="title" x="{box.x + PAD}" y="{box.y + 21}">{title}</text>'
        yield (
            f'<text class="does" x="{box.x + PAD}" y="{box.y + 38}">'
            f"{escape(box.group.does)}</text>"
        )
    for name, x, y, wide in box.chips:
        yield (
            f'<rect class="chip" x="{x}" y="{y}" width="{wide:.0f}" '
            f'height="{CHIP}" rx="4"/>'
        )
        text = escape(shown(name))
        yield f'<text class="name" x="{x + 7}" y="{y + 14}">{text}</text>'


def draw_edge(start, end, lane):
    """An arrow: down to the next box, around the left, or in from the side."""
    if start.x == end.x and start.y + start.height + GAP == end.y:
        points = f"M {start.x + 60} {start.y + start.height} V {end.y - 2}"
    elif start.group.beside:
        gutter = MARGIN + PATH_WIDTH + 18 + 12 * lane
        y_start = start.y + start.height / 2
        y_end = end.y + end.height / 2
        points = f"M {start.x} {y_start} H {gutter} V {y_end} H {end.x + end.width + 2}"
    else:
        gutter = MARGIN - 10 - 8 * (lane % 2)
        points = (
            f"M {start.x} {start.y + start.height / 2} H {gutter} "
            f"V {end.y + end.height / 2} H {end.x - 2}"
        )
    return f'<path class="edge" d="{points}"/>'


def draw():
    """The picture, as the text of an SVG file."""
    modules = read_modules()
    boxes = lay_out()
    of_group = {box.group: box for box in boxes}
    beside = [group for group in GROUPS if group.beside]
    edges = sorted(edges_of_groups(modules), key=str)
    height = max(box.y + box.height for box in boxes) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'width="{WIDTH}" height="{height:.0f}" role="img">',
        "<title>The modules of sk-adalora along the path of the data</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M 0 0 L 8 4 L 0 8 z" '
        'fill="#4a5866"/></marker></defs>',
        *(line for box in boxes for line in draw_box(box)),
    ]
    for above, below in edges:
        lane = beside.index(above) if above in beside else GROUPS.index(above)
        lines.append(draw_edge(of_group[above], of_group[below], lane))
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(), encoding="utf-8")
