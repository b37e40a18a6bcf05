"""The configuration: PEFT's fields, every rule in its order, and the JSON."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import peft
import pytest
from _tiny import no_warning

from sk_adalora.adalora import AdaLoraConfig, BudgetSchedule

SCHEDULE = {"total_step": 100}

RULES = [
    (
        {"target_modules": 3},
        TypeError,
        r"`target_modules` must be a list of str.*Got 3",
    ),
    ({"exclude_modules": [["a"]]}, TypeError, r"`exclude_modules` .*Got \[\['a'\]\]"),
    ({"modules_to_save": ["a", 1]}, TypeError, r"`modules_to_save` .*Got \['a', 1\]"),
    ({"layers_to_transform": "1"}, TypeError, r"`layers_to.* a list of int.*Got '1'"),
    ({"layers_to_transform": 1.0}, TypeError, r"`layers_to.* a list of int.*Got 1.0"),
    ({"layers_to_transform": [True]}, TypeError, r"`layers_to.*Got \[True\]"),
    (
        {"target_modules": ".*", "layers_to_transform": 1},
        ValueError,
        r"`layers_to_transform` and .* cannot be used when `target_modules`.*'\.\*'",
    ),
    (
        {"target_modules": "all-linear", "layers_pattern": "layer"},
        ValueError,
        r"`layers_pattern` cannot be used when `target_modules` is a str",
    ),
    (
        {"target_modules": ["query"], "layers_pattern": "layer"},
        ValueError,
        r"`layers_pattern` needs `layers_to_transform`. Got.*'layer' alone",
    ),
    ({"modules_to_save": "score"}, TypeError, r"Got the str 'score'. Pass \['score'\]"),
    (
        {"init_lora_weights": "pissa"},
        ValueError,
        r"`init_lora_weights` must be one of .*Got 'pissa'",
    ),
    ({"target_modules": "("}, ValueError, r"`target_modules` must be .*Got '\('"),
    ({"exclude_modules": "["}, ValueError, r"`exclude_modules` must be .*Got '\['"),
    ({"lora_alpha": -1}, ValueError, r"`lora_alpha` .* in \[0, inf\). Got -1"),
    ({"lora_alpha": "8"}, TypeError, r"`lora_alpha` must be a number.*Got '8'"),
    ({"lora_dropout": 1.0}, ValueError, r"`lora_dropout` .* in \[0, 1\)"),
    ({"task_type": "seq_cls"}, ValueError, r"`task_type` must be .*Got 'seq_cls'"),
    ({"revision": 3}, TypeError, r"`revision` must be a str or None. Got 3"),
    ({"total_step": None}, ValueError, r"`total_step` must be given. Got None"),
    ({"total_step": 0}, ValueError, r"`total_step` .* of at least 1. Got 0"),
    ({"total_step": 10.0}, TypeError, r"`total_step` must be an integer.*10.0"),
    ({"total_step": True}, TypeError, r"`total_step` must be an integer.*True"),
    ({"orth_reg_weight": math.nan}, ValueError, r"`orth_reg_weight` .*Got nan"),
    ({"orth_reg_weight": math.inf}, ValueError, r"`orth_reg_weight` .*Got inf"),
    ({"tinit": -1}, ValueError, r"`tinit` .* of at least 0. Got -1"),
    ({"tfinal": -1}, ValueError, r"`tfinal` .* of at least 0. Got -1"),
    (
        {"tinit": 60, "tfinal": 40},
        ValueError,
        r"no step is left.*tinit=60, tfinal=40, total_step=100. Lower",
    ),
    ({"init_r": 0}, ValueError, r"`init_r` .* of at least 1. Got 0"),
    ({"target_r": -1}, ValueError, r"`target_r` .* of at least 0. Got -1"),
    (
        {"target_r": 16},
        ValueError,
        r"`target_r` must be at most `init_r`=12. Got 16. Lower .* or raise",
    ),
    ({"deltaT": 0}, ValueError, r"`deltaT` .* of at least 1. Got 0"),
    ({"beta1": 0.0}, ValueError, r"`beta1` .* in \(0, 1\). Got 0.0"),
    ({"beta1": 1.0}, ValueError, r"`beta1` .* in \(0, 1\). Got 1.0"),
    ({"beta2": None}, TypeError, r"`beta2` must be a number in \(0, 1\). Got None"),
    (
        {"rank_pattern": {"a.query": 3}},
        TypeError,
        r"`rank_pattern` must hold a list of .*Got {'a.query': 3}",
    ),
    ({"rank_pattern": [3]}, TypeError, r"`rank_pattern` must hold .*Got \[3\]"),
]


@pytest.mark.parametrize(("values", "error", "message"), RULES)
def test_each_rule_says_what_it_got(values, error, message):
    with pytest.raises(error, match=message):
        AdaLoraConfig(**{**SCHEDULE, **values})


@pytest.mark.parametrize(
    "values",
    [
        {"target_r": 12},
        {"target_r": 0},
        {"init_r": 1, "target_r": 1},
        {"tinit": 59, "tfinal": 40},
        {"orth_reg_weight": 0},
        {"lora_alpha": 0},
        {"lora_alpha": 0.5},
        {"lora_dropout": 0},
        {"deltaT": 1000},
        {"total_step": 1},
        {"init_lora_weights": "gaussian"},
        {"layers_to_transform": [0], "layers_pattern": "layer"},
        {"target_modules": None, "layers_to_transform": 0},
    ],
)
def test_the_bounds_themselves_are_allowed(values):
    config = AdaLoraConfig(**{**SCHEDULE, **values})

    assert {name: getattr(config, name) for name in values} == values


def test_fields_and_defaults_are_those_of_peft():
    ours, theirs = AdaLoraConfig(total_step=10), peft.AdaLoraConfig(total_step=10)

    for each in dataclasses.fields(ours):
        assert getattr(ours, each.name) == getattr(theirs, each.name), each.name


def test_tasks_are_those_of_peft():
    for task in peft.TaskType:
        assert AdaLoraConfig(**SCHEDULE, task_type=task).task_type == task


def test_the_method_cannot_be_changed():
    assert AdaLoraConfig(total_step=1, peft_type="LORA").peft_type == "ADALORA"


@pytest.mark.parametrize(
    ("alpha", "scale"), [(8, 8 / 4.00001), (0, 4 / 4.00001), (32, 32 / 4.00001)]
)
def test_the_scale_is_constant_and_alpha_zero_stands_for_the_rank(alpha, scale):
    config = AdaLoraConfig(init_r=4, target_r=2, lora_alpha=alpha, total_step=1)

    assert config.scale == pytest.approx(scale, rel=1e-12)


@pytest.mark.parametrize(
    ("given", "target_r"), [({}, 8), ({"init_r": 4}, 2), ({"init_r": 1}, 1)]
)
def test_the_final_rank_follows_a_low_first_one(given, target_r):
    assert AdaLoraConfig(**given, total_step=10).target_r == target_r


def test_what_peft_ignores_in_training_its_file_does_not_mean(tmp_path):
    values = {"init_lora_weights": "gaussian", "total_step": 10}
    without = {"use_rslora": True, "alpha_pattern": {"query": 64}, "r": 4}
    with pytest.warns(UserWarning, match="r"):
        peft.AdaLoraConfig(**values, **without).save_pretrained(tmp_path)

    assert AdaLoraConfig.from_pretrained(tmp_path) == AdaLoraConfig(**values)


@pytest.mark.parametrize(
    "asked",
    [
        {"bias": "lora_only"},
        {"trainable_token_indices": [1, 2]},
        {"target_parameters": ["experts"]},
        {"use_qalora": True},
    ],
)
def test_what_peft_asks_for_beside_adalora_is_named(tmp_path, asked):
    peft.AdaLoraConfig(total_step=10, **asked).save_pretrained(tmp_path)
    (name,) = asked
    with pytest.raises(ValueError, match=rf"or be off\. Got others: {name}\."):
        AdaLoraConfig.from_pretrained(tmp_path)


FULL = {
    "target_modules": ["value", "query"],
    "exclude_modules": ["pooler"],
    "lora_alpha": 32,
    "lora_dropout": 0.1,
    "modules_to_save": ["classifier"],
    "layers_to_transform": [0, 1],
    "layers_pattern": "layer",
    "task_type": "SEQ_CLS",
    "rank_pattern": {"encoder.query.lora_E": [True, False]},
    "init_r": 2,
    "target_r": 1,
    "tinit": 3,
    "tfinal": 4,
    "deltaT": 5,
    "beta1": 0.5,
    "beta2": 0.6,
    "orth_reg_weight": 0.7,
    "total_step": 80,
    "base_model_name_or_path": "somewhere",
    "revision": "main",
    "inference_mode": True,
}


def test_a_dict_holds_plain_values_and_comes_back():
    config = AdaLoraConfig(**FULL)
    values = config.to_dict()

    assert values["target_modules"] == ["query", "value"]
    assert json.loads(json.dumps(values)) == values
    assert AdaLoraConfig.from_dict(values) == config


def test_a_folder_comes_back(tmp_path):
    config = AdaLoraConfig(**FULL)
    config.save_pretrained(tmp_path / "new" / "folder")
    config.save_pretrained(tmp_path / "new" / "folder")  # once more: replaced

    assert AdaLoraConfig.from_pretrained(tmp_path / "new" / "folder") == config
    keys = list(json.loads((tmp_path / "new/folder/adapter_config.json").read_text()))
    assert keys == sorted(keys)


@pytest.mark.parametrize("values", [{"total_step": 10}, FULL], ids=["least", "full"])
def test_a_file_of_peft_is_read_without_a_warning(tmp_path, values):
    reference = peft.AdaLoraConfig(**values)
    reference.save_pretrained(tmp_path)
    with no_warning():
        config = AdaLoraConfig.from_pretrained(tmp_path)

    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    assert AdaLoraConfig.from_dict(stored) == config
    for name in values:
        if name != "inference_mode":
            assert getattr(config, name) == getattr(reference, name)


@pytest.mark.parametrize("values", [{"total_step": 10}, FULL], ids=["least", "full"])
def test_peft_reads_our_file(tmp_path, values):
    config = AdaLoraConfig(**values)
    config.save_pretrained(tmp_path)
    with no_warning():
        reference = peft.AdaLoraConfig.from_pretrained(tmp_path)

    assert isinstance(reference, peft.AdaLoraConfig)
    for name in values:
        assert getattr(reference, name) == getattr(config, name)


def test_fields_of_the_future_are_left_out_where_they_are_off():
    values = AdaLoraConfig(total_step=10).to_dict()
    off = {"new_off": False, "new_none": None, "new_dict": {}}

    assert AdaLoraConfig.from_dict(values | off) == AdaLoraConfig(total_step=10)
    with pytest.raises(ValueError, match=r"Got others: new_switch, zeta\. Train"):
        AdaLoraConfig.from_dict(values | off | {"zeta": {"a": 1}, "new_switch": True})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"adapter_config\.json must be JSON. Got: "),
        ("[" * 100_000, "must be JSON"),
        (b"\xff\xfe\x00", "must be JSON"),
        ("[1]", "must hold a JSON object. Got list"),
        ('{"peft_type": "LORA"}', "must be 'ADALORA'. Got 'LORA'"),
        ('{"peft_type": "IA3"}', "must be 'ADALORA'. Got 'IA3'"),
        ("{}", "`total_step` must be given"),
        ('{"total_step": 5, "tinit": 9}', "no step is left"),
    ],
)
def test_a_broken_file_says_what_is_wrong(tmp_path, text, message):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "adapter_config.json").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        AdaLoraConfig.from_pretrained(tmp_path)


def test_a_missing_file_names_the_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold adapter_config\.json.*nix"):
        AdaLoraConfig.from_pretrained(tmp_path / "nix")


# ---- numbers and names of other kinds -----------------------------------------


def test_numbers_of_numpy_become_plain(tmp_path):
    config = AdaLoraConfig(
        init_r=np.int64(16),
        total_step=np.int32(10),
        orth_reg_weight=np.float32(0.25),
        lora_alpha=np.float64(3),
        target_modules=["query"],
        layers_to_transform=list(np.arange(2)),
        layers_pattern="layer",
    )
    config.save_pretrained(tmp_path)

    assert type(config.init_r) is type(config.total_step) is int
    assert type(config.orth_reg_weight) is type(config.lora_alpha) is float
    assert [type(index) for index in config.layers_to_transform] == [int, int]
    assert AdaLoraConfig.from_pretrained(tmp_path) == config


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("target_modules", np.array(["query"]), {"query"}),
        ("layers_pattern", {"layer"}, ["layer"]),
        ("modules_to_save", {"pooler", "classifier"}, ["classifier", "pooler"]),
        ("init_lora_weights", np.True_, True),
        (
            "base_model_name_or_path",
            Path("models", "base"),
            str(Path("models", "base")),
        ),
    ],
)
def test_values_of_other_kinds_become_plain(tmp_path, name, given, kept):
    options = {"target_modules": ["query"], "layers_to_transform": [0]}
    config = AdaLoraConfig(total_step=10, **{**options, name: given})
    config.save_pretrained(tmp_path)

    assert getattr(config, name) == kept
    assert type(getattr(config, name)) is type(kept)
    assert AdaLoraConfig.from_pretrained(tmp_path) == config


def test_the_schedule_of_some_layers():
    config = AdaLoraConfig(
        init_r=6, target_r=4, tinit=3, tfinal=5, deltaT=2, total_step=20
    )
    steps = {"tinit": 3, "tfinal": 5, "deltaT": 2, "total_step": 20}

    assert config.schedule() == BudgetSchedule(initial=6, target=4, **steps)
    assert config.schedule(7) == BudgetSchedule(initial=42, target=28, **steps)
