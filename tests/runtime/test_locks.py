"""A child that is forked beside a busy thread of its parent."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import joblib
import numpy as np
import pyarrow as pa
import pytest
from _process import run_python
from _toy import make_regressor, toy
from transformers import AutoTokenizer

from sk_adalora.pretrained.read import silent_transformers
from sk_adalora.runtime.threads import lock_of
from sk_adalora.tokens.tokenize import encode

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
    # Python 3.12 and later warn of what is tested here.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
]


def in_child(work, seconds=20):
    """Run something in a forked child; False where it raises or hangs."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


class BusyThread:
    """A thread that stays inside of a context as long as the `with` block lasts."""

    def __init__(self, context):
        self.context, self.inside = context, threading.Event()
        self.leave = threading.Event()
        self.thread = threading.Thread(target=self.work)

    def work(self):
        with self.context:
            self.inside.set()
            self.leave.wait()

    def __enter__(self):
        self.thread.start()
        self.inside.wait()

    def __exit__(self, *error):
        self.leave.set()
        self.thread.join()


def take(thing):
    with lock_of(thing), lock_of(thing), silent_transformers():
        pass


@pytest.mark.parametrize("thing", ["this", silent_transformers])
def test_what_another_thread_is_at_is_free_in_a_child(thing):
    with BusyThread(lock_of(thing)):
        assert lock_of("other").acquire(blocking=False)
        assert in_child(lambda: take(thing))
        # in the parent the other thread still has it
        assert not lock_of(thing).acquire(blocking=False)
    take(thing)


def test_a_lock_of_the_thread_that_forks_can_be_taken_and_released():
    with lock_of("this") as _:
        assert in_child(lambda: take("this"))
    assert in_child(lambda: take("this"))


def test_a_tokenizer_in_use_can_be_used_in_a_child(tiny_model):
    """It has locks of its own, which stay with the thread that was using it."""

    def as_texts(text):
        return SimpleNamespace(first=pa.array([text], pa.large_string()), second=None)

    def work():
        assert encode(texts, tokenizer, 3).ids.tolist() == ids
        assert tokenizer.backend_tokenizer.to_str() == settings

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    settings = tokenizer.backend_tokenizer.to_str()
    texts, long = as_texts("good film"), as_texts("the good film " * 100_000)
    ids = encode(texts, tokenizer, 3).ids.tolist()
    read = threading.Thread(target=encode, args=(long, tokenizer, 1_000_000))
    read.start()
    time.sleep(0.5)  # the library beneath is reading by now
    assert read.is_alive()
    assert not lock_of(tokenizer).acquire(blocking=False)
    assert in_child(work)
    read.join()


# ---- threads of torch -------------------------------------------------------

FORKS = """
import multiprocessing, os, signal, sys
import joblib, torch
from sklearn.model_selection import cross_val_score
from transformers import AutoTokenizer, BertModel  # here, not in each child
from _toy import toy
from sk_adalora import AdaLoraRegressor

os.register_at_fork(after_in_child=lambda: signal.alarm(170))
folder, (X, _) = sys.argv[1], toy(64)
loaded = joblib.load(folder + "/joblib")

def predict(_):
    return loaded.predict(X).tolist(), torch.get_num_threads()

def load_and_predict(_):
    AdaLoraRegressor.from_pretrained(folder)
    return predict(_)

def in_child(work):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.map(work, range(1))[0]

found = [in_child(predict)]
if sys.argv[2] == "load":
    AdaLoraRegressor.from_pretrained(folder)
else:
    found.append(predict(0))
found += [in_child(predict), in_child(load_and_predict)]
assert all(answer == found[0][0] for answer, _ in found)
with joblib.parallel_config("multiprocessing"):
    assert len(cross_val_score(loaded, X, loaded.predict(X), cv=2, n_jobs=2)) == 2
print(*[threads for _, threads in found])
"""


@pytest.mark.parametrize(
    ("does", "threads"), [("load", "2 1 1"), ("predict", "2 2 1 1")]
)
def test_a_child_of_a_process_that_has_computed_has_one_thread(
    tiny_model, tmp_path, does, threads
):
    """With more, torch would wait for threads that were not forked."""
    X, _ = toy(32)
    y = np.random.default_rng(0).normal(size=(32, 1_200))  # many numbers in the head
    fitted = make_regressor(tiny_model, epochs=1).fit(X, y)
    fitted.save_pretrained(tmp_path)
    joblib.dump(fitted, tmp_path / "joblib")
    done = run_python(FORKS, tmp_path, does, timeout=180, OMP_NUM_THREADS="2")
    assert done.stdout.strip() == threads
