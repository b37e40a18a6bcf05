"""Each kind of benchmark runs end to end, with a tiny model and tiny data."""

import json
import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from _process import run_python
from _toy import topics, toy

from benchmarks import (
    contestants,
    data,
    memory,
    operations,
    parts_of_a_fit,
    report,
    results,
    speed,
    timing,
    worker,
)
from benchmarks.__main__ import main, questions
from benchmarks.contestants import CONTESTANTS, Settings, fit
from benchmarks.inside import changed, resolve_compute
from benchmarks.studies import (
    STUDIES,
    TIMINGS,
    beside,
    overlap,
    public_data,
    tables,
    timings,
)
from benchmarks.studies.defaults import wrong_labels
from benchmarks.studies.score import ahead_to_markdown, summarise
from benchmarks.studies.study import scores
from benchmarks.training_steps import STEPS, make_step, steps_of

CPU = torch.device("cpu")
ROOT = report.PAGE.parent.parent
X, Y = topics(24)
X, Y = list(X), [str(y) for y in Y]


@pytest.fixture(autouse=True)
def _environment(scripts_environment):
    """What a command sets for its processes is forgotten after the test."""


@pytest.fixture
def run(tiny_model, tmp_path, csv_file, capsys):
    """Function: a command and options -> what it printed. Results are in tmp_path."""

    def run(*arguments, mine=True):
        where = ["--results", str(tmp_path), "--device", "cpu", "--model", tiny_model]
        of_mine = ["--data", str(csv_file), "--text", "text", "--label", "label"]
        main([*arguments, *where, *(of_mine if mine else [])])
        return capsys.readouterr().out

    return run


def settings(tiny_model, **changes):
    given = {"epochs": 2, "batch_size": 4, "max_length": 32, "device": "cpu"}
    return Settings(**{**given, "model": tiny_model, **changes})


def skip_without(name):
    """What a contestant or a step is made with."""
    if name.startswith(("peft", "lora")):
        pytest.importorskip("peft")
    if name.startswith(("peft", "lora", "full")):
        pytest.importorskip("accelerate")
    if name in ("skorch", "setfit"):
        pytest.importorskip(name)


# ---- the command line --------------------------------------------------------


def test_all_commands_are_listed_and_those_that_pages_name_exist(capsys):
    main(["list"])
    listed = capsys.readouterr().out
    assert all(f"{name} " in listed for name in questions())

    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    pages += (ROOT / "benchmarks").glob("*.md")
    named = set()
    for page in pages:
        text = page.read_text("utf-8").replace("\n> ", " ")
        named |= set(re.findall(r"-m\s+benchmarks\s+([a-z][a-z0-9-]*)", text))
    assert len(named) > 20
    assert named <= questions().keys()


@pytest.mark.parametrize(
    "arguments",
    [
        ["poems"],
        ["score", "--learning-rate", "ours"],
        ["score", "--contestants", "theirs"],
        ["speed", "--learning-rate", "me=1"],
        ["speed", "--name", "../x"],
        ["step", "--task", "films"],
    ],
)
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "error" in capsys.readouterr().err


# ---- studies -----------------------------------------------------------------

IN_PROCESSES = {"attention", "batches", "lengths", "busy"}


@pytest.mark.parametrize("name", sorted(STUDIES.keys() - IN_PROCESSES))
def test_a_study_runs(name, run, tmp_path):
    if name == "quickstart":  # without the model of its example
        kept = [n for n in STUDIES[name].settings if not n.startswith("frozen")]
        printed = run(name, "--quick", "--settings", *kept)
    elif name == "racing":
        methods = ["--methods", "racing", "timed", "unpruned"]
        printed = run(name, "--quick", *methods)
    else:
        printed = run(name, "--quick")

    about, records = results.read(tmp_path / "quick" / f"{name}-cpu.jsonl")
    assert about["command"].startswith(f"python -m benchmarks {name} --quick")
    assert "--results" not in about["command"]
    assert "torch" in about["machine"]
    assert 2 <= len({r["setting"] for r in records}) <= 3
    assert {(r["task"], r["size"]) for r in records} == {("mine", 40)}
    assert printed.count("\n|") >= 3 or "| mine | 40 |" in printed


