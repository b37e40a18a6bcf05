"""Folders of fitted estimators: there and back, whole or not at all."""

import collections
import copy
import enum
import gc
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
    write,
)
from _toy import make, make_regressor, topics, toy

import sk_adalora
from sk_adalora import AdaLoraClassifier
from sk_adalora.estimators import folder as _folder
from sk_adalora.files import json_values as _json_values
from sk_adalora.files import versions as _file_versions
from sk_adalora.files.card import write_card, write_export_card
from sk_adalora.files.layout import BACKBONE
from sk_adalora.pretrained import read as _read_model
from sk_adalora.pretrained.backbone import load_backbone
from sk_adalora.runtime.devices import Place
from sk_adalora.tokens.tokenize import locked
from sk_adalora.training.rank_table import lay_out

X, Y = topics(48)
NUMBERS = np.linspace(-30.0, 70.0, 48)
SAMPLE = X[:9]


# ---- there and back ---------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max", "model"])
def test_a_classifier_there_and_back(tiny_model, tmp_path, pooling):
    fitted = strengthen(make(tiny_model, pooling=pooling, **STRONG).fit(X, Y))
    loaded = there_and_back(fitted, tmp_path / "f")

    assert_equal_estimators(loaded, fitted)
    assert [*loaded.ranks_] == [*fitted.ranks_]  # in the order of the model
    for method in ("predict", "predict_proba", "decision_function"):
        np.testing.assert_array_equal(
            getattr(loaded, method)(X), getattr(fitted, method)(X)
        )
    assert loaded.score(X, Y) == fitted.score(X, Y)
    # The adapter matters: without its singular values the predictions differ.
    expected = fitted.predict_proba(X)
    assert np.abs(strengthen(loaded, 0).predict_proba(X) - expected).max() > 1e-3


@pytest.mark.parametrize("y", [NUMBERS, np.column_stack([NUMBERS, -3 * NUMBERS])])
def test_a_regressor_there_and_back(tiny_model, tmp_path, y):
    fitted = make_regressor(tiny_model, **STRONG).fit(X, y)
    loaded = there_and_back(fitted, tmp_path / "f")

    assert_equal_estimators(loaded, fitted)
    assert loaded.predict(X).shape == y.shape
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))


def test_the_card_of_an_export_says_what_the_numbers_are(tiny_model, tmp_path):
    y = np.column_stack([NUMBERS, 5 - 300 * NUMBERS])
    fitted = make_regressor(tiny_model, **STRONG).fit(X, y)
    fitted.export_lora(tmp_path / "l")
    card = (tmp_path / "l" / "README.md").read_text("utf8")
    found = re.search(r"`output \* (\[.*\]) \+ (\[.*\])`", card)
    scale, mean = map(json.loads, found.groups())

    numbers = fitted._predict_outputs(X) * scale + mean
    np.testing.assert_allclose(numbers, fitted.predict(X))


