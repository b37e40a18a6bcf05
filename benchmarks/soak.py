"""How many of a thousand kills, full disks and restarts lose or change a result."""

import contextlib
import glob
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import joblib
import numpy as np
import optuna
import torch
import transformers
from sklearn.base import BaseEstimator, ClassifierMixin

from sk_adalora import AdaLoraClassifier, AdaLoraSearchCV
from sk_adalora.search import heartbeats

from .inside import changed
from .results import say, table

_TRIALS, _FOLDS = 12, 2  # of a search
_RESTARTS = 10  # after which something that does not end is lost
_WORDS = ["good", "great", "best", "win", "bad", "poor", "worst", "loss"]


def add_options(add):
    """Declare the options of the command."""
    add("--faults", type=int, default=1000, help="how many to try")
    add("--minutes", type=float, default=45, help="the most it may take")
    add("--seed", type=int, default=0, help="of their kinds and moments")


def quicken(options):
    """Set the options to a smoke test."""
    options.faults, options.minutes = 4, 1


def run(options):
    """Try faults, in children of this process, which has all imports."""
    torch.set_num_threads(1)
    # A worker that was killed is noticed after seconds, not after a minute.
    heartbeats._SECONDS = 0.5
    chance = random.Random(options.seed)
    outcomes = {name: Counter() for name in FAULTS}
    end = time.monotonic() + 60 * options.minutes
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(scratch, stack, chance)
        for _ in range(options.faults):
            if time.monotonic() > end:
                break
            name = chance.choices([*FAULTS], [often for _, often in FAULTS.values()])[0]
            fault, _ = FAULTS[name]
            place = scratch / "place"
            place.mkdir()
            outcome = fault(bench, place)
            if outcome is None:  # such as a database that is not installed
                outcome = "not tried"
            elif outcome != "survived":
                say(f"{name}: {outcome}")
            outcomes[name][outcome] += 1
            shutil.rmtree(place)
    rows = [{"fault": name, **of_one} for name, of_one in outcomes.items()]
    return {"faults": options.faults, "seed": options.seed}, rows


def to_markdown(about, rows):
    """Return the table."""
    names = ("survived", "lost", "wrong")
    tried = [sum(row.get(name, 0) for name in names) for row in rows]
    lines = [
        [row["fault"], count, *(row.get(name, 0) for name in names)]
        for row, count in zip(rows, tried, strict=True)
    ]
    totals = [sum(line[i] for line in lines) for i in range(1, 5)]
    lines.append(["**all**", *totals])
    return table(["fault", "tried", *names], lines)


# ---- what is attacked --------------------------------------------------------


class Bench:
    """A tiny model, the ends of fits that nothing happens to, and a database."""

    def __init__(self, scratch, stack, chance):
        self.chance, self.stack, self.scratch = chance, stack, scratch
        self.model = _write_model(scratch / "model")
        rng = np.random.default_rng(0)
        self.y = np.arange(40) % 2
        self.X = [
            " ".join(rng.choice(_WORDS[4 * label : 4 * label + 4], 5))
            for label in self.y
        ]
        self.make().fit(self.X, self.y)  # children need not import any more
        start = time.perf_counter()
        self.fit(scratch)
        self.seconds = time.perf_counter() - start
        self.end = joblib.hash(joblib.load(scratch / "end"))
        self.fitted = self.make().fit(self.X, self.y)
        self.other = self.make(random_state=1).fit(self.X, self.y)
        self.database = None

    def make(self, **changed):
        """Return a classifier of dropout and early stopping."""
        settings = {"epochs": 4, "batch_size": 8}
        settings |= {"lora_dropout": 0.1, "early_stopping": True, "random_state": 0}
        settings |= {"target_r": 2, "class_weight": "balanced", "device": "cpu"}
        return AdaLoraClassifier(self.model, **{**settings, **changed})

    def fit(self, place, checkpoints="checkpoints"):
        """Fit with checkpoints, and write what was learned."""
        folder = place / checkpoints
        with changed({"seconds": 0, "times_writing": 0}):  # at each step
            fitted = self.make(checkpoint_dir=folder).fit(self.X, self.y)
        history = {**vars(fitted.history_), "seconds": None}
        learned = (fitted.ranks_, history, fitted._adapter.arrays)
        joblib.dump(learned, place / "new")
        (place / "new").rename(place / "end")  # whole, or not there

    def moment(self):
        """Wait until a random moment of a fit."""
        time.sleep(self.chance.uniform(0, self.seconds))

    def check_end(self, place, checkpoints="checkpoints"):
        """Fit again until it ends, and compare what was learned."""
        for _ in range(_RESTARTS):
            if (place / "end").exists():
                same = joblib.hash(joblib.load(place / "end")) == self.end
                return "survived" if same else "wrong"
            if _start(lambda: self.fit(place, checkpoints)).wait():
                return "lost"
        return "lost"