@pytest.mark.slow  # each setting is measured in a process, which has to import torch
def test_a_study_of_processes_runs(run, tmp_path):
    name = "lengths"
    several = list(STUDIES[name].settings)[:1]
    run(name, "--quick", "--settings", *several)

    _, records = results.read(tmp_path / "quick" / f"{name}-cpu.jsonl")
    assert {r["setting"] for r in records} == set(several)
    assert all(r["fit_wall"] > 0 < r["predict_cpu"] for r in records)
    assert all(r["peak_bytes"] > 1e8 for r in records)  # torch alone takes that


def test_what_is_there_is_not_measured_again(run, tmp_path):
    asked = ["--sizes", "40", "--seeds", "0", "1", "--contestants", "tfidf"]
    path = tmp_path / "score-cpu.jsonl"
    run("score", *asked)
    about, first = results.read(path)
    results.write(path, {**about, "splits": "some"}, first)  # written by hand

    run("score", *asked, "embeddings")
    about, records = results.read(path)
    assert records[:2] == first
    assert [r["setting"] for r in records[2:]] == ["embeddings"] * 2
    assert about["splits"] == "some"
    assert records[0]["fixed"]["n_test"] == 60  # a quarter of the file
    shown = run("score", "--show")
    assert "| mine | 40 | 2 |" in shown

    run("score", *asked, "--again")
    again = results.read(path)[1]
    assert len(again) == 4
    with pytest.raises(ValueError, match="Got batch_size=4 after 32"):
        run("score", *asked, "--batch-size", "4")
    run("score", *asked[:-1], "ours")
    with pytest.raises(ValueError, match=r"rate=0\.5 after None of ours"):
        run("score", *asked[:-1], "ours", "--learning-rate", "ours=0.5")
    path.write_text(path.read_text("utf-8")[:-60], encoding="utf-8")
    with pytest.raises(ValueError, match=r"jsonl must be .* Delete that line"):
        run("score", "--show")


def test_two_runs_at_once_keep_the_results_of_both(run, tmp_path, monkeypatch):
    asked = ["--sizes", "40", "--seeds", "0", "--contestants"]
    run("score", *asked, "tfidf")
    path = tmp_path / "score-cpu.jsonl"
    other = {**results.read(path)[1][0], "setting": "full"}
    real = CONTESTANTS["embeddings"]

    def meanwhile(*given):
        results.append(path, other)
        return real(*given)

    monkeypatch.setitem(contestants.CONTESTANTS, "embeddings", meanwhile)
    run("score", *asked, "embeddings")

    measured = [r["setting"] for r in results.read(path)[1]]
    assert sorted(measured) == ["embeddings", "full", "tfidf"]


def test_tasks_of_the_folder_of_public_data(run, csv_file, tmp_path):
    folder = csv_file.parent
    (tmp_path / "pub").mkdir()
    (tmp_path / "pub" / "banking.csv").write_bytes(csv_file.read_bytes())
    quick = ["--quick", "--public", str(tmp_path / "pub"), "--tasks", "banking"]

    assert "| banking | 40 |" in run("many", *quick, mine=False)
    with pytest.raises(ValueError, match="or a file in the folder of --public"):
        run("many", *quick[:-2], "--tasks", "intents", mine=False)
    assert folder.exists()


def test_a_change_of_an_inner_name_is_undone():
    compute = resolve_compute("cpu", "float32")
    before = compute.tokens_to_predict
    with changed({"tokens_to_predict": 7}):
        assert compute.tokens_to_predict == 7
    assert compute.tokens_to_predict == before


def test_what_predictions_score():
    shares = np.array([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.2, 0.8]])
    of_classes = scores(["a", "b", "b", "b"], shares, np.array(["a", "b"]))
    of_labels = scores(np.eye(2, dtype=int)[[0, 1, 1, 1]], shares, None)

    assert of_classes["accuracy"] == 0.75
    assert of_classes["confidence"] == pytest.approx(0.725)
    assert of_labels == {"f1": 0.75}
    assert scores(np.arange(3.0), [0, 1, 2], None) == {"r2": 1.0}
    assert scores(["a", "b"], ["a", "a"], None) == {"accuracy": 0.5}