LABELS = {
    "str": np.array(["no", "yes", "é\n\"'𝄞"]),
    "longer dtype": np.array(["a", "b", "c"], dtype="<U40"),
    "object str": np.array(["no", "yes", "maybe"], dtype=object),
    "int": np.array([10, -3, 2**62]),
    "negative": np.array([-1, 1]),
    "int8": np.array([-128, 0, 127], dtype=np.int8),
    "uint64": np.array([0, 1, 2**64 - 1], dtype=np.uint64),
    "big-endian": np.array([1, 2, 3], dtype=">i4"),
    "bool": np.array([False, True]),
    "float": np.array([-2.0, 0.0, 2.0**60]),
    "float16": np.array([1, 2, 3], dtype=np.float16),
    "float32": np.array([1, 2, 3], dtype=np.float32),
    "longdouble": np.array([1, 2, 3], dtype=np.longdouble),
    "date": np.array(["2020-01-01", "1960-05-05"], dtype="M8[ns]"),
    "day": np.array(["2020-01-01", "1960-05-05"], dtype="M8[D]"),
    "duration": np.array([1, -2], dtype="m8[s]"),
    "list": ["b", "a", "c"],
    "categorical": pd.Categorical(["b", "a", "c"], categories=["c", "b", "a"]),
    "categories of int": pd.Series(pd.Categorical([3, 1, 2])),
    "pandas string": pd.Series(["b", "a", "c"], dtype="string"),
    "pandas Int64": pd.Series([3, 1, 2], dtype="Int64"),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_keep_their_type(fitted, tiny_model, tmp_path, name):
    labels = LABELS[name]
    y = (
        labels * 16
        if isinstance(labels, list)
        else labels.take(np.arange(48) % len(labels))
    )
    fitted = make(tiny_model, epochs=1).fit(X, y)
    loaded = there_and_back(fitted, tmp_path / "f")

    assert loaded.classes_.dtype == fitted.classes_.dtype
    assert [type(c) for c in loaded.classes_] == [type(c) for c in fitted.classes_]
    np.testing.assert_array_equal(loaded.classes_, fitted.classes_)
    predicted = loaded.predict(SAMPLE)
    assert predicted.dtype == fitted.predict(SAMPLE).dtype
    np.testing.assert_array_equal(predicted, fitted.predict(SAMPLE))


def test_several_labels_a_row_there_and_back(tiny_model, tmp_path):
    y = np.eye(3, dtype=int)[np.arange(48) % 3]
    fitted = make(tiny_model, **STRONG).fit(X, y)
    loaded = there_and_back(fitted, tmp_path / "f")

    assert_equal_estimators(loaded, fitted)
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert loaded.predict(X).shape == (48, 3)


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


def test_early_stopping_and_its_scores(tiny_model, tmp_path):
    fitted = make(
        tiny_model, early_stopping=True, scoring="balanced_accuracy", epochs=4
    ).fit(X, Y)
    loaded = there_and_back(fitted, tmp_path / "f")

    assert_equal_estimators(loaded, fitted)
    assert loaded.history_.score
    card = (tmp_path / "f" / "README.md").read_text("utf8")
    best = fitted.history_.score[fitted.history_.best_epoch]
    assert f"Score on the validation rows: {best:.4f}." in card


class Saves:
    """A callback that saves what a fit has after each epoch, and may end the fit."""

    def __init__(self, folder, last):
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
    card = (folder / "README.md").read_text("utf8")
    found = re.findall(r"Score on the validation rows: (.*)\.\n", card)
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
    fitted.set_callbacks(Saves(tmp_path, last=None))
    fitted.fit(X, Y, X_val=X[:12], y_val=np.roll(Y, 1)[:12])  # soon worse, as it learns

    history = fitted.history_
    assert history.best_epoch < history.epochs - 1
    found = [score_on_card(tmp_path / str(k)) for k in range(history.epochs)]
    assert found == pytest.approx(history.score, abs=5e-5)
    kept = AdaLoraClassifier.from_pretrained(tmp_path / str(history.best_epoch))
    assert kept.history_.best_epoch == history.best_epoch


@pytest.mark.parametrize(
    "changed",
    [
        {"class_weight": {"art": 2.0, "business": 1, "sport": np.float32(0.5)}},
        {"class_weight": "balanced"},
        {"target_modules": ["query", "value"]},
        {"target_modules": ("query", "value")},
        pytest.param({"target_modules": {"query", "value"}}, id="target_modules: set"),
        {"target_modules": frozenset({"query"})},
        {"target_r": np.int64(2), "learning_rate": np.float64(0.02)},
        {"epochs": np.int64(2), "init_r": np.int64(3), "deltaT": np.int64(1)},
        {"max_length": np.int64(16), "orth_reg_weight": np.float32(0.25)},
        {"early_stopping": np.bool_(False), "random_state": np.int32(7)},
        {"warm_start": True, "verbose": False, "max_grad_norm": None},
    ],
    ids=str,
)
def test_parameters_keep_their_type(tiny_model, tmp_path, changed):
    fitted = make(tiny_model, **changed).fit(X, Y)
    loaded = there_and_back(fitted, tmp_path / "f")

    for name, value in changed.items():
        assert getattr(loaded, name) == value
        assert type(getattr(loaded, name)) is type(value)
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_labels_that_are_weighted_by_number(tiny_model, tmp_path):
    texts, y = toy(32)
    fitted = make(tiny_model, class_weight={0: 1, 1: 3}).fit(texts, y)

    assert there_and_back(fitted, tmp_path / "f").class_weight == {0: 1, 1: 3}


def test_a_path_becomes_a_str(tiny_model, tmp_path):
    fitted = make(Path(tiny_model)).fit(X, Y)

    assert there_and_back(fitted, tmp_path / "f").model == tiny_model


def test_a_random_state_is_not_saved(tiny_model, tmp_path):
    fitted = make(tiny_model, random_state=np.random.RandomState(3)).fit(X, Y)
    loaded = there_and_back(fitted, tmp_path / "f")

    assert loaded.random_state is None
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def text_of(row):
    return str(row["text"])


def score_of(estimator, X, y):
    return 0.0


@pytest.mark.parametrize("name", ["row_format", "scoring"])
def test_a_function_is_not_written(fitted, tmp_path, name):
    changed = copy.copy(fitted).set_params(
        **{name: text_of if name == "row_format" else score_of}
    )
    match = rf"`{name}` must be a plain value.*function is no plain value.*joblib"
    with pytest.raises(TypeError, match=match):
        changed.save_pretrained(tmp_path / "f")

    assert list(tmp_path.iterdir()) == []


def test_a_mapping_is_written_as_a_dict(fitted, tmp_path):
    weights = collections.UserDict({"art": 2.0, "type": 1.0})  # JSON's has a meaning
    copy.copy(fitted).set_params(class_weight=weights).save_pretrained(tmp_path / "f")
    loaded = AdaLoraClassifier.from_pretrained(tmp_path / "f")

    assert loaded.class_weight == {"art": 2.0, "type": 1.0}


class Side(enum.StrEnum):
    LEFT = "left"
    RIGHT = "right"


LABELS_OF_ONES_OWN = {
    "members of an enum": (np.array([*Side], dtype=object), "Side is no plain value"),
    "masked": (np.ma.array(["a", "b"], mask=[0, 1]), "MaskedArray is no plain value"),
    "a matrix": (np.array([["a", "b"]]).view(np.matrix), "matrix is no plain value"),
    "very long": (np.array(["a" * 2**24, "b"]), "more than 16777216 bytes"),
    "lists": (
        np.array([[1], [2, 3]], dtype=object),
        "objects that are no plain values",
    ),
}


@pytest.mark.parametrize("name", LABELS_OF_ONES_OWN)
def test_labels_that_are_no_plain_values_are_not_written(fitted, tmp_path, name):
    changed = copy.copy(fitted)
    changed.classes_, reason = LABELS_OF_ONES_OWN[name]
    match = rf"`classes_` must be a plain value.*{reason}.*joblib, or fit with plain"
    with pytest.raises(TypeError, match=match) as caught:
        changed.save_pretrained(tmp_path / "f")

    assert len(str(caught.value)) < 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["save_pretrained", "export_lora", "merge_and_save"])
