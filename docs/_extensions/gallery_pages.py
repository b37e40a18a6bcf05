"""Pages of the gallery: figure first, its code folded; notebooks that run alone.

The last two cells of an example are the text and the code of its figure. On the site,
figure and text stand under the introduction, and the code is folded, at the end.
"""

import re

from outer_pages import ROOT

DATA = ROOT / "examples" / "gallery_data.py"
REQUIREMENTS = (
    '"sk-adalora[demo,plot,tables]" bokeh-sampledata==2026.1 pandas peft rich'
)

CELL = "\n.. GENERATED FROM PYTHON SOURCE LINES"
CODE = re.compile(r"\.\. code-block:: Python\n(?:\n| {4}.*\n)+")
IMAGE = re.compile(r"\n\.\. image-sg::.*\n(?: +:.*\n)+")
FOLDED = """\
.. raw:: html

    <details class="fold"><summary>Code of the figure</summary>

{}
.. raw:: html

    </details>

"""
DOWNLOADS = f"""
The program needs :download:`gallery_data.py <../../examples/{DATA.name}>` beside it
and ``pip install {REQUIREMENTS}``. The notebook brings both.
"""

GREY = "#777777"  # can be read on white and on black
STYLE = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.facecolor": "none",
    "legend.edgecolor": "none",
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "grid.color": GREY,
    "grid.alpha": 0.3,
}


def style(gallery_conf, file):
    """Draw the next example's figure for light and dark pages alike."""
    import matplotlib

    matplotlib.rcParams.update(STYLE)


def first_notebook_cell():
    """Code that installs what a notebook needs, and writes its module."""
    # As plain text between quotes, so that a reader can read it.
    return (
        f"%pip install --quiet {REQUIREMENTS}\n\n"
        "from pathlib import Path\n\n"
        f"Path({DATA.name!r}).write_text(r'''{DATA.read_text('utf-8')}''', "
        "encoding='utf-8');"
    )


def figure_first(page):
    """Put the figure and its text under the introduction, and fold its code."""
    introduction, *cells, text, code = page.split(CELL)
    figure = IMAGE.search(code)  # there is none if nothing was run
    code = IMAGE.sub("", code, count=1)
    code = CODE.sub(lambda match: FOLDED.format(match[0]), code, count=1)
    shown = figure[0] if figure else ""
    return CELL.join([introduction + shown, text, *cells, code]) + DOWNLOADS


def read_page(app, page, content):
    if page.startswith("auto_examples/plot_"):
        content[0] = figure_first(content[0])


def setup(app):
    app.connect("source-read", read_page)
    app.add_css_file("gallery.css")
    return {"parallel_read_safe": True}
