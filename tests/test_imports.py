"""What the package imports: little at first, one way only, and nothing undeclared."""

import ast
import functools
import importlib.metadata
import os
import platform
import re
import sys
import threading
import tomllib
from pathlib import Path
from typing import ClassVar

import optuna
import pytest
import sklearn
import torch
from _process import run_python
from accelerate.hooks import ModelHook, add_hook_to_module
from optuna.samplers import TPESampler
from optuna.storages.journal import JournalFileBackend
from sklearn.callback import ProgressBar, with_callbacks
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, check_scoring, make_scorer
from sklearn.model_selection import GridSearchCV
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import sk_adalora
from sk_adalora._doc_links import DOCUMENTATION
from sk_adalora._transaction import CALLBACKS

PACKAGE = Path(sk_adalora.__file__).parent
PYPROJECT = PACKAGE.parent / "pyproject.toml"

HEAVY = {"datasets", "optuna", "pandas", "pyarrow", "sklearn", "torch", "transformers"}

# Who imports whom inside the package: each row names rows above it. A module that is
# not in the table fails a test: decide first where it belongs. `adalora` stands for all
# modules of the engine, which import one another.
IMPORTS = {
    "adalora": "adalora",
    "_locks": "",
    "_messages": "_locks adalora",
    "_tokenizer_lock": "_locks",
    "_parameters": "",
    "_transaction": "",
    "_torch_settings": "_locks",
    "_devices": "_locks _messages adalora",
    "_json_values": "",
    "_doc_links": "",
    "_plotting": "",
    "_cells": "",
    "_columns": "_cells",
    "_texts": "_cells _columns _parameters",
    "_rows": "_columns _texts",
    "_token_table": "",
    "_tokens": "_messages _texts _token_table _tokenizer_lock",
    "_long_texts": "_texts _token_table _tokens _tokenizer_lock",
    "_batches": "_token_table",
    "_steps": "adalora.config",
    "_model_files": "_locks",
    "_find_model": "_locks _model_files _parameters",
    "_check_model_files": "_model_files",
    "_model_identity": "",
    "_read_model": "_check_model_files _devices _messages _model_identity",
    "_try_model": "_devices _read_model",
    "_backbone": (
        "_check_model_files _devices _find_model _locks _model_files _model_identity "
        "_read_model _try_model"
    ),
    "_head": "",
    "_network": "_backbone _batches _head _read_model adalora",
    "_learning_rates": "",
    "_training": (
        "_batches _devices _learning_rates _messages _network _token_table adalora"
    ),
    "_linear_probe": "_training",
    "_prepare_head": (
        "_batches _devices _head _linear_probe _network _token_table _training"
    ),
    "_interpolation": "_network",
    "_fit_warnings": "_backbone _messages _network _texts _token_table _training",
    "_report": "_training",
    "_file_versions": "_messages",
    "_persistence": (
        "_backbone _file_versions _find_model _model_identity _network _report _steps "
        "_training adalora"
    ),
    "_rank_table": "",
    "_card": "_persistence _rank_table _report",
    "_folder_files": "_card _model_files adalora",
    "_whole_folder": "_card _folder_files",
    "_predicting": (
        "_backbone _batches _devices _long_texts _network _parameters _persistence "
        "_read_model _texts _token_table _torch_settings"
    ),
    "_early_stopping": "_network _training",
    "_callbacks": "_early_stopping _interpolation _training",
    "_read_folder": (
        "_card _file_versions _find_model _folder_files _json_values _parameters "
        "_persistence adalora"
    ),
    "_write_folder": (
        "_backbone _folder_files _json_values _model_files _persistence "
        "_tokenizer_lock adalora"
    ),
    "_sentence_files": "",
    "_folder": (
        "_backbone _card _folder_files _model_files _parameters _predicting "
        "_read_folder _read_model _sentence_files _torch_settings _whole_folder "
        "_write_folder adalora"
    ),
    "_fitting": (
        "_backbone _callbacks _devices _early_stopping _find_model _fit_warnings "
        "_interpolation _long_texts _messages _network _parameters _persistence "
        "_predicting _prepare_head _rank_table _report _rows _steps _texts "
        "_token_table _torch_settings _training _transaction adalora"
    ),
    "_base": (
        "_doc_links _file_versions _fitting _folder _parameters "
        "_persistence _rank_table _transaction"
    ),
    "_labels": "_cells",
    "_classifier": "_base _labels _parameters _training",
    "_numbers": "",
    "_regressor": "_base _numbers _parameters _rows _training",
    "_draw_ranks": "_plotting _rank_table",
    "_draw_history": "_plotting",
    "_displays": "_base _draw_history _draw_ranks _rank_table adalora",
    "_dimensions": "",
    "_space": "_dimensions _parameters",
    "_optuna_pruning": "_base _early_stopping",
    "_search_digest": "_cells",
    "_search_code": "_search_digest",
    "_search_fingerprint": "_base _dimensions _model_files _search_code _search_digest",
    "_search_marks": "",
    "_search_workers": "_messages _search_marks",
    "_search_pruner": "_messages _search_marks",
    "_search_sampling": "_messages _search_marks _torch_settings",
    "_search_storage": "",
    "_search_study": "_messages _search_fingerprint _search_marks",
    "_search_enqueue": "_base _dimensions _parameters _search_digest _steps",
    "_search_table": "_dimensions _search_marks",
    "_search_plot": "_plotting _search_marks",
    "_search_rules": "_parameters",
    "_search_warnings": "_messages _search_marks _search_table",
    "_search_trials": (
        "_dimensions _search_marks _search_sampling _search_study _search_table "
        "_search_warnings _search_workers"
    ),
    "_search_summary": "_search_table",
    "_search_hooks": (
        "_dimensions _messages _parameters _rows _search_enqueue _search_fingerprint "
        "_search_pruner _search_rules _search_sampling _search_storage _search_study "
        "_search_summary _search_table _search_trials _search_warnings _search_workers "
        "_space _transaction"
    ),
    "_search": (
        "_doc_links _parameters _search_hooks _search_plot _search_study _transaction"
    ),
}
MAY_IMPORT = {name: set(names.split()) for name, names in IMPORTS.items()}
ENGINE_THIRD_PARTY = {"torch", "safetensors"}

