"""scikit-learn's callbacks, and the bar that a fit shows by itself."""

import contextlib
import functools
import io
import pickle

import numpy as np
import pytest
from _toy import make as make_classifier
from _toy import topics
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_adalora import AdaLoraClassifier

X, Y = topics(36)


@pytest.fixture(scope="module")
def make(tiny_model):
    """Function: changed parameters -> a classifier that is quick to fit."""
    return functools.partial(make_classifier, tiny_model, epochs=3)


class Recorder:
    """Write down every call; do something at the end of an epoch, if asked."""

    def __init__(self, at_epoch_end=None):
        self.at_epoch_end = at_epoch_end
        self.calls, self.begun, self.ended = [], [], []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def teardown(self, estimator, context):
        self.calls.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None):
        self.calls.append(f"begin {context.task_name} {context.task_id}")
        self.begun.append((context, X, y, metadata))

    def on_fit_task_end(
        self,
        estimator,
        context,
        *,
        X=None,
        y=None,
        metadata=None,
        fitted_estimator=None,
    ):
        self.calls.append(f"end {context.task_name} {context.task_id}")
        self.ended.append((context, X, y, fitted_estimator))
        if context.task_name == "epoch" and self.at_epoch_end is not None:
            return self.at_epoch_end(estimator, context, fitted_estimator)
        return None


class Plain:
    """A callback that asks for nothing."""

    def __init__(self):
        self.calls = 0

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...
    def on_fit_task_end(self, estimator, context):
        self.calls += 1


# An epoch is a task


def test_epochs_are_tasks_in_order(make):
    recorder = Recorder()
    weights = np.ones(36)
    make().set_callbacks(recorder).fit(X, Y, sample_weight=weights)

    epochs = [f"{what} epoch {i}" for i in range(3) for what in ("begin", "end")]
    assert recorder.calls == ["setup", "begin fit 0", *epochs, "end fit 0", "teardown"]
    for context, seen_X, seen_y, metadata in recorder.begun:
        assert seen_X is X
        assert seen_y is Y
        assert metadata["sample_weight"] is weights
        assert context.estimator_name == "AdaLoraClassifier"
    root = recorder.begun[0][0]
    assert root.max_subtasks == 3
    assert all(context.parent is root for context, *_ in recorder.begun[1:])


