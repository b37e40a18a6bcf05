"""Draw figures of docs/images/ anew: published results of benchmarks/, and schedules.

Run from the repository, with the extra plot: python docs/draw_figures.py
The pictures of real fits are drawn by draw_fit.py.

A figure is data first: a function `..._data` reads the results, another draws them.
Text and axes are grey and the background is transparent, so that one file serves light
and dark pages.
"""

import logging
import statistics
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import results  # noqa: E402
from benchmarks.studies.score import summarise  # noqa: E402

IMAGES = HERE / "images"
INK = "#7a7a7a"
# One colour and one mark for each method, in all figures: Okabe and Ito's colours.
LOOKS = {
    "ours": ("sk-adalora", "#0072B2", "o"),
    "peft-tuned": ("PEFT, tuned", "#009E73", "s"),
    "peft-adalora": ("PEFT, as documented", "#9A9A9A", "D"),
    "embeddings": ("frozen embeddings", "#56B4E9", "^"),
    "tfidf": ("TF-IDF", "#E69F00", "v"),
    "skrub": ("skrub", "#D55E00", "P"),
}
BASIC = ["ours", "embeddings", "tfidf"]
TABLE_METHODS = {
    "table": "ours",
    "skrub": "skrub",
    "frozen + trees": "embeddings",
    "words": "tfidf",
}
TITLES = {
    "films": "ratings of films",
    "wines_pl": "wines, a Polish shop",
    "wines_vivino": "wines, Vivino",
    "wines_com": "wines, Wine.com",
    "gross": "gross of films",
    "songs": "songs, hit or flop",
    "decades": "decades of songs",
    "genres": "genres of films",
}
CURVES = {
    "headlines": "news headlines",
    "articles": "news articles",
    "quotes": "review quotes",
    "newsgroups": "20 newsgroups",
    "films": "genres of films",
}
PROCESSORS = {
    "cpu": "Zen 5",
    "cpu-amx": "Xeon, AMX",
    "cpu-zen4": "Zen 4",
    "cpu-zen3": "Zen 3",
}
STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "figure.titlesize": "medium",
    "font.family": ["Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
    "font.size": 11.5,
    "lines.linewidth": 2,
    "lines.markersize": 7,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "sk-adalora",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
TIGHT = {"borderaxespad": 0, "handletextpad": 0, "columnspacing": 0.8}
WIDTH = 6.25  # inches: 600 pixels, so that text is readable on a phone as well


def look(method):
    """Return how a method is drawn."""
    _, colour, mark = LOOKS[method]
    return {"color": colour, "marker": mark, "markeredgecolor": INK, "mew": 0.5}


def key(methods, notes=None):
    """Return the entries of a legend."""
    notes = notes or {}
    labels = [LOOKS[method][0] + notes.get(method, "") for method in methods]
    return [
        Line2D([], [], linestyle="", label=label, **look(method))
        for method, label in zip(methods, labels, strict=True)
    ]


def dots(ax, rows, methods):
    """Draw one line of dots for each row: a name, and method -> value."""
    for height, (_, values) in enumerate(rows):
        shown = [values[method] for method in methods if method in values]
        ax.plot([min(shown), max(shown)], [height] * 2, color=INK, lw=0.7, zorder=1)
        for i, method in reversed([*enumerate(methods)]):
            if method in values:  # near ones stay apart
                shift = 0.11 * (i - (len(methods) - 1) / 2)
                ax.plot(values[method], height + shift, **look(method))
    ax.set_yticks(range(len(rows)), [name for name, _ in rows])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(len(rows) - 0.5, -0.5)


# ---- the data ----------------------------------------------------------------


def scores_data(*names):
    """Return (task, rows) -> method -> mean accuracy, of files of scores."""
    paths = [results.RESULTS / f"{name}.jsonl" for name in names]
    records = [record for path in paths for record in results.read(path)[1]]
    return summarise(records)["cells"]


def curves_data():
    """Return task -> method -> {rows: accuracy}, from few rows to many."""
    cells = scores_data("few/score-cpu") | scores_data("score-cpu")
    sizes = {t: sorted(rows for task, rows in cells if task == t) for t in CURVES}
    return {
        task: {m: {n: cells[task, n][m] for n in sizes[task]} for m in BASIC}
        for task in CURVES
    }


def mean_curve_data():
    """Return method -> {rows: mean accuracy over the tasks that have all of them}."""
    curves = curves_data()
    sizes = (40, 200, 1000)
    tasks = [task for task in CURVES if set(sizes) <= curves[task]["ours"].keys()]
    return {
        m: {n: statistics.mean(curves[task][m][n] for task in tasks) for n in sizes}
        for m in BASIC
    }


def quickstart_data():
    """Return method -> CPU seconds of a fit, as in the table of the results."""
    page = (HERE.parent / "benchmarks" / "RESULTS.md").read_text("utf-8")
    table = page.split("\n## The headlines of the quickstart\n")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")]
    named = {"TF-IDF": "tfidf", "frozen": "embeddings", "`AdaLo": "ours"}
    return {named[row[0][2:8]]: float(row[3]) for row in rows if row[0][2:8] in named}


def public_data():
    """Return task -> method -> accuracy of 1,000 rows, and method -> mean rank."""
    records = results.read(results.RESULTS / "score-cpu-unseen.jsonl")[1]
    found = summarise([record for record in records if record["size"] == 1000])
    cells = {task: values for (task, _), values in found["cells"].items()}
    (ranks,) = found["rank"].values()
    return cells, ranks


def tables_data():
    """Return table -> method -> points of score ahead of ours, over the same splits."""
    records = results.read(results.RESULTS / "tables-cpu.jsonl")[1]
    reached = {}
    for record in records:
        if record["setting"] in TABLE_METHODS and not record["case"]:
            score = record["r2"] if "r2" in record else record["accuracy"]
            method = TABLE_METHODS[record["setting"]]
            of_table = reached.setdefault(record["task"], {})
            of_table.setdefault(method, {})[record["size"], record["seed"]] = score
    return {task: _ahead_of_ours(of_table) for task, of_table in reached.items()}


def _ahead_of_ours(of_table):
    splits = set.intersection(*map(set, of_table.values()))
    means = {m: statistics.mean(s[k] for k in splits) for m, s in of_table.items()}
    return {m: 100 * (mean - means["ours"]) for m, mean in means.items()}


def speed_data():
    """Return processor -> method -> CPU seconds of a fit, ours = 1.

    Each computes in its default precision: bfloat16 for ours where the CPU has it.
    """
    found = {}
    for about, records in results.find(results.RESULTS, "speed"):
        fits = {(r["contestant"], r["precision"]): r["fit_cpu"] for r in records}
        ours = fits.get(("ours", "bfloat16"), fits["ours", "float32"])
        taken = {m: fits[m, "float32"] / ours for m in ("peft-tuned", "peft-adalora")}
        found[PROCESSORS[about["kept_as"]]] = {"ours": 1.0} | taken
    return {name: found[name] for name in PROCESSORS.values() if name in found}


# ---- the figures -------------------------------------------------------------


def draw_curve(ax, curve):
    """Draw the accuracy of each method by the number of rows."""
    for method in reversed(BASIC):
        ax.plot(*zip(*curve[method].items(), strict=True), **look(method))
    sizes = list(curve["ours"])
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes], minor=False)
    ax.minorticks_off()


