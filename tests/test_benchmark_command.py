"""The command line of the benchmarks: what it runs, refuses and documents."""

import importlib
import re

import pytest
from _benchmarks import ROOT

from benchmarks import results
from benchmarks.__main__ import (
    _WITH_OPTIONS,
    SCRIPTS,
    complete,
    main,
    make_parser,
)
from benchmarks.arguments import without_results
from benchmarks.training_steps import STEPS


def test_the_command_line_measures_and_writes(tiny_model, tmp_path, capsys):
    pytest.importorskip("peft")
    common = ["--quick", "--device", "cpu", "--model", tiny_model]
    for what in ("step", "operations"):
        main([what, *common, "--results", str(tmp_path)])
        printed = capsys.readouterr().out
        assert f"| {'floor' if what == 'operations' else 'float32'} |" in printed
    (written,) = results.read(tmp_path / "quick", "step")
    assert "torch" in written["machine"]
    assert written["command"] == " ".join(["python -m benchmarks step", *common])
    assert set(written["rows"][0]["seconds"]) == set(STEPS)
    assert written["rows"][0]["ratio"]["floor"] == 1


@pytest.mark.parametrize("what", ["speed", "profile", "score"])
@pytest.mark.parametrize(
    ("n_rows", "given", "expected"),
    [
        *((400, [], 100), (5000, [], 1000), (400, ["--n-test", "30"], 30)),
        *((400, ["--quick"], 64), (60, ["--quick"], 15), (3, [], 1)),
    ],
)
def test_a_quarter_of_a_short_file_is_predicted(
    what, n_rows, given, expected, tmp_path
):
    file = tmp_path / "mine.csv"
    rows = [f"text {i},{i % 2}" for i in range(n_rows)]
    file.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    mine = ["--data", str(file), "--text", "text", "--label", "label"]

    options = make_parser().parse_args([what, *mine, *given])
    complete(options)

    assert options.n_test == expected


@pytest.mark.parametrize("what", ["speed", "profile", "score"])
def test_of_the_tasks_in_packages_1000_rows_are_predicted(what):
    options = make_parser().parse_args([what])
    complete(options)

    assert options.n_test == 1000


def test_results_go_where_git_ignores_them():
    options = make_parser().parse_args(["score"])
    complete(options)
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()

    assert options.results == results.MINE
    for folder in (results.MINE, results.QUICK):
        assert f"{folder.relative_to(ROOT).as_posix()}/" in ignored


@pytest.mark.parametrize(
    "given",
    [
        *(["--results", "x"], ["--results=x"], ["--res", "x"]),
        ["--name", "x", "--results", "y"],
        ["--of-all"],
    ],
)
def test_a_command_does_not_name_the_folder_of_its_results(given):
    before, after = ["score", "--sizes", "8", "9"], ["--seeds", "1", "--quick"]

    assert without_results([*before, *given, *after]) == [*before, *after]


@pytest.mark.parametrize(
    "arguments",
    [
        ["speed", "--data", "x.csv"],
        ["score", "--learning-rate", "me=1"],
        ["score", "--learning-rate", "ours=0"],
        ["score", "--learning-rate", "ours=nan"],
        ["poems"],
        # What they would ignore.
        ["step", "--task", "films"],
        ["memory", "--model", "elsewhere"],
        ["defaults", "--data", "x.csv", "--text", "a", "--label", "b"],
        ["defaults", "--epochs", "2"],
        ["profile", "--learning-rate", "ours=1"],
        ["report", "--task", "films"],
        ["step", "--text", "a"],
        ["speed", "--task", "films", "--data", "x.csv", "--text", "a", "--label", "b"],
        ["score", "--contestants", "tfidf", "--again", "ours"],
        ["memory", "--contestants", "tfidf"],
        ["speed", "--name", "../x"],
        ["report", "--name", "x"],
        ["score", "--contestants", "tfidf", "--learning-rate", "ours=1"],
        ["speed", "--learning-rate", "skorch=1"],
    ],
)
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        *(["speed", name] for name in ("--epochs", "--batch-size", "--max-length")),
        *(["speed", name] for name in ("--n-train", "--n-test", "--rounds")),
        *(["profile", name] for name in ("--n-train", "--n-test")),
        *([what, "--sizes", "200"] for what in ("score", "defaults")),
        *([what, "--n-test"] for what in ("score", "defaults")),
        ["step", "--rounds"],
        ["operations", "--shape", "32"],
        *(["memory", name] for name in ("--rows", "--steps")),
    ],
)
@pytest.mark.parametrize("number", ["0", "-2", "1.5", "many"])
def test_numbers_must_be_positive(arguments, number, capsys):
    with pytest.raises(SystemExit):
        main([*arguments, number])
    message = f"must be a positive integer. Got {number!r}"
    assert message in capsys.readouterr().err


def test_the_readme_documents_each_option():
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    (subparsers,) = (
        action
        for action in make_parser()._actions
        if hasattr(action, "choices") and action.choices
    )
    for what, parser in subparsers.choices.items():
        assert f"`{what}`" in page
        for action in parser._actions:
            option = action.option_strings[-1]
            hidden = option in ("--help", "--of-all")
            assert hidden or f"`{option}" in page, (what, option)


@pytest.mark.usefixtures("scripts_environment")
@pytest.mark.parametrize("what", sorted(_WITH_OPTIONS))
def test_the_readme_documents_each_option_of_a_script(what, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")  # argparse folds the usage to the terminal
    monkeypatch.setenv("PYTHON_COLORS", "0")  # from Python 3.14 on it is coloured
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    _, _, page = page.partition("The scripts run with one command")
    script = importlib.import_module(f"benchmarks.{SCRIPTS[what]}")

    with pytest.raises(SystemExit):
        script.main(["--help"])
    text = capsys.readouterr().out
    options = set(re.findall(r"--[a-z-]+", text)) - {"--help"}

    assert f"`{what}`" in page
    assert text.startswith(f"usage: python -m benchmarks {what} ")
    assert options
    assert {option for option in options if f"`{option}`" not in page} == set()
