"""The displays of a fit: what they draw is what the fit kept."""

import pickle
from itertools import pairwise, product
from types import MappingProxyType

import numpy as np
import pytest
from _tiny import adapt, no_warning, tiny_bert
from _toy import make, toy
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_adalora import (
    BudgetDisplay,
    BudgetSchedule,
    RankAllocationDisplay,
    TrainingHistoryDisplay,
)
from sk_adalora.displays.draw import text_colour

pytestmark = pytest.mark.usefixtures("plt")
DISPLAYS = [RankAllocationDisplay, BudgetDisplay, TrainingHistoryDisplay]
X, Y = toy()


@pytest.fixture(scope="module")
def fitted(tiny_model):
    """A classifier whose score was watched; do not refit."""
    return make(tiny_model, early_stopping=True, epochs=4).fit(X, Y, X_val=X, y_val=Y)


@pytest.fixture(params=DISPLAYS, ids=lambda display: display.__name__)
def display(request):
    return request.param


def written(figure):
    """All texts of a figure."""
    from matplotlib.text import Text

    return " ".join(text.get_text() for text in figure.findobj(Text))


# ---- every display ----------------------------------------------------------------


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_it_draws_on_a_given_axes(display, fitted, plt, style):
    with plt.style.context(style):
        figure, (ax, other) = plt.subplots(1, 2, figsize=(4, 2))
        drawn = display.from_estimator(fitted, ax=ax)
        figure.canvas.draw()

    assert drawn.ax_ is ax
    assert drawn.figure_ is figure
    assert not other.has_data()
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize(
    ("page", "ink"), [("default", "black"), ("dark_background", "white")]
)
@pytest.mark.parametrize("behind", ["page", "figure"])
def test_what_is_behind_transparent_axes_counts(plt, page, ink, behind):
    shown = {"axes.facecolor": "none", "axes.edgecolor": "0.5"}
    if behind == "page":
        shown["figure.facecolor"] = "none"
    schedule = BudgetSchedule(
        initial=16, target=8, tinit=2, tfinal=3, deltaT=1, total_step=12
    )
    with plt.style.context([page, shown]):
        budget = BudgetDisplay.from_schedule(schedule, actual=[16, 16])
        ranks = RankAllocationDisplay.from_ranks({"l.0.fc1": 0, "l.1.fc1": 3})

    assert budget.ax_.lines[1].get_color() == ink
    assert ranks.text_[0, 0].get_color() == ink
    paper = ranks.image_.get_edgecolor()[0]
    assert paper.tolist() == ([1, 1, 1, 1] if ink == "black" else [0, 0, 0, 1])


def test_a_figure_with_its_display_can_be_pickled(display, fitted):
    drawn = pickle.loads(pickle.dumps(display.from_estimator(fitted)))
    drawn.figure_.canvas.draw()

    assert drawn.figure_ is drawn.ax_.figure


def test_what_is_no_axes_is_refused(display, fitted, plt):
    with pytest.raises(TypeError, match=r"`ax` must be Axes.*Got Figure\. Make them"):
        display.from_estimator(fitted, ax=plt.figure())


@pytest.mark.parametrize("display", [RankAllocationDisplay, BudgetDisplay])
def test_several_axes_are_refused_where_there_is_one_panel(display, fitted, plt):
    _, axes = plt.subplots(1, 2)
    with pytest.raises(ValueError, match=r"`ax` must be one Axes\. Got 2\. Pass one"):
        display.from_estimator(fitted, ax=axes)
    assert not any(ax.has_data() for ax in axes)
    assert display.from_estimator(fitted, ax=axes[:1]).ax_ is axes[0]


def test_pipelines_and_searches_are_opened(tiny_model):
    pipeline = make_pipeline(FunctionTransformer(list), make(tiny_model))
    search = GridSearchCV(pipeline, {"adaloraclassifier__target_r": [2]}, cv=2)
    for estimator in (pipeline.fit(X, Y), search.fit(X, Y)):
        assert RankAllocationDisplay.from_estimator(estimator).ranks.any()


