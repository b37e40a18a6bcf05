"""Folders of fitted estimators: there and back, and what is in them."""

import collections
import copy
import enum
import json
import os
import pickle
import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from _folders import (
    STRONG,
    assert_equal_estimators,
    bytes_of,
    read,
    strengthen,
    there_and_back,
)
from _toy import make, make_regressor, topics

import sk_adalora
from sk_adalora import AdaLoraClassifier
from sk_adalora.tokens.tokenize import locked
from sk_adalora.training.rank_table import lay_out

X, Y = topics(48)
NUMBERS = np.linspace(-30.0, 70.0, 48)
SAMPLE = X[:9]
WRITERS = ["save_pretrained", "export_lora", "merge_and_save"]


def card_of(folder):
    return (folder / "README.md").read_text("utf8")


# ---- there and back ---------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "last", "model"])
def test_a_classifier_there_and_back(tiny_model, tmp_path, pooling):
    fitted = strengthen(make(tiny_model, pooling=pooling, **STRONG).fit(X, Y))
    loaded = there_and_back(fitted, tmp_path / "f")

    assert_equal_estimators(loaded, fitted)
    assert [*loaded.ranks_] == [*fitted.ranks_]  # in the order of the model
    for method in ("predict", "predict_proba", "decision_function"):
        np.testing.assert_array_equal(
            getattr(loaded, method)(X), getattr(fitted, method)(X)
        )
    # The adapter matters: without its singular values the predictions differ.
    expected = fitted.predict_proba(X)
    assert np.abs(strengthen(loaded, 0).predict_proba(X) - expected).max() > 1e-3


@pytest.mark.parametrize("y", [NUMBERS, np.column_stack([NUMBERS, -3 * NUMBERS])])
def test_a_regressor_there_and_back(tiny_model, tmp_path, y):
    fitted = make_regressor(tiny_model, **STRONG).fit(X, y)
    loaded = there_and_back(fitted, tmp_path / "f")

    assert_equal_estimators(loaded, fitted)
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))


def test_several_labels_a_row_there_and_back(tiny_model, tmp_path):
    y = np.eye(3, dtype=int)[np.arange(48) % 3]
    fitted = make(tiny_model, **STRONG).fit(X, y)
    loaded = there_and_back(fitted, tmp_path / "f")

    assert_equal_estimators(loaded, fitted)
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


LABELS = {
    "str": np.array(["no", "yes", "é\n\"'𝄞"]),
    "longer dtype": np.array(["a", "b", "c"], dtype="<U20000"),
    "object str": np.array(["no", "yes", "maybe"], dtype=object),
    "int": np.array([10, -3, 2**62]),
    "uint64": np.array([0, 1, 2**64 - 1], dtype=np.uint64),
    "big-endian": np.array([1, 2, 3], dtype=">i4"),
    "bool": np.array([False, True]),
    "float": np.array([-2.0, 0.0, 2.0**60]),
    "float16": np.array([1, 2, 3], dtype=np.float16),
    "date": np.array(["2020-01-01", "1960-05-05"], dtype="M8[ns]"),
    "duration": np.array([1, -2], dtype="m8[s]"),
    "one long": np.array(["x" * 200_000, "y"]),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_keep_their_type(tiny_model, tmp_path, name):
    labels = LABELS[name]
    fitted = make(tiny_model, epochs=1).fit(X, labels.take(np.arange(48) % len(labels)))
    loaded = there_and_back(fitted, tmp_path / "f")

    assert loaded.classes_.dtype == fitted.classes_.dtype
    assert [type(c) for c in loaded.classes_] == [type(c) for c in fitted.classes_]
    np.testing.assert_array_equal(loaded.classes_, fitted.classes_)
    np.testing.assert_array_equal(loaded.predict(SAMPLE), fitted.predict(SAMPLE))


class Side(enum.StrEnum):
    LEFT = "left"
    RIGHT = "right"


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.array([*Side], dtype=object), "Side is no plain value"),
        (np.array(["a" * 2**26, "b"]), "more than 268435456 bytes"),
        (np.array([1, 2], dtype=np.longdouble), "longdouble is no plain value"),
    ],
    ids=["members of an enum", "very long", "longer than float"],
)
def test_labels_that_are_no_plain_values_are_not_written(
    fitted, tmp_path, labels, reason
):
    changed = copy.copy(fitted)
    changed._targets = replace(fitted._targets, classes=labels)
    with pytest.raises(TypeError, match=rf"`y` must be a plain.*{reason}.*joblib"):
        changed.save_pretrained(tmp_path / "f")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("row_format", ["auto", "pair", "{a}: {b}"])
