"""Draw the pictures of real fits in docs/images/ anew: those of Understand.

Run from the repository, with the extras demo and plot: python docs/draw_fit.py

The default model learns the topics of 1,600 headlines, as on the page First steps;
a second fit, with early stopping, has a curve of scores. About two minutes on a CPU.
Give a file to keep the fits in, and to draw from the next time: fits.joblib.
"""

import logging
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from draw_figures import IMAGES, INK, STYLE, WIDTH
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D
from matplotlib.text import Text

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "examples")]

# One of our own: the headlines are the BBC's.
SENTENCE = "A bank rescues a football club from debt"
BLUE, ORANGE, SKY, GREEN = "#0072B2", "#E69F00", "#56B4E9", "#009E73"
MINUS = "\N{MINUS SIGN}"


class Scores:
    """A callback: the accuracy after each epoch, on rows that are not learned from."""

    def __init__(self, X, y):
        self.X, self.y, self.reached = X, y, []

    def setup(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.task_name == "epoch":
            self.reached.append(fitted_estimator.score(self.X, self.y))

    def teardown(self, estimator, context):
        pass


def fits():
    """Return the fit of First steps, its scores, one with early stopping, and rows."""
    from gallery_data import headlines
    from sklearn.model_selection import train_test_split

    from sk_adalora import AdaLoraClassifier

    texts, topics = headlines()
    X, X_test, y, y_test = train_test_split(
        texts, topics, train_size=1600, stratify=topics, random_state=0
    )
    scores = Scores(X_test, y_test)
    classifier = AdaLoraClassifier(target_r=4, random_state=0)
    classifier.set_callbacks(scores).fit(X, y)
    stopped = AdaLoraClassifier(
        target_r=4, epochs=6, early_stopping=True, n_iter_no_change=6, random_state=0
    ).fit(X, y)
    return classifier, scores.reached, stopped, (X_test, y_test)


# ---- pictures of the displays --------------------------------------------------


def draw_ranks(classifier):
    """The rank left in each matrix."""
    from sk_adalora import RankAllocationDisplay

    figure, ax = plt.subplots(figsize=(WIDTH, 3.3))
    display = RankAllocationDisplay.from_estimator(classifier, ax=ax)
    figure.axes[1].remove()  # the numbers say what the colours do
    display.image_.set(edgecolor=INK, linewidth=0.6)
    for number in display.text_.flat:
        number.set(fontsize=12, gid="cell")
    ax.tick_params(labelsize=11)
    return figure


def draw_budget(classifier):
    """The total rank over the steps."""
    from sk_adalora import BudgetDisplay

    figure, ax = plt.subplots(figsize=(WIDTH, 3.9))
    BudgetDisplay.from_estimator(classifier, ax=ax)
    ax.get_legend().remove()
    ax.legend(loc="lower left", frameon=False, fontsize=10.5)
    return figure


def draw_history(stopped):
    """Loss, score, penalty and learning rate."""
    from sk_adalora import TrainingHistoryDisplay

    figure, axes = plt.subplots(4, sharex=True, figsize=(WIDTH, 7))
    TrainingHistoryDisplay.from_estimator(stopped, ax=axes)
    for ax in axes:
        if ax.get_legend():
            ax.get_legend().set_frame_on(False)
    return figure


def draw_map(classifier, rows):
    """Held-out texts, as the pretrained and the tuned model see them."""
    from sk_adalora import EmbeddingMapDisplay

    X, y = rows
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.3))
    EmbeddingMapDisplay.from_estimator(classifier, X[:250], y[:250], ax=axes)
    for ax in axes:
        ax.spines[:].set_visible(False)
    handles, labels = axes[-1].get_legend_handles_labels()
    axes[-1].get_legend().remove()
    figure.legend(
        handles, labels, loc="outside lower left", ncols=5, frameon=False,
        fontsize=10.5, handletextpad=0, columnspacing=0.8, borderaxespad=0.1,
    )  # fmt: skip
    return figure


def draw_words(classifier, rows):
    """The words that move a class most."""
    from sk_adalora import WordImportanceDisplay

    figure, ax = plt.subplots(figsize=(WIDTH, 4.3))
    WordImportanceDisplay.from_estimator(
        classifier, rows[0], target="business", n_words=12, min_rows=5, ax=ax
    )
    return figure