@pytest.mark.parametrize("wrong", [{"max_length": -5}, {"model": None}])
def test_a_parameter_out_of_range_is_not_written(fitted, tmp_path, method, wrong):
    changed, (name,) = copy.copy(fitted).set_params(**wrong), wrong
    with pytest.raises(ValueError, match=f"`{name}` of AdaLoraClassifier must be"):
        getattr(changed, method)(tmp_path / "f")

    assert list(tmp_path.iterdir()) == []


def test_only_what_is_fitted_is_saved(tiny_model, tmp_path):
    for method in ("save_pretrained", "export_lora", "merge_and_save"):
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
    before = dict(vars(fitted))
    expected = fitted.predict_proba(SAMPLE)
    tokenizer = fitted._live.backbone.tokenizer
    settings = dict(tokenizer.init_kwargs)
    fitted.save_pretrained(tmp_path / "f")
    fitted.export_lora(tmp_path / "l")
    fitted.merge_and_save(tmp_path / "m")

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
    loaded = AdaLoraClassifier.from_pretrained(saved, device="cpu", epochs=9)

    assert loaded.epochs == 9
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))
    with pytest.raises(ValueError, match="Invalid parameter 'devise'"):
        AdaLoraClassifier.from_pretrained(saved, devise="cpu")
    with pytest.raises(ValueError, match="`epochs` of AdaLoraClassifier must be"):
        AdaLoraClassifier.from_pretrained(saved, epochs=0)


def test_a_subclass_loads_what_its_estimator_saved(saved, fitted):
    class Mine(AdaLoraClassifier):
        pass

    class More(AdaLoraClassifier):
        more = 1

        @classmethod
        def _get_param_names(cls):
            return [*super()._get_param_names(), "more"]

    for kind in (Mine, More, type("AdaLoraClassifier", (More,), {})):
        loaded = kind.from_pretrained(saved)
        assert type(loaded) is kind
        np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))


