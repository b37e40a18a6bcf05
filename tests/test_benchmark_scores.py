"""Scores are measured once, kept apart, and summed up; and so are other results."""

import json
import shlex

import pytest
from _benchmarks import X, Y, records

from benchmarks import report, results, score, speed
from benchmarks.__main__ import main


def test_ratios_are_ours_by_theirs():
    def row(contestant, precision, seconds, accuracy):
        measured = dict.fromkeys(speed._MEASURED, seconds)
        found = {"contestant": contestant, "precision": precision, "bytes_before": 1}
        return {**found, **measured, "accuracies": [accuracy]}

    contestants = [
        row("ours", "float32", 4.0, 0.8),
        row("ours", "bfloat16", 2.0, 0.7),
        row("peft-adalora", "float32", 10.0, 0.75),
        row("peft-adalora", "bfloat16", 5.0, 0.75),
    ]
    compared = speed.ratios(contestants, "bfloat16")

    assert [ratio["fit_wall"] for ratio in compared] == [0.2, 0.4, 0.4]
    assert compared[0]["how"] == "defaults (bfloat16 / float32)"
    assert compared[1]["accuracy"] == pytest.approx(0.05)


def test_the_column_of_memory_says_what_it_compares():
    """The peak is read after the predictions, so it is not of the fit alone."""
    measured = dict.fromkeys(speed._MEASURED, 2.0)

    def row(contestant, peak):
        found = {"contestant": contestant, "precision": "float32", **measured}
        memory = {"peak_bytes": peak, "bytes_before": 1e9}
        return {**found, **memory, "accuracies": [0.5]}

    contestants = [row("ours", 2e9), row("peft-adalora", 5e9)]
    shape = {"n_train": 4, "n_test": 4, "epochs": 1, "batch_size": 4, "max_length": 8}
    ratios = speed.ratios(contestants, "float32")
    found = {"task": "quotes", **shape, "contestants": contestants, "ratios": ratios}

    page = speed.to_markdown(found)

    assert "| peak memory | peak less before the fit |" in page
    assert "| 0.40 | 0.25 |" in page


def test_ranks_and_gaps():
    found = [
        *records({"ours": 0.5, "tfidf": 0.7, "embeddings": 0.5}),
        *records({"ours": 0.9, "tfidf": 0.8, "embeddings": 0.7}, size=1000),
        *records({"ours": 0.9}, size=4000),  # not complete
    ]
    summary = score.summarise(found)

    assert summary["complete"] == [("quotes", 200), ("quotes", 1000)]
    # Of each number of rows there is one row of the table, which is no mean.
    of_all = {"ours": 1.75, "embeddings": 2.75, "tfidf": 1.5}
    assert summary["rank"] == {None: of_all}
    alone = {"ours": 2.5, "embeddings": 2.5, "tfidf": 1}
    assert score.summarise(found[:3])["rank"] == {200: alone}
    more = [{**r, "task": task} for r in found[3:6] for task in ("films", "articles")]
    rank = score.summarise([*found, *more])["rank"]
    assert rank.keys() == {1000, None}
    assert rank[1000] == {"ours": 1, "embeddings": 3, "tfidf": 2}
    assert summary["gap"]["ours"] == pytest.approx(0.2)
    assert summary["gap"]["tfidf"] == pytest.approx(0.1)
    assert "| quotes | 4,000 | 1 | **0.900** | - | - |" in score.to_markdown(
        {"records": found}
    )


def test_equal_means_share_their_ranks():
    """Also where rounding makes another number of one of them."""
    found = records({"ours": 0.66, "full": 0.632}, seed=0)
    found += records({"ours": 0.66, "full": 0.688}, seed=1)

    assert score.summarise(found)["rank"] == {200: {"ours": 1.5, "full": 1.5}}
    page = score.to_markdown({"records": found})
    assert "| quotes | 200 | 2 | **0.660** | **0.660** |" in page


def test_means_are_over_the_seeds_that_all_have():
    found = records({"ours": 0.5, "tfidf": 0.6}, seed=0)
    found += records({"ours": 0.9}, seed=1)  # not measured for the other
    found += records({"ours": 0.7, "tfidf": 0.4}, seed=2)
    summary = score.summarise(found)

    assert summary["cells"]["quotes", 200] == {"ours": 0.6, "tfidf": 0.5}
    assert summary["seeds"]["quotes", 200] == 2
    assert "| quotes | 200 | 2 | **0.600** | 0.500 |" in score.to_markdown(
        {"records": found}
    )