def draw_hero():
    """Accuracy by training rows, beside the seconds of a fit."""
    figure, (left, right) = plt.subplots(
        ncols=2, figsize=(WIDTH, 2.9), width_ratios=(1.15, 1)
    )
    curve = mean_curve_data()
    draw_curve(left, curve)
    left.set(title="Accuracy,\nmean of four data sets", xlabel="training rows")
    seconds = quickstart_data()
    for height, method in enumerate(BASIC):
        colour = LOOKS[method][1]
        right.barh(height, seconds[method], height=0.35, color=colour)
        right.text(0, height - 0.28, LOOKS[method][0], va="bottom")
        right.text(seconds[method] + 0.3, height, f"{seconds[method]:g} s", va="center")
    right.set(title="CPU seconds of a fit,\n1,600 headlines", ylim=(2.4, -0.75))
    right.set_xlim(0, 1.25 * max(seconds.values()))
    right.set_axis_off()
    return figure


def draw_learning_curves():
    """Accuracy by training rows, a panel for each data set."""
    figure, axes = plt.subplots(nrows=2, ncols=3, figsize=(WIDTH, 4.4))
    for ax, (task, curve) in zip(axes.flat, curves_data().items(), strict=False):
        draw_curve(ax, curve)
        ax.set_title(CURVES[task])
        ax.locator_params(axis="y", nbins=5, steps=[1, 2, 5, 10])
        sizes = list(curve["ours"])
        few = [n for n in sizes if n != 200] if len(sizes) > 3 else sizes
        ax.set_xticks(few, [f"{n:,}".replace(",000", "k") for n in few])
    last = axes.flat[-1]
    last.set_axis_off()
    last.legend(handles=key(BASIC), loc="center left", frameon=False, **TIGHT)
    figure.suptitle("Accuracy by number of training rows", x=0.01, ha="left")
    return figure


def draw_public():
    """Accuracy of nine public data sets."""
    cells, ranks = public_data()
    methods = ["ours", "peft-tuned", "embeddings", "tfidf"]
    rows = sorted(cells.items(), key=lambda row: row[1]["tfidf"] - row[1]["ours"])
    figure, ax = plt.subplots(figsize=(WIDTH, 5.2))
    dots(ax, rows, methods)
    ax.set_xlabel("accuracy, 1,000 training rows")
    notes = {method: f", mean rank {ranks[method]:.1f}" for method in methods}
    put_key(figure, methods, notes)
    return figure