def test_a_parameter_that_an_older_version_lacked_has_its_default(fitted, tmp_path):
    folder = tmp_path / "estimator"
    fitted.save_pretrained(folder)
    described = read(folder)
    assert described["parameters"].pop("interpolation")
    write(folder, described)
    loaded = AdaLoraClassifier.from_pretrained(folder)

    assert loaded.interpolation == AdaLoraClassifier().interpolation
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))


class Short(AdaLoraClassifier):
    """A subclass with few parameters."""

    def __init__(self, model="", target_r=1):
        super().__init__(model, target_r=target_r, random_state=0, max_length=32)


def test_a_subclass_with_few_parameters_there_and_back(tiny_model, tmp_path):
    fitted = Short(tiny_model).fit(X, Y)
    fitted.save_pretrained(tmp_path / "f")
    loaded = Short.from_pretrained(tmp_path / "f")

    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))
    assert loaded.trust_remote_code is False
    card = (tmp_path / "f" / "README.md").read_text()
    assert f"from {Short.__module__} import Short\n" in card


# ---- what is in the folder --------------------------------------------------

TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}
ALWAYS = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "sk_adalora.json",
    *TOKENIZER,
}


def test_a_folder_holds_these_files_and_their_hashes(saved):
    assert set(bytes_of(saved)) == ALWAYS | {"head.safetensors"}
    assert set(read(saved)["files"]) == set(bytes_of(saved)) - {
        "README.md",
        "sk_adalora.json",
    }


def test_the_files_of_a_model_with_its_own_head(tiny_model, tmp_path):
    make(tiny_model, pooling="model").fit(X, Y).save_pretrained(tmp_path / "f")

    assert set(bytes_of(tmp_path / "f")) == ALWAYS | {"config.json"}
    config = json.loads((tmp_path / "f" / "config.json").read_text("utf8"))
    assert config["id2label"] == {"0": "art", "1": "business", "2": "sport"}


@pytest.mark.filterwarnings("ignore:.*bfloat16")  # on processors without it
def test_other_programs_load_the_model_in_its_own_precision(tiny_model, tmp_path):
    classifier = make(tiny_model, pooling="model", precision="bfloat16")
    classifier.fit(X, Y).save_pretrained(tmp_path / "f")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "f")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        tiny_model, config=config
    )

    assert base.dtype == torch.float32


def test_nothing_is_pickled(saved):
    assert not [
        name
        for name in bytes_of(saved)
        if not name.endswith((".json", ".md", ".safetensors"))
    ]
    assert not [
        n for n, data in bytes_of(saved).items() if data[:2] in (b"PK", b"\x80\x04")
    ]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("closed", [0o022, 0o027, 0o077])
def test_files_can_be_read_by_whom_the_umask_lets(fitted, tmp_path, closed):
    before = os.umask(closed)
    try:
        fitted.save_pretrained(tmp_path / "f", include_backbone=True)
    finally:
        os.umask(before)

    written = [tmp_path / "f", *(tmp_path / "f").rglob("*")]
    for path in written:
        new = 0o777 if path.is_dir() else 0o666
        assert oct(path.stat().st_mode & 0o777) == oct(new & ~closed), path


def test_the_state_is_for_people(saved):
    text = (saved / "sk_adalora.json").read_text("utf8")
    described = json.loads(text)

    assert described["class"] == "AdaLoraClassifier"
    assert described["fitted"]["classes_"]["values"] == ["art", "business", "sport"]
    assert described["parameters"]["target_r"] == 2
    assert described["versions"] == _file_versions.used_versions()
    lines = len(text.splitlines()) - len(described["settings"])
    assert lines < 150  # a list of numbers is one line


def test_labels_with_much_more_room_than_they_need(tiny_model, tmp_path):
    """As a column of a table of long texts has."""
    y = Y.astype("<U20000")
    fitted = make(tiny_model, epochs=1).fit(X, y)
    fitted.save_pretrained(tmp_path / "f")
    loaded = AdaLoraClassifier.from_pretrained(tmp_path / "f")

    assert fitted.classes_.dtype == "<U20000"
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))


def test_one_long_label_among_many(tiny_model, tmp_path):
    """The array has room for the longest in the place of each: 19 MB here."""
    y = np.array([f"{i % 24}{'x' * 200_000 * (i % 24 == 0)}" for i in range(48)])
    fitted = make(tiny_model, epochs=1).fit(X, y)
    fitted.save_pretrained(tmp_path / "f")
    loaded = AdaLoraClassifier.from_pretrained(tmp_path / "f")

    assert fitted.classes_.nbytes > 16 * 2**20
    np.testing.assert_array_equal(loaded.classes_, fitted.classes_)
    assert (tmp_path / "f" / "sk_adalora.json").stat().st_size < 2**19