# Import name -> distribution, where the two differ by more than "_" and "-".
DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def module_name(path):
    """The module's name inside the package: "_texts", "adalora.config", ""."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
# The package itself imports nothing before it is asked for a name.
INNER_MODULES = [name for name in MODULES if name]


def row_of(name):
    return "adalora" if name.split(".")[0] == "adalora" else name


def imported_by(node, name):
    """The dotted names that an import statement of the module `name` loads."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = [node.module] if node.module else []
    if node.level:
        here = ["sk_adalora", *name.split(".")] if name else ["sk_adalora"]
        levels_up = node.level - (MODULES[name].name == "__init__.py")
        base = here[: len(here) - levels_up] + base
    base = ".".join(base)
    for alias in node.names:
        full = f"{base}.{alias.name}"
        if full.removeprefix("sk_adalora.") in MODULES:
            yield full
        elif full != "sk_adalora.__version__":  # anybody may record it
            yield base


@functools.cache
def tree_of(name):
    """The syntax tree of a module's source, which tests must leave as it is."""
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def imports(name, module_level_only=False):
    """All dotted names that the source of the module `name` imports."""
    tree = tree_of(name)
    if module_level_only:
        nodes = [node for node in tree.body if not is_type_checking(node)]
        # An import in a function waits for the call: it is not at module level.
        nodes = [inner for node in nodes for inner in walk_outside_functions(node)]
    else:
        nodes = list(ast.walk(tree))
    statements = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    return {dotted for node in statements for dotted in imported_by(node, name)}


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def walk_outside_functions(node):
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from walk_outside_functions(child)


def third_party(name, module_level_only=False):
    roots = {dotted.split(".")[0] for dotted in imports(name, module_level_only)}
    return roots - set(sys.stdlib_module_names) - {"sk_adalora"}


def ours(name, module_level_only=False):
    dotted_names = imports(name, module_level_only)
    inner = {d for d in dotted_names if d.split(".")[0] == "sk_adalora"}
    return {dotted.removeprefix("sk_adalora").removeprefix(".") for dotted in inner}


def loaded_with(name, loaded=()):
    """The modules of the package that importing `name` loads, itself included."""
    if name in loaded:
        return loaded
    loaded = {*loaded, name}
    for inner in {name.rpartition(".")[0], *ours(name, module_level_only=True)}:
        loaded = loaded_with(inner, loaded)
    return loaded


