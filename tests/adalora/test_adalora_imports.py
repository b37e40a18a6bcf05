"""The engine stands on its own: what it imports, and under which names it is kept."""

import ast
import copy
import graphlib
import pickle
import sys
from pathlib import Path

import pytest
from _tiny import adapted_bert, hidden

import sk_adalora
from sk_adalora import adalora

FOLDER = Path(adalora.__file__).parent
PUBLIC = [
    "AdaLoraConfig",
    "AdaLoraModel",
    "BudgetSchedule",
    "get_peft_model",
]


def imported_by(path):
    """Top packages of others, and modules of the engine, that a file imports."""
    others, own = set(), set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            others.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level < 2, "the engine imports nothing from the rest"
            if node.level == 0:
                others.add(node.module.partition(".")[0])
            elif node.module is None:
                own.update(alias.name for alias in node.names)
            else:
                own.add(node.module)
    return others, own


def test_imports_go_one_way_and_need_torch_and_safetensors_only():
    found = {path.stem: imported_by(path) for path in FOLDER.glob("*.py")}
    others = set().union(*(names for names, _ in found.values()))
    own = {name: names for name, (_, names) in found.items()}

    assert others - set(sys.stdlib_module_names) == {"torch", "safetensors"}
    order = [*graphlib.TopologicalSorter(own).static_order()]  # fails on a circle
    assert order[-1] == "__init__"


@pytest.mark.parametrize("name", PUBLIC)
def test_pickles_do_not_name_the_files_of_the_engine(name):
    public = getattr(sk_adalora, name)

    assert public.__module__ == "sk_adalora"
    assert pickle.loads(pickle.dumps(public)) is public


def test_a_model_is_kept_without_the_files_of_its_public_classes():
    model = adapted_bert()
    stored = pickle.dumps(model)

    for file in (b"adalora.config", b"adalora.model", b"adalora.schedule"):
        assert b"sk_" + file not in stored
    for again in (pickle.loads(stored), copy.deepcopy(model)):
        assert again.peft_config == model.peft_config
        assert (hidden(again) == hidden(model)).all()
