"""`max_steps` and `timeout`: fits that are bound, of rows that are drawn."""

import os
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from _toy import make, make_regressor, numbers, save_each_step, topics, toy
from numpy.testing import assert_array_equal

from sk_adalora import AdaLoraEncoder

QUICK = {"target_r": 2, "device": "cpu", "random_state": 0, "cv": 2}


def many(n_rows=600):
    """Different texts, and three labels of a rare class."""
    texts, y = toy(n_rows)
    y = np.where(np.arange(n_rows) // 3 == n_rows // 6, 2, y)
    return [f"{text} {row}" for row, text in enumerate(texts)], y


def test_steps_cut_the_last_epoch(tiny_model):
    X, y = toy(48)  # three steps an epoch
    fitted = make(tiny_model, epochs=4, max_steps=7).fit(X, y)
    report = fitted.fit_report_

    assert fitted.total_step_ == len(fitted.history_.loss) == report.n_steps == 7
    assert fitted.n_iter_ == 3
    assert (report.n_given, report.n_rows, report.seen_share) == (48, 48, 1)
    assert fitted.history_.learning_rate[-1] < fitted.history_.learning_rate[-2]
    # A bound above what `epochs` gives changes nothing.
    bound, free = (
        make(tiny_model, epochs=2, max_steps=most).fit(X, y) for most in (6, None)
    )
    for name, array in numbers(free).items():
        assert_array_equal(numbers(bound)[name], array)


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}])
def test_rows_are_drawn_before_they_are_read(tiny_model, options):
    X, y = many()
    read = []
    settings = {"row_format": lambda cell: read.append(cell) or cell, **options}
    classifier = make(tiny_model, max_steps=3, **settings).fit(X, y, np.ones(600))
    report = classifier.fit_report_

    assert_array_equal(classifier.classes_, [0, 1, 2])
    assert (report.n_given, report.n_rows, report.n_steps) == (600, 48, 3)
    assert report.seen_share == pytest.approx(48 / 600)
    assert {*read} & {*X[300:303]}  # one of its class
    assert len(set(read)) < 80
    assert len(classifier.history_.loss) == 3
    assert classifier.predict(X[:5]).shape == (5,)


def as_parquet(X, y, folder):
    for part in range(3):
        rows = slice(part * 200, part * 200 + 200)
        table = pa.table({"text": X[rows], "label": y[rows]})
        pq.write_table(table, folder / f"{part}.parquet", row_group_size=64)
    return pads.dataset(folder, format="parquet")


@pytest.mark.parametrize("max_steps", [None, 4])
def test_any_container_gives_the_same(tiny_model, tmp_path, max_steps):
    import datasets

    X, y = many()
    folder = as_parquet(X, y, tmp_path)
    table = folder.to_table(["text"])
    assert table["text"].num_chunks > 1
    options = {"max_steps": max_steps, "epochs": 1, "batch_size": 64}
    expected = make(tiny_model, **options).fit(pd.DataFrame({"text": X}), y)
    for source, labels in [
        (table, pa.chunked_array([y[:100], y[100:]])),
        (pads.dataset(table), pd.Series(y)),
        (folder.replace_schema(pa.schema({"text": pa.string()})), y),
        (datasets.Dataset.from_dict({"text": X}), y),
    ]:
        fitted = make(tiny_model, **options).fit(source, labels)
        for name, array in numbers(expected).items():
            assert_array_equal(numbers(fitted)[name], array)
        assert_array_equal(fitted.predict(source), expected.predict(table))


def test_an_encoder_trains_on_a_draw_and_encodes_all(tiny_model):
    X, y = many()
    encoder = AdaLoraEncoder(tiny_model, max_steps=2, n_components=3, **QUICK)
    out_of_fold = encoder.fit_transform(X, y)
    again = AdaLoraEncoder(tiny_model, max_steps=2, n_components=3, **QUICK).fit(X, y)

    assert out_of_fold.shape == (600, 3)
    assert encoder.total_step_ == 2
    assert encoder.fit_report_.n_given == 600
    np.testing.assert_allclose(encoder.transform(X[:9]), again.transform(X[:9]), 1e-4)


