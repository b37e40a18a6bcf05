"""The benchmarks measure what they say: readers, contestants, sums and the page."""

import bz2
import functools
import importlib
import json
import re
import subprocess
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from _benchmarks import ROOT
from _toy import make as make_classifier
from _toy import topics, toy
from sklearn.ensemble import VotingClassifier
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, LabelEncoder

from benchmarks import data, memory, report, results, score, speed, time_profile
from benchmarks.__main__ import (
    _WITH_OPTIONS,
    MEASUREMENTS,
    SCRIPTS,
    complete,
    main,
    make_parser,
)
from benchmarks.arguments import without_results
from benchmarks.contestants import CONTESTANTS, Settings, fit
from benchmarks.operations import count
from benchmarks.steps import STEPS, make_step, make_tokens, steps_of
from benchmarks.timing import Stopwatch, run_job, seconds_of, take_turns
from sk_adalora import AdaLoraClassifier, AdaLoraRegressor, _devices
from sk_adalora._devices import resolve_place

X, Y = topics(24)
X, Y = list(X), [str(y) for y in Y]
# `defaults` compares our own settings, on a page of its own.
COMPARISONS = [what for what in MEASUREMENTS if what != "defaults"]
CPU = torch.device("cpu")


def settings(tiny_model, **changed):
    given = {"epochs": 2, "batch_size": 4, "max_length": 32, "device": "cpu"}
    return Settings(**{**given, "model": tiny_model, **changed})


# ---- data --------------------------------------------------------------------


def make_task(n_rows=300):
    labels = ["many" if i % 3 else "few" for i in range(n_rows)]
    return data.Task("made up", [f"text {i}" for i in range(n_rows)], labels)


def test_a_split_is_stratified_and_disjoint():
    X_train, y_train, X_test, y_test = data.split(make_task(), 60, 90, seed=0)

    assert (len(X_train), len(X_test)) == (60, 90)
    assert not set(X_train) & set(X_test)
    assert abs(Counter(y_train)["few"] - 20) <= 1
    assert abs(Counter(y_test)["few"] - 30) <= 1


def test_sizes_share_their_test_rows_and_are_nested():
    small, large = (data.split(make_task(), n, 90, seed=1) for n in (30, 1000))

    assert small[2:] == large[2:]
    assert set(small[0]) < set(large[0])
    assert len(large[0]) == 300 - 90  # all that is left
    assert data.split(make_task(), 30, 90, seed=2)[2] != small[2]


def test_rows_keep_their_labels():
    task = make_task()
    label_of = dict(zip(task.texts, task.labels, strict=True))
    X_train, y_train, X_test, y_test = data.split(task, 60, 90, seed=0)

    assert [label_of[x] for x in X_train + X_test] == y_train + y_test


def test_a_split_without_rows_to_learn_from_is_refused():
    with pytest.raises(ValueError, match="`n_test` must be below the 300 rows"):
        data.split(make_task(), 10, 300, seed=0)


def test_a_task_has_each_text_once():
    task = data.Task("made up", ["a", " ", "b", "a "], ["1", "2", "3", "4"])

    assert (task.texts, task.labels) == (["a", "b"], ["1", "3"])


def test_a_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text('words,kind\n"good, very",yes\nbad,no\n', encoding="utf-8")

    task = data.load_csv(file, "words", "kind")

    assert task == data.Task("mine", ["good, very", "bad"], ["yes", "no"])
    with pytest.raises(ValueError, match=r"Got 'word'\. Choose among words, kind"):
        data.load_csv(file, "word", "kind")


def test_a_file_as_excel_writes_it(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("words,kind\ngood,yes\n", encoding="utf-8-sig")

    assert data.load_csv(file, "words", "kind").texts == ["good"]


@pytest.mark.parametrize("row", ["bad", "bad,"])
def test_a_row_of_a_file_without_a_label_is_refused(row, tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(f'words,kind\n"good,\nvery",yes\n{row}\n', encoding="utf-8")

    with pytest.raises(ValueError, match=r"must have a label\. .* ends on line 4\."):
        data.load_csv(file, "words", "kind")


def test_a_digest_tells_data_apart():
    task = data.Task("mine", ["a", "b"], ["1", "2"])

    assert data.digest(task) == data.digest(data.Task("its", ["a", "b"], ["1", "2"]))
    for changed in (["a", "c"], ["1", "2"]), (["a", "b"], ["1", "1"]):
        assert data.digest(data.Task("mine", *changed)) != data.digest(task)


@pytest.mark.parametrize(
    ("name", "n_rows", "n_classes"),
    [
        ("headlines", 2096, 5),
        ("articles", 2127, 5),
        ("quotes", 4863, 2),
        ("newsgroups", 18787, 20),
        ("films", 15591, 10),
    ],
)
def test_tasks_out_of_packages(name, n_rows, n_classes):
    try:
        task = data.load_task(name)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))

    assert len(task.texts) == n_rows
    assert len(set(task.labels)) == n_classes
    assert all(isinstance(text, str) and text for text in task.texts)


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    for name in data.TASKS:
        with pytest.raises(ModuleNotFoundError, match=r"Run: pip install \S+"):
            data.load_task(name)
    with pytest.raises(ValueError, match="must be one of headlines"):
        data.load_task("poems")