def test_unfitted_estimators_are_refused(display, tiny_model):
    estimator = make(tiny_model)
    for unfitted in (
        estimator,
        make_pipeline(FunctionTransformer(list), estimator),
        GridSearchCV(estimator, {"target_r": [2]}),
    ):
        with pytest.raises(NotFittedError):
            display.from_estimator(unfitted)


def test_other_things_are_refused(display, fitted):
    name = display.__name__
    for thing in (LogisticRegression(), make_pipeline("passthrough"), fitted.ranks_):
        with pytest.raises(TypeError, match=rf"{name}\.from_estimator needs a fitted"):
            display.from_estimator(thing)


def test_a_figure_of_its_own_may_be_laid_out_once_more(display, fitted, plt):
    """As is usual after a picture; matplotlib refuses or warns of another layout."""
    ax = display.from_estimator(fitted).ax_
    with no_warning():
        plt.tight_layout()

    assert ax.figure is plt.gcf()


def test_a_search_without_refit_is_refused(fitted):
    search = GridSearchCV(clone(fitted), {"target_r": [2]}, refit=False)
    search.cv_results_ = {}
    search.best_estimator_ = fitted  # of a fit before
    with pytest.raises(TypeError, match=r"Got GridSearchCV with refit=False\. Set"):
        BudgetDisplay.from_estimator(search)


@pytest.mark.usefixtures("plt", "without_matplotlib")
def test_without_matplotlib_the_error_names_the_extra(display, fitted):
    with pytest.raises(ImportError, match=r"pip install 'sk-adalora\[plot\]'"):
        display.from_estimator(fitted)


# ---- ranks ------------------------------------------------------------------------


def test_ranks_are_those_of_the_estimator(fitted):
    drawn = RankAllocationDisplay.from_estimator(fitted)

    assert drawn.ranks.shape == (2, 6)
    assert drawn.ranks.sum() == sum(fitted.ranks_.values())
    assert drawn.image_.get_clim() == (0, fitted.schedule_.init_r)
    assert "3 at the start, 2 on average now" in written(drawn.figure_)
    for (row, column), text in np.ndenumerate(drawn.text_):
        assert text.get_text() == f"{drawn.ranks[row, column]:g}"


def test_ranks_of_the_engine_need_no_estimator():
    ranks = MappingProxyType(adapt(tiny_bert()).ranks)  # any mapping
    drawn = RankAllocationDisplay.from_ranks(ranks, initial=8)

    assert drawn.ranks.tolist() == np.full((2, len(drawn.kinds)), 4).tolist()
    assert drawn.image_.get_clim() == (0, 8)
    pruned = RankAllocationDisplay.from_ranks(dict.fromkeys(ranks, 0))
    assert pruned.image_.get_clim() == (0, 1)


def test_colours_and_their_scale_can_be_chosen(fitted):
    plain = RankAllocationDisplay.from_estimator(fitted)
    drawn = RankAllocationDisplay.from_estimator(fitted, cmap="magma", colorbar=False)

    assert plain.image_.get_cmap().name == "cividis"
    assert drawn.image_.get_cmap().name == "magma"
    assert plain.image_.colorbar is not None
    assert drawn.image_.colorbar is None


def test_pruned_and_missing_matrices_look_different():
    ranks = {"l.0.fc1": 3, "l.0.fc2": 0, "l.1.fc2": 1}
    drawn = RankAllocationDisplay.from_ranks(ranks)
    hatched = [patch for patch in drawn.ax_.patches if patch.get_hatch()]

    assert [patch.get_xy() for patch in hatched] == [(1, 0)]
    assert drawn.image_.get_array().mask.tolist() == [[False, True], [True, False]]
    assert drawn.text_[0, 1].get_text() == "0"
    assert drawn.text_[0, 1].get_bbox_patch() is not None  # behind it are no hatches
    assert drawn.text_[1, 0] is None
    assert "hatched" in written(drawn.figure_)
    assert "1.33 on average" in written(drawn.figure_)
    without = RankAllocationDisplay.from_ranks({"l.0.fc2": 3})
    assert "hatched" not in written(without.figure_)


