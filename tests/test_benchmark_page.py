"""The page of the results is what the results say."""

import json
import subprocess
from subprocess import CompletedProcess

import pytest
from _benchmarks import COMPARISONS, records

from benchmarks import __main__ as command
from benchmarks import defaults, report, results
from benchmarks.__main__ import main, make_parser


def test_the_page_is_what_the_report_writes():
    page = report.PAGE.read_text("utf-8")

    assert report.fill(page, results.RESULTS) == page


def test_results_become_parts_of_a_page(tmp_path):
    page = "".join(
        f"<!-- benchmarks: {what} -->\n<!-- end -->\n" for what in report.PARTS
    )
    found = records({"ours": 0.5, "tfidf": 0.7})
    results.write(tmp_path, "score", "cpu", "python -m benchmarks score", records=found)

    filled = report.fill(page, tmp_path)

    assert "`python -m benchmarks score` wrote:\n\n> 20" in filled
    assert "| quotes | 200 | 1 | 0.500 | **0.700** |" in filled
    assert "| `tfidf` | -20.0, 0/1 |" in filled
    assert filled.count("Not measured yet") == len(COMPARISONS) - 1
    assert report.fill(filled, tmp_path) == filled
    with pytest.raises(ValueError, match="must have the lines"):
        report.fill(page.replace("speed", "haste"), tmp_path)


def test_the_same_measurement_on_several_machines(tmp_path):
    for device in ("cuda", "cpu-other", "cpu"):
        found = records({"ours": 0.5, "tfidf": 0.7})
        results.write(tmp_path, "score", device, f"on {device}", records=found)

    parts = report.render("score", tmp_path).split(" wrote:\n\n> 20")

    assert len(parts) == 4
    found = [part.rpartition("`on ")[2] for part in parts[:3]]
    assert found == ["cpu`", "cpu-other`", "cuda`"]


def test_the_report_of_other_results_leaves_our_page_alone(tmp_path, monkeypatch):
    ours = tmp_path / "benchmarks.md"
    ours.write_text("ours", encoding="utf-8")
    monkeypatch.setattr(report, "PAGE", ours)
    theirs = tmp_path / "theirs"
    found = records({"ours": 0.5, "tfidf": 0.7})
    results.write(theirs, "score", "cpu", "a command", origin="From:", records=found)

    main(["report", "--results", str(theirs)])

    written = (theirs / "benchmarks.md").read_text("utf-8")
    assert "From:\n\n> 20" in written
    assert "| quotes | 200 | 1 | 0.500 | **0.700** |" in written
    monkeypatch.setattr(results, "MINE", tmp_path / "nothing yet")
    main(["report"])
    written = (tmp_path / "nothing yet" / "benchmarks.md").read_text("utf-8")
    assert written.count("Not measured yet") == len(COMPARISONS)
    assert ours.read_text("utf-8") == "ours"


@pytest.mark.parametrize("given", [["--epochs", "2"], ["--model", "all"]])
def test_all_ends_with_the_report_whatever_its_options(given, tmp_path, monkeypatch):
    """Stands for the processes that it starts."""
    started = []

    def start(command, **options):
        started.append(command)
        return CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", start)
    main(["all", *given, "--results", str(tmp_path)])

    assert [command[3] for command in started] == COMPARISONS
    assert all(command[5:7] == given for command in started)
    assert (tmp_path / "benchmarks.md").exists()


def test_short_runs_parts_that_fit_into_one_page(tmp_path, monkeypatch):
    """Stands for the processes that it starts, but has them read their options."""
    started = []

    def start(command, **options):
        started.append(make_parser().parse_args(command[3:]))
        return CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", start)
    monkeypatch.setattr(results, "MINE", tmp_path)
    main(["short", "--epochs", "1"])

    assert [options.what for options in started] == ["speed", "step", "score"]
    assert {options.epochs for options in started} == {1}
    assert {options.results for options in started} == {tmp_path / "short"}
    assert (tmp_path / "short" / "benchmarks.md").exists()
    with pytest.raises(SystemExit):
        main(["short", "--data", "mine.csv", "--text", "a", "--label", "b"])


def test_defaults_of_other_test_rows_do_not_mix(tmp_path):
    line = {"variant": "defaults", "task": "quotes", "size": 200, "seed": 0}
    text = json.dumps({**line, "accuracy": 0.5, "log_loss": 1.0})
    (tmp_path / "defaults-cpu.jsonl").write_text(text + "\n", encoding="utf-8")
    options = ["--n-test", "60", "--device", "cpu", "--results", str(tmp_path)]

    with pytest.raises(ValueError, match=r"Got n_test=60 after 600\. Name another"):
        main(["defaults", *options])


def test_two_runs_of_defaults_at_once_keep_the_results_of_both(tmp_path, monkeypatch):
    key = {"task": "headlines", "size": 200, "seed": 0}
    found = {"accuracy": 0.5, "log_loss": 1.0}
    other = {"variant": "epochs=6", **key, **found}

    def measured(*arguments):
        results.append(tmp_path / "defaults-cpu.jsonl", other)
        return found

    monkeypatch.setattr(defaults, "_measure", measured)
    monkeypatch.setattr(defaults, "split", lambda *arguments: None)
    monkeypatch.setattr(command, "load_task", lambda name: None)
    cell = ["--tasks", "headlines", "--sizes", "200", "--seeds", "0"]
    options = ["--variants", "defaults", "--device", "cpu", "--results", str(tmp_path)]
    main(["defaults", *cell, *options])

    (written,) = results.read(tmp_path, "defaults")
    variants = {record["variant"] for record in written["records"]}
    assert variants == {"epochs=6", "defaults"}


def test_a_smoke_test_of_defaults_measures_each_time(tmp_path, monkeypatch):
    seen = []

    def measured(*arguments):
        seen.append(arguments)
        return {"accuracy": 0.5, "log_loss": 1.0}

    monkeypatch.setattr(defaults, "_measure", measured)
    monkeypatch.setattr(defaults, "split", lambda *arguments: None)
    monkeypatch.setattr(command, "load_task", lambda name: None)
    for n_fits in (2, 4):
        main(["defaults", "--quick", "--device", "cpu", "--results", str(tmp_path)])
        assert len(seen) == n_fits
