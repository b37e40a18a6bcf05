"""Values that adapter_config.json must not have: a clear error each."""

import json

import numpy as np
import pytest
from _hostile import CONFIG, LAYER, X, assert_refused, put

from sk_adalora import AdaLoraClassifier

FLAGS = ("rank_pattern", f"{LAYER}.lora_E")


def flags(change):
    """A change of the flags of one layer."""
    return lambda values: put(*FLAGS, value=change(values[FLAGS[0]][FLAGS[1]]))(values)


CONFIGS = {
    "a flag too few": (flags(lambda f: f[:-1]), "3 flags for|`init_r`=3 flags"),
    "flags 0 and 1": (flags(lambda f: [int(x) for x in f]), "true and false"),
    "flags turned round": (flags(lambda f: [not x for x in f]), "`init_r`=3 flags"),
    "flags of null": (put(*FLAGS, value=None), "true and false"),
    "flags as text": (put(*FLAGS, value="TTT"), "true and false"),
    "a list of flags": (put("rank_pattern", value=[True]), "true and false"),
    "a layer without flags": (put(*FLAGS, value=...), "no flags"),
    "no pattern": (put("rank_pattern", value=None), "no pattern"),
    "a huge rank": (put("init_r", value=10**12), "`init_r`"),
    "a huge rank, no pattern": (
        lambda values: values.update(init_r=10**12, rank_pattern=None),
        "`init_r`",
    ),
    "a rank of 0": (put("init_r", value=0), "`init_r`"),
    "a rank of text": (put("init_r", value="3"), "`init_r`"),
    "target above init": (put("target_r", value=99), "`target_r` must be at most"),
    "alpha of text": (put("lora_alpha", value="8"), "`lora_alpha`"),
    "a negative alpha": (put("lora_alpha", value=-1), "`lora_alpha`"),
    "dropout of 1": (put("lora_dropout", value=1.0), "`lora_dropout`"),
    "biases": (put("bias", value="all"), "bias"),
    "another method": (put("peft_type", value="LORA"), "`peft_type`"),
    "a method that is a list": (put("peft_type", value=[1]), "`peft_type`"),
    "DoRA": (put("use_dora", value=True), "use_dora"),
    "code": (put("trust_remote_code", value=True), "trust_remote_code"),
    "a schedule without steps": (put("total_step", value=0), "`total_step`"),
    "a schedule of text": (put("total_step", value="9"), "`total_step`"),
    "a schedule that is full": (put("tinit", value=10**9), "`tinit`"),
    "beta of 2": (put("beta1", value=2.0), "`beta1`"),
    "a task that is a list": (put("task_type", value=[1]), "`task_type`"),
    "modules as text": (put("modules_to_save", value="classifier"), "modules_to"),
    "modules as numbers": (put("modules_to_save", value=[1]), "modules_to_save"),
    "initial values of text": (put("init_lora_weights", value="evil"), "init_lora"),
    "a model that is a list": (put("base_model_name_or_path", value=[]), "base_model"),
}


@pytest.mark.parametrize("case", CONFIGS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_hostile_config_is_refused(folder, case):
    change, match = CONFIGS[case]
    values = json.loads((folder / CONFIG).read_text("utf8"))
    change(values)
    (folder / CONFIG).write_text(json.dumps(values), "utf8")

    assert_refused(folder, match)


@pytest.mark.parametrize(
    "changed",
    [
        {"auto_mapping": {"base_model_class": "X", "parent_library": "evil_module"}},
        {"target_modules": "(((a+)+)+)+$"},
        {"target_modules": ["evil"], "exclude_modules": "(a+)+$"},
        {"layers_to_transform": [99], "layers_pattern": "(a+)+$"},
        {"modules_to_save": ["evil"]},
    ],
    ids=str,
)
def test_settings_that_are_not_followed(folder, fitted, changed):
    values = json.loads((folder / CONFIG).read_text("utf8")) | changed
    (folder / CONFIG).write_text(json.dumps(values), "utf8")
    loaded = AdaLoraClassifier.from_pretrained(folder)

    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
