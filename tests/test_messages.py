"""Where warnings point to, and which other libraries are kept silent."""

import logging
import os
import pickle
import subprocess
import sys
import threading
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from _toy import make, toy
from sklearn.model_selection import cross_val_predict

from sk_adalora import AdaLoraConfig, _persistence
from sk_adalora._messages import Muted, progress_bar, warn_user
from sk_adalora.adalora import AdaLoraModel, get_peft_model

X, Y = toy(24)
TESTS = Path(__file__).parent

# A program whose processes are started in another way once it has fitted.
FITS_FIRST = """
import multiprocessing, sys, threading
from _toy import make, toy
from sk_adalora import AdaLoraSearchCV

def program():
    X, y = toy(24)
    make(sys.argv[1], epochs=1).fit(X, y).predict(X)
    print(multiprocessing.get_start_method(allow_none=True))
    multiprocessing.set_start_method("spawn")
    space = {"learning_rate": [0.01, 0.02]}
    AdaLoraSearchCV(make(sys.argv[1], epochs=1), space, n_trials=1, cv=2).fit(X, y)
    print([thread.name for thread in threading.enumerate()])

if __name__ == "__main__":
    program()
"""


def test_a_warning_points_to_who_called_the_library():
    with pytest.warns(FutureWarning, match="soon") as caught:
        warn_user("soon", FutureWarning)

    assert caught[0].filename == __file__


def test_a_warning_of_loading_points_to_the_prediction(tiny_model, monkeypatch):
    data = pickle.dumps(make(tiny_model).fit(X, Y))
    loaded = pickle.loads(data)
    loaded._adapter.versions["torch"] = "0.1"
    monkeypatch.setattr(_persistence, "_warned", set())
    with pytest.warns(UserWarning, match="trained with torch 0.1") as caught:
        loaded.predict(X)

    assert [warning.filename for warning in caught] == [__file__]


def config(**changed):
    return AdaLoraConfig(total_step=10, target_modules=["0", "none"], **changed)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: AdaLoraConfig(total_step=10, r=4), "`r`=4 is not used"),
        (lambda: config(r=4), "`r`=4 is not used"),
        (
            lambda: AdaLoraConfig.from_dict({"total_step": 10, "of_later": 1}),
            "unknown here: of_later",
        ),
        (lambda: get_peft_model(layers(), config()), "which matches none"),
        (lambda: AdaLoraModel(layers(), config()), "which matches none"),
    ],
)
def test_a_warning_of_the_engine_points_to_its_caller(call, match):
    with pytest.warns(UserWarning, match=match) as caught:
        call()

    assert [warning.filename for warning in caught] == [__file__]


def layers():
    return torch.nn.Sequential(torch.nn.Linear(4, 4))


def test_a_warning_of_the_engine_in_a_fit_points_to_the_fit(tiny_model):
    """Nothing depends on the pooler."""
    with pytest.warns(UserWarning, match="got no gradient") as caught:
        make(tiny_model, target_modules=["query", "pooler.dense"]).fit(X, Y)

    assert [warning.filename for warning in caught] == [__file__]


def test_a_warning_passes_by_scikit_learn(tiny_model):
    long = [f"{text} " * 20 for text in X]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cross_val_predict(make(tiny_model, max_length=4), long, Y, cv=2)
    cuts = [w for w in caught if "longer than max_length" in str(w.message)]

    assert [warning.filename for warning in cuts] == [__file__] * 2


def test_a_library_is_silent_until_the_last_thread_is_done():
    logger = logging.getLogger("of a library")
    logger.setLevel(logging.INFO)

    @contextmanager
    def mute():
        before = logger.level
        logger.setLevel(logging.ERROR)
        yield
        logger.setLevel(before)

    muted = Muted(mute)
    first, second = muted(), muted()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert logger.level == logging.ERROR
    second.__exit__(None, None, None)
    assert logger.level == logging.INFO


def test_a_library_speaks_again_after_an_error():
    volume = []

    @contextmanager
    def mute():
        volume.append("off")
        yield
        volume.append("on")

    muted = Muted(mute)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), muted():
            raise ZeroDivisionError

    assert volume == ["off", "on"] * 2


def test_a_bar_says_what_is_done_and_how_much_of_it(capsys):
    bar = progress_bar(4, 1, "searching", "trial")
    bar.update(3)
    bar.close()
    shown = capsys.readouterr().err.splitlines()[-1].split("\r")[-1]

    assert shown.startswith("searching:  75%")
    assert "3/4" in shown
    assert "trial" in shown


def test_a_library_is_given_back_by_many_threads():
    levels = []

    @contextmanager
    def mute():
        levels.append("off")
        yield
        levels.append("on")

    muted = Muted(mute)

    def work():
        for _ in range(200):
            with muted():
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert levels[::2] == ["off"] * (len(levels) // 2)
    assert levels[1::2] == ["on"] * (len(levels) // 2)


class TimeLimit(BaseException):
    """Raised between two lines, as a time limit of a server is."""


def test_a_library_is_given_back_wherever_a_time_limit_is_raised():
    volume, entered = [1, 1], []

    @contextmanager
    def mute():
        try:
            volume[0] = 0
            volume[1] = 0
            yield
        finally:
            volume[:] = [1, 1]

    def trace(frame, event, arg):
        """Raise at the line that it is the turn of, before the block begins."""
        nonlocal line
        if frame.f_code not in (Muted.__call__.__wrapped__.__code__, silence):
            return trace
        if event == "line" and not entered:
            line += 1
            if line == last:
                raise TimeLimit
        return trace

    def work():
        with muted():
            entered.append(volume[:])

    muted, silence = Muted(mute), mute.__wrapped__.__code__
    for last in range(1, 100):
        line = 0
        sys.settrace(trace)
        with suppress(TimeLimit):
            work()
        sys.settrace(None)
        assert volume == [1, 1], last
        if entered:
            break
    assert entered == [[0, 0]]
    assert last > 6  # it was raised at each line before
    with muted():
        assert volume == [0, 0]
    assert volume == [1, 1]


def test_who_shows_nothing_starts_no_thread_and_leaves_multiprocessing(tiny_model):
    """tqdm makes locks and a thread for bars that are disabled, too."""
    places = [str(TESTS), str(TESTS.parent)]
    done = subprocess.run(
        [sys.executable, "-c", FITS_FIRST, tiny_model],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )

    assert done.stdout.splitlines() == ["None", "['MainThread']"]
