"""Studies that outlive their process and their database, and hide its password."""

import glob
import multiprocessing
import os
import pickle
import shutil
import socket
import subprocess
import tempfile
import time
import traceback
from pathlib import Path

import optuna
import pytest
from _search_worker import Peak, rows, search, work
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr
from sqlalchemy.exc import OperationalError

from sk_adalora.search import heartbeats as _heartbeats
from sk_adalora.search import storage as _storage
from sk_adalora.search.storage import open_storage
from sk_adalora.search.study import ERROR, is_over

X, Y = rows()
SETTINGS = ["-U", "tester", "--auth=scram-sha-256", "--no-sync"]


# ---- a server of our own -------------------------------------------------------


class Server:
    """A PostgreSQL that can be stopped and started again."""

    def __init__(self, programs, folder, user):
        self.programs, self.data, self.user = programs, folder / "data", user
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}/postgres"
        self.url = f"postgresql+psycopg://tester:hush-hush@{self.address}"

    def run(self, program, *arguments):
        command = [self.programs / program, "-D", self.data, *arguments]
        options = {"user": self.user, "cwd": self.data.parent, "timeout": 120}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)

    def start(self):
        options = f"-F -k '' -p {self.port}"
        self.run("pg_ctl", "-w", "-l", self.data / "log", "-o", options, "start")

    def stop(self):
        self.run("pg_ctl", "-w", "-m", "fast", "stop")


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("psycopg", reason="needs the extra `scale`")
    programs = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    initdb = shutil.which("initdb") or (programs and programs[-1])
    if not initdb:
        pytest.skip("needs PostgreSQL's programs, as in Debian's package postgresql")
    # Not in pytest's folder, which another user may not enter, as root must be.
    folder = Path(tempfile.mkdtemp(prefix="adalora-pg-"))
    (folder / "password").write_text("hush-hush")
    user = None if os.geteuid() else "postgres"
    if user:
        shutil.chown(folder, user)
        shutil.chown(folder / "password", user)
    server = Server(Path(os.path.realpath(initdb)).parent, folder, user)
    try:
        server.run("initdb", *SETTINGS, f"--pwfile={folder / 'password'}")
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def processes():
    """Where workers come from: forks of one process, which has loaded torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["_search_worker", "sk_adalora.search.search"])
    return context


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def storage(request, tmp_path):
    """Where a study is kept, as a str."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    if request.param == "journal":
        return str(tmp_path / "journal.log")
    return request.getfixturevalue("server").url


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def n_fits(folder):
    log = folder / "fits.log"
    return len(log.read_text().split()) if log.exists() else 0


# ---- kills and restarts --------------------------------------------------------


@pytest.mark.slow
def test_a_killed_trial_is_tried_again_whole(storage, processes, tmp_path, monkeypatch):
    arguments = (storage, "killed", 6, 0.1, str(tmp_path))
    worker = processes.Process(target=work, args=arguments)
    worker.start()
    wait_for(lambda: n_fits(tmp_path) == 8)  # the second of the third trial
    worker.kill()
    worker.join()
    study = optuna.load_study(study_name="killed", storage=open_storage(storage))
    over = study.get_trials(states=(TrialState.COMPLETE,))
    (lost,) = study.get_trials(states=(TrialState.RUNNING,))

    monkeypatch.setattr(_heartbeats, "_SECONDS", 0.1)
    options = {"n_trials": 6, "pruner": "auto", "enqueue": "paper"}
    estimator = Peak(seconds=0.1, log=str(tmp_path / "fits.log"))
    fitted = search(estimator, study_name="killed", storage=storage, **options)
    fitted.fit(X, Y)
    unbroken = search(**options).fit(X, Y).cv_results_

    assert len(over) == 2
    assert fitted.trials_[:2] == over
    assert fitted.trials_[lost.number].state is TrialState.FAIL
    assert fitted.trials_[3].params == lost.params
    assert fitted.cv_results_["trial_number"].tolist() == [0, 1, 3, 4, 5, 6]
    # And what is proposed after it is the same.
    assert fitted.cv_results_["params"] == unbroken["params"]
    for name in ("state", "running_mean", "rank_test_score"):
        assert fitted.cv_results_[name].tolist() == unbroken[name].tolist()


@pytest.mark.slow
def test_restarts_of_the_database_cost_no_trial(server, processes, tmp_path):
    def start():
        arguments = (server.url, "restarted", 16, 0.2, str(tmp_path))
        workers.append(processes.Process(target=work, args=arguments))
        workers[-1].start()

    workers = []
    for _ in range(3):
        start()
    for n in (10, 20):
        wait_for(lambda n=n: n_fits(tmp_path) >= n)
        server.stop()
        start()  # while there is no database
        time.sleep(2)
        server.start()
    for worker in workers:
        worker.join(120)
    trials = optuna.load_study(study_name="restarted", storage=server.url).trials
    over = [trial for trial in trials if is_over(trial)]
    warned = [file.read_text() for file in tmp_path.glob("*.warned")]

    assert [worker.exitcode for worker in workers] == [0] * 5
    assert sum("Trying again for 10 min" in text for text in warned) >= 3
    assert 16 <= len(over) <= 16 + len(workers)
    assert not any(ERROR in trial.user_attrs for trial in trials)
    assert len({trial.params["a"] for trial in over}) == len(over)
    for trial in over:
        if trial.state is TrialState.COMPLETE:
            expected = search(space={**trial.params}, n_trials=1).fit(X, Y).best_score_
            assert trial.value == pytest.approx(expected)


# ---- a database that is away ---------------------------------------------------


