"""Public docstrings are in numpydoc's form, complete, and their examples run."""

import doctest
import importlib
import inspect

import pytest

import sk_adalora
from sk_adalora import adalora as engine

validate = pytest.importorskip("numpydoc.validate").validate
ClassDoc = pytest.importorskip("numpydoc.docscrape").ClassDoc

IGNORED = {
    "ES01",  # no extended summary: one line often says it all
    "SA01",  # no See Also: the API page lists the few names there are
    "EX01",  # no Examples: for classes and functions there is a test below
}


def documented_members(cls):
    """Names of the public methods and properties that the package defines."""
    for name in dir(cls):
        owner = next((c for c in cls.__mro__ if name in vars(c)), None)
        if name.startswith("_") or owner is None:
            continue
        value = vars(owner)[name]
        ours = owner.__module__.split(".")[0] == "sk_adalora"
        kinds = property | classmethod | staticmethod
        if ours and (inspect.isfunction(value) or isinstance(value, kinds)):
            yield name


def targets():
    for name in sk_adalora.__all__:
        yield name
        value = getattr(sk_adalora, name)
        if inspect.isclass(value):
            yield from (f"{name}.{member}" for member in documented_members(value))
    for name in sorted({*engine.__all__} - {*sk_adalora.__all__}):
        if inspect.isfunction(getattr(engine, name)):
            yield f"adalora.{name}"


@pytest.mark.parametrize("target", list(targets()))
def test_it_is_in_the_form_of_numpydoc(target):
    faults = validate(f"sk_adalora.{target}")["errors"]

    assert [fault for fault in faults if fault[0] not in IGNORED] == []


def test_the_estimators_have_the_same_parameters_in_the_same_words():
    both = sk_adalora.AdaLoraClassifier, sk_adalora.AdaLoraRegressor
    classifier, regressor = (
        {p.name: (p.type, p.desc) for p in ClassDoc(cls)["Parameters"]} for cls in both
    )
    given, shared = (dict(inspect.signature(cls).parameters) for cls in both)

    for name in ("class_weight", "calibrate", "thresholds"):
        del classifier[name], given[name]
    assert classifier == regressor
    assert [*given.values()] == [*shared.values()]


@pytest.mark.parametrize("name", sk_adalora.__all__)
def test_classes_and_functions_have_an_example(name):
    assert ">>> " in (getattr(sk_adalora, name).__doc__ or "")


@pytest.mark.parametrize("name", sk_adalora.__all__)
def test_examples(name):
    """pytest looks for them in the module that a class says it is of: not in ours."""
    value = getattr(sk_adalora, name)
    home = importlib.import_module(sk_adalora._HOMES[name], "sk_adalora")
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(verbose=False)
    for test in finder.find(value, name, module=False, globs=vars(home).copy()):
        runner.run(test)

    assert runner.failures == 0