def test_quotes_leave_out_the_plots(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    rows = "category,text\nfresh,good\nplot,A story\nrotten,bad\n"
    packed = bz2.compress(rows.encode())
    (tmp_path / "data" / "rotten_tomatoes_corpus.csv.bz2").write_bytes(packed)
    monkeypatch.setattr(data, "installed", lambda *names: tmp_path)

    assert data.read_quotes() == (["good", "bad"], ["fresh", "rotten"])


def test_public_data_sets_become_files_for_data(tmp_path, monkeypatch, capsys):
    from benchmarks import public_data

    def put(repository, path, content):
        file = tmp_path / repository / public_data.COMMITS[repository] / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    sentences = public_data.SENTENCES
    put(sentences, "data/TREC.train.all", b"0 Why ?\n1 Who said it ?\n")
    put(sentences, "data/TREC.test.all", b"0 How ?\n1 Who said it ?\n")
    put(sentences, "data/subj.all", b"0 a plot\n1 it is caf\xe9\n")
    news = b'"3","Stocks, up","They\nrose"\n'
    put("mhjabreel/CharCnn_Keras", "data/ag_news_csv/test.csv", news)
    messages = b"ham\tsee you\x0bsoon\nspam\twin\ta prize\n"
    put("justmarkham/pycon-2016-tutorial", "data/sms.tsv", messages)
    tweets = b',count,class,tweet\n0,3,2,"hi, you"\n'
    put(
        "t-davidson/hate-speech-and-offensive-language", "data/labeled_data.csv", tweets
    )
    for part in ("train", "test"):
        rows = f"text,category\nmy card {part},arrival\n".encode()
        file = f"banking_data/{part}.csv"
        put("PolyAI-LDN/task-specific-datasets", file, rows)
    parts = {part: [[f"what {part}", "ask"]] for part in ("train", "val", "test")}
    intents = json.dumps({**parts, "oos_train": [["no", "oos"]]}).encode()
    put("clinc/oos-eval", "data/data_full.json", intents)
    (tmp_path / "datasets").mkdir()
    tab = "Is retweet\tAuthor\tContent\n\n\nFalse\tA\tmine\nTrue\tB\tyours\n"
    (tmp_path / "datasets" / "election-tweets-2016.tab").write_text(tab, "utf-8")
    for part in ("train", "test"):
        tab = f"Category\tText\nd\ts\nclass\t\nearn\tup {part}\n"
        (tmp_path / "datasets" / f"reuters-r8-{part}.tab").write_text(tab, "utf-8")
    monkeypatch.setattr(public_data, "installed", lambda *names: tmp_path)

    public_data.main([str(tmp_path / "out"), "--base", tmp_path.as_uri()])

    written = {
        name: data.load_csv(tmp_path / "out" / f"{name}.csv", "text", "label")
        for name in public_data.READERS
    }
    rows = {name: [*task.texts, *task.labels] for name, task in written.items()}
    assert rows == {
        "tweets": ["mine", "A"],
        "newswire": ["up train", "up test", "earn", "earn"],
        "questions": ["Why ?", "Who said it ?", "How ?", "0", "1", "0"],
        "subjectivity": ["a plot", "it is caf\ufffd", "0", "1"],
        "news": ["Stocks, up\nThey\nrose", "3"],
        "messages": ["see you\x0bsoon", "win\ta prize", "ham", "spam"],
        "abuse": ["hi, you", "2"],
        "banking": ["my card train", "my card test", "arrival", "arrival"],
        "intents": ["what train", "what val", "what test", "ask", "ask", "ask"],
    }
    nowhere = ["--base", (tmp_path / "nowhere").as_uri()]
    with pytest.raises(OSError, match=r"subj\.all must be reachable\. .* --base"):
        public_data.main([str(tmp_path), "--only", "subjectivity", *nowhere])
    assert not (tmp_path / "subjectivity.csv").exists()
    printed = capsys.readouterr().out
    digest = data.digest(written["questions"])
    assert f"| questions | 3 | 2 | 0.667 | 1 | {digest} |" in printed


# ---- contestants -------------------------------------------------------------


@pytest.mark.parametrize("name", list(CONTESTANTS))
def test_contestants_fit_and_predict(name, tiny_model):
    if name.startswith("peft"):
        pytest.importorskip("peft")
    if name.startswith("peft") or name == "full":
        pytest.importorskip("accelerate")
    if name in ("skorch", "setfit"):
        pytest.importorskip(name)

    predicted = fit(name, X, Y, settings(tiny_model)).predict(X[:5])

    assert len(predicted) == 5
    assert set(predicted) <= set(Y)


def test_the_full_contestant_learns_what_it_sees(tiny_model):
    pytest.importorskip("accelerate")
    eager = settings(tiny_model, epochs=40, learning_rate=5e-3)

    predicted = fit("full", X, Y, eager).predict(X)

    assert predicted == Y


def test_the_callback_brings_peft_to_its_target_rank(tiny_model):
    pytest.importorskip("peft")
    from benchmarks.huggingface import INIT_R, TARGET_R

    predictor = fit("peft-adalora", X, Y, settings(tiny_model))
    parameters = predictor.model.named_parameters()
    values = [p for name, p in parameters if "lora_E" in name]

    assert {v.numel() for v in values} == {INIT_R}
    living = sum(int(v.count_nonzero()) for v in values)
    assert living == TARGET_R * len(values)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_tuned_peft_computes_in_one_precision(precision, tiny_model, monkeypatch):
    """Its updates, which PEFT would compute in float32, included."""
    pytest.importorskip("peft")
    pytest.importorskip("accelerate")
    from peft.tuners.adalora import SVDLinear

    dtypes, forward = set(), SVDLinear.forward

    def watched(layer, x, *args, **kwargs):
        out = forward(layer, x, *args, **kwargs)
        dtypes.update({x.dtype, layer.get_base_layer().weight.dtype, out.dtype})
        return out

    monkeypatch.setattr(SVDLinear, "forward", watched)
    fit("peft-tuned", X, Y, settings(tiny_model, precision=precision))

    assert dtypes == {getattr(torch, precision)}


def test_mean_pooling_is_for_berts(tiny_model, tiny_architecture, tmp_path):
    pytest.importorskip("peft")
    tiny_architecture("distilbert").save_pretrained(tmp_path)
    other = str(tmp_path)

    with pytest.raises(ValueError, match=r"a BERT\. .*'distilbert'\. Leave peft-tu"):
        fit("peft-tuned", X, Y, settings(other))
    assert steps_of(tiny_model) == list(STEPS)
    assert steps_of(other) == [name for name in STEPS if name != "peft-tuned"]


def test_trainer_takes_one_card_of_several(tiny_model, monkeypatch):
    """As ours does; each of them would get a batch of its own."""
    pytest.importorskip("accelerate")
    from transformers import TrainingArguments

    from benchmarks.huggingface import _arguments

    begin = TrainingArguments.__post_init__

    def on_two_cards(self):
        begin(self)
        self._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", on_two_cards)
    arguments = _arguments("full", settings(tiny_model), "unused", by_length=False)

    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 4)