def test_tables_there_and_back(tiny_model, tmp_path, row_format):
    table = pd.DataFrame({"a": X, "b": X[::-1]})
    fitted = make(tiny_model, row_format=row_format).fit(table, Y)
    loaded = there_and_back(fitted, tmp_path / "f")

    assert_equal_estimators(loaded, fitted)
    assert loaded.feature_names_in_.dtype == object
    np.testing.assert_array_equal(
        loaded.predict_proba(table), fitted.predict_proba(table)
    )
    with pytest.raises(ValueError, match="same order"):
        loaded.predict(table[["b", "a"]])


@pytest.mark.parametrize(
    "changed",
    [
        {"class_weight": {"art": 2.0, "business": 1, "sport": np.float32(0.5)}},
        {"class_weight": collections.UserDict({"art": 2.0, "items": 1.0})},
        {"class_weight": {0: 1, 1: 3}},
        {"target_modules": ["query", "value"]},
        {"target_r": np.int64(2), "learning_rate": np.float64(0.02)},
        {"early_stopping": np.bool_(False), "random_state": np.int32(7)},
        {"warm_start": True, "verbose": False, "lora_alpha": None},
    ],
    ids=str,
)
def test_parameters_there_and_back(tiny_model, tmp_path, changed):
    fitted = make(tiny_model).fit(X, Y)
    loaded = there_and_back(fitted.set_params(**changed), tmp_path / "f")

    assert loaded.get_params() == fitted.get_params()


def test_parameters_that_come_back_as_others(tiny_model, tmp_path):
    """Sets as lists, paths as texts, a generator not at all."""
    generator = np.random.RandomState(3)
    others = {"target_modules": {"value", "query"}, "random_state": generator}
    fitted = make(Path(tiny_model), **others).fit(X, Y)
    loaded = there_and_back(fitted, tmp_path / "f")

    assert loaded.model == tiny_model
    assert loaded.target_modules == ["query", "value"]
    assert loaded.random_state is None
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize("name", ["row_format", "scoring"])
def test_a_function_is_not_written(fitted, tmp_path, name):
    changed = copy.copy(fitted).set_params(**{name: print})
    with pytest.raises(TypeError, match=rf"`{name}` must be a plain value.*joblib"):
        changed.save_pretrained(tmp_path / "f")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", WRITERS)
def test_only_what_is_right_and_fitted_is_written(fitted, tiny_model, tmp_path, method):
    wrong = copy.copy(fitted).set_params(max_length=-5)
    with pytest.raises(ValueError, match="`max_length` of AdaLoraClassifier must be"):
        getattr(wrong, method)(tmp_path / "f")
    with pytest.raises(Exception, match="not fitted"):
        getattr(make(tiny_model), method)(tmp_path / "f")

    assert list(tmp_path.iterdir()) == []


def test_a_second_time_there_and_back(fitted, saved, tmp_path):
    loaded = AdaLoraClassifier.from_pretrained(saved)
    again = there_and_back(loaded, tmp_path / "f")

    assert bytes_of(tmp_path / "f") == bytes_of(saved)
    assert_equal_estimators(again, fitted)