def test_a_vote_is_the_mean_of_two():
    class One:
        def __init__(self, value):
            self.value = value

        def fit(self, X, y):
            return self

        def predict(self, X):
            return np.full(len(X), self.value)

    both = beside.Together(One(1.0), One(3.0)).fit([], [])

    assert both.predict([0, 0]).tolist() == [2.0, 2.0]
    assert not hasattr(both, "predict_proba")


def test_a_share_of_labels_is_wrong():
    labels = ["a", "b", "c"] * 20
    rows = wrong_labels(0.3)((X, labels, X, labels), seed=0)

    assert sum(one != other for one, other in zip(labels, rows[1], strict=True)) == 18
    assert set(rows[1]) == set(labels)
    assert rows[3] == labels


# ---- scores ------------------------------------------------------------------


def records(accuracies, **cell):
    where = {"task": "quotes", "size": 200, "seed": 0, **cell}
    return [{"setting": n, "accuracy": a, **where} for n, a in accuracies.items()]


def test_ranks_gaps_and_means():
    found = [
        *records({"ours": 0.5, "tfidf": 0.7, "embeddings": 0.5}),
        *records({"ours": 0.9}, seed=1),  # not measured for the others
        *records({"ours": 0.9, "tfidf": 0.8, "embeddings": 0.7}, size=1000),
        *records({"ours": 0.9}, size=4000),  # not complete
    ]
    summary = summarise(found)

    assert summary["complete"] == [("quotes", 200), ("quotes", 1000)]
    assert summary["cells"]["quotes", 200]["ours"] == 0.5  # the seed of all
    assert summary["rank"] == {None: {"ours": 1.75, "embeddings": 2.75, "tfidf": 1.5}}
    assert summary["gap"]["ours"] == pytest.approx(0.2)
    equal = records({"ours": 0.66, "full": 0.632}, seed=0)
    equal += records({"ours": 0.66, "full": 0.688}, seed=1)
    assert summarise(equal)["rank"] == {200: {"ours": 1.5, "full": 1.5}}


def test_how_far_ours_is_ahead():
    found = [
        *records({"ours": 0.7, "full": 0.6}),
        *records({"ours": 0.8, "full": 0.9}, size=1000),
        *records({"ours": 0.8, "full": 0.7}, size=4000),
    ]
    other = records({"ours": 0.7, "tfidf": 0.6})
    some = {"splits": "some", "kept_as": "cpu-some"}
    page = ahead_to_markdown([(some, found), ({"kept_as": "cpu"}, other)])

    assert page.splitlines() == [
        "| ours beside | some: 200 rows (1 task) | some: more rows (1 task) "
        "| splits of cpu (1 task) |",
        "| --- | --- | --- | --- |",
        "| `full` | +10.0, 1/1 | +0.0, 1/2 | - |",
        "| `tfidf` | - | - | +10.0, 1/1 |",
    ]


# ---- mixed tables ------------------------------------------------------------


def test_scores_on_tables_beside_the_recipe():
    cost = {"fit_cpu": 2.0, "predict_cpu": 0.5}
    of_classes = records({tables.FROZEN: 0.5, "table": 0.7}, **cost, log_loss=0.25)
    of_numbers = [
        {**record, "r2": record.pop("accuracy")}
        for record in records({tables.FROZEN: 0.6, "table": 0.5}, task="films", **cost)
    ]
    page = tables.to_markdown(STUDIES["tables"], {}, of_classes + of_numbers)

    assert "| films | 200 | 1 | **0.600** | 0.500 |" in page
    assert "| **worst gap, points** | all |  | 20.0 | 10.0 |" in page
    assert "| **better than frozen + trees** | all |  | 0/2 | 1/2 |" in page
    assert "| **CPU seconds, fit** | all |  | 2.0 | 2.0 |" in page
    assert page.endswith("| quotes | 200 | 0.250 | 0.250 |")


