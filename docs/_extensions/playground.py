"""The page to play with: a model is fitted while the site is built.

The headlines may be used but not handed on in the repository, so git ignores the file
that is written here. It is made anew when this program is newer.
"""

import json
import sys
from pathlib import Path

from outer_pages import DOCS, ROOT

PAGE = "understand/playground"
DATA = DOCS / "_static" / "playground_data.js"
EXAMPLES = ROOT / "examples"
SOURCES = (Path(__file__), EXAMPLES / "gallery_data.py")


def write_data(app):
    """Write the data, unless they are there."""
    written = DATA.stat().st_mtime if DATA.exists() else 0
    if app.builder.format != "html" or written > max(
        source.stat().st_mtime for source in SOURCES
    ):
        return
    try:
        data = json.dumps(fit_and_look(), separators=(",", ":"))
    except ModuleNotFoundError as error:
        from sphinx.util.logging import getLogger

        getLogger(__name__).warning("%s has no data: %s", PAGE, error)
    else:
        # A script, not JSON: a browser reads it from a disk, too.
        DATA.write_text(f"const PLAYGROUND = {data};\n", encoding="utf-8")


def fit_and_look():
    """Fit 800 headlines; return what the page shows of 200 others."""
    sys.path.append(str(EXAMPLES))
    from gallery_data import headlines
    from sklearn.model_selection import train_test_split

    from sk_adalora import AdaLoraClassifier

    topics = dict(zip(*headlines(), strict=True))  # some stand there twice
    X, X_new, y, y_new = train_test_split(
        list(topics),
        list(topics.values()),
        train_size=800,
        test_size=200,
        stratify=list(topics.values()),
        random_state=0,
    )
    classifier = AdaLoraClassifier(random_state=0).fit(X, y)
    before, after, silhouettes = places(classifier, X_new, y_new)
    classes = classifier.classes_.tolist()
    points = zip(
        (tinted(explanation) for explanation in classifier.explain(X_new)),
        map(classes.index, y_new),
        classifier.predict_proba(X_new).round(3).tolist(),
        before,
        after,
        strict=True,
    )
    names = ("words", "topic", "probabilities", "before", "after")
    return {
        "classes": classes,
        "silhouettes": silhouettes,
        "points": [dict(zip(names, point, strict=True)) for point in points],
    }


def tinted(explanation):
    """Pairs of a piece of the text and its value, None for what lies between words."""
    text, end, pieces = explanation.texts["X"], 0, []
    for (start, stop), value in zip(
        explanation.spans.tolist(), explanation.values.tolist(), strict=True
    ):
        pieces += [(text[end:start], None), (text[start:stop], round(value, 3))]
        end = stop
    return [piece for piece in [*pieces, (text[end:], None)] if piece[0]]


def places(classifier, X, y):
    """Return places before and after, from -1 to 1, and the two silhouettes."""
    import matplotlib.pyplot as plt
    from scipy.linalg import orthogonal_procrustes

    from sk_adalora import EmbeddingMapDisplay

    display = EmbeddingMapDisplay.from_estimator(classifier, X, y)
    plt.close(display.figure_)
    before, after = (p - p.mean(axis=0) for p in (display.before, display.after))
    # A map has no up or right: turn the second so that its points have short ways.
    turn, _ = orthogonal_procrustes(after, before)
    return framed(before), framed(after @ turn), display.silhouettes


def framed(plane):
    """The places of a plane, moved and scaled to the square from -1 to 1."""
    plane = plane - (plane.max(axis=0) + plane.min(axis=0)) / 2
    return (plane / abs(plane).max(axis=0)).round(3).tolist()


def add_files(app, page, template, context, doctree):
    if page == PAGE:
        app.add_css_file("playground.css")
        if DATA.exists():
            app.add_js_file(DATA.name, loading_method="defer")
        app.add_js_file("playground.js", loading_method="defer")


def setup(app):
    app.connect("builder-inited", write_data)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True}
