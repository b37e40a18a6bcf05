"""The benchmark of the race measures what it says, once, and shows it."""

import json
import sys

import numpy as np
import pytest
from _benchmarks import ROOT
from _toy import topics

from benchmarks import __main__ as command_line
from benchmarks import data, results, search_racing

SETTINGS = ["--tasks", "quotes", "--rows", "24", "--test-rows", "20", "--folds", "2"]
SETTINGS += ["--trials", "3", "--epochs", "1", "--max-length", "8"]


@pytest.fixture
def race(tiny_model, tmp_path, monkeypatch, quiet_optuna):
    """Function: extra options -> the records on disk. Three small topics."""
    texts, labels = topics(120)
    texts = [f"{text} {i}" for i, text in enumerate(texts)]  # none twice
    task = data.Task("made up", texts, [str(label) for label in labels])
    monkeypatch.setattr(search_racing, "load", lambda name: task)

    def run(*more, methods=("racing", "timed")):
        common = [*SETTINGS, "--model", tiny_model, "--results", str(tmp_path)]
        search_racing.main([*common, "--methods", *methods, *more])
        lines = (tmp_path / "racing-cpu.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    return run


def test_a_search_and_random_search_for_the_same_time(race, tmp_path, capsys):
    raced, timed = race()

    assert [raced["method"], timed["method"]] == ["racing", "timed"]
    assert len(raced["states"]) == 3 == len(raced["scores"])
    assert raced["fits"] == sum(map(len, raced["scores"])) <= 6
    assert timed["seconds"] >= raced["seconds"]
    assert timed["fits"] == 2 * len(timed["scores"])
    for found in (raced, timed):
        complete = [np.mean(row) for row in found["scores"] if len(row) == 2]
        assert found["cv"] == pytest.approx(max(complete), abs=1e-5)
        assert len(found["correct"]) == 20
    assert raced["default_cv"] == pytest.approx(np.mean(raced["scores"][0]), abs=1e-5)
    printed = capsys.readouterr().out
    assert "| quotes | 0 | random search, same time |" in printed
    assert "- test accuracy: higher than of random search for the same time" in printed
    (written,) = results.read(tmp_path, "racing")
    assert written["command"].startswith("python -m benchmarks racing --tasks")
    assert "--results" not in written["command"]


def test_all_methods_run(race):
    pytest.importorskip("optuna_integration")
    methods = list(search_racing.METHODS)
    found = race("--others-on", "quotes", methods=methods)

    assert [record["method"] for record in found] == methods
    by_name = {record["method"]: record for record in found}
    for name in ("unpruned", "optuna", "random"):
        assert by_name[name]["fits"] == 3 * 2
    for name in ("unpruned", "random"):
        assert [len(row) for row in by_name[name]["scores"]] == [2] * 3
    assert set(by_name["unpruned"]["params"]) == set(by_name["racing"]["params"])


def test_what_is_there_is_not_measured_again(race, monkeypatch, capsys):
    first = race(methods=["racing"])
    measured = []
    monkeypatch.setattr(
        search_racing, "measure", lambda *job: measured.append(job[1:3]) or first[0]
    )

    assert race(methods=["racing"]) == first
    capsys.readouterr()
    assert race("--show") == first
    assert measured == []
    assert "| quotes | 0 | `AdaLoraSearchCV` |" in capsys.readouterr().out
    race("--seeds", "0", "1")
    assert measured == [("timed", 0), ("racing", 1), ("timed", 1)]
    with pytest.raises(ValueError, match="Got epochs=2 after 1"):
        race("--epochs", "2")


def test_two_runs_at_once_keep_the_results_of_both(race, tmp_path, monkeypatch):
    (first,) = race(methods=["racing"])

    def measure(*job):
        results.append(tmp_path / "racing-cpu.jsonl", {**first, "seed": 2})
        return {**first, "seed": 1}

    monkeypatch.setattr(search_racing, "measure", measure)
    race("--seeds", "1", methods=["racing"])

    (written,) = results.read(tmp_path, "racing")
    assert {record["seed"] for record in written["records"]} == {0, 1, 2}


def test_seeds_come_one_after_the_other():
    options = search_racing.make_parser().parse_args(["--seeds", "0", "1"])
    jobs = list(search_racing.jobs_of(options))
    n_tasks = len(search_racing.TASKS)

    assert all(seed == 0 for _, _, seed in jobs[: 2 * n_tasks])
    assert {method for _, method, _ in jobs[: 4 * n_tasks]} == {"racing", "timed"}
    assert len(jobs) == len(set(jobs)) == 4 * n_tasks + 2 * 3


# ---- the command line --------------------------------------------------------


def test_the_entry_point_passes_options_on(monkeypatch):
    """Stands for the process that it starts."""
    started = []

    class Done:
        returncode = 3

    def start(command, **options):
        started.append(command)
        return Done()

    monkeypatch.setattr(command_line.subprocess, "run", start)
    for options in (["--rows", "300", "--show"], ["--help"], []):
        with pytest.raises(SystemExit) as ended:
            command_line.main(["racing", *options])
        assert ended.value.code == 3
        module = [sys.executable, "-m", "benchmarks.search_racing"]
        assert started.pop() == [*module, *options]


@pytest.mark.parametrize("what", ["attention", "step"])
def test_options_that_nobody_knows_are_refused(what, capsys):
    with pytest.raises(SystemExit):
        command_line.main([what, "--others-on", "quotes"])
    assert "unrecognized arguments: --others-on" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--rows", "--epochs", "--trials", "--test-rows"])
def test_numbers_of_a_race_must_be_positive(option, capsys):
    with pytest.raises(SystemExit):
        search_racing.main([option, "0"])
    assert "must be a positive integer. Got '0'" in capsys.readouterr().err


def test_the_readme_documents_each_option_of_a_race():
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    table = page.partition("| option of `racing` |")[2].partition("\n\n")[0]
    for action in search_racing.make_parser()._actions:
        option = action.option_strings[-1]
        assert option == "--help" or f"`{option}`" in table, option


def test_means_over_the_seeds():
    def record(method, seed, correct, **more):
        return {
            "task": "quotes", "method": method, "seed": seed, "correct": correct,
            "fits": 12, "trials": 8, "folds": 3, **more,
        }  # fmt: skip

    table = search_racing.by_task(
        [
            record("racing", 0, "1111", default_correct="1000"),
            record("timed", 0, "1100"),
            record("racing", 1, "1110", default_correct="1100"),
            record("timed", 1, "1110"),
            record("racing", 2, "0000", default_correct="0000"),  # without its pair
        ]
    )

    (row,) = table.splitlines()[2:]
    # Gains of 0.5 ± 0.289 and 0 ± 0, and half of 24 fits.
    assert row == "| quotes | 2 | 0.375 | 0.875 | 0.625 | +0.250 ± 0.144 | 0.50 |"


def test_the_results_of_the_search_benchmark_are_shown(capsys):
    assert search_racing.make_parser().get_default("results") == results.MINE

    search_racing.main(["--show", "--results", str(results.RESULTS)])

    assert "| headlines | 3 |" in capsys.readouterr().out


@pytest.mark.parametrize("folder", [results.RESULTS, results.RESULTS / "racing-400"])
def test_the_page_has_the_published_means(folder):
    records = search_racing.read_known(folder / "racing-cpu.jsonl", None).values()
    table = search_racing.by_task(list(records)).splitlines()
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")

    assert len(table) == 2 + 3  # tasks
    assert "\n".join(table) in page
