"""Write the generated parts of benchmarks/RESULTS.md from the results."""

import re
from functools import partial
from pathlib import Path

from . import memory, operations, parts_of_a_fit, results, speed, step
from .studies import score

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
WRITERS = {
    "speed": speed.to_markdown,
    "step": step.to_markdown,
    "operations": operations.to_markdown,
    "profile": parts_of_a_fit.to_markdown,
    "score": partial(score.to_markdown, None),
    "memory": memory.to_markdown,
}


def render(what, folder):
    """Return the generated part of a measurement: a block for each device."""
    blocks = []
    for about, rows in results.find(folder, what):
        origin = about.get("origin", f"`{about['command']}` wrote:")
        table = WRITERS[what](about, rows)
        blocks.append(f"{origin}\n\n> {about['machine']}\n\n{table}")
    return "\n\n".join(blocks) or f"Not measured yet: `python -m benchmarks {what}`."


def render_ahead(folder):
    """Return the table of how far ours is ahead of the others."""
    found = results.find(folder, "score")
    return score.ahead_to_markdown(found) if found else "Nothing to compare yet."


PARTS = {"ahead": render_ahead, **{what: partial(render, what) for what in WRITERS}}


def fill(page, folder):
    """Return a page with all its generated parts written anew.

    Parameters
    ----------
    page : str
        Text with ``<!-- benchmarks: NAME -->`` and ``<!-- end -->`` around each part.
    folder : Path
        Where the results lie.

    Raises
    ------
    ValueError
        If the page lacks the marks of a part.
    """
    for what, write in PARTS.items():
        begin, end = f"<!-- benchmarks: {what} -->", "<!-- end -->"
        part = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(part.findall(page)) != 1:
            raise ValueError(
                f"The page must have the lines '{begin}' and '{end}' once. "
                "Got none or several. Put them where the results should go."
            )
        text = f"{begin}\n\n{write(folder)}\n\n{end}"
        page = part.sub(lambda _, text=text: text, page)
    return page


def run(folder):
    """Rewrite the page; of results in another folder, write one beside them."""
    ours = folder.resolve() == results.RESULTS.resolve()
    page = PAGE if ours else folder / PAGE.name
    # Without what we say of our figures.
    marks = [f"<!-- benchmarks: {what} -->\n<!-- end -->" for what in PARTS]
    text = (
        PAGE.read_text("utf-8") if ours else "\n\n".join(["# Benchmarks", *marks, ""])
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(fill(text, folder), encoding="utf-8")
    print(f"Wrote {page}.")