def test_tables_of_a_file_of_movies(tmp_path, capsys):
    film = {"Title": "Heat", "US Gross": 1000, "Worldwide Gross": 2000}
    film |= {"US DVD Sales": None, "Major Genre": "Drama", "Director": "Michael Mann"}
    films = [{**film, "Title": f"Heat {i}"} for i in range(30)]
    rare = {**film, "Title": 300, "US Gross": 0, "Major Genre": "Western"}
    file = tmp_path / "movies.json"
    file.write_text(json.dumps([*films, films[0], rare]), encoding="utf-8")
    options = SimpleNamespace(data=None, movies=str(file))
    gross, genres = tables.load(["gross", "genres"], options).values()

    assert list(gross.texts) == ["Title", "Major Genre", "Director"]
    assert gross.labels.tolist() == [3.0] * 30
    assert list(genres.texts) == [name for name in film if name != "Major Genre"]
    assert genres.labels == ["Drama"] * 30
    options.movies = ""
    assert tables.load(["gross", "genres"], options) == {}
    assert "Without --movies, gross and genres are left out" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"must be one of wines_pl, .* Got 'poems'"):
        tables.load(["poems"], options)


# ---- timings and measurements ------------------------------------------------


@pytest.mark.parametrize("name", list(TIMINGS))
def test_a_timing_runs(name, run, monkeypatch, tmp_path):
    if name == "latency":
        pytest.importorskip("peft")
        task = data.Task("quotes", [f"{x} {i}" for i, x in enumerate(X * 20)], Y * 20)
        monkeypatch.setattr(timings, "load_task", lambda name: task)

    assert "Milliseconds" in run(name, "--quick", mine=False)
    (record,) = results.read(tmp_path / "quick" / f"{name}-cpu.jsonl")[1]
    assert all(seconds > 0 for seconds in record["seconds"].values())


@pytest.mark.parametrize("what", ["step", "operations", "profile", "speed", "memory"])
def test_a_measurement_runs_and_becomes_a_part_of_a_page(
    what, run, monkeypatch, tmp_path
):
    """Without processes, which the slow test of the worker has."""
    skip_without("peft-tuned")

    def in_this_process(job, **given):
        return worker.JOBS[job](**given)

    for module in (speed, memory):
        monkeypatch.setattr(module, "run_job", in_this_process)
    beside = ["--contestants", "peft-tuned"] if what in ("speed", "memory") else []
    printed = run(what, "--quick", *beside, mine=what in ("profile", "speed"))

    (found,) = results.find(tmp_path / "quick", what)
    assert report.WRITERS[what](*found) in printed
    main(["report", "--results", str(tmp_path / "quick")])
    page = (tmp_path / "quick" / "RESULTS.md").read_text("utf-8")
    assert report.WRITERS[what](*found) in page
    assert page.count("Not measured yet") == len(report.WRITERS) - 1
    with pytest.raises(ValueError, match="must have the lines"):
        report.fill("no marks", tmp_path)


def test_ratios_are_ours_by_theirs():
    def row(contestant, precision, seconds, accuracy):
        measured = dict.fromkeys(speed._MEASURED, seconds)
        found = {"contestant": contestant, "precision": precision, "bytes_before": 1}
        return {**found, **measured, "accuracies": [accuracy]}

    compared = speed.ratios(
        [
            row("ours", "float32", 4.0, 0.8),
            row("ours", "bfloat16", 2.0, 0.7),
            row("peft-adalora", "float32", 10.0, 0.75),
            row("peft-adalora", "bfloat16", 5.0, 0.75),
        ],
        "bfloat16",
    )

    assert [ratio["fit_wall"] for ratio in compared] == [0.2, 0.4, 0.4]
    assert compared[1]["accuracy"] == pytest.approx(0.05)


@pytest.mark.slow  # a process of its own has to import torch
def test_a_worker_says_why_it_fails(monkeypatch):
    monkeypatch.setenv("PYTHON_COLORS", "0")
    with pytest.raises(RuntimeError, match=r"Got exit code 1(.|\n)*KeyError: 'poems'"):
        worker.run_job(job="poems")


def test_the_peak_of_a_process_is_its_own():
    """Linux counts that of the process that started it, which may hold a large file."""
    program = "from benchmarks.timing import peak_bytes; print(peak_bytes())"

    assert int(run_python(program, cwd=ROOT).stdout) < 1e8  # torch is in this one


def test_contestants_take_turns():
    seen = []

    def called(name):
        return lambda turn: seen.append((turn, name)) or turn

    taken = timing.take_turns({"a": called("a"), "b": called("b")}, 2, warm_ups=1)

    assert seen == [(-1, "b"), (-1, "a"), (0, "a"), (0, "b"), (1, "b"), (1, "a")]
    assert taken == {"a": [0, 1], "b": [0, 1]}