def normalised(requirement):
    """Distribution name of a requirement: "Foo_bar[x]>=1" -> "foo-bar"."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement).group()
    return re.sub(r"[-_.]+", "-", name).lower()


def distribution_of(module):
    return normalised(DISTRIBUTIONS.get(module, module))


@pytest.fixture(scope="module")
def project():
    if not PYPROJECT.exists():
        pytest.skip("the package is installed apart from its pyproject.toml")
    return tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]


def test_importing_the_package_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys, time; start = time.process_time(); import sk_adalora; "
        "seconds = time.process_time() - start; dir(sk_adalora); "
        "roots = {name.split('.')[0] for name in sys.modules}; "
        f"print(seconds, *sorted(roots & {HEAVY}))"
    )
    runs = [run_python(code).stdout.split() for _ in range(3)]

    assert all(loaded == [] for _, *loaded in runs)
    assert min(float(seconds) for seconds, *_ in runs) < 0.5


FIRST_IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(f"sk_adalora{name}")
    print(name, "torch" in sys.modules)
    for loaded in [n for n in sys.modules if n.split(".")[0] == "sk_adalora"]:
        del sys.modules[loaded]
"""


@pytest.fixture(scope="module")
def torch_after():
    """Whether torch is loaded after a module was the first import, by module.

    One interpreter forgets ours after each. What it keeps is of other packages: so
    those that load least come first, and find nothing that they did not import.
    """
    homes = set(sk_adalora._HOMES.values())
    homes = sorted(homes, key=lambda home: len(loaded_with(home.removeprefix("."))))
    lines = run_python(FIRST_IMPORTS, *homes).stdout.splitlines()
    return dict(line.split() for line in lines)


def test_each_public_module_can_be_the_first_import(torch_after):
    assert torch_after.keys() == set(sk_adalora._HOMES.values())


def test_a_space_is_imported_without_torch(torch_after):
    assert torch_after["._space"] == "False"


@pytest.mark.parametrize("name", INNER_MODULES)
def test_imports_go_one_way(name):
    assert row_of(name) in MAY_IMPORT, (
        f"{name} is not in IMPORTS. Got a new module. Add its row, after deciding "
        "which modules it stands above."
    )
    allowed = MAY_IMPORT[row_of(name)]
    refused = {m for m in ours(name) if m not in allowed and row_of(m) not in allowed}

    assert not refused, f"{name} imports {sorted(refused)}, but may only {allowed}"
    unused = allowed - ours(name) - set(map(row_of, ours(name)))
    assert not unused or row_of(name) == "adalora", f"{name} imports no {unused}"


def test_the_rows_of_the_import_table_name_rows_above():
    above = set()
    for row, names in MAY_IMPORT.items():
        below = {row_of(name) for name in names} - above - {row}
        assert not below, f"{row} is above {sorted(below)}"
        above.add(row)


@pytest.mark.parametrize("name", [n for n in INNER_MODULES if row_of(n) == "adalora"])
def test_the_engine_needs_torch_and_safetensors_only(name):
    assert third_party(name) <= ENGINE_THIRD_PARTY


@pytest.mark.parametrize("name", INNER_MODULES)
def test_what_a_module_imports_is_declared(name, project):
    always = {normalised(requirement) for requirement in project["dependencies"]}
    extras = project["optional-dependencies"].values()
    on_request = {normalised(requirement) for extra in extras for requirement in extra}

    at_once = {distribution_of(m) for m in third_party(name, module_level_only=True)}
    at_all = {distribution_of(m) for m in third_party(name)}

    assert at_once <= always
    assert at_all <= always | on_request


def test_the_version_has_one_source():
    assert importlib.metadata.version("sk-adalora") == sk_adalora.__version__


def test_estimators_link_to_the_documentation_that_the_project_declares(project):
    assert project["urls"]["Documentation"] == DOCUMENTATION


@pytest.mark.parametrize("name", MODULES)
def test_the_package_prints_nothing(name):
    tree = tree_of(name)
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]

    assert not [f.lineno for f in calls if isinstance(f, ast.Name) and f.id == "print"]


@pytest.mark.parametrize("name", MODULES)
def test_no_file_names_a_path_of_one_machine(name):
    source = MODULES[name].read_text(encoding="utf-8")

    # An absolute path of two parts or more, in quotes or between spaces.
    assert re.findall(r"(?<=[\s\"'`(=])/[a-z][\w.-]*/[\w./-]+", source) == []


def own_names(tree):
    """Names that a module defines or assigns."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def names_read(tree):
    """Names that a module imports from others, or reads, by string or as attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.Constant) and re.fullmatch(r"_\w+", str(node.value)):
            yield node.value


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def listed_names():
    """The last parts of the names in the table of the page on dependencies."""
    page = (PYPROJECT.parent / "docs" / "dependencies.md").read_text("utf-8")
    table = page.partition("## Private names")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"`([\w.]+)`", row[2])}
    return {name.rpartition(".")[2] for name in named} - {"_search", "BaseSearchCV"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OTHER", "", "3000"),
        ("GOMP_SPINCOUNT", "5", "5"),
        ("OMP_WAIT_POLICY", "x", "-"),
    ],
)
def test_threads_that_wait_sleep_soon_unless_told_otherwise(name, value, expected):
    code = f"""
import os, sys
for known in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
    os.environ.pop(known, None)
os.environ[{name!r}] = {value!r}
import sk_adalora
print(os.environ.get("GOMP_SPINCOUNT", "-"), "torch" in sys.modules)
"""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        expected = expected.replace("3000", "-")

    assert run_python(code).stdout.split() == [expected, "False"]


