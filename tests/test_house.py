"""The folders: imports go down only, and little is loaded at first."""

import ast
import graphlib
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from _process import run_python

import sk_adalora

PACKAGE = Path(sk_adalora.__file__).parent
PYPROJECT = PACKAGE.parent / "pyproject.toml"
# From the outside in: a folder imports from those below it.
FOLDERS = (
    "search displays estimators files training network tokens data pretrained runtime "
    "adalora"
).split()
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
MODULES = {name: path for name, path in FILES.items() if name.count(".") == 2}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in FILES.items()}


def imported_by(name):
    """The dotted names that a module imports, in functions too."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = name.split(".")[: -node.level] if node.level else []
            base = ".".join([*here, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from (full if full in FILES else base for full in names)


def ours(name):
    return {dotted for dotted in imported_by(name) if dotted in MODULES}


def test_a_folder_imports_only_from_those_below_it():
    up = [
        (name, other)
        for name in MODULES
        for other in ours(name)
        if FOLDERS.index(other.split(".")[1]) < FOLDERS.index(name.split(".")[1])
    ]

    assert up == []


def test_no_modules_import_each_other_in_a_circle():
    graphlib.TopologicalSorter({name: ours(name) for name in MODULES}).prepare()


def test_the_engine_needs_torch_and_safetensors_only():
    allowed = {*sys.stdlib_module_names, "torch", "safetensors", "sk_adalora"}
    engine = [name for name in FILES if name.startswith("sk_adalora.adalora")]
    loaded = {dotted.split(".")[0] for name in engine for dotted in imported_by(name)}

    assert loaded - allowed <= {"transformers"}  # in a function, for its own layers


def distribution(requirement):
    """The module's name that a requirement brings: "scikit-learn>=1.9" -> sklearn."""
    name = re.match(r"[\w.-]+", requirement).group().replace("-", "_")
    return {"scikit_learn": "sklearn"}.get(name, name)


def test_what_is_imported_is_declared():
    if not PYPROJECT.exists():
        pytest.skip("the package is installed apart from its pyproject.toml")
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    extras = [*project["optional-dependencies"].values()]
    declared = map(distribution, sum(extras, project["dependencies"]))
    imported = {dotted.split(".")[0] for name in FILES for dotted in imported_by(name)}

    known = {*sys.stdlib_module_names, *declared, "sk_adalora"}
    assert imported - known == set()


def test_importing_the_package_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys, time; start = time.process_time(); import sk_adalora; "
        "seconds = time.process_time() - start; dir(sk_adalora); "
        "heavy = 'datasets numpy optuna pandas pyarrow sklearn torch transformers'; "
        "print(seconds, *(set(heavy.split()) & set(sys.modules))); "
        "sk_adalora.AdaLoraSpace; print('torch' in sys.modules)"
    )
    (seconds, *loaded), of_space = map(str.split, run_python(code).stdout.splitlines())

    assert loaded == []
    assert float(seconds) < 0.5
    assert of_space == ["False"]


@pytest.mark.parametrize("home", sorted(set(sk_adalora._HOMES.values())))
def test_public_names_say_that_they_are_of_the_package(home):
    names = [name for name, of in sk_adalora._HOMES.items() if of == home]

    assert {getattr(sk_adalora, name).__module__ for name in names} == {"sk_adalora"}


def test_the_version_has_one_source():
    assert importlib.metadata.version("sk-adalora") == sk_adalora.__version__