@pytest.mark.parametrize("n_layers", [1, 24, 48])
def test_numbers_and_names_fit_into_a_figure_of_its_own(n_layers):
    kinds = ["attn.q", "attn.k", "attn.v", "attn.o", "gate_proj", "fc1", "fc2"]
    ranks = {f"h.{i}.{kind}": 12 for i in range(n_layers) for kind in kinds}
    drawn = RankAllocationDisplay.from_ranks(ranks, initial=12)
    drawn.figure_.canvas.draw()
    corners = drawn.ax_.transData.transform([(0, 0), (1, 1)])
    width, height = np.abs(corners[1] - corners[0])

    assert len(drawn.ax_.get_yticks()) == n_layers
    for text in drawn.text_.ravel():
        box = text.get_window_extent()
        assert box.width < width
        assert box.height < height * 1.1  # of a line, which is more than its digits
    names = [label.get_window_extent() for label in drawn.ax_.get_xticklabels()]
    assert all(a.x1 < b.x0 for a, b in pairwise(names))
    names = [label.get_window_extent() for label in drawn.ax_.get_yticklabels()]
    assert all(a.y0 > b.y1 - 1 for a, b in pairwise(names))


@pytest.mark.parametrize(
    ("kind", "shown", "rotation"),
    [("attention out", "attention\nout", 0), ("x " + "y" * 16, "x " + "y" * 16, 90)],
)
def test_rows_and_columns_have_their_names(kind, shown, rotation):
    layers = ["encoder 0", "encoder 1", "decoder 0"]
    kinds = ["query", "key", "value", "up", "down", kind]
    drawn = RankAllocationDisplay(np.ones((3, 6)), layers, kinds).plot()
    drawn.figure_.canvas.draw()
    columns = drawn.ax_.get_xticklabels()

    assert [label.get_text() for label in drawn.ax_.get_yticklabels()] == layers
    assert drawn.ax_.get_yticks().tolist() == [0.5, 1.5, 2.5]
    assert [label.get_text() for label in columns] == [*kinds[:-1], shown]
    assert {label.get_rotation() for label in columns} == {rotation}
    assert drawn.ax_.get_xticks().tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]


def test_numbers_too_small_to_read_are_left_out(plt):
    _, ax = plt.subplots(figsize=(3, 2))
    ranks = {f"h.{i}.{kind}": 3 for i in range(48) for kind in ("fc1", "fc2")}
    drawn = RankAllocationDisplay.from_ranks(ranks, ax=ax)

    assert set(drawn.text_.ravel()) == {None}
    assert len(ax.get_yticks()) < 48


def test_no_grid_runs_through_the_numbers(plt):
    with plt.rc_context({"axes.grid": True}):
        drawn = RankAllocationDisplay.from_ranks({"h.0.fc1": 3, "h.1.fc1": 3})

    lines = [*drawn.ax_.get_xgridlines(), *drawn.ax_.get_ygridlines()]
    assert not any(line.get_visible() for line in lines)


def test_an_error_leaves_no_figure(plt):
    with pytest.raises(ValueError, match="rainbows"):
        RankAllocationDisplay.from_ranks({"h.0.fc1": 3}, cmap="rainbows")
    with pytest.raises(ValueError, match=r"`steps_per_epoch` must be given.*Got None"):
        TrainingHistoryDisplay([1], [0], [0], score=[0.5]).plot()

    assert plt.get_fignums() == []


def test_a_line_parts_the_stacks():
    ranks = {f"{part}.block.{i}.fc1": 1 for part in ("enc", "dec") for i in range(3)}
    drawn = RankAllocationDisplay.from_ranks(ranks)

    assert [line.get_ydata()[0] for line in drawn.ax_.lines] == [3]


def test_text_is_readable_on_its_colour():
    """With the contrast that WCAG 2 asks of a text, which one of both always has."""
    shades = np.linspace(0, 1, 18)
    linear = np.where(shades > 0.04, ((shades + 0.055) / 1.055) ** 2.4, shades / 12.92)
    lit = np.array([*product(linear, repeat=3)]) @ [0.2126, 0.7152, 0.0722] + 0.05
    inks = [text_colour(colour) for colour in product(shades, repeat=3)]
    black = np.array(inks) == "black"

    assert np.where(black, lit / 0.05, 1.05 / lit).min() > 4.5
    assert text_colour((1, 0.9, 0.2, 0.5)) == "black"