def test_room_for_texts_has_a_bound_too(monkeypatch):
    """What is written must be read again, within a bound on memory."""
    labels = np.array(["a" * 200_000, *"bcdefghijklmnopqrstuvwxyz"])
    assert _json_values.to_json(labels)["dtype"] == "<U200000"
    monkeypatch.setattr(_json_values, "_MAX_MEMORY", labels.nbytes - 1)

    with pytest.raises(TypeError, match="an array of more than 16777216 bytes"):
        _json_values.to_json(labels)


def test_a_name_stays_in_its_place_in_the_card(fitted):
    state = replace(fitted._adapter, model="a`\n# <b>Pay</b>\n`")
    changed = copy.copy(fitted)
    changed._adapter = state
    assert "adapter for `a # <b>Pay</b> `\n" in write_card(changed)


def test_the_card(saved, fitted):
    card = (saved / "README.md").read_text("utf8")

    assert card.startswith("---\n")
    assert "library_name: sk-adalora" in card.split("---")[1]
    assert "- peft\n" in card.split("---")[1]
    assert "base_model" not in card  # a folder of this machine
    assert '.from_pretrained("this-folder")' in card
    assert fitted._adapter.content_hash in card
    assert f"\n{lay_out(fitted.ranks_).to_markdown()}\n" in card
    assert "Score" not in card
    snippet = card.split("```python\n")[1].split("```")[0]
    assert snippet.startswith("from sk_adalora import AdaLoraClassifier\n")
    namespace = {}
    exec(snippet.replace("this-folder", str(saved)), namespace)
    assert namespace["estimator"].ranks_ == fitted.ranks_


OWN_HEAD = "The head is that of the model's own architecture"


@pytest.mark.parametrize(
    ("pooling", "merged", "said"),
    [
        ("mean", False, ["get_encoder"]),
        ("mean", True, ["head.safetensors", '"labels"']),
        ("model", False, [OWN_HEAD]),
        ("model", True, [OWN_HEAD]),
    ],
)
def test_the_card_of_an_export_says_where_the_head_is(fitted, pooling, merged, said):
    other = copy.copy(fitted)
    other._adapter = replace(fitted._adapter, pooling=pooling)
    card = write_export_card(other, "text_model", merged=merged)
    phrases = ["get_encoder", "head.safetensors", '"labels"', OWN_HEAD]

    assert [phrase for phrase in phrases if phrase in card] == said
    assert ('.from_pretrained("this-folder").text_model`' in card) == merged