def test_the_tokenizer_is_written_as_it_was_read(fitted, tmp_path):
    """Another thread, which predicts, may have it cut texts at that time."""
    tokenizer = fitted._ready().backbone.tokenizer
    inside = threading.Event()

    def use():
        with locked(tokenizer):
            tokenizer(["good film"], truncation=True, max_length=3)
            inside.set()
            time.sleep(0.2)

    thread = threading.Thread(target=use)
    thread.start()
    inside.wait()
    fitted.save_pretrained(tmp_path / "f")
    thread.join()

    written = json.loads((tmp_path / "f" / "tokenizer.json").read_text("utf8"))
    assert written["truncation"] is None


def test_saving_changes_nothing(fitted, tmp_path):
    expected = fitted.predict_proba(SAMPLE)
    before = dict(vars(fitted))
    tokenizer = fitted._ready().backbone.tokenizer
    settings = dict(tokenizer.init_kwargs)
    for method in WRITERS:
        getattr(fitted, method)(tmp_path / method)

    assert vars(fitted) == before
    assert tokenizer.init_kwargs == settings
    np.testing.assert_array_equal(fitted.predict_proba(SAMPLE), expected)


def test_a_loaded_estimator_can_be_pickled_and_fitted(saved, fitted):
    loaded = AdaLoraClassifier.from_pretrained(saved)
    again = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))

    loaded.fit(X, Y)
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_parameters_can_be_changed_on_loading(saved, fitted):
    loaded = AdaLoraClassifier.from_pretrained(
        saved, device="cpu", epochs=9, trust_remote_code=True
    )

    assert loaded.epochs == 9
    assert loaded.model_kwargs == {"trust_remote_code": True}
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))
    with pytest.raises(ValueError, match="Invalid parameter 'devise'"):
        AdaLoraClassifier.from_pretrained(saved, devise="cpu")
    with pytest.raises(ValueError, match="`epochs` of AdaLoraClassifier must be"):
        AdaLoraClassifier.from_pretrained(saved, epochs=0)


class Short(AdaLoraClassifier):
    """A subclass with few parameters."""

    def __init__(self, model="", target_r=1):
        super().__init__(model, target_r=target_r, random_state=0, max_length=32)


def test_subclasses_there_and_back(tiny_model, saved, fitted, tmp_path):
    short = Short(tiny_model).fit(X, Y)
    loaded = there_and_back(short, tmp_path / "f")

    np.testing.assert_array_equal(loaded.predict(X), short.predict(X))
    assert f"from {Short.__module__} import Short\n" in card_of(tmp_path / "f")
    mine = type("Mine", (AdaLoraClassifier,), {}).from_pretrained(saved)
    np.testing.assert_array_equal(mine.predict(X), fitted.predict(X))


# ---- what is in the folder --------------------------------------------------

ALWAYS = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "sk_adalora.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def test_a_folder_holds_these_files_and_no_pickle(saved):
    assert set(bytes_of(saved)) == ALWAYS | {"head.safetensors"}
    for data in bytes_of(saved).values():
        assert data[:2] not in (b"PK", b"\x80\x04")


@pytest.mark.filterwarnings("ignore:.*bfloat16")  # on processors without it
def test_the_files_of_a_model_with_its_own_head(tiny_model, tmp_path):
    classifier = make(tiny_model, pooling="model", precision="bfloat16")
    classifier.fit(X, Y).save_pretrained(tmp_path / "f")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "f")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        tiny_model, config=config
    )

    assert set(bytes_of(tmp_path / "f")) == ALWAYS | {"config.json"}
    assert config.id2label == {0: "art", 1: "business", 2: "sport"}
    assert base.dtype == torch.float32  # the model's own


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("closed", [0o022, 0o077])
def test_files_can_be_read_by_whom_the_umask_lets(fitted, tmp_path, closed):
    before = os.umask(closed)
    try:
        fitted.save_pretrained(tmp_path / "f", include_backbone=True)
    finally:
        os.umask(before)

    for path in [tmp_path / "f", *(tmp_path / "f").rglob("*")]:
        new = 0o777 if path.is_dir() else 0o666
        assert oct(path.stat().st_mode & 0o777) == oct(new & ~closed), path


