"""Where warnings point to, and which other libraries are kept silent."""

import pickle
import warnings

import pytest
import torch
from _process import run_python
from _threads import in_threads
from _toy import make, toy
from sklearn.model_selection import cross_val_predict

from sk_adalora import AdaLoraConfig
from sk_adalora.adalora import AdaLoraModel, get_peft_model
from sk_adalora.files import versions as _file_versions
from sk_adalora.runtime.messages import Muted, progress_bar

X, Y = toy(24)

# A program whose processes are started in another way once it has fitted.
FITS_AND_SEARCHES = """
import multiprocessing, sys, threading
from importlib.util import find_spec
sys.modules["greenlet"] = None  # as if it were not installed
from _toy import make, toy
from optuna.samplers import GPSampler
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sk_adalora import AdaLoraSearchCV

def program():
    X, y = toy(24)
    classifier = make(sys.argv[1], epochs=1)
    classifier.fit(X, y).predict(X)
    print(multiprocessing.get_start_method(allow_none=True))
    multiprocessing.set_start_method("spawn")
    pipe = make_pipeline(FunctionTransformer(), classifier)
    search = AdaLoraSearchCV(pipe, n_trials=12, cv=2, pruner=None).fit(X, y)
    assert isinstance(search.study_.sampler.sampler, GPSampler)
    source = "optuna._gp.batched_lbfgsb"  # where it would ask for greenlet, if at all
    assert source in sys.modules or find_spec(source) is None
    print([thread.name for thread in threading.enumerate()])

if __name__ == "__main__":
    program()
"""


def test_a_warning_of_loading_points_to_the_prediction(tiny_model, monkeypatch):
    data = pickle.dumps(make(tiny_model).fit(X, Y))
    loaded = pickle.loads(data)
    loaded._adapter.versions["torch"] = "0.1"
    monkeypatch.setattr(_file_versions, "_warned", set())
    with pytest.warns(UserWarning, match="trained with torch 0.1") as caught:
        loaded.predict(X)

    assert [warning.filename for warning in caught] == [__file__]


def config(**changed):
    return AdaLoraConfig(total_step=10, target_modules=["0", "none"], **changed)


@pytest.mark.parametrize(
    ("call", "match"),
    [
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
    levels = [1]
    muted = Muted(lambda: levels[-1], levels.append, lambda wanted: 0)

    def work(_):
        for _ in range(200):
            with muted(), muted():
                assert levels[-1] == 0

    with pytest.raises(ZeroDivisionError), muted():
        raise ZeroDivisionError
    assert levels == [1, 0, 1]
    in_threads(work, range(4))
    assert levels == [1, *[0, 1] * (len(levels) // 2)]


def test_a_bar_says_what_is_done_and_how_much_of_it(capsys):
    bar = progress_bar(4, 1, "searching", "trial")
    bar.update(3)
    bar.close()
    shown = capsys.readouterr().err.splitlines()[-1].split("\r")[-1]

    assert shown.startswith("searching:  75%")
    assert "3/4" in shown
    assert "trial" in shown


def test_who_shows_nothing_says_nothing_and_starts_nothing(tiny_model):
    """tqdm makes locks and a thread for bars that are disabled, too, and Optuna's
    Gaussian process tells that it would like to have greenlet."""
    done = run_python(FITS_AND_SEARCHES, tiny_model)

    assert done.stdout.splitlines() == ["None", "['MainThread']"]
    assert done.stderr == ""