def write_csv(path, labels):
    lines = [f"{text},{label}" for text, label in zip(X, labels, strict=True)]
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    return path


@pytest.fixture
def run_score(tmp_path, monkeypatch):
    """Function: extra arguments -> contestants that were measured."""
    file = write_csv(tmp_path / "mine.csv", Y)
    measured = []

    class Guess:
        def predict(self, texts):
            return [Y[0]] * len(texts)

    def pretend(name, texts, labels, settings):
        measured.append(name)
        return Guess()

    monkeypatch.setattr(score, "fit", pretend)

    def run(*arguments):
        measured.clear()
        common = ["--data", str(file), "--text", "text", "--label", "label"]
        common += ["--results", str(tmp_path), "--device", "cpu", "--n-test", "8"]
        common += ["--seeds", "0"]
        sizes = [] if "--sizes" in arguments else ["--sizes", "8", "1000"]
        main(["score", *common, *sizes, *arguments])
        return list(measured)

    run.results, run.file = tmp_path, file
    return run


def test_how_far_ours_is_ahead():
    found = [*records({"ours": 0.7, "full": 0.6}), *records({"ours": 0.6}, seed=1)]
    more = [*found, *records({"full": 0.63}, seed=1), *records({"tfidf": 0.9}, seed=2)]
    page = score.ahead_to_markdown(
        [{"records": more, "splits": "some"}, {"records": found}]
    )

    assert page.splitlines() == [
        "| ours beside | some (1 task) | all splits (1 task) |",
        "| --- | --- | --- |",
        "| `full` | +3.5, 1/2 | +10.0, 1/1 |",
        "| `tfidf` | - | - |",
    ]


def test_how_far_ours_is_ahead_is_a_mean_over_tasks():
    found = [
        *records({"ours": 0.7, "full": 0.5}),
        *records({"ours": 0.7, "full": 0.4}, seed=1),
        *({**r, "task": "films"} for r in records({"ours": 0.3, "full": 0.4})),
        *records({"tfidf": 0.6}),
    ]
    page = score.ahead_to_markdown([{"records": found, "splits": "some"}])

    assert "| some (2 tasks) |" in page
    assert "| `full` | +7.5, 2/3 |" in page
    assert "| `tfidf` | +10.0 (1 task), 1/1 |" in page


def test_results_of_another_name_are_files_of_their_own(run_score):
    run_score("--contestants", "tfidf")
    before = (run_score.results / "score-cpu.json").read_bytes()

    assert run_score("--contestants", "tfidf", "--name", "new-1") == ["tfidf"]

    assert (run_score.results / "score-cpu.json").read_bytes() == before
    assert (run_score.results / "score-cpu-new-1.jsonl").exists()
    found = results.read(run_score.results, "score")
    assert len(found) == 2
    assert "--name" not in found[1]["command"]


def test_what_is_said_of_scores_is_kept(run_score):
    """Written by hand: the page reads it, and more scores do not change it."""
    run_score("--contestants", "tfidf")
    path = run_score.results / "score-cpu.json"
    found = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**found, "splits": "some splits", "origin": "By:"}))

    run_score("--contestants", "ours")

    (found,) = results.read(run_score.results, "score")
    assert (found["splits"], found["origin"]) == ("some splits", "By:")
    assert len(found["records"]) == 2


def test_all_published_scores_can_be_added_to():
    """The lines that `score` goes on from are what the page is written from."""
    for path in results.RESULTS.rglob("score-*.json"):
        lines = path.with_suffix(".jsonl").read_text("utf-8").splitlines()
        records = json.loads(path.read_text("utf-8"))["records"]
        assert [json.loads(line) for line in lines] == records


def test_the_page_quotes_the_scores_of_forty_rows():
    (found,) = results.read(results.RESULTS / "few", "score")
    written = score.to_markdown(found).splitlines()
    rows = [line for line in written if line.startswith("| ") and "**mean" not in line]
    rows = [line for line in rows if not line.startswith("| **worst")]

    page = report.PAGE.read_text("utf-8").splitlines()
    assert len(rows) == 7  # heads, a rule, and five tasks
    assert [line for line in rows if line not in page] == []