@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_rows_are_drawn_of_other_targets(tiny_model, kind):
    X, y = many()
    if kind == "labels":
        fitted = make(tiny_model, max_steps=2).fit(X, np.eye(3, dtype=int)[y])
    else:
        fitted = make_regressor(tiny_model, max_steps=2).fit(X, y * 1.5)

    assert fitted.fit_report_.n_rows == 32


def test_errors_in_drawn_rows_say_so(tiny_model):
    X, y = topics(48)
    with pytest.raises(TypeError, match="must hold text, not bytes") as caught:
        make(tiny_model, max_steps=1).fit([text.encode() for text in X], y)
    assert "drew 16 rows" in caught.value.__notes__[0]


@pytest.mark.parametrize("n_rows", [60, 3_000])
def test_a_fit_ends_on_time_with_a_complete_schedule(tiny_model, n_rows):
    X, y = many(n_rows)
    options = {"epochs": 10_000, "batch_size": 4}
    start = time.perf_counter()
    fitted = make(tiny_model, timeout=2, **options).fit(X, y)
    seconds = time.perf_counter() - start
    schedule, history = fitted.schedule_, fitted.history_

    assert 1.5 < seconds < 4  # of a shared machine; usually within a twentieth
    assert fitted.total_step_ == len(history.loss) == fitted.fit_report_.n_steps
    assert sum(fitted.ranks_.values()) == history.budget[-1] == 2 * len(fitted.ranks_)
    assert history.learning_rate[-1] < 0.05 * max(history.learning_rate)
    final = schedule.total_step - schedule.tfinal
    assert history.budget[final] == history.budget[-1]
    assert schedule.tfinal / schedule.total_step == pytest.approx(0.48, abs=0.2)


def test_time_is_a_bound_and_no_goal(tiny_model):
    X, y = toy(48)
    fitted = make(tiny_model, timeout=600, max_steps=5).fit(X, y)

    assert fitted.total_step_ == 5
    assert fitted.fit_report_.n_rows == 48


def test_too_little_time_is_a_warning_and_one_step(tiny_model):
    X, y = many()
    with pytest.warns(UserWarning, match="`timeout` must leave time for more"):
        fitted = make(tiny_model, timeout=1e-6).fit(X, y)

    assert len(fitted.history_.loss) == 1
    assert fitted.predict(X[:3]).shape == (3,)


# Of a busy machine that measures its first steps.
@pytest.mark.filterwarnings("ignore:`timeout` must leave time")
def test_all_fits_of_an_encoder_end_on_time(tiny_model):
    X, y = many(3_000)
    encoder = AdaLoraEncoder(
        tiny_model, timeout=4, epochs=10_000, n_components=3, **QUICK
    )
    start = time.perf_counter()
    encoder.fit_transform(X, y)

    assert 3 < time.perf_counter() - start < 8
    assert encoder.fit_report_.n_steps > 1


def test_seconds_before_a_kill_count(tiny_model, tmp_path, monkeypatch):
    X, y = many(3_000)
    options = {"timeout": 3, "epochs": 10_000, "batch_size": 4, "random_state": None}
    options |= {"checkpoint_dir": tmp_path / "c"}
    save_each_step(monkeypatch)
    real, count = os.fsync, iter(range(10**6))

    def fsync(handle):
        if next(count) == 20:
            raise KeyboardInterrupt
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        make(tiny_model, **options).fit(X, y)
    before = time.perf_counter() - start
    start = time.perf_counter()
    fitted = make(tiny_model, **options).fit(X, y)

    assert 2 < before + time.perf_counter() - start < 6
    assert len(fitted.history_.loss) == fitted.total_step_ > 20
    assert not (tmp_path / "c").exists()
