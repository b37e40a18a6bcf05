"""Seconds, parts, operations and memory are what the benchmarks say that they are."""

import shutil
import subprocess
import time
from types import SimpleNamespace

import pytest
import torch
from _benchmarks import ROOT, X, Y, settings
from _process import run_python

from benchmarks import data, machine, memory, stopped_fit, time_profile
from benchmarks.operations import count
from benchmarks.timing import Stopwatch, run_job, seconds_of, take_turns
from benchmarks.training_steps import STEPS, make_step
from sk_adalora.runtime import devices as _devices
from sk_adalora.runtime.devices import resolve_compute

CPU = torch.device("cpu")


def test_contestants_take_turns():
    seen = []

    def called(name):
        return lambda turn: seen.append((turn, name)) or turn

    taken = take_turns({"a": called("a"), "b": called("b")}, rounds=2, warm_ups=1)

    assert seen == [(-1, "b"), (-1, "a"), (0, "a"), (0, "b"), (1, "b"), (1, "a")]
    assert taken == {"a": [0, 1], "b": [0, 1]}


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_seconds_end_when_a_card_is_done(kind, monkeypatch):
    done = []
    module = getattr(torch, kind)
    monkeypatch.setattr(module, "synchronize", lambda *device: done.append("wait"))
    task = seconds_of(lambda: done.append("task"), torch.device(kind))

    assert task(0) >= 0
    assert done == ["wait", "task", "wait"]


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_results_name_the_commit_that_they_are_of(tmp_path, monkeypatch):
    def git(*command):
        who = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "core.hooksPath="]
        command = ["git", *who, "-c", "commit.gpgSign=false", *command]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
        return done.stdout.decode().strip()

    monkeypatch.delenv("GIT_DIR", raising=False)  # as in a hook
    file = tmp_path / "benchmarks" / "machine.py"
    file.parent.mkdir()
    monkeypatch.setattr(machine, "__file__", str(file))
    file.write_text("1")
    for command in ("init", "add .", "commit -m one", "tag v1"):
        git(*command.split())
    commit = machine.describe_commit()
    assert len(commit) >= 7
    assert git("rev-parse", "HEAD").startswith(commit)

    monkeypatch.setenv("GIT_DIR", "elsewhere")
    assert machine.describe_commit() == commit
    file.write_text("2")
    assert machine.describe_commit() == f"{commit}-dirty"

    inside = tmp_path / "other" / "benchmarks" / "machine.py"  # an unpacked archive
    monkeypatch.setattr(machine, "__file__", str(inside))
    assert machine.describe_commit() == ""


class Parts:
    def outer(self):
        time.sleep(0.02)
        self.inner()

    def inner(self):
        time.sleep(0.1)


def test_a_stopwatch_counts_time_once():
    watch = Stopwatch(CPU)
    outer = Parts.outer
    with watch.watching([(Parts, "outer", "out"), (Parts, "inner", "in")]):
        Parts().outer()

    assert Parts.outer is outer
    assert 0.02 <= watch.seconds["out"] < 0.1 <= watch.seconds["in"]


def test_a_stopwatch_knows_when_a_function_is_gone():
    with (
        pytest.raises(AttributeError),
        Stopwatch(CPU).watching([(Parts, "renamed", "x")]),
    ):
        pass


def test_the_profile_sees_every_part(tiny_model):
    measured = time_profile.measure(X, Y, X, settings(tiny_model, epochs=3))

    for phase, functions in (
        ("fit", time_profile.FIT),
        ("predict", time_profile.PREDICT),
    ):
        names = {name for _, _, name in functions} | {time_profile.REST}
        assert set(measured[phase]) == names
        assert all(seconds > 0 for seconds in measured[phase].values())


def test_the_profile_of_a_rare_class(monkeypatch):
    """The fit before the one that counts has rows of it, too."""
    labels = ["rare" if i % 60 == 0 else "common" for i in range(600)]
    task = data.Task("made up", [f"good {i}" for i in range(600)], labels)
    options = {**vars(settings("")), "n_train": 450, "n_test": 150}
    fitted = []

    def fit(name, texts, labels, settings):
        fitted.append(set(labels))
        return SimpleNamespace(predict=len)

    monkeypatch.setattr(time_profile, "fit", fit)
    monkeypatch.setattr(time_profile, "measure", lambda *_: {"fit": {}})
    time_profile.run(SimpleNamespace(**options, load=lambda: task, say=print))

    assert fitted[0] == {"rare", "common"}


