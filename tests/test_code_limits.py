"""Functions and files of the package stay short, as CONTRIBUTING.md says."""

import ast
from pathlib import Path

import pytest

import sk_adalora

PACKAGE = Path(sk_adalora.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FUNCTION, FIT, FILE = 40, 25, 350
# It hands on each parameter in a line of its own, and does nothing else.
LONGER = {("_classifier", "__init__")}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def docstring_of(node):
    """The statement that is a docstring, as a list of one, or an empty list."""
    first = node.body[0] if node.body else None
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return [first] if is_text and isinstance(first.value.value, str) else []


def lines_of(nodes):
    return {line for node in nodes for line in range(node.lineno, node.end_lineno + 1)}


def code_lines(source):
    """Numbers of the lines that are neither empty, nor comments, nor docstrings."""
    tree = ast.parse(source)
    kinds = (ast.Module, ast.ClassDef, *FUNCTIONS)
    with_docs = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    docs = lines_of(doc for node in with_docs for doc in docstring_of(node))
    lines = enumerate(source.splitlines(), 1)
    return {n for n, line in lines if line.split("#")[0].strip()} - docs


def lengths_of_functions(source):
    """Mapping {name: lines of code of the body}; of several of a name, the longest."""
    code, lengths = code_lines(source), {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, FUNCTIONS):
            length = len(code & lines_of(node.body))
            lengths[node.name] = max(length, lengths.get(node.name, 0))
    return lengths


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_and_functions_are_short(path):
    source = path.read_text("utf-8")

    assert len(code_lines(source)) <= FILE
    lengths = lengths_of_functions(source)
    long = {(path.stem, name) for name, n in lengths.items() if n > FUNCTION}
    assert long == {key for key in LONGER if key[0] == path.stem}


def test_a_fit_is_a_table_of_contents():
    source = (PACKAGE / "_fitting.py").read_text("utf-8")

    assert lengths_of_functions(source)["_fit"] <= FIT


def test_what_is_counted():
    source = '''"""A file."""

# A comment.
def one(
    a,
):
    """Says.

    More.
    """
    b = a  # why

    # why
    return b
'''

    assert len(code_lines(source)) == 5
    assert lengths_of_functions(source) == {"one": 2}
