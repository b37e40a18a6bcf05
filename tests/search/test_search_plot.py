"""The picture of a search: its numbers are those of the table."""

import numpy as np
import optuna
import pytest
from _search_worker import FLOAT, Peak, rows, search

from sk_adalora.search.results import draw_trials, trial_curves

X, Y = rows()


@pytest.fixture(scope="module")
def raced():
    """A search of five complete trials and four that were pruned after a fold."""
    good = [{"a": 0.34 - 0.01 * k, "b": 0.7} for k in range(5)]
    bad = [{"a": 1.0, "b": 0.1 * k} for k in range(4)]
    return search(n_trials=9, pruner="auto", enqueue=good + bad).fit(X, Y)


def test_the_picture_shows_trials_best_and_importances(plt, raced):
    values_of, importances = raced.plot_trials()
    complete, pruned, best = values_of.lines
    table = raced.cv_results_

    np.testing.assert_allclose(complete.get_ydata(), table["mean_test_score"][:5])
    np.testing.assert_allclose(pruned.get_ydata(), table["running_mean"][5:])
    np.testing.assert_array_equal(pruned.get_xdata(), range(5, 9))
    so_far = np.maximum.accumulate(table["mean_test_score"][:5])
    np.testing.assert_allclose(best.get_ydata(), [*so_far, so_far[-1]])
    np.testing.assert_array_equal(best.get_xdata(), [0, 1, 2, 3, 4, 8])
    assert sorted(t.get_text() for t in importances.get_yticklabels()) == ["a", "b"]
    assert importances.patches[-1].get_width() == pytest.approx(1.0, abs=0.05)
    labels = [text.get_text() for text in values_of.get_legend().get_texts()]
    assert labels == ["complete", "pruned", "best so far"]
    assert values_of.get_xlabel() == "trial"
    assert importances.get_xlim() == (0, 1)


def test_what_is_drawn_keeps_the_constraints():
    not_best = {"system_attrs": {"constraints": [1]}}
    study = optuna.create_study(direction="maximize")
    for value, kept in ((0.9, not_best), (0.2, {}), (-9, not_best), (0.3, {})):
        study.add_trial(optuna.trial.create_trial(value=value, **kept))
    curves = trial_curves(study, study.trials)

    assert curves.complete.tolist() == curves.best.tolist() == [[1, 0.2], [3, 0.3]]


def test_the_best_so_far_stays_while_worse_trials_follow(plt):
    """And the line goes on to the last trial that has ended, not to one that runs."""
    states = optuna.trial.TrialState
    study = optuna.create_study(direction="maximize")
    for value in (0.2, 0.9, 0.3):
        study.add_trial(optuna.trial.create_trial(value=value))
    for state in (states.FAIL, states.RUNNING):
        study.add_trial(optuna.trial.create_trial(state=state))
    curves = trial_curves(study, study.trials)
    (complete, best), _ = (ax.lines for ax in draw_trials(curves))

    assert complete.get_ydata().tolist() == [0.2, 0.9, 0.3]
    assert best.get_xydata().tolist() == [[0, 0.2], [1, 0.9], [2, 0.9], [3, 0.9]]
    assert best.get_drawstyle() == "steps-post"  # it is better from that trial on
    assert len(trial_curves(study, study.trials[3:]).best) == 0


def test_the_picture_needs_one_axes_or_two(plt):
    drawn = search(n_trials=1).fit(X, Y)
    _, axes = plt.subplots(2, 2)

    with pytest.raises(ValueError, match=r"the trials alone, or 2 for all.*Got 4\."):
        drawn.plot_trials(ax=axes)
    with pytest.raises(TypeError, match=r"`ax` must be Axes.*Got str\. Make them"):
        drawn.plot_trials(ax="axes")
    assert drawn.plot_trials(ax=axes[:, :1]).tolist() == [axes[0, 0], axes[1, 0]]


def contrast(colour, other):
    """The contrast ratio of two colours, as WCAG 2.1 defines it."""
    parts = np.array([colour, other])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    darker, lighter = np.sort(linear @ [0.2126, 0.7152, 0.0722]) + 0.05
    return lighter / darker


def test_a_picture_does_not_change_with_the_study(plt, tmp_path):
    """Its numbers are those of the table, whatever becomes of the storage."""
    kept = {"storage": f"sqlite:///{tmp_path / 'study.db'}", "study_name": "s"}
    fitted = search(n_trials=6, **kept).fit(X, Y)

    def widths():
        return [bar.get_width() for bar in fitted.plot_trials()[1].patches]

    before = widths()
    search(n_trials=9, **kept).fit(X, Y)
    assert before == widths() != []
    optuna.delete_study(study_name="s", storage=kept["storage"])
    assert before == widths()


@pytest.mark.parametrize("other", [-np.inf, 0.1 + 1e-17])
def test_values_that_cannot_be_told_apart_have_no_importances(plt, other):
    class Two(Peak):
        def score(self, X, y, sample_weight=None):
            return 0.1 if self.a < 0.5 else other

    points = [{"a": 0.1}, {"a": 0.9}, {"a": 0.2}]
    fitted = search(Two(), {"a": FLOAT(0, 1)}, n_trials=3, enqueue=points).fit(X, Y)
    axes = fitted.plot_trials()

    assert axes[1].get_title() == "too few trials to tell"