def test_reads_of_the_optimizer_are_no_waits():
    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], fused=True)

    def step():
        (weight.sum() * 2).backward()
        optimizer.step()
        weight.sum().item()

    assert count(step, torch.device("cpu"))["waits"] == 1


def operations(name, tiny_model):
    step = make_step(name, 4, 8, resolve_compute("cpu", "float32"), tiny_model)
    step()
    return count(step, CPU)


def test_operations_of_a_step(tiny_model):
    pytest.importorskip("peft")
    counted = {name: operations(name, tiny_model)["operations"] for name in STEPS}

    assert 0 < counted["floor"] < counted["ours"] < counted["peft-adalora"]
    assert counted["peft-lora"] < counted["peft-adalora"]
    assert counted["ours"] <= 1.1 * counted["peft-lora"]


def test_operations_are_counted_by_nesting():
    with torch.no_grad():
        counted = count(lambda: torch.ones(3).sum().item(), CPU)

    assert counted["waits"] == 1
    assert counted["outermost"] == 3  # ones, sum, item
    assert counted["operations"] > 3


def test_the_floor_goes_down_to_the_lowest_layer(tiny_model):
    step = make_step("floor", 4, 8, resolve_compute("cpu", "float32"), tiny_model)
    reached = []
    lowest = step.encoder.encoder.layer[0].attention.self.query
    lowest.register_forward_hook(
        lambda module, inputs, output: output.register_hook(reached.append) and None
    )

    step()

    assert len(reached) == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_is_set_up_for_where_it_is_taken(precision, tiny_model, monkeypatch):
    """On a machine with a card, too, where "auto" would be that."""
    monkeypatch.setattr(_devices, "available_devices", lambda: ["cuda:0", "cpu"])
    given = []
    monkeypatch.setitem(STEPS, "floor", lambda settings, *_: given.append(settings))
    compute = resolve_compute("cpu", precision)

    make_step("floor", 4, 8, compute, tiny_model)

    assert [settings.compute for settings in given] == [compute]


@pytest.mark.parametrize("name", memory.CONTESTANTS)
def test_a_fit_stops_after_some_steps(name, tiny_model):
    if name != "ours":
        pytest.importorskip("peft")
    texts, labels = stopped_fit.make_texts(40)

    assert len(set(texts)) == 40
    assert stopped_fit.fit_some_steps(name, texts, labels, settings(tiny_model), 3) == 3


@pytest.mark.parametrize(("on_card", "shown"), [(None, ""), (5e8, " 0.50 |")])
def test_memory_on_a_card_is_shown(on_card, shown):
    row = {"contestant": "ours", "rows": 40, "steps": 3, "seconds": 2.0}
    peaks = {"peak_bytes": 2e9, "bytes_before": 1e9, "cuda_peak_bytes": on_card}

    page = memory.to_markdown({"rows": [{**row, **peaks}]})

    assert page.endswith(f"| ours | 40 | 3 | 2 | 2.00 | 1.00 |{shown}")
    assert ("on the card, GB" in page) == bool(on_card)


@pytest.mark.slow  # a process of its own has to import torch
def test_a_worker_measures(tiny_model):
    result = run_job(
        {
            "kind": "fit",
            "contestant": "ours",
            "settings": vars(settings(tiny_model, precision="float32")),
            "data": {"X_train": X, "y_train": Y, "X_test": X, "y_test": Y},
        }
    )

    assert result["fit_wall"] > 0 < result["predict_cpu"]
    assert 0 <= result["accuracy"] <= 1
    assert result["precision"] == "float32"
    assert result["peak_bytes"] > 1e8  # torch alone takes that


def test_a_worker_that_fails_says_why(monkeypatch):
    monkeypatch.setenv("PYTHON_COLORS", "0")  # FORCE_COLOR, common in CI, colours it
    with pytest.raises(RuntimeError, match=r"Got exit code 1(.|\n)*KeyError: 'poems'"):
        run_job({"kind": "poems"})


def test_the_peak_of_a_process_is_its_own():
    """Linux counts that of the process that started it, which may hold a large file."""
    program = "from benchmarks.worker import peak_bytes; print(peak_bytes())"

    assert int(run_python(program, cwd=ROOT).stdout) < 1e8  # torch is in this one