def test_contestants_are_named():
    with pytest.raises(ValueError, match="must be one of ours, peft-adalora"):
        fit("theirs", X, Y, Settings())


# ---- measuring ---------------------------------------------------------------


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


def test_reads_of_the_optimizer_are_no_waits():
    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], fused=True)

    def step():
        (weight.sum() * 2).backward()
        optimizer.step()
        weight.sum().item()

    assert count(step, torch.device("cpu"))["waits"] == 1


def operations(name, tiny_model):
    step = make_step(name, 4, 8, resolve_place("cpu", "float32"), tiny_model)
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
    step = make_step("floor", 4, 8, resolve_place("cpu", "float32"), tiny_model)
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
    place = resolve_place("cpu", precision)

    make_step("floor", 4, 8, place, tiny_model)

    assert [settings.place for settings in given] == [place]


@pytest.mark.parametrize("name", memory.CONTESTANTS)
def test_a_fit_stops_after_some_steps(name, tiny_model):
    if name != "ours":
        pytest.importorskip("peft")
    texts, labels = memory.make_texts(40)

    assert len(set(texts)) == 40
    assert memory.fit_some_steps(name, texts, labels, settings(tiny_model), 3) == 3


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


def test_a_worker_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"Got exit code 1(.|\n)*KeyError: 'poems'"):
        run_job({"kind": "poems"})