def draw_explanation(classifier):
    """A text, tinted by what its words are worth."""
    (explanation,) = classifier.explain([SENTENCE], target="sports")
    figure, ax = plt.subplots(figsize=(WIDTH, 1.6), layout="none")
    ax.set_position((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set(xlim=(0, WIDTH), ylim=(0, 1.6))
    renderer = figure.canvas.get_renderer()
    strongest, x = np.abs(explanation.values).max(), 0.12
    for word, value in zip(explanation.words, explanation.values, strict=True):
        look = {"ha": "left", "va": "baseline", "color": "#1a1a1a", "gid": "cell"}
        text = ax.text(x, 0.9, word, fontsize=17, **look)
        width = text.get_window_extent(renderer).width / figure.dpi
        share, colour = abs(value) / strongest, ORANGE if value > 0 else SKY
        # Not translucent: dark letters can be read on it on any page.
        tint = share * np.array(to_rgb(colour)) + (1 - share) * 0.93
        ax.add_patch(plt.Rectangle((x - 0.06, 0.78), width + 0.12, 0.41, color=tint))
        ends, line = [x - 0.04, x + width + 0.04], "-" if value > 0 else (0, (1, 1))
        ax.plot(ends, [0.75] * 2, color=colour, lw=2.5, ls=line)
        ax.text(
            x + width / 2,
            0.5,
            f"{value:+.1f}".replace("-", MINUS),
            fontsize=13,
            ha="center",
        )
        x += width + 0.17
    title = "Change of the log-odds of “sports” by each word"
    ax.text(0.06, 1.36, title, fontsize=13)
    whole = f"{explanation.output:+.1f}".replace("-", MINUS)
    ax.text(0.06, 0.12, f"log-odds of the whole text: {whole}", fontsize=13)
    return figure


# ---- the animation -------------------------------------------------------------

SECONDS, SHARE = 16, 0.75  # of a loop, and how much of it the fit takes
BOX = (26, 324, 390, 494)  # left, top, right, bottom of the curves
LOW, HIGH = 0.8, 0.92  # accuracies at the bottom and at the top
PHASES = ("full rank", "ranks fall", "final ranks")


def animate_fit(classifier, reached):
    """Return an SVG of a fit: its ranks, their total and the score, step by step.

    Without its animation, it is the end of the fit.
    """
    from sk_adalora.training.rank_table import lay_out

    history, schedule = classifier.history_, classifier.schedule_
    frames = [dict(zip(classifier.ranks_, r, strict=True)) for r in history.ranks]
    tables = [lay_out(frame) for frame in frames]
    when = [SHARE * step / schedule.total_step for step in history.rank_steps]
    rules, cells = _cells(tables, when, schedule.init_r)
    more, curves = _curves(history.budget, reached, schedule)
    style = [
        f"text {{ fill: {INK}; font: 15px Helvetica, Arial, sans-serif; }}",
        f".r {{ fill: {BLUE} }} .o {{ opacity: 0.15 }} .m {{ text-anchor: middle }}",
        f"rect, g {{ animation: {SECONDS}s step-end infinite }}",
        *rules,
        *more,
        "@media (prefers-reduced-motion: reduce) { * { animation: none !important } }",
    ]
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 484 520" width="484" '
            'height="520" role="img">',
            "<title>Ranks of a fit fall while its accuracy rises</title>",
            "<style>",
            *style,
            "</style>",
            *cells,
            *curves,
            "</svg>\n",
        ]
    )


def _cells(tables, when, init_r):
    """Return rules and shapes of the matrices: a mark for each rank."""
    first = tables[0]
    shapes = ['<text x="0" y="16">Rank left in each weight matrix, by layer</text>']
    rules, names = [], {}
    for column, kind in enumerate(first.kinds):
        words = kind.split(" ")
        for line, word in enumerate(words):
            y = 64 - 18 * (len(words) - 1 - line)
            shapes.append(
                f'<text class="m" x="{60 + 77 * column}" y="{y}">{word}</text>'
            )
    for row, layer in enumerate(first.layers):
        y = 76 + 29 * row
        shapes.append(f'<text x="4" y="{y + 15}">{layer}</text>')
        for column in range(len(first.kinds)):
            ranks = [table.ranks[row][column] for table in tables]
            for mark in range(init_r):
                lit = [rank > mark for rank in ranks]
                x = 26 + 77 * column + 11.5 * mark
                kind = _rule(lit, when, names, rules)
                shapes.append(
                    f'<rect class="r{"" if lit[-1] else " o"}{kind}" x="{x:g}" y="{y}" '
                    'width="9.5" height="19" rx="2"/>'
                )
    return rules, shapes


def _rule(lit, when, names, rules):
    """Return the class of a mark that is lit at those times; write its rule once."""
    changes = [i for i in range(1, len(lit)) if lit[i] != lit[i - 1]]
    if not changes:
        return ""
    key = tuple(changes)
    if key not in names:
        names[key] = name = f"k{len(names)}"
        steps = ["0% { opacity: 1 }"]
        for i in changes:
            opacity = 1 if lit[i] else 0.15
            steps.append(f"{100 * when[i]:.2f}% {{ opacity: {opacity} }}")
        rules.append(f"@keyframes {name} {{ {' '.join(steps)} }}")
        rules.append(f".{name} {{ animation-name: {name} }}")
    return f" {names[key]}"