def test_wrong_ranks_are_refused():
    with pytest.raises(TypeError, match=r"Got list\. Pass `model\.ranks`"):
        RankAllocationDisplay.from_ranks([1, 2])
    with pytest.raises(ValueError, match=r"at least one matrix\. Got an empty"):
        RankAllocationDisplay.from_ranks({})


# ---- budget -----------------------------------------------------------------------


def test_budgets_are_those_of_the_fit(fitted):
    drawn = BudgetDisplay.from_estimator(fitted)
    n_steps, steps = len(fitted.history_.budget), fitted.schedule_
    planned, actual = drawn.ax_.lines[:2]

    assert drawn.planned[:n_steps].tolist() == fitted.history_.budget
    assert drawn.planned[[0, -1]].tolist() == [steps.init_r * 12, steps.target_r * 12]
    assert len(planned.get_xdata()) == steps.total_step
    assert planned.get_drawstyle() == actual.get_drawstyle() == "steps-mid"
    assert actual.get_ydata().tolist() == fitted.history_.budget
    assert "average rank of a matrix" in written(drawn.figure_)


def test_phases_are_shaded_and_named():
    schedule = BudgetSchedule(
        initial=16, target=8, tinit=2, tfinal=3, deltaT=1, total_step=12
    )
    drawn = BudgetDisplay.from_schedule(schedule)
    boxes = [
        p.get_path().get_extents(p.get_patch_transform()) for p in drawn.ax_.patches
    ]
    spans = [(box.x0, box.x1) for box in boxes]

    assert spans == [(-0.5, 2.5), (2.5, 8.5), (8.5, 11.5)]
    for name in ("initial: ", "reduction: ", "final: "):
        assert name in written(drawn.figure_)
    assert [line.get_label() for line in drawn.ax_.lines] == ["planned"]


def test_a_narrow_phase_is_named_in_the_legend_alone():
    phases = ["initial"] * 9 + ["reduction"] * 10 + ["final"] * 81
    drawn = BudgetDisplay(np.arange(100, 0, -1), phases).plot()
    named = {text.get_text(): text.get_position()[0] for text in drawn.ax_.texts}
    legend = [text.get_text() for text in drawn.ax_.get_legend().get_texts()]

    assert named == {"reduction": 13.5, "final": 59}
    assert [text.partition(":")[0] for text in legend] == [
        *("initial", "reduction", "final"),
        "planned",
    ]


def test_the_second_scale_of_a_budget_is_the_average_of_the_matrices():
    phases = ["initial", "reduction", "final"]
    drawn = BudgetDisplay([8, 6, 4], phases, n_matrices=2).plot()
    drawn.figure_.canvas.draw()
    (right,) = drawn.ax_.child_axes

    assert right.get_ylim() == pytest.approx(np.array(drawn.ax_.get_ylim()) / 2)
    assert drawn.ax_.get_ylim()[0] == 0
    assert "in 2 weight matrices:\n8 at the start, 4 at" in written(drawn.figure_)
    assert BudgetDisplay([8, 6, 4], phases).plot().ax_.child_axes == []


def test_an_early_end_is_marked():
    schedule = BudgetSchedule(
        initial=16, target=8, tinit=0, tfinal=6, deltaT=2, total_step=12
    )
    actual = [schedule.held_budget(step) for step in range(8)]
    drawn = BudgetDisplay.from_schedule(schedule, actual=actual)
    end = drawn.ax_.lines[-1]

    assert end.get_label() == "training ended here"
    assert end.get_xydata().tolist() == [[7, actual[-1]]]
    whole = [schedule.held_budget(step) for step in range(12)]
    assert drawn.planned.tolist() == whole
    for unmarked in (whole, []):
        drawn = BudgetDisplay.from_schedule(schedule, actual=unmarked)
        assert len(drawn.ax_.lines) == 2


