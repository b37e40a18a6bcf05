"""The figures of the documentation show what the result files and the fits say."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
NAMES = ["hero", "learning_curves", "public", "tables", "speed", "schedule", "epochs"]
# Drawn by draw_fit.py, of fits that take too long to run here.
OF_FITS = ["fit", "ranks", "budget", "history", "map", "words", "explanation"]


@pytest.fixture(scope="module")
def figures():
    """The module docs/draw_figures.py."""
    pytest.importorskip("matplotlib")
    sys.path.insert(0, str(ROOT / "docs"))
    yield __import__("draw_figures")
    sys.path.remove(str(ROOT / "docs"))
    sys.modules.pop("draw_figures")


def test_the_data_are_those_of_the_page_of_results(figures):
    page = (ROOT / "benchmarks" / "RESULTS.md").read_text("utf-8")
    cells, ranks = figures.public_data()

    for task, of_task in cells.items():
        (row,) = re.findall(rf"^\| {task} \| 1,000 \| .*$", page, re.M)
        shown = row.strip("| ").replace("*", "").split(" | ")[3:]
        assert shown == [f"{accuracy:.3f}" for accuracy in of_task.values()]
    assert min(ranks, key=ranks.get) == "ours"
    assert figures.quickstart_data() == {"ours": 12.1, "embeddings": 5.2, "tfidf": 0.1}
    for processor, of_processor in figures.speed_data().items():
        ratio = {"Zen 5": 0.16, "Xeon, AMX": 0.17, "Zen 4": 0.24, "Zen 3": 0.39}
        assert 1 / of_processor["peft-adalora"] == pytest.approx(
            ratio[processor], abs=0.005
        )


def test_ours_is_the_measure_of_tables(figures):
    found = figures.tables_data()

    assert len(found) >= 7
    assert {of_table["ours"] for of_table in found.values()} == {0.0}


def test_the_learning_curve_is_a_mean_of_the_curves(figures):
    curves, mean = figures.curves_data(), figures.mean_curve_data()

    for method, curve in mean.items():
        whole = [c[method] for c in curves.values() if curve.keys() <= c[method].keys()]
        assert len(whole) == 4
        for n, value in curve.items():
            assert value == pytest.approx(sum(c[n] for c in whole) / 4)


def numbers(svg):
    """The text of a figure: ticks, labels, titles."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_figures_are_what_the_script_draws(figures, name, tmp_path):
    drawn = figures.save(name, tmp_path).read_text("utf-8")
    committed = (IMAGES / f"{name}.svg").read_text("utf-8")

    assert numbers(drawn) == numbers(committed)
    assert len(committed) < 60_000


def test_a_method_has_one_colour_in_all_figures(figures):
    colours = {name: colour for name, colour, _ in figures.LOOKS.values()}
    assert len(set(colours.values())) == len(colours)

    known = {colour.lower() for colour in colours.values()} | {figures.INK}
    for name in NAMES:
        svg = (IMAGES / f"{name}.svg").read_text("utf-8")
        assert set(re.findall(r"#[0-9a-f]{6}", svg)) <= known


def test_pages_show_each_figure_and_describe_it():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    text = "".join(page.read_text("utf-8") for page in pages)
    shown = dict(re.findall(r"!\[([^\]]*)\]\([^)]*images/(\w+)\.svg\)", text))

    assert {path.stem for path in IMAGES.iterdir()} == set(shown.values())
    assert min(map(len, shown)) > 30
    assert sum(path.stat().st_size for path in IMAGES.iterdir()) < 400_000


@pytest.mark.parametrize("name", OF_FITS)
def test_pictures_of_fits_have_no_paper_and_no_black_ink(name):
    svg = (IMAGES / f"{name}.svg").read_text("utf-8")

    ElementTree.fromstring(svg)
    assert len(svg) < 100_000
    assert not re.search(r'id="patch_1">\s*<path [^>]*fill: #', svg)
    inks = re.findall(r"<text style=\"[^\"]*fill: (#\w+)", svg)
    cells = (
        {"#ffffff", "#000000", "#1a1a1a"} if name in ("ranks", "explanation") else {}
    )
    assert set(inks) <= {"#7a7a7a", *cells}


def test_the_animation_ends_with_the_ranks_of_the_map():
    animated = (IMAGES / "fit.svg").read_text("utf-8")
    ranks = (IMAGES / "ranks.svg").read_text("utf-8")
    marks = re.findall(r'<rect class="r( o)?[^"]*" x="([\d.]+)" y="(\d+)"', animated)
    lit = [(float(x) - 26) // 77 for off, x, _ in marks if not off]
    in_cells = [int(n) for n in numbers(ranks) if re.fullmatch(r"\d", n)]
    table = in_cells[-36:]

    assert len(marks) == 36 * 6
    assert [lit.count(column) for column in range(6)] == [
        sum(table[column::6]) for column in range(6)
    ]
    assert sum(table) == len(lit) == 144
    assert "prefers-reduced-motion: reduce" in animated