def _curves(budget, reached, schedule):
    """Return rules and shapes of the total rank and the accuracy over the steps."""
    left, top, right, bottom = BOX
    n = schedule.total_step

    def x(step):
        return left + (right - left) * step / n

    def y(share):
        return bottom - (bottom - top) * share

    ends = [schedule.tinit + 1, n - schedule.tfinal, n]
    shapes, start = [], 0
    for end, tint in zip(ends, (SKY, ORANGE, GREEN), strict=True):
        shapes.append(
            f'<rect x="{x(start):.1f}" y="{top}" width="{x(end) - x(start):.1f}" '
            f'height="{bottom - top}" fill="{tint}" opacity="0.15"/>'
        )
        start = end
    middles = [x(ends[0] / 2), x((ends[0] + ends[1]) / 2), x((ends[1] + n) / 2)]
    for name, middle in zip(PHASES, middles, strict=True):
        shapes.append(f'<text class="m" x="{middle:.0f}" y="{top - 8}">{name}</text>')
    total = [(x(i + 1), y(0.9 * b / budget[0])) for i, b in enumerate(budget)]
    total.insert(0, (x(0), total[0][1]))
    scores = [
        (x(schedule.steps_per_epoch * (i + 1)), y((score - LOW) / (HIGH - LOW)))
        for i, score in enumerate(reached)
    ]
    lines = []
    for points, colour in ((total, BLUE), (scores, ORANGE)):
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
        lines.append(f'<path class="l" d="{path}" stroke="{colour}"/>')
    shapes += [line.replace("/>", ' opacity="0.25"/>') for line in lines]
    # The invisible rectangle makes the group as wide as the picture.
    shapes += [
        '<g class="reveal">',
        '<rect width="484" height="520" fill="none"/>',
        *lines,
    ]
    for a, b in scores:
        shapes.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="5" fill="{ORANGE}"/>')
    shapes.append("</g>")
    for i, ((a, b), score) in enumerate(zip(scores, reached, strict=True)):
        epochs = f"{i + 1}" if 0 < i < len(scores) - 1 else f"epoch {i + 1}"
        shapes.append(f'<text class="m" x="{a:.0f}" y="{bottom + 18}">{epochs}</text>')
        if i < len(scores) - 1:
            up = 24 if i == 0 else -12
            shapes.append(
                f'<text class="m" x="{a:.0f}" y="{b + up:.0f}">{score:.2f}</text>'
            )
    for (_, height), name, value in (
        (total[-1], "total rank", f"{budget[-1]}"),
        (scores[-1], "accuracy", f"{reached[-1]:.2f}"),
    ):
        shapes.append(f'<text x="{right + 10}" y="{height - 3:.0f}">{name}</text>')
        shapes.append(f'<text x="{right + 10}" y="{height + 15:.0f}">{value}</text>')
    shapes.append(f'<text x="{left + 5}" y="{total[0][1] + 20:.0f}">{budget[0]}</text>')
    title = "Their total, and the accuracy on headlines kept aside"
    shapes.append(f'<text x="0" y="{top - 34}">{title}</text>')
    hidden = [f"clip-path: inset(0 {484 - x:g}px 0 0)" for x in (left, right + 6)]
    rules = [
        f"@keyframes reveal {{ 0% {{ {hidden[0]} }} {100 * SHARE:g}%, 100% "
        f"{{ {hidden[1]} }} }}",
        ".reveal { animation-name: reveal; animation-timing-function: linear }",
        ".l { fill: none; stroke-width: 3 }",
    ]
    return rules, shapes


def save(figure, name):
    """Write a figure for light and dark pages: what is black becomes grey."""
    for line in figure.findobj(Line2D):
        if to_hex(line.get_color()) == "#000000":
            line.set_color(INK)
        line.set_markeredgecolor(_grey(line.get_markeredgecolor()))
    for text in figure.findobj(Text):
        if text.get_gid() != "cell":
            text.set_color(_grey(text.get_color()))
    path = IMAGES / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


def _grey(colour):
    return INK if colour in ("k", "black") else colour


if __name__ == "__main__":
    import joblib

    cache = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if cache and cache.exists():
        classifier, reached, stopped, rows = joblib.load(cache)
    else:
        classifier, reached, stopped, rows = fits()
        if cache:
            classifier.set_callbacks()
            joblib.dump((classifier, reached, stopped, rows), cache)
    # Fonts are named for those who look; lengths are those of a wider one.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    path = IMAGES / "fit.svg"
    path.write_text(animate_fit(classifier, reached), encoding="utf-8")
    print(path, path.stat().st_size)
    print(reached, stopped.history_.score, stopped.history_.best_epoch)
    with mpl.rc_context(STYLE | {"svg.fonttype": "none"}):
        for name, figure in {
            "ranks": lambda: draw_ranks(classifier),
            "budget": lambda: draw_budget(classifier),
            "history": lambda: draw_history(stopped),
            "map": lambda: draw_map(classifier, rows),
            "words": lambda: draw_words(classifier, rows),
            "explanation": lambda: draw_explanation(classifier),
        }.items():
            path = save(figure(), name)
            print(path, path.stat().st_size)