def test_a_loop_that_goes_on_after_its_plan_is_drawn_to_its_end():
    phases = ["initial", "reduction", "final"]
    drawn = BudgetDisplay([8, 6, 4], phases, actual=[8, 6, 4, 4, 4]).plot()
    planned, actual = (line.get_xdata().tolist() for line in drawn.ax_.lines)

    assert (planned, actual) == ([0, 1, 2], [0, 1, 2, 3, 4])
    assert drawn.ax_.get_xlim() == (-0.5, 4.5)


@pytest.mark.parametrize("target", [0, 2, 5])
@pytest.mark.parametrize(("tinit", "tfinal"), [(20, 40), (70, 10)])
def test_the_legend_of_a_budget_is_not_on_its_line(target, tinit, tfinal):
    schedule = BudgetSchedule(
        initial=6, target=target, tinit=tinit, tfinal=tfinal, deltaT=1, total_step=100
    )
    drawn = BudgetDisplay.from_schedule(schedule)
    drawn.figure_.canvas.draw()
    (line,) = drawn.ax_.lines
    points = line.get_transform().transform(line.get_xydata())
    box = drawn.ax_.get_legend().get_window_extent()

    assert not any(box.contains(*point) for point in points)


def test_a_training_of_one_step_is_drawn(tiny_model, plt):
    estimator = make(tiny_model, epochs=1, batch_size=64).fit(X[:20], Y[:20])
    budget = BudgetDisplay.from_estimator(estimator)
    history = TrainingHistoryDisplay.from_estimator(estimator)
    final = estimator.history_.budget[-1]

    assert estimator.schedule_.total_step == 1
    assert f":\n{final} at the end" in budget.ax_.get_title(loc="left")
    curves = [ax.lines[0] for ax in history.axes_]
    # A line needs two points.
    assert all(line.get_marker() == "o" for line in [*budget.ax_.lines, *curves])
    assert [tick for tick in budget.ax_.get_xticks() if -0.5 <= tick <= 0.5] == [0]


def test_a_wrong_schedule_is_refused(fitted):
    with pytest.raises(TypeError, match=r"Got ResolvedSchedule\. Make one with"):
        BudgetDisplay.from_schedule(fitted.schedule_)


# ---- history ----------------------------------------------------------------------


def test_history_is_that_of_the_fit(fitted):
    drawn = TrainingHistoryDisplay.from_estimator(fitted)
    loss, score, penalty, rate = drawn.axes_
    history = fitted.history_

    assert drawn.ax_ is loss
    assert loss.lines[0].get_ydata().tolist() == history.loss
    assert score.lines[0].get_ydata().tolist() == history.score
    assert penalty.lines[0].get_ydata().tolist() == history.orthogonality
    assert rate.lines[0].get_ydata().tolist() == history.learning_rate
    # A score stands at the last step of its epoch.
    steps = fitted.schedule_.steps_per_epoch
    assert score.lines[0].get_xdata()[0] == steps - 1
    assert score.lines[1].get_xdata()[0] == steps * (history.best_epoch + 1) - 1


@pytest.mark.parametrize(
    ("n_epochs", "steps_per_epoch", "marked"),
    [(3, 4, [3.5, 7.5]), (1, 4, []), (30, 2, np.arange(1.5, 59, 2)), (31, 2, [])],
)
def test_epochs_are_marked_unless_they_are_many(n_epochs, steps_per_epoch, marked):
    loss = np.ones(n_epochs * steps_per_epoch)
    drawn = TrainingHistoryDisplay(
        loss, loss, loss, steps_per_epoch=steps_per_epoch
    ).plot()
    without = TrainingHistoryDisplay(loss, loss, loss).plot()

    for ax in drawn.axes_:
        lines = [line for line in ax.lines if line.get_linestyle() == ":"]
        assert [line.get_xdata()[0] for line in lines] == [*marked]
    assert ("dotted" in written(drawn.figure_)) == bool(len(marked))
    assert "dotted" not in written(without.figure_)


