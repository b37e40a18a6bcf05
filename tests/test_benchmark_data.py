"""The data of the benchmarks: readers, files of your own, splits."""

import bz2
import json
import re
from collections import Counter

import _benchmarks  # noqa: F401
import pytest

from benchmarks import data


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


def test_a_file_with_a_long_text(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(f"words,kind\n{'good ' * 30_000},yes\n", encoding="utf-8")

    assert len(data.load_csv(file, "words", "kind").texts[0]) == 149_999


@pytest.mark.parametrize(
    ("row", "match"),
    [
        *(("bad", "a label. Got none"), ("bad,", "a label. Got none")),
        *(("so, so,no", "the first. Got more"), ("so,no,", "the first. Got more")),
    ],
)
def test_a_row_of_a_file_with_other_cells_than_the_first_is_refused(
    row, match, tmp_path
):
    file = tmp_path / "mine.csv"
    file.write_text(f'words,kind\n"good,\nvery",yes\n{row}\n', encoding="utf-8")

    match = rf"must have .*{re.escape(match)} in the row that ends on line 4\."
    with pytest.raises(ValueError, match=match):
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
    kinds = b"HUM:ind Who said it ?\nNUM:date When ?\nHUM:ind Who ran ?\n"
    put("architrathore/QueClassifier", "data/train_5500.label", kinds)
    for part in ("train", "val"):
        abstracts = f',text,label\n7,"Joints,\n of {part}",0\n'.encode()
        file = f"data/ohsumed/{part}.csv"
        put("saditya13/G-Loss-based-fine-of-LM", file, abstracts)
    (tmp_path / "datasets").mkdir()
    tab = "Is retweet\tAuthor\tContent\n\n\nFalse\tA\tmine\nTrue\tB\tyours\n"
    (tmp_path / "datasets" / "election-tweets-2016.tab").write_text(tab, "utf-8")
    for part in ("train", "test"):
        tab = f"Category\tText\nd\ts\nclass\t\nearn\tup {part}\n"
        (tmp_path / "datasets" / f"reuters-r8-{part}.tab").write_text(tab, "utf-8")
        tab = f"Category\tText\nd\ts\nclass\t\nlead\tdown {part}\n{part}\tof it\n"
        (tmp_path / "datasets" / f"reuters-r52-{part}.tab").write_text(tab, "utf-8")
    monkeypatch.setattr(public_data, "_FREQUENT", 2)
    monkeypatch.setattr(data, "installed", lambda *names: tmp_path)

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
        "stories": ["down train", "down test", "lead", "lead"],
        "kinds": ["Who said it ?", "Who ran ?", "HUM:ind", "HUM:ind"],
        "abstracts": ["Joints,\n of train", "Joints,\n of val", "0", "0"],
    }
    for base in ((tmp_path / "nowhere").as_uri(), str(tmp_path)):  # no address
        options = ["--only", "subjectivity", "--base", base]
        with pytest.raises(OSError, match=r"subj\.all must be reachable\. .* --base"):
            public_data.main([str(tmp_path), *options])
    assert not (tmp_path / "subjectivity.csv").exists()
    printed = capsys.readouterr().out
    digest = data.digest(written["questions"])
    assert f"| questions | 3 | 2 | 0.667 | 1 | {digest} |" in printed
