"""Markdown that serves a code host and the site alike.

Pages of the repository that lie outside docs/ become pages of the site, and links to
them, to the examples and to folders lead to their pages there. Nothing in the Markdown
knows of the site: what it needs is put in while it is read.
"""

import os
import re
from pathlib import Path

DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent
# What lies outside docs/ and is a page of the site: file -> page.
OUTER_PAGES = {
    "CHANGES.md": "generated/changes",
    "CONTRIBUTING.md": "generated/contributing",
    "CODE_OF_CONDUCT.md": "generated/conduct",
}
# Pages of the site that are there already under another name.
OTHER_NAMES = {
    "examples": "auto_examples/index",
    "examples/README.md": "auto_examples/index",
}
# Not ".md": such files in docs/ are written by hand, and tests look at each.
SUFFIX = ".markdown"

BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\[(?:[^\]`]|`[^`]*`)*\]\()([^)\s#]+)(#[^)\s]*)?\)")
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)


def page_of(path):
    """The page of the site that a file or folder of the repository is, or None."""
    name = path.relative_to(ROOT).as_posix()
    if page := (OUTER_PAGES | OTHER_NAMES).get(name):
        return page
    if name.startswith("examples/plot_"):
        return "auto_examples/" + path.stem
    inside = path.is_relative_to(DOCS) and path.suffix == ".md"
    return path.relative_to(DOCS).with_suffix("").as_posix() if inside else None


def file_of(page):
    """The source file of a page, which links to it name; it may not be made yet."""
    suffix = ".rst" if page.startswith("auto_examples/") else ".md"
    return (DOCS / page).with_suffix(SUFFIX if page in OUTER_PAGES.values() else suffix)


def relink(text, source, page):
    """Make the relative links of `source` right for the page that it becomes."""

    def replaced(match):
        before, target, anchor = match[1], match[2], match[3] or ""
        path = Path(os.path.normpath(source.parent / target))
        if "://" in target or not path.exists():
            return match[0]
        linked = page_of(path)
        if linked is None and path.suffix == ".md":
            return before[1:-2]  # a study, which only the repository has
        file = file_of(linked) if linked else path  # others are offered as they are
        relative = os.path.relpath(file, (DOCS / page).parent)
        return f"{before}{Path(relative).as_posix()}{anchor})"

    blocks = [*map(trim, BLOCK.findall(text)), ""]
    around = [LINK.sub(replaced, part) for part in BLOCK.split(text)]
    return "".join(a + b for a, b in zip(around, blocks, strict=True))


def trim(block):
    """A block of code without the empty lines at its end, which only doctest needs."""
    return block.removesuffix("```").rstrip("\n") + "\n```"


def write_if_changed(path, text):
    """Write a file, but leave its date alone when nothing changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, encoding="utf-8")


def write_outer_pages(app, config):
    """Copy the pages that lie outside docs/."""
    for name, page in OUTER_PAGES.items():
        write_if_changed(DOCS / (page + SUFFIX), (ROOT / name).read_text("utf-8"))


def read_page(app, page, content):
    """Relink a page; the front page also gets the contents of the site."""
    sources = {page: ROOT / name for name, page in OUTER_PAGES.items()}
    source = sources.get(page, DOCS / f"{page}.md")
    if source.exists():
        content[0] = relink(content[0], source, page)
    if page == app.config.root_doc:
        content[0] += "".join(contents(content[0]))


def contents(front_page):
    """A hidden table of contents for each section of the front page, by its links."""
    pieces = SECTION.split(front_page)
    for title, body in zip(pieces[1::2], pieces[2::2], strict=True):
        links = [match for match in LINK.finditer(body) if "://" not in match[2]]
        # In the words of the front page: two pages may have one title.
        listed = "\n".join(
            f"{link[1][1:-2]} <{os.path.splitext(link[2])[0]}>" for link in links
        )
        if listed:
            yield f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{listed}\n```\n"


def setup(app):
    app.connect("config-inited", write_outer_pages)
    app.connect("source-read", read_page)
    return {"parallel_read_safe": True}