def _write_model(folder):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS]
    config = transformers.BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return folder


class _Child:
    """A forked process."""

    def __init__(self, pid):
        self.pid, self.status = pid, None

    def send(self, number):
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self):
        """Return how it ended, as `wait` does, or None."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def wait(self):
        """Return its exit status once it has ended, negative after a signal."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status


def _start(function):
    """Call a function in a child."""
    pid = os.fork()
    if pid:
        return _Child(pid)
    status = 1
    try:
        warnings.simplefilter("ignore")
        sys.stderr = open(os.devnull, "w")
        function()
        status = 0
    finally:
        os._exit(status)


# ---- faults of fits and files ------------------------------------------------


def _end_fit(number):
    def fault(bench, place):
        child = _start(lambda: bench.fit(place))
        bench.moment()
        child.send(number)
        child.wait()
        return bench.check_end(place)

    return fault


def _little_memory(bench, place):
    def fit():
        used = int(Path("/proc/self/statm").read_text().split()[0])
        limit = used * resource.getpagesize() + bench.chance.randint(1, 40) * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        bench.fit(place)

    _start(fit).wait()
    return bench.check_end(place)


def _full_disk(bench, place):
    disk = place / "disk"
    disk.mkdir()
    size = bench.chance.randint(50, 1500)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        return None
    try:
        child = _start(lambda: bench.fit(place, "disk/checkpoints"))
        bench.moment()
        if bench.chance.random() < 0.5:
            child.send(signal.SIGKILL)
        if child.wait() > 0:
            return "lost"  # a full disk must not end a fit
        return bench.check_end(place, "disk/checkpoints")
    finally:
        subprocess.run(["umount", disk], check=True)


def _kill_save(bench, place):
    folder = place / "saved"
    bench.fitted.save_pretrained(folder)
    child = _start(lambda: bench.other.save_pretrained(folder, overwrite=True))
    time.sleep(bench.chance.uniform(0, 0.03))
    child.send(signal.SIGKILL)
    child.wait()
    try:
        found = AdaLoraClassifier.from_pretrained(folder).predict_proba(bench.X)
        bench.other.save_pretrained(folder, overwrite=True)  # nothing is in the way
    except (OSError, ValueError):
        return "lost"
    ends = [est.predict_proba(bench.X) for est in (bench.fitted, bench.other)]
    return "survived" if any(np.array_equal(found, end) for end in ends) else "wrong"


# ---- faults of searches ------------------------------------------------------


class Hill(ClassifierMixin, BaseEstimator):
    """A classifier whose score says which parameters and rows it got."""

    began = None  # the file that a worker makes when its first fit begins

    def __init__(self, a=0.5, seconds=0.05):
        self.a, self.seconds = a, seconds

    def fit(self, X, y):
        """Wait."""
        if Hill.began is not None:
            Hill.began.touch()
        time.sleep(self.seconds)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        """Return the first class."""
        return np.full(len(X), self.classes_[0])

    def score(self, X, y):
        """Return what a parameter is worth on these rows."""
        return 1 - (self.a - 0.3) ** 2 - float(np.mean(X)) / 1000