# ---- summing up --------------------------------------------------------------


def test_ratios_are_ours_by_theirs():
    def row(contestant, precision, seconds, accuracy):
        measured = dict.fromkeys(speed._MEASURED, seconds)
        found = {"contestant": contestant, "precision": precision}
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


def records(accuracies, **cell):
    where = {"task": "quotes", "size": 200, "seed": 0, **cell}
    return [{"contestant": n, "accuracy": a, **where} for n, a in accuracies.items()]


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
    def record(contestant, seed, accuracy):
        return {
            "contestant": contestant,
            "task": "quotes",
            "size": 200,
            "seed": seed,
            "accuracy": accuracy,
        }

    found = [record("ours", 0, 0.7), record("ours", 1, 0.6), record("full", 0, 0.6)]
    more = [*found, record("full", 1, 0.63), record("tfidf", 2, 0.9)]
    page = score.ahead_to_markdown(
        [{"records": more, "splits": "some"}, {"records": found}]
    )

    assert page.splitlines() == [
        "| ours beside | some | all splits |",
        "| --- | --- | --- |",
        "| `full` | +3.5 (1 task), higher on 1 of 2 "
        "| +10.0 (1 task), higher on 1 of 1 |",
        "| `tfidf` | - | - |",
    ]


def test_how_far_ours_is_ahead_is_a_mean_over_tasks():
    found = [
        *records({"ours": 0.7, "full": 0.5}),
        *records({"ours": 0.7, "full": 0.4}, seed=1),
        *({**r, "task": "films"} for r in records({"ours": 0.3, "full": 0.4})),
    ]
    page = score.ahead_to_markdown([{"records": found, "splits": "some"}])

    assert "| +7.5 (2 tasks), higher on 2 of 3 |" in page


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


def test_a_smoke_test_keeps_what_was_measured(run_score, monkeypatch):
    run_score("--contestants", "tfidf")
    before = (run_score.results / "score-cpu.jsonl").read_bytes()
    # It takes more rows than there are here.
    monkeypatch.setattr(score, "quicken", lambda options: None)

    for _ in range(2):  # it measures everything again
        assert run_score("--contestants", "tfidf", "--quick") == ["tfidf"]
    assert (run_score.results / "score-cpu.jsonl").read_bytes() == before


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
        "| ours beside | some: 200 rows | some: more rows | others |",
        "| --- | --- | --- | --- |",
        "| `full` | +10.0 (1 task), higher on 1 of 1 | "
        "+0.0 (1 task), higher on 1 of 2 | - |",
        "| `tfidf` | - | - | +10.0 (1 task), higher on 1 of 1 |",
    ]


def test_columns_of_several_results_have_names_of_their_own(run_score):
    for more in ([], ["--name", "other"]):
        run_score("--contestants", "ours", "tfidf", *more)

    found = results.read(run_score.results, "score")
    first, other = score.ahead_to_markdown(found).splitlines()[0].split(" | ")[1:]
    assert (first, other) == ("all splits, cpu", "all splits, cpu-other |")


def test_scores_say_on_which_machines():
    found = [
        *({**r, "machine": "A"} for r in records({"ours": 0.9, "tfidf": 0.8})),
        *({**r, "machine": "B"} for r in records({"ours": 0.9}, seed=1)),
    ]

    assert "Of the fits, 2 on A; 1 on B." in score.to_markdown({"records": found})