def test_the_profile_sees_every_part(tiny_model):
    measured = parts_of_a_fit.measure(X, Y, X, settings(tiny_model, epochs=3))

    names = {name for *_, name in parts_of_a_fit.PARTS} | {parts_of_a_fit.REST}
    assert set(measured["fit"]) == names - {"reading the model"} | (
        measured["fit"].keys() & {"reading the model"}  # it may be in memory
    )
    assert set(measured["predict"]) == {"tokenising", "forward", parts_of_a_fit.REST}


def test_operations_of_a_step(tiny_model):
    pytest.importorskip("peft")
    counted = {}
    for name in STEPS:
        step = make_step(name, 4, 8, resolve_compute("cpu", "float32"), tiny_model)
        step()
        counted[name] = operations.count(step, CPU)["operations"]

    assert 0 < counted["floor"] < counted["ours"] < counted["peft-adalora"]
    assert counted["ours"] <= 1.1 * counted["peft-lora"]
    with torch.no_grad():
        simple = operations.count(lambda: torch.ones(3).sum().item(), CPU)
    assert (simple["waits"], simple["outermost"]) == (1, 3)  # ones, sum, item


@pytest.mark.parametrize("name", memory.CONTESTANTS)
def test_a_fit_stops_after_some_steps(name, tiny_model):
    skip_without(name)
    texts, labels = memory.make_texts(40)

    assert len(set(texts)) == 40
    assert memory.fit_some_steps(name, texts, labels, settings(tiny_model), 3) == 3


# ---- contestants -------------------------------------------------------------


@pytest.mark.parametrize("name", list(CONTESTANTS))
def test_contestants_fit_and_predict(name, tiny_model):
    skip_without(name)
    predicted = fit(name, X, Y, settings(tiny_model)).predict(X[:5])

    assert len(predicted) == 5
    assert set(predicted) <= set(Y)


@pytest.mark.parametrize("name", ["embeddings", "tfidf"])
def test_linear_contestants_learn_numbers(name, tiny_model):
    texts, signs = toy(60)
    learned = fit(name, texts, signs.astype(float), settings(tiny_model))

    assert np.corrcoef(learned.predict(texts), signs)[0, 1] > 0.5


def test_the_callback_brings_peft_to_its_target_rank(tiny_model):
    skip_without("peft-adalora")
    from benchmarks.huggingface import INIT_R, TARGET_R

    model = fit("peft-adalora", X, Y, settings(tiny_model)).trainer.model
    values = [p for name, p in model.named_parameters() if "lora_E" in name]

    assert {v.numel() for v in values} == {INIT_R}
    living = sum(int(v.count_nonzero()) for v in values)
    assert living == TARGET_R * len(values)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_tuned_peft_computes_in_one_precision(precision, tiny_model, monkeypatch):
    """Its updates, which PEFT would compute in float32, included."""
    skip_without("peft-tuned")
    from peft.tuners.adalora import SVDLinear

    dtypes, forward = set(), SVDLinear.forward

    def watched(layer, x, *args, **kwargs):
        out = forward(layer, x, *args, **kwargs)
        dtypes.update({x.dtype, layer.get_base_layer().weight.dtype, out.dtype})
        return out

    monkeypatch.setattr(SVDLinear, "forward", watched)
    fit("peft-tuned", X, Y, settings(tiny_model, precision=precision))

    assert dtypes == {getattr(torch, precision)}


def test_mean_pooling_is_for_those_whose_dropout_has_known_names(
    tiny_model, tiny_architecture, tmp_path
):
    skip_without("peft-tuned")
    tiny_architecture("distilbert").save_pretrained(tmp_path)
    other = str(tmp_path)

    with pytest.raises(ValueError, match=r"bert, mpnet\. .* type distilbert\. Leave"):
        fit("peft-tuned", X, Y, settings(other))
    assert steps_of(tiny_model) == list(STEPS)
    assert steps_of(other) == [name for name in STEPS if name != "peft-tuned"]


# ---- data --------------------------------------------------------------------


