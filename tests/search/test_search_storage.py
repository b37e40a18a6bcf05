"""Studies that outlive their process: kill, resume, two workers, three storages."""

import glob
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from _search_worker import SPACE, Peak, rows
from optuna.trial import TrialState

from sk_adalora import AdaLoraSearchCV
from sk_adalora.search import storage as _search_storage
from sk_adalora.search import workers as _search_workers
from sk_adalora.search.folds import FoldResult
from sk_adalora.search.storage import open_storage
from sk_adalora.search.study import DEATHS, ERROR, FOLD, is_over

WORKER = Path(__file__).parents[1] / "_search_worker.py"
X, Y = rows()
SECONDS = 0.25  # of each fit in a worker
SETTINGS = ["-U", "tester", "--auth=scram-sha-256", "--no-sync"]


def programs_of_postgresql():
    """Folder of PostgreSQL's programs, or None."""
    on_path = shutil.which("initdb")
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    first = on_path or (found[-1] if found else None)
    return first and Path(first).parent


def unprivileged():
    """Name of a user that may run the server, which root may not."""
    if os.geteuid():
        return None
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


@pytest.fixture(scope="module")
def server_folder():
    """Folder that another user may enter: pytest's is root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="adalora-pg-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server(server_folder):
    """A server of our own."""
    pytest.importorskip("psycopg", reason="needs the extra `scale`")
    programs = programs_of_postgresql()
    if programs is None:
        pytest.skip("needs PostgreSQL's programs, as in Debian's package postgresql")
    user = unprivileged()
    password = server_folder / "password"
    password.write_text("hush-hush")
    if user:
        shutil.chown(password, user)
        shutil.chown(server_folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = server_folder / "data"
    options = {"user": user, "cwd": server_folder, "stdout": subprocess.DEVNULL}
    subprocess.run(
        [programs / "initdb", *SETTINGS, "-D", data, f"--pwfile={password}"],
        check=True,
        timeout=120,
        **options,
    )
    command = [programs / "postgres", "-F", "-D", data, "-k", "", "-p", str(port)]
    server = Server(command, port, {"stderr": subprocess.DEVNULL, **options})
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Server:
    """A PostgreSQL that can be stopped and started again."""

    def __init__(self, command, port, options):
        self.command, self.port, self.options = command, port, options
        self.url = f"postgresql://tester:hush-hush@127.0.0.1:{port}/postgres"

    def start(self):
        self.process = subprocess.Popen(self.command, **self.options)
        wait_for(lambda: answers(self.port) or self.process.poll() is not None, 60)
        assert self.process.poll() is None, "PostgreSQL has ended"

    def stop(self):
        self.process.send_signal(signal.SIGINT)  # as `pg_ctl stop -m fast`
        self.process.wait(30)


@pytest.fixture
def postgresql(server):
    """URL of its database."""
    return server.url


def answers(port):
    import psycopg

    try:
        url = f"postgresql://tester:hush-hush@127.0.0.1:{port}/postgres"
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def storage(request, tmp_path):
    """Where a study is kept, as a str."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    if request.param == "journal":
        return str(tmp_path / "journal.log")
    return request.getfixturevalue("postgresql")


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def start_worker(storage, name, n_trials, *options):
    command = [sys.executable, WORKER, storage, name, str(n_trials)]
    return subprocess.Popen(
        [*command, "--seconds", str(SECONDS), *map(str, options)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(worker):
    _, errors = worker.communicate(timeout=120)
    assert worker.returncode == 0, errors


def load(storage, name):
    return optuna.load_study(study_name=name, storage=open_storage(storage))


def search(storage, name, n_trials, log=None, **options):
    estimator = Peak(seconds=SECONDS, log=log and str(log))
    return AdaLoraSearchCV(
        estimator,
        SPACE,
        n_trials=n_trials,
        storage=storage,
        study_name=name,
        cv=3,
        random_state=0,
        **options,
    )


def in_state(study, state):
    return {t.number: t for t in study.get_trials(states=(state,))}


@pytest.mark.slow
def test_a_killed_study_goes_on_where_it_was(storage, tmp_path, monkeypatch):
    log = tmp_path / "fits.log"
    worker = start_worker(storage, "killed", 6, "--log", log)
    # Two trials are over and the third has begun to fit.
    wait_for(lambda: log.exists() and len(set(log.read_text().split())) >= 3)
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    study = load(storage, "killed")
    over = in_state(study, TrialState.COMPLETE)
    running = in_state(study, TrialState.RUNNING)

    monkeypatch.setattr(_search_workers, "GRACE", 1.0)  # not to wait for so long
    monkeypatch.setattr(_search_workers, "_BEAT", 0.1)
    fitted = search(storage, "killed", 6, log).fit(X, Y)

    now = {t.number: t for t in fitted.trials_}
    (lost,) = running.values()
    again = [t for t in fitted.trials_ if t.params == lost.params]
    assert len(over) >= 2
    assert len(running) == 1
    for number, trial in over.items():
        assert now[number] == trial
    (stale,) = running
    assert now[stale].state is TrialState.FAIL
    assert [t.state is TrialState.FAIL for t in again] == [True, False]
    assert not in_state(study, TrialState.RUNNING)
    numbers = [number for number in range(7) if number != stale]
    assert fitted.cv_results_["trial_number"].tolist() == numbers
    assert set(fitted.cv_results_["state"]) <= {"complete", "pruned"}
    assert fitted.best_score_ == study.best_value


def test_sqlite_locks_a_study_before_it_reads_it(tmp_path):
    """Otherwise two workers may read that a trial waits, and both take it."""
    path = tmp_path / "study.db"
    storage = open_storage(f"sqlite:///{path}")
    other = sqlite3.connect(path, timeout=0)

    with storage._backend.engine.begin() as reads:
        reads.exec_driver_sql("SELECT * FROM studies")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()
    storage._backend.engine.dispose()


@pytest.mark.slow
def test_two_workers_share_a_study(postgresql, tmp_path):
    meet = tmp_path / "meet"
    meet.mkdir()
    workers = [start_worker(postgresql, "shared", 9, "--meet", meet) for _ in range(2)]
    for worker in workers:
        finish(worker)
    study = load(postgresql, "shared")
    trials = [t for t in study.trials if is_over(t)]

    assert len(trials) == 9
    assert all(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in trials)
    # Both may ask for the last one: then one of them withdraws, before it fits.
    withdrawn = [t for t in study.trials if t not in trials]
    assert len(withdrawn) <= 1
    assert all(t.state is TrialState.FAIL and not t.params for t in withdrawn)
    runs = [t.user_attrs[_search_workers.RUN] for t in trials]
    assert len(set(runs)) == 2
    assert len({t.params["a"] for t in trials}) == 9

    estimator = Peak(seconds=SECONDS)
    fitted = AdaLoraSearchCV.from_study(
        "shared", estimator, X, Y, space=SPACE, storage=postgresql, cv=3
    )
    assert fitted.best_estimator_.a == study.best_params["a"]
    assert fitted.best_score_ == study.best_value
    assert len(fitted.cv_results_["params"]) == 9


@pytest.mark.slow
def test_a_pickle_of_a_search_in_a_database_has_no_password(postgresql):
    import pickle

    fitted = search(postgresql, "pickled", 2).fit(X, Y)
    pickled = pickle.dumps(fitted)

    assert b"hush-hush" in pickle.dumps(search(postgresql, "unfitted", 1))
    assert b"hush-hush" not in pickled
    assert b"127.0.0.1" not in pickled
    assert socket.gethostname().encode() not in pickled
    assert pickle.loads(pickled).study_.best_value == fitted.study_.best_value


def sign(study, beat):
    """A trial that a process on another machine evaluates."""
    record = {"machine": "elsewhere", "pid": 1, "beat": beat, "ended": False}
    study.set_user_attr(f"{_search_workers.WORKER}theirs", record)


def test_a_trial_of_a_living_worker_is_left_to_it(tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    search(storage, "s", 1).set_params(estimator__seconds=0).fit(X, Y)
    study = load(storage, "s")
    theirs = study.ask(SPACE)
    theirs.set_user_attr(_search_workers.RUN, "theirs")
    sign(study, time.time())

    quick = search(storage, "s", 3, timeout=1).set_params(estimator__seconds=0)
    alive = quick.fit(X, Y)

    assert alive.trials_[theirs.number].state is TrialState.RUNNING
    assert alive.cv_results_["trial_number"].tolist() == [0, 2]

    sign(study, time.time() - 2 * _search_workers.GRACE)
    dead = quick.fit(X, Y)

    assert dead.trials_[theirs.number].state is TrialState.FAIL
    assert dead.cv_results_["trial_number"].tolist() == [0, 3, 2]
    assert dead.trials_[3].params == theirs.params


def test_a_search_waits_for_the_trials_of_others(tmp_path):
    """And so sees all that its study has, when it refits."""
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    search(storage, "s", 1).set_params(estimator__seconds=0).fit(X, Y)
    study = load(storage, "s")
    theirs = study.ask(SPACE)
    theirs.set_user_attr(_search_workers.RUN, "theirs")
    sign(study, time.time())

    def finish_theirs(study_, trial):
        result = FoldResult(2.0, None, fit_time=1.0, score_time=1.0)
        for k in range(3):
            theirs.set_user_attr(f"{FOLD}{k}", result.as_attribute())
        study.tell(theirs, 2.0)

    quick = search(storage, "s", 3, callbacks=[finish_theirs])
    fitted = quick.set_params(estimator__seconds=0).fit(X, Y)

    assert fitted.cv_results_["trial_number"].tolist() == [0, 1, 2]
    assert fitted.best_score_ == 2.0


def test_a_database_without_a_driver_names_the_extra(monkeypatch):
    def no_driver(url, engine_kwargs=None):
        raise ImportError("Failed to import DB access module")

    monkeypatch.setattr("sk_adalora.search.storage.RDBStorage", no_driver)
    with pytest.raises(ImportError, match=r"'postgresql'.*sk-adalora\[scale\]"):
        open_storage("postgresql://me:hush-hush@host/db")


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("foo://x", "foo"),
        ("postgres://me:hush-hush@host/db", "postgres"),
        ("postgresql://host:port/db", "postgresql"),
        ("sqlite://study.db", "sqlite"),
        ("://x", ""),
    ],
)
def test_a_url_of_no_database_is_refused(url, scheme):
    with pytest.raises(ValueError, match=f"Got a URL of '{scheme}' that SQL") as caught:
        open_storage(url)
    text = "".join(traceback.format_exception(caught.value))
    assert "or a path without '://'" in text
    assert "hush" not in text
    assert "ArgumentError" not in text
    assert "invalid literal" not in text


@pytest.mark.parametrize("who", ["the next", "one beside it"])
def test_half_a_line_of_a_journal_is_cut_off(tmp_path, who):
    """As a crash or a full disk leaves it."""
    path = tmp_path / "journal.log"
    study = optuna.create_study(storage=open_storage(path), study_name="s")
    study.set_user_attr("a", 1)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 4, "work')

    if who == "the next":
        study = optuna.load_study(study_name="s", storage=open_storage(path))
    assert study.user_attrs == {"a": 1}
    study.set_user_attr("b", 2)
    again = optuna.load_study(study_name="s", storage=open_storage(path))
    assert again.user_attrs == {"a": 1, "b": 2}
    assert path.read_bytes().startswith(whole)


def test_a_journal_needs_no_links_where_they_need_rights(tmp_path, monkeypatch):
    """As on Windows."""

    def symlink(*_, **__):
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(_search_storage, "_LINKS_ARE_FREE", False)
    monkeypatch.setattr(os, "symlink", symlink)
    path = tmp_path / "journal.log"
    fitted = search(path, "s", 2).set_params(estimator__seconds=0).fit(X, Y)
    again = search(path, "s", 3).set_params(estimator__seconds=0).fit(X, Y)

    assert [t.params for t in again.trials_[:2]] == [t.params for t in fitted.trials_]
    assert [file.name for file in tmp_path.iterdir()] == ["journal.log"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"name": "config"}', "which is another file"),
        (b"some notes\nwithout an end", "which is another file"),
        (b"SQLite format 3\0 and more", r"is a database of SQLite\. Pass 'sqlite:///"),
    ],
)
def test_another_file_is_no_journal(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=f"must be the path of a journal .*{message}"):
        open_storage(str(path))
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("prefix", ["", "sqlite:///", "sqlite+pysqlite:///"])
def test_a_storage_in_no_folder_says_so(tmp_path, monkeypatch, prefix):
    monkeypatch.chdir(tmp_path)

    match = "Got '.*study', which is in '.*new', which does not exist. Make that folder"
    for path in ("new/study", tmp_path / "new" / "study"):
        with pytest.raises(FileNotFoundError, match=match):
            open_storage(f"{prefix}{path}")
    with pytest.raises(FileNotFoundError, match="which is a folder"):
        open_storage(f"{prefix}{tmp_path}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("driver", ["", "+pysqlite"])
def test_a_database_in_a_folder_with_a_space(tmp_path, driver):
    (tmp_path / "my studies").mkdir()
    url = f"sqlite{driver}:///{tmp_path}/my%20studies/study.db"
    if sqlalchemy.engine.make_url(url).database.endswith("%20studies/study.db"):
        pytest.skip("SQLAlchemy before 2.1 does not decode it")
    optuna.create_study(storage=open_storage(url))

    assert (tmp_path / "my studies" / "study.db").exists()


@pytest.mark.parametrize("path", ["", "/", "/:memory:"])
def test_a_database_in_memory_is_in_no_folder(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    study = optuna.create_study(storage=open_storage(f"sqlite://{path}"))

    assert len(study.trials) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [str, Path])
def test_a_journal_in_the_home_directory(tmp_path, monkeypatch, kind):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    optuna.create_study(storage=open_storage(kind("~/journal.log")))

    assert [p.name for p in tmp_path.iterdir()] == ["journal.log"]


def test_a_journal_that_was_just_begun_is_one(tmp_path):
    for content in (b"", b'{"op_', b'{"op_code": 0'):
        path = tmp_path / f"{len(content)}.log"
        path.write_bytes(content)
        study = optuna.create_study(storage=open_storage(path), study_name="s")
        study.set_user_attr("a", 1)
        again = optuna.load_study(study_name="s", storage=open_storage(path))

        assert again.user_attrs == {"a": 1}


def test_a_storage_that_breaks_during_the_refit_costs_nothing(tmp_path):
    class Breaks(Peak):
        def fit(self, X, y):
            if len(X) == len(Y):  # the refit
                path.write_bytes(b"x" * 8192)
            return super().fit(X, y)

    path = tmp_path / "study.db"
    options = {"storage": f"sqlite:///{path}", "study_name": "s", "cv": 3}
    given = AdaLoraSearchCV(Breaks(), SPACE, n_trials=2, enqueue=None, **options)
    with pytest.warns(UserWarning, match="told that this search is over. Got .*Error"):
        given.fit(X, Y)

    assert given.best_estimator_.a == given.best_params_["a"]
    assert len(given.trials_) == 2


@pytest.mark.slow
def test_a_restart_of_the_database_costs_no_trial(server, tmp_path):
    name = "restarted"
    log = tmp_path / "fits.log"
    workers = [start_worker(server.url, name, 12, "--log", log) for _ in range(2)]
    wait_for(lambda: log.exists() and len(log.read_text().split()) >= 8)
    server.stop()
    time.sleep(3)
    server.start()
    said = [worker.communicate(timeout=120)[1] for worker in workers]
    trials = load(server.url, name).trials

    assert [worker.returncode for worker in workers] == [0, 0], said
    assert all(text.count("retrying for 10 minutes") == 1 for text in said)
    assert sum(map(is_over, trials)) == 12
    # At most withdrawn, or asked for when the answer was lost.
    assert all(is_over(t) or not t.params for t in trials)
    assert not any(DEATHS in t.user_attrs or ERROR in t.user_attrs for t in trials)


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """URL of a database, and a function that keeps all others out of it for a while."""
    monkeypatch.setattr(_search_storage, "_PATIENCE", 0.05)
    path = tmp_path / "study.db"

    def lock(seconds):
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(seconds, other.close)
        timer.start()
        return timer

    return f"sqlite:///{path}", lock


def test_a_database_that_is_away_is_waited_for(locked):
    storage, lock = locked
    timers = []

    def away(study, trial):
        if not timers:
            timers.append(lock(1.0))

    given = search(storage, "s", 3, callbacks=[away], refit=False)
    message = "Got no answer since .*, retrying for 10 minutes: database is locked"
    with pytest.warns(UserWarning, match=message) as warned:
        fitted = given.set_params(estimator__seconds=0).fit(X, Y)
    timers[0].join()

    assert len(warned) == 1
    assert fitted.cv_results_["state"].tolist() == ["complete"] * 3
    assert len(fitted.trials_) == 3


def test_a_database_that_stays_away_ends_the_search(locked, monkeypatch):
    storage, lock = locked
    monkeypatch.setattr(_search_storage, "_AWAY", 0.5)
    timers = []
    given = search(storage, "s", 2, callbacks=[lambda *_: timers.append(lock(4.0))])
    given.set_params(estimator__seconds=0, refit=False)
    with (
        pytest.warns(UserWarning, match="retrying"),
        pytest.raises(
            ConnectionError,
            match=r"must be reachable\. .* Start it, and call `fit` again",
        ),
    ):
        given.fit(X, Y)
    timers[0].join()

    assert len(given.set_params(callbacks=None).fit(X, Y).cv_results_["params"]) == 2