def test_the_state_is_for_people(saved, fitted):
    text = (saved / "sk_adalora.json").read_text("utf8")
    described = json.loads(text)

    assert described["class"] == "AdaLoraClassifier"
    classes = described["fitted"]["targets"]["classes"]
    assert classes["values"] == ["art", "business", "sport"]
    assert described["parameters"]["target_r"] == 2
    assert described["versions"] == fitted._adapter.versions
    lines = len(text.splitlines()) - len(described["settings"])
    assert lines < 155  # a list of numbers is one line


def test_the_card(saved, fitted):
    card = card_of(saved)

    assert card.startswith("---\n")
    assert "library_name: sk-adalora" in card.split("---")[1]
    assert "- peft\n" in card.split("---")[1]
    assert "base_model" not in card  # a folder of this machine
    assert fitted._adapter.content_hash in card
    assert f"\n{lay_out(fitted.ranks_).to_markdown()}\n" in card
    assert "Score" not in card
    snippet = card.split("```python\n")[1].split("```")[0]
    namespace = {}
    exec(snippet.replace("this-folder", str(saved)), namespace)
    assert namespace["estimator"].ranks_ == fitted.ranks_


def test_the_card_names_a_model_of_the_hub_and_where_the_fit_computed(fitted, tmp_path):
    other = copy.copy(fitted)
    other._predictor = fitted._predictor
    other._adapter = replace(
        fitted._adapter,
        model="a`\n# <b>Pay</b>\n`",
        is_folder=False,
        found_in="/home/me/cache",
        commit="c" * 40,
    )
    other.fit_report_ = replace(
        fitted.fit_report_, device="cuda:1", precision="bfloat16", n_threads=4
    )
    other.save_pretrained(tmp_path / "f")
    card = card_of(tmp_path / "f")

    assert '\nbase_model: "a`\\n# <b>Pay</b>\\n`"\n' in card
    assert "adapter for `a # <b>Pay</b> `\n" in card  # stays in its place
    assert f"commit `{'c' * 40}`" in card
    assert "\nTrained in bfloat16 on `cuda:1`, by 4 threads, with numpy " in card
    # No place of a cache is told, and no commit where the model lies beside it.
    assert not [n for n, d in bytes_of(tmp_path / "f").items() if b"/home/me" in d]
    assert read(tmp_path / "f")["commit"] == "c" * 40
    other.save_pretrained(tmp_path / "g", include_backbone=True)
    assert read(tmp_path / "g")["commit"] is None


OWN_HEAD = "The head is that of the model's own architecture"


@pytest.mark.parametrize(
    ("pooling", "merged", "said"),
    [
        ("mean", False, ["get_encoder", "- peft\n", "An AdaLoRA adapter for `"]),
        ("mean", True, ["head.safetensors", '"labels"', "An AdaLoRA update of `"]),
        ("model", False, ["- peft\n", OWN_HEAD, "An AdaLoRA adapter for `"]),
        ("model", True, [OWN_HEAD, "An AdaLoRA update of `"]),
    ],
)
def test_the_card_of_an_export(tiny_model, tmp_path, pooling, merged, said):
    fitted = make(tiny_model, pooling=pooling, epochs=1).fit(X, Y)
    (fitted.merge_and_save if merged else fitted.export_lora)(tmp_path / "f")
    phrases = [
        *("get_encoder", "head.safetensors", "- peft\n", '"labels"', OWN_HEAD),
        *("An AdaLoRA adapter for `", "An AdaLoRA update of `"),
    ]

    assert [phrase for phrase in phrases if phrase in card_of(tmp_path / "f")] == said


def test_the_card_of_an_export_says_what_the_numbers_are(tiny_model, tmp_path):
    y = np.column_stack([NUMBERS, 5 - 300 * NUMBERS])
    fitted = make_regressor(tiny_model, **STRONG).fit(X, y)
    fitted.export_lora(tmp_path / "l")
    found = re.search(r"`output \* (\[.*\]) \+ (\[.*\])`", card_of(tmp_path / "l"))
    scale, mean = map(json.loads, found.groups())

    numbers = fitted._predict_outputs(X) * scale + mean
    np.testing.assert_allclose(numbers, fitted.predict(X))