@pytest.mark.parametrize("include_backbone", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_a_saved_estimator_is_no_pretrained_model(
    tiny_model, tmp_path, pooling, include_backbone
):
    fitted = make(tiny_model, pooling=pooling, epochs=1).fit(X, Y)
    fitted.save_pretrained(tmp_path / "e", include_backbone=include_backbone)

    with pytest.raises(ValueError, match="with a fitted estimator"):
        make(tmp_path / "e").fit(X, Y)

    fitted.merge_and_save(tmp_path / "m")
    make(tmp_path / "m").fit(X, Y)


@pytest.mark.parametrize(
    ("n_threads", "shown"), [(1, ", with numpy"), (4, ", by 4 threads, with numpy")]
)
def test_the_card_says_where_the_fit_computed(fitted, n_threads, shown):
    changed = copy.copy(fitted)
    changed.fit_report_ = replace(
        fitted.fit_report_, device="cuda:1", precision="bfloat16", n_threads=n_threads
    )
    assert f"\nTrained in bfloat16 on `cuda:1`{shown} " in write_card(changed)


def test_a_merged_model_is_no_adapter_in_its_card(fitted, tmp_path):
    fitted.export_lora(tmp_path / "l")
    fitted.merge_and_save(tmp_path / "m")
    lora = (tmp_path / "l" / "README.md").read_text("utf8")
    merged = (tmp_path / "m" / "README.md").read_text("utf8")

    assert "- peft\n" in lora
    assert "An AdaLoRA adapter for `" in lora
    assert "peft" not in merged.lower()
    assert "An AdaLoRA update of `" in merged


def test_the_card_names_a_model_of_the_hub(fitted):
    of_hub = copy.deepcopy(fitted)
    of_hub._adapter = replace(
        fitted._adapter, model="someone/some: model", is_folder=False
    )
    assert '\nbase_model: "someone/some: model"\n' in write_card(of_hub)


def test_no_place_of_a_cache_is_told(fitted, tmp_path):
    state = replace(
        fitted._adapter,
        model="someone/model",
        found_in="/home/me/cache",
        is_folder=False,
    )
    other = copy.copy(fitted)
    other._live, other._adapter = fitted._live, state
    other.save_pretrained(tmp_path / "f")

    assert not [
        n for n, data in bytes_of(tmp_path / "f").items() if b"/home/me" in data
    ]
    # Errors about another model say where the former was found.
    loaded = AdaLoraClassifier.from_pretrained(tmp_path / "f")
    assert loaded._adapter.found_in == "someone/model"


# ---- with the pretrained model ----------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_a_complete_folder(tiny_model, tmp_path, pooling):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "secret.txt.bak").write_text("not a part of it")
    fitted = make(str(model), pooling=pooling, **STRONG).fit(X, Y)
    expected = fitted.predict_proba(X)
    fitted.save_pretrained(tmp_path / "f", include_backbone=True)
    described = read(tmp_path / "f")
    assert described["found_in"] == ""  # what it is loaded with lies beside it
    assert "backbone/config.json" in described["files"]
    assert "backbone/model.safetensors" not in described["files"]  # has its own hash
    shutil.rmtree(model)
    sk_adalora.clear_backbone_cache()
    moved = shutil.move(tmp_path / "f", tmp_path / "g")
    loaded = AdaLoraClassifier.from_pretrained(moved)

    assert loaded.model == str(moved / "backbone")
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)
    assert not list(moved.rglob("*.bak"))
    # And on from there.
    again = there_and_back(loaded, tmp_path / "h", include_backbone=True)
    np.testing.assert_array_equal(again.predict_proba(X), expected)


def test_a_complete_folder_is_of_no_commit(fitted, tmp_path):
    """What it is loaded with lies beside it, and not on the hub."""
    of_hub = copy.copy(fitted)
    of_hub._live = fitted._live
    of_hub._adapter = replace(fitted._adapter, is_folder=False, commit="c" * 40)
    commits = []
    for whole in (False, True):
        of_hub.save_pretrained(tmp_path / str(whole), include_backbone=whole)
        commits.append(read(tmp_path / str(whole))["commit"])

    assert commits == ["c" * 40, None]