@pytest.mark.parametrize("fits_before", [0, 1])
def test_the_estimator_of_each_epoch_predicts(make, fits_before):
    """As it would if the fit had ended there."""
    recorder, classifier = Recorder(), make()
    for _ in range(fits_before):
        classifier.fit(X, Y[::-1]).predict(X)
    fitted = classifier.set_callbacks(recorder).fit(X, Y)
    found = [estimator.predict_proba(X) for *_, estimator in recorder.ended]

    assert len(found) == 4  # the epochs, and the fit
    np.testing.assert_allclose(found[-1], fitted.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(found[-2], found[-1], atol=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-5)
    assert all(set(e.predict(X)) <= set(Y) for *_, e in recorder.ended)


def test_early_stopping_and_callbacks_go_together(make):
    recorder = Recorder()
    fitted = make(early_stopping=True, epochs=6, n_iter_no_change=1)
    fitted.set_callbacks(recorder).fit(X, Y, X_val=X[:12], y_val=Y[:12])

    begun = [call for call in recorder.calls if call.startswith("begin epoch")]
    assert len(begun) == fitted.n_iter_ == len(fitted.history_.score)
    assert recorder.calls[-2:] == ["end fit 0", "teardown"]
    # What is handed over last is the state that was kept.
    last = recorder.ended[-1][-1]
    np.testing.assert_allclose(
        last.predict_proba(X), fitted.predict_proba(X), atol=1e-6
    )


# A callback stops the fit


@pytest.mark.parametrize("last", [0, 1])
def test_a_callback_stops_the_fit(make, last):
    """Wherever it stops, the ranks are final: on average `target_r`."""
    recorder = Recorder(lambda _, context, __: context.task_id == last)
    fitted = make(epochs=4).set_callbacks(recorder).fit(X, Y)

    assert fitted.n_iter_ == last + 1
    assert len(fitted.history_.loss) == 3 * (last + 1)
    assert sum(fitted.ranks_.values()) == 2 * len(fitted.ranks_)
    stored = sum(array.size for array in fitted._adapter.arrays.values())
    assert fitted.fit_report_.trainable_parameters == stored
    assert recorder.calls[-2:] == ["end fit 0", "teardown"]
    assert fitted.predict(X).shape == (36,)


def test_a_callback_stops_before_any_score_counts(make):
    """Scores count where ranks are final; until then no state is kept aside."""
    classifier = make(early_stopping=True, epochs=4)
    fitted = classifier.set_callbacks(Recorder(lambda *_: True)).fit(X, Y)

    assert len(fitted.history_.score) == fitted.n_iter_ == 1
    assert fitted.history_.best_epoch is None
    assert sum(fitted.ranks_.values()) == 2 * len(fitted.ranks_)


# Teardown


class Trouble(Exception):
    pass


def fail(error):
    def at_epoch_end(estimator, context, fitted):
        if context.task_id == 1:
            raise error

    return at_epoch_end


@pytest.mark.parametrize("error", [Trouble, KeyboardInterrupt])
def test_teardown_after_an_error_or_an_interruption(make, error):
    """And the estimator is as it was before."""
    recorder = Recorder(fail(error))
    estimator = make().fit(X, Y).set_callbacks(recorder)
    before, predicted = dict(vars(estimator)), estimator.predict_proba(X)

    with pytest.raises(error):
        estimator.fit(X[:20], Y[:20])

    assert recorder.calls[-1] == "teardown"
    assert recorder.calls.count("teardown") == 1
    assert vars(estimator).keys() == before.keys()
    assert all(vars(estimator)[name] is before[name] for name in before)
    np.testing.assert_array_equal(estimator.predict_proba(X), predicted)


def test_bad_input_reaches_no_callback(make):
    recorder = Recorder()

    with pytest.raises(ValueError, match="at least 2 classes"):
        make().set_callbacks(recorder).fit(X, ["one"] * 36)

    assert recorder.calls == []


# Pickles and clones


class Unpicklable(Recorder):
    def __reduce__(self):
        raise TypeError("a callback was pickled")


def test_a_pickle_carries_no_callback(make):
    fitted = make().set_callbacks(Unpicklable()).fit(X, Y)
    copy = pickle.loads(pickle.dumps(fitted))

    assert not [name for name in vars(copy) if "callback" in name]
    np.testing.assert_array_equal(copy.predict_proba(X), fitted.predict_proba(X))
    assert fitted._skl_callbacks  # the estimator itself keeps its own


def test_a_callback_saves_each_epoch(make):
    """The estimators it gets are pickled in the middle of a fit: checkpoints."""
    saved = []
    recorder = Unpicklable(lambda _, __, fitted: saved.append(pickle.dumps(fitted)))
    fitted = make().set_callbacks(recorder).fit(X, Y)
    loaded = [pickle.loads(data) for data in saved]

    assert len(loaded) == 3
    assert not [name for name in vars(loaded[0]) if "callback" in name]
    assert 0 < loaded[0].history_.seconds < loaded[1].history_.seconds
    for one in loaded:  # ranks and numbers are of the same moment
        kept = [len(a) for n, a in one._adapter.arrays.items() if "lora_E" in n]
        assert sum(kept) == sum(one.ranks_.values())
        assert sum(kept) == one.history_.budget[-1]
    np.testing.assert_allclose(
        loaded[-1].predict_proba(X), fitted.predict_proba(X), atol=1e-5
    )


def test_an_estimator_of_an_epoch_has_the_ranks_of_its_step(make):
    recorder = Recorder()
    fitted = make(deltaT=4, tfinal=0.1).set_callbacks(recorder).fit(X, Y)
    epochs = [estimator for *_, estimator in recorder.ended][:-1]
    stopped = make(deltaT=4, tfinal=0.1).set_callbacks(Recorder(lambda *_: True))
    target = sum(stopped.fit(X, Y).ranks_.values())

    ranks = [sum(estimator.ranks_.values()) for estimator in epochs]
    assert ranks == [estimator.history_.budget[-1] for estimator in epochs]
    assert ranks[0] > ranks[-1] == target == sum(fitted.ranks_.values())
    for estimator in epochs:
        assert estimator.rank_pattern_ == estimator._adapter.config["rank_pattern"]
        estimator.predict(X)


def test_an_estimator_of_an_epoch_goes_on_without_the_callbacks(make):
    recorder = Recorder()
    classifier = make(warm_start=True).fit(X, Y)
    classifier.set_callbacks(recorder).fit(X, Y)
    calls = list(recorder.calls)
    copy = recorder.ended[0][-1]

    assert not [name for name in vars(copy) if "callback" in name]
    copy.fit(X, Y)
    assert recorder.calls == calls


def test_an_unfitted_estimator_takes_its_callbacks_along(make):
    """To the processes of a search, for one."""
    estimator = make().set_callbacks(Plain())
    copy = pickle.loads(pickle.dumps(estimator))

    assert [type(callback) for callback in copy._skl_callbacks] == [Plain]


# scikit-learn's own callbacks


def search_of(make, **changed):
    pipeline = make_pipeline(FunctionTransformer(), make(**changed))
    return GridSearchCV(
        pipeline,
        {"adaloraclassifier__target_r": [1, 2]},
        cv=StratifiedKFold(2),
    )


def test_scoring_monitor_weighs_the_rows(make):
    weights = np.arange(36.0)
    monitor = ScoringMonitor(scoring="accuracy")
    fitted = make(epochs=1).set_callbacks(monitor).fit(X, Y, sample_weight=weights)
    scores = [row["accuracy"] for row in monitor.get_logs().data]

    assert scores == [pytest.approx(fitted.score(X, Y, sample_weight=weights))] * 2


def test_scoring_monitor_through_search_and_pipeline(make):
    """Every epoch of every candidate on every fold, and of the refit."""
    monitor = ScoringMonitor(scoring="accuracy")
    search = search_of(make, epochs=2)
    search.estimator[-1].set_callbacks(monitor)
    search.fit(X, Y)
    log = monitor.get_logs().data_as_pandas
    epochs = log[log["task_name"] == "epoch"]

    assert len(epochs) == 2 * 2 * 2 + 2
    assert set(epochs["task_id"]) == {0, 1}
    assert epochs["task_id_path"].is_unique
    assert epochs["accuracy"].between(0, 1).all()
    # search, fold of a candidate, step of the pipeline, epoch: or deeper
    assert (epochs["task_id_path"].map(len) >= 4).all()


@contextlib.contextmanager
def shown(monkeypatch):
    """What the bars of rich draw."""
    rich = pytest.importorskip("rich.console", reason="bars need rich")
    output = io.StringIO()
    console = rich.Console(file=output, width=120, force_terminal=False)
    monkeypatch.setattr("rich.get_console", lambda: console)
    monkeypatch.setattr("rich.live.get_console", lambda: console)
    monkeypatch.setattr("rich.progress.get_console", lambda: console)
    yield output


@pytest.mark.filterwarnings("ignore:The estimator FunctionTransformer does not support")
def test_progress_bar_through_search_and_pipeline(make, monkeypatch):
    with shown(monkeypatch) as output:
        search = search_of(make, epochs=2).set_params(n_jobs=2)
        search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, Y)
    lines = output.getvalue().splitlines()
    fits = [line for line in lines if "AdaLoraClassifier - fit" in line]

    assert "GridSearchCV - fit" in output.getvalue()
    assert len(fits) == 2 * 2 + 1
    assert all("100%" in line for line in fits)


