"""Write the generated parts of docs/benchmarks.md from the results."""

import re
from functools import partial
from pathlib import Path

from . import memory, operations, results, score, speed, step, time_profile

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
WRITERS = {
    "speed": speed.to_markdown,
    "step": step.to_markdown,
    "operations": operations.to_markdown,
    "profile": time_profile.to_markdown,
    "score": score.to_markdown,
    "memory": memory.to_markdown,
}


def render(what, folder):
    """Return the generated part of a subcommand: a block for each device."""
    found = results.read(folder, what)
    if not found:
        return f"Not measured yet: `python -m benchmarks {what}`."
    blocks = []
    for record in found:
        origin = record.get("origin", f"`{record['command']}` wrote:")
        blocks.append(f"{origin}\n\n> {record['machine']}\n\n{WRITERS[what](record)}")
    return "\n\n".join(blocks)


def render_ahead(folder):
    """Return the table of how far ours is ahead of the others."""
    found = results.read(folder, "score")
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


def run(options):
    """Rewrite the page; of results in another folder, write one beside them."""
    ours = options.results.resolve() == results.RESULTS.resolve()
    page = PAGE if ours else options.results / PAGE.name
    text = PAGE.read_text("utf-8") if ours else _blank_page()
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(fill(text, options.results), encoding="utf-8")
    print(f"Wrote {page}.")


def _blank_page():
    """Return a page of marks, without what we say of our figures."""
    parts = [f"<!-- benchmarks: {what} -->\n<!-- end -->" for what in PARTS]
    return "\n\n".join(["# Benchmarks", *parts, ""])