def test_a_model_in_the_folder_that_changed(tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    make(str(model)).fit(X, Y).save_pretrained(tmp_path / "f", include_backbone=True)
    weights = tmp_path / "f" / "backbone" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    loaded = AdaLoraClassifier.from_pretrained(tmp_path / "f")

    with pytest.raises(ValueError, match="must be the one that the estimator was") as e:
        loaded.predict(X)
    assert str(e.value).count("SHA-256") == 2
    assert str(tmp_path / "f" / "backbone") in str(e.value)
    assert str(model) in str(e.value)


@pytest.fixture
def by_relative_path(tiny_model, tmp_path, monkeypatch):
    """Fitted on a model in "models/mine", where nobody is any more."""
    shutil.copytree(tiny_model, tmp_path / "models" / "mine")
    monkeypatch.chdir(tmp_path)
    fitted = make("models/mine", **STRONG).fit(X, Y)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return fitted


@pytest.mark.parametrize("complete", [False, True])
def test_saving_from_another_directory(by_relative_path, complete):
    by_relative_path.save_pretrained("f", include_backbone=complete)
    sk_adalora.clear_backbone_cache()
    loaded = AdaLoraClassifier.from_pretrained("f")
    expected = by_relative_path.predict_proba(SAMPLE)

    np.testing.assert_array_equal(loaded.predict_proba(SAMPLE), expected)
    loaded.save_pretrained("g")
    for folder in "fg":  # the model is none of the hub's
        assert "base_model" not in Path(folder, "README.md").read_text("utf8")
    again = AdaLoraClassifier.from_pretrained("g")
    np.testing.assert_array_equal(again.predict_proba(SAMPLE), expected)


def test_loading_needs_no_model(saved, fitted, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("loaded")

    monkeypatch.setattr("sk_adalora.estimators.predicting.load_backbone", fail)
    loaded = AdaLoraClassifier.from_pretrained(saved)

    assert loaded.ranks_ == fitted.ranks_
    assert str(loaded.fit_report_) == str(fitted.fit_report_)


@pytest.mark.parametrize("place", ["nowhere", "/nowhere/at/all", "./no", "a/b/c", ""])
def test_a_source_that_is_not_there(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    match = (
        r"`source` must be a folder that.*Got '.*', which is neither.*Check the path"
    )
    with pytest.raises(FileNotFoundError, match=match):
        AdaLoraClassifier.from_pretrained(place)


def test_a_file_is_not_taken_for_a_repository_of_the_hub(tmp_path):
    (tmp_path / "model.joblib").touch()
    match = r"must be a folder.*Got a file, '.*model\.joblib'.*joblib\.load"
    with pytest.raises(NotADirectoryError, match=match):
        AdaLoraClassifier.from_pretrained(tmp_path / "model.joblib")


def test_a_folder_of_something_else(tiny_model, tmp_path):
    match = r"must hold sk_adalora\.json.*in the parameter `model`, for a fit"
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "config.json").symlink_to(f"{tiny_model}/config.json")
    for folder in (tiny_model, tmp_path / "f"):
        with pytest.raises(FileNotFoundError, match=match):
            AdaLoraClassifier.from_pretrained(folder)


# ---- folders that hold the pretrained model ---------------------------------


@pytest.fixture
def complete(fitted, tmp_path):
    """Loaded from a folder that holds its pretrained model, and that folder."""
    folder = tmp_path / "complete"
    fitted.save_pretrained(folder, include_backbone=True)
    loaded = AdaLoraClassifier.from_pretrained(folder)
    loaded.predict(X)
    return loaded, folder


def test_a_complete_folder_stays_complete(fitted, complete):
    loaded, folder = complete
    loaded.save_pretrained(folder, overwrite=True)
    sk_adalora.clear_backbone_cache()
    again = AdaLoraClassifier.from_pretrained(folder)

    assert (folder / BACKBONE / "config.json").is_file()
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


def mapped(folder):
    """Files in a folder that this process has mapped to memory."""
    maps = Path("/proc/self/maps").read_text()
    return [line for line in maps.splitlines() if str(folder) in line]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize("holds", [True, False])
def test_no_file_stays_mapped_where_that_would_hold_it(
    fitted, tmp_path, monkeypatch, holds
):
    """As on Windows, which is pretended here: there, it could not be replaced."""
    monkeypatch.setattr(_read_model, "_MAPS_HOLD_FILES", holds)
    fitted.save_pretrained(tmp_path / "f", include_backbone=True)
    loaded = AdaLoraClassifier.from_pretrained(tmp_path / "f")
    with torch.inference_mode():
        predicted = loaded.predict_proba(X)
    place = Place(torch.device("cpu"), "float32")
    own_head = load_backbone(loaded.model, place, n_labels=2)
    gc.collect()

    assert own_head.module is not loaded._live.backbone.module
    assert bool(mapped(tmp_path)) is not holds
    np.testing.assert_array_equal(predicted, fitted.predict_proba(X))
    loaded.fit(X, Y)


@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("save_pretrained", True),
        ("save_pretrained", False),
        ("merge_and_save", False),
        ("export_lora", False),
    ],
)
def test_a_folder_is_replaced_beside_threads_that_compute_with_what_was_in_it(
    fitted, complete, method, own
):
    """They read the weights where they were, and would not notice that they moved."""
    loaded, folder = complete
    expected = loaded.predict_proba(X)
    weights = [*loaded._live.backbone.module.parameters()]
    before = [weight.data_ptr() for weight in weights]
    getattr(loaded if own else fitted, method)(folder, overwrite=True)

    assert (folder / BACKBONE).exists() is own
    assert [weight.data_ptr() for weight in weights] == before
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)


@pytest.mark.parametrize("method", ["merge_and_save", "export_lora"])
def test_an_export_does_not_replace_its_own_model(complete, method):
    loaded, folder = complete
    before = bytes_of(folder)

    with pytest.raises(ValueError, match="must not be the one that the pretrained"):
        getattr(loaded, method)(folder, overwrite=True)
    assert bytes_of(folder) == before