def test_scores_of_other_settings_do_not_mix(run_score):
    run_score("--contestants", "ours")
    with pytest.raises(ValueError, match=r"epochs=7 after \d+ of ours"):
        run_score("--contestants", "ours", "--epochs", "7")
    with pytest.raises(ValueError, match=r"learning_rate=0\.5 after"):
        run_score("--contestants", "ours", "--learning-rate", "ours=0.5")


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
    [(400, [], 100), (5000, [], 1000), (400, ["--n-test", "30"], 30)],
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
def test_the_readme_documents_each_option_of_a_script(what, capsys):
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    _, _, page = page.partition("The scripts run with one command")
    script = importlib.import_module(f"benchmarks.{Path(SCRIPTS[what]).stem}")

    with pytest.raises(SystemExit):
        script.main(["--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}

    assert f"`{what}`" in page
    assert options
    assert {option for option in options if f"`{option}`" not in page} == set()


# ---- the page ----------------------------------------------------------------


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
    assert "| `tfidf` | -20.0 (1 task), higher on 0 of 1 |" in filled
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
    folder = tmp_path / "quick"
    folder.mkdir()
    text = json.dumps({**line, "accuracy": 0.5, "log_loss": 1.0})
    (folder / "defaults-cpu.jsonl").write_text(text + "\n", encoding="utf-8")
    command = ["defaults", "--quick", "--device", "cpu", "--results", str(tmp_path)]

    with pytest.raises(ValueError, match=r"Got n_test=60 after 600\. Name another"):
        main(command)


# ---- scripts -----------------------------------------------------------------


@pytest.fixture
def scripts_environment(monkeypatch):
    """What the scripts set when they are imported is forgotten after the test."""
    for variable in ("HF_HUB_OFFLINE", "OMP_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")


@pytest.mark.usefixtures("scripts_environment")
def test_numbers_of_steps_become_epochs_of_few_rows(monkeypatch, capsys):
    from benchmarks import few_rows

    measured = []

    def measure(name, rows, epochs, seed):
        measured.append((name, seed, epochs))
        return epochs / 100, 1.0

    monkeypatch.setattr(few_rows, "measure", measure)
    monkeypatch.setattr(data, "load_task", lambda name: None)
    monkeypatch.setattr(data, "split", lambda *args: None)
    few_rows.main(["--sizes", "40", "200"])

    of_headlines = [
        e for name, seed, e in measured if (name, seed) == ("headlines", 40)
    ]
    assert of_headlines == [10, 16, 32, 48, 10, 14]  # 2 and 7 steps an epoch
    table = capsys.readouterr().out
    assert "| films | 40 | 0.100 / 1.00 | 0.160 / 1.00 | 0.320 / 1.00 |" in table
    assert "| films | 200 | 0.100 / 1.00 | 0.100 / 1.00 | 0.100 / 1.00 |" in table
    assert "| newsgroups | 40 |" not in table


@pytest.mark.usefixtures("scripts_environment")
def test_ways_to_deal_rows_into_batches(monkeypatch, capsys):
    from benchmarks import grouping

    tokens = make_tokens(33, 4)
    tokens = replace(tokens, stops=tokens.starts + 1 + np.arange(33) % 4)
    longest = tokens.lengths == 4
    sizes = {}
    for way, deal in grouping.WAYS.items():
        batches = deal(tokens, 32, torch.Generator().manual_seed(0))
        assert sorted(np.concatenate(batches)) == list(range(33))
        sizes[way] = sorted(map(len, batches))
        rest = min(batches, key=len)
        assert longest[rest].all() == (way == "full")
    assert sizes == {"equal": [16, 17], "full": [1, 32], "mixed": [16, 17]}

    found = {
        "equal": (0.5, 1.0, 2.0),
        "full": (0.4, 1.5, 2.0),
        "mixed": (0.6, 1.0, 3.0),
    }
    monkeypatch.setattr(grouping, "measure", lambda n, r, s, way, **_: found[way])
    monkeypatch.setattr(data, "load_task", lambda name: None)
    monkeypatch.setattr(data, "split", lambda *args: None)
    grouping.main(["--sizes", "33"])
    table = capsys.readouterr().out
    row = "| 33 | 4 | 0.500 / 1.00 | 0.400 / 1.50 | 0.600 / 1.00 | 1.50 |"
    assert f"| quotes {row}" in table
    assert "newsgroups" not in table


@pytest.mark.usefixtures("scripts_environment")
def test_features_of_another_size(monkeypatch, capsys, tiny_model):
    from benchmarks import feature_sizes

    texts, signs = toy(120)
    learners = []

    def small(estimator):
        def make(**options):
            learners.append(estimator(tiny_model, epochs=4, **options))
            return learners[-1]

        return make

    monkeypatch.setattr(feature_sizes, "N_TRAIN", 30)
    monkeypatch.setattr(feature_sizes, "N_TEST", 30)
    monkeypatch.setattr(feature_sizes, "FACTORS", [1, 100])
    numbers = dict.fromkeys(feature_sizes.NUMBERS, (texts, signs.astype(float)))
    monkeypatch.setattr(feature_sizes, "read_targets", lambda: numbers)
    task = data.Task("toy", texts, [str(sign) for sign in signs])
    monkeypatch.setattr(feature_sizes, "load_task", lambda name: task)
    for name in ("AdaLoraRegressor", "AdaLoraClassifier"):
        own = getattr(feature_sizes, name)
        monkeypatch.setattr(feature_sizes, name, small(own))
    feature_sizes.main()

    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    cells = [line[2:] for line in lines if line[1:2] == ["standardised"]]
    assert len(cells) == 4
    losses = [learner.history_.loss[-1] for learner in learners]
    for first in range(0, 16, 4):
        one, other, as_it_is, longer = losses[first : first + 4]
        assert one == pytest.approx(other, rel=1e-2)
        assert as_it_is != pytest.approx(longer, rel=1e-2)


@pytest.mark.usefixtures("scripts_environment")
def test_points_of_an_interpolation_are_columns(monkeypatch, capsys):
    from benchmarks import interpolation

    found = {share: (share / 2, 1 - share / 2) for share in interpolation.SHARES}
    monkeypatch.setattr(interpolation, "measure", lambda name, rows, seed: found)
    monkeypatch.setattr(data, "load_task", lambda name: None)
    monkeypatch.setattr(data, "split", lambda *args: None)
    interpolation.main(["--sizes", "1000"])

    table = capsys.readouterr().out
    row = "| 0.000 / 1.00 | 0.250 / 0.75 | 0.350 / 0.65 | 0.425 / 0.57 | 0.500 / 0.50 |"
    assert f"| films | 1,000 | 1 {row}" in table
    assert "articles" not in table


def test_what_the_page_counts_on_the_other_splits():
    """Sentences on `peft-tuned` that no table has: they are about these results."""
    accuracy = {}
    for line in (results.RESULTS / "score-cpu-fresh.jsonl").read_text().splitlines():
        record = json.loads(line)
        split = record["task"], record["size"], record["seed"]
        accuracy.setdefault(split, {})[record["contestant"]] = record["accuracy"]
    points = {
        split: round(100 * (scores["ours"] - scores["peft-tuned"]), 1)
        for split, scores in accuracy.items()
        if "peft-tuned" in scores
    }
    led = {("headlines", 200, seed) for seed in (20, 21, 22)}
    led |= {("quotes", 200, 20), ("quotes", 200, 21), ("films", 200, 20)}
    same = {(task, 1000, seed) for task, _, seed in led}
    left = sorted(points[split] for split in points.keys() - led - same)

    def higher_and_lower(splits):
        found = [points[split] for split in splits]
        return sum(p > 0 for p in found), sum(p < 0 for p in found)

    def without_films(size):
        tasks = {}
        for (task, n_rows, _), p in points.items():
            if n_rows == size and task != "films":
                tasks.setdefault(task, []).append(p)
        return len(tasks), round(np.mean([*map(np.mean, tasks.values())]), 1)

    assert len(points) == 20
    assert higher_and_lower(led) == (4, 1)
    assert higher_and_lower(same) == (2, 4)
    assert (len(left), left[0], left[2], left[-1]) == (8, -1.1, 0.5, 2.6)
    assert sum(p > 0 for p in left) == 6
    assert without_films(200) == (4, 0.3)
    assert without_films(1000) == (2, 0.0)
    page = " ".join(report.PAGE.read_text("utf-8").split())
    for said in (
        "Six of the twenty other splits that `peft-tuned` was measured on",
        "there ours is higher on four now, and lower on one",
        "there ours is higher on two, and `peft-tuned` on four",
        "On the eight that are left, ours is higher on six, by 0.5 to 2.6 points, and "
        "`peft-tuned` on one, by 1.1",
        "Without the films, it is ahead by 0.3 points on 200 rows (four tasks) and "
        "level on more (two tasks)",
    ):
        assert said in page


@pytest.mark.usefixtures("scripts_environment")
def test_many_classes_as_classes_and_as_labels(
    monkeypatch, capsys, tiny_model, tmp_path
):
    from benchmarks import many_classes

    rows = [
        "text,label",
        *(f"{text},{label}" for text, label in zip(X, Y, strict=True)),
    ]
    for name in ("banking", "intents"):
        (tmp_path / f"{name}.csv").write_text("\n".join(rows), encoding="utf-8")
    penalties = []

    def make(seed):
        penalties.append(many_classes._probe._PENALTY_OF_SHARES)
        return make_classifier(tiny_model, epochs=2, random_state=seed)

    monkeypatch.setattr(many_classes, "make", make)
    monkeypatch.setattr(many_classes, "frozen", lambda *rows: (0.25,))
    monkeypatch.setattr(many_classes, "N_TEST", 12)
    many_classes.main([str(tmp_path), "--sizes", "1000"])

    printed = capsys.readouterr().out
    (classes,), (labels,) = (
        re.findall(rf"\| banking \| 1,000 \| {first}(.*) \|", printed)
        for first in (r"0\.250 \| ", r"(?!0\.250)")
    )
    assert [len(part.split(" | ")) for part in (classes, labels)] == [3, 3]
    assert all(" / " in cell for cell in classes.split(" | "))
    assert "| intents | 1,000 |" in printed
    assert "| 200 |" not in printed
    default = many_classes._probe._PENALTY_OF_SHARES
    # Two tasks, two seeds, as classes and as labels.
    assert penalties == 2 * [*4 * [1e9], *4 * [default], *4 * [1]]
    with pytest.raises(SystemExit):
        many_classes.main([str(tmp_path / "nowhere")])
    assert "lacks banking.csv: run `python -m benchmarks" in capsys.readouterr().err


def test_what_the_page_says_of_data_that_no_setting_was_chosen_on():
    path = results.RESULTS / "score-cpu-unseen.jsonl"
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    ahead = {
        size: score.summarise([r for r in found if r["size"] == size])["ahead"]
        for size in (200, 1000)
    }

    def points(size, name):
        means = {t: 100 * np.mean(d) for t, d in ahead[size][name].items()}
        return means, round(float(np.mean(list(means.values()))), 1)

    by_task, mean = points(1000, "peft-tuned")
    behind = {task for task, value in by_task.items() if value < -1}
    assert behind == {"tweets", "questions", "newswire"}
    assert {round(float(by_task[task]), 1) for task in behind} == {-1.2, -1.3}
    splits = [d for task in behind for d in ahead[1000]["peft-tuned"][task]]
    assert max(splits) < 0
    assert len(splits) == 9
    rest = [abs(value) for task, value in by_task.items() if task not in behind]
    assert len(rest) == 6
    assert max(rest) < 0.45
    assert (mean, points(200, "peft-tuned")[1]) == (-0.4, -0.1)
    for name, few, more in (("embeddings", 4.7, 2.9), ("tfidf", 11.3, 6.9)):
        assert (points(200, name)[1], points(1000, name)[1]) == (few, more)
    lost = [
        v for size in ahead for v in points(size, "embeddings")[0].values() if v < 0
    ]
    assert [round(float(value), 1) for value in lost] == [-0.2]
    assert min(v for size in ahead for v in points(size, "tfidf")[0].values()) > 0
    page = " ".join(report.PAGE.read_text("utf-8").split())
    for said in (
        "by 1.2 or 1.3 points and on each of their three splits: `tweets`, `questions` "
        "and `newswire`. On the other six they are within 0.4 points of each other. "
        "Over all nine it is 0.4 ahead on 1,000 rows, and 0.1 on 200 rows of eight.",
        "`embeddings` is ahead on one of the 17 rows, by 0.2 points, and `tfidf` on "
        "none: ours is 4.7 points ahead of the former on 200 rows and 2.9 on 1,000, as "
        "a mean over the data sets, and 11.3 and 6.9 ahead of the latter.",
    ):
        assert said in page


def test_rows_that_splits_share(monkeypatch, capsys):
    from benchmarks import shared_rows

    labels = ["a", "a", "b", "a"] * 10
    task = data.Task("mine", [f"text {i}" for i in range(40)], labels)
    monkeypatch.setattr(shared_rows, "TASKS", ["mine"])
    monkeypatch.setattr(shared_rows, "load_task", lambda name: task)
    monkeypatch.setattr(shared_rows, "TUNING", {0: 10})
    monkeypatch.setattr(shared_rows, "CHOSEN_ON", {0: 10, 1: 39})
    monkeypatch.setattr(shared_rows, "OTHER", {0: 20})
    shared_rows.main()

    assert "| mine | 50% | 100% | 0.750 |" in capsys.readouterr().out


@pytest.mark.usefixtures("scripts_environment")
def test_scripts_that_give_cpu_seconds_compute_on_a_cpu(monkeypatch):
    from benchmarks import calibration, guide_figures, search_racing

    devices = []

    class Recorded(AdaLoraClassifier):
        def fit(self, X, y, **params):
            devices.append(self.device)
            raise KeyboardInterrupt

    monkeypatch.setattr(search_racing, "split", lambda *_: (X, Y, X, Y))
    monkeypatch.setattr(search_racing.Counted, "fit", Recorded.fit)
    monkeypatch.setattr(calibration, "AdaLoraClassifier", Recorded)
    monkeypatch.setattr(guide_figures, "AdaLoraClassifier", Recorded)
    given = {"rows": 8, "test_rows": 8, "model": "", "epochs": 1, "max_length": 8}
    for measure, arguments in (
        (search_racing.measure, (None, "racing", 0, given)),
        (calibration.measure, (X, Y, X, Y, 0)),
        (guide_figures.tokens_a_second, (X, Y, X, "auto")),
    ):
        with pytest.raises(KeyboardInterrupt):
            measure(*arguments)

    assert devices == ["cpu"] * 3


@pytest.mark.usefixtures("scripts_environment")
@pytest.mark.parametrize("share", [0, 0.7, 1])
def test_points_of_the_study_are_those_of_the_estimator(tiny_model, share):
    from benchmarks.interpolation import _STILL, between

    end = make_classifier(tiny_model, interpolation=1).fit(X, Y)
    start = make_classifier(tiny_model, interpolation=1, **_STILL).fit(X, Y)
    expected = make_classifier(tiny_model, interpolation=share).fit(X, Y)

    np.testing.assert_allclose(
        between(start, end, share).predict_proba(X),
        expected.predict_proba(X),
        atol=1e-5,
    )


@pytest.mark.usefixtures("scripts_environment")
def test_two_vote_as_in_scikit_learn(tiny_model):
    from benchmarks import voting
    from benchmarks.contestants import fit_ours, fit_tfidf

    given = settings(tiny_model, epochs=1)
    found = voting.measure(X[:16], Y[:16], X[16:], Y[16:], given)

    words, ours = (learn(X[:16], Y[:16], given) for learn in (fit_tfidf, fit_ours))
    pipeline = make_pipeline(FunctionTransformer(words.features), words.regression)
    vote = VotingClassifier([("words", pipeline), ("ours", ours)], voting="soft")
    vote.estimators_, vote.le_ = [pipeline, ours], LabelEncoder().fit(Y)
    vote.classes_ = vote.le_.classes_
    accuracy, loss = found["both"]
    assert accuracy == vote.score(X[16:], Y[16:])
    assert loss == pytest.approx(log_loss(Y[16:], vote.predict_proba(X[16:])))
    assert found["ours"][0] == ours.score(X[16:], Y[16:])


@pytest.mark.usefixtures("scripts_environment")
def test_figures_of_the_guide(tiny_model, monkeypatch):
    from benchmarks import guide_figures

    classifier = make_classifier(tiny_model).fit(X, Y)
    sizes = []
    predict = type(classifier).predict

    def counted(self, texts):
        sizes.append(len(texts))
        return predict(self, texts)

    monkeypatch.setattr(type(classifier), "predict", counted)
    found = guide_figures.predict_in_calls(classifier, X[:5])
    assert sizes == [1, 5, 1, 1, 1, 1, 1]
    assert [name for name, *_ in found] == ["in one call", "one by one"]
    assert all(seconds > 0 for _, seconds, _ in found)

    given = {"model": tiny_model, "epochs": 1, "pooling": "model"}
    fitted = AdaLoraClassifier(random_state=0, **given).fit(X, Y)
    assert guide_figures.accuracy(X, Y, X, Y, **given) == fitted.score(X, Y)


@pytest.mark.usefixtures("scripts_environment")
def test_tokens_a_second_count_each_epoch(tiny_model, monkeypatch):
    from benchmarks import guide_figures

    make = functools.partial(make_classifier, tiny_model)
    monkeypatch.setattr(guide_figures, "AdaLoraClassifier", make)
    clock = iter([0.0, 3.0, 10.0, 12.0])
    monkeypatch.setattr(guide_figures.time, "process_time", lambda: next(clock))
    tokenizer = make(epochs=1).fit(X, Y)._live.backbone.tokenizer
    of_text = [len(ids) for ids in tokenizer(X)["input_ids"]]
    expected = (sum(of_text) / len(X), sum(of_text), sum(of_text[:4]) / 2)

    assert guide_figures.tokens_a_second(X, Y, X[:4], "float32") == expected


@pytest.mark.usefixtures("scripts_environment")
def test_numbers_by_method(tiny_model):
    from benchmarks import regression

    y = np.array([label == Y[0] for label in Y], float)
    found = dict(regression.measure(X[:16], X[16:], y[:16], y[16:], 0, tiny_model))

    ours = AdaLoraRegressor(tiny_model, max_length=64, random_state=0)
    assert found["defaults"] == ours.fit(X[:16], y[:16]).score(X[16:], y[16:])
    assert found.keys() == {
        "embeddings", "TF-IDF", "defaults and TF-IDF", *regression.VARIANTS
    }  # fmt: skip