def _search(storage, began=None):
    Hill.began = began
    optuna.logging.disable_default_handler()
    space = {"a": optuna.distributions.FloatDistribution(0.0, 1.0)}
    settings = {"cv": _FOLDS, "enqueue": None, "pruner": None, "refit": False}
    AdaLoraSearchCV(
        Hill(),
        space,
        n_trials=_TRIALS,
        storage=storage,
        study_name="study",
        random_state=0,
        **settings,
    ).fit(np.arange(40.0).reshape(-1, 1), np.arange(40) % 2)


def _check_study(storage):
    """Resume until all trials are there; compare each score with what it must be."""
    for _ in range(_RESTARTS):
        if _start(lambda: _search(storage)).wait() == 0:
            break
    else:
        return "lost"
    trials = optuna.load_study(study_name="study", storage=storage).trials
    done = [t for t in trials if t.state == optuna.trial.TrialState.COMPLETE]
    if len(done) < _TRIALS:
        return "lost"
    level = np.mean(np.arange(40.0)) / 1000
    right = [1 - (t.params["a"] - 0.3) ** 2 - level for t in done]
    same = np.allclose([t.value for t in done], right, rtol=0, atol=1e-12)
    return "survived" if same else "wrong"


def _end_search(number):
    def fault(bench, place):
        storage = f"sqlite:///{place / 'study.db'}"
        both = [_start(lambda: _search(storage)) for _ in range(2)]
        time.sleep(bench.chance.uniform(0, 2))
        both[0].send(number)
        for worker in both:
            worker.wait()
        return _check_study(storage)

    return fault


def _restart_database(bench, place):
    if bench.database is None:
        bench.database = _Database.start(bench.scratch, bench.stack)
    if not bench.database:
        return None
    storage = bench.database.url
    with contextlib.suppress(KeyError):
        optuna.delete_study(study_name="study", storage=storage)
    files = [place / "first", place / "second"]
    both = [_start(lambda file=file: _search(storage, file)) for file in files]
    while not all(file.exists() for file in files) and None in [b.poll() for b in both]:
        time.sleep(0.05)
    time.sleep(bench.chance.uniform(0, 1))
    bench.database.restart(bench.chance.choice(["fast", "immediate"]))
    ended = [worker.wait() for worker in both]
    return "lost" if any(ended) else _check_study(storage)


class _Database:
    """A PostgreSQL of our own, on a socket in a temporary folder."""

    def __init__(self, programs, folder):
        self.programs, self.folder = programs, folder
        self.url = f"postgresql+psycopg://tester@/postgres?host={folder}"

    @classmethod
    def start(cls, scratch, stack):
        """Return a running server; False where there are no programs for it."""
        found = [*sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))]
        first = shutil.which("initdb") or (found[-1] if found else None)
        if first is None:
            return False
        folder = Path(tempfile.mkdtemp(prefix="soak-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        own = cls(Path(first).parent, folder)
        own.call("initdb", "-U", "tester", "--auth=trust", "--no-sync", "-D", "data")
        own.control("start")
        stack.callback(own.control, "stop", "-m", "immediate")
        return own

    def restart(self, mode):
        """Shut down, disconnecting all, and start again."""
        self.control("restart", "-m", mode)

    def control(self, *what):
        """Call the program that controls a server."""
        options = f"-F -k {self.folder} -c listen_addresses=''"
        self.call("pg_ctl", "-w", "-D", "data", "-l", "log", "-o", options, *what)

    def call(self, program, *arguments):
        """Call a program of PostgreSQL's, which refuses to run as root."""
        subprocess.run(
            [self.programs / program, *arguments],
            user=None if os.geteuid() else "postgres",
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )


# Each fault, and how often it is tried compared with others.
FAULTS = {
    "kill -9 of a fit": (_end_fit(signal.SIGKILL), 40),
    "Ctrl-C in a fit": (_end_fit(signal.SIGINT), 10),
    "full disk under checkpoints": (_full_disk, 10),
    "little memory (RLIMIT_AS)": (_little_memory, 10),
    "kill -9 while saving a folder": (_kill_save, 15),
    "kill -9 of one of two search workers": (_end_search(signal.SIGKILL), 8),
    "Ctrl-C in one of two search workers": (_end_search(signal.SIGINT), 3),
    "restart of PostgreSQL under two workers": (_restart_database, 4),
}