def test_private_names_of_other_packages_are_listed():
    sources = [path.read_text("utf-8") for path in MODULES.values()]
    trees = [tree_of(name) for name in MODULES]
    own = {name for tree in trees for name in own_names(tree)}
    read = {name for tree in trees for name in names_read(tree) if is_private(name)}
    words = set(re.findall(r"\w+", "\n".join(sources)))

    # A namespace, the end of a text, and an entry of config.json.
    others = {"_C", "_label_classification", "_name_or_path"}

    assert read - own - others - listed_names() == set()
    assert listed_names() - words == set()


def holders(folder):
    """Mapping {what has them: private names that the page lists}."""
    search = GridSearchCV(LogisticRegression(), {"C": [1]}, cv=2)
    search.fit([[0], [1]] * 2, [0, 1] * 2)
    words = Tokenizer(WordLevel({"a": 0}, unk_token="a"))
    study = optuna.create_study()
    found = [
        (sklearn.utils, "_safe_indexing"),
        (sklearn.utils.validation, "_num_samples _check_sample_weight"),
        (LogisticRegression, "_get_param_names _doc_link_template _doc_link_module"),
        (LogisticRegression, "_init_callback_context"),
        (search, "_run_search _format_results _select_best_index _checked_cv_orig"),
        (search, "_check_refit_for_multimetric _get_scorers"),
        (search, "_get_routed_params_for_fit"),
        (check_scoring(LogisticRegression(), ["accuracy", "recall"]), "_scorers"),
        (make_scorer(accuracy_score), "_score_func _sign _kwargs _response_method"),
        (study, "_storage _get_trials"),
        (study.ask(), "_trial_id"),
        (TPESampler(), "_random_sampler"),
        (JournalFileBackend(str(folder / "journal")), "_file_path _lock"),
        (torch._C, "_current_graph_task_id _are_functorch_transforms_active"),
        (torch.nn.Linear(1, 1), "_forward_hooks _forward_pre_hooks _parameters"),
        (torch.nn.Linear(1, 1), "_modules _get_name"),
        (torch.nn.Linear(1, 1), "_backward_hooks _backward_pre_hooks"),
        (torch.nn.modules.module, "_IncompatibleKeys"),
        (add_hook_to_module(torch.nn.Linear(1, 1), ModelHook()), "_hf_hook"),
        (PreTrainedModel, "_hf_peft_config_loaded"),
        (PreTrainedTokenizerFast(tokenizer_object=words), "_tokenizer"),
        (sys, "_getframe"),
    ]
    if torch.backends.mkldnn.is_available():  # without it, torch's products are taken
        names = "_linear_pointwise _is_mkldnn_bf16_supported"
        found.append((torch.ops.mkldnn, names))
    if not hasattr(torch.cpu, "get_capabilities"):  # which would be asked first
        names = "_is_avx512_bf16_supported _is_amx_tile_supported"
        found.append((torch.cpu, names))
    if hasattr(os, "register_at_fork"):  # Windows does not fork
        found.append((threading.Lock(), "_at_fork_reinit"))
    return [(holder, names.split()) for holder, names in found]


def test_private_names_of_other_packages_exist(tmp_path):
    found = holders(tmp_path)
    missing = [n for holder, names in found for n in names if not hasattr(holder, n)]
    looked_for = {name for _, names in found for name in names}

    assert missing == []
    assert looked_for - listed_names() == set()


class Seen(LogisticRegression):
    """Notes which attributes it has while it is fitted."""

    names: ClassVar[set] = set()

    @with_callbacks
    def fit(self, X, y):
        self._init_callback_context()
        self.names.update(vars(self))
        return super().fit(X, y)


def test_scikit_learn_keeps_its_callbacks_under_the_listed_names():
    search = GridSearchCV(Seen(), {"C": [1]}, cv=2).set_callbacks(ProgressBar())
    search.fit([[0], [1]] * 2, [0, 1] * 2)

    assert set(CALLBACKS) <= listed_names()
    assert set(CALLBACKS) <= Seen.names
