"""The picture of the modules, drawn by each build, on the page that explains it."""

from draw_architecture import draw
from outer_pages import DOCS, OUTER_PAGES, write_if_changed

PAGE = OUTER_PAGES["CONTRIBUTING.md"]
HEADING = "## Imports go one way\n"
PICTURE = f"""{HEADING}
![The modules, in boxes along the path of the data](architecture.svg)

The picture is drawn from the imports themselves.
"""


def write_picture(app, config):
    write_if_changed((DOCS / PAGE).parent / "architecture.svg", draw())


def read_page(app, page, content):
    if page == PAGE:
        if HEADING not in content[0]:
            raise ValueError(
                f"CONTRIBUTING.md must have the heading {HEADING.strip()!r}, below "
                "which the picture goes. Got none. Adapt docs/_extensions/."
            )
        content[0] = content[0].replace(HEADING, PICTURE)


def setup(app):
    app.connect("config-inited", write_picture)
    app.connect("source-read", read_page)
    return {"parallel_read_safe": True}