def test_scores_are_measured_once(run_score):
    # 1,000 rows are more than there are: that size is left out.
    assert run_score("--contestants", "ours", "tfidf") == ["ours", "tfidf"]
    assert run_score("--contestants", "ours", "tfidf", "full") == ["full"]
    assert run_score("--contestants", "ours", "--again", "ours") == ["ours"]
    lines = (run_score.results / "score-cpu.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["contestant"] for line in lines) == [
        "full",
        "ours",
        "tfidf",
    ]


def test_two_runs_at_once_keep_the_scores_of_both(run_score, monkeypatch):
    """Each is a piece: the one that ends last writes the file of all."""
    run_score("--contestants", "tfidf")
    path = run_score.results / "score-cpu.jsonl"
    other = {**json.loads(path.read_text("utf-8")), "contestant": "full"}
    real = score._measure

    def measure(*arguments):
        results.append(path, other)
        return real(*arguments)

    monkeypatch.setattr(score, "_measure", measure)
    run_score("--contestants", "ours")

    (found,) = results.read(run_score.results, "score")
    measured = [record["contestant"] for record in found["records"]]
    assert measured == ["tfidf", "full", "ours"]


def test_a_line_that_was_cut_off_is_named(run_score):
    run_score("--contestants", "ours", "tfidf")
    path = run_score.results / "score-cpu.jsonl"
    path.write_text(path.read_text("utf-8")[:-60], encoding="utf-8")

    with pytest.raises(ValueError, match=r"jsonl must be .* in line 2\. Delete"):
        run_score("--contestants", "ours", "tfidf")


def test_a_size_that_no_task_has_is_refused(run_score):
    with pytest.raises(ValueError, match=r"at most the 15 rows .* Got 20, 1000\."):
        run_score("--contestants", "tfidf", "--sizes", "20", "1000")
    run_score("--contestants", "tfidf", "--sizes", "16")  # nine tenths are enough


def test_of_a_short_file_all_rows_are_learned_from(tmp_path):
    """The smallest of the default sizes is more than that."""
    file = write_csv(tmp_path / "mine.csv", Y)
    options = ["--results", str(tmp_path), "--contestants", "tfidf", "--seeds", "0"]
    mine = ["--data", str(file), "--text", "text", "--label", "label"]

    for more in ([], ["--again", "tfidf"]):
        main(["score", *mine, *options, "--device", "cpu", *more])

    (record,) = results.read(tmp_path, "score")[0]["records"]
    assert (record["size"], record["n_train"]) == (18, 18)  # a quarter is predicted


def test_the_command_of_a_result_can_be_typed(run_score):
    run_score("--contestants", "tfidf", "--model", "my model")

    (written,) = results.read(run_score.results, "score")
    assert shlex.split(written["command"])[-2:] == ["--model", "my model"]


def test_a_smoke_test_keeps_what_was_measured(run_score):
    run_score("--contestants", "tfidf")
    before = (run_score.results / "score-cpu.jsonl").read_bytes()

    for _ in range(2):  # it measures everything again
        assert run_score("--contestants", "tfidf", "--quick") == ["tfidf"]
    assert (run_score.results / "score-cpu.jsonl").read_bytes() == before


def test_a_smoke_test_of_a_short_file(run_score):
    """It names its own numbers of rows, so nobody could name smaller ones."""
    assert run_score("--contestants", "tfidf", "--quick") == ["tfidf"]

    (found,) = results.read(run_score.results / "quick", "score")
    (record,) = found["records"]
    assert (record["size"], record["settings"]["n_test"]) == (18, 5)