class Saves:
    """A callback that saves what a fit has after each epoch, and may end the fit."""

    def __init__(self, folder, last=None):
        self.folder = folder
        self.last = last

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...
    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.task_name != "epoch":
            return False
        fitted_estimator.save_pretrained(self.folder / str(context.task_id))
        return context.task_id == self.last


def score_on_card(folder):
    found = re.findall(r"Score on the validation rows: (.*)\.\n", card_of(folder))
    return float(found[0]) if found else None


def test_a_score_from_before_ranks_were_given_up_is_not_that_of_the_fit(
    tiny_model, tmp_path
):
    options = {"target_r": 1, "init_r": 4, "epochs": 6, "tinit": 0.5, "tfinal": 0.2}
    fitted = make(tiny_model, early_stopping=True, **options)
    fitted.set_callbacks(Saves(tmp_path, last=0)).fit(X, Y)
    fitted.set_callbacks().save_pretrained(tmp_path / "fit")

    assert fitted.history_.budget[-1] > sum(fitted.ranks_.values())
    (score,) = fitted.history_.score
    assert score_on_card(tmp_path / "0") == pytest.approx(score, abs=5e-5)
    assert score_on_card(tmp_path / "fit") is None


def test_the_score_of_a_copy_is_its_own(tiny_model, tmp_path):
    """Not that of the best epoch so far, whose state it has not."""
    fitted = make(
        tiny_model, early_stopping=True, scoring="neg_log_loss", epochs=8, tfinal=0.6
    )
    fitted.set_callbacks(Saves(tmp_path))
    fitted.fit(X, Y, X_val=X[:12], y_val=np.roll(Y, 1)[:12])  # soon worse, as it learns
    fitted.set_callbacks().save_pretrained(tmp_path / "fit")

    history = fitted.history_
    assert history.best_epoch < history.epochs - 1
    found = [score_on_card(tmp_path / str(k)) for k in range(history.epochs)]
    assert found == pytest.approx(history.score, abs=5e-5)
    best = AdaLoraClassifier.from_pretrained(tmp_path / "fit")
    assert best.history_.best_epoch == history.best_epoch
    score = history.score[history.best_epoch]
    assert score_on_card(tmp_path / "fit") == pytest.approx(score, abs=5e-5)


# ---- with the pretrained model ----------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_a_complete_folder(tiny_model, tmp_path, pooling):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "secret.txt.bak").write_text("not a part of it")
    fitted = make(str(model), pooling=pooling, **STRONG).fit(X, Y)
    expected = fitted.predict_proba(X)
    fitted.save_pretrained(tmp_path / "f", include_backbone=True)
    assert read(tmp_path / "f")["found_in"] == ""  # it lies beside
    with pytest.raises(ValueError, match="with a fitted estimator"):
        make(tmp_path / "f").fit(X, Y)
    shutil.rmtree(model)
    sk_adalora.clear_backbone_cache()
    moved = shutil.move(tmp_path / "f", tmp_path / "g")
    loaded = AdaLoraClassifier.from_pretrained(moved)

    assert loaded.model == str(moved / "backbone")
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)
    assert not list(moved.rglob("*.bak"))
    # Saved into its own folder, it keeps the model there.
    loaded.save_pretrained(moved, overwrite=True)
    sk_adalora.clear_backbone_cache()
    again = AdaLoraClassifier.from_pretrained(moved)
    np.testing.assert_array_equal(again.predict_proba(X), expected)