def draw_tables():
    """Scores on tables of text and numbers, relative to ours."""
    methods = ["ours", "skrub", "embeddings", "tfidf"]
    found = tables_data()
    rows = sorted(found.items(), key=lambda row: max(row[1][m] for m in methods[1:]))
    rows = [(TITLES.get(task, task), values) for task, values in rows]
    figure, ax = plt.subplots(figsize=(WIDTH, 0.6 + 0.5 * len(rows)))
    dots(ax, rows, methods)
    ax.axvline(0, color=INK, lw=0.7, zorder=0)
    ax.set_xlabel("points of R² or accuracy, beside sk-adalora")
    put_key(figure, methods)
    return figure


def draw_speed():
    """CPU seconds of a fit beside PEFT."""
    methods = ["ours", "peft-tuned", "peft-adalora"]
    figure, ax = plt.subplots(figsize=(WIDTH, 3))
    dots(ax, list(speed_data().items()), methods)
    ax.set_xlim(0)
    ax.set_xlabel("CPU seconds of a fit, sk-adalora = 1")
    put_key(figure, methods)
    return figure


def schedule_data(**parameters):
    """Return the schedule of a fit of 1,600 rows."""
    from sk_adalora.training.schedule_steps import resolve_schedule

    settings = {"batch_size": 32, "epochs": "auto", "target_r": 4}
    return resolve_schedule(1600, **settings | parameters)


def epochs_data():
    """Return what is learned -> {rows: epochs}, of epochs="auto"."""
    from sk_adalora import AdaLoraRegressor
    from sk_adalora.training.schedule_steps import resolve_schedule

    numbers = AdaLoraRegressor._target_kinds[0].enough_steps
    kinds = {
        "20 classes": {"n_classes": 20},
        "2 classes": {"n_classes": 2},
        "numbers": {"enough_steps": numbers},
    }
    sizes = [round(20 * 1.02**i) for i in range(264)]
    return {
        kind: {
            n: resolve_schedule(n, batch_size=32, epochs="auto", **given).epochs
            for n in sizes
        }
        for kind, given in kinds.items()
    }


def draw_schedule():
    """The total rank over the steps, as planned, by phase."""
    from sk_adalora import BudgetDisplay

    schedule = schedule_data()
    figure, ax = plt.subplots(figsize=(WIDTH, 3.3))
    BudgetDisplay.from_schedule(schedule.config().schedule(36), ax=ax)
    ax.get_legend().remove()
    ax.get_lines()[0].set(alpha=1, linewidth=3.5)
    for text in ax.texts:
        text.set_color(INK)
    ax.set_title("Total rank of 36 matrices, by optimizer step")
    ax.set(xlabel="", ylabel="")
    times = "36 \N{MULTIPLICATION SIGN}"
    names = ["0", f"{times} target_r", f"{times} init_r"]
    ax.set_yticks([0, 36 * schedule.target_r, 36 * schedule.init_r], names)
    total = schedule.total_step
    ends = [0, schedule.tinit, total - schedule.tfinal, total]
    names = ["0", f"{ends[1]}\ntinit", f"{ends[2]}\ntotal_step - tfinal"]
    ax.set_xticks(ends, [*names, f"{total}\ntotal_step"])
    ax.get_xticklabels()[-1].set_ha("right")
    return figure


def draw_epochs():
    """Epochs of epochs="auto" by the number of rows."""
    figure, ax = plt.subplots(figsize=(WIDTH, 2.9))
    looks = {"20 classes": "#E69F00", "2 classes": "#0072B2", "numbers": "#009E73"}
    for kind, of_kind in epochs_data().items():
        ax.plot(*zip(*of_kind.items(), strict=True), color=looks[kind], label=kind)
    ax.set(xscale="log", yscale="log", xlabel="rows", ylabel='epochs of "auto"')
    sizes, epochs = (20, 50, 100, 200, 500, 1000, 3000), (3, 5, 10, 20, 50)
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
    ax.set_yticks(epochs, [str(n) for n in epochs])
    ax.minorticks_off()
    ax.legend(frameon=False)
    return figure


def put_key(figure, methods, notes=None):
    """Put a legend above."""
    figure.legend(
        handles=key(methods, notes),
        loc="outside upper left",
        ncols=2 if notes else 4,
        frameon=False,
        **TIGHT,
    )


FIGURES = {
    "hero": draw_hero,
    "learning_curves": draw_learning_curves,
    "public": draw_public,
    "tables": draw_tables,
    "speed": draw_speed,
    "schedule": draw_schedule,
    "epochs": draw_epochs,
}


def save(name, folder=IMAGES):
    """Draw a figure into a file, and return the file."""
    # Fonts are named for those who look; lengths are those of a wider one.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with mpl.rc_context(STYLE):
        figure = FIGURES[name]()
        path = folder / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return path


if __name__ == "__main__":
    for name in FIGURES:
        print(save(name))
