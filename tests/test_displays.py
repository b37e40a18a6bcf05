"""The displays of a fit: what they draw is what the fit kept."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from _tiny import adapt, tiny_bert
from _toy import make, toy
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_adalora import (
    AdaLoraClassifier,
    BudgetDisplay,
    BudgetSchedule,
    RankAllocationDisplay,
    TrainingHistoryDisplay,
)
from sk_adalora._plotting import text_colour

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


def test_it_draws_on_a_new_figure(display, fitted, plt):
    drawn = display.from_estimator(fitted)
    drawn.figure_.canvas.draw()

    assert drawn.figure_.number in plt.get_fignums()
    assert drawn.ax_.figure is drawn.figure_


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


@pytest.mark.parametrize("wrong", ["axes", {"left": None}, None])
def test_what_is_no_axes_is_refused(display, fitted, plt, wrong):
    wrong = plt.figure() if wrong is None else wrong
    got = type(wrong).__name__
    with pytest.raises(TypeError, match=rf"`ax` must be Axes.*Got {got}\. Make them"):
        display.from_estimator(fitted, ax=wrong)


@pytest.mark.parametrize("display", [RankAllocationDisplay, BudgetDisplay])
def test_several_axes_are_refused_where_there_is_one_panel(display, fitted, plt):
    _, axes = plt.subplots(1, 2)
    with pytest.raises(ValueError, match=r"`ax` must be one Axes\. Got 2\. Pass one"):
        display.from_estimator(fitted, ax=axes)
    assert not any(ax.has_data() for ax in axes)
    assert display.from_estimator(fitted, ax=axes[:1]).ax_ is axes[0]


def test_plot_draws_again_elsewhere(display, fitted, plt):
    drawn = display.from_estimator(fitted)
    _, ax = plt.subplots()

    assert drawn.plot(ax=ax) is drawn
    assert drawn.ax_ is ax


def test_pipelines_and_searches_are_opened(display, fitted, tiny_model):
    pipeline = make_pipeline(FunctionTransformer(list), make(tiny_model))
    search = GridSearchCV(pipeline, {"adaloraclassifier__target_r": [2]}, cv=2)
    for estimator in (pipeline.fit(X, Y), search.fit(X, Y)):
        assert display.from_estimator(estimator).figure_ is not None


def test_loaded_estimators_can_be_drawn(display, fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "folder")
    first = display.from_estimator(fitted)
    for loaded in (
        pickle.loads(pickle.dumps(fitted)),
        AdaLoraClassifier.from_pretrained(tmp_path / "folder"),
    ):
        drawn = display.from_estimator(loaded)
        assert written(drawn.figure_) == written(first.figure_)


@pytest.mark.parametrize("wrap", ["estimator", "pipeline", "search"])
def test_unfitted_estimators_are_refused(display, tiny_model, wrap):
    estimator = make(tiny_model)
    if wrap == "pipeline":
        estimator = make_pipeline(FunctionTransformer(list), estimator)
    elif wrap == "search":
        estimator = GridSearchCV(estimator, {"target_r": [2]})
    with pytest.raises(NotFittedError):
        display.from_estimator(estimator)


def test_other_things_are_refused(display, fitted):
    name = display.__name__
    for thing in (
        LogisticRegression(),
        make_pipeline("passthrough"),
        {},
        fitted.ranks_,
    ):
        with pytest.raises(TypeError, match=rf"{name}\.from_estimator needs a fitted"):
            display.from_estimator(thing)


def test_a_search_without_refit_is_refused(display, fitted):
    search = GridSearchCV(clone(fitted), {"target_r": [2]}, refit=False)
    search.cv_results_ = {}
    search.best_estimator_ = fitted  # of a fit before
    with pytest.raises(TypeError, match=r"Got GridSearchCV with refit=False\. Set"):
        display.from_estimator(search)


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
    model = adapt(tiny_bert())
    drawn = RankAllocationDisplay.from_ranks(model.ranks, initial=4)

    assert drawn.ranks.tolist() == np.full((2, len(drawn.kinds)), 4).tolist()


def test_pruned_and_missing_matrices_look_different():
    ranks = {"l.0.fc1": 0, "l.0.fc2": 3, "l.1.fc2": 1}
    drawn = RankAllocationDisplay.from_ranks(ranks)
    hatched = [patch for patch in drawn.ax_.patches if patch.get_hatch()]

    assert [patch.get_xy() for patch in hatched] == [(0, 0)]
    assert drawn.image_.get_array().mask.tolist() == [[True, False], [True, False]]
    assert drawn.text_[0, 0].get_text() == "0"
    assert drawn.text_[1, 0] is None
    assert "hatched" in written(drawn.figure_)
    without = RankAllocationDisplay.from_ranks({"l.0.fc2": 3})
    assert "hatched" not in written(without.figure_)


def test_all_ranks_may_be_zero():
    drawn = RankAllocationDisplay.from_ranks({"l.0.fc1": 0, "l.1.fc1": 0})
    drawn.figure_.canvas.draw()

    assert drawn.image_.get_clim() == (0, 1)


@pytest.mark.parametrize("n_layers", [1, 6, 24, 48])
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


def test_numbers_too_small_to_read_are_left_out(plt):
    _, ax = plt.subplots(figsize=(3, 2))
    ranks = {f"h.{i}.{kind}": 3 for i in range(48) for kind in ("fc1", "fc2")}
    drawn = RankAllocationDisplay.from_ranks(ranks, ax=ax)

    assert set(drawn.text_.ravel()) == {None}
    assert len(ax.get_yticks()) < 48


def test_a_line_parts_the_stacks():
    ranks = {f"{part}.block.{i}.fc1": 1 for part in ("enc", "dec") for i in range(3)}
    drawn = RankAllocationDisplay.from_ranks(ranks)

    assert [line.get_ydata()[0] for line in drawn.ax_.lines] == [3]


def test_text_is_readable_on_its_colour():
    assert text_colour((0, 0, 0.4)) == "white"
    assert text_colour((1, 0.9, 0.2)) == "black"


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
    assert len(BudgetDisplay.from_schedule(schedule, actual=whole).ax_.lines) == 2


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


def test_without_a_score_there_is_no_panel_for_it(tiny_model):
    drawn = TrainingHistoryDisplay.from_estimator(make(tiny_model).fit(X, Y))

    assert [ax.get_ylabel() for ax in drawn.axes_] == [
        "loss",
        "orthogonality",
        "learning rate",
    ]


def test_one_axes_shows_the_loss_alone(fitted, plt):
    _, ax = plt.subplots()

    assert TrainingHistoryDisplay.from_estimator(fitted, ax=ax).axes_.tolist() == [ax]


def test_axes_of_all_panels_can_be_given(fitted, plt):
    _, axes = plt.subplots(2, 2)
    drawn = TrainingHistoryDisplay.from_estimator(fitted, ax=axes)

    assert drawn.axes_.tolist() == axes.ravel().tolist()
    with pytest.raises(ValueError, match=r"or 4 for all panels\. Got 2\. Make them"):
        TrainingHistoryDisplay.from_estimator(fitted, ax=axes[0])


def test_a_long_loss_has_its_running_mean():
    loss = np.tile([1.0, 3.0], 50)
    drawn = TrainingHistoryDisplay(loss, loss, loss).plot()
    _, mean = drawn.ax_.lines

    assert np.ptp(mean.get_ydata()) < 0.5
    assert mean.get_ydata().mean() == pytest.approx(2, abs=0.05)
    assert mean.get_xdata().mean() == pytest.approx(49.5)


def test_scores_need_the_steps_of_an_epoch():
    with pytest.raises(ValueError, match=r"`steps_per_epoch` must be given.*Got None"):
        TrainingHistoryDisplay([1, 2], [0, 0], [0, 0], score=[0.5]).plot()
