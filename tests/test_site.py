"""The parts of the documentation site that need no Sphinx; CI builds all of it."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.fixture
def load(monkeypatch):
    """Function: name -> a module of docs/ or of docs/_extensions/."""
    monkeypatch.syspath_prepend(DOCS)
    monkeypatch.syspath_prepend(DOCS / "_extensions")
    loaded = []

    def load(name):
        loaded.append(name)
        return __import__(name)

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


def test_code_ends_without_the_empty_line_that_doctest_needs(load):
    page = "A\n\n```\n>>> 1\n1\n\n```\n\nB\n\n```python\nx = 1\n\ny = 2\n```\n"

    shown = load("outer_pages").relink(page, ROOT / "README.md", "index")

    assert shown == page.replace("1\n\n```", "1\n```")


@pytest.mark.parametrize(
    ("source", "link", "on_the_site"),
    [
        ("docs/index.md", "../CONTRIBUTING.md", "generated/contributing.markdown"),
        ("docs/index.md", "../examples", "auto_examples/index.rst"),
        ("docs/how_to/tables.md", "search.md", "search.md"),
        (
            "docs/get_started/install.md",
            "https://example.org/x.md",
            "https://example.org/x.md",
        ),
        ("docs/reference/api.md", "missing.md", "missing.md"),
        ("CONTRIBUTING.md", "docs/project/design.md", "../project/design.md"),
        ("CHANGES.md", "examples/quickstart.py", "../../examples/quickstart.py"),
    ],
)
def test_links_of_the_repository_lead_to_pages_of_the_site(
    load, source, link, on_the_site
):
    pages = load("outer_pages")
    page = pages.page_of(ROOT / source)

    def linked(target):
        code = f"```bash\n[a]({link})\n```"  # in which links stay
        return f"See [a `name`]({target}).\n\n{code}\n"

    assert pages.relink(linked(link), ROOT / source, page) == linked(on_the_site)


def test_a_broken_link_of_a_site_is_found(load, tmp_path):
    checker = load("check_links")
    (tmp_path / "source.py").touch()  # of the repository, in which the site is built
    site = tmp_path / "site"
    site.mkdir()
    (site / "a.html").write_text(
        "<a href='b.html#here'>good</a> <a href='#top'>good</a> "
        "<a href='https://example.org/nothing'>not followed</a>"
        "<a href='b.html#there'>bad</a> <a href='../source.py'>bad</a>"
        "<img src='c.png'>"
    )
    (site / "b.html").write_text("<p id='here'>text</p>")

    assert sorted(checker.broken_links(site)) == [
        "a.html: ../source.py",
        "a.html: b.html#there",
        "a.html: c.png",
    ]