@pytest.mark.parametrize("complete", [False, True])
def test_saving_from_another_directory(tiny_model, tmp_path, monkeypatch, complete):
    shutil.copytree(tiny_model, tmp_path / "models" / "mine")
    monkeypatch.chdir(tmp_path)
    fitted = make("models/mine", **STRONG).fit(X, Y)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    fitted.save_pretrained("f", include_backbone=complete)
    sk_adalora.clear_backbone_cache()
    loaded = AdaLoraClassifier.from_pretrained("f")

    np.testing.assert_array_equal(
        loaded.predict_proba(SAMPLE), fitted.predict_proba(SAMPLE)
    )
    assert "base_model" not in card_of(Path("f"))  # it is none of the hub's


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory that is not the current one."""
    (tmp_path / "home").mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


def test_the_home_directory_is_written_to_and_read_from(tiny_model, home):
    shutil.copytree(tiny_model, home / "m")
    fitted = make("~/m", epochs=1).fit(X, Y)
    for method in WRITERS:
        getattr(fitted, method)(f"~/new/{method}")
    loaded = AdaLoraClassifier.from_pretrained("~/new/save_pretrained")

    assert_equal_estimators(loaded, fitted)
    assert loaded.model == "~/m"
    assert len([*(home / "new").iterdir()]) == 3
    assert not any(Path.cwd().iterdir())
    for method in ("merge_and_save", "export_lora"):
        with pytest.raises(ValueError, match="the pretrained model lies in"):
            getattr(fitted, method)("~/m", overwrite=True)


def test_sources_that_are_no_estimators(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.joblib").touch()
    for place in ("nowhere", "/nowhere/at/all", "a/b/c", ""):
        with pytest.raises(FileNotFoundError, match="`source` must be a folder that"):
            AdaLoraClassifier.from_pretrained(place)
    with pytest.raises(NotADirectoryError, match=r"must be a folder.*joblib\.load"):
        AdaLoraClassifier.from_pretrained("model.joblib")
    with pytest.raises(FileNotFoundError, match="in the parameter `model`, for a fit"):
        AdaLoraClassifier.from_pretrained(tiny_model)


@pytest.mark.parametrize("method", WRITERS)
def test_a_folder_is_replaced_beside_threads_that_compute_with_what_was_in_it(
    fitted, tmp_path, method
):
    """They read the weights where they were, and would not notice that they moved."""
    fitted.save_pretrained(tmp_path / "f", include_backbone=True)
    loaded = AdaLoraClassifier.from_pretrained(tmp_path / "f")
    expected = loaded.predict_proba(X)
    getattr(fitted, method)(tmp_path / "f", overwrite=True)

    assert not (tmp_path / "f" / "backbone").exists()
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)


@pytest.mark.parametrize("inside", ["model", "found_in"])
def test_an_export_replaces_neither_the_model_of_now_nor_that_of_the_fit(
    fitted, tiny_model, tmp_path, inside
):
    folder = tmp_path / "f"
    fitted.save_pretrained(folder, include_backbone=True)
    loaded = AdaLoraClassifier.from_pretrained(folder)
    before = bytes_of(folder)
    if inside == "found_in":
        loaded._adapter = replace(loaded._adapter, found_in=str(folder / "backbone"))
        loaded.set_params(model=tiny_model)
    else:
        with pytest.raises(ValueError, match="must not be the one that the pretrained"):
            loaded.merge_and_save(folder, overwrite=True)
    with pytest.raises(ValueError, match="must not be the one that the pretrained"):
        loaded.export_lora(folder, overwrite=True)

    assert bytes_of(folder) == before


def test_a_model_that_is_gone_or_another_is_not_copied(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "f", include_backbone=True)
    loaded = AdaLoraClassifier.from_pretrained(tmp_path / "f")
    loaded.predict(X)
    config = tmp_path / "f" / "backbone" / "config.json"
    settings = json.loads(config.read_text("utf8"))
    config.write_text(json.dumps(settings | {"hidden_act": "relu"}), "utf8")
    for _ in range(2):
        with pytest.raises(ValueError, match="gone or others"):
            loaded.save_pretrained(tmp_path / "copy", include_backbone=True)
        config.unlink(missing_ok=True)

    assert not (tmp_path / "copy").exists()
    loaded.save_pretrained(tmp_path / "copy")