def test_again_forgets_what_was_asked_for_only(run_score):
    run_score("--contestants", "tfidf", "--seeds", "0", "1")
    assert (
        run_score("--contestants", "tfidf", "--seeds", "0", "1", "--again", "tfidf")
        == ["tfidf"] * 2
    )
    assert run_score("--contestants", "tfidf", "--seeds", "1", "--again", "tfidf") == [
        "tfidf"
    ]
    lines = (run_score.results / "score-cpu.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["seed"] for line in lines) == [0, 1]


def test_again_keeps_what_was_measured_of_other_tasks(run_score):
    run_score("--contestants", "tfidf")
    path = run_score.results / "score-cpu.jsonl"
    other = {**json.loads(path.read_text("utf-8")), "task": "quotes"}
    path.write_text(json.dumps(other) + "\n", encoding="utf-8")

    assert run_score("--contestants", "tfidf", "--again", "tfidf") == ["tfidf"]
    assert json.loads(path.read_text("utf-8").splitlines()[0]) == other


def test_gaps_are_of_the_seeds_of_both():
    found = [
        *records({"ours": 0.9, "tfidf": 0.8, "full": 0.2}, seed=0),
        *records({"ours": 0.6, "tfidf": 0.8}, seed=1),
    ]
    summary = score.summarise(found)

    assert summary["cells"]["quotes", 200]["ours"] == 0.9  # the seed of all
    assert summary["gap"]["ours"] == pytest.approx(0.05)


def test_few_rows_and_more_are_columns_of_their_own():
    """And a contestant of one file alone has a line."""
    found = [
        *records({"ours": 0.7, "full": 0.6}),
        *records({"ours": 0.8, "full": 0.9}, size=1000),
        *records({"ours": 0.8, "full": 0.7}, size=4000),
    ]
    other = {"records": records({"ours": 0.7, "tfidf": 0.6}), "splits": "others"}

    page = score.ahead_to_markdown([{"records": found, "splits": "some"}, other])

    assert page.splitlines() == [
        "| ours beside | some: 200 rows (1 task) | some: more rows (1 task) "
        "| others (1 task) |",
        "| --- | --- | --- | --- |",
        "| `full` | +10.0, 1/1 | +0.0, 1/2 | - |",
        "| `tfidf` | - | - | +10.0, 1/1 |",
    ]


def test_columns_of_several_results_have_names_of_their_own(run_score):
    for more in ([], ["--name", "other"]):
        run_score("--contestants", "ours", "tfidf", *more)

    found = results.read(run_score.results, "score")
    first, other = score.ahead_to_markdown(found).splitlines()[0].split(" | ")[1:]
    assert first.startswith("all splits, cpu (")
    assert other.startswith("all splits, cpu-other (")


def test_scores_say_on_which_machines():
    found = [
        *({**r, "machine": "A"} for r in records({"ours": 0.9, "tfidf": 0.8})),
        *({**r, "machine": "B"} for r in records({"ours": 0.9}, seed=1)),
    ]

    assert "Of the fits, 2 on A; 1 on B." in score.to_markdown({"records": found})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--max-length", "16"], "max_length=16 after 128 of ours"),
        (["--n-test", "6"], "n_test=6 after 8 of ours"),
        (["--epochs", "7"], r"epochs=7 after \d+ of ours"),
        (["--seeds", "1", "--epochs", "7"], r"epochs=7 after \d+ of ours"),
        (
            ["--contestants", "ours", "--seeds", "1", "--learning-rate", "ours=0.5"],
            r"learning_rate=0\.5 after None of ours",
        ),
        (
            ["--contestants", "tfidf", "--again", "tfidf", "--batch-size", "4"],
            "batch_size=4 after 32 of ours",
        ),
    ],
)
def test_no_line_of_other_settings_is_added(given, message, run_score):
    """Whoever is measured, on whichever rows: a table compares them all."""
    run_score("--contestants", "ours", "tfidf")
    before = (run_score.results / "score-cpu.jsonl").read_bytes()

    with pytest.raises(ValueError, match=message):
        run_score("--contestants", "full", *given)

    assert (run_score.results / "score-cpu.jsonl").read_bytes() == before
    both = ["--contestants", "ours", "tfidf"]
    assert run_score(*both, "--again", *both[1:], "--max-length", "16") == both[1:]


@pytest.mark.parametrize("more", [[], ["--again", "tfidf"]])
def test_scores_of_other_data_of_the_same_name_do_not_mix(run_score, more):
    run_score("--contestants", "tfidf")
    path = run_score.results / "score-cpu.jsonl"
    before = path.read_bytes()
    write_csv(run_score.file, Y[::-1])

    # Whoever is measured, since all of a task are compared.
    for contestants in (["tfidf"], ["tfidf", "ours"]):
        with pytest.raises(ValueError, match=r"Got data='\w+' after '\w+' of 'mine'\."):
            run_score("--contestants", *contestants, *more)
    assert path.read_bytes() == before


def test_a_file_of_the_name_of_a_task_is_not_that_task(run_score):
    line = {"contestant": "ours", "task": "mine", "size": 200, "seed": 0}
    text = json.dumps({**line, "accuracy": 0.5, "settings": {"epochs": 3}})
    path = run_score.results / "score-cpu.jsonl"
    path.write_text(text + "\n", encoding="utf-8")  # as before there were digests

    with pytest.raises(ValueError, match=r"Got data='\w+' after None of 'mine'\."):
        run_score("--contestants", "tfidf")