@pytest.mark.parametrize("inside", ["model", "found_in"])
def test_updates_replace_neither_the_model_of_now_nor_that_of_the_fit(
    complete, tiny_model, inside
):
    loaded, folder = complete
    paths = {
        "model": tiny_model,
        "found_in": tiny_model,
        inside: f"{folder / BACKBONE}",
    }
    loaded.set_params(model=paths["model"])
    loaded._adapter = replace(loaded._adapter, found_in=paths["found_in"])
    before = bytes_of(folder)

    with pytest.raises(ValueError, match="must not be the one that the pretrained"):
        loaded.export_lora(folder, overwrite=True)
    assert bytes_of(folder) == before


# ---- other versions ---------------------------------------------------------


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_another_version_warns_once(saved, tmp_path, monkeypatch, package):
    monkeypatch.setattr(_file_versions, "_warned", set())
    loaded = AdaLoraClassifier.from_pretrained(saved)
    loaded._adapter = replace(
        loaded._adapter, versions={**loaded._adapter.versions, package: "0.1"}
    )
    data = pickle.dumps(loaded)
    with pytest.warns(UserWarning, match=f"trained with {package} 0.1 and runs with"):
        loaded.predict(SAMPLE)

    pickle.loads(data).predict(SAMPLE)  # a warning would fail the test
    AdaLoraClassifier.from_pretrained(saved).predict(SAMPLE)


@pytest.mark.parametrize(
    ("writer", "later"),
    [("0.9.1", True), ("0.10.0", True), ("1.0.0.dev0", True), ("0.9.0.dev0", False)],
)
def test_a_pickle_of_a_later_version_has_another_parameter(
    fitted, monkeypatch, writer, later
):
    """It might change what is predicted. In another file, users have set it."""
    monkeypatch.setattr(_file_versions, "__version__", "0.9.0")
    marked = copy.copy(fitted)
    marked.temperature = 3.0
    versions = fitted._adapter.versions | {"sk-adalora": writer}
    marked._adapter = replace(fitted._adapter, versions=versions)
    pickled = pickle.dumps(marked)

    if later:
        match = r"parameters of AdaLoraClassifier only\. Got \['temp.*Install a newer"
        with pytest.raises(ValueError, match=match):
            pickle.loads(pickled)
    else:
        assert pickle.loads(pickled).temperature == 3.0


def test_a_pickle_of_an_older_version_lacks_a_parameter(fitted):
    older = copy.copy(fitted)
    del older.interpolation, older.beta1
    loaded = pickle.loads(pickle.dumps(older))

    assert loaded.get_params() == fitted.get_params()
    np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))


def test_a_folder_that_others_hold_on_to_is_filled(fitted, tmp_path, monkeypatch):
    """As the current one: it is not replaced, nor opened to others."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    monkeypatch.chdir(private)
    fitted.save_pretrained(".")
    first = AdaLoraClassifier.from_pretrained(".")
    fitted.save_pretrained(".", overwrite=True)

    assert Path.cwd() == private
    assert private.stat().st_mode & 0o777 == 0o700
    assert not list(private.glob(".*"))
    assert os.path.samefile(".", private)
    again = AdaLoraClassifier.from_pretrained(private)
    np.testing.assert_array_equal(again.predict_proba(X), first.predict_proba(X))


def test_an_overwritten_folder_keeps_its_permissions(fitted, tmp_path):
    folder = tmp_path / "model"
    fitted.save_pretrained(folder)
    folder.chmod(0o750)
    fitted.save_pretrained(folder, overwrite=True)

    assert folder.stat().st_mode & 0o777 == 0o750


def test_a_link_is_called_a_link(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "model")
    (tmp_path / "latest").symlink_to(tmp_path / "model")

    with pytest.raises(FileExistsError, match="It is a link: pass what it points to"):
        fitted.save_pretrained(tmp_path / "latest", overwrite=True)


def test_a_mounted_folder_is_filled(fitted, tmp_path, monkeypatch):
    """As the output volume of a container: it cannot be renamed."""
    fitted.save_pretrained(tmp_path / "volume")
    before = (tmp_path / "volume").stat().st_ino
    monkeypatch.setattr(_folder.os.path, "ismount", lambda path: True)
    fitted.save_pretrained(tmp_path / "volume", overwrite=True)

    assert (tmp_path / "volume").stat().st_ino == before
    assert [path.name for path in tmp_path.iterdir()] == ["volume"]
    loaded = AdaLoraClassifier.from_pretrained(tmp_path / "volume")
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