# The bar of a fit


def test_verbose_is_one_bar(make, capfd):
    fitted = make(verbose=1).fit(X, Y)
    out, err = capfd.readouterr()

    assert out == ""
    *begun, bar = err.split("\n", 3)
    assert [line.split()[0] for line in begun] == ["loading", "tokenizing", "starting"]
    bar, table = bar.split("\n", 1)
    assert "step" not in table  # the bar is redrawn, never a second one
    last = bar.split("\r")[-1]
    assert f"{fitted.total_step_}/{fitted.total_step_}" in last
    assert f"loss={fitted.history_.loss[-1]:.3f}" in last
    assert f"rank={np.mean([*fitted.ranks_.values()]):.1f}" in last
    assert "score" not in last


def test_the_bar_shows_the_score_that_is_watched(make, capfd):
    scores = iter([0.1, 0.4, 0.3])
    early = {"early_stopping": True, "scoring": lambda *_: next(scores)}
    make(verbose=1, **early).fit(X, Y, X_val=X, y_val=Y)
    last = capfd.readouterr().err.split("\r")[-1]

    assert "score=0.300" in last  # the last one, not that of the epoch before


def test_the_bar_is_closed_after_an_error(make, capfd):
    from tqdm import tqdm

    before = len(tqdm._instances)
    estimator = make(verbose=1).set_callbacks(Recorder(fail(Trouble)))
    with pytest.raises(Trouble):
        estimator.fit(X, Y)

    assert len(tqdm._instances) == before
    assert capfd.readouterr().err.endswith("\n")


def test_an_epoch_can_be_saved(make, tmp_path):
    """What a callback gets is a fitted estimator, of this fit and of no other."""
    seen = {}

    def save(_, context, fitted):
        folder = tmp_path / f"{fitted.target_r}-{context.task_id}"
        fitted.save_pretrained(folder)
        loaded = AdaLoraClassifier.from_pretrained(folder)
        seen[context.task_id] = fitted.history_, fitted.ranks_, loaded

    estimator = make(init_r=4).fit(X, Y)
    estimator.set_params(target_r=1).set_callbacks(Recorder(save)).fit(X, Y)

    assert len(seen) == 3
    steps = estimator.schedule_.steps_per_epoch
    for epoch, (history, ranks, loaded) in seen.items():
        assert len(history.loss) == steps * (epoch + 1)
        assert loaded.n_iter_ == epoch + 1
        assert loaded.schedule_ == estimator.schedule_
        assert history.budget[-1] == sum(ranks.values())
    assert sum(loaded.ranks_.values()) == len(loaded.ranks_)