@pytest.mark.parametrize("best", [0, 2])
def test_the_star_of_the_kept_epoch_is_whole(best):
    score = np.array([0.2, 0.4, 0.9]) if best else np.array([0.9, 0.4, 0.2])
    loss = np.ones(12)
    drawn = TrainingHistoryDisplay(
        loss, loss, loss, score=score, best_epoch=best, steps_per_epoch=4
    ).plot()
    drawn.figure_.canvas.draw()
    panel = drawn.axes_[1]
    (x, y) = panel.transData.transform(panel.lines[1].get_xydata()[0])
    radius = panel.lines[1].get_markersize() / 2 * drawn.figure_.dpi / 72

    inside = panel.get_window_extent()
    assert inside.x0 <= x - radius
    assert x + radius <= inside.x1
    assert y + radius <= inside.y1
    assert f"kept: epoch {best}, the best of" in written(drawn.figure_)
    score[best] = np.nan
    drawn.score = score
    assert f"kept: epoch {best}, the last (no finite" in written(drawn.plot().figure_)


@pytest.mark.parametrize(
    ("score", "labels"),
    [
        ([], ["loss", "orthogonality", "learning rate"]),
        ([0.5], ["loss", "score", "orthogonality", "learning rate"]),
    ],
)
def test_panels_can_be_given(plt, score, labels):
    display = TrainingHistoryDisplay(
        *np.ones((3, 6)), score=score, best_epoch=None, steps_per_epoch=6
    )
    _, axes = plt.subplots(1, len(labels))
    drawn = display.plot(ax=axes)

    assert drawn.axes_.tolist() == axes.tolist()
    assert [ax.get_ylabel() for ax in axes] == labels
    with pytest.raises(ValueError, match=rf"or {len(labels)} for all panels\. Got 2"):
        display.plot(ax=axes[:2])


@pytest.mark.parametrize("lengths", [(12, 6), (6, 12), (0, 12)])
def test_losses_on_one_axes_are_drawn_to_their_ends(plt, lengths):
    _, ax = plt.subplots()
    for length in lengths:
        drawn = TrainingHistoryDisplay(*np.ones((3, length))).plot(ax=ax)

    assert drawn.axes_.tolist() == [ax]
    assert ax.get_xlim() == (-0.5, 11.5)


def test_a_long_loss_has_its_running_mean():
    loss = np.tile([1.0, 3.0], 50)
    drawn = TrainingHistoryDisplay(loss, loss, loss).plot()
    _, mean = drawn.ax_.lines

    assert [t.get_text() for t in drawn.ax_.get_legend().get_texts()] == [
        "mean of 5 steps"
    ]
    assert np.ptp(mean.get_ydata()) < 0.5
    assert mean.get_ydata().mean() == pytest.approx(2, abs=0.05)
    assert mean.get_xdata().mean() == pytest.approx(49.5)


# ---- animation --------------------------------------------------------------------


def test_the_animation_goes_from_the_first_ranks_to_the_last(fitted, plt):
    display = RankAllocationDisplay.from_estimator(fitted)
    animation = display.animate(colorbar=False)
    figure = plt.gcf()
    (ax,) = figure.axes
    seen = []
    for frame in range(len(display.history)):
        animation._func(frame)  # what `save` calls, without its files
        cells = np.ma.filled(ax.collections[0].get_array(), 0)
        seen.append(cells.reshape(display.ranks.shape))
    animation._draw_was_started = True  # it warns otherwise that nobody watched

    assert (seen[0] == fitted.schedule_.init_r).all()
    np.testing.assert_array_equal(seen[-1], display.ranks)
    np.testing.assert_array_equal(seen, display.history)
    assert f"after {fitted.history_.rank_steps[-1]} steps" in written(figure)
    assert [int(states.sum()) for states in seen] == [
        sum(row) for row in fitted.history_.ranks
    ]


def test_the_animation_is_written(fitted, plt, tmp_path):
    animation = RankAllocationDisplay.from_estimator(fitted).animate()
    animation.save(tmp_path / "ranks.gif", dpi=30)

    assert (tmp_path / "ranks.gif").read_bytes().startswith(b"GIF8")


def test_ranks_without_a_history_are_not_animated():
    display = RankAllocationDisplay.from_ranks({"l.0.fc1": 0, "l.1.fc1": 3})
    with pytest.raises(ValueError, match="Make it with `from_estimator`, or give"):
        display.animate()