def test_splits_are_stratified_disjoint_and_nested():
    labels = ["many" if i % 3 else "few" for i in range(300)]
    task = data.Task("made up", [f"text {i}" for i in range(300)], labels)
    label_of = dict(zip(task.texts, task.labels, strict=True))
    X_train, y_train, X_test, y_test = data.split(task, 60, 90, seed=0)

    assert (len(X_train), len(X_test)) == (60, 90)
    assert not set(X_train) & set(X_test)
    assert abs(Counter(y_train)["few"] - 20) <= 1
    assert [label_of[x] for x in X_train + X_test] == y_train + y_test
    larger = data.split(task, 1000, 90, seed=0)
    assert larger[2:] == (X_test, y_test)
    assert set(X_train) < set(larger[0])
    with pytest.raises(ValueError, match="`n_test` must be below the 300 rows"):
        data.split(task, 10, 300, seed=0)


def test_a_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text('words,kind\n"good, very",yes\nbad,no\n bad,yes\n', "utf-8-sig")

    task = data.load_csv(file, "words", "kind")

    assert task == data.Task("mine", ["good, very", "bad"], ["yes", "no"])
    assert data.digest(task) != data.digest(data.Task("x", ["bad"], ["no"]))
    with pytest.raises(ValueError, match=r"Got 'word'\. Choose among words, kind"):
        data.load_csv(file, "word", "kind")
    for row, message in (("bad,", "a label. Got none"), ("so,so,no", "Got more")):
        file.write_text(f"words,kind\n{row}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            data.load_csv(file, "words", "kind")


@pytest.mark.parametrize(
    ("name", "n_rows"),
    [
        *(("headlines", 2096), ("articles", 2127), ("quotes", 4863)),
        *(("newsgroups", 18787), ("films", 15591)),
        *(
            ("year", None),
            ("twelve numbers", None),
            ("quickstart", 2225),
            ("five groups", None),
        ),
    ],
)
def test_tasks_out_of_packages(name, n_rows):
    try:
        task = data.load_task(name)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))

    assert len(task.texts) == len(task.labels) == (n_rows or len(task.texts))
    rows = data.split(task, 20, 30, seed=0)
    assert [len(part) for part in rows] == ([20, 20, 30, 30])


def test_public_data_sets_become_files_for_a_study(tmp_path, capsys):
    written = {
        "questions": [b"0 Why ?\n1 Who said it ?\n", b"0 How ?\n1 Who said it ?\n"],
        "messages": [b"ham\tsee you\x0bsoon\nspam\twin\ta prize\n"],
        "abuse": [b',count,class,tweet\n0,3,2,"hi, you"\n'],
        "intents": [b'{"train": [["a", "x"]], "val": [], "test": [["b", "x"]]}'],
    }
    for name, contents in written.items():
        folder, paths, _ = public_data.HOSTED[name]
        for path, content in zip(paths, contents, strict=True):
            (tmp_path / folder / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / path).write_bytes(content)
    options = {"folder": tmp_path / "out", "base": tmp_path.as_uri()}

    public_data.main(SimpleNamespace(**options, only=list(written)))

    tasks = [data.load_task(name, tmp_path / "out") for name in written]
    assert [(task.texts, task.labels) for task in tasks] == [
        (["Why ?", "Who said it ?", "How ?"], ["0", "1", "0"]),
        (["see you\x0bsoon", "win\ta prize"], ["ham", "spam"]),
        (["hi, you"], ["2"]),
        (["a", "b"], ["x", "x"]),
    ]
    row = f"| questions | 3 | 2 | 0.667 | 1 | {data.digest(tasks[0])} |"
    assert row in capsys.readouterr().out
    with pytest.raises(OSError, match=r"subj\.all must be reachable\. .* --base"):
        public_data.main(SimpleNamespace(**options, only=["subjectivity"]))


def test_rows_that_splits_share(monkeypatch, capsys):
    labels = ["a", "a", "b", "a"] * 10
    task = data.Task("mine", [f"text {i}" for i in range(40)], labels)
    monkeypatch.setattr(overlap, "load_task", lambda name: task)
    monkeypatch.setattr(overlap, "TUNING", {0: 10})
    monkeypatch.setattr(overlap, "CHOSEN_ON", {0: 10, 1: 39})
    monkeypatch.setattr(overlap, "OTHER", {0: 20})
    overlap.main(SimpleNamespace(tasks=["mine"]))

    assert "| mine | 50% | 100% | 0.750 |" in capsys.readouterr().out
