"""One fit that several processes share."""

import socket

import joblib
import numpy as np
import pytest
from _process import run_python

EVERY_RANK = [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
WORKER = "import runpy; runpy.run_module('_ranks_worker', run_name='__main__')"


@pytest.fixture(scope="module")
def results(tiny_model, tmp_path_factory):
    """Function: name, count, rank -> what that rank of a group got."""
    folder = tmp_path_factory.mktemp("ranks")
    run_python(WORKER, tiny_model, folder, timeout=500, OMP_NUM_THREADS="1")
    return lambda name, count, rank: joblib.load(folder / f"{name}-{count}-{rank}")


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        whole = isinstance(value, (dict, tuple))
        if whole or np.asarray(value).dtype.kind != "f":
            np.testing.assert_equal(found[name], value, err_msg=name)
        else:  # what ranks sum in another order is rounded otherwise
            close = {"rtol": 1e-4, "atol": 1e-5, "err_msg": name}
            np.testing.assert_allclose(found[name], value, **close)


@pytest.mark.parametrize(("count", "rank"), EVERY_RANK)
def test_all_ranks_fit_what_one_process_fits(results, count, rank):
    one, here = results("fits", 1, 0), results("fits", count, rank)
    assert count == 3 or {"encoder", "table"} <= here.keys()
    for case, found in here.items():
        assert_same(found, one[case])


@pytest.mark.parametrize(("count", "rank"), [(1, 0), *EVERY_RANK])
def test_a_checkpoint_goes_on_with_another_number_of_ranks(results, count, rank):
    before = count % 3 + 1
    assert results("begins", before, 0) == "Stopped: here"
    if before > 1:
        lost = results("begins", before, 1)
        assert "needs all of them until it ends" in lost
        assert "with `checkpoint_dir`, the fit goes on" in lost
    unbroken = results("fits", 1, 0)["unbroken"]
    assert_same(results("ends", count, rank), unbroken)


def test_what_one_rank_raises_all_raise(results):
    told = [results("faults", 3, rank) for rank in range(3)]
    for name in ("other parameter", "a shard"):
        for of_rank in told:
            kind, message = of_rank[name]
            assert kind == "ValueError"
            assert "must be called alike on each" in message
    for rank, of_rank in enumerate(told):
        where = "" if rank == 1 else " This is what rank 1 of 3 raised."
        assert of_rank["in a step"] == ("ValueError", f"no room for this.{where}")
        assert of_rank["bad rows"][0] == "ValueError"
        assert of_rank["bad parameter"][0] == "ValueError"
        kind, message = of_rank["elsewhere"]
        assert (kind == "OSError") if rank == 1 else ("broken connection" in message)
        assert of_rank["after all"] is None


RECIPE = """
import os, signal, sys, torch
from _toy import make, toy
{join}
texts, labels = toy()
if len(sys.argv) > 2 and os.environ["RANK"] == "1":
    real = torch.optim.AdamW.step
    count = iter(range(9))
    def step(*given, **named):
        if next(count) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **named)
    torch.optim.AdamW.step = step
classifier = make(sys.argv[1], epochs=3).fit(texts, labels)
with open(sys.argv[0] + str(torch.distributed.get_rank()), "w") as file:
    file.write(str(classifier.score(texts, labels)))
"""
JOINS = {
    "torch.distributed.run": "torch.distributed.init_process_group('gloo')",
    "accelerate.commands.launch": (
        "from accelerate import PartialState\nPartialState(cpu=True)"
    ),
}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def launch(module, tiny_model, tmp_path, *arguments):
    """Start the recipe on two ranks; return the process when it has ended."""
    program = tmp_path / "recipe.py"
    program.write_text(RECIPE.format(join=JOINS[module]))
    options = ["--standalone", "--nproc-per-node", "2"]
    if module.startswith("accelerate"):
        pytest.importorskip("accelerate", reason="needs accelerate")
        options = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
        options += ["--mixed_precision", "no", "--dynamo_backend", "no"]
        options += ["--main_process_port", str(free_port())]
    words = [*options, str(program), tiny_model, *arguments]
    started = (
        f"import runpy, sys; sys.argv[1:] = {words!r}; "
        f"runpy.run_module({module!r}, run_name='__main__')"
    )
    return run_python(
        f"import subprocess, sys; done = subprocess.run([sys.executable, '-c', "
        f"{started!r}], capture_output=True, text=True); "
        "print(done.returncode, done.stdout, done.stderr)",
        timeout=300,
        OMP_NUM_THREADS="1",
    ).stdout


@pytest.mark.slow
@pytest.mark.parametrize("module", JOINS)
def test_the_recipe_of(module, tiny_model, tmp_path):
    out = launch(module, tiny_model, tmp_path)
    assert out.startswith("0 "), out
    scores = [(tmp_path / f"recipe.py{rank}").read_text() for rank in range(2)]
    assert scores[0] == scores[1], out


@pytest.mark.slow
def test_a_killed_rank_ends_the_others_with_a_message(tiny_model, tmp_path):
    out = launch("torch.distributed.run", tiny_model, tmp_path, "kill")
    assert "needs all of them until it ends" in out or "SIGTERM" in out
    assert not out.startswith("0 ")