class Away(InMemoryStorage):
    """A storage of which some calls fail, one of them after it has done its work."""

    left = 0

    def fail(self):
        self.left -= 1
        if self.left > 0:
            cause = OperationalError("SELECT", {}, Exception("it restarts"))
            raise optuna.exceptions.StorageInternalError from cause

    def get_all_trials(self, *args, **kwargs):
        self.fail()
        return super().get_all_trials(*args, **kwargs)

    def set_trial_state_values(self, *args, **kwargs):
        done = super().set_trial_state_values(*args, **kwargs)
        self.fail()
        return done


def test_a_database_that_is_away_is_waited_for():
    class Breaks(Peak):
        def fit(self, X, y):
            type(self).fits += 1
            if type(self).fits == 3:
                kept["storage"].left = 3
            return super().fit(X, y)

    Breaks.fits = 0
    kept = {"storage": Away(), "study_name": "s"}
    message = r"Got 'it restarts'\. Trying again for 10 min"
    with pytest.warns(UserWarning, match=message) as warned:
        fitted = search(Breaks(), n_trials=3, refit=False, **kept).fit(X, Y)

    # The answer to the end of a trial was lost, and then a question.
    assert len(warned) == 2
    assert fitted.cv_results_["state"].tolist() == ["complete"] * 3
    assert len(fitted.trials_) == 3


def test_a_database_that_stays_away_is_an_error(monkeypatch):
    pytest.importorskip("psycopg", reason="needs the extra `scale`")
    monkeypatch.setattr(_storage, "_AWAY_AT_FIRST", 0.3)
    url = "postgresql+psycopg://me:hush-hush@127.0.0.1:1/studies"
    match = r"must be reachable.*refused[\s\S]* the password in `storage`"
    with (
        pytest.warns(UserWarning, match="should be reachable"),
        pytest.raises(ConnectionError, match=match) as caught,
    ):
        search(storage=url).fit(X, Y)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


# ---- passwords -----------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hush-hush@host/db",
        "postgresql://me:hush/hush@host/db",
        "postgresql://me:h@sh'hush hush@host/db",
        "postgresql://me@server:hush@host/db",  # SQLAlchemy takes both as the name
        "postgresql:/me:hush@host/db",
        "postgresql://host/db?user=me&PASSWORD=hush",
        "mysql://host/db?user=me&passwd=hush",
        "postgresql://host/db?sslpassword=hush&user=me",
        "mssql+pyodbc:///?odbc_connect=SERVER%3Dhost%3BUID%3Dme%3BPWD%3Dhush",
        "https://host/db?token=hush",
    ],
)
def test_nobody_shows_a_password(url):
    given = search(storage="elsewhere").set_params(storage=url)
    wrappers = [
        given,
        clone(given),
        make_pipeline(given),
        GridSearchCV(given, {"n_trials": [1]}),
        VotingClassifier([("search", given)]),
    ]
    for wrapper in wrappers:
        for text in (
            repr(wrapper),
            wrapper.__repr__(N_CHAR_MAX=10_000),
            estimator_html_repr(wrapper),
            str(wrapper.get_params()),
            pickle.dumps(wrapper).decode("latin1"),
        ):
            assert "hush" not in text
    assert "host" in repr(given)
    assert given.storage[:] == clone(given).storage[:] == url

    with pytest.raises((ImportError, ValueError)) as caught:
        given.set_params(storage=url.replace("host/db", "host:port/db")).fit(X, Y)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.slow
def test_a_fitted_search_is_pickled_without_its_database(server):
    options = {"storage": server.url, "study_name": "pickled", "n_trials": 2}
    fitted = search(**options).fit(X, Y)
    outer = GridSearchCV(search(**options), {"n_trials": [2]}, refit=False, cv=2)
    outer.best_estimator_ = fitted

    for pickled in (pickle.dumps(fitted), pickle.dumps(outer)):
        assert b"hush-hush" not in pickled
    assert b"127.0.0.1" not in pickle.dumps(fitted)
    loaded = pickle.loads(pickle.dumps(fitted))
    assert loaded.study_.best_value == fitted.study_.best_value


# ---- what a storage may be -----------------------------------------------------


@pytest.mark.parametrize("url", ["foo://x", "postgresql://host:port/db", "sqlite://x"])
def test_a_url_of_no_database_is_refused(url):
    with pytest.raises(ValueError, match=f"Got '{url}', which SQLAlchemy does not"):
        open_storage(url)


def test_a_database_without_a_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(ImportError, match=r"'postgresql.*sk-adalora\[scale\]"):
        open_storage("postgresql+psycopg://me:hush-hush@host/db")


def test_a_database_in_no_folder_is_an_error_at_once(tmp_path):
    with pytest.raises(ConnectionError, match="unable to open database file"):
        open_storage(f"sqlite:///{tmp_path}/new/study.db")


@pytest.mark.parametrize("kind", [str, Path])
def test_a_journal_in_the_home_directory(tmp_path, monkeypatch, kind):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    optuna.create_study(storage=open_storage(kind("~/journal.log")))

    assert [p.name for p in tmp_path.iterdir()] == ["journal.log"]


def test_another_file_is_no_journal(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"SQLite format 3\0 and more")

    with pytest.raises(ValueError, match=r"another file\. Pass .* 'sqlite:///PATH'"):
        open_storage(path)
    assert path.read_bytes() == b"SQLite format 3\0 and more"


def test_a_storage_that_breaks_during_the_refit_costs_nothing(tmp_path):
    class Breaks(Peak):
        def fit(self, X, y):
            if len(X) == len(Y):  # the refit
                path.write_bytes(b"x" * 8192)
            return super().fit(X, y)

    path = tmp_path / "study.db"
    given = search(Breaks(), storage=f"sqlite:///{path}", n_trials=2).fit(X, Y)

    assert given.best_estimator_.a == given.best_params_["a"]
    assert len(given.trials_) == 2
